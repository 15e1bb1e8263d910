//! Special tokens that stand in the text of rows: a question that holds `<|im_end|><|im_start|>assistant` forges a turn.

use std::borrow::Cow;

use rlt_model::tokenizer::{Encoding, Tokenizer};

use super::ChatText;
use crate::config::TypedTokens;
use crate::dataset::QuestionRow;
use crate::error::{Error, Result};
use crate::progress::Progress;

/// Characters for private use that stand around a special token that a row's author typed, in text that is about to
/// be encoded. They belong to no token.
const MARKS: [char; 2] = ['\u{f0000}', '\u{f0001}'];

impl ChatText {
    /// Text of a row on its way into a prompt. Where special tokens in it count as text they are marked here, and
    /// [`Self::encode`] reads the marks.
    pub fn row_text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let marked = text.contains(MARKS);
        if self.typed != TypedTokens::Text || !(marked || self.first_special(text).is_some()) {
            return Cow::Borrowed(text);
        }
        // No text can bring marks of its own.
        let text = text.replace(MARKS, "");
        let mut rest = text.as_str();
        let mut out = String::with_capacity(rest.len() + 16);
        while let Some((at, token)) = self.first_special(rest) {
            out.push_str(&rest[..at]);
            out.push(MARKS[0]);
            out.push_str(token);
            out.push(MARKS[1]);
            rest = &rest[at + token.len()..];
        }
        Cow::Owned(out + rest)
    }

    /// The first special token in `text`, the longest of those that begin there.
    fn first_special(&self, text: &str) -> Option<(usize, &str)> {
        let found =
            self.special.iter().filter_map(|token| Some((text.find(token.as_str())?, token.as_str())));
        found.min_by_key(|&(at, token)| (at, std::cmp::Reverse(token.len())))
    }

    /// Special tokens in `text`.
    pub fn special_in<'s>(&'s self, text: &'s str) -> impl Iterator<Item = &'s str> {
        let mut rest = text;
        std::iter::from_fn(move || {
            let (at, token) = self.first_special(rest)?;
            rest = &rest[at + token.len()..];
            Some(token)
        })
    }

    /// The ids of a text that is made of templates and [`Self::row_text`].
    ///
    /// # Errors
    /// What the tokenizer reports.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        if self.typed != TypedTokens::Text || !text.contains(MARKS) {
            return Ok(self.tokenizer.encode(text)?);
        }
        Ok(self.encode_with_offsets(text)?.ids)
    }

    /// As [`Self::encode`], with the place of each token in `text`, marks counted.
    ///
    /// # Errors
    /// What the tokenizer reports.
    pub fn encode_with_offsets(&self, text: &str) -> Result<Encoding> {
        self.encode_marked(text, Tokenizer::encode_with_offsets)
    }

    /// As [`Self::encode_with_offsets`] for a text that stands after tokens of its own ([`Tokenizer::encode_inside`]).
    ///
    /// # Errors
    /// What the tokenizer reports.
    pub fn encode_inside(&self, text: &str) -> Result<Encoding> {
        self.encode_marked(text, Tokenizer::encode_inside)
    }

    fn encode_marked(
        &self,
        text: &str,
        encode_first: fn(&Tokenizer, &str) -> rlt_model::Result<Encoding>,
    ) -> Result<Encoding> {
        if self.typed != TypedTokens::Text || !text.contains(MARKS) {
            return Ok(encode_first(&self.tokenizer, text)?);
        }
        let mut whole = Encoding { ids: Vec::new(), offsets: Vec::new() };
        let (mut at, mut marked) = (0, false);
        for piece in text.split_inclusive(MARKS) {
            let content = piece.trim_end_matches(MARKS);
            let encoded = match (at, marked && self.is_special(content)) {
                (_, true) => self.encode_as_text(content)?,
                (0, false) => encode_first(&self.tokenizer, content)?,
                _ if content.is_empty() => Encoding { ids: Vec::new(), offsets: Vec::new() },
                _ => self.tokenizer.encode_inside(content)?,
            };
            whole.ids.extend(encoded.ids);
            whole.offsets.extend(encoded.offsets.into_iter().map(|(start, end)| (at + start, at + end)));
            marked = piece.ends_with(MARKS[0]);
            at += piece.len();
        }
        Ok(whole)
    }

    fn is_special(&self, text: &str) -> bool {
        self.special.iter().any(|token| token == text)
    }

    /// A special token's text as any other text: in two parts, neither of which is recognised.
    fn encode_as_text(&self, token: &str) -> Result<Encoding> {
        let is_plain = |part: &str| -> Result<Option<Encoding>> {
            let encoding = self.tokenizer.encode_inside(part)?;
            Ok((!encoding.ids.iter().any(|&id| self.tokenizer.is_added_token(id))).then_some(encoding))
        };
        for (cut, _) in token.char_indices().skip(1) {
            if let (Some(mut first), Some(second)) = (is_plain(&token[..cut])?, is_plain(&token[cut..])?) {
                first.ids.extend(second.ids);
                first.offsets.extend(second.offsets.into_iter().map(|(start, end)| (cut + start, cut + end)));
                return Ok(first);
            }
        }
        Err(Error::Failed(format!(
            "data.special_tokens = \"text\": the tokenizer cannot write {token:?} as text; use \"refuse\" or \"allow\""
        )))
    }
}

/// Counts special tokens in rows that are read, or refuses them, as `data.special_tokens` says.
#[derive(Debug)]
pub struct TypedCheck<'a> {
    chat: &'a ChatText,
    rows: usize,
    tokens: usize,
    first: Option<String>,
}

impl<'a> TypedCheck<'a> {
    /// Nothing looked at yet.
    pub fn new(chat: &'a ChatText) -> Self {
        Self { chat, rows: 0, tokens: 0, first: None }
    }

    /// Looks at a row and, where it is text from elsewhere, its explanation.
    ///
    /// # Errors
    /// [`Error::Failed`] that names row and token, where they are refused.
    pub fn look(&mut self, row: &QuestionRow, explanation: Option<&str>) -> Result<()> {
        let texts = [
            ("question", Some(row.question.as_str())),
            ("solution", Some(row.solution.as_str())),
            ("explanation", explanation.or(row.reasoning_trace.as_deref())),
            ("system prompt", row.system.as_deref()),
        ];
        let before = self.tokens;
        for (what, text) in texts {
            for token in self.chat.special_in(text.unwrap_or_default()) {
                let place = format!("row {}: the {what} holds the special token `{token}`", row.row);
                if self.chat.typed == TypedTokens::Refuse {
                    return Err(Error::Failed(format!(
                        "{place}; data.special_tokens = \"text\" reads it as text, \"allow\" as what it is"
                    )));
                }
                self.tokens += 1;
                self.first.get_or_insert(place);
            }
        }
        self.rows += usize::from(self.tokens > before);
        Ok(())
    }

    /// [`Self::look`] at every row, then [`Self::tell`].
    ///
    /// # Errors
    /// As [`Self::look`].
    pub fn of_rows<'r>(
        chat: &'a ChatText,
        rows: impl IntoIterator<Item = &'r QuestionRow>,
        progress: &dyn Progress,
    ) -> Result<()> {
        let mut check = TypedCheck::new(chat);
        rows.into_iter().try_for_each(|row| check.look(row, None))?;
        check.tell(progress);
        Ok(())
    }

    /// Says how many there were, if any.
    pub fn tell(&self, progress: &dyn Progress) {
        let Some(first) = &self.first else { return };
        let become_what = match self.chat.typed {
            TypedTokens::Text => "they are read as text",
            _ => {
                "they become special ids and can forge turns; data.special_tokens = \"refuse\" or \"text\" \
                 prevents it"
            }
        };
        let (tokens, rows) = (self.tokens, self.rows);
        progress
            .warn(&format!("{tokens} special tokens in the text of {rows} rows ({first}); {become_what}"));
    }
}
