//! Messages as transformers hands them to a template.

use serde_json::{Map, Value};

/// The names under which a message may hold its thought; templates read the first.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// What `apply_chat_template` does before it renders: fields that are null are dropped (the `datasets` library
/// gives every row of a file all fields of every other), and a thought under any of its names is
/// `reasoning_content`, and `thinking` where the message has none of that name.
pub(super) fn normalized(messages: &Value) -> Value {
    let Value::Array(messages) = messages else { return messages.clone() };
    messages.iter().map(|message| message.as_object().map_or_else(|| message.clone(), of_object)).collect()
}

fn of_object(message: &Map<String, Value>) -> Value {
    let filled: Map<String, Value> =
        message.iter().filter(|(_, value)| !value.is_null()).map(|(k, v)| (k.clone(), v.clone())).collect();
    let Some(reasoning) = REASONING.iter().find_map(|name| filled.get(*name)).cloned() else {
        return Value::Object(filled);
    };
    let mut aliased = Map::from_iter([("thinking".to_owned(), reasoning.clone())]);
    aliased.extend(filled);
    aliased.insert("reasoning_content".to_owned(), reasoning);
    Value::Object(aliased)
}
