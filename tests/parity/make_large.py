"""Writes a bf16 checkpoint of random weights in Qwen2.5's shape: ``make_large.py FOLDER [--shape 0.5b] [--layers N]``.

For measuring memory and loading time where the real weights are not at hand (docs/BENCHMARKS.md): the configuration
is Qwen2.5-7B-Instruct's (or 0.5B's), the weights are normal with standard deviation 0.02, in shards of at most 4 GB with an index,
as the hub has them. 28 layers take 15.2 GB of disk; ``--layers`` makes a smaller one of the same width.
"""

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import save_file

CONFIG = {
    "architectures": ["Qwen2ForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "hidden_act": "silu",
    "hidden_size": 3584,
    "initializer_range": 0.02,
    "intermediate_size": 18944,
    "max_position_embeddings": 32768,
    "max_window_layers": 28,
    "model_type": "qwen2",
    "num_attention_heads": 28,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 131072,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 152064,
}
SHAPES = {
    "7b": {},
    "0.5b": {
        "hidden_size": 896,
        "intermediate_size": 4864,
        "max_window_layers": 21,
        "num_attention_heads": 14,
        "num_hidden_layers": 24,
        "num_key_value_heads": 2,
        "sliding_window": 32768,
        "tie_word_embeddings": True,
        "vocab_size": 151936,
    },
}
SHARD_BYTES = 4_000_000_000


def tensors(config: dict):
    """(name, shape) of every tensor, in the order of the hub's shards."""
    width, inner, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    keys = width // config["num_attention_heads"] * config["num_key_value_heads"]
    yield "model.embed_tokens.weight", (vocab, width)
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}"
        yield f"{at}.input_layernorm.weight", (width,)
        for name, rows in (("q", width), ("k", keys), ("v", keys)):
            yield f"{at}.self_attn.{name}_proj.bias", (rows,)
            yield f"{at}.self_attn.{name}_proj.weight", (rows, width)
        yield f"{at}.self_attn.o_proj.weight", (width, width)
        yield f"{at}.post_attention_layernorm.weight", (width,)
        yield f"{at}.mlp.gate_proj.weight", (inner, width)
        yield f"{at}.mlp.up_proj.weight", (inner, width)
        yield f"{at}.mlp.down_proj.weight", (width, inner)
    yield "model.norm.weight", (width,)
    if not config["tie_word_embeddings"]:
        yield "lm_head.weight", (vocab, width)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default="7b")
    parser.add_argument("--layers", type=int)
    arguments = parser.parse_args()
    folder, config = arguments.folder, CONFIG | SHAPES[arguments.shape]
    if arguments.layers:
        config["num_hidden_layers"] = arguments.layers
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)

    shards, held = [{}], 0
    for name, shape in tensors(config):
        n_bytes = 2 * torch.Size(shape).numel()
        if held + n_bytes > SHARD_BYTES:
            save_file(shards[-1], folder / f"part-{len(shards)}.safetensors", metadata={"format": "pt"})
            shards[-1] = list(shards[-1])
            shards.append({})
            held = 0
        norm = name.endswith("norm.weight")
        weight = torch.ones(shape) if norm else torch.empty(shape, dtype=torch.bfloat16).normal_(0, 0.02)
        shards[-1][name] = weight.bfloat16()
        held += n_bytes
    save_file(shards[-1], folder / f"part-{len(shards)}.safetensors", metadata={"format": "pt"})

    weight_map = {}
    for number, names in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        (folder / f"part-{number}.safetensors").rename(folder / file)
        weight_map |= dict.fromkeys(names, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [151645, 151643]}))


if __name__ == "__main__":
    main()
