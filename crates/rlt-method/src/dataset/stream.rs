//! Rows in, one at a time: files of any length in the memory of one row.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::file_kind::FileKind;
use super::files::data_files;
use super::measured::{Fault, List, Metered, first_byte, read_line};
use super::open::open;
use super::parquet::ParquetRows;
use super::record::{BYTES_PER_RECORD, Record, file_error, too_long, weight};
use super::source::{csv_names, csv_record, json_record};
use crate::error::{Error, Result};

/// The rows of data files in their order, read as they are asked for: a file takes the memory of one row (a parquet
/// file that of a page of each column, too). `data.path` may be a pipe, for JSON and, if its name says so, CSV.
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
    Lines {
        reader: BufReader<File>,
        line: Vec<u8>,
        n_lines: usize,
    },
    List {
        reader: BufReader<File>,
        list: List,
        element: Vec<u8>,
    },
    Csv {
        names: csv::StringRecord,
        records: Box<csv::StringRecordsIntoIter<Metered<BufReader<File>>>>,
        since_row: Arc<AtomicUsize>,
    },
    Parquet(Box<ParquetRows>),
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

    pub(super) fn next_record(&mut self) -> Result<Option<Record>> {
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

    /// The most bytes that the rows of the file whose turn it is may take when they are held all at once; `None` where
    /// its own length is the limit.
    pub(super) fn most_held(&self) -> Option<usize> {
        match &self.open.as_ref()?.rows {
            Rows::Parquet(rows) => Some(rows.most_held()),
            _ => None,
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
        let (file, kind) = open(path)?;
        let rows = if kind == FileKind::Parquet {
            Rows::Parquet(Box::new(ParquetRows::open(path, file)?))
        } else {
            let mut reader = BufReader::with_capacity(1 << 16, file);
            if reader.fill_buf().map_err(io)?.starts_with(b"\xef\xbb\xbf") {
                reader.consume(3);
            }
            if kind == FileKind::Csv {
                let (metered, since_row) = Metered::new(reader);
                let mut reader = csv::Reader::from_reader(metered);
                let names = csv_names(path, &mut reader)?;
                since_row.store(0, Ordering::Relaxed);
                Rows::Csv { names, records: Box::new(reader.into_records()), since_row }
            } else {
                match first_byte(&mut reader).map_err(io)? {
                    Some((b'[', _)) => {
                        reader.consume(1);
                        Rows::List { reader, list: List::default(), element: Vec::new() }
                    }
                    first => {
                        let n_lines = first.map_or(0, |(_, n_lines)| n_lines);
                        Rows::Lines { reader, line: Vec::new(), n_lines }
                    }
                }
            }
        };
        Ok(Self { path: path.into(), rows, n_read: 0 })
    }

    fn next_record(&mut self) -> Result<Option<Record>> {
        let path = &self.path;
        let fault = |row: usize, fault: Fault| match fault {
            Fault::Io(source) => Error::Io { path: path.to_path_buf(), source },
            Fault::TooLong => Error::Row { path: path.to_path_buf(), row, what: too_long() },
            Fault::NotAList(what) => file_error(path, what),
        };
        match &mut self.rows {
            Rows::Parquet(rows) => rows.next_record(),
            Rows::Csv { names, records, since_row } => {
                let record = records.next();
                since_row.store(0, Ordering::Relaxed);
                record.map(|record| csv_record(path, self.n_read + 1, names, record)).transpose()
            }
            Rows::List { reader, list, element } => {
                let row = self.n_read + 1;
                if !list.next(reader, element).map_err(|e| fault(row, e))? {
                    return Ok(None);
                }
                json_record(path, row, element.trim_ascii()).map(Some)
            }
            Rows::Lines { reader, line, n_lines } => loop {
                if !read_line(reader, line).map_err(|e| fault(*n_lines + 1, e))? {
                    return Ok(None);
                }
                *n_lines += 1;
                if !line.trim_ascii().is_empty() {
                    return json_record(path, *n_lines, line).map(Some);
                }
            },
        }
    }
}

/// The rows of a .jsonl, .json, .csv or .parquet file, of every such file of a folder in the order of their
/// names, or of a data set of the Hugging Face hub; the first `max_rows` of them unless that is 0.
///
/// # Errors
/// [`Error::Io`] when a file cannot be read, [`Error::File`] when it is of another kind, has no rows, cannot be
/// fetched or would take more memory than its length can mean, [`Error::Row`] when a row is not an object, too long or
/// not valid UTF-8.
pub fn read_records(path: &Path, max_rows: usize) -> Result<Vec<Record>> {
    let mut stream = RecordStream::open(path, max_rows)?;
    let (mut records, mut held) = (Vec::new(), 0);
    while let Some(record) = stream.next_record()? {
        if let Some(most) = stream.most_held() {
            held += BYTES_PER_RECORD + weight(&record.columns).unwrap_or(0);
            if held > most {
                let what = format!(
                    "{} rows and more repeat what the file says in a few bytes, and would take over {} MB; give \
                     fewer with data.max_rows",
                    records.len(),
                    most >> 20
                );
                return Err(file_error(&record.path, what));
            }
        }
        records.push(record);
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_behind_the_last_row_asked_for_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let files: [(&str, &[u8]); 4] = [
            ("a.jsonl", b"{\"q\":1}\n{\"q\":2}\nno row"),
            ("b.json", b"\xef\xbb\xbf\n [{\"q\":1},{\"q\":2},no row"),
            ("c.csv", b"q\n1\n2\n3,4\n"),
            ("d.ndjson", b"\n\n{\"q\":1}\r\n  \n{\"q\":2}\nno row"),
        ];
        for (name, content) in files {
            let path = dir.path().join(name);
            fs::write(&path, content).unwrap();
            let rows = read_records(&path, 2).unwrap();
            assert_eq!(rows.len(), 2, "{name}");
            assert_eq!(rows[1].text("q").unwrap().unwrap(), "2", "{name}");
            assert_eq!(rows[1].row, if name.starts_with('d') { 5 } else { 2 });
            let mut stream = RecordStream::open(&path, 0).unwrap();
            assert_eq!((&mut stream).take(2).flatten().count(), 2, "{name}");
            assert!(stream.next().unwrap().is_err(), "{name}");
            assert!(stream.next().is_none(), "after an error there is nothing");
        }
    }
}
