"""Loads a model folder in transformers and prints its logits: ``load_saved.py MODEL_DIR INPUT [--check ATOL]``.

The proof that a folder saved by rlt is one that transformers accepts and computes the same numbers from. INPUT
holds JSON rows, as one array or one a line: ``{"ids": [..]}``, optionally with ``"logits"`` (tokens x
vocabulary) or ``"logprobs"`` (what ``rlt logprobs`` writes: nats, null for the first token). Each row goes through
the model by itself, unpadded, in f32.

Prints one line a row, ``{"ids": [..], "logits": [[..], ..]}``; with ``--out FILE`` writes a safetensors file with
``logits.0``, ``logits.1`` .. instead. With ``--check ATOL`` compares the rows' own logits or logprobs with
transformers' and prints only the largest differences. Exit code 1 when a weight is missing or unexpected, or
when a difference is above ATOL.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM


def read_rows(path: Path) -> list[dict]:
    text = path.read_text()
    if text.lstrip().startswith("["):
        return json.loads(text)
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def load(folder: Path):
    """The model in f32. Refuses a folder whose tensors are not exactly those that the architecture wants."""
    model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info[problem]:
            raise SystemExit(f"{folder}: {problem.replace('_', ' ')}: {sorted(info[problem])}")
    return model.eval()


def largest_difference(row: dict, logits_TV: torch.Tensor) -> float:
    """Between a row's own logits or logprobs and transformers'."""
    if "logits" in row:
        expected_TV = torch.tensor(row["logits"])
        if expected_TV.shape != logits_TV.shape:
            raise SystemExit(f"logits of shape {list(expected_TV.shape)}, transformers has {list(logits_TV.shape)}")
        difference = expected_TV - logits_TV
    elif "logprobs" in row:
        expected_T = torch.tensor(row["logprobs"][1:])
        targets_T = torch.tensor(row["ids"][1:])
        if expected_T.shape != targets_T.shape:
            raise SystemExit(f"{len(row['logprobs'])} logprobs for {len(row['ids'])} ids")
        logprobs_TV = logits_TV[:-1].log_softmax(-1)
        difference = expected_T - logprobs_TV.gather(-1, targets_T[:, None]).squeeze(-1)
    else:
        raise SystemExit("--check needs rows with logits or logprobs")
    if not torch.isfinite(difference).all():
        raise SystemExit("a compared value is not finite")
    return difference.abs().max().item()


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("input", type=Path)
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--out", type=Path, help="safetensors file for the logits")
    group.add_argument("--check", type=float, metavar="ATOL", help="largest absolute difference allowed")
    arguments = parser.parse_args()

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    model = load(arguments.model)
    tensors, worst = {}, 0.0
    rows = read_rows(arguments.input)
    if not rows:
        raise SystemExit(f"{arguments.input}: no rows")
    for number, row in enumerate(rows):
        logits_TV = model(input_ids=torch.tensor([row["ids"]]), use_cache=False).logits[0]
        if arguments.check is not None:
            difference = largest_difference(row, logits_TV)
            print(json.dumps({"row": number, "tokens": len(row["ids"]), "largest_difference": difference}))
            worst = max(worst, difference)
        elif arguments.out:
            tensors[f"logits.{number}"] = logits_TV.clone()
        else:
            print(json.dumps({"ids": row["ids"], "logits": logits_TV.tolist()}))
    if arguments.out:
        save_file(tensors, arguments.out)
    if arguments.check is not None and worst > arguments.check:
        sys.exit(f"largest difference {worst:.3g} is above {arguments.check:g}")


if __name__ == "__main__":
    main()
