//! How long to wait before asking again.

use std::time::Duration;

/// The first wait.
const FIRST: Duration = Duration::from_millis(250);

/// The longest.
const LONGEST: Duration = Duration::from_secs(30);

/// The wait before attempt `attempt` (from 1) of request `request`: it doubles from a quarter of a second to half a minute, and
/// of that a share between a half and all, so that requests which failed together do not come back together. What the
/// server wishes is the least.
pub(super) fn wait(attempt: usize, request: u64, wish: Option<Duration>) -> Duration {
    let doubled = FIRST.saturating_mul(1 << (attempt - 1).min(16)).min(LONGEST);
    // SplitMix64: any number will do that differs between requests and attempts.
    let mut x =
        request.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (attempt as u64).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 30)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let share = 0.5 + 0.5 * ((x ^ (x >> 31)) >> 11) as f64 / (1_u64 << 53) as f64;
    doubled.mul_f64(share).max(wish.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_a_bound_and_differ_between_requests() {
        for attempt in 1..=20 {
            let most = FIRST.saturating_mul(1 << (attempt - 1).min(16)).min(LONGEST);
            let waits: Vec<Duration> = (0..100).map(|request| wait(attempt, request, None)).collect();
            assert!(waits.iter().all(|&wait| wait >= most / 2 && wait <= most));
            let distinct: std::collections::BTreeSet<_> = waits.iter().collect();
            assert!(distinct.len() > 90, "{attempt}: {} of 100", distinct.len());
        }
        assert_eq!(wait(1, 7, Some(Duration::from_secs(5))), Duration::from_secs(5));
        // Sixteen attempts outlast the restart of a server.
        let all: Duration = (1..=16).map(|attempt| wait(attempt, 3, None)).sum();
        assert!(all > Duration::from_secs(150), "{all:?}");
    }
}
