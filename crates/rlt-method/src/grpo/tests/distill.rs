//! The loss of a distillation and its gradient: against finite differences of the loss, and one sequence at a time.

use rlt_engine::head::Kl;
use rlt_model::batch::ScoringGroup;
use rlt_model::training_pass::Keep;
use rlt_model::{Decoder, Stop};

use super::{distance, refs, sampled, trained_by_adapter, trained_whole, weights};
use crate::config::{Config, DistillDivergence};
use crate::grpo::sample::{Group, Question};
use crate::grpo::update::Learner;
use crate::training::run::tests::tiny_model;
use crate::training::{GradientSum, Lanes};

/// The completions of [`sampled`], each question with a longer prompt for the teacher.
fn told(policy: &Decoder, temperature: f32) -> Vec<Group<'static>> {
    let of_group = |(index, group): (usize, Group<'static>)| {
        let told: Vec<u32> = (0..9 + 4 * index as u32).map(|i| (i * 3 + 1) % 40).collect();
        let question = Question { told: told.into(), ..group.question.clone() };
        Group { question: Box::leak(Box::new(question)), samples: group.samples }
    };
    sampled(policy, temperature).into_iter().enumerate().map(of_group).collect()
}

/// The loss as it is defined, completion by completion, without the code under test.
fn plain_loss(policy: &Decoder, teacher: &Decoder, groups: &[Group], kl: Kl, temperature: f32) -> f64 {
    let mut means = Vec::new();
    for group in groups {
        for sample in &group.samples {
            let n = sample.completion.ids.len();
            let alone = |prompt: &[u32]| {
                let scored = prompt.len()..prompt.len() + n;
                ScoringGroup::single([prompt, &sample.completion.ids].concat(), vec![scored])
            };
            let states = |model: &'_ Decoder, prompt: &[u32]| {
                let logprobs = (0..model.config().vocab_size as u32).map(|token| {
                    let mut one = alone(prompt);
                    // The log-probability of every token of the vocabulary at every place.
                    one.continuations = (0..n)
                        .map(|at| {
                            let ids = [prompt, &sample.completion.ids[..at], &[token]].concat();
                            let last = ids.len() - 1..ids.len();
                            ScoringGroup::single(ids, vec![last]).continuations.remove(0)
                        })
                        .collect();
                    model.token_logprobs(&[one], temperature, 4000).unwrap().remove(0).concat()
                });
                logprobs.collect::<Vec<Vec<f32>>>()
            };
            let (p, q) = (states(policy, &group.question.prompt), states(teacher, &group.question.told));
            let of_place = |at: usize| -> f64 {
                let terms = p.iter().zip(&q).map(|(p, q)| {
                    let (p, q) = (f64::from(p[at]), f64::from(q[at]));
                    if kl == Kl::Reverse { p.exp() * (p - q) } else { q.exp() * (q - p) }
                });
                terms.sum()
            };
            means.push((0..n).map(of_place).sum::<f64>() / n as f64);
        }
    }
    means.iter().sum::<f64>() / means.len() as f64
}

fn config(divergence: DistillDivergence, tokens: usize) -> Config {
    let mut config = Config::default();
    config.distill.divergence = divergence;
    config.sampling.temperature = 0.7;
    config.grpo.tokens_per_microbatch = tokens;
    config
}

fn learnt(
    config: &Config,
    groups: &[Group],
    policy: Decoder,
    keep: Keep,
    lanes: usize,
) -> (f64, GradientSum) {
    let mut learner = Learner::new(config, Lanes::new(lanes)).distilling(config);
    learner.keep = keep;
    let mut weights = weights(policy, Some(tiny_model(2)));
    let mut gradients = GradientSum::new(&weights.decoder, lanes);
    let update = learner.learn(4, &refs(groups), &mut weights, &mut gradients, Stop::never()).unwrap();
    assert!(update.losses.is_empty() && update.advantages.is_empty());
    (update.divergence.unwrap(), gradients)
}

#[test]
fn the_loss_and_its_gradient_agree_with_the_definition() {
    for divergence in [DistillDivergence::Reverse, DistillDivergence::Forward] {
        let (policy, teacher) = (tiny_model(1), tiny_model(2));
        let groups = told(&policy, 0.7);
        let plain = |policy: &Decoder| plain_loss(policy, &teacher, &groups, divergence.into(), 0.7);
        let (loss, gradients) =
            learnt(&config(divergence, 1000), &groups, tiny_model(1), Keep::Activations, 1);
        assert!((loss - plain(&policy)).abs() < 1e-5, "{loss}, by definition {}", plain(&policy));
        // Along the gradient the loss rises by its length.
        let gradient = gradients.total();
        let squares = |x: &[f32]| x.iter().map(|x| f64::from(x * x)).sum::<f64>();
        let norm = gradient.tensors().iter().map(|g| squares(&g.to_host())).sum::<f64>().sqrt();
        let step = 0.01;
        let moved = |by: f64| {
            let mut policy = tiny_model(1);
            let weights = policy.trained_tensors_mut();
            for (weight, g) in weights.into_iter().zip(gradient.tensors()) {
                weight.mix_in(&scaled(weight, g, by / norm), 1.0);
            }
            plain(&policy)
        };
        let numeric = (moved(step) - moved(-step)) / (2.0 * step);
        assert!((numeric - norm).abs() < 0.01 * norm, "rises by {numeric}, gradient of length {norm}");
        assert!(norm > 0.01, "{norm}");
    }
}

/// `weight + by * gradient`.
fn scaled(weight: &rlt_engine::Tensor, gradient: &rlt_engine::Tensor, by: f64) -> rlt_engine::Tensor {
    let sums =
        weight.to_host().iter().zip(gradient.to_host().iter()).map(|(w, g)| w + by as f32 * g).collect();
    rlt_engine::Tensor::from_vec(weight.rows(), weight.cols(), sums)
}

#[test]
fn micro_batches_and_lanes_change_rounding_only() {
    for policy in [trained_whole as fn() -> Decoder, trained_by_adapter] {
        let groups = told(&policy(), 0.7);
        let whole = config(DistillDivergence::Reverse, 1000);
        let (loss, expected) = learnt(&whole, &groups, policy(), Keep::Activations, 1);
        for (tokens, keep, lanes) in [
            (1, Keep::Activations, 1),
            (20, Keep::BlockInputs, 1),
            (20, Keep::Activations, 2),
            (1000, Keep::BlockInputs, 3),
        ] {
            let cut = config(DistillDivergence::Reverse, tokens);
            let (cut_loss, gradients) = learnt(&cut, &groups, policy(), keep, lanes);
            assert!((cut_loss - loss).abs() < 1e-6, "{cut_loss} {loss}");
            let distance = distance(gradients.total(), expected.total());
            assert!(distance < 2e-5, "{tokens} tokens, {lanes} lanes: {distance}");
        }
    }
}

#[test]
fn a_teacher_who_is_told_nothing_else_teaches_nothing() {
    let policy = tiny_model(2);
    let mut groups = told(&policy, 0.7);
    for group in &mut groups {
        let question = Question { told: group.question.prompt.clone(), ..group.question.clone() };
        group.question = Box::leak(Box::new(question));
    }
    let (loss, gradients) =
        learnt(&config(DistillDivergence::Forward, 1000), &groups, policy, Keep::Activations, 1);
    assert!(loss.abs() < 1e-9, "{loss}");
    let largest =
        gradients.total().tensors().iter().flat_map(|g| g.to_host().into_owned()).fold(0.0, f32::max);
    assert!(largest < 1e-6, "{largest}");
}

#[test]
fn a_divergence_that_is_not_finite_names_step_row_and_sample() {
    let policy = tiny_model(1);
    let groups = told(&policy, 0.7);
    let mut weights = weights(policy, Some(tiny_model(2)));
    let teacher = weights.reference.as_mut().unwrap();
    let embedding = &teacher.parameters().embedding;
    let spoilt = rlt_engine::Tensor::full(embedding.rows(), embedding.cols(), f32::NAN);
    teacher.parameters_mut().embedding = spoilt;
    let config = config(DistillDivergence::Reverse, 1000);
    let mut gradients = GradientSum::new(&weights.decoder, 1);
    let learner = Learner::new(&config, Lanes::default()).distilling(&config);
    let error = learner.learn(4, &refs(&groups), &mut weights, &mut gradients, Stop::never()).unwrap_err();
    let expected = "step 4, row 8, sample 1: the divergence from the teacher at token 1 is not finite (NaN)";
    assert!(error.to_string().starts_with(expected), "{error}");
}
