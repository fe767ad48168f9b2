//! `export`: a store as CSV, line by line.

use super::{Invocation, Problem, not_written, some};
use live_likes::{Change, ChangeKind, VisitorKey};
use std::{
    fmt::Write as _,
    io::{Write, stderr, stdout},
    ops::ControlFlow,
};

/// The header of an export with visitors. One without has the first two columns.
pub(super) const COLUMNS: [&str; 5] = ["post", "likes", "visitor", "liked", "seq"];

pub(super) fn run(given: &Invocation) -> Result<(), Problem> {
    let mut store = given.store()?;
    let mut out = csv::WriterBuilder::new().flexible(false).from_writer(stdout().lock());
    let columns = if given.visitors { 5 } else { 2 };
    let (mut posts, mut visitors) = (0_u64, 0_u64);
    let mut written = out.write_record(&COLUMNS[..columns]);
    store.export(given.visitors, &mut |Change { post, kind }| {
        let (likes, visitor, liked, seq) = match kind {
            ChangeKind::Visitor { visitor, liked, seq } => {
                visitors += 1;
                (String::new(), hex(visitor), liked.to_string(), seq.map(|seq| seq.to_string()).unwrap_or_default())
            }
            ChangeKind::Set(likes) => {
                posts += 1;
                (likes.to_string(), String::new(), String::new(), String::new())
            }
            _ => return ControlFlow::Continue(()),
        };
        written = out.write_record(&[post.name(), &likes, &visitor, &liked, &seq][..columns]);
        if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    written.map_err(std::io::Error::from).and_then(|()| out.flush()).map_err(|e| not_written(&e))?;
    let visitors = if given.visitors { format!(" and {}", some(visitors, "visitor")) } else { String::new() };
    // Nobody need read it.
    let _ = writeln!(stderr(), "exported {}{visitors} of {}", some(posts, "post"), given.db());
    Ok(())
}

fn hex(visitor: VisitorKey) -> String {
    visitor.0.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
