//! Checkpoints, and the care that keeps a run's files whole when the process dies at any moment.
//!
//! A checkpoint is a folder. It is written beside its final place, every file is fsynced, a
//! manifest with length and CRC-32C of each file is added, and one rename makes it appear. So a
//! folder named `step-000025` was complete when it appeared; [`CheckpointStore::latest_good`]
//! compares it with its manifest before anybody trusts it, because disks and people damage files.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rlt_files::{FileSum, MOST_DESCRIPTION, UNFINISHED, checksum, is_plain_path, sync_dir, write_atomic};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, io_error};

/// The manifest inside every checkpoint folder.
pub const MANIFEST: &str = "checksums.json";

/// The checkpoints of one run: `DIR/step-000025/` and so on.
#[derive(Debug, Clone)]
pub struct CheckpointStore {
    dir: PathBuf,
    keep: Keep,
}

/// Which checkpoints stay when a new one has been saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// The last this many; 0 keeps all.
    pub last: usize,
    /// And every one of a step that this number divides; 0 for no others.
    pub every: u64,
}

impl Keep {
    /// The last `last` and no others.
    pub const fn last(last: usize) -> Self {
        Self { last, every: 0 }
    }

    fn is_milestone(self, step: u64) -> bool {
        self.every > 0 && step.is_multiple_of(self.every)
    }
}

/// A checkpoint that agrees with its manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Optimizer steps done when it was saved.
    pub step: u64,
    /// Its folder.
    pub path: PathBuf,
}

/// What [`CheckpointStore::latest_good`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Latest {
    /// The newest undamaged checkpoint, if there is one.
    pub checkpoint: Option<Checkpoint>,
    /// One line for each newer checkpoint that was passed over, and why.
    pub warnings: Vec<String>,
}

/// Length and checksum of every file of a checkpoint, by path relative to its folder.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    files: BTreeMap<String, FileSum>,
}

impl CheckpointStore {
    /// The store in `dir` (made by the first save).
    pub fn new(dir: impl Into<PathBuf>, keep: Keep) -> Self {
        Self { dir: dir.into(), keep }
    }

    /// The folder that the checkpoint of `step` has or would have.
    pub fn path_of(&self, step: u64) -> PathBuf {
        self.dir.join(format!("step-{step:06}"))
    }

    /// Saves the state after `step` optimizer steps and returns the checkpoint's folder.
    ///
    /// `write` puts its files (folders are fine) into the empty folder it is given. A checkpoint
    /// of the same step is replaced. Older ones that need not be kept are removed only once the new one is
    /// in place and durable.
    ///
    /// # Errors
    /// Whatever `write` returns, and [`Error::Io`] (a full disk, for example); nothing of the
    /// unfinished checkpoint is left then, and the earlier ones are untouched.
    pub fn save(&self, step: u64, write: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        fs::create_dir_all(&self.dir).map_err(io_error(&self.dir))?;
        self.remove_unfinished()?;
        let target = self.path_of(step);
        let unfinished = self.dir.join(format!("{UNFINISHED}step-{step:06}"));
        fs::create_dir(&unfinished).map_err(io_error(&unfinished))?;

        if let Err(error) = write(&unfinished).and_then(|()| seal(&unfinished)) {
            // The first error is the one worth telling; what stays behind goes with the next save.
            let _ = fs::remove_dir_all(&unfinished);
            return Err(error);
        }

        if target.exists() {
            fs::remove_dir_all(&target).map_err(io_error(&target))?;
        }
        fs::rename(&unfinished, &target).map_err(io_error(&target))?;
        sync_dir(&self.dir).map_err(io_error(&self.dir))?;
        self.remove_older_than_kept(step)?;
        Ok(target)
    }

    /// The newest checkpoint whose files all agree with its manifest. Reads, changes nothing.
    ///
    /// # Errors
    /// [`Error::Io`] when the folder itself cannot be listed; a damaged checkpoint is a warning.
    pub fn latest_good(&self) -> Result<Latest> {
        let mut latest = Latest::default();
        for step in self.steps()?.into_iter().rev() {
            let path = self.path_of(step);
            match verify(&path) {
                Ok(()) => {
                    latest.checkpoint = Some(Checkpoint { step, path });
                    break;
                }
                Err(damage) => latest
                    .warnings
                    .push(format!("{}: damaged checkpoint passed over: {damage}", path.display())),
            }
        }
        Ok(latest)
    }

    /// Folders of checkpoints, the newest first, damaged or not.
    ///
    /// # Errors
    /// [`Error::Io`] when the folder cannot be listed.
    pub fn newest_first(&self) -> Result<Vec<PathBuf>> {
        Ok(self.steps()?.into_iter().rev().map(|step| self.path_of(step)).collect())
    }

    /// Removes what a kill left behind: folders that were being written, and those that were being removed after the
    /// checkpoint of `step` was saved.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn tidy(&self, step: u64) -> Result<()> {
        self.remove_unfinished()?;
        self.remove_older_than_kept(step)
    }

    /// Steps that have a folder, damaged or not, ascending.
    fn steps(&self) -> Result<Vec<u64>> {
        let mut steps: Vec<u64> = entries(&self.dir)?.iter().filter_map(|name| step_of(name)).collect();
        steps.sort_unstable();
        Ok(steps)
    }

    fn remove_unfinished(&self) -> Result<()> {
        let step = |name: &String| name.strip_prefix(UNFINISHED).and_then(step_of);
        for name in entries(&self.dir)?.iter().filter(|name| step(name).is_some()) {
            let path = self.dir.join(name);
            fs::remove_dir_all(&path).map_err(io_error(&path))?;
        }
        Ok(())
    }

    /// Later steps than `step` are left alone: they can only be damaged ones that the run went
    /// back behind, and it will replace them when it gets there.
    fn remove_older_than_kept(&self, step: u64) -> Result<()> {
        if self.keep.last == 0 {
            return Ok(());
        }
        let steps: Vec<u64> = self.steps()?.into_iter().filter(|&s| s <= step).collect();
        let old = &steps[..steps.len().saturating_sub(self.keep.last)];
        for &old in old.iter().filter(|&&step| !self.keep.is_milestone(step)) {
            let path = self.path_of(old);
            fs::remove_dir_all(&path).map_err(io_error(&path))?;
        }
        Ok(())
    }
}

/// The number in `step-000025`, only if the name is exactly what [`CheckpointStore::path_of`] gives.
fn step_of(name: &str) -> Option<u64> {
    let step: u64 = name.strip_prefix("step-")?.parse().ok()?;
    (name == format!("step-{step:06}")).then_some(step)
}

/// Makes everything in `folder` durable and adds the manifest.
fn seal(folder: &Path) -> Result<()> {
    let mut files = BTreeMap::new();
    for relative in files_below(folder)? {
        let path = folder.join(&relative);
        let sum = checksum(&path).map_err(io_error(&path))?;
        File::open(&path).and_then(|file| file.sync_all()).map_err(io_error(&path))?;
        if let Some(parent) = path.parent() {
            sync_dir(parent).map_err(io_error(parent))?;
        }
        files.insert(relative, sum);
    }
    let json = serde_json::to_vec_pretty(&Manifest { files })
        .map_err(|e| Error::Failed(format!("checkpoint manifest: {e}")))?;
    Ok(write_atomic(&folder.join(MANIFEST), &json)?)
}

/// Compares the files of a checkpoint with its manifest; the error is a phrase for a warning.
fn verify(folder: &Path) -> std::result::Result<(), String> {
    let json = rlt_files::read_bytes(&folder.join(MANIFEST), MOST_DESCRIPTION)
        .map_err(|e| format!("{MANIFEST}: {e}"))?;
    let manifest: Manifest = serde_json::from_slice(&json).map_err(|e| format!("{MANIFEST}: {e}"))?;
    for (relative, expected) in &manifest.files {
        if !is_plain_path(Path::new(relative)) {
            return Err(format!("{MANIFEST}: {relative:?} leads out of the checkpoint"));
        }
        let found = checksum(&folder.join(relative)).map_err(|e| format!("{relative}: {e}"))?;
        if found.bytes != expected.bytes {
            return Err(format!("{relative} has {} bytes instead of {}", found.bytes, expected.bytes));
        }
        if found.crc32c != expected.crc32c {
            return Err(format!("the checksum of {relative} does not match"));
        }
    }
    Ok(())
}

/// Every file below `folder`, relative, with `/` between the parts, in a fixed order.
fn files_below(folder: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for name in entries(folder)? {
        let path = folder.join(&name);
        if path.is_dir() {
            found.extend(files_below(&path)?.into_iter().map(|below| format!("{name}/{below}")));
        } else {
            found.push(name);
        }
    }
    found.sort();
    Ok(found)
}

/// Names in a folder; none when the folder does not exist.
fn entries(dir: &Path) -> Result<Vec<String>> {
    let listing = match fs::read_dir(dir) {
        Ok(listing) => listing,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(io_error(dir)(e)),
    };
    listing
        .map(|entry| entry.map(|e| e.file_name().to_string_lossy().into_owned()).map_err(io_error(dir)))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;

    use super::*;

    /// A store with checkpoints of steps 25 and 50, two files each, one in a folder.
    fn two_checkpoints() -> (tempfile::TempDir, CheckpointStore) {
        let dir = tempfile::tempdir().unwrap();
        let store = CheckpointStore::new(dir.path().join("checkpoints"), Keep::last(2));
        for step in [25, 50] {
            store.save(step, |tmp| write_files(tmp, step)).unwrap();
        }
        (dir, store)
    }

    #[expect(clippy::unnecessary_wraps, reason = "has the shape of what `save` calls")]
    fn write_files(folder: &Path, step: u64) -> Result<()> {
        fs::create_dir(folder.join("model")).unwrap();
        fs::write(folder.join("model/weights"), vec![step as u8; 3 << 20]).unwrap();
        fs::write(folder.join("state.json"), format!("{{\"step\":{step}}}")).unwrap();
        Ok(())
    }

    /// Applies `damage` to the newest checkpoint and returns the warning it causes.
    fn warning_after(damage: impl FnOnce(&Path)) -> String {
        let (_dir, store) = two_checkpoints();
        damage(&store.path_of(50));
        let latest = store.latest_good().unwrap();
        assert_eq!(latest.checkpoint, Some(Checkpoint { step: 25, path: store.path_of(25) }));
        assert_eq!(latest.warnings.len(), 1, "{:?}", latest.warnings);
        assert!(latest.warnings[0].contains("step-000050"), "{:?}", latest.warnings);
        latest.warnings.into_iter().next().unwrap()
    }

    #[test]
    fn the_newest_good_checkpoint_is_found() {
        let (_dir, store) = two_checkpoints();
        let latest = store.latest_good().unwrap();
        assert_eq!(latest.checkpoint, Some(Checkpoint { step: 50, path: store.path_of(50) }));
        assert!(latest.warnings.is_empty());
        assert_eq!(fs::read_to_string(store.path_of(50).join("state.json")).unwrap(), "{\"step\":50}");
    }

    #[test]
    fn no_folder_is_no_checkpoint() {
        let dir = tempfile::tempdir().unwrap();
        let store = CheckpointStore::new(dir.path().join("checkpoints"), Keep::last(2));
        assert_eq!(store.latest_good().unwrap(), Latest::default());
    }

    #[test]
    fn one_flipped_bit_is_noticed() {
        let warning = warning_after(|checkpoint| {
            let path = checkpoint.join("model/weights");
            let mut bytes = fs::read(&path).unwrap();
            bytes[2_000_000] ^= 1;
            fs::write(path, bytes).unwrap();
        });
        assert!(warning.contains("checksum of model/weights"), "{warning}");
    }

    #[test]
    fn a_truncated_file_is_noticed() {
        let warning = warning_after(|checkpoint| {
            let file = OpenOptions::new().write(true).open(checkpoint.join("model/weights")).unwrap();
            file.set_len(1_000_000).unwrap();
        });
        assert!(warning.contains("has 1000000 bytes instead of 3145728"), "{warning}");
    }

    #[test]
    fn a_missing_file_is_noticed() {
        let warning = warning_after(|checkpoint| fs::remove_file(checkpoint.join("state.json")).unwrap());
        assert!(warning.contains("state.json"), "{warning}");
    }

    #[test]
    fn a_missing_or_damaged_manifest_is_noticed() {
        warning_after(|checkpoint| fs::remove_file(checkpoint.join(MANIFEST)).unwrap());
        warning_after(|checkpoint| {
            let path = checkpoint.join(MANIFEST);
            let half = fs::read(&path).unwrap().len() / 2;
            OpenOptions::new().write(true).open(path).unwrap().set_len(half as u64).unwrap();
        });
    }

    #[test]
    fn when_every_checkpoint_is_damaged_there_is_none() {
        let (_dir, store) = two_checkpoints();
        for step in [25, 50] {
            fs::remove_file(store.path_of(step).join("state.json")).unwrap();
        }
        let latest = store.latest_good().unwrap();
        assert_eq!(latest.checkpoint, None);
        assert_eq!(latest.warnings.len(), 2);
    }

    #[test]
    fn a_save_that_was_killed_is_ignored_then_cleared() {
        let (_dir, store) = two_checkpoints();
        // What a kill leaves: files in the unfinished folder, even with its manifest, not renamed.
        let unfinished = store.dir.join(format!("{UNFINISHED}step-000075"));
        fs::create_dir(&unfinished).unwrap();
        write_files(&unfinished, 75).unwrap();
        seal(&unfinished).unwrap();
        let latest = store.latest_good().unwrap();
        assert_eq!(latest.checkpoint.unwrap().step, 50);
        assert!(latest.warnings.is_empty());
        assert!(unfinished.exists(), "looking changes nothing");

        store.save(75, |tmp| write_files(tmp, 75)).unwrap();
        assert!(!unfinished.exists());
        assert_eq!(store.latest_good().unwrap().checkpoint.unwrap().step, 75);
    }

    #[test]
    fn what_a_kill_left_is_tidied_away() {
        let (_dir, store) = two_checkpoints();
        // Killed while the oldest was being removed, and later while the next was being written.
        let (half_gone, unfinished) = (store.path_of(20), store.dir.join(format!("{UNFINISHED}step-000075")));
        for folder in [&half_gone, &unfinished] {
            fs::create_dir(folder).unwrap();
            fs::write(folder.join("state.json"), "{}").unwrap();
        }
        store.tidy(50).unwrap();
        let mut names = entries(&store.dir).unwrap();
        names.sort();
        assert_eq!(names, ["step-000025", "step-000050"]);
    }

    #[test]
    fn a_failed_save_leaves_the_earlier_ones() {
        let (_dir, store) = two_checkpoints();
        let failed = store.save(75, |tmp| {
            write_files(tmp, 75)?;
            Err(Error::Failed("disk full".into()))
        });
        assert_eq!(failed.unwrap_err().to_string(), "disk full");
        let mut names = entries(&store.dir).unwrap();
        names.sort();
        assert_eq!(names, ["step-000025", "step-000050"]);
    }

    #[test]
    fn the_oldest_go_and_the_same_step_is_replaced() {
        let (_dir, store) = two_checkpoints();
        store.save(75, |tmp| write_files(tmp, 75)).unwrap();
        assert_eq!(store.steps().unwrap(), [50, 75]);
        store.save(75, |tmp| write_files(tmp, 76)).unwrap();
        assert_eq!(store.steps().unwrap(), [50, 75]);
        assert_eq!(fs::read_to_string(store.path_of(75).join("state.json")).unwrap(), "{\"step\":76}");
    }

    #[test]
    fn a_run_that_went_back_keeps_the_checkpoint_it_stands_on() {
        let (_dir, store) = two_checkpoints();
        fs::remove_file(store.path_of(50).join("state.json")).unwrap();
        store.save(30, |tmp| write_files(tmp, 30)).unwrap();
        assert_eq!(store.steps().unwrap(), [25, 30, 50]);
        assert_eq!(store.latest_good().unwrap().checkpoint.unwrap().step, 30);
    }

    #[test]
    fn keep_zero_keeps_all() {
        let dir = tempfile::tempdir().unwrap();
        let store = CheckpointStore::new(dir.path(), Keep::last(0));
        for step in 1..=4 {
            store.save(step, |tmp| write_files(tmp, step)).unwrap();
        }
        assert_eq!(store.steps().unwrap(), [1, 2, 3, 4]);
    }

    #[test]
    fn milestones_stay_beside_the_last() {
        let dir = tempfile::tempdir().unwrap();
        let store = CheckpointStore::new(dir.path(), Keep { last: 2, every: 10 });
        for step in (5..=35).step_by(5) {
            store.save(step, |tmp| write_files(tmp, step)).unwrap();
        }
        assert_eq!(store.steps().unwrap(), [10, 20, 30, 35]);
    }

    #[test]
    fn only_exact_names_are_checkpoints() {
        assert_eq!(step_of("step-000025"), Some(25));
        assert_eq!(step_of("step-1234567"), Some(1_234_567));
        for name in ["step-25", "step-000025.bak", "step-+00025", "steps-000025", ".unfinished-step-000025"] {
            assert_eq!(step_of(name), None, "{name}");
        }
    }
}
