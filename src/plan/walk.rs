//! A walk through a run with sizes alone: what stays in memory, and the peak of every stage.

use rlt_model::training_pass::Keep;

use super::pool::{Block, Pool};
use super::shape::Shape;
use super::work::{Step, Work, micro_batches, score_batches};
use super::{Command, Models, Named, teacher_scores, tokens_per_microbatch};
use crate::config::{Config, Idle, MomentDtype};

/// The stages of a run.
#[derive(Debug, Clone, Copy)]
enum Stage {
    Loading,
    Generation,
    Scoring,
    Update,
    Evaluation,
    Saving,
}

/// Their names, in their order.
const STAGES: [&str; 6] = ["loading", "generation", "scoring", "update", "evaluation", "saving"];

/// A walk on its way.
struct Walk<'a> {
    config: &'a Config,
    command: Command,
    models: &'a Models,
    new_tokens: usize,
    pool: Pool,
    peaks: [u64; STAGES.len()],
}

/// What stays in memory, and the peak of every stage, bytes in all, beside `base` bytes of memory of other kinds.
pub(super) fn walk(
    config: &Config,
    command: Command,
    models: &Models,
    work: &Work,
    base: u64,
) -> (Vec<Named<u64>>, Vec<Named<u64>>) {
    let (pool, peaks) = (Pool::beside(base), [0; STAGES.len()]);
    let mut walk = Walk { config, command, models, new_tokens: work.new_tokens, pool, peaks };
    let (blocks, stays) = walk.load(base);
    for step in &work.steps {
        walk.step(step);
        if let Some(evaluation) = &work.evaluation {
            walk.evaluate(evaluation);
        }
        walk.checkpoint();
    }
    walk.pool.release();
    walk.pool.take_peak();
    models.policy.save(&mut walk.pool);
    walk.end(Stage::Saving);
    walk.pool.give_all(blocks);
    let peaks = STAGES.into_iter().zip(walk.peaks).filter(|(_, bytes)| *bytes > 0);
    (stays, peaks.collect())
}

impl Walk<'_> {
    /// Takes what stays, and names it.
    fn load(&mut self, base: u64) -> (Vec<Block>, Vec<Named<u64>>) {
        let Self { config, models, pool, .. } = self;
        let mut stays = vec![("program, tokenizer, rows", base)];
        let mut blocks = Vec::new();
        let mut kept = |pool: &Pool, name: &'static str| {
            let before: u64 = stays.iter().map(|(_, bytes)| *bytes).sum();
            if pool.held() > before {
                stays.push((name, pool.held() - before));
            }
        };
        if let Some((student, file)) = &models.student {
            blocks.extend(student.load(pool, *file));
            kept(pool, "student");
        }
        blocks.extend(models.policy.load(pool, models.policy_file));
        kept(pool, "weights");
        let trained = models.policy.trained();
        for slot in trained.iter().chain(&trained) {
            match config.optimizer.moments {
                MomentDtype::F32 => blocks.push(pool.take(slot.rows * slot.cols)),
                MomentDtype::Bf16 => pool.hold(2 * (slot.rows * slot.cols) as u64),
            }
        }
        kept(pool, "optimizer moments");
        if let Some((reference, file)) = &models.given_reference {
            blocks.extend(reference.load(pool, *file));
            kept(pool, "reference");
        } else if models.reference.is_some() && config.lora.rank == 0 {
            let copy: Vec<_> = trained.iter().map(|slot| pool.take(slot.rows * slot.cols)).collect();
            // One that never moves is narrowed to bf16 where that loses nothing; its f32 blocks are used again.
            let narrowed = config.reference_sync_every() == 0 && models.policy_file == 2;
            let mut narrow = Vec::new();
            for (slot, block) in trained.iter().zip(copy) {
                if narrowed && slot.decay {
                    narrow.push(pool.take(slot.rows * slot.cols / 2));
                    pool.give(block);
                } else {
                    narrow.push(block);
                }
            }
            if models.reference_is_student {
                pool.give_all(narrow);
            } else {
                blocks.extend(narrow);
            }
            kept(pool, "reference");
        }
        blocks.extend(trained.iter().map(|slot| pool.take(slot.rows * slot.cols)));
        kept(pool, "gradients");
        self.end(Stage::Loading);
        (blocks, stays)
    }

    /// Notes the peak since the last stage as one of `stage`.
    fn end(&mut self, stage: Stage) {
        let peak = &mut self.peaks[stage as usize];
        *peak = (*peak).max(self.pool.take_peak());
    }

    /// As [`Self::end`], where the run may give back what a stage has done with.
    fn end_stage(&mut self, stage: Stage) {
        self.end(stage);
        if self.config.memory.idle == Idle::Release {
            self.pool.release();
            self.pool.take_peak();
        }
    }

    fn step(&mut self, step: &Step) {
        self.sample(step, [Stage::Generation, Stage::Scoring]);
        let (tokens, keep) =
            (tokens_per_microbatch(self.config, self.command), Keep::from(self.config.memory.recompute));
        if let Some(reference) = &self.models.reference {
            for batch in micro_batches(&step.learn, tokens) {
                reference.score(&mut self.pool, batch);
            }
        }
        let minibatches = if self.command == Command::Train { self.config.grpo.minibatches } else { 1 };
        for part in step.learn.chunks(step.learn.len().div_ceil(minibatches).max(1)) {
            for batch in micro_batches(part, tokens) {
                self.models.policy.learn(&mut self.pool, batch, keep);
            }
        }
        self.end_stage(Stage::Update);
    }

    /// Completions and their rewards.
    fn sample(&mut self, step: &Step, [generation, scoring]: [Stage; 2]) {
        let tokens = tokens_per_microbatch(self.config, self.command);
        for round in &step.rounds {
            let running = self.config.sampling.max_running;
            self.models.policy.generate(&mut self.pool, &round.prompts, round.n, self.new_tokens, running);
            self.end_stage(generation);
            if let Some((student, _)) = &self.models.student {
                for batch in score_batches(&round.score, tokens) {
                    student.score(&mut self.pool, batch);
                    if teacher_scores(self.config) {
                        self.models.policy.score(&mut self.pool, batch);
                    }
                }
                self.end_stage(scoring);
            }
        }
    }

    /// An evaluation, after which the model may be the best so far and is saved.
    fn evaluate(&mut self, evaluation: &Step) {
        self.sample(evaluation, [Stage::Evaluation; 2]);
        for batch in micro_batches(&evaluation.held_out, tokens_per_microbatch(self.config, self.command)) {
            self.models.policy.score(&mut self.pool, batch);
        }
        self.end_stage(Stage::Evaluation);
        self.models.policy.save(&mut self.pool);
        self.end(Stage::Saving);
    }

    /// Weights and moments as they are; what is bf16 is widened one tensor at a time.
    fn checkpoint(&mut self) {
        let widened = |shape: &Shape| 4 * shape.largest_trained() as u64;
        if self.config.optimizer.moments == MomentDtype::Bf16 {
            self.pool.pass(widened(&self.models.policy));
        }
        let is_written = self.models.reference.is_some() && self.config.fixed_reference().is_none();
        if is_written && self.config.lora.rank == 0 && self.models.policy_file == 2 {
            self.pool.pass(widened(&self.models.policy));
        }
        self.end(Stage::Saving);
    }
}
