//! The report of a run: one HTML file that needs nothing else, made from run files only.
//!
//! [`run_files`] says what is read; `page`, `explanations`, `forensics` and `curves` turn it into what the
//! templates show; `chart` and `tokens` draw. Templates escape every text; the few parts that are HTML already escape theirs.

mod chart;
mod comparison;
mod curves;
mod explanations;
pub mod figure;
mod forensics;
mod number;
mod page;
pub mod run_files;
mod run_kind;
pub mod sample;
mod style;
mod tokens;
mod trend;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use minijinja::Environment;
use minijinja::value::Serde;
use rlt_files::write_atomic;

use rlt_method::error::{Error, Result, io_error};
use rlt_method::run_dir::is_run_dir;
use run_files::RunFiles;

pub use run_files::{DemoSummary, Evaluation, Explanations, Stage, Student};
pub use sample::Sample;
pub use style::STYLE;

/// Writes `run_dir/report.html` and returns its path.
///
/// Reads, where they exist: `demo.json`, `eval*.json`, `config.toml`, `metrics.jsonl` and the files
/// of `samples/` (these three from the demo's training folder when it names one). A
/// run that is still going can be reported; a row that is half written is left out.
///
/// # Errors
/// [`Error::File`] when there is nothing to report, a file is not what it should be, or somebody else's `report.html` is
/// there,
/// [`Error::Row`] for a damaged row, [`Error::Io`].
pub fn write_report(run_dir: &Path) -> Result<PathBuf> {
    let files = RunFiles::read(run_dir)?;
    let html = render("page.html", page::Page::of(&files))?;
    let path = run_dir.join("report.html");
    if !is_run_dir(run_dir) {
        refuse_foreign_page(&path)?;
    }
    write_atomic(&path, html.as_bytes())?;
    Ok(path)
}

/// Writes one page that compares the runs in `run_dirs` (two or more) to `out`.
///
/// # Errors
/// As [`write_report`] for each of them; [`Error::Usage`] for more runs than a page can show.
pub fn write_comparison(run_dirs: &[&Path], out: &Path) -> Result<()> {
    let comparison = comparison::Comparison::of(run_dirs)?;
    let html = render("comparison.html", comparison)?;
    Ok(write_atomic(out, html.as_bytes())?)
}

/// Refuses a page that is there and that this module did not write. For names that the user did not choose.
///
/// # Errors
/// [`Error::File`].
pub fn refuse_foreign_page(path: &Path) -> Result<()> {
    /// The title stands within these.
    const HEAD: u64 = 1 << 16;
    let mut head = Vec::new();
    match path.metadata() {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Ok(metadata) if metadata.is_file() => {
            let file = File::open(path).map_err(io_error(path))?;
            file.take(HEAD).read_to_end(&mut head).map_err(io_error(path))?;
        }
        Ok(_) => {}
        Err(e) => return Err(io_error(path)(e)),
    }
    if String::from_utf8_lossy(&head).contains("· rlt report</title>") {
        return Ok(());
    }
    let what = "is not a page that rlt wrote, so it stays; move it, or write elsewhere".into();
    Err(Error::File { path: path.to_path_buf(), what })
}

/// One of the pages, filled in.
fn render(page: &str, values: impl serde::Serialize) -> Result<String> {
    let mut templates = Environment::new();
    // The names end in .html, which turns escaping on.
    let sources = [
        ("page.html", include_str!("page.html")),
        ("reload.html", include_str!("reload.html")),
        ("comparison.html", include_str!("comparison.html")),
        ("charts.html", include_str!("charts.html")),
        ("explanations.html", include_str!("explanations.html")),
        ("forensics.html", include_str!("forensics.html")),
    ];
    let rendered = sources
        .into_iter()
        .try_for_each(|(name, source)| templates.add_template(name, source))
        .and_then(|()| templates.get_template(page)?.render(Serde(values)));
    rendered.map_err(|e| Error::Failed(format!("report template: {e:#}")))
}
