//! The gradient of an update against the plain one, for every objective and whatever composes with it.

mod distill;
mod parity;

use std::iter;

use rlt_engine::Tensor;
use rlt_model::adapter::{Adapter, LoraSettings, Target};
use rlt_model::batch::{PackedBatch, ScoringGroup};
use rlt_model::generate::{Completion, Finish};
use rlt_model::ids::TokenIds;
use rlt_model::training_pass::Keep;
use rlt_model::{Decoder, Gradients, Stop};

use super::sample::{Group, Question, Sample, Verdict};
use super::update::{Learner, Update};
use crate::config::{
    Baseline, Config, GrpoConfig, KlToReference, LossMean, Objective, ObjectiveSettings, OptimizerConfig,
    Scale,
};
use crate::dataset::QuestionRow;
use crate::training::run::Weights;
use crate::training::run::tests::tiny_model;
use crate::training::{GradientSum, Lanes, Optimizer};

const OBJECTIVES: [Objective; 6] =
    [Objective::Grpo, Objective::DrGrpo, Objective::Dapo, Objective::Gspo, Objective::Cispo, Objective::Rloo];

/// Every objective with every setting that the configuration lets it have, each once.
fn whatever_composes() -> Vec<Config> {
    let baselines = [Baseline::Group, Baseline::LeaveOneOut, Baseline::Batch, Baseline::None];
    let scales = [Scale::Group, Scale::Batch, Scale::None];
    let means = [LossMean::Sequence, LossMean::Token, LossMean::Constant, LossMean::Sum];
    let kls = [
        (0.0, KlToReference::K3),
        (0.2, KlToReference::K1),
        (0.2, KlToReference::K2),
        (0.2, KlToReference::K3),
    ];
    let mut all = Vec::new();
    for objective in OBJECTIVES {
        for baseline in baselines {
            for scale in scales {
                for loss_mean in iter::once(None).chain(means.map(Some)) {
                    for (beta, kl) in kls {
                        for mask_truncated in [false, true] {
                            all.push(GrpoConfig {
                                objective,
                                baseline: Some(baseline),
                                scale: Some(scale),
                                loss_mean,
                                mask_truncated: Some(mask_truncated),
                                resample_rounds: Some(0),
                                // Within reach of the ratios below, so that a part of the tokens is clipped.
                                clip_low: (objective != Objective::Cispo).then_some(0.1),
                                clip_high: Some(0.15),
                                questions_per_step: 2,
                                group_size: 3,
                                beta,
                                kl,
                                ..GrpoConfig::default()
                            });
                        }
                    }
                }
            }
        }
    }
    let (mut seen, mut configs) = (Vec::<ObjectiveSettings>::new(), Vec::new());
    for grpo in all {
        let settings = grpo.objective_settings();
        let mut config = Config { grpo, ..Config::default() };
        (config.sampling.temperature, config.sampling.max_new_tokens) = (0.7, 12);
        if config.validate().is_ok() && !seen.contains(&settings) {
            seen.push(settings);
            configs.push(config);
        }
    }
    configs
}

/// A model whose weights are trained.
fn trained_whole() -> Decoder {
    tiny_model(1)
}

/// The same, frozen, with low-rank terms that are trained, none of them zero.
fn trained_by_adapter() -> Decoder {
    let model = tiny_model(1);
    let settings = LoraSettings::new(3, 6.0, Target::ALL.to_vec());
    let mut adapter = Adapter::random(model.config(), &settings, 5);
    for tensor in adapter.tensors_mut() {
        let moved = tensor.to_host().iter().enumerate().map(|(i, x)| x + 0.05 * (i as f32).sin()).collect();
        *tensor = Tensor::from_vec(tensor.rows(), tensor.cols(), moved);
    }
    model.with_adapter(adapter)
}

/// Two questions, three completions each; the second of the first was cut. The policy that sampled them is not quite
/// `policy`: the ratios of tokens lie between 0.73 and 1.37, those of completions between 0.85 and 1.15 or, multiplied, beyond.
fn sampled(policy: &Decoder, temperature: f32) -> Vec<Group<'static>> {
    let ids = |n: u32, factor: u32| -> Vec<u32> { (0..n).map(|i| (i * factor + 3) % 40).collect() };
    let questions = [(ids(6, 5), [4, 9, 2], [1.0, -0.5, 0.25]), (ids(3, 7), [1, 12, 5], [-1.0, 1.0, -0.25])];
    let groups = questions.into_iter().enumerate().map(|(group, (prompt, lengths, rewards))| {
        let samples = lengths.into_iter().zip(rewards).enumerate().map(|(index, (n, reward))| {
            let sequence = (3 * group + index) as f32;
            let ids = ids(n, n + 2);
            let logprobs = plain_logprobs(policy, &prompt, &ids, temperature);
            let old = logprobs.iter().enumerate().map(|(t, &logprob)| {
                let of_token = 0.19 * (1.7 * t as f32 + sequence).sin();
                logprob as f32 + of_token + 0.12 * (2.0 * sequence).cos()
            });
            let finish = if group == 0 && index == 1 { Finish::Length } else { Finish::Stop };
            let completion = Completion { logprobs: old.collect(), ids: ids.into(), finish, version: 0 };
            Sample { completion, behaviour: Vec::new(), verdict: Verdict { reward, ..Verdict::default() } }
        });
        let samples = samples.collect();
        let question = Question {
            row: QuestionRow { row: group + 8, ..QuestionRow::default() },
            prompt: prompt.into(),
            told: TokenIds::default(),
        };
        Group { question: Box::leak(Box::new(question)), samples }
    });
    groups.collect()
}

fn refs<'g, 'q>(groups: &'g [Group<'q>]) -> Vec<&'g Group<'q>> {
    groups.iter().collect()
}

/// One sequence as a batch of its own, the prompt part of it.
fn alone(prompt: &[u32], ids: &[u32]) -> ScoringGroup {
    let scored = prompt.len()..prompt.len() + ids.len();
    ScoringGroup::single([prompt, ids].concat(), vec![scored])
}

fn plain_logprobs(model: &Decoder, prompt: &[u32], ids: &[u32], temperature: f32) -> Vec<f64> {
    let logprobs = model.token_logprobs(&[alone(prompt, ids)], temperature, 1000).unwrap();
    logprobs.into_iter().flatten().flatten().map(f64::from).collect()
}

/// A sampled completion as the plain loss knows it.
struct Plain {
    group: usize,
    old: Vec<f64>,
    reference: Vec<f64>,
    reward: f64,
    counts: bool,
}

/// The loss of a batch as the papers write it, in f64 and without the code under test. `now` are the log-probabilities
/// that are differentiated by, `fixed` the same without a gradient.
fn plain_loss(
    s: &ObjectiveSettings,
    longest: f64,
    batch: &[Plain],
    now: &[Vec<f64>],
    fixed: &[Vec<f64>],
) -> f64 {
    let beta = f64::from(s.beta);
    let with_kl = |c: &Plain| {
        let k1: f64 = c.old.iter().zip(&c.reference).map(|(old, reference)| old - reference).sum();
        c.reward - if s.kl == KlToReference::K1 { beta * k1 } else { 0.0 }
    };
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let std = |values: &[f64]| {
        let centre = mean(values);
        (values.iter().map(|v| (v - centre) * (v - centre)).sum::<f64>() / (values.len() as f64 - 1.0)).sqrt()
    };
    let rewards_of = |keep: &dyn Fn(usize, &Plain) -> bool| -> Vec<f64> {
        batch.iter().enumerate().filter(|(i, c)| keep(*i, c)).map(|(_, c)| with_kl(c)).collect()
    };
    let counted: Vec<usize> = (0..batch.len()).filter(|&i| batch[i].counts).collect();
    let all_tokens: usize = counted.iter().map(|&i| now[i].len()).sum();
    let mut loss = 0.0;
    for &i in &counted {
        let c = &batch[i];
        let group = rewards_of(&|_, other| other.group == c.group);
        let baseline = match s.baseline {
            Baseline::Group => mean(&group),
            Baseline::LeaveOneOut => mean(&rewards_of(&|j, other| other.group == c.group && j != i)),
            Baseline::Batch => mean(&rewards_of(&|_, _| true)),
            Baseline::None => 0.0,
        };
        let divisor = match s.scale {
            Scale::Group => std(&group) + 1e-4,
            Scale::Batch => std(&rewards_of(&|_, _| true)) + 1e-4,
            Scale::None => 1.0,
        };
        let advantage = (with_kl(c) - baseline) / divisor;
        let clip = |ratio: f64| ratio.max(1.0 - f64::from(s.clip_low)).min(1.0 + f64::from(s.clip_high));
        let clipped = |ratio: f64| -(ratio * advantage).min(clip(ratio) * advantage);
        let n = now[i].len() as f64;
        let ratio = |t: usize| (now[i][t] - c.old[t]).exp();
        let product: f64 = (0..now[i].len()).map(ratio).product();
        let completions = counted.len() as f64;
        let weight = match s.loss_mean {
            LossMean::Sequence => 1.0 / n / completions,
            LossMean::Token => 1.0 / all_tokens as f64,
            LossMean::Constant => 1.0 / longest / completions,
            LossMean::Sum => 1.0 / completions,
        };
        match s.objective {
            Objective::Gspo => loss += clipped(product.powf(1.0 / n)) / completions,
            Objective::Rloo => loss += clipped(product) / completions,
            Objective::Cispo => {
                let weight_of = |t: usize| (fixed[i][t] - c.old[t]).exp().min(1.0 + f64::from(s.clip_high));
                loss -= weight * (0..now[i].len()).map(|t| weight_of(t) * advantage * now[i][t]).sum::<f64>();
            }
            _ => loss += weight * (0..now[i].len()).map(|t| clipped(ratio(t))).sum::<f64>(),
        }
        for t in 0..now[i].len() {
            let difference = now[i][t] - c.reference[t];
            loss += weight
                * beta
                * match s.kl {
                    KlToReference::K1 => 0.0,
                    KlToReference::K2 => difference * difference / 2.0,
                    KlToReference::K3 => (-difference).exp() + difference - 1.0,
                };
        }
    }
    loss
}

/// Loss and gradient, one sequence at a time: the derivative of the plain loss by each log-probability is a central
/// difference.
fn plain_gradient(
    config: &Config,
    groups: &[Group],
    policy: &Decoder,
    reference: &Decoder,
) -> (f64, Gradients) {
    let (settings, temperature) = (config.grpo.objective_settings(), config.sampling.temperature);
    let samples: Vec<(usize, &Group<'_>, &Sample)> = groups
        .iter()
        .enumerate()
        .flat_map(|(i, group)| group.samples.iter().map(move |sample| (i, group, sample)))
        .collect();
    let batch: Vec<Plain> = samples
        .iter()
        .map(|&(group, of, sample)| Plain {
            group,
            old: sample.completion.logprobs.iter().map(|&old| old.into()).collect(),
            reference: plain_logprobs(reference, &of.question.prompt, &sample.completion.ids, temperature),
            reward: sample.verdict.reward.into(),
            counts: !(settings.mask_truncated && sample.is_truncated()),
        })
        .collect();
    let now: Vec<Vec<f64>> = samples
        .iter()
        .map(|(_, of, s)| plain_logprobs(policy, &of.question.prompt, &s.completion.ids, temperature))
        .collect();
    let longest = config.sampling.max_new_tokens as f64;
    let h = 1e-6;
    let mut gradients = Gradients::zeros(policy);
    for (i, (_, of, sample)) in samples.iter().enumerate() {
        let derivative = |t: usize| {
            let at = |step: f64| {
                let mut moved = now.clone();
                moved[i][t] += step;
                plain_loss(&settings, longest, &batch, &moved, &now)
            };
            ((at(h) - at(-h)) / (2.0 * h)) as f32
        };
        let derivatives: Vec<f32> = (0..sample.completion.ids.len()).map(derivative).collect();
        let packed = PackedBatch::new(&[alone(&of.question.prompt, &sample.completion.ids)]);
        let all: Result<_, ()> = policy.train_micro_batch(
            &packed,
            temperature,
            Keep::Activations,
            &mut gradients,
            |first, run| Ok(derivatives[first..first + run.len()].to_vec()),
        );
        all.unwrap();
    }
    (plain_loss(&settings, longest, &batch, &now, &now), gradients)
}

/// Loss and gradient of the code that trains, at a learning rate of 0.
fn trained_gradient(
    config: &Config,
    groups: &[Group],
    weights: &mut Weights,
    keep: Keep,
    lanes: Lanes,
) -> (Update, GradientSum) {
    let mut learner = Learner::new(config, lanes);
    learner.keep = keep;
    let mut gradients = GradientSum::new(&weights.decoder, lanes.count());
    let update = learner.learn(4, &refs(groups), weights, &mut gradients, Stop::never()).unwrap();
    (update, gradients)
}

/// Largest difference of two gradients over the largest element.
fn distance(ours: &Gradients, plain: &Gradients) -> f32 {
    let (mut difference, mut largest) = (0.0_f32, 0.0_f32);
    for (ours, plain) in ours.tensors().iter().zip(plain.tensors()) {
        for (ours, plain) in ours.to_host().iter().zip(plain.to_host().iter()) {
            difference = difference.max((ours - plain).abs());
            largest = largest.max(plain.abs());
        }
    }
    difference / largest
}

fn weights(policy: Decoder, reference: Option<Decoder>) -> Weights {
    let settings = OptimizerConfig { learning_rate: 0.0, ..OptimizerConfig::default() };
    let optimizer = Optimizer::new(&policy, &settings, 9);
    Weights { decoder: policy, optimizer, reference }
}

#[test]
#[expect(clippy::print_stdout, reason = "`--nocapture` shows how close they are")]
fn every_composition_has_the_gradient_of_one_sequence_at_a_time() {
    let configs = whatever_composes();
    assert!(OBJECTIVES.iter().all(|o| configs.iter().any(|config| config.grpo.objective == *o)));
    let variants: Vec<(usize, Keep, usize)> = [1, 20, 1000]
        .into_iter()
        .flat_map(|tokens| {
            [(Keep::Activations, 1), (Keep::BlockInputs, 3)].map(|(keep, lanes)| (tokens, keep, lanes))
        })
        .collect();
    let (mut checked, mut worst) = (0, 0.0_f32);
    for (index, mut config) in configs.into_iter().enumerate() {
        let of_objective = GrpoConfig { objective: config.grpo.objective, ..GrpoConfig::default() };
        let (own, defaults) = (config.grpo.objective_settings(), of_objective.objective_settings());
        let plain_settings = (own.baseline, own.scale, own.loss_mean)
            == (defaults.baseline, defaults.scale, defaults.loss_mean);
        // Every variant of an objective's own settings, also beside frozen weights; of the others one, by turns.
        let policies: &[fn() -> Decoder] =
            if plain_settings { &[trained_whole, trained_by_adapter] } else { &[trained_whole] };
        for policy in policies {
            let groups = sampled(&policy(), config.sampling.temperature);
            let (loss, plain) = plain_gradient(&config, &groups, &policy(), &tiny_model(2));
            let mut weights = weights(policy(), (own.beta > 0.0).then(|| tiny_model(2)));
            let chosen =
                variants.iter().enumerate().filter(|(v, _)| plain_settings || index % variants.len() == *v);
            for (_, &(tokens, keep, lanes)) in chosen {
                config.grpo.tokens_per_microbatch = tokens;
                let (update, ours) =
                    trained_gradient(&config, &groups, &mut weights, keep, Lanes::new(lanes));
                let adapter = weights.decoder.adapter().is_some();
                let what = format!("{tokens} tokens a micro-batch, {keep:?}, adapter {adapter}, {own:?}");
                let of_update = update.losses[0];
                assert!(
                    (of_update.loss - loss).abs() < 1e-5 * loss.abs().max(1.0),
                    "{what}: {of_update:?}, {loss}"
                );
                assert!(
                    0.0 < of_update.clipped_share && of_update.clipped_share < 1.0,
                    "{what}: {of_update:?}"
                );
                assert_eq!(of_update.kl_to_reference.is_some(), own.beta > 0.0);
                assert_eq!(update.masked, usize::from(own.mask_truncated));
                let distance = distance(ours.total(), &plain);
                assert!(distance < 1e-5, "{what}: the gradients differ by {distance}");
                worst = worst.max(distance);
                checked += 1;
            }
        }
    }
    println!("{checked} gradients, the largest difference {worst:.1e} of the largest element");
    assert!(checked > 1000, "{checked}");
}

#[test]
fn a_loss_that_is_not_finite_names_step_row_and_sample() {
    let config = Config::default();
    let mut groups = sampled(&tiny_model(1), 0.7);
    groups[1].samples[1].completion.logprobs[2] = f32::NEG_INFINITY;
    let mut gradients = GradientSum::new(&tiny_model(1), 1);
    let learner = Learner::new(&config, Lanes::default());
    let error = learner
        .learn(4, &refs(&groups), &mut weights(tiny_model(1), None), &mut gradients, Stop::never())
        .unwrap_err();
    let message = error.to_string();
    assert!(message.starts_with("step 4, row 9, sample 2: the loss of token 3 is not finite"), "{message}");
}

#[test]
fn a_batch_is_learnt_from_in_passes_of_minibatches_that_have_losses_of_their_own() {
    let mut config = Config::default();
    (config.grpo.epochs, config.grpo.minibatches, config.grpo.beta) = (3, 2, 0.0);
    let groups = sampled(&tiny_model(1), config.sampling.temperature);
    let mut weights = weights(tiny_model(1), None);
    let mut gradients = GradientSum::new(&weights.decoder, 1);
    let update = Learner::new(&config, Lanes::default())
        .learn(1, &refs(&groups), &mut weights, &mut gradients, Stop::never())
        .unwrap();
    assert_eq!((update.losses.len(), update.advantages.len()), (6, 6));
    assert_eq!(weights.optimizer.updates_done(), 6);
    // At a learning rate of 0 every pass is the first again, and each half is a batch of its own.
    config.grpo.minibatches = 1;
    for (half, group) in groups.iter().enumerate() {
        let alone = Learner::new(&config, Lanes::default())
            .learn(1, &[group], &mut weights, &mut gradients, Stop::never())
            .unwrap();
        assert_eq!(alone.losses[0], update.losses[half]);
        assert_eq!(update.losses[half], update.losses[half + 2]);
        assert_eq!(alone.advantages, update.advantages[3 * half..3 * half + 3]);
    }
    assert_ne!(update.losses[0], update.losses[1]);
}

#[test]
fn learning_that_is_asked_to_stop_leaves_the_weights_as_they_were() {
    let config = Config::default();
    let groups = sampled(&tiny_model(1), config.sampling.temperature);
    let mut weights = weights(tiny_model(1), Some(tiny_model(1)));
    let mut gradients = GradientSum::new(&weights.decoder, 1);
    let asked = std::sync::atomic::AtomicBool::new(true);
    let stop = Stop::when(&asked);
    let error = Learner::new(&config, Lanes::default())
        .learn(1, &refs(&groups), &mut weights, &mut gradients, stop)
        .unwrap_err();
    assert!(matches!(error, crate::Error::Model(rlt_model::Error::Stopped)), "{error}");
    assert_eq!(weights.optimizer.updates_done(), 0);
}

#[test]
fn a_batch_with_nothing_that_counts_changes_nothing() {
    let mut config = Config::default();
    config.grpo.mask_truncated = Some(true);
    let mut groups = sampled(&tiny_model(1), config.sampling.temperature);
    for sample in groups.iter_mut().flat_map(|group| &mut group.samples) {
        sample.completion.finish = Finish::Length;
    }
    let settings = OptimizerConfig { weight_decay: 0.1, learning_rate: 0.1, ..OptimizerConfig::default() };
    let mut weights = weights(tiny_model(1), None);
    weights.optimizer = Optimizer::new(&weights.decoder, &settings, 9);
    let mut gradients = GradientSum::new(&weights.decoder, 1);
    let update = Learner::new(&config, Lanes::default())
        .learn(1, &refs(&groups), &mut weights, &mut gradients, Stop::never())
        .unwrap();
    assert!(update.losses.is_empty() && update.learning_rate.is_none());
    assert_eq!((update.masked, weights.optimizer.updates_done()), (6, 0));
    for (now, before) in
        weights.decoder.parameters().tensors().iter().zip(tiny_model(1).parameters().tensors())
    {
        assert_eq!(now.to_host(), before.to_host());
    }
}
