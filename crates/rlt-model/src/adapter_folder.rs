//! An adapter's folder in PEFT's layout: `adapter_config.json` and `adapter_model.safetensors`.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use rlt_engine::{Device, Tensor};
use serde_json::{Value, json};

use crate::adapter::{Adapter, LoraScaling, LoraSettings, Pattern, Target, adapter_slots};
use crate::config::ModelConfig;
use crate::decoder::Decoder;
use crate::error::{Error, Result};
use crate::files::{parse_json, read_text, replace_file};
use crate::parameters::Slot;
use crate::sizes::MAX_RANK;
use crate::weights::{Dtype, Weights, write_each};

/// The settings of an adapter; a folder that holds it is an adapter's.
pub const ADAPTER_CONFIG: &str = "adapter_config.json";
const ADAPTER_MODEL: &str = "adapter_model.safetensors";

/// Entries of `rank_pattern` or `alpha_pattern`: each is tried on each module.
const MAX_PATTERNS: usize = 4096;

/// What to do about an adapter that is more than low-rank terms.
const MERGE: &str = "merge it with PEFT (merge_and_unload) and use the merged model's folder";

/// What `adapter_config.json` says.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterConfig {
    /// Rank, scale and places.
    pub settings: LoraSettings,
    /// Folder of the base model (`base_model_name_or_path`), as it is written there.
    pub base: PathBuf,
}

/// Keys that change the arithmetic when they are set, each with the value that does not. What is not named here
/// only concerns PEFT's own training.
fn neutral(key: &str, value: &Value) -> bool {
    let empty = value.is_null()
        || value == false
        || value.as_array().is_some_and(Vec::is_empty)
        || value.as_object().is_some_and(serde_json::Map::is_empty);
    match key {
        "bias" => value == "none",
        "use_dora"
        | "use_qalora"
        | "fan_in_fan_out"
        | "lora_bias"
        | "modules_to_save"
        | "layers_to_transform"
        | "layer_replication"
        | "target_parameters"
        | "trainable_token_indices"
        | "exclude_modules"
        | "alora_invocation_tokens"
        | "arrow_config" => empty,
        _ => true,
    }
}

impl AdapterConfig {
    /// Reads `adapter_config.json` in `dir`.
    ///
    /// # Errors
    /// The file is missing or damaged, is not LoRA's, or asks for something that is not supported (named).
    pub fn from_dir(dir: &Path) -> Result<Self> {
        let path = dir.join(ADAPTER_CONFIG);
        let json = parse_json(&read_text(&path)?, &path)?;
        let bad = |what: String| Error::ModelFile { path: path.clone(), what };
        let object = json.as_object().ok_or_else(|| bad("is not an object".into()))?;
        if json["peft_type"] != "LORA" {
            return Err(bad(format!("peft_type is {}; only LORA is supported", json["peft_type"])));
        }
        if let Some((key, value)) = object.iter().find(|(key, value)| !neutral(key, value)) {
            return Err(bad(format!("{key} is {value}, which is not supported; {MERGE}")));
        }
        let base = json["base_model_name_or_path"].as_str().unwrap_or_default().into();
        let settings = settings(&json).map_err(bad)?;
        Ok(Self { settings, base })
    }
}

fn settings(json: &Value) -> std::result::Result<LoraSettings, String> {
    let scaling = match &json["use_rslora"] {
        Value::Null | Value::Bool(false) => LoraScaling::ByRank,
        Value::Bool(true) => LoraScaling::ByRootOfRank,
        other => return Err(format!("use_rslora is {other}; true or false is expected")),
    };
    Ok(LoraSettings {
        rank: rank("r", &json["r"])?,
        alpha: alpha("lora_alpha", &json["lora_alpha"])?,
        targets: targets(json)?,
        scaling,
        rank_pattern: pattern("rank_pattern", json, rank)?,
        alpha_pattern: pattern("alpha_pattern", json, alpha)?,
    })
}

fn rank(key: &str, value: &Value) -> std::result::Result<usize, String> {
    let rank = value.as_u64().and_then(|rank| usize::try_from(rank).ok());
    let rank = rank.filter(|rank| (1..=MAX_RANK).contains(rank));
    rank.ok_or_else(|| format!("{key} is {value}; a whole number from 1 to {MAX_RANK} is expected"))
}

fn alpha(key: &str, value: &Value) -> std::result::Result<f32, String> {
    let alpha = value.as_f64().map(|alpha| alpha as f32).filter(|alpha| alpha.is_finite());
    alpha.ok_or_else(|| format!("{key} is {value}; a number is expected"))
}

/// An object of patterns of module names, in its order.
fn pattern<T>(
    key: &str,
    json: &Value,
    read: fn(&str, &Value) -> std::result::Result<T, String>,
) -> std::result::Result<Vec<(Pattern, T)>, String> {
    let patterns = match &json[key] {
        Value::Null => return Ok(Vec::new()),
        Value::Object(patterns) if patterns.len() <= MAX_PATTERNS => patterns,
        Value::Object(patterns) => {
            return Err(format!("{key} has {} entries; at most {MAX_PATTERNS} are read", patterns.len()));
        }
        other => return Err(format!("{key} is {other}; an object of module names is expected")),
    };
    let entry = |(name, value): (&String, &Value)| {
        let pattern = Pattern::new(name).map_err(|what| format!("{key}: {what}"))?;
        Ok((pattern, read(&format!("{key}: {name}"), value)?))
    };
    patterns.iter().map(entry).collect()
}

fn targets(json: &Value) -> std::result::Result<Vec<Target>, String> {
    let value = &json["target_modules"];
    if value == "all-linear" {
        return Ok(Target::ALL.to_vec());
    }
    let names = value.as_array().filter(|names| !names.is_empty());
    let names = names.ok_or_else(|| format!("target_modules is {value}; a list of modules is expected"))?;
    let mut targets = Vec::with_capacity(names.len());
    for name in names {
        // PEFT writes "all-linear" out as the path of every module. That all blocks have them shows in the
        // tensors.
        let module = name.as_str().map(|name| match name.strip_prefix("model.layers.") {
            Some(path) => path.rsplit('.').next().unwrap_or(path),
            None => name,
        });
        let target = Target::ALL.into_iter().find(|target| module == Some(target.module()));
        targets.push(target.ok_or_else(|| {
            let known = Target::ALL.map(Target::module).join(", ");
            format!("target_modules has {name}; supported are {known}")
        })?);
    }
    targets.sort_unstable();
    targets.dedup();
    Ok(targets)
}

impl Adapter {
    /// Reads the adapter of a model of `config` in `dir`, with the settings found there.
    ///
    /// # Errors
    /// A file is missing or damaged, or holds tensors of other names or shapes than its settings say.
    pub fn load(dir: &Path, config: &ModelConfig) -> Result<Self> {
        Self::load_on(&Device::Cpu, dir, config)
    }

    /// As [`Self::load`], to `device`.
    ///
    /// # Errors
    /// As there.
    pub fn load_on(device: &Device, dir: &Path, config: &ModelConfig) -> Result<Self> {
        let AdapterConfig { settings, .. } = AdapterConfig::from_dir(dir)?;
        let path = dir.join(ADAPTER_MODEL);
        if !path.exists() && dir.join("adapter_model.bin").exists() {
            let what = format!(
                "holds adapter_model.bin but no {ADAPTER_MODEL}: save the adapter again with PEFT \
                 (safe_serialization=True)"
            );
            return Err(Error::ModelFile { path: dir.to_owned(), what });
        }
        let weights = Weights::open_file(&path)?;
        check_tensors(&weights, &adapter_slots(config, &settings))?;
        Self::build(config, &settings, |slot| {
            let part = &slot.parts[0];
            let numbers =
                if device.has_numbers() { weights.read_f32(&part.name, &part.shape)? } else { Vec::new() };
            Ok(Tensor::made_on(device, slot.rows, slot.cols, || numbers))
        })
    }

    /// Writes the adapter to `dir` in PEFT's layout, in f32: exactly what is in memory. `base` is written as the
    /// base model's folder.
    ///
    /// # Errors
    /// The folder or a file cannot be written.
    pub fn save(&self, dir: &Path, config: &ModelConfig, base: &Path) -> Result<()> {
        std::fs::create_dir_all(dir).map_err(|source| Error::Io { path: dir.to_owned(), source })?;
        let LoraSettings { rank, alpha, targets, scaling, rank_pattern, alpha_pattern } = self.settings();
        let modules: Vec<&str> = targets.iter().map(|target| target.module()).collect();
        // A whole number is written as one: PEFT's own type.
        let number = |alpha: f32| if alpha.fract() == 0.0 { json!(alpha as i64) } else { json!(alpha) };
        let ranks = rank_pattern.iter().map(|(pattern, rank)| (pattern.as_str().to_owned(), json!(rank)));
        let alphas =
            alpha_pattern.iter().map(|(pattern, alpha)| (pattern.as_str().to_owned(), number(*alpha)));
        let json = json!({
            "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base, "r": rank,
            "lora_alpha": number(*alpha), "lora_dropout": 0.0, "target_modules": modules, "bias": "none",
            "fan_in_fan_out": false, "use_rslora": *scaling == LoraScaling::ByRootOfRank,
            "rank_pattern": Value::Object(ranks.collect()), "alpha_pattern": Value::Object(alphas.collect()), "use_dora": false, "modules_to_save": null,
            "inference_mode": true,
        });
        replace_file(&dir.join(ADAPTER_CONFIG), |out| Ok(serde_json::to_writer_pretty(out, &json)?))?;
        let slots = adapter_slots(config, self.settings());
        let parts = slots.iter().flat_map(|slot| &slot.parts);
        let names: Vec<_> = parts.map(|part| (part.name.as_str(), part.shape.as_slice())).collect();
        let numbers = self.tensors().into_iter().map(Tensor::to_host);
        write_each(&dir.join(ADAPTER_MODEL), &names, Dtype::F32, numbers)
    }
}

/// Refuses tensors that the settings do not ask for: what they change would be left out.
fn check_tensors(weights: &Weights, slots: &[Slot]) -> Result<()> {
    let known: HashSet<&str> = slots.iter().flat_map(|slot| &slot.parts).map(|p| p.name.as_str()).collect();
    let Some(name) = weights.names().into_iter().find(|name| !known.contains(name)) else { return Ok(()) };
    let whole = ["embed_tokens", "lm_head"].into_iter().find(|module| name.contains(module));
    Err(weights.error(match whole {
        Some(module) => format!(
            "holds {name}: an adapter with weights of {module} saved beside it is not supported; save it without \
             (save_embedding_layers=False) where they were not trained, else {MERGE}"
        ),
        None => format!(
            "holds {name}, which {ADAPTER_CONFIG} and the base model do not ask for; is the base model the one that \
             the adapter was made for?"
        ),
    }))
}

/// The base model's folder of an adapter's folder; `dir` itself where it is a model's.
///
/// # Errors
/// `adapter_config.json` is damaged, or the folder it names does not exist.
pub fn base_folder(dir: &Path) -> Result<PathBuf> {
    if dir.join("config.json").exists() || !dir.join(ADAPTER_CONFIG).exists() {
        return Ok(dir.to_owned());
    }
    let base = AdapterConfig::from_dir(dir)?.base;
    if base.is_dir() {
        return Ok(base);
    }
    // A folder that moved together with its adapter.
    let beside = dir.join(&base);
    if !base.as_os_str().is_empty() && beside.is_dir() {
        return Ok(beside);
    }
    Err(Error::ModelFile {
        path: dir.join(ADAPTER_CONFIG),
        what: format!(
            "names the base model {:?}, which is no folder here; set base_model_name_or_path to its folder",
            base.display().to_string()
        ),
    })
}

impl Decoder {
    /// Loads a base model that will only be read, with the adapter in `adapter_dir` beside it.
    ///
    /// # Errors
    /// What either folder's files report.
    pub fn load_with_adapter(base: &Path, adapter_dir: &Path) -> Result<Self> {
        Self::load_with_adapter_on(&Device::Cpu, base, adapter_dir)
    }

    /// As [`Self::load_with_adapter`], to `device`.
    ///
    /// # Errors
    /// As there.
    pub fn load_with_adapter_on(device: &Device, base: &Path, adapter_dir: &Path) -> Result<Self> {
        let decoder = Self::load_frozen_on(device, base)?;
        let adapter = Adapter::load_on(device, adapter_dir, decoder.config())?;
        Ok(decoder.with_adapter(adapter))
    }
}
