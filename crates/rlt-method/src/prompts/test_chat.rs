//! A byte-level tokenizer of 256 bytes and four merges with a ChatML template, small enough to reason
//! about by hand.

use rlt_model::chat_template::ChatTemplate;
use rlt_model::tokenizer::Tokenizer;
use serde_json::{Map, Value, json};

use super::ChatText;

const TEMPLATE: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
                        {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// Merges, first to last: `.` and `<`, two newlines, `>` and two newlines, three newlines.
pub(crate) fn test_chat() -> ChatText {
    test_chat_with(TEMPLATE)
}

/// The same with another template.
pub(crate) fn test_chat_with(template: &str) -> ChatText {
    let newline = byte_char(b'\n');
    let pair = format!("{newline}{newline}");
    let merges = [
        (".".to_owned(), "<".to_owned()),
        (newline.clone(), newline.clone()),
        (">".to_owned(), pair.clone()),
        (pair, newline),
    ];
    let mut vocab: Map<String, Value> = (0..=255).map(|byte| (byte_char(byte), Value::from(byte))).collect();
    for (i, (a, b)) in merges.iter().enumerate() {
        vocab.insert(format!("{a}{b}"), Value::from(256 + i));
    }
    let added = |id: u32, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": true})
    };
    let tokenizer = json!({
        "version": "1.0",
        "added_tokens": [added(300, "<|im_start|>"), added(301, "<|im_end|>")],
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false},
        "model": {"type": "BPE", "vocab": vocab, "merges": merges},
    });
    let template = ChatTemplate::from_source(template, Map::new()).unwrap();
    ChatText::new(Tokenizer::from_json(&tokenizer.to_string()).unwrap(), template).unwrap()
}

/// GPT-2's printable stand-in for a byte.
fn byte_char(byte: u8) -> String {
    let printable = |b: u8| matches!(b, 33..=126 | 161..=172 | 174..=255);
    let code = if printable(byte) {
        u32::from(byte)
    } else {
        256 + (0..byte).filter(|&b| !printable(b)).count() as u32
    };
    char::from_u32(code).unwrap().to_string()
}
