#!/usr/bin/env python3
"""What more threads gain: benches/threads.py MODEL_DIR [--items NAME:SHAPE ..] [--rounds N] [--runs R]

Runs the example `peer_bench` (RLT_BENCH names another command) on this machine's cores with one thread, with one a core, and with
eight a core, by turns, and prints a table. Leave the machine alone meanwhile.

Threads that have nothing to do sleep, so processor time is work, and wall time is
    work * (alone + (1 - alone) / threads)
where `alone` is the share of the work that one thread does while the others wait: serial code, and the last task of each
operation. From it follows what so many cores would gain at most (Amdahl's law). Tasks are cut by the number of threads: what
that costs shows where eight threads a core do the same work on the same cores.
"""
import argparse
import json
import os
import shlex
import statistics
import subprocess

ITEMS = ["train_step:16x256", "train_step:4x1024", "logprobs:64x512", "score:16x512", "generate:64"]
MORE_CORES = [4, 8, 16, 32, 64]


def measure(model, item, threads, runs):
    """(seconds of a run, processor seconds of a run)."""
    bench = shlex.split(os.environ.get("RLT_BENCH", "target/release/examples/peer_bench"))
    command = [*bench, model, item, "--threads", str(threads), "--runs", str(runs)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{shlex.join(command)}: exit status {done.returncode}")
    line = json.loads(done.stdout)
    if line.get("processor_s") is None:
        raise SystemExit(f"{item}: the command gives no processor time (on Linux, all works but gemm have one)")
    # The system counts it in hundredths of a second.
    if line["processor_s"] < 1.0:
        raise SystemExit(f"{item}: {runs} runs are {line['processor_s']:.2f} s of processor time; ask for more by --runs")
    return statistics.fmean(line["all_s"]), line["processor_s"] / len(line["all_s"])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--items", nargs="+", default=ITEMS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    if cores < 2:
        parser.error("one core shows nothing")

    print(f"| work | 1 thread, s | {cores} threads, s | faster | alone |", end="")
    print("".join(f" {n} cores |" for n in MORE_CORES), f"work, {8 * cores} threads / 1 |")
    print("| --- |" + " ---: |" * (5 + len(MORE_CORES)))
    for item in options.items:
        measured = {1: [], cores: [], 8 * cores: []}
        for _ in range(options.rounds):
            for threads, results in measured.items():
                results.append(measure(options.model, item, threads, options.runs))
        seconds, work = (
            {threads: statistics.median(r[i] for r in results) for threads, results in measured.items()}
            for i in (0, 1)
        )
        # Wall time and work of one and the same run: other tenants slow both.
        of_runs = [(cores * wall / work - 1) / (cores - 1) for wall, work in measured[cores]]
        alone = max(0.0, statistics.median(of_runs))
        print(f"| {item} | {seconds[1]:.2f} | {seconds[cores]:.2f} | {seconds[1] / seconds[cores]:.2f} |", end="")
        print(f" {100 * alone:.1f} % |", end="")
        print("".join(f" {1 / (alone + (1 - alone) / n):.1f} |" for n in MORE_CORES), end="")
        print(f" {work[8 * cores] / work[1]:.2f} |", flush=True)


if __name__ == "__main__":
    main()
