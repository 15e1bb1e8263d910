//! Rows in, one at a time: files of any length in the memory of one row.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::source::{Kind, csv_record, data_files, file_error, json_record, kind};
use super::{Record, read_records};
use crate::error::{Error, Result};

/// The rows that [`read_records`] gives, in the same order and with the same errors, read as they are asked for.
///
/// JSON Lines and CSV take the memory of a row. A file that is one JSON array, or of another kind, is
/// held whole while its turn lasts.
pub struct RecordStream {
    files: VecDeque<PathBuf>,
    open: Option<OpenFile>,
    left: usize,
}

struct OpenFile {
    path: Arc<Path>,
    rows: Rows,
    n_read: usize,
}

enum Rows {
    Lines { reader: BufReader<File>, line: Vec<u8>, n_lines: usize },
    Csv { names: csv::StringRecord, records: Box<csv::StringRecordsIntoIter<BufReader<File>>> },
    Whole(std::vec::IntoIter<Record>),
}

impl RecordStream {
    /// The rows of a file, or of every data file of a folder; the first `max_rows` of them unless that is 0.
    ///
    /// # Errors
    /// [`Error::Io`] when there is no such file, [`Error::File`] when a folder holds no data file.
    pub fn open(path: &Path, max_rows: usize) -> Result<Self> {
        let left = if max_rows == 0 { usize::MAX } else { max_rows };
        Ok(Self { files: data_files(path)?.into(), open: None, left })
    }

    fn next_record(&mut self) -> Result<Option<Record>> {
        if self.left == 0 {
            return Ok(None);
        }
        loop {
            let Some(open) = &mut self.open else {
                let Some(path) = self.files.pop_front() else { return Ok(None) };
                self.open = Some(OpenFile::open(&path)?);
                continue;
            };
            if let Some(record) = open.next_record()? {
                open.n_read += 1;
                self.left -= 1;
                return Ok(Some(record));
            }
            if open.n_read == 0 {
                return Err(file_error(&open.path, "the file has no rows"));
            }
            self.open = None;
        }
    }
}

impl Iterator for RecordStream {
    type Item = Result<Record>;

    /// The next row. After an error there are no more.
    fn next(&mut self) -> Option<Self::Item> {
        let next = self.next_record();
        if next.is_err() {
            self.left = 0;
        }
        next.transpose()
    }
}

impl OpenFile {
    fn open(path: &Path) -> Result<Self> {
        let io = |source| Error::Io { path: path.to_path_buf(), source };
        let whole = || Ok::<_, Error>(Rows::Whole(read_records(path, 0)?.into_iter()));
        let mut rows = match kind(path) {
            Some(Kind::Csv | Kind::Json) => {
                let mut reader = BufReader::new(File::open(path).map_err(io)?);
                if reader.fill_buf().map_err(io)?.starts_with(b"\xef\xbb\xbf") {
                    reader.consume(3);
                }
                Rows::Lines { reader, line: Vec::new(), n_lines: 0 }
            }
            _ => whole()?,
        };
        rows = match rows {
            Rows::Lines { reader, .. } if kind(path) == Some(Kind::Csv) => {
                let mut reader = csv::Reader::from_reader(reader);
                let names =
                    reader.headers().map_err(|e| file_error(path, format!("the header line: {e}")))?;
                Rows::Csv { names: names.clone(), records: Box::new(reader.into_records()) }
            }
            Rows::Lines { mut reader, .. } => {
                if first_character(&mut reader).map_err(io)? == Some(b'[') {
                    whole()?
                } else {
                    // Line numbers count from the start of the file, the white space before the first row included.
                    let reader = BufReader::new(File::open(path).map_err(io)?);
                    Rows::Lines { reader, line: Vec::new(), n_lines: 0 }
                }
            }
            other => other,
        };
        Ok(Self { path: path.into(), rows, n_read: 0 })
    }

    fn next_record(&mut self) -> Result<Option<Record>> {
        match &mut self.rows {
            Rows::Whole(records) => Ok(records.next()),
            Rows::Csv { names, records } => records
                .next()
                .map(|record| csv_record(&self.path, self.n_read + 1, names, record))
                .transpose(),
            Rows::Lines { reader, line, n_lines } => loop {
                line.clear();
                let io = |source| Error::Io { path: self.path.to_path_buf(), source };
                if reader.read_until(b'\n', line).map_err(io)? == 0 {
                    return Ok(None);
                }
                *n_lines += 1;
                if line.last() == Some(&b'\n') {
                    line.pop();
                }
                let content = if *n_lines == 1 { line.strip_prefix(b"\xef\xbb\xbf") } else { None };
                let content = content.unwrap_or(line);
                if !content.trim_ascii().is_empty() {
                    return json_record(&self.path, *n_lines, content).map(Some);
                }
            },
        }
    }
}

/// The first byte that is no white space. Uses up what is before it.
fn first_character(reader: &mut impl BufRead) -> std::io::Result<Option<u8>> {
    loop {
        let buffer = reader.fill_buf()?;
        if buffer.is_empty() {
            return Ok(None);
        }
        if let Some(byte) = buffer.iter().find(|byte| !byte.is_ascii_whitespace()) {
            return Ok(Some(*byte));
        }
        let n = buffer.len();
        reader.consume(n);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// What a reader gives: rows as file name, row number and columns, or the error.
    fn flat(rows: Result<Vec<Record>>) -> std::result::Result<Vec<String>, String> {
        let name = |r: &Record| r.path.file_name().unwrap().to_string_lossy().into_owned();
        let row =
            |r: &Record| format!("{} {} {}", name(r), r.row, serde_json::to_string(&r.columns).unwrap());
        rows.map(|rows| rows.iter().map(row).collect()).map_err(|e| e.to_string())
    }

    #[test]
    fn a_stream_gives_what_reading_whole_files_gives() {
        let dir = tempfile::tempdir().unwrap();
        let files: [(&str, &[u8]); 13] = [
            ("a.jsonl", b"{\"q\":\"one\"}\n\n{\"q\":\"two\"}\r\n  \n{\"q\":3}"),
            ("b.jsonl", b"\xef\xbb\xbf{\"q\":\"one\"}\n"),
            ("c.json", b"\xef\xbb\xbf [{\"q\":\"one\"},{\"q\":\"two\"}]"),
            ("d.csv", b"\xef\xbb\xbfq,n\none,1\n\"two, \"\"2\"\"\",2\n"),
            ("e.jsonl", b"{\"q\": 1}\n{\"q\": 1,}\n"),
            ("f.jsonl", b"{}\n[1]\n"),
            ("g.jsonl", b"{\"q\": \"\xff\"}\n"),
            ("h.jsonl", b"\n \n"),
            ("i.csv", b"q,n\n"),
            ("j.csv", b"q,n\n1,2\n1\n"),
            ("k.csv", b"q,n\n1,\xff\n"),
            ("l.txt", b"text"),
            ("m.json", b"[{}, {]"),
        ];
        for (name, content) in files {
            let path = dir.path().join(name);
            fs::write(&path, content).unwrap();
            for max_rows in [0, 1, 2] {
                let whole = flat(read_records(&path, max_rows));
                let streamed = flat(RecordStream::open(&path, max_rows).and_then(Iterator::collect));
                // A limit may end a stream before a fault that reading the whole file meets.
                if max_rows == 0 || whole.is_ok() {
                    assert_eq!(streamed, whole, "{name}, {max_rows} rows");
                }
            }
        }
        let good = dir.path().join("good");
        fs::create_dir(&good).unwrap();
        for name in ["d.csv", "a.jsonl", "c.json"] {
            fs::copy(dir.path().join(name), good.join(name)).unwrap();
        }
        for max_rows in [0, 4] {
            let streamed = flat(RecordStream::open(&good, max_rows).and_then(Iterator::collect));
            assert_eq!(streamed, flat(read_records(&good, max_rows)));
            assert_eq!(streamed.unwrap().len(), if max_rows == 0 { 7 } else { 4 });
        }
        assert!(RecordStream::open(&dir.path().join("absent.jsonl"), 0).is_err());
    }
}
