"""Small random checkpoints of every family and variant, with transformers' logits: ``make_checkpoints.py [FOLDER [NAME ..]]``.

Writes one model folder a variant (default: crates/rlt-model/tests/checkpoints, which is committed, so that
crates/rlt-model/tests/checkpoints.rs runs everywhere) with ``golden.safetensors``: ``input_ids`` (T), ``logits``
(T x V) of f32 arithmetic on the stored weights and ``logits_f64``, of f64 arithmetic; for bf16 checkpoints
``logits_bf16``, of transformers' own bf16 arithmetic; for f32 ones with biases or windows ``grad.NAME``, the gradient of the mean loss by each weight. Made with transformers 5.17 and PyTorch 2.15.
"""

import json
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, Gemma3TextConfig, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

SHAPE = dict(
    vocab_size=50,
    hidden_size=24,
    intermediate_size=40,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    bos_token_id=None,
    eos_token_id=1,
)
YARN = dict(rope_type="yarn", rope_theta=1e6, factor=4.0, original_max_position_embeddings=16)
LLAMA3 = dict(
    rope_type="llama3",
    rope_theta=5e5,
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=32,
)
LINEAR = dict(rope_type="linear", rope_theta=1e4, factor=2.5)
PLAIN = dict(rope_type="default", rope_theta=1e4)

# name: configuration class, its fields, stored dtype, bytes of a shard
VARIANTS = {
    "qwen2_tied_f32": (Qwen2Config, dict(tie_word_embeddings=True, rope_parameters=PLAIN), torch.float32, None),
    "qwen2_yarn_bf16": (Qwen2Config, dict(tie_word_embeddings=False, rope_parameters=YARN), torch.bfloat16, None),
    "qwen3_tied_bf16_sharded": (
        Qwen3Config,
        dict(tie_word_embeddings=True, head_dim=10, rope_parameters=PLAIN),
        torch.bfloat16,
        9_000,
    ),
    "qwen3_yarn_f32": (
        Qwen3Config,
        dict(tie_word_embeddings=False, head_dim=16, rope_parameters=YARN | dict(beta_fast=24.0, truncate=False)),
        torch.float32,
        None,
    ),
    "llama_linear_f32": (LlamaConfig, dict(tie_word_embeddings=False, rope_parameters=LINEAR), torch.float32, None),
    "llama3_bf16_sharded": (
        LlamaConfig,
        dict(tie_word_embeddings=False, rope_parameters=LLAMA3, rms_norm_eps=1e-5),
        torch.bfloat16,
        9_000,
    ),
    "llama3_tied_f32": (LlamaConfig, dict(tie_word_embeddings=True, rope_parameters=LLAMA3), torch.float32, None),
    "llama_bias_f32": (
        LlamaConfig,
        dict(tie_word_embeddings=True, rope_parameters=PLAIN, attention_bias=True),
        torch.float32,
        None,
    ),
    "qwen3_bias_bf16": (
        Qwen3Config,
        dict(tie_word_embeddings=True, head_dim=8, rope_parameters=PLAIN, attention_bias=True),
        torch.bfloat16,
        None,
    ),
    "smollm_tied_f16": (
        LlamaConfig,
        dict(tie_word_embeddings=True, rope_parameters=PLAIN | dict(rope_theta=1e5), num_attention_heads=3, num_key_value_heads=1),
        torch.float16,
        None,
    ),
    "mistral_bf16": (
        MistralConfig,
        dict(tie_word_embeddings=False, rope_parameters=PLAIN, sliding_window=None, head_dim=8),
        torch.bfloat16,
        None,
    ),
    # Windows shorter than the 60 tokens, in every block, in some, and with rotary settings of their own.
    "mistral_window_f32": (
        MistralConfig,
        dict(tie_word_embeddings=False, rope_parameters=PLAIN, sliding_window=7, head_dim=8),
        torch.float32,
        None,
    ),
    "qwen2_window_f32": (
        Qwen2Config,
        dict(
            tie_word_embeddings=True,
            rope_parameters=PLAIN,
            use_sliding_window=True,
            sliding_window=11,
            max_window_layers=1,
        ),
        torch.float32,
        None,
    ),
    "gemma3_window_f32": (
        Gemma3TextConfig,
        dict(
            num_hidden_layers=4,
            pad_token_id=None,
            head_dim=10,
            sliding_window=9,
            layer_types=["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
            query_pre_attn_scalar=17,
            rope_parameters={
                "sliding_attention": PLAIN,
                "full_attention": dict(rope_type="linear", rope_theta=1e6, factor=8.0),
            },
        ),
        torch.float32,
        None,
    ),
    "gemma3_bf16": (
        Gemma3TextConfig,
        dict(
            pad_token_id=None,
            head_dim=8,
            sliding_window=16,
            query_pre_attn_scalar=8,
            rope_parameters={"sliding_attention": PLAIN, "full_attention": dict(rope_type="default", rope_theta=1e6)},
        ),
        torch.bfloat16,
        None,
    ),
}
# transformers 4 spells the rotary settings in two fields; folders of both spellings are about.
SPELLED_AS_IN_TRANSFORMERS_4 = {"llama_linear_f32", "qwen2_yarn_bf16", "llama3_bf16_sharded"}


def randomize(model, generator) -> None:
    """Loud enough that attention and logits are far from flat."""
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        is_norm = name.endswith("norm.weight")
        # Gemma's norms multiply by one more than their weights.
        one = 0 if model.config.model_type.startswith("gemma") else 1
        parameter.data.copy_(one + 0.2 * noise if is_norm else 0.25 * noise)


def spell_as_in_transformers_4(path: Path) -> None:
    config = json.loads(path.read_text())
    scaling = config.pop("rope_parameters")
    config["rope_theta"] = scaling.pop("rope_theta")
    config["rope_scaling"] = scaling
    config["torch_dtype"] = config.pop("dtype")
    path.write_text(json.dumps(config, indent=2) + "\n")


def spell_gemma_as_in_transformers_4(path: Path) -> None:
    config = json.loads(path.read_text())
    ropes = config.pop("rope_parameters")
    config["rope_theta"] = ropes["full_attention"]["rope_theta"]
    config["rope_local_base_freq"] = ropes["sliding_attention"]["rope_theta"]
    config["rope_scaling"] = None
    config["sliding_window_pattern"] = 2
    del config["layer_types"]
    config["torch_dtype"] = config.pop("dtype")
    path.write_text(json.dumps(config, indent=2) + "\n")


def logits_f64(folder: Path, ids):
    """In f64 throughout: what transformers rounds to f32 on the way (norms, angles, softmax) is not."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, attn_implementation="sdpa")
    rotary_f32 = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).model.rotary_emb

    def rotary(x, position_ids, layer_type=None, **_):
        kind = f"{layer_type}_" if layer_type else ""
        frequencies_H = getattr(rotary_f32, f"{kind}inv_freq").double()
        angles = position_ids[..., None].double() * frequencies_H
        angles = torch.cat((angles, angles), -1)
        scale = getattr(rotary_f32, f"{kind}attention_scaling")
        return angles.cos() * scale, angles.sin() * scale

    def norm(module):
        mean_square = lambda x: x.pow(2).mean(-1, keepdim=True)
        is_gemma = type(module).__name__.startswith("Gemma")
        eps = module.eps if is_gemma else module.variance_epsilon
        return lambda x: (module.weight + (1 if is_gemma else 0)) * x * torch.rsqrt(mean_square(x) + eps)

    model.model.rotary_emb.forward = rotary
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = norm(module)
    logits = model(input_ids=ids, use_cache=False).logits[0].detach()
    assert logits.dtype == torch.float64
    return logits.clone()


def gradients(model, ids) -> dict:
    model.zero_grad()
    model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    return {f"grad.{name}": parameter.grad.clone() for name, parameter in model.named_parameters()}


def main() -> None:
    default = Path(__file__).parents[2] / "crates/rlt-model/tests/checkpoints"
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else default
    transformers.logging.disable_progress_bar()
    only = sys.argv[2:]
    for number, (name, (kind, fields, dtype, shard_bytes)) in enumerate(VARIANTS.items()):
        if only and name not in only:
            continue
        generator = torch.Generator().manual_seed(number)
        model = AutoModelForCausalLM.from_config(kind(**(SHAPE | fields)), attn_implementation="eager")
        randomize(model, generator)
        to = folder / name
        model.to(dtype).save_pretrained(to, max_shard_size=shard_bytes or "1GB")
        if name in SPELLED_AS_IN_TRANSFORMERS_4:
            spell_as_in_transformers_4(to / "config.json")
        if name == "gemma3_bf16":
            spell_gemma_as_in_transformers_4(to / "config.json")

        ids = torch.randint(SHAPE["vocab_size"], (1, 60), generator=generator)
        load = lambda dtype: AutoModelForCausalLM.from_pretrained(to, dtype=dtype, attn_implementation="eager")
        logits = lambda model: model(input_ids=ids, use_cache=False).logits[0].detach().float().clone()
        golden = {"input_ids": ids[0], "logits": logits(load(torch.float32)), "logits_f64": logits_f64(to, ids)}
        if dtype == torch.bfloat16:
            golden["logits_bf16"] = logits(load(torch.bfloat16))
        if name.endswith(("bias_f32", "window_f32")):
            golden |= gradients(load(torch.float32), ids)
        save_file(golden, to / "golden.safetensors")
        error = lambda key: (golden[key].double() - golden["logits_f64"]).abs().max().item()
        print(name, "largest logit", golden["logits"].abs().max().item(), "errors", [error(k) for k in golden if k.startswith("logits")])


if __name__ == "__main__":
    main()
