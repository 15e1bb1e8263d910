//! `rlt demo`: the whole method in miniature.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use rlt::Result;
use rlt::config::Config;
use rlt::demo::{DemoOptions, DemoResult, DemoScale, ExplanationFigures, run, to_json};
use rlt::report::Sample;

use super::common::Context;
use super::interrupt::stop_flag;
use super::pretrained::PretrainedArgs;

/// The whole method in miniature on this CPU, ending in a report
///
/// A teacher learns to explain, one student learns from it before and one after reinforcement learning,
/// and both answer held-out questions. To continue an interrupted demo, give the same command again.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Every stage in half a minute or so: too little of each to show what the method is worth
    #[arg(long)]
    tiny: bool,
    /// Seed of everything
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where it writes; without it runs/demo (runs/demo-tiny, runs/demo-base), or runs/demo-2 .. where that one is finished
    #[arg(long, value_name = "DIR")]
    run_dir: Option<PathBuf>,
    /// A pretrained model's folder in the place of the miniature's base model: its own tokenizer and chat template, LoRA
    #[arg(long, value_name = "DIR", conflicts_with = "tiny")]
    base: Option<PathBuf>,
    #[command(flatten)]
    pretrained: PretrainedArgs,
    /// Changes to the RL stage (configs/demo/rlt.toml), for example reward.lambda=0; those of model and memory
    /// (model.arithmetic=bf16) to every stage
    #[arg(value_name = "KEY=VALUE")]
    overrides: Vec<String>,
}

impl DemoArgs {
    /// Runs the stages and closes with the table.
    pub fn run(&self, context: &Context) -> Result<()> {
        let scale = if self.tiny { DemoScale::Tiny } else { DemoScale::Full };
        let pretrained = self.base.as_deref().map(|base| self.pretrained.of(base)).transpose()?;
        let name = if pretrained.is_some() { "demo-base" } else { scale.default_name() };
        let run_dir = self.run_dir.clone().unwrap_or_else(|| free_run_dir(Path::new("runs"), name));
        let (seed, overrides) = (self.seed, self.overrides.clone());
        context.tell_what_does_not_pay(&Config::parse("the command line", "", &overrides)?);
        let options = DemoOptions { run_dir, scale, seed, overrides, pretrained };
        let result = run(&options, &context.progress, stop_flag())?;
        let text = format!("{}\n{}", table(&result), next_steps(&options.run_dir, &result));
        context.answer(&text, &to_json(&result))
    }
}

/// The first of `NAME`, `NAME-2`, `NAME-3` .. that holds no finished demo.
fn free_run_dir(runs: &Path, name: &str) -> PathBuf {
    let names = std::iter::once(name.to_owned()).chain((2..).map(|n| format!("{name}-{n}")));
    let mut dirs = names.map(|name| runs.join(name));
    dirs.find(|dir| !dir.join("demo.json").exists()).expect("an endless list")
}

/// Students, reward, explanations, time and the report's path.
fn table(result: &DemoResult) -> String {
    let mut text = String::new();
    let students = &result.summary.students;
    let width = students.iter().map(|s| s.label.chars().count()).max().unwrap_or(0);
    let _ = writeln!(text, "{:<width$}  right answers  95 % interval", "");
    for student in students {
        let percent = |share: f64| 100.0 * share;
        let (accuracy, low, high) = (percent(student.accuracy), percent(student.low), percent(student.high));
        let _ = writeln!(text, "{:<width$}  {accuracy:>11.1} %  {low:.1} to {high:.1}", student.label);
    }
    let _ = writeln!(
        text,
        "\nmean RLT reward, first and last step: {:.3} and {:.3}",
        result.rewards.0, result.rewards.1
    );
    let _ = writeln!(text, "explanations before RL: {}", figures(&result.before));
    let _ = writeln!(text, "explanations after RL:  {}", figures(&result.after));
    let seconds: f64 = result.summary.stages.iter().map(|stage| stage.seconds).sum();
    let _ = writeln!(text, "took {:.0} min {:.0} s", (seconds / 60.0).floor(), seconds % 60.0);
    if let Some((best, worst)) = result.best_and_worst() {
        let _ = write!(text, "\n{}\n{}", example("best", best), example("worst", worst));
    }
    text
}

/// A shown explanation, to be read.
fn example(which: &str, sample: &Sample) -> String {
    let indented = |text: &str| {
        let lines = text.trim().lines().filter(|line| !line.trim().is_empty());
        lines.fold(String::new(), |text, line| text + "    " + line + "\n")
    };
    format!(
        "the {which} explanation shown of the teacher after RL, reward {:.2}:\n  question\n{}  solution\n{}  explanation\n{}",
        sample.reward.unwrap_or(f64::NAN),
        indented(&sample.question),
        indented(&sample.solution),
        indented(&sample.explanation)
    )
}

/// The page, and what to type for one's own data.
fn next_steps(run_dir: &Path, result: &DemoResult) -> String {
    format!(
        "report: {}\n\nnext, on your own rows:\n  rlt new my-project --demo {}    # with these models\n  \
         rlt new my-project --teacher DIR --student DIR    # with models of your own",
        result.report.display(),
        run_dir.display()
    )
}

fn figures(figures: &ExplanationFigures) -> String {
    let kinds = figures.kinds.iter().filter(|(_, share)| *share >= 0.005);
    let kinds: Vec<String> = kinds.map(|(name, share)| format!("{:.0} % {name}", 100.0 * share)).collect();
    let overlap = 100.0 * figures.solution_overlap;
    format!("{}; {:.0} tokens; {overlap:.0} % of the solution repeated", kinds.join(", "), figures.tokens)
}
