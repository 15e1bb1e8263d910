//! `rlt train`: GRPO.

use clap::Args;
use rlt::Result;

use super::common::{ConfigArgs, Context, DeviceArgs, model_folder};
use super::interrupt::stop_flag;
use super::ranks::train;

/// Train a model by GRPO, with the RLT, the likelihood, the correctness or the pedagogical reward
///
/// After an interruption, the same command continues the run.
#[derive(Debug, Args)]
pub struct TrainArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

impl TrainArgs {
    /// Checks what is cheap to check, then trains in the configuration's run directory.
    pub fn run(&self, context: &Context) -> Result<()> {
        // From here on a signal ends the run only once its state is saved.
        stop_flag();
        let config = context.load_config_on(&self.config, &self.device)?;
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
        context.answer_trained(&train(context, &config, rlt::grpo::train)?)
    }
}
