//! What a configuration means for its device: what is not built for it, and when its memory is given back.

use super::{Config, DeviceName, HeldWeights, Idle};
use crate::{Error, Result};

impl Config {
    /// Called where a stage of a step (generation, scoring, update) has ended.
    pub fn end_stage(&self) {
        // A run holds its device open: there is nothing to report here.
        if self.memory.idle == Idle::Release
            && let Ok(device) = self.model.device.open()
        {
            device.release_memory();
        }
    }

    /// Refuses what is not built for the device.
    pub(crate) fn check_device(&self) -> Result<()> {
        let device = self.model.device;
        if device == DeviceName::Cpu || self.memory.weights == HeldWeights::Whole {
            return Ok(());
        }
        Err(Error::Usage(format!(
            "memory.weights is \"sharded\" and model.device is \"{device}\": this is not built for GPUs yet; set \
             memory.weights to \"whole\""
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_built_for_gpus_is_refused_by_its_key() {
        let load = |key: &str| Config::load(None, &["model.device=cuda:1".to_owned(), key.to_owned()]);
        let error = load("memory.weights=sharded").unwrap_err().to_string();
        assert!(error.contains("memory.weights") && error.contains("cuda:1"), "{error}");
        for built in ["model.arithmetic=bf16", "optimizer.moments=bf16", "memory.weights=whole"] {
            assert!(load(built).is_ok(), "{built}");
        }
    }
}
