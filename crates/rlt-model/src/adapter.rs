//! What is learnt beside the frozen matrices of a decoder (LoRA, arXiv 2106.09685), with the names that
//! PEFT gives it in files.

use rlt_engine::Tensor;
use rlt_engine::low_rank::LowRank;
use rlt_engine::random::RandomStream;

pub use crate::adapter_settings::{LoraScaling, LoraSettings, Pattern, Target};
use crate::config::ModelConfig;
use crate::parameters::{Part, Slot};

/// Input and output features.
fn features(target: Target, config: &ModelConfig) -> (usize, usize) {
    let (d, f, hd) = (config.hidden_size, config.intermediate_size, config.head_dim);
    let (q, kv) = (config.n_heads * hd, config.n_kv_heads * hd);
    match target {
        Target::Query => (d, q),
        Target::Key | Target::Value => (d, kv),
        Target::AttentionOut => (q, d),
        Target::Gate | Target::Up => (d, f),
        Target::Down => (f, d),
    }
}

/// The stacked matrix that holds the projection, and the row at which it begins there.
fn place(target: Target, config: &ModelConfig) -> (Site, usize) {
    let (q, kv) = (config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim);
    match target {
        Target::Query => (Site::Qkv, 0),
        Target::Key => (Site::Qkv, q),
        Target::Value => (Site::Qkv, q + kv),
        Target::AttentionOut => (Site::AttentionOut, 0),
        Target::Gate => (Site::GateUp, 0),
        Target::Up => (Site::GateUp, config.intermediate_size),
        Target::Down => (Site::Down, 0),
    }
}

/// A matrix of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Site {
    Qkv,
    AttentionOut,
    GateUp,
    Down,
}

/// The terms of one block (or their gradients), by the matrix they stand beside.
#[derive(Debug, Clone, Default)]
pub(crate) struct BlockAdapter {
    sites: [Vec<LowRank>; 4],
}

impl BlockAdapter {
    pub(crate) fn terms(&self, site: Site) -> &[LowRank] {
        &self.sites[site as usize]
    }

    pub(crate) fn terms_mut(&mut self, site: Site) -> &mut [LowRank] {
        &mut self.sites[site as usize]
    }
}

/// The low-rank terms of a decoder, or their gradients.
#[derive(Debug, Clone)]
pub struct Adapter {
    settings: LoraSettings,
    blocks: Vec<BlockAdapter>,
}

impl Adapter {
    /// Builds an adapter from one tensor per slot of [`adapter_slots`], in that order.
    ///
    /// # Errors
    /// What `make` returns.
    pub fn build<E>(
        config: &ModelConfig,
        settings: &LoraSettings,
        mut make: impl FnMut(&Slot) -> Result<Tensor, E>,
    ) -> Result<Self, E> {
        assert!(settings.targets.is_sorted(), "targets in the order of a block");
        let all = adapter_slots(config, settings);
        let mut slots = all.iter();
        let mut next = || make(slots.next().expect("two slots a term"));
        let mut blocks = Vec::with_capacity(config.n_layers);
        for layer in 0..config.n_layers {
            let mut block = BlockAdapter::default();
            for &target in &settings.targets {
                let (site, first_column) = place(target, config);
                let (_, scale) = settings.term(layer, target);
                block.sites[site as usize].push(LowRank { a: next()?, b: next()?, scale, first_column });
            }
            blocks.push(block);
        }
        Ok(Self { settings: settings.clone(), blocks })
    }

    /// Terms to begin training with: A normal with the variance that PEFT's uniform numbers have (1 / 3K), B
    /// zero, so that the decoder is the base model's. They depend on `seed` and the names only.
    pub fn random(config: &ModelConfig, settings: &LoraSettings, seed: u64) -> Self {
        let stream = RandomStream::new(seed, "initial adapter");
        let mut index = 0;
        let made = Self::build(config, settings, |slot| {
            index += 1;
            if slot.parts[0].name.contains(".lora_B.") {
                return Ok::<_, std::convert::Infallible>(Tensor::zeros(slot.rows, slot.cols));
            }
            let std = 1.0 / (3.0 * slot.cols as f32).sqrt();
            let data = stream.normals([index, 0, 0], slot.rows * slot.cols);
            Ok(Tensor::from_vec(slot.rows, slot.cols, data.into_iter().map(|value| value * std).collect()))
        });
        match made {
            Ok(adapter) => adapter,
            Err(never) => match never {},
        }
    }

    /// All zeros, of the shape of `self`: gradients.
    #[must_use]
    pub fn zeros_like(&self) -> Self {
        let mut zeros = self.clone();
        zeros.tensors_mut().into_iter().for_each(Tensor::fill_zero);
        zeros
    }

    /// Rank, scale and places.
    pub fn settings(&self) -> &LoraSettings {
        &self.settings
    }

    pub(crate) fn block(&self, layer: usize) -> &BlockAdapter {
        &self.blocks[layer]
    }

    pub(crate) fn block_mut(&mut self, layer: usize) -> &mut BlockAdapter {
        &mut self.blocks[layer]
    }

    /// Every tensor, in the order of [`adapter_slots`].
    pub fn tensors(&self) -> Vec<&Tensor> {
        let terms = self.blocks.iter().flat_map(|block| block.sites.iter().flatten());
        terms.flat_map(|term| [&term.a, &term.b]).collect()
    }

    /// Every tensor, to write to, in the order of [`adapter_slots`].
    pub fn tensors_mut(&mut self) -> Vec<&mut Tensor> {
        let terms = self.blocks.iter_mut().flat_map(|block| block.sites.iter_mut().flatten());
        terms.flat_map(|term| [&mut term.a, &mut term.b]).collect()
    }

    /// The terms beside the matrix of one of [`crate::parameters::slots`].
    pub(crate) fn terms_beside(&self, slot: &Slot) -> &[LowRank] {
        let place = || {
            let (layer, name) = slot.parts[0].name.strip_prefix("model.layers.")?.split_once('.')?;
            let site = match name {
                "self_attn.q_proj.weight" => Site::Qkv,
                "self_attn.o_proj.weight" => Site::AttentionOut,
                "mlp.gate_proj.weight" => Site::GateUp,
                "mlp.down_proj.weight" => Site::Down,
                _ => return None,
            };
            Some(self.blocks.get(layer.parse::<usize>().ok()?)?.terms(site))
        };
        place().unwrap_or_default()
    }
}

/// Every tensor of an adapter in the order of [`Adapter::tensors`], named as PEFT names it: block by block,
/// target by target, A before B.
pub fn adapter_slots(config: &ModelConfig, settings: &LoraSettings) -> Vec<Slot> {
    let mut slots = Vec::new();
    for layer in 0..config.n_layers {
        for &target in &settings.targets {
            let (k, n) = features(target, config);
            let (rank, _) = settings.term(layer, target);
            for (matrix, rows, cols) in [("lora_A", rank, k), ("lora_B", n, rank)] {
                let path = target.path();
                let name = format!("base_model.model.model.layers.{layer}.{path}.{matrix}.weight");
                let parts = vec![Part { name, shape: vec![rows, cols] }];
                slots.push(Slot { parts, rows, cols, decay: true });
            }
        }
    }
    slots
}
