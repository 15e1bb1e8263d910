//! `--base` of `rlt demo` and `rlt reproduce`: the recipes on a pretrained model.

use std::path::Path;

use clap::Args;
use clap::builder::RangedU64ValueParser;
use rlt::Result;
use rlt::pretrained::Pretrained;
use rlt_model::sizes::MAX_RANK;

use super::common::{model_folder, parse_positive};

/// How much is done with a pretrained base model.
#[derive(Debug, Args)]
pub struct PretrainedArgs {
    /// With --base: rows of the warm-up, and rows that each student learns from
    #[arg(long, value_name = "N", value_parser = parse_positive, requires = "base")]
    rows: Option<usize>,
    /// With --base: steps of RL
    #[arg(long, value_name = "N", value_parser = parse_positive, requires = "base")]
    steps: Option<usize>,
    /// With --base: rank of the adapters that are trained; 0 trains all weights
    #[arg(long, value_name = "RANK", value_parser = ranks(), requires = "base")]
    lora: Option<usize>,
}

/// Ranks that adapters may have, and 0.
fn ranks() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(..=MAX_RANK as u64)
}

impl PretrainedArgs {
    /// Whether any of it is given.
    pub fn is_given(&self) -> bool {
        self.rows.is_some() || self.steps.is_some() || self.lora.is_some()
    }

    /// The base in `folder`, and what is asked of it.
    pub fn of(&self, folder: &Path) -> Result<Pretrained> {
        Ok(Pretrained {
            base: model_folder(folder)?.to_owned(),
            rows: self.rows.unwrap_or(200),
            steps: self.steps.unwrap_or(10),
            lora_rank: self.lora.unwrap_or(16),
        })
    }
}
