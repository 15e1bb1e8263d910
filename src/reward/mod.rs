//! Rewards as pure functions: arrays in, numbers out. No I/O, no model family.
//!
//! [`rlt`] is the paper's dense reward, [`correctness`] the conventional baseline, and
//! [`diagnostics`] what a report says about a text whatever its reward; [`overlong`] is the penalty of long ones, and [`sum`]
//! adds several.

pub mod correctness;
pub mod diagnostics;
pub mod overlong;
pub mod rlt;
pub mod sum;
