//! `get`, `set`, `delete` and `top`.

use super::{Invocation, Problem, called, not_written, number, post, say};
use live_likes::{Admin, Change, ChangeKind, Outcome, Post};
use std::io::{BufWriter, Write, stdout};

pub(super) fn get(given: &Invocation) -> Result<(), Problem> {
    let post = post(given.operands.first().map_or("", String::as_str))?;
    say(given.store()?.count(&post)?.likes)
}

pub(super) fn set(given: &Invocation) -> Result<(), Problem> {
    let (name, likes) = match &given.operands[..] {
        [name, likes] => (name.as_str(), likes),
        operands => ("", &operands[0]),
    };
    let (post, likes) = (post(name)?, number(likes)?);
    change(&mut *given.store_to_fill()?, &post, ChangeKind::Set(likes))?;
    say(format_args!("{} has {likes} likes in {}", called(&post), given.db()))
}

pub(super) fn delete(given: &Invocation) -> Result<(), Problem> {
    let post = post(&given.operands[0])?;
    match change(&mut *given.store()?, &post, ChangeKind::Delete)? {
        Outcome::Unchanged { .. } => say(format_args!("{} is not in {}", called(&post), given.db())),
        _ => say(format_args!("{} has no likes any more in {}", called(&post), given.db())),
    }
}

fn change(store: &mut dyn Admin, post: &Post, kind: ChangeKind) -> Result<Outcome, Problem> {
    let change = Change { post: post.clone(), kind };
    match store.apply(&[change]).map_err(|e| e.error)?[..] {
        [outcome] => Ok(outcome),
        _ => Err(Problem::Failed("the store has not told the outcome of one change".to_owned())),
    }
}

pub(super) fn top(given: &Invocation) -> Result<(), Problem> {
    let most = given.operands.first().map_or(Ok(10), |most| number(most))?;
    let mut out = BufWriter::new(stdout().lock());
    for (post, count) in given.store()?.top(most)? {
        writeln!(out, "{}\t{}", count.likes, post.name()).map_err(|e| not_written(&e))?;
    }
    out.flush().map_err(|e| not_written(&e))
}
