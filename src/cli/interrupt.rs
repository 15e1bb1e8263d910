//! Signals: Ctrl-C, SIGTERM and a closed terminal end the work, at once or once its state is saved; a file that grows
//! beyond what is allowed is an error of writing it.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use rlt::{Error, Result};
use rlt_ranks::Ranks;

/// Exit code of work that a signal stopped.
pub const EXIT_INTERRUPTED: u8 = 130;

static STOP: AtomicBool = AtomicBool::new(false);
/// Whether the command saves its state when it sees [`STOP`].
static SAVES: AtomicBool = AtomicBool::new(false);

/// Whether this process tells the user: a launcher passes signals on to all ranks, and one of them speaks.
static SPEAKS: AtomicBool = AtomicBool::new(true);

/// Watches for signals from here on. Call it once, before any thread starts.
///
/// # Errors
/// [`Error::Failed`] when the handlers cannot be installed.
pub fn watch(ranks: &Ranks) -> Result<()> {
    SPEAKS.store(ranks.is_first(), Ordering::SeqCst);
    let failed = |e: std::io::Error| Error::Failed(format!("cannot watch for signals: {e}"));
    #[cfg(unix)]
    {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
        // With a handler in place, a write beyond `ulimit -f` is refused as one to a full disk is.
        signal_hook::flag::register(SIGXFSZ, std::sync::Arc::default()).map_err(failed)?;
        let mut ends = vec![SIGINT, SIGTERM];
        ends.extend((!is_ignored(SIGHUP)).then_some(SIGHUP));
        let mut signals = signal_hook::iterator::Signals::new(ends).map_err(failed)?;
        let wait = move || signals.forever().for_each(|_| on_signal());
        std::thread::Builder::new().name("signals".into()).spawn(wait).map_err(failed)?;
    }
    Ok(())
}

/// Whether the process was started with `signal` ignored, as `nohup` does with a closed terminal's; it stays so.
#[cfg(unix)]
fn is_ignored(signal: i32) -> bool {
    // `SigIgn:	0000000000000001`, a bit a signal, from 1.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

/// A flag that becomes true at the first signal; the second ends the process at once. Only a command that saves its
/// state when it sees the flag asks for it: any other ends at the first.
pub fn stop_flag() -> &'static AtomicBool {
    SAVES.store(true, Ordering::SeqCst);
    &STOP
}

fn on_signal() {
    let say = |line: &str| {
        if SPEAKS.load(Ordering::SeqCst) {
            drop(writeln!(std::io::stderr(), "{line}"));
        }
    };
    // A closed standard error is no reason not to stop.
    if SAVES.load(Ordering::SeqCst) && !STOP.swap(true, Ordering::SeqCst) {
        say("stopping, and saving what is done; once more stops at once");
        return;
    }
    // What is committed of rows that can be gone on with stays.
    rlt_files::remove_unfinished();
    say("error: interrupted; the same command starts again, or continues");
    std::process::exit(EXIT_INTERRUPTED.into());
}
