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
    fn buffers_come_back() {
        let buffer = take(123_457);
        assert_eq!(buffer.len(), 123_457);
        give(buffer);
        assert_eq!(take(123_456).len(), 123_456);
    }
}
