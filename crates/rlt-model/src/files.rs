//! Reading and atomically replacing the files of a model folder.

use std::io::{self, Write};
use std::path::Path;

use rlt_files::{MOST_DESCRIPTION, WholeFile};
use serde_json::Value;

use crate::{Error, Result};

pub(crate) fn read_text(path: &Path) -> Result<String> {
    rlt_files::read_text(path, MOST_DESCRIPTION).map_err(|source| Error::Io { path: path.to_owned(), source })
}

/// The text of a file that need not exist.
pub(crate) fn read_text_if_present(path: &Path) -> Result<Option<String>> {
    match rlt_files::read_text(path, MOST_DESCRIPTION) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Io { path: path.to_owned(), source }),
    }
}

pub(crate) fn parse_json(text: &str, path: &Path) -> Result<Value> {
    serde_json::from_str(text)
        .map_err(|e| Error::ModelFile { path: path.to_owned(), what: format!("is not valid JSON: {e}") })
}

/// Puts what `fill` writes in the place of the file `path`: it holds that, or what it held before.
pub(crate) fn replace_file(path: &Path, fill: impl FnOnce(&mut WholeFile) -> io::Result<()>) -> Result<()> {
    let mut file = WholeFile::create(path)?;
    fill(&mut file).map_err(|source| Error::Io { path: path.to_owned(), source })?;
    Ok(file.finish()?)
}

pub(crate) fn replace_text(path: &Path, text: &str) -> Result<()> {
    replace_file(path, |out| out.write_all(text.as_bytes()))
}
