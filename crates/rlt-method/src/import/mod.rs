//! What `rlt import` does: a GGUF file to a model folder in the Hugging Face layout.
//!
//! [`config`] turns the file's metadata into a configuration, [`rope`] its rotary settings, [`weights`] its tensors into
//! safetensors, [`tokenizer`] its vocabulary into `tokenizer.json`. A key or tensor that changes the arithmetic is
//! honoured or refused by name; everything cheap is checked before the first byte is written, and the folder appears
//! whole or not at all.

pub mod config;
mod folder;
mod metadata;
pub mod rope;
pub mod tokenizer;
pub mod weights;

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use rlt_gguf::Gguf;
use rlt_model::weights::Dtype;
use serde_json::json;

use crate::error::Result;
use crate::progress::Progress;

/// What is imported, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// The GGUF file.
    pub file: PathBuf,
    /// A `tokenizer.json`, or a folder with one, that takes the place of the file's own vocabulary.
    pub tokenizer: Option<PathBuf>,
    /// The new model folder: absent, or empty.
    pub out: PathBuf,
    /// What the weights are stored as.
    pub dtype: Dtype,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// As GGUF spells it.
    pub architecture: String,
    /// Weights, tied ones once.
    pub parameters: usize,
    /// The number formats of the file, with the tensors of each, most first.
    pub formats: Vec<(String, usize)>,
    /// Whether the tokenizer was built from the file's own metadata.
    pub own_tokenizer: bool,
    /// Whether the folder has a chat template.
    pub chat_template: bool,
}

/// Reads the file and writes the folder.
///
/// # Errors
/// [`crate::Error::Usage`] when the folder exists and holds something; what is wrong with the file, by the name of the key or
/// tensor; [`crate::Error::Interrupted`] after `stop`. Nothing is left behind.
pub fn import(options: &Options, progress: &dyn Progress, stop: &AtomicBool) -> Result<Imported> {
    folder::check_free(&options.out)?;
    let file = Gguf::open(&options.file)?;
    let architecture = config::architecture(&file)?;
    let config = config::read(&file, architecture)?;
    let plan = weights::plan(&file, &config)?;
    let tokenizer = tokenizer::read(&file, &config, options.tokenizer.as_deref())?;
    folder::write_new(&options.out, |unfinished| {
        folder::write_json(
            &unfinished.join("config.json"),
            &config_json(&config, &tokenizer, options.dtype),
        )?;
        let generation = json!({
            "bos_token_id": tokenizer.ids.bos,
            "eos_token_id": tokenizer.ids.eos,
            "pad_token_id": tokenizer.ids.pad,
        });
        folder::write_json(&unfinished.join("generation_config.json"), &generation)?;
        tokenizer.save(unfinished)?;
        weights::write(&file, &plan, &unfinished.join("model.safetensors"), options.dtype, progress, stop)
    })?;
    Ok(Imported {
        architecture: architecture.to_owned(),
        parameters: plan.iter().map(weights::Planned::len).sum(),
        formats: formats(&file),
        own_tokenizer: options.tokenizer.is_none(),
        chat_template: tokenizer.has_template,
    })
}

fn config_json(
    config: &rlt_model::config::ModelConfig,
    tokenizer: &tokenizer::ImportedTokenizer,
    dtype: Dtype,
) -> serde_json::Value {
    let mut json = config.to_json();
    for key in ["dtype", "torch_dtype"] {
        json[key] = dtype.torch_name().into();
    }
    json["bos_token_id"] = json!(tokenizer.ids.bos);
    json["pad_token_id"] = json!(tokenizer.ids.pad);
    json["eos_token_id"] = match tokenizer.ids.eos.as_slice() {
        [] => serde_json::Value::Null,
        [one] => json!(one),
        many => json!(many),
    };
    json
}

fn formats(file: &Gguf) -> Vec<(String, usize)> {
    let mut counts: Vec<(String, usize)> = Vec::new();
    for tensor in file.tensors() {
        let name = format!("{:?}", tensor.kind);
        match counts.iter_mut().find(|(known, _)| *known == name) {
            Some((_, n)) => *n += 1,
            None => counts.push((name, 1)),
        }
    }
    counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    counts
}
