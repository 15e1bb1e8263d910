//! The configuration of a run: defaults, then TOML, then `key=value`.
//!
//! [`Config::load`] reads all three and names the origin of whatever is wrong; [`Config::to_toml`]
//! writes the result with every default filled in. Relative paths in a configuration are relative
//! to the current directory, not to the configuration file, so that the same text means the same
//! thing in a file and on the command line.

mod answer_rule;
mod bounds;
mod derived;
mod device;
mod distill;
mod distillation;
mod grpo;
mod load;
mod memory;
mod nearest;
mod on_device;
mod reference;
mod rollout;
mod run_tables;
mod served;
mod server;
mod tables;
mod validate;
mod world;

pub use answer_rule::*;
pub use device::*;
pub use distill::*;
pub use grpo::*;
pub use memory::*;
pub use reference::*;
pub use rollout::*;
pub use run_tables::*;
pub use server::*;
pub use tables::*;
pub use world::*;
