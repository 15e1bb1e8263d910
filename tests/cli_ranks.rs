//! `rlt` on several ranks, as processes that find each other over TCP and under `mpirun` where that is installed: the bytes of
//! one rank, one line when a rank fails, and nothing lost.
#![expect(clippy::print_stdout, reason = "it says what is skipped")]

mod emulated;
mod outcome;

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

use emulated::under_emulation;
use outcome::{assert_same, outcome};

const RLT: &str = env!("CARGO_BIN_EXE_rlt");
const CONFIGS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/configs/tests");

/// A folder with a model that has learnt a little, rows and nothing else; made once.
fn trained() -> &'static Path {
    static DIR: OnceLock<tempfile::TempDir> = OnceLock::new();
    let make = || {
        let dir = tempfile::tempdir().unwrap();
        let config = format!("{CONFIGS}/short-sft.toml");
        let made = Command::new(RLT)
            .args(["sft", "-q", "-c", &config, "sft.epochs=1", "eval.every=0", "run_dir=run"])
            .current_dir(dir.path())
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", text(&made));
        fs::rename(dir.path().join("run/model"), dir.path().join("model")).unwrap();
        let row = |i: usize| {
            let name = ["Mia", "Tom", "Ana"][i % 3];
            let (a, b) = (10 + i, 3 + 7 * i % 11);
            format!(
                "{{\"question\":\"{name} has {a} shells and finds {b} more. How many shells does {name} have?\",\
                 \"solution\":\"{name} has {} shells.\"}}\n",
                a + b
            )
        };
        fs::write(dir.path().join("rows.jsonl"), (0..25).map(row).collect::<String>()).unwrap();
        dir
    };
    DIR.get_or_init(make).path()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.clone(), output.stderr.clone()].concat()).into_owned()
}

fn free_port() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string()
}

/// Rank `rank` of a job over TCP.
fn rank_of(rank: usize, size: usize, port: &str, dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(RLT);
    command.args(args).current_dir(dir).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.env("RANK", rank.to_string()).env("WORLD_SIZE", size.to_string());
    command.env("LOCAL_WORLD_SIZE", size.to_string());
    command.env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", port);
    command
}

/// Starts `size` ranks over TCP.
fn start(size: usize, dir: &Path, args: &[&str]) -> Vec<Child> {
    let port = free_port();
    (0..size).map(|rank| rank_of(rank, size, &port, dir, args).spawn().unwrap()).collect()
}

fn ends(ranks: Vec<Child>) -> Vec<Output> {
    ranks.into_iter().map(|rank| rank.wait_with_output().unwrap()).collect()
}

/// Runs `rlt args` on one rank, or on `size` over TCP.
fn run(size: usize, dir: &Path, args: &[&str]) -> String {
    let outputs = match size {
        1 => vec![Command::new(RLT).args(args).current_dir(dir).output().unwrap()],
        _ => ends(start(size, dir, args)),
    };
    for (rank, output) in outputs.iter().enumerate() {
        assert!(output.status.success(), "rank {rank} of {size}: {}", text(output));
        assert!(rank == 0 || text(output).is_empty(), "rank {rank} speaks: {}", text(output));
    }
    text(&outputs[0])
}

/// As [`run`], under `mpirun`; none where that is not installed.
fn run_under_mpi(size: usize, dir: &Path, args: &[&str]) -> Option<String> {
    if under_emulation("the MPI library is of this machine's processor") {
        return None;
    }
    let mut command = Command::new("mpirun");
    command
        .args(["--oversubscribe", "--bind-to", "none", "-n", &size.to_string(), RLT])
        .args(args)
        .current_dir(dir);
    command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    let Ok(output) = command.output() else {
        println!("skipped: mpirun is not installed");
        return None;
    };
    assert!(output.status.success(), "{}", text(&output));
    Some(text(&output))
}

/// A copy of what [`trained`] made, to write beside.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let from = trained();
    fs::create_dir(dir.path().join("model")).unwrap();
    for entry in fs::read_dir(from.join("model")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, dir.path().join("model").join(path.file_name().unwrap())).unwrap();
    }
    fs::copy(from.join("rows.jsonl"), dir.path().join("rows.jsonl")).unwrap();
    dir
}

const EXPLAIN: [&str; 13] = [
    "explain",
    "-q",
    "--model",
    "model",
    "--data",
    "rows.jsonl",
    "--format",
    "trace",
    "-n",
    "3",
    "sampling.max_new_tokens=40",
    "sampling.max_running=8",
    "--out",
];
const SCORE: [&str; 11] = [
    "score",
    "-q",
    "--teacher",
    "model",
    "--student",
    "model",
    "--ledger",
    "--tokens-per-batch",
    "600",
    "--out",
    "OUT",
];
const EVAL: [&str; 12] = [
    "eval",
    "-q",
    "--model",
    "model",
    "--task",
    "market",
    "--max-questions",
    "21",
    "-n",
    "2",
    "sampling.max_new_tokens=40",
    "--out",
];

/// The files that each command leaves, with the name that the call chose cut out.
fn files_of(dir: &Path, name: &str) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<(String, Vec<u8>)> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file() && path.file_name().unwrap().to_string_lossy().starts_with(name))
        .map(|path| {
            let bytes = fs::read(&path).unwrap();
            let bytes = String::from_utf8(bytes).unwrap().replace(name, "NAME").into_bytes();
            (path.file_name().unwrap().to_string_lossy().replace(name, "NAME"), bytes)
        })
        .collect();
    files.sort();
    files
}

#[test]
fn explain_score_and_eval_write_the_bytes_of_one_rank() {
    let folder = folder();
    let dir = folder.path();
    let call = |command: &[&str], out: &str, run: &dyn Fn(&[&str])| {
        let mut args: Vec<&str> = command.iter().copied().filter(|arg| *arg != "OUT").collect();
        args.push(out);
        if command[0] == "score" {
            args.extend(["--data", "one-traces.jsonl"]);
        }
        run(&args);
    };
    let commands: [(&[&str], &str); 3] =
        [(&EXPLAIN, "traces.jsonl"), (&SCORE, "scores.jsonl"), (&EVAL, "eval.json")];
    for (command, out) in commands {
        call(command, &format!("one-{out}"), &|args| drop(run(1, dir, args)));
        let stem = out.split('.').next().unwrap();
        let expected = files_of(dir, &format!("one-{stem}"));
        assert!(!expected.is_empty());
        for size in [2, 4] {
            call(command, &format!("tcp{size}-{out}"), &|args| drop(run(size, dir, args)));
            assert_eq!(
                files_of(dir, &format!("tcp{size}-{stem}")),
                expected,
                "{} on {size} ranks",
                command[0]
            );
        }
        let under_mpi = |args: &[&str]| drop(run_under_mpi(3, dir, args));
        call(command, &format!("mpi-{out}"), &under_mpi);
        let found = files_of(dir, &format!("mpi-{stem}"));
        assert!(found.is_empty() || found == expected, "{} under mpirun", command[0]);
    }
}

/// Everything that all ranks wrote to standard error, in lines.
fn lines(outputs: &[Output]) -> Vec<String> {
    let all = outputs.iter().flat_map(|output| {
        String::from_utf8_lossy(&output.stderr).lines().map(str::to_owned).collect::<Vec<_>>()
    });
    all.collect()
}

#[test]
fn a_rank_with_other_rows_is_named_in_one_line() {
    let (first, second) = (folder(), folder());
    let mut rows = fs::read_to_string(second.path().join("rows.jsonl")).unwrap();
    rows.truncate(rows.trim_end().rfind('\n').unwrap() + 1);
    fs::write(second.path().join("rows.jsonl"), rows).unwrap();
    let port = free_port();
    let args: Vec<&str> = EXPLAIN.into_iter().chain(["out.jsonl"]).collect();
    let started = [first.path(), second.path()];
    let ranks = (0..2).map(|rank| rank_of(rank, 2, &port, started[rank], &args).spawn().unwrap()).collect();
    let outputs = ends(ranks);
    assert!(outputs.iter().all(|output| !output.status.success()));
    let lines = lines(&outputs);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with("error: rank 1 on "), "{lines:?}");
    assert!(lines[0].contains("has other rows than rank 0"), "{lines:?}");
    assert!(!first.path().join("out.jsonl").exists());
}

#[test]
fn what_is_wrong_everywhere_is_said_once_and_what_is_wrong_on_one_rank_by_it() {
    let good = folder();
    let args: Vec<&str> = EXPLAIN.into_iter().chain(["out.jsonl", "sampling.temperature=-1"]).collect();
    let outputs = ends(start(3, good.path(), &args));
    let said = lines(&outputs);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].starts_with("rank 0 of 3 on ") && said[0].contains("sampling.temperature"), "{said:?}");
    assert!(outputs.iter().all(|output| !output.status.success()));

    let empty = tempfile::tempdir().unwrap();
    let args: Vec<&str> = EXPLAIN.into_iter().chain(["out.jsonl"]).collect();
    let port = free_port();
    let places = [good.path(), good.path(), empty.path()];
    let started = Instant::now();
    let ranks = (0..3).map(|rank| rank_of(rank, 3, &port, places[rank], &args).spawn().unwrap()).collect();
    let outputs = ends(ranks);
    let said = lines(&outputs);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].starts_with("rank 2 of 3 on ") && said[0].contains("no such folder"), "{said:?}");
    assert!(started.elapsed() < Duration::from_secs(10));
}

/// More work than a test waits for.
const LONG: [&str; 13] = [
    "explain",
    "-q",
    "--model",
    "model",
    "--data",
    "rows.jsonl",
    "--format",
    "trace",
    "-n",
    "4000",
    "sampling.max_new_tokens=400",
    "--out",
    "out.jsonl",
];

#[test]
fn a_rank_that_is_killed_ends_the_job_with_its_name() {
    let folder = folder();
    for victim in [0, 2] {
        let mut ranks = start(3, folder.path(), &LONG);
        std::thread::sleep(Duration::from_millis(2500));
        ranks[victim].kill().unwrap();
        let killed = Instant::now();
        let outputs = ends(ranks);
        assert!(killed.elapsed() < Duration::from_secs(10), "{:?}", killed.elapsed());
        let said = lines(&outputs);
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(
            said[0].contains(&format!("error: rank {victim} on ")) && said[0].contains("is gone"),
            "{said:?}"
        );
        assert!(outputs.iter().all(|output| !output.status.success()));
    }
}

#[cfg(unix)]
#[test]
fn a_job_that_is_stopped_keeps_its_rows_and_goes_on_with_any_number_of_ranks() {
    let folder = folder();
    let dir = folder.path();
    let args = |out| {
        let all =
            ["explain", "-q", "--model", "model", "--data", "rows.jsonl", "--format", "trace", "-n", "40"];
        let rest = ["sampling.max_new_tokens=60", "sampling.max_running=16", "--out", out];
        all.into_iter().chain(rest).collect::<Vec<_>>()
    };
    run(1, dir, &args("whole.jsonl"));
    let ranks = start(2, dir, &args("out.jsonl"));
    let partial: PathBuf = dir.join(".out.jsonl.rlt-partial");
    let until = Instant::now() + Duration::from_secs(60);
    while fs::metadata(&partial).map_or(0, |file| file.len()) == 0 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(20));
    }
    // The signal comes to the rank that owns no file.
    let signal = Command::new("kill").args(["-TERM", &ranks[1].id().to_string()]).status().unwrap();
    assert!(signal.success());
    let outputs = ends(ranks);
    if dir.join("out.jsonl").exists() {
        println!("skipped: this machine was done before it was stopped");
        return;
    }
    let said = lines(&outputs);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("questions are explained") && outputs[0].status.code() == Some(130), "{said:?}");
    run(3, dir, &args("out.jsonl"));
    assert!(fs::read(dir.join("out.jsonl")).unwrap() == fs::read(dir.join("whole.jsonl")).unwrap());
}

/// A run of GRPO whose weights every step moves, in `run`, with lanes that 1, 2 and 4 ranks can share.
fn train_args(run: &str, more: &[&str]) -> Vec<String> {
    let config = format!("{CONFIGS}/short-rl.toml");
    let settings = [
        "grpo.steps=8",
        "grpo.questions_per_step=4",
        "grpo.group_size=4",
        "train.lanes=4",
        "eval.every=4",
        "sampling.max_new_tokens=24",
        "checkpoint.every=2",
    ];
    let mut args: Vec<String> = ["train", "-q", "-c", &config].map(str::to_owned).into();
    args.extend(settings.iter().chain(more).map(|&setting| setting.to_owned()));
    args.push(format!("run_dir={run}"));
    args
}

fn as_strs(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

#[test]
fn training_leaves_the_same_files_whoever_launches_how_many_ranks() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    run(1, dir, &as_strs(&train_args("one", &[])));
    let whole = outcome(&dir.join("one"));
    for size in [2, 4] {
        let name = format!("tcp{size}");
        run(size, dir, &as_strs(&train_args(&name, &[])));
        assert_same(&whole, &dir.join(&name), &format!("{size} ranks over TCP"));
        let name = format!("threads{size}");
        run(1, dir, &as_strs(&train_args(&name, &[&format!("ranks={size}")])));
        assert_same(&whole, &dir.join(&name), &format!("{size} ranks as threads"));
    }
    for size in [1, 2, 4] {
        let name = format!("mpi{size}");
        if run_under_mpi(size, dir, &as_strs(&train_args(&name, &[]))).is_some() {
            assert_same(&whole, &dir.join(&name), &format!("{size} ranks under mpirun"));
        }
    }
}

/// Some number below `n` that another call does not get.
fn dice(n: u64) -> u64 {
    u64::from(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().subsec_nanos()) / 1000 % n
}

#[test]
fn a_random_rank_is_killed_at_random_moments_and_nothing_is_lost() {
    let kills: usize = std::env::var("RLT_TEST_KILLS").map_or(2, |n| n.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let started = Instant::now();
    run(1, dir, &as_strs(&train_args("one", &[])));
    let whole_ms = started.elapsed().as_millis() as u64;
    let whole = outcome(&dir.join("one"));
    let args = train_args("killed", &[]);
    for kill in 0..kills {
        // Another number of ranks each time.
        let size = [2, 4, 2][kill % 3];
        let mut ranks = start(size, dir, &as_strs(&args));
        std::thread::sleep(Duration::from_millis(200 + dice(whole_ms + 500)));
        let victim = dice(size as u64) as usize;
        let was_over = ranks[victim].try_wait().unwrap().is_some();
        let _ = ranks[victim].kill();
        let killed = Instant::now();
        let outputs = ends(ranks);
        assert!(killed.elapsed() < Duration::from_secs(10), "{:?}", killed.elapsed());
        let said = lines(&outputs);
        let is_done = outputs.iter().all(|output| output.status.success());
        let named = said.len() == 1 && said[0].contains(&format!("rank {victim} on "));
        // Before the ranks have met, and once the run is over, there is nobody to name.
        let met = !said.iter().any(|line| line.contains("the ranks met") || line.contains("did not"));
        assert!(is_done || was_over || named || !met, "kill {kill} of rank {victim}: {said:?}");
    }
    run(4, dir, &as_strs(&args));
    assert_same(&whole, &dir.join("killed"), "killed");
}

#[cfg(unix)]
#[test]
fn a_rank_that_hangs_while_it_trains_is_named_when_the_deadline_has_passed() {
    let folder = tempfile::tempdir().unwrap();
    let args = train_args("run", &["grpo.steps=500", "eval.every=0"]);
    let port = free_port();
    let start = |rank| {
        let mut command = rank_of(rank, 2, &port, folder.path(), &as_strs(&args));
        command.env("RLT_RANKS_DEADLINE", "3").spawn().unwrap()
    };
    let mut ranks: Vec<Child> = (0..2).map(start).collect();
    let metrics = folder.path().join("run/metrics.jsonl");
    let until = Instant::now() + Duration::from_secs(60);
    while fs::metadata(&metrics).map_or(0, |file| file.len()) == 0 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(20));
    }
    let signal = |name: &str, rank: &Child| {
        assert!(Command::new("kill").args([name, &rank.id().to_string()]).status().unwrap().success());
    };
    signal("-STOP", &ranks[1]);
    let stopped = Instant::now();
    let first = ranks.remove(0).wait_with_output().unwrap();
    assert!(stopped.elapsed() < Duration::from_secs(13), "{:?}", stopped.elapsed());
    signal("-CONT", &ranks[0]);
    let second = ranks.remove(0).wait_with_output().unwrap();
    assert!(!first.status.success() && !second.status.success());
    let said = lines(&[first]);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("error: rank 1 on ") && said[0].contains("did not answer for 3 s"), "{said:?}");
}

/// A folder with the shape of a model of 64 blocks, 55 million weights: at 16 bytes each in training, 870 MB.
#[cfg(target_os = "linux")]
fn folder_of_a_large_model() -> tempfile::TempDir {
    let dir = folder();
    let config = dir.path().join("model/config.json");
    let mut shape: serde_json::Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    let sizes = [
        ("hidden_size", 256),
        ("intermediate_size", 768),
        ("num_hidden_layers", 64),
        ("num_attention_heads", 4),
        ("num_key_value_heads", 4),
        ("head_dim", 64),
    ];
    for (key, value) in sizes {
        shape[key] = value.into();
    }
    fs::write(&config, serde_json::to_vec(&shape).unwrap()).unwrap();
    fs::remove_file(dir.path().join("model/model.safetensors")).unwrap();
    dir
}

/// The most bytes of memory that a process has had.
#[cfg(target_os = "linux")]
fn most_bytes(process: &Child) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id())).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(1024 * line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?)
}

/// Four ranks train what one of them could not hold: each may have a third of the memory that one rank would need, and takes
/// what the plan says, within a tenth.
#[cfg(target_os = "linux")]
#[test]
fn a_model_of_three_times_a_rank_s_memory_is_trained_by_four() {
    if under_emulation("its own memory counts against the limit") {
        return;
    }
    let dir = folder_of_a_large_model();
    let row = |i: usize| {
        format!(
            "{{\"question\":\"How many are {i} and 2?\",\"reasoning_trace\":\"Add them.\",\"solution\":\"{}\"}}\n",
            i + 2
        )
    };
    fs::write(dir.path().join("rows.jsonl"), (0..8).map(row).collect::<String>()).unwrap();
    let settings = [
        "model.path=model",
        "model.from_scratch=true",
        "data.path=rows.jsonl",
        "data.reasoning_trace=reasoning_trace",
        "sft.batch_rows=4",
        "sft.epochs=0.5",
        "sft.tokens_per_microbatch=256",
        "eval.every=0",
        "checkpoint.every=0",
        "sft.format=student",
        "prompts.student_system=",
        "memory.recompute=blocks",
        "memory.idle=release",
        "train.lanes=4",
        "threads=1",
    ];
    let planned = |more: &[&str]| -> u64 {
        let mut command = Command::new(RLT);
        command.args(["plan", "--for", "sft", "--json"]).args(settings).args(more).current_dir(dir.path());
        let plan = command.output().unwrap();
        let plan: serde_json::Value = serde_json::from_slice(&plan.stdout).unwrap();
        plan["peak_bytes"].as_u64().unwrap()
    };
    // Alone a rank has no use for lanes.
    let alone = planned(&["train.lanes=1"]);
    let of_four = planned(&["ranks=4", "memory.weights=sharded"]);
    assert!(3 * of_four < alone, "{of_four} bytes on each of four ranks, {alone} on one");
    // What a process may write to counts what is set aside and not touched: a tenth of all, and the stacks of the two threads that
    // read templates, which come on top for whoever trains.
    let (allowed, stacks) = (alone / 3 * 109 / 100, (2 * 64) << 20);

    let start = |size: usize, bytes: u64, more: &[&str]| -> Vec<Child> {
        let port = free_port();
        let limited = |rank: usize| {
            let args: Vec<&str> = [&["sft", "-q"][..], &settings, more].concat();
            let mut command = Command::new("sh");
            // What the process may write to, in KiB.
            command
                .args(["-c", &format!("ulimit -d {}; exec \"$@\"", (bytes + stacks) / 1024), "sh", RLT])
                .args(&args);
            command.current_dir(dir.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
            if size > 1 {
                let of_rank = rank_of(rank, size, &port, dir.path(), &args);
                command.envs(of_rank.get_envs().filter_map(|(key, value)| Some((key, value?))));
            }
            command.spawn().unwrap()
        };
        (0..size).map(limited).collect()
    };
    let outputs = ends(start(1, 3 * allowed, &["run_dir=alone", "train.lanes=1"]));
    assert!(!outputs[0].status.success(), "three times as much is enough for one: {}", text(&outputs[0]));
    let mut ranks = start(4, allowed, &["run_dir=four", "memory.weights=sharded"]);
    let mut peak = 0;
    while ranks.iter_mut().any(|rank| rank.try_wait().unwrap().is_none()) {
        peak = ranks.iter().filter_map(most_bytes).fold(peak, u64::max);
        std::thread::sleep(Duration::from_millis(5));
    }
    let outputs = ends(ranks);
    let said: String = outputs.iter().map(text).collect();
    assert!(
        outputs.iter().all(|output| output.status.success()),
        "{allowed} bytes allowed, {peak} taken at most: {said}"
    );
    println!("{peak} bytes at most on each of four ranks, {of_four} planned; {alone} on one");
    assert!(peak.abs_diff(of_four) * 10 <= of_four, "{peak} bytes on a rank, {of_four} planned");
    assert!(dir.path().join("four/model/model.safetensors").exists());
}
