//! `rlt eval`: accuracy of a model on questions with known answers.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use rlt::config::{Config, DeviceName};
use rlt::dataset::QuestionRow;
use rlt::dealt::{Answering, DealtSampler, agree_on_work, first_ranks, serve_first_rank};
use rlt::evaluate::benchmark::Benchmark;
use rlt::evaluate::comparison::SavedEvaluation;
use rlt::evaluate::page::render;
use rlt::evaluate::partial::PartialRecords;
use rlt::evaluate::task::{Task, resume_task};
use rlt::evaluate::{EvalOptions, EvalReport, QuestionRecord, Thought, write_report};
use rlt::located::LocatedModel;
use rlt::model_files::{Deciding, ModelFiles};
use rlt::progress::Progress;
use rlt::prompts::{ChatText, PromptStyle};
use rlt::sampling::Author;
use rlt::server::Wanted;
use rlt::worlds::task::find_task;
use rlt::{Error, Result};
use rlt_engine::arithmetic::Arithmetic;
use rlt_files::{Inputs, MOST_DESCRIPTION, write_atomic};
use rlt_model::Stop;
use rlt_model::chat_template::TemplateTime;
use rlt_model::generate::SamplingParams;
use serde_json::{Value, json};

use super::common::{
    ConfigArgs, Context, DeviceArgs, check_output, inputs, model_folder, parse_positive, template_time,
};
use super::interrupt::stop_flag;
use super::ranks::dealt;

/// `--thought`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ThoughtArg {
    /// The model thinks as it likes
    Free,
    /// The prompt goes on with an empty thought: the answer comes without steps
    None,
}

/// Evaluate a model on questions with known answers, with intervals
#[derive(Debug, Args)]
pub struct EvalArgs {
    /// Model folder; without it the configuration's model.path
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// A benchmark (`math500`, with your copy as --data), a task's .toml file, a world (`market`), or a file of
    /// rows with `question` and `solution`, which the answer's solution must say; may be repeated
    #[arg(long = "task", value_name = "NAME|FILE", required = true)]
    tasks: Vec<String>,
    /// The questions of a benchmark or a world; without it a world's held-out ones are made from the seed
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Where the figures go (.json), with each question's answers in a .jsonl file and a page (.html)
    /// beside it. After a kill, the same command continues where it was. With several tasks,
    /// each task's name is added to the file name
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Answers per question
    #[arg(long, short, value_name = "N", default_value_t = 1, value_parser = parse_positive)]
    n: usize,
    /// Softmax temperature, 0 for the most likely token; without it the configuration's
    /// sampling.temperature
    #[arg(long, value_name = "T")]
    temperature: Option<f32>,
    /// Ask the first N questions only
    #[arg(long, value_name = "N", value_parser = parse_positive)]
    max_questions: Option<usize>,
    /// What comes before the solution
    #[arg(long, value_enum, default_value_t = ThoughtArg::Free)]
    thought: ThoughtArg,
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

impl EvalArgs {
    /// Evaluates on all ranks.
    pub fn run(&self, context: &Context) -> Result<()> {
        dealt(&context.ranks, self.evaluate_all(context))
    }

    /// Checks every input that is cheap to check before it loads the model.
    fn evaluate_all(&self, context: &Context) -> Result<()> {
        let mut config = context.load_config_on(&self.config, &self.device)?;
        if let Some(temperature) = self.temperature {
            config.sampling.temperature = temperature;
            config.validate()?;
        }
        let model = self.model.as_ref().unwrap_or(&config.model.path);
        if model.as_os_str().is_empty() {
            return Err(Error::Usage("give --model DIR, or model.path in the configuration".into()));
        }
        let model = model_folder(model)?;
        let style = PromptStyle::resolve(&config.prompts)?;
        let tasks = self.tasks(&config)?;
        let inputs = self.inputs(&config, model)?;
        for (_, path) in &tasks {
            if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("html")) {
                let what =
                    format!("{}: the page has that name; --out is for the figures (.json)", path.display());
                return Err(Error::Usage(what));
            }
            check_output(&inputs, path)?;
            files_beside(path).iter().try_for_each(|file| check_output(&inputs, file))?;
        }
        let chat = ChatText::from_dir(model)?.reading(config.data.special_tokens);
        if let Some(warning) = style.thought_in_thought(&chat) {
            context.progress.warn(&warning);
        }
        let (server, holding) = (config.server_of_teacher(), config.memory.holding(&context.ranks));
        let located = LocatedModel::find(server, &config.model, model, &holding, &context.progress)?;
        let params = located.params(&config.sampling, &chat)?;
        let wanted = Wanted { sampling: Some(&params), ..Wanted::default() };
        located.check(&chat.tokenizer, &wanted, &context.progress)?;
        let sampler = located.sampler(params.clone(), config.seed);
        let sampler = &*sampler;
        Author::new(sampler, &chat, &style)?;

        // A place that cannot be written, or that another process writes, is found before the work, not after it.
        let deciding =
            if located.served().is_some() { Deciding::WithoutWeights } else { Deciding::WithWeights };
        let files = ModelFiles::of(model, deciding, &context.progress)?;
        let decides = (&params, &located, &config);
        let ranks = &context.ranks;
        let settings = |task, time| self.settings(decides, (&style, &chat), task, &files, model, time);
        if ranks.size() > 1 {
            let now = first_ranks(ranks, TemplateTime::of_this_process())?;
            let works: Vec<Value> = tasks.iter().map(|(task, _)| settings(task, now)).collect();
            agree_on_work(ranks, &json!({ "tasks or models": works }).to_string())?;
        }
        if !ranks.is_first() {
            let answering = Answering { sampler: Some(sampler), ..Answering::default() };
            return serve_first_rank(ranks, &answering, stop_flag());
        }
        let dealt = DealtSampler { own: sampler, ranks };
        let mut begun = Vec::with_capacity(tasks.len());
        for (task, path) in &tasks {
            let settings = |time| settings(task, time);
            let unfinished = rlt_files::unfinished_work(path);
            let time = template_time(unfinished, |time, earlier| {
                let same = settings(time).to_string();
                same == earlier
            });
            let (partial, done) = PartialRecords::open(path, &settings(time))?;
            if partial.n_records() == 0 {
                refuse_foreign_files_beside(path)?;
            }
            begun.push((task, path, time, partial, done));
        }
        let mut reports = Vec::with_capacity(tasks.len());
        for (task, path, time, partial, done) in begun {
            let earlier_chat = (time != TemplateTime::of_this_process())
                .then(|| ChatText::from_dir_at(model, time))
                .transpose()?
                .map(|chat| chat.reading(config.data.special_tokens));
            let chat = earlier_chat.as_ref().unwrap_or(&chat);
            let student = Author::new(dealt.sampler(), chat, &style)?;
            if let Some(served) = located.served() {
                served.keep_answers(path)?;
            }
            reports.push(self.evaluate(context, (&student, &config), task, path, model, partial, done)?);
            if let Some(served) = located.served() {
                served.forget_answers()?;
            }
        }
        let outs: Vec<&PathBuf> = tasks.iter().map(|(_, path)| path).collect();
        let json: Vec<_> =
            reports.iter().zip(&outs).map(|(report, out)| json!({ "out": out, "report": report })).collect();
        context.answer(&table(&reports, &outs), &json!({ "evaluations": json }))
    }

    /// Each task and the file its figures go to.
    fn tasks(&self, config: &Config) -> Result<Vec<(Task, PathBuf)>> {
        let mut tasks: Vec<(Task, PathBuf)> = Vec::with_capacity(self.tasks.len());
        for name in &self.tasks {
            let max = self.max_questions.unwrap_or(config.data.max_rows);
            let task = find_task(name, self.data.as_deref(), &config.data, config.seed, max)?;
            let path = match self.tasks.len() {
                1 => self.out.clone(),
                _ => with_suffix(&self.out, &task.name),
            };
            if tasks.iter().any(|(_, other)| *other == path) {
                return Err(Error::Usage(format!(
                    "two tasks are called `{}`; evaluate them in turn",
                    task.name
                )));
            }
            tasks.push((task, path));
        }
        Ok(tasks)
    }

    fn evaluate(
        &self,
        context: &Context,
        (student, config): (&Author, &Config),
        task: &Task,
        path: &Path,
        model: &Path,
        mut partial: PartialRecords,
        done: Vec<QuestionRecord>,
    ) -> Result<EvalReport> {
        let thought = self.thought();
        let powers = std::iter::successors(Some(1_usize), |k| k.checked_mul(2));
        let options = EvalOptions {
            n_samples: self.n,
            pass_ks: powers.take_while(|&k| k <= self.n).collect(),
            seed: config.seed,
        };
        let done = usable(done, task, self.n);
        let stop = Stop::when(stop_flag());
        let mut save = |records: &[QuestionRecord]| partial.append(records);
        let evaluated =
            resume_task(student, task, thought, &options, done, &mut save, stop, &context.progress);
        let (summary, records) = match evaluated {
            Ok(evaluated) => evaluated,
            Err(error) => {
                // Where nothing was answered there is nothing to continue.
                if partial.n_records() == 0 {
                    partial.remove()?;
                } else {
                    partial.suspend()?;
                }
                return Err(error);
            }
        };
        let [questions, page] = files_beside(path);
        let report = EvalReport {
            model: model.display().to_string(),
            task: task.name.clone(),
            split: task.split.clone(),
            seed: config.seed,
            temperature: config.sampling.temperature,
            max_new_tokens: config.sampling.max_new_tokens,
            thought,
            summary,
            per_question_file: questions.file_name().unwrap_or_default().into(),
        };
        write_report(path, &report, &records)?;
        let evaluated = SavedEvaluation { report: report.clone(), records };
        write_atomic(&page, render(&[evaluated])?.as_bytes())?;
        partial.remove()?;
        Ok(report)
    }

    /// What this call reads.
    fn inputs(&self, config: &Config, model: &Path) -> Result<Inputs> {
        let mut all = inputs(&self.config, config).with("--model", model);
        if let Some(path) = &self.data {
            all = all.with("--data", path);
        }
        for name in &self.tasks {
            all = all.with("--task", Path::new(name));
            if let Some(data) = Benchmark::find(name)?.and_then(|benchmark| benchmark.data) {
                all = all.with("--task", &data);
            }
        }
        Ok(all)
    }

    fn thought(&self) -> Thought {
        match self.thought {
            ThoughtArg::Free => Thought::Free,
            ThoughtArg::None => Thought::None,
        }
    }

    /// What answers depend on: records made with other settings are not gone on with.
    fn settings(
        &self,
        (params, located, config): (&SamplingParams, &LocatedModel, &Config),
        (style, chat): (&PromptStyle, &ChatText),
        task: &Task,
        files: &ModelFiles,
        model: &Path,
        time: TemplateTime,
    ) -> Value {
        let mut crc = 0;
        for row in &task.rows {
            let text = json!([row.row, row.question, row.solution]).to_string();
            crc = crc32c::crc32c_append(crc, text.as_bytes());
        }
        let mut settings = json!({
            "model": model,
            "files": files,
            "template_time": time,
            "task": task.name,
            "split": task.split,
            "grader": format!("{:?}", task.grader),
            "n": self.n,
            "rows": [task.rows.len() as u64, u64::from(crc)],
            "thought": self.thought(),
            "seed": config.seed,
            "sampling": format!("{params:?}"),
            "arithmetic": format!("{:?}", Arithmetic::from(config.model.arithmetic)),
            "style": format!("{style:?}"),
            "special_tokens": chat.typed(),
        });
        if config.model.device != DeviceName::Cpu {
            settings["device"] = json!(config.model.device);
        }
        if let Some(served) = located.served() {
            settings["server"] = served.deciding();
        }
        settings
    }
}

/// Where each question's answers and the page go, beside the figures in `path`.
fn files_beside(path: &Path) -> [PathBuf; 2] {
    let mut questions = path.file_stem().unwrap_or_default().to_owned();
    questions.push("_questions.jsonl");
    [path.with_file_name(questions), path.with_extension("html")]
}

/// Refuses files beside `path` that are not of an earlier evaluation there: the user named `path` only.
fn refuse_foreign_files_beside(path: &Path) -> Result<()> {
    let report = rlt_files::read_bytes(path, MOST_DESCRIPTION)
        .ok()
        .and_then(|text| serde_json::from_slice::<EvalReport>(&text).ok());
    let files = files_beside(path);
    let own = report.is_some_and(|report| Some(report.per_question_file.as_os_str()) == files[0].file_name());
    match files.into_iter().find(|file| !own && file.symlink_metadata().is_ok()) {
        None => Ok(()),
        Some(file) => {
            let what = format!(
                "is in the way, and does not belong to an evaluation in {}; name another --out",
                path.display()
            );
            Err(Error::File { path: file, what })
        }
    }
}

/// The records that answer the task's first questions.
fn usable(done: Vec<QuestionRecord>, task: &Task, n_samples: usize) -> Vec<QuestionRecord> {
    let answers = |(record, row): &(QuestionRecord, &QuestionRow)| {
        record.row == row.row
            && record.question == row.question
            && record.gold == row.solution
            && record.answers.len() == n_samples
    };
    done.into_iter().zip(&task.rows).take_while(answers).map(|(record, _)| record).collect()
}

/// `eval.json` and `market` give `eval-market.json`.
fn with_suffix(path: &Path, name: &str) -> PathBuf {
    let stem = path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    let extension = path.extension().map_or_else(|| "json".into(), |ext| ext.to_string_lossy());
    path.with_file_name(format!("{stem}-{name}.{extension}"))
}

/// The closing table: one line a task.
fn table(reports: &[EvalReport], outs: &[&PathBuf]) -> String {
    let header = ["task", "questions", "samples", "accuracy", "95 % interval", "format", "cut", "tokens"];
    let mut rows = vec![header.map(str::to_owned)];
    for report in reports {
        let summary = &report.summary;
        let percent = |share: f64| format!("{:.1} %", 100.0 * share);
        rows.push([
            format!("{} ({})", report.task, report.split),
            summary.n_questions.to_string(),
            summary.n_samples.to_string(),
            percent(summary.accuracy),
            format!("{:.1} to {:.1}", 100.0 * summary.low, 100.0 * summary.high),
            percent(summary.format_rate),
            percent(summary.truncated_rate),
            format!("{:.1}", summary.mean_tokens),
        ]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let _ = write!(text, "{:<1$}", row[0], widths[0]);
        for (cell, width) in row.iter().zip(&widths).skip(1) {
            let _ = write!(text, "  {cell:>width$}");
        }
        text.push('\n');
    }
    for out in outs {
        let _ = writeln!(text, "{}", out.display());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_several_tasks_keep_their_place() {
        assert_eq!(
            with_suffix(Path::new("runs/a/eval.json"), "market"),
            Path::new("runs/a/eval-market.json")
        );
        assert_eq!(with_suffix(Path::new("eval"), "market"), Path::new("eval-market.json"));
    }
}
