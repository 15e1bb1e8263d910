//! `rlt explain`: a teacher's explanations of questions with known solutions.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use rlt::config::{Config, DataConfig, DeviceName};
use rlt::dataset::{GapRow, QuestionRow, RowWriter, UsableQuestions, read_questions, read_usable_questions};
use rlt::dealt::{Answering, DealtSampler, agree_on_work, first_ranks, serve_first_rank};
use rlt::explain::{ExplainSummary, explain_each};
use rlt::located::LocatedModel;
use rlt::model_files::{Deciding, ModelFiles};
use rlt::progress::Progress;
use rlt::prompts::{ChatText, PromptStyle};
use rlt::sampling::Author;
use rlt::server::Wanted;
use rlt::traces::{Flaw, conversation_columns, distillation_columns, flaw};
use rlt::{Error, Result};
use rlt_model::Stop;
use rlt_model::chat_template::TemplateTime;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::common::{
    ConfigArgs, Context, DeviceArgs, check_output, inputs, model_folder, parse_positive, template_time,
};
use super::interrupt::stop_flag;
use super::ranks::dealt;

/// What a row of the output is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
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
    /// Where the rows go (.jsonl or .parquet), whole or not at all
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Explanations per question
    #[arg(long, short, value_name = "N", default_value_t = 1, value_parser = parse_positive)]
    n: usize,
    /// What is written; the training rows leave out explanations that were not finished or are empty, and the
    /// answer names each of them
    #[arg(long, value_enum, default_value_t = Format::Trace)]
    format: Format,
    /// Stop when a row lacks its question or its solution; without this it is written with the reason, or left out of
    /// training rows
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

impl ExplainArgs {
    /// Explains on all ranks.
    pub fn run(&self, context: &Context) -> Result<()> {
        dealt(&context.ranks, self.explain(context))
    }

    /// Checks every input that is cheap to check before it loads the model.
    fn explain(&self, context: &Context) -> Result<()> {
        let config = context.load_config_on(&self.config, &self.device)?;
        let model = self.model.as_ref().unwrap_or(&config.model.path);
        let data = self.data.as_ref().unwrap_or(&config.data.path);
        for (path, flag, key) in [(model, "--model DIR", "model.path"), (data, "--data FILE", "data.path")] {
            if path.as_os_str().is_empty() {
                return Err(Error::Usage(format!("give {flag}, or {key} in the configuration")));
            }
        }
        let model = model_folder(model)?;
        let inputs = inputs(&self.config, &config).with("--model", model).with("--data", data);
        check_output(&inputs, &self.out)?;
        let style = PromptStyle::resolve(&config.prompts)?;
        let data = DataConfig { path: data.clone(), ..config.data.clone() };
        let UsableQuestions { rows, gaps } = if self.strict {
            UsableQuestions { rows: read_questions(&data)?, gaps: Vec::new() }
        } else {
            read_usable_questions(&data)?
        };
        let server = config.server_of_teacher();
        let deciding = if server.is_some() { Deciding::WithoutWeights } else { Deciding::WithWeights };
        let files = ModelFiles::of(model, deciding, &context.progress)?;
        let holding = config.memory.holding(&context.ranks);
        let find = |server| LocatedModel::find(server, &config.model, model, &holding, &context.progress);
        let served = server.map(|server| find(Some(server))).transpose()?;
        let deciding = served.as_ref().and_then(LocatedModel::served).map(|served| served.deciding());
        let work = |time| self.work(&config, &style, &files, deciding.as_ref(), &rows, &gaps, time);
        let unfinished = rlt_files::unfinished_work(&self.out);
        let time = template_time(unfinished, |time, earlier| work(time) == earlier);
        let time = first_ranks(&context.ranks, time)?;
        let chat = ChatText::from_dir_at(model, time)?.reading(config.data.special_tokens);
        let located = match served {
            Some(served) => served,
            None => find(None)?,
        };
        let params = located.params(&config.sampling, &chat)?;
        let wanted = Wanted { sampling: Some(&params), ..Wanted::default() };
        located.check(&chat.tokenizer, &wanted, &context.progress)?;
        let sampler = located.sampler(params, config.seed);
        let ranks = &context.ranks;
        agree_on_work(ranks, &work(time))?;
        if !ranks.is_first() {
            let answering = Answering { sampler: Some(&*sampler), ..Answering::default() };
            return serve_first_rank(ranks, &answering, stop_flag());
        }
        let sampler = DealtSampler { own: &*sampler, ranks };
        let teacher = Author::new(sampler.sampler(), &chat, &style)?;

        let mut out = RowWriter::<Done>::begin(&self.out, &work(time))?;
        if let Some(served) = located.served() {
            served.keep_answers(&self.out)?;
        }
        let done = out.state().summary;
        if done.questions > 0 {
            context.progress.note(&format!("going on after {} of {} questions", done.questions, rows.len()));
        }
        // In the traces every row has its place.
        let is_trace = self.format == Format::Trace;
        let mut to_write = gaps.iter().filter(|gap| is_trace && gap.position >= done.questions).peekable();
        let (mut n_begun, n_questions) = (done.questions, rows.len());
        let stop = Stop::when(stop_flag());
        let explained =
            explain_each(&teacher, &rows, self.n, done, stop, &context.progress, |traces, summary| {
                let mut left_out = out.state().left_out.clone();
                let mut rows = Vec::with_capacity(traces.len());
                for trace in &traces {
                    if trace.question.columns["sample"] == 0 {
                        while let Some(gap) = to_write.next_if(|gap| gap.position <= n_begun) {
                            rows.push(gap_columns(gap));
                        }
                        n_begun += 1;
                    }
                    rows.push(match (self.format, flaw(trace, &style, &chat)) {
                        (Format::Trace, _) => trace.to_columns(),
                        (_, Some(reason)) => {
                            let sample = trace.question.columns["sample"].as_u64().unwrap_or_default();
                            left_out.push(LeftOut { row: trace.question.row, sample, reason });
                            continue;
                        }
                        (Format::Conversations, None) => conversation_columns(trace, &style),
                        (Format::Messages, None) => distillation_columns(trace, &style),
                    });
                }
                if n_begun == n_questions {
                    rows.extend(to_write.by_ref().map(gap_columns));
                }
                out.append(&rows, Done { summary, left_out })?;
                Ok(())
            });
        let summary = match explained {
            Err(Error::Interrupted(what)) => {
                return Err(Error::Interrupted(format!("{what}; {}", out.suspend()?)));
            }
            // A server may be back later.
            Err(Error::Stopped { source, left }) if located.served().is_some() => {
                return Err(Error::Stopped { source, left: format!("{left}; {}", out.suspend()?) });
            }
            Err(error) if located.served().is_some() && out.n_rows() > 0 => {
                return Err(Error::Stopped { source: Box::new(error), left: out.suspend()?.into() });
            }
            explained => explained?,
        };
        if let Some(served) = located.served() {
            served.forget_answers()?;
        }
        let (written, left_out) = (out.n_rows(), out.state().left_out.clone());
        if written == 0 {
            out.discard()?;
            return Err(Error::Failed(format!(
                "none of the {} explanations can be learnt from: {}; raise sampling.max_new_tokens if they were cut, \
                 and look at them with --format trace",
                summary.traces,
                reasons(&left_out)
            )));
        }
        out.finish()?;

        let mut answer = json!(summary);
        answer["rows"] = json!(written);
        answer["left_out"] = json!(left_out);
        answer["without_question_or_solution"] =
            gaps.iter().map(|gap| json!({"row": gap.record.row, "reason": gap.reason})).collect();
        answer["out"] = json!(self.out);
        let share = 100.0 * summary.closed as f64 / summary.traces as f64;
        let rest = if left_out.is_empty() {
            String::new()
        } else {
            let (n, all) = (left_out.len(), summary.traces);
            format!("\nleft out {n} of {all} explanations: {}", reasons(&left_out))
        };
        let text = format!(
            "wrote {written} rows for {} questions ({} tokens, {share:.1} % of the explanations closed, {} of them \
             empty) to {}{rest}{}",
            summary.questions,
            summary.tokens,
            summary.empty,
            self.out.display(),
            of_gaps(&gaps)
        );
        context.answer(&text, &answer)
    }

    /// Everything that decides the rows: an attempt that was killed is gone on with only when it is the same.
    fn work(
        &self,
        config: &Config,
        style: &PromptStyle,
        files: &ModelFiles,
        server: Option<&Value>,
        rows: &[QuestionRow],
        gaps: &[GapRow],
        time: TemplateTime,
    ) -> String {
        let mut crc = 0;
        for row in rows {
            let text = json!([row.row, row.question, row.solution, row.columns]).to_string();
            crc = crc32c::crc32c_append(crc, text.as_bytes());
        }
        for gap in gaps {
            let text = json!([gap.record.row, gap.position, gap.record.columns]).to_string();
            crc = crc32c::crc32c_append(crc, text.as_bytes());
        }
        let mut work = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "model": files,
            "template_time": time,
            "rows": [rows.len(), crc],
            "style": format!("{style:?}"),
            "special_tokens": config.data.special_tokens,
            "sampling": &config.sampling,
            "seed": config.seed,
            "arithmetic": config.model.arithmetic,
            "n": self.n,
            "format": self.format,
        });
        if config.model.device != DeviceName::Cpu {
            work["device"] = json!(config.model.device);
        }
        if let Some(server) = server {
            work["server"] = server.clone();
        }
        work.to_string()
    }
}

/// How far the work is, and what it came to.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Done {
    summary: ExplainSummary,
    left_out: Vec<LeftOut>,
}

/// The row of a question that cannot be explained: without an explanation, and with the reason.
fn gap_columns(gap: &GapRow) -> Map<String, Value> {
    let mut columns = gap.record.columns.clone();
    for name in ["completion", "explanation", "finish"] {
        columns.insert(name.into(), Value::Null);
    }
    columns.insert("reason".into(), Value::from(gap.reason.as_str()));
    columns
}

/// What the answer says of rows that lack something.
fn of_gaps(gaps: &[GapRow]) -> String {
    let mut places: Vec<String> =
        gaps.iter().take(MOST_PLACES).map(|gap| format!("row {}: {}", gap.record.row, gap.reason)).collect();
    if gaps.len() > MOST_PLACES {
        places.push(format!("and {} more, which --json names", gaps.len() - MOST_PLACES));
    }
    match gaps.len() {
        0 => String::new(),
        n => format!("\n{n} rows lack a question or a solution ({})", places.join("; ")),
    }
}

/// An explanation that became no training row.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct LeftOut {
    /// Of the question, from 1.
    row: usize,
    /// Which of the question's explanations, from 0.
    sample: u64,
    reason: Flaw,
}

/// Places that a line of text names for one reason; `--json` names all.
const MOST_PLACES: usize = 20;

/// Every reason with its count and its places: "2 closed but empty (row 3 sample 0, row 7 sample 1)".
fn reasons(left_out: &[LeftOut]) -> String {
    let mut by_reason: BTreeMap<Flaw, Vec<String>> = BTreeMap::new();
    for LeftOut { row, sample, reason } in left_out {
        by_reason.entry(*reason).or_default().push(format!("row {row} sample {sample}"));
    }
    let text = by_reason.into_iter().map(|(reason, mut places)| {
        let n = places.len();
        places.truncate(MOST_PLACES);
        let more = if n > MOST_PLACES {
            format!(" and {} more, which --json names", n - MOST_PLACES)
        } else {
            String::new()
        };
        format!("{n} {} ({}{more})", reason.name(), places.join(", "))
    });
    text.collect::<Vec<_>>().join("; ")
}
