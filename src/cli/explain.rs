//! `rlt explain`: a teacher's explanations of questions with known solutions.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use rlt::config::DataConfig;
use rlt::dataset::{JsonlWriter, TraceRow, read_questions};
use rlt::explain::explain_each;
use rlt::prompts::{ChatText, PromptStyle};
use rlt::sampling::Sampler;
use rlt::traces::{conversation_columns, distillation_columns, is_complete};
use rlt::{Error, Result};
use rlt_model::Decoder;
use serde_json::{Map, Value, json};

use super::common::{ConfigArgs, Context, model_folder, parse_positive};

/// What a row of the output is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// The completion as it was sampled, with its ids: what `rlt score` reads
    Trace,
    /// Training rows for a student, as `conversations` of {"from", "value"}
    Conversations,
    /// Training rows for a student, as `messages` of {"role", "content"}
    Messages,
}

/// Explain questions with known solutions: a teacher's traces, or rows to distil students on
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Model folder of the teacher; without it the configuration's model.path
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Rows with `question` and `solution`; without it the configuration's data.path
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Where the rows go (.jsonl), whole or not at all
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Explanations of each question
    #[arg(long, short, value_name = "N", default_value_t = 1, value_parser = parse_positive)]
    n: usize,
    /// What is written; the training rows leave out explanations that were not finished
    #[arg(long, value_enum, default_value_t = Format::Trace)]
    format: Format,
    #[command(flatten)]
    config: ConfigArgs,
}

impl ExplainArgs {
    /// Checks every input that is cheap to check before it loads the model.
    pub fn run(&self, context: &Context) -> Result<()> {
        let config = context.load_config(&self.config)?;
        let model = self.model.as_ref().unwrap_or(&config.model.path);
        let data = self.data.as_ref().unwrap_or(&config.data.path);
        for (path, flag, key) in [(model, "--model DIR", "model.path"), (data, "--data FILE", "data.path")] {
            if path.as_os_str().is_empty() {
                return Err(Error::Usage(format!("give {flag}, or {key} in the configuration")));
            }
        }
        let model = model_folder(model)?;
        let style = PromptStyle::resolve(&config.prompts)?;
        let rows = read_questions(&DataConfig { path: data.clone(), ..config.data.clone() })?;
        let chat = ChatText::from_dir(model)?;
        let decoder = Decoder::load_frozen(model)?;
        let teacher = Sampler::new(&decoder, &chat, &style, &config.sampling, config.seed)?;

        let mut out = JsonlWriter::create(&self.out)?;
        let mut written = 0;
        let summary = explain_each(&teacher, &rows, self.n, &context.progress, |trace| {
            self.columns(&trace, &style).map_or(Ok(()), |columns| {
                written += 1;
                out.write(&columns)
            })
        })?;
        if written == 0 {
            return Err(Error::Failed(format!(
                "none of the {} explanations was finished, so there is nothing to learn from; raise \
                 sampling.max_new_tokens, or look at them with --format trace",
                summary.traces
            )));
        }
        out.finish()?;

        let mut answer = json!(summary);
        answer["rows"] = json!(written);
        answer["out"] = json!(self.out);
        let share = 100.0 * summary.closed as f64 / summary.traces as f64;
        context.answer(
            &format!(
                "wrote {written} rows for {} questions ({} tokens, {share:.1} % of the explanations closed) to {}",
                summary.questions,
                summary.tokens,
                self.out.display()
            ),
            &answer,
        )
    }

    /// The row that is written for `trace`, if there is one.
    fn columns(&self, trace: &TraceRow, style: &PromptStyle) -> Option<Map<String, Value>> {
        match self.format {
            Format::Trace => Some(trace.to_columns()),
            _ if !is_complete(trace, style) => None,
            Format::Conversations => Some(conversation_columns(trace, style)),
            Format::Messages => Some(distillation_columns(trace, style)),
        }
    }
}
