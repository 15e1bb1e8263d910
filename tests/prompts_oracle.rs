//! Sequences and spans of the official scorer's cases.

use std::path::Path;

use rlt::Error;
use rlt::config::{Config, DataConfig};
use rlt::dataset::{read_records, traces_of};
use rlt::prompts::{ChatText, PromptStyle, Think};
use serde_json::Value;

const ORACLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/oracle");

/// Token counts equal the official ones where those are truth, and the student's ids are the ones the
/// tokenizer gives the student's whole text.
#[test]
#[expect(clippy::print_stdout, reason = "says why nothing was checked")]
fn text_only_traces_have_the_official_spans() {
    let oracle = Path::new(ORACLE);
    if !oracle.exists() {
        println!("skipped: ../shared is absent");
        return;
    }
    let settings = std::fs::read_to_string(oracle.join("score.toml")).unwrap();
    let config: Config = toml::from_str(&settings).unwrap();
    let style = PromptStyle::resolve(&config.prompts).unwrap();
    let chat = ChatText::from_dir(&oracle.join("student")).unwrap();
    let data = DataConfig { path: oracle.join("cases.jsonl"), ..DataConfig::default() };
    let records = read_records(&data.path, 0).unwrap();
    let expected = std::fs::read_to_string(oracle.join("expected.jsonl")).unwrap();
    let (mut n_clean, mut without_solution) = (0, Vec::new());
    for (record, line) in records.iter().zip(expected.lines()) {
        let case: Value = serde_json::from_str(line).unwrap();
        let id = case["id"].as_str().unwrap();
        let trace = match traces_of(record, &data, &style) {
            Ok(mut traces) => traces.remove(0),
            Err(Error::Gap { .. }) => {
                without_solution.push(id.to_owned());
                continue;
            }
            Err(error) => panic!("{id}: {error}"),
        };
        assert_eq!(trace.question.columns["id"], id);
        let prompt = style.teacher_prompt_text(&chat, &trace.question).unwrap();
        let (teacher_prefix, think) =
            Think::from_text(&chat, &style.end_of_explanation, &prompt, &trace.completion).unwrap();
        let student = style.student_sequence(&chat, &trace.question, &think).unwrap();
        let student_question = style.student_question_text(&chat, &trace.question).unwrap();
        let student_parts: [&str; 10] = [
            &student_question,
            &style.begin_of_thought,
            &style.padding,
            &trace.explanation,
            &style.end_of_thought,
            &style.delimiter,
            &style.begin_of_solution,
            &trace.question.solution,
            &style.end_of_solution,
            chat.turn_end(),
        ];
        let student_text = student_parts.concat();

        let ids = [student.prefix.as_slice(), &student.continuation()].concat();
        // The tokenizer composes what this case writes decomposed (NFC).
        if id != "34-uni-nfd" {
            assert_eq!(chat.tokenizer.decode(&ids), student_text, "{id}: the student's text");
            let read = chat.tokenizer.decode(&[&teacher_prefix[..], &think.ids].concat());
            assert!(format!("{prompt}{}", trace.completion).starts_with(&read), "{id}: the teacher's text");
        }
        assert_eq!(ids, chat.tokenizer.encode(&student_text).unwrap(), "{id}: the student's ids");
        if case["clean"] == true {
            let counts = [student.thought.len(), student.solution.len()].map(Value::from);
            assert_eq!(counts, [case["n_think"].clone(), case["n_solution"].clone()], "{id}");
            n_clean += 1;
        }
    }
    assert_eq!(n_clean, 29);
    // White space is no solution; the official scorer fails there.
    assert_eq!(without_solution, ["72-sol-newlines-only"]);
}
