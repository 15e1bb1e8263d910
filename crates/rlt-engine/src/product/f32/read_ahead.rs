//! What a task reads next, asked for while it computes: it comes from memory.

use std::ops::Range;

use pulp::bytemuck;

use super::factors::{Product, Right};
use crate::tile::prefetch;

/// What is read once all rows of a task have passed by some strips of a chunk.
pub(super) struct ReadAhead<'a> {
    /// Of the right factor, where it lies in strips: the next one.
    strip: &'a [f32],
    /// Elements of it that belong to a step of the inner dimension.
    step: usize,
    /// Of the left factor, where columns of it are copied chunk by chunk: some of the next chunk's.
    columns: Range<usize>,
}

/// The part of `range` that belongs to `part` of so many.
#[inline(always)]
fn share(range: &Range<usize>, part: Range<usize>, of: usize) -> Range<usize> {
    range.start + range.len() * part.start / of..range.start + range.len() * part.end / of
}

impl<'a> ReadAhead<'a> {
    /// After `strips` of `width` columns, out of `all` that the task has, of the chunk `chunk` of the inner dimension; chunks have
    /// `depth` steps at most. `copies_columns`: whether columns of the left factor are copied.
    pub(super) fn new(
        product: &Product<'a>,
        chunk: &Range<usize>,
        depth: usize,
        strips: &Range<usize>,
        all: &Range<usize>,
        width: usize,
        copies_columns: bool,
    ) -> Self {
        let (_, _, inner) = product.shape;
        let chunk_from = |first: usize| first..inner.min(first + depth);
        let (next, steps) = if strips.end < all.end {
            (strips.end, chunk.clone())
        } else {
            (all.start, chunk_from(chunk.end))
        };
        let (numbers, step): (&[f32], _) = match product.right {
            Right::Panels(numbers) => (numbers, width),
            Right::Bf16(panels) => (bytemuck::cast_slice(panels.strips()), width / 2),
            Right::Rows(_) => (&[], 0),
        };
        let at = |k: usize| (next * inner + k) * step;
        let columns = if copies_columns { chunk_from(chunk.end) } else { 0..0 };
        let (first, last) = (strips.start - all.start, strips.end - all.start);
        Self {
            strip: numbers.get(at(steps.start)..at(steps.end)).unwrap_or_default(),
            step,
            columns: share(&columns, first..last, all.len()),
        }
    }

    /// Asks for what belongs to `rows`, counted within the task.
    #[inline(always)]
    pub(super) fn ask_by_rows(&self, product: &Product, task: &Range<usize>, rows: Range<usize>) {
        let strip = share(&(0..self.strip.len()), rows.clone(), task.len());
        prefetch::<_, false>(self.strip, strip.start, strip.len());
        for column in share(&self.columns, rows, task.len()) {
            prefetch::<_, false>(product.left.from(task.start, column), 0, task.len());
        }
    }

    /// What one of `others` tiles asks for, step by step, where the first tile of few rows waits for a strip and the others pass by:
    /// from where on, and how many elements a step. Of the `index`-th of them; nothing of a single one, which would ask for more
    /// than the memory brings meanwhile, or where nothing is known.
    #[inline(always)]
    pub(super) fn share_of_tile(
        &self,
        index: usize,
        others: usize,
        depth: usize,
    ) -> Option<(&'a [f32], usize)> {
        if others < 2 {
            return None;
        }
        let step = self.step.div_ceil(others);
        let rest = self.strip.get(index * step * depth..)?;
        (!rest.is_empty()).then_some((rest, step))
    }
}
