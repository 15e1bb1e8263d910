//! What distillation asks of the loop of GRPO.

use super::validate::require;
use super::{AddedRewards, Config, GrpoConfig, RewardKind, SOLUTION, TRACE};
use crate::error::{Error, Result};

impl Config {
    /// What the loop of GRPO is to do in distillation: draw completions and grade them, with a reference model, the teacher,
    /// whose divergence is the whole loss. The teacher does not move unless `grpo.reference_sync_every` says so.
    ///
    /// # Errors
    /// [`Error::Usage`] that names a key which would have no effect, or what must be set.
    pub fn for_distillation(&self) -> Result<Self> {
        let told = &self.distill.told;
        let says_more = told.contains(SOLUTION) || told.contains(TRACE);
        let range =
            format!("a text with {SOLUTION} or {TRACE}: a teacher that knows no more has nothing to teach");
        require(says_more, "distill.told", told, &range)?;
        let own = &self.grpo;
        let kept = GrpoConfig {
            steps: own.steps,
            questions_per_step: own.questions_per_step,
            group_size: own.group_size,
            reference_sync_every: own.reference_sync_every,
            reference_mixup: own.reference_mixup,
            tokens_per_microbatch: own.tokens_per_microbatch,
            samples_logged: own.samples_logged,
            samples_every: own.samples_every,
            ..GrpoConfig::default()
        };
        let mut of_loop = Self { grpo: kept, ..self.clone() };
        let without = |what: String| {
            let key = what.split(' ').next().unwrap_or_default();
            format!(
                "{key} has no effect in distillation, where the divergence from the teacher is the whole loss; leave it out"
            )
        };
        if let Some(change) = of_loop.first_change(self)? {
            return Err(Error::Usage(without(change)));
        }
        if self.reward.add != AddedRewards::default() {
            return Err(Error::Usage(without("reward.add".into())));
        }
        of_loop.reward.kind = RewardKind::Correctness;
        of_loop.grpo.beta = 1.0;
        of_loop.grpo.reference_sync_every.get_or_insert(0);
        of_loop.validate_for_grpo()?;
        Ok(of_loop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DistillConfig;

    fn config(overrides: &[&str]) -> Result<Config> {
        let paths = ["model.path=m", "data.path=d"];
        let overrides: Vec<String> = paths.iter().chain(overrides).map(|&o| o.to_owned()).collect();
        Config::load(None, &overrides)?.for_distillation()
    }

    #[test]
    fn the_loop_grades_and_keeps_a_teacher_that_stands_still() {
        let of_loop = config(&["grpo.steps=7"]).unwrap();
        assert_eq!((of_loop.reward.kind, of_loop.grpo.steps), (RewardKind::Correctness, 7));
        assert_eq!((of_loop.grpo.beta, of_loop.reference_sync_every()), (1.0, 0));
        assert_eq!(config(&["grpo.reference_sync_every=1"]).unwrap().reference_sync_every(), 1);
        // A run's configuration without the table is one of its defaults.
        assert_eq!(Config::load(None, &[]).unwrap().distill, DistillConfig::default());
    }

    #[test]
    fn what_would_have_no_effect_is_refused() {
        for (argument, key) in [
            ("grpo.objective=dapo", "grpo.objective"),
            ("grpo.beta=0.1", "grpo.beta"),
            ("grpo.epochs=2", "grpo.epochs"),
            ("grpo.clip_high=0.3", "grpo.clip_high"),
            ("reward.add.length=0.1", "reward.add"),
        ] {
            let message = config(&[argument]).unwrap_err().to_string();
            assert!(message.starts_with(&format!("{key} has no effect in distillation")), "{message}");
        }
        let message = config(&["distill.told={question}"]).unwrap_err().to_string();
        assert!(message.starts_with("distill.told is \"{question}\"; it must be a text with"), "{message}");
    }
}
