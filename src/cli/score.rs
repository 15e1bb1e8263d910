//! `rlt score`: the RLT reward of given traces, part by part.

use std::path::{Path, PathBuf};

use clap::Args;
use rlt::config::{AddedRewards, Config, DataConfig};
use rlt::model_files::{Deciding, ModelFiles};
use rlt::progress::Progress;
use rlt::prompts::{ChatText, PromptStyle, TypedCheck};
use rlt::score::Formats;
use rlt::traces::scoring::{Detail, Gaps, Tally, TraceScorer, check_traces, score_file};
use rlt::training::run::frozen_model;
use rlt::{Error, Result};
use rlt_model::chat_template::TemplateTime;
use serde_json::json;

use super::common::{ConfigArgs, Context, check_output, inputs, model_folder, parse_positive, template_time};
use super::interrupt::stop_flag;

/// Score traces with the RLT reward, part by part
///
/// Takes files of any length. The same command goes on where it was stopped or killed.
#[derive(Debug, Args)]
pub struct ScoreArgs {
    /// Model folder of the teacher; without it the configuration's model.path
    #[arg(long, value_name = "DIR")]
    teacher: Option<PathBuf>,
    /// Model folder of the student, with the same tokenizer; without it model.student
    #[arg(long, value_name = "DIR")]
    student: Option<PathBuf>,
    /// Rows with `question`, `solution` and `completion` (or `explanation`, `reasoning_trace`, or a list
    /// `completions`, each of which becomes a row)
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// Where the scored rows go (.jsonl): each row with `reward` and `parts`
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Add the per-token arrays: texts, log-probabilities (nats) and D_j
    #[arg(long)]
    ledger: bool,
    /// Stop at the first row without a question or a solution; else such rows are written with the reason
    #[arg(long)]
    strict: bool,
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
        let inputs = inputs(&self.config, &config).with("--data", &self.data);
        check_output(&inputs.with("--teacher", teacher_dir).with("--student", student_dir), &self.out)?;
        let style = PromptStyle::resolve(&config.prompts)?;
        let data = DataConfig { path: self.data.clone(), ..config.data.clone() };
        let gaps = if self.strict { Gaps::Refused } else { Gaps::Written };
        let read = |folder: &Path| -> Result<ChatText> {
            Ok(ChatText::from_dir(folder)?.reading(config.data.special_tokens))
        };
        let (teacher_chat, student_chat) = (read(teacher_dir)?, read(student_dir)?);
        ChatText::check_same_vocabulary(&teacher_chat, &student_chat)?;
        let mut typed = TypedCheck::new(&student_chat);
        let checked = check_traces(&data, &style, gaps, &mut typed)?;
        typed.tell(&context.progress);
        if let Some(warning) = style.thought_in_thought(&student_chat) {
            context.progress.warn(&warning);
        }
        let detail = if self.ledger { Detail::Ledger } else { Detail::Parts };
        let files = |folder| ModelFiles::of(folder, Deciding::WithWeights, &context.progress);
        let of_teacher = files(teacher_dir)?;
        let of_student = if student_dir == teacher_dir { of_teacher.clone() } else { files(student_dir)? };
        let models = [of_teacher, of_student];
        let work = |time: TemplateTime| {
            json!({
                "version": env!("CARGO_PKG_VERSION"),
                "models": &models,
                "template_time": time,
                "rows": &checked,
                "data": &data,
                "style": format!("{style:?}"),
                "reward": &config.reward,
                "world": &config.world.name,
                "arithmetic": config.model.arithmetic,
                "longest": (config.reward.add != AddedRewards::default()).then_some(config.sampling.max_new_tokens),
                "detail": detail,
                "tokens_per_batch": self.tokens_per_batch,
            })
            .to_string()
        };
        let unfinished = rlt_files::unfinished_work(&self.out);
        let time = template_time(unfinished, |time, earlier| work(time) == earlier);
        let (teacher_chat, student_chat) = (teacher_chat.at(time), student_chat.at(time));
        let formats = Formats { style: &style, teacher: &teacher_chat, student: &student_chat };

        let teacher = frozen_model(&config.model, teacher_dir)?;
        let own_student = (student_dir != teacher_dir).then(|| frozen_model(&config.model, student_dir));
        let own_student = own_student.transpose()?;
        let student = own_student.as_ref().unwrap_or(&teacher);
        let scorer = TraceScorer {
            formats,
            teacher: &teacher,
            student,
            config: &config,
            detail,
            tokens_per_batch: self.tokens_per_batch,
        };
        let (progress, stop) = (&context.progress, stop_flag());
        let tally = score_file(&data, &checked, &self.out, &work(time), &scorer, progress, stop)?;
        self.answer(context, &tally)
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

    fn answer(&self, context: &Context, tally: &Tally) -> Result<()> {
        let (n_rows, n_scored) = (tally.traces + tally.gaps, tally.scored);
        let gaps = match tally.gaps {
            0 => String::new(),
            n => format!("; {n} lack a question or a solution (parts.status says which)"),
        };
        let mean = (n_scored > 0).then(|| tally.reward_sum / n_scored as f64);
        let mean_text = mean.map_or(String::new(), |mean| format!("; mean reward {mean:.4} nats"));
        let out = self.out.display();
        context.answer(
            &format!("scored {n_scored} of {n_rows} rows in {out}{mean_text}{gaps}"),
            &json!({ "rows": n_rows, "scored": n_scored, "without_question_or_solution": tally.gaps, "reward_mean": mean, "out": self.out }),
        )
    }
}
