//! Teacher and student sequences: text to token ids and spans.
//!
//! Spans are known from construction, from the ids that were sampled and from the tokenizer's offsets;
//! nothing is decoded, encoded again and searched for. A token that straddles the border of a span is
//! outside it.

mod chat;
mod sequences;
mod sft;
mod think;
mod typed;

pub use crate::style::PromptStyle;
pub use chat::ChatText;
pub use sequences::StudentSequence;
pub use sft::{SftExample, text_example};
pub use think::Think;
pub use typed::TypedCheck;

#[cfg(test)]
pub(crate) mod test_chat;
#[cfg(test)]
mod tests;
