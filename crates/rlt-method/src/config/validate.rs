//! Ranges that the types cannot express, one clear line each.

use std::path::Path;

use rlt_model::sizes::MAX_RANK;

use super::{Config, World};
use crate::{Error, Result};

impl Config {
    /// Checks every value's range, whatever the command. [`Config::load`] calls it.
    ///
    /// # Errors
    /// [`Error::Usage`] that names the first key out of range, its value and the range.
    pub fn validate(&self) -> Result<()> {
        let name_is_one_component = Path::new(&self.name).components().count() <= 1
            && !self.name.contains(['/', '\\'])
            && self.name != "."
            && self.name != "..";
        require(
            name_is_one_component,
            "name",
            &self.name,
            "a folder name without separators; set run_dir for a path",
        )?;

        self.check_bounds()?;
        self.check_servers()?;
        self.check_device()?;

        let world = &self.world;
        if self.makes_its_world() {
            let known: Vec<&str> = World::ALL.iter().map(|world| world.name()).collect();
            let is_known = known.contains(&world.name.as_str());
            require(is_known, "world.name", &world.name, &known.join(" or "))?;
            at_least_one("world.rows", world.rows)?;
            at_least_one("world.n_layers", world.n_layers)?;
            at_least_one("world.n_heads", world.n_heads)?;
            at_least_one("world.intermediate_size", world.intermediate_size)?;
            at_least_one("world.context", world.context)?;
            require(
                world.hidden_size > 0 && world.hidden_size.is_multiple_of(2 * world.n_heads),
                "world.hidden_size",
                world.hidden_size,
                &format!("a multiple of 2 * world.n_heads ({})", 2 * world.n_heads),
            )?;
        }

        let eval = &self.eval;
        at_least_one("eval.samples", eval.samples)?;
        if eval.every == 0 && (eval.patience > 0 || !eval.data.as_os_str().is_empty()) {
            return Err(Error::Usage(
                "eval.every is 0: nothing is evaluated, so eval.data and eval.patience have no effect; set eval.every"
                    .into(),
            ));
        }

        let reward = &self.reward;
        let add = &reward.add;
        for (key, weight, of_explanations) in [
            ("reward.add.correctness", add.correctness, true),
            ("reward.add.overlap", add.overlap, true),
            ("reward.add.repetition", add.repetition, false),
            ("reward.add.length", add.length, false),
            ("reward.add.overlong", add.overlong, false),
        ] {
            let composes = weight == 0.0 || !of_explanations || reward.kind.is_of_explanations();
            let range = "0 where reward.kind is correctness or pedagogical: it is about explanations";
            require(composes, key, weight, range)?;
        }
        if let Some(cache) = add.overlong_cache {
            let key = "reward.add.overlong_cache";
            let longest = self.sampling.max_new_tokens;
            let range = format!("between 1 and sampling.max_new_tokens ({longest})");
            require((1..=longest).contains(&cache), key, cache, &range)?;
            if add.overlong == 0.0 {
                return Err(Error::Usage(format!(
                    "{key} has no effect without reward.add.overlong; set that, too"
                )));
            }
        }

        let sampling = &self.sampling;
        at_least_one("sampling.max_new_tokens", sampling.max_new_tokens)?;
        at_least_one("sampling.max_running", sampling.max_running)?;

        at_least_one("sft.batch_rows", self.sft.batch_rows)?;
        at_least_one("sft.tokens_per_microbatch", self.sft.tokens_per_microbatch)?;

        let grpo = &self.grpo;
        at_least_one("grpo.steps", grpo.steps)?;
        at_least_one("grpo.questions_per_step", grpo.questions_per_step)?;
        require(
            grpo.group_size >= 2,
            "grpo.group_size",
            grpo.group_size,
            "2 or more: the advantage compares the completions of one question",
        )?;
        at_least_one("grpo.epochs", grpo.epochs)?;
        at_least_one("grpo.minibatches", grpo.minibatches)?;
        grpo.check_composition()?;
        at_least_one("grpo.tokens_per_microbatch", grpo.tokens_per_microbatch)?;
        at_least_one("grpo.samples_every", grpo.samples_every)?;
        at_least_one("train.lanes", self.train.lanes.unwrap_or(1))?;

        let lora = &self.lora;
        if lora.rank > 0 {
            require(lora.rank <= MAX_RANK, "lora.rank", lora.rank, &format!("at most {MAX_RANK}"))?;
            positive("lora.alpha", lora.alpha.into())?;
            let range = "a list of at least one projection";
            require(!lora.targets.is_empty(), "lora.targets", &lora.targets, range)?;
            let range = "false with lora.rank above 0: terms beside random weights teach nothing";
            require(!self.model.from_scratch, "model.from_scratch", true, range)?;
        }
        Ok(())
    }

    /// Whether `[world]` supplies the paths that are not set.
    pub fn makes_its_world(&self) -> bool {
        !self.world.name.is_empty()
    }

    /// Checks what supervised fine-tuning needs beyond [`Config::validate`].
    ///
    /// # Errors
    /// [`Error::Usage`] that names the key to set.
    pub fn validate_for_sft(&self) -> Result<()> {
        if self.makes_its_world() {
            return Ok(());
        }
        required_path("model.path", &self.model.path)?;
        required_path("data.path", &self.data.path)?;
        if self.eval.every > 0 { required_path("eval.data", &self.eval.data) } else { Ok(()) }
    }

    /// Checks what GRPO needs beyond [`Config::validate`].
    ///
    /// # Errors
    /// [`Error::Usage`] that names the key to set, or a greedy temperature (every completion of a
    /// group would be the same).
    pub fn validate_for_grpo(&self) -> Result<()> {
        self.validate_for_sft()?;
        if self.reward.kind.asks_student() && !self.makes_its_world() {
            required_path("model.student", &self.model.student)?;
        }
        if self.grpo.beta == 0.0 && !self.model.reference.as_os_str().is_empty() {
            let what = "model.reference has no effect where grpo.beta is 0: there is no KL term; leave it out or set \
                        grpo.beta";
            return Err(Error::Usage(what.into()));
        }
        if self.lora.rank > 0 && self.grpo.beta > 0.0 {
            let every = self.reference_sync_every();
            let range =
                "0 or unset with lora.rank above 0: the reference is the base model, which does not move";
            require(every == 0, "grpo.reference_sync_every", every, range)?;
        }
        self.check_served_training()?;
        let temperature = self.sampling.temperature;
        let range = "above 0 for training: greedy completions of one question are all the same";
        require(temperature > 0.0, "sampling.temperature", temperature, range)
    }
}

pub(super) fn require(holds: bool, key: &str, value: impl std::fmt::Debug, range: &str) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::Usage(format!("{key} is {value:?}; it must be {range}"))) }
}

fn positive(key: &str, value: f64) -> Result<()> {
    require(value.is_finite() && value > 0.0, key, value, "finite and above 0")
}

fn at_least_one(key: &str, value: usize) -> Result<()> {
    require(value >= 1, key, value, "1 or more")
}

fn required_path(key: &str, path: &Path) -> Result<()> {
    if path.as_os_str().is_empty() {
        return Err(Error::Usage(format!("{key} is not set; give it in the configuration or as {key}=PATH")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(overrides: &[&str]) -> String {
        let overrides: Vec<String> = overrides.iter().map(|&o| o.to_owned()).collect();
        match Config::load(None, &overrides) {
            Err(Error::Usage(message)) => message,
            other => panic!("{overrides:?} gave {other:?}"),
        }
    }

    #[test]
    fn the_defaults_are_valid() {
        Config::default().validate().unwrap();
    }

    #[test]
    fn values_out_of_range_are_named() {
        for argument in [
            "name=a/b",
            "name=..",
            "world.name=markt",
            "eval.samples=0",
            "eval.min_gain=-1",
            "reward.alpha=-0.1",
            "reward.lambda=nan",
            "reward.teacher_temperature=0",
            "reward.student_temperature=-1",
            "reward.format_penalty=inf",
            "reward.unscorable_reward=nan",
            "reward.add.correctness=nan",
            "reward.add.length=inf",
            "reward.add.overlong=nan",
            "reward.add.overlong_cache=0",
            "reward.add.overlong_cache=1025",
            "reward.alpha_min=-1",
            "reward.alpha_max=-1",
            "reward.solution_weight=-1",
            "reward.logprob_clip=-1",
            "reward.kl_clip=-1",
            "reward.spike_lambda=-1",
            "reward.spike_beta=nan",
            "reward.reward_clip=-1",
            "sampling.temperature=-0.5",
            "sampling.top_p=0",
            "sampling.top_p=1.5",
            "sampling.min_p=1",
            "sampling.repetition_penalty=0",
            "sampling.max_new_tokens=0",
            "sampling.max_running=0",
            "sft.epochs=0",
            "sft.gate_kappa=-1",
            "sft.gate_gamma=0.1",
            "sft.batch_rows=0",
            "sft.tokens_per_microbatch=0",
            "grpo.steps=0",
            "grpo.questions_per_step=0",
            "grpo.group_size=1",
            "grpo.clip_low=0",
            "grpo.clip_low=1",
            "grpo.clip_high=0",
            "grpo.epochs=0",
            "grpo.minibatches=0",
            "grpo.beta=-1",
            "grpo.reference_mixup=1.1",
            "grpo.tokens_per_microbatch=0",
            "grpo.samples_every=0",
            "train.lanes=0",
            "train.lanes=5000",
            "lora.rank=1000000000000",
            "optimizer.learning_rate=-1e-5",
            "optimizer.warmup=-1",
            "optimizer.beta1=1",
            "optimizer.beta2=-0.1",
            "optimizer.epsilon=0",
            "optimizer.weight_decay=-1",
            "optimizer.clip_norm=nan",
        ] {
            let key = argument.split('=').next().unwrap();
            let message = refusal(&[argument]);
            assert!(message.starts_with(&format!("{key} is ")), "{argument}: {message}");
            assert!(message.contains("it must be "), "{argument}: {message}");
        }
    }

    #[test]
    fn what_does_not_compose_is_refused_and_says_why() {
        for (overrides, key) in [
            (&["grpo.objective=gspo", "grpo.loss_mean=token"][..], "grpo.loss_mean"),
            (&["grpo.objective=rloo", "grpo.loss_mean=sum"], "grpo.loss_mean"),
            (&["grpo.objective=rloo", "grpo.baseline=group"], "grpo.objective rloo"),
            (&["grpo.objective=cispo", "grpo.clip_low=0.2"], "grpo.clip_low"),
            (&["grpo.minibatches=3"], "grpo.minibatches is 3"),
            (&["grpo.baseline=batch"], "grpo.scale group"),
            (&["grpo.baseline=none"], "grpo.scale group"),
            (&["grpo.baseline=none", "grpo.scale=batch"], "grpo.scale needs a baseline"),
            (&["grpo.baseline=batch", "grpo.scale=batch", "grpo.resample_rounds=1"], "grpo.resample_rounds"),
            (&["grpo.objective=dapo", "grpo.baseline=none", "grpo.scale=none"], "grpo.resample_rounds"),
        ] {
            let message = refusal(overrides);
            assert!(message.starts_with(key), "{overrides:?}: {message}");
            assert!(message.contains(';'), "{overrides:?}: what to do next? {message}");
        }
        for key in ["reward.add.correctness", "reward.add.overlap"] {
            let message = refusal(&["reward.kind=correctness", &format!("{key}=0.5")]);
            assert!(
                message.starts_with(&format!("{key} is 0.5; it must be 0 where reward.kind")),
                "{message}"
            );
        }
        let message = refusal(&["reward.add.overlong_cache=8"]);
        assert!(message.starts_with("reward.add.overlong_cache has no effect without"), "{message}");
        // The same, made to compose.
        for overrides in [
            &["grpo.objective=dapo", "grpo.baseline=none", "grpo.scale=none", "grpo.resample_rounds=0"][..],
            &["grpo.objective=rloo", "grpo.scale=batch", "grpo.resample_rounds=2"],
            &["grpo.objective=dr_grpo", "grpo.baseline=batch", "grpo.loss_mean=token", "grpo.kl=k1"],
        ] {
            let overrides: Vec<String> = overrides.iter().map(|&o| o.to_owned()).collect();
            Config::load(None, &overrides).unwrap();
        }
    }

    #[test]
    fn a_world_that_cannot_be_made_is_refused_and_supplies_every_path_otherwise() {
        for argument in ["world.rows=0", "world.n_layers=0", "world.hidden_size=36", "world.context=0"] {
            let key = argument.split('=').next().unwrap();
            let message = refusal(&["world.name=market", argument]);
            assert!(message.starts_with(&format!("{key} is ")), "{argument}: {message}");
        }
        let config = Config::load(None, &["world.name=market".to_owned()]).unwrap();
        config.validate_for_sft().unwrap();
        config.validate_for_grpo().unwrap();
    }

    #[test]
    fn an_evaluation_that_never_happens_is_refused() {
        for argument in ["eval.patience=2", "eval.data=held-out.jsonl"] {
            let message = refusal(&[argument]);
            assert!(
                message.starts_with("eval.every is 0") && message.ends_with("set eval.every"),
                "{message}"
            );
        }
        let paths = ["model.path=m", "data.path=d", "eval.every=5"].map(str::to_owned);
        let config = Config::load(None, &paths).unwrap();
        let message = config.validate_for_sft().unwrap_err().to_string();
        assert!(message.starts_with("eval.data is not set"), "{message}");
    }

    #[test]
    fn greedy_sampling_is_refused_for_training_only() {
        let mut config = Config::default();
        config.sampling.temperature = 0.0;
        config.validate().unwrap();
        config.model.path = "m".into();
        config.model.student = "s".into();
        config.data.path = "d".into();
        let message = config.validate_for_grpo().unwrap_err().to_string();
        assert!(
            message.starts_with("sampling.temperature is 0.0; it must be above 0 for training"),
            "{message}"
        );
        config.sampling.temperature = 0.7;
        config.validate_for_grpo().unwrap();
    }

    #[test]
    fn what_does_not_go_with_an_adapter_is_refused() {
        let message = refusal(&["lora.rank=8", "lora.alpha=0"]);
        assert!(message.starts_with("lora.alpha is 0.0; it must be finite and above 0"), "{message}");
        let message = refusal(&["lora.rank=8", "lora.targets=[]"]);
        assert!(message.starts_with("lora.targets is []; it must be a list of at least"), "{message}");
        let message = refusal(&["lora.rank=8", "model.from_scratch=true"]);
        assert!(
            message.starts_with("model.from_scratch is true; it must be false with lora.rank"),
            "{message}"
        );
        let paths = ["lora.rank=8", "model.path=m", "model.student=s", "data.path=d"].map(String::from);
        let mut config = Config::load(None, &paths).unwrap();
        assert_eq!(config.reference_sync_every(), 0);
        config.validate_for_grpo().unwrap();
        config.grpo.reference_sync_every = Some(32);
        let message = config.validate_for_grpo().unwrap_err().to_string();
        assert!(
            message.starts_with("grpo.reference_sync_every is 32; it must be 0 or unset with lora.rank"),
            "{message}"
        );
        config.lora.rank = 0;
        config.validate_for_grpo().unwrap();
        config.grpo.reference_sync_every = None;
        assert_eq!(config.reference_sync_every(), 32);
        let message = refusal(&["lora.targets=[\"lm_head\"]"]);
        assert!(message.contains("unknown variant `lm_head`, expected one of `q_proj`"), "{message}");
    }

    #[test]
    fn missing_paths_are_named() {
        let mut config = Config::default();
        let message = |r: Result<()>| r.unwrap_err().to_string();
        assert!(message(config.validate_for_sft()).starts_with("model.path is not set"));
        config.model.path = "m".into();
        assert!(message(config.validate_for_sft()).starts_with("data.path is not set"));
        config.data.path = "d".into();
        config.validate_for_sft().unwrap();
        assert!(message(config.validate_for_grpo()).starts_with("model.student is not set"));
        config.reward.kind = crate::config::RewardKind::Correctness;
        config.validate_for_grpo().unwrap();
    }
}
