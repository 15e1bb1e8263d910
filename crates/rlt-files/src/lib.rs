//! Files that a kill, a full disk or a second process cannot spoil.
//!
//! What a program leaves behind should be whole, its own, and nobody else's loss. Six pieces see to that:
//!
//! - [`write_atomic`], [`WholeFile`] and [`replace_folder`]: what appears under a name is complete and durable, or what
//!   was there before is still there;
//! - [`ResumableWriter`]: rows that grow over hours, of which a kill loses only what the last second wrote;
//! - [`OwnedFolder`]: a folder is written to only when it is empty or carries this program's mark, by one process at
//!   a time;
//! - [`Place`]: where a name really leads. Links are followed, devices and pipes are written to and never replaced,
//!   and an output that is an input is refused ([`Inputs`]);
//! - [`read_text`], [`open_regular`]: what is read whole has a bound, and a device or a silent pipe is not waited for;
//! - [`checksum`]: length and CRC-32C, to notice what disks and people damage.
//!
//! Everything unfinished stands beside its final place under a name that ends in `.rlt-tmp`, `.rlt-partial` or
//! `.rlt-state`, and is locked by the process at work. The lock is the system's, so a dead process blocks nothing: the
//! next one that writes the same file takes its leftovers over. [`remove_unfinished`] is for a program that is asked to
//! end at once.
//!
//! ```
//! # fn main() -> rlt_files::Result<()> {
//! # let folder = std::env::temp_dir().join(format!("rlt-files-{}", std::process::id()));
//! # std::fs::create_dir_all(&folder).unwrap();
//! let path = folder.join("answer.txt");
//! rlt_files::write_atomic(&path, b"42\n")?;
//! assert_eq!(std::fs::read(&path).unwrap(), b"42\n");
//! # std::fs::remove_dir_all(&folder).unwrap();
//! # Ok(())
//! # }
//! ```
//!
//! The crate knows nothing of what is in the files, prints nothing and never exits.

mod checksum;
mod claim;
mod error;
#[cfg(test)]
mod listing;
mod name;
mod owned;
mod place;
mod read;
mod replace;
mod resumable;
mod whole;

pub use checksum::{FileSum, checksum};
pub use error::{Error, Result};
pub use name::{is_plain_name, is_plain_path};
pub use owned::{MARK, OwnedFolder};
pub use place::{Inputs, Place};
pub use read::{
    MOST_DESCRIPTION, MOST_ROWS, MOST_SETTINGS, is_pipe, open_once, open_regular, read_bytes, read_text,
};
pub use replace::{UNFINISHED, replace_folder, sync_dir};
pub use resumable::{ResumableWriter, unfinished_work};
pub use whole::{WholeFile, remove_unfinished, write_atomic};
