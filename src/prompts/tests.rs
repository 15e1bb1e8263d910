//! The properties every sequence has, on a tokenizer whose merges straddle the tags.

use std::ops::Range;

use proptest::prelude::*;
use serde_json::Map;

use super::test_chat::test_chat;
use super::*;
use crate::dataset::QuestionRow;

fn row(question: &str, solution: &str) -> QuestionRow {
    QuestionRow {
        question: question.into(),
        solution: solution.into(),
        reasoning_trace: None,
        system: None,
        columns: Map::new(),
        row: 1,
    }
}

fn style() -> PromptStyle {
    PromptStyle { teacher_system: "T".into(), student_system: "S".into(), ..PromptStyle::stratos().clone() }
}

const END: &str = "<|end_of_explanation|>";

fn text_of(chat: &ChatText, ids: &[u32], range: &Range<usize>) -> String {
    chat.tokenizer.decode(&ids[range.clone()])
}

#[test]
fn the_turn_end_is_what_the_template_writes() {
    let chat = test_chat();
    assert_eq!(chat.turn_end(), "<|im_end|>\n");
    assert_eq!(chat.prompt("", "q").unwrap(), "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n");
}

#[test]
fn a_teacher_prompt_ends_with_the_padding() {
    let (chat, style) = (test_chat(), style());
    let ids = style.teacher_prompt(&chat, &row("q", "4")).unwrap();
    assert_eq!(
        chat.tokenizer.decode(&ids),
        "<|im_start|>system\nT<|im_end|>\n<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n\
         <|begin_of_solution|>4<|end_of_solution|>\n\n<|begin_of_explanation|>\n\n"
    );
}

#[test]
fn sampled_tokens_are_kept_and_a_straddling_one_is_cut() {
    let chat = test_chat();
    let split = |ids: &[u32]| Think::from_sampled(&chat.tokenizer, END, ids);
    let encode = |text: &str| chat.tokenizer.encode(text).unwrap();

    let straddling = encode(&format!("ab.{END}\nmore{END}"));
    let think = split(&straddling);
    assert_eq!(think.ids, straddling[..2]);
    assert_eq!((think.tail.as_str(), think.n_boundary, think.closed), (".", 1, true));

    // The sampler wrote two newlines where the tokenizer writes one token.
    let newline = u32::from(b'\n');
    let think = split(&[&[newline, newline][..], &encode(END)].concat());
    assert_eq!(think.ids, [newline, newline]);
    assert_eq!((think.tail.as_str(), think.n_boundary), ("", 0));

    let think = split(&encode("é <|end_of"));
    assert_eq!((think.ids.len(), think.tail.as_str(), think.closed), (11, "", false));
    assert!(split(&encode(END)).ids.is_empty());
    // An id that the tokenizer does not use has no text, but was sampled.
    let unused = split(&[&[9999], &straddling[..]].concat());
    assert_eq!((unused.ids.len(), unused.ids[0], unused.tail.as_str(), unused.closed), (3, 9999, ".", true));
}

#[test]
fn a_text_trace_is_encoded_with_its_prompt() {
    let chat = test_chat();
    let split = |completion: &str| Think::from_text(&chat.tokenizer, END, "go>\n\n", completion).unwrap();

    // After `>` the third newline stays alone.
    let (prefix, think) = split(&format!("\nso.{END}"));
    assert_eq!(chat.tokenizer.decode(&prefix), "go>\n\n");
    assert_eq!((chat.tokenizer.decode(&think.ids).as_str(), think.tail.as_str()), ("\nso", "."));
    assert_eq!((think.lead.as_str(), think.n_boundary, think.closed), ("", 1, true));

    // Elsewhere three newlines are one token, and a completion that was cut short is closed.
    let (prefix, think) = Think::from_text(&chat.tokenizer, END, "go\n\n", "\nso.").unwrap();
    assert_eq!(chat.tokenizer.decode(&prefix), "go\n\n\n");
    assert_eq!((think.lead.as_str(), chat.tokenizer.decode(&think.ids).as_str()), ("\n", "so"));
    assert_eq!((think.tail.as_str(), think.n_boundary, think.closed), (".", 2, false));
}

#[test]
fn an_empty_text_trace_has_no_think_tokens() {
    let chat = test_chat();
    let (prefix, think) = Think::from_text(&chat.tokenizer, END, "go>\n\n", END).unwrap();
    assert_eq!((think.ids.len(), think.lead.as_str(), think.tail.as_str()), (0, "", ""));
    assert_eq!(chat.tokenizer.decode(&prefix), "go>\n\n");
}

#[test]
fn student_spans_cover_exactly_their_text() {
    let (chat, style) = (test_chat(), style());
    let think =
        Think::from_sampled(&chat.tokenizer, END, &chat.tokenizer.encode(&format!("ab.{END}")).unwrap());
    let sequence = style.student_sequence(&chat, &row("q", "\n\n4."), &think).unwrap();
    assert_eq!(
        chat.tokenizer.decode(&sequence.prefix),
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n<|begin_of_thought|>\n\n"
    );
    assert_eq!(
        chat.tokenizer.decode(&sequence.continuation),
        "ab.<|end_of_thought|>\n\n<|begin_of_solution|>\n\n4.<|end_of_solution|><|im_end|>\n"
    );
    assert_eq!(text_of(&chat, &sequence.continuation, &sequence.think), "ab");
    // The newlines merge with the tag before them, the period with the tag after it.
    assert_eq!(text_of(&chat, &sequence.continuation, &sequence.solution), "4");
    assert_eq!(sequence.n_boundary, 1);

    let swallowed = style.student_sequence(&chat, &row("q", "\n\n"), &think).unwrap();
    assert!(swallowed.solution.is_empty());
}

#[test]
fn a_row_may_bring_its_own_student_system() {
    let (chat, style) = (test_chat(), style());
    let own = QuestionRow { system: Some("mine".into()), ..row("q", "4") };
    assert!(style.student_question_text(&chat, &own).unwrap().starts_with("<|im_start|>system\nmine<"));
    assert!(style.teacher_prompt_text(&chat, &own).unwrap().starts_with("<|im_start|>system\nT<"));
}

#[test]
fn examples_count_what_the_model_must_write() {
    let (chat, style) = (test_chat(), style());
    let row = QuestionRow { reasoning_trace: Some("\n\nwhy\n".into()), ..row("q", "4") };
    let teacher = style.teacher_example(&chat, &row).unwrap();
    assert_eq!(text_of(&chat, &teacher.ids, &teacher.loss[0]), "why\n\n<|end_of_explanation|><|im_end|>\n");
    assert_eq!(teacher.ids[..teacher.loss[0].start], style.teacher_prompt(&chat, &row).unwrap());

    let student = style.student_example(&chat, &row).unwrap();
    assert_eq!(
        text_of(&chat, &student.ids, &student.loss[0]),
        "<|begin_of_thought|>\n\nwhy\n\n<|end_of_thought|>\n\n<|begin_of_solution|>4<|end_of_solution|><|im_end|>\n"
    );
    assert_eq!(student.ids[..student.loss[0].start], style.student_question_prompt(&chat, &row).unwrap());

    let error = style.teacher_example(&chat, &QuestionRow { reasoning_trace: None, ..row }).unwrap_err();
    assert!(error.to_string().starts_with("row 1: no reasoning trace"));

    let text = text_example(&chat.tokenizer, "abc").unwrap();
    assert_eq!((text.ids.len(), &text.loss[0]), (3, &(1..3)));
    assert!(text_example(&chat.tokenizer, "a").is_err());
}

proptest! {
    /// Whatever the text: prompt ++ think is a prefix of the text, the student reads the thought once and
    /// whole, and the spans lie inside their texts.
    #[test]
    fn every_text_is_read_once(thought in "[ab.<>\n é]{0,12}", solution in "[4.<>\n é]{1,8}") {
        let (chat, style) = (test_chat(), style());
        let row = row("q", &solution);
        let decode = |ids: &[u32]| chat.tokenizer.decode(ids);
        let prompt = style.teacher_prompt_text(&chat, &row).unwrap();
        let completion = format!("{thought}{END}");

        let (prefix, from_text) = Think::from_text(&chat.tokenizer, END, &prompt, &completion).unwrap();
        let from_ids = Think::from_sampled(&chat.tokenizer, END, &chat.tokenizer.encode(&completion).unwrap());
        prop_assert_eq!(decode(&prefix), format!("{prompt}{}", from_text.lead));
        for think in [from_text, from_ids] {
            prop_assert_eq!(format!("{}{}{}", think.lead, decode(&think.ids), think.tail), thought.clone());
            let sequence = style.student_sequence(&chat, &row, &think).unwrap();
            let whole = decode(&sequence.prefix) + &decode(&sequence.continuation);
            let written = format!(
                "{}<|begin_of_thought|>\n\n{thought}<|end_of_thought|>\n\n<|begin_of_solution|>{solution}<|end_of_solution|><|im_end|>\n",
                style.student_question_text(&chat, &row).unwrap()
            );
            prop_assert_eq!(whole, written);
            let covered = text_of(&chat, &sequence.continuation, &sequence.solution);
            prop_assert!(solution.contains(&covered));
            prop_assert!(covered.len() + 4 >= solution.len(), "{:?} of {:?}", covered, solution);
        }
    }
}
