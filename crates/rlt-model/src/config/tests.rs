//! Golden frequencies were printed by `tests/parity/rope_golden.py` (numpy 2, float32).

use super::*;
use crate::shared_data::shared;

/// A small valid Llama configuration with `changes` merged in; null removes nothing.
fn llama(changes: &Value) -> String {
    let mut config = json!({
        "model_type": "llama", "vocab_size": 512, "hidden_size": 128, "intermediate_size": 344,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "eos_token_id": [2, 7],
    });
    for (key, value) in changes.as_object().expect("an object") {
        config[key] = value.clone();
    }
    config.to_string()
}

fn read(changes: &Value) -> ModelConfig {
    ModelConfig::from_json(&llama(changes)).expect("a supported configuration")
}

fn refusal(changes: &Value) -> String {
    ModelConfig::from_json(&llama(changes)).expect_err("must be refused").to_string()
}

fn assert_frequencies(changes: &Value, golden: (&[f32], f32)) {
    let config = read(changes);
    let (freqs, factor) = config.rope.inv_freq(config.head_dim);
    assert_eq!(freqs.len(), golden.0.len());
    for (i, (ours, theirs)) in freqs.iter().zip(golden.0).enumerate() {
        assert_eq!(ours, theirs, "{changes}: frequency {i}");
    }
    assert_eq!(factor, golden.1, "{changes}");
}

#[test]
fn rope_frequencies_equal_those_of_transformers() {
    assert_frequencies(&json!({"rope_theta": 1e6}), (&DEFAULT.0, DEFAULT.1));
    assert_frequencies(&json!({"rope_scaling": {"type": "linear", "factor": 4.0}}), (&LINEAR.0, LINEAR.1));
    let llama3 = json!({
        "head_dim": 64,
        "rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192},
    });
    assert_frequencies(&llama3, (&LLAMA3.0, LLAMA3.1));
    let yarn = json!({
        "head_dim": 128, "rope_theta": 1e6,
        "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
    });
    assert_frequencies(&yarn, (&YARN_QWEN.0, YARN_QWEN.1));
    let mscale = json!({
        "head_dim": 64,
        "rope_scaling": {"rope_type": "yarn", "factor": 40.0, "mscale": 1.0, "mscale_all_dim": 0.5,
            "truncate": false},
    });
    assert_frequencies(&mscale, (&YARN_MSCALE.0, YARN_MSCALE.1));
}

#[test]
fn both_spellings_of_rope_settings_mean_the_same() {
    let v4 = read(&json!({"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2.0}}));
    let v5 = read(&json!({"rope_parameters": {"rope_theta": 5e5, "rope_type": "linear", "factor": 2.0}}));
    assert_eq!(v4, v5);
    assert_eq!(v4.rope.theta, 5e5);
    assert_eq!(v4.rope.scaling, RopeScaling::Linear { factor: 2.0 });
}

#[test]
fn rope_scaling_beside_rope_parameters_takes_their_place() {
    let yarn = json!({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768});
    let default = json!({"rope_type": "default", "rope_theta": 1e6});
    // Qwen's recipe for long texts, in a file that transformers 5 wrote. The theta is the one that transformers takes:
    // of rope_scaling, else of the file's top.
    let alone = read(&json!({"head_dim": 128, "rope_theta": 1e6, "rope_scaling": yarn}));
    let mut with_theta = yarn.clone();
    with_theta["rope_theta"] = json!(1e6);
    for changes in [
        json!({"head_dim": 128, "rope_parameters": default, "rope_scaling": yarn, "rope_theta": 1e6}),
        json!({"head_dim": 128, "rope_parameters": default, "rope_scaling": with_theta, "rope_theta": null}),
    ] {
        assert_eq!(read(&changes), alone, "{changes}");
        assert_frequencies(&changes, (&YARN_QWEN.0, YARN_QWEN.1));
    }
    // transformers would compute with 10,000, its default.
    let dropped = json!({"rope_theta": null, "rope_parameters": default, "rope_scaling": {"type": "linear", "factor": 2}});
    let message = refusal(&dropped);
    assert!(message.contains("rope_theta = 10000") && message.contains("into rope_scaling"), "{message}");
    // What says nothing takes nothing's place.
    for nothing in [Value::Null, json!({})] {
        let config = read(&json!({"rope_parameters": default, "rope_scaling": nothing}));
        assert_eq!((config.rope.theta, config.rope.scaling), (1e6, RopeScaling::None));
    }
}

#[test]
fn a_stretched_context_is_as_long_as_vllm_takes_it() {
    let context =
        |rope: Value| read(&json!({"max_position_embeddings": 4096, "rope_scaling": rope})).context();
    assert_eq!(context(Value::Null), 4096);
    assert_eq!(
        context(json!({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096})),
        16384
    );
    assert_eq!(context(json!({"type": "yarn", "factor": 4.0})), 16384);
    assert_eq!(context(json!({"type": "yarn", "original_max_position_embeddings": 1024})), 4096);
    assert_eq!(context(json!({"type": "linear", "factor": 2.5})), 10240);
    let llama3 = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 1024});
    assert_eq!(context(llama3), 4096);
}

#[test]
fn sizes_that_no_model_has_are_refused_by_name() {
    let most = u64::MAX;
    for (key, values) in [
        ("num_hidden_layers", vec![1_000_000, 1_000_000_000, 1 << 62, most]),
        ("num_attention_heads", vec![1 << 20, 1 << 62, most]),
        ("num_key_value_heads", vec![1 << 40, most]),
        ("head_dim", vec![1 << 20, 1 << 40, 1 << 62, most - 1]),
        ("hidden_size", vec![1 << 40, 1 << 62, most]),
        ("intermediate_size", vec![1 << 40, 1 << 62, most]),
        ("vocab_size", vec![1 << 25, 1 << 40, 1 << 62, most]),
        ("max_position_embeddings", vec![1 << 40, most]),
    ] {
        for value in values {
            let message = refusal(&json!({ key: value }));
            assert!(message.contains(key) && message.contains("beyond what is supported"), "{message}");
        }
    }
    for (changes, named) in [
        (
            json!({"num_attention_heads": 1 << 14, "num_key_value_heads": 1, "head_dim": 1 << 14}),
            "num_attention_heads * head_dim",
        ),
        (
            json!({"vocab_size": 1 << 24, "hidden_size": 1 << 20, "intermediate_size": 1 << 20, "num_hidden_layers": 4096,
            "head_dim": 64}),
            "parameters",
        ),
        (json!({"rope_scaling": {"type": "yarn", "factor": 1e300}}), "context"),
        (json!({"rope_scaling": {"type": "linear", "factor": 1e9}}), "context"),
    ] {
        let message = refusal(&changes);
        assert!(message.contains("config.json") && message.contains(named), "{changes}: {message}");
    }
    // The largest models there are, and more.
    read(
        &json!({"num_hidden_layers": 126, "hidden_size": 16384, "intermediate_size": 53248, "vocab_size": 128256,
        "num_attention_heads": 128, "num_key_value_heads": 8, "max_position_embeddings": 131_072}),
    );
    read(&json!({"max_position_embeddings": 10_485_760, "vocab_size": 1_048_576}));
}

#[test]
fn what_is_written_reads_back_equal() {
    let scalings = [
        json!({"rope_type": "default"}),
        json!({"rope_type": "linear", "factor": 2.0}),
        json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 1024}),
        json!({"rope_type": "yarn", "factor": 4.0, "mscale": 1.0, "mscale_all_dim": 0.7, "truncate": false}),
    ];
    for (model_type, scaling) in
        ["llama", "qwen2", "qwen3", "mistral"].into_iter().flat_map(|m| scalings.iter().map(move |s| (m, s)))
    {
        let config = read(&json!({
            "model_type": model_type, "rope_scaling": scaling, "sliding_window": null, "head_dim": 48,
            "tie_word_embeddings": true,
        }));
        let mut written = config.to_json();
        assert_eq!(ModelConfig::from_json(&written.to_string()).expect("reads back"), config);
        // Each spelling alone carries everything.
        let object = written.as_object_mut().expect("an object");
        let rope_parameters = object.shift_remove("rope_parameters");
        assert_eq!(ModelConfig::from_json(&json!(object).to_string()).expect("v4 fields"), config);
        object.shift_remove("rope_theta");
        object.shift_remove("rope_scaling");
        object.insert("rope_parameters".into(), rope_parameters.expect("was written"));
        assert_eq!(ModelConfig::from_json(&json!(object).to_string()).expect("v5 fields"), config);
    }
}

#[test]
fn fields_that_change_the_arithmetic_are_honoured_or_refused_by_name() {
    for (changes, named) in [
        (json!({"model_type": "gpt2"}), "\"gpt2\""),
        (json!({"architectures": ["LlamaForSequenceClassification"]}), "LlamaForSequenceClassification"),
        (json!({"hidden_act": "gelu"}), "hidden_act"),
        (json!({"attention_bias": "yes"}), "attention_bias"),
        (json!({"mlp_bias": true}), "mlp_bias"),
        (json!({"quantization_config": {"bits": 4}}), "quantization_config"),
        (json!({"partial_rotary_factor": 0.5}), "partial_rotary_factor"),
        (json!({"rope_scaling": {"type": "dynamic", "factor": 2.0}}), "\"dynamic\""),
        (json!({"rope_scaling": {"type": "default", "mrope_section": [16, 24, 24]}}), "mrope_section"),
        (json!({"rope_scaling": {"type": "linear"}}), "rope_scaling.factor"),
        (json!({"rope_scaling": {"type": "linear", "factor": 0.0}}), "factor"),
        (json!({"model_type": "mistral", "sliding_window": 0}), "sliding_window"),
        (json!({"model_type": "mistral", "sliding_window": 1_u64 << 40}), "sliding_window"),
        (
            json!({"model_type": "mistral", "layer_types": ["full_attention", "sliding_attention"]}),
            "layer_types",
        ),
        (
            json!({"model_type": "qwen3", "use_sliding_window": true, "sliding_window": 8,
                "layer_types": ["sliding_attention"]}),
            "layer_types",
        ),
        (
            json!({"model_type": "qwen2", "layer_types": ["full_attention", "sliding_attention"]}),
            "use_sliding_window",
        ),
        (
            json!({"model_type": "qwen2", "layer_types": ["full_attention", "chunked_attention"]}),
            "chunked_attention",
        ),
        (json!({"layer_types": ["full_attention", "sliding_attention"]}), "layer_types"),
        (json!({"num_key_value_heads": 3}), "num_key_value_heads"),
        (json!({"num_attention_heads": 3, "num_key_value_heads": 3}), "head_dim"),
        (json!({"head_dim": 15}), "head_dim"),
        (json!({"hidden_size": -1}), "hidden_size"),
        (json!({"vocab_size": null}), "vocab_size"),
        (json!({"rms_norm_eps": "small"}), "rms_norm_eps"),
        (json!({"eos_token_id": ["</s>"]}), "eos_token_id"),
        (json!({"rope_theta": 0.0}), "rope_theta"),
    ] {
        let message = refusal(&changes);
        assert!(message.contains("config.json") && message.contains(named), "{changes}: {message}");
    }
}

#[test]
fn attention_bias_means_what_it_means_to_each_family() {
    let biases = |config: ModelConfig| (config.qkv_bias, config.attention_out_bias);
    for (model_type, architecture, expected) in [
        ("llama", "LlamaForCausalLM", (true, true)),
        ("qwen3", "Qwen3ForCausalLM", (true, true)),
        // These two have no such field: transformers ignores it.
        ("qwen2", "Qwen2ForCausalLM", (true, false)),
        ("mistral", "MistralForCausalLM", (false, false)),
    ] {
        let changes = json!({"model_type": model_type, "architectures": [architecture], "sliding_window": null,
            "attention_bias": true});
        assert_eq!(biases(read(&changes)), expected, "{model_type}");
    }
    assert_eq!(biases(read(&json!({}))), (false, false));
}

#[test]
fn a_sliding_window_out_of_use_is_accepted() {
    for changes in [
        json!({"model_type": "mistral", "sliding_window": null}),
        json!({"model_type": "mistral", "sliding_window": 4096}),
        json!({"model_type": "qwen2", "use_sliding_window": false, "sliding_window": 1024}),
        json!({"model_type": "qwen2", "use_sliding_window": true, "sliding_window": 1024,
               "max_window_layers": 2}),
    ] {
        assert_eq!(read(&changes).windows, None);
    }
}

#[test]
fn a_sliding_window_in_use_says_which_blocks_attend_through_it() {
    for (changes, tokens, of_block) in [
        (json!({"model_type": "mistral", "sliding_window": 1024}), 1024, [true, true]),
        (json!({"model_type": "mistral", "max_position_embeddings": 32768}), 4096, [true, true]),
        (
            json!({"model_type": "qwen2", "use_sliding_window": true, "sliding_window": 1024,
                "max_window_layers": 1}),
            1024,
            [false, true],
        ),
        (
            json!({"model_type": "qwen3", "use_sliding_window": true, "sliding_window": 8,
                "layer_types": ["sliding_attention", "full_attention"]}),
            8,
            [true, false],
        ),
    ] {
        let config = read(&changes);
        let of_block = of_block.to_vec();
        assert_eq!(
            config.windows,
            Some(Windows { tokens, of_block: of_block.clone(), rope: None }),
            "{changes}"
        );
        for (layer, windowed) in of_block.into_iter().enumerate() {
            let kind = if windowed { AttentionKind::Window(tokens) } else { AttentionKind::Full };
            assert_eq!(config.block(layer).attention, kind);
        }
        assert_eq!(ModelConfig::from_json(&config.to_json().to_string()).expect("reads back"), config);
    }
}

/// A small valid Gemma 3 configuration with `changes` merged in.
fn gemma(changes: &Value) -> Value {
    let mut config = json!({"model_type": "gemma3_text", "num_hidden_layers": 7, "head_dim": 32,
        "sliding_window": 1024, "rope_theta": null});
    config.as_object_mut().expect("an object").extend(changes.as_object().expect("an object").clone());
    config
}

#[test]
fn gemma_3_says_which_blocks_attend_through_a_window_and_how_they_turn() {
    let plain = read(&gemma(&json!({})));
    let windows = plain.windows.clone().expect("windows");
    // Every sixth block attends to all.
    assert_eq!(windows.of_block, [true, true, true, true, true, false, true]);
    assert_eq!((windows.tokens, plain.rope.theta), (1024, 1e6));
    assert_eq!(windows.rope, Some(Rope { theta: 10_000.0, scaling: RopeScaling::None }));
    assert_eq!((plain.score_divisor, plain.tie_word_embeddings, plain.qk_norm), (256.0, true, true));
    assert_eq!((plain.block(4).rope, plain.block(5).rope), (1, 0));
    assert_eq!(plain.block(5).attention, AttentionKind::Full);
    assert_eq!(plain.embedding_scale.factor(16), Some(4.0));

    let v4 = json!({"rope_theta": 5e5, "rope_local_base_freq": 2e4, "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        "sliding_window_pattern": 2, "query_pre_attn_scalar": 168});
    let v5 = json!({"rope_parameters": {
            "full_attention": {"rope_type": "linear", "rope_theta": 5e5, "factor": 8.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 2e4}},
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention",
            "sliding_attention", "full_attention", "sliding_attention"],
        "query_pre_attn_scalar": 168});
    let (v4, v5) = (read(&gemma(&v4)), read(&gemma(&v5)));
    assert_eq!(v4, v5);
    assert_eq!((v4.rope.theta, v4.score_divisor), (5e5, 168.0));
    // vLLM: the 128K of its larger models are counted after the scaling.
    assert_eq!(v4.context(), 4096);
    // Blocks keep their rotary settings even where no position leaves the window.
    let wide = read(&gemma(&json!({"sliding_window": 1 << 20})));
    assert_eq!(wide.windows.as_ref().map(|windows| windows.tokens), Some(1 << 20));
    let full = read(&gemma(&json!({"sliding_window_pattern": 1, "attention_bias": true})));
    assert_eq!(full.windows, None);
    for config in [plain, v4, wide, full] {
        assert_eq!(ModelConfig::from_json(&config.to_json().to_string()).expect("reads back"), config);
    }

    for (changes, named) in [
        (json!({"final_logit_softcapping": 30.0}), "final_logit_softcapping = 30"),
        (json!({"attn_logit_softcapping": 50.0}), "attn_logit_softcapping = 50"),
        (json!({"use_bidirectional_attention": true}), "use_bidirectional_attention"),
        (json!({"hidden_activation": "gelu"}), "hidden_activation \"gelu\""),
        (json!({"query_pre_attn_scalar": 0}), "query_pre_attn_scalar"),
        (json!({"sliding_window": null}), "sliding_window"),
        (json!({"sliding_window_pattern": 0}), "sliding_window_pattern"),
        (json!({"layer_types": ["full_attention", "sliding_attention"]}), "layer_types names 2 blocks"),
        (json!({"rope_parameters": {"rope_type": "default"}}), "rope_parameters.rope_type"),
        (json!({"rope_parameters": {"full_attention": {"rope_type": "dynamic", "factor": 2.0}}}), "dynamic"),
        (
            json!({"rope_parameters": {"full_attention": {"rope_type": "default"}},
                "rope_scaling": {"rope_type": "linear", "factor": 8.0}}),
            "rope_scaling and rope_parameters.full_attention",
        ),
        (json!({"rope_local_base_freq": 0.5}), "rope_theta"),
        (json!({"model_type": "gemma3", "text_config": {}}), "\"gemma3\" is not supported"),
        (json!({"model_type": "gemma2"}), "\"gemma2\" is not supported"),
    ] {
        let message = refusal(&gemma(&changes));
        assert!(message.contains("config.json") && message.contains(named), "{changes}: {message}");
    }
}

#[test]
fn absent_fields_take_the_defaults_of_transformers() {
    let absent = |model_type: &str| {
        let text = json!({
            "model_type": model_type, "vocab_size": 8, "hidden_size": 4096, "intermediate_size": 8,
            "num_hidden_layers": 1, "num_attention_heads": 32, "sliding_window": null,
        });
        ModelConfig::from_json(&text.to_string()).expect("defaults")
    };
    let llama = absent("llama");
    assert_eq!((llama.n_kv_heads, llama.head_dim, llama.max_position_embeddings), (32, 128, 2048));
    assert_eq!((llama.rope.theta, llama.rms_norm_eps, llama.tie_word_embeddings), (10_000.0, 1e-6, false));
    assert_eq!((absent("mistral").n_kv_heads, absent("mistral").family), (8, Family::Mistral));
    let qwen2 = absent("qwen2");
    assert_eq!((qwen2.qkv_bias, qwen2.qk_norm, qwen2.max_position_embeddings), (true, false, 32768));
    let qwen3 = absent("qwen3");
    assert_eq!((qwen3.qkv_bias, qwen3.qk_norm, qwen3.head_dim), (false, true, 128));
}

#[test]
fn end_of_text_tokens_come_from_the_generation_configuration_first() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join("config.json"), llama(&json!({}))).expect("written");
    assert_eq!(ModelConfig::from_dir(dir.path()).expect("reads").eos_token_ids, [2, 7]);
    let generation = dir.path().join("generation_config.json");
    std::fs::write(&generation, r#"{"eos_token_id": [5, 6]}"#).expect("written");
    assert_eq!(ModelConfig::from_dir(dir.path()).expect("reads").eos_token_ids, [5, 6]);
    std::fs::write(&generation, "{").expect("written");
    let message = ModelConfig::from_dir(dir.path()).expect_err("not JSON").to_string();
    assert!(message.contains("generation_config.json"), "{message}");
}

#[test]
fn real_folders_load() {
    let Some(parity) = shared("parity") else { return };
    let llama = ModelConfig::from_dir(&parity.join("llama3_untied_bf16")).expect("llama");
    assert_eq!(llama.family, Family::Llama);
    assert!(matches!(llama.rope.scaling, RopeScaling::Llama3 { original_context: 64.0, .. }));
    let qwen3 = ModelConfig::from_dir(&parity.join("qwen3_untied_f32_sharded")).expect("qwen3");
    assert_eq!((qwen3.head_dim, qwen3.qk_norm, qwen3.n_kv_heads), (32, true, 2));
    let student = ModelConfig::from_dir(&shared("oracle/student").expect("present")).expect("student");
    assert_eq!((student.family, student.rope.theta), (Family::Qwen2, 10_000.0));
    assert_eq!((student.tie_word_embeddings, student.eos_token_ids), (true, vec![2]));
}

#[rustfmt::skip]
const DEFAULT: ([f32; 16], f32) = (
    [1.0, 0.4216965, 0.17782794, 0.074989416, 0.03162278, 0.013335215, 0.0056234132, 0.0023713738, 0.001, 0.0004216965, 0.00017782794, 7.4989424e-05, 3.1622774e-05, 1.3335214e-05, 5.6234135e-06, 2.3713737e-06],
    1.0,
);
#[rustfmt::skip]
const LINEAR: ([f32; 16], f32) = (
    [0.25, 0.14058533, 0.07905694, 0.044456985, 0.025, 0.014058532, 0.007905695, 0.0044456986, 0.0025, 0.0014058533, 0.00079056947, 0.00044456986, 0.00025, 0.00014058533, 7.905695e-05, 4.4456985e-05],
    1.0,
);
#[rustfmt::skip]
const LLAMA3: ([f32; 32], f32) = (
    [1.0, 0.6636013, 0.44036663, 0.29222783, 0.19392276, 0.12868738, 0.0853971, 0.05666962, 0.03760603, 0.024955409, 0.01656044, 0.010989529, 0.007292665, 0.0048394212, 0.003211446, 0.0013718937, 0.000524846, 0.00017850779, 7.7846555e-05, 5.165907e-05, 3.4281024e-05, 2.2748929e-05, 1.5096218e-05, 1.0017869e-05, 6.6478697e-06, 4.4115345e-06, 2.9274997e-06, 1.9426925e-06, 1.2891732e-06, 8.554969e-07, 5.677088e-07, 3.7673226e-07],
    1.0,
);
#[rustfmt::skip]
const YARN_QWEN: ([f32; 64], f32) = (
    [1.0, 0.8058422, 0.64938164, 0.52329916, 0.4216965, 0.33982083, 0.27384198, 0.2206734, 0.17782794, 0.14330126, 0.1154782, 0.0930572, 0.074989416, 0.060429644, 0.048696753, 0.0392419, 0.03162278, 0.025482967, 0.020535251, 0.016548172, 0.013335215, 0.010746079, 0.008659643, 0.006978306, 0.0053753215, 0.004131738, 0.0031684227, 0.0024234224, 0.0018482766, 0.0014051124, 0.001064361, 0.0008029598, 0.00060294115, 0.00045032357, 0.00033424055, 0.0002462584, 0.00017984115, 0.00012993148, 9.262301e-05, 6.490394e-05, 4.4456985e-05, 3.5825316e-05, 2.8869548e-05, 2.3264301e-05, 1.8747356e-05, 1.5107409e-05, 1.2174189e-05, 9.810475e-06, 7.905694e-06, 6.3707416e-06, 5.1338125e-06, 4.1370427e-06, 3.3338035e-06, 2.6865196e-06, 2.164911e-06, 1.7445766e-06, 1.4058534e-06, 1.1328959e-06, 9.129353e-07, 7.356818e-07, 5.9284343e-07, 4.7773824e-07, 3.8498163e-07, 3.1023444e-07],
    1.1386294,
);
#[rustfmt::skip]
const YARN_MSCALE: ([f32; 32], f32) = (
    [1.0, 0.7498942, 0.56234133, 0.4216965, 0.31622776, 0.23713736, 0.17782794, 0.13335215, 0.1, 0.074989416, 0.05623413, 0.040367585, 0.027710859, 0.01886006, 0.012703143, 0.008446235, 0.0055240626, 0.0035352581, 0.0021957308, 0.0013051096, 0.00072263816, 0.00034988738, 0.000118387645, 3.3338034e-05, 2.5e-05, 1.8747354e-05, 1.40585325e-05, 1.0542412e-05, 7.9056945e-06, 5.9284343e-06, 4.4456983e-06, 3.3338035e-06],
    1.155722,
);
