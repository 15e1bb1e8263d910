//! `rlt score`: the RLT reward of given traces, part by part.

use std::path::{Path, PathBuf};

use clap::Args;
use rlt::config::{Config, DataConfig};
use rlt::dataset::{JsonlWriter, read_traces};
use rlt::prompts::{ChatText, PromptStyle};
use rlt::score::{Formats, ScoredSample, ledger_columns, score_columns, score_traces};
use rlt::{Error, Result};
use rlt_model::Decoder;
use serde_json::json;

use super::common::{ConfigArgs, Context, model_folder, parse_positive};

/// Score traces with the RLT reward, part by part
#[derive(Debug, Args)]
pub struct ScoreArgs {
    /// Model folder of the teacher; without it the configuration's model.path
    #[arg(long, value_name = "DIR")]
    teacher: Option<PathBuf>,
    /// Model folder of the student, with the same tokenizer; without it model.student
    #[arg(long, value_name = "DIR")]
    student: Option<PathBuf>,
    /// Rows with `question`, `solution` and `completion` (or `explanation`, or `reasoning_trace`)
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// Where the scored rows go (.jsonl): each row with `reward` and `parts`
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Add the per-token arrays: texts, log-probabilities (nats) and D_j
    #[arg(long)]
    ledger: bool,
    /// Tokens computed at a time; more is faster up to a point and takes more memory
    #[arg(long, value_name = "N", default_value_t = 16384, value_parser = parse_positive)]
    tokens_per_batch: usize,
    #[command(flatten)]
    config: ConfigArgs,
}

impl ScoreArgs {
    /// Checks every input that is cheap to check before it loads a model.
    pub fn run(&self, context: &Context) -> Result<()> {
        let config = context.load_config(&self.config)?;
        let (teacher_dir, student_dir) = self.models(&config)?;
        let style = PromptStyle::resolve(&config.prompts)?;
        let traces = read_traces(&DataConfig { path: self.data.clone(), ..config.data.clone() }, &style)?;
        let teacher_chat = ChatText::from_dir(teacher_dir)?;
        let student_chat = ChatText::from_dir(student_dir)?;
        ChatText::check_same_vocabulary(&teacher_chat, &student_chat)?;
        let formats = Formats { style: &style, teacher: &teacher_chat, student: &student_chat };

        let teacher = Decoder::load_frozen(teacher_dir)?;
        let own_student =
            if student_dir == teacher_dir { None } else { Some(Decoder::load_frozen(student_dir)?) };
        let student = own_student.as_ref().unwrap_or(&teacher);
        let scored = score_traces(
            &traces,
            &formats,
            &teacher,
            student,
            &config.reward,
            self.tokens_per_batch,
            &context.progress,
        )?;

        let mut out = JsonlWriter::create(&self.out)?;
        for (trace, (sample, scored)) in traces.iter().zip(&scored) {
            let mut columns = trace.to_columns();
            columns.extend(score_columns(sample.as_ref(), scored));
            if let (true, Some(sample)) = (self.ledger, sample) {
                columns.extend(ledger_columns(sample, scored, &student_chat));
            }
            out.write(&columns)?;
        }
        out.finish()?;
        self.answer(context, &scored.iter().map(|(_, scored)| scored).collect::<Vec<_>>())
    }

    fn models<'a>(&'a self, config: &'a Config) -> Result<(&'a Path, &'a Path)> {
        let folder = |flag: &str, given: &'a Option<PathBuf>, key: &str, configured: &'a Path| {
            let path = given.as_deref().unwrap_or(configured);
            if path.as_os_str().is_empty() {
                return Err(Error::Usage(format!(
                    "give the {flag}: --{flag} DIR, or {key} in the configuration"
                )));
            }
            model_folder(path)
        };
        Ok((
            folder("teacher", &self.teacher, "model.path", &config.model.path)?,
            folder("student", &self.student, "model.student", &config.model.student)?,
        ))
    }

    fn answer(&self, context: &Context, scored: &[&ScoredSample]) -> Result<()> {
        let rewards: Vec<f64> =
            scored.iter().filter(|s| s.score.parts.is_ok()).map(|s| f64::from(s.score.reward)).collect();
        let (n_rows, n_scored) = (scored.len(), rewards.len());
        let mean = (n_scored > 0).then(|| rewards.iter().sum::<f64>() / n_scored as f64);
        let mean_text = mean.map_or(String::new(), |mean| format!("; mean reward {mean:.4} nats"));
        let out = self.out.display();
        context.answer(
            &format!("scored {n_scored} of {n_rows} rows in {out}{mean_text}"),
            &json!({ "rows": n_rows, "scored": n_scored, "reward_mean": mean, "out": self.out }),
        )
    }
}
