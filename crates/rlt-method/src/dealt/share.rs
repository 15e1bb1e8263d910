//! Which rank does what.

/// The places in `sizes` that belong to `rank`, ascending: the largest goes to whoever has least, so that ranks end at about
/// the same time.
pub(super) fn share(sizes: &[usize], rank: usize, ranks: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by_key(|&place| std::cmp::Reverse(sizes[place]));
    let mut load = vec![(0, 0); ranks];
    let mut own = Vec::new();
    for place in order {
        // Among equal loads the rank with fewer, then the first: a work of no size is dealt evenly, too.
        let least = (0..ranks).min_by_key(|&rank| load[rank]).unwrap_or(0);
        load[least].0 += sizes[place];
        load[least].1 += 1;
        if least == rank {
            own.push(place);
        }
    }
    own.sort_unstable();
    own
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_done_once_and_loads_are_even() {
        let sizes = [9, 1, 1, 5, 4, 0, 0, 0];
        let shares: Vec<Vec<usize>> = (0..3).map(|rank| share(&sizes, rank, 3)).collect();
        let mut all: Vec<usize> = shares.concat();
        all.sort_unstable();
        assert_eq!(all, (0..sizes.len()).collect::<Vec<_>>());
        let loads: Vec<usize> =
            shares.iter().map(|share| share.iter().map(|&place| sizes[place]).sum()).collect();
        assert_eq!(loads, [9, 6, 5]);
        assert!((0..3).all(|rank| share(&[0; 6], rank, 3).len() == 2), "work of no size");
    }
}
