//! `rlt import` as a program: GGUF files of every supported architecture, made here, become the folders that they were
//! made of; what is wrong with a file is one line, and nothing is left behind.

use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use rlt_model::Decoder;
use rlt_model::chat_template::ChatTemplate;
use rlt_model::config::{ModelConfig, RopeScaling};
use rlt_model::parameters::slots;
use rlt_model::tokenizer::Tokenizer;
use rlt_model::weights::Weights;
use serde_json::{Value, json};

/// A tensor: name, shape (slowest first), number format, bytes.
type MadeTensor = (String, Vec<usize>, u32, Vec<u8>);

/// A GGUF file in the making.
#[derive(Clone, Default)]
struct Made {
    /// Names and values with their types.
    keys: Vec<(String, Vec<u8>)>,
    tensors: Vec<MadeTensor>,
}

fn text_bytes(value: &str) -> Vec<u8> {
    [&(value.len() as u64).to_le_bytes(), value.as_bytes()].concat()
}

impl Made {
    fn key(&mut self, name: &str, kind: u32, value: &[u8]) {
        self.keys.retain(|(known, _)| known != name);
        self.keys.push((name.to_owned(), [&kind.to_le_bytes(), value].concat()));
    }

    fn size(&mut self, name: &str, value: usize) {
        self.key(name, 4, &(value as u32).to_le_bytes());
    }

    fn number(&mut self, name: &str, value: f64) {
        self.key(name, 6, &(value as f32).to_le_bytes());
    }

    fn text(&mut self, name: &str, value: &str) {
        self.key(name, 8, &text_bytes(value));
    }

    fn flag(&mut self, name: &str, value: bool) {
        self.key(name, 7, &[u8::from(value)]);
    }

    fn list(&mut self, name: &str, kind: u32, values: &[Vec<u8>]) {
        let head = [&kind.to_le_bytes()[..], &(values.len() as u64).to_le_bytes()].concat();
        self.key(name, 9, &[head, values.concat()].concat());
    }

    fn texts<S: AsRef<str>>(&mut self, name: &str, values: &[S]) {
        self.list(name, 8, &values.iter().map(|value| text_bytes(value.as_ref())).collect::<Vec<_>>());
    }

    fn kinds(&mut self, kinds: &[i32]) {
        let values: Vec<Vec<u8>> = kinds.iter().map(|kind| kind.to_le_bytes().to_vec()).collect();
        self.list("tokenizer.ggml.token_type", 5, &values);
    }

    fn tensor(&mut self, name: &str, shape: &[usize], values: &[f32]) {
        let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.tensors.retain(|(known, ..)| known != name);
        self.tensors.push((name.to_owned(), shape.to_vec(), 0, bytes));
    }

    fn write(&self, path: &Path) {
        let mut out = b"GGUF".to_vec();
        out.extend(3_u32.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.keys.len() as u64).to_le_bytes());
        for (name, value) in &self.keys {
            out.extend(text_bytes(name));
            out.extend(value);
        }
        let mut offset = 0_usize;
        for (name, shape, kind, bytes) in &self.tensors {
            out.extend(text_bytes(name));
            out.extend((shape.len() as u32).to_le_bytes());
            out.extend(shape.iter().rev().flat_map(|&n| (n as u64).to_le_bytes()));
            out.extend(kind.to_le_bytes());
            out.extend((offset as u64).to_le_bytes());
            offset = (offset + bytes.len()).next_multiple_of(32);
        }
        for (.., bytes) in &self.tensors {
            out.resize(out.len().next_multiple_of(32), 0);
            out.extend(bytes);
        }
        fs::write(path, out).unwrap();
    }
}

/// The 256 characters that stand for bytes in GPT-2's vocabularies.
fn byte_characters() -> Vec<String> {
    let printable = |b: u32| (33..=126).contains(&b) || (161..=172).contains(&b) || (174..=255).contains(&b);
    let mut next = 255;
    (0..256_u32)
        .map(|b| {
            let code = if printable(b) {
                b
            } else {
                next += 1;
                next
            };
            char::from_u32(code).unwrap().to_string()
        })
        .collect()
}

/// Rows of a head in halves become pairs, as llama.cpp's converter makes them.
fn in_pairs(values: &[f32], columns: usize, width: usize) -> Vec<f32> {
    let mut out = vec![0.0; values.len()];
    for (row, numbers) in values.chunks_exact(columns).enumerate() {
        let (head, at) = (row / width, row % width);
        let to = head * width + 2 * (at % (width / 2)) + at / (width / 2);
        out[to * columns..(to + 1) * columns].copy_from_slice(numbers);
    }
    out
}

/// `model.layers.0.self_attn.q_proj.bias` as `blk.0.attn_q.bias`.
fn gguf_name(name: &str, architecture: &str) -> String {
    let mut name = name.to_owned();
    if architecture == "gemma3" {
        name = name.replace("post_attention_layernorm", "post_attention_norm");
    }
    for (from, to) in [
        ("pre_feedforward_layernorm", "ffn_norm"),
        ("post_feedforward_layernorm", "post_ffw_norm"),
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("lm_head", "output"),
        ("model.layers", "blk"),
        ("post_attention_layernorm", "ffn_norm"),
        ("input_layernorm", "attn_norm"),
        ("self_attn.o_proj", "attn_output"),
        ("self_attn.", "attn_"),
        ("mlp.", "ffn_"),
        ("_proj", ""),
    ] {
        name = name.replace(from, to);
    }
    name
}

const TEMPLATE: &str = "{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}";

/// A model of `config` with random weights, and the file that llama.cpp's converter would make of it.
fn model(dir: &Path, config: &Value) -> (Made, ModelConfig, PathBuf) {
    let config = ModelConfig::from_json(&config.to_string()).unwrap();
    let folder = dir.join("original");
    Decoder::random(&config, 3).save(&folder).unwrap();
    let weights = Weights::open(&folder).unwrap();
    let architecture = config.family.model_type().trim_end_matches("_text");
    let mut made = Made::default();
    made.text("general.architecture", architecture);
    let key = |name: &str| format!("{architecture}.{name}");
    made.size(&key("block_count"), config.n_layers);
    made.size(&key("context_length"), config.max_position_embeddings);
    made.size(&key("embedding_length"), config.hidden_size);
    made.size(&key("feed_forward_length"), config.intermediate_size);
    made.size(&key("attention.head_count"), config.n_heads);
    made.size(&key("attention.head_count_kv"), config.n_kv_heads);
    made.size(&key("attention.key_length"), config.head_dim);
    made.size(&key("attention.value_length"), config.head_dim);
    made.number(&key("attention.layer_norm_rms_epsilon"), config.rms_norm_eps.into());
    made.number(&key("rope.freq_base"), config.rope.theta);
    if let Some(windows) = &config.windows {
        made.size(&key("attention.sliding_window"), windows.tokens);
    }
    for part in slots(&config).into_iter().flat_map(|slot| slot.parts) {
        let mut values = weights.read_f32(&part.name, &part.shape).unwrap();
        if part.name.ends_with("bias") {
            // Random models have none: something that an order shows in.
            values = (0..values.len()).map(|i| i as f32).collect();
        }
        let turned = part.name.contains(".q_proj") || part.name.contains(".k_proj");
        if architecture == "llama" && turned {
            let columns = if part.shape.len() == 1 { 1 } else { part.shape[1] };
            values = in_pairs(&values, columns, config.head_dim);
        }
        if architecture == "gemma3" && part.name.ends_with("norm.weight") {
            for x in &mut values {
                *x += 1.0;
            }
        }
        made.tensor(&gguf_name(&part.name, architecture), &part.shape, &values);
    }
    let mut tokens = byte_characters();
    tokens.extend(["Ġt", "he", "Ġthe", "<|end|>", "<|tool|>", "[PAD]"].map(str::to_owned));
    let n = tokens.len();
    made.text("tokenizer.ggml.model", "gpt2");
    made.text("tokenizer.ggml.pre", "gpt-2");
    made.texts("tokenizer.ggml.tokens", &tokens);
    made.texts("tokenizer.ggml.merges", &["Ġ t", "h e", "Ġt he"]);
    let kinds: Vec<i32> =
        (0..n).map(|i| [3, 4, 5].get((i + 3).wrapping_sub(n)).copied().unwrap_or(1)).collect();
    made.kinds(&kinds);
    made.size("tokenizer.ggml.eos_token_id", 259);
    made.size("tokenizer.ggml.bos_token_id", 259);
    made.text("tokenizer.chat_template", TEMPLATE);
    (made, config, folder)
}

/// A small model of this family.
fn config(family: &str, own: &Value) -> Value {
    let mut config = json!({
        "model_type": family, "vocab_size": 264, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5, "rope_theta": 50000.0, "tie_word_embeddings": true, "hidden_act": "silu",
    });
    for (key, value) in own.as_object().unwrap() {
        config[key] = value.clone();
    }
    config
}

fn import(dir: &Path, args: &[&str]) -> assert_cmd::assert::Assert {
    Command::new(assert_cmd::cargo::cargo_bin!("rlt"))
        .current_dir(dir)
        .args(["import", "model.gguf", "--out", "imported", "-q"])
        .args(args)
        .assert()
}

/// Imports `made` and gives the refusal; checks that it is one line and that nothing was left.
fn refusal(made: &Made, args: &[&str]) -> String {
    let dir = tempfile::tempdir().unwrap();
    made.write(&dir.path().join("model.gguf"));
    let assert = import(dir.path(), args).failure().stdout("");
    let stderr = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.starts_with("error: "), "{stderr}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "something was left: {stderr}");
    stderr
}

/// Every weight of the two folders has the same bits, but for biases, which count up in both.
fn same_weights(config: &ModelConfig, original: &Path, imported: &Path) {
    let [original, imported] = [original, imported].map(|dir| Weights::open(dir).unwrap());
    for part in slots(config).into_iter().flat_map(|slot| slot.parts) {
        let bits = |weights: &Weights| -> Vec<u32> {
            weights.read_f32(&part.name, &part.shape).unwrap().into_iter().map(f32::to_bits).collect()
        };
        if part.name.ends_with("bias") {
            let counting: Vec<u32> = (0..part.shape[0]).map(|i| (i as f32).to_bits()).collect();
            assert_eq!(bits(&imported), counting, "{}", part.name);
        } else {
            assert_eq!(bits(&imported), bits(&original), "{}", part.name);
        }
    }
}

#[test]
fn every_family_comes_back_bit_for_bit() {
    let cases = [
        ("llama", json!({})),
        ("llama", json!({"tie_word_embeddings": false, "attention_bias": true, "head_dim": 4})),
        ("qwen2", json!({"tie_word_embeddings": false})),
        ("qwen3", json!({"head_dim": 16})),
        // The sixth and last block attends to everything.
        (
            "gemma3_text",
            json!({
                "num_hidden_layers": 6, "sliding_window": 5, "query_pre_attn_scalar": 8, "rope_theta": 1e6,
                "hidden_activation": "gelu_pytorch_tanh", "hidden_act": null,
            }),
        ),
    ];
    for (family, own) in cases {
        let dir = tempfile::tempdir().unwrap();
        let (made, config, original) = model(dir.path(), &config(family, &own));
        made.write(&dir.path().join("model.gguf"));
        let assert = import(dir.path(), &["--dtype", "f32", "--json"]).success().stderr("");
        let answer: Value = serde_json::from_slice(&assert.get_output().stdout).unwrap();
        let architecture = family.trim_end_matches("_text");
        assert_eq!((&answer["architecture"], &answer["own_tokenizer"]), (&json!(architecture), &json!(true)));
        let imported = dir.path().join("imported");
        same_weights(&config, &original, &imported);
        let read = ModelConfig::from_dir(&imported).unwrap();
        assert_eq!(read, ModelConfig { eos_token_ids: vec![259], ..config }, "{family}");
        Decoder::load(&imported).unwrap();

        let tokenizer = Tokenizer::from_dir(&imported).unwrap();
        assert_eq!(tokenizer.encode(" the<|end|>e").unwrap(), [258, 259, u32::from(b'e')]);
        assert!(tokenizer.is_added_token(260) && tokenizer.token_to_id("[PAD]").is_none());
        let template = ChatTemplate::from_dir(&imported).unwrap();
        let message = rlt_model::chat_template::Message { role: "user".into(), content: "hi".into() };
        assert_eq!(template.render(&[message], false).unwrap(), "hi<|end|>");
    }
}

#[test]
fn bf16_is_the_default_and_rounds_to_nearest() {
    let dir = tempfile::tempdir().unwrap();
    let (mut made, config, _) = model(dir.path(), &config("qwen2", &json!({})));
    let n = config.hidden_size;
    made.tensor("output_norm.weight", &[n], &vec![1.0 + 1.0 / 300.0; n]);
    made.write(&dir.path().join("model.gguf"));
    import(dir.path(), &[]).success();
    let weights = Weights::open(&dir.path().join("imported")).unwrap();
    assert_eq!(weights.read_f32("model.norm.weight", &[n]).unwrap(), vec![1.0; n]);
    assert_eq!(weights.dtype("model.norm.weight").unwrap().torch_name(), "bfloat16");
    let config: Value =
        serde_json::from_str(&fs::read_to_string(dir.path().join("imported/config.json")).unwrap()).unwrap();
    assert_eq!((&config["torch_dtype"], &config["eos_token_id"]), (&json!("bfloat16"), &json!(259)));
}

/// The scaling of the imported model, after `change` to a llama's or qwen2's file.
fn scaling(family: &str, change: impl Fn(&mut Made)) -> RopeScaling {
    let dir = tempfile::tempdir().unwrap();
    let (mut made, ..) =
        model(dir.path(), &config(family, &json!({"head_dim": 64, "rope_theta": 500_000.0})));
    change(&mut made);
    made.write(&dir.path().join("model.gguf"));
    import(dir.path(), &[]).success();
    ModelConfig::from_dir(&dir.path().join("imported")).unwrap().rope.scaling
}

#[test]
fn rotary_scalings_are_honoured() {
    assert_eq!(scaling("llama", |_| ()), RopeScaling::None);
    let linear = scaling("llama", |made| made.number("llama.rope.scale_linear", 4.0));
    assert_eq!(linear, RopeScaling::Linear { factor: 4.0 });
    let yarn = scaling("qwen2", |made| {
        made.text("qwen2.rope.scaling.type", "yarn");
        made.number("qwen2.rope.scaling.factor", 4.0);
        made.size("qwen2.rope.scaling.original_context_length", 128);
    });
    let attention_factor = 0.1 * 4_f64.ln() + 1.0;
    let expected = RopeScaling::Yarn {
        factor: 4.0,
        attention_factor,
        beta_fast: 32.0,
        beta_slow: 1.0,
        original_context: 128.0,
        truncate: true,
    };
    assert_eq!(yarn, expected);
    // Llama 3.2's factors, as its converter computes them.
    let llama3 = scaling("llama", |made| {
        let factors: Vec<f32> = (0..32)
            .map(|i| {
                let wavelength = 2.0 * std::f64::consts::PI * 500_000_f64.powf(f64::from(i) / 32.0);
                let smooth = (8192.0 / wavelength - 1.0) / 3.0;
                (1.0 / ((1.0 - smooth.clamp(0.0, 1.0)) / 32.0 + smooth.clamp(0.0, 1.0))) as f32
            })
            .collect();
        made.tensor("rope_freqs.weight", &[32], &factors);
    });
    let expected = RopeScaling::Llama3 {
        factor: 32.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_context: 8192.0,
    };
    assert_eq!(llama3, expected);
}

#[test]
fn what_a_file_asks_for_and_is_not_there_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let (good, config, _) = model(dir.path(), &config("llama", &json!({})));
    let with = |change: &dyn Fn(&mut Made)| {
        let mut made = good.clone();
        change(&mut made);
        made
    };
    let without = |name: &str| {
        with(&|made| {
            made.tensors.retain(|(known, ..)| known != name);
            made.keys.retain(|(known, _)| known != name);
        })
    };
    let (d, n) = (config.hidden_size, config.vocab_size);
    let cases: Vec<(Made, &str)> = vec![
        (without("general.architecture"), "general.architecture none is not supported"),
        (
            with(&|m| m.text("general.architecture", "gemma2")),
            "general.architecture \"gemma2\" is not supported",
        ),
        (with(&|m| m.number("llama.rope.freq_base_swa", 1e4)), "is not known for a llama model"),
        (
            with(&|m| m.text("general.architecture", "mamba")),
            "general.architecture \"mamba\" is not supported (supported: llama",
        ),
        (with(&|m| m.text("general.type", "adapter")), "holds a \"adapter\", not a model"),
        (with(&|m| m.size("split.count", 3)), "is one of 3 parts of a model: join them"),
        (with(&|m| m.size("general.quantization_version", 1)), "general.quantization_version = 1"),
        (without("llama.block_count"), "has no metadata llama.block_count"),
        (
            with(&|m| m.size("llama.block_count", 4_000_000_000)),
            "llama.block_count = 4000000000 is not possible",
        ),
        (with(&|m| m.size("llama.block_count", 1_000_000)), "llama.block_count = 1000000, but it holds"),
        (with(&|m| m.size("llama.block_count", 3)), "has no tensor blk.2.attn_norm.weight"),
        (with(&|m| m.size("llama.block_count", 1)), "holds the tensor blk.1."),
        (
            with(&|m| m.text("llama.embedding_length", "16")),
            "llama.embedding_length is a text, not a whole number",
        ),
        (
            with(&|m| m.size("llama.embedding_length", 32)),
            "has the shape [264, 16], its metadata wants [264, 32]",
        ),
        (with(&|m| m.size("llama.attention.head_count", 3)), "describes a model that is not supported"),
        (
            with(&|m| m.size("llama.attention.key_length", 7)),
            "llama.attention.value_length = 8 is not supported",
        ),
        (
            with(&|m| m.size("llama.rope.dimension_count", 4)),
            "llama.rope.dimension_count = 4 is not supported",
        ),
        (
            with(&|m| m.size("llama.attention.sliding_window", 64)),
            "llama.attention.sliding_window = 64 is not supported",
        ),
        (with(&|m| m.size("llama.expert_count", 8)), "llama.expert_count: mixtures of experts"),
        (with(&|m| m.number("llama.logit_scale", 2.0)), "its metadata llama.logit_scale is not known"),
        (
            with(&|m| m.flag("llama.attention.causal", false)),
            "llama.attention.causal = false is not supported",
        ),
        (
            with(&|m| m.text("llama.tensor_data_layout", "other")),
            "llama.tensor_data_layout \"other\" is not known",
        ),
        (
            with(&|m| m.text("llama.rope.scaling.type", "longrope")),
            "llama.rope.scaling.type \"longrope\" is not supported",
        ),
        (with(&|m| m.text("llama.rope.scaling.type", "linear")), "llama.rope.scaling.factor is missing"),
        (with(&|m| m.number("llama.rope.scaling.attn_factor", 2.0)), "llama.rope.scaling.attn_factor = 2"),
        (
            with(&|m| m.tensor("rope_freqs.weight", &[4], &[1.0, 1.0, 2.0, 7.5])),
            "the factors of rope_freqs.weight are not those",
        ),
        (
            with(&|m| m.tensor("rope_freqs.weight", &[3], &[1.0; 3])),
            "rope_freqs.weight has the shape [3], not [4]",
        ),
        (
            with(&|m| m.tensor("blk.0.ffn_gate_inp.weight", &[1, d], &vec![0.0; d])),
            "holds the tensor blk.0.ffn_gate_inp.weight",
        ),
        (with(&|m| m.tensor("blk.0.attn_q.bias", &[32], &[0.0; 32])), "the biases of its attention"),
        (
            with(&|m| m.tensor("output_norm.weight", &[d], &vec![f32::NAN; d])),
            "tensor output_norm.weight: number 0 is NaN",
        ),
        (
            with(&|m| m.text("tokenizer.ggml.model", "llama")),
            "puts a space before a text (tokenizer.ggml.add_space_prefix is not false), which cannot be built from it; give",
        ),
        (
            with(&|m| m.text("tokenizer.ggml.model", "bert")),
            "tokenizer.ggml.model \"bert\" cannot be built; give",
        ),
        (without("tokenizer.ggml.model"), "tokenizer.ggml.model none cannot be built; give"),
        (
            with(&|m| m.text("tokenizer.ggml.pre", "tekken")),
            "tokenizer.ggml.pre \"tekken\" is not known (known: smollm",
        ),
        (without("tokenizer.ggml.pre"), "tokenizer.ggml.pre none is not known"),
        (
            with(&|m| m.texts("tokenizer.ggml.merges", &["one"])),
            "tokenizer.ggml.merges, entry 0: \"one\" is not two tokens",
        ),
        (with(&|m| m.texts("tokenizer.ggml.merges", &["x absent"])), "its vocabulary makes no tokenizer"),
        (with(&|m| m.kinds(&[1])), "tokenizer.ggml.token_type has 1 entries for 262 tokens"),
        (
            with(&|m| m.size("tokenizer.ggml.eos_token_id", 999)),
            "tokenizer.ggml.eos_token_id = 999, but the embedding has 264 rows",
        ),
        (
            with(&|m| m.texts("tokenizer.ggml.tokens", &vec!["a"; n + 1])),
            "tokenizer.ggml.tokens has 265 tokens, the embedding 264 rows",
        ),
        (
            with(&|m| {
                m.texts("tokenizer.ggml.tokens", &["a", "a"]);
                m.kinds(&[1, 1]);
            }),
            "tokenizer.ggml.tokens has \"a\" twice (ids 0 and 1)",
        ),
    ];
    for (made, says) in cases {
        let message = refusal(&made, &[]);
        assert!(message.contains(says), "{message} does not say {says:?}");
    }
    let large = with(&|m| m.tensor("output_norm.weight", &[d], &vec![1e30; d]));
    assert!(refusal(&large, &["--dtype", "f16"]).contains("which float16 cannot hold"));
}

#[test]
fn a_folder_with_something_in_it_is_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let (made, ..) = model(dir.path(), &config("qwen2", &json!({})));
    made.write(&dir.path().join("model.gguf"));
    fs::create_dir(dir.path().join("imported")).unwrap();
    import(dir.path(), &[]).success();
    let before = fs::read(dir.path().join("imported/model.safetensors")).unwrap();
    fs::write(dir.path().join("imported/notes.txt"), "mine").unwrap();
    let assert = import(dir.path(), &["--dtype", "f32"]).code(2);
    let stderr = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
    assert!(stderr.contains("--out imported: the folder is not empty"), "{stderr}");
    assert_eq!(fs::read(dir.path().join("imported/model.safetensors")).unwrap(), before);
    assert_eq!(fs::read(dir.path().join("imported/notes.txt")).unwrap(), b"mine");
    // A cut file leaves nothing.
    let whole = fs::read(dir.path().join("model.gguf")).unwrap();
    fs::remove_dir_all(dir.path().join("imported")).unwrap();
    for share in [1, 30, 60, 99] {
        fs::write(dir.path().join("model.gguf"), &whole[..whole.len() * share / 100]).unwrap();
        import(dir.path(), &[]).code(1);
        assert!(!dir.path().join("imported").exists());
    }
}

#[test]
fn a_tokenizer_can_be_given_and_must_be_the_model_s() {
    let dir = tempfile::tempdir().unwrap();
    let (mut made, ..) = model(dir.path(), &config("qwen2", &json!({})));
    let path = dir.path().join("model.gguf");
    made.write(&path);
    import(dir.path(), &[]).success();
    fs::rename(dir.path().join("imported"), dir.path().join("first")).unwrap();
    // The same tokens under a kind that cannot be built.
    made.text("tokenizer.ggml.model", "llama");
    made.write(&path);
    for given in ["first", "first/tokenizer.json"] {
        import(dir.path(), &["--tokenizer", given]).success();
        for name in ["tokenizer.json", "tokenizer_config.json"] {
            let [ours, theirs] =
                ["imported", "first"].map(|folder| fs::read(dir.path().join(folder).join(name)).unwrap());
            assert_eq!(ours, theirs, "{name}");
        }
        fs::remove_dir_all(dir.path().join("imported")).unwrap();
    }
    let mut tokens = byte_characters();
    tokens.swap(40, 41);
    made.texts("tokenizer.ggml.tokens", &tokens);
    made.kinds(&[1; 256]);
    made.write(&path);
    let assert = import(dir.path(), &["--tokenizer", "first"]).code(1);
    let stderr = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
    assert!(
        stderr.contains("the model's token \")\" (id 40) is id 41 here: it is another model's"),
        "{stderr}"
    );
    let assert = import(dir.path(), &["--tokenizer", "absent.json"]).code(1);
    let stderr = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
    assert!(stderr.contains("absent.json: No such file"), "{stderr}");
}

/// Texts that pre-tokenizers disagree on.
const TEXTS: [&str; 8] = [
    "Naïve café — 12,345.67 × 日本語 \t\n\n  spaces   and 1000000 don't I'LL  ",
    "<|im_start|>user\nHow many?<|im_end|>\n",
    "def f(x):\n    return x**2 + 3  # comment\n\n\n",
    "\\frac{\\pi}{2} \\le 10^{-3} $$x_1$$",
    "e\u{301}mile 😀👩‍👩‍👧 ﷺ ①② ½",
    " leading\r\nCRLF\u{a0}nbsp",
    "2024-01-02T03:04:05Z 007 0x1F",
    "",
];

#[expect(clippy::print_stdout, reason = "a test that is skipped says so")]
fn tell_skipped(path: &Path) {
    println!("skipped: {} is not there", path.display());
}

/// The ids of a tokenizer built from the file are those of the model's own `tokenizer.json`.
fn same_ids(own: &Path, kind: &str) {
    if !own.exists() {
        return tell_skipped(own);
    }
    let json: Value = serde_json::from_str(&fs::read_to_string(own).unwrap()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut tokens: Vec<Option<(String, i32)>> = Vec::new();
    let mut place = |id: &Value, token: &str, kind: i32| {
        let id = id.as_u64().unwrap() as usize;
        tokens.resize(tokens.len().max(id + 1), None);
        tokens[id] = Some((token.to_owned(), kind));
    };
    for (token, id) in json["model"]["vocab"].as_object().unwrap() {
        place(id, token, 1);
    }
    for token in json["added_tokens"].as_array().unwrap() {
        let kind = if token["special"] == true { 3 } else { 4 };
        place(&token["id"], token["content"].as_str().unwrap(), kind);
    }
    let tokens: Vec<(String, i32)> = tokens.into_iter().map(Option::unwrap).collect();
    let shape = json!({"vocab_size": tokens.len(), "hidden_size": 2, "head_dim": 2, "num_attention_heads": 1,
                       "num_key_value_heads": 1, "intermediate_size": 2, "num_hidden_layers": 1});
    let (mut made, ..) = model(dir.path(), &config("qwen2", &shape));
    made.text("tokenizer.ggml.pre", kind);
    made.texts("tokenizer.ggml.tokens", &tokens.iter().map(|(token, _)| token).collect::<Vec<_>>());
    made.kinds(&tokens.iter().map(|(_, kind)| *kind).collect::<Vec<_>>());
    let named = json["added_tokens"][0]["id"].as_u64().unwrap() as usize;
    made.size("tokenizer.ggml.eos_token_id", named);
    made.size("tokenizer.ggml.bos_token_id", named);
    let merges: Vec<String> = json["model"]["merges"]
        .as_array()
        .unwrap()
        .iter()
        .map(|merge| match merge {
            Value::String(merge) => merge.clone(),
            pair => format!("{} {}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap()),
        })
        .collect();
    made.texts("tokenizer.ggml.merges", &merges);
    made.write(&dir.path().join("model.gguf"));
    import(dir.path(), &[]).success();
    let built = Tokenizer::from_dir(&dir.path().join("imported")).unwrap();
    let own_tokenizer = Tokenizer::from_json(&json.to_string()).unwrap();
    assert_eq!(built.vocabulary_hash(), own_tokenizer.vocabulary_hash());
    let vectors = own.with_file_name("ggml-vocab-qwen2.gguf.inp");
    let more = fs::read_to_string(vectors).unwrap_or_default();
    let source = fs::read_to_string(file!()).unwrap_or_default();
    let texts = TEXTS.into_iter().chain(more.split("\n__ggml_vocab_test__\n")).chain(source.lines());
    let mut n = 0;
    for text in texts {
        assert_eq!(built.encode(text).unwrap(), own_tokenizer.encode(text).unwrap(), "{text:?}");
        n += 1;
    }
    assert!(n > 100, "{n} texts");
}

#[test]
fn smollm2_s_vocabulary_gives_its_own_ids() {
    same_ids(Path::new("../shared/data/tokenizers/smollm2/tokenizer.json"), "smollm");
}

#[test]
fn qwen2_s_vocabulary_gives_its_own_ids() {
    same_ids(Path::new("../shared/data/tokenizers/qwen2.5/tokenizer.json"), "qwen2");
}

#[test]
fn llama_3_s_pieces_are_cut_by_threes_and_taken_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (mut made, ..) = model(dir.path(), &config("llama", &json!({})));
    let mut tokens = byte_characters();
    // "345" is a token that no merge makes; "<|begin|>" goes before a text in transformers.
    tokens.extend(["345", "<|begin|>"].map(str::to_owned));
    made.texts("tokenizer.ggml.tokens", &tokens);
    made.kinds(&[vec![1; 257], vec![3]].concat());
    made.texts::<&str>("tokenizer.ggml.merges", &[]);
    made.text("tokenizer.ggml.pre", "llama-bpe");
    made.size("tokenizer.ggml.bos_token_id", 257);
    made.size("tokenizer.ggml.eos_token_id", 257);
    made.write(&dir.path().join("model.gguf"));
    import(dir.path(), &[]).success();
    let folder = dir.path().join("imported");
    let tokenizer = Tokenizer::from_dir(&folder).unwrap();
    let digit = |c: u8| u32::from(c);
    // 12 + 3 by threes would be "123" + "45"; "345" stands alone only after a letter.
    assert_eq!(tokenizer.encode("12345").unwrap(), [b'1', b'2', b'3', b'4', b'5'].map(digit));
    assert_eq!(tokenizer.encode("a345").unwrap(), [digit(b'a'), 256]);
    assert_eq!(tokenizer.encode("123345").unwrap(), [digit(b'1'), digit(b'2'), digit(b'3'), 256]);
    let json: Value =
        serde_json::from_str(&fs::read_to_string(folder.join("tokenizer.json")).unwrap()).unwrap();
    assert_eq!(json["post_processor"]["single"][0]["SpecialToken"]["id"], "<|begin|>");
}

#[test]
fn sentence_pieces_are_joined_by_their_scores_and_the_rest_is_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let (mut made, ..) = model(dir.path(), &config("llama", &json!({"vocab_size": 300})));
    // Joining by length or by the order of ids would give other pieces: "▁a" goes before "ab".
    let pieces = [("a", -9.0), ("b", -9.0), ("▁", -9.0), ("ab", -2.0), ("▁a", -1.0), ("abab", -3.0)];
    let mut tokens: Vec<String> = ["<unk>", "<bos>", "<eos>", "  "].map(str::to_owned).into();
    tokens.extend((0..256).map(|byte| format!("<0x{byte:02X}>")));
    tokens.extend(pieces.iter().map(|(text, _)| (*text).to_owned()));
    let id = |text: &str| tokens.iter().position(|token| token == text).unwrap() as u32;
    let scores = [0.0_f32; 260].into_iter().chain(pieces.iter().map(|(_, score)| *score));
    let scores: Vec<Vec<u8>> = scores.map(|score| score.to_le_bytes().to_vec()).collect();
    made.text("tokenizer.ggml.model", "llama");
    made.texts("tokenizer.ggml.tokens", &tokens);
    made.list("tokenizer.ggml.scores", 6, &scores);
    made.kinds(&[vec![2, 3, 3, 4], vec![6; 256], vec![1; pieces.len()]].concat());
    made.flag("tokenizer.ggml.add_space_prefix", false);
    made.size("tokenizer.ggml.unknown_token_id", 0);
    made.size("tokenizer.ggml.bos_token_id", 1);
    made.size("tokenizer.ggml.eos_token_id", 2);
    made.write(&dir.path().join("model.gguf"));
    import(dir.path(), &[]).success();
    let tokenizer = Tokenizer::from_dir(&dir.path().join("imported")).unwrap();
    for (text, expected) in [
        ("ab", &["ab"][..]),
        (" ab", &["▁a", "b"]),
        ("abab", &["abab"]),
        ("a  b", &["a", "  ", "b"]),
        ("xé", &["<0x78>", "<0xC3>", "<0xA9>"]),
    ] {
        let ids = tokenizer.encode(text).unwrap();
        assert_eq!(ids, expected.iter().map(|piece| id(piece)).collect::<Vec<_>>(), "{text:?}");
        assert_eq!(tokenizer.decode(&ids), text);
    }
    for (change, expected) in [
        (
            Box::new(|made: &mut Made| made.list("tokenizer.ggml.scores", 6, &[])) as Box<dyn Fn(&mut Made)>,
            "has 0 entries for",
        ),
        (Box::new(|made: &mut Made| made.kinds(&[1; 266])), "has 0 byte tokens, not 256"),
    ] {
        let mut wrong = made.clone();
        change(&mut wrong);
        let said = refusal(&wrong, &[]);
        assert!(said.contains(expected), "{said}");
    }
    let mut long = tokens.clone();
    long[265] = "a".repeat(300);
    made.texts("tokenizer.ggml.tokens", &long);
    let said = refusal(&made, &[]);
    assert!(said.contains("entry 265 is a piece of 300 bytes"), "{said}");
}
