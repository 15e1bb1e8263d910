//! Reading a [`Config`]: every key is checked on its own, so that an error names where the key came
//! from, the key, its table and what was expected there.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};

use rlt_files::MOST_SETTINGS;
use serde::Deserialize;
use toml::{Table, Value};

use super::nearest::nearest;
use super::{
    AddedRewards, AnswerRule, Baseline, Config, GrpoConfig, LossMean, PromptsConfig, RewardConfig, Scale,
    TrainConfig,
};
use crate::{Error, Result};

impl Config {
    /// Reads a configuration: the defaults, then the TOML file at `path` (if any), then each
    /// `key=value` of `overrides` in order.
    ///
    /// Keys of tables are dotted (`grpo.steps=200`). A value is read as TOML; where that fails, or
    /// where the key wants text, it is taken as it stands, so quotes are only needed for escapes
    /// (`prompts.delimiter="\n\n"`). An empty `name` becomes the file's stem, else `run`.
    /// Relative paths are left as they are: they are relative to the current directory.
    ///
    /// # Errors
    /// [`Error::Usage`] with one line that names the file (or the override), the key and its table
    /// when the file cannot be read or is not TOML, when a key is unknown (the line names the
    /// nearest known one), when a value has the wrong type, or when it is out of range.
    pub fn load(path: Option<&Path>, overrides: &[String]) -> Result<Self> {
        let Some(path) = path else { return Self::parse("the configuration", "", overrides) };
        let origin = path.display().to_string();
        let text = rlt_files::read_text(path, MOST_SETTINGS)
            .map_err(|e| Error::Usage(format!("{origin}: cannot read the configuration: {e}")))?;
        Self::parse(&origin, &text, overrides)
    }

    /// As [`Config::load`], from the text of a TOML file; `origin` is its path, or says where the
    /// text comes from.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(origin: &str, text: &str, overrides: &[String]) -> Result<Self> {
        let specimen = specimen()?;
        let mut merged = parse_document(origin, text)?;
        check_table(origin, &merged, &specimen, "")?;
        for argument in overrides {
            let (keys, value) = parse_override(argument, &specimen)?;
            insert(&mut merged, &keys, value);
        }
        let mut config = Self::deserialize(merged).map_err(|e| usage(origin, one_line(e.message())))?;
        if config.name.is_empty() {
            let path = Path::new(origin);
            let stem = path.extension().and(path.file_stem());
            config.name = stem.map_or_else(|| "run".into(), |stem| stem.to_string_lossy().into_owned());
        }
        config.validate()?;
        Ok(config)
    }

    /// The whole configuration as TOML, every default filled in. [`Config::load`] of this text
    /// gives an equal value; keys that are unset (parts of a prompt style) are left out.
    ///
    /// # Errors
    /// [`Error::Usage`] when a value has no TOML form: a path that is not UTF-8, or a seed above
    /// 2^63 - 1.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self)
            .map_err(|e| Error::Usage(format!("the configuration cannot be written as TOML: {e}")))
    }

    /// Every set key with its value as TOML, by dotted path (`grpo.steps` to `200`): for comparing
    /// and showing configurations.
    ///
    /// # Errors
    /// As [`Config::to_toml`].
    pub fn settings(&self) -> Result<BTreeMap<String, String>> {
        let table = parse_document("the configuration", &self.to_toml()?)?;
        let mut settings = BTreeMap::new();
        for key in known_keys(&table, "") {
            if let Some(value) = lookup(&table, &key).filter(|value| !value.is_table()) {
                settings.insert(key, value.to_string());
            }
        }
        Ok(settings)
    }

    /// Where the run writes: `run_dir`, or `runs/NAME` when that is empty.
    pub fn run_dir(&self) -> PathBuf {
        if self.run_dir.as_os_str().is_empty() {
            Path::new("runs").join(if self.name.is_empty() { "run" } else { &self.name })
        } else {
            self.run_dir.clone()
        }
    }
}

fn usage(origin: &str, what: impl Display) -> Error {
    Error::Usage(format!("{origin}: {what}"))
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A configuration with every optional key present: its keys are the known keys and its values have
/// the types that are wanted. The literals of tables with optional keys leave nothing out, so a new one cannot be forgotten
/// there; a test finds one in any other table.
fn specimen() -> Result<Table> {
    let text = || Some(String::new());
    let reward = RewardConfig::default();
    let grpo = GrpoConfig::default();
    let add = AddedRewards::default();
    let config = Config {
        prompts: PromptsConfig {
            style: String::new(),
            teacher_system: text(),
            student_system: text(),
            delimiter: text(),
            padding: text(),
            begin_of_thought: text(),
            end_of_thought: text(),
            begin_of_solution: text(),
            end_of_solution: text(),
            begin_of_explanation: text(),
            end_of_explanation: text(),
        },
        reward: RewardConfig {
            kind: reward.kind,
            grader: Some(AnswerRule::Solution),
            alpha: reward.alpha,
            alpha_min: Some(0.0),
            alpha_max: Some(0.0),
            solution_weight: reward.solution_weight,
            lambda: reward.lambda,
            kl: reward.kl,
            solution_reduction: reward.solution_reduction,
            kl_reduction: reward.kl_reduction,
            logprob_clip: reward.logprob_clip,
            kl_clip: reward.kl_clip,
            reward_clip: reward.reward_clip,
            teacher_temperature: reward.teacher_temperature,
            student_temperature: reward.student_temperature,
            format_penalty: reward.format_penalty,
            unscorable_reward: Some(0.0),
            spike_lambda: reward.spike_lambda,
            spike_beta: reward.spike_beta,
            add: AddedRewards {
                correctness: add.correctness,
                overlap: add.overlap,
                repetition: add.repetition,
                length: add.length,
                overlong: add.overlong,
                overlong_cache: Some(0),
            },
        },
        grpo: GrpoConfig {
            steps: grpo.steps,
            questions_per_step: grpo.questions_per_step,
            group_size: grpo.group_size,
            objective: grpo.objective,
            baseline: Some(Baseline::Group),
            scale: Some(Scale::Group),
            loss_mean: Some(LossMean::Sequence),
            clip_low: Some(0.0),
            clip_high: Some(0.0),
            mask_truncated: Some(false),
            resample_rounds: Some(0),
            epochs: grpo.epochs,
            minibatches: grpo.minibatches,
            beta: grpo.beta,
            kl: grpo.kl,
            reference_sync_every: Some(0),
            reference_mixup: grpo.reference_mixup,
            tokens_per_microbatch: grpo.tokens_per_microbatch,
            samples_logged: grpo.samples_logged,
            samples_every: grpo.samples_every,
        },
        train: TrainConfig { lanes: Some(0) },
        ..Config::default()
    };
    Table::try_from(config).map_err(|e| usage("the default configuration", e))
}

fn parse_document(origin: &str, text: &str) -> Result<Table> {
    text.parse::<Table>().map_err(|e| {
        let line = e.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
        usage(origin, format_args!("line {line} is not valid TOML: {}", one_line(e.message())))
    })
}

/// Checks every key of `table` against the same place of the specimen. `prefix` is the dotted path
/// of the table with its final dot.
fn check_table(origin: &str, table: &Table, specimen: &Table, prefix: &str) -> Result<()> {
    for (key, value) in table {
        let path = format!("{prefix}{key}");
        match (lookup(specimen, &path), value) {
            (None, _) => return Err(unknown_key(origin, &path, specimen)),
            (Some(Value::Table(_)), Value::Table(inner)) => {
                check_table(origin, inner, specimen, &format!("{path}."))?;
            }
            (Some(wanted), _) => check_value(origin, &path, value, wanted)?,
        }
    }
    Ok(())
}

fn lookup<'a>(table: &'a Table, path: &str) -> Option<&'a Value> {
    match path.split_once('.') {
        None => table.get(path),
        Some((head, rest)) => lookup(table.get(head)?.as_table()?, rest),
    }
}

/// Lets the typed configuration judge one key alone, and rewords its verdict.
fn check_value(origin: &str, path: &str, value: &Value, wanted: &Value) -> Result<()> {
    let mut alone = Table::new();
    insert(&mut alone, &path.split('.').collect::<Vec<_>>(), value.clone());
    let Err(error) = Config::deserialize(alone) else { return Ok(()) };
    let expected = match (wanted, value) {
        // The type is right and still it is refused: an unknown name of a choice.
        (Value::String(_), Value::String(_)) | (Value::Array(_), Value::Array(_)) => {
            return Err(usage(origin, format_args!("{}: {}", place(path), one_line(error.message()))));
        }
        (Value::String(_), _) => "text in quotes",
        (Value::Integer(_), _) => "a whole number, 0 or more",
        (Value::Float(_), _) => "a number",
        (Value::Boolean(_), _) => "true or false",
        (Value::Table(_), _) => "a table",
        (Value::Array(_), _) => "a list in brackets",
        (Value::Datetime(_), _) => "another type",
    };
    Err(usage(origin, format_args!("{} must be {expected}, found {}", place(path), found(value))))
}

fn found(value: &Value) -> String {
    match value {
        Value::Table(_) => "a table".into(),
        Value::Array(_) => "an array".into(),
        Value::String(text) => format!("the text {text:?}"),
        other => other.to_string(),
    }
}

/// "`steps` in table [grpo]" for "grpo.steps".
fn place(path: &str) -> String {
    match path.rsplit_once('.') {
        None => format!("`{path}` at the top level"),
        Some((table, key)) => format!("`{key}` in table [{table}]"),
    }
}

fn unknown_key(origin: &str, path: &str, specimen: &Table) -> Error {
    let nearest = nearest_key(path, specimen);
    usage(origin, format_args!("unknown key {}; the nearest known key is `{nearest}`", place(path)))
}

fn nearest_key(path: &str, specimen: &Table) -> String {
    nearest(path, known_keys(specimen, "").into_iter())
}

fn known_keys(table: &Table, prefix: &str) -> Vec<String> {
    let mut keys = Vec::new();
    for (key, value) in table {
        let path = format!("{prefix}{key}");
        if let Value::Table(inner) = value {
            keys.extend(known_keys(inner, &format!("{path}.")));
        }
        keys.push(path);
    }
    keys
}

/// Every key that a file may hold, without the tables.
#[cfg(test)]
pub(super) fn known_settings() -> Result<Vec<String>> {
    let specimen = specimen()?;
    let is_key = |key: &String| lookup(&specimen, key).is_some_and(|value| !value.is_table());
    Ok(known_keys(&specimen, "").into_iter().filter(is_key).collect())
}

/// Splits `key=value` and reads the value as the key wants it.
fn parse_override<'a>(argument: &'a str, specimen: &Table) -> Result<(Vec<&'a str>, Value)> {
    let origin = format!("`{argument}`");
    let Some((path, text)) = argument.split_once('=') else {
        return Err(usage(&origin, "an override is written key=value, for example grpo.steps=200"));
    };
    let (path, text) = (path.trim(), text.trim());
    let Some(wanted) = lookup(specimen, path) else {
        return Err(unknown_key(&origin, path, specimen));
    };
    if let Value::Table(inner) = wanted {
        let example = inner.keys().next().map_or("key", String::as_str);
        return Err(usage(
            &origin,
            format_args!("`{path}` is a table; set one of its keys, for example {path}.{example}=.."),
        ));
    }
    let bare = || Value::String(text.into());
    let value = match text.parse::<Value>() {
        Ok(value) if wanted.is_str() && !value.is_str() => bare(),
        Ok(value) => value,
        Err(_) => bare(),
    };
    check_value(&origin, path, &value, wanted)?;
    Ok((path.split('.').collect(), value))
}

/// Sets the value at `keys`, making tables on the way.
fn insert(table: &mut Table, keys: &[&str], value: Value) {
    let [head, rest @ ..] = keys else { return };
    if rest.is_empty() {
        table.insert((*head).into(), value);
        return;
    }
    let inner = table.entry(*head).or_insert_with(|| Value::Table(Table::new()));
    if let Value::Table(inner) = inner {
        insert(inner, rest, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{KlEstimator, RewardKind, Schedule};

    /// Writes `toml` to a file `test.toml` of its own and loads it; the message of an error has the
    /// folder removed.
    fn load(toml: &str, overrides: &[&str]) -> std::result::Result<Config, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("test.toml");
        std::fs::write(&path, toml).unwrap();
        let overrides: Vec<String> = overrides.iter().map(|&o| o.to_owned()).collect();
        let folder = format!("{}/", dir.path().display());
        Config::load(Some(&path), &overrides).map_err(|e| {
            assert!(matches!(e, Error::Usage(_)), "{e:?}");
            let message = e.to_string().replace(&folder, "");
            assert!(!message.contains('\n'), "{message:?} is not one line");
            message
        })
    }

    #[test]
    fn the_file_overrides_the_defaults_and_key_value_overrides_the_file() {
        let toml = "seed = 7\n[grpo]\nsteps = 3\ngroup_size = 8\n[reward]\nlambda = 2\nkl = 'k3'\n";
        let config =
            load(toml, &["grpo.steps=5", "optimizer.schedule=cosine", "model.path=models/7"]).unwrap();
        assert_eq!(config.seed, 7);
        assert_eq!((config.grpo.steps, config.grpo.group_size), (5, 8));
        assert_eq!((config.reward.lambda, config.reward.kl), (2.0, KlEstimator::K3));
        assert_eq!(config.optimizer.schedule, Schedule::Cosine);
        assert_eq!(config.model.path, Path::new("models/7"));
        assert_eq!(config.grpo.beta, Config::default().grpo.beta);
        assert_eq!(config.run_dir(), Path::new("runs/test"));
    }

    #[test]
    fn the_last_of_two_overrides_wins() {
        assert_eq!(load("", &["seed=1", "seed=2"]).unwrap().seed, 2);
    }

    #[test]
    fn override_values_are_toml_or_bare_text() {
        let prompts = |o: &str| load("", &[o]).unwrap().prompts;
        assert_eq!(prompts(r#"prompts.delimiter="\n\n""#).delimiter.unwrap(), "\n\n");
        assert_eq!(prompts("prompts.delimiter=a = b").delimiter.unwrap(), "a = b");
        assert_eq!(prompts("prompts.delimiter=").delimiter.unwrap(), "");
        assert_eq!(load("", &["name=2024"]).unwrap().name, "2024");
        assert_eq!(load("", &["name=true"]).unwrap().name, "true");
    }

    #[test]
    fn unknown_keys_name_the_file_the_table_and_the_nearest_key() {
        assert_eq!(
            load("[grpo]\ngroup_sise = 8\n", &[]).unwrap_err(),
            "test.toml: unknown key `group_sise` in table [grpo]; the nearest known key is `grpo.group_size`"
        );
        assert_eq!(
            load("group_size = 8\n", &[]).unwrap_err(),
            "test.toml: unknown key `group_size` at the top level; the nearest known key is `grpo.group_size`"
        );
        assert_eq!(
            load("[gropo]\nsteps = 8\n", &[]).unwrap_err(),
            "test.toml: unknown key `gropo` at the top level; the nearest known key is `grpo`"
        );
        assert_eq!(
            load("", &["reward.lamda=1"]).unwrap_err(),
            "`reward.lamda=1`: unknown key `lamda` in table [reward]; the nearest known key is `reward.lambda`"
        );
        assert_eq!(
            load("", &["sft.max_token=1"]).unwrap_err(),
            "`sft.max_token=1`: unknown key `max_token` in table [sft]; the nearest known key is `sft.max_tokens`"
        );
    }

    #[test]
    fn wrong_types_name_the_key_and_what_was_expected() {
        let cases = [
            (
                "[grpo]\nsteps = 'many'",
                "`steps` in table [grpo] must be a whole number, 0 or more, found the text \"many\"",
            ),
            ("[grpo]\nsteps = -1", "`steps` in table [grpo] must be a whole number, 0 or more, found -1"),
            ("[grpo]\nsteps = 1.5", "`steps` in table [grpo] must be a whole number, 0 or more, found 1.5"),
            ("[reward]\nalpha = true", "`alpha` in table [reward] must be a number, found true"),
            ("name = 3", "`name` at the top level must be text in quotes, found 3"),
            ("[model]\nfrom_scratch = 1", "`from_scratch` in table [model] must be true or false, found 1"),
            ("grpo = 3", "`grpo` at the top level must be a table, found 3"),
            ("seed = [1]", "`seed` at the top level must be a whole number, 0 or more, found an array"),
            (
                "[reward]\nkl = 'k4'",
                "`kl` in table [reward]: unknown variant `k4`, expected one of `sampled`, `k3`, `full`",
            ),
        ];
        for (toml, expected) in cases {
            assert_eq!(load(toml, &[]).unwrap_err(), format!("test.toml: {expected}"));
        }
        assert_eq!(
            load("", &["grpo.steps=many"]).unwrap_err(),
            "`grpo.steps=many`: `steps` in table [grpo] must be a whole number, 0 or more, found the text \"many\""
        );
        assert_eq!(
            load("", &["grpo=3"]).unwrap_err(),
            "`grpo=3`: `grpo` is a table; set one of its keys, for example grpo.baseline=.."
        );
        assert!(load("", &["grpo.steps"]).unwrap_err().contains("key=value"));
    }

    /// Every key by its dotted path with the specimen's value; no tables.
    fn all_keys() -> Vec<(String, Value)> {
        let specimen = specimen().unwrap();
        let keys = known_keys(&specimen, "").into_iter();
        keys.map(|key| (key.clone(), lookup(&specimen, &key).unwrap().clone()))
            .filter(|(_, value)| !value.is_table())
            .collect()
    }

    #[test]
    fn the_specimen_has_every_key_that_a_table_knows() {
        let specimen = specimen().unwrap();
        let tables =
            known_keys(&specimen, "").into_iter().filter(|key| lookup(&specimen, key).unwrap().is_table());
        for table in tables.chain([String::new()]) {
            // What serde says of a key that no table has lists those that this one has.
            let mut alone = Table::new();
            let mut keys: Vec<&str> = table.split('.').filter(|key| !key.is_empty()).collect();
            keys.push("no such key");
            insert(&mut alone, &keys, Value::Boolean(true));
            let message = Config::deserialize(alone).unwrap_err().message().to_owned();
            let (_, known) = message.split_once("expected").unwrap();
            let names: Vec<&str> = known.split('`').skip(1).step_by(2).collect();
            assert!(!names.is_empty(), "{message}");
            for name in names {
                let path = if table.is_empty() { name.to_owned() } else { format!("{table}.{name}") };
                assert!(lookup(&specimen, &path).is_some(), "{path} is not in the specimen");
            }
        }
    }

    #[test]
    fn no_number_is_without_bounds() {
        // Any seed is one; threads are counted where they are started; a term's size is compared with its matrix.
        let elsewhere = ["seed", "threads", "lora.rank", "lora.alpha"];
        let mut n = 0;
        for (key, value) in all_keys() {
            let extremes: &[&str] = match value {
                Value::Integer(_) => &["9223372036854775807", "1000000000000", "-1"],
                Value::Float(_) => &["1e300", "-1e300", "1e38", "-1e38", "inf", "-inf", "nan"],
                _ => continue,
            };
            for extreme in extremes.iter().filter(|_| !elsewhere.contains(&key.as_str())) {
                let message = load("", &[&format!("{key}={extreme}")]).expect_err(&key);
                let last = key.rsplit('.').next().unwrap();
                let named =
                    message.starts_with(&format!("{key} is ")) || message.contains(&format!("`{last}`"));
                assert!(named, "{key}={extreme}: {message}");
                n += 1;
            }
        }
        assert!(n > 200, "{n} values were tried");
    }

    #[test]
    fn malformed_toml_names_the_line() {
        let message = load("seed = 1\n[grpo\nsteps = 3\n", &[]).unwrap_err();
        assert!(message.starts_with("test.toml: line 2 is not valid TOML: "), "{message}");
        let message = load("seed = 1\nseed = 2\n", &[]).unwrap_err();
        assert!(message.starts_with("test.toml: line 2 is not valid TOML: "), "{message}");
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Config::load(Some(Path::new("no/such.toml")), &[]).unwrap_err();
        assert!(matches!(error, Error::Usage(_)));
        assert!(error.to_string().starts_with("no/such.toml: cannot read"), "{error}");
    }

    #[test]
    fn to_toml_round_trips_and_shows_every_default() {
        let mut config = load("", &[]).unwrap();
        let toml = config.to_toml().unwrap();
        for line in [
            "alpha = 0.01\n",
            "lambda = 3.0\n",
            "beta = 0.04\n",
            "epsilon = 0.00000001\n",
            "kind = \"rlt\"\n",
        ] {
            assert!(toml.contains(line), "{line:?} is not in\n{toml}");
        }
        assert_eq!(load(&toml, &[]).unwrap(), config);

        config.reward.kind = RewardKind::Correctness;
        config.reward.alpha = 0.1 + 0.2;
        config.optimizer.learning_rate = 1.0 / 3.0;
        config.seed = i64::MAX as u64;
        config.run_dir = "some where/\"quoted\"\\".into();
        config.prompts.delimiter = Some("\n\n\t'\"\u{1F600}".into());
        config.prompts.padding = Some(String::new());
        assert_eq!(load(&config.to_toml().unwrap(), &[]).unwrap(), config);
    }

    proptest::proptest! {
        #[test]
        fn any_float_round_trips(bits: u32, wide: u64) {
            let (narrow, wide) = (f32::from_bits(bits).abs(), f64::from_bits(wide).abs());
            proptest::prop_assume!(narrow.is_finite() && wide.is_finite());
            // Within their bounds, with every pattern of digits.
            let (narrow, wide) = (narrow % 1e6, wide % 1e3);
            let mut config = Config { name: "floats".into(), ..Config::default() };
            config.reward.lambda = narrow;
            config.optimizer.learning_rate = wide;
            let back = load(&config.to_toml().unwrap(), &[]).unwrap();
            proptest::prop_assert_eq!(back, config);
        }
    }
}
