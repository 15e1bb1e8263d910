//! The one order in which arrays are summed.
//!
//! The work of a step lies in *lanes*, as many as the user said, whatever the number of ranks. The sum over lanes is a
//! balanced tree of pairs: (0 + 1), (2 + 3), .. then pairs of these. A rank has a block of neighbouring lanes that is a
//! subtree, so that it can fold them alone, and the tree goes on over the ranks: the same additions in the same order
//! whether one process makes all of them or eight make an eighth each.

use std::ops::Range;

/// Folds `parts`, given in order, into the first: `add(into, other)` for neighbours, then for neighbours of neighbours.
pub fn fold_in_pairs<T>(parts: &mut [T], mut add: impl FnMut(&mut T, &T)) {
    let mut distance = 1;
    while distance < parts.len() {
        let mut first = 0;
        while first + distance < parts.len() {
            let (left, right) = parts.split_at_mut(first + distance);
            add(&mut left[first], &right[0]);
            first += 2 * distance;
        }
        distance *= 2;
    }
}

/// Numbers that are added up at a time, so that sums of parts stay in the nearest cache.
const TILE: usize = 1024;

/// The sum of `parts`, which are as long as `into`, in the order of [`fold_in_pairs`].
pub(crate) fn sum_in_pairs(parts: &[&[f32]], into: &mut [f32]) {
    let mut tile: Vec<&[f32]> = Vec::with_capacity(parts.len());
    for (index, into) in into.chunks_mut(TILE).enumerate() {
        let start = index * TILE;
        tile.clear();
        tile.extend(parts.iter().map(|part| &part[start..start + into.len()]));
        sum_of_tile(&tile, into);
    }
}

fn sum_of_tile(parts: &[&[f32]], into: &mut [f32]) {
    match parts {
        [] => into.fill(0.0),
        [part] => into.copy_from_slice(part),
        [a, b] => into.iter_mut().zip(*a).zip(*b).for_each(|((into, a), b)| *into = a + b),
        [a, b, c, d] => {
            let pairs = a.iter().zip(*b).zip(c.iter().zip(*d));
            into.iter_mut().zip(pairs).for_each(|(into, ((a, b), (c, d)))| *into = (a + b) + (c + d));
        }
        _ => {
            // The tree's last sum is of the largest complete subtree and the rest.
            let (first, rest) = parts.split_at(parts.len().next_power_of_two() / 2);
            sum_of_tile(first, into);
            let mut of_rest = [0.0; TILE];
            let of_rest = &mut of_rest[..into.len()];
            sum_of_tile(rest, of_rest);
            into.iter_mut().zip(of_rest).for_each(|(into, other)| *into += *other);
        }
    }
}

/// The lanes of a rank; none where `lanes` lanes cannot be dealt to `ranks` ranks so that each has a subtree: the lanes of a
/// rank must be a power of two, or there must be one rank.
pub fn lanes_of(rank: usize, ranks: usize, lanes: usize) -> Option<Range<usize>> {
    if ranks == 0 || !lanes.is_multiple_of(ranks) {
        return None;
    }
    let own = lanes / ranks;
    (ranks == 1 || own.is_power_of_two()).then(|| rank * own..(rank + 1) * own)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tree written out: "((0+1)+2)" for three parts.
    fn tree(n: usize) -> String {
        let mut parts: Vec<String> = (0..n).map(|part| part.to_string()).collect();
        fold_in_pairs(&mut parts, |into, other| *into = format!("({into}+{other})"));
        parts.swap_remove(0)
    }

    #[test]
    fn the_tree_is_balanced_and_in_order() {
        assert_eq!(tree(1), "0");
        assert_eq!(tree(4), "((0+1)+(2+3))");
        assert_eq!(tree(6), "(((0+1)+(2+3))+(4+5))");
    }

    #[test]
    fn arrays_are_summed_in_that_tree() {
        for n in 1..=17 {
            let part = |part: usize| -> Vec<f32> {
                (0..2 * TILE + 5).map(|i| ((i * 7919 + part * 104_729) % 1009) as f32 * 0.37).collect()
            };
            let mut parts: Vec<Vec<f32>> = (0..n).map(part).collect();
            let mut sum = vec![f32::NAN; parts[0].len()];
            sum_in_pairs(&parts.iter().map(Vec::as_slice).collect::<Vec<_>>(), &mut sum);
            fold_in_pairs(&mut parts, |into, other| into.iter_mut().zip(other).for_each(|(a, b)| *a += b));
            assert_eq!(sum, parts[0], "{n} parts");
        }
    }

    #[test]
    fn ranks_that_fold_their_own_lanes_first_make_the_same_tree() {
        for lanes in 1..=16 {
            for ranks in (1..=lanes).filter(|&ranks| lanes_of(0, ranks, lanes).is_some()) {
                let mut tops: Vec<String> = (0..ranks)
                    .map(|rank| {
                        let own = lanes_of(rank, ranks, lanes).unwrap();
                        let mut own: Vec<String> = own.map(|lane| lane.to_string()).collect();
                        fold_in_pairs(&mut own, |into, other| *into = format!("({into}+{other})"));
                        own.swap_remove(0)
                    })
                    .collect();
                fold_in_pairs(&mut tops, |into, other| *into = format!("({into}+{other})"));
                assert_eq!(tops[0], tree(lanes), "{lanes} lanes on {ranks} ranks");
            }
        }
    }

    #[test]
    fn lanes_that_would_need_another_tree_are_not_dealt() {
        assert_eq!(lanes_of(1, 2, 6), None);
        assert_eq!(lanes_of(0, 4, 6), None);
        assert_eq!(lanes_of(2, 3, 6), Some(4..6));
        assert_eq!(lanes_of(0, 1, 6), Some(0..6));
    }
}
