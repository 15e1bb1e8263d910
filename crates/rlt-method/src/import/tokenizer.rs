//! A GGUF file's vocabulary as `tokenizer.json` and `tokenizer_config.json`, or another's checked against it.

use std::collections::HashMap;
use std::path::Path;

use rlt_files::{MOST_DESCRIPTION, write_atomic};
use rlt_gguf::Gguf;
use rlt_model::chat_template::ChatTemplate;
use rlt_model::config::ModelConfig;
use rlt_model::tokenizer::Tokenizer;
use serde_json::{Map, Value, json};

use super::metadata::named;
use crate::error::{Error, Result, io_error};

const TOKENS: &str = "tokenizer.ggml.tokens";
const CONFIG: &str = "tokenizer_config.json";

/// Kinds of token, as `tokenizer.ggml.token_type` numbers them.
mod kind {
    pub(super) const NORMAL: f64 = 1.0;
    pub(super) const CONTROL: f64 = 3.0;
    pub(super) const USER_DEFINED: f64 = 4.0;
    pub(super) const UNUSED: f64 = 5.0;
    pub(super) const BYTE: f64 = 6.0;
}

/// The tokens that a model folder names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamedIds {
    /// Begins a text.
    pub bos: Option<u32>,
    /// End a text or a turn.
    pub eos: Vec<u32>,
    /// Fills batches.
    pub pad: Option<u32>,
    /// Stands for what cannot be spelled.
    unk: Option<u32>,
}

/// What will be written.
#[derive(Debug)]
pub struct ImportedTokenizer {
    /// Tokens of `config.json` and `generation_config.json`.
    pub ids: NamedIds,
    /// Whether there is a chat template.
    pub has_template: bool,
    files: Files,
    /// `tokenizer_config.json` from the file's metadata.
    config: Value,
}

#[derive(Debug)]
enum Files {
    /// `tokenizer.json`, as text.
    Json(String),
    /// A tokenizer of another folder, with its companions; the flag says whether it has its own configuration.
    Folder(Box<Tokenizer>, bool),
}

impl ImportedTokenizer {
    /// Writes the tokenizer's files into `dir`.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn save(&self, dir: &Path) -> Result<()> {
        match &self.files {
            Files::Json(json) => write_atomic(&dir.join("tokenizer.json"), json.as_bytes())?,
            Files::Folder(tokenizer, has_config) => {
                tokenizer.save(dir)?;
                if *has_config {
                    return Ok(());
                }
            }
        }
        super::folder::write_json(&dir.join(CONFIG), &self.config)
    }
}

/// The tokenizer of the model in `file`: its own, or the one at `given` (a `tokenizer.json` or a folder), which must
/// spell the same tokens.
///
/// # Errors
/// The file's vocabulary is of a kind that cannot be built, or contradicts itself; the given one is missing, damaged
/// or another model's.
pub fn read(file: &Gguf, config: &ModelConfig, given: Option<&Path>) -> Result<ImportedTokenizer> {
    let wrong = |what: String| Error::from(file.error(what));
    let tokens = file.texts(TOKENS)?.unwrap_or_default();
    if tokens.len() > config.vocab_size {
        let (n, rows) = (tokens.len(), config.vocab_size);
        return Err(wrong(format!("{TOKENS} has {n} tokens, the embedding {rows} rows")));
    }
    let kinds = token_kinds(file, tokens.len())?;
    let ids = named_ids(file, config)?;
    let metadata = tokenizer_config(file, config, &tokens, &ids)?;
    let mut has_template = metadata.get("chat_template").is_some();
    let files = match given {
        None => {
            let json = match file.text("tokenizer.ggml.model")? {
                Some("llama") => sentence_piece(file, &tokens, &kinds, &ids)?,
                _ => build(file, &tokens, &kinds, &ids)?,
            }
            .to_string();
            Tokenizer::from_json(&json)
                .map_err(|e| wrong(format!("its vocabulary makes no tokenizer ({e}); {GIVE_ONE}")))?;
            Files::Json(json)
        }
        Some(path) if path.is_dir() => {
            let tokenizer = Tokenizer::from_dir(path)?;
            check_same(&tokens, &kinds, &tokenizer, path, config)?;
            let has_config = path.join(CONFIG).exists();
            let own_template = ChatTemplate::from_dir(path).is_ok();
            has_template = own_template || (has_template && !has_config);
            Files::Folder(Box::new(tokenizer), has_config)
        }
        Some(path) => {
            let json = rlt_files::read_text(path, MOST_DESCRIPTION).map_err(io_error(path))?;
            let tokenizer = Tokenizer::from_json(&json)
                .map_err(|e| Error::File { path: path.to_owned(), what: e.to_string() })?;
            check_same(&tokens, &kinds, &tokenizer, path, config)?;
            Files::Json(json)
        }
    };
    Ok(ImportedTokenizer { ids, has_template, files, config: metadata })
}

/// The next step where the file's own vocabulary will not do.
const GIVE_ONE: &str = "give the model's own: --tokenizer PATH (its tokenizer.json, or a folder with it)";

/// Refuses a tokenizer that spells an id in another way than the file, or has more ids than the embedding has rows.
fn check_same(
    tokens: &[&str],
    kinds: &[f64],
    tokenizer: &Tokenizer,
    path: &Path,
    config: &ModelConfig,
) -> Result<()> {
    let wrong = |what: String| Err(Error::File { path: path.to_owned(), what });
    if tokenizer.vocab_size() > config.vocab_size {
        return wrong(format!(
            "has ids up to {}, the model's embedding {} rows: it is another model's tokenizer",
            tokenizer.vocab_size() - 1,
            config.vocab_size
        ));
    }
    // Bytes and user-defined tokens are spelled in two ways; these are not.
    let compared = |kind: f64| kind == kind::NORMAL || kind == kind::CONTROL;
    for (id, (token, _)) in tokens.iter().zip(kinds).enumerate().filter(|(_, (_, kind))| compared(**kind)) {
        let found = tokenizer.token_to_id(token);
        if found != Some(id as u32) {
            let found = found.map_or_else(|| "not there".to_owned(), |id| format!("id {id}"));
            return wrong(format!(
                "the model's token {token:?} (id {id}) is {found} here: it is another model's tokenizer"
            ));
        }
    }
    Ok(())
}

/// The kind of every token.
fn token_kinds(file: &Gguf, n: usize) -> Result<Vec<f64>> {
    let key = "tokenizer.ggml.token_type";
    let kinds = file.numbers(key)?.unwrap_or_else(|| vec![kind::NORMAL; n]);
    if kinds.len() != n {
        return Err(file.error(format!("{key} has {} entries for {n} tokens", kinds.len())).into());
    }
    Ok(kinds)
}

fn named_ids(file: &Gguf, config: &ModelConfig) -> Result<NamedIds> {
    let id = |name: &str| -> Result<Option<u32>> {
        let key = format!("tokenizer.ggml.{name}_token_id");
        match file.size(&key)? {
            // What old files have for none.
            Some(n) if n == u32::MAX as usize => Ok(None),
            Some(n) if n >= config.vocab_size => Err(file
                .error(format!("{key} = {n}, but the embedding has {} rows", config.vocab_size))
                .into()),
            n => Ok(n.map(|n| n as u32)),
        }
    };
    let mut eos = Vec::new();
    for name in ["eos", "eot", "eom"] {
        eos.extend(id(name)?.filter(|id| !eos.contains(id)));
    }
    Ok(NamedIds { bos: id("bos")?, eos, pad: id("padding")?, unk: id("unknown")? })
}

/// `tokenizer_config.json`: the named tokens and the chat template.
fn tokenizer_config(file: &Gguf, config: &ModelConfig, tokens: &[&str], ids: &NamedIds) -> Result<Value> {
    let mut json = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": config.max_position_embeddings,
        "clean_up_tokenization_spaces": false,
    });
    let named = [
        ("bos_token", ids.bos),
        ("eos_token", ids.eos.first().copied()),
        ("pad_token", ids.pad),
        ("unk_token", ids.unk),
    ];
    for (name, id) in named {
        if let Some(token) = id.and_then(|id| tokens.get(id as usize)) {
            json[name] = (*token).into();
        }
    }
    if let Some(template) = file.text("tokenizer.chat_template")? {
        json["chat_template"] = template.into();
    }
    Ok(json)
}

/// GPT-2's split of a text before BPE.
const GPT2_SPLIT: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// Qwen2's: single digits.
const QWEN2_SPLIT: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Llama 3's: digits by threes.
const LLAMA3_SPLIT: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// What llama.cpp does where the kind is `default`: one split after the other, each within the pieces of the last.
const DEFAULT_SPLITS: [&str; 4] =
    [r"[\p{P}\$\+<=>\^~\|]+", GPT2_SPLIT_OF_DEFAULT, r"\p{N}+", "[0-9][0-9][0-9]"];
/// GPT-2's without its last alternative, as it stands there.
const GPT2_SPLIT_OF_DEFAULT: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)";

/// How texts are cut before the merges of BPE.
struct PreTokenizer {
    normalizer: Value,
    steps: Vec<Value>,
    /// Whether a piece that is a token is taken as it is.
    ignore_merges: bool,
    /// Whether the family puts its first token before a text unless the file says otherwise.
    adds_bos: bool,
}

fn pre_tokenizer(file: &Gguf) -> Result<PreTokenizer> {
    let split = |pattern: &str| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
    let plain =
        |steps| PreTokenizer { normalizer: Value::Null, steps, ignore_merges: false, adds_bos: false };
    Ok(match file.text("tokenizer.ggml.pre")? {
        Some("smollm") => {
            plain(vec![json!({"type": "Digits", "individual_digits": true}), split(GPT2_SPLIT)])
        }
        Some("qwen2" | "deepseek-r1-qwen") => {
            PreTokenizer { normalizer: json!({"type": "NFC"}), ..plain(vec![split(QWEN2_SPLIT)]) }
        }
        Some("llama-bpe" | "llama3" | "llama-v3") => {
            PreTokenizer { ignore_merges: true, adds_bos: true, ..plain(vec![split(LLAMA3_SPLIT)]) }
        }
        Some("gpt-2") => plain(vec![split(GPT2_SPLIT)]),
        Some("default") => plain(DEFAULT_SPLITS.map(split).to_vec()),
        other => {
            return Err(file
                .error(format!(
                    "tokenizer.ggml.pre {} is not known (known: smollm, qwen2, llama-bpe, gpt-2, default); {GIVE_ONE}",
                    named(other)
                ))
                .into());
        }
    })
}

/// `tokenizer.json` of a byte-level BPE vocabulary.
fn build(file: &Gguf, tokens: &[&str], kinds: &[f64], ids: &NamedIds) -> Result<Value> {
    let wrong = |what: String| Error::from(file.error(what));
    match file.text("tokenizer.ggml.model")? {
        Some("gpt2") => {}
        other => {
            return Err(wrong(format!("tokenizer.ggml.model {} cannot be built; {GIVE_ONE}", named(other))));
        }
    }
    if file.flag("tokenizer.ggml.add_space_prefix")? == Some(true) {
        return Err(wrong(format!(
            "tokenizer.ggml.add_space_prefix is not known for such a vocabulary; {GIVE_ONE}"
        )));
    }
    let pre = pre_tokenizer(file)?;
    let (vocabulary, added) = vocabulary(file, tokens, kinds)?;
    let merges = file.texts("tokenizer.ggml.merges")?.unwrap_or_default();
    let merges: Vec<[&str; 2]> = merges
        .into_iter()
        .enumerate()
        .map(|(i, merge)| {
            let parts =
                merge.split_once(' ').filter(|(left, right)| !left.is_empty() && !right.contains(' '));
            parts.map(|(left, right)| [left, right]).ok_or_else(|| {
                wrong(format!(
                    "tokenizer.ggml.merges, entry {i}: {merge:?} is not two tokens with a space between"
                ))
            })
        })
        .collect::<Result<_>>()?;
    let byte_level =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false});
    let mut steps = pre.steps;
    steps.push(byte_level.clone());
    let bos = begins_with(file, tokens, ids, pre.adds_bos)?;
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": pre.normalizer,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
        "post_processor": bos.map(|(id, token)| starting_with(token, id)),
        "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "ignore_merges": pre.ignore_merges, "vocab": vocabulary, "merges": merges,
        },
    }))
}

/// Tokens by their text, and those that are found in a text before it is cut.
fn vocabulary(file: &Gguf, tokens: &[&str], kinds: &[f64]) -> Result<(Map<String, Value>, Vec<Value>)> {
    let (mut vocabulary, mut added) = (Map::with_capacity(tokens.len()), Vec::new());
    for (id, (&token, &kind)) in tokens.iter().zip(kinds).enumerate() {
        if kind == kind::UNUSED {
            continue;
        }
        if let Some(first) = vocabulary.insert(token.to_owned(), id.into()) {
            let twice = format!("{TOKENS} has {token:?} twice (ids {first} and {id})");
            return Err(file.error(twice).into());
        }
        if kind == kind::CONTROL || kind == kind::USER_DEFINED {
            added.push(json!({
                "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": kind == kind::CONTROL,
            }));
        }
    }
    Ok((vocabulary, added))
}

/// The token that stands before a text, where the file (or else the family) says that one does.
fn begins_with<'t>(
    file: &Gguf,
    tokens: &[&'t str],
    ids: &NamedIds,
    by_default: bool,
) -> Result<Option<(u32, &'t str)>> {
    let adds_bos = file.flag("tokenizer.ggml.add_bos_token")?.unwrap_or(by_default);
    Ok(ids.bos.filter(|_| adds_bos).and_then(|id| Some((id, *tokens.get(id as usize)?))))
}

/// Bytes of the longest piece of a SentencePiece vocabulary: cutting it at every place is work that grows with its square.
const LONGEST_PIECE: usize = 256;

/// `tokenizer.json` of a SentencePiece vocabulary with scores (its BPE kind). SentencePiece joins the two neighbours whose
/// union is the piece of the highest score; so of every piece all pairs of pieces that spell it are merges, by the score of
/// what they make. What no piece spells is written in bytes; spaces are `▁`. User-defined pieces, runs of spaces among them, are
/// found before anything is joined.
fn sentence_piece(file: &Gguf, tokens: &[&str], kinds: &[f64], ids: &NamedIds) -> Result<Value> {
    let wrong = |what: String| Error::from(file.error(what));
    if file.flag("tokenizer.ggml.add_space_prefix")? != Some(false) {
        return Err(wrong(format!(
            "its SentencePiece vocabulary puts a space before a text (tokenizer.ggml.add_space_prefix is not false), which \
             cannot be built from it; {GIVE_ONE}"
        )));
    }
    let key = "tokenizer.ggml.scores";
    let scores = file.numbers(key)?.unwrap_or_default();
    if scores.len() != tokens.len() {
        return Err(wrong(format!(
            "{key} has {} entries for {} tokens; {GIVE_ONE}",
            scores.len(),
            tokens.len()
        )));
    }
    if let Some(i) = scores.iter().position(|score| !score.is_finite()) {
        return Err(wrong(format!("{key}, entry {i} is {}; {GIVE_ONE}", scores[i])));
    }
    let n_bytes = kinds.iter().filter(|&&kind| kind == kind::BYTE).count();
    if n_bytes != 256 {
        return Err(wrong(format!(
            "its SentencePiece vocabulary has {n_bytes} byte tokens, not 256: some texts could not be spelled; {GIVE_ONE}"
        )));
    }
    let unk = ids
        .unk
        .and_then(|id| tokens.get(id as usize))
        .ok_or_else(|| wrong(format!("its SentencePiece vocabulary names no unknown token; {GIVE_ONE}")))?;
    let (vocabulary, added) = vocabulary(file, tokens, kinds)?;
    let piece: HashMap<&str, usize> = tokens
        .iter()
        .enumerate()
        .filter(|(id, _)| kinds[*id] == kind::NORMAL)
        .map(|(id, &token)| (token, id))
        .collect();
    let mut merges: Vec<(f64, [&str; 2])> = Vec::new();
    for (id, &token) in tokens.iter().enumerate() {
        if kinds[id] != kind::NORMAL {
            continue;
        }
        if token.len() > LONGEST_PIECE {
            let n = token.len();
            return Err(wrong(format!(
                "{TOKENS}, entry {id} is a piece of {n} bytes; at most {LONGEST_PIECE} are built from; {GIVE_ONE}"
            )));
        }
        let cuts = token.char_indices().skip(1).filter_map(|(at, _)| {
            let (left, right) = token.split_at(at);
            Some((*piece.get(left)?, *piece.get(right)?))
        });
        let mut pairs: Vec<(usize, usize)> = cuts.collect();
        pairs.sort_unstable();
        merges.extend(pairs.into_iter().map(|(left, right)| (scores[id], [tokens[left], tokens[right]])));
    }
    // Those of equal score stay in the order of the pieces.
    merges.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    let merges: Vec<[&str; 2]> = merges.into_iter().map(|(_, pair)| pair).collect();
    let bos = begins_with(file, tokens, ids, true)?;
    let replace =
        |from: &str, to: &str| json!({"type": "Replace", "pattern": {"String": from}, "content": to});
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": replace(" ", "▁"),
        "pre_tokenizer": null,
        "post_processor": bos.map(|(id, token)| starting_with(token, id)),
        "decoder": {"type": "Sequence", "decoders": [
            replace("▁", " "), {"type": "ByteFallback"}, {"type": "Fuse"},
        ]},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": unk, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
            "vocab": vocabulary, "merges": merges,
        },
    }))
}

/// The post-processor that puts a token before a text, for transformers: rlt's own prompts hold what their chat
/// template writes.
fn starting_with(token: &str, id: u32) -> Value {
    let special = json!({"SpecialToken": {"id": token, "type_id": 0}});
    let text = |name: &str| json!({"Sequence": {"id": name, "type_id": 0}});
    let mut special_tokens = Map::new();
    special_tokens.insert(token.to_owned(), json!({"id": token, "ids": [id], "tokens": [token]}));
    json!({
        "type": "TemplateProcessing",
        "single": [special, text("A")],
        "pair": [special, text("A"), special, text("B")],
        "special_tokens": special_tokens,
    })
}
