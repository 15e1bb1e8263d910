//! `[world]`: rows and a model that a run makes itself. Here are the names and sizes; who starts a run brings what makes
//! them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::answer_rule::AnswerRule;
use crate::error::{Error, Result};

/// A synthetic world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum World {
    /// Stories of two-digit piles.
    Market,
    /// Countdown with two or three small numbers.
    Numbers,
}

impl World {
    /// Every world.
    pub const ALL: [Self; 2] = [Self::Market, Self::Numbers];

    /// The name in configurations and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Market => "market",
            Self::Numbers => "numbers",
        }
    }

    /// The world of that name.
    ///
    /// # Errors
    /// [`Error::Usage`] that lists the names when there is none.
    pub fn from_name(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|world| world.name() == name).ok_or_else(|| {
            let known: Vec<&str> = Self::ALL.iter().map(|world| world.name()).collect();
            Error::Usage(format!("there is no world {name:?}; the worlds are: {}", known.join(", ")))
        })
    }

    /// What makes an answer to its questions right.
    pub fn answer_rule(self) -> AnswerRule {
        match self {
            Self::Market => AnswerRule::Integer,
            Self::Numbers => AnswerRule::Expression,
        }
    }
}

/// `[world]`: rows and a model of random weights that the run makes itself, in `RUN/world`. They stand in for
/// whatever of `model.path`, `model.student` and `data.path` is not set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WorldConfig {
    /// Which world (`market`); empty for a run on rows and models of your own.
    pub name: String,
    /// Rows to train on: the textbook's for `rlt sft`, questions for `rlt train`.
    pub rows: usize,
    /// Held-out questions.
    pub heldout_rows: usize,
    /// Width of the model's residual stream.
    pub hidden_size: usize,
    /// Width of its gated feed-forward layer.
    pub intermediate_size: usize,
    /// Its decoder blocks.
    pub n_layers: usize,
    /// Its attention heads; they divide `hidden_size`.
    pub n_heads: usize,
    /// Its longest context, tokens.
    pub context: usize,
}

impl Default for WorldConfig {
    fn default() -> Self {
        Self {
            name: String::new(),
            rows: 2000,
            heldout_rows: 500,
            hidden_size: 128,
            intermediate_size: 256,
            n_layers: 3,
            n_heads: 4,
            context: 512,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worlds_are_found_by_name() {
        for world in World::ALL {
            assert_eq!(World::from_name(world.name()).expect("a world"), world);
        }
        let error = World::from_name("markt").expect_err("no such world");
        assert!(error.to_string().contains("market"), "{error}");
    }
}
