//! GRPO, rehearsed: completions of made-up tokens, as long as they may become.

use rlt_model::batch::{Continuation, ScoringGroup};
use rlt_model::config::ModelConfig;
use rlt_model::generate::{GenerationRequest, SamplingParams, generate};
use rlt_model::ids::TokenIds;
use rlt_model::{Decoder, Stop};

use super::record::{Record, Stage};
use super::share::Share;
use super::steps::{Part, chosen};
use crate::config::{Config, RewardKind};
use crate::dataset::{QuestionRow, read_usable_questions};
use crate::error::{Error, Result};
use crate::grpo::{
    Group, Learner, Question as Asked, Told, certain_group, longest_prompt, sync_reference,
    teacher_was_recorded,
};
use crate::progress::{Progress, Silent};
use crate::prompts::{ChatText, PromptStyle};
use crate::sampling::sampling_params;
use crate::score::{Formats, RltSample, Teacher, score_samples};
use crate::training::run::Weights;
use crate::training::{EpochOrder, GradientSum};

/// A question, its prompt, and how long a completion may become.
struct Question {
    row: QuestionRow,
    prompt: TokenIds,
    longest: usize,
}

impl Question {
    /// Of its prompt and a completion.
    fn n_tokens(&self) -> usize {
        self.prompt.len() + self.longest
    }

    /// A completion: the same token, which spells no tag, again and again.
    fn completion(&self, token: u32) -> TokenIds {
        vec![token; self.longest].into()
    }
}

/// The questions of a run of `rlt train`.
pub(super) struct GrpoRows {
    style: PromptStyle,
    pub chat: ChatText,
    /// Of whoever scores.
    student_chat: Option<ChatText>,
    /// What completions are made of.
    token: u32,
    questions: Vec<Question>,
    held_out: Option<Vec<Question>>,
    /// Those of the steps that are looked at.
    steps: Vec<Vec<usize>>,
}

impl GrpoRows {
    /// Reads them. Every completion is as long as `sampling.max_new_tokens` allows.
    ///
    /// # Errors
    /// What rows and tokenizers report.
    pub fn read(config: &Config, model: &ModelConfig, progress: &dyn Progress) -> Result<Self> {
        let style = PromptStyle::resolve(&config.prompts)?.clone();
        let chat = ChatText::from_dir(&config.model.path)?;
        let scored = config.reward.kind.asks_student();
        let student_chat = if scored { Some(ChatText::from_dir(&config.model.student)?) } else { None };
        let token = chat.tokenizer.encode("a")?.first().copied().unwrap_or(0);
        let context = model.context();
        let read = |config: &Config| questions(config, &style, &chat, context);
        let questions = read(config)?;
        let held_out = config.on_held_out_rows().as_ref().map(read).transpose()?;
        progress.note("completions count as long as sampling.max_new_tokens allows");
        let (mut order, n) =
            (EpochOrder::new(config.seed, questions.len()), config.grpo.questions_per_step as u64);
        let steps = chosen(
            config.grpo.steps as u64,
            |step| order.rows(step * n..(step + 1) * n),
            |step| step.iter().map(|&row| questions[row].n_tokens()).sum(),
        );
        Ok(Self { style, chat, student_chat, token, questions, held_out, steps })
    }

    /// The number of steps that are looked at.
    pub fn n_steps(&self) -> usize {
        self.steps.len()
    }

    /// A rank's share of one step, with as few groups of equal rewards as leave half of them in each round of resampling.
    ///
    /// # Errors
    /// As a step of the run.
    pub fn step(
        &self,
        index: usize,
        config: &Config,
        share: Share,
        student: Option<&Decoder>,
        weights: &mut Weights,
        gradients: &mut GradientSum,
        record: &mut Record,
    ) -> Result<()> {
        let questions = self.share_of_step(index, share);
        let learner = Learner::new(config, share.lanes());
        let rounds = (0..=learner.settings.resample_rounds).map(|halvings| questions.len() >> halvings);
        for (round, n) in rounds.take_while(|&n| n > 0).enumerate() {
            // How often a run resamples is not known: its time is not counted.
            let counts = if round == 0 { 1.0 } else { 0.0 };
            let (of, stages) = (config.grpo.group_size, [Stage::Generation, Stage::Scoring]);
            self.sample(&questions[..n], of, config, &weights.decoder, student, stages, counts, record)?;
        }
        let tokens = config.grpo.tokens_per_microbatch;
        let lengths: Vec<usize> = questions.iter().map(|question| question.longest).collect();
        let part = Part::of_micro_batches(&lengths, config.grpo.group_size, tokens);
        let asked = |&row: &usize| Asked {
            row: questions[row].row.clone(),
            prompt: questions[row].prompt.clone(),
            told: TokenIds::default(),
        };
        let asked: Vec<Asked> = part.rows.iter().map(asked).collect();
        let completions = part.rows.iter().map(|&row| questions[row].completion(self.token));
        let groups: Vec<Group> =
            asked.iter().zip(completions).map(|(asked, ids)| certain_group(asked, ids, part.n)).collect();
        learner.learn(1, &groups.iter().collect::<Vec<_>>(), weights, gradients, Stop::never())?;
        sync_reference(weights, 1, config.reference_sync_every().min(1), config.grpo.reference_mixup);
        record.end_stage(Stage::Update, part.times);
        Ok(())
    }

    /// A rank's questions of a step that is looked at.
    fn share_of_step(&self, index: usize, share: Share) -> Vec<&Question> {
        let rows = share.heaviest(&self.steps[index], |&row| self.questions[row].n_tokens());
        rows.iter().map(|&row| &self.questions[row]).collect()
    }

    /// Tokens of a rank's completions in the heaviest step.
    pub fn completion_tokens(&self, config: &Config, share: Share) -> usize {
        let questions = self.steps.len().checked_sub(1).map(|last| self.share_of_step(last, share));
        let longest = questions.into_iter().flatten().map(|question| question.longest);
        config.grpo.group_size * longest.sum::<usize>()
    }

    /// A rank's share of an evaluation, where there is one.
    ///
    /// # Errors
    /// As the run's.
    pub fn evaluate(
        &self,
        config: &Config,
        share: Share,
        weights: &Weights,
        student: Option<&Decoder>,
        record: &mut Record,
    ) -> Result<bool> {
        let Some(held_out) = &self.held_out else { return Ok(false) };
        let own = share.heaviest(held_out, Question::n_tokens);
        let (questions, stages): (Vec<&Question>, _) = (own.iter().collect(), [Stage::Evaluation; 2]);
        let n = config.eval.samples;
        self.sample(&questions, n, config, &weights.decoder, student, stages, 1.0, record)?;
        Ok(true)
    }

    /// Completions of some questions, `n` of each, and their scores.
    fn sample(
        &self,
        questions: &[&Question],
        n: usize,
        config: &Config,
        policy: &Decoder,
        student: Option<&Decoder>,
        [generation, scoring]: [Stage; 2],
        counts: f64,
        record: &mut Record,
    ) -> Result<()> {
        // Twice as many as run at once: they take each other's places.
        let longest: Vec<usize> = questions.iter().map(|question| question.longest).collect();
        let enough = 2 * config.sampling.max_running * longest.iter().copied().max().unwrap_or(1);
        let part = Part::of(&longest, n, enough);
        let request = |&row: &usize| GenerationRequest {
            prompt: questions[row].prompt.clone(),
            n: part.n,
            stream: [1, row as u64],
        };
        let requests: Vec<_> = part.rows.iter().map(request).collect();
        // Nothing stops a completion before its length does.
        let params =
            SamplingParams { stop_token_ids: Vec::new(), ..sampling_params(&config.sampling, Vec::new()) };
        if config.server_of_teacher().is_some() {
            // Servers draw; the policy scores what they have drawn.
            self.score_drawn(questions, n, config, policy)?;
            record.end_stage(scoring, counts * part.times);
        } else {
            generate(policy, &requests, &params, config.seed, Stop::never(), &mut |_| ())?;
            record.end_stage(generation, counts * part.times);
        }

        let (Some(student), Some(chat)) = (student, &self.student_chat) else { return Ok(()) };
        let (reward, tokens) = (&config.reward, config.grpo.tokens_per_microbatch);
        let part = Part::of_micro_batches(&longest, n, tokens);
        if !reward.kind.is_of_explanations() {
            let groups = part.rows.iter().map(|&row| {
                let prefix = self.style.student_question_prompt(chat, &questions[row].row)?.into();
                let continuation = Continuation::whole(questions[row].completion(self.token));
                Ok(ScoringGroup { prefix, continuations: vec![continuation; part.n] })
            });
            let groups: Vec<ScoringGroup> = groups.collect::<Result<_>>()?;
            let temperature = reward.student_temperature;
            student.token_logprobs_beside_best(Stop::never(), &groups, temperature, tokens)?;
            record.end_stage(scoring, counts * part.times);
            return Ok(());
        }
        let formats = Formats { style: &self.style, teacher: &self.chat, student: chat };
        let mut samples = Vec::new();
        for question in part.rows.iter().map(|&row| questions[row]) {
            let (prompt, ids) = (question.prompt.clone(), question.completion(self.token));
            let sample = RltSample::from_sampled(&formats, &question.row, prompt, ids, "a sample".into())?;
            samples.extend(std::iter::repeat_n(sample, part.n));
        }
        let longest = samples.iter().map(|sample| sample.think_ids().len()).max().unwrap_or(0);
        let zeros = vec![0.0; longest];
        let recorded: Vec<&[f32]> = samples.iter().map(|sample| &zeros[..sample.think_ids().len()]).collect();
        let was_recorded = teacher_was_recorded(reward, config.sampling.temperature);
        let teacher = if was_recorded { Teacher::Recorded(&recorded) } else { Teacher::Model(policy) };
        score_samples(&samples, teacher, student, reward, tokens, &Silent)?;
        record.end_stage(scoring, counts * part.times);
        Ok(())
    }
}

impl GrpoRows {
    /// Log-probabilities of completions that servers drew, by the policy.
    fn score_drawn(
        &self,
        questions: &[&Question],
        n: usize,
        config: &Config,
        policy: &Decoder,
    ) -> Result<()> {
        let longest: Vec<usize> = questions.iter().map(|question| question.longest).collect();
        let tokens = config.grpo.tokens_per_microbatch;
        let part = Part::of_micro_batches(&longest, n, tokens);
        let group = |question: &&Question| ScoringGroup {
            prefix: question.prompt.clone(),
            continuations: vec![Continuation::whole(question.completion(self.token)); part.n],
        };
        let groups: Vec<ScoringGroup> = part.rows.iter().map(|&row| group(&questions[row])).collect();
        policy.token_logprobs(&groups, config.sampling.temperature, tokens)?;
        Ok(())
    }
}

/// The questions of `config.data` whose prompts leave room in the context.
fn questions(config: &Config, style: &PromptStyle, chat: &ChatText, context: usize) -> Result<Vec<Question>> {
    let (limit, told) = (longest_prompt(config, context), Told::of(&config.distill));
    let mut questions = Vec::new();
    for row in read_usable_questions(&config.data)?.rows {
        let prompt: TokenIds = match config.reward.kind {
            RewardKind::Rlt | RewardKind::Likelihood => style.teacher_prompt(chat, &row)?.into(),
            RewardKind::Correctness => style.student_question_prompt(chat, &row)?.into(),
            RewardKind::Pedagogical => told.prompt(style, chat, &row)?,
        };
        if prompt.len() <= limit {
            // The context is a limit, too.
            let longest = config.sampling.max_new_tokens.min(context - prompt.len()).max(1);
            questions.push(Question { row, prompt, longest });
        }
    }
    if questions.is_empty() {
        let path = config.data.path.display();
        return Err(Error::Failed(format!(
            "{path}: all prompts are longer than {limit} tokens; raise data.max_prompt_tokens or use a model with a \
             longer context"
        )));
    }
    Ok(questions)
}
