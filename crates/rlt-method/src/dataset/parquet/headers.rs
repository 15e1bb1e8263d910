//! The headers of a column's pages, read for what they say about sizes before anything of that size is made.
//!
//! A page header is a struct in Thrift's compact protocol; of its fields only the sizes are kept.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};

use flate2::read::MultiGzDecoder;
use parquet::basic::Compression;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::RowGroupMetaData;

/// What the pages of a row group that are in memory at once may take, decompressed, in all columns ..
const MAX_PAGES_BYTES: u64 = 192 << 20;

/// .. or so many times what they take in the file: real texts are not packed more tightly.
const MAX_PACKING: u64 = 16;

/// What an entry of a dictionary takes beside its text.
const BYTES_PER_ENTRY: u64 = 32;

/// How deep the structs of a header may lie in one another.
const MAX_DEPTH: usize = 16;

fn refused(what: String) -> ParquetError {
    ParquetError::General(what)
}

/// Checks that the pages of a row group lie in the file and can be held: of each column its dictionary and one page.
pub(super) fn check_group(file: &File, group: &RowGroupMetaData) -> Result<()> {
    let file_length = file.metadata()?.len();
    let (mut held, mut packed) = (0_u64, 0_u64);
    for column in group.columns() {
        let start = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
        let (start, length) = (u64::try_from(start).ok(), u64::try_from(column.compressed_size()).ok());
        let end = start.zip(length).and_then(|(start, length)| start.checked_add(length));
        let (Some(mut at), Some(end)) = (start, end.filter(|&end| end <= file_length)) else {
            return Err(refused(format!(
                "the pages of column `{}` lie outside the file",
                column.column_path()
            )));
        };
        let is_gzip = matches!(column.compression(), Compression::GZIP(_));
        let (mut dictionary, mut page, mut largest) = (0, 0, 0);
        while at < end {
            let mut header = Header::default();
            let mut reader = Fields { reader: reader_at(file, at)?, left: end - at };
            reader.header(&mut header)?;
            let body = end - reader.left;
            let (compressed, unpacked) = header.sizes()?;
            if compressed > reader.left {
                return Err(refused(format!("a page of column `{}` ends behind it", column.column_path())));
            }
            // Other codecs stop where the header says; this one's reader goes on to the end.
            if is_gzip {
                check_gzip(reader_at(file, body + header.levels())?.take(compressed), unpacked)?;
            }
            let takes = unpacked + header.n_entries()? * BYTES_PER_ENTRY;
            let slot = if header.is_dictionary() { &mut dictionary } else { &mut page };
            *slot = takes.max(*slot);
            largest = compressed.max(largest);
            at = body + compressed;
        }
        held += dictionary + page;
        packed += largest;
    }
    let most = MAX_PAGES_BYTES.max(packed * MAX_PACKING);
    if held > most {
        return Err(refused(format!(
            "{} MB of pages would have to be held at once, packed into {packed} bytes; at most {} are",
            held >> 20,
            most >> 20
        )));
    }
    Ok(())
}

fn reader_at(file: &File, at: u64) -> Result<BufReader<File>> {
    let mut file = file.try_clone()?;
    file.seek(SeekFrom::Start(at))?;
    Ok(BufReader::with_capacity(1 << 12, file))
}

fn check_gzip(packed: impl Read, unpacked: u64) -> Result<()> {
    let n = std::io::copy(&mut MultiGzDecoder::new(packed).take(unpacked + 1), &mut std::io::sink())?;
    if n > unpacked {
        return Err(refused(format!("a page holds more than the {unpacked} bytes that it claims")));
    }
    Ok(())
}

/// The sizes in a page's header. Of a field that comes twice the last counts, as for who reads the page.
#[derive(Debug, Default)]
struct Header {
    unpacked: Option<i64>,
    compressed: Option<i64>,
    /// Values of a dictionary.
    entries: Option<i64>,
    /// Bytes of a page of version 2 that are never compressed.
    levels: [i64; 2],
}

impl Header {
    fn is_dictionary(&self) -> bool {
        self.entries.is_some()
    }

    /// Bytes in the file and in memory.
    fn sizes(&self) -> Result<(u64, u64)> {
        let size = |size: Option<i64>| size.and_then(|size| u64::try_from(size).ok());
        size(self.compressed)
            .zip(size(self.unpacked))
            .ok_or_else(|| refused("a page header without its sizes".into()))
    }

    fn n_entries(&self) -> Result<u64> {
        u64::try_from(self.entries.unwrap_or(0))
            .map_err(|_| refused("a dictionary of less than nothing".into()))
    }

    fn levels(&self) -> u64 {
        self.levels.iter().map(|&length| u64::try_from(length).unwrap_or(0)).sum()
    }
}

/// Thrift's types, as far as they are told apart here.
const STOP: u8 = 0;
const I32: u8 = 5;
const STRUCT: u8 = 12;

/// Fields of structs, out of at most `left` bytes.
struct Fields<R> {
    reader: R,
    left: u64,
}

impl<R: Read> Fields<R> {
    fn header(&mut self, header: &mut Header) -> Result<()> {
        let mut id = 0;
        while let Some((next, kind)) = self.field(id)? {
            id = next;
            match (id, kind) {
                (2, I32) => header.unpacked = Some(self.signed()?),
                (3, I32) => header.compressed = Some(self.signed()?),
                (1..=3, kind) if kind != I32 => return Err(refused("a page header of other types".into())),
                (7, STRUCT) => self.inner(|id, value| {
                    if id == 1 {
                        header.entries = Some(value);
                    }
                })?,
                (8, STRUCT) => self.inner(|id, value| match id {
                    5 => header.levels[0] = value,
                    6 => header.levels[1] = value,
                    _ => {}
                })?,
                (_, kind) => self.skip(kind, 0)?,
            }
        }
        Ok(())
    }

    /// Shows the whole numbers of a struct in a header.
    fn inner(&mut self, mut take: impl FnMut(i64, i64)) -> Result<()> {
        let mut id = 0;
        while let Some((next, kind)) = self.field(id)? {
            id = next;
            if kind == I32 { take(id, self.signed()?) } else { self.skip(kind, 1)? }
        }
        Ok(())
    }

    /// Number and type of the next field of a struct; `None` at its end.
    fn field(&mut self, last: i64) -> Result<Option<(i64, u8)>> {
        let byte = self.byte()?;
        let kind = byte & 0x0f;
        if kind == STOP {
            return Ok(None);
        }
        let delta = i64::from(byte >> 4);
        let id = if delta == 0 { self.signed()? } else { last.saturating_add(delta) };
        Ok(Some((id, kind)))
    }

    fn skip(&mut self, kind: u8, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(refused("a page header too deep to be one".into()));
        }
        match kind {
            // Booleans: the type is the value.
            1 | 2 => Ok(()),
            3 => self.byte().map(drop),
            4..=6 => self.unsigned().map(drop),
            7 => self.bytes(8),
            8 => {
                let n = self.unsigned()?;
                self.bytes(n)
            }
            9 | 10 => {
                let byte = self.byte()?;
                let n = match byte >> 4 {
                    15 => self.unsigned()?,
                    n => u64::from(n),
                };
                for _ in 0..n {
                    match byte & 0x0f {
                        1 | 2 => self.byte().map(drop)?,
                        kind => self.skip(kind, depth + 1)?,
                    }
                }
                Ok(())
            }
            STRUCT => {
                let mut id = 0;
                while let Some((next, kind)) = self.field(id)? {
                    id = next;
                    self.skip(kind, depth + 1)?;
                }
                Ok(())
            }
            kind => Err(refused(format!("a page header with a field of type {kind}"))),
        }
    }

    fn byte(&mut self) -> Result<u8> {
        let mut byte = [0];
        self.left = self.left.checked_sub(1).ok_or_else(ends)?;
        self.reader.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    fn bytes(&mut self, n: u64) -> Result<()> {
        self.left = self.left.checked_sub(n).ok_or_else(ends)?;
        std::io::copy(&mut self.reader.by_ref().take(n), &mut std::io::sink())?;
        Ok(())
    }

    fn unsigned(&mut self) -> Result<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(refused("a number of a page header does not end".into()))
    }

    fn signed(&mut self) -> Result<i64> {
        let zigzag = self.unsigned()?;
        Ok((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64))
    }
}

fn ends() -> ParquetError {
    refused("a page header ends in its middle".into())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_header_is_read_for_its_sizes() {
        // type 0, 300 unpacked, 40 packed, a checksum, a header of version 2 with two levels, end.
        let bytes = [0x15, 0, 0x15, 0xd8, 4, 0x15, 80, 0x15, 9, 0x4c, 0x55, 6, 0x15, 8, 0, 0];
        let mut header = Header::default();
        let mut fields = Fields { reader: &bytes[..], left: 100 };
        fields.header(&mut header).unwrap();
        assert_eq!((header.sizes().unwrap(), header.levels(), fields.left), ((40, 300), 7, 84));
        // A text, a list of texts, a struct and a double are passed over.
        let other =
            [0x48, 2, b'a', b'b', 0x19, 0x28, 1, b'x', 0, 0x1c, 0x11, 0, 0x17, 1, 2, 3, 4, 5, 6, 7, 8, 0];
        Fields { reader: &other[..], left: 100 }.header(&mut Header::default()).unwrap();
        for bad in [&[0x15][..], &[0x16, 0, 0], &[0x48, 0xff, 0xff, 3], &[0x4d], &[0x4c; 100]] {
            let mut fields = Fields { reader: bad, left: 100 };
            assert!(fields.header(&mut Header::default()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_packed_page_that_goes_on_is_left() {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(&vec![0; 100_000]).unwrap();
        let packed = packed.finish().unwrap();
        check_gzip(&packed[..], 100_000).unwrap();
        assert!(check_gzip(&packed[..], 99_999).is_err());
    }
}
