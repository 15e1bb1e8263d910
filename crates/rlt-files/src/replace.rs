//! Folders that appear whole or not at all.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;

use crate::error::{Error, at};
use crate::place::folder_of;

/// Folders that are still being written carry this prefix.
pub const UNFINISHED: &str = ".unfinished-";

/// Folders that a new one has taken the place of carry this prefix, for the moment until they are removed.
const REPLACED: &str = ".replaced-";

/// Fills a folder beside `target` by `write` and puts it in the place of the folder `target`: what stands there is
/// never half of it. Both must lie in a folder of one's own ([`crate::OwnedFolder`]). Entries of the old folder under
/// names that `write` did not make are somebody else's and move into the new one.
///
/// # Errors
/// Whatever `write` returns; [`Error::Refused`] where `target` is no folder; [`Error::Io`].
pub fn replace_folder<E: From<Error>>(
    target: &Path,
    write: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    let [unfinished, replaced] = [UNFINISHED, REPLACED].map(|prefix| {
        let mut name = OsString::from(prefix);
        name.push(target.file_name().unwrap_or_default());
        target.with_file_name(name)
    });
    end_replacement(target, &replaced).map_err(at(target))?;
    let old = match fs::symlink_metadata(target) {
        Ok(metadata) if metadata.is_dir() => true,
        Ok(_) => return Err(Error::refused(target, "is in the way and is not a folder; move it").into()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => false,
        Err(e) => return Err(at(target)(e).into()),
    };
    match fs::remove_dir_all(&unfinished) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(at(&unfinished)(e).into()),
        _ => {}
    }
    fs::create_dir(&unfinished).map_err(at(&unfinished))?;
    write(&unfinished)?;
    if old {
        fs::rename(target, &replaced).map_err(at(target))?;
    }
    fs::rename(&unfinished, target).map_err(at(target))?;
    sync_dir(folder_of(target)).map_err(at(target))?;
    Ok(end_replacement(target, &replaced).map_err(at(target))?)
}

/// Ends what a kill may have interrupted: `replaced` gives `target` what it lacks and goes, or comes back where nothing
/// has taken its place.
fn end_replacement(target: &Path, replaced: &Path) -> io::Result<()> {
    if fs::symlink_metadata(replaced).is_err() {
        return Ok(());
    }
    if fs::symlink_metadata(target).is_err() {
        return fs::rename(replaced, target);
    }
    for entry in fs::read_dir(replaced)? {
        let entry = entry?;
        let place = target.join(entry.file_name());
        if fs::symlink_metadata(&place).is_err() {
            fs::rename(entry.path(), place)?;
        }
    }
    fs::remove_dir_all(replaced)
}

/// Makes renames and new names in `dir` durable.
///
/// # Errors
/// The folder cannot be synced.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    #[cfg(unix)]
    fs::File::open(dir)?.sync_all()?;
    #[cfg(not(unix))]
    let _ = dir;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listing::names;

    fn fill(folder: &Path, text: &str) -> Result<(), Error> {
        let path = folder.join("weights");
        fs::write(&path, text).map_err(at(&path))
    }

    #[test]
    fn the_new_folder_replaces_the_old_and_keeps_what_others_put_there() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("model");
        replace_folder(&target, |folder| fill(folder, "one")).unwrap();
        fs::write(target.join("README.md"), "mine").unwrap();
        // What a kill leaves: half a folder, and one that was being replaced.
        fs::create_dir(dir.path().join(".unfinished-model")).unwrap();
        fs::write(dir.path().join(".unfinished-model/weights"), "ha").unwrap();
        fs::rename(&target, dir.path().join(".replaced-model")).unwrap();
        replace_folder(&target, |folder| fill(folder, "two")).unwrap();
        assert_eq!(names(dir.path()), ["model"]);
        assert_eq!(names(&target), ["README.md", "weights"]);
        assert_eq!(fs::read(target.join("weights")).unwrap(), b"two");
        // A failed attempt leaves the old one.
        let failed = replace_folder(&target, |_| Err(Error::refused(Path::new("x"), "no")));
        failed.unwrap_err();
        assert_eq!(fs::read(target.join("weights")).unwrap(), b"two");
    }

    #[test]
    fn a_file_or_a_link_in_its_place_stays() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("model");
        fs::write(&target, "mine").unwrap();
        let message = replace_folder(&target, |folder| fill(folder, "x")).unwrap_err().to_string();
        assert!(message.contains("in the way"), "{message}");
        assert_eq!(fs::read(&target).unwrap(), b"mine");
    }
}
