//! What the metadata of a GGUF file says, for messages and where it must say something.

use rlt_gguf::Gguf;

use crate::error::{Error, Result};

/// A text for messages: a name, or that there is none.
pub(super) fn named(text: Option<&str>) -> String {
    text.map_or_else(|| "none".to_owned(), |text| format!("{text:?}"))
}

/// The number of `key`, which must be there.
pub(super) fn required(file: &Gguf, key: &str) -> Result<usize> {
    file.size(key)?.ok_or_else(|| Error::from(file.error(format!("has no metadata {key}"))))
}
