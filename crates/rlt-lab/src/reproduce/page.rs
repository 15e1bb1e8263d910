//! One page over everything that has been reproduced: the paper's numbers beside ours, and what carries over.

use std::path::{Path, PathBuf};

use minijinja::value::Serde;
use minijinja::{Environment, context};
use rlt_files::{MOST_DESCRIPTION, write_atomic};
use serde_json::Value;

use super::recipe::{Recipe, ReproduceOptions};
use super::section::Section;
use super::work::StageTime;
use rlt_method::error::{Error, Result};

/// Writes `index.html`: the sections just made, and those that an earlier call left in their folders.
///
/// # Errors
/// When the page cannot be written.
pub fn write(
    run_dir: &Path,
    options: &ReproduceOptions,
    made: &[Section],
    times: &[StageTime],
) -> Result<PathBuf> {
    let mut sections: Vec<Value> = Vec::new();
    for recipe in Recipe::ALL {
        let path = run_dir.join(recipe.name()).join("section.json");
        let value = match made.iter().find(|section| section.name == recipe.name()) {
            Some(section) => serde_json::to_value(section).ok(),
            None => rlt_files::read_text(&path, MOST_DESCRIPTION)
                .ok()
                .and_then(|text| serde_json::from_str(&text).ok()),
        };
        sections.extend(value);
    }
    let failed = |e: minijinja::Error| Error::Failed(format!("reproduce template: {e:#}"));
    let mut templates = Environment::new();
    templates.add_template("index.html", include_str!("page.html")).map_err(failed)?;
    let seconds: f64 = times.iter().map(|timed| timed.wall_s).sum();
    let html = templates
        .get_template("index.html")
        .and_then(|page| {
            page.render(context! {
                style => rlt_report::STYLE,
                sections => Serde(&sections),
                scale => options.scale.name,
                minutes => format!("{:.0}", seconds / 60.0),
                stages => times.len(),
            })
        })
        .map_err(failed)?;
    let path = run_dir.join("index.html");
    write_atomic(&path, html.as_bytes())?;
    Ok(path)
}
