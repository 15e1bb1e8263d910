//! `rlt train`: GRPO.

use clap::Args;
use rlt::run_dir::RunDir;
use rlt::training::with_what_is_left;
use rlt::{Result, start};

use super::common::{ConfigArgs, Context, model_folder};
use super::interrupt::stop_flag;

/// Train a model by GRPO, with the RLT or the correctness reward
///
/// The same command goes on with a run that was interrupted.
#[derive(Debug, Args)]
pub struct TrainArgs {
    #[command(flatten)]
    config: ConfigArgs,
}

impl TrainArgs {
    /// Checks what is cheap to check, then trains in the configuration's run directory.
    pub fn run(&self, context: &Context) -> Result<()> {
        let stop = stop_flag();
        let config = context.load_config(&self.config)?;
        config.validate_for_grpo()?;
        if !config.makes_its_world() {
            model_folder(&config.model.path)?;
        }
        if config.reward.kind.asks_student() && !config.makes_its_world() {
            model_folder(&config.model.student)?;
        }
        if !config.model.reference.as_os_str().is_empty() {
            model_folder(&config.model.reference)?;
        }
        let run_dir = RunDir::open(&config)?;
        let trained = start::grpo(&config, &run_dir.path, &context.progress, stop)
            .map_err(|error| with_what_is_left(error, &run_dir.path))?;
        context.answer_trained(&trained)
    }
}
