//! Numbers that describe an explanation whatever its reward: how much of the solution it copies, how
//! much it repeats itself. The paper's ablations are read from these.

use std::collections::HashSet;

/// Longest run of tokens common to thought and solution, as a share of the solution's length (0 to 1).
///
/// 1 means that the thought holds the whole solution; 0 that they share no token (or there is no
/// solution). Time is the product of the two lengths, memory one row of the solution's length.
pub fn solution_overlap(think: &[u32], solution: &[u32]) -> f32 {
    if solution.is_empty() {
        return 0.0;
    }
    // run[k + 1]: length of the common run that ends at the current think token and solution[k].
    let mut run = vec![0_usize; solution.len() + 1];
    let mut longest = 0;
    for &t in think {
        for k in (0..solution.len()).rev() {
            run[k + 1] = if solution[k] == t { run[k] + 1 } else { 0 };
            longest = longest.max(run[k + 1]);
        }
    }
    longest as f32 / solution.len() as f32
}

/// Share of the n-grams of `tokens` that occurred before in the same sequence (0 to 1).
///
/// 0 for sequences shorter than `n` tokens or `n` = 0.
pub fn repeated_ngram_share(tokens: &[u32], n: usize) -> f32 {
    if n == 0 || tokens.len() < n {
        return 0.0;
    }
    let mut seen = HashSet::new();
    let repeated = tokens.windows(n).filter(|gram| !seen.insert(*gram)).count();
    repeated as f32 / (tokens.len() - n + 1) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlap_is_the_longest_common_run() {
        assert_eq!(solution_overlap(&[1, 2, 3, 4], &[2, 3, 9, 4]), 0.5);
        assert_eq!(solution_overlap(&[7, 2, 3, 9, 4, 7], &[2, 3, 9, 4]), 1.0);
        assert_eq!(solution_overlap(&[1, 1, 1], &[2]), 0.0);
        assert_eq!(solution_overlap(&[], &[2]), 0.0);
        assert_eq!(solution_overlap(&[2], &[]), 0.0);
        // Scattered tokens are not a run.
        assert_eq!(solution_overlap(&[2, 8, 3, 8, 9, 8, 4], &[2, 3, 9, 4]), 0.25);
    }

    #[test]
    fn repeated_share_counts_every_return() {
        assert_eq!(repeated_ngram_share(&[1, 2, 1, 2, 1], 2), 0.5);
        assert_eq!(repeated_ngram_share(&[1, 2, 3, 4], 2), 0.0);
        assert_eq!(repeated_ngram_share(&[5, 5, 5, 5], 1), 0.75);
        assert_eq!(repeated_ngram_share(&[5], 2), 0.0);
    }
}
