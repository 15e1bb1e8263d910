//! `rlt config`: the keys of a configuration, from the code that reads them.

use std::fmt::Write as _;

use clap::Args;
use rlt::config::{Config, ConfigKey, ConfigTable, Explained};
use rlt::{Error, Result};
use serde_json::json;

use super::common::Context;

/// Print every default with comments, or explain a key
///
/// Without arguments it prints a configuration file that holds every key, its default and what it means:
/// `rlt config > my.toml`.
#[derive(Debug, Args)]
pub struct ConfigCommandArgs {
    /// A key (reward.kl) or a table (reward) to explain
    #[arg(value_name = "KEY")]
    key: Option<String>,
    /// Print a JSON schema instead, for editors that check and complete TOML
    #[arg(long, conflicts_with = "key")]
    schema: bool,
}

impl ConfigCommandArgs {
    /// Prints what was asked for.
    pub fn run(&self, context: &Context) -> Result<()> {
        if self.schema {
            let schema = Config::schema()?;
            let text = serde_json::to_string_pretty(&schema).map_err(|e| Error::Failed(e.to_string()))?;
            return context.answer(&text, &schema);
        }
        match &self.key {
            None => context.answer(&Config::commented_defaults()?, &json!(Config::reference()?)),
            Some(key) => {
                let explained = Config::explain_key(key)?;
                let text = match &explained {
                    Explained::Key(key) => key_text(key),
                    Explained::Table(table) => table_text(table),
                };
                context.answer(&text, &json!(explained))
            }
        }
    }
}

fn key_text(key: &ConfigKey) -> String {
    let default = key.default.as_deref().unwrap_or("unset");
    let mut text = format!("{}\n\n{}\n\nvalue: {}\n", key.key, key.meaning, key.value);
    let width = key.choices.iter().map(|choice| choice.name.len()).max().unwrap_or(0);
    for choice in &key.choices {
        let _ = writeln!(text, "  {:<width$}  {}", choice.name, choice.meaning);
    }
    let _ = write!(text, "default: {default}");
    text
}

fn table_text(table: &ConfigTable) -> String {
    let mut text = format!("[{}]\n\n{}\n\n", table.table, table.meaning);
    let width = table.keys.iter().map(|key| key.key.len()).max().unwrap_or(0);
    for key in &table.keys {
        let default = key.default.as_deref().unwrap_or("unset");
        let _ = writeln!(text, "{:<width$}  {default:<12}  {}", key.key, key.meaning);
    }
    text
}
