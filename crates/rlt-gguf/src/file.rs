//! A GGUF file: its header checked whole, metadata by key, tensors by name, rows of them as f32.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use super::blocks::Kind;
use super::cursor::{Cursor, Parsed};
use super::error::{Error, Result};
use super::metadata::{Type, Value, number, number_size, whole};

/// Longest name of a key or a tensor, bytes (what the format allows for keys).
pub const MAX_NAME: usize = 65_535;
/// Most dimensions of a tensor, as in ggml.
pub const MAX_DIMENSIONS: u32 = 4;
/// Most metadata keys; models have some dozens.
pub const MAX_KEYS: usize = 1 << 16;
/// Most tensors; the largest models have some thousands.
pub const MAX_TENSORS: usize = 1 << 20;

/// Where tensors begin unless `general.alignment` says otherwise: multiples of this, bytes.
const ALIGNMENT: u64 = 32;
/// Largest alignment that is believed.
const MAX_ALIGNMENT: u64 = 1 << 20;

/// A tensor of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// Its shape, slowest dimension first: `[rows, columns]` for a matrix (the file has them the other way round).
    pub shape: Vec<usize>,
    /// The format of its numbers.
    pub kind: Kind,
    /// First byte in the file.
    start: usize,
}

impl Tensor {
    /// Numbers of the tensor.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it has no numbers.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Numbers of a row, the fastest dimension.
    pub fn columns(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }
}

/// An open file.
#[derive(Debug)]
pub struct Gguf {
    path: PathBuf,
    map: Mmap,
    metadata: BTreeMap<String, Value>,
    tensors: Vec<Tensor>,
    index: HashMap<String, usize>,
}

impl Gguf {
    /// Opens `path` and checks its whole header: every key, every tensor's place.
    ///
    /// # Errors
    /// The file is missing, is not GGUF of version 2 or 3, is truncated or damaged, or holds a number format that is
    /// not read.
    pub fn open(path: &Path) -> Result<Self> {
        let io = |source| Error::Io { path: path.to_owned(), source };
        // Asked before it is opened: opening a pipe waits for who writes to it.
        if !path.metadata().map_err(io)?.is_file() {
            let what = "is not a file; name a .gguf file".into();
            return Err(Error::File { path: path.to_owned(), what });
        }
        let file = File::open(path).map_err(io)?;
        // SAFETY: the map is only read, and lives as long as what points into it by place.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        let (metadata, tensors) = parse(&map).map_err(|what| Error::File { path: path.to_owned(), what })?;
        let index = tensors.iter().enumerate().map(|(i, tensor)| (tensor.name.clone(), i)).collect();
        Ok(Self { path: path.to_owned(), map, metadata, tensors, index })
    }

    /// An error about this file.
    pub fn error(&self, what: impl Into<String>) -> Error {
        Error::File { path: self.path.clone(), what: what.into() }
    }

    /// The metadata keys in alphabetical order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.metadata.keys().map(String::as_str)
    }

    /// Whether the file has `key`.
    pub fn has(&self, key: &str) -> bool {
        self.metadata.contains_key(key)
    }

    /// The text of `key`.
    ///
    /// # Errors
    /// It is not a text, or not UTF-8.
    pub fn text(&self, key: &str) -> Result<Option<&str>> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::One(Type::Text, place)) => std::str::from_utf8(&self.map[place.clone()])
                .map(Some)
                .map_err(|_| self.error(format!("{key} is not UTF-8"))),
            Some(other) => Err(self.wrong_type(key, "a text", other)),
        }
    }

    /// The whole number of `key`, not negative.
    ///
    /// # Errors
    /// It is not one.
    pub fn size(&self, key: &str) -> Result<Option<usize>> {
        let Some(value) = self.metadata.get(key) else { return Ok(None) };
        match value {
            Value::One(kind, place) => whole(*kind, &self.map[place.clone()]),
            Value::Array(..) => None,
        }
        .and_then(|n| usize::try_from(n).ok())
        .map(Some)
        .ok_or_else(|| self.wrong_type(key, "a whole number from 0", value))
    }

    /// The number of `key`, whole or not.
    ///
    /// # Errors
    /// It is not a number.
    pub fn number(&self, key: &str) -> Result<Option<f64>> {
        let Some(value) = self.metadata.get(key) else { return Ok(None) };
        match value {
            Value::One(kind, place) => number(*kind, &self.map[place.clone()]),
            Value::Array(..) => None,
        }
        .map(Some)
        .ok_or_else(|| self.wrong_type(key, "a number", value))
    }

    /// The truth value of `key`.
    ///
    /// # Errors
    /// It is not one.
    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::One(Type::Bool, place)) => Ok(Some(self.map[place.start] != 0)),
            Some(other) => Err(self.wrong_type(key, "true or false", other)),
        }
    }

    /// Length of the list of `key`; `None` when it is absent or no list.
    pub fn list_len(&self, key: &str) -> Option<usize> {
        match self.metadata.get(key) {
            Some(Value::Array(_, n, _)) => Some(*n),
            _ => None,
        }
    }

    /// The texts of `key`, borrowed from the file.
    ///
    /// # Errors
    /// It is not a list of texts, or one is not UTF-8.
    pub fn texts(&self, key: &str) -> Result<Option<Vec<&str>>> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Array(Type::Text, n, place)) => {
                let mut cursor = Cursor::new(&self.map[..place.end], place.start);
                let texts = (0..*n).map(|i| {
                    let text = cursor.string().map_err(|what| self.error(what))?;
                    std::str::from_utf8(&self.map[text])
                        .map_err(|_| self.error(format!("{key}: element {i} is not UTF-8")))
                });
                texts.collect::<Result<_>>().map(Some)
            }
            Some(other) => Err(self.wrong_type(key, "a list of texts", other)),
        }
    }

    /// The numbers of `key`, as f64.
    ///
    /// # Errors
    /// It is not a list of numbers.
    pub fn numbers(&self, key: &str) -> Result<Option<Vec<f64>>> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Array(kind, _, place)) if number_size(*kind) > 0 => {
                let numbers = self.map[place.clone()].chunks_exact(number_size(*kind));
                Ok(numbers.map(|bytes| number(*kind, bytes)).collect())
            }
            Some(other) => Err(self.wrong_type(key, "a list of numbers", other)),
        }
    }

    fn wrong_type(&self, key: &str, wanted: &str, value: &Value) -> Error {
        self.error(format!("{key} is {}, not {wanted}", value.describe()))
    }

    /// The tensors in the file's order.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.index.get(name).map(|&i| &self.tensors[i])
    }

    /// Rows of `tensor` from `first` on, as f32, row after row: as many as fill `values`.
    ///
    /// # Errors
    /// `values` is no whole number of rows, or the tensor has not that many, or is not of this file.
    pub fn read_rows(&self, tensor: &Tensor, first: usize, values: &mut [f32]) -> Result<()> {
        let columns = tensor.columns();
        let own = self.tensor(&tensor.name) == Some(tensor);
        let whole_rows = columns > 0 && values.len().is_multiple_of(columns);
        if !own || !whole_rows || (first.saturating_mul(columns)).saturating_add(values.len()) > tensor.len()
        {
            return Err(self.error(format!("tensor {} has no such rows", tensor.name)));
        }
        let start = tensor.start + tensor.kind.bytes_of(first * columns);
        let end = start + tensor.kind.bytes_of(values.len());
        tensor.kind.dequantise(&self.map[start..end], values);
        Ok(())
    }
}

/// Metadata and tensors of a whole file.
fn parse(bytes: &[u8]) -> Parsed<(BTreeMap<String, Value>, Vec<Tensor>)> {
    let mut cursor = Cursor::new(bytes, 0);
    if !bytes.starts_with(b"GGUF") {
        return Err("is not a GGUF file (it does not begin with GGUF)".into());
    }
    cursor.skip(4)?;
    let version = cursor.u32()?;
    match version {
        2 | 3 => {}
        _ if version.trailing_zeros() >= 16 => {
            return Err("is big-endian, which is not read; convert it to little-endian".into());
        }
        _ => return Err(format!("is GGUF version {version}; versions 2 and 3 are read")),
    }
    // A tensor takes a name, its dimensions, a type and an offset; a key a name, a type and a value.
    let n_tensors = cursor.u64()?;
    let n_keys = cursor.u64()?;
    for (n, most, smallest, what) in
        [(n_tensors, MAX_TENSORS, 32, "tensors"), (n_keys, MAX_KEYS, 13, "metadata keys")]
    {
        if n > most as u64 || n.saturating_mul(smallest) > cursor.left() as u64 {
            return Err(format!(
                "announces {n} {what} in {} bytes: it is truncated or damaged, copy or download it again",
                bytes.len()
            ));
        }
    }
    let mut metadata = BTreeMap::new();
    for _ in 0..n_keys {
        let key = cursor.name(MAX_NAME, "a metadata key")?.to_owned();
        let value = Value::parse(&mut cursor).map_err(|what| format!("{key:?}: {what}"))?;
        if metadata.contains_key(&key) {
            return Err(format!("has the key {key:?} twice: the file is damaged"));
        }
        metadata.insert(key, value);
    }
    let tensors = parse_tensors(&mut cursor, n_tensors as usize, alignment(&metadata, bytes)?, bytes.len())?;
    Ok((metadata, tensors))
}

fn alignment(metadata: &BTreeMap<String, Value>, bytes: &[u8]) -> Parsed<u64> {
    let Some(value) = metadata.get("general.alignment") else { return Ok(ALIGNMENT) };
    let n = match value {
        Value::One(kind, place) => whole(*kind, &bytes[place.clone()]),
        Value::Array(..) => None,
    };
    n.and_then(|n| u64::try_from(n).ok()).filter(|n| n.is_power_of_two() && *n <= MAX_ALIGNMENT).ok_or_else(
        || format!("general.alignment is no power of two up to {MAX_ALIGNMENT}: the file is damaged"),
    )
}

/// The tensors, each wholly inside the file's data and beside the others.
fn parse_tensors(cursor: &mut Cursor, n: usize, alignment: u64, file_len: usize) -> Parsed<Vec<Tensor>> {
    let mut tensors = Vec::with_capacity(n);
    let mut offsets = Vec::with_capacity(n);
    let mut names = std::collections::HashSet::with_capacity(n);
    for _ in 0..n {
        let name = cursor.name(MAX_NAME, "a tensor's name")?;
        if !names.insert(name) {
            return Err(format!("holds the tensor {name} twice: the file is damaged"));
        }
        let of_tensor = |what: String| format!("tensor {name}: {what}");
        let n_dimensions = cursor.u32()?;
        if n_dimensions == 0 || n_dimensions > MAX_DIMENSIONS {
            return Err(of_tensor(format!("{n_dimensions} dimensions; 1 to {MAX_DIMENSIONS} are possible")));
        }
        let mut shape = Vec::with_capacity(n_dimensions as usize);
        let mut len = 1_u64;
        for _ in 0..n_dimensions {
            let size = cursor.u64()?;
            len = len.checked_mul(size).filter(|&len| len > 0 && i64::try_from(len).is_ok()).ok_or_else(
                || of_tensor("its dimensions are zero or too large: the file is damaged".into()),
            )?;
            shape.push(size as usize);
        }
        let kind = Kind::from_code(cursor.u32()?).map_err(of_tensor)?;
        let block = kind.block_len() as u64;
        if !(shape[0] as u64).is_multiple_of(block) {
            return Err(of_tensor(format!(
                "rows of {} numbers are no whole {kind:?} blocks of {block}",
                shape[0]
            )));
        }
        shape.reverse();
        let offset = cursor.u64()?;
        if !offset.is_multiple_of(alignment) {
            return Err(of_tensor(format!("begins at {offset}, which is no multiple of {alignment}")));
        }
        let bytes = (len / block).checked_mul(kind.block_bytes() as u64);
        let end = bytes.and_then(|bytes| offset.checked_add(bytes));
        offsets.push((offset, end.ok_or_else(|| of_tensor("is larger than any file".into()))?));
        tensors.push(Tensor { name: name.to_owned(), shape, kind, start: 0 });
    }
    let data_start = (cursor.position() as u64).next_multiple_of(alignment);
    for (tensor, &(offset, end)) in tensors.iter_mut().zip(&offsets) {
        if data_start.checked_add(end).is_none_or(|end| end > file_len as u64) {
            return Err(format!(
                "tensor {} ends past the end of the file ({file_len} bytes): it is truncated or damaged, copy or \
                 download it again",
                tensor.name
            ));
        }
        tensor.start = (data_start + offset) as usize;
    }
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_unstable_by_key(|&i| offsets[i]);
    for pair in order.windows(2) {
        if offsets[pair[1]].0 < offsets[pair[0]].1 {
            let (first, second) = (&tensors[pair[0]].name, &tensors[pair[1]].name);
            return Err(format!("the tensors {first} and {second} overlap: the file is damaged"));
        }
    }
    Ok(tensors)
}
