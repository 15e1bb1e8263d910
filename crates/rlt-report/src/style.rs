//! How every page looks.

/// The style sheet of every page.
pub const STYLE: &str = include_str!("style.css");
