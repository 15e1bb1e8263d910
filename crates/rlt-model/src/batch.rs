//! Packed batches: token rows without padding, and which of them are scored.

use std::ops::Range;

use rlt_engine::attention::Layout;

/// Sequences that begin with the same tokens, which are computed once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScoringGroup {
    /// The shared tokens (a prompt); may be empty.
    pub prefix: Vec<u32>,
    /// What follows, once per sequence.
    pub continuations: Vec<Continuation>,
}

/// One sequence after its group's prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Continuation {
    /// Its own tokens.
    pub ids: Vec<u32>,
    /// Positions in `ids` whose log-probability is wanted, ascending and not overlapping.
    pub scored: Vec<Range<usize>>,
}

impl Continuation {
    /// All tokens of `ids` wanted: a completion after its prompt.
    pub fn whole(ids: Vec<u32>) -> Self {
        let scored = 0..ids.len();
        Self { ids, scored: vec![scored] }
    }

    /// Number of scored tokens.
    pub fn n_scored(&self) -> usize {
        self.scored.iter().map(ExactSizeIterator::len).sum()
    }

    /// Rows that have to be computed: a token is predicted from the row before it, so nothing from
    /// the last scored token on is needed.
    pub fn n_rows(&self) -> usize {
        self.scored.last().map_or(0, |last| last.end.saturating_sub(1))
    }
}

impl ScoringGroup {
    /// A group of one plain sequence whose tokens in `scored` are wanted.
    pub fn single(ids: Vec<u32>, scored: Vec<Range<usize>>) -> Self {
        Self { prefix: Vec::new(), continuations: vec![Continuation { ids, scored }] }
    }

    /// Rows of a packed batch of this group.
    pub fn n_rows(&self) -> usize {
        self.prefix.len() + self.continuations.iter().map(Continuation::n_rows).sum::<usize>()
    }
}

/// Rows of several groups laid end to end, and the scored tokens in order: group by group,
/// continuation by continuation.
#[derive(Debug, Clone, Default)]
pub struct PackedBatch {
    /// Token of every row.
    pub ids: Vec<u32>,
    /// Segments and positions.
    pub layout: Layout,
    /// For each scored token, the row it is predicted from.
    pub rows: Vec<usize>,
    /// For each scored token, its id.
    pub targets: Vec<u32>,
}

impl PackedBatch {
    /// Packs groups.
    ///
    /// # Panics
    /// If a scored range lies outside its tokens, or asks for the very first token of a sequence
    /// (nothing predicts it).
    pub fn new<'a>(groups: impl IntoIterator<Item = &'a ScoringGroup>) -> Self {
        let mut batch = Self::default();
        for group in groups {
            let first_row = batch.ids.len();
            let prefix = (!group.prefix.is_empty()).then(|| {
                batch.ids.extend(&group.prefix);
                batch.layout.push(group.prefix.len(), None)
            });
            let last_of_prefix = (first_row + group.prefix.len()).checked_sub(1);
            for continuation in &group.continuations {
                let start = batch.ids.len();
                let n_rows = continuation.n_rows();
                if n_rows > 0 {
                    batch.ids.extend(&continuation.ids[..n_rows]);
                    batch.layout.push(n_rows, prefix);
                }
                for position in continuation.scored.iter().flat_map(Clone::clone) {
                    let row = if position > 0 {
                        start + position - 1
                    } else {
                        assert!(prefix.is_some(), "the first token of a sequence cannot be scored");
                        last_of_prefix.expect("the prefix has rows")
                    };
                    batch.rows.push(row);
                    batch.targets.push(continuation.ids[position]);
                }
            }
        }
        batch
    }

    /// Number of rows computed.
    pub fn n_rows(&self) -> usize {
        self.ids.len()
    }
}

/// Cuts groups into consecutive micro-batches of at most `max_rows` rows each, repeating a group's
/// prefix where its continuations have to be divided. Nothing is reordered. A single sequence that
/// is longer than `max_rows` is a micro-batch of its own.
pub fn micro_batches(groups: &[ScoringGroup], max_rows: usize) -> Vec<Vec<ScoringGroup>> {
    let mut batches: Vec<Vec<ScoringGroup>> = Vec::new();
    let mut room = 0_usize;
    for group in groups {
        let mut open = false; // whether the last batch already has a part of this group
        for continuation in &group.continuations {
            let need = continuation.n_rows();
            let with_prefix = need + if open { 0 } else { group.prefix.len() };
            if batches.is_empty() || with_prefix > room {
                batches.push(Vec::new());
                room = max_rows;
                open = false;
            }
            let batch = batches.last_mut().expect("one was pushed");
            if open {
                room = room.saturating_sub(need);
            } else {
                batch.push(ScoringGroup { prefix: group.prefix.clone(), continuations: Vec::new() });
                room = room.saturating_sub(need + group.prefix.len());
                open = true;
            }
            batch.last_mut().expect("one was pushed").continuations.push(continuation.clone());
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(prefix: usize, lengths: &[usize]) -> ScoringGroup {
        let continuation = |&n: &usize| Continuation::whole((0..n as u32).collect());
        ScoringGroup { prefix: vec![9; prefix], continuations: lengths.iter().map(continuation).collect() }
    }

    #[test]
    fn the_first_completion_token_is_predicted_from_the_prefix() {
        let batch = PackedBatch::new(&[group(3, &[2, 1])]);
        assert_eq!(batch.ids, [9, 9, 9, 0]);
        assert_eq!(batch.rows, [2, 3, 2]);
        assert_eq!(batch.targets, [0, 1, 0]);
        assert_eq!(batch.layout.positions(), [0, 1, 2, 3]);
    }

    #[test]
    fn micro_batches_keep_every_sequence_once_and_in_order() {
        let groups = [group(10, &[5, 6, 7, 30]), group(4, &[3, 3]), group(2, &[4])];
        for max_rows in [1, 12, 20, 28, 1000] {
            let batches = micro_batches(&groups, max_rows);
            let flat = |gs: &mut dyn Iterator<Item = &ScoringGroup>| -> Vec<(usize, usize)> {
                gs.flat_map(|g| g.continuations.iter().map(|c| (g.prefix.len(), c.ids.len()))).collect()
            };
            assert_eq!(flat(&mut batches.iter().flatten()), flat(&mut groups.iter()));
            for batch in &batches {
                let rows: usize = batch.iter().map(ScoringGroup::n_rows).sum();
                let sequences: usize = batch.iter().map(|g| g.continuations.len()).sum();
                assert!(rows <= max_rows || sequences == 1, "{rows} rows of at most {max_rows}");
            }
        }
    }
}
