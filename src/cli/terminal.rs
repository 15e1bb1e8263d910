//! What a person sees of long work, on standard error: a bar with rate and time left on a terminal,
//! an occasional plain line elsewhere, nothing but warnings with `--quiet`.

use std::fmt;
use std::io::{IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use rlt::progress::Progress;

use super::visible;

/// Least time between two plain lines of one stage.
const PLAIN_LINE_EVERY: Duration = Duration::from_secs(5);

/// The ways of showing progress.
enum Output {
    /// Another rank speaks.
    Silent,
    Quiet,
    Bars,
    Lines(Box<dyn Write + Send>),
}

/// The command line's [`Progress`].
pub struct Terminal {
    state: Mutex<State>,
}

struct State {
    output: Output,
    stage: Option<Stage>,
}

struct Stage {
    name: String,
    total: u64,
    unit: String,
    done: u64,
    started: Instant,
    last_line: Instant,
    bar: Option<ProgressBar>,
}

impl Terminal {
    /// Bars when standard error is a terminal, plain lines when it is not, nothing when `quiet`.
    pub fn new(quiet: bool) -> Self {
        let output = match (quiet, std::io::stderr().is_terminal()) {
            (true, _) => Output::Quiet,
            (false, true) => Output::Bars,
            (false, false) => Output::Lines(Box::new(std::io::stderr())),
        };
        Self { state: Mutex::new(State { output, stage: None }) }
    }

    /// Nothing at all, not even warnings: those of another process are the same.
    pub fn silent() -> Self {
        Self { state: Mutex::new(State { output: Output::Silent, stage: None }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress for Terminal {
    fn start(&self, stage: &str, total: u64, unit: &str) {
        self.state().start(stage, total, unit, Instant::now());
    }

    fn advance(&self, n: u64, message: &str) {
        self.state().advance(n, message, Instant::now());
    }

    fn finish(&self, message: &str) {
        self.state().finish(message, Instant::now());
    }

    fn note(&self, line: &str) {
        self.state().line(line);
    }

    fn warn(&self, line: &str) {
        let line = format!("warning: {line}");
        let mut state = self.state();
        match state.output {
            Output::Silent => {}
            Output::Quiet => write_line(&mut std::io::stderr(), &line),
            _ => state.line(&line),
        }
    }
}

impl State {
    fn start(&mut self, name: &str, total: u64, unit: &str, now: Instant) {
        let name = &visible::line(name);
        if let Some(bar) = self.stage.take().and_then(|previous| previous.bar) {
            bar.finish_and_clear();
        }
        let bar = match self.output {
            Output::Silent | Output::Quiet => return,
            Output::Bars => Some(new_bar(name, total, unit)),
            Output::Lines(_) => {
                self.line(&match total {
                    0 => format!("{name} ..."),
                    _ => format!("{name}: {total} {unit}"),
                });
                None
            }
        };
        let (name, unit) = (name.to_owned(), unit.to_owned());
        self.stage = Some(Stage { name, total, unit, done: 0, started: now, last_line: now, bar });
    }

    fn advance(&mut self, n: u64, message: &str, now: Instant) {
        let Some(stage) = &mut self.stage else { return };
        stage.done += n;
        if let Some(bar) = &stage.bar {
            bar.set_message(visible::line(message));
            bar.inc(n);
        } else if now.duration_since(stage.last_line) >= PLAIN_LINE_EVERY {
            stage.last_line = now;
            let line = stage.plain_line(message, now);
            self.line(&line);
        }
    }

    fn finish(&mut self, message: &str, now: Instant) {
        let Some(stage) = self.stage.take() else { return };
        if let Some(bar) = &stage.bar {
            bar.finish_and_clear();
        }
        self.line(&stage.result_line(message, now));
    }

    /// A line that stays, above the bar if there is one. Nothing can be done about a closed
    /// standard error, so a failed write is dropped.
    fn line(&mut self, line: &str) {
        match (&mut self.output, self.stage.as_ref().and_then(|stage| stage.bar.as_ref())) {
            (Output::Silent | Output::Quiet, _) => {}
            (Output::Lines(out), _) => write_line(out, line),
            (Output::Bars, Some(bar)) => bar.println(visible::line(line)),
            (Output::Bars, None) => write_line(&mut std::io::stderr(), line),
        }
    }
}

fn write_line(out: &mut impl Write, line: &str) {
    drop(writeln!(out, "{}", visible::line(line)));
}

impl Stage {
    /// "train: 120 steps in 57.3 s, loss 1.02".
    fn result_line(&self, message: &str, now: Instant) -> String {
        let Self { name, unit, done, .. } = self;
        let seconds = now.duration_since(self.started).as_secs_f64();
        let separator = if message.is_empty() { "" } else { ", " };
        format!("{name}: {done} {unit} in {seconds:.1} s{separator}{message}")
    }

    /// "train: 34/120 steps, 2.1 steps/s, 41 s left, loss 1.23".
    fn plain_line(&self, message: &str, now: Instant) -> String {
        let Self { name, total, unit, done, .. } = self;
        let rate = *done as f64 / now.duration_since(self.started).as_secs_f64().max(1e-9);
        let speed = speed(rate, unit);
        let mut line = match (*total, *done) {
            (0, _) => format!("{name}: {done} {unit}, {speed}"),
            // Nothing says yet how long it takes.
            (total, 0) => format!("{name}: 0/{total} {unit}"),
            (total, done) => {
                let left = total.saturating_sub(done) as f64 / rate.max(1e-9);
                format!("{name}: {done}/{total} {unit}, {speed}, {} left", duration(left))
            }
        };
        if !message.is_empty() {
            line.push_str(", ");
            line.push_str(message);
        }
        line
    }
}

/// "2.1 steps/s"; of slow work "28 s each", not "0.0 steps/s".
fn speed(rate: f64, unit: &str) -> String {
    if rate > 0.0 && rate < 0.2 { format!("{:.0} s each", 1.0 / rate) } else { format!("{rate:.1} {unit}/s") }
}

/// Seconds as a person says them: "41 s", "3 min 05 s", "2 h 10 min".
fn duration(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, s) => format!("{m} min {s:02} s"),
        (h, m, _) => format!("{h} h {m:02} min"),
    }
}

fn new_bar(name: &str, total: u64, unit: &str) -> ProgressBar {
    let of = unit.to_owned();
    let unit = unit.replace('{', "{{").replace('}', "}}");
    let template = match total {
        0 => format!("{{prefix}} {{spinner}} {{pos}} {unit}, {{rate}}  {{wide_msg}}"),
        _ => {
            format!("{{prefix}} {{bar:30}} {{pos}}/{{len}} {unit}, {{rate}}, {{left}} left  {{wide_msg}}")
        }
    };
    let style = ProgressStyle::with_template(&template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .with_key("rate", move |state: &ProgressState, out: &mut dyn fmt::Write| {
            let _ = out.write_str(&speed(state.per_sec(), &of));
        })
        .with_key("left", |state: &ProgressState, out: &mut dyn fmt::Write| {
            let left = if state.pos() == 0 { "?".into() } else { duration(state.eta().as_secs_f64()) };
            let _ = out.write_str(&left);
        });
    let length = (total > 0).then_some(total);
    let bar = ProgressBar::with_draw_target(length, ProgressDrawTarget::stderr());
    bar.set_style(style);
    bar.set_prefix(name.to_owned());
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// A writer whose text the test can read while the state owns it.
    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Shared {
        fn lines(&self) -> Vec<String> {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap().lines().map(str::to_owned).collect()
        }
    }

    #[test]
    fn plain_lines_come_at_most_every_few_seconds() {
        let shared = Shared::default();
        let mut state = State { output: Output::Lines(Box::new(shared.clone())), stage: None };
        let start = Instant::now();
        state.start("train", 100, "steps", start);
        for half_second in 1..=44 {
            state.advance(1, "loss 1.25", start + Duration::from_millis(500 * half_second));
        }
        state.line("saved runs/a/model");
        state.finish("loss 1.02", start + Duration::from_millis(22_500));
        assert_eq!(
            shared.lines(),
            [
                "train: 100 steps",
                "train: 10/100 steps, 2.0 steps/s, 45 s left, loss 1.25",
                "train: 20/100 steps, 2.0 steps/s, 40 s left, loss 1.25",
                "train: 30/100 steps, 2.0 steps/s, 35 s left, loss 1.25",
                "train: 40/100 steps, 2.0 steps/s, 30 s left, loss 1.25",
                "saved runs/a/model",
                "train: 44 steps in 22.5 s, loss 1.02",
            ]
        );
    }

    #[test]
    fn a_stage_of_unknown_length_has_no_time_left() {
        let start = Instant::now();
        let stage = Stage {
            name: "read".into(),
            total: 0,
            unit: "rows".into(),
            done: 30,
            started: start,
            last_line: start,
            bar: None,
        };
        assert_eq!(stage.plain_line("", start + Duration::from_secs(10)), "read: 30 rows, 3.0 rows/s");
    }

    #[test]
    fn before_anything_is_done_nothing_is_foretold_and_slow_work_is_told_in_seconds() {
        let start = Instant::now();
        let stage = |done| Stage {
            name: "evaluate".into(),
            total: 100,
            unit: "questions".into(),
            done,
            started: start,
            last_line: start,
            bar: None,
        };
        let line = |done, seconds| stage(done).plain_line("", start + Duration::from_secs(seconds));
        assert_eq!(line(0, 40), "evaluate: 0/100 questions");
        assert_eq!(line(2, 56), "evaluate: 2/100 questions, 28 s each, 45 min 44 s left");
        assert_eq!(line(50, 100), "evaluate: 50/100 questions, 0.5 questions/s, 1 min 40 s left");
    }

    #[test]
    fn durations_read_well() {
        assert_eq!(duration(0.4), "0 s");
        assert_eq!(duration(59.6), "1 min 00 s");
        assert_eq!(duration(3599.0), "59 min 59 s");
        assert_eq!(duration(7800.0), "2 h 10 min");
    }
}
