#!/usr/bin/env python3
"""Models near a model: nudge.py BEFORE AFTER OUT

BEFORE and AFTER are folders of one model before and after some training. Writes OUT/random, whose weights are those of BEFORE with each
moved up or down at random by as much as training moved its tensor's weights (root mean square), OUT/random3 with three times that, and
OUT/along3, three times as far as AFTER in its direction. What training did to a model beyond moving its weights shows in how much worse
AFTER and along3 are than the others. Needs torch and safetensors."""

import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

before, after, out = map(Path, sys.argv[1:4])
torch.manual_seed(0)
was = load_file(before / "model.safetensors")
step = {name: tensor - was[name] for name, tensor in load_file(after / "model.safetensors").items()}
signs = {name: torch.randint(0, 2, tensor.shape) * 2 - 1 for name, tensor in was.items()}
moved = {
    "random": {name: step[name].pow(2).mean().sqrt() * signs[name] for name in was},
    "random3": {name: 3 * step[name].pow(2).mean().sqrt() * signs[name] for name in was},
    "along3": {name: 3 * step[name] for name in was},
}
total = sum(tensor.double().pow(2).sum() for tensor in step.values()) / sum(tensor.numel() for tensor in step.values())
print(f"root mean square of the change: {total.sqrt():.2e}")
for kind, change in moved.items():
    shutil.copytree(before, out / kind)
    save_file({name: was[name] + change[name] for name in was}, out / kind / "model.safetensors", metadata={"format": "pt"})
