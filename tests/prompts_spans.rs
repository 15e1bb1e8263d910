//! Spans hold exactly the think and the solution text: on every row of the real data, and on random
//! unicode with tags inside, with a real tokenizer.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use proptest::prelude::*;
use rlt::config::DataConfig;
use rlt::dataset::{QuestionRow, read_questions};
use rlt::prompts::{ChatText, PromptStyle, Think};
use serde_json::Map;

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data");

static CHAT: LazyLock<Option<ChatText>> = LazyLock::new(|| {
    let folder = Path::new(DATA).join("tokenizers/qwen2.5");
    folder.exists().then(|| ChatText::from_dir(&folder).unwrap())
});

#[expect(clippy::print_stdout, reason = "says what was checked")]
fn tell(line: &str) {
    println!("{line}");
}

/// `Err` when the span is not made of exactly the tokens that lie wholly inside `text`, a byte range of what
/// `ids` spell.
fn exact(chat: &ChatText, ids: &[u32], span: &Range<usize>, text: &Range<usize>) -> Result<(), String> {
    let mut end = 0;
    let mut inside = Vec::new();
    for (i, &id) in ids.iter().enumerate() {
        let start = end;
        end += chat.tokenizer.token_bytes(id).unwrap().len();
        if start >= text.start && end <= text.end && end > start {
            inside.push(i);
        }
    }
    let found = inside.first().map_or(span.start..span.start, |&first| first..inside[inside.len() - 1] + 1);
    (found == *span).then_some(()).ok_or(format!("span {span:?}, but the tokens inside are {found:?}"))
}

/// Everything that must hold of a completion; `row` and `completion` are as the tokenizer normalises them.
fn check(chat: &ChatText, style: &PromptStyle, row: &QuestionRow, completion: &str) -> Result<(), String> {
    let decode = |ids: &[u32]| chat.tokenizer.decode(ids);
    let same = |ours: &str, text: &str, what: &str| {
        (ours == text).then_some(()).ok_or_else(|| format!("{what}: {ours:?} instead of {text:?}"))
    };
    let (explanation, closed) = style.split_explanation(completion);
    let prompt = style.teacher_prompt_text(chat, row).unwrap();
    let (prefix, from_text) =
        Think::from_text(&chat.tokenizer, &style.end_of_explanation, &prompt, completion).unwrap();
    same(&decode(&prefix), &format!("{prompt}{}", from_text.lead), "the teacher's prefix")?;
    let sampled = chat.tokenizer.encode(completion).unwrap();
    let from_ids = Think::from_sampled(&chat.tokenizer, &style.end_of_explanation, &sampled);
    for think in [from_text, from_ids] {
        if think.closed != closed {
            return Err("closed".into());
        }
        same(&format!("{}{}{}", think.lead, decode(&think.ids), think.tail), explanation, "the thought")?;
        let sequence = style.student_sequence(chat, row, &think).unwrap();
        let before =
            style.student_question_text(chat, row).unwrap() + &style.begin_of_thought + &style.padding;
        let until_solution = format!(
            "{before}{explanation}{}{}{}",
            style.end_of_thought, style.delimiter, style.begin_of_solution
        );
        let written = format!("{until_solution}{}{}{}", row.solution, style.end_of_solution, chat.turn_end());
        let ids = [sequence.prefix.as_slice(), &sequence.continuation].concat();
        same(&decode(&ids), &written, "the student's text")?;
        let shift =
            |range: &Range<usize>| sequence.prefix.len() + range.start..sequence.prefix.len() + range.end;
        let solution = until_solution.len()..until_solution.len() + row.solution.len();
        exact(chat, &ids, &shift(&sequence.solution), &solution).map_err(|e| format!("solution: {e}"))?;
        // Only a token that straddles the tag's beginning may leave think text outside the span.
        let thought = before.len()..before.len() + explanation.len() - think.tail.len();
        if think.lead.is_empty() {
            exact(chat, &ids, &shift(&sequence.think), &thought).map_err(|e| format!("think: {e}"))?;
        }
        if think.tail.len() > 8 && think.n_boundary == 0 {
            return Err(format!("tail {:?}", think.tail));
        }
    }
    Ok(())
}

#[test]
fn spans_are_exact_on_every_row_of_the_real_data() {
    let Some(chat) = CHAT.as_ref() else { return tell("skipped: ../shared is absent") };
    let read = |file: &str, solution: &str, trace: &str| {
        let config = DataConfig {
            path: PathBuf::from(DATA).join(file),
            solution: solution.into(),
            reasoning_trace: trace.into(),
            ..DataConfig::default()
        };
        read_questions(&config).unwrap()
    };
    let rows = [
        read("traces/s1k_5rows.parquet", "solution", "gemini_thinking_trajectory"),
        read("traces/s1k_question_solution.json", "solution", "thinking"),
        read("traces/skyt1_sharegpt.jsonl", "solution", ""),
        read("traces/skyt1_32b_aime24_outputs.jsonl", "gt", "solution"),
        read("eval_outputs/math_cot_100x8.jsonl", "gt", "gt_cot"),
        read("eval/math500.jsonl", "answer", "solution"),
        read("eval/gsm8k_test.first200.jsonl", "answer", "answer"),
    ]
    .concat();
    let normal = |text: &str| chat.tokenizer.decode(&chat.tokenizer.encode(text).unwrap());
    let mut faults = Vec::new();
    for row in &rows {
        let thought = normal(row.reasoning_trace.as_deref().unwrap_or(&row.solution));
        let row =
            QuestionRow { question: normal(&row.question), solution: normal(&row.solution), ..row.clone() };
        for style in PromptStyle::built_in() {
            let completion = style.close_explanation(&thought);
            let name = || format!("{:?}", row.question.chars().take(60).collect::<String>());
            faults.extend(check(chat, style, &row, &completion).err().map(|e| format!("{}: {e}", name())));
        }
    }
    assert!(faults.is_empty(), "{} faults, first {}", faults.len(), faults[0]);
    tell(&format!("{} rows in 2 styles", rows.len()));
    assert_eq!(rows.len(), 1867);
}

/// Text that NFC leaves as it is, with tags, pieces of tags and whatever merges with them.
fn text() -> impl Strategy<Value = String> {
    let tags = PromptStyle::built_in().flat_map(PromptStyle::tags).map(str::to_owned);
    let pieces = tags.chain(
        [
            ".<",
            "<",
            "<|",
            "|>",
            ">\n",
            ".",
            "\n",
            "\n\n",
            "  ",
            "</",
            "<|im_end|>",
            "<|im_start|>",
            "\u{e9}",
            "\u{4f60}\u{597d}",
            "\u{1f469}\u{200d}\u{1f680}",
            "\u{2028}",
            "\t",
            "x = 1;",
            "\\frac{1}{2}",
            "\u{0}",
        ]
        .map(str::to_owned),
    );
    let piece = prop_oneof![
        3 => proptest::sample::select(pieces.collect::<Vec<_>>()),
        1 => "[a-zA-Z0-9 .,]{1,8}",
        1 => "[\u{3041}-\u{3096}\u{4e00}-\u{4fff}\u{1f600}-\u{1f64f}\u{430}-\u{44f}]{1,4}",
    ];
    proptest::collection::vec(piece, 0..10).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn spans_are_exact_on_random_text(question in text(), solution in text(), completion in text(), end in "[.\n]{0,2}") {
        if let Some(chat) = CHAT.as_ref() {
            let row = QuestionRow {
                question, solution, reasoning_trace: None, system: None, columns: Map::new(), row: 1,
            };
            for style in PromptStyle::built_in() {
                let completion = format!("{completion}{end}{}", style.end_of_explanation);
                let outcome = check(chat, style, &row, &completion);
                prop_assert!(outcome.is_ok(), "{:?}", outcome);
            }
        }
    }
}
