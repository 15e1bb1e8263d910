//! Model weights in safetensors files: read through a memory map, written atomically.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use rayon::prelude::*;
use safetensors::SafeTensors;
use safetensors::tensor::{Metadata, TensorInfo};
use serde_json::Value;

use crate::{Error, Result, files};

mod dtype;
mod write;

pub use dtype::Dtype;
use dtype::{CHUNK, convert};
pub use write::{TensorView, write_each, write_safetensors};

/// The weights of one model folder: `model.safetensors`, or the shards that
/// `model.safetensors.index.json` names. Nothing is copied until a tensor is read.
#[derive(Debug)]
pub struct Weights {
    /// What a message about a missing tensor names: the single file or the index.
    source: PathBuf,
    shards: Vec<Shard>,
    /// Tensor name to index in `shards`.
    shard_of: HashMap<String, usize>,
}

impl Weights {
    /// Opens the weights in the model folder `dir`.
    ///
    /// # Errors
    /// There is no safetensors file, a shard is missing, or a file is damaged.
    pub fn open(dir: &Path) -> Result<Self> {
        let single = dir.join("model.safetensors");
        let index = dir.join("model.safetensors.index.json");
        if single.exists() {
            Self::open_file(&single)
        } else if index.exists() {
            Self::open_sharded(dir, index)
        } else {
            let what = if dir.join("pytorch_model.bin").exists() {
                "holds pytorch_model.bin but no model.safetensors: save the model again with transformers \
                 (safe_serialization=True)"
            } else {
                "holds neither model.safetensors nor model.safetensors.index.json"
            };
            Err(Error::ModelFile { path: dir.to_owned(), what: what.into() })
        }
    }

    /// Opens one safetensors file of any name.
    ///
    /// # Errors
    /// The file is missing or damaged.
    pub fn open_file(path: &Path) -> Result<Self> {
        let shard = Shard::open(path)?;
        let shard_of = shard.metadata.offset_keys().into_iter().map(|name| (name, 0)).collect();
        Ok(Self { source: path.to_owned(), shards: vec![shard], shard_of })
    }

    fn open_sharded(dir: &Path, index: PathBuf) -> Result<Self> {
        let damaged = |what: String| Error::ModelFile { path: index.clone(), what };
        let json = files::parse_json(&files::read_text(&index)?, &index)?;
        let map = json
            .get("weight_map")
            .and_then(Value::as_object)
            .ok_or_else(|| damaged("has no object \"weight_map\" (tensor name to file name)".into()))?;

        let mut shards: Vec<Shard> = Vec::new();
        let mut opened: HashMap<&str, usize> = HashMap::new();
        let mut shard_of = HashMap::with_capacity(map.len());
        for (name, file) in map {
            let file = file
                .as_str()
                .filter(|f| Path::new(f).file_name() == Some(f.as_ref()))
                .ok_or_else(|| damaged(format!("tensor {name}: {file} is not a file name")))?;
            let shard = if let Some(&shard) = opened.get(file) {
                shard
            } else {
                let path = dir.join(file);
                if !path.exists() {
                    return Err(damaged(format!(
                        "the shard {file} (with tensor {name}) is missing from the folder: copy or download it"
                    )));
                }
                shards.push(Shard::open(&path)?);
                opened.insert(file, shards.len() - 1);
                shards.len() - 1
            };
            if shards[shard].metadata.info(name).is_none() {
                return Err(Error::ModelFile {
                    path: shards[shard].path.clone(),
                    what: format!("has no tensor {name}, which the index says it holds"),
                });
            }
            shard_of.insert(name.clone(), shard);
        }
        Ok(Self { source: index, shards, shard_of })
    }

    /// The names of all tensors, sorted.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.shard_of.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.shard_of.contains_key(name)
    }

    /// The shape of a tensor.
    ///
    /// # Errors
    /// There is no such tensor.
    pub fn shape(&self, name: &str) -> Result<&[usize]> {
        Ok(&self.find(name)?.1.shape)
    }

    /// The number format of a tensor on disk.
    ///
    /// # Errors
    /// There is no such tensor, or its numbers are not floating point of 2 or 4 bytes.
    pub fn dtype(&self, name: &str) -> Result<Dtype> {
        let (shard, info) = self.find(name)?;
        Dtype::from_safetensors(info.dtype).ok_or_else(|| Error::ModelFile {
            path: shard.path.clone(),
            what: format!("tensor {name} is {:?}, expected F32, BF16 or F16", info.dtype),
        })
    }

    /// The numbers of a tensor as f32, row-major, `expected_shape` in shape.
    ///
    /// # Errors
    /// There is no such tensor, or it has another shape or an unsupported number format.
    pub fn read_f32(&self, name: &str, expected_shape: &[usize]) -> Result<Vec<f32>> {
        // Compared first: a shape that the file holds is a number of values that can be counted.
        let bytes = self.bytes(name, expected_shape)?.len();
        let mut values = vec![0.0; bytes / self.dtype(name)?.size()];
        self.read_f32_into(name, expected_shape, &mut values)?;
        Ok(values)
    }

    /// As [`Self::read_f32`], into memory of the caller.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Panics
    /// If `values` is not as long as the shape says.
    pub fn read_f32_into(&self, name: &str, expected_shape: &[usize], values: &mut [f32]) -> Result<()> {
        let (dtype, bytes) = (self.dtype(name)?, self.bytes(name, expected_shape)?);
        assert_eq!(bytes.len(), values.len() * dtype.size(), "numbers of {name}");
        match dtype {
            Dtype::F32 => convert(bytes, values, |b: [u8; 4]| f32::from_le_bytes(b)),
            Dtype::Bf16 => convert(bytes, values, |b: [u8; 2]| half::bf16::from_le_bytes(b).to_f32()),
            Dtype::F16 => convert(bytes, values, |b: [u8; 2]| half::f16::from_le_bytes(b).to_f32()),
        }
        Ok(())
    }

    /// The bytes of a tensor as they lie in the mapped file: little-endian numbers of its
    /// [`Self::dtype`], row-major.
    ///
    /// # Errors
    /// There is no such tensor, or it has another shape.
    pub fn bytes(&self, name: &str, expected_shape: &[usize]) -> Result<&[u8]> {
        let (shard, info) = self.find(name)?;
        if info.shape != expected_shape {
            return Err(Error::ModelFile {
                path: shard.path.clone(),
                what: format!(
                    "tensor {name} has shape {:?}, expected {expected_shape:?} from config.json",
                    info.shape
                ),
            });
        }
        Ok(shard.bytes(info))
    }

    /// Whether two tensors hold the same numbers, whatever their format.
    ///
    /// # Errors
    /// One of them is missing or of an unsupported number format.
    pub fn are_equal(&self, one: &str, other: &str) -> Result<bool> {
        let shape = self.shape(one)?;
        if self.shape(other)? != shape {
            return Ok(false);
        }
        let of = |name: &str| Ok::<_, Error>((self.dtype(name)?, self.bytes(name, shape)?));
        let ((one_dtype, one_bytes), (other_dtype, other_bytes)) = (of(one)?, of(other)?);
        let equal = if one_dtype == other_dtype {
            one_bytes == other_bytes
        } else {
            let one_chunks = one_bytes.par_chunks(CHUNK * one_dtype.size());
            let other_chunks = other_bytes.par_chunks(CHUNK * other_dtype.size());
            one_chunks.zip(other_chunks).all(|(a, b)| one_dtype.widened(a) == other_dtype.widened(b))
        };
        self.done_with(one);
        self.done_with(other);
        Ok(equal)
    }

    /// Says that a tensor's bytes have been copied: the pages of the file leave this process's memory (they
    /// come back from the file if they are read again), so that loading a model takes the memory of the
    /// model and one tensor, not of the model twice.
    pub fn done_with(&self, name: &str) {
        let Ok((shard, info)) = self.find(name) else { return };
        shard.give_back_pages(info.data_offsets);
    }

    /// An error about these weights as a whole.
    pub(crate) fn error(&self, what: String) -> Error {
        Error::ModelFile { path: self.source.clone(), what }
    }

    fn find(&self, name: &str) -> Result<(&Shard, &TensorInfo)> {
        let found = self.shard_of.get(name).and_then(|&shard| {
            let shard = &self.shards[shard];
            shard.metadata.info(name).map(|info| (shard, info))
        });
        found.ok_or_else(|| Error::ModelFile {
            path: self.source.clone(),
            what: format!("has no tensor {name}, which config.json asks for"),
        })
    }
}

/// One mapped safetensors file.
#[derive(Debug)]
struct Shard {
    path: PathBuf,
    map: Mmap,
    metadata: Metadata,
    /// Where the tensors' bytes begin in `map`.
    data_start: usize,
}

impl Shard {
    fn open(path: &Path) -> Result<Self> {
        let io = |source| Error::Io { path: path.to_owned(), source };
        let file = rlt_files::open_regular(path).map_err(io)?;
        // SAFETY: a file that another process truncates while it is mapped would end this process;
        // model files are written under another name and renamed, so that does not happen to ours.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        if map.starts_with(b"version https://git-lfs") {
            return Err(Error::ModelFile {
                path: path.to_owned(),
                what: "is a Git LFS pointer, not the weights: run `git lfs pull` in its folder".into(),
            });
        }
        // This checks that offsets, shapes and types agree and that the file is exactly as long as
        // they say.
        let (header_len, metadata) = SafeTensors::read_metadata(&map).map_err(|e| Error::ModelFile {
            path: path.to_owned(),
            what: format!(
                "is not a complete safetensors file of {} bytes ({e}): it is truncated or damaged, copy or \
                 download it again",
                map.len()
            ),
        })?;
        Ok(Self { path: path.to_owned(), map, metadata, data_start: header_len + size_of::<u64>() })
    }

    /// Only advice: where the system does not take it, the pages count a little longer.
    fn give_back_pages(&self, (start, end): (usize, usize)) {
        // SAFETY: the map is read-only and of a file, so a page that is dropped is read again from there.
        #[cfg(unix)]
        let _ = unsafe {
            let offset = self.data_start + start;
            self.map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, offset, end - start)
        };
        #[cfg(not(unix))]
        let _ = (start, end);
    }

    fn bytes(&self, info: &TensorInfo) -> &[u8] {
        let (start, end) = info.data_offsets;
        &self.map[self.data_start + start..self.data_start + end]
    }
}

#[cfg(test)]
mod tests;
