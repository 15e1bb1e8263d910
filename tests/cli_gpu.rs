//! `--device` as a program: a GPU gives the processor's numbers; a machine without one says so in a line. On the emulated GPU, or with
//! `RLT_CUDA=real` on the first real one.

#![expect(clippy::print_stdout, reason = "a skipped test says so")]

mod outcome;
mod scripted;
mod served;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};

use assert_cmd::Command;
use outcome::{assert_same, outcome};
use rlt_cuda_emulator::{Build, libraries};
use serde_json::{Value, json};

fn is_real() -> bool {
    std::env::var_os("RLT_CUDA").is_some_and(|which| which == "real")
}

/// Where the program finds a GPU's libraries, the emulated ones if no real GPU is asked for; none where these cannot be.
fn found_in() -> Option<PathBuf> {
    if is_real() {
        return Some(std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default().into());
    }
    libraries(Build::Plain).map_err(|why| println!("skipped: {why}")).ok()
}

fn rlt(dir: &Path, libraries: &Path) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("rlt"));
    command.current_dir(dir).env("LD_LIBRARY_PATH", libraries);
    command
}

const ROWS: &str = "{\"text\":\"Tom has 9 eggs.\"}\n{\"ids\":[5,6,7]}\n{\"ids\":[5]}\n{\"text\":\"<|im_start|>user\\nWho?\"}\n";

fn with_model() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    scripted::write_random_model(&dir.path().join("model"), 64);
    std::fs::write(dir.path().join("rows.jsonl"), ROWS).unwrap();
    dir
}

const LOGPROBS: [&str; 8] =
    ["logprobs", "--model", "model", "--data", "rows.jsonl", "-q", "--json", "--device"];

fn numbers(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap();
    let rows = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    rows.flat_map(|mut row| row["logprobs"].as_array_mut().unwrap().split_off(0)).collect()
}

#[test]
fn the_gpu_gives_the_log_probabilities_of_the_processor() {
    let Some(libraries) = found_in() else { return };
    let dir = with_model();
    for device in ["cpu", "cuda"] {
        let out = format!("{device}.jsonl");
        let mut command = rlt(dir.path(), &libraries);
        let done = command.args(LOGPROBS).args([device, "--out", &out]).assert().success().stderr("");
        let answer: Value = serde_json::from_slice(&done.get_output().stdout).unwrap();
        assert_eq!(answer["device"], device);
    }
    let [ours, theirs] = ["cpu.jsonl", "cuda.jsonl"].map(|file| numbers(&dir.path().join(file)));
    assert!(ours.len() == theirs.len() && ours.len() > 10, "{ours:?} {theirs:?}");
    for (a, b) in ours.iter().zip(&theirs) {
        assert_eq!(a.is_null(), b.is_null());
        let (a, b) = (a.as_f64().unwrap_or(0.0), b.as_f64().unwrap_or(0.0));
        assert!((a - b).abs() <= 1e-5 * a.abs().max(1.0), "{a} {b}");
    }
}

#[test]
fn what_cannot_be_used_is_one_line_and_leaves_no_file() {
    let Some(libraries) = found_in() else { return };
    let dir = with_model();
    let refused = |device: &str, code: i32, says: &str, change: &dyn Fn(&mut Command)| {
        let mut command = rlt(dir.path(), &libraries);
        command.args(LOGPROBS).args([device, "--out", "out.jsonl"]);
        change(&mut command);
        let output = command.assert().code(code).get_output().clone();
        let line = String::from_utf8(output.stderr).unwrap();
        assert!(line.trim_end().lines().count() == 1 && line.contains(says), "{line}");
        assert!(output.stdout.is_empty() && !dir.path().join("out.jsonl").exists());
    };
    refused("cuda:7", 1, "there is no GPU 7", &|_| ());
    refused("cuda", 2, "not built for GPUs", &|command| _ = command.arg("memory.weights=sharded"));
    if !is_real() {
        refused("cuda", 1, "CUDA 12.2", &|command| _ = command.env("EMU_DRIVER_VERSION", "12020"));
        refused("cuda", 1, "no NVIDIA driver", &|command| _ = command.env_remove("LD_LIBRARY_PATH"));
    }
}

/// A run that makes its own world: sampled, rewarded and learnt from on the device.
fn train(dir: &Path, libraries: &Path, device: &str, name: &str) -> Command {
    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/configs/tests/short-rl.toml");
    let small = "world.rows=8 world.heldout_rows=0 world.hidden_size=16 world.intermediate_size=24 world.n_layers=1 \
                 world.n_heads=2 grpo.steps=3 grpo.questions_per_step=2 grpo.group_size=2 sampling.max_new_tokens=6 \
                 eval.every=0 checkpoint.every=1 grpo.reference_sync_every=1";
    let mut command = rlt(dir, libraries);
    command
        .args(["train", "-q", "--config", config, "--device", device, &format!("run_dir={name}")])
        .args(small.split_whitespace());
    command
}

/// Its metrics and its last weights.
fn left(dir: &Path) -> (Vec<Value>, Vec<u8>) {
    let metrics = std::fs::read_to_string(dir.join("metrics.jsonl")).unwrap();
    let metrics = metrics.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (metrics, std::fs::read(dir.join("model/model.safetensors")).unwrap())
}

/// Whether two runs' `metrics` are `tolerance` apart, of the larger or of 0.01.
#[track_caller]
fn go_alike(ours: &[Value], theirs: &[Value], metrics: &[&str], tolerance: f64) {
    assert_eq!((ours.len(), theirs.len()), (3, 3));
    for (a, b) in ours.iter().zip(theirs) {
        for metric in metrics {
            let number = |row: &Value| row[metric].as_f64().unwrap_or_else(|| panic!("{metric} of {row}"));
            let (a, b) = (number(a), number(b));
            assert!((a - b).abs() <= tolerance * a.abs().max(1e-2), "{metric}: {a} {b}");
        }
    }
}

/// Products and the optimizer's moments in bf16.
const IN_BF16: [&str; 2] = ["model.arithmetic=bf16", "optimizer.moments=bf16"];

#[test]
fn fine_tuning_in_bf16_goes_as_on_the_processor() {
    let Some(libraries) = found_in() else { return };
    let dir = tempfile::tempdir().unwrap();
    let small = "world.rows=24 world.heldout_rows=0 world.hidden_size=16 world.intermediate_size=24 world.n_layers=1 \
                 world.n_heads=2 sft.epochs=1 sft.batch_rows=8 eval.every=0 checkpoint.every=1";
    let of = |device: &str| {
        let config = concat!(env!("CARGO_MANIFEST_DIR"), "/configs/tests/short-sft.toml");
        let mut command = rlt(dir.path(), &libraries);
        command.args(["sft", "-q", "--config", config, "--device", device, &format!("run_dir={device}")]);
        command.args(small.split_whitespace()).args(IN_BF16).assert().success();
        left(&dir.path().join(device)).0
    };
    go_alike(&of("cpu"), &of("cuda"), &["loss", "grad_norm"], 1e-2);
}

/// Groups of six: the two rewards of a group of two may lie closer than bf16 rounds them, and their advantages, which are divided by
/// how far they lie apart, then say more of the rounding than of the completions.
#[test]
fn reinforcement_in_bf16_goes_as_on_the_processor() {
    let Some(libraries) = found_in() else { return };
    let dir = tempfile::tempdir().unwrap();
    let of = |device: &str| {
        let mut command = train(dir.path(), &libraries, device, device);
        command.args(IN_BF16).arg("grpo.group_size=6").assert().success();
        left(&dir.path().join(device)).0
    };
    let (ours, theirs) = (of("cpu"), of("cuda"));
    go_alike(&ours, &theirs, &["reward_mean", "solution_logprob_mean"], 1e-3);
    go_alike(&ours, &theirs, &["grad_norm"], 3e-2);
}

/// The same command, to be started and not waited for.
fn to_be_started(command: &Command) -> std::process::Command {
    let mut started = std::process::Command::new(command.get_program());
    started.args(command.get_args()).current_dir(command.get_current_dir().unwrap());
    started.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    started
}

/// Kills a run in `run_dir` as soon as there is a checkpoint.
fn kill_after_a_step(command: &Command, run_dir: &Path) {
    kill_after_the_first_step(to_be_started(command).spawn().unwrap(), run_dir);
}

fn kill_after_the_first_step(mut child: Child, run_dir: &Path) {
    let checkpoint = run_dir.join("checkpoints/step-000001/state.json");
    while !checkpoint.exists() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

/// A draw between two tokens may fall otherwise than on the processor; on the GPU all is the same twice.
#[test]
fn a_run_in_bf16_ends_with_the_same_bits_twice() {
    let Some(libraries) = found_in() else { return };
    let dir = tempfile::tempdir().unwrap();
    let in_bf16 = |name: &str| {
        let mut command = train(dir.path(), &libraries, "cuda", name);
        command.args(IN_BF16);
        command
    };
    let of = |name: &str, order: &str| {
        in_bf16(name).env("EMU_ORDER", order).assert().success();
        left(&dir.path().join(name))
    };
    let ((metrics, once), (again, twice)) = (of("a", "0"), of("b", "2"));
    assert!(once == twice, "other weights in another order of threads");
    go_alike(&metrics, &again, &["reward_mean", "grad_norm"], 0.0);
    kill_after_a_step(&in_bf16("c"), &dir.path().join("c"));
    assert!(of("c", "1").1 == once, "other weights after a kill");
}

#[test]
fn moments_in_the_hosts_memory_change_no_bit() {
    let Some(libraries) = found_in() else { return };
    let dir = tempfile::tempdir().unwrap();
    for (name, more) in [("f32", &[][..]), ("bf16", &IN_BF16)] {
        let run = |which: &str, offload: &str| {
            let name = format!("{name}-{which}");
            let mut command = train(dir.path(), &libraries, "cuda", &name);
            command.args(more).arg(format!("memory.offload={offload}"));
            (command, dir.path().join(name))
        };
        let (mut here, here_dir) = run("here", "nothing");
        here.assert().success();
        // Killed on the way; then copies come as late as they may.
        let (mut there, there_dir) = run("there", "moments");
        kill_after_a_step(&there, &there_dir);
        there.env("EMU_LATE", "12").assert().success();
        let [here, there] = [here_dir, there_dir].map(|dir| left(&dir).1);
        assert!(here == there, "{name}: other weights with moments in the host's memory");
    }
    if !is_real() {
        let mut command = train(dir.path(), &libraries, "cuda", "too-much");
        let line = failed(command.arg("memory.offload=moments").env("EMU_HOST_MEMORY", "4"));
        assert!(
            line.contains("of the host's memory are not there") && line.contains("memory.offload"),
            "{line}"
        );
    }
}

/// The student and the reference, which moves or never does; the weights of the run are those that it leaves with both whole.
#[test]
fn frozen_models_in_the_hosts_memory_change_no_bit() {
    let Some(libraries) = found_in() else { return };
    let dir = tempfile::tempdir().unwrap();
    for (name, more, sync_every) in [("f32", &[][..], "1"), ("bf16", &IN_BF16, "1"), ("still", &IN_BF16, "0")]
    {
        let run = |which: &str, offload: &str| {
            let name = format!("{name}-{which}");
            let mut command = train(dir.path(), &libraries, "cuda", &name);
            command.args(more).args(["world.n_layers=3", &format!("memory.offload={offload}")]);
            command.arg(format!("grpo.reference_sync_every={sync_every}"));
            (command, dir.path().join(name))
        };
        let (mut here, here_dir) = run("here", "nothing");
        here.assert().success();
        // Killed on the way, and gone on with while copies come as late as they may; then all at once, with the moments.
        let (mut there, there_dir) = run("there", "frozen");
        kill_after_a_step(&there, &there_dir);
        there.env("EMU_LATE", "01").assert().success();
        let (mut all, all_dir) = run("all", "all");
        all.env("EMU_LATE", "1").assert().success();
        let (metrics, here) = left(&here_dir);
        for (metrics_there, there) in [there_dir, all_dir].map(|dir| left(&dir)) {
            assert!(here == there, "{name}: other weights with frozen models in the host's memory");
            go_alike(&metrics, &metrics_there, &["reward_mean", "kl_to_reference", "grad_norm"], 0.0);
        }
    }
}

#[test]
fn log_probabilities_wait_for_the_blocks_that_come_from_the_hosts_memory() {
    let Some(libraries) = found_in() else { return };
    let dir = with_model();
    let scored = |offload: &str, late: &str, without: &str| {
        let mut command = rlt(dir.path(), &libraries);
        command.args(LOGPROBS).args(["cuda", "--out", "out.jsonl"]);
        command
            .arg(format!("memory.offload={offload}"))
            .env("EMU_LATE", late)
            .env("EMU_WITHOUT_WAIT", without);
        let succeeded = command.output().unwrap().status.success();
        succeeded.then(|| std::fs::read(dir.path().join("out.jsonl")).unwrap())
    };
    let expected = scored("nothing", "", "");
    assert!(expected.is_some());
    let lateness = if is_real() { &[""][..] } else { &["", "0", "1", "01"] };
    for late in lateness {
        assert!(scored("frozen", late, "") == expected, "late: {late}");
    }
    // The GPU's for what comes, and theirs for the GPU.
    for without in if is_real() { &[][..] } else { &["0<1", "1<0"] } {
        let is_noticed = lateness.iter().any(|late| scored("frozen", late, without) != expected);
        assert!(is_noticed, "nobody notices that {without} is not waited for");
    }
}

#[test]
fn a_run_on_the_gpu_goes_as_on_the_processor_and_ends_with_the_same_bits_whatever_happens_to_it() {
    let Some(libraries) = found_in() else { return };
    let dir = tempfile::tempdir().unwrap();
    let of = |device: &str, name: &str, order: &str| {
        train(dir.path(), &libraries, device, name).env("EMU_ORDER", order).assert().success();
        left(&dir.path().join(name))
    };
    let (ours, theirs, again) = (of("cpu", "a", "0"), of("cuda", "b", "0"), of("cuda", "c", "3"));
    assert!(theirs.1 == again.1, "other weights in another order of threads");
    go_alike(&ours.0, &theirs.0, &["reward_mean", "solution_logprob_mean", "grad_norm"], 1e-3);
    kill_after_a_step(&train(dir.path(), &libraries, "cuda", "d"), &dir.path().join("d"));
    assert!(of("cuda", "d", "1").1 == theirs.1, "other weights after a kill");
}

/// What a run leaves that a GPU's failure ends: the line.
fn failed(command: &mut Command) -> String {
    let output = command.assert().code(1).get_output().clone();
    let line = String::from_utf8(output.stderr).unwrap();
    assert!(
        line.starts_with("error: GPU 0 (emulated device)") && line.trim_end().lines().count() == 1,
        "{line}"
    );
    assert!(line.contains("start the same command again"), "{line}");
    line
}

#[test]
fn a_gpu_that_fails_is_one_line_and_the_run_goes_on_from_what_it_saved() {
    if is_real() {
        return println!("skipped: a real GPU is not made to fail");
    }
    let Some(libraries) = found_in() else { return };
    let dir = tempfile::tempdir().unwrap();
    let run = |name: &str| train(dir.path(), &libraries, "cuda", name);
    run("whole").assert().success();
    // A launch fails, later and later, until there is a checkpoint before it.
    let has_saved = || dir.path().join("failed/checkpoints/step-000001/state.json").exists();
    let mut launches = 100;
    while !has_saved() {
        let line = failed(run("failed").env("EMU_LAUNCHES", launches.to_string()));
        assert!(line.contains("unspecified launch failure"), "{line}");
        launches += launches / 2;
    }
    // Then there is too little memory, from the first weights on or for the work after them.
    for bytes in ["4096", "33600000"] {
        let line = failed(run("failed").env("EMU_MEMORY", bytes));
        assert!(line.contains("its memory is used up") && line.contains("memory.recompute=blocks"), "{line}");
    }
    assert!(!dir.path().join("failed/model").exists());
    run("failed").assert().success();
    let [whole, after] = ["whole", "failed"].map(|name| left(&dir.path().join(name)));
    assert!(whole.1 == after.1, "other weights after failures");
}

#[test]
fn a_server_computes_on_the_gpu_and_ends_with_it() {
    let Some(libraries) = found_in() else { return };
    let dir = with_model();
    let serve = |device: &str, launches: &str| {
        let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin!("rlt"));
        command.current_dir(dir.path()).env("LD_LIBRARY_PATH", &libraries).env("EMU_LAUNCHES", launches);
        command.args(["serve", "--device", device, "--reload-dir"]).arg(dir.path());
        served::Served::start_by(command, &dir.path().join("model"))
    };
    let prompts = json!([[5, 6, 7, 8], [9, 10]]);
    let drawn = json!({ "prompt": prompts, "max_tokens": 12, "seed": 3, "temperature": 0.7, "return_token_ids": true });
    let scored = json!({ "prompt": prompts, "max_tokens": 0, "echo": true, "logprobs": 0 });
    let said = |server: &served::Served| {
        let choices = |asked: &Value| server.complete(asked).ok()["choices"].as_array().unwrap().clone();
        let ids = choices(&drawn).iter().map(|choice| choice["token_ids"].clone()).collect::<Vec<_>>();
        let logprobs = choices(&scored)[0]["logprobs"]["token_logprobs"].as_array().unwrap().clone();
        (ids, logprobs[3].as_f64().unwrap())
    };
    let [(ours, exact), (theirs, near)] = ["cpu", "cuda"].map(|device| {
        let server = serve(device, "-1");
        let first = said(&server);
        let model = dir.path().join("model");
        let call = json!({ "method": "reload_weights", "kwargs": { "weights_path": model }, "timeout": 60 });
        server.post("/collective_rpc", &call).ok();
        assert!(said(&server) == first, "{device}: other answers after the same weights were loaded again");
        first
    });
    assert_eq!(ours, theirs);
    assert!((exact - near).abs() < 1e-4, "{exact} {near}");
    if !is_real() {
        // So many launches that weights are there, and a request is not answered any more.
        let server = serve("cuda", "60");
        let body = json!({ "model": "policy", "prompt": [5, 6, 7], "max_tokens": 12 }).to_string();
        let head = format!(
            "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", server.port)).unwrap();
        stream.write_all(&[head, body].concat().into_bytes()).unwrap();
        assert_eq!(server.ended().code(), Some(1));
    }
}

/// Starts the command on two ranks, over TCP, on a machine of `gpus` GPUs; `of_second` is in the second's environment alone.
fn on_two_ranks(command: &Command, gpus: usize, of_second: &[(&str, &str)]) -> [Child; 2] {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    [0, 1].map(|rank| {
        let mut started = to_be_started(command);
        started.envs([("WORLD_SIZE", "2"), ("LOCAL_WORLD_SIZE", "2"), ("MASTER_ADDR", "127.0.0.1")]);
        started.env("RANK", rank.to_string()).env("MASTER_PORT", &port).env("EMU_GPUS", gpus.to_string());
        started.envs(of_second.iter().copied().filter(|_| rank == 1));
        started.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    })
}

fn ends(ranks: [Child; 2]) -> [Output; 2] {
    ranks.map(|rank| rank.wait_with_output().unwrap())
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

/// Two lanes, and weights of more than one of the blocks that ranks' shards are made of.
const IN_LANES: [&str; 3] = ["train.lanes=2", "world.hidden_size=32", "world.intermediate_size=520"];

#[test]
fn ranks_with_a_gpu_each_leave_the_files_of_one() {
    let Some(libraries) = found_in() else { return };
    let dir = tempfile::tempdir().unwrap();
    let run = |name: &str| {
        let mut command = train(dir.path(), &libraries, "cuda", name);
        command.args(IN_LANES).args(["grpo.steps=2", "checkpoint.keep=0"]).env("RLT_RANK_LOG", "log");
        command
    };
    run("one").assert().success();
    let whole = outcome(&dir.path().join("one"));
    for (rank, output) in ends(on_two_ranks(&run("two"), 2, &[])).iter().enumerate() {
        assert!(output.status.success(), "rank {rank}: {}", said(output));
    }
    assert_same(&whole, &dir.path().join("two"), "two ranks");
    let log = std::fs::read_to_string(dir.path().join("log/rank-1.log")).unwrap();
    assert!(log.contains("models are computed on GPU 1"), "{log}");
    // One of them is killed, and threads of one process go on.
    let [first, second] = on_two_ranks(&run("killed"), 2, &[]);
    kill_after_the_first_step(second, &dir.path().join("killed"));
    let first = first.wait_with_output().unwrap();
    assert!(said(&first).contains("rank 1 on ") || first.status.success(), "{}", said(&first));
    run("killed").arg("ranks=2").env("EMU_GPUS", "2").assert().success();
    assert_same(&whole, &dir.path().join("killed"), "two ranks, one of them killed");
}

#[test]
fn ranks_fine_tune_in_bf16_with_moments_in_their_hosts_memory_to_the_files_of_one() {
    let Some(libraries) = found_in() else { return };
    let dir = tempfile::tempdir().unwrap();
    let small = "world.rows=16 world.heldout_rows=2 world.n_layers=1 world.n_heads=2 sft.epochs=1 sft.batch_rows=8 eval.every=1 \
                 checkpoint.every=1 memory.offload=moments";
    let run = |name: &str| {
        let config = concat!(env!("CARGO_MANIFEST_DIR"), "/configs/tests/short-sft.toml");
        let mut command = rlt(dir.path(), &libraries);
        command.args(["sft", "-q", "--config", config, "--device", "cuda", &format!("run_dir={name}")]);
        command.args(small.split_whitespace()).args(IN_LANES).args(IN_BF16);
        command
    };
    run("one").assert().success();
    let whole = outcome(&dir.path().join("one"));
    // Both on the only GPU that there is.
    for (rank, output) in ends(on_two_ranks(&run("two"), 1, &[])).iter().enumerate() {
        assert!(output.status.success(), "rank {rank}: {}", said(output));
    }
    assert_same(&whole, &dir.path().join("two"), "two ranks");
    // What was trained writes, each rank the explanations of some of the questions.
    let question = "{\"question\":\"Tom has 9 eggs. How many?\",\"solution\":\"Tom has 9 eggs.\"}\n";
    std::fs::write(dir.path().join("questions.jsonl"), question.repeat(3)).unwrap();
    let explain = |out: &str| {
        let mut command = rlt(dir.path(), &libraries);
        command.args([
            "explain",
            "-q",
            "--model",
            "one/model",
            "--data",
            "questions.jsonl",
            "--device",
            "cuda",
        ]);
        command.args(["sampling.max_new_tokens=8", "--out", out]);
        command
    };
    explain("one.jsonl").assert().success();
    let outputs = ends(on_two_ranks(&explain("two.jsonl"), 2, &[]));
    assert!(outputs.iter().all(|output| output.status.success()), "{}", said(&outputs[0]));
    let [one, two] = ["one.jsonl", "two.jsonl"].map(|file| std::fs::read(dir.path().join(file)).unwrap());
    assert!(one == two && !one.is_empty(), "other explanations on two ranks");
}

#[test]
fn ranks_of_a_machine_take_its_gpus_by_turns_or_the_one_that_is_named() {
    if is_real() {
        return println!("skipped: a real GPU is not made to fail");
    }
    let Some(libraries) = found_in() else { return };
    let dir = tempfile::tempdir().unwrap();
    let ended = |device: &str, gpus: usize, of_second: &[(&str, &str)]| {
        let command = train(dir.path(), &libraries, device, "run");
        let outputs = ends(on_two_ranks(&command, gpus, of_second));
        assert!(outputs.iter().all(|output| output.status.code() == Some(1)));
        let lines = outputs.map(|output| said(&output)).concat();
        assert!(lines.trim_end().lines().count() == 1, "{lines}");
        lines
    };
    // The second rank's first launch fails.
    for (device, gpus, gpu) in [("cuda", 2, 1), ("cuda", 1, 0), ("cuda:0", 2, 0), ("cuda:1", 2, 1)] {
        let line = ended(device, gpus, &[("EMU_LAUNCHES", "0")]);
        let is_named = line.contains("rank 1 of 2") && line.contains(&format!("error: GPU {gpu} (emulated"));
        assert!(is_named, "{device} of {gpus}: {line}");
    }
    let line = ended("cuda:2", 2, &[]);
    assert!(line.contains("there is no GPU 2: the driver finds 2"), "{line}");
}
