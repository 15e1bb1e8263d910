//! `rlt distill`: on-policy distillation from a teacher that is told the solution.

use clap::Args;
use rlt::Result;

use super::common::{ConfigArgs, Context, DeviceArgs, model_folder};
use super::interrupt::stop_flag;
use super::ranks::train;

/// Teach a model on its own completions what it would say if it were told the solution
///
/// The model answers questions; a teacher, by default the model as it began, reads each answer after the question and its
/// solution (distill.told); the loss is the divergence between the two at every token. `[grpo]` says how many questions and
/// completions a step has. After an interruption, the same command continues the run.
#[derive(Debug, Args)]
pub struct DistillArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

impl DistillArgs {
    /// Checks what is cheap to check, then trains in the configuration's run directory.
    pub fn run(&self, context: &Context) -> Result<()> {
        // From here on a signal ends the run only once its state is saved.
        stop_flag();
        let config = context.load_config_on(&self.config, &self.device)?;
        config.for_distillation()?;
        if !config.makes_its_world() {
            model_folder(&config.model.path)?;
        }
        if !config.model.reference.as_os_str().is_empty() {
            model_folder(&config.model.reference)?;
        }
        context.answer_trained(&train(context, &config, rlt::grpo::distill)?)
    }
}
