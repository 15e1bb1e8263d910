//! `model.device`: where models are computed.

use std::fmt;
use std::str::FromStr;

use rlt_engine::Device;
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
    /// An NVIDIA GPU, by its number.
    Cuda(usize),
}

impl DeviceName {
    /// The device, ready for work.
    ///
    /// # Errors
    /// It is not there, or cannot be used, and why.
    pub fn open(self) -> Result<Device> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda(ordinal) => {
                Device::cuda(ordinal).map_err(|e| Error::Failed(format!("model.device is {self}: {e}")))
            }
        }
    }
}

impl FromStr for DeviceName {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<Self, String> {
        let of_gpu = |number: &str| number.parse().ok().map(Self::Cuda);
        let found = match name.split_once(':') {
            None if name == "cpu" => Some(Self::Cpu),
            None if name == "cuda" => Some(Self::Cuda(0)),
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
            Self::Cuda(0) => f.write_str("cuda"),
            Self::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_have_names() {
        for (name, device) in
            [("cpu", DeviceName::Cpu), ("cuda", DeviceName::Cuda(0)), ("cuda:3", DeviceName::Cuda(3))]
        {
            assert_eq!((name.parse(), device.to_string().as_str()), (Ok(device), name));
        }
        for wrong in ["", "gpu", "cuda:", "cuda:x", "cpu:0", "CUDA"] {
            assert!(wrong.parse::<DeviceName>().unwrap_err().contains("cuda:N"), "{wrong}");
        }
    }
}
