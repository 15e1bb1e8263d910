//! Little-endian numbers and strings from bytes, each checked against what is left.

use std::ops::Range;

/// What a fault is, without the file's name.
pub(crate) type Parsed<T> = std::result::Result<T, String>;

/// A place in the file's bytes.
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at }
    }

    /// Bytes from the beginning of the file.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    /// Bytes that are left.
    pub(crate) fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The place of the next `n` bytes, which it steps over.
    pub(crate) fn skip(&mut self, n: usize) -> Parsed<Range<usize>> {
        if n > self.left() {
            return Err(self.ends_early(n as u64));
        }
        let start = self.at;
        self.at += n;
        Ok(start..self.at)
    }

    fn array<const N: usize>(&mut self) -> Parsed<[u8; N]> {
        let range = self.skip(N)?;
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.bytes[range]);
        Ok(bytes)
    }

    pub(crate) fn u32(&mut self) -> Parsed<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Parsed<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// A number of things of which each takes at least `smallest` bytes: refused when the file has no room for them.
    pub(crate) fn count(&mut self, smallest: usize) -> Parsed<usize> {
        let n = self.u64()?;
        match n.checked_mul(smallest.max(1) as u64) {
            Some(bytes) if bytes <= self.left() as u64 => Ok(n as usize),
            _ => Err(self.ends_early(n.saturating_mul(smallest.max(1) as u64))),
        }
    }

    /// The place of a string: its length in 8 bytes, then its bytes.
    pub(crate) fn string(&mut self) -> Parsed<Range<usize>> {
        let n = self.count(1)?;
        self.skip(n)
    }

    /// A string that is a name.
    pub(crate) fn name(&mut self, longest: usize, what: &str) -> Parsed<&'a str> {
        let range = self.string()?;
        if range.len() > longest {
            return Err(format!(
                "{what} at byte {} has {} bytes, more than {longest}: the file is damaged",
                range.start,
                range.len()
            ));
        }
        std::str::from_utf8(&self.bytes[range.clone()])
            .map_err(|_| format!("{what} at byte {} is not UTF-8: the file is damaged", range.start))
    }

    fn ends_early(&self, wanted: u64) -> String {
        format!(
            "at byte {} the file asks for {wanted} bytes and has {} left: it is truncated or damaged, copy or download \
             it again",
            self.at,
            self.left()
        )
    }
}
