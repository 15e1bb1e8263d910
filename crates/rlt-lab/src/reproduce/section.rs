//! What a recipe comes to: tables, a figure and what holds.

use std::fmt::Write as _;

use serde::Serialize;

use super::table::Table;

/// Whether a claim of the paper holds in miniature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It does, with intervals apart where it compares.
    Holds,
    /// The figures point its way, the intervals overlap.
    Leans,
    /// It does not.
    Fails,
}

impl Outcome {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Holds => "holds",
            Self::Leans => "leans this way",
            Self::Fails => "does not hold",
        }
    }

    /// Of a comparison: apart in the claimed direction, or at least pointing there.
    pub fn of(apart: bool, ahead: bool) -> Self {
        match (apart, ahead) {
            (true, _) => Self::Holds,
            (false, true) => Self::Leans,
            (false, false) => Self::Fails,
        }
    }
}

/// A claim of the paper and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The claim.
    pub claim: String,
    /// What became of it.
    pub outcome: Outcome,
    /// The numbers.
    pub numbers: String,
}

impl Finding {
    /// A finding.
    pub fn new(claim: &str, outcome: Outcome, numbers: String) -> Self {
        Self { claim: claim.to_owned(), outcome, numbers }
    }
}

/// A table or figure of the paper in miniature.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Section {
    /// The recipe's name, and its folder's.
    pub name: &'static str,
    /// The heading.
    pub title: &'static str,
    /// What was done, for somebody who has not read the paper.
    pub story: String,
    /// The paper's numbers.
    pub paper: Table,
    /// Where the paper's numbers come from, or what they are.
    pub paper_note: &'static str,
    /// Ours, to be read.
    pub ours: Table,
    /// Ours with every seed, to be worked with: `table.csv`.
    pub data: Table,
    /// A whole SVG.
    pub figure: String,
    /// How to read it.
    pub caption: String,
    /// Claim by claim.
    pub findings: Vec<Finding>,
    /// What was tried where a claim does not hold, and what was not.
    pub tried: &'static str,
    /// The seeds it was measured under.
    pub seeds: Vec<u64>,
}

impl Section {
    /// `1 seed`, `3 seeds`.
    pub fn seeds_text(&self) -> String {
        let n = self.seeds.len();
        format!("{n} seed{}", if n == 1 { "" } else { "s" })
    }

    /// `table.md`: the table, then claim by claim.
    pub fn to_markdown(&self) -> String {
        let Self { title, story, ours, paper, paper_note, .. } = self;
        let (ours, paper, seeds) = (ours.to_markdown(), paper.to_markdown(), self.seeds_text());
        let mut text =
            format!("# {title}\n\n{story}\n\n{ours}\n{seeds}. The paper's:\n\n{paper}\n{paper_note}\n\n");
        for Finding { claim, outcome, numbers } in &self.findings {
            let _ = writeln!(text, "- {claim}: **{}** ({numbers}).", outcome.words());
        }
        let _ = writeln!(text, "\n{}", self.tried);
        text
    }
}
