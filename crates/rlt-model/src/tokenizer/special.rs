//! The special tokens that the files of a model folder name, gathered as transformers gathers them.

use std::path::Path;

use serde_json::{Map, Value};
use tokenizers::AddedToken;

use crate::files::{parse_json, read_text_if_present};
use crate::{Error, Result};

pub(super) const CONFIG: &str = "tokenizer_config.json";
pub(super) const MAP: &str = "special_tokens_map.json";
pub(super) const ADDED: &str = "added_tokens.json";

/// The names that every tokenizer of transformers knows.
const STANDARD: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// What `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json` say. The latter two are of
/// older versions of transformers and count only where the first has no `added_tokens_decoder`.
#[derive(Debug, Default)]
pub(crate) struct SpecialTokens {
    /// `bos_token`, .. and a model's own (`image_token`, ..): what templates may name.
    named: Vec<(String, Value)>,
    /// Special tokens without a name.
    extra: Vec<Value>,
    /// The added tokens of `added_tokens_decoder`, by id.
    pub(super) listed: Vec<(u32, AddedToken)>,
    /// Those of `added_tokens.json`, which tells no more than id and text: what `tokenizer.json` says of such an id
    /// counts before it.
    pub(super) assumed: Vec<(u32, AddedToken)>,
}

impl SpecialTokens {
    /// Reads the three files, each of which may be absent.
    ///
    /// # Errors
    /// A file cannot be read or is not what it should be.
    pub(crate) fn from_dir(dir: &Path) -> Result<Self> {
        let config = object(dir, CONFIG)?;
        let mut tokens = Self::default();
        tokens.take(&config);
        if let Some(listed) = config.get("added_tokens_decoder") {
            tokens.listed =
                listed_tokens(listed).map_err(|what| Error::ModelFile { path: dir.join(CONFIG), what })?;
            return Ok(tokens);
        }
        tokens.take(&object(dir, MAP)?);
        let added = object(dir, ADDED)?;
        for (text, id) in &added {
            let id = id.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(|| {
                let what = format!("the token {text:?} has the id {id}, which is not one");
                Error::ModelFile { path: dir.join(ADDED), what }
            })?;
            let special = tokens.texts().any(|known| known == text);
            tokens.assumed.push((id, AddedToken::from(text.as_str(), special).normalized(!special)));
        }
        tokens.assumed.sort_by_key(|&(id, _)| id);
        Ok(tokens)
    }

    /// Takes in what one file says: a name that is given again has its later token.
    fn take(&mut self, file: &Map<String, Value>) {
        let mut name = |name: &str, token: &Value| {
            self.named.retain(|(known, _)| known != name);
            if token_text(token).is_some() {
                self.named.push((name.to_owned(), token.clone()));
            }
        };
        for standard in STANDARD {
            if let Some(token) = file.get(standard) {
                name(standard, token);
            }
        }
        for (key, token) in file {
            if key.ends_with("_token") && !STANDARD.contains(&key.as_str()) && token_text(token).is_some() {
                name(key, token);
            }
        }
        for key in ["additional_special_tokens", "extra_special_tokens"] {
            match file.get(key) {
                Some(Value::Object(named)) => named.iter().for_each(|(key, token)| name(key, token)),
                Some(Value::Array(tokens)) => self.extra.extend(tokens.iter().cloned()),
                _ => {}
            }
        }
    }

    /// All of them: named ones first.
    pub(super) fn all(&self) -> impl Iterator<Item = &Value> {
        self.named.iter().map(|(_, token)| token).chain(&self.extra)
    }

    fn texts(&self) -> impl Iterator<Item = &str> {
        self.all().filter_map(token_text)
    }

    /// The named ones as a template sees them: their texts.
    pub(crate) fn variables(&self) -> Map<String, Value> {
        self.named
            .iter()
            .filter_map(|(name, token)| Some((name.clone(), token_text(token)?.into())))
            .collect()
    }
}

/// The text of a token that is given as a string or as an object with `content`.
fn token_text(token: &Value) -> Option<&str> {
    token.as_str().or_else(|| token["content"].as_str())
}

/// A special token as the tokenizer takes it.
pub(super) fn special(token: &Value) -> Option<AddedToken> {
    let text = token_text(token)?;
    Some(match token {
        Value::String(_) => AddedToken::from(text, true),
        object => serde_json::from_value::<AddedToken>(object.clone())
            .unwrap_or_else(|_| AddedToken::from(text, true))
            .special(true),
    })
}

fn object(dir: &Path, name: &str) -> Result<Map<String, Value>> {
    let path = dir.join(name);
    match read_text_if_present(&path)? {
        None => Ok(Map::new()),
        Some(text) => match parse_json(&text, &path)? {
            Value::Object(object) => Ok(object),
            _ => Err(Error::ModelFile { path, what: "is not a JSON object".into() }),
        },
    }
}

fn listed_tokens(decoder: &Value) -> std::result::Result<Vec<(u32, AddedToken)>, String> {
    let mut listed: Vec<(u32, AddedToken)> = Vec::new();
    for (id, token) in decoder.as_object().into_iter().flatten() {
        let id = id.parse().map_err(|_| format!("added_tokens_decoder: {id:?} is not a token id"))?;
        let token: AddedToken = serde_json::from_value(token.clone())
            .map_err(|e| format!("added_tokens_decoder: the token of id {id}: {e}"))?;
        listed.push((id, token));
    }
    listed.sort_by_key(|&(id, _)| id);
    Ok(listed)
}
