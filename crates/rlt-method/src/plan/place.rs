//! Where a planned run computes.

use rlt_engine::Device;
use rlt_engine::device::GPU_WORKSPACE_BYTES;

use super::machine;
use super::record::Named;
use crate::config::{Config, DeviceName};

/// What a driver keeps of a GPU for a process and its kernels, bytes: an allowance that no measurement stands behind.
const CONTEXT_BYTES: u64 = 512 << 20;

/// The processor, or a GPU, whether there is one here or not.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    name: DeviceName,
    /// What is held beside the run's own, bytes.
    pub beside: Named<u64>,
    /// Bytes that there are, where that is known.
    pub memory: Option<u64>,
}

impl Place {
    /// That of a run of `config`, of so many bytes in the place of what is found here.
    pub fn of(config: &Config, memory: Option<u64>) -> Self {
        let name = config.model.device;
        let beside = match name {
            DeviceName::Cpu => ("program, tokenizer, rows", machine::resident_bytes()),
            DeviceName::OwnCuda(_) | DeviceName::Cuda(_) => {
                ("driver, kernels, workspace", CONTEXT_BYTES + GPU_WORKSPACE_BYTES as u64)
            }
        };
        let found = || match name {
            DeviceName::Cpu => machine::memory_bytes(),
            DeviceName::OwnCuda(_) | DeviceName::Cuda(_) => name.open().ok()?.memory_bytes(),
        };
        Self { name, beside, memory: memory.or_else(found) }
    }

    /// Whether it is a GPU.
    pub fn is_gpu(self) -> bool {
        self.name != DeviceName::Cpu
    }

    /// A device of sizes to rehearse on.
    pub fn sizes(self) -> Device {
        if self.is_gpu() { Device::sizes_of_gpu(self.memory) } else { Device::sizes() }
    }
}
