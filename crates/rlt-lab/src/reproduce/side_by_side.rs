//! Recipes under several seeds, side by side. A miniature's models are too small for many threads, which then wait for
//! each other more than they compute; what happens under one seed waits for no other. No number depends on it.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

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

/// Threads of unit `at` of `n_units`, which begin in `lanes` lanes: their share of all `threads`; those of a last round that does
/// not fill the lanes share all.
fn threads_of(at: usize, n_units: usize, lanes: usize, threads: usize) -> usize {
    let round = at / lanes * lanes;
    let at_once = lanes.min(n_units - round);
    (threads / at_once + usize::from(at - round < threads % at_once)).max(1)
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
    let (next, n_units) = (AtomicUsize::new(0), recipes.len() * n_seeds);
    let threads = rayon::current_num_threads();
    let measure = |at: usize| match recipes[at / n_seeds].measure(at % n_seeds)? {
        Some(section) => take(at / n_seeds, section),
        None => Ok(()),
    };
    let in_pool = |at: usize| {
        let own = threads_of(at, n_units, lanes, threads);
        match rayon::ThreadPoolBuilder::new().num_threads(own).build() {
            Ok(pool) => pool.install(|| measure(at)),
            // The system gives no more threads: those that there are do the work.
            Err(_) => measure(at),
        }
    };
    let lane = || {
        loop {
            let at = next.fetch_add(1, Ordering::SeqCst);
            if at >= n_units {
                return Ok(());
            }
            if let Err(error) = if lanes == 1 { measure(at) } else { in_pool(at) } {
                fail();
                return Err(error);
            }
        }
    };
    if lanes == 1 {
        return lane();
    }
    let ended: Vec<Result<()>> = thread::scope(|scope| {
        let others = (1..lanes).filter_map(|_| thread::Builder::new().spawn_scoped(scope, lane).ok());
        let others: Vec<_> = others.collect();
        let own = lane();
        let others =
            others.into_iter().map(|other| other.join().unwrap_or_else(|panic| resume_unwind(panic)));
        std::iter::once(own).chain(others).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_shared_out() {
        let of = |n_units, lanes, threads| {
            (0..n_units).map(|at| threads_of(at, n_units, lanes, threads)).collect::<Vec<_>>()
        };
        assert_eq!(of(3, 2, 2), [1, 1, 2]);
        assert_eq!(of(6, 3, 8), [3, 3, 2, 3, 3, 2]);
        assert_eq!(of(5, 3, 8), [3, 3, 2, 4, 4]);
        assert_eq!(of(2, 2, 3), [2, 1]);
    }
}
