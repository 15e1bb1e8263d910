//! Ctrl-C and SIGTERM as a flag that long work looks at between its parts.

use std::io::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use rlt::{Error, Result};

/// Exit code of work that a signal stopped.
pub const EXIT_INTERRUPTED: u8 = 130;

static STOP: AtomicBool = AtomicBool::new(false);

/// A flag that becomes true at the first Ctrl-C or SIGTERM; the second ends the process at once.
/// Only a command that saves its state when it sees the flag asks for it: the others keep the
/// system's way, where the first signal ends the process.
///
/// # Errors
/// [`Error::Failed`] when the handler cannot be installed.
pub fn stop_flag() -> Result<&'static AtomicBool> {
    static INSTALLED: OnceLock<std::result::Result<(), String>> = OnceLock::new();
    INSTALLED
        .get_or_init(|| ctrlc::set_handler(on_signal).map_err(|e| e.to_string()))
        .clone()
        .map_err(|e| Error::Failed(format!("cannot watch for Ctrl-C: {e}")))?;
    Ok(&STOP)
}

fn on_signal() {
    if STOP.swap(true, Ordering::SeqCst) {
        std::process::exit(EXIT_INTERRUPTED.into());
    }
    // A closed standard error is no reason not to stop.
    drop(writeln!(std::io::stderr(), "stopping, and saving what is done; once more stops at once"));
}
