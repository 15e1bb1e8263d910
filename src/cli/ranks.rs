//! Several ranks: joining the job at the start, one line when it breaks, a farewell at the end.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rlt::config::Config;
use rlt::progress::Progress;
use rlt::run_dir::RunDir;
use rlt::training::{Host, Trained, with_what_is_left};
use rlt::{Error, Result, start};
use rlt_ranks::{Launch, OnLoss, Ranks, on_threads_with};

use super::common::Context;
use super::interrupt::stop_flag;
use super::rank_log::RankLog;
use super::visible;

/// "rank 2 of 4 on node7", where there are several: it begins every line about an error.
static PLACE: OnceLock<String> = OnceLock::new();

/// The job, for the last word of a process that ends with a line of its own.
static JOB: OnceLock<Ranks> = OnceLock::new();

/// The run directory of a job that trains: what it says about another rank's end says what is left, too.
static RUN_DIR: OnceLock<PathBuf> = OnceLock::new();

/// Whether this process has said why the job ends, or leaves it to another.
static TOLD: AtomicBool = AtomicBool::new(false);

/// How long a rank other than the first keeps its error to itself: what is wrong everywhere (a configuration, a missing
/// file) is said once, by rank 0, whose word ends the others.
const FIRST_SPEAKS_FIRST: Duration = Duration::from_millis(700);

/// How long a rank that has lost another waits for somebody who knows why.
const WHO_KNOWS_WHY: Duration = Duration::from_millis(1500);

/// This process's place in the job that a launcher started; alone without one.
///
/// # Errors
/// What the environment says makes no job, or the ranks do not find each other.
pub fn join() -> Result<Ranks> {
    let (launch, settings) = Launch::from_environment()?;
    let on_loss: OnLoss = Arc::new(|error| end_over(error));
    let ranks = launch.join(settings, &on_loss)?;
    if ranks.size() > 1 {
        // Joined once.
        let _ = PLACE.set(ranks.place());
        let _ = JOB.set(ranks.clone());
    }
    Ok(ranks)
}

/// This rank's place, where there are several.
pub fn place() -> Option<&'static str> {
    PLACE.get().map(String::as_str)
}

/// Tells the others that this process has said why it ends. It may be out of memory.
pub fn last_word() {
    if let Some(job) = JOB.get() {
        job.last_word();
    }
}

/// How many ranks wait for the same one and see that it is late, whoever that is: the first of them speaks, and its word ends
/// the others.
fn let_first_speak(error: &rlt_ranks::Error) {
    let own = own_rank().unwrap_or(0);
    if own > 0 && matches!(error, rlt_ranks::Error::Late { .. } | rlt_ranks::Error::Elsewhere { .. }) {
        std::thread::sleep(FIRST_SPEAKS_FIRST + Duration::from_millis(20) * own.min(100) as u32);
    }
}

fn own_rank() -> Option<usize> {
    place().and_then(|place| place.split(' ').nth(1)).and_then(|rank| rank.parse().ok())
}

/// Ends the process because of another rank, from any thread.
fn end_over(error: &rlt_ranks::Error) -> ! {
    let_first_speak(error);
    if !TOLD.swap(true, Ordering::SeqCst) && speaks(error) {
        let error = Error::Ranks(error.clone());
        let error = match RUN_DIR.get() {
            Some(run_dir) => with_what_is_left(error, run_dir),
            None => error,
        };
        tell(&error.to_string());
    }
    // What is committed of rows that can be gone on with stays.
    rlt_files::remove_unfinished();
    std::process::exit(1)
}

/// Whether this rank tells the user: who failed has told why itself, and a loss is for rank 0 to tell, or for rank 1 where
/// rank 0 is lost. A rank that is late or elsewhere cannot speak for itself.
fn speaks(error: &rlt_ranks::Error) -> bool {
    let own = own_rank();
    match error {
        rlt_ranks::Error::Failed { .. } => false,
        rlt_ranks::Error::Lost { rank: 0, .. } => own == Some(1),
        rlt_ranks::Error::Lost { .. } => own == Some(0),
        _ => true,
    }
}

/// Tells the user why this process ends.
pub fn tell(line: &str) {
    // With standard error closed there is nobody left to tell.
    // What is said of a rank names it.
    let place = place().filter(|_| !line.starts_with("rank "));
    let place = place.map_or_else(String::new, |place| format!("{place}: "));
    drop(writeln!(std::io::stderr(), "{place}error: {}", visible::line(line)));
}

/// What an error says of another rank, also where it says besides what is left.
fn lost(error: &Error) -> Option<&rlt_ranks::Error> {
    match error {
        Error::Ranks(lost) => Some(lost),
        Error::Stopped { source, .. } => lost(source),
        _ => None,
    }
}

/// Says why the work failed and ends the job with it.
pub fn fail(ranks: &Ranks, error: &Error) {
    if let Some(lost) = lost(error) {
        if matches!(lost, rlt_ranks::Error::Late { .. }) {
            let_first_speak(lost);
        } else {
            // The watch over the other ranks may hear the cause, and ends the process then.
            std::thread::sleep(WHO_KNOWS_WHY);
        }
        if !TOLD.swap(true, Ordering::SeqCst) && speaks(lost) {
            tell(&error.to_string());
        }
    } else {
        if !ranks.is_first() {
            std::thread::sleep(FIRST_SPEAKS_FIRST + Duration::from_millis(20) * ranks.rank().min(100) as u32);
        }
        if !TOLD.swap(true, Ordering::SeqCst) {
            tell(&error.to_string());
        }
    }
    ranks.abort(&error.to_string());
}

/// The work is done, or was stopped in good order: every rank says so.
pub fn leave(ranks: &Ranks) {
    TOLD.store(true, Ordering::SeqCst);
    ranks.leave();
}

/// Trains in the configuration's run directory, on the ranks of the job, or on `ranks` threads. Rank 0 has the folder.
///
/// # Errors
/// What the folder and the run report: as every rank does, or the cause where a rank was lost to the others.
pub fn train(context: &Context, config: &Config, training: Training) -> Result<Trained> {
    let (job, stop) = (&context.ranks, stop_flag());
    if job.size() > 1 && config.ranks > 1 && config.ranks != job.size() {
        let what = format!(
            "ranks is {}, and the job was started with {}: leave ranks out",
            config.ranks,
            job.size()
        );
        return Err(Error::Usage(what));
    }
    let run_dir = config.run_dir();
    // Once a process.
    let _ = RUN_DIR.set(run_dir.clone());
    let _folder = if job.is_first() { Some(RunDir::open(config)?) } else { None };
    let on = |ranks: Ranks| {
        let log = if ranks.is_first() { None } else { RankLog::of(&ranks)? };
        if let Some(log) = &log
            && let Some(gpu) = config.model.device.of_rank(&ranks)?.gpu()
        {
            log.line(&format!("models are computed on GPU {gpu}"));
        }
        let host = Host {
            ranks,
            log: log.as_ref().map(|log| log as &dyn Progress),
            ..start::host(&context.progress, stop)
        };
        let outcome = training(config, &run_dir, &host);
        if let (Some(log), Err(error)) = (&log, &outcome) {
            log.line(&format!("error: {error}"));
        }
        if let (Err(Error::Ranks(late @ rlt_ranks::Error::Late { .. })), 1) = (&outcome, job.size()) {
            // A thread that hangs would be waited for.
            end_over(late);
        }
        outcome
    };
    let trained = if job.size() == 1 && config.ranks > 1 {
        let outcomes = on_threads_with(config.ranks, Launch::from_environment()?.1, on);
        // Who has lost another rank does not know why.
        let (lost, rest): (Vec<_>, Vec<_>) =
            outcomes.into_iter().partition(|outcome| matches!(outcome, Err(Error::Ranks(_))));
        rest.into_iter().chain(lost).min_by_key(Result::is_ok).expect("a rank at least")
    } else {
        on(job.clone())
    };
    trained.map_err(|error| with_what_is_left(error, &run_dir))
}

/// [`rlt::sft::train`], [`rlt::grpo::train`] or [`rlt::grpo::distill`].
pub type Training = fn(&Config, &Path, &Host) -> Result<Trained>;

/// Ends rank 0's share of work that was dealt: where it came to an end in good order, the others go home.
///
/// # Errors
/// `done` itself; naming a rank that is gone.
pub fn dealt(ranks: &Ranks, done: Result<()>) -> Result<()> {
    let in_order = matches!(done, Ok(()) | Err(Error::Interrupted(_)));
    if in_order && ranks.is_first() && ranks.size() > 1 {
        rlt::dealt::dismiss(ranks)?;
    }
    done
}
