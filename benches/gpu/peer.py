#!/usr/bin/env python3
"""What PyTorch takes for the items of gpu_bench: peer.py [--tiny] [--layers N] [--width N] attention|update|score|decode ..

One JSON line an item, with the names and fields that gpu_bench prints. In bf16 on the first GPU; with --tiny on the processor, to try the
script. Attention is scaled_dot_product_attention, a model transformers' Qwen2 with random weights, sdpa, blocks computed again
in the backward pass as there. Exits with 77 where a library is missing."""
import argparse
import json
import sys
import time

try:
    import torch
    import torch.nn.functional as F
except ImportError as missing:
    print(missing)
    sys.exit(77)

parser = argparse.ArgumentParser()
parser.add_argument("--tiny", action="store_true")
parser.add_argument("--layers", type=int, default=28)
parser.add_argument("--width", type=int, default=0)
parser.add_argument("items", nargs="+")
asked = parser.parse_args()

device = torch.device("cpu" if asked.tiny else "cuda")
dtype = torch.bfloat16
if asked.tiny:
    hidden, feed_forward, heads, kv_heads, vocabulary = 32, 48, 4, 2, 96
    lengths, decoded, prompt, drawn = [16, 24, 40], [1, 2, 4], 12, 3
else:
    hidden, feed_forward, heads, kv_heads, vocabulary = 3584, 18944, 28, 4, 152064
    lengths, decoded, prompt, drawn = [2048, 4096, 16384], [1, 64, 256], 1536, 64
if asked.width:
    heads, kv_heads = hidden // asked.width, max(1, hidden // asked.width // 7)


def wait():
    if device.type == "cuda":
        torch.cuda.synchronize()


def seconds(work):
    """The median of at least three, after one that warms up."""
    work()
    wait()
    times = []
    while len(times) < 3 or sum(times) < 1:
        before = time.perf_counter()
        work()
        wait()
        times.append(time.perf_counter() - before)
    return sorted(times)[len(times) // 2]


def say(item, s, tokens):
    peak = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else 0.0
    found = {"item": item, "by": f"PyTorch {torch.__version__}", "ms": 1e3 * s, "tokens_s": tokens / s, "peak_gib": peak, "layers": asked.layers}
    print(json.dumps(found), flush=True)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()


def attention():
    width = hidden // heads
    for n in lengths:
        q = torch.randn(1, heads, n, width, device=device, dtype=dtype, requires_grad=True)
        k, v = (torch.randn(1, kv_heads, n, width, device=device, dtype=dtype, requires_grad=True) for _ in range(2))
        forward = lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        out = forward()
        dout = torch.randn_like(out)
        with torch.no_grad():
            say(f"attention forward {n}", seconds(forward), n)
        say(f"attention backward {n}", seconds(lambda: torch.autograd.grad(out, (q, k, v), dout, retain_graph=True)), n)


def model():
    try:
        from transformers import Qwen2Config, Qwen2ForCausalLM
    except ImportError as missing:
        print(missing)
        sys.exit(77)
    config = Qwen2Config(
        hidden_size=hidden, intermediate_size=feed_forward, num_hidden_layers=asked.layers, num_attention_heads=heads,
        num_key_value_heads=kv_heads, vocab_size=vocabulary, max_position_embeddings=32768, rope_theta=1e6,
        tie_word_embeddings=False, bos_token_id=None, eos_token_id=None, pad_token_id=None, attn_implementation="sdpa",
    )  # fmt: skip
    with torch.device(device):
        made = Qwen2ForCausalLM(config)
    return made.to(dtype)


def ids(n, length):
    return torch.randint(0, vocabulary, (n, length), device=device)


def main():
    if "attention" in asked.items:
        attention()
    if not {"update", "score", "decode"} & set(asked.items):
        return
    qwen = model()
    if "update" in asked.items:
        qwen.gradient_checkpointing_enable()
        qwen.train()
        for n in lengths:
            tokens = ids(1, n)
            say(f"update:{n}", seconds(lambda: qwen(tokens, labels=tokens, use_cache=False).loss.backward()), n)
        qwen.gradient_checkpointing_disable()
    qwen.zero_grad(set_to_none=True)
    qwen.eval()
    with torch.no_grad():
        if "score" in asked.items:
            tokens = ids(1, lengths[0])
            logprobs = lambda: qwen(tokens, use_cache=False).logits.float().log_softmax(-1).gather(-1, tokens[..., None])
            say(f"score:{lengths[0]}", seconds(logprobs), lengths[0])
        if "decode" in asked.items:
            for n in decoded:
                begin = ids(1, prompt).expand(n, prompt)
                draw = lambda: qwen.generate(begin, do_sample=True, min_new_tokens=drawn, max_new_tokens=drawn)
                say(f"decode:{n}", seconds(draw), n * drawn)


main()
