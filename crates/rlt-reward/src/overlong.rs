//! The soft penalty of completions that come close to the length limit.

/// How far `n_tokens` reach into the last `cache` tokens before `longest`, from 0 (not at all) to 1 (at the limit or
/// beyond): minus R_length of DAPO (arXiv 2503.14476, equation 13).
pub fn overlong_share(n_tokens: usize, longest: usize, cache: usize) -> f32 {
    let into = n_tokens.saturating_sub(longest.saturating_sub(cache));
    (into as f32 / cache.max(1) as f32).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_rises_in_a_line_by_hand() {
        // The last 4 of 20 tokens.
        let shares = [0, 16, 17, 19, 20, 25].map(|n_tokens| overlong_share(n_tokens, 20, 4));
        assert_eq!(shares, [0.0, 0.0, 0.25, 0.75, 1.0, 1.0]);
        // All of them.
        assert_eq!(overlong_share(5, 20, 20), 0.25);
    }
}
