//! Writing safetensors: streamed to a temporary file that replaces the target only when it is
//! complete and on disk.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{self, Write};
use std::path::Path;

use safetensors::tensor::{Metadata, TensorInfo};

use super::dtype::{CHUNK, Dtype};
use crate::{Error, Result, files};

/// A tensor to be written.
#[derive(Debug, Clone, Copy)]
pub struct TensorView<'a> {
    /// Its name in the file.
    pub name: &'a str,
    /// Its shape; the product is `data.len()`.
    pub shape: &'a [usize],
    /// Its numbers, row-major.
    pub data: &'a [f32],
}

/// Writes `tensors` in the order given, as `dtype` (rounded to nearest even), with the metadata
/// that transformers expects. The same tensors give the same bytes. An interrupted or failed
/// write leaves what was at `path` before.
///
/// # Errors
/// A name occurs twice, a shape does not fit its data, or the file cannot be written (disk full..).
pub fn write_safetensors(path: &Path, tensors: &[TensorView], dtype: Dtype) -> Result<()> {
    for TensorView { name, shape, data } in tensors {
        if shape.iter().product::<usize>() != data.len() {
            let n = data.len();
            return Err(Error::Invalid(format!(
                "tensor {name}: {n} numbers do not fill the shape {shape:?}"
            )));
        }
    }
    let names: Vec<_> = tensors.iter().map(|t| (t.name, t.shape)).collect();
    write_each(path, &names, dtype, tensors.iter().map(|t| Cow::Borrowed(t.data)))
}

/// As [`write_safetensors`], of names and shapes and an iterator over their numbers, which makes them when
/// their turn comes (a piece may hold several consecutive tensors): weights kept in bf16 are widened one
/// matrix at a time.
///
/// # Errors
/// A name occurs twice, or the file cannot be written, or the numbers are not as many as the shapes say: then there is no file.
pub fn write_each<'a>(
    path: &Path,
    names: &[(&str, &[usize])],
    dtype: Dtype,
    numbers: impl Iterator<Item = Cow<'a, [f32]>>,
) -> Result<()> {
    let header = header(names, dtype).map_err(Error::Invalid)?;
    files::replace_file(path, |out| {
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(&header)?;
        let mut left = names.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum::<usize>();
        for numbers in numbers {
            left = left.checked_sub(numbers.len()).ok_or_else(|| other_than_said("more"))?;
            write_numbers(out, &numbers, dtype)?;
        }
        if left == 0 { Ok(()) } else { Err(other_than_said("fewer")) }
    })
}

/// Whoever makes the numbers one after another may come to an early end.
fn other_than_said(what: &str) -> io::Error {
    io::Error::other(format!("there are {what} numbers than its tensors have"))
}

fn header(names: &[(&str, &[usize])], dtype: Dtype) -> std::result::Result<Vec<u8>, String> {
    let mut seen = std::collections::HashSet::new();
    let mut offset = 0;
    let mut infos = Vec::with_capacity(names.len());
    for &(name, shape) in names {
        if !seen.insert(name) {
            return Err(format!("tensor {name} is given twice"));
        }
        let end = offset + shape.iter().product::<usize>() * dtype.size();
        let info =
            TensorInfo { dtype: dtype.to_safetensors(), shape: shape.to_vec(), data_offsets: (offset, end) };
        infos.push((name.to_owned(), info));
        offset = end;
    }
    let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let metadata = Metadata::new(Some(format), infos).map_err(|e| e.to_string())?;
    let mut header = serde_json::to_vec(&metadata).map_err(|e| e.to_string())?;
    // Spaces, so that the numbers begin at a multiple of 8 bytes.
    header.resize(header.len().next_multiple_of(8), b' ');
    Ok(header)
}

fn write_numbers(out: &mut impl Write, data: &[f32], dtype: Dtype) -> io::Result<()> {
    let mut bytes = Vec::new();
    for chunk in data.chunks(CHUNK) {
        bytes.clear();
        match dtype {
            Dtype::F32 => bytes.extend(chunk.iter().flat_map(|x| x.to_le_bytes())),
            Dtype::Bf16 => bytes.extend(chunk.iter().flat_map(|&x| half::bf16::from_f32(x).to_le_bytes())),
            Dtype::F16 => bytes.extend(chunk.iter().flat_map(|&x| half::f16::from_f32(x).to_le_bytes())),
        }
        out.write_all(&bytes)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_end_early_or_go_on_leave_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w.safetensors");
        for (n, what) in [(1, "fewer"), (3, "more")] {
            let numbers = (0..n).map(|_| Cow::Owned(vec![1.0; 4]));
            let error = write_each(&path, &[("a", &[4]), ("b", &[2, 2])], Dtype::F32, numbers).unwrap_err();
            assert!(error.to_string().contains(what), "{error}");
            assert!(!path.exists());
        }
    }
}
