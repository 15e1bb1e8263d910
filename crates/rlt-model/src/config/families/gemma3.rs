//! Gemma 3, the text model: most blocks attend through a window and have rotary settings of their own; norms stand before
//! and after, and multiply by one more than their weights; embeddings are scaled; the gate is GELU.

use serde_json::{Value, json};

use super::super::family::Family;
use super::super::fields::Fields;
use super::super::model::{Activation, EmbeddingScale, ModelConfig, NormScale, Norms, Windows};
use super::super::rope::{self, Rope, RopeScaling};
use super::common::{self, Defaults, KeyHeads, refuse_flag};
use super::windows;
use crate::Result;

const FULL_THETA: f64 = 1e6;
const WINDOW_THETA: f64 = 10_000.0;

pub(super) fn read(f: &Fields) -> Result<ModelConfig> {
    for key in ["final_logit_softcapping", "attn_logit_softcapping"] {
        if let Some(cap) = f.number(key)? {
            return Err(f.error(&format!("{key} = {cap} is not supported, only null")));
        }
    }
    refuse_flag(f, "use_bidirectional_attention")?;
    let defaults = Defaults {
        head_dim: Some(256),
        tie_word_embeddings: true,
        activation: ("hidden_activation", Activation::GeluTanh),
        rope: full_rope,
        ..Defaults::new(KeyHeads::Count(4), 131_072)
    };
    let plain = common::read(f, Family::Gemma3, &defaults)?;
    let score_divisor = f.number("query_pre_attn_scalar")?.unwrap_or(256.0);
    if !(score_divisor.is_finite() && score_divisor > 0.0) {
        return Err(f.error(&format!("query_pre_attn_scalar = {score_divisor} must be positive")));
    }
    let bias = f.flag("attention_bias")?.unwrap_or(false);
    Ok(ModelConfig {
        windows: windows_of(f, &plain)?,
        score_divisor,
        norms: Norms::BeforeAndAfter,
        norm_scale: NormScale::OnePlusWeight,
        embedding_scale: EmbeddingScale::RootOfWidth,
        qkv_bias: bias,
        attention_out_bias: bias,
        qk_norm: true,
        ..plain
    })
}

/// The blocks that `layer_types` says, or all but each `sliding_window_pattern`th. A window that no position could notice
/// stays: its blocks have other rotary settings.
fn windows_of(f: &Fields, config: &ModelConfig) -> Result<Option<Windows>> {
    let pattern = f.size("sliding_window_pattern")?.unwrap_or(6);
    let by_pattern = || (1..=config.n_layers).map(|number| !number.is_multiple_of(pattern)).collect();
    let of_block: Vec<bool> = windows::of_layer_types(f, config.n_layers)?.unwrap_or_else(by_pattern);
    if !of_block.contains(&true) {
        return Ok(None);
    }
    let Some(tokens) = windows::tokens(f, 4096)? else {
        return Err(f.error("sliding_window is null, though blocks attend through a window (layer_types)"));
    };
    let theta = f.number("rope_local_base_freq")?.unwrap_or(WINDOW_THETA);
    let dict = rope_parameters(f, "sliding_attention")?;
    let rope = read_rope(f, dict.as_ref(), theta, config.max_position_embeddings)?;
    Ok(Some(Windows { tokens, of_block, rope: Some(rope) }))
}

/// Of full attention: `rope_theta` + `rope_scaling` (transformers 4) or `rope_parameters.full_attention` (5).
fn full_rope(f: &Fields, positions: usize) -> Result<Rope> {
    let parameters = rope_parameters(f, "full_attention")?;
    let scaling = f.nested("rope_scaling", "rope_scaling.")?.filter(|dict| dict.keys().next().is_some());
    let mut theta = f.number("rope_theta")?.unwrap_or(FULL_THETA);
    if let Some(own) = parameters.as_ref().map_or(Ok(None), |dict| dict.number("rope_theta"))? {
        theta = own;
    }
    let read = |dict: Option<&Fields>| read_rope(f, dict, theta, positions);
    match (scaling, parameters) {
        (Some(scaling), Some(parameters)) => {
            let rope = read(Some(&parameters))?;
            // transformers mixes the two.
            if read(Some(&scaling))? != rope {
                return Err(
                    f.error("rope_scaling and rope_parameters.full_attention differ: remove one of them")
                );
            }
            Ok(rope)
        }
        (one, other) => read(one.or(other).as_ref()),
    }
}

fn read_rope(f: &Fields, dict: Option<&Fields>, theta: f64, positions: usize) -> Result<Rope> {
    let own = dict.map_or(Ok(None), |dict| dict.number("rope_theta"))?;
    rope::checked(f, dict, own.unwrap_or(theta), positions)
}

/// The rotary settings of one kind of blocks.
fn rope_parameters<'a>(f: &Fields<'a>, kind: &str) -> Result<Option<Fields<'a>>> {
    let Some(all) = f.nested("rope_parameters", "rope_parameters.")? else { return Ok(None) };
    match all.keys().find(|key| !["full_attention", "sliding_attention"].contains(key)) {
        Some(key) => Err(f.error(&format!(
            "rope_parameters.{key} is not supported in this family, only full_attention and sliding_attention"
        ))),
        None => all.nested(kind, "rope_parameters."),
    }
}

pub(super) fn own_fields(config: &ModelConfig) -> Value {
    let plain = Rope { theta: WINDOW_THETA, scaling: RopeScaling::None };
    let of_windows = config.windows.as_ref().and_then(|windows| windows.rope.as_ref()).unwrap_or(&plain);
    let layer_types = match &config.windows {
        Some(windows) => windows::layer_types(windows),
        None => vec!["full_attention"; config.n_layers],
    };
    json!({
        "attention_bias": config.attention_out_bias,
        "attn_logit_softcapping": null,
        "final_logit_softcapping": null,
        "hidden_activation": config.activation.names()[0],
        "layer_types": layer_types,
        "query_pre_attn_scalar": rope::whole(config.score_divisor),
        "rope_local_base_freq": of_windows.theta,
        "rope_parameters": {
            "full_attention": config.rope.scaling.to_json(Some(config.rope.theta)),
            "sliding_attention": of_windows.scaling.to_json(Some(of_windows.theta)),
        },
        "sliding_window": config.windows.as_ref().map(|windows| windows.tokens),
        "use_bidirectional_attention": false,
    })
}
