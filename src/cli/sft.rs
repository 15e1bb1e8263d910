//! `rlt sft`: supervised fine-tuning.

use clap::Args;
use rlt::Result;

use super::common::{ConfigArgs, Context, DeviceArgs, model_folder};
use super::interrupt::stop_flag;
use super::ranks::train;

/// Fine-tune a model on rows in teacher format, in student format or as plain text
///
/// After an interruption, the same command continues the run.
#[derive(Debug, Args)]
pub struct SftArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

impl SftArgs {
    /// Checks what is cheap to check, then trains in the configuration's run directory.
    pub fn run(&self, context: &Context) -> Result<()> {
        // From here on a signal ends the run only once its state is saved.
        stop_flag();
        let config = context.load_config_on(&self.config, &self.device)?;
        config.validate_for_sft()?;
        if !config.makes_its_world() {
            model_folder(&config.model.path)?;
        }
        context.answer_trained(&train(context, &config, rlt::sft::train)?)
    }
}
