//! Every fault of a rank at every stage of a step: the whole job ends soon, one line says which rank it was and why, and the
//! run goes on from its last checkpoint, on whatever number of ranks, to the bytes of an undisturbed one.
#![cfg(unix)]
#![expect(clippy::print_stdout, reason = "it says what is skipped")]

mod emulated;
mod outcome;

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use emulated::{patience, under_emulation};
use outcome::{Outcome, assert_same, outcome};

const RLT: &str = env!("CARGO_BIN_EXE_rlt");
const CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/configs/tests/short-rl.toml");

const STAGES: [&str; 5] = ["sampling", "scoring", "backward", "optimizer", "checkpoint"];
const KINDS: [&str; 5] = ["panic", "error", "kill", "hang", "term"];

/// Seconds that ranks wait for one that hangs.
fn deadline() -> f64 {
    patience(2.0)
}

/// How long a job may take to end after a fault, with what it does before.
fn soon() -> Duration {
    Duration::from_secs_f64(patience(10.0))
}

/// A run of four steps that saves after the second and the fourth, with lanes that 1, 2 and 4 ranks can share.
fn args(run: &str) -> Vec<String> {
    let settings = [
        "world.rows=48",
        "world.heldout_rows=2",
        "world.hidden_size=32",
        "world.intermediate_size=64",
        "world.n_layers=1",
        "grpo.steps=4",
        "grpo.questions_per_step=4",
        "grpo.group_size=2",
        "sampling.max_new_tokens=12",
        "train.lanes=4",
        "eval.every=0",
        "checkpoint.every=2",
        "checkpoint.keep=1",
    ];
    let mut args: Vec<String> = ["train", "-q", "-c", CONFIG].map(str::to_owned).into();
    args.extend(settings.map(str::to_owned));
    args.push(format!("run_dir={run}"));
    args
}

/// A call of `rlt` in `dir`, with a fault where one is asked for.
fn rlt(dir: &Path, args: &[String], fault: Option<&str>) -> Command {
    let mut command = Command::new(RLT);
    command.args(args).current_dir(dir).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.env("RLT_RANKS_DEADLINE", deadline().to_string());
    command.envs(fault.map(|fault| ("RLT_FAULT", fault)));
    command
}

/// Runs a job of `size` processes over TCP to its end.
fn over_tcp(size: usize, dir: &Path, args: &[String], fault: Option<&str>) -> Vec<Output> {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let rank = |rank: usize| {
        let mut command = rlt(dir, args, fault);
        command.env("RANK", rank.to_string()).env("WORLD_SIZE", size.to_string());
        command.env("LOCAL_WORLD_SIZE", size.to_string());
        command.env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", &port).spawn().unwrap()
    };
    let started: Vec<_> = (0..size).map(rank).collect();
    started.into_iter().map(|rank| rank.wait_with_output().unwrap()).collect()
}

fn said(outputs: &[Output]) -> Vec<String> {
    let text = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    outputs.iter().flat_map(|output| text(output).lines().map(str::to_owned).collect::<Vec<_>>()).collect()
}

/// What the line about a fault of `rank` says of its cause.
fn cause(kind: &str) -> String {
    match kind {
        "panic" => "a fault in rlt itself: a fault that was asked for".into(),
        "error" => "step 3: a fault that was asked for".into(),
        "kill" => "is gone: its ".into(),
        "hang" => format!("did not answer for {} s", deadline()),
        _ => "was asked to stop; saved after step ".into(),
    }
}

/// Whether this build has faults on request.
fn has_faults() -> bool {
    if !cfg!(debug_assertions) {
        println!("skipped: this build has no faults on request");
    }
    cfg!(debug_assertions)
}

fn undisturbed(dir: &Path) -> Outcome {
    let done = rlt(dir, &args("whole"), None).output().unwrap();
    assert!(done.status.success(), "{:?}", said(&[done]));
    outcome(&dir.join("whole"))
}

/// One fault on one rank of a job over TCP, and the run that goes on after it.
fn fail_and_go_on(case: usize, dir: &Path, whole: &Outcome) {
    let (kind, stage) = (KINDS[case / STAGES.len()], STAGES[case % STAGES.len()]);
    // Who fails and how many there are: both change from one stage to the next.
    let (size, victim) = ([2, 4][case / 2 % 2], case % 2);
    // Step 4 is the one that saves.
    let step = if stage == "checkpoint" && kind != "term" { 4 } else { 3 };
    // A rank that is asked to stop while the last step saves has nothing left to stop.
    let step = if stage == "checkpoint" && kind == "term" { 2 } else { step };
    let fault = format!("{victim}:{stage}:{kind}:{step}");
    let run = format!("{kind}-{stage}");
    let started = Instant::now();
    let outputs = over_tcp(size, dir, &args(&run), Some(&fault));
    assert!(started.elapsed() < soon(), "{fault} on {size} ranks: {:?}", started.elapsed());
    let lines = said(&outputs);
    let expected = cause(kind).replace("step 3", &format!("step {step}"));
    let lines: Vec<&String> = lines.iter().filter(|line| !line.starts_with("stopping, and saving")).collect();
    assert_eq!(lines.len(), 1, "{fault} on {size} ranks: {lines:?}");
    assert!(lines[0].contains(&expected), "{fault} on {size} ranks: {lines:?}");
    // "rank 1 of 2 on node7" of a rank that speaks, "rank 1 on node7" of one that cannot.
    let named = [format!("rank {victim} of {size} on "), format!("rank {victim} on ")];
    assert!(named.iter().any(|name| lines[0].contains(name)), "{fault} on {size} ranks: {lines:?}");
    assert!(outputs.iter().all(|output| !output.status.success()), "{fault} on {size} ranks: {lines:?}");

    let run_dir = dir.join(&run);
    let saved = (2..=4).any(|step| run_dir.join(format!("checkpoints/step-{step:06}")).exists());
    assert!(saved, "{fault}: nothing was saved");
    // On another number of ranks.
    let resumed = over_tcp(if size == 2 { 4 } else { 2 }, dir, &args(&run), None);
    assert!(resumed.iter().all(|output| output.status.success()), "{fault}: {:?}", said(&resumed));
    assert_same(whole, &run_dir, &fault);
}

#[test]
fn every_fault_at_every_stage_ends_the_job_in_one_line_and_loses_nothing() {
    if !has_faults() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let whole = undisturbed(dir);
    let next = AtomicUsize::new(0);
    // They mostly wait, so two go on at once.
    std::thread::scope(|scope| {
        let work = || {
            while let case = next.fetch_add(1, Ordering::SeqCst)
                && case < KINDS.len() * STAGES.len()
            {
                fail_and_go_on(case, dir, &whole);
            }
        };
        for done in [scope.spawn(work), scope.spawn(work)] {
            done.join().unwrap();
        }
    });
}

#[test]
fn ranks_that_are_threads_name_the_one_that_failed() {
    if !has_faults() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let whole = undisturbed(dir);
    for (kind, stage) in [("panic", "scoring"), ("error", "backward"), ("hang", "optimizer")] {
        let run = format!("{kind}-{stage}");
        let mut all = args(&run);
        all.push("ranks=2".into());
        let started = Instant::now();
        let done = rlt(dir, &all, Some(&format!("1:{stage}:{kind}:3"))).output().unwrap();
        assert!(started.elapsed() < soon(), "{kind}: {:?}", started.elapsed());
        let lines = said(std::slice::from_ref(&done));
        assert!(!done.status.success() && lines.len() == 1, "{kind}: {lines:?}");
        assert!(lines[0].contains("rank 1 ") && lines[0].contains(&cause(kind)), "{kind}: {lines:?}");
        let done = rlt(dir, &all, None).output().unwrap();
        assert!(done.status.success(), "{kind}: {:?}", said(&[done]));
        assert_same(&whole, &dir.join(&run), kind);
    }
}

#[test]
fn ranks_write_a_log_where_it_is_asked_for_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    for (run, logs) in [("silent", None), ("told", Some("logs"))] {
        let mut all = args(run);
        all.push("ranks=2".into());
        let mut command = rlt(dir, &all, None);
        command.env_remove("RLT_RANK_LOG").envs(logs.map(|logs| ("RLT_RANK_LOG", logs)));
        let done = command.output().unwrap();
        assert!(done.status.success(), "{:?}", said(&[done]));
    }
    assert_same(&outcome(&dir.join("silent")), &dir.join("told"), "a run with a log");
    let mut here: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    here.sort();
    assert_eq!(here, ["logs", "silent", "told"]);
    let names: Vec<_> =
        std::fs::read_dir(dir.join("logs")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["rank-1.log"]);
    let log = std::fs::read_to_string(dir.join("logs/rank-1.log")).unwrap();
    assert!(log.lines().next().unwrap().contains("rank 1 of 2 on "), "{log}");
    assert_eq!(log.matches("1 done: reward ").count(), 4, "{log}");
}

#[test]
fn a_fault_under_mpirun_ends_the_job() {
    if !has_faults() {
        return;
    }
    if under_emulation("the MPI library is of this machine's processor") {
        return;
    }
    if Command::new("mpirun").arg("--version").output().is_err() {
        println!("skipped: mpirun is not installed");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let whole = undisturbed(dir);
    let cases = [
        ("panic", "backward"),
        ("error", "scoring"),
        ("kill", "optimizer"),
        ("hang", "checkpoint"),
        ("term", "sampling"),
    ];
    for (kind, stage) in cases {
        let step = if stage == "checkpoint" { 4 } else { 3 };
        let run = format!("{kind}-{stage}");
        let mpirun = |fault: Option<String>| {
            let mut command = Command::new("mpirun");
            command.args(["--oversubscribe", "--bind-to", "none", "-n", "2", RLT]).args(args(&run));
            command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
            command.env("RLT_RANKS_DEADLINE", deadline().to_string());
            command.envs(fault.map(|fault| ("RLT_FAULT", fault))).current_dir(dir).output().unwrap()
        };
        let started = Instant::now();
        let done = mpirun(Some(format!("1:{stage}:{kind}:{step}")));
        assert!(started.elapsed() < soon(), "{kind}: {:?}", started.elapsed());
        assert!(!done.status.success(), "{kind}");
        // The launcher says more, and says itself whose process was killed.
        let text = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned();
        let expected = if kind == "kill" { "signal 9".into() } else { cause(kind) };
        let line = text.lines().find(|line| line.contains(&expected));
        assert!(line.is_some_and(|line| kind == "kill" || line.contains("rank 1 ")), "{kind}: {text}");
        let done = mpirun(None);
        assert!(done.status.success(), "{kind}: {}", String::from_utf8_lossy(&done.stderr));
        assert_same(&whole, &dir.join(&run), kind);
    }
}
