//! `model.device`: where models are computed, and which GPU of its machine is whose.

use std::fmt;
use std::str::FromStr;

use rlt_engine::Device;
use rlt_ranks::Ranks;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// A device by its name: `cpu`, `cuda` or `cuda:N`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub enum DeviceName {
    /// The processor.
    #[default]
    Cpu,
    /// `cuda`, the NVIDIA GPU of this rank: which number that is, is no part of its name, since it is another for each
    /// ([`Self::of_rank`]).
    OwnCuda(usize),
    /// An NVIDIA GPU, by its number.
    Cuda(usize),
}

impl DeviceName {
    /// As it is meant for this one of several `ranks`: those of a machine take its GPUs by turns, or all the one that is named.
    ///
    /// # Errors
    /// There is no driver, or it is too old.
    pub fn of_rank(self, ranks: &Ranks) -> Result<Self> {
        if !matches!(self, Self::OwnCuda(_)) || ranks.size() == 1 {
            return Ok(self);
        }
        let found = Device::cuda_count().map_err(|e| self.unusable(&e))?;
        // Where there is none, opening the first says so.
        Ok(Self::OwnCuda(ranks.rank_on_host() % found.max(1)))
    }

    /// The device, ready for work.
    ///
    /// # Errors
    /// It is not there, or cannot be used, and why.
    pub fn open(self) -> Result<Device> {
        let Some(ordinal) = self.gpu() else { return Ok(Device::Cpu) };
        Device::cuda(ordinal).map_err(|e| self.unusable(&e))
    }

    /// The number of its GPU, where it is one.
    pub fn gpu(self) -> Option<usize> {
        match self {
            Self::Cpu => None,
            Self::OwnCuda(ordinal) | Self::Cuda(ordinal) => Some(ordinal),
        }
    }

    fn unusable(self, why: &impl fmt::Display) -> Error {
        Error::Failed(format!("model.device is {self}: {why}"))
    }
}

impl FromStr for DeviceName {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<Self, String> {
        let of_gpu = |number: &str| number.parse().ok().map(Self::Cuda);
        let found = match name.split_once(':') {
            None if name == "cpu" => Some(Self::Cpu),
            None if name == "cuda" => Some(Self::OwnCuda(0)),
            Some(("cuda", number)) => of_gpu(number),
            _ => None,
        };
        found.ok_or_else(|| format!("`{name}` is no device: cpu, cuda or cuda:N is expected"))
    }
}

impl TryFrom<String> for DeviceName {
    type Error = String;

    fn try_from(name: String) -> std::result::Result<Self, String> {
        name.parse()
    }
}

impl From<DeviceName> for String {
    fn from(name: DeviceName) -> Self {
        name.to_string()
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::OwnCuda(_) => f.write_str("cuda"),
            Self::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_have_names() {
        let named = [("cpu", DeviceName::Cpu), ("cuda", DeviceName::OwnCuda(0))];
        let numbered = [("cuda:0", DeviceName::Cuda(0)), ("cuda:3", DeviceName::Cuda(3))];
        for (name, device) in named.into_iter().chain(numbered) {
            assert_eq!((name.parse(), device.to_string().as_str()), (Ok(device), name));
        }
        // All ranks are configured alike.
        assert_eq!(DeviceName::OwnCuda(5).to_string(), "cuda");
        for wrong in ["", "gpu", "cuda:", "cuda:x", "cpu:0", "CUDA"] {
            assert!(wrong.parse::<DeviceName>().unwrap_err().contains("cuda:N"), "{wrong}");
        }
    }
}
