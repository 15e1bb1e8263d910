//! What training changes and holds in memory: `[lora]` and `[memory]`.

use rlt_model::adapter::{LoraSettings, Target};
use rlt_model::training_pass::Keep;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ranks::{Holding, Ranks};

/// An entry of `lora.targets`, named as the module of the Hugging Face layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LoraTarget {
    /// Queries.
    QProj,
    /// Keys.
    KProj,
    /// Values.
    VProj,
    /// Attention output.
    OProj,
    /// Gate of the feed-forward layer.
    GateProj,
    /// Up projection of the feed-forward layer.
    UpProj,
    /// Down projection of the feed-forward layer.
    DownProj,
}

impl From<LoraTarget> for Target {
    fn from(target: LoraTarget) -> Self {
        match target {
            LoraTarget::QProj => Self::Query,
            LoraTarget::KProj => Self::Key,
            LoraTarget::VProj => Self::Value,
            LoraTarget::OProj => Self::AttentionOut,
            LoraTarget::GateProj => Self::Gate,
            LoraTarget::UpProj => Self::Up,
            LoraTarget::DownProj => Self::Down,
        }
    }
}

/// `[lora]`: train low-rank terms beside the frozen weights (arXiv 2106.09685).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LoraConfig {
    /// Rank of each term; 0 trains the weights themselves.
    pub rank: usize,
    /// Each term is multiplied by `alpha / rank`.
    pub alpha: f32,
    /// Which projections of every block have a term.
    pub targets: Vec<LoraTarget>,
}

impl LoraConfig {
    /// The adapter that is trained; none where the weights are.
    pub fn settings(&self) -> Option<LoraSettings> {
        let mut targets: Vec<Target> = self.targets.iter().map(|&target| target.into()).collect();
        targets.sort_unstable();
        targets.dedup();
        (self.rank > 0).then(|| LoraSettings::new(self.rank, self.alpha, targets))
    }
}

impl Default for LoraConfig {
    fn default() -> Self {
        use LoraTarget::{DownProj, GateProj, KProj, OProj, QProj, UpProj, VProj};
        let targets = vec![QProj, KProj, VProj, OProj, GateProj, UpProj, DownProj];
        Self { rank: 0, alpha: 32.0, targets }
    }
}

/// `memory.recompute`: what of a forward pass the backward pass computes again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Recompute {
    /// Nothing: all activations are kept. Fastest.
    #[default]
    Nothing,
    /// Every block: only its input is kept. About a third more time for the update, and the same bits.
    Blocks,
}

impl From<Recompute> for Keep {
    fn from(recompute: Recompute) -> Self {
        match recompute {
            Recompute::Nothing => Self::Activations,
            Recompute::Blocks => Self::BlockInputs,
        }
    }
}

/// `memory.idle`: what becomes of memory that a stage of a step has done with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Idle {
    /// It is kept for the same stage of the next step: faster, mostly for small models.
    #[default]
    Keep,
    /// It goes back to the operating system, so that the peak is that of the largest stage.
    Release,
}

/// `memory.weights`: where the weights of models are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HeldWeights {
    /// Whole, on every rank.
    #[default]
    Whole,
    /// A share on each rank; passes bring the rest here block by block. For models that are too large for one rank.
    Sharded,
}

/// `memory.offload`: what waits in the host's memory, instead of a GPU's, until it is needed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Offload {
    /// Nothing.
    #[default]
    Nothing,
    /// The optimizer's moments: each update brings them to the GPU and back, which takes the time of two copies, and gives the
    /// same bits. On the processor nothing changes.
    Moments,
    /// Models that are only asked for log-probabilities: the student that rewards, the reference, those of `rlt score` and
    /// `rlt logprobs`. In every pass their blocks come to the GPU one by one, each while the one before it is computed, and give the
    /// same bits; embedding and output matrix stay there. Models that are trained or generate stay whole. On the processor nothing
    /// changes.
    Frozen,
    /// The moments and the models.
    All,
}

impl Offload {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Moments => "moments",
            Self::Frozen => "frozen",
            Self::All => "all",
        }
    }

    /// Whether the optimizer's moments wait in the host's memory.
    pub fn of_moments(self) -> bool {
        matches!(self, Self::Moments | Self::All)
    }

    /// Whether the models do that are only read.
    pub fn of_frozen(self) -> bool {
        matches!(self, Self::Frozen | Self::All)
    }

    /// This, and the moments.
    #[must_use]
    pub fn with_moments(self) -> Self {
        if self.of_frozen() { Self::All } else { Self::Moments }
    }

    /// This, and the models that are only read.
    #[must_use]
    pub fn with_frozen(self) -> Self {
        if self.of_moments() { Self::All } else { Self::Frozen }
    }
}

/// `[memory]`: what training holds in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MemoryConfig {
    /// What the backward pass computes again instead of finding it in memory.
    pub recompute: Recompute,
    /// What happens to memory that a stage of a step no longer needs.
    pub idle: Idle,
    /// Whether several ranks hold weights (and their gradients) whole or in shares.
    pub weights: HeldWeights,
    /// What of a run on a GPU is in the host's memory.
    pub offload: Offload,
}

impl MemoryConfig {
    /// How `ranks` hold models that are only read to score with them.
    pub fn holding_of_frozen(&self, ranks: &Ranks) -> Holding {
        match self.holding(ranks) {
            Holding::Whole if self.offload.of_frozen() => Holding::Offloaded,
            other => other,
        }
    }

    /// How `ranks` hold models.
    pub fn holding(&self, ranks: &Ranks) -> Holding {
        match self.weights {
            HeldWeights::Whole => Holding::Whole,
            HeldWeights::Sharded => Holding::Shared(ranks.clone()),
        }
    }
}
