//! What becomes of what an operation's output held before.

/// Whether a product replaces what the output holds or is added to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Overwrite.
    Replace,
    /// Add to the present contents.
    Accumulate,
}
