//! What long work tells Python: warnings, and whether it was interrupted.

use std::ffi::CString;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use pyo3::exceptions::PyUserWarning;
use pyo3::prelude::*;
use rlt::progress::Progress;
use rlt::{Error, Result};

/// Collects warnings while the interpreter does other work.
#[derive(Default)]
pub struct Warnings(Mutex<Vec<String>>);

impl Warnings {
    /// Gives them to Python's `warnings`.
    pub fn tell(&self, py: Python<'_>) -> PyResult<()> {
        for line in self.0.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let line = CString::new(line.replace('\0', " "))?;
            PyErr::warn(py, &py.get_type::<PyUserWarning>(), &line, 1)?;
        }
        Ok(())
    }
}

impl Progress for Warnings {
    fn start(&self, _stage: &str, _total: u64, _unit: &str) {}
    fn advance(&self, _n: u64, _message: &str) {}
    fn finish(&self, _message: &str) {}
    fn note(&self, _line: &str) {}
    fn warn(&self, line: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(line.to_owned());
    }
}

/// Looks for an interruption (Ctrl-C, say) whenever work gets on, and stops what waits for a server.
#[derive(Default)]
pub struct Interruptible {
    flag: AtomicBool,
    interruption: Mutex<Option<PyErr>>,
}

impl Interruptible {
    /// Raised once it was interrupted.
    pub fn flag(&self) -> &AtomicBool {
        &self.flag
    }

    /// Looks now.
    ///
    /// # Errors
    /// [`Error::Interrupted`] once it was interrupted.
    pub fn look(&self) -> Result<()> {
        if let Err(error) = Python::attach(|py| py.check_signals()) {
            *self.interruption.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            self.flag.store(true, Ordering::SeqCst);
        }
        match self.flag.load(Ordering::SeqCst) {
            true => Err(Error::Interrupted("interrupted".into())),
            false => Ok(()),
        }
    }

    /// The exception of the interruption, if there was one.
    pub fn interruption(&self) -> Option<PyErr> {
        self.interruption.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Progress for Interruptible {
    fn start(&self, _stage: &str, _total: u64, _unit: &str) {}
    fn advance(&self, _n: u64, _message: &str) {
        // The flag tells whoever works; the error is for who asks.
        let _ = self.look();
    }
    fn finish(&self, _message: &str) {}
    fn note(&self, _line: &str) {}
    fn warn(&self, _line: &str) {}
}
