//! How many numbers a decoder's weights are, from its sizes alone.

use super::ModelConfig;
use crate::sizes::product;

/// Numbers of all weights of a decoder, if they can be counted. Nothing is allocated.
pub(super) fn parameters(config: &ModelConfig) -> Option<usize> {
    let (d, f, hd) = (config.hidden_size, config.intermediate_size, config.head_dim);
    let queries = product(&[config.n_heads, hd])?;
    let keys = product(&[config.n_kv_heads, hd])?;
    let qkv = queries.checked_add(keys.checked_mul(2)?)?;
    let mut block = product(&[qkv.checked_add(queries)?, d])?.checked_add(product(&[3, f, d])?)?;
    for (is_there, numbers) in [
        (true, d.checked_mul(2)?),
        (config.qkv_bias, qkv),
        (config.qk_norm, hd.checked_mul(2)?),
        (config.attention_out_bias, d),
    ] {
        block = block.checked_add(if is_there { numbers } else { 0 })?;
    }
    let matrices = if config.tie_word_embeddings { 1 } else { 2 };
    let ends = product(&[matrices, config.vocab_size, d])?.checked_add(d)?;
    product(&[config.n_layers, block])?.checked_add(ends)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters::slots;

    #[test]
    fn parameters_are_counted_as_the_slots_hold_them() {
        for (model_type, more) in [
            ("llama", serde_json::json!({})),
            ("llama", serde_json::json!({"attention_bias": true, "tie_word_embeddings": true})),
            ("qwen2", serde_json::json!({})),
            ("qwen3", serde_json::json!({"tie_word_embeddings": true})),
        ] {
            let mut json = serde_json::json!({
                "model_type": model_type, "vocab_size": 50, "hidden_size": 24, "intermediate_size": 40,
                "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 10,
            });
            json.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let config = ModelConfig::from_json(&json.to_string()).unwrap();
            let held: usize = slots(&config).iter().map(|slot| slot.rows * slot.cols).sum();
            assert_eq!(parameters(&config), Some(held), "{json}");
        }
    }
}
