//! A GGUF file's metadata as a model's configuration.

use rlt_gguf::Gguf;
use rlt_model::config::{
    Activation, EmbeddingScale, Family, ModelConfig, NormScale, Norms, Rope, RopeScaling, Windows,
};

use super::metadata::{named, required};
use super::rope;
use crate::error::{Error, Result};

/// Largest width, head count or vocabulary that is believed: products of two of them stay far from overflow.
const MAX_SIZE: usize = 1 << 24;

/// Keys of an architecture that are read, below its name.
const READ: [&str; 25] = [
    "attention.causal",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.layer_norm_rms_epsilon",
    "attention.sliding_window",
    "attention.sliding_window_pattern",
    "attention.value_length",
    "block_count",
    "context_length",
    "embedding_length",
    "expert_count",
    "expert_used_count",
    "feed_forward_length",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.freq_base_swa",
    "rope.scale_linear",
    "rope.scaling.attn_factor",
    "rope.scaling.factor",
    "rope.scaling.finetuned",
    "rope.scaling.original_context_length",
    "rope.scaling.type",
    "tensor_data_layout",
    "vocab_size",
];

/// The architecture, as GGUF spells it.
///
/// # Errors
/// The file is no language model's, is a part of one, or of an architecture that is not supported.
pub fn architecture(file: &Gguf) -> Result<&str> {
    let wrong = |what: String| Err(Error::from(file.error(what)));
    if let Some(parts) = file.size("split.count")?
        && parts > 1
    {
        return wrong(format!(
            "is one of {parts} parts of a model: join them first (llama-gguf-split --merge FIRST_PART WHOLE.gguf)"
        ));
    }
    match file.text("general.type")? {
        None | Some("model") => {}
        Some(other) => return wrong(format!("holds a {other:?}, not a model (general.type)")),
    }
    match file.text("general.architecture")? {
        Some(name @ ("llama" | "qwen2" | "qwen3" | "gemma3")) => Ok(name),
        other => wrong(format!(
            "general.architecture {} is not supported (supported: llama, qwen2, qwen3, gemma3)",
            named(other)
        )),
    }
}

/// The configuration, without the tokens that end a text ([`super::tokenizer`] knows those).
///
/// # Errors
/// A key is missing, has the wrong type, or asks for arithmetic that is not supported; the message names it.
pub fn read(file: &Gguf, architecture: &str) -> Result<ModelConfig> {
    let key = |name: &str| format!("{architecture}.{name}");
    let wrong = |what: String| Error::from(file.error(what));
    refuse_unknown_keys(file, architecture)?;
    let size = |name: &str| -> Result<usize> {
        let n = required(file, &key(name))?;
        if (1..=MAX_SIZE).contains(&n) {
            Ok(n)
        } else {
            Err(wrong(format!("{} = {n} is not possible", key(name))))
        }
    };
    let optional_size = |name: &str| if file.has(&key(name)) { size(name).map(Some) } else { Ok(None) };

    let n_layers = size("block_count")?;
    if n_layers > file.tensors().len() {
        return Err(wrong(format!(
            "{} = {n_layers}, but it holds {} tensors",
            key("block_count"),
            file.tensors().len()
        )));
    }
    let (hidden_size, n_heads) = (size("embedding_length")?, size("attention.head_count")?);
    let n_kv_heads = optional_size("attention.head_count_kv")?.unwrap_or(n_heads);
    let head_dim = match optional_size("attention.key_length")? {
        Some(n) => n,
        None if hidden_size.is_multiple_of(n_heads) => hidden_size / n_heads,
        None => {
            return Err(wrong(format!(
                "{n_heads} heads do not divide the width {hidden_size}, and {} is absent",
                key("attention.key_length")
            )));
        }
    };
    for name in ["attention.value_length", "rope.dimension_count"] {
        if let Some(n) = optional_size(name)?
            && n != head_dim
        {
            return Err(wrong(format!(
                "{} = {n} is not supported, only the width of a head ({head_dim})",
                key(name)
            )));
        }
    }
    let context = size("context_length")?;
    let window = file.size(&key("attention.sliding_window"))?;
    if let Some(window) = window
        && architecture != "gemma3"
        && window != 0
        && window < context
    {
        return Err(wrong(format!("{} = {window} is not supported", key("attention.sliding_window"))));
    }
    let epsilon = key("attention.layer_norm_rms_epsilon");
    let rms_norm_eps =
        file.number(&epsilon)?.ok_or_else(|| wrong(format!("has no metadata {epsilon}")))? as f32;
    let is_gemma = architecture == "gemma3";
    let rope_theta = file.number(&key("rope.freq_base"))?.unwrap_or(if is_gemma { 1e6 } else { 10_000.0 });
    if !is_gemma && let Some(name) = OF_WINDOWS.into_iter().find(|name| file.has(&key(name))) {
        return Err(wrong(format!("its metadata {} is not known for a {architecture} model", key(name))));
    }

    let has = |name: &str| file.tensor(name).is_some();
    let family = match architecture {
        "qwen2" => Family::Qwen2,
        "qwen3" => Family::Qwen3,
        "gemma3" => Family::Gemma3,
        _ => Family::Llama,
    };
    let (qkv_bias, attention_out_bias) = (has("blk.0.attn_q.bias"), has("blk.0.attn_output.bias"));
    let possible = match family {
        Family::Qwen2 => qkv_bias && !attention_out_bias,
        _ => qkv_bias == attention_out_bias,
    };
    if !possible {
        return Err(wrong(format!("the biases of its attention are not those of a {architecture} model")));
    }
    let embedding = file.tensor("token_embd.weight").filter(|tensor| tensor.shape.len() == 2);
    let vocab_size = embedding.map(|tensor| tensor.shape[0]).filter(|&n| n <= MAX_SIZE);
    let config = ModelConfig {
        family,
        vocab_size: vocab_size.ok_or_else(|| wrong("has no matrix token_embd.weight".into()))?,
        hidden_size,
        intermediate_size: size("feed_forward_length")?,
        n_layers,
        n_heads,
        n_kv_heads,
        head_dim,
        rope: Rope {
            theta: rope_theta,
            scaling: rope::read(file, architecture, rope_theta, head_dim, context)?,
        },
        windows: None,
        score_divisor: head_dim as f64,
        activation: Activation::Silu,
        norms: Norms::Before,
        norm_scale: NormScale::Weight,
        embedding_scale: EmbeddingScale::One,
        rms_norm_eps,
        tie_word_embeddings: !has("output.weight"),
        qkv_bias,
        attention_out_bias,
        qk_norm: family == Family::Qwen3,
        max_position_embeddings: context,
        eos_token_ids: Vec::new(),
    };
    let config = if is_gemma { gemma3(file, config, window)? } else { config };
    // The folder's own reader has the last word, so that what is written can be loaded.
    let again = ModelConfig::from_json(&config.to_json().to_string())
        .map_err(|e| wrong(format!("describes a model that is not supported: {e}")))?;
    debug_assert_eq!(again, config);
    Ok(config)
}

/// Keys that say how blocks with windows differ from the others.
const OF_WINDOWS: [&str; 2] = ["attention.sliding_window_pattern", "rope.freq_base_swa"];
/// Of the blocks of a Gemma 3, all but every so manyth attend through a window, where the file does not say.
const WINDOW_PATTERN: usize = 6;
/// Rotary base of those blocks, where the file does not say.
const WINDOW_THETA: f64 = 10_000.0;
/// The Gemma 3 with so many blocks is the one of 27 billion weights, whose scores are divided by another width than a
/// head's. (The file has no key for it, and llama.cpp tells it so, too.)
const BLOCKS_OF_27B: usize = 62;

/// What a Gemma 3 has beside the others: see [`rlt_model::config`].
fn gemma3(file: &Gguf, plain: ModelConfig, window: Option<usize>) -> Result<ModelConfig> {
    let wrong = |what: String| Error::from(file.error(what));
    let tokens = window
        .filter(|&tokens| tokens > 0)
        .ok_or_else(|| wrong("has no metadata gemma3.attention.sliding_window above zero".into()))?;
    let n = plain.n_layers;
    let every = file.size("gemma3.attention.sliding_window_pattern")?.unwrap_or(WINDOW_PATTERN).max(1);
    let of_block: Vec<bool> = (1..=n).map(|number| !number.is_multiple_of(every)).collect();
    let theta = file.number("gemma3.rope.freq_base_swa")?.unwrap_or(WINDOW_THETA);
    let rope = Rope { theta, scaling: RopeScaling::None };
    let is_27b = n == BLOCKS_OF_27B;
    let divisor = if is_27b { plain.hidden_size / plain.n_heads } else { plain.head_dim };
    Ok(ModelConfig {
        windows: of_block.contains(&true).then_some(Windows { tokens, of_block, rope: Some(rope) }),
        score_divisor: divisor as f64,
        activation: Activation::GeluTanh,
        norms: Norms::BeforeAndAfter,
        norm_scale: NormScale::OnePlusWeight,
        embedding_scale: EmbeddingScale::RootOfWidth,
        qk_norm: true,
        ..plain
    })
}

/// A key below the architecture's name that is not read could change the arithmetic.
fn refuse_unknown_keys(file: &Gguf, architecture: &str) -> Result<()> {
    let wrong = |what: String| Err(Error::from(file.error(what)));
    for key in file.keys() {
        let Some(name) = key.strip_prefix(architecture).and_then(|rest| rest.strip_prefix('.')) else {
            continue;
        };
        if !READ.contains(&name) && !rope::YARN_KEYS.contains(&name) {
            return wrong(format!("its metadata {key} is not known and may change the arithmetic"));
        }
    }
    let key = |name: &str| format!("{architecture}.{name}");
    for name in ["expert_count", "expert_used_count"] {
        if file.size(&key(name))?.is_some_and(|n| n != 0) {
            return wrong(format!("{}: mixtures of experts are not supported", key(name)));
        }
    }
    if file.flag(&key("attention.causal"))? == Some(false) {
        return wrong(format!("{} = false is not supported", key("attention.causal")));
    }
    match file.text(&key("tensor_data_layout"))? {
        // What llama.cpp's first converter wrote: the layout that [`super::weights`] undoes.
        None | Some("Meta AI original pth") => {}
        Some(other) => return wrong(format!("{} {other:?} is not known", key("tensor_data_layout"))),
    }
    match file.size("general.quantization_version")? {
        None | Some(2) => Ok(()),
        Some(n) => wrong(format!(
            "general.quantization_version = {n} is not known, only 2: quantise the model again"
        )),
    }
}
