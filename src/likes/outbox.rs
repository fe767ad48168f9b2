//! One client's send side: the lock that every byte to a client that watches passes, the unsent rest of a frame, and a
//! slot for each counter that the client is shown, with the newest count waiting in it.
//!
//! A send never waits. What the kernel does not take at once stays here: the rest of the frame that it took a part
//! of, and of all counts of a post after it only the newest. So a client that does not read costs these few bytes and
//! delays nobody; one that reads again goes on at the newest count. The price is that such a client misses counts in
//! between, which a counter can afford and a chat could not.
//!
//! What must never happen here: two frames mixed, a count after one with a higher version, anything after a close
//! frame.

use crate::{
    likes::dialect::{Dialect, Personal},
    likes::round::{Encoded, Mind, Round},
    likes::sync::{Mutex, lock},
    store::change::{Count, Post, VisitorKey},
    stream::Stream,
};
use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};
use tungstenite::protocol::frame::{
    CloseFrame, Frame,
    coding::{CloseCode, OpCode},
};

/// Bytes that may wait for a client before nothing more is read from it.
const MUCH: usize = 4 * 1024;

/// Slots that are made at a time, after the first.
const TOGETHER: usize = 4;

/// What an outbox sends on: a socket, or in a test what stands in for one.
///
/// No trait object, so that all of a fan-out is one function: with a `call` and its `ret` around each system call it took
/// a fifth longer, all of it in the kernel (measured on an AMD EPYC, whose kernel guards its own returns).
pub(crate) enum Wire {
    Socket(Arc<Stream>),
    #[cfg(test)]
    Scripted(Arc<dyn tests::Scripted>),
}

impl From<Arc<Stream>> for Wire {
    fn from(stream: Arc<Stream>) -> Self {
        Self::Socket(stream)
    }
}

impl Wire {
    /// Hands over as many bytes as are taken at once, without waiting; `WouldBlock` where that is none.
    #[inline(always)]
    fn send_now(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Socket(stream) => stream.send_now(bytes),
            #[cfg(test)]
            Self::Scripted(wire) => wire.send_now(bytes),
        }
    }

    /// Ends the connection, so that whoever reads from it sees the end.
    fn shut_down(&self) {
        match self {
            Self::Socket(stream) => stream.shut_down(),
            #[cfg(test)]
            Self::Scripted(wire) => wire.shut_down(),
        }
    }
}

/// The bytes of a close frame. A reason of more than 123 bytes does not fit a control frame and is cut.
fn close_frame(code: Option<u16>, reason: &str) -> Vec<u8> {
    let frame = Frame::close(code.map(|code| CloseFrame {
        code: CloseCode::from(code),
        reason: reason[..reason.floor_char_boundary(123)].into(),
    }));
    debug_assert_eq!(frame.header().opcode, OpCode::Control(tungstenite::protocol::frame::coding::Control::Close));
    let mut bytes = Vec::with_capacity(frame.len());
    if frame.format(&mut bytes).is_err() {
        // Writing to a vector does not fail; were it to, the connection still ends, without its code.
        bytes.clear();
    }
    bytes
}

/// How a client stands after an attempt to send to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It has been sent all there is.
    Level,
    /// The kernel takes no more for now.
    Behind,
    /// It is closed: nothing more goes out.
    Gone,
}

/// What an attempt to send came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) standing: Standing,
    /// Whole frames of counts handed to the kernel.
    pub(crate) frames: u64,
    /// The client is behind, and nobody had been told before: whoever hears this sees to it that
    /// [`Outbox::retry`] is called until it says otherwise.
    pub(crate) fell_behind: bool,
}

/// One client's send side.
///
/// What a round looks at of a client that keeps up stands together, here and in what is in it: all of it is fetched from
/// memory anew for each client.
#[repr(C)]
pub(crate) struct Outbox {
    wire: Wire,
    dialect: Dialect,
    gate: Mutex<Gate>,
    /// How long the client may take over what is being sent before it is dropped.
    deadline: Duration,
}

#[derive(Default)]
#[repr(C)]
struct Gate {
    /// It is on the list of those whose sending is tried again.
    listed: bool,
    /// A close frame has gone out or stands last in `unsent`, or the wire is broken.
    closed: bool,
    broken: bool,
    /// It was broken off because the client did not read for too long.
    dropped: bool,
    /// How many slots have a count waiting.
    waiting: u32,
    /// Frames and parts of one that the kernel has not taken yet. They go out before anything else.
    unsent: Vec<u8>,
    /// Since when they have not been sent whole. A part that is taken does not put the deadline off.
    stuck_since: Option<Instant>,
    /// What the client is shown. Most are shown one counter, so the first slot stands here itself.
    first: Slot,
    /// A few at a time, since a list that grows leaves holes in memory as large as it was, and each apart takes more.
    #[allow(clippy::vec_box, reason = "see above")]
    others: Vec<Box<[Slot; TOGETHER]>>,
    /// How many of the frames in `unsent` are counts.
    counts_unsent: u32,
    /// What the client is told with its first count.
    boot: Option<Arc<str>>,
}

/// What a client is shown of one post.
#[derive(Default)]
struct Slot {
    /// `None` where nothing is shown: the slot is free.
    post: Option<Post>,
    /// The count that went out last, stands in `unsent`, or waits.
    newest: Count,
    /// It is to go out after `unsent`.
    waiting: bool,
    /// The first count has been shown, or waits to be. What rounds bring before that is kept for it.
    begun: bool,
    /// The visitor on whose behalf the post is watched. Apart, so that a slot without one is small.
    visitor: Option<Box<Visitor>>,
}

struct Visitor {
    key: VisitorKey,
    /// Whether the visitor likes the post, to go out with the next count.
    liked: Option<bool>,
    /// The last that went there, and the version of that.
    last: Mind,
}

impl Visitor {
    fn note(&mut self, mind: Mind) {
        (self.liked, self.last) = (Some(mind.liked), mind);
    }
}

impl Slot {
    fn take_liked(&mut self) -> Option<bool> {
        self.visitor.as_mut().and_then(|visitor| visitor.liked.take())
    }

    fn set_liked(&mut self, liked: Option<bool>) {
        if let Some(visitor) = &mut self.visitor {
            visitor.liked = liked.or(visitor.liked);
        }
    }
}

impl Outbox {
    /// `boot` is told to a client of JSON with its first count.
    pub(crate) fn new(wire: impl Into<Wire>, deadline: Duration, dialect: Dialect, boot: Option<Arc<str>>) -> Self {
        Self { wire: wire.into(), deadline, dialect, gate: Mutex::new(Gate { boot, ..Gate::default() }) }
    }

    /// Makes a slot for a post, watched on behalf of a visitor or of nobody in particular. The caller puts the outbox
    /// on the post's list after this, and [begins](Self::begin) with the count as it is after that.
    pub(crate) fn open(&self, post: Post, visitor: Option<VisitorKey>) -> usize {
        let mut gate = lock(&self.gate);
        let slots = 1 + TOGETHER * gate.others.len();
        let index = (0..slots).find(|index| gate.slot(*index).post.is_none()).unwrap_or_else(|| {
            gate.others.push(Box::default());
            slots
        });
        let visitor =
            visitor.map(|key| Box::new(Visitor { key, liked: None, last: Mind { liked: false, version: 0 } }));
        *gate.slot(index) = Slot { post: Some(post), visitor, ..Slot::default() };
        index
    }

    /// The visitor on whose behalf a slot's post is watched.
    pub(crate) fn visitor(&self, slot: usize) -> Option<VisitorKey> {
        lock(&self.gate).slot(slot).visitor.as_ref().map(|visitor| visitor.key)
    }

    /// Shows the count as it is, or a newer one that a round has brought meanwhile.
    pub(crate) fn begin(&self, slot: usize, count: Count, liked: Option<bool>) -> Sent {
        let mut gate = lock(&self.gate);
        if gate.closed {
            return gate.sent(0);
        }
        let slot = gate.slot(slot);
        slot.begun = true;
        let newer = slot.newest.version > count.version;
        if !newer {
            slot.newest = count;
        }
        slot.waiting = true;
        // A round may have brought something newer of the visitor.
        let visitor = slot.visitor.as_mut().filter(|visitor| visitor.last.version <= count.version);
        if let Some((visitor, liked)) = visitor.zip(liked) {
            visitor.note(Mind { liked, version: count.version });
        }
        gate.waiting += 1;
        let frames = if gate.unsent.is_empty() { self.flush_through(&mut gate) } else { 0 };
        gate.sent(frames)
    }

    /// Shows the counts of a round that the client has not seen.
    ///
    /// One system call where the client keeps up, none where it is behind.
    #[inline(always)]
    pub(crate) fn offer(&self, slot: usize, round: &Round) -> Sent {
        let mut gate = lock(&self.gate);
        let frames = self.offer_through(&mut gate, slot, round);
        gate.sent(frames)
    }

    /// Frees a slot: nothing more of its post is shown.
    pub(crate) fn release(&self, slot: usize) {
        let mut gate = lock(&self.gate);
        let freed = std::mem::take(gate.slot(slot));
        gate.waiting -= u32::from(freed.waiting);
    }

    #[inline(always)]
    fn offer_through(&self, gate: &mut Gate, index: usize, round: &Round) -> u64 {
        let newest = round.newest();
        let behind = gate.standing() == Standing::Behind;
        let closed = gate.closed;
        let slot = gate.slot(index);
        // A fan-out may still hold the slot of a post that is not watched any more, and that has another one by now.
        if closed || !slot.post.as_ref().is_some_and(|post| post.is(round.post())) {
            return 0;
        }
        let last = slot.newest.version;
        let visitor = slot.visitor.as_mut();
        let mind = visitor.and_then(|of| Some((round.mind(of.key).filter(|mind| mind.version > of.last.version)?, of)));
        // What comes late of the visitor is told with the count that was shown already.
        let is_news = mind.as_ref().is_some_and(|(mind, of)| mind.liked != of.last.liked);
        if last > newest.version || last == newest.version && !is_news {
            return 0;
        }
        slot.newest = newest;
        if let Some((mind, visitor)) = mind {
            visitor.note(mind);
        }
        if !slot.begun {
            return 0;
        }
        if behind {
            let is_further = !std::mem::replace(&mut slot.waiting, true);
            gate.waiting += u32::from(is_further);
            return 0;
        }

        // At least the newest, for what it has with it.
        let first = round.first_after(last).min(round.counts().len() - 1);
        let liked = slot.take_liked();
        if liked.is_some() {
            // What is told to this client alone.
            let encoded = round.encode(self.dialect, first, Personal { liked, boot: None });
            return self.send_counts(gate, index, &encoded, 0, liked);
        }
        self.send_counts(gate, index, round.encoded(self.dialect), first, None)
    }

    /// Sends counts, but for those that are skipped. What is not sent of them then waits.
    #[inline(always)]
    fn send_counts(
        &self,
        gate: &mut Gate,
        index: usize,
        encoded: &Encoded,
        skipped: usize,
        liked: Option<bool>,
    ) -> u64 {
        let start = encoded.start_of(skipped);
        let bytes = &encoded.bytes[start..];
        let taken = self.send(gate, bytes);
        if taken == bytes.len() {
            return (encoded.ends.len() - skipped) as u64;
        }
        if gate.broken {
            return 0;
        }
        // The kernel took a part. Of the frame that it stopped in, the rest must follow; of those after it, the newest.
        let reached = start + taken;
        let mut whole = encoded.ends.partition_point(|end| *end as usize <= reached);
        let frames = (whole - skipped) as u64;
        if reached > encoded.start_of(whole) {
            gate.unsent.extend(&encoded.bytes[reached..encoded.ends[whole] as usize]);
            gate.counts_unsent = 1;
            whole += 1;
        }
        if whole < encoded.ends.len() {
            let slot = gate.slot(index);
            slot.waiting = true;
            slot.set_liked(liked);
            gate.waiting += 1;
        }
        frames
    }

    /// Sends whole frames that are no counts. They never overtake what waits already, nor cut into it.
    /// Whoever calls this and hears `Behind` calls [`Outbox::flush`] until it says otherwise.
    pub(crate) fn push(&self, frames: &[u8]) -> Standing {
        let mut gate = lock(&self.gate);
        if !gate.closed {
            self.append(&mut gate, frames);
        }
        gate.standing()
    }

    /// The same for somebody who does not wait: the client may [fall behind](Sent::fell_behind).
    pub(crate) fn tell(&self, frames: &[u8]) -> Sent {
        let mut gate = lock(&self.gate);
        if !gate.closed {
            self.append(&mut gate, frames);
        }
        gate.sent(0)
    }

    /// Whether more than a little waits to be sent.
    pub(crate) fn holds_much(&self) -> bool {
        lock(&self.gate).unsent.len() > MUCH
    }

    /// Sends a close frame, after which nothing more goes out. A second one is not sent (RFC 6455 section 5.5.1).
    /// A stream of events knows no such frame: it ends with its connection.
    pub(crate) fn close(&self, code: Option<u16>, reason: &str) -> Sent {
        let mut gate = lock(&self.gate);
        if self.dialect == Dialect::Events {
            self.break_off(&mut gate);
        } else if !gate.closed {
            gate.forget_waiting();
            self.append(&mut gate, &close_frame(code, reason));
            gate.closed = true;
        }
        gate.sent(0)
    }

    /// Tries again to send what waits; drops the client if it has taken longer than its deadline over it.
    pub(crate) fn flush(&self, now: Instant) -> Sent {
        let mut gate = lock(&self.gate);
        let frames = self.flush_by(&mut gate, now);
        Sent { standing: gate.standing(), frames, fell_behind: false }
    }

    /// The same for the list of those that are behind, which the client leaves unless it still is.
    pub(crate) fn retry(&self, now: Instant) -> Sent {
        let mut gate = lock(&self.gate);
        let frames = self.flush_by(&mut gate, now);
        let standing = gate.standing();
        gate.listed = standing == Standing::Behind;
        Sent { standing, frames, fell_behind: false }
    }

    /// Gives up on the client: what waits is forgotten, and the wire is shut down.
    pub(crate) fn abandon(&self) {
        self.break_off(&mut lock(&self.gate));
    }

    /// Whether the client was dropped because it did not read for too long.
    pub(crate) fn was_dropped(&self) -> bool {
        lock(&self.gate).dropped
    }

    /// Whether a close frame has been sent or queued, on a wire that is whole.
    pub(crate) fn is_closing(&self) -> bool {
        let gate = lock(&self.gate);
        gate.closed && !gate.broken
    }

    fn flush_by(&self, gate: &mut Gate, now: Instant) -> u64 {
        let frames = self.flush_through(gate);
        if gate.stuck_since.is_some_and(|since| now.saturating_duration_since(since) >= self.deadline) {
            self.break_off(gate);
            gate.dropped = true;
        }
        frames
    }

    fn flush_through(&self, gate: &mut Gate) -> u64 {
        let mut frames = 0;
        while gate.standing() == Standing::Behind {
            if gate.unsent.is_empty() {
                gate.encode_waiting(self.dialect);
            }
            let unsent = std::mem::take(&mut gate.unsent);
            let taken = self.send(gate, &unsent);
            if taken < unsent.len() {
                if !gate.broken {
                    gate.unsent = unsent;
                    gate.unsent.drain(..taken);
                }
                break;
            }
            frames += u64::from(std::mem::take(&mut gate.counts_unsent));
        }
        frames
    }

    /// Appends whole frames to what goes out, and sends at once if nothing is before them.
    fn append(&self, gate: &mut Gate, frames: &[u8]) {
        if gate.standing() == Standing::Behind {
            gate.unsent.extend(frames);
            return;
        }
        let taken = self.send(gate, frames);
        if !gate.broken {
            gate.unsent.extend(&frames[taken..]);
        }
    }

    /// One attempt: how many bytes the kernel took. It keeps the time since when something is left over.
    #[inline(always)]
    fn send(&self, gate: &mut Gate, bytes: &[u8]) -> usize {
        let taken = match self.wire.send_now(bytes) {
            Ok(taken) => taken,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => 0,
            Err(_) => {
                self.break_off(gate);
                return 0;
            }
        };
        if taken == bytes.len() {
            gate.stuck_since = None;
        } else {
            gate.stuck_since.get_or_insert_with(Instant::now);
        }
        taken
    }

    #[cold]
    fn break_off(&self, gate: &mut Gate) {
        gate.unsent = Vec::new();
        (gate.counts_unsent, gate.stuck_since) = (0, None);
        gate.forget_waiting();
        (gate.closed, gate.broken) = (true, true);
        self.wire.shut_down();
    }
}

impl Gate {
    #[inline(always)]
    fn slot(&mut self, index: usize) -> &mut Slot {
        match index.checked_sub(1) {
            None => &mut self.first,
            Some(other) => &mut self.others[other / TOGETHER][other % TOGETHER],
        }
    }

    fn slots(&mut self) -> impl Iterator<Item = &mut Slot> {
        std::iter::once(&mut self.first).chain(self.others.iter_mut().flat_map(|slots| slots.iter_mut()))
    }

    /// Puts the waiting counts into `unsent`.
    fn encode_waiting(&mut self, dialect: Dialect) {
        let (mut unsent, mut counts) = (std::mem::take(&mut self.unsent), 0);
        let mut boot = self.boot.take();
        for slot in self.slots().filter(|slot| slot.waiting) {
            slot.waiting = false;
            let liked = slot.take_liked();
            if let Some(post) = &slot.post {
                let boot = boot.take();
                let personal = Personal { liked, boot: boot.as_deref() };
                dialect.encode(post, slot.newest, personal, &mut unsent);
                counts += 1;
            }
        }
        (self.unsent, self.counts_unsent, self.waiting) = (unsent, counts, 0);
    }

    fn forget_waiting(&mut self) {
        self.slots().for_each(|slot| slot.waiting = false);
        self.waiting = 0;
    }

    #[inline(always)]
    fn sent(&mut self, frames: u64) -> Sent {
        let standing = self.standing();
        let fell_behind = standing == Standing::Behind && !self.listed;
        self.listed |= fell_behind;
        Sent { standing, frames, fell_behind }
    }

    #[inline(always)]
    fn standing(&self) -> Standing {
        if !self.unsent.is_empty() || self.waiting > 0 {
            Standing::Behind
        } else if self.closed {
            Standing::Gone
        } else {
            Standing::Level
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::likes::round::{
        Steps,
        tests::{after, count, only},
    };
    use proptest::prelude::*;

    /// A wire that takes as many bytes as it has room for.
    #[derive(Default)]
    pub(crate) struct Pipe {
        inner: std::sync::Mutex<Inner>,
    }

    #[derive(Default)]
    struct Inner {
        room: usize,
        broken: bool,
        sends: usize,
        taken: Vec<u8>,
        down: bool,
    }

    impl Pipe {
        pub(crate) fn new(room: usize) -> Arc<Self> {
            let pipe = Self::default();
            pipe.inner.lock().unwrap().room = room;
            Arc::new(pipe)
        }

        pub(crate) fn make_room(&self, room: usize) {
            self.inner.lock().unwrap().room = room;
        }

        fn breaks(&self) {
            self.inner.lock().unwrap().broken = true;
        }

        fn is_down(&self) -> bool {
            self.inner.lock().unwrap().down
        }

        fn sends(&self) -> usize {
            self.inner.lock().unwrap().sends
        }

        /// The payloads of the frames that came through, control frames as `(opcode)payload`; or the data of the events.
        pub(crate) fn frames(&self) -> Vec<String> {
            let inner = self.inner.lock().unwrap();
            let mut rest = inner.taken.as_slice();
            let mut frames = Vec::new();
            while rest.first().is_some_and(|first| *first < 0x80) {
                let Some(end) = rest.windows(2).position(|end| end == b"\n\n") else { return frames };
                frames
                    .extend(rest[..end].strip_prefix(b"data: ").map(|data| String::from_utf8_lossy(data).into_owned()));
                rest = &rest[end + 2..];
            }
            if rest.first().is_some_and(|first| *first < 0x80) {
                return frames; // an event whose end is still to come
            }
            while let [first, length, tail @ ..] = rest {
                if *first == b'd' {
                    break; // a part of an event
                }
                assert!(first & 0x80 != 0 && *length <= 125, "a whole short frame: {first:#x} {length}");
                let Some((payload, tail)) = tail.split_at_checked(usize::from(*length)) else { break };
                let text = String::from_utf8_lossy(payload);
                frames.push(if *first == 0x81 { text.into_owned() } else { format!("({}){text}", first & 0x0f) });
                rest = tail;
            }
            frames
        }
    }

    /// What stands in for a socket.
    pub(crate) trait Scripted: Send + Sync {
        fn send_now(&self, bytes: &[u8]) -> io::Result<usize>;
        fn shut_down(&self);
    }

    impl<W: Scripted + 'static> From<Arc<W>> for Wire {
        fn from(wire: Arc<W>) -> Self {
            Self::Scripted(wire)
        }
    }

    impl Scripted for Pipe {
        fn send_now(&self, bytes: &[u8]) -> io::Result<usize> {
            let mut inner = self.inner.lock().unwrap();
            inner.sends += 1;
            if inner.broken {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            let taken = bytes.len().min(inner.room);
            if taken == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            inner.room -= taken;
            inner.taken.extend(&bytes[..taken]);
            Ok(taken)
        }

        fn shut_down(&self) {
            self.inner.lock().unwrap().down = true;
        }
    }

    const DEADLINE: Duration = Duration::from_secs(10);

    fn outbox(room: usize) -> (Arc<Pipe>, Outbox) {
        let pipe = Pipe::new(room);
        let outbox = Outbox::new(pipe.clone(), DEADLINE, Dialect::Bare, None);
        assert_eq!(outbox.open(Post::default(), None), 0);
        (pipe, outbox)
    }

    #[test]
    fn a_client_that_keeps_up_gets_every_count_of_a_round_in_one_send() {
        let (pipe, outbox) = outbox(10_000);
        assert_eq!(outbox.begin(0, count(16), None), Sent { standing: Standing::Level, frames: 1, fell_behind: false });
        assert_eq!(outbox.offer(0, &after(16, 19)).frames, 3);
        assert_eq!(pipe.frames(), ["16", "17", "18", "19"]);
        assert_eq!(pipe.sends(), 2);
    }

    #[test]
    fn the_first_count_is_the_newest_that_is_known_when_it_is_shown() {
        for (round, first) in [(after(15, 16), "19"), (after(15, 19), "19"), (after(15, 21), "21")] {
            let (pipe, outbox) = outbox(10_000);
            assert_eq!(outbox.offer(0, &round).frames, 0, "kept until the count as it is has been read");
            assert_eq!(outbox.begin(0, count(19), None).frames, 1);
            outbox.offer(0, &after(16, 22));
            assert_eq!(pipe.frames()[0], first);
            assert_eq!(pipe.frames().last().unwrap(), "22");
        }
    }

    #[test]
    fn nothing_is_shown_of_a_slot_that_is_released_nor_of_another_post_in_it() {
        let (pipe, outbox) = outbox(10_000);
        outbox.begin(0, count(1), None);
        let other = Post::kept("other");
        let slot = outbox.open(other.clone(), None);
        outbox.begin(slot, count(7), None);
        outbox.release(0);
        assert_eq!(outbox.offer(0, &only(2)).frames, 0);
        assert_eq!(outbox.open(Post::kept("third"), None), 0, "the slot is taken again");
        outbox.begin(0, count(9), None);
        assert_eq!(outbox.offer(0, &only(10)).frames, 0, "a round of the post that stood there before");
        outbox.offer(slot, &Round::of(other, count(8).into()).unwrap());
        assert_eq!(pipe.frames(), ["1", "7", "9", "8"]);
    }

    #[test]
    fn a_slot_that_is_released_leaves_nothing_waiting_and_what_comes_first_is_told_with_the_next() {
        let pipe = Pipe::new(0);
        let outbox = Outbox::new(pipe.clone(), DEADLINE, Dialect::Json, Some("b".into()));
        let slot = outbox.open(Post::default(), None);
        outbox.push(&[0x8a, 0]);
        assert_eq!(outbox.begin(slot, count(1), None).standing, Standing::Behind);
        outbox.release(slot);
        pipe.make_room(1000);
        assert_eq!(outbox.retry(Instant::now()).standing, Standing::Level);
        outbox.begin(outbox.open(Post::default(), None), count(2), None);
        assert_eq!(pipe.frames(), ["(10)", r#"{"type":"count","numLikes":2,"version":2,"boot":"b"}"#]);
    }

    #[test]
    fn a_client_of_several_posts_that_is_behind_ends_at_the_newest_count_of_each() {
        let (pipe, outbox) = outbox(0);
        let post = |number: usize| Post::kept(&number.to_string());
        let slots: Vec<_> = (1..5).map(|number| outbox.open(post(number), None)).collect();
        outbox.begin(0, count(10), None);
        slots.iter().for_each(|slot| _ = outbox.begin(*slot, count(20), None));
        for slot in &slots {
            outbox.offer(*slot, &Round::of(post(*slot), count(30 + *slot as u64).into()).unwrap());
        }
        outbox.release(slots[0]);
        pipe.make_room(1000);
        assert_eq!(outbox.retry(Instant::now()).standing, Standing::Level);
        assert_eq!(pipe.frames(), ["10", "32", "33", "34"]);
    }

    #[test]
    fn a_visitor_s_own_change_is_told_with_the_count_that_it_made() {
        let (pipe, [own, other]) = (Pipe::new(0), [VisitorKey([1; 16]), VisitorKey([2; 16])]);
        let outbox = Outbox::new(pipe.clone(), DEADLINE, Dialect::Json, Some("b".into()));
        let slot = outbox.open(Post::default(), Some(own));
        let round = |newest, minds: &[(VisitorKey, bool)]| {
            let mut steps = Steps::from(count(newest));
            minds.iter().for_each(|mind| steps.push(count(newest), 0, Some(*mind)));
            Round::of(Post::default(), steps).unwrap()
        };
        pipe.make_room(10_000);
        outbox.begin(slot, count(1), Some(false));
        outbox.offer(slot, &round(2, &[(other, true)]));
        outbox.offer(slot, &round(3, &[(other, false), (own, true)]));
        pipe.make_room(0);
        outbox.offer(slot, &round(4, &[(own, false)]));
        outbox.offer(slot, &round(5, &[(other, true)]));
        pipe.make_room(10_000);
        outbox.retry(Instant::now());
        let shown = |rest: &str| format!(r#"{{"type":"count",{rest}}}"#);
        assert_eq!(
            pipe.frames(),
            [
                shown(r#""numLikes":1,"version":1,"liked":false,"boot":"b""#),
                shown(r#""numLikes":2,"version":2"#),
                shown(r#""numLikes":3,"version":3,"liked":true"#),
                shown(r#""numLikes":5,"version":5,"liked":false"#),
            ]
        );
    }

    #[test]
    fn a_client_is_listed_once_as_behind_whoever_flushes_it() {
        let (pipe, outbox) = outbox(3);
        outbox.begin(0, count(1), None);
        assert!(outbox.offer(0, &only(2)).fell_behind);
        for newest in 3..10 {
            pipe.make_room(3);
            assert_eq!(outbox.flush(Instant::now()).standing, Standing::Level, "its own thread sends a pong");
            assert!(!outbox.offer(0, &only(newest)).fell_behind, "it is listed already");
        }
        assert_eq!(outbox.retry(Instant::now()).standing, Standing::Behind);
        pipe.make_room(100);
        assert_eq!(outbox.retry(Instant::now()).standing, Standing::Level);
        pipe.make_room(0);
        assert!(outbox.offer(0, &only(10)).fell_behind, "it has left the list");
    }

    #[test]
    fn what_was_shown_is_not_shown_again_nor_is_anything_below_it() {
        let (pipe, outbox) = outbox(10_000);
        outbox.begin(0, count(17), None);
        for round in [after(15, 16), only(17), after(15, 19), only(18)] {
            outbox.offer(0, &round);
        }
        assert_eq!(pipe.frames(), ["17", "18", "19"]);
    }

    #[test]
    fn a_client_that_falls_behind_ends_at_the_newest_count_wherever_it_stopped() {
        for room in 0..after(98, 102).encoded(Dialect::Bare).bytes.len() {
            let (pipe, outbox) = outbox(4);
            outbox.begin(0, count(98), None);
            pipe.make_room(room);
            assert!(outbox.offer(0, &after(98, 102)).fell_behind, "{room}");
            assert!(!outbox.offer(0, &only(103)).fell_behind, "it is told once");
            assert_eq!(outbox.offer(0, &only(104)).standing, Standing::Behind);
            pipe.make_room(1000);
            assert_eq!(outbox.retry(Instant::now()).standing, Standing::Level);
            let counts: Vec<u64> = pipe.frames().iter().map(|count| count.parse().unwrap()).collect();
            assert!(counts.is_sorted_by(|a, b| a < b), "{room}: {counts:?}");
            assert_eq!(counts.last(), Some(&104), "{room}");
            outbox.offer(0, &after(104, 105));
            assert_eq!(pipe.frames().last().unwrap(), "105");
        }
    }

    #[test]
    fn a_client_that_falls_behind_again_is_told_of_again() {
        let (pipe, outbox) = outbox(3);
        outbox.begin(0, count(1), None);
        for count in [2, 3] {
            assert!(outbox.offer(0, &only(count)).fell_behind);
            pipe.make_room(3);
            assert_eq!(outbox.retry(Instant::now()).standing, Standing::Level);
        }
        assert_eq!(pipe.frames(), ["1", "2", "3"]);
    }

    #[test]
    fn frames_are_tallied_when_the_kernel_has_taken_them_whole() {
        let (pipe, outbox) = outbox(3);
        outbox.begin(0, count(1), None);
        pipe.make_room(2 * 3 + 1);
        assert_eq!(outbox.offer(0, &after(1, 5)).frames, 2, "the third is begun");
        pipe.make_room(2 + 3);
        assert_eq!(outbox.retry(Instant::now()).frames, 2, "the third, and the newest");
        assert_eq!(pipe.frames(), ["1", "2", "3", "4", "5"]);
    }

    #[test]
    fn a_client_that_takes_nothing_at_first_is_shown_its_first_count_later_even_if_that_is_0() {
        let (pipe, outbox) = outbox(0);
        assert_eq!(outbox.begin(0, count(0), None), Sent { standing: Standing::Behind, frames: 0, fell_behind: true });
        pipe.make_room(3);
        assert_eq!(outbox.retry(Instant::now()), Sent { standing: Standing::Level, frames: 1, fell_behind: false });
        assert_eq!(pipe.frames(), ["0"]);
    }

    #[test]
    fn while_a_client_is_behind_a_round_costs_no_send_and_no_memory() {
        let (pipe, outbox) = outbox(0);
        outbox.begin(0, count(1), None);
        let sends = pipe.sends();
        for count in 2..10_000 {
            outbox.offer(0, &only(count));
        }
        assert_eq!(pipe.sends(), sends);
        assert!(lock(&outbox.gate).unsent.capacity() <= 2 * 22);
        pipe.make_room(1000);
        outbox.retry(Instant::now());
        assert_eq!(pipe.frames(), ["1", "9999"]);
    }

    #[test]
    fn a_client_that_takes_nothing_for_the_deadline_is_dropped_and_one_that_takes_a_byte_is_not() {
        let (pipe, outbox) = outbox(0);
        outbox.begin(0, count(16), None);
        let start = Instant::now();
        assert_eq!(outbox.retry(start).standing, Standing::Behind);
        pipe.make_room(1);
        assert_eq!(outbox.retry(start + DEADLINE / 2).standing, Standing::Behind);
        assert!(!outbox.was_dropped());
        assert_eq!(outbox.retry(Instant::now() + DEADLINE).standing, Standing::Gone);
        assert!(outbox.was_dropped() && pipe.is_down());
    }

    #[test]
    fn the_deadline_runs_from_where_a_client_fell_behind_and_not_from_when_it_last_kept_up() {
        let (_pipe, outbox) = outbox(3);
        assert_eq!(outbox.begin(0, count(1), None).standing, Standing::Level);
        let kept_up = Instant::now();
        while Instant::now() == kept_up {}
        assert_eq!(outbox.offer(0, &only(2)).standing, Standing::Behind);
        assert_eq!(outbox.retry(kept_up + DEADLINE).standing, Standing::Behind);
        assert_eq!(outbox.retry(Instant::now() + DEADLINE).standing, Standing::Gone);
    }

    #[test]
    fn a_wire_that_breaks_is_shut_down_and_asked_no_more() {
        let (pipe, outbox) = outbox(100);
        pipe.breaks();
        assert_eq!(outbox.begin(0, count(16), None), Sent { standing: Standing::Gone, frames: 0, fell_behind: false });
        outbox.offer(0, &only(17));
        outbox.push(&[0x89, 0]);
        outbox.close(Some(1001), "over");
        assert_eq!(pipe.sends(), 1);
        assert!(pipe.is_down() && !outbox.was_dropped() && !outbox.is_closing());
    }

    #[test]
    fn nothing_follows_a_close_frame_and_it_is_sent_once() {
        let (pipe, outbox) = outbox(1000);
        outbox.begin(0, count(16), None);
        outbox.close(Some(1001), "over");
        outbox.close(Some(1002), "again");
        outbox.offer(0, &only(17));
        assert_eq!(outbox.push(&[0x89, 0]), Standing::Gone);
        assert_eq!(pipe.frames(), ["16", "(8)\u{3}\u{fffd}over"]);
        assert!(outbox.is_closing());
    }

    #[test]
    fn a_stream_of_events_ends_with_its_wire() {
        let pipe = Pipe::new(100);
        let outbox = Outbox::new(pipe.clone(), DEADLINE, Dialect::Events, None);
        let slot = outbox.open(Post::default(), None);
        outbox.begin(slot, count(16), None);
        assert_eq!(outbox.close(Some(1001), "over").standing, Standing::Gone);
        outbox.offer(slot, &only(17));
        assert_eq!(pipe.frames(), [r#"{"type":"count","numLikes":16,"version":16}"#]);
        assert!(pipe.is_down() && !outbox.was_dropped());
    }

    #[test]
    fn a_close_frame_waits_for_the_frame_before_it_and_goes_before_the_count_that_waits() {
        let (pipe, outbox) = outbox(2);
        outbox.begin(0, count(1234), None);
        outbox.offer(0, &only(1235));
        outbox.close(None, "");
        pipe.make_room(1000);
        assert_eq!(outbox.retry(Instant::now()).standing, Standing::Gone);
        assert_eq!(pipe.frames(), ["1234", "(8)"]);
    }

    #[test]
    fn a_close_reason_is_cut_to_what_a_control_frame_holds() {
        let (pipe, outbox) = outbox(1000);
        outbox.close(Some(1001), &"é".repeat(100));
        assert_eq!(pipe.frames()[0].matches('é').count(), 61);
    }

    proptest! {
        /// Whatever happens in whatever order: whole frames, rising counts, pongs in order, and in the end the newest.
        #[test]
        fn frames_are_whole_and_counts_rise(steps in prop::collection::vec((0..5u8, 0..40usize), 1..60)) {
            let (pipe, outbox) = outbox(0);
            outbox.begin(0, count(95), None);
            let (mut shown, mut pongs) = (95, 0u8);
            for (kind, size) in steps {
                match kind {
                    0 | 1 => {
                        let newest = shown + 1 + size as u64 * 2;
                        outbox.offer(0, &after(shown, newest));
                        shown = newest;
                    }
                    2 => pipe.make_room(size),
                    3 => _ = outbox.retry(Instant::now()),
                    _ => {
                        outbox.push(&[0x8a, 1, b'A' + pongs % 26]);
                        pongs += 1;
                    }
                }
            }
            pipe.make_room(usize::MAX);
            outbox.offer(0, &after(shown, shown + 1));
            prop_assert_eq!(outbox.retry(Instant::now()).standing, Standing::Level);
            let (control, counts): (Vec<_>, Vec<_>) = pipe.frames().into_iter().partition(|frame| frame.starts_with('('));
            let counts: Vec<u64> = counts.iter().map(|count| count.parse().unwrap()).collect();
            prop_assert!(counts.is_sorted_by(|a, b| a < b), "{:?}", counts);
            prop_assert_eq!(counts.last(), Some(&(shown + 1)));
            let expected: Vec<_> = (0..pongs).map(|pong| format!("(10){}", char::from(b'A' + pong % 26))).collect();
            prop_assert_eq!(control, expected);
        }
    }
}
