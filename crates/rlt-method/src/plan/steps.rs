//! Which steps of a run are rehearsed, and which part of a step: the heaviest, as long as it shows all that a whole one
//! would ask of memory.

/// Steps that are looked at: those with the most tokens among all, and the first ones.
const MOST_STEPS: usize = 4;

/// Micro-batches of a step, about: more of them ask for the same memory again.
const MICRO_BATCHES: usize = 16;

/// The first steps of `total`, and the ones with the most tokens: `step(index)` gives the rows of one, `tokens` what
/// they come to.
pub(super) fn chosen(
    total: u64,
    mut step: impl FnMut(u64) -> Vec<usize>,
    tokens: impl Fn(&[usize]) -> usize,
) -> Vec<Vec<usize>> {
    let mut steps: Vec<(usize, Vec<usize>)> = Vec::new();
    for index in 0..total.min(1000) {
        let rows = step(index);
        let next = (tokens(&rows), rows);
        if steps.len() < MOST_STEPS {
            steps.push(next);
        } else if let Some(last) = steps[MOST_STEPS / 2..].iter_mut().min_by_key(|kept| kept.0)
            && last.0 < next.0
        {
            *last = next;
        }
    }
    // The heaviest last: who looks at one alone looks at that.
    if let Some(heaviest) = (0..steps.len()).max_by_key(|&index| steps[index].0) {
        let heaviest = steps.remove(heaviest);
        steps.push(heaviest);
    }
    steps.into_iter().map(|(_, rows)| rows).collect()
}

/// Some rows of a step, each `n` times (completions of a question), that stand for all of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Part {
    /// Places in the step.
    pub rows: Vec<usize>,
    pub n: usize,
    /// The step's tokens, as a multiple of this part's.
    pub times: f64,
}

impl Part {
    /// Of rows of these `tokens`, each `n` times: the longest, in their order, until they come to `enough` tokens.
    pub fn of(tokens: &[usize], n: usize, enough: usize) -> Self {
        let longest = tokens.iter().copied().max().unwrap_or(1).max(1);
        let kept_n = n.min(enough.div_ceil(longest)).max(1);
        let mut order: Vec<usize> = (0..tokens.len()).collect();
        order.sort_by_key(|&row| std::cmp::Reverse(tokens[row]));
        let mut sum = 0;
        let needed = order.iter().position(|&row| {
            sum += kept_n * tokens[row];
            sum >= enough
        });
        order.truncate(needed.map_or(tokens.len(), |last| last + 1));
        order.sort_unstable();
        let of = |rows: &mut dyn Iterator<Item = usize>, n: usize| (n * rows.sum::<usize>()).max(1) as f64;
        let times =
            of(&mut tokens.iter().copied(), n) / of(&mut order.iter().map(|&row| tokens[row]), kept_n);
        Self { rows: order, n: kept_n, times }
    }

    /// As [`Self::of`], until they come to enough micro-batches.
    pub fn of_micro_batches(tokens: &[usize], n: usize, tokens_per_microbatch: usize) -> Self {
        Self::of(tokens, n, MICRO_BATCHES.saturating_mul(tokens_per_microbatch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_the_longest_rows_and_stands_for_all() {
        let part = |n, enough| Part::of(&[10, 40, 20, 30], n, enough);
        assert_eq!(part(2, 1000), Part { rows: vec![0, 1, 2, 3], n: 2, times: 1.0 });
        assert_eq!(part(2, 130), Part { rows: vec![1, 3], n: 2, times: 200.0 / 140.0 });
        assert_eq!(part(64, 100), Part { rows: vec![1], n: 3, times: 6400.0 / 120.0 });
        assert_eq!(part(1, 1), Part { rows: vec![1], n: 1, times: 2.5 });
    }

    #[test]
    fn the_first_steps_and_the_heaviest_are_looked_at() {
        let weight = |step: u64| if step == 70 { 900 } else { step as usize % 7 };
        let steps = chosen(100, |step| vec![weight(step)], |rows| rows.iter().sum());
        assert_eq!(steps.len(), MOST_STEPS);
        assert_eq!(steps[..2], [[0], [1]]);
        assert_eq!(steps[MOST_STEPS - 1], [900]);
    }
}
