//! Names that come from a file or a stranger, before they become a part of a path.

use std::ffi::OsStr;
use std::path::{Component, Path};

/// Whether `name` is one plain part of a path: no `..`, no separator, not absolute, not empty, nothing that a terminal
/// would act on.
pub fn is_plain_name(name: &str) -> bool {
    // Both separators, whatever the system: a file that is carried to another one must not change its meaning.
    let separated = name.contains(['/', '\\']) || name.contains(char::is_control);
    !separated && Path::new(name).file_name() == Some(OsStr::new(name))
}

/// Whether `path` stays below the folder that it is joined to: plain parts only.
pub fn is_plain_path(path: &Path) -> bool {
    let plain =
        |part: Component| matches!(part, Component::Normal(name) if name.to_str().is_some_and(is_plain_name));
    path.components().all(plain) && !path.as_os_str().is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_elsewhere_are_not_plain() {
        for name in ["eval.jsonl", "a b", ".hidden", "..a"] {
            assert!(is_plain_name(name) && is_plain_path(Path::new(name)), "{name:?}");
        }
        for name in ["", ".", "..", "../x", "a/b", "/etc/passwd", "a\\b", "a\nb", "x/", "\u{1b}[2J"] {
            assert!(!is_plain_name(name), "{name:?}");
        }
        assert!(is_plain_path(Path::new("model/config.json")));
        for path in ["", "../x", "a/../../x", "/abs", "a/\u{7}"] {
            assert!(!is_plain_path(Path::new(path)), "{path:?}");
        }
    }
}
