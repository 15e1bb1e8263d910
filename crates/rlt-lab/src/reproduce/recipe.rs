//! What is reproduced, how often and where.

use std::path::PathBuf;

use super::scale::Scale;

/// A table or figure of the paper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recipe {
    /// Students of different traces.
    Table1,
    /// Students of different traces, over base models of different strength.
    Bases,
    /// Students as cold starts of RL.
    Table2,
    /// Another world, teacher unchanged.
    Fig4a,
    /// Reward against students.
    Fig4b,
    /// What each part is for.
    Ablations,
    /// What minimum and maximum are for, where an explanation can grow.
    Padding,
}

impl Recipe {
    /// In the order of the page.
    pub const ALL: [Self; 7] =
        [Self::Table1, Self::Bases, Self::Table2, Self::Fig4a, Self::Fig4b, Self::Ablations, Self::Padding];

    /// Whether it can begin from one base model that somebody else has trained. Table 2, figure 4a and padding train some of their own;
    /// figure 4b needs a teacher that finishes nearly every explanation, or groups are left without a trace.
    pub fn works_on_a_pretrained_base(self) -> bool {
        matches!(self, Self::Table1 | Self::Ablations)
    }

    /// Whether `all --quick` has it. Other strengths of the base model, and another book, take a base model and teachers of their own each, which
    /// twenty minutes have no room for.
    pub fn is_quick(self) -> bool {
        !matches!(self, Self::Bases | Self::Padding)
    }

    /// On the command line, and its folder.
    pub fn name(self) -> &'static str {
        match self {
            Self::Table1 => "table1",
            Self::Bases => "bases",
            Self::Table2 => "table2",
            Self::Fig4a => "fig4a",
            Self::Fig4b => "fig4b",
            Self::Ablations => "ablations",
            Self::Padding => "padding",
        }
    }
}

/// What is reproduced, how often and where.
#[derive(Debug, Clone)]
pub struct ReproduceOptions {
    /// Which tables and figures.
    pub recipes: Vec<Recipe>,
    /// Seeds 1 to this.
    pub seeds: u64,
    /// How much of everything.
    pub scale: Scale,
    /// Where everything goes.
    pub run_dir: PathBuf,
}
