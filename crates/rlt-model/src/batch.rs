//! Packed batches: token rows without padding, and which of them are scored.

use std::ops::Range;

use rlt_engine::attention::Layout;

use crate::ids::TokenIds;

/// Sequences that begin with the same tokens, which are computed once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScoringGroup {
    /// The shared tokens (a prompt); may be empty.
    pub prefix: TokenIds,
    /// What follows, once per sequence.
    pub continuations: Vec<Continuation>,
}

/// One sequence after its group's prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Continuation {
    /// Its tokens.
    pub ids: TokenIds,
    /// Tokens after these that lie elsewhere: what a student reads after a thought.
    pub then: TokenIds,
    /// Positions in both together whose log-probability is wanted, ascending and not overlapping.
    pub scored: Vec<Range<usize>>,
}

impl Continuation {
    /// All tokens of `ids` wanted: a completion after its prompt.
    pub fn whole(ids: impl Into<TokenIds>) -> Self {
        let ids = ids.into();
        let scored = 0..ids.len();
        Self { ids, then: TokenIds::default(), scored: vec![scored] }
    }

    /// Number of tokens.
    pub fn n_tokens(&self) -> usize {
        self.ids.len() + self.then.len()
    }

    /// All tokens in order.
    pub fn tokens(&self) -> impl Iterator<Item = u32> {
        self.ids.iter().chain(&self.then).copied()
    }

    /// The token at a position.
    fn token(&self, position: usize) -> u32 {
        let n = self.ids.len();
        if position < n { self.ids[position] } else { self.then[position - n] }
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
    pub fn single(ids: impl Into<TokenIds>, scored: Vec<Range<usize>>) -> Self {
        let continuations = vec![Continuation { ids: ids.into(), then: TokenIds::default(), scored }];
        Self { prefix: TokenIds::default(), continuations }
    }

    /// Rows of a packed batch of this group.
    pub fn n_rows(&self) -> usize {
        GroupPart::from(self).n_rows()
    }
}

/// Some consecutive sequences of a group, after the prefix that all of it shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupPart<'a> {
    /// The shared tokens.
    pub prefix: &'a [u32],
    /// What follows, once per sequence.
    pub continuations: &'a [Continuation],
}

impl GroupPart<'_> {
    /// Rows of a packed batch of this part.
    pub fn n_rows(&self) -> usize {
        self.prefix.len() + self.continuations.iter().map(Continuation::n_rows).sum::<usize>()
    }
}

impl<'a> From<&'a ScoringGroup> for GroupPart<'a> {
    fn from(group: &'a ScoringGroup) -> Self {
        Self { prefix: &group.prefix, continuations: &group.continuations }
    }
}

impl<'a> From<&GroupPart<'a>> for GroupPart<'a> {
    fn from(part: &GroupPart<'a>) -> Self {
        *part
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
    pub fn new<'a, G: Into<GroupPart<'a>>>(groups: impl IntoIterator<Item = G>) -> Self {
        let mut batch = Self::default();
        for group in groups.into_iter().map(Into::into) {
            let first_row = batch.ids.len();
            let prefix = (!group.prefix.is_empty()).then(|| {
                batch.ids.extend_from_slice(group.prefix);
                batch.layout.push(group.prefix.len(), None)
            });
            let last_of_prefix = (first_row + group.prefix.len()).checked_sub(1);
            for continuation in group.continuations {
                let start = batch.ids.len();
                let n_rows = continuation.n_rows();
                if n_rows > 0 {
                    batch.ids.extend(continuation.tokens().take(n_rows));
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
                    batch.targets.push(continuation.token(position));
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
/// prefix where its continuations have to be divided. Nothing is reordered or copied. A single sequence that
/// is longer than `max_rows` is a micro-batch of its own.
pub fn micro_batches(groups: &[ScoringGroup], max_rows: usize) -> Vec<Vec<GroupPart<'_>>> {
    let mut batches: Vec<Vec<GroupPart>> = Vec::new();
    let mut room = 0_usize;
    for group in groups {
        let mut first = 0; // the first continuation of the part that the last batch has
        let mut open = false; // whether it has one
        for (index, continuation) in group.continuations.iter().enumerate() {
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
                batch.pop();
            } else {
                room = room.saturating_sub(need + group.prefix.len());
                (first, open) = (index, true);
            }
            batch.push(GroupPart {
                prefix: &group.prefix,
                continuations: &group.continuations[first..=index],
            });
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(prefix: usize, lengths: &[usize]) -> ScoringGroup {
        let continuation = |&n: &usize| Continuation::whole((0..n as u32).collect::<TokenIds>());
        ScoringGroup {
            prefix: vec![9; prefix].into(),
            continuations: lengths.iter().map(continuation).collect(),
        }
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
    fn tokens_that_lie_elsewhere_are_as_those_beside_them() {
        let whole = ScoringGroup::single(vec![3, 1, 4, 1, 5], vec![1..2, 3..5]);
        let mut parted = whole.clone();
        parted.continuations[0].ids = [3, 1].into();
        parted.continuations[0].then = [4, 1, 5].into();
        let [whole, parted] = [&whole, &parted].map(|group| PackedBatch::new([group]));
        assert_eq!((&parted.ids, &parted.rows, &parted.targets), (&whole.ids, &whole.rows, &whole.targets));
        assert_eq!(parted.targets, [1, 1, 5]);
    }

    #[test]
    fn micro_batches_keep_every_sequence_once_and_in_order() {
        let groups = [group(10, &[5, 6, 7, 30]), group(4, &[3, 3]), group(2, &[4])];
        for max_rows in [1, 12, 20, 28, 1000] {
            let batches = micro_batches(&groups, max_rows);
            let flat = |gs: &mut dyn Iterator<Item = GroupPart>| -> Vec<(usize, usize)> {
                gs.flat_map(|g| g.continuations.iter().map(|c| (g.prefix.len(), c.ids.len()))).collect()
            };
            assert_eq!(
                flat(&mut batches.iter().flatten().copied()),
                flat(&mut groups.iter().map(Into::into))
            );
            for batch in &batches {
                let rows: usize = batch.iter().map(GroupPart::n_rows).sum();
                let sequences: usize = batch.iter().map(|g| g.continuations.len()).sum();
                assert!(rows <= max_rows || sequences == 1, "{rows} rows of at most {max_rows}");
            }
        }
    }
}
