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

fn outcome(source: &str) -> Result<String> {
    ChatTemplate::from_source(source, Map::new())
        .and_then(|template| template.render(&[message("user", "hi")], true))
}

/// Each would take minutes, gigabytes or the whole stack; each ends in a line that names the bound.
#[test]
fn templates_are_bounded() {
    let work = "does too much work";
    let deep = "nests deeper than 100 levels";
    let width = "is beyond 10000";
    let chain = |part: &str, n: usize| part.repeat(n);
    let cases: Vec<(String, &str)> = vec![
        // Work.
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}".into(), work),
        ("{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}".into(), work),
        ("{{ range(10**9) | list }}".into(), "too many elements"),
        // Texts that double.
        ("{% set ns = namespace(s='x') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}".into(), work),
        ("{% set ns = namespace(s='x') %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}".into(), work),
        ("{% set ns = namespace(s='x') %}{% for i in range(60) %}{% set ns.s = ns.s.replace('x', 'xx') %}{% endfor %}".into(), work),
        ("{{ ('&' * 80000000) | e | length }}".into(), work),
        ("{% set ns = namespace(s='\"') %}{% for i in range(60) %}{% set ns.s = ns.s | tojson %}{% endfor %}".into(), work),
        ("{% set ns = namespace(l=[1]) %}{% for i in range(60) %}{% set ns.l = ns.l + ns.l %}{% endfor %}".into(), work),
        ("{% set ns = namespace(l=[1]) %}{% for i in range(60) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}".into(), work),
        ("{% macro m(s) %}{{ s }}{{ s }}{% endmacro %}{% set ns = namespace(s='x') %}{% for i in range(60) %}{% set ns.s = m(ns.s) %}{% endfor %}".into(), work),
        ("{{ 'x' * 10**12 }}".into(), ""),
        ("{{ [1] * 10**12 }}".into(), ""),
        ("{% set s = 'ab ' * 30000000 %}{{ s.split() | length }}".into(), work),
        ("{% set s = 'ab ' * 30000000 %}{{ s.rsplit(' ') | length }}".into(), work),
        ("{% set s = '\n' * 90000000 %}{{ s.splitlines() | length }}".into(), work),
        ("{% set s = 'x' * 90000000 %}{{ s | list | length }}".into(), work),
        ("{% set s = 'x' * 90000000 %}{% for i in range(9999) %}{{ s.isspace() }}{% endfor %}".into(), work),
        ("{% set s = 'x' * 9000000 %}{% for i in range(9999) %}{{ s in s ~ 'y' }}{% endfor %}".into(), work),
        ("{% set s = 'x' * 9000000 %}{{ [s, s, s, s, s, s, s] }}".into(), work),
        ("{{ 'x'.join(range(99999)) * 1000 }}".into(), work),
        // Widths.
        ("{{ 'x'.ljust(10**12) }}".into(), width),
        ("{{ 'x'.rjust(1000000000) }}".into(), width),
        ("{{ 'x'.center(1000000000) }}".into(), width),
        ("{{ 'x'.zfill(1000000000) }}".into(), width),
        ("{{ [1] | tojson(indent=10**11) }}".into(), width),
        ("{{ [[[1]]] | tojson(indent='x' * 90000000) }}".into(), width),
        ("{{ '%099999999999d' | format(1) }}".into(), ""),
        ("{{ '%.999999999f' | format(1.5) }}".into(), work),
        ("{{ '{:>999999999}'.format(1) }}".into(), width),
        ("{{ '{:.999999999f}'.format(1.5) }}".into(), width),
        ("{{ '{:>{}}'.format(1, 999999999) }}".into(), width),
        ("{{ 'x\\ny' | indent(10**11) }}".into(), work),
        ("{{ [1] | batch(10**11, 0) | list }}".into(), work),
        ("{{ [1] | slice(10**11) | list }}".into(), work),
        ("{{ strftime_now('%A' * 99999) }}".into(), "a format of 199998 bytes"),
        // Depth of the text: what the parser and the compiler recurse over.
        (format!("{{{{ {}1 }}}}", chain("1+", 50_000)), "a tag has more than 4000"),
        (format!("{{{{ {}1 }}}}", chain("not ", 50_000)), "a tag has more than 4000"),
        (format!("{{{{ {}1 }}}}", chain("-", 50_000)), "a tag has more than 4000"),
        (format!("{{{{ x{} }}}}", chain("|e", 50_000)), "a tag has more than 4000"),
        (format!("{{{{ x{} }}}}", chain(".a", 50_000)), "a tag has more than 4000"),
        (format!("{{{{ x{} }}}}", chain("[0]", 50_000)), "a tag has more than 4000"),
        (format!("{{{{ {}1{} }}}}", chain("(", 1_900), chain(")", 1_900)), "recursion"),
        (format!("{{% set {}a{} = 1 %}}", chain("(", 3_000), chain(")", 3_000)), "a tag has more than 4000"),
        (format!("{}{}", chain("{% if 1 %}", 9_000), chain("{% endif %}", 9_000)), "recursion"),
        (format!("{{% if a %}}{}{{% endif %}}", chain("{% elif a %}", 20_000)), "20000 `elif`"),
        (format!("{{% set a = 1 %}}{}", chain("x", 300_000)), "bytes"),
        // Depth of calls.
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}".into(), "recursion limit"),
        ("{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}".into(), ""),
        ("{% for a in [[1]] recursive %}{{ loop([[a]]) }}{% endfor %}".into(), "recursion limit"),
        ("{% block a %}{{ self.a() }}{% endblock %}".into(), ""),
        ("{% include 'chat_template' %}".into(), ""),
        ("{% extends 'chat_template' %}".into(), ""),
        ("{% import 'chat_template' as a %}".into(), ""),
        // Depth of values.
        ("{% set ns = namespace(l=[]) %}{% for i in range(99999) %}{% set ns.l = [ns.l] %}{% endfor %}".into(), deep),
        ("{% set ns = namespace(l={}) %}{% for i in range(99999) %}{% set ns.l = {'a': ns.l} %}{% endfor %}{{ ns.l | tojson }}".into(), deep),
        ("{% set ns = namespace(l=1) %}{% for i in range(99999) %}{% set ns.l = namespace(l=ns.l) %}{% endfor %}".into(), deep),
        (format!("{{% set a = 1 %}}{}", chain("{% set a = [[[[a]]]] %}", 9_000)), deep),
        // Values that hold themselves.
        ("{% set ns = namespace() %}{% set ns.a = ns %}{{ ns }}".into(), "hold itself"),
        ("{% set ns = namespace() %}{% set ns.a = [1, {'b': ns}] %}{{ ns | tojson }}".into(), "hold itself"),
        ("{% set a = namespace() %}{% set b = namespace(a=a) %}{% set a.b = b %}{{ a ~ 'x' }}".into(), "hold itself"),
        ("{% set a = namespace() %}{% set a.b = namespace() %}{% set a.b.c = a %}{{ a == a.b }}".into(), "hold itself"),
        ("{% set ns = namespace() %}{% set ns.a, b = ns, 1 %}{{ [ns] | join }}".into(), "hold itself"),
        ("{% set ns = namespace() %}{% set ns.a | default(ns, true) %}{% endset %}{{ ns }}".into(), "hold itself"),
        ("{% set ns = namespace() %}{% set ns.a = [ns] + range(1) %}{{ ns }}".into(), "hold itself"),
        ("{% set ns = namespace() %}{% for i in [1, 2, ns] %}{% if loop.first %}{% set ns.l = loop %}{% endif %}{% endfor %}{{ ns | tojson }}".into(), "`loop` cannot be kept"),
    ];
    let mut wrong = Vec::new();
    for (source, expected) in cases {
        let start: String = source.chars().take(100).collect();
        let began = std::time::Instant::now();
        match outcome(&source) {
            Ok(text) => wrong.push(format!("{start}: {} bytes", text.len())),
            Err(error) => {
                let error = error.to_string();
                if !error.contains(expected) || error.contains('\n') || error.len() > 300 {
                    wrong.push(format!("{start}: {error}"));
                }
            }
        }
        // Not a measurement: what has no bound runs for minutes, and for hours under an emulator.
        let patience = if std::env::var_os("RLT_TEST_EMULATED").is_some() { 600 } else { 10 };
        if began.elapsed().as_secs() >= patience {
            wrong.push(format!("{start}: {:?}", began.elapsed()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The bounds are far from what templates do.
#[test]
fn ordinary_templates_stay_within_bounds() {
    let turns = 2_000;
    let long: Vec<Message> =
        (0..turns).map(|i| message(["user", "assistant"][i % 2], &"word ".repeat(100))).collect();
    let Some(folder) = shared("data/chat_templates") else { return };
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let source = std::fs::read_to_string(&path).expect("a template");
        let tokens = json!({"bos_token": "<s>", "eos_token": "</s>"}).as_object().cloned();
        let template = ChatTemplate::from_source(&source, tokens.expect("an object")).expect("parses");
        let text = template.render(&long, true).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert!(text.len() > turns * 400, "{}", path.display());
    }
    assert_eq!(
        outcome("{% set ns = namespace(a=[1]) %}{% set ns.b = [ns.a, {'c': ns.a}] %}{{ ns.b }}")
            .expect("renders"),
        "[[1], {'c': [1]}]"
    );
    assert_eq!(outcome("{{ ('x' ~ '\\n') * 1000 | int }}").expect("renders").len(), 2_000);
}
