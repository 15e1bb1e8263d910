//! The think tokens of a completion.

use std::ops::Range;

use rlt_model::ids::TokenIds;
use rlt_model::tokenizer::Tokenizer;

use super::ChatText;
use crate::error::Result;

/// The think text of one completion, as tokens.
///
/// The think text ends where the explanation end tag begins. Its tokens are those that lie wholly inside
/// it. A token that straddles its end is not one of them: the part of its text before the tag
/// ([`Self::tail`]) opens what follows the thought in the student's sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Think {
    /// Think text that the tokenizer merged with the end of the prompt (for example a newline after the
    /// padding). Empty for sampled completions, whose first token never reaches back.
    pub lead: String,
    /// The think tokens.
    pub ids: TokenIds,
    /// Think text after the last think token.
    pub tail: String,
    /// Tokens that straddle the think text's borders.
    pub n_boundary: usize,
    /// Whether the end tag was written.
    pub closed: bool,
}

impl Think {
    /// No thought at all, closed at once.
    pub fn empty() -> Self {
        Self {
            lead: String::new(),
            ids: TokenIds::default(),
            tail: String::new(),
            n_boundary: 0,
            closed: true,
        }
    }

    /// Splits a sampled completion. `ids` are the completion's tokens without its stop token; they stay
    /// as they were sampled, in the same memory, whatever the tokenizer would make of their text. Ids that the tokenizer does
    /// not use (a model may have more rows than that, and may draw them) are tokens without text.
    pub fn from_sampled(tokenizer: &Tokenizer, end_tag: &str, ids: impl Into<TokenIds>) -> Self {
        let ids = ids.into();
        let mut text = Vec::new();
        let mut ends = Vec::with_capacity(ids.len());
        for &id in &ids {
            text.extend(tokenizer.token_bytes(id).unwrap_or_default());
            ends.push(text.len());
        }
        let tag = find(&text, end_tag.as_bytes());
        let think_end = tag.unwrap_or(text.len());
        let n_think = ends.partition_point(|&end| end <= think_end);
        let last = if n_think == 0 { 0 } else { ends[n_think - 1] };
        Self {
            lead: String::new(),
            ids: ids.part(0..n_think),
            tail: String::from_utf8_lossy(&text[last..think_end]).into_owned(),
            n_boundary: usize::from(last < think_end),
            closed: tag.is_some(),
        }
    }

    /// Splits a completion that is known as text only. `prompt` is the teacher's text before it; both are
    /// encoded as one text, closed with the end tag where the completion lacks it, so that teacher and
    /// student split the thought's last word alike; the thought as [`ChatText::row_text`] has it. Also returns the ids before the think tokens.
    ///
    /// # Errors
    /// What the tokenizer reports.
    pub fn from_text(
        chat: &ChatText,
        end_tag: &str,
        prompt: &str,
        completion: &str,
    ) -> Result<(Vec<u32>, Self)> {
        // The end tag is the format's own, whoever typed it.
        let (thought, rest) = completion.split_at(completion.find(end_tag).unwrap_or(completion.len()));
        let completion = format!("{}{rest}", chat.row_text(thought));
        let tag = completion.find(end_tag);
        let text = format!("{prompt}{completion}{}", if tag.is_some() { "" } else { end_tag });
        let span = prompt.len()..prompt.len() + tag.unwrap_or(completion.len());
        let encoding = chat.encode_with_offsets(&text)?;
        let tokens = tokens_inside(&encoding.offsets, &span);
        let n_boundary = encoding.offsets.iter().filter(|&&(start, end)| {
            let (overlaps, inside) =
                (start < span.end && end > span.start, start >= span.start && end <= span.end);
            overlaps && !inside
        });
        let lead_end = encoding.offsets.get(tokens.start).map_or(span.end, |&(start, _)| start.min(span.end));
        let tail_start = if tokens.is_empty() { lead_end } else { encoding.offsets[tokens.end - 1].1 };
        let think = Self {
            lead: text[span.start..lead_end].to_owned(),
            ids: encoding.ids[tokens.clone()].into(),
            tail: text[tail_start..span.end].to_owned(),
            n_boundary: n_boundary.count(),
            closed: tag.is_some(),
        };
        Ok((encoding.ids[..tokens.start].to_vec(), think))
    }
}

/// The tokens that lie wholly inside `span` (bytes of the text); empty at the first token that reaches
/// past its start when there is none.
pub(super) fn tokens_inside(offsets: &[(usize, usize)], span: &Range<usize>) -> Range<usize> {
    let first = offsets.partition_point(|&(start, _)| start < span.start);
    let past = offsets.partition_point(|&(_, end)| end <= span.end);
    first..past.max(first)
}

fn find(text: &[u8], tag: &[u8]) -> Option<usize> {
    text.windows(tag.len()).position(|window| window == tag)
}
