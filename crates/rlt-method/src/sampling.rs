//! Whoever writes completions, with everything that sampling depends on in one place. `rlt explain` and `rlt eval` share
//! it.

use std::time::Instant;

use rlt_model::config::ModelConfig;
use rlt_model::generate::{
    AllCompletions, Completion, GenerationProgress, GenerationRequest, SamplingParams,
};
use rlt_model::ids::TokenIds;
use rlt_model::{Decoder, Stop};

use crate::config::SamplingConfig;
use crate::error::{Error, Result};
use crate::prompts::{ChatText, PromptStyle};
use crate::sampler::{DecoderSampler, Sampler};

/// A teacher or a student who writes: what samples, and its text side.
#[derive(Clone, Copy)]
pub struct Author<'a> {
    /// Draws the ids.
    pub sampler: &'a dyn Sampler,
    /// Tokenizer and chat template.
    pub chat: &'a ChatText,
    /// Wording and tags of the prompts.
    pub style: &'a PromptStyle,
}

/// What one call of [`Author::write`] came to.
#[derive(Debug)]
pub struct SampledGroups {
    /// Completions of the prompts, in their order: `[prompt][sample]`. Of the first prompts only, where it was not done to
    /// its end.
    pub completions: Vec<Vec<Completion>>,
    /// Why it was not: it was asked to stop, or no more completions came.
    pub unfinished: Option<Error>,
}

impl<'a> Author<'a> {
    /// Puts them together.
    ///
    /// # Errors
    /// [`Error::Failed`] when the tokenizer cannot write one of the style's tags.
    pub fn new(sampler: &'a dyn Sampler, chat: &'a ChatText, style: &'a PromptStyle) -> Result<Self> {
        check_tags(chat, style)?;
        Ok(Self { sampler, chat, style })
    }

    /// Refuses a prompt that leaves no room for a token in the model's context. `row` names it.
    ///
    /// # Errors
    /// [`Error::Failed`] with the row and both lengths.
    pub fn check_prompt(&self, row: usize, prompt: &[u32]) -> Result<()> {
        self.sampler.check_ids(prompt).map_err(|e| Error::Failed(format!("the prompt of row {row}: {e}")))?;
        let context = self.sampler.context_tokens();
        if prompt.len() < context {
            return Ok(());
        }
        Err(Error::Failed(format!(
            "the prompt of row {row} fills the model's context of {context} tokens; shorten or drop the row"
        )))
    }

    /// `n` completions of every prompt. The draws of prompt `i` depend on the seed, `stream`, `first + i` and the
    /// sample's index alone, so that cutting a list of prompts into batches changes nothing. Once it is asked to stop, or
    /// no more completions come, the prompts that are done are kept.
    ///
    /// # Errors
    /// What the sampler reports.
    pub fn write(
        &self,
        stream: u64,
        first: usize,
        prompts: impl IntoIterator<Item = TokenIds>,
        n: usize,
        stop: Stop,
        on_progress: &mut (dyn FnMut(GenerationProgress) + Send),
    ) -> Result<SampledGroups> {
        let requests: Vec<GenerationRequest> = prompts
            .into_iter()
            .enumerate()
            .map(|(i, prompt)| GenerationRequest { prompt, n, stream: [stream, (first + i) as u64] })
            .collect();
        let mut all = AllCompletions::of(&requests, on_progress);
        match self.sampler.sample_each(&requests, stop, &mut all) {
            Ok(()) => Ok(SampledGroups { completions: all.into_completions(), unfinished: None }),
            Err(error) => {
                let completions = all.into_complete();
                let is_stopped = matches!(error, Error::Model(rlt_model::Error::Stopped));
                if completions.is_empty() && !is_stopped {
                    return Err(error);
                }
                Ok(SampledGroups { completions, unfinished: Some(error) })
            }
        }
    }

    /// See [`Sampler::prompts_at_once`].
    pub fn prompts_at_once(&self, n: usize) -> usize {
        self.sampler.prompts_at_once(n)
    }
}

/// The own engine with the weights of `decoder`; completions end with the tokens of [`stop_tokens`].
///
/// # Errors
/// As [`stop_tokens`].
pub fn decoder_sampler<'a>(
    decoder: &'a Decoder,
    chat: &ChatText,
    sampling: &SamplingConfig,
    seed: u64,
) -> Result<DecoderSampler<'a>> {
    let params = sampling_params(sampling, stop_tokens(decoder.config(), chat)?);
    Ok(DecoderSampler { decoder, params, seed, version: 0 })
}

/// The generator's settings from `[sampling]`.
pub fn sampling_params(sampling: &SamplingConfig, stop_token_ids: Vec<u32>) -> SamplingParams {
    let &SamplingConfig { temperature, top_k, top_p, min_p, repetition_penalty, max_new_tokens, max_running } =
        sampling;
    SamplingParams {
        temperature,
        top_k,
        top_p,
        min_p,
        repetition_penalty,
        max_new_tokens,
        stop_token_ids,
        max_running,
    }
}

/// The tokens that end a completion: the end-of-text tokens of the model's configuration, and the
/// token that ends an assistant turn in its chat template.
///
/// # Errors
/// [`Error::Failed`] when there is neither: no completion would ever end.
pub fn stop_tokens(model: &ModelConfig, chat: &ChatText) -> Result<Vec<u32>> {
    let mut ids = model.eos_token_ids.clone();
    ids.extend(turn_end_token(chat)?);
    ids.sort_unstable();
    ids.dedup();
    if ids.is_empty() {
        return Err(Error::Failed(
            "nothing would end a completion: the model's config.json has no eos_token_id and the chat \
             template ends no turn with a special token; add eos_token_id"
                .into(),
        ));
    }
    Ok(ids)
}

/// The special token that ends an assistant turn in the chat template; none where plain text ends it, which can stand in
/// a completion too.
///
/// # Errors
/// What the tokenizer reports.
pub fn turn_end_token(chat: &ChatText) -> Result<Option<u32>> {
    let first = chat.tokenizer.encode(chat.turn_end())?.first().copied();
    Ok(first.filter(|&id| chat.tokenizer.is_added_token(id)))
}

/// Refuses a tokenizer that leaves out a part of a tag.
fn check_tags(chat: &ChatText, style: &PromptStyle) -> Result<()> {
    for tag in style.tags() {
        let ids = chat.tokenizer.encode(tag)?;
        if chat.tokenizer.decode(&ids).trim() != tag.trim() {
            return Err(Error::Failed(format!(
                "the tokenizer cannot write the tag `{tag}`; add it to the vocabulary or choose other tags \
                 under [prompts]"
            )));
        }
    }
    Ok(())
}

/// Tokens a second over several calls of the generator, for progress lines.
#[derive(Debug)]
pub(crate) struct TokenRate {
    started: Instant,
    done: usize,
}

impl TokenRate {
    pub(crate) fn new() -> Self {
        Self { started: Instant::now(), done: 0 }
    }

    /// A call of the generator that drew `tokens` is over.
    pub(crate) fn add(&mut self, tokens: usize) {
        self.done += tokens;
    }

    /// "1234 tokens/s", with those of a call that is not over, and how many requests are under way where servers draw.
    pub(crate) fn text(&self, running: GenerationProgress) -> String {
        let seconds = self.started.elapsed().as_secs_f64().max(1e-9);
        let under_way = match running.under_way {
            0 => String::new(),
            n => format!(", {n} requests under way"),
        };
        format!("{:.0} tokens/s{under_way}", (self.done + running.tokens) as f64 / seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prompts::test_chat::test_chat_with;
    use crate::training::run::tests::tiny_config;

    /// A model of random weights whose configuration names `eos`, with the text side of the tests.
    fn model(eos: &[u32], template: &str) -> (Decoder, ChatText) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), tiny_config().to_string()).unwrap();
        let mut config = ModelConfig::from_dir(dir.path()).unwrap();
        config.eos_token_ids = eos.to_vec();
        (Decoder::random(&config, 1), test_chat_with(template))
    }

    const CHAT_ML: &str = "{% for m in messages %}{{ m.content + '<|im_end|>\n' }}{% endfor %}";
    const PLAIN: &str = "{% for m in messages %}{{ m.content + '\n\nUser:' }}{% endfor %}";

    #[test]
    fn completions_end_with_the_turn_or_the_text() {
        let (decoder, chat) = model(&[7], CHAT_ML);
        let turn_end = chat.tokenizer.token_to_id("<|im_end|>").unwrap();
        assert_eq!(stop_tokens(decoder.config(), &chat).unwrap(), [7, turn_end]);
        let (decoder, chat) = model(&[turn_end], CHAT_ML);
        assert_eq!(stop_tokens(decoder.config(), &chat).unwrap(), [turn_end]);
        // A blank line ends nothing.
        let (decoder, chat) = model(&[7], PLAIN);
        assert_eq!(stop_tokens(decoder.config(), &chat).unwrap(), [7]);
        let (decoder, chat) = model(&[], PLAIN);
        assert!(stop_tokens(decoder.config(), &chat).unwrap_err().to_string().contains("add eos_token_id"));
    }
}
