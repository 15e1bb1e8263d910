//! How long ranks take to sum an array in the fixed order, and to gather it: what `MPI_Allreduce` does in an order of its own.
//!
//! ```text
//! cargo build --release -p rlt-ranks --example reduce
//! mpirun -n 4 target/release/examples/reduce        # megabytes as an argument; 100 without
//! ```
#![expect(clippy::print_stdout, reason = "it says what it measured")]

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use rlt_ranks::{Error, Launch, OnLoss};

/// Times whose median is said.
const TIMES: usize = 5;

fn main() -> Result<(), Error> {
    let megabytes: usize = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(100);
    let on_loss: OnLoss = Arc::new(|_| std::process::exit(1));
    let (launch, settings) = Launch::from_environment()?;
    let ranks = launch.join(settings, &on_loss)?;
    let (n, size) = (megabytes * 250_000, ranks.size());
    let shards: Vec<Range<usize>> = (0..size).map(|rank| n * rank / size..n * (rank + 1) / size).collect();
    let mut numbers: Vec<f32> = (0..n).map(|i| (i % 17) as f32 + ranks.rank() as f32).collect();
    let mut seconds = [Vec::new(), Vec::new()];
    // The first time warms up.
    for time in 0..=TIMES {
        ranks.barrier()?;
        let started = Instant::now();
        let mine = ranks.reduce_shards(&numbers, &shards)?;
        let reduced = started.elapsed().as_secs_f64();
        ranks.gather_shards(&mine, &shards, &mut numbers)?;
        ranks.barrier()?;
        if time > 0 {
            seconds[0].push(reduced);
            seconds[1].push(started.elapsed().as_secs_f64());
        }
    }
    if ranks.is_first() {
        let median = |seconds: &mut Vec<f64>| {
            seconds.sort_by(f64::total_cmp);
            seconds[TIMES / 2]
        };
        let [reduced, all] = seconds.each_mut().map(median);
        println!("{size} ranks, {megabytes} MB: reduced to shards {reduced:.3} s, and gathered {all:.3} s");
    }
    ranks.leave();
    Ok(())
}
