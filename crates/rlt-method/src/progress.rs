//! How long work tells what it is doing, without knowing about terminals.

/// Receives the progress of long work. The command line draws it; [`Silent`] drops it.
pub trait Progress: Sync {
    /// A stage of `total` units (`unit` is a plural noun such as "steps") begins.
    fn start(&self, stage: &str, total: u64, unit: &str);
    /// `n` more units are done; `message` is a short figure worth seeing ("loss 1.23").
    fn advance(&self, n: u64, message: &str);
    /// The stage is over; `message` is its one-line result.
    fn finish(&self, message: &str);
    /// A line that should stay visible (a saved path, what was left out).
    fn note(&self, line: &str);
    /// A line that must be seen, by who asked for silence, too: something of the user's is not as it should be.
    fn warn(&self, line: &str);
}

/// Shows nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn start(&self, _stage: &str, _total: u64, _unit: &str) {}
    fn advance(&self, _n: u64, _message: &str) {}
    fn finish(&self, _message: &str) {}
    fn note(&self, _line: &str) {}
    fn warn(&self, _line: &str) {}
}
