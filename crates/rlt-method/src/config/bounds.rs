//! How large the numbers of a configuration may be. Beyond these bounds a product of two of them overflows, an `f32` is no
//! number any more, or a loop never ends; below them every value is somebody's.

use std::fmt::Debug;
use std::ops::RangeInclusive;

use super::Config;
use super::validate::require;
use crate::Result;

/// Steps, rows, and everything that is counted in them.
const MOST_STEPS: usize = 1_000_000_000;
/// Tokens of a sequence or a batch.
const MOST_TOKENS: usize = 1 << 30;
/// Sequences that are worked on together.
const MOST_SEQUENCES: usize = 1 << 20;
/// Completions of one step: questions times completions of each.
const MOST_COMPLETIONS: usize = 1 << 24;
/// Partial sums of a gradient, and so ranks.
const MOST_LANES: usize = 4096;
/// Rounds over a batch, or of drawing questions again.
const MOST_ROUNDS: usize = 1000;
/// Rows of a made world, which are held in memory as they are made.
const MOST_WORLD_ROWS: usize = 1_000_000;
/// Width of a made model, and positions of its context.
const MOST_WIDTH: usize = 1 << 20;
/// Layers and heads of a made model.
const MOST_LAYERS: usize = 1024;
/// Weights of a made model: 4 GiB.
const MOST_WEIGHTS: u128 = 1 << 30;
/// Weights, penalties and clips of rewards.
const MOST_WEIGHT: f64 = 1e6;
/// Beside 1, an `f32` tells nothing smaller apart.
const LEAST_CLIP: f64 = f32::EPSILON as f64;
/// Below this, logits divided by it leave the range of an `f32`.
const LEAST_TEMPERATURE: f64 = 1e-4;
const MOST_TEMPERATURE: f64 = 1e4;

impl Config {
    /// Checks that no number is beyond its bounds.
    ///
    /// # Errors
    /// [`crate::Error::Usage`] that names the first key that is, its value and the bounds.
    pub(super) fn check_bounds(&self) -> Result<()> {
        self.check_whole_numbers()?;
        self.check_numbers()
    }

    fn check_whole_numbers(&self) -> Result<()> {
        let Self { data, sampling, sft, grpo, train, eval, checkpoint, world, .. } = self;
        for (key, value, most) in [
            ("ranks", self.ranks, MOST_LANES),
            ("data.max_rows", data.max_rows, MOST_STEPS),
            ("data.max_prompt_tokens", data.max_prompt_tokens, MOST_TOKENS),
            ("world.rows", world.rows, MOST_WORLD_ROWS),
            ("world.heldout_rows", world.heldout_rows, MOST_WORLD_ROWS),
            ("world.hidden_size", world.hidden_size, MOST_WIDTH),
            ("world.intermediate_size", world.intermediate_size, MOST_WIDTH),
            ("world.n_layers", world.n_layers, MOST_LAYERS),
            ("world.n_heads", world.n_heads, MOST_LAYERS),
            ("world.context", world.context, MOST_WIDTH),
            ("sampling.top_k", sampling.top_k, MOST_TOKENS),
            ("sampling.max_new_tokens", sampling.max_new_tokens, MOST_TOKENS),
            ("sampling.max_running", sampling.max_running, MOST_SEQUENCES),
            ("sft.batch_rows", sft.batch_rows, MOST_SEQUENCES),
            ("sft.tokens_per_microbatch", sft.tokens_per_microbatch, MOST_TOKENS),
            ("sft.max_tokens", sft.max_tokens, MOST_TOKENS),
            ("grpo.steps", grpo.steps, MOST_STEPS),
            ("grpo.questions_per_step", grpo.questions_per_step, MOST_SEQUENCES),
            ("grpo.group_size", grpo.group_size, MOST_SEQUENCES),
            ("grpo.resample_rounds", grpo.resample_rounds.unwrap_or(0), MOST_ROUNDS),
            ("grpo.epochs", grpo.epochs, MOST_ROUNDS),
            ("grpo.minibatches", grpo.minibatches, MOST_SEQUENCES),
            ("grpo.reference_sync_every", grpo.reference_sync_every.unwrap_or(0), MOST_STEPS),
            ("grpo.tokens_per_microbatch", grpo.tokens_per_microbatch, MOST_TOKENS),
            ("grpo.samples_logged", grpo.samples_logged, MOST_STEPS),
            ("grpo.samples_every", grpo.samples_every, MOST_STEPS),
            ("train.lanes", train.lanes.unwrap_or(1), MOST_LANES),
            ("eval.every", eval.every, MOST_STEPS),
            ("eval.max_rows", eval.max_rows, MOST_STEPS),
            ("eval.samples", eval.samples, MOST_SEQUENCES),
            ("eval.patience", eval.patience, MOST_STEPS),
            ("checkpoint.every", checkpoint.every, MOST_STEPS),
            ("checkpoint.keep", checkpoint.keep, MOST_STEPS),
            ("checkpoint.keep_every", checkpoint.keep_every, MOST_STEPS),
        ] {
            require(value <= most, key, value, &format!("at most {most}"))?;
        }
        let most = MOST_COMPLETIONS / grpo.questions_per_step.max(1);
        let range = format!("at most {most} beside grpo.questions_per_step = {}", grpo.questions_per_step);
        require(grpo.group_size <= most, "grpo.group_size", grpo.group_size, &range)?;
        let [hidden, intermediate, layers] =
            [world.hidden_size, world.intermediate_size, world.n_layers].map(|size| size as u128);
        let weights = layers * hidden * (4 * hidden + 3 * intermediate);
        let range = format!(
            "smaller: a model of that size, of world.intermediate_size and world.n_layers would have \
            {weights} weights, and {MOST_WEIGHTS} is the most"
        );
        require(weights <= MOST_WEIGHTS, "world.hidden_size", world.hidden_size, &range)
    }

    fn check_numbers(&self) -> Result<()> {
        let Self { reward, sampling, sft, grpo, optimizer, eval, .. } = self;
        let (settings, add, objective) = (reward.settings(), &reward.add, grpo.objective_settings());
        for (key, weight) in [
            ("reward.alpha", reward.alpha),
            ("reward.alpha_min", settings.alpha_min),
            ("reward.alpha_max", settings.alpha_max),
            ("reward.solution_weight", reward.solution_weight),
            ("reward.lambda", reward.lambda),
            ("reward.logprob_clip", reward.logprob_clip),
            ("reward.kl_clip", reward.kl_clip),
            ("reward.spike_lambda", reward.spike_lambda),
            ("reward.spike_beta", reward.spike_beta),
            ("reward.reward_clip", reward.reward_clip),
            ("grpo.beta", grpo.beta),
        ] {
            between(key, weight, 0.0..=MOST_WEIGHT)?;
        }
        for (key, weight) in [
            ("reward.format_penalty", reward.format_penalty),
            ("reward.unscorable_reward", settings.unscorable_reward),
            ("reward.add.correctness", add.correctness),
            ("reward.add.overlap", add.overlap),
            ("reward.add.repetition", add.repetition),
            ("reward.add.length", add.length),
            ("reward.add.overlong", add.overlong),
        ] {
            between(key, weight, -MOST_WEIGHT..=MOST_WEIGHT)?;
        }
        for (key, temperature) in [
            ("reward.teacher_temperature", reward.teacher_temperature),
            ("reward.student_temperature", reward.student_temperature),
        ] {
            between(key, temperature, LEAST_TEMPERATURE..=MOST_TEMPERATURE)?;
        }
        if sampling.temperature != 0.0 {
            let range = format!("0, or between {LEAST_TEMPERATURE:?} and {MOST_TEMPERATURE:?}");
            let holds = (LEAST_TEMPERATURE..=MOST_TEMPERATURE).contains(&f64::from(sampling.temperature));
            require(holds, "sampling.temperature", sampling.temperature, &range)?;
        }
        between("sampling.top_p", sampling.top_p, 1e-6..=1.0)?;
        between("sampling.min_p", sampling.min_p, 0.0..=0.999_999)?;
        between("sampling.repetition_penalty", sampling.repetition_penalty, 0.01..=100.0)?;
        between("sft.epochs", sft.epochs, 1e-9..=1e6)?;
        between("sft.gate_kappa", sft.gate_kappa, 0.0..=MOST_WEIGHT)?;
        between("sft.gate_gamma", sft.gate_gamma, -MOST_WEIGHT..=0.0)?;
        if objective.clip_low.is_finite() || grpo.clip_low.is_some() {
            between("grpo.clip_low", objective.clip_low, LEAST_CLIP..=1.0 - LEAST_CLIP)?;
        }
        between("grpo.clip_high", objective.clip_high, LEAST_CLIP..=MOST_WEIGHT)?;
        between("grpo.reference_mixup", grpo.reference_mixup, 0.0..=1.0)?;
        between("eval.min_gain", eval.min_gain, 0.0..=1e12)?;
        between("optimizer.learning_rate", optimizer.learning_rate, 0.0..=1e3)?;
        between("optimizer.warmup", optimizer.warmup, 0.0..=MOST_STEPS as f64)?;
        between("optimizer.beta1", optimizer.beta1, 0.0..=0.999_999_999)?;
        between("optimizer.beta2", optimizer.beta2, 0.0..=0.999_999_999)?;
        between("optimizer.epsilon", optimizer.epsilon, 1e-30..=1e3)?;
        between("optimizer.weight_decay", optimizer.weight_decay, 0.0..=1e3)?;
        between("optimizer.clip_norm", optimizer.clip_norm, 0.0..=1e12)
    }
}

/// Refuses a value outside the range; what is not a number is in none.
fn between<T: Into<f64> + Copy + Debug>(key: &str, value: T, range: RangeInclusive<f64>) -> Result<()> {
    let bounds = format!("between {:?} and {:?}", range.start(), range.end());
    let number: f64 = value.into();
    require(range.contains(&number), key, value, &bounds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    fn load(overrides: &[&str]) -> Result<Config> {
        let overrides: Vec<String> = overrides.iter().map(|&o| o.to_owned()).collect();
        Config::load(None, &overrides)
    }

    fn refusal(overrides: &[&str]) -> String {
        match load(overrides) {
            Err(Error::Usage(message)) => message,
            other => panic!("{overrides:?} gave {other:?}"),
        }
    }

    #[test]
    fn products_are_bounded_too() {
        let message = refusal(&["grpo.questions_per_step=100000", "grpo.group_size=100000"]);
        assert!(message.starts_with("grpo.group_size is 100000; it must be at most 167 beside"), "{message}");
        let message = refusal(&["world.hidden_size=65536", "world.n_layers=1000"]);
        assert!(message.starts_with("world.hidden_size is 65536; it must be smaller: a model"), "{message}");
    }

    #[test]
    fn what_people_use_is_within_the_bounds() {
        for overrides in [
            &["grpo.clip_low=0.0003", "grpo.clip_high=0.0004"][..],
            &["grpo.objective=cispo", "grpo.clip_high=1000"],
            &["optimizer.clip_norm=1e10", "sampling.top_k=151936", "grpo.tokens_per_microbatch=1000000000"],
            &["sampling.temperature=0.001", "sampling.max_new_tokens=131072", "optimizer.epsilon=1e-15"],
            &["grpo.group_size=1024", "grpo.questions_per_step=1024", "grpo.resample_rounds=100"],
            &[
                "reward.add.overlong=-1",
                "reward.add.overlong_cache=1",
                "grpo.reference_sync_every=1000000000",
            ],
        ] {
            load(overrides).unwrap();
        }
    }
}
