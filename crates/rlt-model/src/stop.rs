//! How long work is asked to end before it is done.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};

/// Asks long work to end between its parts (a decoding step, a micro-batch): as soon as a flag is set, or never.
#[derive(Debug, Clone, Copy)]
pub struct Stop<'a>(Option<&'a AtomicBool>);

impl<'a> Stop<'a> {
    /// Work that is always done to its end.
    pub const fn never() -> Self {
        Self(None)
    }

    /// Work that ends once `flag` is set.
    pub const fn when(flag: &'a AtomicBool) -> Self {
        Self(Some(flag))
    }

    /// Whether it is asked for.
    pub fn is_asked(self) -> bool {
        self.0.is_some_and(|flag| flag.load(Ordering::SeqCst))
    }

    /// Ends the work where it is asked for.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub fn check(self) -> Result<()> {
        if self.is_asked() { Err(Error::Stopped) } else { Ok(()) }
    }
}
