//! A decoder's folder in the Hugging Face layout: loading, saving, random weights.

use std::borrow::Cow;
use std::collections::HashSet;
use std::path::Path;

use rlt_engine::low_rank::merged;
use rlt_engine::random::RandomStream;
use rlt_engine::{Device, Tensor};

use crate::adapter::Adapter;
use crate::adapter_folder::base_folder;
use crate::config::{ModelConfig, NormScale, block_slots};
use crate::decoder::Decoder;
use crate::error::Result;
use crate::files::replace_file;
use crate::offloaded::OffloadedParameters;
use crate::parameters::{Parameters, Slot, slots};
use crate::shared::{Share, SharedParameters};
use crate::weights::{Dtype, Weights, write_each};

/// Standard deviation of random weights, as Hugging Face's default `initializer_range`.
const INITIAL_STD: f32 = 0.02;

impl Parameters {
    /// Reads parameters from safetensors to `device`, in f32: what training needs.
    ///
    /// # Errors
    /// A tensor is missing, has another shape or cannot be read.
    pub fn read(device: &Device, config: &ModelConfig, weights: &Weights) -> Result<Self> {
        check_weights(config, weights)?;
        Self::build(config, |slot| read_slot(device, slot, weights))
    }

    /// Reads parameters that will only be read: matrices that are bf16 in the file stay bf16 (half the
    /// memory; operations compute in f32, with the bits that [`Self::read`] gives). All else is f32.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_frozen(device: &Device, config: &ModelConfig, weights: &Weights) -> Result<Self> {
        check_weights(config, weights)?;
        Self::build(config, |slot| read_frozen_slot(device, slot, weights))
    }

    /// Writes parameters (or anything of their shape) as one safetensors file of `dtype` with the Hugging
    /// Face names.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, config: &ModelConfig, path: &Path, dtype: Dtype) -> Result<()> {
        write_slots(path, &slots(config), dtype, self.tensors().into_iter().map(Tensor::to_host))
    }
}

/// Writes tensors that are made when their turn comes, one a slot, under the slots' names.
fn write_slots<'a>(
    path: &Path,
    slots: &[Slot],
    dtype: Dtype,
    numbers: impl Iterator<Item = Cow<'a, [f32]>>,
) -> Result<()> {
    let parts = slots.iter().flat_map(|slot| &slot.parts);
    let names: Vec<_> = parts.map(|part| (part.name.as_str(), part.shape.as_slice())).collect();
    write_each(path, &names, dtype, numbers)
}

fn read_frozen_slot(device: &Device, slot: &Slot, weights: &Weights) -> Result<Tensor> {
    let mut parts = Vec::with_capacity(slot.parts.len());
    let mut all_bf16 = slot.decay;
    for part in &slot.parts {
        all_bf16 &= weights.dtype(&part.name)? == Dtype::Bf16;
        parts.push(weights.bytes(&part.name, &part.shape)?);
    }
    if !all_bf16 {
        return read_slot(device, slot, weights);
    }
    let row_bytes = slot.cols * Dtype::Bf16.size();
    let tensor = Tensor::from_bf16_rows_on(device, slot.rows, slot.cols, |row| {
        let mut at = row * row_bytes;
        for part in &parts {
            if at < part.len() {
                return &part[at..at + row_bytes];
            }
            at -= part.len();
        }
        unreachable!("the parts hold the slot's rows")
    });
    done_with(device, parts.iter().map(|part| part.len()).sum());
    slot.parts.iter().for_each(|part| weights.done_with(&part.name));
    Ok(tensor)
}

fn read_slot(device: &Device, slot: &Slot, weights: &Weights) -> Result<Tensor> {
    let tensor = Tensor::filled_on(device, slot.rows, slot.cols, |mut rest| {
        for part in &slot.parts {
            let (own, after) = rest.split_at_mut(part.shape.iter().product());
            weights.read_f32_into(&part.name, &part.shape, own)?;
            weights.done_with(&part.name);
            rest = after;
        }
        Ok::<_, crate::Error>(())
    })?;
    let (mut bytes, mut all_bf16) = (0, true);
    for part in &slot.parts {
        bytes += weights.bytes(&part.name, &part.shape)?.len();
        all_bf16 &= weights.dtype(&part.name)? == Dtype::Bf16;
    }
    done_with(device, bytes);
    Ok(if all_bf16 { tensor.known_to_fit_bf16() } else { tensor })
}

/// Makes the random weights of [`Decoder::random`], slot after slot.
fn random_tensors(
    device: &Device,
    config: &ModelConfig,
    seed: u64,
) -> impl FnMut(&Slot) -> std::result::Result<Tensor, std::convert::Infallible> {
    let stream = RandomStream::new(seed, "initial weights");
    let mut index = 0;
    let residual_std = INITIAL_STD / (2.0 * config.n_layers as f32).sqrt();
    move |slot| {
        index += 1;
        if !slot.decay {
            // Norms multiply by one.
            let is_one = slot.place.is_norm() && config.norm_scale == NormScale::Weight;
            let value = if is_one { 1.0 } else { 0.0 };
            return Ok(Tensor::full_on(device, slot.rows, slot.cols, value));
        }
        let std = if slot.place.adds_to_residual() { residual_std } else { INITIAL_STD };
        Ok(Tensor::made_on(device, slot.rows, slot.cols, || {
            let mut data = stream.normals([index, 0, 0], slot.rows * slot.cols);
            for value in &mut data {
                *value *= std;
            }
            data
        }))
    }
}

/// Counts the pages of a file that were in memory while a tensor was read.
fn done_with(device: &Device, bytes: usize) {
    drop(device.hold_on_host(bytes as u64));
}

/// Compares every tensor that a configuration asks for with those of the file, by name, shape and number format: what the
/// file does not hold is never allocated.
///
/// # Errors
/// A tensor is missing, has another shape or an unsupported number format.
pub fn check_weights(config: &ModelConfig, weights: &Weights) -> Result<()> {
    weights.bytes("model.embed_tokens.weight", &[config.vocab_size, config.hidden_size])?;
    // The last block first: most of what a wrong number of blocks asks for need not even be listed.
    if let Some(last) = config.n_layers.checked_sub(1) {
        for part in block_slots(config, last).iter().flat_map(|slot| &slot.parts).take(1) {
            weights.shape(&part.name)?;
        }
    }
    for part in slots(config).iter().flat_map(|slot| &slot.parts) {
        weights.bytes(&part.name, &part.shape)?;
        weights.dtype(&part.name)?;
    }
    Ok(())
}

/// Refuses an output matrix beside an embedding that is said to be the same and is not. Programs differ in which they
/// take: transformers 5 the matrix, transformers 4 and vLLM the embedding.
fn refuse_other_head(config: &ModelConfig, weights: &Weights) -> Result<()> {
    let (head, embedding) = ("lm_head.weight", "model.embed_tokens.weight");
    if config.tie_word_embeddings && weights.contains(head) && !weights.are_equal(head, embedding)? {
        return Err(weights.error(format!(
            "holds a {head} that differs from {embedding}, though config.json says tie_word_embeddings = true; say \
             false there to use it, or remove it from the file"
        )));
    }
    Ok(())
}

/// Refuses a file with weights of the decoder that this configuration has no place for (a bias, a norm, one
/// more layer): the arithmetic would be without them. Buffers of old files, and a copy of a tied head, are
/// not weights.
fn refuse_unknown_weights(config: &ModelConfig, weights: &Weights) -> Result<()> {
    let slots = slots(config);
    let known: HashSet<&str> = slots.iter().flat_map(|s| &s.parts).map(|part| part.name.as_str()).collect();
    let is_unknown = |name: &&str| {
        let of_decoder = name.starts_with("model.") || name.starts_with("lm_head.");
        let is_buffer = name.ends_with("rotary_emb.inv_freq");
        let is_tied_head = config.tie_word_embeddings && *name == "lm_head.weight";
        of_decoder && !known.contains(name) && !is_buffer && !is_tied_head
    };
    match weights.names().into_iter().find(is_unknown) {
        None => Ok(()),
        Some(name) => Err(weights.error(format!(
            "holds {name}, which a {} model of this config.json does not have; are config.json and weights of \
             the same model?",
            config.family.model_type()
        ))),
    }
}

/// What a folder holds, where the two belong together.
fn checked_files(dir: &Path) -> Result<(ModelConfig, Weights)> {
    let config = ModelConfig::from_dir(dir)?;
    let weights = Weights::open(dir)?;
    check_weights(&config, &weights)?;
    refuse_unknown_weights(&config, &weights)?;
    refuse_other_head(&config, &weights)?;
    Ok((config, weights))
}

impl Decoder {
    /// Loads `config.json` and the weights of a folder, in f32: a model to train.
    ///
    /// # Errors
    /// A file is missing, damaged or describes a model that is not supported.
    pub fn load(dir: &Path) -> Result<Self> {
        Self::load_on(&Device::Cpu, dir)
    }

    /// As [`Self::load`], to `device`.
    ///
    /// # Errors
    /// As there.
    pub fn load_on(device: &Device, dir: &Path) -> Result<Self> {
        Self::load_by(dir, |config, weights| Parameters::read(device, config, weights))
    }

    /// Loads a model that will only be read (a student, a reference, one that generates or is evaluated):
    /// matrices that are bf16 in the file stay bf16 in memory. It gives the bits of [`Self::load`]. `dir` may
    /// be an adapter's folder, too; its base model is loaded with it.
    ///
    /// # Errors
    /// As [`Self::load`], and what [`base_folder`] reports.
    pub fn load_frozen(dir: &Path) -> Result<Self> {
        Self::load_frozen_on(&Device::Cpu, dir)
    }

    /// As [`Self::load_frozen`], to `device`.
    ///
    /// # Errors
    /// As there.
    pub fn load_frozen_on(device: &Device, dir: &Path) -> Result<Self> {
        let base = base_folder(dir)?;
        if base != dir {
            return Self::load_with_adapter_on(device, &base, dir);
        }
        Self::load_by(dir, |config, weights| Parameters::read_frozen(device, config, weights))
    }

    /// As [`Self::load_on`], but for this process's `share` of the weights alone; what carries them is still to be told
    /// ([`SharedParameters::carried_by`]).
    ///
    /// # Errors
    /// As there.
    pub fn load_share_on(device: &Device, dir: &Path, share: Share) -> Result<Self> {
        Self::load_share_by(device, dir, share, read_slot)
    }

    /// As [`Self::load_frozen_on`], but for this process's `share` of the weights alone.
    ///
    /// # Errors
    /// As there.
    pub fn load_frozen_share_on(device: &Device, dir: &Path, share: Share) -> Result<Self> {
        let base = base_folder(dir)?;
        let decoder = Self::load_share_by(device, &base, share, read_frozen_slot)?;
        decoder.with_adapter_of(device, dir, &base)
    }

    /// As [`Self::load_on`], to a GPU, but for the weights of blocks, which wait in the host's memory.
    ///
    /// # Errors
    /// As there.
    pub fn load_offloaded_on(device: &Device, dir: &Path) -> Result<Self> {
        Self::load_offloaded_by(device, dir, read_slot)
    }

    /// As [`Self::load_frozen_on`], to a GPU, but for the weights of blocks, which wait in the host's memory.
    ///
    /// # Errors
    /// As there.
    pub fn load_frozen_offloaded_on(device: &Device, dir: &Path) -> Result<Self> {
        let base = base_folder(dir)?;
        let decoder = Self::load_offloaded_by(device, &base, read_frozen_slot)?;
        decoder.with_adapter_of(device, dir, &base)
    }

    fn load_offloaded_by(
        device: &Device,
        dir: &Path,
        read: fn(&Device, &Slot, &Weights) -> Result<Tensor>,
    ) -> Result<Self> {
        let (config, weights) = checked_files(dir)?;
        let offloaded = OffloadedParameters::build(&config, |slot| read(device, slot, &weights))?;
        Ok(Self::of_offloaded(config, offloaded))
    }

    /// The same beside the adapter in `dir`, where that is not the model's own folder, `base`.
    fn with_adapter_of(self, device: &Device, dir: &Path, base: &Path) -> Result<Self> {
        if base == dir {
            return Ok(self);
        }
        let adapter = Adapter::load_on(device, dir, self.config())?;
        Ok(self.with_adapter(adapter))
    }

    fn load_share_by(
        device: &Device,
        dir: &Path,
        share: Share,
        read: fn(&Device, &Slot, &Weights) -> Result<Tensor>,
    ) -> Result<Self> {
        let (config, weights) = checked_files(dir)?;
        let shared = SharedParameters::build(device, &config, share, |slot| read(device, slot, &weights))?;
        Ok(Self::of_shared(config, shared))
    }

    fn load_by(dir: &Path, read: impl FnOnce(&ModelConfig, &Weights) -> Result<Parameters>) -> Result<Self> {
        let (config, weights) = checked_files(dir)?;
        let parameters = read(&config, &weights)?;
        Ok(Self::new(config, parameters))
    }

    /// A model of random weights: normal with standard deviation 0.02, scaled down by
    /// sqrt(2 * layers) for the two projections that add to the residual stream (as GPT-2);
    /// norms one, biases zero. The weights depend on `seed` and the names only.
    pub fn random(config: &ModelConfig, seed: u64) -> Self {
        Self::random_on(&Device::Cpu, config, seed)
    }

    /// As [`Self::random`], on `device`.
    pub fn random_on(device: &Device, config: &ModelConfig, seed: u64) -> Self {
        match Parameters::build(config, random_tensors(device, config, seed)) {
            Ok(parameters) => Self::new(config.clone(), parameters),
            Err(never) => match never {},
        }
    }

    /// As [`Self::random_on`], but for this process's `share` of the weights alone.
    pub fn random_share_on(device: &Device, config: &ModelConfig, seed: u64, share: Share) -> Self {
        match SharedParameters::build(device, config, share, random_tensors(device, config, seed)) {
            Ok(shared) => Self::of_shared(config.clone(), shared),
            Err(never) => match never {},
        }
    }

    /// Writes the folder that [`Self::save_as`] writes, with f32 weights: exactly what is in memory (an adapter
    /// is merged).
    ///
    /// # Errors
    /// The folder or a file cannot be written.
    pub fn save(&self, dir: &Path) -> Result<()> {
        self.save_as(dir, Dtype::F32)
    }

    /// Writes `config.json`, `generation_config.json` and `model.safetensors` to `dir`, which transformers
    /// loads; the weights are rounded to `dtype` (nearest even). An adapter is merged into them, matrix by
    /// matrix as they are written. The tokenizer is saved by its own type.
    ///
    /// # Errors
    /// The folder or a file cannot be written.
    pub fn save_as(&self, dir: &Path, dtype: Dtype) -> Result<()> {
        self.save_config(dir, dtype, self.config())?;
        let slots = slots(self.config());
        write_slots(&dir.join("model.safetensors"), &slots, dtype, self.numbers_to_save())
    }

    /// As [`Self::save_as`], with an output matrix of its own, and a `config.json` that says so, where the model's is tied to
    /// the embedding: for programs that load new weights into a model that runs, some of which pass a tied one over.
    ///
    /// # Errors
    /// As there.
    pub fn save_untied(&self, dir: &Path, dtype: Dtype) -> Result<()> {
        if !self.config().tie_word_embeddings {
            return self.save_as(dir, dtype);
        }
        let untied = ModelConfig { tie_word_embeddings: false, ..self.config().clone() };
        self.save_config(dir, dtype, &untied)?;
        let slots = slots(self.config());
        let parts = slots.iter().flat_map(|slot| &slot.parts);
        let mut names: Vec<_> = parts.map(|part| (part.name.as_str(), part.shape.as_slice())).collect();
        let shape = [untied.vocab_size, untied.hidden_size];
        names.push(("lm_head.weight", &shape));
        let head = std::iter::once_with(|| Cow::Owned(self.head_weight().to_host().into_owned()));
        write_each(&dir.join("model.safetensors"), &names, dtype, self.numbers_to_save().chain(head))
    }

    /// Writes the weights alone, as one safetensors file of `dtype` with the Hugging Face names.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_weights(&self, path: &Path, dtype: Dtype) -> Result<()> {
        write_slots(path, &slots(self.config()), dtype, self.numbers_to_save())
    }

    /// A model of this one's shape and settings with the weights of one file, in f32, and no adapter.
    ///
    /// # Errors
    /// As [`Parameters::read`].
    pub fn read_weights(&self, path: &Path) -> Result<Self> {
        let weights = Weights::open_file(path)?;
        Ok(self.with_weights(Parameters::read(self.device(), self.config(), &weights)?))
    }

    /// As [`Self::read_weights`], but for this process's `share` of the weights alone.
    ///
    /// # Errors
    /// As there.
    pub fn read_weights_share(&self, path: &Path, share: Share) -> Result<Self> {
        let (device, config, weights) = (self.device(), self.config(), Weights::open_file(path)?);
        check_weights(config, &weights)?;
        let shared =
            SharedParameters::build(device, config, share, |slot| read_slot(device, slot, &weights))?;
        Ok(Self::of_shared(config.clone(), shared).in_arithmetic(self.arithmetic()))
    }

    /// As [`Self::read_weights`], on a GPU, with the weights of blocks in the host's memory.
    ///
    /// # Errors
    /// As there.
    pub fn read_weights_offloaded(&self, path: &Path) -> Result<Self> {
        let (device, config, weights) = (self.device(), self.config(), Weights::open_file(path)?);
        check_weights(config, &weights)?;
        let offloaded = OffloadedParameters::build(config, |slot| read_slot(device, slot, &weights))?;
        Ok(Self::of_offloaded(config.clone(), offloaded).in_arithmetic(self.arithmetic()))
    }

    fn save_config(&self, dir: &Path, dtype: Dtype, config: &ModelConfig) -> Result<()> {
        std::fs::create_dir_all(dir).map_err(|source| crate::Error::Io { path: dir.to_owned(), source })?;
        let write_json = |name: &str, value: &serde_json::Value| {
            replace_file(&dir.join(name), |out| Ok(serde_json::to_writer_pretty(out, value)?))
        };
        let mut config = config.to_json();
        for key in ["dtype", "torch_dtype"] {
            config[key] = dtype.torch_name().into();
        }
        write_json("config.json", &config)?;
        write_json(
            "generation_config.json",
            &serde_json::json!({ "eos_token_id": self.config().eos_token_ids }),
        )
    }

    /// The weights as [`Self::save_as`] writes them, made one tensor at a time.
    pub fn numbers_to_save(&self) -> Box<dyn Iterator<Item = Cow<'_, [f32]>> + '_> {
        let slots = slots(self.config()).into_iter();
        let terms = |slot: &Slot| self.adapter().map_or(&[][..], |adapter| adapter.terms_beside(slot));
        Box::new(slots.zip(self.tensors()).map(move |(slot, tensor)| match (terms(&slot), tensor) {
            ([], Cow::Borrowed(tensor)) => tensor.to_host(),
            ([], Cow::Owned(tensor)) => Cow::Owned(tensor.to_host().into_owned()),
            (terms, tensor) => Cow::Owned(merged(&tensor, terms).into_host()),
        }))
    }
}
