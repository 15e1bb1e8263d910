//! What supervised fine-tuning and GRPO share: the optimizer with its schedule, the order of the rows,
//! checkpoints, what their host lends them, and the way a run begins and ends.

pub mod checkpoint;
pub mod ending;
pub mod evaluation;
pub mod failure;
pub(crate) mod fault;
pub mod host;
pub mod inputs;
pub mod lanes;
pub mod live_report;
pub mod optimizer;
pub mod order;
pub mod run;
pub mod schedule;
pub mod spikes;

pub use checkpoint::{RestoredRun, Snapshot, State};
pub use ending::Ending;
pub use evaluation::{EvaluationState, HeldOutScore};
pub use failure::with_what_is_left;
pub use host::{Host, WorldRows};
pub use inputs::{Inputs, RowsSum};
pub(crate) use lanes::trained_shares;
pub use lanes::{GradientSum, LaneWork, Lanes, SharedLanes};
pub use optimizer::{Optimizer, OptimizerUpdate};
pub use order::EpochOrder;
pub use run::{Earlier, Run, Trained, initial_model};
