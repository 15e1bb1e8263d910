"""Compares what `rlt plan` says of memory with what runs take: ``plan_peak.py RLT [NAME ..] [--work DIR] [--trace]``.

    cargo build --release
    python3 tests/parity/plan_peak.py target/release/rlt

Makes random models of 15 to 75 million parameters and rows of a world, plans each configuration below, runs it for a few
steps and prints the planned peak, the measured one (the most resident memory of the process, as wait4 has it) and planned /
measured. Exit code 1 where one lies outside 0.9 to 1.1. It takes some minutes, 1 GB of disk and up to 4 GiB of memory, and
needs Python alone.

``--large FOLDER`` measures a large model instead, with LoRA at 2,048 tokens of context, and its seconds a step. For
Qwen2.5-0.5B's shape: ``make_large.py FOLDER --shape 0.5b``, and the tokenizer's files of that model in FOLDER.
"""

import argparse
import array
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

CONFIGS = Path(__file__).parents[2] / "configs/tests"

# Width, width of the feed-forward layer, blocks, heads, heads of keys and values, vocabulary, number format of the file.
MODELS = {
    "teacher": dict(d=512, f=2048, layers=8, heads=8, kv=4, vocab=16384, dtype="F32"),
    "wide": dict(d=768, f=3072, layers=6, heads=12, kv=4, vocab=32768, dtype="F32"),
    "half": dict(d=640, f=2560, layers=8, heads=10, kv=2, vocab=24576, dtype="BF16"),
    "student": dict(d=512, f=2048, layers=8, heads=8, kv=4, vocab=16384, dtype="BF16"),
    "half-student": dict(d=640, f=2560, layers=8, heads=10, kv=2, vocab=24576, dtype="BF16"),
}

# Name: the command and its settings; MODEL:, ROWS: and so on are paths of what is made.
SFT = ["data.path=ROWS:texts.jsonl", "sft.format=text", "sft.epochs=0.14"]
TRAIN = ["data.path=ROWS:questions_train.jsonl", "grpo.steps=2", "grpo.samples_logged=1"]
RUNS = {
    "sft, all weights": ["sft", "model.path=MODEL:teacher", *SFT, "sft.batch_rows=16", "sft.tokens_per_microbatch=4096"],
    "sft, recompute, evaluation": [
        "sft", "model.path=MODEL:wide", *SFT, "sft.batch_rows=16", "sft.tokens_per_microbatch=4096",
        "memory.recompute=blocks", "eval.every=2", "eval.data=ROWS:texts.jsonl", "eval.max_rows=10",
    ],
    "sft, bf16 moments": [
        "sft", "model.path=MODEL:half", *SFT, "sft.batch_rows=8", "sft.tokens_per_microbatch=2048",
        "optimizer.moments=bf16",
    ],
    "grpo, moving reference": [
        "train", "model.path=MODEL:teacher", "model.student=MODEL:student", *TRAIN, "grpo.questions_per_step=4",
        "grpo.group_size=8", "sampling.max_new_tokens=128", "sampling.max_running=32", "grpo.tokens_per_microbatch=4096",
    ],
    "grpo, release, recompute": [
        "train", "model.path=MODEL:wide", "reward.kind=correctness", *TRAIN, "grpo.questions_per_step=4",
        "grpo.group_size=16", "sampling.max_new_tokens=128", "sampling.max_running=64", "memory.idle=release",
        "memory.recompute=blocks", "grpo.tokens_per_microbatch=8192", "grpo.beta=0",
    ],
    "grpo, LoRA": [
        "train", "model.path=MODEL:half", "model.student=MODEL:half-student", *TRAIN, "lora.rank=16",
        "grpo.questions_per_step=4", "grpo.group_size=8", "sampling.max_new_tokens=160",
        "sampling.max_running=32", "grpo.tokens_per_microbatch=4096",
    ],
    "grpo, bf16 moments, fixed reference": [
        "train", "model.path=MODEL:half", "model.student=MODEL:half-student", *TRAIN, "optimizer.moments=bf16",
        "grpo.reference_sync_every=0", "grpo.questions_per_step=2", "grpo.group_size=8", "sampling.max_new_tokens=64",
        "sampling.max_running=16", "grpo.tokens_per_microbatch=2048",
    ],
    "dapo, minibatches, evaluation": [
        "train", "model.path=MODEL:teacher", "reward.kind=correctness", *TRAIN, "grpo.objective=dapo",
        "grpo.mask_truncated=false", "grpo.questions_per_step=4", "grpo.group_size=4", "grpo.minibatches=4",
        "grpo.beta=0", "sampling.max_new_tokens=48", "sampling.max_running=96", "grpo.tokens_per_microbatch=8192",
        "eval.every=2", "eval.data=ROWS:questions_heldout.jsonl", "eval.max_rows=48", "eval.samples=2",
    ],
    "gspo, k1, full divergence": [
        "train", "model.path=MODEL:teacher", "model.student=MODEL:student", *TRAIN, "grpo.objective=gspo", "grpo.kl=k1",
        "reward.kl=full", "grpo.questions_per_step=4", "grpo.group_size=4", "sampling.max_new_tokens=160",
        "sampling.max_running=16", "grpo.tokens_per_microbatch=3072", "memory.idle=release",
    ],
}
# Some of them again, their products in bf16, which lays factors out in memory of their own.
for name in "sft, all weights", "grpo, moving reference", "grpo, LoRA", "gspo, k1, full divergence":
    RUNS[f"{name}; bf16"] = [*RUNS[name], "model.arithmetic=bf16"]
# The same for a large model; both models are bf16 and frozen, and every sequence fills 2,048 tokens.
LARGE = {
    "sft": [
        "sft", "model.path=MODEL:large", "data.path=ROWS:long.jsonl", "sft.format=text", "sft.epochs=1",
        "sft.batch_rows=2", "sft.tokens_per_microbatch=2048", "lora.rank=16", "memory.recompute=blocks",
        "model.save_dtype=bf16",
    ],
    "grpo": [
        "train", "model.path=MODEL:large", "model.student=MODEL:large-student", "data.path=ROWS:questions.jsonl",
        "grpo.steps=1", "grpo.questions_per_step=1", "grpo.group_size=2", "sampling.max_new_tokens=2048",
        "sampling.max_running=2", "grpo.tokens_per_microbatch=4096", "grpo.samples_logged=1", "lora.rank=16",
        "memory.recompute=blocks", "memory.idle=release", "model.save_dtype=bf16",
    ],
}
COMMON = ["prompts.teacher_system=", "prompts.student_system=", "optimizer.learning_rate=1e-6", "checkpoint.every=2"]


def make_model(folder, tokenizer, d, f, layers, heads, kv, vocab, dtype):
    """A Qwen2 of normal weights (one tile of them again and again: memory does not care)."""
    folder.mkdir(parents=True)
    config = {
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "vocab_size": vocab, "hidden_size": d,
        "intermediate_size": f, "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv,
        "max_position_embeddings": 2048, "rope_theta": 1e4, "rms_norm_eps": 1e-6, "hidden_act": "silu",
        "tie_word_embeddings": True, "eos_token_id": 0,
    }
    (folder / "config.json").write_text(json.dumps(config))
    for file in tokenizer.iterdir():
        if "token" in file.name or file.suffix == ".jinja":
            shutil.copy(file, folder)
    k = d // heads * kv
    shapes = {"model.embed_tokens.weight": [vocab, d], "model.norm.weight": [d]}
    for layer in range(layers):
        at = f"model.layers.{layer}"
        shapes |= {f"{at}.{norm}layernorm.weight": [d] for norm in ("input_", "post_attention_")}
        for name, rows in (("q", d), ("k", k), ("v", k)):
            shapes |= {f"{at}.self_attn.{name}_proj.weight": [rows, d], f"{at}.self_attn.{name}_proj.bias": [rows]}
        shapes |= {f"{at}.self_attn.o_proj.weight": [d, d], f"{at}.mlp.down_proj.weight": [d, f]}
        shapes |= {f"{at}.mlp.{name}_proj.weight": [f, d] for name in ("gate", "up")}
    dice, size = random.Random(str(folder)), 4 if dtype == "F32" else 2

    def numbers(values):
        packed = array.array("f", values).tobytes()
        return packed if size == 4 else b"".join(packed[i + 2 : i + 4] for i in range(0, len(packed), 4))

    tile, one = numbers([dice.gauss(0, 0.02) for _ in range(1 << 16)]), numbers([1.0])
    header, at = {}, 0
    for name, shape in shapes.items():
        end = at + size * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    with open(folder / "model.safetensors", "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for name, entry in header.items():
            n = entry["data_offsets"][1] - entry["data_offsets"][0]
            if "norm" in name:
                out.write(one * (n // size))
            else:
                out.write((tile * (n // len(tile) + 1))[:n])


def make_all(rlt, work):
    """Models, and rows: those of a world, and texts of about 256 tokens that are some of its texts together."""
    world = work / "world-run"
    if not (world / "world").exists():
        settings = ["world.rows=512", "world.heldout_rows=96", "sft.epochs=0.01", "eval.every=0", f"run_dir={world}"]
        subprocess.run([rlt, "-q", "sft", "--config", CONFIGS / "short-sft.toml", *settings], check=True, stdout=sys.stderr)
    rows = world / "world"
    texts = [json.loads(line)["text"] for line in open(rows / "textbook.jsonl")]
    with open(rows / "texts.jsonl", "w") as out:
        for first in range(0, len(texts) - 4, 2):
            out.write(json.dumps({"text": " ".join(texts[first : first + 3])}) + "\n")
    for name, shape in MODELS.items():
        if not (work / name).exists():
            make_model(work / name, rows / "model", **shape)
    return {"ROWS:": f"{rows}/", "MODEL:": f"{work}/"}


def make_large(folder, work):
    """The model with a context of 2,048 tokens (its student's, which sees more than the thought, is as it was), and rows."""
    for name in ("large", "large-student"):
        shutil.rmtree(work / name, ignore_errors=True)
        (work / name).mkdir()
        for file in folder.resolve().iterdir():
            (work / name / file.name).symlink_to(file)
    config = json.loads((folder / "config.json").read_text()) | {"max_position_embeddings": 2048}
    (work / "large/config.json").unlink()
    (work / "large/config.json").write_text(json.dumps(config))
    # A token a word in any vocabulary of English.
    (work / "long.jsonl").write_text(2 * 2 * (json.dumps({"text": " the" * 2046}) + "\n"))
    row = {"question": "What is 17 + 25?", "solution": "17 + 25 = 42, so the answer is 42."}
    (work / "questions.jsonl").write_text(json.dumps(row) + "\n")
    return {"ROWS:": f"{work}/", "MODEL:": f"{work}/"}


def resident(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return next((int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmRSS")), 0)


def measured(arguments, trace):
    """Peak of a run, bytes, and its seconds; with a trace also its resident memory every 20 ms."""
    started, samples = time.time(), []
    child = subprocess.Popen(arguments, stdout=subprocess.DEVNULL)

    def watch():
        try:
            while True:
                samples.append((time.time() - started, resident(child.pid)))
                time.sleep(0.02)
        except (OSError, StopIteration):
            pass

    if trace:
        threading.Thread(target=watch, daemon=True).start()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"exit code {child.returncode}: {' '.join(map(str, arguments))}")
    if trace:
        with open(trace, "w") as out:
            out.writelines(f"{at:.2f}\t{rss / 2**20:.0f}\n" for at, rss in samples)
    return usage.ru_maxrss << 10, time.time() - started


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rlt", type=Path)
    parser.add_argument("names", nargs="*", help="configurations whose names hold one of these; all without any")
    parser.add_argument("--work", type=Path, default=Path("target/plan-peak"))
    parser.add_argument("--large", type=Path, metavar="FOLDER", help="measure this model instead")
    parser.add_argument("--trace", action="store_true", help="write resident memory over time to WORK/trace-NAME.tsv")
    options = parser.parse_args()
    rlt, work = options.rlt.resolve(), options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    if options.large:
        places, runs = make_large(options.large, work), LARGE
    else:
        places, runs = make_all(rlt, work), RUNS
    outside = []
    print(f"{'configuration':<38}{'planned':>9}{'measured':>9}{'ratio':>7}  largest stage   MiB; planned / measured")
    for name, (command, *settings) in runs.items():
        if options.names and not any(part in name for part in options.names):
            continue
        for key, place in places.items():
            settings = [setting.replace(key, place) for setting in settings]
        run_dir = work / "run"
        shutil.rmtree(run_dir, ignore_errors=True)
        settings += COMMON + [f"run_dir={run_dir}"]
        planned = subprocess.run([rlt, "-q", "--json", "plan", "--for", command, *settings], check=True, capture_output=True)
        plan = json.loads(planned.stdout)
        trace = work / f"trace-{name.replace(' ', '-').replace(',', '')}.tsv" if options.trace else None
        peak, seconds = measured([rlt, "-q", command, *settings], trace)
        ratio = plan["peak_bytes"] / peak
        stage = max(plan["stage_peak_bytes"], key=plan["stage_peak_bytes"].get)
        print(f"{name:<38}{plan['peak_bytes'] / 2**20:>9.0f}{peak / 2**20:>9.0f}{ratio:>7.3f}  {stage}, {seconds:.0f} s", flush=True)
        if options.large:
            rows = [json.loads(line) for line in open(run_dir / "metrics.jsonl")]
            walls = [0.0] + [row["wall_s"] for row in rows]
            steps = [after - before for before, after in zip(walls, walls[1:])]
            shown = ("generate_s", "score_s", "update_s", "completion_tokens_mean")
            parts = [f"{k} {v:.0f}" for k, v in rows[-1].items() if k in shown]
            said = ", ".join(f"{k} {v:.0f} s" for k, v in plan["step_s"].items())
            print(f"    {steps[-1]:.0f} s for the last step ({', '.join(parts)}); planned {said}")
        if options.trace:
            stages = {stage: round(size / 2**20) for stage, size in plan["stage_peak_bytes"].items()}
            print(f"    {stages} {({k: round(v / 2**20) for k, v in plan['stays_bytes'].items()})}")
        if not 0.9 <= ratio <= 1.1:
            outside.append(name)
    shutil.rmtree(work / "run", ignore_errors=True)
    sys.exit(f"outside 0.9 to 1.1: {', '.join(outside)}" if outside else 0)


if __name__ == "__main__":
    main()
