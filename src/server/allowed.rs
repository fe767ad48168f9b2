//! Which posts may exist.

use crate::{
    error::{Error, Result},
    likes::sync::{Arc, Mutex, lock},
    store::change::{NameError, Post},
};
use std::{collections::HashSet, fs, path::Path};

/// Refused posts that are logged, each once. Whoever asks can make up more.
const LOGGED: usize = 100;

/// The posts that may exist, besides the default counter; shared by cloning.
///
/// A post is named as it is, byte for byte. One that ends with `*` stands for all posts that begin with what is before
/// that.
///
/// ```
/// use live_likes::AllowedPosts;
///
/// let allowed = AllowedPosts::new(["hello", "blog/*"])?;
/// allowed.replace(&AllowedPosts::new(["blog/*"])?); // from now on, on each server that has a clone
/// # Ok::<(), live_likes::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct AllowedPosts {
    list: Arc<Mutex<List>>,
}

#[derive(Clone, Debug, Default)]
struct List {
    names: HashSet<Post>,
    prefixes: Vec<String>,
    /// Posts that have been refused, and that has been logged.
    logged: HashSet<Post>,
}

impl AllowedPosts {
    /// A list of these posts.
    ///
    /// # Errors
    ///
    /// [`Error::BadName`] where one can be no post's name.
    pub fn new(names: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Self> {
        let mut list = List::default();
        names.into_iter().try_for_each(|name| list.add(name.as_ref())).map_err(Error::BadName)?;
        Ok(Self { list: Arc::new(Mutex::new(list)) })
    }

    /// Reads a list from a file of UTF-8: a post a line. Empty lines are skipped, and lines that begin with `#`.
    ///
    /// # Errors
    ///
    /// [`Error::PostList`] where the file cannot be read; and with the number of the line, where one can be no post's
    /// name.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let list = fs::read(path).map_err(|e| e.to_string()).and_then(|text| List::parse(&text));
        let list = list.map_err(|problem| Error::PostList { path: path.to_owned(), problem })?;
        Ok(Self { list: Arc::new(Mutex::new(list)) })
    }

    /// Puts another list in the place of this one, for all clones. Clients who watch a post that is not in it go on to,
    /// but their likes of it are refused.
    pub fn replace(&self, other: &Self) {
        let list = lock(&other.list).clone();
        *lock(&self.list) = list;
    }

    /// Whether a post is in the list. Logs it where it is not.
    pub(crate) fn has(&self, post: &Post) -> bool {
        let mut list = lock(&self.list);
        if list.has(post) {
            return true;
        }
        let is_new = list.logged.len() < LOGGED && list.logged.insert(post.clone());
        drop(list);
        if is_new {
            log::warn!("refused the post {post:?}, which is not among those that may exist");
        }
        false
    }

    /// Keeps of these posts those in the list.
    pub(crate) fn filter<T>(&self, posts: &mut Vec<(Post, T)>) {
        let list = lock(&self.list);
        posts.retain(|(post, _)| list.has(post));
    }

    /// Whether a post is in the list under its own name.
    pub(crate) fn names(&self, post: &Post) -> bool {
        lock(&self.list).names.contains(post)
    }
}

impl List {
    fn parse(text: &[u8]) -> Result<Self, String> {
        let mut list = Self::default();
        // Some editors put a byte order mark before the first line.
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        for (number, line) in (1..).zip(text.split(|byte| *byte == b'\n')) {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            let name = str::from_utf8(line).map_err(|_| format!("line {number} is not valid UTF-8"))?;
            list.add(name).map_err(|problem| format!("line {number}: {problem}"))?;
        }
        Ok(list)
    }

    fn add(&mut self, name: &str) -> Result<(), NameError> {
        match name.strip_suffix('*') {
            Some(prefix) => {
                if !prefix.is_empty() {
                    Post::new(prefix)?;
                }
                self.prefixes.push(prefix.to_owned());
            }
            None => _ = self.names.insert(Post::new(name)?),
        }
        Ok(())
    }

    fn has(&self, post: &Post) -> bool {
        self.names.contains(post) || self.prefixes.iter().any(|prefix| post.name().starts_with(prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(list: &List, name: &str) -> bool {
        list.has(&Post::new(name).unwrap())
    }

    #[test]
    fn a_list_has_the_posts_of_its_lines_and_those_that_begin_so() {
        let text = "\u{feff}hello\r\n\n# a comment\nblog/*\na*b\n two \n\u{f6}".as_bytes();
        let list = List::parse(text).unwrap();
        for name in ["hello", "blog/", "blog/1", "blog/*", "a*b", " two ", "\u{f6}"] {
            assert!(has(&list, name), "{name}");
        }
        for name in ["hell", "hello ", "hello\u{a0}", "Hello", "blog", "a", "aXb", "two", "# a comment", "o\u{308}"] {
            assert!(!has(&list, name), "{name}");
        }
        assert!(has(&List::parse(b"*").unwrap(), "anything"));
        assert!(!has(&List::parse(b"").unwrap(), "anything"));
    }

    #[test]
    fn a_line_that_can_be_no_post_is_refused_by_its_number() {
        let long = format!("\n{}\n", "x".repeat(201));
        for (text, told) in [
            (&b"hello\n\xff\n"[..], "line 2 is not valid UTF-8"),
            (
                b"hello\n# more\nbl\tog*",
                "line 3: the name of a post holds no control characters, and this one holds U+0009",
            ),
            (long.as_bytes(), "line 2: the name of a post has at most 200 bytes, and this one has 201"),
        ] {
            assert_eq!(List::parse(text).unwrap_err(), told);
        }
        assert!(matches!(AllowedPosts::new(["a", ""]), Err(Error::BadName(NameError::Empty))));
    }

    #[test]
    fn of_refused_posts_the_first_100_are_logged() {
        let allowed = AllowedPosts::new(["hello"]).unwrap();
        for number in (0..1000).chain(0..1000) {
            assert!(!allowed.has(&Post::new(&number.to_string()).unwrap()));
        }
        assert_eq!(lock(&allowed.list).logged.len(), LOGGED);
    }
}
