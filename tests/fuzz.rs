//! Files from strangers, made up by the hundred thousand: whatever they hold ends in an answer or an error, never in a
//! panic, in more than 1 GiB or in more than 10 seconds of the processor.
//!
//! Inputs are good examples, changed: bytes, words of the format, values of JSON. All draws follow a seed, which is
//! printed. `RLT_FUZZ_SECONDS` is how long each target is tried (1 by default), `RLT_FUZZ_SEED` another seed,
//! `RLT_FUZZ_TARGET` one target alone. An input that fails is kept in `target/fuzz/TARGET.PID-..`; to try it again:
//! `RLT_FUZZ_INPUT=target/fuzz/TARGET.PID-.. cargo test --test fuzz`. What ends the whole process (a stack that overflows)
//! leaves its input as `target/fuzz/TARGET.PID.current`, which is replayed likewise.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it says what was tried, and with which seed")]

#[path = "fuzz/guard.rs"]
mod guard;
#[path = "fuzz/mutation.rs"]
mod mutation;
mod scripted;
#[path = "fuzz/targets.rs"]
mod targets;

use std::path::Path;
use std::time::{Duration, Instant};

use guard::Guard;
use mutation::{Draws, mutated};
use targets::{Target, targets};

#[global_allocator]
static MEMORY: guard::Counting = guard::Counting;

fn number(name: &str, otherwise: f64) -> f64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

/// Tries one target for its time; returns how many inputs that were.
fn fuzz(guard: &Guard, target: &Target, seed: u64, time: Duration) -> u64 {
    let started = Instant::now();
    let mut n = 0;
    // Every example as it is, first; then changed.
    for example in &target.examples {
        guard.attempt(target.name, example, || (target.attempt)(example));
    }
    while started.elapsed() < time {
        let mut draws = Draws::new(seed, target.name, n);
        let input = mutated(&mut draws, &target.examples, target.words);
        guard.attempt(target.name, &input, || (target.attempt)(&input));
        n += 1;
    }
    n
}

#[test]
fn strangers_files_end_in_an_answer_or_an_error() {
    let guard = Guard::start(Path::new(env!("CARGO_MANIFEST_DIR")).join("target/fuzz"));
    let folder = tempfile::tempdir().unwrap();
    let targets = targets(folder.path());
    if let Some(path) = std::env::var_os("RLT_FUZZ_INPUT") {
        let name = Path::new(&path).file_name().unwrap().to_string_lossy().into_owned();
        let target =
            targets.iter().find(|target| name.split('.').next() == Some(target.name)).expect("TARGET.PID..");
        let input = std::fs::read(&path).unwrap();
        guard.attempt(target.name, &input, || (target.attempt)(&input));
        println!("{name}: holds now");
        return;
    }
    let seed = number("RLT_FUZZ_SEED", 1.0) as u64;
    let time = Duration::from_secs_f64(number("RLT_FUZZ_SECONDS", 1.0));
    let only = std::env::var("RLT_FUZZ_TARGET").ok();
    let mut n_tried = 0;
    for target in targets.iter().filter(|target| only.as_deref().is_none_or(|only| only == target.name)) {
        let n = fuzz(&guard, target, seed, time);
        println!("{}: {n} inputs in {time:?}, seed {seed}", target.name);
        assert!(n > 10, "{}: too slow to be of use", target.name);
        n_tried += 1;
    }
    assert!(n_tried > 0, "no target is called {only:?}");
    let failures = guard.failures();
    assert!(failures.is_empty(), "{} inputs fail:\n{}", failures.len(), failures.join("\n"));
}
