//! `rlt reproduce`: the paper in miniature.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use rlt::reproduce::real::{self, tables::parts_table};
use rlt::reproduce::scale::Scale;
use rlt::reproduce::{Recipe, ReproduceOptions, Reproduction, run};
use rlt::{Error, Result};
use serde_json::{Value, json};

use super::common::{Context, model_folder, parse_positive};
use super::interrupt::stop_flag;
use super::pretrained::PretrainedArgs;

/// The paper's tables, figures and ablations in miniature on this CPU, ending in tables and one page
///
/// Each writes table.csv, table.md and figure.svg, and a section of index.html. To continue after an
/// interruption, give the same command again: the tables are the same. What recipes share is done once. Without
/// --base, several seeds are worked on side by side, as many as there are threads.
#[derive(Debug, Args)]
pub struct ReproduceArgs {
    /// Which table or figure
    #[arg(value_enum)]
    what: What,
    /// Seeds 1 to N; what differs between training runs shows only with several
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=100))]
    seeds: u64,
    /// Fewer questions, steps and groups
    #[arg(long)]
    quick: bool,
    /// Where it writes; without it runs/reproduce, runs/reproduce-quick, runs/reproduce-base or, for `real`, runs/real
    #[arg(long, value_name = "DIR")]
    run_dir: Option<PathBuf>,
    /// For `real`: the model folder of teacher and student. Otherwise a pretrained base model (table1, ablations), with its
    /// own tokenizer and chat template, in the place of the miniature's
    #[arg(long, value_name = "DIR")]
    base: Option<PathBuf>,
    #[command(flatten)]
    pretrained: PretrainedArgs,
    /// For `real`: a file of questions with worked solutions (as GSM8K's, MATH's or rlt's own rows); give it once for each source
    #[arg(long, value_name = "FILE")]
    data: Vec<PathBuf>,
    /// For `real`: questions of each file
    #[arg(long, value_name = "N", default_value_t = 80, value_parser = parse_positive)]
    questions: usize,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum What {
    /// Whose traces make the best students
    Table1,
    /// The same over base models of different strength
    Bases,
    /// Which student is the best cold start of RL
    Table2,
    /// A world that the teacher's RL never saw
    Fig4a,
    /// Whether a higher reward means better students
    Fig4b,
    /// What each part of the method is for
    Ablations,
    /// What minimum and maximum are for, where an explanation can grow
    Padding,
    /// All of them; with --quick all but bases and padding
    All,
    /// What the reward prefers on real questions, by a pretrained model (--base, --data); not part of `all`
    Real,
}

impl What {
    fn recipes(self, quick: bool) -> Vec<Recipe> {
        match self {
            Self::Table1 => vec![Recipe::Table1],
            Self::Bases => vec![Recipe::Bases],
            Self::Table2 => vec![Recipe::Table2],
            Self::Fig4a => vec![Recipe::Fig4a],
            Self::Fig4b => vec![Recipe::Fig4b],
            Self::Ablations => vec![Recipe::Ablations],
            Self::Padding => vec![Recipe::Padding],
            Self::All => Recipe::ALL.into_iter().filter(|recipe| !quick || recipe.is_quick()).collect(),
            Self::Real => Vec::new(),
        }
    }
}

impl ReproduceArgs {
    /// Runs the recipes and prints their tables.
    pub fn run(&self, context: &Context) -> Result<()> {
        if matches!(self.what, What::Real) {
            return self.run_real(context);
        }
        if !self.data.is_empty() {
            return Err(Error::Usage("--data belongs to `rlt reproduce real`".into()));
        }
        let (scale, folder) = if let Some(base) = &self.base {
            if self.quick {
                return Err(Error::Usage("--quick does not go with --base: say --rows and --steps".into()));
            }
            (Scale::pretrained(self.pretrained.of(base)?), "runs/reproduce-base")
        } else if self.quick {
            (Scale::quick(), "runs/reproduce-quick")
        } else {
            (Scale::full(), "runs/reproduce")
        };
        let run_dir = self.run_dir.clone().unwrap_or_else(|| folder.into());
        let options =
            ReproduceOptions { recipes: self.what.recipes(self.quick), seeds: self.seeds, scale, run_dir };
        let result = run(&options, &context.progress, stop_flag())?;
        context.answer(&text(&result), &as_json(&result))
    }

    fn run_real(&self, context: &Context) -> Result<()> {
        if self.pretrained.is_given() {
            let what =
                "--rows, --steps and --lora do not belong to `rlt reproduce real`: nothing is trained there";
            return Err(Error::Usage(what.into()));
        }
        let Some(base) = &self.base else {
            return Err(Error::Usage("give the model: --base DIR".into()));
        };
        if self.data.is_empty() {
            return Err(Error::Usage("give files of questions with worked solutions: --data FILE".into()));
        }
        model_folder(base)?;
        let run_dir = self.run_dir.clone().unwrap_or_else(|| "runs/real".into());
        let options = real::RealOptions {
            base: base.clone(),
            data: self.data.clone(),
            questions: self.questions,
            run_dir: run_dir.clone(),
        };
        let effects = real::run(&options, &context.progress, stop_flag())?;
        let (questions, dropped) = (effects.questions.len(), effects.dropped);
        let table = run_dir.join("table.md");
        context.answer(
            &format!(
                "{}\n{questions} questions, {dropped} dropped; tables: {}, figure: {}",
                parts_table(&effects).to_text(),
                table.display(),
                run_dir.join("figure.svg").display()
            ),
            &json!({ "questions": questions, "dropped": dropped, "table": table, "run_dir": run_dir }),
        )
    }
}

fn text(result: &Reproduction) -> String {
    let mut text = String::new();
    for section in &result.sections {
        let _ = writeln!(text, "{}\n\n{}", section.title, section.ours.to_text());
        for finding in &section.findings {
            let _ = writeln!(text, "- {}: {} ({})", finding.claim, finding.outcome.words(), finding.numbers);
        }
        text.push('\n');
    }
    let seconds: f64 = result.times.iter().map(|timed| timed.wall_s).sum();
    let _ = writeln!(text, "{} stages took {:.0} min", result.times.len(), seconds / 60.0);
    let _ = write!(text, "page: {}", result.page.display());
    text
}

fn as_json(result: &Reproduction) -> Value {
    let wall_s: f64 = result.times.iter().map(|timed| timed.wall_s).sum();
    json!({ "sections": result.sections, "stages": result.times.len(), "wall_s": wall_s, "page": result.page })
}
