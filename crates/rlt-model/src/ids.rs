//! Token ids that several holders share.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

/// Token ids in memory that is shared: a clone or a part of them copies nothing. A prompt stands once for all its
/// completions, a completion once for everything that scores it and learns from it.
#[derive(Clone, Default)]
pub struct TokenIds {
    all: Arc<Vec<u32>>,
    first: usize,
    end: usize,
}

impl TokenIds {
    /// The ids at these positions, in the same memory.
    ///
    /// # Panics
    /// When there are not as many.
    #[must_use]
    pub fn part(&self, positions: Range<usize>) -> Self {
        assert!(positions.start <= positions.end && positions.end <= self.len(), "{positions:?}");
        let first = self.first + positions.start;
        Self { all: self.all.clone(), first, end: first + positions.len() }
    }

    /// The ids.
    pub fn as_slice(&self) -> &[u32] {
        self
    }

    /// Whether both lie in the same memory.
    pub fn shares_memory_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.all, &other.all)
    }
}

impl Deref for TokenIds {
    type Target = [u32];

    fn deref(&self) -> &[u32] {
        &self.all[self.first..self.end]
    }
}

impl<'a> IntoIterator for &'a TokenIds {
    type Item = &'a u32;
    type IntoIter = std::slice::Iter<'a, u32>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl From<Vec<u32>> for TokenIds {
    fn from(ids: Vec<u32>) -> Self {
        let end = ids.len();
        Self { all: Arc::new(ids), first: 0, end }
    }
}

impl From<&[u32]> for TokenIds {
    fn from(ids: &[u32]) -> Self {
        ids.to_vec().into()
    }
}

impl From<&Vec<u32>> for TokenIds {
    fn from(ids: &Vec<u32>) -> Self {
        ids.clone().into()
    }
}

impl<const N: usize> From<[u32; N]> for TokenIds {
    fn from(ids: [u32; N]) -> Self {
        ids.to_vec().into()
    }
}

impl FromIterator<u32> for TokenIds {
    fn from_iter<I: IntoIterator<Item = u32>>(ids: I) -> Self {
        ids.into_iter().collect::<Vec<u32>>().into()
    }
}

impl PartialEq for TokenIds {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for TokenIds {}

impl<T: AsRef<[u32]>> PartialEq<T> for TokenIds {
    fn eq(&self, other: &T) -> bool {
        **self == *other.as_ref()
    }
}

impl fmt::Debug for TokenIds {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_in_the_same_memory() {
        let ids = TokenIds::from(vec![3, 1, 4, 1, 5]);
        let part = ids.part(1..4);
        assert_eq!(part, [1, 4, 1]);
        assert_eq!(part.part(2..3), [1]);
        assert_eq!(part.part(1..2).as_ptr(), ids[2..].as_ptr());
        assert!(part.shares_memory_with(&ids) && !part.shares_memory_with(&part.to_vec().into()));
        assert!(std::panic::catch_unwind(|| part.part(1..4)).is_err());
    }
}
