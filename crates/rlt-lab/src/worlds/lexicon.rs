//! The `market` world's model folder without weights: tokenizer, chat template, `config.json`.
//!
//! The tokenizer is a byte-level BPE in Hugging Face's `tokenizer.json` format with an empty list
//! of merges and `ignore_merges`: a piece of text that is in the vocabulary is one token, any other
//! piece falls to its bytes. So every word of the world (with the space before it) and every digit
//! is a single token, and any other text still encodes without loss.

use std::collections::BTreeSet;
use std::path::Path;

use rlt_files::write_atomic;
use serde_json::{Map, Value, json};

use super::story::{GAINS, ITEMS, LOSSES, PEOPLE};
use rlt_method::Result;

/// The teacher's system prompt; `configs/demo` repeats it.
pub const TEACHER_SYSTEM: &str = "Explain the solution.";
/// The student's system prompt; `configs/demo` repeats it.
pub const STUDENT_SYSTEM: &str = "Think, then solve.";

/// Ends a turn, and a generation.
pub const TURN_END: &str = "<|im_end|>";

/// Tokens that are not text, after the vocabulary in this order.
pub const ADDED_TOKENS: [&str; 9] = [
    "<|endoftext|>",
    "<|im_start|>",
    TURN_END,
    "<|begin_of_thought|>",
    "<|end_of_thought|>",
    "<|begin_of_solution|>",
    "<|end_of_solution|>",
    "<|begin_of_explanation|>",
    "<|end_of_explanation|>",
];

/// How text is cut before words are looked up: a word or a digit or a mark, each with the space
/// before it; a blank line; any other white space by itself.
pub const PIECE_PATTERN: &str = r" ?[A-Za-z]+| ?[0-9]|\n\n| ?[^\sA-Za-z0-9]|\s";

/// ChatML without line breaks between turns.
pub const CHAT_TEMPLATE: &str = "{% for message in messages %}\
    {{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' }}\
    {% endfor %}\
    {% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/// Words that stand where no space is before them.
const FIRST_WORDS: [&str; 13] = [
    "She",
    "He",
    "The",
    "So",
    "Let",
    "That",
    "We",
    "Think",
    "Explain",
    "system",
    "user",
    "assistant",
    "\n\n",
];

/// Words, digits and marks with the space before them.
const INNER_WORDS: &str = "has She He Then she he and How many does have doubles them loses half \
    + - x / = answer is at the end us look story again market busy today was easy part are getting near \
    likes a lot then solve solution 0 1 2 3 4 5 6 7 8 9";

/// The size of the demo's models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelShape {
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the gated feed-forward layer.
    pub intermediate_size: usize,
    /// Number of decoder blocks.
    pub n_layers: usize,
    /// Attention heads; divides `hidden_size`.
    pub n_heads: usize,
    /// Longest context, tokens.
    pub context: usize,
}

impl Default for ModelShape {
    fn default() -> Self {
        Self { hidden_size: 128, intermediate_size: 256, n_layers: 3, n_heads: 4, context: 512 }
    }
}

/// The character that stands for each byte in a byte-level vocabulary (GPT-2's table): printable
/// Latin-1 stands for itself, the other bytes for the characters from U+0100 on, in order.
fn byte_characters() -> Vec<char> {
    let mut n_shifted = 0;
    (0..=255_u8)
        .map(|byte| match byte {
            b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF => char::from(byte),
            _ => {
                n_shifted += 1;
                char::from_u32(255 + n_shifted).expect("below the surrogates")
            }
        })
        .collect()
}

/// Every word of the world as it stands in text, with its space; single bytes are not repeated.
pub fn words() -> BTreeSet<String> {
    let spaced = |word: &str| format!(" {word}");
    let mut words: BTreeSet<String> = FIRST_WORDS.iter().map(ToString::to_string).collect();
    words.extend(INNER_WORDS.split_whitespace().map(spaced));
    for (name, _) in PEOPLE {
        words.extend([name.to_owned(), spaced(name)]);
    }
    for word in ITEMS.iter().chain(&GAINS).chain(&LOSSES) {
        words.insert(spaced(word));
    }
    words
}

/// `tokenizer.json`.
pub fn tokenizer_json() -> Value {
    let characters = byte_characters();
    let mut vocabulary = Map::new();
    for character in &characters {
        vocabulary.insert(character.to_string(), vocabulary.len().into());
    }
    for word in words() {
        let written: String = word.bytes().map(|byte| characters[byte as usize]).collect();
        vocabulary.insert(written, vocabulary.len().into());
    }
    let added: Vec<Value> = ADDED_TOKENS
        .iter()
        .enumerate()
        .map(|(i, content)| {
            json!({
                "id": vocabulary.len() + i, "content": content, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": true
            })
        })
        .collect();
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": PIECE_PATTERN}, "behavior": "Isolated", "invert": false},
                {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false}
            ]
        },
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": true,
            "vocab": vocabulary, "merges": []
        }
    })
}

/// `tokenizer_config.json`, with the chat template.
pub fn tokenizer_config_json(shape: &ModelShape) -> Value {
    json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": shape.context,
        "eos_token": TURN_END,
        "pad_token": ADDED_TOKENS[0],
        "clean_up_tokenization_spaces": false,
        "chat_template": CHAT_TEMPLATE
    })
}

/// `config.json` of a Qwen2 decoder of this shape for this tokenizer.
pub fn config_json(shape: &ModelShape) -> Value {
    let n_words = 256 + words().len();
    let id = |token: &str| ADDED_TOKENS.iter().position(|known| *known == token).map(|i| n_words + i);
    json!({
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "vocab_size": n_words + ADDED_TOKENS.len(),
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.n_layers,
        "num_attention_heads": shape.n_heads,
        "num_key_value_heads": shape.n_heads,
        "max_position_embeddings": shape.context,
        "rope_theta": 10000.0,
        "rms_norm_eps": 1e-6,
        "hidden_act": "silu",
        "tie_word_embeddings": true,
        "attention_dropout": 0.0,
        "use_sliding_window": false,
        "eos_token_id": id(TURN_END),
        "pad_token_id": id(ADDED_TOKENS[0]),
        "torch_dtype": "float32"
    })
}

/// Writes the model folder without weights.
///
/// # Errors
/// When a file cannot be written.
pub fn write_model_folder(folder: &Path, shape: &ModelShape) -> Result<()> {
    for (name, content) in [
        ("config.json", config_json(shape)),
        ("tokenizer.json", tokenizer_json()),
        ("tokenizer_config.json", tokenizer_config_json(shape)),
    ] {
        write_atomic(&folder.join(name), format!("{content:#}\n").as_bytes())?;
    }
    Ok(())
}

/// A student's whole sequence as the chat template and the `stratos` style write it.
pub fn student_text(question: &str, thought: &str, solution: &str) -> String {
    format!(
        "<|im_start|>system\n{STUDENT_SYSTEM}<|im_end|><|im_start|>user\n{question}<|im_end|>\
         <|im_start|>assistant\n<|begin_of_thought|>\n\n{thought}\n\n<|end_of_thought|>\n\n\
         <|begin_of_solution|>{solution}<|end_of_solution|><|im_end|>"
    )
}

#[cfg(test)]
mod tests {
    use super::super::explanation::ExplanationKind;
    use super::super::story::{Side, Story};
    use super::*;
    use rlt_method::random::Stream;

    /// Cuts text as [`PIECE_PATTERN`] does (which a test of the tokenizer itself checks again).
    fn pieces(text: &str) -> Vec<&str> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let body = rest.strip_prefix(' ').unwrap_or(rest);
            let space = rest.len() - body.len();
            let n_letters = body.bytes().take_while(u8::is_ascii_alphabetic).count();
            let length = match body.chars().next() {
                _ if n_letters > 0 => space + n_letters,
                _ if rest.starts_with("\n\n") => 2,
                Some(mark) if !mark.is_whitespace() => space + mark.len_utf8(),
                _ => first.len_utf8(),
            };
            let (piece, later) = rest.split_at(length);
            pieces.push(piece);
            rest = later;
        }
        pieces
    }

    #[test]
    fn every_text_of_the_world_is_whole_tokens() {
        let words = words();
        for i in 0..2000 {
            let mut stream = Stream::new(2, "vocabulary", i);
            let story = Story::sample(1 + stream.below(7), Side::Train, &mut stream);
            let mut texts =
                vec![story.question(), story.solution(), TEACHER_SYSTEM.into(), STUDENT_SYSTEM.into()];
            texts.extend(ExplanationKind::ALL.map(|kind| kind.write(&story, &mut stream)));
            for text in texts {
                for piece in pieces(&text) {
                    assert!(piece.len() == 1 || words.contains(piece), "{piece:?} in {text:?}");
                }
            }
        }
    }

    #[test]
    fn countdown_is_whole_tokens_but_for_its_brackets() {
        use super::super::countdown::dataset::sample_row;
        use super::super::dataset::RowFile;
        let words = words();
        for i in 0..2000 {
            let (solved, _, explanation) = sample_row(RowFile::ALL[i as usize % 4], 2, i);
            for text in [solved.problem.question(), solved.solution(), explanation] {
                for piece in pieces(&text) {
                    let known = piece.len() == 1 || piece == " (" || words.contains(piece);
                    assert!(known, "{piece:?} in {text:?}");
                }
            }
        }
    }

    #[test]
    fn sequences_are_short() {
        for i in 0..500 {
            let mut stream = Stream::new(2, "lengths", i);
            let story = Story::sample(7, Side::Train, &mut stream);
            assert!(pieces(&story.question()).len() <= 45);
            assert!(pieces(&ExplanationKind::Full.write(&story, &mut stream)).len() <= 90);
        }
    }

    #[test]
    fn the_vocabulary_is_dense_and_has_every_byte() {
        let tokenizer = tokenizer_json();
        let vocabulary = tokenizer["model"]["vocab"].as_object().expect("an object");
        assert_eq!(vocabulary.len(), 256 + words().len());
        let ids: BTreeSet<u64> = vocabulary.values().filter_map(Value::as_u64).collect();
        assert_eq!(ids.len(), vocabulary.len());
        assert_eq!(ids.last().copied(), Some(vocabulary.len() as u64 - 1));
        assert_eq!(byte_characters().iter().collect::<BTreeSet<_>>().len(), 256);
        let size = vocabulary.len() + ADDED_TOKENS.len();
        assert_eq!(config_json(&ModelShape::default())["vocab_size"], size);
        assert!(size < 400, "{size}");
    }

    #[test]
    fn bytes_stand_for_the_characters_of_gpt2() {
        let characters = byte_characters();
        assert_eq!(characters[b' ' as usize], '\u{120}');
        assert_eq!(characters[b'\n' as usize], '\u{10A}');
        assert_eq!(characters[b'A' as usize], 'A');
        assert_eq!(characters[0xAD], '\u{143}');
    }
}
