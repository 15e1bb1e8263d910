//! The whole way from text to reward against the official scorer (float32), case by case.

use std::path::Path;

use rlt::Error;
use rlt::config::{Config, DataConfig};
use rlt::dataset::{TraceRow, read_records, traces_of};
use rlt::progress::Silent;
use rlt::prompts::{ChatText, PromptStyle, StudentSequence};
use rlt::score::{Formats, score_columns, score_traces};
use rlt_model::Decoder;
use rlt_model::batch::ScoringGroup;
use serde_json::Value;

const ORACLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/oracle");

/// Clean cases whose explanation writes a tag or a special token itself.
const FORGED: [&str; 3] = ["18-noend-wrong-tag", "42-has-start-tag", "44-has-im-end"];

/// Our part, and the official component that it is.
const PARTS: [(&str, &str); 6] = [
    ("solution_logprob_mean", "sol_logprob_mean"),
    ("solution_logprob_min", "sol_logprob_min"),
    ("kl_mean", "kl_mean"),
    ("kl_max", "kl_max"),
    ("format_penalty", "match_reward"),
    ("reward_no_entropy", "reward_no_entropy"),
];

fn assert_close(what: &str, ours: &Value, official: &Value, tolerance: f64) {
    let (ours, official) = (ours.as_f64().unwrap(), official.as_f64().unwrap());
    assert!((ours - official).abs() < tolerance, "{what}: {ours}, the official scorer says {official}");
}

/// r_SS of a sequence that is scored by itself, in f64.
fn r_ss_of_one_sequence(student: &Decoder, sequence: &StudentSequence, config: &Config) -> f64 {
    let ids = [sequence.prefix.as_slice(), &sequence.continuation()].concat();
    let n = sequence.prefix.len();
    let solution = n + sequence.solution.start..n + sequence.solution.end;
    let group = ScoringGroup::single(ids, vec![solution]);
    let scored = student.token_logprobs(&[group], config.reward.student_temperature, 8192).unwrap();
    let logprobs: Vec<f64> = scored[0][0].iter().map(|&x| f64::from(x)).collect();
    let min = logprobs.iter().copied().fold(f64::INFINITY, f64::min);
    logprobs.iter().sum::<f64>() / logprobs.len() as f64 + f64::from(config.reward.alpha) * min
}

#[test]
#[expect(clippy::print_stdout, reason = "says why nothing was checked")]
fn every_part_equals_the_official_scorer_s_or_differs_for_a_reason() {
    let oracle = Path::new(ORACLE);
    if !oracle.exists() {
        println!("skipped: ../shared is absent");
        return;
    }
    let config: Config =
        toml::from_str(&std::fs::read_to_string(oracle.join("score.toml")).unwrap()).unwrap();
    let style = PromptStyle::resolve(&config.prompts).unwrap();
    let [teacher_chat, student_chat] =
        ["teacher", "student"].map(|name| ChatText::from_dir(&oracle.join(name)).unwrap());
    let [teacher, student] = ["teacher", "student"].map(|name| Decoder::load(&oracle.join(name)).unwrap());
    let data = DataConfig { path: oracle.join("cases.jsonl"), ..DataConfig::default() };
    let records = read_records(&data.path, 0).unwrap();
    // White space is no solution: such a row is never scored.
    let traces_of = |record| match traces_of(record, &data, &style) {
        Err(Error::Gap { .. }) => Vec::new(),
        traces => traces.unwrap(),
    };
    let traces: Vec<TraceRow> = records.iter().flat_map(traces_of).collect();
    let formats = Formats { style: &style, teacher: &teacher_chat, student: &student_chat };
    let results = score_traces(&traces, &formats, &teacher, &student, &config.reward, 8192, &Silent).unwrap();

    let expected = std::fs::read_to_string(oracle.join("expected.jsonl")).unwrap();
    let cases = expected.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let cases = cases.filter(|case| case["id"] != "72-sol-newlines-only");
    for ((sample, scored), case) in results.iter().zip(cases) {
        let id = case["id"].as_str().unwrap();
        let ours = score_columns(sample.as_ref(), scored, &teacher_chat);
        let status = ours["parts"]["status"].as_str().unwrap();
        let forged = status.starts_with("the explanation writes ");
        if case["clean"] == true {
            for (part, official) in PARTS {
                assert_close(
                    &format!("{id}: {part}"),
                    &ours["parts"][part],
                    &case["components"][official],
                    1e-4,
                );
            }
            assert_close(&format!("{id}: reward"), &ours["reward"], &case["reward"], 1e-4);
            // Where a tag is forged, the same reward and penalty; the row says why.
            assert!(status == "ok" || (forged && FORGED.contains(&id)), "{id}: {status}");
            let without = &sample.as_ref().unwrap().without_thought;
            let alone = r_ss_of_one_sequence(&student, without, &config);
            let worth = ours["parts"]["r_ss"].as_f64().unwrap() - alone;
            assert_close(&format!("{id}: worth"), &ours["parts"]["explanation_value"], &worth.into(), 1e-4);
        } else if status == "ok" || forged {
            let difference = ours["reward"].as_f64().unwrap() - case["reward"].as_f64().unwrap();
            assert!(difference.abs() > 1e-3, "{id}: the official scorer's fault should show");
        } else {
            assert!(["20-end-at-once", "22-empty-newlines"].contains(&id), "{id}");
            assert_eq!(ours["reward"], -1.0);
        }
    }
    assert_eq!((records.len(), results.len()), (39, 38));
}
