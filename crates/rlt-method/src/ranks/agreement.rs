//! What all ranks agree on before they meet again: the error of the first that has one.

use rlt_ranks::Ranks;

use crate::error::{Error, Result};

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
