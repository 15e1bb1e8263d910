//! Recycled memory: a training step asks for the same sizes again and again, and fresh pages from
//! the operating system cost more than many of the operations that fill them.

use std::collections::BTreeMap;
use std::sync::Mutex;

/// Free buffers by capacity (f32 elements).
static FREE: Mutex<BTreeMap<usize, Vec<Vec<f32>>>> = Mutex::new(BTreeMap::new());

/// Smaller buffers are left to the allocator, which handles them well.
const SMALLEST_ELEMENTS: usize = 1 << 13;

/// Rounds a size up to one of eight classes per power of two (at most 12.5 % waste).
fn size_class(elements: usize) -> usize {
    let step = (elements.next_power_of_two() / 16).max(1);
    elements.div_ceil(step) * step
}

/// A buffer of `elements` initialised but unspecified values.
pub(crate) fn take(elements: usize) -> Vec<f32> {
    if elements < SMALLEST_ELEMENTS {
        return vec![0.0; elements];
    }
    let class = size_class(elements);
    let recycled = FREE.lock().expect("no panic holds this lock").get_mut(&class).and_then(Vec::pop);
    let mut buffer = recycled.unwrap_or_else(|| vec![0.0; class]);
    buffer.truncate(elements);
    buffer
}

/// Hands a buffer back for the next [`take`].
pub(crate) fn give(mut buffer: Vec<f32>) {
    let class = buffer.capacity();
    if class < SMALLEST_ELEMENTS || class != size_class(class) {
        return;
    }
    // Stale values are fine (callers overwrite them); only the part cut off by `take` is filled.
    buffer.resize(class, 0.0);
    FREE.lock().expect("no panic holds this lock").entry(class).or_default().push(buffer);
}

/// Returns all recycled memory to the operating system (between stages of different shape).
pub(crate) fn release_all() {
    FREE.lock().expect("no panic holds this lock").clear();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_waste_at_most_an_eighth() {
        for n in [SMALLEST_ELEMENTS, 10_000, 65_537, 1_000_001] {
            let class = size_class(n);
            assert!(class >= n && class <= n + n / 8 + 1, "{n} -> {class}");
            assert_eq!(size_class(class), class);
        }
    }

    #[test]
    fn buffers_come_back_for_any_size_of_their_class() {
        // Sizes that no other test asks for, so that nobody else takes these buffers.
        let (class, smaller) = (size_class(3_123_457), 3_100_000);
        assert_eq!(size_class(smaller), class);
        let buffer = take(3_123_457);
        assert_eq!((buffer.len(), buffer.capacity()), (3_123_457, class));
        let address = buffer.as_ptr();
        give(buffer);
        let again = take(smaller);
        assert_eq!((again.len(), again.as_ptr()), (smaller, address));
        give(again);
        release_all();
        assert!(!FREE.lock().expect("no panic holds this lock").contains_key(&class));
    }

    #[test]
    fn small_and_foreign_buffers_are_not_kept() {
        let kept = |capacity| FREE.lock().expect("no panic holds this lock").contains_key(&capacity);
        give(vec![1.0; SMALLEST_ELEMENTS - 1]);
        assert!(!kept(SMALLEST_ELEMENTS - 1));
        let foreign = 2_000_003; // a capacity between two classes
        assert_ne!(size_class(foreign), foreign);
        give(vec![1.0; foreign]);
        assert!(!kept(foreign));
        assert_eq!(take(3), [0.0; 3]);
        assert!(take(0).is_empty());
    }
}
