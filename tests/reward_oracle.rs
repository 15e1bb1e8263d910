//! The reward's arithmetic against values of the official scorer (float32).

use std::path::Path;

use rlt_reward::rlt::{RltInputs, rlt_reward};
use rlt_reward::settings::RltSettings;
use serde_json::Value;

const EXPECTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/oracle/expected.jsonl");

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

/// Recorded values are rounded to 1e-5; lambda multiplies that.
fn assert_close(id: &str, name: &str, ours: f32, expected: &Value) {
    let expected = expected.as_f64().unwrap();
    assert!((f64::from(ours) - expected).abs() < 1e-4, "{id}: {name} is {ours}, expected {expected}");
}

#[test]
#[expect(clippy::print_stdout, reason = "says why nothing was checked")]
fn parts_from_per_token_values_equal_the_official_components() {
    if !Path::new(EXPECTED).exists() {
        println!("skipped: ../shared is absent");
        return;
    }
    let mut checked = 0;
    for line in std::fs::read_to_string(EXPECTED).unwrap().lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let (id, components) = (case["id"].as_str().unwrap(), &case["components"]);
        if case["clean"] != true || !case["per_token"].is_object() {
            continue;
        }
        let per_token = &case["per_token"];
        let score = rlt_reward(
            &RltInputs {
                sample: id,
                solution_logprobs: &floats(&per_token["student_solution_lp"]),
                student_think_logprobs: &floats(&per_token["student_think_lp"]),
                teacher_think_logprobs: &floats(&per_token["teacher_think_lp"]),
                full_divergence: &[],
                has_end_tag: components["match_reward"] == 0.0,
            },
            &RltSettings::default(),
        )
        .unwrap();
        let parts = score.parts.as_ref().unwrap();
        assert_close(
            id,
            "solution_logprob_mean",
            parts.solution_logprob_mean,
            &components["sol_logprob_mean"],
        );
        assert_close(id, "solution_logprob_min", parts.solution_logprob_min, &components["sol_logprob_min"]);
        assert_close(id, "kl_mean", parts.kl_mean, &components["kl_mean"]);
        assert_close(id, "kl_max", parts.kl_max, &components["kl_max"]);
        assert_close(id, "r_ss", parts.r_ss, &components["log_prob_reward"]);
        assert_close(id, "-lambda r_kl", -3.0 * parts.r_kl, &components["kl_reward"]);
        assert_close(id, "format_penalty", score.format_penalty, &components["match_reward"]);
        assert_close(id, "reward_no_entropy", parts.reward_no_entropy, &components["reward_no_entropy"]);
        assert_close(id, "reward", score.reward, &case["reward"]);
        checked += 1;
    }
    assert!(checked >= 20, "only {checked} cases were checked");
}
