//! The commands that can be planned.

/// Which command the plan is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// `rlt sft`.
    Sft,
    /// `rlt train`.
    Train,
}
