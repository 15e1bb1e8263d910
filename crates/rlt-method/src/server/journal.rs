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
    /// Of an earlier attempt, until they are asked for.
    known: HashMap<Key, Value>,
    /// Lines of the file before those of this attempt.
    n_earlier: usize,
    /// Answers of this attempt, and how many of them, the first, are no longer in the file.
    n_answers: u64,
    n_gone: u64,
}

#[derive(Serialize, Deserialize)]
struct Entry<K, T> {
    key: K,
    answer: T,
}

/// Answers that stand in rows are taken out of the file once they are so many, and half of it.
const MOST_NEEDLESS: u64 = 512;

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
        let (mut known, mut n_earlier) = (HashMap::new(), 0);
        for line in std::io::BufReader::new(file.written()?).lines() {
            let line = line.map_err(io_error(&path))?;
            n_earlier += 1;
            // A line that is none was of another version: what it knew is asked again.
            if let Ok(Entry { key, answer }) = serde_json::from_str::<Entry<Key, Value>>(&line) {
                known.insert(key, answer);
            }
        }
        Ok(Some(Self { path, file: Some(file), known, n_earlier, n_answers: 0, n_gone: 0 }))
    }

    /// The answer to a request that was answered before.
    pub fn find<T: DeserializeOwned>(&mut self, key: &Key) -> Option<T> {
        serde_json::from_value(self.known.remove(key)?).ok()
    }

    /// Keeps an answer.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn keep<T: Serialize>(&mut self, key: &Key, answer: &T) -> Result<()> {
        self.n_answers += 1;
        match &mut self.file {
            Some(file) => Ok(file.append(&[Entry { key, answer }], ())?),
            None => Ok(()),
        }
    }

    /// How many answers it was given to keep.
    pub fn answered(&self) -> u64 {
        self.n_answers
    }

    /// The first `n` of the answers stand in rows: they go, many at a time.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn release(&mut self, n: u64) -> Result<()> {
        let needless = n.min(self.n_answers).saturating_sub(self.n_gone);
        if needless < MOST_NEEDLESS || needless < (self.n_answers - self.n_gone) / 2 {
            return Ok(());
        }
        let Some(mut file) = self.file.take() else { return Ok(()) };
        let mut needed = Vec::new();
        for line in std::io::BufReader::new(file.written()?).lines().skip(self.n_earlier + needless as usize)
        {
            let line = line.map_err(io_error(&self.path))?;
            needed.push(serde_json::from_str::<Value>(&line).map_err(|e| io_error(&self.path)(e.into()))?);
        }
        file.discard()?;
        let mut file = ResumableWriter::begin(&self.path, WORK)?;
        let earlier: Vec<_> = self.known.iter().map(|(key, answer)| Entry { key, answer }).collect();
        file.append(&earlier, ())?;
        file.append(&needed, ())?;
        file.commit()?;
        (self.n_earlier, self.n_gone, self.file) = (earlier.len(), self.n_gone + needless, Some(file));
        Ok(())
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

    fn ask(n: u64) -> Ask {
        Ask::post("/v1/completions", &serde_json::json!({ "seed": n }), 1)
    }

    #[test]
    fn what_was_answered_is_found_by_what_was_asked() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out.jsonl");
        let open = || Journal::beside(&out, "server").unwrap().unwrap();
        let mut journal = open();
        journal.keep(&key(&ask(1)), &vec![0.1_f32, -3.5e-7]).unwrap();
        journal.keep(&key(&ask(2)), &vec![2.0_f32]).unwrap();
        journal.commit().unwrap();
        drop(journal);
        let mut journal = open();
        assert_eq!(journal.find::<Vec<f32>>(&key(&ask(1))), Some(vec![0.1, -3.5e-7]));
        assert_eq!(journal.find::<Vec<f32>>(&key(&ask(3))), None);
        drop(journal);
        assert!(open().find::<Vec<f32>>(&key(&ask(2))).is_some());
        open().discard().unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(Journal::beside("/dev/null".as_ref(), "server").unwrap().is_none());
    }

    #[test]
    fn what_stands_in_rows_goes_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out.jsonl");
        let open = || Journal::beside(&out, "server").unwrap().unwrap();
        let mut journal = open();
        journal.keep(&key(&ask(9999)), &9999).unwrap();
        journal.commit().unwrap();
        drop(journal);
        let mut journal = open();
        let mut most = 0;
        for n in 0..3000_u64 {
            journal.keep(&key(&ask(n)), &n).unwrap();
            // The last twenty are in no row yet.
            journal.release((n + 1).saturating_sub(20)).unwrap();
            let lines = std::io::BufReader::new(journal.file.as_mut().unwrap().written().unwrap()).lines();
            most = most.max(lines.count());
        }
        assert!(most as u64 <= MOST_NEEDLESS + 22, "{most} lines");
        assert_eq!(journal.answered(), 3000);
        journal.commit().unwrap();
        drop(journal);
        let mut journal = open();
        for n in (2980..3000).chain([9999]) {
            assert_eq!(journal.find::<u64>(&key(&ask(n))), Some(n));
        }
        assert_eq!(journal.find::<u64>(&key(&ask(0))), None);
    }
}
