//! What keeps the loop open for other samplers, scorers and rewards, seen from outside.

use std::fs;
use std::path::Path;

use rlt::metrics::{self, REWARD_PART};

/// The table of docs/RUNS.md, as the table of metrics has it.
fn table() -> String {
    let row = |metric: metrics::Metric| {
        format!(
            "| `{}` | {} | {} |
",
            metric.name,
            metric.unit.text(),
            metric.meaning
        )
    };
    let rows: String = metrics::all().chain([REWARD_PART]).map(row).collect();
    format!(
        "| metric | unit | meaning |
|---|---|---|
{rows}"
    )
}

#[test]
fn the_page_about_runs_lists_every_metric_with_its_meaning() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/RUNS.md");
    let text = fs::read_to_string(page).unwrap();
    assert!(
        text.contains(&table()),
        "docs/RUNS.md should have this table:

{}",
        table()
    );
}
