//! The tables of a configuration and their defaults.

use std::path::PathBuf;

use rlt_engine::arithmetic::Arithmetic;
use rlt_model::weights::Dtype;
use rlt_reward::settings::RltSettings;
pub use rlt_reward::settings::{KlEstimator, Reduction};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    AnswerRule, CheckpointConfig, DeviceName, DistillConfig, EvalConfig, GrpoConfig, LoraConfig,
    MemoryConfig, RolloutConfig, ServerConfig, TrainConfig, WorldConfig,
};

/// A whole configuration. Each subcommand reads the tables it needs; unknown keys are errors.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Name of the run; also the default folder under `runs/`. Empty means the configuration file's name without its
    /// ending, else `run`.
    pub name: String,
    /// Where the run writes; empty means `runs/NAME`.
    pub run_dir: PathBuf,
    /// Seed of every random stream of the run.
    pub seed: u64,
    /// Worker threads; 0 means one per core.
    pub threads: usize,
    /// Ranks that share a training run, as threads of one process that divide its worker threads: for trying ranks out,
    /// and for `rlt plan`, which says what each of so many needs. 0 or 1 is one rank. Under a launcher (`mpirun`,
    /// `torchrun`) the ranks are its processes, and this is not needed.
    pub ranks: usize,
    /// The models involved.
    pub model: ModelPaths,
    /// Rows and a model that the run makes itself.
    pub world: WorldConfig,
    /// Training rows.
    pub data: DataConfig,
    /// Wording and tags. Parts that are unset are those of the style.
    pub prompts: PromptsConfig,
    /// The reward of a completion.
    pub reward: RewardConfig,
    /// How completions are sampled in training and explaining.
    pub sampling: SamplingConfig,
    /// Supervised fine-tuning.
    pub sft: SftConfig,
    /// Reinforcement learning: GRPO and its relatives.
    pub grpo: GrpoConfig,
    /// On-policy distillation from a teacher that is told the solution (`rlt distill`; `[grpo]` says how much of it).
    pub distill: DistillConfig,
    /// What both kinds of training share.
    pub train: TrainConfig,
    /// The optimizer and its schedule.
    pub optimizer: OptimizerConfig,
    /// Low-rank adaptation (LoRA): small terms are trained beside frozen weights.
    pub lora: LoraConfig,
    /// What training keeps in memory.
    pub memory: MemoryConfig,
    /// Evaluation while training, on rows that are not trained on.
    pub eval: EvalConfig,
    /// When checkpoints are saved, and which are kept.
    pub checkpoint: CheckpointConfig,
    /// What is drawn by servers while a policy learns.
    pub rollout: RolloutConfig,
    /// Who serves the model that writes and is trained.
    pub server: ServerConfig,
    /// Who serves the teacher, where that is another server.
    pub teacher_server: ServerConfig,
    /// Who serves the reward's student.
    pub student_server: ServerConfig,
}

/// `[model]`: folders in the Hugging Face layout.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ModelPaths {
    /// The model to train.
    pub path: PathBuf,
    /// The reward's student (every `reward.kind` but `correctness`).
    pub student: PathBuf,
    /// The reference model of `rlt train`; empty for the model as training begins.
    pub reference: PathBuf,
    /// Train from random weights: take only `config.json` and the tokenizer from `path`.
    pub from_scratch: bool,
    /// Number format of the final model's weights. Training and checkpoints are f32 whatever this says.
    pub save_dtype: SaveDtype,
    /// Number format of the matrix products of every model involved, in training, sampling and scoring.
    pub arithmetic: Products,
    /// Where every model involved is computed: `cpu`, or an NVIDIA GPU, `cuda` (the first; several ranks on a machine take its
    /// GPUs by turns) or `cuda:N`.
    pub device: DeviceName,
}

/// `model.save_dtype`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SaveDtype {
    /// Exactly what was trained. The default, also after a bf16 checkpoint: a step of RL is often smaller
    /// than bf16 can hold beside the weight it changes, and rounding would undo it.
    #[default]
    F32,
    /// Half the size; each weight is rounded to 8 bits.
    Bf16,
    /// Half the size; 11 bits, but nothing above 65504.
    F16,
}

impl From<SaveDtype> for Dtype {
    fn from(dtype: SaveDtype) -> Self {
        match dtype {
            SaveDtype::F32 => Self::F32,
            SaveDtype::Bf16 => Self::Bf16,
            SaveDtype::F16 => Self::F16,
        }
    }
}

/// `model.arithmetic`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Products {
    /// All of it in f32.
    #[default]
    F32,
    /// Mixed precision: factors are rounded to bf16, sums and everything else (weights between updates too) are
    /// f32. Faster where the processor has AMX or AVX-512 BF16, the same results to about three digits anywhere.
    Bf16,
}

impl From<Products> for Arithmetic {
    fn from(products: Products) -> Self {
        match products {
            Products::F32 => Self::F32,
            Products::Bf16 => Self::Bf16,
        }
    }
}

/// `[data]`: rows and their columns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DataConfig {
    /// A .jsonl, .json, .csv or .parquet file, a folder of them, or a data set of the Hugging Face hub
    /// (`OWNER/NAME`, `OWNER/NAME@REVISION`, `hf://datasets/OWNER/NAME/FILE`).
    pub path: PathBuf,
    /// Column of the question; empty means `question`, else `prompt`, else `problem`.
    pub question: String,
    /// Column of the solution.
    pub solution: String,
    /// Column of an existing thought or explanation (for `rlt sft`).
    pub reasoning_trace: String,
    /// Column of a system prompt that replaces the student's; empty for none.
    pub system: String,
    /// Use at most this many rows; 0 means all.
    pub max_rows: usize,
    /// Drop rows whose prompt is longer than this many tokens; 0 means the model's context.
    pub max_prompt_tokens: usize,
    /// How special tokens of the model are read where they stand in the text of a row (`<|im_end|>` in a question).
    pub special_tokens: TypedTokens,
}

/// `data.special_tokens`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TypedTokens {
    /// As special tokens, as in transformers: a row can end a turn and begin another. A warning counts them.
    #[default]
    Allow,
    /// Not at all: the first one is an error that names the row.
    Refuse,
    /// As text like any other: by their letters, never by their ids.
    Text,
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            path: PathBuf::new(),
            question: String::new(),
            solution: "solution".into(),
            reasoning_trace: "reasoning_trace".into(),
            system: String::new(),
            max_rows: 0,
            max_prompt_tokens: 0,
            special_tokens: TypedTokens::Allow,
        }
    }
}

/// `[prompts]`: a named style, each part of which can be replaced.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PromptsConfig {
    /// `stratos` (default when empty), `r1`, `think` (as `r1`, without solution tags), or a path to a TOML file with the keys below.
    pub style: String,
    /// The teacher's system prompt.
    pub teacher_system: Option<String>,
    /// The student's system prompt.
    pub student_system: Option<String>,
    /// Text between two tagged sections.
    pub delimiter: Option<String>,
    /// Text just inside a tag.
    pub padding: Option<String>,
    /// Opens the student's thought.
    pub begin_of_thought: Option<String>,
    /// Closes the student's thought.
    pub end_of_thought: Option<String>,
    /// Opens the solution.
    pub begin_of_solution: Option<String>,
    /// Closes the solution.
    pub end_of_solution: Option<String>,
    /// Opens the teacher's explanation.
    pub begin_of_explanation: Option<String>,
    /// Closes the teacher's explanation.
    pub end_of_explanation: Option<String>,
}

/// `reward.kind`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RewardKind {
    /// The dense reward of the paper, from a student's log-probabilities.
    #[default]
    Rlt,
    /// Format and final answer (the conventional baseline).
    Correctness,
    /// How much an explanation improves the likelihood of the solution, from a student's log-probabilities.
    Likelihood,
    /// Whether the answer of a policy that is told the solution (`distill.told`) is right, times how little its steps surprise a
    /// student who is not (Pedagogical RL).
    Pedagogical,
}

impl RewardKind {
    /// Whether it asks a student (`model.student`) for log-probabilities.
    pub fn asks_student(self) -> bool {
        self != Self::Correctness
    }

    /// Whether it is about explanations of a solution; else about answers.
    pub fn is_of_explanations(self) -> bool {
        matches!(self, Self::Rlt | Self::Likelihood)
    }
}

/// `[reward]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RewardConfig {
    /// Which reward.
    pub kind: RewardKind,
    /// What makes an answer right, for `kind = "correctness"`, `"pedagogical"` and `add.correctness`; unset, the rule of the world
    /// that `[world]` names, or `solution` without one.
    pub grader: Option<AnswerRule>,
    /// Weight of the minimum (r_SS) and the maximum (r_KL) against the mean.
    pub alpha: f32,
    /// Weight of the minimum in r_SS where it is not `alpha`.
    pub alpha_min: Option<f32>,
    /// Weight of the maximum in r_KL where it is not `alpha`.
    pub alpha_max: Option<f32>,
    /// Weight of r_SS.
    pub solution_weight: f32,
    /// Weight of r_KL.
    pub lambda: f32,
    /// Estimator of D_j.
    pub kl: KlEstimator,
    /// How the solution's log-probabilities become one number in r_SS, beside their minimum.
    pub solution_reduction: Reduction,
    /// How the D_j become one number in r_KL, beside their maximum.
    pub kl_reduction: Reduction,
    /// A solution token's log-probability counts as no less than minus this many nats; 0 never clips.
    pub logprob_clip: f32,
    /// |D_j| counts as no more than this many nats; 0 never clips.
    pub kl_clip: f32,
    /// |reward| is no more than this; 0 never clips.
    pub reward_clip: f32,
    /// Temperature of the teacher's log-probabilities in r_KL.
    pub teacher_temperature: f32,
    /// Temperature of the student's log-probabilities.
    pub student_temperature: f32,
    /// Added when the end tag is missing.
    pub format_penalty: f32,
    /// The reward of what cannot be scored (an empty thought, a sequence beyond the context) where it is not
    /// `format_penalty`. It must lie below ordinary rewards, or training learns to write nothing.
    pub unscorable_reward: Option<f32>,
    /// What surprise costs under `kind = "pedagogical"`: a right answer is worth exp(-lambda times its surprise, nats).
    pub spike_lambda: f32,
    /// How far surprise is that of the most surprising token alone: 0 is the mean over the tokens, a large number the largest.
    pub spike_beta: f32,
    /// What training adds to it.
    pub add: AddedRewards,
}

/// `[reward.add]`: values that are added to the reward of a completion in training, each times its weight here; 0 adds
/// nothing. Each is logged apart.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AddedRewards {
    /// 1 where the explanation's answer is right, graded as a solution would be, else 0 (`reward.kind = "rlt"`).
    pub correctness: f32,
    /// Share of the solution that the explanation copies, 0 to 1 (`reward.kind = "rlt"`).
    pub overlap: f32,
    /// Share of repeated runs of tokens, 0 to 1.
    pub repetition: f32,
    /// Length as a share of `sampling.max_new_tokens`, 0 to 1.
    pub length: f32,
    /// How far the length reaches into the last `overlong_cache` tokens before `sampling.max_new_tokens`, 0 to 1
    /// (DAPO's soft overlong punishment, arXiv 2503.14476: -1).
    pub overlong: f32,
    /// Those tokens; unset, a fifth of `sampling.max_new_tokens` (DAPO's 4,096 of 20,480).
    pub overlong_cache: Option<usize>,
}

impl AddedRewards {
    /// The tokens before `longest` that [`Self::overlong`] is about.
    pub fn overlong_cache(&self, longest: usize) -> usize {
        self.overlong_cache.unwrap_or(longest.div_ceil(5))
    }
}

impl RewardConfig {
    /// What the equations are told: the keys with their defaults filled in.
    pub fn settings(&self) -> RltSettings {
        RltSettings {
            alpha_min: self.alpha_min.unwrap_or(self.alpha),
            alpha_max: self.alpha_max.unwrap_or(self.alpha),
            solution_weight: self.solution_weight,
            lambda: self.lambda,
            kl: self.kl,
            solution_reduction: self.solution_reduction,
            kl_reduction: self.kl_reduction,
            logprob_clip: self.logprob_clip,
            kl_clip: self.kl_clip,
            reward_clip: self.reward_clip,
            format_penalty: self.format_penalty,
            unscorable_reward: self.unscorable_reward.unwrap_or(self.format_penalty),
        }
    }
}

impl Default for RewardConfig {
    /// The equations' own defaults: the keys that are unset follow them.
    fn default() -> Self {
        let RltSettings {
            alpha_min: alpha,
            alpha_max: _,
            solution_weight,
            lambda,
            kl,
            solution_reduction,
            kl_reduction,
            logprob_clip,
            kl_clip,
            reward_clip,
            format_penalty,
            unscorable_reward: _,
        } = RltSettings::default();
        Self {
            kind: RewardKind::Rlt,
            grader: None,
            alpha,
            alpha_min: None,
            alpha_max: None,
            solution_weight,
            lambda,
            kl,
            solution_reduction,
            kl_reduction,
            logprob_clip,
            kl_clip,
            reward_clip,
            teacher_temperature: 0.7,
            student_temperature: 0.7,
            format_penalty,
            unscorable_reward: None,
            spike_lambda: 0.5,
            spike_beta: 5.0,
            add: AddedRewards::default(),
        }
    }
}

/// `[sampling]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SamplingConfig {
    /// Softmax temperature; 0 takes the most likely token.
    pub temperature: f32,
    /// Keep the k most likely tokens; 0 keeps all.
    pub top_k: usize,
    /// Keep the smallest set whose probability reaches this; 1 keeps all.
    pub top_p: f32,
    /// Drop tokens less likely than this share of the most likely one; 0 keeps all.
    pub min_p: f32,
    /// Divides (multiplies) the positive (negative) logits of tokens already in the sequence.
    pub repetition_penalty: f32,
    /// Longest completion, tokens.
    pub max_new_tokens: usize,
    /// Sequences that decode at the same time.
    pub max_running: usize,
}

impl Default for SamplingConfig {
    fn default() -> Self {
        Self {
            temperature: 0.7,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            max_new_tokens: 1024,
            max_running: 64,
        }
    }
}

/// `sft.format`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SftFormat {
    /// Question and solution in the prompt; the loss counts the explanation.
    #[default]
    Teacher,
    /// Question in the prompt; the loss counts thought and solution.
    Student,
    /// Rows of plain `text`; the loss counts every token after the first.
    Text,
}

/// `[sft]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SftConfig {
    /// What a row becomes.
    pub format: SftFormat,
    /// Passes over the rows.
    pub epochs: f64,
    /// Rows per optimizer step.
    pub batch_rows: usize,
    /// Tokens in memory at once; larger batches are split and their gradients summed.
    pub tokens_per_microbatch: usize,
    /// Rows longer than this many tokens are dropped (and counted); 0 means the model's context.
    pub max_tokens: usize,
    /// How sharply a token counts less, the more it surprises the model as it is (surprisal-gated imitation): its weight is
    /// sigmoid(kappa (log-probability - gamma)). 0: all count the same.
    pub gate_kappa: f32,
    /// The log-probability (nats) at which a token counts half, where `gate_kappa` is above 0.
    pub gate_gamma: f32,
}

impl Default for SftConfig {
    fn default() -> Self {
        Self {
            format: SftFormat::Teacher,
            epochs: 1.0,
            batch_rows: 16,
            tokens_per_microbatch: 8192,
            max_tokens: 0,
            gate_kappa: 0.0,
            gate_gamma: -3.5,
        }
    }
}

/// `optimizer.schedule`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// Half a cosine down to zero.
    Cosine,
    /// A straight line down to zero.
    Linear,
    /// No decay.
    #[default]
    Constant,
}

/// `[optimizer]`: AdamW with decoupled decay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OptimizerConfig {
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Decay after the warm-up.
    pub schedule: Schedule,
    /// Share of the steps (below 1) or number of steps (1 and above) with a rising rate.
    pub warmup: f64,
    /// First-moment decay.
    pub beta1: f64,
    /// Second-moment decay.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Decoupled weight decay (matrices only).
    pub weight_decay: f64,
    /// Gradients are scaled down to this global norm; 0 never.
    pub clip_norm: f64,
    /// Number format of the two moments.
    pub moments: MomentDtype,
}

/// `optimizer.moments`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MomentDtype {
    /// 8 bytes a parameter for both.
    #[default]
    F32,
    /// Half of that; rounded up or down at random, so that small steps are not lost.
    Bf16,
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self {
            learning_rate: 1e-5,
            schedule: Schedule::Constant,
            warmup: 0.0,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.0,
            clip_norm: 1.0,
            moments: MomentDtype::F32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_equations() {
        assert_eq!(RewardConfig::default().settings(), RltSettings::default());
    }
}
