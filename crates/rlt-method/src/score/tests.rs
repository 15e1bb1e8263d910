//! Scoring with tables for models: which tokens are asked for, at which temperature, and what comes out.

use rlt_model::batch::ScoringGroup;
use rlt_model::ids::TokenIds;
use serde_json::{Map, Value, json};

use super::*;
use crate::dataset::Finish;
use crate::dataset::QuestionRow;
use crate::progress::Silent;
use crate::prompts::test_chat::test_chat;
use crate::prompts::{PromptStyle, Think};
use crate::scorer::TokenTable;

const END: &str = "<|end_of_explanation|>";

fn teacher() -> TokenTable {
    TokenTable { logprobs: |id| -0.07 * (id % 5) as f32, context_tokens: 10_000 }
}

fn student() -> TokenTable {
    TokenTable { logprobs: |id| -0.07 * (id % 7) as f32, context_tokens: 10_000 }
}

fn trace(row: usize, question: &str, solution: &str, completion: &str) -> TraceRow {
    TraceRow {
        question: QuestionRow {
            question: question.into(),
            solution: solution.into(),
            reasoning_trace: None,
            system: None,
            columns: Map::new(),
            row,
        },
        completion: completion.into(),
        completion_ids: None,
        explanation: completion.into(),
        finish: Finish::Stop,
    }
}

fn score_with(
    traces: &[TraceRow],
    teacher: &TokenTable,
    student: &TokenTable,
    tokens_per_batch: usize,
) -> Result<Vec<(Option<RltSample>, ScoredSample)>> {
    let chat = test_chat();
    let formats = Formats { style: PromptStyle::stratos(), teacher: &chat, student: &chat };
    score_traces(traces, &formats, teacher, student, &RewardConfig::default(), tokens_per_batch, &Silent)
}

fn score(traces: &[TraceRow]) -> Vec<(Option<RltSample>, ScoredSample)> {
    score_with(traces, &teacher(), &student(), 1000).unwrap()
}

#[test]
fn teacher_scores_the_thought_and_student_thought_and_solution() {
    let results = score(&[trace(1, "q", "4", &format!("ab{END}"))]);
    let (sample, scored) = &results[0];
    let sample = sample.as_ref().unwrap();
    // Ids are bytes: a 97, b 98, 4 is 52. Temperature 0.7 makes 0.07 into 0.1.
    assert_eq!((sample.think_ids(), sample.solution_ids()), (&[97, 98][..], &[52][..]));
    let close = |ours: &[f32], expected: &[f32]| {
        assert_eq!(ours.len(), expected.len());
        assert!(ours.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{ours:?} {expected:?}");
    };
    close(&scored.teacher_logprobs, &[-0.2, -0.3]);
    close(&scored.student_logprobs, &[-0.6, 0.0]);
    close(&scored.solution_logprobs, &[-0.3]);
    // r_ss = -0.3 * 1.01; D = 0.4, -0.3: r_kl = 0.05 + 0.004.
    close(&[scored.score.reward], &[-0.303 - 3.0 * 0.054]);

    let columns = score_columns(Some(sample), scored, &test_chat());
    assert_eq!(columns["parts"]["n_think"], 2);
    assert_eq!(columns["parts"]["n_solution"], 1);
    assert_eq!(columns["parts"]["status"], "ok");
    assert_eq!(columns["reward"].as_f64().unwrap() as f32, scored.score.reward);
    let ledger = ledger_columns(sample, scored, &test_chat());
    assert_eq!(ledger["think_tokens"], json!(["a", "b"]));
    assert_eq!(ledger["solution_tokens"], json!(["4"]));
    assert_eq!(ledger["d_j"].as_array().unwrap().len(), 2);
}

#[test]
fn order_and_batches_change_nothing() {
    let traces: Vec<TraceRow> = (0..9)
        .map(|i| trace(i + 1, ["q", "r", "s"][i % 3], "4 2", &format!("{}.{END}", "abc".repeat(i + 1))))
        .collect();
    let whole = score(&traces);
    for tokens_per_batch in [1, 700, 100_000] {
        assert_eq!(score_with(&traces, &teacher(), &student(), tokens_per_batch).unwrap(), whole);
    }
    let backwards: Vec<TraceRow> = traces.iter().rev().cloned().collect();
    let mut results = score(&backwards);
    results.reverse();
    assert_eq!(results, whole);
}

#[test]
fn a_question_s_completions_share_one_prefix() {
    let chat = test_chat();
    let formats = Formats { style: PromptStyle::stratos(), teacher: &chat, student: &chat };
    let traces = [trace(1, "q", "4", "a"), trace(2, "r", "4", "a"), trace(3, "q", "4", "b")];
    let samples: Vec<RltSample> =
        traces.iter().map(|trace| RltSample::from_trace(&formats, trace).unwrap().unwrap()).collect();
    let jobs: Vec<Job> = samples.iter().map(|sample| Job::student(&sample.student)).collect();
    assert_eq!(jobs::batches(&jobs, 1), [vec![vec![0, 2]], vec![vec![1]]]);
    assert_eq!(jobs::batches(&jobs, 100_000), [vec![vec![0, 2], vec![1]]]);
}

#[test]
fn sampled_ids_are_scored_as_they_were_sampled() {
    let newline = u32::from(b'\n');
    let end: Vec<u32> = END.bytes().map(u32::from).collect();
    let ids = [&[97, newline, newline], end.as_slice(), &[301]].concat();
    let mut row = trace(1, "q", "4", &format!("a\n\n{END}"));
    row.completion_ids = Some(ids);
    let (sample, _) = score(&[row.clone()]).remove(0);
    assert_eq!(sample.unwrap().think_ids(), [97, newline, newline]);
    row.completion_ids = None;
    let (sample, _) = score(&[row.clone()]).remove(0);
    assert_eq!(sample.unwrap().think_ids(), [97, 257]);

    // White space alone is no explanation, whatever its tokens.
    let blank = TraceRow {
        completion: format!("\n\n{END}"),
        completion_ids: Some([&[newline, newline], end.as_slice(), &[301]].concat()),
        ..row.clone()
    };
    let (sample, scored) = score(&[blank]).remove(0);
    assert_eq!(sample.unwrap().think_ids(), [newline, newline]);
    assert_eq!(scored.score.parts, Err(Unscorable::EmptyThought));

    row.completion_ids = Some(vec![97, 98]);
    let (sample, scored) = score(&[row]).remove(0);
    assert_eq!(sample, None);
    assert!(scored.score.status().contains("do not spell"));
    assert_eq!(score_columns(None, &scored, &test_chat())["parts"]["n_think"], Value::Null);
}

#[test]
fn rows_that_cannot_be_scored_say_why_and_the_rest_is_scored() {
    let short = TokenTable { context_tokens: 700, ..student() };
    let traces = [
        trace(1, "q", "4", END),
        trace(2, "q", "\n\n", &format!("a{END}")),
        trace(3, "q", "4", &"a".repeat(700)),
        trace(4, "q", "4", "a"),
    ];
    let results = score_with(&traces, &teacher(), &short, 1000).unwrap();
    let status: Vec<String> = results.iter().map(|(_, scored)| scored.score.status()).collect();
    assert!(status[0].starts_with("empty thought") && status[1].starts_with("empty solution"), "{status:?}");
    assert!(status[2].starts_with("too long: ") && status[2].ends_with("the student's context is 700"));
    assert_eq!(status[3], "ok");
    assert!(results[..3].iter().all(|(_, scored)| scored.score.reward == -1.0));
    let columns = score_columns(results[0].0.as_ref(), &results[0].1, &test_chat());
    assert_eq!(columns["parts"]["kl_mean"], Value::Null);
    assert_eq!(columns["parts"]["n_think"], 0);
    // Row 4 has no end tag.
    assert_eq!(results[3].1.score.format_penalty, -1.0);
}

#[test]
fn a_model_s_nan_names_row_and_token() {
    let broken = TokenTable { logprobs: |id| if id == 98 { f32::NAN } else { -1.0 }, ..student() };
    let error = score_with(&[trace(12, "q", "4", "ab")], &teacher(), &broken, 1000).unwrap_err();
    assert_eq!(error.to_string(), "row 12: the student's think log-probability of token 1 is NaN");
}

#[test]
fn recorded_log_probabilities_replace_the_teacher() {
    let chat = test_chat();
    let formats = Formats { style: PromptStyle::stratos(), teacher: &chat, student: &chat };
    let traces = [trace(1, "q", "4", END), trace(2, "q", "4", &format!("ab.{END}"))];
    let samples: Vec<RltSample> =
        traces.iter().map(|trace| RltSample::from_trace(&formats, trace).unwrap().unwrap()).collect();
    // One a completion token; only the two think tokens' are read.
    let recorded: [&[f32]; 2] = [&[], &[-0.2, -0.3, -99.0]];
    let scored = score_samples(
        &samples,
        Teacher::Recorded(&recorded),
        &student(),
        &RewardConfig::default(),
        1000,
        &Silent,
    )
    .unwrap();
    assert_eq!(scored[0].score.parts, Err(Unscorable::EmptyThought));
    assert_eq!(scored[1].teacher_logprobs, [-0.2, -0.3]);
    let parts = scored[1].score.parts.as_ref().unwrap();
    assert!((parts.kl_max - 0.4).abs() < 1e-6 && parts.kl_max_at == 0);
}

/// What a table for a model says of `ids`, at the default temperature of 0.7.
fn table(modulus: u32, ids: &[u32]) -> Vec<f64> {
    ids.iter().map(|id| -0.1 * f64::from(id % modulus)).collect()
}

/// The reward by its formula, in f64 and without any of the code under test.
fn reward_by_hand(think: &[u32], solution: &[u32], penalty: f64) -> f64 {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (student, solution) = (table(7, think), table(7, solution));
    let d: Vec<f64> =
        table(5, think).iter().zip(&student).map(|(teacher, student)| teacher - student).collect();
    let min = solution.iter().copied().fold(f64::INFINITY, f64::min);
    let max = d.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    mean(&solution) + 0.01 * min - 3.0 * (mean(&d) + 0.01 * max) + penalty
}

#[test]
fn every_edge_of_a_completion() {
    let bytes = |text: &str| text.bytes().map(u32::from).collect::<Vec<u32>>();
    let long = "a".repeat(30);
    // Completion, solution; then think tokens, boundary tokens, solution tokens, penalty.
    type Case<'a> = (&'a str, String, &'a str, Vec<u32>, usize, Vec<u32>, f64);
    let scored: [Case; 12] = [
        ("plain", format!("ab{END}"), "4", bytes("ab"), 0, bytes("4"), 0.0),
        ("no end tag", "ab".into(), "4", bytes("ab"), 0, bytes("4"), -1.0),
        ("half an end tag", "ab<|end_of_".into(), "4", bytes("ab<|end_of_"), 0, bytes("4"), -1.0),
        ("text after the tag", format!("ab{END}cd"), "4", bytes("ab"), 0, bytes("4"), 0.0),
        ("two end tags", format!("ab{END}cd{END}"), "4", bytes("ab"), 0, bytes("4"), 0.0),
        ("half a tag inside", format!("a<|end{END}"), "4", bytes("a<|end"), 0, bytes("4"), 0.0),
        (
            "the student's tag inside",
            format!("a<|end_of_thought|>{END}"),
            "4",
            bytes("a<|end_of_thought|>"),
            0,
            bytes("4"),
            0.0,
        ),
        ("a token straddles the tag", format!("ab.{END}"), "4", bytes("ab"), 1, bytes("4"), 0.0),
        ("newlines before the tag", format!("a\n\n{END}"), "4", vec![97, 257], 0, bytes("4"), 0.0),
        ("one think token", format!("a{END}"), "42", bytes("a"), 0, bytes("42"), 0.0),
        ("a token straddles the solution's end", format!("a{END}"), "4.", bytes("a"), 0, bytes("4"), 0.0),
        ("the thought is the solution", format!("{long}{END}"), &long, bytes(&long), 0, bytes(&long), 0.0),
    ];
    for (name, completion, solution, think, n_boundary, solution_ids, penalty) in scored {
        let (sample, scored) = score(&[trace(1, "q", solution, &completion)]).remove(0);
        let sample = sample.unwrap();
        assert_eq!(sample.think_ids(), think, "{name}");
        assert_eq!(
            (sample.student.n_boundary, sample.solution_ids()),
            (n_boundary, &solution_ids[..]),
            "{name}"
        );
        let expected = reward_by_hand(&think, &solution_ids, penalty);
        assert!((f64::from(scored.score.reward) - expected).abs() < 1e-5, "{name}: {expected}");
        assert_eq!(f64::from(scored.score.format_penalty), penalty, "{name}");
        let columns = score_columns(Some(&sample), &scored, &test_chat());
        let forging = name == "the student's tag inside";
        let status = if forging { "the explanation writes `<|end_of_thought|>` itself" } else { "ok" };
        assert_eq!(columns["parts"]["status"], status, "{name}");
        assert_eq!(columns["parts"]["n_boundary"], n_boundary, "{name}");
    }
    let unscorable = [
        ("end tag at once", END.to_owned(), "4", "empty thought"),
        ("end tag at once, text after it", format!("{END}ab"), "4", "empty thought"),
        ("nothing at all", String::new(), "4", "empty thought"),
        ("a dot that straddles", format!(".{END}"), "4", "empty thought"),
        ("spaces, which are tokens", format!("  {END}"), "4", "empty thought"),
        ("newlines, which merge with the prompt's", format!("\n\n{END}"), "4", "empty thought"),
        ("a space without an end", " ".into(), "4", "empty thought"),
        ("solution of newlines", format!("ab{END}"), "\n\n", "empty solution"),
    ];
    for (name, completion, solution, reason) in unscorable {
        let (sample, scored) = score(&[trace(1, "q", solution, &completion)]).remove(0);
        assert!(scored.score.status().starts_with(reason), "{name}: {}", scored.score.status());
        let columns = score_columns(sample.as_ref(), &scored, &test_chat());
        assert_eq!(columns["parts"]["explanation_value"], Value::Null, "{name}");
        assert_eq!(columns["reward"], -1.0, "{name}");
    }
}

#[test]
fn a_row_says_which_tokens_decided_and_how_the_text_is() {
    let (sample, scored) = score(&[trace(1, "q", "42", &format!("abab42ab{END}"))]).remove(0);
    let parts = &score_columns(sample.as_ref(), &scored, &test_chat())["parts"];
    // `4` is 52 and `2` is 50: 52 % 7 = 3 and 50 % 7 = 1. D: a 2 - 6, b 3 - 0, 4 2 - 3, 2 0 - 1 (times -0.1).
    assert_eq!(parts["solution_logprob_min_at"], 0);
    assert_eq!(parts["solution_logprob_min_token"], "4");
    assert_eq!((&parts["kl_max_at"], &parts["kl_max_token"]), (&json!(0), &json!("a")));
    assert_eq!(parts["solution_overlap"], 1.0);
    assert_eq!(parts["repeated_ngram_share"], 0.0);
    let close = |value: &Value, expected: f64| {
        assert!((value.as_f64().unwrap() - expected).abs() < 1e-6, "{value} is not {expected}");
    };
    // -0.3 and -0.1.
    close(&parts["solution_logprob_quantiles"]["q50"], -0.2);
    close(&parts["solution_logprob_quantiles"]["q05"], -0.29);
    // A table knows no context: the solution is as likely without the explanation.
    assert_eq!(scored.solution_logprobs_without, scored.solution_logprobs);
    assert_eq!(parts["explanation_value"], 0.0);
}

#[test]
fn without_a_thought_the_sequence_is_that_of_an_empty_one() {
    let chat = test_chat();
    let formats = Formats { style: PromptStyle::stratos(), teacher: &chat, student: &chat };
    for completion in [format!("ab{END}"), format!("ab.{END}"), format!("\nab{END}"), "ab".into()] {
        let trace = trace(1, "q", "4", &completion);
        let sample = RltSample::from_trace(&formats, &trace).unwrap().unwrap();
        let empty = formats.style.student_sequence(&chat, &trace.question, &Think::empty()).unwrap();
        assert_eq!(sample.without_thought, empty, "{completion:?}");
        assert!(empty.thought.is_empty() && !empty.solution.is_empty());
    }
}

#[test]
fn the_full_divergence_comes_from_both_models_distributions() {
    let chat = test_chat();
    let formats = Formats { style: PromptStyle::stratos(), teacher: &chat, student: &chat };
    let traces: Vec<TraceRow> = (0..7)
        .map(|i| trace(i + 1, ["q", "r"][i % 2], "4 2", &format!("{}{END}", "abc".repeat(i))))
        .collect();
    let samples: Vec<RltSample> =
        traces.iter().map(|trace| RltSample::from_trace(&formats, trace).unwrap().unwrap()).collect();
    let reward = RewardConfig {
        kl: KlEstimator::Full,
        teacher_temperature: 0.5,
        student_temperature: 2.0,
        ..RewardConfig::default()
    };
    // Both tables in f64, over their whole vocabulary.
    let log_p = |modulus: u32, temperature: f64| -> Vec<f64> {
        let logits: Vec<f64> = (0..crate::scorer::TABLE_TOKENS)
            .map(|id| -0.07 * f64::from(id % modulus) / temperature)
            .collect();
        let log_sum = logits.iter().map(|x| x.exp()).sum::<f64>().ln();
        logits.into_iter().map(|x| x - log_sum).collect()
    };
    let (p, q) = (log_p(5, 0.5), log_p(7, 2.0));
    let expected: f64 = p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum();
    let (teacher, student) = (teacher(), student());
    let score = |tokens_per_batch| {
        score_samples(&samples, Teacher::Model(&teacher), &student, &reward, tokens_per_batch, &Silent)
            .unwrap()
    };
    let scored = score(100_000);
    assert_eq!(scored[0].score.parts, Err(Unscorable::EmptyThought));
    for (i, scored) in scored.iter().enumerate().skip(1) {
        let parts = scored.score.parts.as_ref().unwrap();
        assert_eq!((parts.d_j.len(), scored.student_logprobs.len()), (3 * i, 3 * i));
        assert!(parts.d_j.iter().all(|&d| (f64::from(d) - expected).abs() < 1e-6), "{:?}", parts.d_j);
        // `a` is 97: 97 % 5 = 2 and 97 % 7 = 6.
        assert!((f64::from(scored.teacher_logprobs[0]) - p[97]).abs() < 1e-5);
        assert!((f64::from(scored.student_logprobs[0]) - q[97]).abs() < 1e-5);
    }
    for tokens_per_batch in [1, 300] {
        assert_eq!(score(tokens_per_batch), scored);
    }
    let error =
        score_samples(&samples, Teacher::Recorded(&[]), &student, &reward, 1000, &Silent).unwrap_err();
    assert!(matches!(error, Error::Usage(_)), "{error}");
}

/// An explanation that ends its thought, opens the solution or ends the turn itself is not `ok`, from ids as from text. Its
/// reward is the official scorer's, which sees nothing in it.
#[test]
fn an_explanation_that_writes_the_format_s_tags_is_told() {
    let chat = test_chat();
    let formats = Formats { style: PromptStyle::stratos(), teacher: &chat, student: &chat };
    for (inside, named) in [
        ("a<|end_of_thought|>\n\n<|begin_of_solution|>4<|end_of_solution|>", "<|end_of_thought|>"),
        ("<|begin_of_solution|>4", "<|begin_of_solution|>"),
        ("a<|im_end|>", "<|im_end|>"),
    ] {
        let forging = trace(1, "q", "4", &format!("{inside}{END}"));
        let ids = Some(chat.tokenizer.encode(&forging.completion).unwrap());
        let sampled = TraceRow { completion_ids: ids, finish: Finish::Length, ..forging.clone() };
        for (sample, scored) in score(&[forging, sampled]) {
            let sample = sample.unwrap();
            assert!(sample.has_end_tag);
            assert_eq!(scored.score.format_penalty, 0.0);
            let columns = score_columns(Some(&sample), &scored, &chat);
            assert_eq!(columns["parts"]["status"], format!("the explanation writes `{named}` itself"));
            assert!(columns["parts"]["r_kl"].is_number());
        }
    }
    assert_eq!(forged(formats.style, &chat, "a plain <b> explanation"), None);
}

/// A scorer that finds every thought in the memory of one completion, and knows no hidden states.
struct InMemoryOf(TokenIds);

impl Scorer for InMemoryOf {
    fn context_tokens(&self) -> usize {
        1000
    }

    fn token_logprobs(
        &self,
        groups: &[ScoringGroup],
        temperature: f32,
        tokens_per_batch: usize,
    ) -> Result<Vec<Vec<Vec<f32>>>> {
        let continuations = groups.iter().flat_map(|group| &group.continuations);
        let thoughts = continuations.filter(|continuation| !continuation.ids.is_empty());
        assert!(thoughts.clone().count() > 0);
        assert!(thoughts.clone().all(|thought| thought.ids.shares_memory_with(&self.0)));
        student().token_logprobs(groups, temperature, tokens_per_batch)
    }
}

#[test]
fn a_completion_is_scored_in_its_own_memory() {
    let chat = test_chat();
    let formats = Formats { style: PromptStyle::stratos(), teacher: &chat, student: &chat };
    let prompt = TokenIds::from([1, 2, 3]);
    let ids: TokenIds = [97, 98].into_iter().chain(END.bytes().map(u32::from)).collect();
    let row = trace(1, "q", "4", "").question;
    let sample =
        RltSample::from_sampled(&formats, &row, prompt.clone(), ids.clone(), "row 1".into()).unwrap();
    assert!(sample.teacher_prefix.shares_memory_with(&prompt));
    assert!(sample.without_thought.suffix.shares_memory_with(&sample.student.suffix));
    let scorer = InMemoryOf(ids);
    let score = |reward: &RewardConfig| {
        score_samples(std::slice::from_ref(&sample), Teacher::Model(&scorer), &scorer, reward, 1000, &Silent)
    };
    assert_eq!(score(&RewardConfig::default()).unwrap()[0].student_logprobs.len(), 2);
    let full = RewardConfig { kl: KlEstimator::Full, ..RewardConfig::default() };
    let message = score(&full).unwrap_err().to_string();
    assert!(message.starts_with("reward.kl = \"full\" needs hidden states"), "{message}");
}
