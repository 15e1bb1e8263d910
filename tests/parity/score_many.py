"""Whether `rlt score` takes many rows in flat memory, and goes on after `kill -9` to the same bytes.

    cargo build --release
    python tests/parity/score_many.py target/release/rlt target/score_many            (100,000 rows, a few minutes)

Makes a tiny model of random weights and rows of every kind (text of 5 to 60 words, unicode, no end tag, empty
thoughts, lists of completions), scores them once undisturbed, noting resident memory every tenth of the rows, and
once killed at random moments and called again until it is done. Needs numpy and safetensors. `--stage` does one
part alone: make, whole, killed. Exit code 1 when the bytes differ or memory grows by 5 % or more after the first
tenth.
"""

import argparse
import filecmp
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy
from safetensors.numpy import save_file

WORDS = "add and carry the one two three four numbers then so we have find sum left right next step check again".split()
TAGS = [f"<|{edge}_of_{what}|>" for what in ("thought", "solution", "explanation") for edge in ("begin", "end")]
TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def glyphs():
    """GPT-2's letter for every byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(b) if b in plain else chr(next(others)) for b in range(256)]


def make_model(folder, seed):
    folder.mkdir(parents=True, exist_ok=True)
    pieces = glyphs() + ["Ġ" + word for word in WORDS]
    added = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *TAGS]
    flags = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None, "post_processor": None,
        "added_tokens": [{"id": len(pieces) + i, "content": token, **flags} for i, token in enumerate(added)],
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": r" ?[a-z]+|[^a-z]"}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}]},
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": True,
                  "vocab": {piece: i for i, piece in enumerate(pieces)}, "merges": []},
    }
    vocab, hidden, heads, inner = len(pieces) + len(added), 32, 2, 48
    config = dict(
        model_type="qwen2", architectures=["Qwen2ForCausalLM"], vocab_size=vocab, hidden_size=hidden,
        intermediate_size=inner, num_hidden_layers=1, num_attention_heads=heads, num_key_value_heads=1,
        max_position_embeddings=1024, rms_norm_eps=1e-6, rope_theta=10000.0, hidden_act="silu",
        tie_word_embeddings=True, eos_token_id=len(pieces) + 2)
    numbers = numpy.random.default_rng(seed)
    random_of = lambda *shape: (0.3 * numbers.standard_normal(shape)).astype("float32")
    layer, head = "model.layers.0", hidden // heads
    weights = {"model.embed_tokens.weight": random_of(vocab, hidden), "model.norm.weight": 1 + random_of(hidden),
               f"{layer}.input_layernorm.weight": 1 + random_of(hidden),
               f"{layer}.post_attention_layernorm.weight": 1 + random_of(hidden),
               f"{layer}.self_attn.o_proj.weight": random_of(hidden, hidden),
               f"{layer}.mlp.gate_proj.weight": random_of(inner, hidden),
               f"{layer}.mlp.up_proj.weight": random_of(inner, hidden),
               f"{layer}.mlp.down_proj.weight": random_of(hidden, inner)}
    for name, rows in (("q", hidden), ("k", head), ("v", head)):
        weights[f"{layer}.self_attn.{name}_proj.weight"] = random_of(rows, hidden)
        weights[f"{layer}.self_attn.{name}_proj.bias"] = random_of(rows)
    save_file(weights, folder / "model.safetensors")
    for name, content in (("tokenizer.json", tokenizer), ("config.json", config),
                          ("tokenizer_config.json", {"chat_template": TEMPLATE})):
        (folder / name).write_text(json.dumps(content, ensure_ascii=False))


def make_rows(path, n_rows):
    dice = random.Random(1)
    thought = lambda: " ".join(dice.choices(WORDS, k=dice.randint(5, 60)))
    with path.open("w") as f:
        for i in range(n_rows):
            a, b = dice.randint(1, 999), dice.randint(1, 999)
            row = {"id": i, "question": f"add {a} and {b}", "solution": str(a + b)}
            close = TAGS[-1] if dice.random() < 0.95 else ""
            kind = dice.random()
            if kind < 0.01:
                row["completion"] = close
            elif kind < 0.05:
                row["completion"] = f"{thought()} 你好 é 👍🏽.{close}"
            elif kind < 0.1:
                row["completions"] = [f"{thought()}\n\n{close}" for _ in range(dice.randint(1, 3))]
            else:
                row["completion"] = f"{thought()}\n\n{close}"
            f.write(json.dumps(row, ensure_ascii=False) + "\n")


def command(arguments, out):
    folder = arguments.folder
    return [str(arguments.rlt.resolve()), "score", "-q", "--teacher", str(folder / "teacher"),
            "--student", str(folder / "student"), "--data", str(folder / "rows.jsonl"), "--out", str(out),
            "prompts.teacher_system=explain", "prompts.student_system=think"]


def rows_done(out):
    """What the unfinished work says of itself: rows that are safe on disk."""
    try:
        return json.loads((out.parent / f".{out.name}.rlt-state").read_text())["state"]["rows"]
    except (FileNotFoundError, json.JSONDecodeError):
        return 0


def resident_kib(pid):
    try:
        fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        return int(fields["VmRSS"].split()[0])
    except (FileNotFoundError, KeyError):
        return None


def whole(arguments):
    out = arguments.folder / "whole.jsonl"
    started = time.time()
    process = subprocess.Popen(command(arguments, out))
    tenth, seen = arguments.rows // 10, []
    while process.poll() is None:
        memory, done = resident_kib(process.pid), rows_done(out)
        if memory and done >= tenth * (len(seen) + 1):
            seen.append(memory)
            print(f"{done} rows after {time.time() - started:.0f} s: {memory / 1024:.1f} MiB", flush=True)
        time.sleep(0.05)
    if process.returncode:
        sys.exit(f"rlt score ended with {process.returncode}")
    growth = max(seen) / seen[0] - 1
    print(f"{time.time() - started:.0f} s; most memory after the first {tenth} rows: {100 * growth:+.1f} %")
    if growth >= 0.05 or len(seen) < 9:
        sys.exit("memory is not flat")


def killed(arguments):
    out = arguments.folder / "killed.jsonl"
    dice, kills = random.Random(arguments.seed), 0
    while True:
        process = subprocess.Popen(command(arguments, out))
        try:
            process.wait(timeout=dice.uniform(2, 6))
            break
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
            print(f"killed after {rows_done(out)} rows on disk", flush=True)
            assert not out.exists()
    if process.returncode:
        sys.exit(f"rlt score ended with {process.returncode}")
    same = filecmp.cmp(out, arguments.folder / "whole.jsonl", shallow=False)
    print(f"{kills} kills; {out.stat().st_size} bytes, {'the same' if same else 'DIFFERENT'}")
    if not same or kills == 0:
        sys.exit(1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rlt", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=time.time_ns(), help="of the moments to kill at")
    parser.add_argument("--stage", choices=("make", "whole", "killed"))
    arguments = parser.parse_args()
    if arguments.stage in (None, "make"):
        for number, name in enumerate(("teacher", "student")):
            make_model(arguments.folder / name, number)
        make_rows(arguments.folder / "rows.jsonl", arguments.rows)
    if arguments.stage in (None, "whole"):
        whole(arguments)
    if arguments.stage in (None, "killed"):
        killed(arguments)


if __name__ == "__main__":
    main()
