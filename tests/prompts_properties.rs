//! Chat formatting as a contract, on real rows and real tokenizers: what is encoded is what the chat
//! template renders, prompts are prefixes, spans cover exactly their text.

use std::path::{Path, PathBuf};

use rlt::config::DataConfig;
use rlt::dataset::{QuestionRow, read_questions};
use rlt::prompts::{ChatText, PromptStyle, Think};
use rlt_model::chat_template::Message;

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data");

/// A model's text side.
struct Fixture {
    chat: ChatText,
    /// Whether the ids hold the whole text (the `tiny` tokenizer drops white space and rare characters).
    lossless: bool,
}

impl Fixture {
    /// `text` as it comes back from its ids.
    fn seen(&self, text: &str) -> String {
        let back = self.chat.tokenizer.decode(&self.chat.tokenizer.encode(text).unwrap());
        assert!(!self.lossless || back == text);
        back
    }
}

/// Every tokenizer with every row that has a thought; `None` when the data is absent.
#[expect(clippy::print_stdout, reason = "says why nothing was checked")]
fn fixtures() -> Option<(Vec<Fixture>, Vec<QuestionRow>)> {
    let data = Path::new(DATA);
    if !data.exists() {
        println!("skipped: ../shared is absent");
        return None;
    }
    let fixture =
        |dir: &str, lossless| Fixture { chat: ChatText::from_dir(&data.join(dir)).unwrap(), lossless };
    let fixtures = vec![
        fixture("tokenizers/tiny", false),
        fixture("tokenizers/qwen2.5", true),
        fixture("../oracle/student", true),
    ];
    let read = |path: PathBuf, reasoning_trace: &str| {
        let config = DataConfig {
            path,
            reasoning_trace: reasoning_trace.into(),
            max_rows: 8,
            ..DataConfig::default()
        };
        read_questions(&config).unwrap()
    };
    let rows = [
        read(data.join("traces/s1k_5rows.jsonl"), "gemini_thinking_trajectory"),
        read(data.join("traces/skyt1_sharegpt.jsonl"), ""),
    ]
    .concat();
    assert_eq!(rows.len(), 13);
    Some((fixtures, rows))
}

fn every_style(fixtures: &[Fixture]) -> impl Iterator<Item = (&Fixture, &'static PromptStyle)> {
    fixtures.iter().flat_map(|fixture| PromptStyle::built_in().map(move |style| (fixture, style)))
}

/// What the template itself makes of the three turns.
fn rendered(chat: &ChatText, system: &str, user: &str, assistant: &str) -> String {
    let turn = |role: &str, content: &str| Message { role: role.into(), content: content.into() };
    let turns = [turn("system", system), turn("user", user), turn("assistant", assistant)];
    chat.template.render(&turns, false).unwrap()
}

#[test]
fn teacher_examples_are_the_rendered_text_after_the_prompt() {
    let Some((fixtures, rows)) = fixtures() else { return };
    for (fixture, style) in every_style(&fixtures) {
        let chat = &fixture.chat;
        for row in &rows {
            let thought = row.reasoning_trace.as_ref().unwrap().trim();
            let explanation = format!("{thought}{}{}", style.padding, style.end_of_explanation);
            let prompt = style.teacher_prompt(chat, row).unwrap();
            let example = style.teacher_example(chat, row).unwrap();
            let [targets] = &example.loss[..] else { panic!("one span") };

            let turn = format!(
                "{}{}{}{}{}{}{explanation}",
                style.begin_of_solution,
                row.solution,
                style.end_of_solution,
                style.delimiter,
                style.begin_of_explanation,
                style.padding
            );
            let text = rendered(chat, &style.teacher_system, &row.question, &turn);
            assert_eq!(example.ids, chat.tokenizer.encode(&text).unwrap());
            assert_eq!(chat.tokenizer.decode(&example.ids), fixture.seen(&text));
            assert_eq!(example.ids[..targets.start], prompt);
            assert_eq!(
                chat.tokenizer.decode(&example.ids[targets.clone()]),
                fixture.seen(&format!("{explanation}{}", chat.turn_end()))
            );
            assert_eq!(targets.end, example.ids.len());
        }
    }
}

#[test]
fn student_examples_are_the_rendered_text_after_the_question() {
    let Some((fixtures, rows)) = fixtures() else { return };
    for (fixture, style) in every_style(&fixtures) {
        let chat = &fixture.chat;
        for row in &rows {
            let answer = style.student_answer(row.reasoning_trace.as_ref().unwrap(), &row.solution);
            let prompt = style.student_question_prompt(chat, row).unwrap();
            let example = style.student_example(chat, row).unwrap();
            let [targets] = &example.loss[..] else { panic!("one span") };
            let text = rendered(chat, &style.student_system, &row.question, &answer);
            assert_eq!(example.ids, chat.tokenizer.encode(&text).unwrap());
            assert_eq!(chat.tokenizer.decode(&example.ids), fixture.seen(&text));
            assert_eq!(example.ids[..targets.start], prompt);
            let (thought, solution) = style.split_answer(&answer).unwrap();
            assert_eq!(thought.trim(), row.reasoning_trace.as_ref().unwrap().trim());
            if style.begin_of_solution.is_empty() {
                // Without a tag, white space around a solution is not told from what parts it from the thought.
                assert_eq!(solution.trim(), row.solution.trim());
            } else {
                assert_eq!(solution, row.solution);
            }
        }
    }
}

#[test]
fn scored_sequences_are_the_rendered_text_and_their_spans_cover_it() {
    let Some((fixtures, rows)) = fixtures() else { return };
    // Offsets mean nothing for a tokenizer that drops characters.
    for (fixture, style) in every_style(&fixtures).filter(|(fixture, _)| fixture.lossless) {
        let chat = &fixture.chat;
        for row in &rows {
            let completion = style.close_explanation(row.reasoning_trace.as_ref().unwrap().trim());
            let (explanation, closed) = style.split_explanation(&completion);
            let prompt = style.teacher_prompt_text(chat, row).unwrap();
            let end_tag = &style.end_of_explanation;
            let (prefix, think) = Think::from_text(chat, end_tag, &prompt, &completion).unwrap();
            assert!(closed && think.closed);

            let sequence = style.student_sequence(chat, row, &think).unwrap();
            let turn = format!(
                "{}{}{explanation}{}{}{}{}{}",
                style.begin_of_thought,
                style.padding,
                style.end_of_thought,
                style.delimiter,
                style.begin_of_solution,
                row.solution,
                style.end_of_solution
            );
            let text = rendered(chat, &style.student_system, &row.question, &turn);
            let ids = [sequence.prefix.as_slice(), &sequence.continuation()].concat();
            assert_eq!(chat.tokenizer.decode(&ids), text);
            assert_eq!(ids, chat.tokenizer.encode(&text).unwrap());

            let decode =
                |range: std::ops::Range<usize>| chat.tokenizer.decode(&sequence.continuation()[range]);
            assert_eq!(format!("{}{}{}", think.lead, decode(sequence.think()), think.tail), explanation);
            let solution = decode(sequence.solution.clone());
            assert!(row.solution.contains(&solution));
            let core = |text: &str| text.trim_matches(|c: char| !c.is_alphanumeric()).to_owned();
            assert_eq!(core(&solution), core(&row.solution));

            // The same completion as a sampler that follows the tokenizer would give it.
            let whole = chat.tokenizer.encode(&format!("{prompt}{completion}")).unwrap();
            let sampled = Think::from_sampled(&chat.tokenizer, end_tag, &whole[prefix.len()..]);
            assert_eq!(sampled, think);
        }
    }
}
