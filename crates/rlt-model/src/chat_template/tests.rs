use serde_json::json;

use super::*;
use crate::shared_data::shared;

fn message(role: &str, content: &str) -> Message {
    Message { role: role.into(), content: content.into() }
}

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    for (name, content) in files {
        std::fs::write(dir.path().join(name), content).expect("written");
    }
    dir
}

fn rendered(dir: &Path) -> String {
    let template = ChatTemplate::from_dir(dir).expect("a template");
    template.render(&[message("user", "hi")], false).expect("renders")
}

#[test]
fn the_jinja_file_comes_before_the_configuration() {
    let config = r#"{"chat_template": "config {{ bos_token }}", "bos_token": "<s>"}"#;
    let dir = folder(&[("tokenizer_config.json", config)]);
    assert_eq!(rendered(dir.path()), "config <s>");
    std::fs::write(dir.path().join("chat_template.jinja"), "file {{ bos_token }}\n").expect("written");
    assert_eq!(rendered(dir.path()), "file <s>");
}

#[test]
fn special_tokens_are_strings_objects_or_absent() {
    let config = json!({
        "chat_template": "{{ bos_token }}{{ eos_token }}{{ pad_token is defined }}{{ unk_token is defined }}",
        "bos_token": {"content": "<s>", "lstrip": false}, "eos_token": "</s>", "pad_token": null,
    });
    let dir = folder(&[("tokenizer_config.json", &config.to_string())]);
    assert_eq!(rendered(dir.path()), "<s></s>FalseFalse");
}

#[test]
fn the_default_of_several_named_templates_is_taken() {
    let named = |name: &str| {
        let config = json!({"chat_template": [{"name": "tool_use", "template": "tools"},
                                              {"name": name, "template": "this one"}]});
        folder(&[("tokenizer_config.json", &config.to_string())])
    };
    assert_eq!(rendered(named("default").path()), "this one");
    let message = ChatTemplate::from_dir(named("rag").path()).expect_err("no default").to_string();
    assert!(message.contains("tokenizer_config.json") && message.contains("default"), "{message}");
}

#[test]
fn a_folder_without_a_template_says_so() {
    for files in [&[][..], &[("tokenizer_config.json", "{}")]] {
        let message = ChatTemplate::from_dir(folder(files).path()).expect_err("none").to_string();
        assert!(message.contains("chat_template.jinja"), "{message}");
    }
}

#[test]
fn errors_tell_the_line_and_what_the_template_says() {
    let error = |source: &str| -> String {
        ChatTemplate::from_source(source, Map::new())
            .and_then(|template| template.render(&[message("user", "hi")], false))
            .expect_err("refused")
            .to_string()
    };
    let raised = error("\n{% if true %}\n{{ raise_exception('roles must alternate') }}{% endif %}");
    assert_eq!(raised, "chat template: line 3: roles must alternate");
    assert!(error("a\n{% if %}").starts_with("chat template: line 2: "));
    assert!(error("{{ messages[7].content }}").contains("undefined"));
    let template = ChatTemplate::from_source("x", Map::new()).expect("parses");
    assert!(template.render(&[], true).expect_err("empty").to_string().contains("no messages"));
}

#[test]
fn message_text_is_never_taken_for_template() {
    let template = ChatTemplate::from_source("{{ messages[0].content }}", Map::new()).expect("parses");
    let text = "{{ 1 + 1 }} {% if x %} {# c #} <b>&amp;</b> '\"\n";
    assert_eq!(template.render(&[message("user", text)], false).expect("renders"), text);
}

#[test]
fn variables_come_before_special_tokens() {
    let template = |tokens: Json| {
        let tokens = tokens.as_object().cloned().unwrap_or_default();
        ChatTemplate::from_source("{{ bos_token }}{{ tools is none }}{{ x }}", tokens).expect("parses")
    };
    let template = template(json!({"bos_token": "<s>"}));
    let messages = json!([{"role": "user", "content": null}]);
    let variables = json!({"bos_token": "<b>", "x": [1]});
    let variables = variables.as_object().expect("an object");
    assert_eq!(template.render_json(&messages, false, variables).expect("renders"), "<b>True[1]");
    assert_eq!(template.render(&[message("user", "")], false).expect("renders"), "<s>True");
}

#[test]
fn the_time_can_be_set() {
    let source = "{{ strftime_now('%d %b %Y %H:%M:%S') }}";
    let fixed = |time| ChatTemplate::from_source(source, Map::new()).expect("parses").at(time);
    let text = |time| fixed(time).render(&[message("user", "")], false).expect("renders");
    let epoch = TemplateTime::from_unix_seconds(0).expect("1970");
    assert_eq!(text(epoch), "01 Jan 1970 00:00:00");
    assert!(TemplateTime::from_unix_seconds(i64::MAX).is_err(), "beyond any calendar");
    // Written and read back it tells the same.
    assert_eq!(json!(epoch), "1970-01-01T00:00:00");
    let now = TemplateTime::now();
    assert_eq!(serde_json::from_value::<TemplateTime>(json!(now)).expect("a time"), now);
    assert!(serde_json::from_value::<TemplateTime>(json!("tomorrow")).is_err());
    assert_eq!(TemplateTime::of_this_process(), TemplateTime::of_this_process());
    assert!(fixed(now).tells_time());
    assert!(!ChatTemplate::from_source("x", Map::new()).expect("parses").tells_time());
}

/// What the training sequences rest on: the prompt is where the whole conversation begins.
#[test]
fn the_prompt_is_a_prefix_of_the_conversation() {
    let Some(folder) = shared("data/chat_templates") else { return };
    for (name, system) in [
        ("Qwen-Qwen2.5-7B-Instruct.jinja", true),
        ("trl-llama3.jinja", true),
        ("trl-qwen2_5_training.jinja", true),
        ("meta-llama-Llama-3.1-8B-Instruct.jinja", true),
        ("mistralai-Mistral-Nemo-Instruct-2407.jinja", false),
    ] {
        let source = std::fs::read_to_string(folder.join(name)).expect("a template");
        let tokens = json!({"bos_token": "<s>", "eos_token": "</s>"});
        let template = ChatTemplate::from_source(&source, tokens.as_object().cloned().expect("an object"))
            .expect("parses");
        let mut messages = vec![message("user", "What is 1 + 1?")];
        if system {
            messages.insert(0, message("system", "Be brief."));
        }
        let prompt = template.render(&messages, true).expect("renders");
        messages.push(message("assistant", "It is 2."));
        let whole = template.render(&messages, false).expect("renders");
        let rest = whole.strip_prefix(&prompt).unwrap_or_else(|| panic!("{name}: {prompt:?} {whole:?}"));
        assert!(rest.contains("It is 2."), "{name}: {rest:?}");
    }
}
