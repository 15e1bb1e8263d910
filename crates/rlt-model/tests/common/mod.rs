//! What several tests share.

use std::path::{Path, PathBuf};

/// A folder of `../shared/parity`; nothing, and a printed line, where it is absent.
pub fn parity_folder(name: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/parity");
    if root.is_dir() {
        return Some(root.join(name));
    }
    eprintln!("skipped: ../shared is absent");
    None
}
