//! Whoever writes completions, with everything that sampling depends on in one place. `rlt explain` and `rlt eval` share
//! it.

use std::time::Instant;

use rlt_model::config::ModelConfig;
use rlt_model::generate::{Completion, GenerationProgress, GenerationRequest, SamplingParams};
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

    /// `n` completions of every prompt, handed to `take` in the order of the prompts: `[prompt][sample]` of the next ones, as
    /// soon as they are complete. The draws of prompt `i` depend on the seed, `stream`, `first + i` and the sample's index
    /// alone, so that whoever goes on later with the rest gets what this call would have given. `on_progress` hears what was
    /// drawn since the call began.
    ///
    /// # Errors
    /// What `prompts`, the sampler and `take` report; what was complete by then was handed over.
    pub fn write(
        &self,
        stream: u64,
        first: usize,
        prompts: impl IntoIterator<Item = Result<TokenIds>>,
        n: usize,
        stop: Stop,
        on_progress: &mut (dyn FnMut(GenerationProgress) + Send),
        take: &mut dyn FnMut(Vec<Vec<Completion>>) -> Result<()>,
    ) -> Result<()> {
        let request = |(i, prompt): (usize, Result<TokenIds>)| {
            Ok(GenerationRequest { prompt: prompt?, n, stream: [stream, (first + i) as u64] })
        };
        let mut requests = prompts.into_iter().enumerate().map(request);
        self.sampler.sample_in_order(&mut requests, stop, on_progress, take)
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

/// Tokens a second, for progress lines.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TokenRate {
    started: Instant,
}

impl TokenRate {
    pub(crate) fn new() -> Self {
        Self { started: Instant::now() }
    }

    /// "1234 tokens/s" of what was drawn since the beginning, and how many requests are under way where servers draw.
    pub(crate) fn text(self, drawn: GenerationProgress) -> String {
        let seconds = self.started.elapsed().as_secs_f64().max(1e-9);
        let under_way = match drawn.under_way {
            0 => String::new(),
            n => format!(", {n} requests under way"),
        };
        format!("{:.0} tokens/s{under_way}", drawn.tokens as f64 / seconds)
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
