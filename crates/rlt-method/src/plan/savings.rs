//! Settings that would lower a run's peak.

use super::command::Command;
use super::place::Place;
use super::rehearsal::{Extent, Rehearsal, Rows, rehearse};
use super::share::Share;
use crate::config::{Config, HeldWeights, Idle, MomentDtype, Products, Recompute};
use crate::error::Result;

type Change = fn(&mut Config);

/// The key of two changes, whose value says what they came to.
const OFFLOAD: &str = "memory.offload";

/// Ranks that models are shared out to where none are asked for: the cards of a usual machine.
const RANKS: usize = 8;

/// What would lower the peak, and the peak with each, bytes.
#[derive(Default)]
pub(super) struct Savings {
    pub built: Vec<(String, u64)>,
    /// What is not built for the device, each beside all that is (but for an adapter, which trains something else).
    pub not_built: Vec<(String, u64)>,
}

/// A run to be planned.
#[derive(Clone, Copy)]
pub(super) struct Planned<'a> {
    pub command: Command,
    pub rows: &'a Rows,
    pub place: Place,
    pub share: Share,
}

impl Planned<'_> {
    fn rehearse(self, config: &Config, share: Share) -> Result<Rehearsal> {
        rehearse(&self.place.sizes(), config, self.rows, self.place.beside, Extent::HeaviestStep, share)
    }

    fn peak(self, config: &Config) -> Result<u64> {
        Ok(self.rehearse(config, self.share)?.record.peak())
    }

    /// Settings that may lower the peak.
    pub fn savings(self, config: &Config) -> Result<Savings> {
        let mut found = Savings::default();
        let mut all = config.clone();
        let mut whole = None;
        let mut names: Vec<String> = Vec::new();
        for (name, change) in self.changes() {
            let mut changed = config.clone();
            change(&mut changed);
            if changed == *config {
                continue;
            }
            let name = self.named(name, config, &changed);
            if changed.lora.rank != config.lora.rank {
                whole = Some((names.join(" "), all.clone()));
            }
            if changed.check_device().is_err() {
                found.not_built.push((name, self.peak(&changed)?));
                continue;
            }
            let rehearsal = self.rehearse(&changed, self.share)?;
            let [was, is] = [config, &changed].map(|config| config.memory.offload);
            if is.of_frozen() && !was.of_frozen() && !rehearsal.offloads_models() {
                continue;
            }
            found.built.push((name.clone(), rehearsal.record.peak()));
            change(&mut all);
            if is == was {
                names.push(name);
            }
            let offload = all.memory.offload;
            if all.lora.rank != config.lora.rank {
                // An adapter's moments are small, and models may fit beside it.
                all.memory.offload = config.memory.offload;
            }
            self.add_together(&mut names, config, &all, &mut found)?;
            if all.memory.offload != offload && offload.of_frozen() && !config.memory.offload.of_frozen() {
                all.memory.offload = config.memory.offload.with_frozen();
                if self.rehearse(&all, self.share)?.offloads_models() {
                    self.add_together(&mut names, config, &all, &mut found)?;
                }
            }
        }
        if self.place.is_gpu() {
            let (names, most) = whole.unwrap_or_else(|| (names.join(" "), all));
            self.add_not_built(&names, &most, &mut found)?;
        }
        Ok(found)
    }

    /// Adds the changes that led from `config` to `all`, where they are several; `names` are theirs but for what is offloaded.
    fn add_together(
        self,
        names: &mut Vec<String>,
        config: &Config,
        all: &Config,
        found: &mut Savings,
    ) -> Result<()> {
        names.retain(|name| !name.starts_with(OFFLOAD));
        if all.memory.offload != config.memory.offload {
            names.push(self.named(OFFLOAD, config, all));
        }
        if names.len() > 1 {
            found.built.push((names.join(" "), self.peak(all)?));
        }
        Ok(())
    }

    fn changes(self) -> Vec<(&'static str, Change)> {
        let everywhere: [(&str, Change); 4] = [
            ("optimizer.moments=bf16", |config| config.optimizer.moments = MomentDtype::Bf16),
            ("memory.recompute=blocks", |config| config.memory.recompute = Recompute::Blocks),
            ("memory.idle=release", |config| config.memory.idle = Idle::Release),
            ("TABLE.tokens_per_microbatch=1024", |config| {
                config.sft.tokens_per_microbatch = config.sft.tokens_per_microbatch.min(1024);
                config.grpo.tokens_per_microbatch = config.grpo.tokens_per_microbatch.min(1024);
            }),
        ];
        let mut changes = everywhere.to_vec();
        if self.place.is_gpu() {
            changes.insert(0, ("model.arithmetic=bf16", |config| config.model.arithmetic = Products::Bf16));
            if self.command == Command::Train {
                changes.push(("sampling.max_running=8", |config| {
                    config.sampling.max_running = config.sampling.max_running.min(8);
                }));
            }
            changes.push((OFFLOAD, |config| config.memory.offload = config.memory.offload.with_moments()));
            changes.push((OFFLOAD, |config| config.memory.offload = config.memory.offload.with_frozen()));
        }
        changes.push(("lora.rank=16", |config| {
            if config.lora.rank == 0 && !config.model.from_scratch {
                config.lora.rank = 16;
                config.grpo.reference_sync_every = config.grpo.reference_sync_every.map(|_| 0);
            }
        }));
        changes
    }

    /// A change's name in this run.
    fn named(self, name: &str, config: &Config, changed: &Config) -> String {
        let table = if self.command == Command::Sft { "sft" } else { "grpo" };
        if name == OFFLOAD {
            return format!("{OFFLOAD}={}", changed.memory.offload.name());
        }
        let mut name = name.replace("TABLE", table);
        let moves = |config: &Config| config.grpo.reference_sync_every;
        if moves(changed) != moves(config) && self.command == Command::Train {
            name.push_str(" grpo.reference_sync_every=0");
        }
        name
    }

    /// What no setting asks for yet, or none on a GPU, beside `config`, which `names` lead to.
    fn add_not_built(self, names: &str, config: &Config, found: &mut Savings) -> Result<()> {
        let beside = |what: String| if names.is_empty() { what } else { format!("{names} with {what}") };
        if config.memory.weights == HeldWeights::Whole {
            let ranks = if self.share.ranks > 1 { self.share.ranks } else { RANKS };
            let mut sharded = config.clone();
            sharded.memory.weights = HeldWeights::Sharded;
            sharded.train.lanes = None;
            let share = Share::of(&sharded, ranks)?;
            let peak = self.rehearse(&sharded, share)?.record.peak();
            found.not_built.push((beside(format!("memory.weights=sharded on {ranks} GPUs")), peak));
        }
        Ok(())
    }
}
