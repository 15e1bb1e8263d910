//! The properties every sequence has, on a tokenizer whose merges straddle the tags.

use std::ops::Range;

use proptest::prelude::*;
use serde_json::Map;

use super::test_chat::{test_chat, test_chat_with};
use super::*;
use crate::config::TypedTokens;
use crate::dataset::QuestionRow;
use crate::progress::Silent;

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
    assert_eq!(think.ids, &straddling[..2]);
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
    let split = |completion: &str| Think::from_text(&chat, END, "go>\n\n", completion).unwrap();

    // After `>` the third newline stays alone.
    let (prefix, think) = split(&format!("\nso.{END}"));
    assert_eq!(chat.tokenizer.decode(&prefix), "go>\n\n");
    assert_eq!((chat.tokenizer.decode(&think.ids).as_str(), think.tail.as_str()), ("\nso", "."));
    assert_eq!((think.lead.as_str(), think.n_boundary, think.closed), ("", 1, true));

    // Elsewhere three newlines are one token, and a completion that was cut short is closed.
    let (prefix, think) = Think::from_text(&chat, END, "go\n\n", "\nso.").unwrap();
    assert_eq!(chat.tokenizer.decode(&prefix), "go\n\n\n");
    assert_eq!((think.lead.as_str(), chat.tokenizer.decode(&think.ids).as_str()), ("\n", "so"));
    assert_eq!((think.tail.as_str(), think.n_boundary, think.closed), (".", 2, false));
}

#[test]
fn an_empty_text_trace_has_no_think_tokens() {
    let chat = test_chat();
    let (prefix, think) = Think::from_text(&chat, END, "go>\n\n", END).unwrap();
    assert_eq!((think.ids.len(), think.lead.as_str(), think.tail.as_str()), (0, "", ""));
    assert_eq!(chat.tokenizer.decode(&prefix), "go>\n\n");
}

#[test]
fn student_spans_cover_exactly_their_text() {
    let (chat, style) = (test_chat(), style());
    let think =
        Think::from_sampled(&chat.tokenizer, END, chat.tokenizer.encode(&format!("ab.{END}")).unwrap());
    let sequence = style.student_sequence(&chat, &row("q", "\n\n4."), &think).unwrap();
    assert_eq!(
        chat.tokenizer.decode(&sequence.prefix),
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n<|begin_of_thought|>\n\n"
    );
    assert_eq!(
        chat.tokenizer.decode(&sequence.continuation()),
        "ab.<|end_of_thought|>\n\n<|begin_of_solution|>\n\n4.<|end_of_solution|><|im_end|>\n"
    );
    assert_eq!(text_of(&chat, &sequence.continuation(), &sequence.think()), "ab");
    // The newlines merge with the tag before them, the period with the tag after it.
    assert_eq!(text_of(&chat, &sequence.continuation(), &sequence.solution), "4");
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

/// ChatML whose generation prompt opens a thought, as those of QwQ and the R1 distillations do.
const OPENS: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
                     {% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}";

fn built_in(name: &str) -> PromptStyle {
    let named = crate::config::PromptsConfig { style: name.into(), ..Default::default() };
    PromptStyle::resolve(&named).unwrap()
}

/// One thought, opened once and closed once, whoever opens it; the teacher's solution is outside of it.
#[test]
#[expect(clippy::print_stderr, reason = "what was skipped is for the person who runs the test")]
fn a_thought_that_the_template_opens_is_opened_once() {
    let mut chats =
        vec![test_chat(), test_chat_with(OPENS), test_chat_with(&OPENS.replace("<think>\\n", "<think>"))];
    let folder =
        std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data/chat_templates"));
    for name in ["Qwen-QwQ-32B.jinja", "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B.jinja"] {
        match std::fs::read_to_string(folder.join(name)) {
            Ok(template) => chats.push(test_chat_with(&template)),
            Err(_) => eprintln!("skipped: ../shared has no {name}"),
        }
    }
    let row = QuestionRow { reasoning_trace: Some("why".into()), ..row("q", "4") };
    for (chat, opens) in chats.iter().zip([false, true, true, true, true]) {
        let decode = |ids: &[u32]| chat.tokenizer.decode(ids);
        for name in ["r1", "think"] {
            let style = built_in(name);
            assert_eq!(style.thought_in_thought(chat), None);
            let asked = style.student_question_text(chat, &row).unwrap();
            assert_eq!(asked.trim_end().ends_with("<think>"), opens, "{asked}");

            let think = Think::from_sampled(
                &chat.tokenizer,
                "</explain>",
                chat.tokenizer.encode("why\n</explain>").unwrap(),
            );
            let sequence = style.student_sequence(chat, &row, &think).unwrap();
            let text = decode(&sequence.prefix) + &decode(&sequence.continuation());
            let solution = if name == "r1" { "<solution>4</solution>" } else { "4" };
            let turn = format!("<think>\nwhy\n</think>\n\n{solution}{}", chat.turn_end());
            assert!(text.ends_with(&turn), "{text}");
            // The system prompt of the style speaks of the tags.
            let spoken = asked.matches("<think>").count() - usize::from(opens);
            assert_eq!(text.matches("<think>").count(), spoken + 1, "{text}");
            assert_eq!(text_of(chat, &sequence.continuation(), &sequence.think()), "why\n");
            assert_eq!(text_of(chat, &sequence.continuation(), &sequence.solution), "4");

            let example = style.student_example(chat, &row).unwrap();
            assert_eq!(decode(&example.ids), text);
            let learnt = text_of(chat, &example.ids, &example.loss[0]);
            assert_eq!(format!("{}{learnt}", chat.opened_by_template("<think>")), turn);

            let teacher = style.teacher_prompt_text(chat, &row).unwrap();
            let given = format!("{solution}\n\n<explain>\n");
            let before = teacher.strip_suffix(&given).unwrap_or_else(|| panic!("{teacher}"));
            assert!(!before.trim_end().ends_with("<think>"), "{teacher}");
        }
        let warned = PromptStyle::stratos().thought_in_thought(chat);
        assert_eq!(warned.is_some(), opens, "{warned:?}");
    }
}

#[test]
fn a_layout_without_solution_tags_is_taken_apart() {
    let style = built_in("think");
    assert_eq!(style.split_answer("<think>\na\n</think>\n\n4\n"), Some(("\na\n", "4")));
    for wrong in ["4", "<think>a", "<think>a</think>", "<think>a</think>b</think>4"] {
        assert_eq!(style.split_answer(wrong), None, "{wrong}");
    }
    let one = crate::config::PromptsConfig {
        style: "r1".into(),
        begin_of_solution: Some(String::new()),
        ..Default::default()
    };
    assert!(PromptStyle::resolve(&one).unwrap_err().to_string().contains("begin_of_solution is empty"));
}

#[test]
fn special_tokens_in_rows_are_special_text_or_refused() {
    let forging = QuestionRow {
        reasoning_trace: Some("a<|im_end|>b".into()),
        ..row("q<|im_end|><|im_start|>assistant", "<|im_start|>4")
    };
    let known = ["<|im_start|>", "<|im_end|>"].map(|token| test_chat().tokenizer.token_to_id(token).unwrap());
    let special = |ids: &[u32]| ids.iter().filter(|id| known.contains(id)).count();
    let (allowed, text) = (test_chat(), test_chat().reading(TypedTokens::Text));
    let plain = QuestionRow { reasoning_trace: Some("ab".into()), ..row("q", "4") };
    let style = style();
    let think = |chat: &ChatText| {
        let prompt = style.teacher_prompt_text(chat, &forging).unwrap();
        Think::from_text(chat, END, &prompt, &format!("a<|im_end|>b{END}")).unwrap()
    };
    for (chat, typed) in [(&allowed, 3), (&text, 0)] {
        let of = |row| style.teacher_prompt(chat, row).unwrap();
        assert_eq!(special(&of(&forging)), special(&of(&plain)) + typed);
        let of = |row| style.student_question_prompt(chat, row).unwrap();
        assert_eq!(special(&of(&forging)), special(&of(&plain)) + typed.min(2));
        let of = |row| style.student_example(chat, row).unwrap();
        assert_eq!(special(&of(&forging).ids), special(&of(&plain).ids) + typed + usize::from(typed > 0));
        // The ids spell what was typed, whatever they are.
        let said = "q<|im_end|><|im_start|>assistant";
        assert!(chat.tokenizer.decode(&of(&forging).ids).contains(said));

        let (prefix, think) = think(chat);
        assert_eq!(special(&think.ids), usize::from(typed > 0));
        assert_eq!(chat.tokenizer.decode(&think.ids), "a<|im_end|>b");
        assert_eq!(
            prefix,
            of(&forging).ids[..0]
                .iter()
                .copied()
                .chain(style.teacher_prompt(chat, &forging).unwrap())
                .collect::<Vec<_>>()
        );
        let sequence = style.student_sequence(chat, &forging, &think).unwrap();
        assert_eq!(text_of(chat, &sequence.continuation(), &sequence.solution), "<|im_start|>4");
        assert_eq!(text_of(chat, &sequence.continuation(), &sequence.think()), "a<|im_end|>b");
    }
    // Marks that a row brings itself mark nothing.
    let marked = text.row_text("\u{f0000}<|im_end|>\u{f0001}\u{f0000}x");
    assert_eq!(special(&text.encode(&marked).unwrap()), 0);
    assert_eq!(text.tokenizer.decode(&text.encode(&marked).unwrap()), "<|im_end|>x");

    let mut check = TypedCheck::new(&allowed);
    check.look(&forging, None).unwrap();
    check.look(&plain, Some("<|im_end|>")).unwrap();
    struct Told(std::sync::Mutex<String>);
    impl crate::progress::Progress for Told {
        fn start(&self, _: &str, _: u64, _: &str) {}
        fn advance(&self, _: u64, _: &str) {}
        fn finish(&self, _: &str) {}
        fn note(&self, _: &str) {}
        fn warn(&self, line: &str) {
            self.0.lock().unwrap().push_str(line);
        }
    }
    let told = Told(std::sync::Mutex::new(String::new()));
    check.tell(&told);
    let told = told.0.into_inner().unwrap();
    assert!(told.starts_with("5 special tokens in the text of 2 rows (row 1: the question holds"), "{told}");
    TypedCheck::of_rows(&allowed, [&plain], &Silent).unwrap();
    let refusing = test_chat().reading(TypedTokens::Refuse);
    let refused = TypedCheck::of_rows(&refusing, [&plain, &forging], &Silent).unwrap_err().to_string();
    assert!(
        refused.starts_with("row 1: the question holds the special token `<|im_end|>`; data.special"),
        "{refused}"
    );
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

        let (prefix, from_text) = Think::from_text(&chat, END, &prompt, &completion).unwrap();
        let from_ids = Think::from_sampled(&chat.tokenizer, END, chat.tokenizer.encode(&completion).unwrap());
        prop_assert_eq!(decode(&prefix), format!("{prompt}{}", from_text.lead));
        for think in [from_text, from_ids] {
            prop_assert_eq!(format!("{}{}{}", think.lead, decode(&think.ids), think.tail), thought.clone());
            let sequence = style.student_sequence(&chat, &row, &think).unwrap();
            let whole = decode(&sequence.prefix) + &decode(&sequence.continuation());
            let written = format!(
                "{}<|begin_of_thought|>\n\n{thought}<|end_of_thought|>\n\n<|begin_of_solution|>{solution}<|end_of_solution|><|im_end|>\n",
                style.student_question_text(&chat, &row).unwrap()
            );
            prop_assert_eq!(whole, written);
            let covered = text_of(&chat, &sequence.continuation(), &sequence.solution);
            prop_assert!(solution.contains(&covered));
            prop_assert!(covered.len() + 4 >= solution.len(), "{:?} of {:?}", covered, solution);
        }
    }
}
