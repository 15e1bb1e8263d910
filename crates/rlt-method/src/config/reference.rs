//! What every key of a configuration is: type, default, meaning. All of it is read off the structs themselves (their fields,
//! their doc comments, their `Default`), so there is no second list that could fall behind.

use std::fmt::Write as _;

use schemars::generate::SchemaSettings;
use serde::Serialize;
use serde_json::{Map, Value};

use super::Config;
use super::nearest::nearest;
use crate::{Error, Result};

/// One key of a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConfigKey {
    /// Where it stands, with dots between tables: `reward.kl`.
    pub key: String,
    /// What it is about, one paragraph.
    pub meaning: String,
    /// What may be given: "a number", "true or false", "one of" ..
    pub value: &'static str,
    /// The names that may be given, where only some may.
    pub choices: Vec<KeyChoice>,
    /// The default as TOML; none where the key is unset and its meaning says what follows then.
    pub default: Option<String>,
}

/// A name that may be given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyChoice {
    /// As it is written in a configuration.
    pub name: String,
    /// What it chooses.
    pub meaning: String,
}

/// A table of a configuration with its keys, in the order of the page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConfigTable {
    /// `reward.add`; empty for the keys that stand before every table.
    pub table: String,
    /// What it is about.
    pub meaning: String,
    /// Its own keys, without those of tables in it.
    pub keys: Vec<ConfigKey>,
}

/// What was asked about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Explained {
    /// One key.
    Key(ConfigKey),
    /// A table and all of its keys.
    Table(ConfigTable),
}

impl Config {
    /// A JSON schema (draft 2020-12) of a configuration file, for editors that complete and check TOML.
    ///
    /// # Errors
    /// As [`Config::settings`].
    pub fn schema() -> Result<Value> {
        let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
        let mut schema = settings.into_generator().into_root_schema_for::<Self>().to_value();
        schema["title"] = "Configuration of rlt".into();
        let defaults: Value = toml::from_str(&Self::default().to_toml()?)
            .map_err(|e| Error::Failed(format!("the default configuration cannot be read: {e}")))?;
        set_defaults(&mut schema, &defaults);
        Ok(schema)
    }

    /// Every table and its keys, in the order in which a configuration is written.
    ///
    /// # Errors
    /// As [`Config::settings`].
    pub fn reference() -> Result<Vec<ConfigTable>> {
        let mut tables = Vec::new();
        let meaning = "Keys that stand before every table.".to_owned();
        collect("", meaning, &Self::schema()?, &mut tables);
        let defaults = Self::default().settings()?;
        for key in tables.iter_mut().flat_map(|table| &mut table.keys) {
            key.default = defaults.get(&key.key).cloned();
        }
        Ok(tables)
    }

    /// What the key or table of this dotted name is.
    ///
    /// # Errors
    /// [`Error::Usage`] that names the nearest one where there is none of that name.
    pub fn explain_key(name: &str) -> Result<Explained> {
        let tables = Self::reference()?;
        let mut names = Vec::new();
        for table in tables {
            if !table.table.is_empty() && table.table == name {
                return Ok(Explained::Table(table));
            }
            names.push(table.table);
            for key in table.keys {
                if key.key == name {
                    return Ok(Explained::Key(key));
                }
                names.push(key.key);
            }
        }
        let nearest = nearest(name, names.into_iter());
        Err(Error::Usage(format!("there is no key or table `{name}`; the nearest known one is `{nearest}`")))
    }

    /// The default configuration as TOML, with what each key means above it. What is unset stands as a comment.
    ///
    /// # Errors
    /// As [`Config::settings`].
    pub fn commented_defaults() -> Result<String> {
        let mut text = String::from("# Every key with its default. Leave out what you do not change.\n");
        for ConfigTable { table, meaning, keys } in Self::reference()? {
            text.push('\n');
            if !table.is_empty() {
                comment(&mut text, &meaning);
                let _ = writeln!(text, "[{table}]");
            }
            for key in keys {
                comment(&mut text, &key.meaning);
                for choice in &key.choices {
                    comment(&mut text, &format!("- {}: {}", choice.name, choice.meaning));
                }
                let name = key.name();
                match &key.default {
                    Some(default) => {
                        let _ = writeln!(text, "{name} = {default}");
                    }
                    None => {
                        let _ = writeln!(text, "# {name} =    # unset; {}", key.value);
                    }
                }
            }
        }
        Ok(text)
    }

    /// The page of the documentation about every key, as Markdown.
    ///
    /// # Errors
    /// As [`Config::settings`].
    pub fn reference_page() -> Result<String> {
        let mut text = String::from(
            "# Keys of a configuration\n\n\
             Every key with its type, its default and its meaning. A configuration is a TOML file (`--config FILE`); a key is\n\
             also given on the command line as `table.key=value`. `rlt config` prints these defaults as a file, `rlt config KEY`\n\
             explains one key, and `rlt config --schema` writes a JSON schema for editors. This page is generated.\n",
        );
        for ConfigTable { table, meaning, keys } in Self::reference()? {
            let title =
                if table.is_empty() { "Before every table".to_owned() } else { format!("`[{table}]`") };
            let _ = writeln!(
                text,
                "\n## {title}\n\n{meaning}\n\n| key | value | default | meaning |\n|---|---|---|---|"
            );
            for key in keys {
                let default =
                    key.default.as_ref().map_or_else(|| "unset".into(), |default| format!("`{default}`"));
                let mut cell = key.meaning.clone();
                for choice in &key.choices {
                    let _ = write!(cell, "<br>`{}`: {}", choice.name, choice.meaning);
                }
                let row = format!(
                    "| `{}` | {} | {default} | {} |",
                    key.name(),
                    key.value,
                    cell.replace('|', "\\|")
                );
                let _ = writeln!(text, "{row}");
            }
        }
        Ok(text)
    }
}

impl ConfigKey {
    /// The last part of the key: what stands in its table.
    pub fn name(&self) -> &str {
        self.key.rsplit('.').next().unwrap_or_default()
    }
}

/// Longest line of a comment, characters.
const COMMENT_WIDTH: usize = 100;

/// `text` as lines that begin with `# `.
fn comment(out: &mut String, text: &str) {
    let mut line = String::from("#");
    for word in text.split_whitespace() {
        if line.len() > 1 && line.chars().count() + 1 + word.chars().count() > COMMENT_WIDTH {
            out.push_str(&line);
            out.push('\n');
            line = "#".into();
        }
        line.push(' ');
        line.push_str(word);
    }
    out.push_str(&line);
    out.push('\n');
}

/// Puts the values of `defaults` in the place of those that the schema has of its own: numbers of 32 bits would show the
/// digits that 64 have beyond them. What is unset has no default.
fn set_defaults(schema: &mut Value, defaults: &Value) {
    let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) else { return };
    for (name, property) in properties {
        let default = defaults.get(name);
        if let Some(property) = property.as_object_mut() {
            property.remove("default");
            if let Some(default) = default.filter(|default| !default.is_object()) {
                property.insert("default".into(), default.clone());
            }
        }
        set_defaults(property, default.unwrap_or(&Value::Null));
    }
}

/// Adds the table that this schema describes, and those in it.
fn collect(path: &str, meaning: String, schema: &Value, tables: &mut Vec<ConfigTable>) {
    let at = tables.len();
    tables.push(ConfigTable { table: path.to_owned(), meaning, keys: Vec::new() });
    let none = Map::new();
    for (name, property) in schema["properties"].as_object().unwrap_or(&none) {
        let key = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let meaning = words(property);
        if property.get("properties").is_some() {
            collect(&key, meaning, property, tables);
            continue;
        }
        let (value, choices) = value_of(property);
        tables[at].keys.push(ConfigKey { key, meaning, value, choices, default: None });
    }
}

/// The description as one line.
fn words(schema: &Value) -> String {
    let text = schema["description"].as_str().unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What may be given, and the names among which to choose.
fn value_of(schema: &Value) -> (&'static str, Vec<KeyChoice>) {
    let alternatives = ["anyOf", "oneOf"].iter().find_map(|&of| schema[of].as_array());
    if let Some(alternatives) = alternatives {
        let choices: Vec<KeyChoice> = alternatives
            .iter()
            .filter_map(|one| {
                Some(KeyChoice { name: one["const"].as_str()?.to_owned(), meaning: words(one) })
            })
            .collect();
        if !choices.is_empty() {
            return ("one of", choices);
        }
        // A key that may be unset: what it is otherwise.
        let set = alternatives.iter().find(|one| one["type"] != "null");
        return set.map_or(("a value", Vec::new()), value_of);
    }
    let kind = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().find(|&kind| kind != "null").and_then(Value::as_str),
        kind => kind.as_str(),
    };
    match kind {
        Some("string") => ("text", Vec::new()),
        Some("integer") => ("a whole number, 0 or more", Vec::new()),
        Some("number") => ("a number", Vec::new()),
        Some("boolean") => ("true or false", Vec::new()),
        Some("array") => match value_of(&schema["items"]) {
            (_, choices) if !choices.is_empty() => ("a list of", choices),
            _ => ("a list", Vec::new()),
        },
        _ => ("a value", Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Vec<ConfigKey> {
        Config::reference().unwrap().into_iter().flat_map(|table| table.keys).collect()
    }

    #[test]
    fn every_key_that_a_file_may_hold_is_explained() {
        let mut explained: Vec<String> = keys().into_iter().map(|key| key.key).collect();
        let mut known = super::super::load::known_settings().unwrap();
        explained.sort();
        known.sort();
        assert_eq!(explained, known);
        for key in keys() {
            assert!(key.meaning.ends_with(['.', ')']), "{}: {:?}", key.key, key.meaning);
            assert!(key.value != "a value", "{key:?}");
            let links = ["[`", "Self::", "super::"];
            assert!(!links.iter().any(|link| key.meaning.contains(link)), "{}: {}", key.key, key.meaning);
            assert!(key.choices.iter().all(|choice| !choice.meaning.is_empty()), "{key:?}");
        }
    }

    #[test]
    fn the_commented_defaults_are_the_defaults() {
        let text = Config::commented_defaults().unwrap();
        let read = Config::parse("defaults", &text, &[]).unwrap();
        assert_eq!(read, Config { name: "run".into(), ..Config::default() });
        assert!(text.lines().all(|line| line.chars().count() <= 130), "{text}");
        // What is unset can be set where it stands.
        let set = text.replace("# alpha_min =    # unset; a number", "alpha_min = 0.5");
        assert_eq!(Config::parse("defaults", &set, &[]).unwrap().reward.alpha_min, Some(0.5));
    }

    #[test]
    fn a_key_says_type_choices_and_default() {
        let Explained::Key(kl) = Config::explain_key("reward.kl").unwrap() else { panic!("a key") };
        let names: Vec<&str> = kl.choices.iter().map(|choice| choice.name.as_str()).collect();
        assert_eq!((kl.value, &names[..]), ("one of", &["sampled", "k3", "full"][..]));
        assert_eq!(kl.default.as_deref(), Some("\"sampled\""));
        let Explained::Key(scale) = Config::explain_key("grpo.scale").unwrap() else { panic!("a key") };
        assert_eq!((scale.default, scale.choices.len()), (None, 3));
        let Explained::Table(add) = Config::explain_key("reward.add").unwrap() else { panic!("a table") };
        assert_eq!(add.keys[0].key, "reward.add.correctness");
        let message = Config::explain_key("reward.kI").unwrap_err().to_string();
        assert_eq!(message, "there is no key or table `reward.kI`; the nearest known one is `reward.kl`");
    }

    #[test]
    fn the_schema_has_the_digits_that_a_person_wrote() {
        let schema = Config::schema().unwrap();
        assert_eq!(schema["properties"]["sampling"]["properties"]["temperature"]["default"], 0.7);
        assert_eq!(schema["properties"]["grpo"]["additionalProperties"], false);
        assert_eq!(schema["properties"]["grpo"]["properties"]["scale"].get("default"), None);
    }
}
