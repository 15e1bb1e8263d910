//! A parquet file whose pages are looked at before their values are: what a row may become is bounded, whatever a page
//! repeats. (A run of a million equal values takes a few bytes.)

use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};

use parquet::basic::{Encoding, Type};
use parquet::bloom_filter::Sbbf;
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};
use parquet::record::reader::RowIter;
use parquet::schema::types::{ColumnDescPtr, Type as Schema};

use super::headers::check_group;
use crate::dataset::record::{MAX_ROW_BYTES, MAX_VALUES};

/// Rows that a column decodes at a time.
pub(super) const BATCH: usize = 128;

/// The most values of a page whose lengths are stored as differences: they are unpacked all at once.
const MAX_DIFFERENCES: u64 = 4 << 20;

fn refused(what: impl Into<String>) -> ParquetError {
    ParquetError::General(what.into())
}

/// A file that gives its row groups checked.
pub(super) struct BoundedFile {
    file: File,
    inner: SerializedFileReader<File>,
}

impl BoundedFile {
    pub(super) fn new(file: File) -> Result<Self> {
        Ok(Self { inner: SerializedFileReader::new(file.try_clone()?)?, file })
    }
}

impl FileReader for BoundedFile {
    fn metadata(&self) -> &ParquetMetaData {
        self.inner.metadata()
    }

    fn num_row_groups(&self) -> usize {
        self.inner.num_row_groups()
    }

    fn get_row_group(&self, i: usize) -> Result<Box<dyn RowGroupReader + '_>> {
        let group = self.inner.get_row_group(i)?;
        check_group(&self.file, group.metadata())?;
        Ok(Box::new(BoundedGroup { inner: group, row: Arc::default() }))
    }

    fn get_row_iter(&self, projection: Option<Schema>) -> Result<RowIter<'_>> {
        RowIter::from_file(projection, self)
    }
}

struct BoundedGroup<'a> {
    inner: Box<dyn RowGroupReader + 'a>,
    row: Arc<Mutex<Widest>>,
}

impl RowGroupReader for BoundedGroup<'_> {
    fn metadata(&self) -> &RowGroupMetaData {
        self.inner.metadata()
    }

    fn num_columns(&self) -> usize {
        self.inner.num_columns()
    }

    fn get_column_page_reader(&self, i: usize) -> Result<Box<dyn PageReader>> {
        Ok(Box::new(BoundedPages {
            inner: self.inner.get_column_page_reader(i)?,
            column: self.metadata().schema_descr().column(i),
            own: Widest::default(),
            row_so_far: 0,
            longest_entry: 0,
            row: self.row.clone(),
        }))
    }

    fn get_column_bloom_filter(&self, i: usize) -> Option<&Sbbf> {
        self.inner.get_column_bloom_filter(i)
    }

    fn get_row_iter(&self, projection: Option<Schema>) -> Result<RowIter<'_>> {
        RowIter::from_row_group(projection, self)
    }
}

/// The most that one row may hold, of a column or of all.
#[derive(Debug, Default, Clone, Copy)]
struct Widest {
    values: u64,
    /// Of values that a page holds once and a row may hold often.
    bytes: u64,
}

struct BoundedPages {
    inner: Box<dyn PageReader>,
    column: ColumnDescPtr,
    own: Widest,
    /// Values of the row that the last page may have left open.
    row_so_far: u64,
    /// Bytes of the longest text of the dictionary.
    longest_entry: u64,
    row: Arc<Mutex<Widest>>,
}

impl BoundedPages {
    fn check(&mut self, page: &Page) -> Result<()> {
        let (levels, body) = match page {
            Page::DictionaryPage { buf, num_values, .. } => {
                if self.column.physical_type() == Type::BYTE_ARRAY {
                    self.longest_entry = longest_text(buf, *num_values);
                }
                return Ok(());
            }
            Page::DataPage { buf, rep_level_encoding, def_level_encoding, .. } => {
                let rle = |encoding: &Encoding, max_level| max_level == 0 || *encoding == Encoding::RLE;
                if !rle(rep_level_encoding, self.column.max_rep_level())
                    || !rle(def_level_encoding, self.column.max_def_level())
                {
                    return Err(refused("levels in an encoding that is no longer written"));
                }
                let (repetition, rest) = prefixed(buf, self.column.max_rep_level())?;
                let (_, body) = prefixed(rest, self.column.max_def_level())?;
                (repetition, body)
            }
            Page::DataPageV2 { buf, rep_levels_byte_len, def_levels_byte_len, .. } => {
                let (n, m) = (*rep_levels_byte_len as usize, *def_levels_byte_len as usize);
                let levels = n.checked_add(m).filter(|&end| end <= buf.len());
                let end = levels.ok_or_else(|| refused("levels that end behind their page"))?;
                (&buf[..n], &buf[end..])
            }
        };
        let n = u64::from(page.num_values());
        let mut values = 1;
        if self.column.max_rep_level() > 0 {
            let width = u16::BITS - (self.column.max_rep_level() as u16).leading_zeros();
            values = longest_row(levels, width, n, &mut self.row_so_far)?;
        }
        // Bytes that a row may hold though the page holds them once.
        let bytes = match page.encoding() {
            Encoding::PLAIN_DICTIONARY | Encoding::RLE_DICTIONARY => {
                values.saturating_mul(self.longest_entry)
            }
            Encoding::DELTA_LENGTH_BYTE_ARRAY => {
                differences(body)?;
                0
            }
            Encoding::DELTA_BYTE_ARRAY => {
                let suffixes = differences(body)?;
                differences(suffixes)?;
                // Each value may repeat all of the page; a batch of them is unpacked at once.
                n.min(BATCH as u64).max(values).saturating_mul(body.len() as u64)
            }
            _ => 0,
        };
        let own = Widest { values: self.own.values.max(values), bytes: self.own.bytes.max(bytes) };
        let mut row = self.row.lock().unwrap_or_else(PoisonError::into_inner);
        // The columns' pages come at different times; each counts with its widest so far.
        row.values += own.values - self.own.values;
        row.bytes = row.bytes.saturating_add(own.bytes - self.own.bytes);
        self.own = own;
        if row.values > MAX_VALUES as u64 {
            return Err(refused(format!("a row of more than {} million values", MAX_VALUES >> 20)));
        }
        if row.bytes > 2 * MAX_ROW_BYTES as u64 {
            return Err(refused(format!("rows that may be over {} MB long", MAX_ROW_BYTES >> 19)));
        }
        Ok(())
    }
}

impl Iterator for BoundedPages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for BoundedPages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        let page = self.inner.get_next_page()?;
        page.as_ref().map_or(Ok(()), |page| self.check(page))?;
        Ok(page)
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.inner.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.inner.skip_next_page()
    }
}

/// Bytes of the longest of the dictionary's texts, each of which stands behind its length.
fn longest_text(mut dictionary: &[u8], n: u32) -> u64 {
    let mut longest = 0;
    for _ in 0..n {
        let Some((length, rest)) = dictionary.split_first_chunk::<4>() else { break };
        let length = u32::from_le_bytes(*length);
        let Some(rest) = rest.get(length as usize..) else { break };
        longest = longest.max(u64::from(length));
        dictionary = rest;
    }
    longest
}

/// The levels at the start of a page, behind their length, and what is behind them.
fn prefixed(page: &[u8], max_level: i16) -> Result<(&[u8], &[u8])> {
    if max_level == 0 {
        return Ok((&[], page));
    }
    page.split_first_chunk::<4>()
        .and_then(|(length, rest)| rest.split_at_checked(u32::from_le_bytes(*length) as usize))
        .ok_or_else(|| refused("levels that end behind their page"))
}

/// The most levels that belong to one row, among the first `n`: a level 0 begins a row. Runs are of one value (an even
/// number before it), or of groups of eight in `width` bits each. `open` is the row that goes on from the last page and
/// into the next.
fn longest_row(mut levels: &[u8], width: u32, n: u64, open: &mut u64) -> Result<u64> {
    let (mut longest, mut left) = (*open, n);
    while left > 0 {
        let header = varint(&mut levels)?;
        let count = header >> 1;
        if header & 1 == 0 {
            let n_bytes = width.div_ceil(8) as usize;
            let value = levels.get(..n_bytes).ok_or_else(|| refused("levels that end too early"))?;
            let is_new = value.iter().all(|&byte| byte == 0);
            levels = &levels[n_bytes..];
            let count = count.min(left);
            if count == 0 {
                return Err(refused("a run of no levels"));
            }
            left -= count;
            *open = if is_new { 1 } else { *open + count };
            longest = longest.max(*open);
        } else {
            let n_bytes = usize::try_from(count).ok().and_then(|count| count.checked_mul(width as usize));
            let packed = n_bytes.unwrap_or(usize::MAX).min(levels.len());
            if packed == 0 {
                return Err(refused("levels that end too early"));
            }
            let n_levels = (packed as u64 * 8 / u64::from(width)).min(left);
            for i in 0..n_levels {
                let at = (i * u64::from(width)) as usize;
                let bits = (0..width as usize).any(|bit| levels[(at + bit) / 8] >> ((at + bit) % 8) & 1 == 1);
                *open = if bits { *open + 1 } else { 1 };
                longest = longest.max(*open);
            }
            left -= n_levels;
            levels = &levels[packed..];
        }
    }
    Ok(longest)
}

/// What is behind a sequence of numbers that are stored as differences in blocks (`DELTA_BINARY_PACKED`).
fn differences(mut body: &[u8]) -> Result<&[u8]> {
    let block = varint(&mut body)?;
    let n_mini = varint(&mut body)?;
    let n = varint(&mut body)?;
    varint(&mut body)?;
    if n > MAX_DIFFERENCES
        || n_mini == 0
        || n_mini > 4096
        || block == 0
        || block % n_mini != 0
        || block > 1 << 20
    {
        return Err(refused(format!("{n} lengths in blocks of {block}, {n_mini} to a block")));
    }
    let per_mini = block / n_mini;
    let mut left = n.saturating_sub(1);
    while left > 0 {
        varint(&mut body)?;
        let (widths, mut rest) =
            body.split_at_checked(n_mini as usize).ok_or_else(|| refused("lengths that end too early"))?;
        for &width in widths {
            if left == 0 {
                break;
            }
            // The last one may be cut short.
            let n_bytes = (per_mini * u64::from(width)).div_ceil(8).min(rest.len() as u64);
            rest = &rest[n_bytes as usize..];
            left = left.saturating_sub(per_mini);
        }
        body = rest;
    }
    Ok(body)
}

fn varint(bytes: &mut &[u8]) -> Result<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or_else(|| refused("a number that ends too early"))?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(refused("a number that does not end"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_row_of_runs_and_packed_levels() {
        let longest = |levels: &[u8], width, n| longest_row(levels, width, n, &mut 0);
        // Three rows of one value; one of six; packed 0 1 1 0 1 0 0 0.
        assert_eq!(longest(&[3 << 1, 0], 1, 3).unwrap(), 1);
        assert_eq!(longest(&[1 << 1, 0, 5 << 1, 1], 1, 6).unwrap(), 6);
        assert_eq!(longest(&[3, 0b0001_0110], 1, 8).unwrap(), 3);
        // Two bits a level: 0 2 1 0.
        assert_eq!(longest(&[3, 0b0001_1000, 0], 2, 8).unwrap(), 3);
        // A run of millions in a few bytes, and one that goes on in the next page.
        let mut open = 0;
        let run = [1 << 1, 0, 0x80, 0x80, 0x80, 2, 1];
        assert_eq!(longest_row(&run, 1, 1 + (1 << 21), &mut open).unwrap(), 1 + (1 << 21));
        assert_eq!(longest_row(&[2, 1], 1, 1, &mut open).unwrap(), 2 + (1 << 21));
        for bad in [&[][..], &[0, 0], &[3], &[2], &[0x80]] {
            assert!(longest(bad, 1, 8).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn differences_end_where_they_end() {
        // Blocks of 128 in 4, 2 values, the first 7; one difference, in 3 bits: 32 of them are 12 bytes.
        let mut body = vec![0x80, 1, 4, 2, 14, 0, 3, 0, 0, 0];
        body.extend([0; 12]);
        body.extend(b"rest");
        assert_eq!(differences(&body).unwrap(), b"rest");
        // Billions of lengths, no block, a block of nothing.
        for bad in [&[0x80, 1, 4, 0xff, 0xff, 0xff, 0xff, 7, 0][..], &[0, 4, 2, 0], &[0x80, 1, 0, 2, 0], &[1]]
        {
            assert!(differences(bad).is_err(), "{bad:?}");
        }
    }
}
