//! Faults on request: `RLT_FAULT=RANK:STAGE:KIND:STEP` makes a rank of a training job fail at a known moment, so that tests can
//! see how the job ends. Only builds with debug assertions look at the variable.
//!
//! STAGE is `sampling`, `scoring`, `backward`, `optimizer` or `checkpoint`; KIND is `panic`, `error`, `hang` (it sleeps),
//! `kill` (SIGKILL to itself) or `term` (SIGTERM to itself, after which it goes on).

use rlt_ranks::Ranks;

use crate::error::Result;

/// Where in a step a fault can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Before a rank draws its completions.
    Sampling,
    /// Before it scores its completions.
    Scoring,
    /// Between the passes of its first micro-batch.
    Backward,
    /// When its gradients are summed, and the weights are as before.
    Optimizer,
    /// On the first rank when the checkpoint's files are written and not in their place yet, elsewhere while it writes.
    Checkpoint,
}

/// Fails here, where that was asked for.
///
/// # Errors
/// The one that was asked for.
#[cfg(debug_assertions)]
pub(crate) fn point(ranks: &Ranks, stage: Stage, step: u64) -> Result<()> {
    on_request::FAULT.as_ref().map_or(Ok(()), |fault| fault.happen(ranks, stage, step))
}

/// Nothing: this build has no faults on request.
///
/// # Errors
/// Never.
#[cfg(not(debug_assertions))]
#[inline]
pub(crate) fn point(_ranks: &Ranks, _stage: Stage, _step: u64) -> Result<()> {
    Ok(())
}

#[cfg(debug_assertions)]
mod on_request {
    use std::process::Command;
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use rlt_ranks::Ranks;

    use super::Stage;
    use crate::error::{Error, Result};

    pub(super) static FAULT: LazyLock<Option<Fault>> =
        LazyLock::new(|| std::env::var("RLT_FAULT").ok().as_deref().and_then(Fault::parse));

    #[derive(Debug)]
    pub(super) struct Fault {
        rank: usize,
        stage: Stage,
        kind: String,
        step: u64,
        happened: AtomicBool,
    }

    impl Fault {
        fn parse(text: &str) -> Option<Self> {
            let [rank, stage, kind, step] = text.split(':').collect::<Vec<_>>().try_into().ok()?;
            let stage = match stage {
                "sampling" => Stage::Sampling,
                "scoring" => Stage::Scoring,
                "backward" => Stage::Backward,
                "optimizer" => Stage::Optimizer,
                "checkpoint" => Stage::Checkpoint,
                _ => return None,
            };
            let (rank, step) = (rank.parse().ok()?, step.parse().ok()?);
            Some(Self { rank, stage, kind: kind.into(), step, happened: AtomicBool::new(false) })
        }

        pub fn happen(&self, ranks: &Ranks, stage: Stage, step: u64) -> Result<()> {
            let is_here = (self.rank, self.stage, self.step) == (ranks.rank(), stage, step);
            if !is_here || self.happened.swap(true, Ordering::SeqCst) {
                return Ok(());
            }
            match self.kind.as_str() {
                "panic" => panic!("a fault that was asked for"),
                "hang" => loop {
                    std::thread::sleep(Duration::from_secs(3600));
                },
                "kill" => signal("-KILL"),
                "term" => signal("-TERM"),
                _ => return Err(Error::Failed(format!("step {step}: a fault that was asked for"))),
            }
            Ok(())
        }
    }

    /// Sends this process a signal, and waits until it has come.
    fn signal(name: &str) {
        let sent = Command::new("kill").args([name, &std::process::id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "kill cannot be run");
        std::thread::sleep(Duration::from_millis(100));
    }
}
