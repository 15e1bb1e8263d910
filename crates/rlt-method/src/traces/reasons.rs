//! Why rows have no reward that choosing can go by, counted.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// The status of a row that was scored, and in which nothing is amiss.
pub const OK: &str = "ok";

/// Reasons that are told apart; what comes after them is counted together.
const MOST_REASONS: usize = 32;

/// The longest name of a reason, characters.
const LONGEST: usize = 100;

/// What reasons are called that are not told apart.
const OTHERS: &str = "other reasons";

/// How many rows have which reason.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Reasons(BTreeMap<String, u64>);

impl Reasons {
    /// Counts a row by its `parts.status`; one that is [`OK`] is not counted. What a status says of this row alone, after its
    /// first colon or semicolon, is left out.
    pub fn count(&mut self, status: &str) {
        let name = status.split([':', ';']).next().unwrap_or(status).trim();
        if name == OK {
            return;
        }
        let name: String = name.chars().take(LONGEST).collect();
        let is_known = self.0.contains_key(&name) || self.0.len() < MOST_REASONS;
        *self.0.entry(if is_known { name } else { OTHERS.into() }).or_default() += 1;
    }

    /// How many rows were counted.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }
}

/// "3 empty thought; 1 the solution is empty (null)", the most frequent first.
impl fmt::Display for Reasons {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut reasons: Vec<(&String, &u64)> = self.0.iter().collect();
        reasons.sort_by_key(|&(_, n)| std::cmp::Reverse(n));
        for (i, (reason, n)) in reasons.into_iter().enumerate() {
            write!(f, "{}{n} {reason}", if i == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_counted_without_what_they_say_of_one_row() {
        let mut reasons = Reasons::default();
        for status in [
            "the solution is empty (null)",
            "too long: 812 tokens, the student's context is 700",
            "ok",
            "too long: 900 tokens, the student's context is 700",
            "no column `solution` (data.solution names it); the row has `question`",
        ] {
            reasons.count(status);
        }
        assert_eq!(
            reasons.to_string(),
            "2 too long; 1 no column `solution` (data.solution names it); 1 the solution is empty (null)"
        );
        assert_eq!(reasons.total(), 4);
    }

    #[test]
    fn statuses_without_end_stay_few_and_short() {
        let mut reasons = Reasons::default();
        for i in 0..1000 {
            reasons.count(&format!("{i}{}", "é".repeat(500)));
        }
        assert_eq!((reasons.total(), reasons.0.len()), (1000, MOST_REASONS + 1));
        assert_eq!(reasons.0[OTHERS], 1000 - MOST_REASONS as u64);
        assert!(reasons.0.keys().all(|name| name.chars().count() <= LONGEST));
    }
}
