//! Text to token ids and back, with the `tokenizers` library that Hugging Face models are made for.
//!
//! Ids are those of `transformers` with `add_special_tokens=False`: added tokens in the text are
//! recognised, nothing is put before or after. On top of that this module knows the exact bytes
//! of every token, which decoding to text cannot give: a token may hold part of a character.

mod folder;
mod growth;
mod pieces;
mod special;

use std::path::Path;

use crate::files::replace_text;
use crate::guarded::guarded;
use crate::{Error, Result};
use folder::{Files, parse};
use growth::Growth;
use pieces::TokenText;
pub(crate) use special::SpecialTokens;

/// A tokenizer and the files it came from.
#[derive(Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// Bytes of each token by id; `None` where an id is unused.
    bytes: Vec<Option<Box<[u8]>>>,
    /// `tokenizer.json`, as it was read or put together.
    json: String,
    /// Other files of the folder that belong to the tokenizer: name and content.
    companions: Vec<(&'static str, String)>,
    /// What its rules may make of a text's length.
    growth: Growth,
    /// Whether it puts a space before a text, as SentencePiece does.
    leads_with_space: bool,
}

/// Characters that merge with nothing in the usual SentencePiece vocabularies: what [`Tokenizer::encode_inside`]
/// puts before a text, one after the other until one of them is a token of its own.
const ANCHORS: [&str; 4] = ["\n", "\u{1}", "\u{fffc}", "\u{e000}"];

/// Token ids of a text and where each token lies in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoding {
    /// Token ids.
    pub ids: Vec<u32>,
    /// Start and end of each token, BYTES into the text that was encoded (before any
    /// normalisation), always between characters: tokens that share a character all cover the
    /// whole of it. Leading spaces of a token belong to it, and so do the accents that
    /// normalisation merged into its last character (transformers leaves those to no token).
    pub offsets: Vec<(usize, usize)>,
}

impl Tokenizer {
    /// Reads `tokenizer.json`, or `vocab.json` + `merges.txt` where it is missing (Qwen2 and GPT-2
    /// tokenizers), and the added tokens of `tokenizer_config.json`, as transformers does.
    ///
    /// # Errors
    /// Files are missing or damaged, or the tokenizer is of a kind whose tokens have no bytes of
    /// their own (WordPiece).
    pub fn from_dir(dir: &Path) -> Result<Self> {
        let Files { inner, json, companions } = folder::read(dir)?;
        Self::new(inner, json, companions)
            .map_err(|what| Error::ModelFile { path: dir.join("tokenizer.json"), what })
    }

    /// Reads the text of a `tokenizer.json`.
    ///
    /// # Errors
    /// As [`Tokenizer::from_dir`].
    pub fn from_json(json: &str) -> Result<Self> {
        Self::new(parse(json).map_err(Error::Tokenizer)?, json.to_owned(), Vec::new())
            .map_err(Error::Tokenizer)
    }

    fn new(
        mut inner: tokenizers::Tokenizer,
        json: String,
        companions: Vec<(&'static str, String)>,
    ) -> std::result::Result<Self, String> {
        // Whole texts are encoded, and offsets are wanted as they are: without special tokens a
        // post-processor can only trim spaces off the offsets.
        inner.with_truncation(None).map_err(|e| e.to_string())?;
        inner.with_padding(None);
        inner.with_post_processor(None::<tokenizers::PostProcessorWrapper>);
        refuse_dropout(&inner)?;
        let growth = Growth::of(&inner)?;
        let bytes = TokenText::of(&inner)?.table(&inner)?;
        let mut tokenizer = Self { inner, bytes, json, companions, growth, leads_with_space: false };
        let a = tokenizer.encode("a").map_err(|e| e.to_string())?;
        tokenizer.leads_with_space = tokenizer.decode(&a).starts_with(' ');
        Ok(tokenizer)
    }

    /// The ids of `text`. Added tokens in it are recognised; nothing is added. What the vocabulary
    /// cannot spell is left out, as in transformers, where there is no unknown token; byte-level
    /// vocabularies with all 256 bytes spell everything.
    ///
    /// # Errors
    /// The tokenizer's model cannot encode the text, or its rules might make it too long.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.growth.check(text).map_err(Error::Tokenizer)?;
        let encoding = guarded(|| self.inner.encode_fast(text, false)).map_err(Error::Tokenizer)?;
        let encoding = encoding.map_err(|e| Error::Tokenizer(e.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// As [`Tokenizer::encode`], with the place of each token in `text`.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_with_offsets(&self, text: &str) -> Result<Encoding> {
        self.growth.check(text).map_err(Error::Tokenizer)?;
        let encoding = guarded(|| self.inner.encode(text, false)).map_err(Error::Tokenizer)?;
        let encoding = encoding.map_err(|e| Error::Tokenizer(e.to_string()))?;
        let mut offsets = encoding.get_offsets().to_vec();
        if self.inner.get_normalizer().is_some() {
            close_gaps(&mut offsets, text.len());
        }
        Ok(Encoding { ids: encoding.get_ids().to_vec(), offsets })
    }

    /// As [`Tokenizer::encode_with_offsets`], for a text that stands inside a longer one and after tokens of its own:
    /// without the space that SentencePiece tokenizers put before a text.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`], and for a SentencePiece tokenizer that merges whatever is put before the text with it.
    pub fn encode_inside(&self, text: &str) -> Result<Encoding> {
        if !self.leads_with_space {
            return self.encode_with_offsets(text);
        }
        for anchor in ANCHORS {
            let Encoding { ids, mut offsets } = self.encode_with_offsets(&format!("{anchor}{text}"))?;
            let first = offsets.partition_point(|&(start, _)| start < anchor.len());
            if offsets[..first].iter().all(|&(_, end)| end <= anchor.len()) {
                offsets.drain(..first);
                for (start, end) in &mut offsets {
                    *start -= anchor.len();
                    *end -= anchor.len();
                }
                return Ok(Encoding { ids: ids[first..].to_vec(), offsets });
            }
        }
        let start: String = text.chars().take(20).collect();
        Err(Error::Tokenizer(format!("cannot encode {start:?} without a space before it")))
    }

    /// The text of `ids`, special tokens included: their bytes joined, then decoded as UTF-8 with
    /// U+FFFD for what is not. Ids that the tokenizer does not use (a model may have more rows)
    /// stand for nothing, as in transformers.
    ///
    /// SentencePiece tokenizers put a space before a text; it is kept here.
    pub fn decode(&self, ids: &[u32]) -> String {
        let bytes: Vec<u8> = ids.iter().filter_map(|&id| self.bytes_of(id)).flatten().copied().collect();
        match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(e) => String::from_utf8_lossy(e.as_bytes()).into_owned(),
        }
    }

    /// The exact bytes of one token. Joined over the ids of a text they are the (normalised)
    /// text's bytes.
    ///
    /// # Errors
    /// The tokenizer does not use `id`.
    pub fn token_bytes(&self, id: u32) -> Result<Vec<u8>> {
        self.bytes_of(id).map(<[u8]>::to_vec).ok_or_else(|| {
            Error::Tokenizer(format!("id {id} is not in the vocabulary (size {})", self.vocab_size()))
        })
    }

    fn bytes_of(&self, id: u32) -> Option<&[u8]> {
        self.bytes.get(id as usize)?.as_deref()
    }

    /// One above the largest id, added tokens included: the embedding rows a model needs.
    pub fn vocab_size(&self) -> usize {
        self.bytes.len()
    }

    /// The id of a token as the vocabulary spells it (added tokens: their text).
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Whether `id` is an added token: recognised as a whole, wherever its text stands.
    pub fn is_added_token(&self, id: u32) -> bool {
        self.inner.get_added_tokens_decoder().contains_key(&id)
    }

    /// The texts of special tokens, and of added tokens that `also` says count as such.
    pub fn special_texts(&self, also: impl Fn(&str) -> bool) -> Vec<String> {
        let added = self.inner.get_added_tokens_decoder();
        let special = added.into_values().filter(|token| token.special || also(&token.content));
        let mut texts: Vec<String> =
            special.map(|token| token.content).filter(|text| !text.trim().is_empty()).collect();
        texts.sort_unstable();
        texts
    }

    /// Equal for tokenizers with the same tokens under the same ids, added tokens included,
    /// whatever files they came from: 128-bit FNV-1a over (id, token), as 32 hexadecimal digits.
    pub fn vocabulary_hash(&self) -> String {
        let mut entries: Vec<(u32, String)> =
            self.inner.get_vocab(true).into_iter().map(|(token, id)| (id, token)).collect();
        entries.sort_unstable();
        let mut hash: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
        for (id, token) in &entries {
            // 0xFF never occurs in UTF-8, so entries cannot run into each other.
            for byte in id.to_le_bytes().into_iter().chain(token.bytes()).chain([0xFF]) {
                hash = (hash ^ u128::from(byte)).wrapping_mul(0x0100_0000_0000_0000_0000_013b);
            }
        }
        format!("{hash:032x}")
    }

    /// Writes `tokenizer.json` and the files that came with it (configuration, chat template),
    /// unchanged, into the folder `dir`.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn save(&self, dir: &Path) -> Result<()> {
        replace_text(&dir.join("tokenizer.json"), &self.json)?;
        self.companions.iter().try_for_each(|(name, content)| replace_text(&dir.join(name), content))
    }
}

/// Gives text that lies between two tokens to the tokens that end where it begins.
fn close_gaps(offsets: &mut [(usize, usize)], text_len: usize) {
    let mut covered = 0;
    for i in 0..=offsets.len() {
        let (start, end) = offsets.get(i).copied().unwrap_or((text_len, text_len));
        if start > covered {
            offsets[..i].iter_mut().rev().take_while(|o| o.1 == covered).for_each(|o| o.1 = start);
        }
        covered = covered.max(end);
    }
}

/// Refuses BPE dropout, which leaves merges out at random (arXiv 1910.13267): a text would have other ids each time.
fn refuse_dropout(tokenizer: &tokenizers::Tokenizer) -> std::result::Result<(), String> {
    match tokenizer.get_model() {
        tokenizers::ModelWrapper::BPE(bpe) => match bpe.dropout.filter(|&share| share != 0.0) {
            Some(share) => Err(format!(
                "has model.dropout = {share}, which makes ids random; set it to null there (it is for training \
                 translation models)"
            )),
            None => Ok(()),
        },
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
