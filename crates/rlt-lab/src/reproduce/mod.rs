//! The paper in miniature: its tables, figures and ablations, each a recipe over what the public commands do.
//!
//! A recipe has a `measure`, which runs the stages of one seed, and a `section`, which makes tables, a figure and
//! findings of all seeds. `side_by_side` shares out seeds, [`work`] runs a stage once and remembers its result, [`stages`] and [`traces`] are those that
//! recipes share, [`scale`] says how much of everything. Stages write ordinary run directories under
//! `RUNS/work/seed-S/`; the sections go to `RUNS/NAME/` and to one page, `RUNS/index.html`.
//!
//! Where this differs from the paper: docs/EXPERIMENTS.md.

pub mod ablations;
pub mod bases;
pub mod curve;
pub mod fig4a;
pub mod fig4b;
pub mod padding;
pub mod page;
pub mod pool;
pub mod pooled;
pub mod real;
pub mod recipe;
pub mod scale;
pub mod section;
mod side_by_side;
pub mod stages;
pub mod table;
pub mod table1;
pub mod table2;
pub mod traces;
pub mod work;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;

use rlt_files::write_atomic;

use crate::miniature::Miniature;
pub use recipe::{Recipe, ReproduceOptions};
use rlt_method::error::{Error, Result};
use rlt_method::progress::Progress;
use rlt_method::run_dir::open_folder_of_runs;
use section::Section;
use side_by_side::{BesideOthers, Measured, OfSeeds};
use table::Table;
use work::{Ledger, SeedWork, StageTime};

/// A recipe, of every seed.
fn of_recipe<'a>(recipe: Recipe, works: &'a [SeedWork]) -> Box<dyn Measured + 'a> {
    match recipe {
        Recipe::Table1 => Box::new(OfSeeds::new(works, table1::measure, table1::section)),
        Recipe::Bases => Box::new(OfSeeds::new(works, bases::measure, bases::section)),
        Recipe::Table2 => Box::new(OfSeeds::new(works, table2::measure, table2::section)),
        Recipe::Fig4a => Box::new(OfSeeds::new(works, fig4a::measure, fig4a::section)),
        Recipe::Fig4b => Box::new(OfSeeds::new(works, fig4b::measure, fig4b::section)),
        Recipe::Ablations => Box::new(OfSeeds::new(works, ablations::measure, ablations::section)),
        Recipe::Padding => Box::new(OfSeeds::new(works, padding::measure, padding::section)),
    }
}

/// What it came to.
#[derive(Debug)]
pub struct Reproduction {
    /// One a recipe.
    pub sections: Vec<Section>,
    /// Every stage.
    pub times: Vec<StageTime>,
    /// The page.
    pub page: PathBuf,
}

/// Runs the recipes, each for all seeds, and writes what they come to as soon as it is known. Stages that an earlier
/// call has completed are not run again.
///
/// # Errors
/// [`Error::Usage`] without a seed or a recipe, or when the folder holds stages of other settings; what the stages
/// report; [`Error::Interrupted`] after `stop`.
pub fn run(options: &ReproduceOptions, progress: &dyn Progress, stop: &AtomicBool) -> Result<Reproduction> {
    if options.seeds == 0 || options.recipes.is_empty() {
        return Err(Error::Usage("nothing to reproduce: name a recipe and at least one seed".into()));
    }
    if let Some(pretrained) = &options.scale.pretrained {
        if let Some(recipe) = options.recipes.iter().find(|recipe| !recipe.works_on_a_pretrained_base()) {
            return Err(Error::Usage(format!(
                "{} does not begin from one pretrained base: it trains several of its own, or needs a teacher that finishes \
                 every explanation; name table1 or ablations, or leave --base out",
                recipe.name()
            )));
        }
        pretrained.check()?;
    }
    let _folder = open_folder_of_runs(&options.run_dir, "reproduction")?;
    let folders: Vec<(u64, PathBuf)> = (1..=options.seeds)
        .map(|seed| (seed, options.run_dir.join("work").join(format!("seed-{seed}"))))
        .collect();
    // A pretrained model keeps all threads busy, and takes the memory of one.
    let lanes = if options.scale.pretrained.is_some() { 1 } else { side_by_side::lanes(folders.len()) };
    let ledger = Ledger::new(lanes);
    let beside: Vec<BesideOthers> = (1..=options.seeds).map(|seed| BesideOthers { progress, seed }).collect();
    let works: Vec<SeedWork> = folders
        .iter()
        .zip(&beside)
        .map(|((seed, dir), beside)| SeedWork {
            miniature: Miniature {
                dir,
                seed: *seed,
                progress: if lanes > 1 { beside } else { progress },
                stop,
                pretrained: options.scale.pretrained.as_ref(),
            },
            scale: &options.scale,
            ledger: &ledger,
            progress,
        })
        .collect();
    let recipes = || options.recipes.iter().map(|recipe| of_recipe(*recipe, &works)).collect::<Vec<_>>();
    ledger.plan(|| side_by_side::run(&recipes(), works.len(), 1, &|_, _| Ok(()), &|| ()))?;
    let sections: Vec<OnceLock<Section>> = options.recipes.iter().map(|_| OnceLock::new()).collect();
    let take = |index: usize, section: Section| {
        write_section(&options.run_dir.join(section.name), &section)?;
        sections[index].get_or_init(|| section);
        Ok(())
    };
    side_by_side::run(&recipes(), works.len(), lanes, &take, &|| ledger.close())?;
    let sections: Vec<Section> = sections.into_iter().filter_map(OnceLock::into_inner).collect();
    let times = ledger.times();
    write_atomic(&options.run_dir.join("times.csv"), times_table(&times).to_csv().as_bytes())?;
    let page = page::write(&options.run_dir, options, &sections, &times)?;
    Ok(Reproduction { sections, times, page })
}

/// `table.csv`, `table.md` and `figure.svg`.
fn write_section(folder: &Path, section: &Section) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|source| Error::Io { path: folder.to_owned(), source })?;
    for (name, text) in [
        ("table.csv", section.data.to_csv()),
        ("table.md", section.to_markdown()),
        ("figure.svg", section.figure.clone()),
    ] {
        write_atomic(&folder.join(name), text.as_bytes())?;
    }
    let json = serde_json::to_string(section).map_err(|e| Error::Failed(e.to_string()))?;
    Ok(write_atomic(&folder.join("section.json"), json.as_bytes())?)
}

/// Every stage with its time.
pub fn times_table(times: &[StageTime]) -> Table {
    let mut table = Table::new(&["stage", "kind", "wall_s", "cpu_s"]);
    for StageTime { name, kind, wall_s, cpu_s } in times {
        let kind = serde_json::to_value(kind).ok().and_then(|kind| kind.as_str().map(str::to_owned));
        let cpu = cpu_s.map_or_else(String::new, |cpu_s| format!("{cpu_s:.1}"));
        table.push([name.clone(), kind.unwrap_or_default(), format!("{wall_s:.1}"), cpu]);
    }
    table
}
