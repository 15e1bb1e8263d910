//! Tensors of a GGUF file as the tensors of a Hugging Face folder.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;
use rlt_gguf::{Gguf, Tensor};
use rlt_model::config::{Family, ModelConfig, NormScale, Norms};
use rlt_model::parameters::slots;
use rlt_model::weights::{Dtype, write_each};

use super::rope;
use crate::error::{Error, Result};
use crate::progress::Progress;

/// Numbers that one thread dequantises at a time, about.
const CHUNK: usize = 1 << 16;

/// A tensor to be written.
#[derive(Debug)]
pub struct Planned<'a> {
    /// Its name in the folder.
    name: String,
    /// Its shape there.
    shape: Vec<usize>,
    /// Where its numbers are.
    source: &'a Tensor,
    /// What the file's numbers are more than the folder's: 1 where a norm multiplies by one more than its weight, which the
    /// file has added.
    added: f32,
    /// Width of the heads whose rows lie in pairs in the file and in halves in the folder; none where both agree.
    paired_heads: Option<usize>,
}

impl Planned<'_> {
    /// Its numbers.
    pub fn len(&self) -> usize {
        self.source.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Every tensor that the model needs, found in the file; and nothing is left over there.
///
/// # Errors
/// A tensor is missing, has another shape, or has no place in such a model.
pub fn plan<'a>(file: &'a Gguf, config: &ModelConfig) -> Result<Vec<Planned<'a>>> {
    let wrong = |what: String| Error::from(file.error(what));
    let mut planned = Vec::new();
    for part in slots(config).into_iter().flat_map(|slot| slot.parts) {
        let name = gguf_name(&part.name, config.norms);
        let source = file.tensor(&name).ok_or_else(|| wrong(format!("has no tensor {name}")))?;
        if source.shape != part.shape {
            return Err(wrong(format!(
                "tensor {name} has the shape {:?}, its metadata wants {:?}",
                source.shape, part.shape
            )));
        }
        // llama.cpp turns neighbouring dimensions of a llama's heads, transformers those that lie half a head apart.
        let turned = part.name.contains(".q_proj.") || part.name.contains(".k_proj.");
        let paired_heads = (config.family == Family::Llama && turned).then_some(config.head_dim);
        let is_norm = part.name.ends_with("norm.weight");
        let added = if is_norm && config.norm_scale == NormScale::OnePlusWeight { 1.0 } else { 0.0 };
        planned.push(Planned { name: part.name, shape: part.shape, source, added, paired_heads });
    }
    let used: HashSet<&str> = planned.iter().map(|planned| planned.source.name.as_str()).collect();
    let unused = |tensor: &&Tensor| !used.contains(tensor.name.as_str()) && tensor.name != rope::FACTORS;
    match file.tensors().iter().find(unused) {
        Some(tensor) => Err(wrong(format!(
            "holds the tensor {}, which a {} model of its metadata does not have",
            tensor.name,
            config.family.model_type()
        ))),
        None => Ok(planned),
    }
}

/// `model.layers.3.self_attn.q_proj.weight` as `blk.3.attn_q.weight`.
fn gguf_name(name: &str, norms: Norms) -> String {
    let of_layer = name.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.'));
    let Some((layer, rest)) = of_layer else {
        return match name {
            "model.embed_tokens.weight" => "token_embd.weight",
            "model.norm.weight" => "output_norm.weight",
            _ => "output.weight",
        }
        .to_owned();
    };
    let (module, kind) = rest.rsplit_once('.').unwrap_or((rest, ""));
    let module = match module {
        "input_layernorm" => "attn_norm",
        "post_attention_layernorm" if norms == Norms::BeforeAndAfter => "post_attention_norm",
        "post_attention_layernorm" | "pre_feedforward_layernorm" => "ffn_norm",
        "post_feedforward_layernorm" => "post_ffw_norm",
        "self_attn.q_proj" => "attn_q",
        "self_attn.k_proj" => "attn_k",
        "self_attn.v_proj" => "attn_v",
        "self_attn.o_proj" => "attn_output",
        "self_attn.q_norm" => "attn_q_norm",
        "self_attn.k_norm" => "attn_k_norm",
        "mlp.gate_proj" => "ffn_gate",
        "mlp.up_proj" => "ffn_up",
        "mlp.down_proj" => "ffn_down",
        other => other,
    };
    format!("blk.{layer}.{module}.{kind}")
}

/// Dequantises tensor by tensor into one safetensors file; at most one (and a copy of a permuted one) is in memory.
///
/// # Errors
/// A number is not finite as `dtype` (the message names the tensor), the file cannot be written, or `stop`.
pub fn write(
    file: &Gguf,
    planned: &[Planned],
    path: &Path,
    dtype: Dtype,
    progress: &dyn Progress,
    stop: &AtomicBool,
) -> Result<()> {
    progress.start("import", planned.len() as u64, "tensors");
    let fault = RefCell::new(None);
    let numbers = planned.iter().map(|planned| {
        if fault.borrow().is_some() {
            return Cow::Owned(Vec::new());
        }
        progress.advance(1, "");
        let made = if stop.load(Ordering::Relaxed) {
            Err(Error::Interrupted("the model was not complete; nothing was written".into()))
        } else {
            values(file, planned, dtype)
        };
        Cow::Owned(made.unwrap_or_else(|error| {
            *fault.borrow_mut() = Some(error);
            Vec::new()
        }))
    });
    let names: Vec<_> = planned.iter().map(|p| (p.name.as_str(), p.shape.as_slice())).collect();
    let written = write_each(path, &names, dtype, numbers);
    match fault.into_inner() {
        Some(error) => return Err(error),
        None => written?,
    }
    progress.finish("");
    Ok(())
}

/// The numbers of one tensor in the folder's order.
fn values(file: &Gguf, planned: &Planned, dtype: Dtype) -> Result<Vec<f32>> {
    let source = planned.source;
    let columns = source.columns();
    let rows_at_once = (CHUNK / columns).max(1);
    let mut values = vec![0.0; source.len()];
    values
        .par_chunks_mut(rows_at_once * columns)
        .enumerate()
        .try_for_each(|(i, rows)| file.read_rows(source, i * rows_at_once, rows))?;
    if planned.added != 0.0 {
        for x in &mut values {
            *x -= planned.added;
        }
    }
    let most = match dtype {
        Dtype::F32 | Dtype::Bf16 => f32::MAX,
        Dtype::F16 => 65_504.0,
    };
    if let Some(i) = values.iter().position(|x| x.is_nan() || x.abs() > most) {
        return Err(file
            .error(format!(
                "tensor {}: number {i} is {}, which {} cannot hold: the file is damaged, or --dtype f32 is wanted",
                source.name,
                values[i],
                dtype.torch_name()
            ))
            .into());
    }
    Ok(match planned.paired_heads {
        Some(width) => in_halves(&values, if planned.shape.len() == 1 { 1 } else { columns }, width),
        None => values,
    })
}

/// Rows of `columns` numbers, heads of `width` rows: rows 2i and 2i + 1 of a head become i and i + width / 2.
fn in_halves(values: &[f32], columns: usize, width: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(values.len());
    for head in values.chunks_exact(width * columns) {
        for second in 0..2 {
            for i in 0..width / 2 {
                let row = 2 * i + second;
                out.extend_from_slice(&head[row * columns..(row + 1) * columns]);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_in_pairs_become_halves() {
        let rows: Vec<f32> = (0..16).map(|i| i as f32).collect();
        // Two heads of four rows of two numbers: rows 0, 2, 1, 3 of each.
        let halves = in_halves(&rows, 2, 4);
        assert_eq!(halves, [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15].map(|i| i as f32));
        assert_eq!(in_halves(&rows[..4], 1, 4), [0.0, 2.0, 1.0, 3.0]);
    }

    #[test]
    fn names() {
        for (hugging_face, gguf) in [
            ("model.embed_tokens.weight", "token_embd.weight"),
            ("model.norm.weight", "output_norm.weight"),
            ("lm_head.weight", "output.weight"),
            ("model.layers.12.self_attn.k_proj.bias", "blk.12.attn_k.bias"),
            ("model.layers.0.self_attn.q_norm.weight", "blk.0.attn_q_norm.weight"),
            ("model.layers.0.post_attention_layernorm.weight", "blk.0.ffn_norm.weight"),
        ] {
            assert_eq!(gguf_name(hugging_face, Norms::Before), gguf);
        }
        for (hugging_face, gguf) in [
            ("model.layers.1.post_attention_layernorm.weight", "blk.1.post_attention_norm.weight"),
            ("model.layers.1.pre_feedforward_layernorm.weight", "blk.1.ffn_norm.weight"),
            ("model.layers.1.post_feedforward_layernorm.weight", "blk.1.post_ffw_norm.weight"),
        ] {
            assert_eq!(gguf_name(hugging_face, Norms::BeforeAndAfter), gguf);
        }
    }
}
