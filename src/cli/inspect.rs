//! `rlt inspect`: the teacher's and the student's sequence of one row, with spans, ids and boundaries.

use std::fmt::Write;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use rlt::config::DataConfig;
use rlt::dataset::{RecordStream, question_of, traces_of};
use rlt::inspect::{Inspection, inspect_question, inspect_trace};
use rlt::progress::Progress;
use rlt::prompts::{ChatText, PromptStyle, TypedCheck};
use rlt::{Error, Result};
use serde_json::json;

use super::common::{ConfigArgs, Context, model_folder, parse_positive};
use super::visible::visible;

/// When spans are coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Color {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// Show the teacher's and the student's sequence of one row: spans, token ids, boundaries
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// Model folder of the teacher, of which only tokenizer and chat template are read; without it the
    /// configuration's model.path
    #[arg(long, visible_alias = "teacher", value_name = "DIR")]
    model: Option<PathBuf>,
    /// Model folder of the student; without it the configuration's model.student, else the teacher
    #[arg(long, value_name = "DIR")]
    student: Option<PathBuf>,
    /// Question or trace rows; without it the configuration's data.path
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Which row, from 1
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = parse_positive)]
    row: usize,
    /// Colour the spans
    #[arg(long, value_enum, default_value_t = Color::Auto)]
    color: Color,
    #[command(flatten)]
    config: ConfigArgs,
}

impl InspectArgs {
    /// Reads the rows up to the one that is wanted and prints it.
    pub fn run(&self, context: &Context) -> Result<()> {
        let config = context.load_config(&self.config)?;
        let model = self.model.as_ref().unwrap_or(&config.model.path);
        let data = self.data.as_ref().unwrap_or(&config.data.path);
        for (path, flag, key) in [(model, "--model DIR", "model.path"), (data, "--data FILE", "data.path")] {
            if path.as_os_str().is_empty() {
                return Err(Error::Usage(format!("give {flag}, or {key} in the configuration")));
            }
        }
        let style = PromptStyle::resolve(&config.prompts)?;
        let read = |folder: &Path| -> Result<ChatText> {
            Ok(ChatText::from_dir(model_folder(folder)?)?.reading(config.data.special_tokens))
        };
        let teacher = read(model)?;
        let configured = Some(&config.model.student).filter(|path| !path.as_os_str().is_empty());
        let student = match self.student.as_ref().or(configured) {
            Some(folder) => read(folder)?,
            None => read(model)?,
        };
        ChatText::check_same_vocabulary(&teacher, &student)?;
        let data = DataConfig { path: data.clone(), max_rows: self.row, ..config.data.clone() };
        let (mut record, mut n_rows) = (None, 0);
        for read in RecordStream::open(&data.path, self.row)? {
            record = Some(read?);
            n_rows += 1;
        }
        let Some(record) = record.filter(|_| n_rows == self.row) else {
            return Err(Error::Usage(format!(
                "--row {} is past the last of the {n_rows} rows of {}",
                self.row,
                data.path.display()
            )));
        };
        let question = question_of(record.clone(), &data)?;
        TypedCheck::of_rows(&student, [&question], &context.progress)?;
        if let Some(warning) = style.thought_in_thought(&student) {
            context.progress.warn(&warning);
        }
        let has_trace = question.reasoning_trace.is_some()
            || ["completion", "explanation"].iter().any(|name| question.columns.contains_key(*name));
        let sequences = if has_trace {
            inspect_trace(&style, &teacher, &student, &traces_of(&record, &data, &style)?[0])?
        } else {
            inspect_question(&style, &teacher, &student, &question)?
        };
        let color = match self.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
        };
        let mut text = visible(&format!("{}, row {}\n", data.path.display(), self.row));
        for (sequence, chat) in sequences.iter().zip([&teacher, &student]) {
            describe(&mut text, sequence, chat, if color { ansi } else { plain });
        }
        let [of_teacher, of_student] = [&sequences[0], &sequences[1]].map(|s| s.to_json(&teacher));
        context.answer_painted(&text, &json!({"row": self.row, "teacher": of_teacher, "student": of_student}))
    }
}

/// The colour of a span.
fn ansi(span: &str) -> &'static str {
    match span {
        "think" => "\x1b[36m",
        "solution" => "\x1b[32m",
        "prompt" => "\x1b[2m",
        _ => "\x1b[33m",
    }
}

/// No colour for any span.
fn plain(_: &str) -> &'static str {
    ""
}

fn describe(out: &mut String, sequence: &Inspection, chat: &ChatText, paint: fn(&str) -> &'static str) {
    let tokenizer = &chat.tokenizer;
    let reset = if paint("think").is_empty() { "" } else { "\x1b[0m" };
    // Writing to a `String` cannot fail.
    let _ = writeln!(
        out,
        "\n{} sequence: {} tokens, {} on a border of the think text",
        sequence.name,
        sequence.ids.len(),
        sequence.n_boundary
    );
    for span in &sequence.spans {
        let text = visible(&tokenizer.decode(&sequence.ids[span.tokens.clone()]));
        let _ = writeln!(
            out,
            "\n[{} {}..{}]\n{}{text}{reset}",
            span.name,
            span.tokens.start,
            span.tokens.end,
            paint(span.name)
        );
    }
    let _ = writeln!(out, "\nids");
    for span in &sequence.spans {
        let ids = sequence.ids[span.tokens.clone()].iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
        let _ = writeln!(out, "{}{}{reset}: {ids}", paint(span.name), span.name);
    }
    let _ = writeln!(out, "\nboundaries");
    for pair in sequence.spans.windows(2) {
        let at = pair[1].tokens.start;
        let piece = |position: usize| {
            let id = sequence.ids[position];
            format!("{:?} ({id})", tokenizer.decode(&[id]))
        };
        let _ =
            writeln!(out, "{} | {} at {at}: {} | {}", pair[0].name, pair[1].name, piece(at - 1), piece(at));
    }
}
