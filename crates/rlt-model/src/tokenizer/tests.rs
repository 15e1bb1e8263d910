use proptest::prelude::*;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::OnceLock;
use tokenizers::{NormalizedString, Normalizer};

use super::*;
use crate::shared_data::shared;

fn tokenizers_folder(name: &str) -> Option<PathBuf> {
    shared(&format!("data/tokenizers/{name}"))
}

/// Qwen2.5's tokenizer (NFC), read once; `None` where ../shared is absent.
fn qwen() -> Option<&'static Tokenizer> {
    static QWEN: OnceLock<Option<Tokenizer>> = OnceLock::new();
    QWEN.get_or_init(|| Some(Tokenizer::from_dir(&tokenizers_folder("qwen2.5")?).expect("reads"))).as_ref()
}

/// SmolLM2's tokenizer: byte-level without a normalizer, so that ids stand for the very text.
fn smollm() -> Option<&'static Tokenizer> {
    static SMOLLM: OnceLock<Option<Tokenizer>> = OnceLock::new();
    SMOLLM.get_or_init(|| Some(Tokenizer::from_dir(&tokenizers_folder("smollm2")?).expect("reads"))).as_ref()
}

fn joined(tokenizer: &Tokenizer, ids: &[u32]) -> Vec<u8> {
    ids.iter().flat_map(|&id| tokenizer.token_bytes(id).expect("in the vocabulary")).collect()
}

fn nfc(text: &str) -> String {
    let mut normalized = NormalizedString::from(text);
    tokenizers::normalizers::NFC.normalize(&mut normalized).expect("normalizes");
    normalized.get().to_owned()
}

/// llama.cpp's vectors: texts separated by a marker, one line of ids each.
#[test]
fn qwen_gives_the_ids_of_llama_cpp() {
    let Some(tokenizer) = qwen() else { return };
    let folder = tokenizers_folder("qwen2.5").expect("present");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).expect("reads");
    let (texts, ids) = (read("ggml-vocab-qwen2.gguf.inp"), read("ggml-vocab-qwen2.gguf.out"));
    let texts: Vec<&str> = texts.split("\n__ggml_vocab_test__\n").collect();
    let ids: Vec<Vec<u32>> = ids
        .split('\n')
        .map(|line| line.split_whitespace().map(|id| id.parse().expect("an id")).collect())
        .collect();
    assert_eq!((texts.len(), ids.len()), (47, 47));
    for (text, ids) in texts.into_iter().zip(ids) {
        assert_eq!(tokenizer.encode(text).expect("encodes"), ids, "{text:?}");
        assert_eq!(tokenizer.decode(&ids), nfc(text));
    }
}

#[test]
fn offsets_are_bytes_of_the_text_before_normalisation() {
    let Some(tokenizer) = qwen() else { return };
    // "é" as e + combining accent (3 bytes, one character after NFC), Chinese, an emoji over several tokens.
    let text = "cafe\u{301} 世界 \u{1F9D1}\u{200D}\u{1F680}<|im_end|>\n x";
    let Encoding { ids, offsets } = tokenizer.encode_with_offsets(text).expect("encodes");
    assert_eq!(ids, tokenizer.encode(text).expect("encodes"));
    assert_eq!(tokenizer.decode(&ids), nfc(text));
    let mut covered = 0;
    for (&id, &(start, end)) in ids.iter().zip(&offsets) {
        assert!(
            text.is_char_boundary(start) && text.is_char_boundary(end) && start <= covered,
            "{offsets:?}"
        );
        covered = covered.max(end);
        let bytes = tokenizer.token_bytes(id).expect("in the vocabulary");
        if let Ok(token) = std::str::from_utf8(&bytes) {
            assert_eq!(token, nfc(&text[start..end]), "a whole token covers its text");
        }
    }
    assert_eq!(covered, text.len());
    let end = text.find("<|im_end|>").expect("there");
    let i = ids.iter().position(|&id| id == 151645).expect("recognised");
    assert_eq!(offsets[i], (end, end + "<|im_end|>".len()));
}

#[test]
fn accents_belong_to_the_character_they_were_merged_into() {
    let Some(tokenizer) = qwen() else { return };
    let offsets = |text: &str| tokenizer.encode_with_offsets(text).expect("encodes").offsets;
    assert_eq!(offsets("cafe\u{301} x"), [(0, 2), (2, 6), (6, 8)]);
    assert_eq!(offsets("cafe\u{301}"), [(0, 2), (2, 6)]);
    // Two tokens that share an accent both cover it.
    assert_eq!(offsets("q\u{323}\u{307}"), [(0, 1), (1, 3), (1, 3), (3, 5), (3, 5)]);
}

#[test]
fn leading_spaces_belong_to_their_token() {
    // This tokenizer's post-processor would trim them off the offsets.
    let Some(folder) = shared("oracle/student") else { return };
    let tokenizer = Tokenizer::from_dir(&folder).expect("reads");
    let encoding = tokenizer.encode_with_offsets("the answer is").expect("encodes");
    let ends: Vec<usize> = encoding.offsets.iter().map(|o| o.1).collect();
    assert_eq!(encoding.offsets[0].0, 0);
    assert!(encoding.offsets.iter().skip(1).zip(&ends).all(|(next, &end)| next.0 == end), "{encoding:?}");
}

#[test]
fn added_tokens_are_found_in_the_text_and_nothing_is_added() {
    let Some(tokenizer) = qwen() else { return };
    assert_eq!(tokenizer.encode("").expect("encodes"), Vec::<u32>::new());
    assert_eq!(tokenizer.encode("<|im_start|><tool_call>").expect("encodes"), [151644, 151657]);
    assert_eq!(tokenizer.token_to_id("<|im_start|>"), Some(151644));
    assert_eq!(tokenizer.token_to_id("Ġthe"), Some(279));
    assert_eq!(tokenizer.token_bytes(279).expect("there"), b" the");
    assert_eq!(tokenizer.vocab_size(), 151665);
    assert_eq!(tokenizer.decode(&[151644, 151665, 9999999, 279]), "<|im_start|> the");
    let message = tokenizer.token_bytes(151665).expect_err("unused").to_string();
    assert!(message.contains("151665"), "{message}");
}

#[test]
fn vocabulary_and_merges_make_the_same_tokenizer() {
    let (Some(tokenizer), Some(folder)) = (qwen(), tokenizers_folder("qwen2.5")) else { return };
    let dir = tempfile::tempdir().expect("a folder");
    for file in ["vocab.json", "merges.txt", "tokenizer_config.json"] {
        std::fs::copy(folder.join(file), dir.path().join(file)).expect("copied");
    }
    let assembled = Tokenizer::from_dir(dir.path()).expect("assembled");
    assert_eq!(assembled.vocabulary_hash(), tokenizer.vocabulary_hash());
    let text = "Don't <think>x = 12\u{a0}345</think>\r\n\n  \u{41}\u{30a} 世界<|im_end|>\t\t;";
    let ids = tokenizer.encode(text).expect("encodes");
    assert_eq!(assembled.encode(text).expect("encodes"), ids);

    let saved = tempfile::tempdir().expect("a folder");
    assembled.save(saved.path()).expect("saved");
    let again = Tokenizer::from_dir(saved.path()).expect("reads");
    assert_eq!(again.encode(text).expect("encodes"), ids);
    assert_eq!(again.vocabulary_hash(), tokenizer.vocabulary_hash());
    let config = |dir: &Path| std::fs::read(dir.join("tokenizer_config.json")).expect("reads");
    assert_eq!(config(saved.path()), config(&folder), "companions are saved unchanged");
}

#[test]
fn tokens_of_the_configuration_are_added() {
    // tokenizer.json lists no added tokens; tokenizer_config.json names 22 of its vocabulary.
    let Some(folder) = tokenizers_folder("tiny") else { return };
    let tokenizer = Tokenizer::from_dir(&folder).expect("reads");
    assert_eq!(tokenizer.encode("<|im_start|>").expect("encodes"), [2009]);
    let json = std::fs::read_to_string(folder.join("tokenizer.json")).expect("reads");
    let bare = Tokenizer::from_json(&json).expect("reads");
    assert_eq!(bare.encode("<|im_start|>").expect("encodes").len(), "<|im_start|>".len());
    assert_eq!(bare.vocabulary_hash(), tokenizer.vocabulary_hash());
}

/// A word-level tokenizer whose tokens are plain text.
fn words(vocabulary: &Value) -> Value {
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithNext",
                          "invert": false},
        "post_processor": null, "decoder": {"type": "Fuse"},
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "?"},
    })
}

#[test]
fn the_hash_tells_vocabularies_apart() {
    let hash = |v: Value| Tokenizer::from_json(&words(&v).to_string()).expect("reads").vocabulary_hash();
    let one = hash(json!({"?": 0, "a": 1, " b": 2}));
    assert_eq!(one, hash(json!({" b": 2, "?": 0, "a": 1})), "whatever the order in the file");
    assert_ne!(one, hash(json!({"?": 0, "a": 2, " b": 1})));
    assert_ne!(one, hash(json!({"?": 0, "a": 1, " c": 2})));
    assert_ne!(one, hash(json!({"?": 0, "a": 1, " b": 2, "c": 3})));
    assert_eq!(one.len(), 32);
}

#[test]
fn plain_text_tokens_join_as_they_are() {
    let vocabulary = json!({"?": 0, "take": 1, " five": 2});
    let tokenizer = Tokenizer::from_json(&words(&vocabulary).to_string()).expect("reads");
    let encoding = tokenizer.encode_with_offsets("take five").expect("encodes");
    assert_eq!((encoding.ids, encoding.offsets), (vec![1, 2], vec![(0, 4), (4, 9)]));
    assert_eq!(tokenizer.decode(&[1, 2, 2]), "take five five");
}

/// A SentencePiece-BPE tokenizer as converted from Llama 2, with a handful of pieces.
fn sentencepiece() -> Tokenizer {
    let mut vocabulary = json!({"<unk>": 0, "<s>": 1, "</s>": 2});
    for byte in 0..=255u32 {
        vocabulary[format!("<0x{byte:02X}>")] = json!(byte + 3);
    }
    for (i, piece) in ["▁", "h", "i", "hi", "▁hi"].into_iter().enumerate() {
        vocabulary[piece] = json!(259 + i);
    }
    let special = |id: u32, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": true})
    };
    let json = json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": null,
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
            {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
                  "vocab": vocabulary, "merges": ["h i", "▁ hi"]},
    });
    Tokenizer::from_json(&json.to_string()).expect("reads")
}

#[test]
fn sentencepiece_tokens_have_exact_bytes() {
    let tokenizer = sentencepiece();
    let encoding = tokenizer.encode_with_offsets("hi hi é").expect("encodes");
    assert_eq!(encoding.ids, [263, 263, 259, 3 + 0xC3, 3 + 0xA9]);
    assert_eq!(encoding.offsets[1..], [(2, 5), (5, 6), (6, 8), (6, 8)]);
    assert_eq!(joined(&tokenizer, &encoding.ids), " hi hi é".as_bytes(), "one space is put before a text");
    assert_eq!(tokenizer.token_bytes(3 + 0xC3).expect("there"), [0xC3]);
    assert_eq!(tokenizer.decode(&[3 + 0xC3, 259]), "\u{FFFD} ");
    assert_eq!(tokenizer.token_bytes(2).expect("there"), b"</s>");
}

#[test]
fn a_text_inside_another_has_no_space_before_it() {
    let tokenizer = sentencepiece();
    for text in ["hi hi é", " hi", "é", "", "\nhi"] {
        let Encoding { ids, offsets } = tokenizer.encode_inside(text).expect("encodes");
        assert_eq!(tokenizer.decode(&ids), text);
        assert_eq!(offsets.first().map_or(0, |offset| offset.0), 0);
        assert_eq!(offsets.last().map_or(0, |offset| offset.1), text.len());
    }
    assert_eq!(tokenizer.encode_inside("hi hi").expect("encodes").ids, [262, 263]);
    if let Some(qwen) = qwen() {
        let text = "no space is put before this";
        assert_eq!(
            qwen.encode_inside(text).expect("encodes"),
            qwen.encode_with_offsets(text).expect("encodes")
        );
    }
}

#[test]
fn damaged_and_unsupported_tokenizers_are_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let refusal = |dir: &Path| Tokenizer::from_dir(dir).expect_err("refused").to_string();
    assert!(refusal(dir.path()).contains("vocab.json and merges.txt"));
    std::fs::write(dir.path().join("tokenizer.json"), "{\"version\": ").expect("written");
    assert!(refusal(dir.path()).contains("tokenizer.json"));
    let mut wordpiece = words(&json!({"?": 0}));
    wordpiece["decoder"] = json!({"type": "WordPiece", "prefix": "##", "cleanup": true});
    std::fs::write(dir.path().join("tokenizer.json"), wordpiece.to_string()).expect("written");
    assert!(refusal(dir.path()).contains("WordPiece"));
    wordpiece["decoder"] = Value::Null;
    assert!(Tokenizer::from_json(&wordpiece.to_string()).expect_err("refused").to_string().contains("Fuse"));

    std::fs::remove_file(dir.path().join("tokenizer.json")).expect("removed");
    std::fs::write(dir.path().join("vocab.json"), "{\"a\": 0}").expect("written");
    std::fs::write(dir.path().join("merges.txt"), "#version: 0.2\n").expect("written");
    assert!(refusal(dir.path()).contains("tokenizer_class"));
    std::fs::write(dir.path().join("tokenizer_config.json"), r#"{"tokenizer_class": "GPT2Tokenizer"}"#)
        .expect("written");
    Tokenizer::from_dir(dir.path()).expect("reads");
    std::fs::write(dir.path().join("merges.txt"), "a b c\n").expect("written");
    assert!(refusal(dir.path()).contains("a b c"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn token_bytes_join_to_the_text(text in any::<String>()) {
        if let Some(tokenizer) = smollm() {
            let ids = tokenizer.encode(&text).expect("encodes");
            prop_assert_eq!(joined(tokenizer, &ids), text.as_bytes());
            prop_assert_eq!(tokenizer.decode(&ids), text.clone());
        }
        if let Some(tokenizer) = qwen() {
            let Encoding { ids, offsets } = tokenizer.encode_with_offsets(&text).expect("encodes");
            prop_assert_eq!(joined(tokenizer, &ids), nfc(&text).into_bytes());
            let mut covered = 0;
            for (start, end) in offsets {
                prop_assert!(start <= covered && text.is_char_boundary(start) && text.is_char_boundary(end));
                covered = covered.max(end);
            }
            prop_assert_eq!(covered, text.len());
        }
    }

    /// Spaces, line ends, combining marks and special tokens, where tokenizers differ most.
    #[test]
    fn awkward_texts_join_to_the_text(
        parts in prop::collection::vec(prop::sample::select(vec![
            " ", "  ", "\n", "\r\n", "\t", "\u{a0}", "e\u{301}", "\u{301}", "한", "\u{1112}\u{1161}", "'s", "'T",
            "12", "½", "<|im_end|>", "<|im_", "</think>", "🧑‍🚀", "\u{fe0f}", "a", "Z", "\\frac{", "。", "\u{0}",
        ]), 0..24)
    ) {
        let text = parts.concat();
        for tokenizer in [smollm(), qwen()].into_iter().flatten() {
            let ids = tokenizer.encode(&text).expect("encodes");
            let decoded = tokenizer.decode(&ids);
            prop_assert_eq!(nfc(&decoded), nfc(&text));
            prop_assert_eq!(joined(tokenizer, &ids), decoded.into_bytes());
        }
    }

    /// The tiny test tokenizer has tokens for printable ASCII only.
    #[test]
    fn tiny_joins_printable_ascii(text in "[!-~]{0,40}") {
        static TINY: OnceLock<Option<Tokenizer>> = OnceLock::new();
        let tiny = TINY.get_or_init(|| Some(Tokenizer::from_dir(&tokenizers_folder("tiny")?).expect("reads")));
        if let Some(tokenizer) = tiny {
            let ids = tokenizer.encode(&text).expect("encodes");
            prop_assert_eq!(joined(tokenizer, &ids), text.as_bytes());
        }
    }
}

/// A byte-level tokenizer of three tokens.
fn three_tokens(dropout: &Value, id: u64) -> String {
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": true},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": true},
        "model": {"type": "BPE", "dropout": dropout, "unk_token": null, "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
                  "vocab": {"a": 0, "b": 1, "ab": id}, "merges": ["a b"]},
    })
    .to_string()
}

#[test]
fn dropout_that_makes_ids_random_is_refused() {
    let message = Tokenizer::from_json(&three_tokens(&json!(0.1), 2)).expect_err("random").to_string();
    assert!(message.contains("model.dropout = 0.1") && message.contains("set it to null"), "{message}");
    for none in [Value::Null, json!(0.0)] {
        let tokenizer = Tokenizer::from_json(&three_tokens(&none, 2)).expect("reads");
        assert_eq!(tokenizer.encode("abab").expect("encodes"), [2, 2]);
    }
}

#[test]
fn an_id_beyond_all_vocabularies_is_refused() {
    for id in [1 << 24, u64::from(u32::MAX)] {
        let message =
            Tokenizer::from_json(&three_tokens(&Value::Null, id)).expect_err("too large").to_string();
        assert!(message.contains(&format!("a token of id {id}")), "{message}");
    }
    let tokenizer = Tokenizer::from_json(&three_tokens(&Value::Null, (1 << 24) - 1)).expect("reads");
    assert_eq!(tokenizer.vocab_size(), 1 << 24);
}
