//! Figures of an evaluation, as pure functions: intervals and pass@k.

use crate::random::Stream;
use rlt_grade::equivalent;

/// The normal quantile of a two-sided 95 % interval.
const Z_95: f64 = 1.959_963_984_540_054;

/// A 95 % interval of a share, both ends in 0..=1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// Wilson's score interval for `n_correct` of `n` independent trials (Wilson, 1927). Without trials
/// it is everything, 0 to 1.
pub fn wilson_interval(n_correct: usize, n: usize) -> Interval {
    if n == 0 {
        return Interval { low: 0.0, high: 1.0 };
    }
    let (n, share) = (n as f64, n_correct as f64 / n as f64);
    let z2 = Z_95 * Z_95;
    let centre = (share + z2 / (2.0 * n)) / (1.0 + z2 / n);
    let half = Z_95 / (1.0 + z2 / n) * (share * (1.0 - share) / n + z2 / (4.0 * n * n)).sqrt();
    Interval { low: (centre - half).max(0.0), high: (centre + half).min(1.0) }
}

/// Percentile bootstrap over questions: samples of one question rise and fall together, so whole
/// questions are drawn, `n_resamples` times as many as there are, and the 2.5th and 97.5th
/// percentiles of the means are taken.
///
/// When every question has the same mean the bootstrap cannot see any spread; the interval is then
/// Wilson's with one trial per question.
pub fn bootstrap_interval(question_means: &[f64], n_resamples: usize, seed: u64) -> Interval {
    let n = question_means.len();
    let Some(first) = question_means.first() else { return wilson_interval(0, 0) };
    if n_resamples == 0 || question_means.iter().all(|mean| mean == first) {
        return wilson_interval((first * n as f64).round() as usize, n);
    }
    let mut means: Vec<f64> = (0..n_resamples as u64)
        .map(|resample| {
            let mut stream = Stream::new(seed, "bootstrap", resample);
            (0..n).map(|_| question_means[stream.below(n)]).sum::<f64>() / n as f64
        })
        .collect();
    means.sort_by(f64::total_cmp);
    let at = |share: f64| means[(share * (n_resamples - 1) as f64).round() as usize];
    Interval { low: at(0.025), high: at(0.975) }
}

/// As [`bootstrap_interval`] for an experiment that was run under several seeds: seeds are drawn with replacement, and
/// questions within each drawn seed, so that what differs between training runs counts as well. With few seeds it
/// is still narrower than it should be: look at the seeds themselves. One seed gives [`bootstrap_interval`].
pub fn bootstrap_by_seed(seeds: &[Vec<f64>], n_resamples: usize, seed: u64) -> Interval {
    let [first, _, ..] = seeds else {
        return bootstrap_interval(seeds.first().map_or(&[][..], Vec::as_slice), n_resamples, seed);
    };
    let same = |means: &Vec<f64>| means.iter().all(|mean| Some(mean) == first.first());
    if n_resamples == 0 || seeds.iter().any(Vec::is_empty) || seeds.iter().all(same) {
        return bootstrap_interval(&seeds.concat(), n_resamples, seed);
    }
    let mut means: Vec<f64> = (0..n_resamples as u64)
        .map(|resample| {
            let mut stream = Stream::new(seed, "bootstrap seeds", resample);
            let drawn = (0..seeds.len()).map(|_| {
                let means = stream.pick(seeds);
                mean((0..means.len()).map(|_| means[stream.below(means.len())]))
            });
            mean(drawn.collect::<Vec<_>>().into_iter())
        })
        .collect();
    means.sort_by(f64::total_cmp);
    let at = |share: f64| means[(share * (n_resamples - 1) as f64).round() as usize];
    Interval { low: at(0.025), high: at(0.975) }
}

/// Pearson's correlation with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Correlation {
    /// Pearson's r, -1 to 1.
    pub r: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// Pearson's correlation of `pairs`, its interval by Fisher's transformation: atanh(r) is about normal with a
/// standard deviation of 1 / sqrt(n - 3) (Fisher, 1915). `None` for fewer than four pairs, or when either side does
/// not vary.
pub fn pearson(pairs: &[(f64, f64)]) -> Option<Correlation> {
    let n = pairs.len();
    if n < 4 {
        return None;
    }
    let (mean_x, mean_y) = (mean(pairs.iter().map(|p| p.0)), mean(pairs.iter().map(|p| p.1)));
    let (mut xx, mut yy, mut xy) = (0.0, 0.0, 0.0);
    for (x, y) in pairs {
        let (x, y) = (x - mean_x, y - mean_y);
        xx += x * x;
        yy += y * y;
        xy += x * y;
    }
    let r = (xy / (xx * yy).sqrt()).clamp(-1.0, 1.0);
    if !r.is_finite() {
        return None;
    }
    let half = Z_95 / ((n - 3) as f64).sqrt();
    Some(Correlation { r, low: (r.atanh() - half).tanh(), high: (r.atanh() + half).tanh() })
}

/// Spearman's rank correlation of `pairs`: [`pearson`] of their ranks, equal values sharing the mean of theirs. It asks
/// whether one rises with the other, not whether it does so along a line.
pub fn spearman(pairs: &[(f64, f64)]) -> Option<Correlation> {
    let ranks = |values: Vec<f64>| -> Vec<f64> {
        let below = |x: f64| values.iter().filter(|&&value| value < x).count() as f64;
        let equal = |x: f64| values.iter().filter(|&&value| value == x).count() as f64;
        values.iter().map(|&x| below(x) + 0.5 * equal(x) + 0.5).collect()
    };
    let (x, y) = (pairs.iter().map(|p| p.0).collect(), pairs.iter().map(|p| p.1).collect());
    pearson(&ranks(x).into_iter().zip(ranks(y)).collect::<Vec<_>>())
}

/// The chance that at least one of `k` samples is right, without bias from `n` samples of which
/// `n_correct` are right: `1 - C(n - c, k) / C(n, k)` (Chen et al., 2021, equation 1).
/// `None` when `k` is 0 or above `n`.
pub fn pass_at_k(n: usize, n_correct: usize, k: usize) -> Option<f64> {
    if k == 0 || k > n || n_correct > n {
        return None;
    }
    if n - n_correct < k {
        return Some(1.0);
    }
    let all_wrong: f64 = (n - n_correct + 1..=n).map(|i| 1.0 - k as f64 / i as f64).product();
    Some(1.0 - all_wrong)
}

/// Whether the most frequent answer of `k` samples is right: the mean over the whole blocks of k samples, in their
/// order; with several most frequent answers, the share of right ones among them. Answers count as the same when
/// they are equivalent; samples without an answer do not vote, and where nobody votes nothing is right.
/// `None` when `k` is 0 or above the number of samples.
pub fn majority_at_k(answers: &[(Option<&str>, bool)], k: usize) -> Option<f64> {
    if k == 0 || k > answers.len() {
        return None;
    }
    let vote = |block: &[(Option<&str>, bool)]| {
        let mut groups: Vec<(&str, usize, bool)> = Vec::new();
        for (answer, correct) in block {
            let Some(answer) = answer else { continue };
            match groups
                .iter_mut()
                .find(|(known, _, right)| right == correct && equivalent(known, answer).equal)
            {
                Some((_, votes, _)) => *votes += 1,
                None => groups.push((answer, 1, *correct)),
            }
        }
        let most = groups.iter().map(|(_, votes, _)| *votes).max().unwrap_or(0);
        let winners: Vec<bool> =
            groups.iter().filter(|(_, votes, _)| *votes == most).map(|(.., correct)| *correct).collect();
        mean(winners.into_iter().map(f64::from))
    };
    Some(mean(answers.chunks_exact(k).map(vote)))
}

/// The two-sided p-value of the hypothesis that two models are equally good at the same questions, by random
/// exchange of the models within questions (Fisher's randomisation test): the share of exchanges whose mean
/// difference is at least as large as the one seen, the seen one counted among them.
pub fn paired_p_value(differences: &[f64], n_exchanges: usize, seed: u64) -> f64 {
    let seen: f64 = differences.iter().sum::<f64>().abs();
    let as_large = (0..n_exchanges as u64)
        .filter(|&exchange| {
            let mut stream = Stream::new(seed, "exchange", exchange);
            let sum: f64 = differences.iter().map(|d| if stream.below(2) == 0 { *d } else { -d }).sum();
            sum.abs() >= seen - 1e-12
        })
        .count();
    (as_large + 1) as f64 / (n_exchanges + 1) as f64
}

/// The mean; 0 for no values.
pub fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let n = values.len();
    if n == 0 { 0.0 } else { values.sum::<f64>() / n as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_interval(interval: Interval, low: f64, high: f64) {
        assert!((interval.low - low).abs() < 5e-5, "{interval:?}");
        assert!((interval.high - high).abs() < 5e-5, "{interval:?}");
    }

    #[test]
    fn wilson_by_hand() {
        // z = 1.96: centre (p + z^2/2n) / (1 + z^2/n), half width from the same denominator.
        assert_interval(wilson_interval(8, 10), 0.4902, 0.9433);
        assert_interval(wilson_interval(0, 10), 0.0, 0.2775);
        assert_interval(wilson_interval(10, 10), 0.7225, 1.0);
        assert_interval(wilson_interval(50, 100), 0.4038, 0.5962);
        assert_eq!(wilson_interval(0, 0), Interval { low: 0.0, high: 1.0 });
    }

    #[test]
    fn pass_at_k_by_hand() {
        assert_eq!(pass_at_k(4, 1, 1), Some(0.25));
        // 1 - C(3,2)/C(4,2) = 1 - 3/6
        assert!((pass_at_k(4, 1, 2).expect("defined") - 0.5).abs() < 1e-12);
        // 1 - C(7,3)/C(10,3) = 1 - 35/120
        assert!((pass_at_k(10, 3, 3).expect("defined") - (1.0 - 35.0 / 120.0)).abs() < 1e-12);
        assert_eq!(pass_at_k(4, 3, 2), Some(1.0));
        assert_eq!(pass_at_k(4, 0, 4), Some(0.0));
        assert_eq!(pass_at_k(4, 1, 5), None);
        assert_eq!(pass_at_k(4, 1, 0), None);
    }

    #[test]
    fn pass_at_k_is_the_share_of_subsets_with_a_right_sample() {
        // All subsets of size k of n samples, the first c right.
        for (n, c, k) in [(5, 2, 3), (6, 1, 4), (7, 3, 2), (6, 6, 1)] {
            let subsets: Vec<u32> = (0_u32..1 << n).filter(|bits| bits.count_ones() == k).collect();
            let hits = subsets.iter().filter(|bits| *bits & ((1 << c) - 1) != 0).count();
            let share = hits as f64 / subsets.len() as f64;
            let ours = pass_at_k(n as usize, c, k as usize).expect("defined");
            assert!((ours - share).abs() < 1e-12, "{n} {c} {k}: {ours} {share}");
        }
    }

    #[test]
    fn the_bootstrap_agrees_with_the_normal_interval_where_both_hold() {
        // 400 questions, a quarter each at 0, 1/4, 3/4 and 1: mean 1/2, variance 5/32.
        let means: Vec<f64> = (0..400).map(|i| [0.0, 0.25, 0.75, 1.0][i % 4]).collect();
        let half = Z_95 * (5.0_f64 / 32.0 / 400.0).sqrt();
        let interval = bootstrap_interval(&means, 4000, 1);
        assert!((interval.low - (0.5 - half)).abs() < 0.005, "{interval:?}");
        assert!((interval.high - (0.5 + half)).abs() < 0.005, "{interval:?}");
        assert_eq!(interval, bootstrap_interval(&means, 4000, 1));
        assert_ne!(interval, bootstrap_interval(&means, 4000, 2));
    }

    #[test]
    fn the_bootstrap_without_spread_is_wilsons_interval() {
        assert_eq!(bootstrap_interval(&[1.0; 10], 1000, 1), wilson_interval(10, 10));
        assert_eq!(bootstrap_interval(&[0.0; 10], 1000, 1), wilson_interval(0, 10));
        assert_eq!(bootstrap_interval(&[], 1000, 1), wilson_interval(0, 0));
    }

    #[test]
    fn seeds_that_differ_widen_the_interval() {
        let seed = |accuracy: f64| -> Vec<f64> {
            (0..200).map(|i| f64::from(u8::from(f64::from(i) < 200.0 * accuracy))).collect()
        };
        let width = |interval: Interval| interval.high - interval.low;
        let alike = bootstrap_by_seed(&[seed(0.6), seed(0.6), seed(0.6)], 2000, 1);
        let apart = bootstrap_by_seed(&[seed(0.4), seed(0.6), seed(0.8)], 2000, 1);
        assert!(alike.low < 0.6 && 0.6 < alike.high);
        // The extreme draws are three times the same seed.
        assert!(width(apart) > 3.0 * width(alike), "{apart:?} {alike:?}");
        assert_eq!(bootstrap_by_seed(&[seed(0.6)], 500, 1), bootstrap_interval(&seed(0.6), 500, 1));
        assert_eq!(bootstrap_by_seed(&[vec![1.0; 9], vec![1.0; 9]], 500, 1), wilson_interval(18, 18));
    }

    #[test]
    fn pearson_by_hand() {
        // x - mean: -1.5 -0.5 0.5 1.5; y - mean: -1.5 0.5 -0.5 1.5; r = (2.25 - 0.25 - 0.25 + 2.25) / 5.
        let correlation = pearson(&[(1.0, 1.0), (2.0, 3.0), (3.0, 2.0), (4.0, 4.0)]).expect("defined");
        assert!((correlation.r - 0.8).abs() < 1e-12);
        // atanh(0.8) = 1.0986; -+ 1.96 / sqrt(1).
        assert!((correlation.low - (1.098_612_f64 - Z_95).tanh()).abs() < 1e-6);
        assert!((correlation.high - (1.098_612_f64 + Z_95).tanh()).abs() < 1e-6);
        let falling: Vec<(f64, f64)> = (0..9).map(|i| (f64::from(i), -2.0 * f64::from(i))).collect();
        assert!((pearson(&falling).expect("defined").r + 1.0).abs() < 1e-12);
        assert_eq!(pearson(&[(1.0, 2.0); 8]), None);
        assert_eq!(pearson(&falling[..3]), None);
    }

    #[test]
    fn ranks_ignore_distances() {
        let pairs = [(-26.0, 0.01), (-4.9, 0.04), (-2.0, 0.05), (-1.0, 0.06), (0.0, 0.9)];
        assert!((spearman(&pairs).expect("defined").r - 1.0).abs() < 1e-12);
        assert!(pearson(&pairs).expect("defined").r < 0.7);
        // Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4: r = 4.5 / sqrt(4.5 * 5).
        let tied = spearman(&[(0.0, 1.0), (5.0, 2.0), (5.0, 3.0), (9.0, 4.0)]).expect("defined");
        assert!((tied.r - 4.5 / 22.5_f64.sqrt()).abs() < 1e-12);
    }

    #[test]
    fn the_majority_counts_equivalent_answers_together() {
        let votes = [(Some("1/2"), true), (Some("3"), false), (Some("0.5"), true), (Some("4"), false)];
        assert_eq!(majority_at_k(&votes, 4), Some(1.0));
        assert_eq!(majority_at_k(&votes, 2), Some(0.5));
        assert_eq!(majority_at_k(&[(None, false), (None, false)], 2), Some(0.0));
        assert_eq!(majority_at_k(&votes, 5), None);
    }

    #[test]
    fn paired_differences_have_the_sign_tests_p_value() {
        // Five differences of the same sign and size: 2 of 2^5 exchanges are as large.
        let p = paired_p_value(&[1.0; 5], 40_000, 1);
        assert!((p - 2.0 / 32.0).abs() < 0.005, "{p}");
        assert_eq!(paired_p_value(&[0.0; 5], 1000, 1), 1.0);
        assert!(paired_p_value(&[1.0, -1.0, 1.0, -1.0], 1000, 1) > 0.5);
    }

    #[test]
    fn intervals_cover_as_often_as_they_say() {
        // Questions drawn from a population whose chance of a right answer is the square of a uniform number
        // (mean 1/3), four samples each.
        let n_runs = 1500;
        let covered = |n_questions: usize, n_samples: usize, means: &dyn Fn(&[f64]) -> Interval| {
            let hits = (0..n_runs).filter(|&run| {
                let mut stream = Stream::new(run, "coverage", n_questions as u64);
                let mut unit = || stream.below(1_000_000) as f64 / 1e6;
                let question_means: Vec<f64> = (0..n_questions)
                    .map(|_| {
                        let chance = unit().powi(2);
                        (0..n_samples).filter(|_| unit() < chance).count() as f64 / n_samples as f64
                    })
                    .collect();
                let interval = means(&question_means);
                interval.low <= 1.0 / 3.0 && 1.0 / 3.0 <= interval.high
            });
            hits.count() as f64 / n_runs as f64
        };
        for n_questions in [30, 200] {
            let share = covered(n_questions, 4, &|means| bootstrap_interval(means, 400, 7));
            assert!((0.93..=0.97).contains(&share), "bootstrap, {n_questions} questions: {share}");
            let wilson = covered(n_questions, 1, &|means| {
                wilson_interval(means.iter().sum::<f64>() as usize, means.len())
            });
            assert!((0.93..=0.97).contains(&wilson), "Wilson, {n_questions} questions: {wilson}");
        }
    }

    #[test]
    fn the_mean_of_nothing_is_zero() {
        assert_eq!(mean([1.0, 2.0, 6.0].into_iter()), 3.0);
        assert_eq!(mean([].into_iter()), 0.0);
    }
}
