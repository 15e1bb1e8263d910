//! Spans hold exactly the think and the solution text: on every row of the real data, and on random
//! unicode with tags inside, with real tokenizers.
//!
//! The suite takes Qwen2.5's tokenizer. `RLT_ALL_TOKENIZERS=1` takes every one at hand, those that
//! `tests/parity/text_golden.py` left in the folder `RLT_TEXT_GOLDEN` as well.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use rayon::prelude::*;
use rlt::config::DataConfig;
use rlt::dataset::{QuestionRow, read_questions, read_records};
use rlt::prompts::{ChatText, PromptStyle, SftExample, Think};
use rlt_model::chat_template::ChatTemplate;
use rlt_model::tokenizer::Tokenizer;
use serde_json::{Map, Value};

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data");

static CHAT: LazyLock<Option<ChatText>> = LazyLock::new(|| {
    let folder = Path::new(DATA).join("tokenizers/qwen2.5");
    folder.exists().then(|| ChatText::from_dir(&folder).unwrap())
});

#[expect(clippy::print_stdout, reason = "says what was checked")]
fn tell(line: &str) {
    println!("{line}");
}

/// The place in the text that `ids` spell where each token begins and ends, by its bytes.
fn places(chat: &ChatText, ids: &[u32]) -> Vec<(usize, usize)> {
    let mut end = 0;
    let place = |&id: &u32| {
        let start = end;
        end += chat.tokenizer.token_bytes(id).unwrap().len();
        (start, end)
    };
    ids.iter().map(place).collect()
}

/// The tokens that lie wholly inside `text`: from the first that begins in it, up to one that reaches past its end.
fn inside(places: &[(usize, usize)], text: &Range<usize>) -> Range<usize> {
    let first = places.iter().position(|place| place.0 >= text.start).unwrap_or(places.len());
    let n = places[first..].iter().take_while(|place| place.1 <= text.end).count();
    first..first + n
}

fn same(ours: &str, text: &str, what: &str) -> Result<(), String> {
    (ours == text).then_some(()).ok_or_else(|| format!("{what}: {ours:?} instead of {text:?}"))
}

/// `Err` when the think text, which is `text` of what `ids` spell, is split in another way than the rule says: its
/// tokens are those wholly inside, lead and tail what stands before and after them, and the tokens that hold lead
/// or tail together with other text are boundary tokens.
fn check_split(chat: &ChatText, think: &Think, ids: &[u32], text: &Range<usize>) -> Result<(), String> {
    let places = places(chat, ids);
    let tokens = inside(&places, text);
    let spelled = chat.tokenizer.decode(ids);
    let first = places.get(tokens.start).map_or(text.end, |place| place.0.min(text.end));
    let last = if tokens.is_empty() { first } else { places[tokens.end - 1].1 };
    same(&think.lead, &spelled[text.start..first], "the lead")?;
    same(&think.tail, &spelled[last..text.end], "the tail")?;
    let crosses = |&&(start, end): &&(usize, usize)| {
        start < text.end && end > text.start && (start < text.start || end > text.end)
    };
    let n_boundary = places.iter().filter(crosses).count();
    if *think.ids != ids[tokens.clone()] || think.n_boundary != n_boundary {
        return Err(format!("tokens {tokens:?} and {n_boundary} boundary tokens expected: {think:?}"));
    }
    Ok(())
}

/// `Err` when an example does not spell `prompt` and `answer`, or counts other tokens than those that begin in the answer.
fn check_example(chat: &ChatText, example: &SftExample, prompt: &str, answer: &str) -> Result<(), String> {
    same(&chat.tokenizer.decode(&example.ids), &format!("{prompt}{answer}"), "the example")?;
    let begins = places(chat, &example.ids).iter().position(|place| place.0 >= prompt.len()).unwrap();
    let [counted] = &example.loss[..] else { return Err(format!("{:?} counts, not one span", example.loss)) };
    (*counted == (begins..example.ids.len()))
        .then_some(())
        .ok_or_else(|| format!("{counted:?} counts, and the answer begins at {begins}"))
}

/// Everything that must hold of a completion; `row` and `completion` are as the tokenizer normalises them. Whether
/// the thought's first characters are part of a token of the teacher's prompt.
fn check(chat: &ChatText, style: &PromptStyle, row: &QuestionRow, completion: &str) -> Result<bool, String> {
    let decode = |ids: &[u32]| chat.tokenizer.decode(ids);
    // SentencePiece puts a space before a text.
    let space = decode(&chat.tokenizer.encode("a").unwrap()).replace('a', "");
    let (explanation, closed) = style.split_explanation(completion);
    let prompt = style.teacher_prompt_text(chat, row).unwrap();
    let (prefix, from_text) = Think::from_text(chat, &style.end_of_explanation, &prompt, completion).unwrap();
    let closing = if closed { "" } else { &style.end_of_explanation };
    let text = format!("{prompt}{completion}{closing}");
    let ids = chat.tokenizer.encode(&text).unwrap();
    same(&decode(&ids), &format!("{space}{text}"), "the teacher's text")?;
    let thought = space.len() + prompt.len()..space.len() + prompt.len() + explanation.len();
    check_split(chat, &from_text, &ids, &thought).map_err(|e| format!("the teacher's thought: {e}"))?;
    if !ids.starts_with(&[prefix, from_text.ids.to_vec()].concat()) {
        return Err("what the teacher is scored on is not its text".into());
    }
    let sampled = chat.tokenizer.encode_inside(completion).unwrap().ids;
    let from_ids = Think::from_sampled(&chat.tokenizer, &style.end_of_explanation, &sampled);
    check_split(chat, &from_ids, &sampled, &(0..explanation.len())).map_err(|e| format!("sampled: {e}"))?;

    let merged = !from_text.lead.is_empty();
    for think in [from_text, from_ids] {
        if think.closed != closed {
            return Err("closed".into());
        }
        let sequence = style.student_sequence(chat, row, &think).unwrap();
        let before = format!(
            "{space}{}{}{}",
            style.student_question_text(chat, row).unwrap(),
            style.begin_of_thought,
            style.padding
        );
        let until_solution = format!(
            "{before}{explanation}{}{}{}",
            style.end_of_thought, style.delimiter, style.begin_of_solution
        );
        let written = format!("{until_solution}{}{}{}", row.solution, style.end_of_solution, chat.turn_end());
        let ids = [&sequence.prefix[..], &sequence.continuation()].concat();
        same(&decode(&ids), &written, "the student's text")?;
        let shift =
            |range: &Range<usize>| sequence.prefix.len() + range.start..sequence.prefix.len() + range.end;
        let places = places(chat, &ids);

        let solution = until_solution.len()..until_solution.len() + row.solution.len();
        let (found, expected) = (shift(&sequence.solution), inside(&places, &solution));
        if found != expected && !(found.is_empty() && expected.is_empty()) {
            return Err(format!("solution: span {found:?}, but the tokens inside are {expected:?}"));
        }
        // The think tokens are the teacher's, and spell the thought from the end of the lead to the tail.
        let span = shift(&sequence.think());
        let spelled = before.len() + think.lead.len()..before.len() + explanation.len() - think.tail.len();
        let begins = places.get(span.start).map_or(written.len(), |place| place.0);
        let ends = if span.is_empty() { begins } else { places[span.end - 1].1 };
        if ids[span.clone()] != *think.ids || (begins..ends) != spelled {
            return Err(format!("think: {span:?} spells {begins} to {ends}, not {spelled:?}"));
        }
    }
    Ok(merged)
}

/// The two training examples of a row with a thought.
fn check_examples(chat: &ChatText, style: &PromptStyle, row: &QuestionRow) -> Result<(), String> {
    let space = chat.tokenizer.decode(&chat.tokenizer.encode("a").unwrap()).replace('a', "");
    let thought = row.reasoning_trace.as_deref().unwrap().trim();
    let prompt = format!("{space}{}", style.teacher_prompt_text(chat, row).unwrap());
    let answer = format!("{thought}{}{}{}", style.padding, style.end_of_explanation, chat.turn_end());
    check_example(chat, &style.teacher_example(chat, row).unwrap(), &prompt, &answer)
        .map_err(|e| format!("teacher: {e}"))?;
    let prompt = format!("{space}{}", style.student_question_text(chat, row).unwrap());
    let answer = format!(
        "{}{}{thought}{}{}{}{}{}{}{}",
        style.begin_of_thought,
        style.padding,
        style.padding,
        style.end_of_thought,
        style.delimiter,
        style.begin_of_solution,
        row.solution,
        style.end_of_solution,
        chat.turn_end()
    );
    check_example(chat, &style.student_example(chat, row).unwrap(), &prompt, &answer)
        .map_err(|e| format!("student: {e}"))
}

/// The rows of a file that has columns for question, solution and, unless `trace` is empty, a thought.
fn questions(file: &str, solution: &str, trace: &str) -> Vec<QuestionRow> {
    let config = DataConfig {
        path: PathBuf::from(DATA).join(file),
        solution: solution.into(),
        reasoning_trace: trace.into(),
        ..DataConfig::default()
    };
    read_questions(&config).unwrap()
}

/// The rows of any other file: `row` gives question, solution and thoughts, each thought a row of its own.
fn rows(file: &str, row: impl Fn(&Map<String, Value>) -> (String, String, Vec<String>)) -> Vec<QuestionRow> {
    let mut rows = Vec::new();
    for record in read_records(&PathBuf::from(DATA).join(file), 0).unwrap() {
        let (question, solution, thoughts) = row(&record.columns);
        assert!(
            !question.is_empty() && !solution.is_empty() && !thoughts.is_empty(),
            "{file}, row {}",
            record.row
        );
        for thought in thoughts {
            rows.push(QuestionRow {
                question: question.clone(),
                solution: solution.clone(),
                reasoning_trace: Some(thought),
                system: None,
                columns: Map::new(),
                row: record.row,
            });
        }
    }
    rows
}

/// What a value says as text; the items of a list one below another.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join("\n"),
        Value::Null => panic!("a column is missing"),
        other => other.to_string(),
    }
}

/// Every file of the shared data that has questions with solutions or reasoning, with its rows.
fn real_rows() -> Vec<(&'static str, Vec<QuestionRow>)> {
    let texts = |value: &Value| value.as_array().unwrap().iter().map(text).collect::<Vec<_>>();
    let countdown = |row: &Map<String, Value>| {
        let target = text(&row["target"]);
        let question = format!("Using the numbers {}, create an equation that equals {target}.", row["nums"]);
        (question, target, vec![format!("The target is {}.", row["target"])])
    };
    let benchmark = |row: &Map<String, Value>, question: &str| {
        let answer = text(&row["answer"]);
        (text(&row[question]), answer.clone(), vec![format!("\n{answer}\n")])
    };
    vec![
        ("s1K, parquet", questions("traces/s1k_5rows.parquet", "solution", "gemini_thinking_trajectory")),
        ("s1K, jsonl", questions("traces/s1k_5rows.jsonl", "solution", "gemini_attempt")),
        ("s1K, 1000", questions("traces/s1k_question_solution.json", "solution", "thinking")),
        ("Sky-T1, conversations", questions("traces/skyt1_sharegpt.jsonl", "solution", "")),
        (
            "Sky-T1, AIME outputs' solutions",
            questions("traces/skyt1_32b_aime24_outputs.jsonl", "gt", "solution"),
        ),
        (
            "Sky-T1, AIME outputs",
            rows("traces/skyt1_32b_aime24_outputs.jsonl", |r| {
                (text(&r["question"]), text(&r["gt"]), texts(&r["code"]))
            }),
        ),
        ("SimpleRL", questions("traces/simplerl_level3to5.first300.jsonl", "answer", "target")),
        ("MATH outputs' solutions", questions("eval_outputs/math_cot_100x8.jsonl", "gt", "gt_cot")),
        (
            "MATH outputs",
            rows("eval_outputs/math_cot_100x8.jsonl", |r| {
                (text(&r["question"]), text(&r["gt"]), texts(&r["code"]))
            }),
        ),
        ("MATH-500", questions("eval/math500.jsonl", "answer", "solution")),
        ("GSM8K", questions("eval/gsm8k_test.first200.jsonl", "answer", "answer")),
        ("AIME 2024", questions("eval/aime24.jsonl", "answer", "solution")),
        ("AMC 2023", rows("eval/amc23.jsonl", |r| benchmark(r, "question"))),
        ("OlymMATH easy", rows("eval/olymmath_en_easy.jsonl", |r| benchmark(r, "problem"))),
        ("OlymMATH hard", rows("eval/olymmath_en_hard.jsonl", |r| benchmark(r, "problem"))),
        (
            "OlympiadBench",
            rows("eval/olympiadbench.first100.jsonl", |r| {
                (text(&r["question"]), text(&r["final_answer"]), texts(&r["solution"]))
            }),
        ),
        ("Countdown", rows("countdown/countdown_3to4.first1000.jsonl", countdown)),
        (
            "Countdown, verl",
            rows("countdown/countdown_verl.first100.jsonl", |r| {
                (text(&r["prompt"][0]["content"]), text(&r["target"]), vec![text(&r["nums"])])
            }),
        ),
        (
            "Countdown, hints",
            rows("countdown/uft_countdown_hints.first200.jsonl", |r| {
                (text(&r["question"]), text(&r["answer"]), vec![text(&r["hint"])])
            }),
        ),
        (
            "Countdown, d1",
            rows("countdown/countdown_cd3_test.jsonl", |r| {
                (text(&r["input"]), text(&r["output"]), vec![text(&r["input"])])
            }),
        ),
    ]
}

/// Tokenizers with a chat template; those without one of their own get the plainest.
fn tokenizers() -> Vec<(String, ChatText)> {
    let data = Path::new(DATA);
    let mut all = vec![("qwen2.5".to_owned(), ChatText::from_dir(&data.join("tokenizers/qwen2.5")).unwrap())];
    if std::env::var_os("RLT_ALL_TOKENIZERS").is_none() {
        return all;
    }
    let qwen3 = tempfile::tempdir().unwrap();
    for (from, name) in
        [("qwen2.5", "vocab.json"), ("qwen2.5", "merges.txt"), ("qwen3", "tokenizer_config.json")]
    {
        fs::copy(data.join("tokenizers").join(from).join(name), qwen3.path().join(name)).unwrap();
    }
    all.push(("qwen3".into(), ChatText::from_dir(qwen3.path()).unwrap()));
    all.push(("oracle".into(), ChatText::from_dir(&data.join("../oracle/student")).unwrap()));
    let chatml = fs::read_to_string(data.join("chat_templates/chujiezheng-chatml.jinja")).unwrap();
    let mut with_chatml = |name: &str, folder: &Path| {
        let tokenizer = Tokenizer::from_dir(folder).unwrap();
        let template = ChatTemplate::from_source(&chatml, Map::new()).unwrap();
        all.push((name.into(), ChatText::new(tokenizer, template).unwrap()));
    };
    with_chatml("smollm2", &data.join("tokenizers/smollm2"));
    if let Some(golden) = std::env::var_os("RLT_TEXT_GOLDEN") {
        for name in ["sentencepiece", "metaspace"] {
            with_chatml(name, &Path::new(env!("CARGO_MANIFEST_DIR")).join(&golden).join(name));
        }
    }
    all
}

#[test]
fn spans_are_exact_on_every_row_of_the_real_data() {
    if CHAT.is_none() {
        return tell("skipped: ../shared is absent");
    }
    let files = real_rows();
    for (name, chat) in tokenizers() {
        // As the tokenizer sees a text (NFC), without the space that SentencePiece puts before it.
        let normal = |text: &str| chat.tokenizer.decode(&chat.tokenizer.encode_inside(text).unwrap().ids);
        let (mut n_rows, mut n_merged, mut faults) = (0, 0, Vec::new());
        for (file, rows) in &files {
            let merged = AtomicUsize::new(0);
            let of_file: Vec<String> = rows
                .par_iter()
                .flat_map_iter(|row| {
                    let thought = normal(row.reasoning_trace.as_deref().unwrap_or(&row.solution));
                    let row = QuestionRow {
                        question: normal(&row.question),
                        solution: normal(&row.solution),
                        reasoning_trace: Some(thought.clone()),
                        ..row.clone()
                    };
                    let mut faults = Vec::new();
                    for style in PromptStyle::built_in() {
                        let completion = style.close_explanation(&thought);
                        let outcome = check(&chat, style, &row, &completion)
                            .and_then(|merged| check_examples(&chat, style, &row).map(|()| merged));
                        match outcome {
                            Ok(is_merged) => merged.fetch_add(usize::from(is_merged), Ordering::Relaxed),
                            Err(e) => {
                                faults.push(format!("{name}, {file}, row {}: {e}", row.row));
                                0
                            }
                        };
                    }
                    faults
                })
                .collect();
            tell(&format!(
                "{name}, {file}: {} rows, {merged:?} merged, {} faults",
                rows.len(),
                of_file.len()
            ));
            n_rows += rows.len();
            n_merged += merged.into_inner();
            faults.extend(of_file);
        }
        tell(&format!(
            "{name}: {n_rows} rows in 2 styles, the thought merged with the padding {n_merged} times"
        ));
        assert!(faults.is_empty(), "{} faults, first {}", faults.len(), faults[0]);
        assert_eq!(n_rows, 4985);
    }
}

/// Text that NFC leaves as it is, with tags, pieces of tags and whatever merges with them.
fn random_text() -> impl Strategy<Value = String> {
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
    fn spans_are_exact_on_random_text(question in random_text(), solution in random_text(), completion in random_text(), end in "[.\n]{0,2}") {
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
