//! Tokenizers and chat templates against what Hugging Face's libraries make of the same input.
//!
//! `tests/parity/text_golden.py` writes the expected values: a small part of them is in
//! `tests/golden`; with `RLT_TEXT_GOLDEN=FOLDER` all of what it wrote is compared and counted.

use std::fs;
use std::path::{Path, PathBuf};

use rlt_model::chat_template::{ChatTemplate, TemplateTime};
use rlt_model::tokenizer::Tokenizer;
use serde_json::{Map, Value};

fn workspace(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

#[expect(clippy::print_stderr, reason = "what was skipped or counted is for the person who runs the test")]
fn tell(line: &str) {
    eprintln!("{line}");
}

fn shared() -> Option<PathBuf> {
    let root = workspace("../shared");
    if root.exists() {
        return Some(root);
    }
    tell("skipped: ../shared is absent");
    None
}

/// The folder that the script filled; resolved against the workspace.
fn full_golden() -> Option<PathBuf> {
    std::env::var_os("RLT_TEXT_GOLDEN").map(|path| workspace("").join(path))
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).expect("a golden file")).expect("JSON")
}

fn json_lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).expect("a golden file");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// A template of the shared data, with the special tokens that the script sets.
fn template(shared: &Path, name: &str) -> ChatTemplate {
    let text = fs::read_to_string(shared.join("data").join(name)).expect("a template");
    let source = if Path::new(name).extension().is_some_and(|e| e == "json") {
        let config: Value = serde_json::from_str(&text).expect("JSON");
        config["chat_template"].as_str().expect("a template").to_owned()
    } else {
        text
    };
    from_source(&source).expect("parses")
}

fn from_source(source: &str) -> rlt_model::Result<ChatTemplate> {
    let tokens = [("bos_token", "<s>"), ("eos_token", "</s>")];
    let tokens: Map<String, Value> = tokens.into_iter().map(|(k, v)| (k.to_owned(), v.into())).collect();
    Ok(ChatTemplate::from_source(source, tokens)?.at(TemplateTime::from_unix_seconds(UNIX_SECONDS)?))
}

const UNIX_SECONDS: i64 = 1_741_503_903;

/// `None` where the outcome is the expected one: the same text, or an error on both sides.
fn difference(what: &str, ours: &rlt_model::Result<String>, expected: &Value) -> Option<String> {
    match (ours, expected["text"].as_str()) {
        (Ok(ours), Some(text)) if ours == text => None,
        (Err(_), None) => None,
        (Ok(ours), Some(text)) => Some(format!("{what}\n  ours     {ours:?}\n  expected {text:?}")),
        (Ok(ours), None) => Some(format!("{what}\n  ours     {ours:?}\n  expected {}", expected["error"])),
        (Err(e), Some(text)) => Some(format!("{what}\n  ours     {e}\n  expected {text:?}")),
    }
}

fn compare_renders(shared: &Path, rows: &[Value]) -> Vec<String> {
    let mut current: Option<(String, ChatTemplate)> = None;
    let mut differences = Vec::new();
    for row in rows {
        let name = row["template"].as_str().expect("a name");
        if current.as_ref().is_none_or(|(n, _)| n != name) {
            current = Some((name.to_owned(), template(shared, name)));
        }
        let (_, template) = current.as_ref().expect("set above");
        let variables = row["variables"].as_object().expect("an object");
        let prompt = row["add_generation_prompt"].as_bool().expect("a flag");
        let ours = template.render_json(&row["messages"], prompt, variables);
        let what = format!("{name} with {} (prompt: {prompt})", row["conversation"]);
        differences.extend(difference(&what, &ours, row));
    }
    differences
}

fn compare_expressions(context: &Value, rows: &[Value]) -> Vec<String> {
    let variables = context.as_object().expect("an object");
    let render = |source: &str| from_source(source)?.render_json(&context["messages"], false, variables);
    rows.iter()
        .filter_map(|row| {
            let source = row["template"].as_str().expect("a template");
            difference(source, &render(source), row)
        })
        .collect()
}

#[test]
fn chat_templates_render_as_in_transformers() {
    let Some(shared) = shared() else { return };
    let golden = json(&workspace("tests/golden/chat_templates.json"));
    let rows = golden["renders"].as_array().expect("a list");
    assert_eq!(compare_renders(&shared, rows), Vec::<String>::new());
    if let Some(folder) = full_golden() {
        let rows = json_lines(&folder.join("renders.jsonl"));
        let differences = compare_renders(&shared, &rows);
        tell(&format!("{} of {} renders equal", rows.len() - differences.len(), rows.len()));
        assert!(differences.is_empty(), "{}", differences.join("\n"));
    }
}

#[test]
fn small_templates_render_as_in_jinja2() {
    let golden = json(&workspace("tests/golden/jinja.json"));
    let differences =
        compare_expressions(&golden["context"], golden["expressions"].as_array().expect("a list"));
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// Special tokens named in any of the files and ways that transformers knows: the variables of a template, and ids.
#[test]
fn special_tokens_are_those_of_transformers() {
    let golden = json(&workspace("tests/golden/special_tokens.json"));
    let text = golden["text"].as_str().expect("a text");
    for case in golden["cases"].as_array().expect("a list") {
        let dir = tempfile::tempdir().expect("a folder");
        let write = |name: &str, content: &Value| {
            fs::write(dir.path().join(name), content.to_string()).expect("written");
        };
        write("tokenizer.json", &golden["tokenizer"]);
        for (name, content) in case["files"].as_object().expect("files") {
            write(name, content);
        }
        let named = "{% for n in names %}{{ n }}={{ {'bos_token': bos_token, 'eos_token': eos_token, \
                     'image_token': image_token, 'named_token': named_token}[n] }};{% endfor %}";
        fs::write(dir.path().join("chat_template.jinja"), named).expect("written");
        let names = ["bos_token", "eos_token", "image_token", "named_token"];
        let variables = Map::from_iter([("names".to_owned(), Value::from(names.as_slice()))]);
        let messages = Value::from(vec![serde_json::json!({"role": "user", "content": "x"})]);
        let ours =
            ChatTemplate::from_dir(dir.path()).and_then(|t| t.render_json(&messages, false, &variables));
        let value = |name: &&str| format!("{name}={};", case["variables"][name].as_str().unwrap_or_default());
        let expected = names.iter().map(value).collect::<Vec<_>>().concat();
        assert_eq!(ours.expect("renders"), expected, "{}", case["name"]);
        let ids = Tokenizer::from_dir(dir.path()).and_then(|t| t.encode(text)).expect("encodes");
        assert_eq!(Value::from(ids), case["ids"], "{}", case["name"]);
    }
}

/// What the embedded golden values cover: every template, each at least once with a text.
#[test]
fn every_template_is_covered() {
    let Some(shared) = shared() else { return };
    let golden = json(&workspace("tests/golden/chat_templates.json"));
    for entry in fs::read_dir(shared.join("data/chat_templates")).expect("a folder") {
        let name = format!("chat_templates/{}", entry.expect("an entry").file_name().to_string_lossy());
        let rows = golden["renders"].as_array().expect("a list");
        assert!(rows.iter().any(|r| r["template"] == name && r["text"].is_string()), "{name}");
    }
}

#[test]
fn real_texts_have_the_ids_of_hugging_face() {
    let Some(folder) = full_golden() else {
        tell("skipped: RLT_TEXT_GOLDEN is not set (tests/parity/text_golden.py)");
        return;
    };
    let texts: Vec<String> = json_lines(&folder.join("texts.jsonl"))
        .iter()
        .map(|t| t.as_str().expect("a text").to_owned())
        .collect();
    let mut failed = false;
    for name in ["qwen2.5", "qwen3", "smollm2", "tiny", "oracle", "sentencepiece", "metaspace"] {
        let source = fs::read_to_string(folder.join(format!("folder-{name}"))).expect("a path");
        let tokenizer = Tokenizer::from_dir(Path::new(&source)).expect("a tokenizer");
        // Trimmed offsets (without the leading space) are not wanted here; NFC ones have gaps there.
        let trims = matches!(name, "tiny");
        // SentencePiece puts a space before a text; decoding takes it away there and keeps it here.
        let leads = matches!(name, "sentencepiece" | "metaspace");
        let seen = |text: String| match text.strip_prefix(' ') {
            Some(rest) if leads => rest.to_owned(),
            _ => text,
        };
        let normalizes = matches!(name, "qwen2.5" | "qwen3" | "oracle");
        let (mut ids, mut decoded, mut offsets, mut n_offsets) = (0, 0, 0, 0);
        for (text, row) in texts.iter().zip(json_lines(&folder.join(format!("ids-{name}.jsonl")))) {
            let expected: Vec<u32> = row["ids"]
                .as_array()
                .expect("ids")
                .iter()
                .map(|id| id.as_u64().expect("an id") as u32)
                .collect();
            let ours = tokenizer.encode(text).expect("encodes");
            let back = row["decoded"].as_str().unwrap_or(text);
            ids += usize::from(ours == expected);
            decoded += usize::from(seen(tokenizer.decode(&expected)) == back);
            let bytes: Vec<u8> =
                ours.iter().flat_map(|&id| tokenizer.token_bytes(id).expect("in the vocabulary")).collect();
            assert_eq!(seen(String::from_utf8_lossy(&bytes).into_owned()), back, "{name}: {text:?}");
            if ours != expected {
                failed = true;
                tell(&format!("{name}: {:?}", text.chars().take(80).collect::<String>()));
            }
            if let Some(theirs) =
                row["offsets"].as_array().filter(|_| !trims && (!normalizes || back == text))
            {
                let places: Vec<usize> = text.char_indices().map(|(i, _)| i).chain([text.len()]).collect();
                let place = |v: &Value| places[v.as_u64().expect("an offset") as usize];
                let theirs: Vec<(usize, usize)> =
                    theirs.iter().map(|o| (place(&o[0]), place(&o[1]))).collect();
                let encoding = tokenizer.encode_with_offsets(text).expect("encodes");
                n_offsets += 1;
                offsets += usize::from(encoding.offsets == theirs && encoding.ids == expected);
            }
        }
        let n = texts.len();
        tell(&format!(
            "{name}: ids {ids} of {n}, decoded {decoded} of {n}, offsets {offsets} of {n_offsets}"
        ));
        failed |= ids != n || decoded != n || offsets != n_offsets;
    }
    assert!(!failed, "see the counts above");
}
