//! Work that ranks share: whose part is whose, what all agree on, what only the first does.
//!
//! Ranks must meet at every collective. So what may fail on one of them (a file, a number that is not finite, a request to
//! stop) is agreed on before the next one: [`agree`] gives all ranks the error of the first that has one.

pub(crate) mod wire;

use std::ops::Range;

pub use rlt_ranks::Ranks;
pub(crate) use wire::{Wire, gather, wire_fields};

use crate::error::{Error, Result};

/// Block `index` of `n` items in order that are cut into `blocks` blocks as evenly as it can be.
pub fn block(index: usize, blocks: usize, n: usize) -> Range<usize> {
    index * n / blocks..(index + 1) * n / blocks
}

/// Which of `n` items in order are this rank's to work on.
pub fn dealt(ranks: &Ranks, n: usize) -> Range<usize> {
    block(ranks.rank(), ranks.size(), n)
}

/// What this rank came to, where no rank failed.
///
/// # Errors
/// On all ranks the error of the first that failed, with its place.
pub fn agree<T>(ranks: &Ranks, mine: Result<T>) -> Result<T> {
    // Who has lost the others does not meet them again.
    if ranks.size() == 1 || matches!(mine, Err(Error::Ranks(_))) {
        return mine;
    }
    let said = mine.as_ref().err().map(|error| Said::of(error, ranks).to_text());
    match ranks.first_error(said)? {
        None => mine,
        Some((_, said)) => Err(Said::from_text(&said).into_error()),
    }
}

/// Work with files: the first rank does it, and all hear how it went.
///
/// # Errors
/// Those of `work`, on all ranks.
pub fn on_first(ranks: &Ranks, work: impl FnOnce() -> Result<()>) -> Result<()> {
    agree(ranks, if ranks.is_first() { work() } else { Ok(()) })
}

/// An error as ranks tell it to each other: what others decide by, and its line.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Stopped,
    Usage(String),
    NonFinite(String),
    Interrupted(String),
    Failed(String),
}

impl Said {
    fn of(error: &Error, ranks: &Ranks) -> Self {
        let line = format!("{}: {error}", ranks.place());
        match error {
            Error::Model(rlt_model::Error::Stopped) => Self::Stopped,
            // What is wrong with the call is so on every rank.
            Error::Usage(what) => Self::Usage(if ranks.is_first() { what.clone() } else { line }),
            Error::NonFinite(_) => Self::NonFinite(line),
            Error::Interrupted(what) => Self::Interrupted(what.clone()),
            _ => Self::Failed(line),
        }
    }

    fn to_text(&self) -> String {
        match self {
            Self::Stopped => "s".into(),
            Self::Usage(line) => format!("u{line}"),
            Self::NonFinite(line) => format!("n{line}"),
            Self::Interrupted(line) => format!("i{line}"),
            Self::Failed(line) => format!("f{line}"),
        }
    }

    fn from_text(text: &str) -> Self {
        let mut characters = text.chars();
        let kind = characters.next();
        let line = characters.as_str().to_owned();
        match kind {
            Some('s') => Self::Stopped,
            Some('u') => Self::Usage(line),
            Some('n') => Self::NonFinite(line),
            Some('i') => Self::Interrupted(line),
            _ => Self::Failed(line),
        }
    }

    fn into_error(self) -> Error {
        match self {
            Self::Stopped => rlt_model::Error::Stopped.into(),
            Self::Usage(line) => Error::Usage(line),
            Self::NonFinite(line) => Error::NonFinite(line),
            Self::Interrupted(line) => Error::Interrupted(line),
            Self::Failed(line) => Error::Failed(line),
        }
    }
}

#[cfg(test)]
mod tests {
    use rlt_ranks::on_threads;

    use super::*;

    #[test]
    fn items_are_dealt_once_in_order_and_evenly() {
        for n in [0, 1, 5, 8, 13] {
            for blocks in 1..=9 {
                let all: Vec<Range<usize>> = (0..blocks).map(|index| block(index, blocks, n)).collect();
                assert!(all.iter().flat_map(Clone::clone).eq(0..n));
                assert!(
                    all.iter().all(|block| block.len() == n / blocks || block.len() == n.div_ceil(blocks))
                );
            }
        }
    }

    #[test]
    fn all_ranks_fail_with_the_first_that_did() {
        let agreed = |fails: fn(usize) -> Option<Error>| {
            on_threads(3, |ranks| {
                let mine = fails(ranks.rank()).map_or(Ok(ranks.rank()), Err);
                agree(&ranks, mine).map_err(|error| format!("{error:?}"))
            })
        };
        assert_eq!(agreed(|_| None), [Ok(0), Ok(1), Ok(2)]);
        let not_finite = agreed(|rank| (rank > 0).then(|| Error::NonFinite("step 3, row 8".into())));
        for error in not_finite {
            let error = error.unwrap_err();
            assert!(
                error.starts_with("NonFinite(\"rank 1 of 3 on ") && error.contains(": step 3, row 8"),
                "{error}"
            );
        }
        let stopped = agreed(|rank| (rank == 2).then(|| rlt_model::Error::Stopped.into()));
        assert!(stopped.iter().all(|error| error == &Err("Model(Stopped)".into())), "{stopped:?}");
        let usage = agreed(|_| Some(Error::Usage("grpo.steps is 0".into())));
        assert!(usage.iter().all(|error| error == &Err("Usage(\"grpo.steps is 0\")".into())), "{usage:?}");
    }

    #[test]
    fn the_first_rank_writes_and_all_hear_of_it() {
        let outcomes = on_threads(2, |ranks| {
            let written = on_first(&ranks, || {
                assert!(ranks.is_first());
                Err(Error::Failed("disk full".into()))
            });
            written.unwrap_err().to_string()
        });
        assert!(
            outcomes.iter().all(|line| line.starts_with("rank 0 of 2 on ") && line.ends_with(": disk full"))
        );
    }
}
