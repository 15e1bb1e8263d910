//! Answers that are in no row yet. Rows are written in their order, answers come in any: what was answered when work was
//! stopped or killed is kept beside the output, by what was asked, and not asked again.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::BufRead;
use std::path::{Path, PathBuf};

use rlt_files::{Place, ResumableWriter};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::wire::Ask;
use crate::error::{Result, io_error};

/// What tells a request from every other.
pub(super) type Key = String;

/// A file of answers.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: Option<ResumableWriter<()>>,
    known: HashMap<Key, Value>,
    /// Whether all that is in it stands in rows.
    is_written: bool,
}

#[derive(Serialize, Deserialize)]
struct Entry<T> {
    key: Key,
    answer: T,
}

/// Its description: whatever was asked is in the key.
const WORK: &str = "answers of servers";

/// The key of a request.
pub(super) fn key(ask: &Ask) -> Key {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, &ask.path, &ask.body).hash(&mut hasher);
        hasher.finish()
    };
    format!("{:016x}{:016x}", half(0), half(1))
}

impl Journal {
    /// Beside the output `out`, for the servers of `table`, with what an earlier attempt has left; none where rows go to no
    /// file.
    ///
    /// # Errors
    /// The file cannot be read or made.
    pub fn beside(out: &Path, table: &str) -> Result<Option<Self>> {
        let Place::File(target) = Place::of(out)? else { return Ok(None) };
        let mut name = target.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{table}-answers"));
        let path = target.with_file_name(name);
        let mut file = ResumableWriter::<()>::begin(&path, WORK)?;
        let mut known = HashMap::new();
        for line in std::io::BufReader::new(file.written()?).lines() {
            let line = line.map_err(io_error(&path))?;
            // A line that is none was of another version: what it knew is asked again.
            if let Ok(Entry { key, answer }) = serde_json::from_str::<Entry<Value>>(&line) {
                known.insert(key, answer);
            }
        }
        Ok(Some(Self { path, file: Some(file), known, is_written: false }))
    }

    /// The answer to a request that was answered before.
    pub fn find<T: DeserializeOwned>(&mut self, key: &Key) -> Option<T> {
        serde_json::from_value(self.known.remove(key)?).ok()
    }

    /// Keeps an answer.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn keep<T: Serialize>(&mut self, key: Key, answer: &T) -> Result<()> {
        match &mut self.file {
            Some(file) => Ok(file.append(&[Entry { key, answer }], ())?),
            None => Ok(()),
        }
    }

    /// Makes it safe.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn commit(&mut self) -> Result<()> {
        match &mut self.file {
            Some(file) => Ok(file.commit()?),
            None => Ok(()),
        }
    }

    /// All that was answered until now stands in rows: it goes when the next is asked.
    pub fn is_written(&mut self) {
        self.is_written = true;
    }

    /// Called before anything is asked: begins anew where all of it stands in rows.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn begin(&mut self) -> Result<()> {
        if std::mem::take(&mut self.is_written) {
            self.known.clear();
            self.discard()?;
            self.file = Some(ResumableWriter::begin(&self.path, WORK)?);
        }
        Ok(())
    }

    /// Removes it: the work is done.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn discard(&mut self) -> Result<()> {
        match self.file.take() {
            Some(file) => Ok(file.discard()?),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_answered_is_found_by_what_was_asked_until_it_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out.jsonl");
        let ask = |n: u32| Ask::post("/v1/completions", &serde_json::json!({ "seed": n }), 1);
        let open = || Journal::beside(&out, "server").unwrap().unwrap();
        let mut journal = open();
        journal.keep(key(&ask(1)), &vec![0.1_f32, -3.5e-7]).unwrap();
        journal.keep(key(&ask(2)), &vec![2.0_f32]).unwrap();
        journal.commit().unwrap();
        drop(journal);
        let mut journal = open();
        assert_eq!(journal.find::<Vec<f32>>(&key(&ask(1))), Some(vec![0.1, -3.5e-7]));
        assert_eq!(journal.find::<Vec<f32>>(&key(&ask(3))), None);
        // Begun anew only once all of it stands in rows.
        journal.begin().unwrap();
        drop(journal);
        let mut journal = open();
        assert!(journal.find::<Vec<f32>>(&key(&ask(2))).is_some());
        journal.is_written();
        journal.begin().unwrap();
        drop(journal);
        let mut journal = open();
        assert!(journal.find::<Vec<f32>>(&key(&ask(1))).is_none());
        journal.keep(key(&ask(4)), &0.0_f32).unwrap();
        journal.discard().unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(Journal::beside("/dev/null".as_ref(), "server").unwrap().is_none());
    }
}
