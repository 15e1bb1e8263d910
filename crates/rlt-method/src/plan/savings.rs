//! Settings that would lower a run's peak.

use rlt_engine::Device;

use super::command::Command;
use super::rehearsal::{Extent, Rows, rehearse};
use super::share::Share;
use crate::config::{Config, Idle, MomentDtype, Recompute};
use crate::error::Result;

type Change = fn(&mut Config);

/// Settings that may lower the peak, and the peak with each.
pub(super) fn savings(
    config: &Config,
    command: Command,
    rows: &Rows,
    base: u64,
    share: Share,
) -> Result<Vec<(String, u64)>> {
    let changes: [(&str, Change); 5] = [
        ("optimizer.moments=bf16", |config| config.optimizer.moments = MomentDtype::Bf16),
        ("memory.recompute=blocks", |config| config.memory.recompute = Recompute::Blocks),
        ("memory.idle=release", |config| config.memory.idle = Idle::Release),
        ("TABLE.tokens_per_microbatch=1024", |config| {
            config.sft.tokens_per_microbatch = config.sft.tokens_per_microbatch.min(1024);
            config.grpo.tokens_per_microbatch = config.grpo.tokens_per_microbatch.min(1024);
        }),
        ("lora.rank=16", |config| {
            if config.lora.rank == 0 && !config.model.from_scratch {
                config.lora.rank = 16;
                config.grpo.reference_sync_every = config.grpo.reference_sync_every.map(|_| 0);
            }
        }),
    ];
    let table = if command == Command::Sft { "sft" } else { "grpo" };
    let mut found = Vec::new();
    let mut all = config.clone();
    let mut names = Vec::new();
    for (name, change) in changes {
        let mut changed = config.clone();
        change(&mut changed);
        if changed == *config {
            continue;
        }
        let mut name = name.replace("TABLE", table);
        if changed.grpo.reference_sync_every != config.grpo.reference_sync_every && command == Command::Train
        {
            name.push_str(" grpo.reference_sync_every=0");
        }
        change(&mut all);
        names.push(name.clone());
        for (name, config) in [(name, &changed), (names.join(" "), &all)] {
            let peaks =
                rehearse(&Device::sizes(), config, rows, base, Extent::HeaviestStep, share)?.record.peaks();
            found.push((name, peaks.into_iter().map(|(_, bytes)| bytes).max().unwrap_or(0)));
        }
    }
    found.dedup();
    Ok(found)
}
