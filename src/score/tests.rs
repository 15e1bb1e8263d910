//! Scoring with tables for models: which tokens are asked for, at which temperature, and what comes out.

use serde_json::{Map, Value, json};

use super::*;
use crate::dataset::Finish;
use crate::progress::Silent;
use crate::prompts::test_chat::test_chat;
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
    assert!(results[..3].iter().all(|(_, scored)| scored.score.reward == -10.0));
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
    let recorded = [vec![], vec![-0.2, -0.3, -99.0]];
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
