//! A client that speaks JSON, watches posts on behalf of a visitor, and is shown nothing that is not durable.

use crate::{
    database::Database,
    likes::{
        Answer, Likes, Posts, Registration,
        dialect::{Dialect, text_frame},
        outbox::{
            Outbox, Standing,
            tests::{Pipe, Scripted},
        },
    },
    store::change::{ChangeKind, Count, Post, VisitorKey},
};
use std::{
    collections::{HashMap, HashSet},
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

pub(crate) struct Client {
    screen: Arc<Screen>,
    outbox: Arc<Outbox>,
    visitor: &'static str,
    /// The posts that are not watched any more, and how many counts of each had been shown by then.
    unwatched: Mutex<HashMap<Post, usize>>,
    /// How many changes were sent, and how many of them were taken.
    sent: AtomicU64,
    taken: AtomicUsize,
}

/// A post that is watched.
pub(crate) struct Watch(Likes, Registration);

/// What a client is told.
struct Frame {
    /// What it answers, if it is no count.
    reference: Option<u64>,
    post: Post,
    count: Count,
    liked: Option<bool>,
    boot: bool,
}

impl Frame {
    fn of(text: &str) -> Option<Self> {
        let object: serde_json::Value = serde_json::from_str(text).unwrap();
        let number = |name: &str| object[name].as_u64();
        let post = Post::kept(object["post"].as_str().unwrap_or_default());
        let count = Count { likes: number("numLikes")?, version: number("version")? };
        let (liked, boot) = (object["liked"].as_bool(), object.get("boot").is_some());
        Some(Self { reference: number("ref"), post, count, liked, boot })
    }
}

/// A pipe that holds what goes through it against the database at once.
struct Screen {
    pipe: Arc<Pipe>,
    database: Arc<Database>,
    seen: AtomicUsize,
}

impl Scripted for Screen {
    fn send_now(&self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.pipe.send_now(bytes)?;
        let frames = self.pipe.frames();
        for frame in frames[self.seen.swap(frames.len(), Ordering::Relaxed)..].iter().filter_map(|text| Frame::of(text))
        {
            self.database.shows(&frame.post, frame.count);
        }
        Ok(taken)
    }

    fn shut_down(&self) {
        self.pipe.shut_down();
    }
}

impl Client {
    /// A client that takes so many bytes before it must be told to read on.
    pub(crate) fn new(posts: &Posts, database: &Arc<Database>, visitor: &'static str, room: usize) -> Arc<Self> {
        Self::of(Dialect::Json, posts, database, visitor, room)
    }

    /// The same in a dialect of its own.
    pub(crate) fn of(
        dialect: Dialect,
        posts: &Posts,
        database: &Arc<Database>,
        visitor: &'static str,
        room: usize,
    ) -> Arc<Self> {
        let (pipe, database, seen) = (Pipe::new(room), database.clone(), AtomicUsize::default());
        let screen = Arc::new(Screen { pipe, database, seen });
        let outbox = Outbox::new(screen.clone(), Duration::from_secs(3600), dialect, Some(posts.boot()));
        let (unwatched, sent, taken) = Default::default();
        Arc::new(Self { screen, outbox: Arc::new(outbox), visitor, unwatched, sent, taken })
    }

    /// Watches a post on behalf of its visitor, as soon as the database can be read.
    pub(crate) fn watch(&self, posts: &Posts, name: &str) -> Watch {
        let post = Post::kept(name);
        if let Some(shown) = self.unwatched.lock().unwrap().remove(&post) {
            assert_eq!(self.counts(&post).len(), shown, "{post:?} was shown after it was unwatched");
        }
        loop {
            let watch = posts.post(name).and_then(|likes| {
                let registration = likes.join(&self.outbox, Some(key(self.visitor, &post)))?;
                Ok(Watch(likes, registration))
            });
            match watch {
                Ok(watch) => return watch,
                Err(_) => crate::thread::yield_now(),
            }
        }
    }

    pub(crate) fn unwatch(&self, watch: Watch) {
        let Watch(likes, registration) = watch;
        drop(registration);
        let post = likes.post();
        self.unwatched.lock().unwrap().insert(post.clone(), self.counts(post).len());
    }

    /// Sends a change, whose answer comes as a frame.
    pub(crate) fn send(&self, posts: &Posts, name: &str, kind: ChangeKind) {
        let reference = self.sent.fetch_add(1, Ordering::Relaxed);
        let (post, asked, database) = (Post::kept(name), kind.clone(), self.screen.database.clone());
        let encode = move |answer| {
            database.promises(&post, &asked, &answer);
            let text = match answer {
                Ok(Answer { count: Count { likes, version }, liked }) => format!(
                    r#"{{"ref":{reference},"post":"{}","numLikes":{likes},"version":{version},"liked":{liked}}}"#,
                    post.name()
                ),
                Err(_) => format!(r#"{{"ref":{reference},"numLikes":0,"version":0}}"#),
            };
            let mut frame = Vec::new();
            text_frame(&text, &mut frame);
            frame
        };
        let submit = |likes: Likes| likes.submit(kind, &self.outbox, encode);
        if posts.counter(Post::kept(name)).and_then(submit).is_ok() {
            self.taken.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether each change that was taken has been answered.
    pub(crate) fn has_its_answers(&self) -> bool {
        let answers = self.frames().iter().filter(|frame| frame.reference.is_some()).count();
        answers == self.taken.load(Ordering::Relaxed)
    }

    /// Takes whatever comes from now on.
    pub(crate) fn reads_on(&self) {
        self.screen.pipe.make_room(usize::MAX);
    }

    fn frames(&self) -> Vec<Frame> {
        self.screen.pipe.frames().iter().filter_map(|text| Frame::of(text)).collect()
    }

    fn counts(&self, post: &Post) -> Vec<Frame> {
        self.frames().into_iter().filter(|frame| frame.reference.is_none() && frame.post == *post).collect()
    }

    /// Asserts that what it was shown was in order, and that it was shown nothing of what it does not watch.
    #[track_caller]
    pub(crate) fn was_shown_in_order(&self) {
        let frames = self.frames();
        let (answers, counts): (Vec<_>, Vec<_>) = frames.iter().partition(|frame| frame.reference.is_some());
        let answered: HashSet<_> = answers.iter().map(|frame| frame.reference).collect();
        let taken = self.taken.load(Ordering::Relaxed);
        assert_eq!((answers.len(), answered.len()), (taken, taken), "each change that was taken is answered once");
        let boots: Vec<_> = counts.iter().map(|frame| frame.boot).collect();
        assert!(!boots.iter().skip(1).any(|boot| *boot) && boots.first() != Some(&false), "first of all the start");
        let mut last = HashMap::new();
        for frame in counts {
            let before = last.insert(&frame.post, frame.count.version);
            assert!(before.is_some() || frame.liked.is_some(), "the first count says whether the visitor likes it");
            let (post, version) = (&frame.post, frame.count.version);
            assert!(before.is_none_or(|before| before <= version), "{post:?} went back from {before:?} to {version}");
        }
        for (post, shown) in &*self.unwatched.lock().unwrap() {
            assert_eq!(self.counts(post).len(), *shown, "{post:?} was shown after it was unwatched");
        }
    }

    /// Asserts that it ends at the newest count of what it watches, and knows what its visitor likes.
    #[track_caller]
    pub(crate) fn ends_at_the_newest<'w>(&self, watches: impl IntoIterator<Item = &'w Watch>) {
        while self.outbox.retry(Instant::now()).standing == Standing::Behind {}
        self.was_shown_in_order();
        for Watch(likes, _) in watches {
            let (post, database) = (likes.post(), &self.screen.database);
            let shown = self.counts(post);
            let newest = database.count(post);
            assert_eq!(shown.last().map(|frame| frame.count), Some(newest), "it ends at the newest count of {post:?}");
            let liked = shown.iter().rev().find_map(|frame| frame.liked);
            let likes = database.likes(post, key(self.visitor, post));
            assert_eq!(liked, Some(likes), "it ends at whether its visitor likes {post:?}");
        }
    }

    /// Asserts that it was shown every change from its first count on.
    #[track_caller]
    pub(crate) fn was_shown_every_change(&self, watch: &Watch) {
        let post = watch.0.post();
        let versions: Vec<_> = self.counts(post).iter().map(|frame| frame.count.version).collect();
        assert_eq!(versions[1..], self.screen.database.versions(post, versions[0]), "every change of {post:?}");
    }
}

pub(crate) fn key(visitor: &str, post: &Post) -> VisitorKey {
    VisitorKey::of(visitor, post).unwrap()
}
