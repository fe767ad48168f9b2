//! A client that is shown counts as server-sent events (the HTML standard, section 9.2): a response that does not end.
//!
//! Its end is the connection's, as HTTP/1.0 has it too: proxies that speak no later version pass it on as it comes.
//! Nothing is read from the client, which has said all there is to say: what it sends nevertheless waits in the kernel,
//! which takes little of it. What is sent to it goes through an outbox, as to a WebSocket.

use crate::{
    http::{reader::close_in_stages, response::Response},
    likes::outbox::{Outbox, Standing},
    limits::due_in,
    server::likes::Watched,
    server::state::State,
    stream::Stream,
};
use rustix::{
    event::{PollFd, PollFlags, poll},
    net::sockopt,
};
use std::sync::Arc;

/// A comment, which clients ignore.
const HEARTBEAT: &[u8] = b":\n\n";

/// Bytes that the kernel holds for a client that does not read, as for a WebSocket.
const SEND_BUFFER: usize = 16 * 1024;

/// What comes before the events.
pub(crate) fn head() -> Response {
    Response::new(200)
        .field("Content-Type", "text/event-stream")
        .field("X-Content-Type-Options", "nosniff")
        .field("Cache-Control", "no-store")
        .field("X-Accel-Buffering", "no") // nginx would gather events until it has some thousand bytes of them
}

/// Shows a client the counts, until one of the two has had enough.
pub(crate) fn show(state: &State, stream: &Stream, outbox: &Arc<Outbox>, watched: &[Watched]) {
    let limits = &state.limits;
    let _ = sockopt::set_socket_send_buffer_size(stream, SEND_BUFFER);
    // A client that is gone without a word answers no ping here. So it is the kernel that notices, by what the client's
    // does not acknowledge; later than the outbox would, which counts those who do not read.
    #[cfg(target_os = "linux")]
    let _ = sockopt::set_tcp_user_timeout(
        stream,
        (limits.pong_within + limits.write_deadline).as_millis().try_into().unwrap_or(u32::MAX),
    );
    // What cannot be read just now ends the stream. The client asks again, and is told why.
    let join = |watched: &Watched| watched.likes.join(outbox, watched.visitor);
    let registrations: Result<Vec<_>, _> = watched.iter().map(join).collect();
    state.close_if_stopping(outbox);
    if registrations.is_ok() {
        wait_for_the_end(state, stream, outbox);
    }
    close_in_stages(stream, due_in(limits.close_within));
}

fn wait_for_the_end(state: &State, stream: &Stream, outbox: &Arc<Outbox>) {
    let within = state.limits.ping_after.try_into().ok();
    let mut end = PollFlags::RDHUP;
    loop {
        let mut polled = [PollFd::new(stream, end)];
        let _ = poll(&mut polled, within.as_ref());
        let seen = polled[0].revents();
        if seen.intersects(PollFlags::ERR | PollFlags::HUP) {
            return;
        }
        if seen.contains(PollFlags::RDHUP) {
            // It sends no more. Whether it still reads, the heartbeat finds out.
            end = PollFlags::empty();
        }
        // To one that is behind there is enough on its way already.
        match outbox.push(&[]) {
            Standing::Gone => return,
            Standing::Level if outbox.tell(HEARTBEAT).fell_behind => state.likes.look_after(outbox.clone()),
            _ => {}
        }
    }
}
