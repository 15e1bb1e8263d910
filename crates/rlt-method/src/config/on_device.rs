//! What is not built for the device that a configuration asks for.

use super::{Config, DeviceName, HeldWeights, MomentDtype, Products};
use crate::{Error, Result};

impl Config {
    /// Refuses what is not built for the device.
    pub(super) fn check_device(&self) -> Result<()> {
        let device = self.model.device;
        if device == DeviceName::Cpu {
            return Ok(());
        }
        let not_built = [
            ("model.arithmetic", self.model.arithmetic != Products::F32, "bf16", "f32"),
            ("optimizer.moments", self.optimizer.moments != MomentDtype::F32, "bf16", "f32"),
            ("memory.weights", self.memory.weights != HeldWeights::Whole, "sharded", "whole"),
        ];
        match not_built.into_iter().find(|(_, is_asked, ..)| *is_asked) {
            None => Ok(()),
            Some((key, _, asked, built)) => Err(Error::Usage(format!(
                "{key} is {asked:?} and model.device is \"{device}\": this is not built for GPUs yet; set {key} to {built:?}"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_built_for_gpus_is_refused_by_its_key() {
        for (key, value) in
            [("model.arithmetic", "bf16"), ("optimizer.moments", "bf16"), ("memory.weights", "sharded")]
        {
            let keys = ["model.device=cuda:1".to_owned(), format!("{key}={value}")];
            let error = Config::load(None, &keys).unwrap_err().to_string();
            assert!(error.contains(key) && error.contains("cuda:1"), "{error}");
        }
        assert!(Config::load(None, &["model.device=cuda".to_owned()]).is_ok());
    }
}
