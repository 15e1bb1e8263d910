//! `rlt logprobs`: per-token log-probabilities of given text or ids.

use std::path::PathBuf;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use rlt::Result;
use rlt::config::Products;
use rlt::dataset::{JsonlWriter, read_records};
use rlt::logprobs::{logprobs_each, row_ids};
use rlt_files::Inputs;
use rlt_model::Decoder;
use serde_json::json;

use super::common::{Context, check_output, model_folder, parse_positive};

/// Per-token log-probabilities (nats) of given text or ids
#[derive(Debug, Args)]
pub struct LogprobsArgs {
    /// Model folder
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Rows with `text` (encoded as it is, nothing added) or `ids`
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// Where the rows {"ids", "logprobs"} go (.jsonl), one for each row of the data; the first token has null
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Softmax temperature
    #[arg(long, value_name = "T", default_value_t = 1.0, value_parser = parse_temperature)]
    temperature: f32,
    /// Tokens computed at a time; more is faster up to a point and takes more memory
    #[arg(long, value_name = "N", default_value_t = 16384, value_parser = parse_positive)]
    tokens_per_batch: usize,
    /// Number format of the matrix products: bf16 is faster where the processor has AMX or AVX-512 BF16, and right to
    /// about three digits
    #[arg(long, default_value = "f32", value_parser = products())]
    arithmetic: Products,
}

/// As `model.arithmetic` has it.
pub fn products() -> impl TypedValueParser<Value = Products> {
    PossibleValuesParser::new(["f32", "bf16"]).try_map(|name| serde_json::from_value(json!(name)))
}

impl LogprobsArgs {
    /// Scores every row in order.
    pub fn run(&self, context: &Context) -> Result<()> {
        let model = model_folder(&self.model)?;
        check_output(&Inputs::new().with("--model", model).with("--data", &self.data), &self.out)?;
        let records = read_records(&self.data, 0)?;
        let decoder = Decoder::load_frozen(model)?.in_arithmetic(self.arithmetic.into());
        let rows = row_ids(&records, model, &decoder)?;

        let mut out = JsonlWriter::create(&self.out)?;
        let (mut tokens, mut sum, mut scored) = (0, 0.0, 0_usize);
        logprobs_each(&decoder, &rows, self.temperature, self.tokens_per_batch, &context.progress, |row| {
            tokens += row.ids.len();
            for logprob in row.logprobs.iter().flatten() {
                sum += f64::from(*logprob);
                scored += 1;
            }
            out.write(&row)
        })?;
        out.finish()?;

        let mean = (scored > 0).then(|| sum / scored as f64);
        let mean_text = mean.map_or(String::new(), |mean| format!(", {mean:.4} nats a token"));
        let (rows, out) = (rows.len(), self.out.display());
        context.answer(
            &format!("scored {rows} rows ({tokens} tokens{mean_text}) in {out}"),
            &json!({
                "rows": rows,
                "tokens": tokens,
                "logprob_mean": mean,
                "arithmetic": self.arithmetic,
                "out": self.out,
            }),
        )
    }
}

fn parse_temperature(text: &str) -> std::result::Result<f32, String> {
    let number = text.parse::<f32>().ok().filter(|value| value.is_finite() && *value > 0.0);
    number.ok_or_else(|| "a number above 0 is expected".into())
}
