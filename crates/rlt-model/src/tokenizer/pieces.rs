//! The exact bytes that a token of the vocabulary stands for.

use serde_json::Value;

use crate::sizes::MAX_VOCABULARY;

/// How the vocabulary spells text, as told by the tokenizer's decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TokenText {
    /// One glyph of GPT-2's alphabet a byte.
    byte_level: bool,
    /// `▁` is a space (SentencePiece).
    metaspace: bool,
    /// `<0x0A>` is a byte (SentencePiece).
    byte_fallback: bool,
}

impl TokenText {
    /// Reads it off the decoder.
    pub(super) fn of(tokenizer: &tokenizers::Tokenizer) -> Result<Self, String> {
        let Some(decoder) = tokenizer.get_decoder() else {
            return Err("has no decoder, so how its tokens join into text is not known \
                        (tokens that are plain text need \"decoder\": {\"type\": \"Fuse\"})"
                .into());
        };
        let decoder = serde_json::to_value(decoder).map_err(|e| e.to_string())?;
        let steps = match &decoder["decoders"] {
            Value::Array(steps) => steps.as_slice(),
            _ => std::slice::from_ref(&decoder),
        };
        let mut text = Self { byte_level: false, metaspace: false, byte_fallback: false };
        for step in steps {
            match step["type"].as_str().unwrap_or_default() {
                "ByteLevel" => text.byte_level = true,
                "ByteFallback" => text.byte_fallback = true,
                "Metaspace" if step["replacement"] == "▁" => text.metaspace = true,
                "Replace" if step["pattern"]["String"] == "▁" && step["content"] == " " => {
                    text.metaspace = true;
                }
                // Joining, and trimming the ends of a whole text, change no token.
                "Fuse" | "Strip" => {}
                _ => {
                    return Err(format!(
                        "the decoder step {step} is not supported (byte-level BPE and SentencePiece-BPE are)"
                    ));
                }
            }
        }
        Ok(text)
    }

    /// Bytes by id, `None` for unused ids.
    ///
    /// # Errors
    /// An id is beyond all vocabularies: the table would have a place for every id below it.
    pub(super) fn table(self, tokenizer: &tokenizers::Tokenizer) -> Result<Vec<Option<Box<[u8]>>>, String> {
        let added = tokenizer.get_added_tokens_decoder();
        let vocabulary = tokenizer.get_vocab(true);
        let size = vocabulary.values().max().map_or(0, |&id| id as usize + 1);
        if size > MAX_VOCABULARY {
            let id = size - 1;
            return Err(format!("has a token of id {id}; ids below {MAX_VOCABULARY} are supported"));
        }
        let mut table = vec![None; size];
        for (token, id) in vocabulary {
            // An added token is found in the text by its content, so it stands for just that.
            let bytes = match added.get(&id) {
                Some(added) => added.content.clone().into_bytes(),
                None => self.bytes(&token),
            };
            table[id as usize] = Some(bytes.into_boxed_slice());
        }
        Ok(table)
    }

    fn bytes(self, token: &str) -> Vec<u8> {
        if self.byte_level {
            // A token with a glyph outside the alphabet is plain text, as in the library.
            return token.chars().map(byte_of_glyph).collect::<Option<_>>().unwrap_or_else(|| token.into());
        }
        if self.byte_fallback
            && let Some(byte) = fallback_byte(token)
        {
            return vec![byte];
        }
        if self.metaspace { token.replace('▁', " ").into() } else { token.into() }
    }
}

/// GPT-2's alphabet: printable Latin-1 stands for itself, the other 68 bytes in order for U+0100
/// and what follows.
fn byte_of_glyph(glyph: char) -> Option<u8> {
    let code = u32::from(glyph);
    let byte = match code {
        0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF => code,
        0x100..=0x120 => code - 0x100,
        0x121..=0x142 => code - 0x121 + 0x7F,
        0x143 => 0xAD,
        _ => return None,
    };
    u8::try_from(byte).ok()
}

/// The byte of a token `<0x0A>`.
fn fallback_byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() == 2 { u8::from_str_radix(digits, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_byte_alphabet_is_the_library_s() {
        let mut bytes: Vec<u8> = tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet()
            .into_iter()
            .map(|glyph| byte_of_glyph(glyph).expect("a glyph of the alphabet"))
            .collect();
        bytes.sort_unstable();
        assert_eq!(bytes, (0..=255).collect::<Vec<u8>>());
        // Ends of every range, from OpenAI's encoder.py.
        for (glyph, byte) in [
            ('!', b'!'),
            ('~', b'~'),
            ('¡', 0xA1),
            ('¬', 0xAC),
            ('®', 0xAE),
            ('ÿ', 0xFF),
            ('Ā', 0),
            ('Ċ', b'\n'),
            ('Ġ', b' '),
            ('ġ', 0x7F),
            ('Ģ', 0x80),
            ('ł', 0xA0),
            ('Ń', 0xAD),
        ] {
            assert_eq!(byte_of_glyph(glyph), Some(byte), "{glyph}");
        }
        assert_eq!(byte_of_glyph('ń'), None);
        assert_eq!(byte_of_glyph(' '), None);
    }

    #[test]
    fn only_two_digits_make_a_fallback_byte() {
        assert_eq!(fallback_byte("<0x0A>"), Some(10));
        assert_eq!(fallback_byte("<0x0>"), None);
        assert_eq!(fallback_byte("<0xé>"), None);
        assert_eq!(fallback_byte("0x0A"), None);
    }
}
