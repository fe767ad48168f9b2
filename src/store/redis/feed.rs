//! What other servers change: heard over one subscription, and read where something was missed.
//!
//! Each message says from which version to which it goes, so that a gap is seen at once. A beat goes through the channel
//! each second, from each server: it shows a gap at the end, and a subscription that is dead by its absence.
//!
//! It is subscribed first and read then, so that nothing is lost between the two.

use super::{
    ServerName, Shared,
    link::{Failure, Link},
    part::{self, Head},
    readers::Readers,
};
use crate::{
    error::Result,
    limits::some_of,
    store::{
        self, Feed, Step,
        change::{Count, Post, VisitorKey},
    },
};
use redis::{Connection, Msg, cmd};
use std::{
    io,
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// How often each server is heard of.
const BEAT_EVERY: Duration = Duration::from_secs(1);

/// A subscription over which nothing is heard for so long is dead.
const SILENCE: Duration = Duration::from_millis(2500);

/// Before it is subscribed again the first time; doubled each time, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Posts and visitors that are read at once.
const AT_ONCE: usize = 500;

/// The two threads. They are told to end when this is dropped; the one that listens ends with the next message.
pub(super) struct Following {
    stop: Option<Sender<()>>,
    beats: Option<JoinHandle<()>>,
}

impl Following {
    pub(super) fn start(
        shared: Arc<Shared>,
        readers: Arc<Readers>,
        server: Arc<ServerName>,
        feed: Feed,
    ) -> io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let (end, ended) = mpsc::channel();
        let asking = Link::new(shared.clone());
        let follower = Follower { shared: shared.clone(), readers, server, follower: feed.follower, asking, at: None };
        thread::Builder::new().name("redis".to_owned()).spawn(move || follower.run(&ended))?;
        let beats = thread::Builder::new().name("redis beats".to_owned()).spawn(move || {
            // Dropped with this thread, which tells the other one.
            let _end = end;
            let mut link = Link::new(shared.clone());
            while stopped.recv_timeout(BEAT_EVERY) == Err(RecvTimeoutError::Timeout) {
                // One that fails is missed by those who listen.
                let _ = part::beat(&mut link, &shared);
            }
        })?;
        Ok(Self { stop: Some(stop), beats: Some(beats) })
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(beats) = self.beats.take() {
            let _ = beats.join();
        }
    }
}

struct Follower {
    shared: Arc<Shared>,
    readers: Arc<Readers>,
    server: Arc<ServerName>,
    follower: Arc<dyn store::Follower>,
    asking: Link,
    /// The epoch, and the version up to which all is known.
    at: Option<(u64, u64)>,
}

impl Follower {
    fn run(mut self, ended: &mpsc::Receiver<()>) {
        let mut link = Link::new(self.shared.clone());
        let mut pause = FIRST_PAUSE;
        loop {
            let mut heard = false;
            let Err(problem) = self.listen(&mut link, ended, &mut heard) else { return };
            if heard {
                log::warn!("the changes of other servers are not heard of: {problem}");
                pause = FIRST_PAUSE;
            }
            self.follower.lost(Some(format!("the changes of other servers are not heard of: {problem}")));
            if ended.recv_timeout(some_of(pause)) != Err(RecvTimeoutError::Timeout) {
                return;
            }
            pause = LONGEST_PAUSE.min(pause * 2);
        }
    }

    /// Listens until the subscription breaks, or until the store is closed.
    fn listen(&mut self, link: &mut Link, ended: &mpsc::Receiver<()>, heard: &mut bool) -> Result<(), Failure> {
        let lost = |problem: redis::RedisError| Failure::Unanswered(self.shared.tell(&problem));
        let mut connection = link.take()?;
        connection.set_read_timeout(Some(SILENCE)).map_err(lost)?;
        let subscribe = cmd("SUBSCRIBE").arg(self.shared.channel()).get_packed_command();
        connection.send_packed_command(&subscribe).map_err(lost)?;
        connection.recv_response().map_err(lost)?;
        let was_deaf = self.at.is_some();
        self.catch_up()?;
        *heard = true;
        self.follower.lost(None);
        if was_deaf {
            log::info!("the changes of other servers are heard of again");
        }
        loop {
            let message = next(&mut connection).map_err(|e| {
                let silence = format!("Redis at {}: nothing was heard for {SILENCE:?}", self.shared.address);
                Failure::Unanswered(if e.is_timeout() { silence } else { self.shared.tell(&e) })
            })?;
            if ended.try_recv() == Err(mpsc::TryRecvError::Disconnected) {
                return Ok(());
            }
            self.hear(&message)?;
        }
    }

    /// Tells what a message says, if it follows what is known.
    fn hear(&mut self, message: &[u8]) -> Result<(), Failure> {
        let Some((head, steps)) = part::read_message(message) else {
            log::error!("Redis has published what is no message of live-likes: \"{}\"", message.escape_ascii());
            return self.catch_up();
        };
        self.shared.saw(head.version);
        match self.at {
            Some((floor, version)) if floor == head.floor && head.version <= version => return Ok(()),
            Some((floor, version)) if floor == head.floor && head.before == version => {}
            Some((floor, _)) => {
                if floor == head.floor {
                    self.shared.remote.missed();
                }
                return self.catch_up();
            }
            None => return self.catch_up(),
        }
        self.at = Some((head.floor, head.version));
        if self.server.get() != Some(&head.server) {
            self.shared.remote.heard(steps.len());
            self.follower.changed(steps);
        }
        Ok(())
    }

    /// Reads all that is watched, and tells what is not known of it.
    fn catch_up(&mut self) -> Result<(), Failure> {
        let head = part::beat(&mut self.asking, &self.shared)?;
        let watched = self.follower.watched();
        let lost = self.lost(&head);
        // What was read first, and of whom; what is published from then on is heard.
        let asked: Vec<_> = watched
            .iter()
            .enumerate()
            .flat_map(|(place, (post, _, visitors))| {
                let visitors = visitors.iter().map(Some);
                std::iter::once(None).chain(visitors).map(move |visitor| (place, post, visitor.copied()))
            })
            .collect();
        let mut steps: Vec<Option<Step>> = vec![None; watched.len()];
        for chunk in asked.chunks(AT_ONCE) {
            let posts: Vec<(Post, Option<VisitorKey>)> =
                chunk.iter().map(|(_, post, visitor)| ((*post).clone(), *visitor)).collect();
            let read = self.readers.rows(&posts).map_err(not_read)?;
            for ((place, post, visitor), (row, liked)) in chunk.iter().zip(read.rows) {
                let count = row.count(read.floor);
                let step = steps[*place].get_or_insert_with(|| Step {
                    post: (*post).clone(),
                    // One that Redis has lost whole was shown with a version.
                    count: Count { likes: count.likes, version: if row.kept { row.version } else { 0 } },
                    likes: 1,
                    minds: Vec::new(),
                });
                step.minds.extend(visitor.zip(liked));
            }
        }
        let news = watched.into_iter().zip(steps).filter_map(|((_, known, visitors), step)| {
            let mut step = step?;
            if step.count.version > known.version {
                return Some(step);
            }
            let is_lost =
                known.version > 0 && lost.is_some_and(|base| known.version > base) && known.version < head.floor;
            if is_lost {
                // It was shown what is lost, unless that came to the same.
                step.count.version = step.count.version.max(head.floor);
                return (step.count.likes != known.likes || !visitors.is_empty()).then_some(step);
            }
            // Of a count that came with a batch of this server, what others said before that may be missing.
            (!step.minds.is_empty()).then_some(step)
        });
        self.follower.changed(news.collect());
        self.at = Some((head.floor, head.version));
        Ok(())
    }

    /// Where this Redis is another than the one before: the version after which changes may be lost.
    fn lost(&self, head: &Head) -> Option<u64> {
        let (floor, version) = self.at.filter(|(floor, _)| *floor != head.floor)?;
        let at = &self.shared.address;
        if head.previous != floor {
            log::warn!(
                "Redis at {at} was started anew more than once; what it has lost of version {version} is not known"
            );
            return Some(0);
        }
        match version.checked_sub(head.base) {
            None | Some(0) => log::info!("Redis at {at} was started anew, and has lost nothing that was known here"),
            Some(lost) => log::error!(
                "Redis at {at} was started anew, or is another one, and has lost changes: version {version} was known \
                 here, and it had {} ({lost} less); all clients are shown what it has",
                head.base
            ),
        }
        Some(head.base)
    }
}

/// Waits for the next message.
fn next(connection: &mut Connection) -> redis::RedisResult<Vec<u8>> {
    loop {
        let value = connection.recv_response()?;
        if let Some(message) = Msg::from_owned_value(value) {
            return Ok(message.get_payload_bytes().to_vec());
        }
    }
}

fn not_read(e: crate::error::Error) -> Failure {
    Failure::Unanswered(e.to_string())
}
