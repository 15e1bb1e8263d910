//! What servers answer, every number of it checked before it is believed.

use std::collections::HashMap;

use rlt_model::generate::Finish;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::fault::Fault;

/// A log-probability may be above zero by as much as rounding does it, nats.
const ROUNDING: f64 = 1e-3;

/// What a request for completions was about: an answer is compared with it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected<'a> {
    /// The name under which the model is served.
    pub model: &'a str,
    /// Completions.
    pub n: usize,
    /// What they are of.
    pub prompt: &'a [u32],
    /// Most tokens of each.
    pub longest: usize,
    /// Tokens that end one.
    pub stop_token_ids: &'a [u32],
    /// Ids are below this.
    pub vocab_size: usize,
}

/// A completion as a server tells it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Drawn {
    /// With the stop token.
    pub ids: Vec<u32>,
    /// Nats, one each.
    pub logprobs: Vec<f32>,
    #[serde(with = "finish")]
    pub finish: Finish,
    /// The same as text, where the server says it.
    pub text: String,
}

/// How a completion ended, as servers call it.
mod finish {
    use rlt_model::generate::Finish;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub(super) fn serialize<S: Serializer>(finish: &Finish, to: S) -> Result<S::Ok, S::Error> {
        matches!(finish, Finish::Stop).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Finish, D::Error> {
        Ok(if bool::deserialize(from)? { Finish::Stop } else { Finish::Length })
    }
}

#[derive(Deserialize)]
struct Completions {
    model: Option<String>,
    choices: Vec<Choice>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    index: usize,
    #[serde(default)]
    text: Option<String>,
    token_ids: Option<Vec<u32>>,
    logprobs: Option<Logprobs>,
    finish_reason: Option<String>,
    prompt_logprobs: Option<Vec<Option<HashMap<String, Ranked>>>>,
    prompt_token_ids: Option<Vec<u32>>,
}

#[derive(Deserialize)]
struct Logprobs {
    token_logprobs: Vec<Option<f64>>,
}

#[derive(Deserialize)]
struct Ranked {
    logprob: f64,
}

/// The completions of an answer of `/v1/completions`, by their index.
pub(super) fn completions(bytes: &[u8], expected: &Expected) -> Result<Vec<Drawn>, Fault> {
    let Completions { model, choices } = parse(bytes)?;
    check_model(model.as_deref(), expected.model)?;
    if choices.len() != expected.n {
        return Err(wrong(format!("{} completions where {} were asked for", choices.len(), expected.n)));
    }
    let mut drawn: Vec<Option<Drawn>> = vec![None; expected.n];
    for choice in choices {
        let Choice { index, text, token_ids, logprobs, finish_reason, prompt_token_ids, .. } = choice;
        if prompt_token_ids.is_some_and(|ids| ids != expected.prompt) {
            return Err(wrong("a completion of another prompt"));
        }
        let Some(ids) = token_ids else {
            return Err(Fault::Lasting(
                "it answers with text, without token ids (return_token_ids): text that is encoded again is not what was \
                 sampled; use vLLM 0.10 or newer, SGLang, or rlt serve"
                    .into(),
            ));
        };
        let Some(logprobs) = logprobs else {
            return Err(Fault::Lasting("it gives no log-probabilities of what it samples (logprobs)".into()));
        };
        let logprobs = logprobs.token_logprobs.into_iter().map(|value| value.unwrap_or(f64::NAN));
        let one =
            checked(ids, logprobs.collect(), finish_reason.as_deref(), text.unwrap_or_default(), expected)?;
        match drawn.get_mut(index) {
            Some(place @ None) => *place = Some(one),
            _ => return Err(wrong(format!("two completions, or one too many, with the index {index}"))),
        }
    }
    drawn.into_iter().collect::<Option<_>>().ok_or_else(|| wrong("fewer completions than it says"))
}

/// A completion whose ids, log-probabilities and end agree.
pub(super) fn checked(
    ids: Vec<u32>,
    logprobs: Vec<f64>,
    finish: Option<&str>,
    text: String,
    expected: &Expected,
) -> Result<Drawn, Fault> {
    let finish = match finish {
        Some("stop") => Finish::Stop,
        Some("length") => Finish::Length,
        Some("abort") => {
            return Err(Fault::passing(
                "a completion was broken off (finish_reason abort), so it is not one",
            ));
        }
        other => return Err(wrong(format!("a completion that ended with {other:?}"))),
    };
    if ids.is_empty() || ids.len() > expected.longest {
        return Err(wrong(format!(
            "a completion of {} tokens where 1 to {} fit",
            ids.len(),
            expected.longest
        )));
    }
    if ids.len() != logprobs.len() {
        return Err(wrong(format!("{} tokens with {} log-probabilities", ids.len(), logprobs.len())));
    }
    check_ids(&ids, expected.vocab_size)?;
    let last = ids[ids.len() - 1];
    if finish == Finish::Stop && !expected.stop_token_ids.contains(&last) {
        return Err(Fault::Lasting(format!(
            "a completion stopped with token {last}, which ends none by the folder's config.json and chat template; is it \
             the same model?"
        )));
    }
    let logprobs =
        logprobs.into_iter().enumerate().map(|(at, value)| logprob(value, at)).collect::<Result<_, _>>()?;
    Ok(Drawn { ids, logprobs, finish, text })
}

/// The log-probability of every token after the first of `ids`, from `prompt_logprobs` or, where a server has none, from an
/// echo of the prompt.
pub(super) fn prompt_logprobs(bytes: &[u8], model: &str, ids: &[u32]) -> Result<Vec<f32>, Fault> {
    let Completions { model: answered, mut choices } = parse(bytes)?;
    check_model(answered.as_deref(), model)?;
    let (Some(choice), true) = (choices.pop(), choices.is_empty()) else {
        return Err(wrong("another number of answers than one"));
    };
    if choice.prompt_token_ids.as_deref().is_some_and(|of| of != ids) {
        return Err(wrong("log-probabilities of another prompt"));
    }
    if let Some(positions) = choice.prompt_logprobs {
        if positions.len() != ids.len() {
            return Err(wrong(format!("{} log-probabilities of {} tokens", positions.len(), ids.len())));
        }
        let of_id = |at: usize| {
            let position = positions[at].as_ref().and_then(|ranked| ranked.get(&ids[at].to_string()));
            let value = position
                .ok_or_else(|| wrong(format!("no log-probability of token {} (id {})", at + 1, ids[at])))?;
            logprob(value.logprob, at)
        };
        return (1..ids.len()).map(of_id).collect();
    }
    let Some(Logprobs { token_logprobs }) = choice.logprobs else {
        return Err(Fault::Lasting(
            "it gives no log-probabilities of a prompt (prompt_logprobs, or echo with logprobs): it can sample, but not score"
                .into(),
        ));
    };
    // An answer to `max_tokens: 1` has one token more than the echo.
    if token_logprobs.len() < ids.len() {
        return Err(wrong(format!("{} log-probabilities of {} tokens", token_logprobs.len(), ids.len())));
    }
    let values = token_logprobs.into_iter().take(ids.len()).enumerate().skip(1);
    values.map(|(at, value)| logprob(value.unwrap_or(f64::NAN), at)).collect()
}

/// JSON of the expected shape. What is none was cut or is garbage, and may be whole the next time.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Fault> {
    serde_json::from_slice(bytes).map_err(|e| Fault::passing(format!("its answer cannot be read: {e}")))
}

fn check_model(answered: Option<&str>, asked: &str) -> Result<(), Fault> {
    match answered {
        Some(name) if name != asked && !asked.is_empty() => {
            Err(Fault::Lasting(format!("it answers as the model `{name}` where `{asked}` was asked")))
        }
        _ => Ok(()),
    }
}

pub(super) fn check_ids(ids: &[u32], vocab_size: usize) -> Result<(), Fault> {
    match ids.iter().find(|&&id| id as usize >= vocab_size) {
        Some(id) => Err(Fault::Lasting(format!(
            "it answers with token {id}, and the folder's config.json has {vocab_size}; is it the same model?"
        ))),
        None => Ok(()),
    }
}

/// A log-probability, nats, of the token at place `at` (from 0).
pub(super) fn logprob(value: f64, at: usize) -> Result<f32, Fault> {
    // -9999 is what vLLM writes for one that is not finite.
    if value.is_finite() && value <= ROUNDING && value > -9999.0 {
        return Ok(value.min(0.0) as f32);
    }
    Err(wrong(format!("{value} as the log-probability of token {}", at + 1)))
}

fn wrong(what: impl Into<String>) -> Fault {
    Fault::passing(format!("it answers with {}", what.into()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const PROMPT: [u32; 3] = [5, 6, 7];

    fn expected() -> Expected<'static> {
        Expected { model: "policy", n: 1, prompt: &PROMPT, longest: 4, stop_token_ids: &[2], vocab_size: 40 }
    }

    /// A good answer, with one thing of its choice replaced.
    fn answer(key: &str, value: Value) -> Vec<u8> {
        let mut choice = json!({"index": 0, "text": "a", "token_ids": [9, 2], "finish_reason": "stop",
            "logprobs": {"token_logprobs": [-0.5, -1.0]}, "prompt_token_ids": PROMPT});
        choice[key] = value;
        json!({"model": "policy", "choices": [choice]}).to_string().into_bytes()
    }

    fn fault(bytes: &[u8]) -> Fault {
        completions(bytes, &expected()).unwrap_err()
    }

    #[test]
    fn a_good_answer_is_taken() {
        let drawn = completions(&answer("index", json!(0)), &expected()).unwrap();
        let one =
            Drawn { ids: vec![9, 2], logprobs: vec![-0.5, -1.0], finish: Finish::Stop, text: "a".into() };
        assert_eq!(drawn, [one]);
        // Rounding above zero is zero.
        let drawn =
            completions(&answer("logprobs", json!({"token_logprobs": [1e-6, -1.0]})), &expected()).unwrap();
        assert_eq!(drawn[0].logprobs[0], 0.0);
    }

    #[test]
    fn what_passes_and_what_lasts() {
        let passing = [
            ("finish_reason", json!("abort"), "broken off"),
            ("finish_reason", json!(null), "ended with None"),
            ("token_ids", json!([]), "0 tokens where 1 to 4"),
            ("token_ids", json!([9, 9, 9, 9, 2]), "5 tokens"),
            ("token_ids", json!([9, 9, 2]), "3 tokens with 2 log-probabilities"),
            ("logprobs", json!({"token_logprobs": [null, -1.0]}), "NaN as the log-probability of token 1"),
            ("logprobs", json!({"token_logprobs": [0.5, -1.0]}), "0.5 as the log-probability"),
            (
                "logprobs",
                json!({"token_logprobs": [-0.5, -9999.0]}),
                "-9999 as the log-probability of token 2",
            ),
            ("prompt_token_ids", json!([5, 6]), "another prompt"),
            ("index", json!(3), "index 3"),
        ];
        for (key, value, what) in passing {
            let fault = fault(&answer(key, value));
            assert!(
                matches!(&fault, Fault::Passing { .. }) && fault.what().contains(what),
                "{key}: {fault:?}"
            );
        }
        let lasting = [
            ("token_ids", json!([40, 2]), "token 40, and the folder's config.json has 40"),
            ("token_ids", json!([9, 3]), "stopped with token 3"),
            ("token_ids", json!(null), "without token ids"),
            ("logprobs", json!(null), "no log-probabilities"),
        ];
        for (key, value, what) in lasting {
            let fault = fault(&answer(key, value));
            assert!(matches!(&fault, Fault::Lasting(_)) && fault.what().contains(what), "{key}: {fault:?}");
        }
        let whole = answer("index", json!(0));
        for cut in [&whole[..whole.len() / 2], b"", b"<html>", b"null", b"[]"] {
            assert!(matches!(fault(cut), Fault::Passing { .. }));
        }
        let other = String::from_utf8(whole).unwrap().replace("policy", "another").into_bytes();
        assert!(matches!(fault(&other), Fault::Lasting(what) if what.contains("`another` where `policy`")));
    }

    #[test]
    fn scores_are_those_of_the_ids_that_were_asked_for() {
        let of = |positions: Value| {
            let body = json!({"model": "policy", "choices": [{"prompt_logprobs": positions, "finish_reason": "length"}]});
            prompt_logprobs(body.to_string().as_bytes(), "policy", &PROMPT)
        };
        // A position may name the most likely token, too.
        let good = json!([null, {"6": {"logprob": -0.5}, "1": {"logprob": -0.1}}, {"7": {"logprob": -2.0}}]);
        assert_eq!(of(good).unwrap(), [-0.5, -2.0]);
        assert!(
            of(json!([null, {"6": {"logprob": -0.5}}]))
                .unwrap_err()
                .what()
                .contains("2 log-probabilities of 3")
        );
        let other = json!([null, {"1": {"logprob": -0.5}}, {"7": {"logprob": -2.0}}]);
        assert!(of(other).unwrap_err().what().contains("no log-probability of token 2 (id 6)"));
        assert!(
            matches!(of(Value::Null), Err(Fault::Lasting(what)) if what.contains("cannot") || what.contains("not score"))
        );
        let echo = json!({"choices": [{"logprobs": {"token_logprobs": [null, -0.5, -2.0]}}]}).to_string();
        assert_eq!(prompt_logprobs(echo.as_bytes(), "policy", &PROMPT).unwrap(), [-0.5, -2.0]);
    }

    /// What a real vLLM 0.32 answered, where it lies beside the project.
    #[expect(clippy::print_stdout, reason = "a skipped test says so")]
    fn recorded(name: &str) -> Option<(Value, Vec<u8>)> {
        let path = format!("{}/../../../shared/servers/vllm-0.32/{name}.json", env!("CARGO_MANIFEST_DIR"));
        let Ok(text) = rlt_files::read_text(path.as_ref(), 1 << 24) else {
            println!("{path} is absent: the recorded answers are not looked at");
            return None;
        };
        let recorded: Value = serde_json::from_str(&text).unwrap();
        let response = recorded["response"].to_string().into_bytes();
        Some((recorded["request"]["body"].clone(), response))
    }

    fn ids(value: &Value) -> Vec<u32> {
        serde_json::from_value(value.clone()).unwrap()
    }

    #[test]
    fn recorded_answers_of_vllm_are_read() {
        for name in
            ["a_completions_sample", "a_completions_sample_t1", "a_sampled_0", "a_sampled_3", "s_stop"]
        {
            let Some((body, response)) = recorded(name) else { return };
            let (prompt, stop) =
                (ids(&body["prompt"]), ids(body.get("stop_token_ids").unwrap_or(&json!([]))));
            let expected = Expected {
                model: "policy",
                n: body["n"].as_u64().unwrap_or(1) as usize,
                prompt: &prompt,
                longest: body["max_tokens"].as_u64().unwrap() as usize,
                stop_token_ids: &stop,
                vocab_size: 2048,
            };
            let drawn = completions(&response, &expected);
            assert!(drawn.is_ok(), "{name}: {drawn:?}");
        }
        for name in ["b_prompt_logprobs", "b_score_0", "b_score_5", "b_echo0"] {
            let Some((body, response)) = recorded(name) else { return };
            let scores = prompt_logprobs(&response, "policy", &ids(&body["prompt"])).unwrap();
            assert_eq!(scores.len() + 1, ids(&body["prompt"]).len(), "{name}");
        }
    }

    #[test]
    fn a_recorded_aborted_completion_is_none() {
        let Some((body, response)) = recorded("f_aborted") else { return };
        let prompt = ids(&body["prompt"]);
        let longest = body["max_tokens"].as_u64().unwrap() as usize;
        let n = body["n"].as_u64().unwrap_or(1) as usize;
        let expected = Expected { n, prompt: &prompt, longest, vocab_size: 2048, ..expected() };
        let fault = completions(&response, &expected).unwrap_err();
        assert!(matches!(&fault, Fault::Passing { .. }) && fault.what().contains("broken off"), "{fault:?}");
    }
}
