//! The paper in miniature.
