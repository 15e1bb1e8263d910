"""Whether a folder that `rlt import` made holds what its GGUF file says, by the `gguf` Python package.

    pip install gguf numpy safetensors tokenizers
    rlt import FILE.gguf --out DIR --dtype f32
    python tests/parity/gguf_model.py FILE.gguf DIR [TOKENIZER.json|sentencepiece TEXTS.txt]

Every weight must have the bits of the package's dequantisation (rows of a llama's queries and keys in transformers' order,
norms of a gemma3 less the one that the file has added); with a tokenizer, every line of the texts must have the same ids under
the folder's: those of a tokenizer.json, or, for `sentencepiece` (pip install sentencepiece protobuf), those that the library
finds with the file's pieces and scores. Logits: load_saved.py on the folder.
"""

import sys

import numpy as np
from gguf import GGUFReader, quants
from safetensors import safe_open

NAMES = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
         "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
         "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm", "ffn_gate": "mlp.gate_proj",
         "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
# A gemma3 normalises after attention and feed-forward, too, and "ffn_norm" is the one before the latter.
GEMMA = {"post_attention_norm": "post_attention_layernorm", "ffn_norm": "pre_feedforward_layernorm",
         "post_ffw_norm": "post_feedforward_layernorm"}
TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def sentence_piece(field):
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2 as model_pb2

    model = model_pb2.ModelProto()
    unknown = field("tokenizer.ggml.unknown_token_id")
    columns = (field(f"tokenizer.ggml.{name}") for name in ("tokens", "scores", "token_type"))
    for i, (text, score, kind) in enumerate(zip(*columns)):
        piece = model.pieces.add()
        piece.piece, piece.score = text.replace(" ", "\u2581") if kind == 4 else text, score
        piece.type = 2 if i == unknown else kind
    model.trainer_spec.model_type, model.trainer_spec.byte_fallback = 2, True
    model.trainer_spec.unk_id = unknown
    model.trainer_spec.bos_id, model.trainer_spec.eos_id = field("tokenizer.ggml.bos_token_id"), field("tokenizer.ggml.eos_token_id")
    model.normalizer_spec.name, model.normalizer_spec.add_dummy_prefix = "identity", False
    model.normalizer_spec.remove_extra_whitespaces = False
    processor = sentencepiece.SentencePieceProcessor()
    processor.LoadFromSerializedProto(model.SerializeToString())
    return processor.EncodeAsIds


def main():
    reader, folder = GGUFReader(sys.argv[1]), sys.argv[2]
    field = lambda name: reader.fields[name].contents()
    architecture = field("general.architecture")
    heads = {"attn_q": field(f"{architecture}.attention.head_count"), "attn_k": field(f"{architecture}.attention.head_count_kv")}
    is_gemma = architecture == "gemma3"
    names = NAMES | GEMMA if is_gemma else NAMES
    weights = safe_open(f"{folder}/model.safetensors", "numpy")
    left = set(weights.keys())
    for tensor in reader.tensors:
        if tensor.name == "rope_freqs.weight":
            continue
        values = quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        parts = tensor.name.split(".")
        if parts[0] == "blk":
            name = f"model.layers.{parts[1]}.{names[parts[2]]}.{parts[3]}"
            if architecture == "llama" and parts[2] in heads:
                n = heads[parts[2]]
                rest = values.shape[1:]
                values = values.reshape(n, values.shape[0] // n // 2, 2, *rest).swapaxes(1, 2).reshape(values.shape)
        else:
            name = f"{TOP[parts[0]]}.{parts[1]}"
        if is_gemma and name.endswith("norm.weight"):
            values = values - np.float32(1)
        ours = weights.get_tensor(name)
        assert ours.shape == values.shape and np.array_equal(ours.view(np.uint32), values.view(np.uint32)), name
        left.remove(name)
    assert not left, left
    print(f"{len(weights.keys())} tensors are equal bit for bit")
    if len(sys.argv) > 4:
        from tokenizers import Tokenizer

        def encoder(path):
            tokenizer = Tokenizer.from_file(path)
            return lambda text: tokenizer.encode(text, add_special_tokens=False).ids

        ours = encoder(f"{folder}/tokenizer.json")
        theirs = sentence_piece(field) if sys.argv[3] == "sentencepiece" else encoder(sys.argv[3])
        texts = open(sys.argv[4], encoding="utf-8").read().split("\n")
        for text in texts:
            ids = [encode(text) for encode in (ours, theirs)]
            assert ids[0] == ids[1], (text, ids)
        print(f"{len(texts)} texts have equal ids")


main()
