//! Which blocks attend through a window, as families spell it.

use serde_json::{Value, json};

use super::super::fields::Fields;
use super::super::model::{ModelConfig, Windows};
use crate::Result;
use crate::sizes::MAX_CONTEXT;

const FULL: &str = "full_attention";
const SLIDING: &str = "sliding_attention";

/// `sliding_window`, which is `absent` where nothing is said and none where it is null.
pub(super) fn tokens(f: &Fields, absent: usize) -> Result<Option<usize>> {
    Ok(match f.size_to("sliding_window", MAX_CONTEXT)? {
        None if !f.is_null("sliding_window") => Some(absent),
        tokens => tokens,
    })
}

/// Windows of so many tokens in the blocks that are marked; none where none is marked, or no position could notice.
pub(super) fn of_blocks(config: &ModelConfig, tokens: Option<usize>, of_block: Vec<bool>) -> Option<Windows> {
    let tokens = tokens.filter(|&tokens| tokens < config.context() && of_block.contains(&true))?;
    Some(Windows { tokens, of_block, rope: None })
}

/// `layer_types`, one a block: whether each attends through a window.
pub(super) fn of_layer_types(f: &Fields, n_layers: usize) -> Result<Option<Vec<bool>>> {
    let types = match f.get("layer_types") {
        None => return Ok(None),
        Some(Value::Array(types)) => types,
        Some(other) => return Err(f.error(&format!("layer_types is {other}, expected a list"))),
    };
    let is_windowed = |name: &Value| match name.as_str() {
        Some(FULL) => Ok(false),
        Some(SLIDING) => Ok(true),
        _ => Err(f.error(&format!("layer_types holds {name}: only {FULL:?} and {SLIDING:?} are supported"))),
    };
    let of_block: Vec<bool> = types.iter().map(is_windowed).collect::<Result<_>>()?;
    if !of_block.contains(&true) {
        return Ok(Some(vec![false; n_layers]));
    }
    if types.len() != n_layers {
        let n = types.len();
        return Err(f.error(&format!("layer_types names {n} blocks, num_hidden_layers is {n_layers}")));
    }
    Ok(Some(of_block))
}

/// `layer_types` of windows.
pub(super) fn layer_types(windows: &Windows) -> Vec<&'static str> {
    windows.of_block.iter().map(|&windowed| if windowed { SLIDING } else { FULL }).collect()
}

/// Refuses other kinds of blocks in a family that has one.
pub(super) fn refuse_layer_types(f: &Fields) -> Result<()> {
    if let Some(Value::Array(types)) = f.get("layer_types")
        && let Some(other) = types.iter().find(|name| name.as_str() != Some(FULL))
    {
        return Err(f.error(&format!("layer_types holds {other}: only {FULL:?} is supported in this family")));
    }
    Ok(())
}

/// Qwen's: with `use_sliding_window`, the blocks that `layer_types` says or those from `max_window_layers` on.
pub(super) fn of_qwen(f: &Fields, config: &ModelConfig) -> Result<Option<Windows>> {
    let by_type = of_layer_types(f, config.n_layers)?;
    let tokens = if f.flag("use_sliding_window")?.unwrap_or(false) { tokens(f, 4096)? } else { None };
    if tokens.is_none() && by_type.as_ref().is_some_and(|types| types.contains(&true)) {
        return Err(f.error(&format!(
            "layer_types holds {SLIDING:?}, but use_sliding_window is not true or sliding_window is null"
        )));
    }
    let first = f.count("max_window_layers")?.unwrap_or(28);
    let of_block = by_type.unwrap_or_else(|| (0..config.n_layers).map(|layer| layer >= first).collect());
    Ok(of_blocks(config, tokens, of_block))
}

/// What Qwen writes.
pub(super) fn qwen_fields(config: &ModelConfig) -> Value {
    match &config.windows {
        None => json!({"sliding_window": null, "use_sliding_window": false}),
        Some(windows) => json!({
            "sliding_window": windows.tokens,
            "use_sliding_window": true,
            "max_window_layers": windows.of_block.iter().take_while(|&&windowed| !windowed).count(),
            "layer_types": layer_types(windows),
        }),
    }
}
