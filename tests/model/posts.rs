//! Many posts, visitors who change their minds, and clients that watch several.

use crate::{
    LONG,
    client::{Client, key},
    database::Database,
    error::{Error, Result},
    held_up,
    likes::{Answer, Likes, Posts, dialect::Dialect, sync::thread},
    random,
    store::change::{ChangeKind, Post},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

const ANN: &str = "the-visitor-is-ann";
const BOB: &str = "the-visitor-is-bob";
/// More than enough for a client.
const ROOM: usize = usize::MAX;
/// Not even the first count.
const LITTLE_ROOM: usize = 50;

/// Posts over a database of which so many saves may fail.
fn open(faults: usize) -> (Posts, Arc<Database>) {
    let database = Database::new(faults, 0);
    (Posts::with_store(database.store(false)).unwrap(), database)
}

fn by(visitor: &str, name: &str, liked: bool, seq: u64) -> ChangeKind {
    ChangeKind::Visitor { visitor: key(visitor, &Post::kept(name)), liked, seq: Some(seq) }
}

/// Says once that a visitor likes a post, or does not.
fn say(database: &Database, likes: &Likes, visitor: &str, liked: bool, seq: u64) -> Result<Answer> {
    let answer = likes.set_liked(visitor, liked, Some(seq));
    database.promises(likes.post(), &by(visitor, likes.post().name(), liked, seq), &answer);
    if let Ok(answer) = &answer {
        assert!(likes.now().version >= answer.count.version, "what is answered is known");
    }
    answer
}

/// The same until it is answered.
fn insist(database: &Database, likes: &Likes, visitor: &str, liked: bool, seq: u64) -> Answer {
    loop {
        match say(database, likes, visitor, liked, seq) {
            Ok(answer) => return answer,
            Err(Error::NotSaved(_)) => thread::yield_now(),
            Err(e) => panic!("{e}"),
        }
    }
}

/// A like from nobody in particular.
fn like(database: &Database, likes: &Likes) -> bool {
    let answer = likes.change(ChangeKind::Likes(1));
    database.promises(likes.post(), &ChangeKind::Likes(1), &answer);
    answer.is_ok()
}

/// The end of a scenario: all is saved and shown, what was answered is so, and nothing is left in memory.
#[track_caller]
fn ends(posts: Posts, database: &Database) {
    posts.default_counter().unwrap().close(LONG).unwrap();
    database.keeps_its_promises();
    assert_eq!(posts.watching(), 0, "nobody is left behind");
    assert_eq!(posts.in_memory(), 1, "no counter is left but the default one");
}

fn join<T: 'static>(threads: impl IntoIterator<Item = thread::JoinHandle<T>>) -> Vec<T> {
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}

/// Saves fail while visitors like, say it again, change their minds, and a like from before that comes late.
fn visitors() {
    let (posts, database) = open(2);
    let [a, b] = ["a", "b"].map(|name| posts.post(name).unwrap());
    let watching = Client::new(&posts, &database, ANN, ROOM);
    let slow = Client::of(Dialect::Events, &posts, &database, BOB, LITTLE_ROOM);
    let watches = ["a", "b"].map(|name| watching.watch(&posts, name));
    let slow_watches = ["a", "b"].map(|name| slow.watch(&posts, name));
    let liker = thread::spawn({
        let (a, database) = (a.clone(), database.clone());
        move || {
            insist(&database, &a, ANN, true, 1);
            // The answer was lost on the way.
            insist(&database, &a, ANN, true, 1);
        }
    });
    let unliker = thread::spawn({
        let (a, database) = (a.clone(), database.clone());
        move || {
            assert!(!insist(&database, &a, ANN, false, 2).liked);
            assert!(!insist(&database, &a, ANN, true, 1).liked, "a late like changes nothing");
        }
    });
    let other = thread::spawn({
        let (b, database) = (b.clone(), database.clone());
        move || {
            like(&database, &b);
            assert!(insist(&database, &b, BOB, true, 1).liked);
        }
    });
    let sender = thread::spawn({
        let (b, database) = (b.clone(), database.clone());
        move || {
            if b.like_without_waiting().is_ok() {
                b.flush(LONG).unwrap();
                assert!(database.count(b.post()).likes > 0, "what was taken before is saved by then");
                let answer = Ok(Answer { count: Default::default(), liked: true });
                database.promises(b.post(), &ChangeKind::Likes(1), &answer);
            }
        }
    });
    join([liker, unliker, other, sender]);
    slow.reads_on();
    a.close(LONG).unwrap();
    watching.ends_at_the_newest(&watches);
    watches.iter().for_each(|watch| watching.was_shown_every_change(watch));
    slow.ends_at_the_newest(&slow_watches);
    assert_eq!((a.now(), b.now()), (database.count(a.post()), database.count(b.post())));
    drop((watches, slow_watches, a, b));
    ends(posts, &database);
}

/// Clients watch posts and unwatch them while changes come; one has so much room.
fn watching(room: usize) {
    let (posts, database) = open(0);
    let stays = Client::new(&posts, &database, BOB, ROOM);
    let stays_with = ["a", "b", "c"].map(|name| stays.watch(&posts, name));
    let comer = thread::spawn({
        let (posts, database) = (posts.clone(), database.clone());
        move || {
            let client = Client::new(&posts, &database, ANN, ROOM);
            let a = client.watch(&posts, "a");
            let b = client.watch(&posts, "b");
            client.unwatch(a);
            let c = client.watch(&posts, "c"); // where `a` was
            client.unwatch(b);
            let a = client.watch(&posts, "a");
            (client, [a, c])
        }
    });
    let slow = thread::spawn({
        let (posts, database) = (posts.clone(), database.clone());
        move || {
            let client = Client::new(&posts, &database, BOB, room);
            let a = client.watch(&posts, "a");
            let b = client.watch(&posts, "b");
            drop(a);
            client.reads_on();
            (client, [b])
        }
    });
    let likers =
        [[("a", ANN, true, 1), ("a", ANN, false, 2)], [("b", BOB, true, 1), ("c", ANN, true, 1)]].map(|changes| {
            let (posts, database) = (posts.clone(), database.clone());
            thread::spawn(move || {
                for (name, visitor, liked, seq) in changes {
                    say(&database, &posts.post(name).unwrap(), visitor, liked, seq).unwrap();
                }
            })
        });
    join(likers);
    let (comer, comer_watches) = comer.join().unwrap();
    let (slow, slow_watches) = slow.join().unwrap();
    posts.default_counter().unwrap().close(LONG).unwrap();
    comer.ends_at_the_newest(&comer_watches);
    slow.ends_at_the_newest(&slow_watches);
    stays.ends_at_the_newest(&stays_with);
    stays_with.iter().for_each(|watch| stays.was_shown_every_change(watch));
    drop((comer_watches, slow_watches, stays_with));
    ends(posts, &database);
}

/// Changes are sent over the connections that watch, and answered there; one save may fail, one client is behind.
fn answers() {
    let (posts, database) = open(1);
    let senders = [(ANN, ROOM), (BOB, LITTLE_ROOM)].map(|(visitor, room)| {
        let (posts, database) = (posts.clone(), database.clone());
        thread::spawn(move || {
            let client = Client::new(&posts, &database, visitor, room);
            let watch = client.watch(&posts, "a");
            client.send(&posts, "a", by(visitor, "a", true, 1));
            client.send(&posts, "b", ChangeKind::Likes(1));
            client.send(&posts, "a", by(visitor, "a", false, 2));
            client.reads_on();
            (client, watch)
        })
    });
    let senders = join(senders);
    posts.default_counter().unwrap().wait_until_shown(Instant::now() + LONG);
    posts.default_counter().unwrap().close(LONG).unwrap();
    senders.iter().for_each(|(client, watch)| client.ends_at_the_newest([watch]));
    drop(senders);
    ends(posts, &database);
}

/// Nothing can be saved before a client has been told so.
fn refusals() {
    let (posts, database) = open(0);
    database.set_full(true);
    let client = Client::new(&posts, &database, ANN, ROOM);
    let watch = client.watch(&posts, "a");
    client.send(&posts, "a", by(ANN, "a", true, 1));
    while !client.has_its_answers() {
        thread::yield_now();
    }
    database.set_full(false);
    posts.default_counter().unwrap().close(LONG).unwrap();
    client.ends_at_the_newest([&watch]);
    drop(watch);
    ends(posts, &database);
}

/// Others change the counts too, and the store tells of that, late and in any order.
fn others() {
    let database = Database::new(0, 0);
    let posts = Posts::with_store(database.store(true)).unwrap();
    let client = Client::new(&posts, &database, ANN, ROOM);
    let watches = ["a", "b"].map(|name| client.watch(&posts, name));
    let others = [["b", "a"], ["a", "b"]].map(|names| {
        let database = database.clone();
        thread::spawn(move || names.iter().for_each(|name| database.like_elsewhere(&Post::kept(name))))
    });
    let liker = thread::spawn({
        let (posts, database) = (posts.clone(), database.clone());
        move || {
            let [a, b] = ["a", "b"].map(|name| posts.post(name).unwrap());
            say(&database, &b, ANN, true, 1).unwrap();
            like(&database, &a);
        }
    });
    let comer = thread::spawn({
        let (posts, database) = (posts.clone(), database.clone());
        move || {
            let client = Client::new(&posts, &database, BOB, ROOM);
            let watch = client.watch(&posts, "a");
            (client, watch)
        }
    });
    join(others);
    liker.join().unwrap();
    let (comer, watch) = comer.join().unwrap();
    posts.default_counter().unwrap().close(LONG).unwrap();
    client.ends_at_the_newest(&watches);
    comer.ends_at_the_newest([&watch]);
    drop((watches, watch));
    ends(posts, &database);
}

/// Handles of one post are made and dropped, so that its counter is forgotten and read again, while likes come. A read
/// and a save may fail.
fn handles() {
    let database = Database::new(1, 1);
    let posts = Posts::with_store(database.store(false)).unwrap();
    let comers = [ANN, BOB].map(|visitor| {
        let (posts, database) = (posts.clone(), database.clone());
        thread::spawn(move || {
            for seq in 1..=2 {
                let client = Client::new(&posts, &database, visitor, ROOM);
                let watch = client.watch(&posts, "a");
                if let Ok(likes) = posts.post("a") {
                    let before = likes.now().version;
                    let _ = say(&database, &likes, visitor, seq == 1, seq);
                    assert!(likes.now().version >= before, "a version does not go back");
                }
                client.unwatch(watch);
                client.was_shown_in_order();
            }
        })
    });
    let stayer = thread::spawn({
        let (posts, database) = (posts.clone(), database.clone());
        move || {
            let client = Client::new(&posts, &database, BOB, ROOM);
            let watch = client.watch(&posts, "a");
            (client, watch)
        }
    });
    let sender = Client::new(&posts, &database, ANN, ROOM);
    (0..2).for_each(|_| sender.send(&posts, "a", ChangeKind::Likes(1)));
    join(comers);
    let (stayer, watch) = stayer.join().unwrap();
    posts.default_counter().unwrap().close(LONG).unwrap();
    stayer.ends_at_the_newest([&watch]);
    stayer.was_shown_every_change(&watch);
    sender.was_shown_in_order();
    drop(watch);
    ends(posts, &database);
}

/// The posts are closed while changes come, saves fail and somebody flushes: each change is saved or refused.
fn closing() {
    let (posts, database) = open(1);
    let client = Client::new(&posts, &database, ANN, ROOM);
    let watches = ["a", "b"].map(|name| client.watch(&posts, name));
    let likers = [("a", ANN), ("b", BOB)].map(|(name, visitor)| {
        let (posts, database, client) = (posts.clone(), database.clone(), client.clone());
        thread::spawn(move || {
            let likes = posts.post(name).unwrap();
            let _ = say(&database, &likes, visitor, true, 1);
            client.send(&posts, name, ChangeKind::Likes(1));
            like(&database, &likes);
        })
    });
    let closer = thread::spawn({
        let posts = posts.clone();
        move || {
            let counter = posts.default_counter().unwrap();
            counter.flush(LONG).unwrap();
            counter.close(LONG).unwrap();
        }
    });
    join(likers);
    closer.join().unwrap();
    client.ends_at_the_newest(&watches);
    drop(watches);
    ends(posts, &database);
}

/// The posts are closed without the time to save what fails, and opened again: who was not answered says it again.
fn restarting() {
    let (posts, database) = open(2);
    let likers = [("a", ANN), ("a", BOB)].map(|(name, visitor)| {
        let (posts, database) = (posts.clone(), database.clone());
        thread::spawn(move || {
            let likes = posts.post(name).unwrap();
            let _ = say(&database, &likes, visitor, true, 1);
            like(&database, &likes);
        })
    });
    let _ = posts.default_counter().unwrap().close(Duration::ZERO);
    join(likers);
    drop(posts);
    database.wait_until_closed();

    let posts = Posts::with_store(database.store(false)).unwrap();
    let a = posts.post("a").unwrap();
    let client = Client::new(&posts, &database, ANN, ROOM);
    let watch = client.watch(&posts, "a");
    for visitor in [ANN, BOB] {
        assert!(insist(&database, &a, visitor, true, 1).liked);
    }
    a.close(LONG).unwrap();
    client.ends_at_the_newest([&watch]);
    drop((watch, a));
    ends(posts, &database);
}

#[test]
fn visitors_and_failing_saves_in_random_orders() {
    random(visitors);
}

#[test]
fn watching_several_posts_in_random_orders() {
    random(|| watching(LITTLE_ROOM));
}

#[test]
fn watching_several_posts_while_one_is_held_up() {
    // One that is behind is looked at again and again, and held up for ever.
    held_up(|| watching(ROOM));
}

#[test]
fn answers_in_random_orders() {
    random(answers);
}

#[test]
fn refusals_in_random_orders() {
    random(refusals);
}

#[test]
fn changes_of_others_in_random_orders() {
    random(others);
}

#[test]
fn changes_of_others_while_one_is_held_up() {
    held_up(others);
}

#[test]
fn handles_that_come_and_go_in_random_orders() {
    random(handles);
}

#[test]
fn handles_that_come_and_go_while_one_is_held_up() {
    held_up(handles);
}

#[test]
fn closing_many_posts_in_random_orders() {
    random(closing);
}

#[test]
fn restarting_in_random_orders() {
    random(restarting);
}
