"""Makes adapters by PEFT for the checkpoints in crates/rlt-model/tests/checkpoints, with PyTorch's numbers.

    pip install peft        # into the environment of benches/peers/requirements.txt
    python tests/parity/make_adapters.py            # writes crates/rlt-model/tests/adapters
    python tests/parity/make_adapters.py --check ADAPTER_DIR BASE_DIR

An adapter folder is as PEFT saves it (base_model_name_or_path made relative), with random A and B; golden.safetensors holds
the ids, the logits, and the gradient of the mean cross entropy by every A and B. With --check, PEFT loads an adapter that rlt
wrote and prints the logits of some ids as JSON, for comparison; it fails when a tensor is missing or left over.
"""

import argparse
import json
import warnings
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

TESTS = Path(__file__).parents[2] / "crates/rlt-model/tests"
ADAPTERS = {
    "qwen2_tied_f32": dict(r=3, lora_alpha=6, target_modules=["q_proj", "v_proj"]),
    "qwen3_bias_bf16": dict(r=4, lora_alpha=6, target_modules="all-linear"),
    "llama_bias_f32": dict(r=2, lora_alpha=5, target_modules=["o_proj", "gate_proj", "down_proj", "k_proj"]),
    "llama_patterns_f32": dict(
        base="llama_bias_f32",
        r=3,
        lora_alpha=6,
        target_modules=["q_proj", "v_proj", "o_proj", "up_proj", "down_proj"],
        use_rslora=True,
        rank_pattern={"layers.1.self_attn.q_proj": 2, "q_proj": 5, r"layers\.\d\.mlp\.(up|down)_proj": 4},
        alpha_pattern={"^model.layers.0.self_attn.v_proj": 1, "mlp.down_proj": 9, "proj": 100},
    ),
}


def base_model(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")


def make(number, name, base=None, **fields):
    base = base or name
    generator = torch.Generator().manual_seed(100 + number)
    model = get_peft_model(base_model(TESTS / "checkpoints" / base), LoraConfig(task_type="CAUSAL_LM", **fields))
    learnt = {n: p for n, p in model.named_parameters() if p.requires_grad}
    for parameter in learnt.values():
        parameter.data.copy_(0.25 * torch.randn(parameter.shape, generator=generator))
    ids = torch.randint(50, (1, 40), generator=generator)
    output = model(input_ids=ids, labels=ids, use_cache=False)
    output.loss.backward()
    to = TESTS / "adapters" / name
    model.save_pretrained(to)
    (to / "README.md").unlink(missing_ok=True)
    config = json.loads((to / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = f"../../checkpoints/{base}"
    (to / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    golden = {"input_ids": ids[0], "logits": output.logits[0].detach().clone()}
    golden |= {"grad." + n.replace(".default", ""): p.grad.clone() for n, p in learnt.items()}
    save_file(golden, to / "golden.safetensors")
    print(name, "loss", output.loss.item(), "tensors", len(learnt))


def check(adapter, base):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # PEFT warns of missing keys; libraries of what is deprecated
        model = PeftModel.from_pretrained(base_model(base), adapter)
    loaded = {n.replace(".default", "") for n, _ in model.named_parameters() if "lora_" in n}
    stored = set(load_file(Path(adapter) / "adapter_model.safetensors"))
    assert loaded == stored, loaded ^ stored
    ids = torch.arange(3, 33)[None]
    logprobs = model(input_ids=ids, use_cache=False).logits[0].log_softmax(-1)
    print(json.dumps([None] + [logprobs[i - 1, ids[0, i]].item() for i in range(1, 30)]))


if __name__ == "__main__":
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--check", nargs=2)
    check_folders = arguments.parse_args().check
    if check_folders:
        check(*check_folders)
    else:
        for number, (name, fields) in enumerate(ADAPTERS.items()):
            make(number, name, **fields)
