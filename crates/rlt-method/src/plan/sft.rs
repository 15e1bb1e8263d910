//! Fine-tuning, rehearsed.

use rlt_model::Stop;
use rlt_model::config::ModelConfig;
use rlt_model::tokenizer::Tokenizer;

use super::record::{Record, Stage};
use super::share::Share;
use super::steps::{Part, chosen};
use crate::config::{Config, SftFormat};
use crate::error::Result;
use crate::progress::Progress;
use crate::prompts::ChatText;
use crate::ranks::Ranks;
use crate::sft::{BatchPass, HeldOut, Row, batch_gradient, examples};
use crate::training::run::Weights;
use crate::training::{EpochOrder, GradientSum};

/// The rows of a run of `rlt sft`.
pub(super) struct SftRows {
    rows: Vec<Row>,
    held_out: Option<HeldOut>,
    /// Those of the steps that are looked at.
    steps: Vec<Vec<usize>>,
    pub total_steps: u64,
}

impl SftRows {
    /// Reads them.
    ///
    /// # Errors
    /// What rows and tokenizer report.
    pub fn read(config: &Config, model: &ModelConfig, progress: &dyn Progress) -> Result<Self> {
        let tokenizer = Tokenizer::from_dir(&config.model.path)?;
        let is_text = config.sft.format == SftFormat::Text;
        let chat = (!is_text).then(|| ChatText::from_dir(&config.model.path)).transpose()?;
        let rows = examples(config, model, &tokenizer, chat.as_ref(), progress)?;
        let held_out = HeldOut::load(config, &tokenizer, chat.as_ref(), progress)?;
        let total_rows = ((config.sft.epochs * rows.len() as f64).round() as u64).max(1);
        let batch_rows = config.sft.batch_rows as u64;
        let total_steps = total_rows.div_ceil(batch_rows);
        let mut order = EpochOrder::new(config.seed, rows.len());
        let steps = chosen(
            total_steps,
            |step| order.rows(step * batch_rows..((step + 1) * batch_rows).min(total_rows)),
            |step| step.iter().map(|&row| rows[row].example.ids.len()).sum(),
        );
        Ok(Self { rows, held_out, steps, total_steps })
    }

    /// The number of steps that are looked at.
    pub fn n_steps(&self) -> usize {
        self.steps.len()
    }

    /// The rows of a step that is looked at.
    pub fn steps(&self) -> impl Iterator<Item = Vec<&Row>> {
        self.steps.iter().map(|step| step.iter().map(|&row| &self.rows[row]).collect())
    }

    /// A rank's share of one step: the gradient, and the optimizer.
    ///
    /// # Errors
    /// As a step of the run.
    pub fn step(
        config: &Config,
        rows: &[&Row],
        share: Share,
        weights: &mut Weights,
        gradients: &mut GradientSum,
        record: &mut Record,
    ) -> Result<()> {
        let rows = share.heaviest(rows, |row| row.example.ids.len());
        let lengths: Vec<usize> = rows.iter().map(|row| row.example.ids.len()).collect();
        let tokens = config.sft.tokens_per_microbatch;
        let part = Part::of_micro_batches(&lengths, 1, tokens);
        let rows: Vec<&Row> = part.rows.iter().map(|&row| rows[row]).collect();
        let lanes = share.lanes().into();
        let pass = BatchPass::new(config, 1, &lanes, Stop::never());
        batch_gradient(&weights.decoder, &rows, &pass, gradients)?;
        weights.optimizer.update(&mut weights.decoder, gradients.total())?;
        record.end_stage(Stage::Update, part.times);
        Ok(())
    }

    /// An evaluation, where there is one.
    ///
    /// # Errors
    /// As the run's.
    pub fn evaluate(&self, weights: &Weights, share: Share, record: &mut Record) -> Result<bool> {
        let Some(held_out) = &self.held_out else { return Ok(false) };
        held_out.evaluate(&weights.decoder, &Ranks::alone(), Stop::never())?;
        record.end_stage(Stage::Evaluation, 1.0 / share.ranks as f64);
        Ok(true)
    }
}
