//! What SGLang's `/generate` answers (from its documentation).

use serde::Deserialize;
use serde_json::Value;

use super::answer::{Drawn, Expected, checked, logprob, parse};
use super::fault::Fault;

#[derive(Deserialize)]
struct Generated {
    #[serde(default)]
    text: String,
    meta_info: Meta,
}

#[derive(Deserialize)]
struct Meta {
    finish_reason: Option<Value>,
    output_token_logprobs: Option<Vec<Entry>>,
    input_token_logprobs: Option<Vec<Entry>>,
}

/// Log-probability, id, text.
type Entry = (Option<f64>, u32, Option<Value>);

/// The one completion of an answer.
pub(super) fn completion(bytes: &[u8], expected: &Expected) -> Result<Drawn, Fault> {
    let Generated { text, meta_info } = parse(bytes)?;
    let Some(tokens) = meta_info.output_token_logprobs else {
        return Err(Fault::Lasting(
            "it gives no log-probabilities of what it samples (return_logprob)".into(),
        ));
    };
    let (logprobs, ids) = tokens.into_iter().map(|(value, id, _)| (value.unwrap_or(f64::NAN), id)).unzip();
    let finish = meta_info
        .finish_reason
        .as_ref()
        .and_then(|finish| finish["type"].as_str().or_else(|| finish.as_str()));
    checked(ids, logprobs, finish, text, expected)
}

/// The log-probability of every token after the first of `ids`.
pub(super) fn prompt_logprobs(bytes: &[u8], ids: &[u32]) -> Result<Vec<f32>, Fault> {
    let Generated { meta_info, .. } = parse(bytes)?;
    let Some(tokens) = meta_info.input_token_logprobs else {
        return Err(Fault::Lasting("it gives no log-probabilities of a prompt (return_logprob)".into()));
    };
    if tokens.len() != ids.len() || tokens.iter().zip(ids).any(|((_, id, _), &asked)| *id != asked) {
        return Err(Fault::passing(format!("it answers with {} scores of other tokens", tokens.len())));
    }
    tokens
        .iter()
        .enumerate()
        .skip(1)
        .map(|(at, (value, ..))| logprob(value.unwrap_or(f64::NAN), at))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rlt_model::generate::Finish;
    use serde_json::json;

    #[test]
    fn the_documented_shapes_are_read() {
        let expected =
            Expected { model: "m", n: 1, prompt: &[5, 6], longest: 4, stop_token_ids: &[2], vocab_size: 40 };
        let answer = |finish: Value| {
            json!({"text": "ab", "meta_info": {"finish_reason": finish, "weight_version": "step-1",
                "output_token_logprobs": [[-0.5, 9, null], [-1.5, 2, "</s>"]]}})
            .to_string()
        };
        let drawn = completion(answer(json!({"type": "stop", "matched": 2})).as_bytes(), &expected).unwrap();
        assert_eq!((drawn.ids, drawn.logprobs, drawn.finish), (vec![9, 2], vec![-0.5, -1.5], Finish::Stop));
        let aborted = completion(answer(json!({"type": "abort", "message": "x"})).as_bytes(), &expected);
        assert!(matches!(aborted, Err(Fault::Passing { .. })));
        let scored = json!({"meta_info": {"finish_reason": null, "input_token_logprobs": [[null, 5, null], [-0.25, 6, null]]}});
        assert_eq!(prompt_logprobs(scored.to_string().as_bytes(), &[5, 6]).unwrap(), [-0.25]);
        assert!(prompt_logprobs(scored.to_string().as_bytes(), &[5, 7]).is_err());
    }
}
