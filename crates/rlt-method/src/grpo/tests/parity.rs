//! Ten steps beside PyTorch's: the samples of tests/golden/grpo_steps.json, which tests/parity/grpo_steps.py made, through the code
//! that trains.

use std::collections::BTreeMap;

use rlt_engine::Tensor;
use rlt_model::config::ModelConfig;
use rlt_model::generate::{Completion, Finish};
use rlt_model::ids::TokenIds;
use rlt_model::parameters::Parameters;
use rlt_model::{Decoder, Stop};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::config::Config;
use crate::dataset::QuestionRow;
use crate::grpo::reference::sync_reference;
use crate::grpo::sample::{Group, Question, Sample, Verdict};
use crate::grpo::tests::refs;
use crate::grpo::update::Learner;
use crate::training::run::Weights;
use crate::training::{GradientSum, Lanes, Optimizer};

type Named = BTreeMap<String, Vec<f32>>;

#[derive(Deserialize)]
struct Golden {
    model: Value,
    temperature: f32,
    max_new_tokens: usize,
    reference_scale: f32,
    reference_sync_every: usize,
    reference_mixup: f32,
    optimizer: Map<String, Value>,
    first: Named,
    runs: Vec<GoldenRun>,
}

#[derive(Deserialize)]
struct GoldenRun {
    grpo: Map<String, Value>,
    steps: Vec<GoldenStep>,
    last: Named,
}

#[derive(Deserialize)]
struct GoldenStep {
    groups: Vec<GoldenGroup>,
    losses: Vec<f64>,
}

#[derive(Deserialize)]
struct GoldenGroup {
    prompt: Vec<u32>,
    samples: Vec<GoldenSample>,
}

#[derive(Deserialize)]
struct GoldenSample {
    ids: Vec<u32>,
    logprobs: Vec<f32>,
    reward: f32,
    truncated: bool,
}

impl Golden {
    /// A decoder of the named weights times `scale`.
    fn decoder(&self, weights: &Named, scale: f32) -> Decoder {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), self.model.to_string()).unwrap();
        let config = ModelConfig::from_dir(dir.path()).unwrap();
        let parameters = Parameters::build(&config, |slot| {
            let parts = slot.parts.iter().flat_map(|part| &weights[&part.name]);
            let data = parts.map(|weight| weight * scale).collect();
            Ok::<_, std::convert::Infallible>(Tensor::from_vec(slot.rows, slot.cols, data))
        });
        Decoder::new(config, parameters.unwrap())
    }

    fn config(&self, run: &GoldenRun) -> Config {
        let own = [
            format!("sampling.temperature={}", self.temperature),
            format!("sampling.max_new_tokens={}", self.max_new_tokens),
            format!("grpo.reference_sync_every={}", self.reference_sync_every),
            format!("grpo.reference_mixup={}", self.reference_mixup),
            format!("grpo.questions_per_step={}", run.steps[0].groups.len()),
            // Several micro-batches an optimizer step.
            "grpo.tokens_per_microbatch=20".to_owned(),
        ];
        let of = |table: &str, keys: &Map<String, Value>| -> Vec<String> {
            keys.iter().map(|(key, value)| format!("{table}.{key}={value}")).collect()
        };
        let overrides = [own.to_vec(), of("grpo", &run.grpo), of("optimizer", &self.optimizer)].concat();
        Config::load(None, &overrides).unwrap()
    }
}

fn to_learn(step: &GoldenStep) -> Vec<Group<'static>> {
    let sample = |sample: &GoldenSample| Sample {
        behaviour: Vec::new(),
        completion: Completion {
            ids: sample.ids.clone().into(),
            logprobs: sample.logprobs.clone(),
            finish: if sample.truncated { Finish::Length } else { Finish::Stop },
            version: 0,
        },
        verdict: Verdict { reward: sample.reward, ..Verdict::default() },
    };
    let group = |(index, group): (usize, &GoldenGroup)| {
        let row = QuestionRow { row: index + 1, ..QuestionRow::default() };
        let question = Question { row, prompt: group.prompt.clone().into(), told: TokenIds::default() };
        Group { question: Box::leak(Box::new(question)), samples: group.samples.iter().map(sample).collect() }
    };
    step.groups.iter().enumerate().map(group).collect()
}

#[test]
#[expect(clippy::print_stdout, reason = "`--nocapture` shows how close they are")]
fn ten_steps_of_every_objective_follow_pytorch() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/grpo_steps.json");
    let golden: Golden = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(golden.runs.len(), 7);
    for run in &golden.runs {
        let config = golden.config(run);
        let learner = Learner::new(&config, Lanes::default());
        let decoder = golden.decoder(&golden.first, 1.0);
        let total = run.steps.iter().map(|step| step.losses.len() as u64).sum();
        let optimizer = Optimizer::new(&decoder, &config.optimizer, total);
        let reference =
            (config.grpo.beta > 0.0).then(|| golden.decoder(&golden.first, golden.reference_scale));
        let mut weights = Weights { decoder, optimizer, reference };
        let mut gradients = GradientSum::new(&weights.decoder, 1);

        let (mut worst_loss, mut clipped) = (0.0_f64, false);
        for (number, step) in (1..).zip(&run.steps) {
            let update = learner
                .learn(number, &refs(&to_learn(step)), &mut weights, &mut gradients, Stop::never())
                .unwrap();
            let (every, mixup) = (config.reference_sync_every(), config.grpo.reference_mixup);
            sync_reference(&mut weights, number, every, mixup);
            assert_eq!(update.losses.len(), step.losses.len());
            for (ours, theirs) in update.losses.iter().zip(&step.losses) {
                // Where terms of both signs cancel, down to nothing at a ratio of 1, the rounding of f32
                // log-probabilities is left, 1e-6 in the sum over a completion: losses below 0.03 are compared to
                // 3e-6.
                let difference = (ours.loss - theirs).abs() / theirs.abs().max(3e-2);
                assert!(difference < 1e-4, "{:?}, step {number}: {}, {theirs}", run.grpo, ours.loss);
                worst_loss = worst_loss.max(difference);
                clipped |= ours.clipped_share > 0.0;
            }
        }
        assert_eq!(clipped, total > 10, "every run of several optimizer steps a batch meets its bounds");

        let expected = golden.decoder(&run.last, 1.0);
        let (mut worst_weight, mut moved) = (0.0_f32, 0.0_f32);
        let first = golden.decoder(&golden.first, 1.0);
        let all = weights.decoder.parameters().tensors().into_iter().zip(expected.parameters().tensors());
        for ((ours, theirs), first) in all.zip(first.parameters().tensors()) {
            let (ours, theirs, first) = (ours.to_host(), theirs.to_host(), first.to_host());
            for ((ours, theirs), first) in ours.iter().zip(theirs.iter()).zip(first.iter()) {
                worst_weight = worst_weight.max((ours - theirs).abs());
                moved = moved.max((theirs - first).abs());
            }
        }
        assert!(worst_weight < 1e-4 && moved > 1e-2, "{:?}: {worst_weight} of {moved}", run.grpo);
        println!(
            "{:?}: losses to {worst_loss:.1e}, weights to {worst_weight:.1e}, which moved by {moved:.2}",
            config.grpo.objective
        );
    }
}
