//! The update of a step: the gradient of its loss over all completions, micro-batch by micro-batch.

use rlt_model::batch::{PackedBatch, ScoringGroup, micro_batches};
use rlt_model::decoder::Keep;
use rlt_model::{Decoder, Gradients};

use super::objective::{k3, token_loss, token_loss_derivative, token_weight};
use crate::error::{Error, Result};

/// What the update of a step works on.
pub(super) struct Batch<'a> {
    pub step: u64,
    /// Names of the questions in errors.
    pub names: Vec<String>,
    /// One group a question.
    pub groups: Vec<ScoringGroup>,
    /// One a completion, group by group.
    pub advantages: &'a [f32],
    pub beta: f32,
    pub temperature: f32,
    pub tokens_per_microbatch: usize,
    /// What to keep between the passes.
    pub keep: Keep,
}

/// What a step's loss came to.
pub(super) struct StepLoss {
    pub loss: f64,
    /// Mean k3 over the tokens of each completion, then over completions, nats; none without a reference.
    pub kl_to_reference: Option<f64>,
}

/// One completion token of the step.
struct Token {
    completion: usize,
    weight: f64,
    reference: Option<f32>,
}

impl Batch<'_> {
    /// Adds the gradient of the step's loss to `gradients`, micro-batch by micro-batch. A group's prompt
    /// is computed once in every micro-batch that has a part of it.
    pub fn gradient(
        &self,
        policy: &Decoder,
        reference: Option<&Decoder>,
        gradients: &mut Gradients,
    ) -> Result<StepLoss> {
        let tokens = self.tokens(reference)?;
        let (mut done, mut loss, mut kl) = (0, 0.0, 0.0);
        for part in micro_batches(&self.groups, self.tokens_per_microbatch) {
            let batch = PackedBatch::new(&part);
            let logprobs = policy.train_micro_batch(
                &batch,
                self.temperature,
                self.keep,
                gradients,
                |first, logprobs| {
                    let tokens = tokens[done + first..].iter().zip(logprobs);
                    tokens.map(|(token, &logprob)| self.derivative(token, logprob)).collect::<Result<_>>()
                },
            )?;
            for (token, &logprob) in tokens[done..].iter().zip(&logprobs) {
                let advantage = self.advantages[token.completion];
                loss += token.weight * token_loss(advantage, self.beta, logprob, token.reference);
                kl += token.weight * token.reference.map_or(0.0, |reference| k3(logprob, reference));
            }
            done += logprobs.len();
        }
        Ok(StepLoss { loss, kl_to_reference: reference.map(|_| kl) })
    }

    /// All completion tokens of the step in the order in which they are computed.
    fn tokens(&self, reference: Option<&Decoder>) -> Result<Vec<Token>> {
        let mut reference_logprobs = match reference {
            Some(reference) => {
                reference.token_logprobs(&self.groups, self.temperature, self.tokens_per_microbatch)?
            }
            None => Vec::new(),
        }
        .into_iter()
        .flatten()
        .flatten();
        let continuations = self.groups.iter().flat_map(|group| &group.continuations);
        let mut tokens = Vec::new();
        for (completion, continuation) in continuations.enumerate() {
            let n_tokens = continuation.n_scored();
            let weight = token_weight(n_tokens, self.advantages.len());
            tokens.extend((0..n_tokens).map(|_| Token {
                completion,
                weight,
                reference: reference_logprobs.next(),
            }));
        }
        Ok(tokens)
    }

    /// Derivative of the step's loss by one token's log-probability.
    fn derivative(&self, token: &Token, logprob: f32) -> Result<f32> {
        let advantage = self.advantages[token.completion];
        let derivative = token.weight * token_loss_derivative(advantage, self.beta, logprob, token.reference);
        if logprob.is_finite() && derivative.is_finite() {
            return Ok(derivative as f32);
        }
        let group_size = self.advantages.len() / self.names.len();
        let (name, sample) = (&self.names[token.completion / group_size], token.completion % group_size + 1);
        Err(Error::NonFinite(format!(
            "step {}, {name}, sample {sample}: the loss of a token is not finite (log-probability {logprob}, \
             the reference's {:?}); a lower optimizer.learning_rate may help",
            self.step, token.reference
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::run::tests::tiny_model;
    use rlt_model::batch::Continuation;

    fn batch(advantages: &[f32], tokens_per_microbatch: usize) -> Batch<'_> {
        let ids = |n: u32, factor: u32| -> Vec<u32> { (0..n).map(|i| (i * factor + 3) % 40).collect() };
        let group = |prefix: Vec<u32>, lengths: [u32; 2]| ScoringGroup {
            prefix,
            continuations: lengths.map(|n| Continuation::whole(ids(n, n + 2))).to_vec(),
        };
        Batch {
            step: 4,
            names: vec!["row 8".into(), "row 9".into()],
            groups: vec![group(ids(6, 5), [4, 9]), group(ids(3, 7), [1, 12])],
            advantages,
            beta: 0.3,
            temperature: 0.7,
            tokens_per_microbatch,
            keep: Keep::Activations,
        }
    }

    const ADVANTAGES: [f32; 4] = [0.7, -0.7, -1.2, 1.2];

    #[test]
    fn micro_batches_give_the_gradient_of_the_step() {
        let (policy, reference) = (tiny_model(1), tiny_model(2));
        let gradient = |tokens_per_microbatch| {
            let mut gradients = Gradients::zeros(&policy);
            let batch = batch(&ADVANTAGES, tokens_per_microbatch);
            let loss = batch.gradient(&policy, Some(&reference), &mut gradients).unwrap();
            (loss, gradients)
        };
        let (loss, whole) = gradient(1000);
        assert!(loss.kl_to_reference.unwrap() > 0.0);
        for tokens_per_microbatch in [1, 15, 20] {
            let (cut, parts) = gradient(tokens_per_microbatch);
            assert!((cut.loss - loss.loss).abs() < 1e-6);
            for (a, b) in whole.tensors().iter().zip(parts.tensors()) {
                for (a, b) in a.to_host().iter().zip(b.to_host().iter()) {
                    assert!((a - b).abs() < 1e-5, "{a} {b}");
                }
            }
        }
    }

    #[test]
    fn a_step_along_the_gradient_raises_what_has_an_advantage() {
        let policy = tiny_model(1);
        let batch = Batch { beta: 0.0, ..batch(&ADVANTAGES, 1000) };
        let mut gradients = Gradients::zeros(&policy);
        let loss = batch.gradient(&policy, None, &mut gradients).unwrap();
        assert!(loss.kl_to_reference.is_none());
        // Without a KL term the loss is minus the mean advantage, whatever the weights are ..
        assert!(loss.loss.abs() < 1e-6);
        // .. and its gradient is that of the weighted log-probabilities.
        let objective = |decoder: &Decoder| -> f64 {
            let logprobs = decoder.token_logprobs(&batch.groups, 0.7, 1000).unwrap();
            let completions = logprobs.into_iter().flatten();
            completions
                .zip(ADVANTAGES)
                .map(|(logprobs, advantage)| {
                    let sum: f64 = logprobs.iter().map(|&logprob| f64::from(logprob)).sum();
                    -f64::from(advantage) * sum / logprobs.len() as f64 / 4.0
                })
                .sum()
        };
        let h = 1e-2;
        let moved = |sign: f32| {
            let mut parameters = policy.parameters().clone();
            for (weight, gradient) in parameters.tensors_mut().into_iter().zip(gradients.tensors()) {
                let data = weight
                    .to_host()
                    .iter()
                    .zip(gradient.to_host().iter())
                    .map(|(w, g)| w + sign * h * g)
                    .collect();
                *weight = rlt_engine::Tensor::from_vec(weight.rows(), weight.cols(), data);
            }
            objective(&Decoder::new(policy.config().clone(), parameters))
        };
        let slope = (moved(1.0) - moved(-1.0)) / (2.0 * f64::from(h));
        let squares: f64 = gradients.tensors().into_iter().map(rlt_engine::adamw::sum_of_squares).sum();
        assert!((slope / squares - 1.0).abs() < 1e-2, "slope {slope}, squared norm {squares}");
    }

    #[test]
    fn a_loss_that_is_not_finite_names_step_row_and_sample() {
        let advantages = [0.7, -0.7, -1.2, f32::INFINITY];
        let mut gradients = Gradients::zeros(&tiny_model(1));
        let error = batch(&advantages, 1000).gradient(&tiny_model(1), None, &mut gradients).err().unwrap();
        assert!(error.to_string().starts_with("step 4, row 9, sample 2: "), "{error}");
    }
}
