//! A decoder's folder in the Hugging Face layout: loading, saving, random weights.

use std::path::Path;

use rlt_engine::Tensor;
use rlt_engine::random::RandomStream;

use crate::config::ModelConfig;
use crate::decoder::Decoder;
use crate::error::Result;
use crate::files::replace_file;
use crate::parameters::{Parameters, Slot, slots};
use crate::weights::{Dtype, TensorView, Weights, write_safetensors};

/// Standard deviation of random weights, as Hugging Face's default `initializer_range`.
const INITIAL_STD: f32 = 0.02;

impl Parameters {
    /// Reads parameters from safetensors.
    ///
    /// # Errors
    /// A tensor is missing, has another shape or cannot be read.
    pub fn read(config: &ModelConfig, weights: &Weights) -> Result<Self> {
        Self::build(config, |slot| {
            let mut data = Vec::with_capacity(slot.rows * slot.cols);
            for part in &slot.parts {
                data.extend(weights.read_f32(&part.name, &part.shape)?);
            }
            Ok(Tensor::from_vec(slot.rows, slot.cols, data))
        })
    }

    /// Writes parameters (or anything of their shape) as one safetensors file with the Hugging Face
    /// names.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, config: &ModelConfig, path: &Path) -> Result<()> {
        let slots = slots(config);
        let tensors = self.tensors();
        let hosts: Vec<_> = tensors.iter().map(|t| t.to_host()).collect();
        let mut views = Vec::new();
        for (slot, data) in slots.iter().zip(&hosts) {
            let mut at = 0;
            for part in &slot.parts {
                let len: usize = part.shape.iter().product();
                let view = &data[at..at + len];
                views.push(TensorView { name: &part.name, shape: &part.shape, data: view });
                at += len;
            }
        }
        write_safetensors(path, &views, Dtype::F32)
    }
}

impl Decoder {
    /// Loads `config.json` and the weights of a folder.
    ///
    /// # Errors
    /// A file is missing, damaged or describes a model that is not supported.
    pub fn load(dir: &Path) -> Result<Self> {
        let config = ModelConfig::from_dir(dir)?;
        let parameters = Parameters::read(&config, &Weights::open(dir)?)?;
        Ok(Self::new(config, parameters))
    }

    /// A model of random weights: normal with standard deviation 0.02, scaled down by
    /// sqrt(2 * layers) for the two projections that add to the residual stream (as GPT-2);
    /// norms one, biases zero. The weights depend on `seed` and the names only.
    pub fn random(config: &ModelConfig, seed: u64) -> Self {
        let stream = RandomStream::new(seed, "initial weights");
        let mut index = 0;
        let residual_std = INITIAL_STD / (2.0 * config.n_layers as f32).sqrt();
        let make = |slot: &Slot| -> std::result::Result<Tensor, std::convert::Infallible> {
            index += 1;
            let name = &slot.parts[0].name;
            if !slot.decay {
                let is_bias = name.split('.').next_back() == Some("bias");
                let value = if is_bias { 0.0 } else { 1.0 };
                return Ok(Tensor::full(slot.rows, slot.cols, value));
            }
            let adds_to_residual = name.ends_with("o_proj.weight") || name.ends_with("down_proj.weight");
            let std = if adds_to_residual { residual_std } else { INITIAL_STD };
            let mut data = stream.normals([index, 0, 0], slot.rows * slot.cols);
            for value in &mut data {
                *value *= std;
            }
            Ok(Tensor::from_vec(slot.rows, slot.cols, data))
        };
        match Parameters::build(config, make) {
            Ok(parameters) => Self::new(config.clone(), parameters),
            Err(never) => match never {},
        }
    }

    /// Writes `config.json`, `generation_config.json` and `model.safetensors` (f32) to `dir`, which
    /// transformers loads. The tokenizer is saved by its own type.
    ///
    /// # Errors
    /// The folder or a file cannot be written.
    pub fn save(&self, dir: &Path) -> Result<()> {
        std::fs::create_dir_all(dir).map_err(|source| crate::Error::Io { path: dir.to_owned(), source })?;
        let write_json = |name: &str, value: &serde_json::Value| {
            replace_file(&dir.join(name), |out| Ok(serde_json::to_writer_pretty(out, value)?))
        };
        write_json("config.json", &self.config().to_json())?;
        write_json(
            "generation_config.json",
            &serde_json::json!({ "eos_token_id": self.config().eos_token_ids }),
        )?;
        self.parameters().write(self.config(), &dir.join("model.safetensors"))
    }
}
