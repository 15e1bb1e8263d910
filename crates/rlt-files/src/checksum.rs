//! Length and CRC-32C of a file.

use std::io::{self, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::read::open_regular;

/// What a file was when it was whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileSum {
    /// Its length.
    pub bytes: u64,
    /// Eight hexadecimal digits.
    pub crc32c: String,
}

/// Length and CRC-32C of a file.
///
/// # Errors
/// It cannot be read.
pub fn checksum(path: &Path) -> io::Result<FileSum> {
    let (bytes, crc) = sum_of(&mut open_regular(path)?)?;
    Ok(FileSum { bytes, crc32c: format!("{crc:08x}") })
}

/// Length and CRC-32C of what is left to read.
pub(crate) fn sum_of(input: &mut impl Read) -> io::Result<(u64, u32)> {
    let mut buffer = vec![0; 1 << 20];
    let (mut bytes, mut crc) = (0, 0);
    loop {
        let n = input.read(&mut buffer)?;
        if n == 0 {
            return Ok((bytes, crc));
        }
        bytes += n as u64;
        crc = crc32c::crc32c_append(crc, &buffer[..n]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_value() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("digits");
        std::fs::write(&path, "123456789").unwrap();
        // The check value of CRC-32C in every catalogue of such sums.
        assert_eq!(checksum(&path).unwrap(), FileSum { bytes: 9, crc32c: "e3069283".into() });
    }
}
