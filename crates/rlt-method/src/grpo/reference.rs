//! The reference model: where it comes from and how it moves.

use std::path::Path;

use rlt_model::Decoder;
use rlt_model::parameters::slots;
use rlt_model::tokenizer::Tokenizer;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::prompts::ChatText;
use crate::ranks::Holding;
use crate::training::run::{Weights, frozen_model_on};

/// A run with a KL term starts with the model in `model.reference`, else with its own copy of the model; beside an
/// adapter, that is the base model itself.
///
/// # Errors
/// What the folder of `model.reference` reports; [`Error::Usage`] when it speaks other tokens, or must move and has
/// another shape.
pub(crate) fn begin_reference(
    weights: &mut Weights,
    config: &Config,
    chat: &ChatText,
    steps_done: u64,
    holding: &Holding,
) -> Result<()> {
    let (beta, path) = (config.grpo.beta, &config.model.reference);
    if beta == 0.0 {
        weights.reference = None;
    } else if let Some(path) = config.fixed_reference() {
        check_vocabulary(path, chat)?;
        weights.reference = Some(frozen_model_on(weights.decoder.device(), holding, &config.model, path)?);
    } else if weights.decoder.adapter().is_some() {
        weights.reference = Some(weights.decoder.base());
    } else if weights.reference.is_none() {
        if steps_done > 0 {
            return Err(Error::Failed(format!(
                "the checkpoint of step {steps_done} has no reference model, but grpo.beta is {beta}; start \
                 the run again"
            )));
        }
        let decoder = &weights.decoder;
        weights.reference = Some(if path.as_os_str().is_empty() {
            holding.copy(decoder)?
        } else {
            check_vocabulary(path, chat)?;
            of_equal_shape(holding.load(decoder.device(), path)?, decoder, path)?
                .in_arithmetic(decoder.arithmetic())
        });
    }
    Ok(())
}

fn check_vocabulary(path: &Path, chat: &ChatText) -> Result<()> {
    let own = Tokenizer::from_dir(path)?;
    if own.vocabulary_hash() == chat.tokenizer.vocabulary_hash() {
        return Ok(());
    }
    Err(Error::Usage(format!(
        "model.reference, {}, has another tokenizer than model.path; choose models of one family",
        path.display()
    )))
}

/// `reference`, when it can move towards `policy`.
fn of_equal_shape(reference: Decoder, policy: &Decoder, path: &Path) -> Result<Decoder> {
    let shapes = |decoder: &Decoder| slots(decoder.config());
    if shapes(&reference) == shapes(policy) {
        return Ok(reference);
    }
    Err(Error::Usage(format!(
        "model.reference, {}, has another shape than model.path, so it cannot move towards the model in training; set \
         grpo.reference_sync_every=0",
        path.display()
    )))
}

/// Keeps a reference that will never move as small as it can be: in bf16 where that is exact, and in the memory of
/// `student` where the two are the same model. No bit of a result changes. (Beside an adapter it is the base model, and
/// shares its memory already.)
pub(crate) fn settle_reference(weights: &mut Weights, sync_every: usize, student: Option<&Decoder>) {
    let Weights { decoder, reference: Some(reference), .. } = weights else { return };
    if sync_every > 0 || decoder.adapter().is_some() || reference.shared().is_some() {
        return;
    }
    reference.freeze();
    if let Some(student) = student.filter(|student| are_the_same(student, reference)) {
        *reference = student.base();
    }
}

/// Whether two models have the same shape and weights, bit for bit.
fn are_the_same(a: &Decoder, b: &Decoder) -> bool {
    a.config() == b.config() && a.tensors().zip(b.tensors()).all(|(a, b)| a.has_bits_of(&b))
}

/// ref <- mixup * policy + (1 - mixup) * ref, every `every` steps (TR-DPO, arXiv 2404.09656).
pub(crate) fn sync_reference(weights: &mut Weights, step: u64, every: usize, mixup: f32) {
    let Weights { decoder, reference: Some(reference), .. } = weights else { return };
    if every > 0 && step.is_multiple_of(every as u64) {
        reference.mix_in(decoder, mixup);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::run::tests::tiny_model;

    #[test]
    fn a_reference_that_never_moves_shares_the_memory_of_an_equal_student() {
        let settings = crate::config::OptimizerConfig::default();
        let weights = || Weights {
            decoder: tiny_model(1),
            optimizer: crate::training::Optimizer::new(&tiny_model(1), &settings, 9),
            reference: Some(tiny_model(2)),
        };
        let shares = |student: &Decoder, sync_every| {
            let mut weights = weights();
            settle_reference(&mut weights, sync_every, Some(student));
            let reference = weights.reference.unwrap();
            assert!(are_the_same(&reference, &tiny_model(2)));
            std::ptr::eq(reference.parameters(), student.parameters())
        };
        assert!(shares(&tiny_model(2), 0));
        assert!(!shares(&tiny_model(2), 32), "it will move");
        assert!(!shares(&tiny_model(3), 0), "another model");
    }

    #[test]
    fn the_reference_moves_towards_the_policy_when_it_is_due() {
        let value = |decoder: &Decoder| decoder.parameters().embedding.to_host()[0];
        let optimizer =
            crate::training::Optimizer::new(&tiny_model(1), &crate::config::OptimizerConfig::default(), 9);
        let mut weights = Weights { decoder: tiny_model(1), optimizer, reference: Some(tiny_model(2)) };
        let (policy, before) = (value(&weights.decoder), value(weights.reference.as_ref().unwrap()));
        sync_reference(&mut weights, 31, 32, 0.9);
        assert_eq!(value(weights.reference.as_ref().unwrap()), before);
        sync_reference(&mut weights, 32, 32, 0.9);
        let after = value(weights.reference.as_ref().unwrap());
        assert!((after - (0.9 * policy + 0.1 * before)).abs() < 1e-7);
        assert_eq!(value(&weights.decoder), policy);
    }
}
