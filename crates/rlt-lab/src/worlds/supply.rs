//! Rows and a model that a run makes itself (`[world]`), so that it needs nothing from outside.

use std::path::{Path, PathBuf};

use rlt_files::replace_folder;
use rlt_model::Decoder;
use rlt_model::config::ModelConfig;

use super::{DatasetFiles, ModelShape, Sizes, World, WorldContent};
use rlt_method::config::{Config, WorldConfig};
use rlt_method::error::Result;
use rlt_method::training::WorldRows;

/// `config` with the paths of `RUN/world` in the place of those that are not set, after that folder has been
/// made. As it is when no world is asked for. What is made depends on the configuration alone.
///
/// # Errors
/// The folder cannot be written.
pub fn supply_world(config: &Config, run_dir: &Path, rows: WorldRows) -> Result<Config> {
    let mut config = config.clone();
    if !config.makes_its_world() {
        return Ok(config);
    }
    let folder = run_dir.join("world");
    if !folder.exists() {
        make_world(&config.world, config.seed, &folder)?;
    }
    let files = DatasetFiles::new(&folder);
    let or = |path: &mut PathBuf, made: &Path| {
        if path.as_os_str().is_empty() {
            made.clone_into(path);
        }
    };
    or(&mut config.model.path, &files.model);
    or(&mut config.model.student, &files.model);
    or(
        &mut config.data.path,
        match rows {
            WorldRows::Textbook => &files.textbook,
            WorldRows::Questions => &files.questions_train,
        },
    );
    if config.eval.every > 0 {
        or(&mut config.eval.data, &files.questions_heldout);
    }
    Ok(config)
}

fn make_world(world: &WorldConfig, seed: u64, folder: &Path) -> Result<()> {
    let sizes = Sizes {
        textbook: world.rows,
        teacher_sft: 0,
        questions_train: world.rows,
        questions_heldout: world.heldout_rows,
    };
    let &WorldConfig { hidden_size, intermediate_size, n_layers, n_heads, context, .. } = world;
    let shape = ModelShape { hidden_size, intermediate_size, n_layers, n_heads, context };
    replace_folder(folder, |unfinished| {
        let files = World::from_name(&world.name)?.write_dataset(unfinished, seed, &sizes, &shape)?;
        Ok(Decoder::random(&ModelConfig::from_dir(&files.model)?, seed).save(&files.model)?)
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn config(overrides: &[&str]) -> Config {
        let overrides: Vec<String> = overrides.iter().map(|&o| o.to_owned()).collect();
        Config::load(None, &overrides).unwrap()
    }

    #[test]
    fn what_is_not_set_comes_from_the_world_and_the_rest_stays() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(".unfinished-world")).unwrap();
        let asked =
            config(&["world.name=market", "world.rows=3", "world.heldout_rows=2", "model.student=mine"]);
        let supplied = supply_world(&asked, dir.path(), WorldRows::Questions).unwrap();
        assert_eq!(supplied.model.student, Path::new("mine"));
        assert_eq!(supplied.data.path, dir.path().join("world/questions_train.jsonl"));
        assert_eq!(fs::read_to_string(&supplied.data.path).unwrap().lines().count(), 3);
        let weights = Decoder::load(&supplied.model.path).unwrap();
        assert_eq!(weights.config().hidden_size, 128);
        assert!(!dir.path().join(".unfinished-world").exists());
        // A second call finds it made, for the other rows too.
        let again = supply_world(&asked, dir.path(), WorldRows::Textbook).unwrap();
        assert_eq!(again.data.path, dir.path().join("world/textbook.jsonl"));
    }

    #[test]
    fn without_a_world_nothing_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let asked = config(&["model.path=m"]);
        assert_eq!(supply_world(&asked, &dir.path().join("run"), WorldRows::Textbook).unwrap(), asked);
        assert!(!dir.path().join("run").exists());
    }
}
