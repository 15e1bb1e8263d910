//! A limit on the work one comparison may take, so that no input is slow.

use std::cell::Cell;

/// Work that is left, in units of roughly 50 ns. Once it is gone, nothing more is computed and what was
/// not shown equal by then counts as different.
#[derive(Debug)]
pub(super) struct Budget(Cell<u64>);

impl Budget {
    /// What one comparison may spend: about 10 ms.
    pub const COMPARISON: u64 = 200_000;

    pub fn new(units: u64) -> Self {
        Self(Cell::new(units))
    }

    /// Takes `units`; `None` when they are not there (the rest is then gone, too).
    pub fn spend(&self, units: u64) -> Option<()> {
        let left = self.0.get().checked_sub(units);
        self.0.set(left.unwrap_or(0));
        left.map(|_| ())
    }

    /// Whether there is nothing left.
    pub fn exhausted(&self) -> bool {
        self.0.get() == 0
    }
}
