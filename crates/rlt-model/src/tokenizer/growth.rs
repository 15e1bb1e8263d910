//! How much longer a tokenizer may make a text before it cuts it: a few rules of `tokenizer.json` can turn a word into
//! gigabytes, so what they may do at most is worked out before any text is handed to them.

use serde::Serialize;
use serde_json::{Value, json};
use tokenizers::{NormalizedString, Normalizer, NormalizerWrapper};

/// The most that a text may grow: the longest ligature of Unicode grows elevenfold, a space of SentencePiece threefold.
const MAX_FACTOR: u64 = 4096;

/// The most bytes of a text when it is cut, grown; the library keeps sixteen more for each.
const MAX_BYTES: u64 = 32 << 20;

/// The bytes that a text of n bytes may become: `factor` n + `more`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Growth {
    factor: u64,
    more: u64,
}

impl Growth {
    const NONE: Self = Self { factor: 1, more: 0 };

    /// Of both, one after the other.
    fn then(self, next: Self) -> Self {
        Self {
            factor: self.factor.saturating_mul(next.factor),
            more: self.more.saturating_mul(next.factor).saturating_add(next.more),
        }
    }

    /// Of a tokenizer's normaliser and pre-tokeniser.
    ///
    /// # Errors
    /// What to say of a tokenizer whose texts may grow beyond reason.
    pub(super) fn of(inner: &tokenizers::Tokenizer) -> Result<Self, String> {
        let before = steps(&value(inner.get_normalizer())).then(steps(&value(inner.get_pre_tokenizer())));
        let after = steps(&value(inner.get_decoder()));
        if let Some(pattern) = matches_nothing(&value(inner.get_normalizer())) {
            return Err(format!(
                "it replaces what is between characters (pattern {pattern}), which loses their places"
            ));
        }
        if before.factor.max(after.factor) > MAX_FACTOR || before.more.max(after.more) > MAX_BYTES / 2 {
            return Err(format!(
                "its rules may make a text {} times as long, and add {} bytes; at most {MAX_FACTOR} times are taken",
                before.factor.max(after.factor),
                before.more.max(after.more)
            ));
        }
        Ok(before)
    }

    /// Refuses a text that may become too long to be cut.
    pub(super) fn check(self, text: &str) -> Result<(), String> {
        let grown = (text.len() as u64).saturating_mul(self.factor).saturating_add(self.more);
        if grown <= MAX_BYTES {
            return Ok(());
        }
        let most = (MAX_BYTES - self.more) / self.factor;
        Err(format!("a text of {} bytes; this tokenizer takes at most {most} at once", text.len()))
    }
}

/// The pattern of a rule that replaces a text of no length: the library then loses track of the characters' places, and
/// panics when they are asked for.
fn matches_nothing(step: &Value) -> Option<String> {
    if let Some(steps) = step["normalizers"].as_array() {
        return steps.iter().find_map(matches_nothing);
    }
    if step["type"] != "Replace" {
        return None;
    }
    // A mark in place of the content: a character that is still there beside a mark was not what matched.
    let marked = json!({"type": "Replace", "pattern": &step["pattern"], "content": "\u{1}"});
    let rule: NormalizerWrapper = serde_json::from_value(marked).ok()?;
    ["", "a", "x", "A", "1", " ", "\n", ".", "\u{2581}", "\u{4e00}"]
        .into_iter()
        .any(|probe| {
            let mut text = NormalizedString::from(probe);
            let done = rule.normalize(&mut text);
            done.is_err()
                || (text.get().contains('\u{1}') && text.get() != "\u{1}"
                    || probe.is_empty() && !text.is_empty())
        })
        .then(|| step["pattern"].to_string())
}

fn value(part: Option<&impl Serialize>) -> Value {
    part.and_then(|part| serde_json::to_value(part).ok()).unwrap_or_default()
}

fn steps(step: &Value) -> Growth {
    let text = |name: &str| step[name].as_str().unwrap_or_default();
    let times = |factor: usize| Growth { factor: factor.max(1) as u64, more: 0 };
    let plus = |more: usize| Growth { factor: 1, more: more as u64 };
    match text("type") {
        "Sequence" => ["normalizers", "pretokenizers", "decoders"]
            .iter()
            .filter_map(|name| step[*name].as_array())
            .flatten()
            .fold(Growth::NONE, |growth, next| growth.then(steps(next))),
        "Replace" => {
            let content = text("content").len();
            match step["pattern"]["String"].as_str() {
                Some(pattern) if !pattern.is_empty() => times(content.div_ceil(pattern.len())),
                // Such a pattern may match between all characters.
                _ => Growth { factor: content as u64 + 1, more: content as u64 },
            }
        }
        "Prepend" => plus(text("prepend").len()),
        "NFC" | "NFD" | "Lowercase" => times(3),
        "NFKC" | "NFKD" => times(11),
        "BertNormalizer" => times(9),
        "ByteLevel" => Growth { factor: 2, more: 2 },
        "Metaspace" => {
            let n = text("replacement").len().max(1);
            // One before every piece that other rules have cut, which have a byte at least.
            Growth { factor: n as u64 + 1, more: n as u64 }
        }
        "Precompiled" => times(longest_replacement(text("precompiled_charsmap"))),
        _ => Growth::NONE,
    }
}

/// Bytes of the longest replacement in SentencePiece's table of characters: base64 of the length of an index, the index,
/// and texts that each end with a zero.
fn longest_replacement(base64: &str) -> usize {
    let bytes = decoded(base64);
    let Some((n_index, rest)) = bytes.split_first_chunk::<4>() else { return 1 };
    let texts = rest.get(u32::from_le_bytes(*n_index) as usize..).unwrap_or_default();
    texts.split(|&byte| byte == 0).map(<[u8]>::len).max().unwrap_or(1)
}

fn decoded(base64: &str) -> Vec<u8> {
    let (mut bytes, mut bits, mut n_bits) = (Vec::with_capacity(base64.len() / 4 * 3), 0_u32, 0);
    for c in base64.bytes() {
        let value = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => break,
        };
        bits = bits << 6 | u32::from(value);
        n_bits += 6;
        if n_bits >= 8 {
            n_bits -= 8;
            bytes.push((bits >> n_bits) as u8);
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn growth(step: &Value) -> (u64, u64) {
        let Growth { factor, more } = steps(step);
        (factor, more)
    }

    #[test]
    fn rules_are_counted_at_their_worst() {
        let replace =
            |from: &str, to: &str| json!({"type": "Replace", "pattern": {"String": from}, "content": to});
        let llama = json!({"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "\u{2581}"}, replace(" ", "\u{2581}")]});
        assert_eq!(growth(&llama), (3, 9));
        assert_eq!(growth(&replace("ab", "abc")), (2, 0));
        assert_eq!(growth(&replace("", "xy")), (3, 2));
        let regex = json!({"type": "Replace", "pattern": {"Regex": "x*"}, "content": "xy"});
        assert_eq!(growth(&regex), (3, 2));
        let doubling = json!({"type": "Sequence", "normalizers": vec![replace("a", "aa"); 64]});
        assert_eq!(growth(&doubling).0, u64::MAX);
        assert_eq!(growth(&Value::Null), (1, 0));
        // An index of 2 bytes, then "abc" and "de".
        assert_eq!(decoded("AgAAAAEBYWJjAGRlAA=="), b"\x02\0\0\0\x01\x01abc\0de\0");
        assert_eq!(longest_replacement("AgAAAAEBYWJjAGRlAA=="), 3);
    }

    #[test]
    fn rules_that_match_nothing_are_known() {
        let rule =
            |pattern: Value| matches_nothing(&json!({"type": "Replace", "pattern": pattern, "content": "y"}));
        for bad in ["a*", "", "\\b", "(?=a)", "x?", "(x+)+y|a*"] {
            assert!(rule(json!({"Regex": bad})).is_some(), "{bad}");
        }
        for good in [" {2,}", "\\s+$", "[^a]", "a|b", "."] {
            assert_eq!(rule(json!({"Regex": good})), None, "{good}");
        }
        assert_eq!(rule(json!({"String": " "})), None);
    }

    #[test]
    fn texts_are_measured() {
        let threefold = Growth { factor: 3, more: 9 };
        assert_eq!(threefold.check(&"x".repeat(10 << 20)), Ok(()));
        let error = threefold.check(&"x".repeat(12 << 20)).unwrap_err();
        assert_eq!(error, "a text of 12582912 bytes; this tokenizer takes at most 11184807 at once");
    }
}
