//! The key that somebody meant who wrote one that there is not.

/// The known key with the smallest edit distance to `path`. The last part counts most, because a
/// right key in the wrong table is a common slip.
pub(super) fn nearest(path: &str, known: impl Iterator<Item = String>) -> String {
    let distance = |known: &String| {
        let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
        let of_key = strsim::damerau_levenshtein(&last(path), &last(known));
        (4 * of_key + strsim::damerau_levenshtein(path, known), known.len())
    };
    known.min_by_key(distance).unwrap_or_default()
}
