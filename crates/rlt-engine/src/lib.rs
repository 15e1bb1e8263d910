//! Tensors and fused operations.
