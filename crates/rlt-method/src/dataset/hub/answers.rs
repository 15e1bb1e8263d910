//! What a hub says, checked before anything is done with it. A hub, a mirror or whoever sits between is not trusted: its
//! words become names of files, so each must be a name that can lie nowhere but in the cache.

use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

/// The most bytes of a list of a repository's files: a hundred thousand names take a tenth.
pub(super) const MAX_LISTING_BYTES: u64 = 64 << 20;

/// The most bytes of one file; the hub recommends a fifth at most.
pub(super) const MAX_FILE_BYTES: u64 = 256 << 30;

/// The most bytes of a file's path in its repository, and of one step of it (what file systems take).
const MAX_PATH_BYTES: usize = 1024;
const MAX_STEP_BYTES: usize = 255;

/// The most digits of a commit or of a content's hash: twice those of SHA-256.
const MAX_DIGITS: usize = 128;

/// A revision of a repository: its commit, and the paths of its files.
#[derive(Debug)]
pub(super) struct Listing {
    pub commit: String,
    pub files: Vec<PathBuf>,
}

#[derive(Deserialize)]
struct RawListing {
    sha: String,
    siblings: Vec<RawFile>,
}

#[derive(Deserialize)]
struct RawFile {
    rfilename: String,
}

impl Listing {
    /// The listing in an answer of the hub; `Err` says what is wrong with it.
    pub(super) fn parse(json: &[u8]) -> Result<Self, String> {
        let raw: RawListing =
            serde_json::from_slice(json).map_err(|e| format!("its list of files cannot be read: {e}"))?;
        let commit =
            hex(&raw.sha).ok_or_else(|| format!("it names a commit {:?}, which is not one", raw.sha))?;
        let plain = |file: RawFile| {
            plain_path(&file.rfilename)
                .ok_or_else(|| format!("it lists a file {:?}, which no repository can hold", file.rfilename))
        };
        Ok(Self {
            commit: commit.to_owned(),
            files: raw.siblings.into_iter().map(plain).collect::<Result<_, _>>()?,
        })
    }
}

/// `text` when it is a path of plain steps: relative, nothing above it, nothing that a system reads otherwise.
pub(super) fn plain_path(text: &str) -> Option<PathBuf> {
    let plain = |step: &str| {
        !step.is_empty()
            && step.len() <= MAX_STEP_BYTES
            && !step.contains(|c: char| c == '\\' || c.is_control())
    };
    let path = Path::new(text);
    (text.len() <= MAX_PATH_BYTES
        && text.split('/').all(plain)
        && path.components().all(|step| matches!(step, Component::Normal(_)))
        // `components` passes over single dots.
        && text.split('/').all(|step| step != "."))
    .then(|| path.to_owned())
}

/// `text` when it is the hexadecimal digits of a commit or of a content's hash.
pub(super) fn hex(text: &str) -> Option<&str> {
    let digits = (1..=MAX_DIGITS).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    digits.then_some(text)
}

/// The hash in an `ETag`: between quotes, or without; weak, or not.
pub(super) fn etag(text: &str) -> Option<&str> {
    hex(text.strip_prefix("W/").unwrap_or(text).trim_matches('"'))
}

/// How long a file is when the answer is `first..=last` of `total` bytes (`Content-Range: bytes 5-9/10`).
pub(super) fn total_of_range(text: &str, first: u64) -> Option<u64> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (start, last) = range.split_once('-')?;
    let (start, last, total): (u64, u64, u64) =
        (start.parse().ok()?, last.parse().ok()?, total.parse().ok()?);
    (start == first && last.checked_add(1) == Some(total) && first < total).then_some(total)
}

/// `text` as a part of an address: what is neither a letter, a digit, `-._~` nor in `plain` as `%` and its byte.
pub(super) fn percent_encoded(text: &str, plain: &str) -> String {
    use std::fmt::Write;
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || plain.as_bytes().contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").expect("text grows");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_paths_pass() {
        for good in ["rows.jsonl", "data/train-00000-of-00001.parquet", ".gitattributes", "a b/ü..x/c#?.csv"]
        {
            assert_eq!(plain_path(good), Some(PathBuf::from(good)), "{good}");
        }
        let long = "x".repeat(256);
        let deep = "d/".repeat(600) + "x";
        for bad in [
            "",
            "/etc/passwd",
            "../x",
            "a/../x",
            "a/..",
            "./x",
            "a/./x",
            "a//x",
            "a/",
            "x\0y",
            "a\\..\\x",
            "x\u{1b}[2J",
            &long,
            &deep,
        ] {
            assert_eq!(plain_path(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn only_digits_are_hashes() {
        assert_eq!(etag("\"0af1\""), Some("0af1"));
        assert_eq!(etag("W/\"0AF1\""), Some("0AF1"));
        for bad in ["", "\"\"", "\"../../..\"", "/tmp/x", "0x1", "\"a b\"", &"a".repeat(129)] {
            assert_eq!(etag(bad), None, "{bad}");
        }
    }

    #[test]
    fn ranges_and_addresses() {
        assert_eq!(total_of_range("bytes 5-9/10", 5), Some(10));
        for bad in [
            "bytes 4-9/10",
            "bytes 5-8/10",
            "bytes 5-9/*",
            "bytes */10",
            "5-9/10",
            "bytes 5-18446744073709551615/0",
        ] {
            assert_eq!(total_of_range(bad, 5), None, "{bad}");
        }
        assert_eq!(percent_encoded("a b/c#1?.csv", "/"), "a%20b/c%231%3F.csv");
        assert_eq!(percent_encoded("refs/pr/1", ""), "refs%2Fpr%2F1");
    }
}
