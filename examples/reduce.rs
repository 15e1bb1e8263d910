//! How long ranks take to sum an array in the fixed order, and to gather it: what `MPI_Allreduce` does in an order of its own.
//!
//! ```text
//! cargo build --release --example reduce
//! mpirun -n 4 target/release/examples/reduce        # megabytes as an argument; 100 without
//! target/release/examples/reduce 100 4              # with a number of threads, ranks that are threads
//! ```
#![expect(clippy::print_stdout, reason = "it says what it measured")]

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use rlt_engine::Tensor;
use rlt_ranks::{Error, Launch, OnLoss, Ranks, on_threads};

/// Times whose median is said.
const TIMES: usize = 21;

fn main() -> Result<(), Error> {
    let mut numbers = std::env::args().skip(1).map_while(|text| text.parse().ok());
    let (megabytes, threads) = (numbers.next().unwrap_or(100), numbers.next());
    if let Some(threads) = threads {
        return on_threads(threads, |ranks| measure(&ranks, megabytes)).into_iter().collect();
    }
    let on_loss: OnLoss = Arc::new(|_| std::process::exit(1));
    let (launch, settings) = Launch::from_environment()?;
    measure(&launch.join(settings, &on_loss)?, megabytes)
}

fn measure(ranks: &Ranks, megabytes: usize) -> Result<(), Error> {
    let (n, size) = (megabytes * 250_000, ranks.size());
    let shards: Vec<Range<usize>> = (0..size).map(|rank| n * rank / size..n * (rank + 1) / size).collect();
    // In tensors, as a trainer's gradients and weights are.
    let mut numbers = Tensor::zeros(1, n);
    numbers.change_on_host(|numbers| {
        numbers
            .iter_mut()
            .enumerate()
            .for_each(|(i, number)| *number = (i % 17) as f32 + ranks.rank() as f32);
    });
    let (numbers, mut sum) = (numbers.to_host(), Tensor::zeros(1, n));
    let own = shards[ranks.rank()].clone();
    let mut seconds = [Vec::new(), Vec::new()];
    // The first time warms up.
    for time in 0..=TIMES {
        ranks.barrier()?;
        let started = Instant::now();
        sum.change_on_host(|sum| ranks.reduce_shards_into(&numbers, &shards, &mut sum[own.clone()]))?;
        let reduced = started.elapsed().as_secs_f64();
        sum.change_on_host(|sum| ranks.gather_shards(sum, &shards))?;
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
        println!("{size} ranks, {megabytes} MB: reduced to shards {reduced:.4} s, and gathered {all:.4} s");
    }
    ranks.leave();
    Ok(())
}
