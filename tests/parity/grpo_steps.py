"""Ten steps of reinforcement learning in PyTorch: the golden numbers of `crates/rlt-method/src/grpo/tests/parity.rs`.

    python3 tests/parity/grpo_steps.py tests/golden/grpo_steps.json

A Qwen2 model of about 1,400 weights (transformers, f64, autograd, `torch.optim.AdamW`) is trained for ten steps with every
objective. Each step samples completions from the model as it is, with their log-probabilities; rewards are a fixed function of
the ids. The file holds the first weights, the samples of every step, and what came of them: the loss of every optimizer
step and the last weights. The Rust test is given the same samples, so that both follow one path.

Needs torch and transformers; one thread, a minute at most.
"""

import json
import sys

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

VOCAB, EOS = 14, 0
TEMPERATURE, LONGEST = 0.8, 7
QUESTIONS, GROUP, STEPS = 2, 3, 10
REFERENCE_SCALE, SYNC_EVERY, MIXUP = 0.8, 4, 0.5
OPTIMIZER = {"learning_rate": 4e-3, "beta1": 0.9, "beta2": 0.99, "epsilon": 1e-6, "weight_decay": 0.01, "clip_norm": 0.7}
MODEL = {
    "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "vocab_size": VOCAB, "hidden_size": 8,
    "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
    "max_position_embeddings": 32, "rope_theta": 10000.0, "rms_norm_eps": 1e-6, "hidden_act": "silu",
    "tie_word_embeddings": True, "eos_token_id": EOS,
}

# Each run: the settings of `[grpo]`. Bounds are narrow, so that they are met.
RUNS = [
    {"objective": "grpo", "beta": 0.5},
    {"objective": "grpo", "beta": 0.5, "epochs": 2, "minibatches": 2, "clip_low": 0.02, "clip_high": 0.03, "kl": "k2"},
    {"objective": "dr_grpo", "beta": 0.0, "epochs": 2, "clip_low": 0.02, "clip_high": 0.03},
    {"objective": "dapo", "beta": 0.1, "epochs": 2, "clip_low": 0.02, "clip_high": 0.03, "resample_rounds": 0},
    {"objective": "gspo", "beta": 0.5, "epochs": 3, "clip_low": 0.01, "clip_high": 0.015},
    {"objective": "cispo", "beta": 0.0, "epochs": 2, "minibatches": 2, "clip_high": 0.02},
    {"objective": "rloo", "beta": 0.1, "epochs": 2, "kl": "k1", "clip_low": 0.05, "clip_high": 0.05},
]


def build(weights=None, scale=1.0):
    model = Qwen2ForCausalLM(Qwen2Config(**{k: v for k, v in MODEL.items() if k not in ("architectures", "model_type")},
                                         attn_implementation="eager"))
    model = model.double().eval()
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if weights is not None:
                p.copy_(weights[name] * scale)
            elif name.endswith("norm.weight"):
                p.copy_(1.0 + 0.1 * torch.randn(p.shape, generator=generator, dtype=torch.float64))
            else:
                p.copy_(0.4 * torch.randn(p.shape, generator=generator, dtype=torch.float64))
            p.copy_(p.float().double())  # what an f32 file holds
    return model


def logprobs(model, prompt, ids):
    logits = model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1] / TEMPERATURE
    return torch.log_softmax(logits, -1).gather(1, torch.tensor(ids)[:, None])[:, 0]


def sample(model, prompt, generator):
    ids = []
    with torch.no_grad():
        while len(ids) < LONGEST and EOS not in ids:
            logits = model(torch.tensor([prompt + ids])).logits[0, -1] / TEMPERATURE
            ids.append(int(torch.multinomial(torch.softmax(logits, -1), 1, generator=generator)))
        old = logprobs(model, prompt, ids)
    reward = sum(1.0 if i % 3 == 1 else -0.25 for i in ids) / 2 - 0.125 * len(ids)
    return {"ids": ids, "logprobs": [float(f"{x:.9g}") for x in old.tolist()], "reward": reward,
            "truncated": EOS not in ids}


def advantages(run, rewards):
    groups = rewards.view(QUESTIONS, GROUP)
    if run["objective"] == "rloo":
        a = groups - (groups.sum(1, keepdim=True) - groups) / (GROUP - 1)
    else:
        a = groups - groups.mean(1, keepdim=True)
    if run["objective"] not in ("dr_grpo", "rloo"):
        a = a / (groups.std(1, keepdim=True) + 1e-4)
    return a.flatten()


def loss_of(run, model, batch):
    """The loss of one optimizer step, as the papers write it; `batch` has samples with advantage and reference. None where no
    sample counts: there is no optimizer step then.
    """
    kind, beta = run["objective"], run["beta"]
    low, high = run.get("clip_low", 0.2), run.get("clip_high", 0.2)
    counted = [s for s in batch if not (kind == "dapo" and s["truncated"])]
    if not counted:
        return None
    n_tokens = sum(len(s["ids"]) for s in counted)
    loss, clipped, tokens = torch.zeros((), dtype=torch.float64), 0, 0
    for s in counted:
        new, old, n = logprobs(model, s["prompt"], s["ids"]), torch.tensor(s["logprobs"], dtype=torch.float64), len(s["ids"])
        advantage, ratio = s["advantage"], torch.exp(new - old)
        weight = {"grpo": 1 / n / len(counted), "gspo": 1 / n / len(counted), "dr_grpo": 1 / LONGEST / len(counted),
                  "dapo": 1 / n_tokens, "cispo": 1 / n_tokens, "rloo": 1 / len(counted)}[kind]
        if kind == "gspo":
            ratio = torch.exp((new - old).mean())
        if kind == "rloo":
            ratio = torch.exp((new - old).sum())
        bounded = torch.clamp(ratio, 1 - low, 1 + high)
        if kind == "cispo":
            terms = -torch.clamp(ratio, max=1 + high).detach() * advantage * new
            clipped += int((ratio > 1 + high).sum())
        else:
            terms = -torch.minimum(ratio * advantage, bounded * advantage)
            clipped += int((bounded * advantage < ratio * advantage).sum())
        tokens += ratio.numel()
        loss = loss + (terms / len(counted) if kind in ("gspo", "rloo") else weight * terms.sum())
        if beta > 0 and run.get("kl", "k3") != "k1":
            d = new - s["reference"]
            kl = d * d / 2 if run.get("kl") == "k2" else torch.exp(-d) + d - 1
            loss = loss + beta * weight * kl.sum()
    return loss, clipped, tokens


def train(run, first):
    model = build(first)
    reference = build(first, REFERENCE_SCALE) if run["beta"] > 0 else None
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    decay, o = OPTIMIZER["weight_decay"], OPTIMIZER
    optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}],
                                  lr=o["learning_rate"], betas=(o["beta1"], o["beta2"]), eps=o["epsilon"])
    generator = torch.Generator().manual_seed(5)
    steps, clipped, tokens = [], 0, 0
    for step in range(1, STEPS + 1):
        groups = []
        for question in range(QUESTIONS):
            prompt = [int(x) for x in torch.randint(1, VOCAB, (2 + question + step % 2,), generator=generator)]
            groups.append({"prompt": prompt, "samples": [sample(model, prompt, generator) for _ in range(GROUP)]})
        flat = [dict(s, prompt=g["prompt"]) for g in groups for s in g["samples"]]
        rewards = torch.tensor([s["reward"] for s in flat], dtype=torch.float64)
        for i, s in enumerate(flat):
            if reference is not None:
                with torch.no_grad():
                    s["reference"] = logprobs(reference, s["prompt"], s["ids"])
                if run.get("kl") == "k1":
                    rewards[i] -= run["beta"] * (torch.tensor(s["logprobs"], dtype=torch.float64) - s["reference"]).sum()
        for s, a in zip(flat, advantages(run, rewards)):
            s["advantage"] = a
        losses = []
        for _ in range(run.get("epochs", 1)):
            size = len(flat) // run.get("minibatches", 1)
            for part in range(0, len(flat), size):
                made = loss_of(run, model, flat[part : part + size])
                if made is None:
                    continue
                loss, c, t = made
                clipped, tokens = clipped + c, tokens + t
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), o["clip_norm"])
                optimizer.step()
                losses.append(loss.item())
        if reference is not None and step % SYNC_EVERY == 0:
            with torch.no_grad():
                for r, p in zip(reference.parameters(), model.parameters()):
                    r.copy_(MIXUP * p + (1 - MIXUP) * r)
        steps.append({"groups": groups, "losses": losses})
    moved = max((p - first[n]).abs().max().item() for n, p in model.named_parameters())
    print(f"{run}: losses {[round(x, 4) for s in steps for x in s['losses'][-1:]]}, {clipped} of {tokens} terms clipped, "
          f"largest move {moved:.3f}")
    return {"grpo": run, "steps": steps, "last": numbers(model, 7)}


def numbers(model, digits):
    return {n: [float(f"{x:.{digits}g}") for x in p.detach().flatten().tolist()] for n, p in model.named_parameters()}


def main():
    torch.set_num_threads(1)
    model = build()
    first = {n: p.detach().clone() for n, p in model.named_parameters()}
    print(sum(p.numel() for p in first.values()), "weights")
    golden = {
        "made_by": "tests/parity/grpo_steps.py", "torch": torch.__version__, "model": MODEL, "temperature": TEMPERATURE,
        "max_new_tokens": LONGEST, "reference_scale": REFERENCE_SCALE, "reference_sync_every": SYNC_EVERY,
        "reference_mixup": MIXUP, "optimizer": OPTIMIZER, "first": numbers(model, 9),
        "runs": [train(run, first) for run in RUNS],
    }
    with open(sys.argv[1], "w") as out:
        json.dump(golden, out, separators=(",", ":"))
        out.write("\n")


main()
