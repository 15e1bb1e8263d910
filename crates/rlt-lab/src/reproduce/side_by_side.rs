//! Recipes under several seeds, side by side. A miniature's models are too small for many threads, which then wait for
//! each other more than they compute; what happens under one seed waits for no other. No number depends on it.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use rlt_method::error::{Error, Result};
use rlt_method::progress::Progress;

use super::section::Section;
use super::work::SeedWork;

/// A recipe, of whatever it measures.
pub(super) trait Measured: Sync {
    /// Runs the stages of the seed at `index`. The section, where it was the last seed that was missing.
    ///
    /// # Errors
    /// What the stages report.
    fn measure(&self, index: usize) -> Result<Option<Section>>;
}

/// A recipe that measures a `T` a seed.
pub(super) struct OfSeeds<'a, T> {
    works: &'a [SeedWork<'a>],
    measure: fn(&SeedWork) -> Result<T>,
    section: fn(&[(u64, T)]) -> Section,
    /// By seed.
    measured: Mutex<Vec<Option<T>>>,
}

impl<'a, T> OfSeeds<'a, T> {
    pub(super) fn new(
        works: &'a [SeedWork<'a>],
        measure: fn(&SeedWork) -> Result<T>,
        section: fn(&[(u64, T)]) -> Section,
    ) -> Self {
        let measured = Mutex::new(works.iter().map(|_| None).collect());
        Self { works, measure, section, measured }
    }
}

impl<T: Send> Measured for OfSeeds<'_, T> {
    fn measure(&self, index: usize) -> Result<Option<Section>> {
        let new = (self.measure)(&self.works[index])?;
        let measured = &mut *self.measured.lock().unwrap_or_else(PoisonError::into_inner);
        measured[index] = Some(new);
        if measured.iter().any(Option::is_none) {
            return Ok(None);
        }
        let seeds = self.works.iter().map(|work| work.miniature.seed);
        let all: Vec<(u64, T)> = seeds.zip(std::mem::take(measured).into_iter().flatten()).collect();
        Ok(Some((self.section)(&all)))
    }
}

/// How many seeds of `n_seeds` this process works on at the same time.
pub(super) fn lanes(n_seeds: usize) -> usize {
    n_seeds.min(rayon::current_num_threads()).max(1)
}

/// Measures `recipes` one after another, each under all of `n_seeds` seeds, in so many `lanes` with their share of the
/// threads; hands over each section, with the number of its recipe, as soon as it is known.
///
/// # Errors
/// What a recipe or `take` reports first; `fail` is called then, for the other lanes to end.
pub(super) fn run(
    recipes: &[Box<dyn Measured + '_>],
    n_seeds: usize,
    lanes: usize,
    take: &(dyn Fn(usize, Section) -> Result<()> + Sync),
    fail: &(dyn Fn() + Sync),
) -> Result<()> {
    let next = AtomicUsize::new(0);
    let lane = || {
        loop {
            let at = next.fetch_add(1, Ordering::SeqCst);
            let Some(recipe) = recipes.get(at / n_seeds) else { return Ok(()) };
            let section = recipe.measure(at % n_seeds);
            let taken =
                section.and_then(|section| section.map_or(Ok(()), |section| take(at / n_seeds, section)));
            if taken.is_err() {
                fail();
                return taken;
            }
        }
    };
    if lanes <= 1 {
        return lane();
    }
    let threads = rayon::current_num_threads();
    let in_pool = |number: usize| {
        let own = threads / lanes + usize::from(number < threads % lanes);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(own).build();
        pool.map_err(|e| Error::Failed(format!("cannot start worker threads: {e}")))?.install(lane)
    };
    let in_pool = &in_pool;
    let ended: Vec<Result<()>> = std::thread::scope(|scope| {
        let lanes: Vec<_> = (0..lanes).map(|number| scope.spawn(move || in_pool(number))).collect();
        let ended = lanes
            .into_iter()
            .map(|lane| lane.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        ended.collect()
    });
    let mut errors: Vec<Error> = ended.into_iter().filter_map(Result::err).collect();
    // Lanes that ended because of another's failure say no more than that they ended.
    errors.sort_by_key(|error| matches!(error, Error::Interrupted(_)));
    errors.into_iter().next().map_or(Ok(()), Err)
}

/// The watcher of one seed's stages beside others: several bars at once would be read as none.
pub(super) struct BesideOthers<'a> {
    pub progress: &'a dyn Progress,
    pub seed: u64,
}

impl Progress for BesideOthers<'_> {
    fn start(&self, _stage: &str, _total: u64, _unit: &str) {}
    fn advance(&self, _n: u64, _message: &str) {}
    fn finish(&self, _message: &str) {}
    fn note(&self, line: &str) {
        self.progress.note(&format!("seed {}: {line}", self.seed));
    }
    fn warn(&self, line: &str) {
        self.progress.warn(&format!("seed {}: {line}", self.seed));
    }
}
