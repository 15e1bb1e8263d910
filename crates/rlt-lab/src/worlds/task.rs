//! What `rlt eval` finds by a name: a benchmark, a world, or a file of rows.

use std::path::Path;

use super::{World, WorldContent};
use rlt_method::config::DataConfig;
use rlt_method::evaluate::benchmark::{Benchmark, built_in_names};
use rlt_method::evaluate::task::{Grader, Task};
use rlt_method::{Error, Result};

/// Held-out questions made for a world when no file is given and no number is asked for.
pub const WORLD_QUESTIONS: usize = 500;

/// Held-out questions of a world, the first `n` under `seed`.
pub fn heldout_task(world: World, seed: u64, n: usize) -> Task {
    Task {
        name: world.name().into(),
        split: "heldout".into(),
        grader: Grader::Section(world.answer_rule()),
        rows: world.heldout_questions(seed, n),
    }
}

/// The task that `name` stands for: a benchmark's name or TOML file with its rows in `data`, a world's name, with its questions from `data` or made from `seed`
/// (`max_questions` of them, [`WORLD_QUESTIONS`] when that is 0), or else a file or folder of rows.
///
/// # Errors
/// [`Error::Usage`] when it is neither; as [`rlt_method::dataset::read_questions`].
pub fn find_task(
    name: &str,
    data: Option<&Path>,
    columns: &DataConfig,
    seed: u64,
    max_questions: usize,
) -> Result<Task> {
    let rows = |path: &Path| DataConfig { path: path.to_owned(), max_rows: max_questions, ..columns.clone() };
    if let Some(benchmark) = Benchmark::find(name)? {
        return benchmark.task(data, max_questions);
    }
    match (World::from_name(name), data) {
        (Ok(world), Some(path)) => Task::world_rows(world, &rows(path)),
        (Ok(world), None) => {
            let n = if max_questions == 0 { WORLD_QUESTIONS } else { max_questions };
            Ok(heldout_task(world, seed, n))
        }
        (Err(_), _) if Path::new(name).exists() => match data {
            None => Task::rows(&rows(Path::new(name))),
            Some(_) => Err(Error::Usage(format!(
                "--data gives a world its questions; the task {name} is a file and has its own"
            ))),
        },
        (Err(_), _) => {
            let worlds: Vec<&str> = World::ALL.iter().map(|world| world.name()).collect();
            let (worlds, benchmarks) = (worlds.join(", "), built_in_names().collect::<Vec<_>>().join(", "));
            Err(Error::Usage(format!(
                "the task {name:?} is neither a file nor a world ({worlds}) nor a benchmark ({benchmarks})"
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rlt_method::config::AnswerRule;

    #[test]
    fn tasks_are_found_by_world_or_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("capitals.jsonl");
        std::fs::write(
            &path,
            "{\"question\":\"q\",\"solution\":\"a\"}\n{\"question\":\"r\",\"solution\":\"b\"}\n",
        )
        .unwrap();
        let columns = DataConfig::default();
        let find = |name: &str, data: Option<&Path>| find_task(name, data, &columns, 3, 1);

        let made = find("market", None).unwrap();
        assert_eq!((made.split.as_str(), made.rows.len()), ("heldout", 1));
        assert_eq!(made.grader, Grader::Section(AnswerRule::Integer));
        assert_eq!(find_task("market", None, &columns, 3, 0).unwrap().rows.len(), WORLD_QUESTIONS);
        let given = find("market", Some(&path)).unwrap();
        assert_eq!((given.split.as_str(), given.rows[0].solution.as_str()), ("capitals", "a"));
        let name = path.to_str().unwrap();
        let file = find(name, None).unwrap();
        assert_eq!(
            (file.name.as_str(), file.grader, file.rows.len()),
            ("capitals", Grader::Section(AnswerRule::Solution), 1)
        );
        assert!(find(name, Some(&path)).unwrap_err().to_string().contains("has its own"));
        assert!(find("markt", None).unwrap_err().to_string().contains("nor a world (market, numbers)"));
    }
}
