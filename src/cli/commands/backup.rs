//! `backup`

use super::{Invocation, Problem, say};

pub(super) fn run(given: &Invocation) -> Result<(), Problem> {
    let file = &given.operands[0];
    given.store()?.back_up(file.as_ref())?;
    say(format_args!("{} is copied to {file}", given.db()))
}
