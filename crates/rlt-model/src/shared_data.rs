//! Where tests find the real tokenizers, templates and checkpoints that live beside the project.

use std::path::{Path, PathBuf};

/// `../shared/PATH` beside the workspace, or one line about the skipped test where it is absent.
pub fn shared(path: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    if !root.exists() {
        #[expect(clippy::print_stderr, reason = "a skipped test says so")]
        {
            eprintln!("skipped: ../shared is absent");
        }
        return None;
    }
    Some(root.join(path))
}
