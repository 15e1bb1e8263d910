//! What follows from the tables of a configuration.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{Config, DataConfig, ServerConfig};
use crate::error::Result;

/// `grpo.reference_sync_every` where it is not set (TR-DPO, arXiv 2404.09656; the paper's).
const SYNC_EVERY: usize = 32;

impl Config {
    /// Every this many steps the reference moves towards the policy; 0 never. Beside an adapter the reference is the base
    /// model, which cannot move.
    pub fn reference_sync_every(&self) -> usize {
        let unset = if self.lora.rank > 0 { 0 } else { SYNC_EVERY };
        self.grpo.reference_sync_every.unwrap_or(unset)
    }

    /// The folder of a reference model of its own that never moves: it is read anew whenever the run goes on.
    pub(crate) fn fixed_reference(&self) -> Option<&PathBuf> {
        let path = &self.model.reference;
        let is_read_anew = self.grpo.beta > 0.0 && self.reference_sync_every() == 0;
        (is_read_anew && !path.as_os_str().is_empty()).then_some(path)
    }

    /// The same configuration with the held-out rows of `[eval]` as its data; none when nothing is evaluated.
    pub fn on_held_out_rows(&self) -> Option<Self> {
        let eval = &self.eval;
        let data = DataConfig { path: eval.data.clone(), max_rows: eval.max_rows, ..self.data.clone() };
        (eval.every > 0).then(|| Self { data, ..self.clone() })
    }

    /// The same configuration without the keys that change no number of a run (set to their defaults): what a run must
    /// find unchanged to go on.
    #[must_use]
    pub fn deciding(&self) -> Self {
        let defaults = Self::default();
        let mut deciding = self.clone();
        deciding.threads = defaults.threads;
        deciding.ranks = defaults.ranks;
        deciding.run_dir = defaults.run_dir;
        deciding.checkpoint = defaults.checkpoint;
        deciding.memory = defaults.memory;
        if self.lora.rank == 0 {
            // Gradients of shared weights are summed in another order.
            deciding.memory.weights = self.memory.weights;
        }
        // The run's state has them, as they were chosen.
        deciding.train = defaults.train;
        deciding.grpo.samples_every = defaults.grpo.samples_every;
        deciding.grpo.samples_logged = defaults.grpo.samples_logged;
        for server in [&mut deciding.server, &mut deciding.teacher_server, &mut deciding.student_server] {
            // That a model is served changes its numbers a little; where and how it is asked changes none.
            let url = if server.is_set() { "served".into() } else { String::new() };
            *server = ServerConfig { url, ..ServerConfig::default() };
        }
        deciding
    }

    /// The first key whose value another configuration changes: "grpo.steps was 10, now 11".
    ///
    /// # Errors
    /// As [`Config::settings`].
    pub fn first_change(&self, now: &Self) -> Result<Option<String>> {
        let (was, is) = (self.settings()?, now.settings()?);
        let value = |settings: &BTreeMap<String, String>, key| {
            settings.get(key).map_or_else(|| "unset".to_owned(), Clone::clone)
        };
        let changed = was.keys().chain(is.keys()).find(|&key| was.get(key) != is.get(key));
        Ok(changed.map(|key| format!("{key} was {}, now {}", value(&was, key), value(&is, key))))
    }
}
