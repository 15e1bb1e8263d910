//! A tokenizer from the files of a model folder, put together as transformers does.

use std::path::Path;

use serde_json::{Value, json};
use tokenizers::AddedToken;

use super::special::{ADDED, CONFIG, MAP, SpecialTokens, special};
use crate::files::{parse_json, read_text, read_text_if_present};
use crate::guarded::guarded;
use crate::{Error, Result};

/// What belongs to a tokenizer besides its own file.
const COMPANIONS: [&str; 4] = [CONFIG, MAP, ADDED, "chat_template.jinja"];

/// What the files of a folder come to.
pub(super) struct Files {
    /// As the library reads it, with the configured tokens.
    pub inner: tokenizers::Tokenizer,
    /// `tokenizer.json`, as it was read or put together.
    pub json: String,
    /// Other files that belong to the tokenizer: name and content.
    pub companions: Vec<(&'static str, String)>,
}

pub(super) fn read(dir: &Path) -> Result<Files> {
    let config_path = dir.join(CONFIG);
    let config = match read_text_if_present(&config_path)? {
        Some(text) => parse_json(&text, &config_path)?,
        None => Value::Null,
    };
    let path = dir.join("tokenizer.json");
    let file = read_text_if_present(&path)?;
    let mut companions = Vec::new();
    for name in COMPANIONS {
        if let Some(content) = read_text_if_present(&dir.join(name))? {
            companions.push((name, content));
        }
    }
    let damaged = |what| Error::ModelFile { path: path.clone(), what };
    let mut inner = match &file {
        Some(json) => parse(json),
        None => parse(&from_vocabulary_and_merges(dir, &config)?),
    }
    .map_err(damaged)?;
    add_configured_tokens(&mut inner, &SpecialTokens::from_dir(dir)?)
        .map_err(|what| Error::ModelFile { path: config_path, what })?;
    let json = match file {
        Some(json) => json,
        None => inner.to_string(false).map_err(|e| damaged(e.to_string()))?,
    };
    Ok(Files { inner, json, companions })
}

/// Adds the tokens of the configuration that `tokenizer.json` does not list as added tokens in the same
/// way: listed ones by id, then named and additional ones.
fn add_configured_tokens(
    tokenizer: &mut tokenizers::Tokenizer,
    configured: &SpecialTokens,
) -> std::result::Result<(), String> {
    let known = tokenizer.get_added_tokens_decoder();
    let mut missing = Vec::new();
    let mut texts: Vec<String> = known.values().map(|token| token.content.clone()).collect();
    let assumed = configured.assumed.iter().filter(|(id, _)| !known.contains_key(id));
    for (_, token) in configured.listed.iter().chain(assumed) {
        texts.push(token.content.clone());
        if !known.values().any(|k| same_token(k, token)) {
            missing.push(token.clone());
        }
    }
    for token in configured.all().filter_map(special) {
        if !texts.contains(&token.content) {
            texts.push(token.content.clone());
            missing.push(token);
        }
    }
    tokenizer.add_tokens(missing).map(|_| ()).map_err(|e| e.to_string())
}

/// Equality of `AddedToken` looks at the content only.
fn same_token(a: &AddedToken, b: &AddedToken) -> bool {
    (&a.content, a.single_word, a.lstrip, a.rstrip, a.normalized, a.special)
        == (&b.content, b.single_word, b.lstrip, b.rstrip, b.normalized, b.special)
}

/// Qwen2's split of a text before BPE: contractions, words, single digits, punctuation, spaces.
const QWEN2_SPLIT: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// A `tokenizer.json` from `vocab.json`, `merges.txt` and the class that the configuration names.
fn from_vocabulary_and_merges(dir: &Path, config: &Value) -> Result<String> {
    let wrong = |file: &str, what: String| Error::ModelFile { path: dir.join(file), what };
    let (vocabulary_path, merges_path) = (dir.join("vocab.json"), dir.join("merges.txt"));
    if !(vocabulary_path.exists() && merges_path.exists()) {
        return Err(wrong("", "holds neither tokenizer.json nor vocab.json and merges.txt".into()));
    }
    let class = config["tokenizer_class"].as_str().unwrap_or_default();
    let add_prefix_space = config["add_prefix_space"].as_bool().unwrap_or(false);
    let byte_level = |use_regex: bool| {
        json!({"type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": false,
               "use_regex": use_regex})
    };
    let (normalizer, pre_tokenizer) = match class.strip_suffix("Fast").unwrap_or(class) {
        "Qwen2Tokenizer" => {
            let split = json!({"type": "Split", "pattern": {"Regex": QWEN2_SPLIT}, "behavior": "Isolated",
                               "invert": false});
            (json!({"type": "NFC"}), json!({"type": "Sequence", "pretokenizers": [split, byte_level(false)]}))
        }
        "GPT2Tokenizer" => (Value::Null, byte_level(true)),
        _ => {
            return Err(wrong(
                CONFIG,
                format!(
                    "tokenizer_class {class:?} needs a tokenizer.json (without one, Qwen2Tokenizer and \
                     GPT2Tokenizer can be read)"
                ),
            ));
        }
    };
    let vocabulary = parse_json(&read_text(&vocabulary_path)?, &vocabulary_path)?;
    let merges = read_text(&merges_path)?;
    let merges: Vec<&str> =
        merges.lines().filter(|line| !line.starts_with("#version") && !line.is_empty()).collect();
    if let Some(line) = merges.iter().find(|line| line.split(' ').count() != 2) {
        return Err(wrong("merges.txt", format!("the line {line:?} is not two tokens with a space between")));
    }
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [],
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": null,
        "decoder": byte_level(true),
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
                  "vocab": vocabulary, "merges": merges},
    })
    .to_string())
}

/// `tokenizer.json` by the library, with its message where it cannot.
pub(super) fn parse(json: &str) -> std::result::Result<tokenizers::Tokenizer, String> {
    guarded(|| json.parse())?.map_err(|e| format!("is not a tokenizer.json that can be read: {e}"))
}
