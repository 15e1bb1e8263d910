//! `POST /v1/completions`: what is asked, as work for the engine, and what the engine found, as vLLM writes it.

use std::collections::BTreeMap;

use rlt_model::batch::ScoringGroup;
use rlt_model::generate::{Completion, Finish, GenerationRequest, SamplingParams};
use rlt_model::ids::TokenIds;
use rlt_model::tokenizer::Tokenizer;
use serde::{Deserialize, Serialize};

use crate::fields::{MAX_SEQUENCES, Neutral, Number, Prompts};
use crate::queue::{Found, Generation, Work};
use crate::refusal::Refusal;
use crate::weights::Loaded;

/// Most tokens that one request may ask for, its prompts included.
const MAX_TOKENS: usize = 4 << 20;

/// Completions where the request says nothing, tokens, as OpenAI and vLLM have it.
const DEFAULT_TOKENS: i128 = 16;

/// The second key of served draws, beside the request's seed.
const SERVED: u64 = 0x7365_7276_6564;

/// The fields of a request. Any other is refused by its name.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    #[serde(default)]
    model: Option<String>,
    prompt: Prompts,
    #[serde(default)]
    n: Number,
    #[serde(default)]
    max_tokens: Number,
    #[serde(default)]
    temperature: Number,
    #[serde(default)]
    top_p: Number,
    #[serde(default)]
    top_k: Number,
    #[serde(default)]
    min_p: Number,
    #[serde(default)]
    repetition_penalty: Number,
    #[serde(default)]
    seed: Number,
    #[serde(default)]
    rlt_draw: Option<DrawKeys>,
    #[serde(default)]
    stop_token_ids: Option<Vec<u32>>,
    #[serde(default)]
    ignore_eos: Option<bool>,
    #[serde(default)]
    logprobs: Number,
    #[serde(default)]
    prompt_logprobs: Number,
    #[serde(default)]
    echo: Option<bool>,
    #[serde(default)]
    return_token_ids: Option<bool>,
    #[serde(default)]
    return_tokens_as_token_ids: Option<bool>,
    // What changes no numbers.
    #[serde(default, rename = "user")]
    _user: Option<String>,
    #[serde(default, rename = "request_id")]
    _request_id: Option<String>,
    #[serde(default, rename = "skip_special_tokens")]
    _skip_special_tokens: Option<bool>,
    #[serde(default, rename = "spaces_between_special_tokens")]
    _spaces_between_special_tokens: Option<bool>,
    #[serde(default, rename = "include_stop_str_in_output")]
    _include_stop_str_in_output: Option<bool>,
    #[serde(default, rename = "add_special_tokens")]
    _add_special_tokens: Option<bool>,
    // What is not done.
    #[serde(default = "neutral")]
    best_of: Neutral,
    #[serde(default = "neutral")]
    stop: Neutral,
    #[serde(default = "neutral")]
    stream: Neutral,
    #[serde(default = "neutral")]
    stream_options: Neutral,
    #[serde(default = "neutral")]
    suffix: Neutral,
    #[serde(default = "neutral")]
    logit_bias: Neutral,
    #[serde(default = "neutral")]
    presence_penalty: Neutral,
    #[serde(default = "neutral")]
    frequency_penalty: Neutral,
    #[serde(default = "neutral")]
    min_tokens: Neutral,
    #[serde(default = "neutral")]
    use_beam_search: Neutral,
    #[serde(default = "neutral")]
    priority: Neutral,
    #[serde(default = "neutral")]
    truncate_prompt_tokens: Neutral,
}

fn neutral() -> Neutral {
    Neutral(true)
}

/// Keys of the draws as the engine has them when it is asked directly: more than one seed, and in its place.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct DrawKeys {
    seed: u64,
    stream: [u64; 2],
}

/// What a request asks for, checked against the model.
#[derive(Debug)]
pub(crate) struct Asked {
    prompts: Vec<TokenIds>,
    n: usize,
    wants_prompt_logprobs: bool,
    echoes: bool,
    wants_logprobs: bool,
    wants_ids: bool,
    names_tokens_by_id: bool,
    stop_token_ids: Vec<u32>,
    generation: Option<Generation>,
}

impl Asked {
    /// Reads and checks a request to the model `name`.
    ///
    /// # Errors
    /// One line that names the field.
    pub fn read(body: &[u8], name: &str, model: &Loaded, max_running: usize) -> Result<Self, Refusal> {
        let fields: Fields =
            serde_json::from_slice(body).map_err(|e| Refusal::wrong(format!("the body: {e}")))?;
        check_model(fields.model.as_deref(), name)?;
        fields.refuse_what_is_not_done()?;
        let config = model.decoder.config();
        let context = config.context();

        let n = fields.n.whole("n", 1, 1, MAX_SEQUENCES as i128)? as usize;
        let echoes = fields.echo.unwrap_or(false);
        let wants_prompt_logprobs = only_own("prompt_logprobs", fields.prompt_logprobs)?;
        let wants_logprobs = only_own("logprobs", fields.logprobs)?;
        let scores = wants_prompt_logprobs || (echoes && wants_logprobs);
        // Only what asks for scores may ask for no new token.
        let least = i128::from(!scores);
        let max_tokens = fields.max_tokens.whole("max_tokens", DEFAULT_TOKENS, least, i128::MAX)?;
        let temperature = fields.temperature.real("temperature", 1.0, 0.0, 1e4)? as f32;
        if temperature > 0.0 && temperature < 1e-3 {
            return Err(Refusal::field("temperature", "0 (the most likely token) or at least 0.001"));
        }
        if scores && temperature != 1.0 {
            return Err(Refusal::field(
                "temperature",
                "log-probabilities of a prompt are given at temperature 1 only; ask for them with temperature 1, \
                 and for completions in a request of their own",
            ));
        }

        let prompts: Vec<TokenIds> = fields.prompt.0.into_iter().map(TokenIds::from).collect();
        for prompt in &prompts {
            if prompt.is_empty() {
                return Err(Refusal::field("prompt", "a prompt has at least one token"));
            }
            let unknown = prompt.iter().find(|&&id| id as usize >= config.vocab_size);
            if let Some(id) = unknown {
                return Err(Refusal::wrong(format!("Token id {id} is out of vocabulary")));
            }
            if prompt.len() as i128 + max_tokens > context as i128 {
                return Err(Refusal::field(
                    "max_tokens",
                    format!(
                        "This model's maximum context length is {context} tokens. However, you requested \
                         {max_tokens} output tokens and your prompt contains {} input tokens",
                        prompt.len()
                    ),
                ));
            }
        }
        if prompts.len() * n > MAX_SEQUENCES {
            let what =
                format!("a request asks for at most {MAX_SEQUENCES} completions of all its prompts together");
            return Err(Refusal::field("n", what));
        }
        let asked = prompts.iter().map(|prompt| prompt.len() + n * max_tokens as usize).sum::<usize>();
        if asked > MAX_TOKENS {
            let what =
                format!("a request asks for at most {MAX_TOKENS} tokens, its prompts included, not {asked}");
            return Err(Refusal::field("max_tokens", what));
        }

        let stop_token_ids = fields.stop_token_ids.unwrap_or_default();
        let mut stops = stop_token_ids.clone();
        if !fields.ignore_eos.unwrap_or(false) {
            stops.extend(&config.eos_token_ids);
        }
        stops.sort_unstable();
        stops.dedup();
        let params = SamplingParams {
            temperature,
            top_k: fields.top_k.whole("top_k", 0, -1, i128::from(u32::MAX))?.max(0) as usize,
            top_p: above_zero("top_p", fields.top_p, 1.0)?,
            min_p: fields.min_p.real("min_p", 0.0, 0.0, 1.0)? as f32,
            repetition_penalty: above_zero("repetition_penalty", fields.repetition_penalty, 1e3)?,
            max_new_tokens: max_tokens as usize,
            stop_token_ids: stops,
            max_running,
        };
        let seed = fields.seed.whole("seed", -1, i128::from(i64::MIN), i128::from(u64::MAX))?;
        let draws = match (fields.rlt_draw, fields.seed) {
            (Some(draws), _) => draws,
            (None, Number::None) => DrawKeys { seed: 0, stream: [any_seed(), SERVED] },
            (None, _) => DrawKeys { seed: 0, stream: [seed as u64, SERVED] },
        };
        let request =
            |prompt: &TokenIds| GenerationRequest { prompt: prompt.clone(), n, stream: draws.stream };
        let requests = prompts.iter().map(request).collect();
        let generation = (max_tokens > 0).then_some(Generation { requests, params, seed: draws.seed });
        Ok(Self {
            prompts,
            n,
            wants_prompt_logprobs: scores,
            echoes,
            wants_logprobs,
            wants_ids: fields.return_token_ids.unwrap_or(false),
            names_tokens_by_id: fields.return_tokens_as_token_ids.unwrap_or(false),
            stop_token_ids,
            generation,
        })
    }

    /// What the engine has to do: scores, completions or both.
    pub fn work(&self) -> Vec<Work> {
        let mut work = Vec::new();
        if self.wants_prompt_logprobs {
            let longer = self.prompts.iter().filter(|prompt| prompt.len() > 1);
            let group = |prompt: &TokenIds| {
                let after_first = 1..prompt.len();
                ScoringGroup::single(prompt.clone(), vec![after_first])
            };
            work.push(Work::Score(longer.map(group).collect()));
        }
        work.extend(self.generation.clone().map(Work::Generate));
        work
    }

    /// The answer, from what was found for [`Self::work`]. `id` names the request, `created` is in seconds since 1970.
    ///
    /// # Errors
    /// A log-probability is not a number.
    pub fn answer(
        &self,
        found: Vec<Found>,
        name: &str,
        model: &Loaded,
        tokenizer: Option<&Tokenizer>,
        id: u64,
        created: u64,
    ) -> Result<Vec<u8>, Refusal> {
        let (mut scores, mut completions) = (Vec::new(), Vec::new());
        for found in found {
            match found {
                Found::Scores(of_prompts) => scores = of_prompts,
                Found::Completions(of_prompts) => completions = of_prompts,
            }
        }
        let finite = scores.iter().flatten().all(|logprob| logprob.is_finite());
        let drawn = completions.iter().flatten().flatten();
        if !finite || !drawn.flat_map(|c| &c.logprobs).all(|logprob| logprob.is_finite()) {
            return Err(Refusal::new(
                500,
                "a log-probability is not finite: the model's weights are damaged",
            ));
        }
        let mut scores = scores.into_iter();
        let mut completions = completions.into_iter();
        let mut choices = Vec::new();
        let mut n_drawn = 0;
        for prompt in &self.prompts {
            let scored = self.wants_prompt_logprobs.then(|| {
                let rest = if prompt.len() > 1 { scores.next().unwrap_or_default() } else { Vec::new() };
                std::iter::once(None).chain(rest.into_iter().map(Some)).collect::<Vec<_>>()
            });
            let nothing = || vec![None; self.n];
            let of_prompt = if self.generation.is_some() { completions.next() } else { None };
            for completion in of_prompt.unwrap_or_else(nothing) {
                n_drawn += completion.as_ref().map_or(0, |completion| completion.ids.len());
                choices.push(self.choice(choices.len(), prompt, scored.as_deref(), completion, tokenizer));
            }
        }
        let n_prompt: usize = self.prompts.iter().map(|prompt| prompt.len()).sum();
        let answer = Answer {
            id: format!("cmpl-{id:016x}"),
            object: "text_completion",
            created,
            model: name,
            choices,
            system_fingerprint: format!("rlt-{}-w{}", env!("CARGO_PKG_VERSION"), model.n_reloads),
            usage: Usage {
                prompt_tokens: n_prompt,
                total_tokens: n_prompt + n_drawn,
                completion_tokens: n_drawn,
            },
        };
        serde_json::to_vec(&answer).map_err(|e| Refusal::new(500, e.to_string()))
    }

    fn choice(
        &self,
        index: usize,
        prompt: &TokenIds,
        scored: Option<&[Option<f32>]>,
        completion: Option<Completion>,
        tokenizer: Option<&Tokenizer>,
    ) -> Choice {
        let (ids, logprobs, finish_reason) = match completion {
            Some(Completion { ids, logprobs, finish, .. }) => (
                ids,
                logprobs,
                match finish {
                    Finish::Stop => "stop",
                    Finish::Length => "length",
                },
            ),
            None if self.generation.is_some() => (TokenIds::default(), Vec::new(), "abort"),
            None => (TokenIds::default(), Vec::new(), "length"),
        };
        let text = |ids: &[u32]| tokenizer.map_or_else(String::new, |tokenizer| tokenizer.decode(ids));
        let echoed: &[u32] = if self.echoes { prompt } else { &[] };
        let shown: Vec<u32> = echoed.iter().chain(ids.iter()).copied().collect();
        let values = scored.filter(|_| self.echoes).unwrap_or_default().iter().copied();
        let values: Vec<Option<f64>> =
            values.chain(logprobs.into_iter().map(Some)).map(|v| v.map(f64::from)).collect();
        let stopped_by = ids.last().filter(|id| finish_reason == "stop" && self.stop_token_ids.contains(id));
        Choice {
            index,
            text: text(&shown),
            logprobs: self.wants_logprobs.then(|| {
                let name =
                    |id: u32| if self.names_tokens_by_id { format!("token_id:{id}") } else { text(&[id]) };
                let tokens: Vec<String> = shown.iter().map(|&id| name(id)).collect();
                let top = tokens
                    .iter()
                    .zip(&values)
                    .map(|(token, value)| value.map(|value| BTreeMap::from([(token.clone(), value)])));
                Logprobs {
                    text_offset: offsets(&tokens),
                    top_logprobs: top.collect(),
                    token_logprobs: values,
                    tokens,
                }
            }),
            finish_reason,
            stop_reason: stopped_by.copied(),
            token_ids: self.wants_ids.then(|| ids.clone()).map(|ids| ids.to_vec()),
            prompt_logprobs: scored.map(|scored| {
                let of_token = |(&id, value): (&u32, &Option<f32>)| {
                    value.map(|value| {
                        BTreeMap::from([(
                            id,
                            PromptLogprob { logprob: value.into(), rank: None, decoded_token: None },
                        )])
                    })
                };
                prompt.iter().zip(scored).map(of_token).collect()
            }),
            prompt_token_ids: self.wants_ids.then(|| prompt.to_vec()),
        }
    }
}

/// Refuses a request for another model.
pub(crate) fn check_model(asked: Option<&str>, name: &str) -> Result<(), Refusal> {
    match asked {
        Some(other) if other != name => {
            let shown: String = other.chars().take(200).collect();
            let message = format!("The model `{shown}` does not exist. Valid aliases: {name}.");
            Err(Refusal { param: Some("model"), ..Refusal::new(404, message) })
        }
        _ => Ok(()),
    }
}

impl Fields {
    fn refuse_what_is_not_done(&self) -> Result<(), Refusal> {
        let not_done = [
            ("stop", self.stop, "stop_token_ids end a completion here"),
            ("stream", self.stream, "answers come whole"),
            ("stream_options", self.stream_options, "answers come whole"),
            ("suffix", self.suffix, "only what follows a prompt is written"),
            ("logit_bias", self.logit_bias, "it has no place in the engine"),
            ("presence_penalty", self.presence_penalty, "repetition_penalty is there"),
            ("frequency_penalty", self.frequency_penalty, "repetition_penalty is there"),
            ("min_tokens", self.min_tokens, "ignore_eos and stop_token_ids are there"),
            ("use_beam_search", self.use_beam_search, "completions are sampled"),
            ("priority", self.priority, "requests are done in the order of their arrival"),
            ("truncate_prompt_tokens", self.truncate_prompt_tokens, "send the tokens that count"),
            ("best_of", self.best_of, "n completions are all returned"),
        ];
        match not_done.into_iter().find(|(_, field, _)| !field.0) {
            Some((name, _, instead)) => Err(Refusal::field(name, format!("is not supported: {instead}"))),
            None => Ok(()),
        }
    }
}

/// Whether a field asks for log-probabilities of the tokens themselves; more than these there are not.
fn only_own(field: &'static str, number: Number) -> Result<bool, Refusal> {
    match number.whole(field, -1, 0, i128::MAX)? {
        -1 => Ok(false),
        0 => Ok(true),
        _ => Err(Refusal::field(
            field,
            "0 gives those of the tokens themselves; the most likely others are not given",
        )),
    }
}

fn above_zero(field: &'static str, number: Number, most: f64) -> Result<f32, Refusal> {
    let value = number.real(field, 1.0, 0.0, most)? as f32;
    if value > 0.0 { Ok(value) } else { Err(Refusal::field(field, "a number above 0 is expected")) }
}

/// A seed for a request that brings none.
fn any_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    // Keyed by the system at random, anew each time.
    RandomState::new().build_hasher().finish()
}

/// Where each token begins in all of them, characters.
fn offsets(tokens: &[String]) -> Vec<usize> {
    let ends = tokens.iter().scan(0, |end, token| {
        let begin = *end;
        *end += token.chars().count();
        Some(begin)
    });
    ends.collect()
}

#[derive(Serialize)]
struct Answer<'a> {
    id: String,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: Vec<Choice>,
    system_fingerprint: String,
    usage: Usage,
}

#[derive(Serialize)]
#[allow(clippy::struct_field_names, reason = "as the interface has them")]
struct Usage {
    prompt_tokens: usize,
    total_tokens: usize,
    completion_tokens: usize,
}

#[derive(Serialize)]
struct Choice {
    index: usize,
    text: String,
    logprobs: Option<Logprobs>,
    finish_reason: &'static str,
    stop_reason: Option<u32>,
    token_ids: Option<Vec<u32>>,
    prompt_logprobs: Option<Vec<Option<BTreeMap<u32, PromptLogprob>>>>,
    prompt_token_ids: Option<Vec<u32>>,
}

#[derive(Serialize)]
#[allow(clippy::struct_field_names, reason = "as the interface has them")]
struct Logprobs {
    text_offset: Vec<usize>,
    token_logprobs: Vec<Option<f64>>,
    tokens: Vec<String>,
    top_logprobs: Vec<Option<BTreeMap<String, f64>>>,
}

#[derive(Serialize)]
struct PromptLogprob {
    logprob: f64,
    /// Its place among all tokens, which the engine does not look for.
    rank: Option<u32>,
    decoded_token: Option<String>,
}
