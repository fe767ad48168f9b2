//! A store for an operator, beside the server that has it open or without one.

use super::{
    Kind, StoreLimits,
    change::{Change, ChangeKind, Count, Outcome, Post, Refused},
    kind_of,
    permissions::Permissions,
    text::{FileStore, beside, folder_of, follow, read, remove_if_there, sync_folder},
};
use crate::error::{Error, Result};
use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io,
    ops::ControlFlow,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// A store for an operator.
///
/// A server that has the store open goes on: reading is safe beside it, and it shows what is changed here within two
/// seconds. A text file cannot be changed beside a server, which would overwrite it.
///
/// A program that has the store open as a [`Server`](crate::Server) or as [`Posts`](crate::Posts) uses these instead.
pub trait Admin: Send {
    /// The count of a post. A post that is not kept has no likes.
    ///
    /// # Errors
    ///
    /// [`Error::OneCounter`], [`Error::NotRead`]
    fn count(&mut self, post: &Post) -> Result<Count>;

    /// The most liked posts, as [`Posts::top`](crate::Posts::top) tells them.
    ///
    /// # Errors
    ///
    /// [`Error::OneCounter`], [`Error::NotRead`]
    fn top(&mut self, most: usize) -> Result<Vec<(Post, Count)>>;

    /// How many changes [`apply`](Self::apply) takes at a time, or should be given: a server saves nothing meanwhile.
    fn most_changes(&self) -> usize {
        10_000
    }

    /// Makes all of these changes durable, or none of them where one is refused.
    ///
    /// # Errors
    ///
    /// [`NotApplied`]: the change that was refused, with [`Error::Refused`] or [`Error::OneCounter`]; or of all of them
    /// [`Error::NotSaved`], [`Error::Stopped`] where it is not known whether they were made, and of a text file
    /// [`Error::Database`] where a server has it open.
    fn apply(&mut self, changes: &[Change]) -> Result<Vec<Outcome>, NotApplied>;

    /// Tells the changes that make an empty store the same as this one is at this moment, until it is told to stop.
    ///
    /// They come one by one, the most liked post first, and no more than one is held in memory. Of each post, the count
    /// comes as a [`ChangeKind::Set`]; before it, if `visitors` are asked for, each of its visitors as a
    /// [`ChangeKind::Visitor`], those too who like it no longer and have a `seq`. A post without likes is told only with
    /// `visitors`. Versions are not told: another store has its own.
    ///
    /// # Errors
    ///
    /// [`Error::NotRead`]
    fn export(&mut self, visitors: bool, tell: &mut dyn FnMut(Change) -> ControlFlow<()>) -> Result<()>;

    /// Copies the store into a new file, whole, as it is at this moment, durable, and with the permissions of the
    /// store's own file. A server may go on meanwhile.
    ///
    /// # Errors
    ///
    /// [`Error::Database`], which names the new file, where there is a file already or it cannot be written.
    fn back_up(&mut self, file: &Path) -> Result<()>;
}

/// Changes of which none was made.
#[derive(Debug)]
pub struct NotApplied {
    /// The place of the one that cannot be made, from 0; `None` where the problem is none of a single change.
    pub place: Option<usize>,
    /// What is wrong.
    pub error: Error,
}

impl fmt::Display for NotApplied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.error, f)
    }
}

impl std::error::Error for NotApplied {}

impl From<Error> for NotApplied {
    fn from(error: Error) -> Self {
        Self { place: None, error }
    }
}

impl NotApplied {
    pub(super) fn at(place: usize, error: Error) -> Self {
        Self { place: Some(place), error }
    }
}

/// Opens a store that exists for an operator: the one that [`open_store`](crate::open_store) would open under this
/// name. No server is kept out. The limits hold for what is changed.
///
/// # Errors
///
/// [`Error::Database`] where there is no store, where it is not usable, or where this build has no store of that kind.
pub fn open_admin(name: impl AsRef<Path>, limits: StoreLimits) -> Result<Box<dyn Admin>> {
    let path = name.as_ref();
    let refused = |problem| Error::Database { path: path.to_owned(), problem };
    match kind_of(path)? {
        #[cfg(feature = "sqlite")]
        Kind::Sqlite => Ok(Box::new(super::sqlite::admin::SqliteAdmin::open(path, limits).map_err(refused)?)),
        #[cfg(feature = "redis")]
        Kind::Redis => Ok(Box::new(super::redis::admin::RedisAdmin::open(path, limits)?)),
        Kind::Text => {
            let StoreLimits { .. } = limits;
            let text = TextAdmin(path.to_owned());
            text.total().map_err(refused)?;
            Ok(Box::new(text))
        }
    }
}

/// A text file, which is opened for each use.
struct TextAdmin(PathBuf);

impl TextAdmin {
    fn total(&self) -> Result<u64, String> {
        read(&follow(&self.0)?)?.ok_or_else(|| "there is no such file".to_owned())
    }
}

impl Admin for TextAdmin {
    fn count(&mut self, post: &Post) -> Result<Count> {
        if !post.is_default() {
            return Err(Error::OneCounter);
        }
        self.total().map(|likes| Count { likes, version: likes }).map_err(Error::NotRead)
    }

    fn top(&mut self, _: usize) -> Result<Vec<(Post, Count)>> {
        Err(Error::OneCounter)
    }

    fn apply(&mut self, changes: &[Change]) -> Result<Vec<Outcome>, NotApplied> {
        let mut store = FileStore::open(&self.0)?;
        let (mut total, mut outcomes) = (store.total(), Vec::new());
        for (place, change) in changes.iter().enumerate() {
            let refused = |refused| NotApplied::at(place, Error::Refused(refused));
            total = match change.kind {
                _ if !change.post.is_default() => return Err(NotApplied::at(place, Error::OneCounter)),
                ChangeKind::Set(likes) => likes,
                ChangeKind::Delete => 0,
                ChangeKind::Likes(likes) => total.checked_add(likes).ok_or_else(|| refused(Refused::Likes))?,
                ChangeKind::Visitor { .. } => return Err(refused(Refused::Visitors)),
            };
            outcomes.push(Outcome::Applied(Count { likes: total, version: total }));
        }
        store.save(total)?;
        Ok(outcomes)
    }

    fn export(&mut self, visitors: bool, tell: &mut dyn FnMut(Change) -> ControlFlow<()>) -> Result<()> {
        let likes = self.total().map_err(Error::NotRead)?;
        if likes > 0 || visitors {
            let _ = tell(Change { post: Post::default(), kind: ChangeKind::Set(likes) });
        }
        Ok(())
    }

    fn back_up(&mut self, file: &Path) -> Result<()> {
        let total = self.total().map_err(Error::NotRead)?;
        copy_to(file, &self.0, |new| fs::write(new, total.to_string()).map_err(|e| e.to_string()))
    }
}

/// Makes a new file that is a copy of a store's: `write` fills one that is empty, and it comes into its place whole.
pub(super) fn copy_to(new: &Path, store: &Path, write: impl FnOnce(&Path) -> Result<(), String>) -> Result<()> {
    let refused = |problem| Error::Database { path: new.to_owned(), problem };
    if fs::symlink_metadata(new).is_ok() {
        return Err(refused("there is such a file already; choose another name, or remove it".to_owned()));
    }
    let name = new.file_name().ok_or_else(|| refused("it names no file".to_owned()))?;
    let temporary = beside(new, name, ".tmp");
    let put = || -> Result<(), String> {
        let told = |e: io::Error| format!("cannot write it: {e}");
        // Closed to others until it has the permissions of the store, for it holds what that holds.
        remove_if_there(&temporary).map_err(told)?;
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary).map_err(told)?;
        write(&temporary)?;
        if let Some(permissions) = Permissions::of(store).map_err(told)? {
            permissions.give_to(&file).map_err(told)?;
        }
        file.sync_all().and_then(|()| fs::rename(&temporary, new)).map_err(told)?;
        File::open(folder_of(new)).and_then(|folder| sync_folder(&folder)).map(drop).map_err(told)
    };
    put().map_err(|problem| {
        let _ = remove_if_there(&temporary);
        refused(problem)
    })
}
