"""Whether a folder that `rlt import` made holds what its GGUF file says, by the `gguf` Python package.

    pip install gguf numpy safetensors tokenizers
    rlt import FILE.gguf --out DIR --dtype f32
    python tests/parity/gguf_model.py FILE.gguf DIR [TOKENIZER.json TEXTS.txt]

Every weight must have the bits of the package's dequantisation (rows of a llama's queries and keys in transformers' order);
with a tokenizer, every line of the texts must have the same ids under the folder's. Logits: load_saved.py on the folder.
"""

import sys

import numpy as np
from gguf import GGUFReader, quants
from safetensors import safe_open

NAMES = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
         "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
         "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm", "ffn_gate": "mlp.gate_proj",
         "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def main():
    reader, folder = GGUFReader(sys.argv[1]), sys.argv[2]
    field = lambda name: reader.fields[name].contents()
    architecture = field("general.architecture")
    heads = {"attn_q": field(f"{architecture}.attention.head_count"), "attn_k": field(f"{architecture}.attention.head_count_kv")}
    weights = safe_open(f"{folder}/model.safetensors", "numpy")
    left = set(weights.keys())
    for tensor in reader.tensors:
        if tensor.name == "rope_freqs.weight":
            continue
        values = quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        parts = tensor.name.split(".")
        if parts[0] == "blk":
            name = f"model.layers.{parts[1]}.{NAMES[parts[2]]}.{parts[3]}"
            if architecture == "llama" and parts[2] in heads:
                n = heads[parts[2]]
                rest = values.shape[1:]
                values = values.reshape(n, values.shape[0] // n // 2, 2, *rest).swapaxes(1, 2).reshape(values.shape)
        else:
            name = f"{TOP[parts[0]]}.{parts[1]}"
        ours = weights.get_tensor(name)
        assert ours.shape == values.shape and np.array_equal(ours.view(np.uint32), values.view(np.uint32)), name
        left.remove(name)
    assert not left, left
    print(f"{len(weights.keys())} tensors are equal bit for bit")
    if len(sys.argv) > 4:
        from tokenizers import Tokenizer

        ours, theirs = Tokenizer.from_file(f"{folder}/tokenizer.json"), Tokenizer.from_file(sys.argv[3])
        texts = open(sys.argv[4], encoding="utf-8").read().split("\n")
        for text in texts:
            ids = [t.encode(text, add_special_tokens=False).ids for t in (ours, theirs)]
            assert ids[0] == ids[1], (text, ids)
        print(f"{len(texts)} texts have equal ids")


main()
