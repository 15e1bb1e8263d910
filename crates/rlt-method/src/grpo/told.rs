//! What somebody is asked who is told the solution, the teacher of a distillation for one: the row's question, and what the
//! student is not told.

use rlt_model::ids::TokenIds;

use crate::config::{DistillConfig, QUESTION, SOLUTION, TRACE};
use crate::dataset::QuestionRow;
use crate::error::{Error, Result};
use crate::prompts::{ChatText, PromptStyle};

/// What a run of distillation is called in its files.
pub(super) const WORK: &str = "distill";

/// `distill.told`, cut at what stands for a part of the row.
pub(crate) struct Told(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Question,
    Solution,
    Trace,
}

impl Told {
    pub fn of(config: &DistillConfig) -> Self {
        let names = [(QUESTION, Piece::Question), (SOLUTION, Piece::Solution), (TRACE, Piece::Trace)];
        let (mut pieces, mut rest) = (Vec::new(), config.told.as_str());
        loop {
            let next = names.iter().filter_map(|(name, piece)| Some((rest.find(name)?, *name, piece)));
            let Some((at, name, piece)) = next.min_by_key(|(at, ..)| *at) else { break };
            pieces.extend([Piece::Text(rest[..at].to_owned()), piece.clone()]);
            rest = &rest[at + name.len()..];
        }
        pieces.push(Piece::Text(rest.to_owned()));
        Self(pieces)
    }

    /// The teacher's prompt: the student's, with all this in the place of the question. What stands in a row stands there
    /// as it is, whatever it looks like.
    ///
    /// # Errors
    /// [`Error::Failed`] where the row has no reasoning trace and one is asked for; what chat template and tokenizer report.
    pub fn prompt(&self, style: &PromptStyle, chat: &ChatText, row: &QuestionRow) -> Result<TokenIds> {
        let mut user = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => user.push_str(text),
                Piece::Question => user.push_str(&chat.row_text(&row.question)),
                Piece::Solution => user.push_str(&chat.row_text(&row.solution)),
                Piece::Trace => {
                    let trace = row.reasoning_trace.as_deref().ok_or_else(|| {
                        Error::Failed(format!(
                            "row {}: no reasoning trace for {TRACE} in distill.told (data.reasoning_trace names its column)",
                            row.row
                        ))
                    })?;
                    user.push_str(&chat.row_text(trace));
                }
            }
        }
        Ok(chat.encode(&style.student_text(chat, row, &user)?)?.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_cut_at_the_names_of_parts() {
        let of = |told: &str| Told::of(&DistillConfig { told: told.into(), ..DistillConfig::default() }).0;
        let text = |text: &str| Piece::Text(text.into());
        assert_eq!(
            of("Q {question}: {solution}{trace} {other}"),
            [
                text("Q "),
                Piece::Question,
                text(": "),
                Piece::Solution,
                text(""),
                Piece::Trace,
                text(" {other}")
            ]
        );
        assert_eq!(of("none"), [text("none")]);
    }
}
