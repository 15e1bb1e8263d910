//! The laboratory: synthetic worlds, the method in miniature, and the paper reproduced with both.

pub mod demo;
pub mod miniature;
pub mod pretrained;
pub mod reproduce;
pub mod start;
pub mod worlds;
