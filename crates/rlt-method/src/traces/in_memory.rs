//! Traces that are in memory, scored without a file.

use serde_json::{Map, Value};

use super::scoring::{AbsentColumns, Gaps, Lot, TraceScorer, lots};
use crate::config::DataConfig;
use crate::dataset::Record;
use crate::error::Result;

/// The written form of `records`, scored: what [`super::scoring::score_file`] writes of the same rows, to the bit. `before_lot` is
/// called before each lot of rows, and ends the work with its error.
///
/// # Errors
/// What rows and models report; [`crate::Error::Gap`] only where `gaps` refuses them or no row has the column.
pub fn score_records(
    records: Vec<Record>,
    data: &DataConfig,
    gaps: Gaps,
    scorer: &TraceScorer,
    before_lot: &mut dyn FnMut() -> Result<()>,
) -> Result<Vec<Map<String, Value>>> {
    let mut rows = Vec::with_capacity(records.len());
    let (n_records, mut absent) = (records.len() as u64, AbsentColumns::default());
    for lot in lots(records.into_iter().map(Ok), scorer.tokens_per_batch) {
        before_lot()?;
        let lot = Lot::of(&lot?, data, scorer.formats.style, gaps, &mut absent)?;
        let scored = scorer.rows(&lot.traces)?;
        rows.extend(lot.with_gaps(scored.rows));
    }
    absent.check(n_records)?;
    Ok(rows)
}
