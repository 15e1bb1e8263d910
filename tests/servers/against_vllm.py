"""Compares what rlt does with a served model and without; run.sh starts the server and calls this.

Prints one line a comparison and ends with 1 where one of them fails.
"""

import argparse
import json
import os
import random
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

# Scores of given tokens agree to this, nats, in f32.
SCORES = 2e-5

parser = argparse.ArgumentParser()
parser.add_argument("--rlt", required=True)
parser.add_argument("--work", type=Path, required=True)
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--server-pid", type=int, required=True)
parser.add_argument("--turns", type=int, default=3)
parser.add_argument("--only", nargs="*", help="these works alone")
args = parser.parse_args()

url = f"http://127.0.0.1:{args.port}"
served = f"server.url={url}"
failed = []


def check(name: str, holds: bool, figures: str) -> None:
    print(f"{'ok  ' if holds else 'FAIL'} {name}: {figures}", flush=True)
    if not holds:
        failed.append(name)


def wait_for_server() -> None:
    until = time.monotonic() + 900
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
                if answer.status == 200:
                    return
        except OSError:
            pass
        try:
            os.kill(args.server_pid, 0)
        except ProcessLookupError:
            sys.exit(f"vLLM ended; see {args.work}/vllm.log")
        time.sleep(1)
    sys.exit(f"vLLM does not start; see {args.work}/vllm.log")


def rlt(*words: str) -> dict:
    """Runs rlt in the work folder and gives its answer."""
    begin = time.monotonic()
    done = subprocess.run(
        [args.rlt, *words, "--quiet", "--json"], cwd=args.work, capture_output=True, text=True, timeout=900
    )
    if done.returncode != 0:
        print(f"FAIL rlt {' '.join(words)}: {done.returncode}: {done.stderr.strip()}", flush=True)
        failed.append(words[0])
        return {}
    answer = json.loads(done.stdout.splitlines()[-1])
    answer["seconds"] = time.monotonic() - begin
    return answer


def rows(name: str) -> list[dict]:
    path = args.work / name
    # Not splitlines: what a model writes may hold line separators that are no ends of a row.
    return [json.loads(line) for line in path.read_text().split("\n") if line] if path.exists() else []


def write_rows(name: str, content: list[dict]) -> None:
    (args.work / name).write_text("".join(json.dumps(row) + "\n" for row in content))


dice = random.Random(1)
vocabulary = json.loads((args.work / "model" / "config.json").read_text())["vocab_size"]
PEOPLE = ["Tom", "Mira", "Ana", "Leo"]


def questions(n: int) -> list[dict]:
    made = []
    for i in range(n):
        a, b = dice.randint(1, 60), dice.randint(1, 39)
        question = f"{PEOPLE[i % 4]} has {a} eggs and buys {b} eggs. How many eggs?"
        made.append({"id": i, "question": question, "solution": str(a + b)})
    return made


def logprobs() -> None:
    lengths = [2, 3, 7, 64, 200, 513, 1000] + [dice.randint(2, 120) for _ in range(20)]
    write_rows("ids.jsonl", [{"ids": [dice.randrange(vocabulary) for _ in range(n)]} for n in lengths])
    call = ["logprobs", "--model", "model", "--data", "ids.jsonl", "--out"]
    rlt(*call, "here.jsonl")
    rlt(*call, "there.jsonl", served)
    here, there = rows("here.jsonl"), rows("there.jsonl")
    same = [row["ids"] for row in here] == [row["ids"] for row in there] and len(here) == len(lengths)
    apart = [
        abs(a - b)
        for ours, theirs in zip(here, there)
        for a, b in zip(ours["logprobs"], theirs["logprobs"])
        if a is not None
    ]
    check("logprobs", same and max(apart) <= SCORES, f"{len(apart)} tokens, at most {max(apart, default=0):.1e} apart")


def explain() -> None:
    write_rows("questions.jsonl", questions(100))
    call = ["explain", "--model", "model", "--data", "questions.jsonl", "-n", "2", "sampling.max_new_tokens=32", "--out"]
    rlt(*call, "traces-here.jsonl")
    rlt(*call, "traces.jsonl", served)
    here, there = rows("traces-here.jsonl"), rows("traces.jsonl")
    key = [(row["id"], row["sample"]) for row in here]
    same = key == [(row["id"], row["sample"]) for row in there] and len(here) == 200
    if not same:
        check("explain", False, f"{len(there)} rows there, {len(here)} here")
        return
    length = [sum(len(row["completion_ids"]) for row in of) / len(of) for of in (here, there)]
    check("explain", same, f"{len(there)} rows in the same order; mean tokens {length[0]:.1f} here, {length[1]:.1f} there")
    rlt(*call, "traces-again.jsonl", served)
    again = rows("traces-again.jsonl")
    equal = sum(a["completion_ids"] == b["completion_ids"] for a, b in zip(there, again))
    check("explain again", equal >= 0.95 * len(there), f"{equal} of {len(there)} completions repeat by their seeds")


def score() -> None:
    call = ["score", "--teacher", "model", "--student", "student", "--data", "traces.jsonl",
            "reward.teacher_temperature=1", "reward.student_temperature=1", "--out"]
    rlt(*call, "scores-here.jsonl")
    rlt(*call, "scores.jsonl", f"teacher_server.url={url}")
    here, there = rows("scores-here.jsonl"), rows("scores.jsonl")
    pairs = [(a.get("reward"), b.get("reward")) for a, b in zip(here, there)]
    same = len(here) == len(there) > 0 and all((a is None) == (b is None) for a, b in pairs)
    apart = max((abs(a - b) for a, b in pairs if a is not None and b is not None), default=0.0)
    check("score", same and apart <= 1e-3, f"{len(there)} rewards, at most {apart:.1e} apart")


def evaluate() -> None:
    write_rows("benchmark.jsonl", questions(40))
    call = ["eval", "--model", "model", "--task", "benchmark.jsonl", "-n", "2", "sampling.max_new_tokens=32", "--out"]
    here, there = rlt(*call, "eval-here.json"), rlt(*call, "eval.json", served)
    figures = f"{json.dumps(there)[:200]}" if there else "no answer"
    check("eval", bool(there) and here.keys() == there.keys(), figures)


# Log-probabilities that vLLM gives with a completion and those that the trainer computes of it agree to this, nats.
MISMATCH = 1e-4

# Standard errors that mean rewards of two random streams may be apart.
ERRORS = 4


def train() -> None:
    """Three steps by a served policy beside three that are drawn here.

    vLLM has another random stream, so the two see other completions of the same questions. What can be shown: the log-probabilities of
    what was drawn are those that the trainer computes, also after every update (the weights have arrived); the mean rewards
    differ by no more than chance; and the same command again, with the same seeds, has the same rewards.
    """
    write_rows("train.jsonl", questions(32))
    n = 64
    call = [
        "train", "data.path=train.jsonl", "model.path=model", "model.student=student", "grpo.steps=3",
        "grpo.questions_per_step=8", f"grpo.group_size={n // 8}", "sampling.max_new_tokens=24", "sampling.temperature=0.7",
        "optimizer.learning_rate=1e-3", "seed=3",
    ]
    runs = {}
    for name, more in (("here", []), ("there", [served]), ("again", [served])):
        rlt(*call, *more, f"run_dir=run-{name}")
        runs[name] = rows(f"run-{name}/metrics.jsonl")
        for row in runs[name]:
            pattern = "reward_mean|reward_std|mismatch|server|sync"
            shown = {key: value for key, value in row.items() if re.search(pattern, key)}
            print(f"     run-{name}: {json.dumps(shown)}", flush=True)
    here, there, again = runs["here"], runs["there"], runs["again"]
    if not len(here) == len(there) == len(again) == 3:
        check("train", False, f"{len(here)}, {len(there)} and {len(again)} steps of 3")
        return
    mismatch = max(row["mismatch_max"] for row in there + again)
    check("train", mismatch <= MISMATCH, f"3 steps; log-probabilities at most {mismatch:.1e} apart, also after updates")
    errors = [
        abs(a["reward_mean"] - b["reward_mean"]) / ((a["reward_std"] ** 2 + b["reward_std"] ** 2) / n) ** 0.5
        for a, b in zip(here, there)
    ]
    figures = ", ".join(f"{error:.1f}" for error in errors)
    check("train beside here", max(errors) <= ERRORS, f"mean rewards are {figures} standard errors apart")
    apart = max(abs(a["reward_mean"] - b["reward_mean"]) for a, b in zip(there, again))
    check("train again", apart <= 0.05, f"rewards at most {apart:.1e} nats apart")


# Tokens of the prompts, about.
PROMPT = 60

# `vllm bench serve`, which the wheel for processors cannot start by that name.
BENCH = """
from vllm.benchmarks.serve import add_cli_args, main
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = FlexibleArgumentParser()
add_cli_args(parser)
main(parser.parse_args())
"""


# What rlt asks for beside the text. vLLM's client does not by itself.
FIELDS = {"return_token_ids": True, "return_tokens_as_token_ids": True, "top_p": 1.0, "seed": 1}


def their_client(turn: int, tokens: int, *more: str) -> tuple[float, int]:
    """Seconds of 200 prompts by vLLM's own client, and the tokens that came."""
    done = subprocess.run(
        [sys.executable, "-c", BENCH, "--backend", "openai", "--base-url", url, "--endpoint", "/v1/completions",
         "--model", "policy", "--tokenizer", str(args.work / "model"), "--dataset-name", "random",
         "--random-input-len", str(PROMPT), "--random-output-len", str(tokens), "--ignore-eos", "--num-prompts", "200",
         "--max-concurrency", "64", "--temperature", "0.7", "--seed", str(turn), "--save-result", "--result-dir",
         str(args.work), "--result-filename", "bench.json", "--disable-tqdm", *more],
        capture_output=True, text=True, timeout=600,
    )
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip()[-400:])
    result = json.loads((args.work / "bench.json").read_text())
    return result["duration"], result["total_output_tokens"]


def bench() -> None:
    """200 prompts, by turns: rlt, and vLLM's own client with as many tokens in and out.

    That client measures neither its start nor its first request; of rlt, the time of a call with 4 prompts is taken off one
    with 204. It asks once as it does by itself, for text alone, and once for what rlt asks for, ids and log-probabilities;
    both times it takes its answers token by token. The first turn warms the server up and does not count.
    """
    names = ("text", "ids and log-probabilities")
    ratios = {name: [] for name in names}
    for turn in range(args.turns + 1 if args.turns else 0):
        seconds, tokens = [], []
        for n in (4, 204):
            write_rows("many.jsonl", questions(n))
            out = f"many-{turn}-{n}.jsonl"
            answer = rlt("explain", "--model", "model", "--data", "many.jsonl", "--out", out,
                         "sampling.max_new_tokens=128", f"seed={turn}", served, "server.in_flight=64")
            seconds.append(answer.get("seconds", 0.0))
            tokens.append(sum(len(row["completion_ids"]) for row in rows(out)))
        a, m = seconds[1] - seconds[0], tokens[1] - tokens[0]
        shown = []
        for name, more in zip(names, ([], ["--logprobs", "0", "--extra-body", json.dumps(FIELDS)])):
            try:
                b, n = their_client(turn, max(1, round(m / 200)), *more)
            except RuntimeError as error:
                check("bench", False, f"vLLM's client: {error}")
                return
            shown.append(f"{b:.2f} s for {n} ({name})")
            if turn > 0:
                ratios[name].append((a / m) / (b / n))
        print(f"     200 prompts: rlt {a:.2f} s for {m} tokens, vLLM's client {' and '.join(shown)}", flush=True)
    for name, of in ratios.items():
        if of:
            of.sort()
            figures = ", ".join(f"{ratio:.2f}" for ratio in of)
            print(f"     {name}: {of[len(of) // 2]:.2f} x of what vLLM's client takes ({figures})", flush=True)


wait_for_server()
for work in (logprobs, explain, score, evaluate, train, bench):
    if not args.only or work.__name__ in args.only:
        work()
sys.exit(1 if failed else 0)
