//! Log-probabilities of given tokens.

use std::ops::Range;

/// Continuations of one shared prefix; the prefix is computed once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScoringGroup {
    /// Tokens before every continuation.
    pub prefix: Vec<u32>,
    /// What follows, each on its own.
    pub continuations: Vec<Continuation>,
}

/// One continuation and the part of it whose log-probabilities are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Continuation {
    /// The tokens.
    pub ids: Vec<u32>,
    /// Positions in `ids` whose log-probability is wanted.
    pub scored: Vec<Range<usize>>,
}
