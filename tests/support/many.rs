//! What each store of many posts promises: who likes what, counted once, in every order, over restarts.

#![allow(dead_code, reason = "each test file uses a part")]

use live_likes::{BatchId, Change, ChangeKind, Count, Likes, Outcome, Post, Refused, Store, VisitorKey};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// The largest number that JSON's readers read as it is.
pub const MOST: u64 = (1 << 53) - 1;

pub fn post(name: &str) -> Post {
    Post::new(name).unwrap()
}

/// The key of a visitor, of whatever post.
pub fn visitor(number: u8) -> VisitorKey {
    VisitorKey([number; 16])
}

pub fn likes(name: &str, likes: u64) -> Change {
    Change { post: post(name), kind: ChangeKind::Likes(likes) }
}

pub fn says(name: &str, number: u8, liked: bool, seq: Option<u64>) -> Change {
    Change { post: post(name), kind: ChangeKind::Visitor { visitor: visitor(number), liked, seq } }
}

pub fn set(name: &str, likes: u64) -> Change {
    Change { post: post(name), kind: ChangeKind::Set(likes) }
}

pub fn delete(name: &str) -> Change {
    Change { post: post(name), kind: ChangeKind::Delete }
}

pub fn applied(likes: u64, version: u64) -> Outcome {
    Outcome::Applied(Count { likes, version })
}

pub fn unchanged(likes: u64, version: u64, liked: bool) -> Outcome {
    Outcome::Unchanged { count: Count { likes, version }, liked }
}

/// Saves changes as a batch of their own.
pub trait Saves {
    fn save(&mut self, changes: &[Change]) -> Vec<Outcome>;
}

impl<S: Store> Saves for S {
    fn save(&mut self, changes: &[Change]) -> Vec<Outcome> {
        self.apply(next_batch(), changes).unwrap()
    }
}

pub fn next_batch() -> BatchId {
    use std::sync::atomic::{AtomicU64, Ordering};
    static LAST: AtomicU64 = AtomicU64::new(0);
    BatchId { server: 7 << 100, number: LAST.fetch_add(1, Ordering::Relaxed) + 1 }
}

/// Counts as a reader sees them.
pub fn read<const N: usize>(store: &impl Store, names: [&str; N]) -> [(u64, u64); N] {
    let read = store.reader().unwrap().read(&names.map(|name| (post(name), None))).unwrap();
    std::array::from_fn(|place| (read[place].0.likes, read[place].0.version))
}

/// Whether a visitor likes a post, as a reader sees it.
pub fn likes_it(store: &impl Store, name: &str, number: u8) -> bool {
    store.reader().unwrap().read(&[(post(name), Some(visitor(number)))]).unwrap()[0].1.unwrap()
}

/// Where a store is kept that a test alone uses.
pub trait Place: Sized {
    /// A new one that is empty. `None` where this machine has none, which is said.
    fn new() -> Option<Self>;

    /// Opens the store in it.
    fn open(&self) -> Box<dyn Store>;
}

/// Tests of a store that must pass wherever it is kept.
#[macro_export]
macro_rules! keeps_many_posts {
    ($place:ty) => {
        $crate::keeps_many_posts!($place:
            the_highest_seq_of_a_visitor_holds_in_every_order_of_arrival
            a_change_whose_seq_is_not_higher_is_answered_with_the_present_state
            a_count_is_set_no_lower_than_the_visitors_who_like_it
            a_batch_that_is_given_again_counts_once
            posts_are_told_apart_byte_for_byte
            the_top_is_the_most_liked_first_without_the_default_counter
            a_reader_answers_in_the_order_asked_and_from_one_moment
            a_counter_can_be_kept_in_it
        );
    };
    ($place:ty: $($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                many::$name::<$place>();
            }
        )*
    };
}

pub fn the_highest_seq_of_a_visitor_holds_in_every_order_of_arrival<P: Place>() {
    let orders = [[1, 2, 3], [1, 3, 2], [2, 1, 3], [2, 3, 1], [3, 1, 2], [3, 2, 1]];
    for at_once in [false, true] {
        for order in orders {
            // The first and the third are likes, the second is an unlike.
            for last in [2, 3] {
                let Some(place) = P::new() else { return };
                let mut store = place.open();
                let sent = order.iter().filter(|&&seq| seq <= last);
                let changes: Vec<_> = sent.map(|&seq| says("a", 1, seq != 2, Some(seq))).collect();
                if at_once {
                    store.save(&changes);
                } else {
                    for change in changes {
                        store.save(&[change]);
                        drop(store);
                        store = place.open();
                    }
                }
                let likes = u64::from(last == 3);
                assert_eq!(read(&store, ["a"])[0].0, likes, "{order:?} up to {last}");
                assert_eq!(likes_it(&store, "a", 1), likes == 1, "{order:?} up to {last}");
            }
        }
    }
}

pub fn a_change_whose_seq_is_not_higher_is_answered_with_the_present_state<P: Place>() {
    let Some(place) = P::new() else { return };
    let mut store = place.open();
    assert_eq!(store.save(&[says("a", 1, true, Some(5))]), [applied(1, 1)]);
    assert_eq!(store.save(&[says("a", 1, true, Some(5))]), [unchanged(1, 1, true)]);
    assert_eq!(store.save(&[says("a", 1, false, Some(4)), says("a", 1, false, Some(5))]), [unchanged(1, 1, true); 2]);
    // It changes no mind, and yet is the highest from now on.
    assert_eq!(store.save(&[says("a", 1, true, Some(9))]), [unchanged(1, 1, true)]);
    assert_eq!(store.save(&[says("a", 1, false, Some(8))]), [unchanged(1, 1, true)]);
    // One without a number changes the mind and leaves the highest as it is.
    assert_eq!(store.save(&[says("a", 1, false, None)]), [applied(0, 2)]);
    assert_eq!(store.save(&[says("a", 1, true, Some(9))]), [unchanged(0, 2, false)]);
    assert_eq!(store.save(&[says("a", 1, true, Some(10))]), [applied(1, 3)]);
    // Numbers of another visitor, and of another post, are their own.
    assert_eq!(store.save(&[says("a", 2, true, Some(1)), says("b", 1, true, Some(1))]), [applied(2, 4), applied(1, 5)]);
    // 0 is a number; there is none beyond the largest.
    assert_eq!(
        store.save(&[says("c", 1, true, Some(0)), says("c", 1, false, Some(0))]),
        [applied(1, 6), unchanged(1, 6, true)]
    );
    let largest =
        [says("c", 1, false, Some(u64::MAX)), says("c", 1, true, Some(MOST)), says("c", 1, true, Some(u64::MAX))];
    assert_eq!(store.save(&largest), [applied(0, 7), unchanged(0, 7, false), unchanged(0, 7, false)]);
}

pub fn a_count_is_set_no_lower_than_the_visitors_who_like_it<P: Place>() {
    let Some(place) = P::new() else { return };
    let mut store = place.open();
    store.save(&[says("a", 1, true, None), says("a", 2, true, None), likes("a", 1)]);
    assert_eq!(store.save(&[set("a", 1)]), [Outcome::Refused(Refused::BelowVisitors)]);
    assert_eq!(
        store.save(&[set("a", 2), set("a", 100), likes("a", 1)]),
        [applied(2, 4), applied(100, 5), applied(101, 6)]
    );
    assert_eq!(store.save(&[says("a", 1, false, None), set("new", 7)]), [applied(100, 7), applied(7, 8)]);
}

pub fn a_batch_that_is_given_again_counts_once<P: Place>() {
    let Some(place) = P::new() else { return };
    let mut store = place.open();
    let (batch, changes) = (next_batch(), [likes("a", 3), says("a", 1, true, None)]);
    let outcomes = store.apply(batch, &changes).unwrap();
    for _ in 0..2 {
        assert_eq!(store.apply(batch, &changes).unwrap(), outcomes);
        assert_eq!(read(&store, ["a"]), [(4, 4)]);
    }
    let other_server = BatchId { server: batch.server + 1, ..batch };
    assert_eq!(store.apply(other_server, &changes).unwrap(), [applied(7, 7), unchanged(7, 7, true)]);
}

pub fn posts_are_told_apart_byte_for_byte<P: Place>() {
    let Some(place) = P::new() else { return };
    let mut store = place.open();
    let longest = "ö".repeat(100);
    let names = [
        "a",
        "A",
        "a ",
        " a",
        "é",
        "e\u{301}",
        "\u{202e}a",
        "__proto__",
        "a'; DROP TABLE posts; --",
        "NULL",
        "1",
        "1.0",
        &longest,
    ];
    for name in names {
        assert_eq!(store.save(&[likes(name, 1)])[0], applied(1, read(&store, [name])[0].1), "{name}");
    }
    let top: BTreeSet<_> =
        store.reader().unwrap().top(100).unwrap().into_iter().map(|(post, _)| post.name().to_owned()).collect();
    assert_eq!(top, names.map(str::to_owned).into());
}

pub fn the_top_is_the_most_liked_first_without_the_default_counter<P: Place>() {
    let Some(place) = P::new() else { return };
    let mut store = place.open();
    let default = Change { post: Post::default(), kind: ChangeKind::Likes(100) };
    store.save(&[
        default,
        likes("a", 2),
        likes("b", 5),
        says("c", 1, true, None),
        says("d", 1, false, Some(1)),
        likes("e", 9),
        likes("f", 2),
    ]);
    store.save(&[delete("e")]);
    let reader = store.reader().unwrap();
    let top = |most| -> Vec<_> {
        reader.top(most).unwrap().into_iter().map(|(post, count)| (post.name().to_owned(), count.likes)).collect()
    };
    let all = [("b", 5), ("a", 2), ("f", 2), ("c", 1)].map(|(name, likes)| (name.to_owned(), likes));
    assert_eq!(top(100), all);
    assert_eq!(top(usize::MAX), all);
    assert_eq!(top(2), all[..2]);
    assert_eq!(top(0), []);
}

pub fn a_reader_answers_in_the_order_asked_and_from_one_moment<P: Place>() {
    let Some(place) = P::new() else { return };
    let mut store = place.open();
    store.save(&[likes("a", 1), says("b", 1, true, None)]);
    let reader = store.reader().unwrap();
    let asked = [
        (post("b"), Some(visitor(1))),
        (post("z"), Some(visitor(1))),
        (post("b"), Some(visitor(2))),
        (post("a"), None),
        (post("b"), None),
    ];
    let count = |likes, version| Count { likes, version };
    let b = count(1, 2);
    let told = [(b, Some(true)), (Count::default(), Some(false)), (b, Some(false)), (count(1, 1), None), (b, None)];
    assert_eq!(reader.read(&asked).unwrap(), told);
    assert_eq!(reader.read(&[]).unwrap(), []);

    // Two posts that are always liked together are never seen apart; nor a visitor's mind and the count.
    let asked = [(post("x"), None), (post("y"), Some(visitor(1)))];
    std::thread::scope(|scope| {
        let read = || {
            for _ in 0..300 {
                let read = reader.read(&asked).unwrap();
                assert_eq!(read[0].0.likes, read[1].0.likes);
                assert_eq!(read[1].1, Some(read[1].0.likes == 1));
            }
        };
        let reading = [(); 4].map(|()| scope.spawn(read));
        let mut liked = false;
        while !reading.iter().all(|thread| thread.is_finished()) {
            liked = !liked;
            store.save(&[set("x", u64::from(liked)), says("y", 1, liked, None)]);
        }
    });
}

pub fn a_counter_can_be_kept_in_it<P: Place>() {
    let Some(place) = P::new() else { return };
    let likes = Likes::with_store(place.open()).unwrap();
    assert_eq!((likes.like().unwrap(), likes.like().unwrap()), (1, 2));
    drop(likes);
    assert_eq!(place.open().count(&Post::default()).unwrap().likes, 2);
}

/// What the store should be, in plain sets.
#[derive(Debug, Default)]
pub struct Model {
    version: u64,
    versions: BTreeMap<String, u64>,
    anonymous: BTreeMap<String, u64>,
    fans: BTreeSet<(String, VisitorKey)>,
    /// The highest `seq` that ever came.
    highest: BTreeMap<(String, VisitorKey), u64>,
}

impl Model {
    pub fn count(&self, name: &str) -> Count {
        let fans = self.fans.iter().filter(|(post, _)| post == name).count() as u64;
        let number = |map: &BTreeMap<String, u64>| map.get(name).copied().unwrap_or_default();
        Count { likes: fans + number(&self.anonymous), version: number(&self.versions) }
    }

    pub fn apply(&mut self, change: &Change) -> Outcome {
        let name = change.post.name().to_owned();
        let mut versions = 1;
        match change.kind {
            ChangeKind::Likes(likes) => {
                *self.anonymous.entry(name.clone()).or_default() += likes;
                versions = likes;
            }
            ChangeKind::Visitor { visitor, liked, seq } => {
                let fan = (name.clone(), visitor);
                let is_late = seq.is_some_and(|seq| self.highest.get(&fan).is_some_and(|&highest| seq <= highest));
                if let Some(seq) = seq.filter(|_| !is_late) {
                    self.highest.insert(fan.clone(), seq);
                }
                let has_changed =
                    !is_late && if liked { self.fans.insert(fan.clone()) } else { self.fans.remove(&fan) };
                if !has_changed {
                    return Outcome::Unchanged { count: self.count(&name), liked: self.fans.contains(&fan) };
                }
            }
            ChangeKind::Set(likes) => {
                let others = likes.checked_sub(self.fans.iter().filter(|(post, _)| *post == name).count() as u64);
                let Some(others) = others else { return Outcome::Refused(Refused::BelowVisitors) };
                self.anonymous.insert(name.clone(), others);
            }
            ChangeKind::Delete => {
                let is_kept = self.versions.contains_key(&name) || self.highest.keys().any(|(post, _)| *post == name);
                if !is_kept {
                    return Outcome::Unchanged { count: Count::default(), liked: false };
                }
                self.anonymous.remove(&name);
                self.fans.retain(|(post, _)| *post != name);
            }
        }
        self.version += versions;
        self.versions.insert(name.clone(), self.version);
        Outcome::Applied(self.count(&name))
    }
}

#[derive(Clone, Debug)]
pub enum Step {
    Save(Vec<Change>),
    /// The last batch is given again.
    Again,
    Restart,
}

pub fn a_step() -> impl Strategy<Value = Step> {
    let name = prop::sample::select(vec!["a", "b"]);
    let seq = prop::option::weighted(0.7, 0..8_u64);
    let change = prop_oneof![
        2 => (name.clone(), 1..4_u64).prop_map(|(name, number)| likes(name, number)),
        // In whatever order their numbers are, as if they had been delayed.
        8 => (name.clone(), 1..4_u8, any::<bool>(), seq).prop_map(|(name, number, liked, seq)| says(name, number, liked, seq)),
        1 => (name.clone(), 0..6_u64).prop_map(|(name, likes)| set(name, likes)),
        1 => name.prop_map(delete),
    ];
    prop_oneof![
        6 => prop::collection::vec(change, 0..5).prop_map(Step::Save),
        1 => Just(Step::Again),
        1 => Just(Step::Restart),
    ]
}

/// Likes and unlikes and retries and delays and restarts come to what plain sets say.
pub fn comes_to_what_plain_sets_say(place: &impl Place, steps: Vec<Step>) {
    let (mut store, mut model, mut last) = (place.open(), Model::default(), None);
    for step in steps {
        match step {
            Step::Save(changes) => {
                let batch = next_batch();
                let expected: Vec<_> = changes.iter().map(|change| model.apply(change)).collect();
                assert_eq!(&store.apply(batch, &changes).unwrap(), &expected, "{:?}", changes);
                last = Some((batch, changes, expected));
            }
            Step::Again => {
                let Some((batch, changes, expected)) = &last else { continue };
                assert_eq!(&store.apply(*batch, changes).unwrap(), expected);
            }
            Step::Restart => {
                drop(store);
                (store, last) = (place.open(), None);
            }
        }
        for name in ["a", "b"] {
            assert_eq!(store.count(&post(name)).unwrap(), model.count(name));
            let asked: Vec<_> = (1..4).map(|number| (post(name), Some(visitor(number)))).collect();
            let liked = |number| Some(model.fans.contains(&(name.to_owned(), visitor(number))));
            let expected: Vec<_> = (1..4).map(|number| (model.count(name), liked(number))).collect();
            assert_eq!(store.reader().unwrap().read(&asked).unwrap(), expected);
        }
    }
}
