//! Traces that are in memory, scored without a file.

use serde_json::{Map, Value};

use super::scoring::{Gaps, Tally, TraceScorer, gap_columns, lots};
use crate::config::DataConfig;
use crate::dataset::{Record, traces_of};
use crate::error::{Error, Result};

/// The written form of `records`, scored: what [`super::scoring::score_file`] writes of the same rows, to the bit. `before_lot` is
/// called before each lot of rows, and ends the work with its error.
///
/// # Errors
/// What rows and models report; [`Error::Gap`] only where `gaps` refuses them.
pub fn score_records(
    records: Vec<Record>,
    data: &DataConfig,
    gaps: Gaps,
    scorer: &TraceScorer,
    before_lot: &mut dyn FnMut() -> Result<()>,
) -> Result<Vec<Map<String, Value>>> {
    let (mut rows, mut tally) = (Vec::with_capacity(records.len()), Tally::default());
    for lot in lots(records.into_iter().map(Ok), scorer.tokens_per_batch) {
        before_lot()?;
        let mut traces = Vec::new();
        let mut lacking = Vec::new();
        for record in &lot? {
            match traces_of(record, data, scorer.formats.style) {
                Err(Error::Gap { what, .. }) if gaps == Gaps::Written => {
                    lacking.push((traces.len(), gap_columns(record, &what)));
                }
                outcome => traces.extend(outcome?),
            }
        }
        let (mut scored, _) = scorer.rows(&traces, &mut tally)?;
        for (before, columns) in lacking.into_iter().rev() {
            scored.insert(before, columns);
        }
        rows.extend(scored);
    }
    Ok(rows)
}
