"""How far PyTorch's own bf16 is from its f32, in gradients and log-probabilities of checkpoints.

    python bf16_gradients.py crates/rlt-model/tests/checkpoints/* ..

The same sums of log-probabilities are differentiated in f32 and with products in bf16 (autocast: weights, sums and the rest stay
f32), on each folder's own tokens. What rlt's products in bf16 are held to is read beside this (docs/CUDA.md).
"""

import pathlib
import sys

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

TEMPERATURE = 0.7
TOKENS = 60


def gradients(folder, ids, bf16):
    """All gradients in one vector, and the log-probabilities of the tokens."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        logits = model(ids).logits
    logprobs = torch.log_softmax(logits.float() / TEMPERATURE, -1)[0, :-1].gather(-1, ids[0, 1:, None])[:, 0]
    weights = torch.sin(torch.arange(logprobs.numel()) * 0.37)
    (weights * logprobs).sum().backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]), logprobs.detach()


def apart(ours, theirs):
    return ((ours - theirs).norm() / theirs.norm()).item()


for folder in map(pathlib.Path, sys.argv[1:]):
    if not (folder / "golden.safetensors").exists():
        continue
    ids = load_file(folder / "golden.safetensors")["input_ids"].flatten()[:TOKENS][None]
    (exact, exact_logprobs), (rounded, rounded_logprobs) = (gradients(folder, ids, bf16) for bf16 in (False, True))
    print(
        f"{folder.name}: gradients {apart(rounded, exact):.1e}, log-probabilities "
        f"{apart(rounded_logprobs, exact_logprobs):.1e} of their length from f32",
        flush=True,
    )
