//! `rlt logprobs`: per-token log-probabilities of given text or ids.

use std::path::PathBuf;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use rlt::config::Products;
use rlt::dataset::{JsonlWriter, read_records};
use rlt::located::LocatedModel;
use rlt::logprobs::{logprobs_each, row_ids};
use rlt::ranks::Holding;
use rlt::server::Wanted;
use rlt::{Error, Result};
use rlt_model::Stop;
use rlt_model::tokenizer::Tokenizer;
use serde_json::json;

use super::common::{
    ConfigArgs, Context, DeviceArgs, TOKENS_HELP, check_output, inputs, model_folder, parse_positive,
    tokens_per_batch,
};

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
    #[arg(long, value_name = "N", value_parser = parse_positive, help = TOKENS_HELP)]
    tokens_per_batch: Option<usize>,
    /// Number format of the matrix products: bf16 is faster where the processor has AMX or AVX-512 BF16, and right to
    /// about three digits
    #[arg(long, default_value = "f32", value_parser = products())]
    arithmetic: Products,
    /// Of a configuration, `[server]` is read (who serves the model, where that is not computed here), and model.device
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

/// As `model.arithmetic` has it.
pub fn products() -> impl TypedValueParser<Value = Products> {
    PossibleValuesParser::new(["f32", "bf16"]).try_map(|name| serde_json::from_value(json!(name)))
}

impl LogprobsArgs {
    /// Scores every row in order.
    pub fn run(&self, context: &Context) -> Result<()> {
        let config = context.load_config_with(&self.config, &self.device, |config| {
            config.model.arithmetic = self.arithmetic;
        })?;
        let model = model_folder(&self.model)?;
        let inputs = inputs(&self.config, &config).with("--model", model).with("--data", &self.data);
        check_output(&inputs, &self.out)?;
        let records = read_records(&self.data, 0)?;
        let server = config.server_of_teacher();
        if let (Some((table, _)), true) = (server, self.temperature != 1.0) {
            return Err(Error::Usage(format!(
                "--temperature is {}, and {table}.url is set: servers give log-probabilities of given tokens at temperature 1 \
                 only; leave one of the two out",
                self.temperature
            )));
        }
        let holding = if config.memory.offload.of_frozen() { Holding::Offloaded } else { Holding::Whole };
        let located = LocatedModel::find(server, &config.model, model, &holding, &context.progress)?;
        if located.served().is_some() {
            let wanted = Wanted { scoring: true, ..Wanted::default() };
            located.check(&Tokenizer::from_dir(model)?, &wanted, &context.progress)?;
        }
        let scorer = located.scorer(Stop::never(), &context.progress);
        let rows = row_ids(&records, model, located.config(), scorer.context_tokens())?;
        let tokens_per_batch = tokens_per_batch(self.tokens_per_batch, [&located]);

        let mut out = JsonlWriter::create(&self.out)?;
        let (mut tokens, mut sum, mut scored) = (0, 0.0, 0_usize);
        logprobs_each(&*scorer, &rows, self.temperature, tokens_per_batch, &context.progress, |row| {
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
                "device": config.model.device,
                "out": self.out,
            }),
        )
    }
}

fn parse_temperature(text: &str) -> std::result::Result<f32, String> {
    let number = text.parse::<f32>().ok().filter(|value| value.is_finite() && *value > 0.0);
    number.ok_or_else(|| "a number above 0 is expected".into())
}
