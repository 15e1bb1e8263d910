//! Divergences over the whole vocabulary compare output matrices row by row.

use crate::error::{Error, Result};

/// Refuses two models whose output matrices have other numbers of rows. Models of one family may: they share a tokenizer, and
/// the larger ones pad their matrices further. `what` compares them, `next` is what to do.
///
/// # Errors
/// [`Error::Usage`] where they do.
pub(crate) fn check_rows(rows: [usize; 2], what: &str, next: &str) -> Result<()> {
    let [one, other] = rows;
    if one == other {
        return Ok(());
    }
    Err(Error::Usage(format!(
        "{what} compares two models over the whole vocabulary, but their output matrices have {one} and {other} rows; {next}"
    )))
}
