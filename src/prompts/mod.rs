//! Teacher and student sequences: text to token ids and spans.

mod style;

pub use style::PromptStyle;
