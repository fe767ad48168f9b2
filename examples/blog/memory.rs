//! A store in memory, for a demonstration that leaves no file behind. `Posts::open("likes.db")` is one that keeps.

use live_likes::{BatchId, Change, ChangeKind, Count, Outcome, Post, Reader, Refused, Result, Store, VisitorKey};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
};

/// Counts, and who likes what.
#[derive(Clone, Default)]
pub struct Memory {
    kept: Arc<Mutex<Kept>>,
}

#[derive(Default)]
struct Kept {
    version: u64,
    posts: HashMap<Post, (Count, HashMap<VisitorKey, Mind>)>,
}

/// Whether a visitor likes a post, and the highest number of a change.
#[derive(Clone, Copy, Default)]
struct Mind {
    liked: bool,
    seq: Option<u64>,
}

impl Memory {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().expect("nothing panics while it holds the lock")
    }
}

impl Store for Memory {
    fn count(&mut self, post: &Post) -> Result<Count> {
        Ok(self.kept().count(post))
    }

    fn apply(&mut self, _: BatchId, changes: &[Change]) -> Result<Vec<Outcome>> {
        let mut kept = self.kept();
        Ok(changes.iter().map(|change| kept.apply(change)).collect())
    }

    fn reader(&self) -> Option<Arc<dyn Reader>> {
        Some(Arc::new(self.clone()))
    }

    fn remembers_visitors(&self) -> bool {
        true
    }
}

impl Reader for Memory {
    fn read(&self, posts: &[(Post, Option<VisitorKey>)]) -> Result<Vec<(Count, Option<bool>)>> {
        let kept = self.kept();
        let read = |(post, visitor): &(Post, Option<VisitorKey>)| {
            let liked = |visitor| {
                kept.posts.get(post).and_then(|(_, minds)| minds.get(&visitor)).is_some_and(|mind| mind.liked)
            };
            (kept.count(post), visitor.map(liked))
        };
        Ok(posts.iter().map(read).collect())
    }

    fn top(&self, most: usize) -> Result<Vec<(Post, Count)>> {
        let kept = self.kept();
        let liked = kept.posts.iter().filter(|(post, (count, _))| !post.name().is_empty() && count.likes > 0);
        let mut top: Vec<_> = liked.map(|(post, (count, _))| (post.clone(), *count)).collect();
        top.sort_by_key(|(_, count)| (std::cmp::Reverse(count.likes), count.version));
        top.truncate(most);
        Ok(top)
    }
}

impl Kept {
    fn count(&self, post: &Post) -> Count {
        self.posts.get(post).map_or_else(Count::default, |(count, _)| *count)
    }

    fn apply(&mut self, change: &Change) -> Outcome {
        let (count, minds) = self.posts.entry(change.post.clone()).or_default();
        let likes = match change.kind {
            ChangeKind::Likes(likes) => {
                count.likes += likes;
                likes
            }
            ChangeKind::Visitor { visitor, liked, seq } => {
                let mind = minds.entry(visitor).or_default();
                let is_late = seq.is_some() && seq <= mind.seq;
                let was = mind.liked;
                if !is_late {
                    *mind = Mind { liked, seq: seq.or(mind.seq) };
                }
                if mind.liked == was {
                    return Outcome::Unchanged { count: *count, liked: was };
                }
                count.likes = if liked { count.likes + 1 } else { count.likes - 1 };
                1
            }
            // What operators do; nobody does it here.
            _ => return Outcome::Refused(Refused::Unlikes),
        };
        self.version += likes;
        count.version = self.version;
        Outcome::Applied(*count)
    }
}
