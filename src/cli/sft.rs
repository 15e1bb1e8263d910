//! `rlt sft`: supervised fine-tuning.

use clap::Args;
use rlt::run_dir::RunDir;
use rlt::training::with_what_is_left;
use rlt::{Result, start};

use super::common::{ConfigArgs, Context, model_folder};
use super::interrupt::stop_flag;

/// Fine-tune a model on rows in teacher format, in student format or as plain text
///
/// The same command goes on with a run that was interrupted.
#[derive(Debug, Args)]
pub struct SftArgs {
    #[command(flatten)]
    config: ConfigArgs,
}

impl SftArgs {
    /// Checks what is cheap to check, then trains in the configuration's run directory.
    pub fn run(&self, context: &Context) -> Result<()> {
        let stop = stop_flag();
        let config = context.load_config(&self.config)?;
        config.validate_for_sft()?;
        if !config.makes_its_world() {
            model_folder(&config.model.path)?;
        }
        let run_dir = RunDir::open(&config)?;
        let trained = start::sft(&config, &run_dir.path, &context.progress, stop)
            .map_err(|error| with_what_is_left(error, &run_dir.path))?;
        context.answer_trained(&trained)
    }
}
