//! The processor's recycled memory: a training step asks for the same sizes again and again, and fresh pages from
//! the operating system cost more than many of the operations that fill them.
//!
//! Blocks are cut from slabs that ask for huge pages: many operations are bound by how fast memory
//! arrives, and it arrives faster where the hardware's prefetching does not stop at every 4 KiB page.

use std::sync::{Arc, Mutex, PoisonError};

use crate::recycling::{Free, OWN_SLAB_ELEMENTS, Piece, SLAB_ELEMENTS, Usage, size_class};
use crate::slab::{Block, Slab};

/// Blocks that wait for their next use, and the slab that the next new one is cut from.
struct Pool {
    free: Free<Block>,
    slab: Option<(Arc<Slab>, usize)>,
    usage: Usage,
}

static POOL: Mutex<Pool> = Mutex::new(Pool { free: Free::new(), slab: None, usage: Usage::NOTHING });

/// The pool. Nothing is allocated from the system and nothing panics while it is locked: a thread that failed there
/// would leave all others waiting. Should one fail all the same, the pool is whole at every point where it can.
fn pool() -> std::sync::MutexGuard<'static, Pool> {
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A block for `elements` initialised but unspecified values.
pub(crate) fn take(elements: usize) -> Piece<Block> {
    let class = size_class(elements);
    {
        let mut pool = pool();
        if let Some(mut piece) = pool.free.pop(class) {
            pool.usage.again(&mut piece, elements);
            return piece;
        }
        if let Some(block) = pool.cut(class) {
            return pool.usage.begin(block, class, elements);
        }
    }
    let block = fresh(class);
    pool().usage.begin(block, class, elements)
}

/// A block of `class` elements of a new slab.
fn fresh(class: usize) -> Block {
    if class >= OWN_SLAB_ELEMENTS {
        // SAFETY: the only block of its slab.
        return unsafe { Block::new(Arc::new(Slab::new(class)), 0..class) };
    }
    let slab = Arc::new(Slab::new(SLAB_ELEMENTS));
    let mut pool = pool();
    // Another thread may have been faster: its slab is used up first, and this one given back.
    if let Some(block) = pool.cut(class) {
        return block;
    }
    pool.slab = Some((slab, 0));
    pool.cut(class).expect("a new slab has room")
}

impl Pool {
    /// A new block of `class` elements from what is left of the slab.
    fn cut(&mut self, class: usize) -> Option<Block> {
        let (slab, used) = self.slab.as_mut()?;
        if class >= OWN_SLAB_ELEMENTS || *used + class > SLAB_ELEMENTS {
            return None;
        }
        let first = *used;
        *used += class;
        // SAFETY: a slab is cut from its front to its end, each element once.
        Some(unsafe { Block::new(slab.clone(), first..first + class) })
    }
}

/// Hands a block back for the next [`take`].
pub(crate) fn give(piece: Piece<Block>) {
    let mut pool = pool();
    pool.usage.give(&piece);
    pool.free.push(piece);
}

/// Returns a block to the operating system.
pub(crate) fn lose(piece: Piece<Block>) {
    pool().usage.lose(&piece);
    drop(piece);
}

/// Returns all recycled memory to the operating system (between stages of different shape).
pub(crate) fn release_all() {
    let released = {
        let mut pool = pool();
        let free = std::mem::replace(&mut pool.free, Free::new());
        pool.usage.release(&free);
        (free, pool.slab.take())
    };
    // Unmapping takes its time, and nobody need wait for it.
    drop(released);
}

/// Reads or changes what is counted.
pub(crate) fn count<R>(change: impl FnOnce(&mut Usage) -> R) -> R {
    change(&mut pool().usage)
}

#[cfg(test)]
pub(crate) fn has_free(class: usize) -> bool {
    pool().free.has(class)
}
