//! Whether a server does what it is wanted for: speaks the folder's tokens, draws ids with log-probabilities, repeats a seed,
//! scores given ids. Asked once, before work begins.

use rlt_model::generate::{Finish, SamplingParams};
use rlt_model::tokenizer::Tokenizer;
use serde::Deserialize;
use serde_json::json;

use super::answer::{Drawn, Expected, completions, parse, prompt_logprobs};
use super::connect::{Served, ask_now, name};
use super::fault::Fault;
use super::request::{Draw, sampling, scoring};
use super::sglang;
use super::wire::{Ask, Wire};
use crate::config::ServerKind;
use crate::error::{Error, Result};
use crate::progress::Progress;

/// Letters of several scripts, digits, space, and what merges differ in.
const TEXT: &str = "Prüfe: 12 + 34 = 46,  don't «日本語»\n\nThe quick brown fox, twice: the quick brown fox.";

/// Tokens that are drawn to look at them.
const DRAWN: usize = 8;

/// Log-probabilities nearer than this are the same number, nats.
const SAME: f32 = 1e-3;

/// What a server is wanted for.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Wanted<'a> {
    /// Completions are drawn so.
    pub sampling: Option<&'a SamplingParams>,
    /// And their log-probabilities count, at the temperature of sampling: in training.
    pub behaviour: bool,
    /// Given ids are scored.
    pub scoring: bool,
}

#[derive(Deserialize)]
struct Tokens {
    tokens: Vec<u32>,
}

impl Served {
    /// Refuses what the server cannot do, with the flag that would enable it, and a model that speaks other tokens than
    /// `tokenizer`, at every address.
    ///
    /// # Errors
    /// [`Error::Usage`] with the reason; [`Error::Failed`] where it does not answer.
    pub fn check(&self, tokenizer: &Tokenizer, wanted: &Wanted, progress: &dyn Progress) -> Result<()> {
        self.check_not_paused()?;
        for wire in self.pool.wires() {
            let tokens_compared = self.check_tokens(wire, tokenizer)?;
            let prompt = self.probe_prompt(tokenizer)?;
            if wanted.scoring || wanted.behaviour {
                self.score_at(wire, &prompt).map_err(|fault| self.cannot(wire, "score", &fault))?;
            }
            if let Some(params) = wanted.sampling {
                let drawn = self.check_draws(wire, &prompt, params, progress)?;
                if !tokens_compared {
                    self.compare_texts(wire, tokenizer, &drawn, progress);
                }
                if wanted.behaviour {
                    self.check_temperature(wire, &prompt, params, &drawn)?;
                }
            }
        }
        Ok(())
    }

    /// Ids of a text, the last id of the vocabulary among them: a server with a smaller one refuses it.
    pub(super) fn probe_prompt(&self, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
        let last = tokenizer.vocab_size().min(self.vocab_size).saturating_sub(1) as u32;
        let mut ids = vec![last];
        ids.extend(tokenizer.encode(TEXT)?);
        ids.truncate((self.context / 2).max(2));
        Ok(ids)
    }

    /// Whether the server's tokens of a text could be compared with the folder's.
    fn check_tokens(&self, wire: &Wire, tokenizer: &Tokenizer) -> Result<bool> {
        let body = json!({ "model": self.model, "prompt": TEXT, "add_special_tokens": false });
        let answer = ask_now(wire, &Ask::post("/tokenize", &body, 1 << 20)).and_then(|bytes| parse(&bytes));
        let Ok(Tokens { tokens }) = answer else { return Ok(false) };
        if tokens == tokenizer.encode(TEXT)? {
            return Ok(true);
        }
        Err(Error::Usage(format!(
            "{}: {} encodes a text as other tokens than the folder's tokenizer does; serve the model of that folder, or name \
             the folder of the model that is served",
            self.table,
            wire.address()
        )))
    }

    /// The log-probability of every token after the first of `ids`, by one address.
    pub(super) fn score_at(&self, wire: &Wire, ids: &[u32]) -> std::result::Result<Vec<f32>, Fault> {
        let bytes = ask_now(wire, &scoring(self.kind, &self.model, ids))?;
        self.read_scores(&bytes, ids)
    }

    /// The scores in an answer.
    pub(super) fn read_scores(&self, bytes: &[u8], ids: &[u32]) -> std::result::Result<Vec<f32>, Fault> {
        read_scores(self.kind, &self.model, bytes, ids)
    }

    /// A completion of a few tokens, which the same seed repeats.
    fn check_draws(
        &self,
        wire: &Wire,
        prompt: &[u32],
        params: &SamplingParams,
        progress: &dyn Progress,
    ) -> Result<Drawn> {
        let longest = DRAWN.min(self.context.saturating_sub(prompt.len())).max(1);
        let draw = Draw { seed: 1, stream: [0, 0], first: 0, n: 1 };
        let ask = sampling(self.kind, &self.model, prompt, params, longest, draw);
        let expected = Expected {
            model: &self.model,
            n: 1,
            prompt,
            longest,
            stop_token_ids: &params.stop_token_ids,
            vocab_size: self.vocab_size,
        };
        let drawn = || {
            let bytes = ask_now(wire, &ask)?;
            let drawn = read_completions(self.kind, &bytes, &expected)?.pop();
            drawn.ok_or_else(|| Fault::passing("it answers with nothing"))
        };
        let cannot = |fault: Fault| self.cannot(wire, "sample", &fault);
        let (first, again) = (drawn().map_err(cannot)?, drawn().map_err(cannot)?);
        if first.ids != again.ids {
            progress.warn(&format!(
                "{}: {} does not repeat a seed: a request that is asked again gets other draws",
                self.table,
                wire.address()
            ));
        }
        Ok(first)
    }

    /// Where tokens of a text could not be compared, the text of tokens is.
    fn compare_texts(&self, wire: &Wire, tokenizer: &Tokenizer, drawn: &Drawn, progress: &dyn Progress) {
        let text = tokenizer.decode(&drawn.ids);
        let differs = !drawn.text.is_empty()
            && drawn.finish == Finish::Length
            && ![&text, &drawn.text].iter().any(|text| text.contains('\u{fffd}'))
            && drawn.text.trim() != text.trim();
        if differs {
            progress.warn(&format!(
                "{}: {} spells token ids as {:?}, the folder's tokenizer as {text:?}: is it the same model?",
                self.table,
                wire.address(),
                drawn.text
            ));
        }
    }

    /// Refuses log-probabilities of sampled tokens that are those at temperature 1 where another was asked for.
    fn check_temperature(
        &self,
        wire: &Wire,
        prompt: &[u32],
        params: &SamplingParams,
        drawn: &Drawn,
    ) -> Result<()> {
        if params.temperature == 1.0 {
            return Ok(());
        }
        let ids = [prompt, &drawn.ids].concat();
        let scored = self.score_at(wire, &ids).map_err(|fault| self.cannot(wire, "score", &fault))?;
        let at_one = &scored[prompt.len() - 1..];
        let differ = drawn.logprobs.iter().zip(at_one).any(|(a, b)| (a - b).abs() > SAME);
        let are_certain = drawn.logprobs.iter().all(|logprob| logprob.abs() < SAME);
        if differ || are_certain {
            return Ok(());
        }
        Err(Error::Usage(format!(
            "{}: {} gives the log-probabilities of sampled tokens at temperature 1, not at sampling.temperature ({}); start \
             vLLM with --logprobs-mode processed_logprobs, or set sampling.temperature=1",
            self.table,
            wire.address(),
            params.temperature
        )))
    }

    fn cannot(&self, wire: &Wire, what: &str, fault: &Fault) -> Error {
        let (kind, address) = (name(self.kind), wire.address());
        let line = format!("{}: {kind} at {address} does not {what}: {}", self.table, fault.what());
        match fault {
            Fault::Passing { .. } => Error::Failed(line),
            Fault::Lasting(_) => Error::Usage(line),
        }
    }
}

/// The completions in an answer.
pub(super) fn read_completions(
    kind: ServerKind,
    bytes: &[u8],
    expected: &Expected,
) -> std::result::Result<Vec<Drawn>, Fault> {
    match kind {
        ServerKind::Sglang => Ok(vec![sglang::completion(bytes, expected)?]),
        _ => completions(bytes, expected),
    }
}

/// The scores in an answer.
pub(super) fn read_scores(
    kind: ServerKind,
    model: &str,
    bytes: &[u8],
    ids: &[u32],
) -> std::result::Result<Vec<f32>, Fault> {
    match kind {
        ServerKind::Sglang => sglang::prompt_logprobs(bytes, ids),
        _ => prompt_logprobs(bytes, model, ids),
    }
}
