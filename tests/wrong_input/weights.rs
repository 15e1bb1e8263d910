//! Model files that are not what they say they are.

use std::fs;
use std::path::Path;

use rlt_model::weights::{Dtype, TensorView, write_safetensors};

use super::scripted::write_random_model;
use super::{Case, check, write};

const LOGPROBS: &[&str] =
    &["logprobs", "-q", "--model", "model", "--data", "rows.jsonl", "--out", "out/logprobs.jsonl"];

const PLAN: &[&str] =
    &["plan", "-q", "--for", "sft", "model.path=model", "data.path=chat.jsonl", "sft.format=student"];

/// A random model and a sequence of three ids.
fn inputs(dir: &Path) {
    write_random_model(&dir.join("model"), 512);
    write(dir, "rows.jsonl", "{\"ids\":[1,2,3]}\n");
}

/// The header of a safetensors file and its tensors' bytes.
fn parts(dir: &Path) -> (String, Vec<u8>) {
    let bytes = fs::read(dir.join("model/model.safetensors")).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    (String::from_utf8(bytes[8..8 + length].to_vec()).unwrap(), bytes[8 + length..].to_vec())
}

/// [`inputs`] with the weights under another header.
fn relabelled(dir: &Path, label: impl Fn(&str) -> String) {
    inputs(dir);
    let (header, data) = parts(dir);
    let changed = label(&header);
    assert_ne!(changed, header);
    let bytes = [&(changed.len() as u64).to_le_bytes(), changed.as_bytes(), &data].concat();
    write(dir, "model/model.safetensors", bytes);
}

/// [`inputs`] with the weights as one shard of an index that also names `other`.
fn sharded(dir: &Path, other: &str, file: &str) {
    inputs(dir);
    let (header, _) = parts(dir);
    let header: serde_json::Value = serde_json::from_str(&header).unwrap();
    let mut map: serde_json::Map<String, serde_json::Value> = header
        .as_object()
        .unwrap()
        .keys()
        .filter(|name| *name != "__metadata__")
        .map(|name| (name.clone(), "model-00001-of-00002.safetensors".into()))
        .collect();
    map.insert(other.into(), file.into());
    let model = dir.join("model");
    fs::rename(model.join("model.safetensors"), model.join("model-00001-of-00002.safetensors")).unwrap();
    let index = serde_json::json!({"metadata": {}, "weight_map": map});
    write(dir, "model/model.safetensors.index.json", index.to_string());
}

/// [`inputs`] with a key of `config.json` set.
fn configured(dir: &Path, key: &str, value: serde_json::Value) {
    inputs(dir);
    let path = dir.join("model/config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config[key] = value;
    fs::write(path, config.to_string()).unwrap();
}

/// [`inputs`] whose configuration says Gemma 3, with a field of its own.
fn gemma(dir: &Path, key: &str, value: serde_json::Value) {
    configured(dir, "model_type", "gemma3_text".into());
    let path = dir.join("model/config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config["architectures"] = serde_json::json!(["Gemma3ForCausalLM"]);
    config[key] = value;
    fs::write(path, config.to_string()).unwrap();
}

/// [`inputs`] with an output matrix in the file, too: the embedding with `more` added to its last number.
fn tied_beside(dir: &Path, more: f32) {
    inputs(dir);
    let folder = dir.join("model");
    let decoder = rlt_model::Decoder::load(&folder).unwrap();
    assert!(decoder.config().tie_word_embeddings);
    let slots = rlt_model::parameters::slots(decoder.config());
    let mut tensors: Vec<(String, Vec<usize>, Vec<f32>)> = Vec::new();
    for (slot, tensor) in slots.iter().zip(decoder.parameters().tensors()) {
        let mut numbers = tensor.to_host().into_owned();
        for part in &slot.parts {
            let rest = numbers.split_off(part.shape.iter().product());
            tensors.push((part.name.clone(), part.shape.clone(), std::mem::replace(&mut numbers, rest)));
        }
    }
    let (_, shape, mut head) = tensors[0].clone();
    *head.last_mut().unwrap() += more;
    tensors.push(("lm_head.weight".into(), shape, head));
    let views: Vec<TensorView> =
        tensors.iter().map(|(name, shape, data)| TensorView { name, shape, data }).collect();
    write_safetensors(&folder.join("model.safetensors"), &views, Dtype::F32).unwrap();
}

#[test]
fn wrong_weights() {
    check(&[
        Case {
            name: "a PyTorch file called safetensors",
            setup: |dir| {
                inputs(dir);
                write(
                    dir,
                    "model/model.safetensors",
                    b"PK\x03\x04\0\0\x08\x08archive/data.pkl\x80\x02ctorch",
                );
            },
            args: LOGPROBS,
            code: 1,
            says: &[
                "model/model.safetensors: is not a complete safetensors file of 32 bytes",
                "download it again",
            ],
        },
        Case {
            name: "an empty safetensors file",
            setup: |dir| {
                inputs(dir);
                write(dir, "model/model.safetensors", "");
            },
            args: LOGPROBS,
            code: 1,
            says: &["model/model.safetensors: is not a complete safetensors file of 0 bytes"],
        },
        Case {
            name: "weights without their last byte",
            setup: |dir| {
                inputs(dir);
                let path = dir.join("model/model.safetensors");
                let bytes = fs::read(&path).unwrap();
                fs::write(path, &bytes[..bytes.len() - 1]).unwrap();
            },
            args: LOGPROBS,
            code: 1,
            says: &["model/model.safetensors: is not a complete safetensors file", "truncated or damaged"],
        },
        Case {
            name: "f32 labelled bf16",
            setup: |dir| relabelled(dir, |header| header.replace("\"F32\"", "\"BF16\"")),
            args: LOGPROBS,
            code: 1,
            says: &["model/model.safetensors: is not a complete safetensors file"],
        },
        Case {
            name: "f32 labelled whole numbers of the same size",
            setup: |dir| relabelled(dir, |header| header.replace("\"F32\"", "\"I32\"")),
            args: LOGPROBS,
            code: 1,
            says: &["model/model.safetensors: tensor model.", " is I32, expected F32, BF16 or F16"],
        },
        Case {
            name: "a tensor under another's name",
            setup: |dir| {
                relabelled(dir, |header| {
                    header.replace("layers.1.self_attn.q_proj.weight", "layers.7.self_attn.q_proj.weight")
                });
            },
            args: LOGPROBS,
            code: 1,
            says: &["model/model.safetensors: ", "self_attn.q_proj.weight"],
        },
        Case {
            name: "missing shard",
            setup: |dir| sharded(dir, "lm_head.weight", "model-00002-of-00002.safetensors"),
            args: LOGPROBS,
            code: 1,
            says: &[
                "model/model.safetensors.index.json: the shard model-00002-of-00002.safetensors",
                "is missing from the folder: copy or download it",
            ],
        },
        Case {
            name: "an index that names the wrong shard",
            setup: |dir| sharded(dir, "lm_head.bias", "model-00001-of-00002.safetensors"),
            args: LOGPROBS,
            code: 1,
            says: &[
                "model-00001-of-00002.safetensors: has no tensor lm_head.bias, which the index says it holds",
            ],
        },
        Case {
            name: "an index that points elsewhere",
            setup: |dir| sharded(dir, "lm_head.weight", "../other/model.safetensors"),
            args: LOGPROBS,
            code: 1,
            says: &["model/model.safetensors.index.json: tensor lm_head.weight: ", "is not a file name"],
        },
        Case {
            name: "quantised weights",
            setup: |dir| configured(dir, "quantization_config", serde_json::json!({"quant_method": "fp8"})),
            args: LOGPROBS,
            code: 1,
            says: &["model/config.json: ", "quantization_config"],
        },
        Case {
            name: "a size that is text",
            setup: |dir| configured(dir, "hidden_size", "32".into()),
            args: LOGPROBS,
            code: 1,
            says: &["model/config.json: ", "hidden_size"],
        },
        Case {
            name: "capped logits",
            setup: |dir| gemma(dir, "final_logit_softcapping", 30.0.into()),
            args: LOGPROBS,
            code: 1,
            says: &["model/config.json: final_logit_softcapping = 30 is not supported, only null"],
        },
        Case {
            name: "attention in both directions",
            setup: |dir| gemma(dir, "use_bidirectional_attention", true.into()),
            args: LOGPROBS,
            code: 1,
            says: &["model/config.json: use_bidirectional_attention = true is not supported"],
        },
        Case {
            name: "another gate",
            setup: |dir| gemma(dir, "hidden_activation", "gelu".into()),
            args: LOGPROBS,
            code: 1,
            says: &["hidden_activation \"gelu\" is not supported, only \"gelu_pytorch_tanh\""],
        },
        Case {
            name: "rotary settings of another family",
            setup: |dir| gemma(dir, "sliding_window", 64.into()),
            args: LOGPROBS,
            code: 1,
            says: &["model/config.json: rope_parameters.rope_type is not supported in this family"],
        },
        Case {
            name: "a block of an unknown kind",
            setup: |dir| configured(dir, "layer_types", serde_json::json!(["chunked_attention"])),
            args: LOGPROBS,
            code: 1,
            says: &["model/config.json: layer_types holds \"chunked_attention\"", "are supported"],
        },
        Case {
            name: "another number of layers than the file has",
            setup: |dir| configured(dir, "num_hidden_layers", 3.into()),
            args: LOGPROBS,
            code: 1,
            says: &["model/model.safetensors: has no tensor model.layers.2.", "which config.json asks for"],
        },
        Case {
            name: "a thousand times the layers that the file has",
            setup: |dir| configured(dir, "num_hidden_layers", 2000.into()),
            args: LOGPROBS,
            code: 1,
            says: &[
                "model/model.safetensors: has no tensor model.layers.1999.",
                "which config.json asks for",
            ],
        },
        Case {
            name: "a million layers",
            setup: |dir| configured(dir, "num_hidden_layers", 1_000_000.into()),
            args: LOGPROBS,
            code: 1,
            says: &[
                "model/config.json: num_hidden_layers = 1000000 is beyond what is supported (at most 4096)",
            ],
        },
        Case {
            name: "heads that wrap",
            setup: |dir| configured(dir, "head_dim", (1_u64 << 62).into()),
            args: LOGPROBS,
            code: 1,
            says: &["model/config.json: head_dim = 4611686018427387904 is beyond what is supported"],
        },
        Case {
            name: "a wider model than the file has",
            setup: |dir| configured(dir, "intermediate_size", (1 << 20).into()),
            args: LOGPROBS,
            code: 1,
            says: &["model/model.safetensors: tensor model.layers.0.mlp.gate_proj.weight has shape [32, 32]"],
        },
        Case {
            name: "a larger vocabulary than the file has",
            setup: |dir| configured(dir, "vocab_size", (1 << 24).into()),
            args: LOGPROBS,
            code: 1,
            says: &[
                "model/model.safetensors: tensor model.embed_tokens.weight has shape",
                "expected [16777216, 32]",
            ],
        },
        Case {
            name: "a plan of another vocabulary than the file has",
            setup: |dir| {
                configured(dir, "vocab_size", (1 << 24).into());
                write(
                    dir,
                    "chat.jsonl",
                    "{\"question\":\"a\",\"solution\":\"b\",\"reasoning_trace\":\"c\"}\n",
                );
            },
            args: PLAN,
            code: 1,
            says: &[
                "model/model.safetensors: tensor model.embed_tokens.weight has shape",
                "expected [16777216, 32]",
            ],
        },
        Case {
            name: "a plan of a vocabulary that wraps",
            setup: |dir| configured(dir, "vocab_size", (1_u64 << 62).into()),
            args: PLAN,
            code: 1,
            says: &["model/config.json: vocab_size = 4611686018427387904 is beyond what is supported"],
        },
        Case {
            name: "a tied head beside another head",
            setup: |dir| tied_beside(dir, 1.0),
            args: LOGPROBS,
            code: 1,
            says: &[
                "model/model.safetensors: holds a lm_head.weight that differs from model.embed_tokens.weight",
                "tie_word_embeddings = true; say false there to use it",
            ],
        },
    ]);
}

#[test]
fn a_tied_head_beside_its_copy_is_read() {
    let dir = tempfile::tempdir().unwrap();
    tied_beside(dir.path(), 0.0);
    assert!(rlt_model::Decoder::load(&dir.path().join("model")).unwrap().config().tie_word_embeddings);
}
