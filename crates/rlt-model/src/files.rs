//! Reading and atomically replacing the files of a model folder.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use serde_json::Value;

use crate::{Error, Result};

pub(crate) fn read_text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|source| Error::Io { path: path.to_owned(), source })
}

/// The text of a file that need not exist.
pub(crate) fn read_text_if_present(path: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Io { path: path.to_owned(), source }),
    }
}

pub(crate) fn parse_json(text: &str, path: &Path) -> Result<Value> {
    serde_json::from_str(text)
        .map_err(|e| Error::ModelFile { path: path.to_owned(), what: format!("is not valid JSON: {e}") })
}

/// Writes a file under a temporary name in the same folder, flushes it to disk and renames it, so
/// that `path` holds either what it held before or all of what `fill` writes.
pub(crate) fn replace_file(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = Path::new(&temporary);
    let written = (|| {
        let mut out = BufWriter::new(File::create(temporary)?);
        fill(&mut out)?;
        let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        std::fs::rename(temporary, path)?;
        sync_folder_of(path)
    })();
    written.map_err(|source| {
        // Nothing more can be done if this fails too; the first error is the one to report.
        let _ = std::fs::remove_file(temporary);
        Error::Io { path: path.to_owned(), source }
    })
}

/// Makes a rename survive a power cut, where the system can.
fn sync_folder_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if cfg!(unix) => {
            File::open(if folder.as_os_str().is_empty() { Path::new(".") } else { folder })?.sync_all()
        }
        _ => Ok(()),
    }
}

pub(crate) fn replace_text(path: &Path, text: &str) -> Result<()> {
    replace_file(path, |out| out.write_all(text.as_bytes()))
}
