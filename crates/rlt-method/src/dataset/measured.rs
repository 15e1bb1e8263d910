//! Rows of text cut out of files of any length in the memory of one row, which is measured while it is read.

use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::record::{MAX_ROW_BYTES, too_long};

/// Why there is no next piece.
#[derive(Debug)]
pub(super) enum Fault {
    Io(io::Error),
    /// It is longer than a row may be.
    TooLong,
    /// A list does not go on as one.
    NotAList(&'static str),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Reads the next line into `line`, without its end. `false` at the end of the file.
pub(super) fn read_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> Result<bool, Fault> {
    line.clear();
    if reader.by_ref().take(MAX_ROW_BYTES as u64 + 2).read_until(b'\n', line)? == 0 {
        return Ok(false);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    if line.len() > MAX_ROW_BYTES { Err(Fault::TooLong) } else { Ok(true) }
}

/// Where a JSON list is read: its opening bracket is used up.
#[derive(Debug, Default)]
pub(super) struct List {
    n_elements: usize,
    is_over: bool,
}

impl List {
    /// Reads the text of the next element into `element`, as it stands between commas. `false` behind the last one.
    pub(super) fn next(&mut self, reader: &mut impl BufRead, element: &mut Vec<u8>) -> Result<bool, Fault> {
        element.clear();
        if self.is_over {
            return Ok(false);
        }
        let (mut depth, mut in_text, mut is_escaped) = (0_usize, false, false);
        loop {
            let buffer = reader.fill_buf()?;
            if buffer.is_empty() {
                // What is there may say better what is wrong with it; else the next call does.
                return if element.trim_ascii().is_empty() {
                    Err(Fault::NotAList("the file ends within its list"))
                } else {
                    Ok(true)
                };
            }
            let mut end = None;
            for (i, &byte) in buffer.iter().enumerate() {
                if in_text {
                    in_text = is_escaped || byte != b'"';
                    is_escaped = !is_escaped && byte == b'\\';
                    continue;
                }
                match byte {
                    b'"' => in_text = true,
                    b'[' | b'{' => depth += 1,
                    b']' | b'}' if depth > 0 => depth -= 1,
                    b',' | b']' if depth == 0 => {
                        end = Some((i, byte));
                        break;
                    }
                    _ => {}
                }
            }
            let n = end.map_or(buffer.len(), |(i, _)| i);
            element.extend_from_slice(&buffer[..n]);
            let used = end.map_or(n, |(i, _)| i + 1);
            reader.consume(used);
            if element.len() > MAX_ROW_BYTES {
                return Err(Fault::TooLong);
            }
            if let Some((_, byte)) = end {
                self.is_over = byte == b']';
                if self.is_over {
                    only_space(reader)?;
                }
                if element.trim_ascii().is_empty() && self.is_over && self.n_elements == 0 {
                    return Ok(false);
                }
                self.n_elements += 1;
                return Ok(true);
            }
        }
    }
}

/// The first byte that is no white space, left in `reader`, and how many lines end before it. What is before it is used
/// up.
pub(super) fn first_byte(reader: &mut impl BufRead) -> io::Result<Option<(u8, usize)>> {
    let mut n_lines = 0;
    loop {
        let buffer = reader.fill_buf()?;
        if buffer.is_empty() {
            return Ok(None);
        }
        let space = buffer.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        n_lines += buffer[..space].split(|&byte| byte == b'\n').count() - 1;
        let first = buffer.get(space).copied();
        reader.consume(space);
        if let Some(byte) = first {
            return Ok(Some((byte, n_lines)));
        }
    }
}

fn only_space(reader: &mut impl BufRead) -> Result<(), Fault> {
    match first_byte(reader)? {
        None => Ok(()),
        Some(_) => Err(Fault::NotAList("something stands behind its list")),
    }
}

/// A reader that counts, and ends what takes more than a row may: for formats whose readers do not measure.
pub(super) struct Metered<R> {
    inner: R,
    since_row: Arc<AtomicUsize>,
}

impl<R: Read> Metered<R> {
    /// Also the counter, to be set to 0 after each row.
    pub(super) fn new(inner: R) -> (Self, Arc<AtomicUsize>) {
        let since_row = Arc::<AtomicUsize>::default();
        (Self { inner, since_row: since_row.clone() }, since_row)
    }
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        if self.since_row.fetch_add(n, Ordering::Relaxed) + n > MAX_ROW_BYTES + buffer.len() {
            return Err(io::Error::other(too_long()));
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    fn elements(text: &str) -> Result<Vec<String>, String> {
        let (mut list, mut element, mut elements) = (List::default(), Vec::new(), Vec::new());
        // Buffers of a few bytes: every place is once a border.
        let mut reader = BufReader::with_capacity(3, text.as_bytes());
        loop {
            match list.next(&mut reader, &mut element) {
                Ok(true) => elements.push(String::from_utf8(element.clone()).unwrap()),
                Ok(false) => return Ok(elements),
                Err(fault) => return Err(format!("{fault:?}")),
            }
        }
    }

    #[test]
    fn lists_are_cut_at_their_commas() {
        let cut = |text: &str, expected: &[&str]| {
            assert_eq!(elements(text).unwrap(), expected, "{text}");
        };
        cut("]", &[]);
        cut(" \n] \n", &[]);
        cut("{\"a\":[1,2]},{}]", &["{\"a\":[1,2]}", "{}"]);
        cut(r#"{"a":"],\"\\"},"x\\"]"#, &[r#"{"a":"],\"\\"}"#, r#""x\\""#]);
        // What is wrong within an element is its reader's to say; an element that is not there is one.
        cut("{},]", &["{}", ""]);
        cut(",{}]", &["", "{}"]);
        for cut_off in ["{},", "{},{]", "{}"] {
            assert!(elements(cut_off).unwrap_err().contains("ends within"), "{cut_off}");
        }
        assert!(elements("{}] x").unwrap_err().contains("behind its list"));
    }

    #[test]
    fn what_does_not_end_is_left_in_time() {
        let endless = |byte: u8| BufReader::new(io::repeat(byte));
        let mut row = Vec::new();
        assert!(matches!(read_line(&mut endless(b'x'), &mut row), Err(Fault::TooLong)));
        assert!(matches!(List::default().next(&mut endless(b'['), &mut row), Err(Fault::TooLong)));
        assert!(row.len() < MAX_ROW_BYTES + (1 << 20));
        let (mut metered, since_row) = Metered::new(io::repeat(0));
        let mut buffer = vec![0; 1 << 20];
        let n = (0..200).take_while(|_| metered.read(&mut buffer).is_ok()).count();
        assert_eq!(n << 20, MAX_ROW_BYTES + (1 << 20));
        since_row.store(0, Ordering::Relaxed);
        assert!(metered.read(&mut buffer).is_ok());
    }
}
