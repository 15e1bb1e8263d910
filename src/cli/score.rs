//! `rlt score`: the RLT reward of given traces, part by part.

use std::path::{Path, PathBuf};

use clap::Args;
use rlt::config::{AddedRewards, Config, DataConfig, DeviceName};
use rlt::dealt::{Answering, DealtScorer, Whose, agree_on_work, first_ranks, serve_first_rank};
use rlt::located::LocatedModel;
use rlt::model_files::{Deciding, ModelFiles};
use rlt::progress::Progress;
use rlt::prompts::{ChatText, PromptStyle, TypedCheck};
use rlt::score::Formats;
use rlt::scorer::Scorer;
use rlt::server::Wanted;
use rlt::traces::scoring::{Detail, Gaps, Tally, TraceScorer, check_traces, score_file};
use rlt::{Error, Result};
use rlt_model::Stop;
use rlt_model::chat_template::TemplateTime;
use serde_json::json;

use super::common::{
    ConfigArgs, Context, DeviceArgs, TOKENS_HELP, check_output, inputs, model_folder, parse_positive,
    template_time, tokens_per_batch,
};
use super::interrupt::stop_flag;
use super::ranks::dealt;

/// Score traces with the RLT reward, part by part
///
/// Files may have any length. After a stop or a kill, the same command continues where it was.
#[derive(Debug, Args)]
pub struct ScoreArgs {
    /// Model folder of the teacher; without it the configuration's model.path
    #[arg(long, value_name = "DIR")]
    teacher: Option<PathBuf>,
    /// Model folder of the student, with the same tokenizer; without it model.student
    #[arg(long, value_name = "DIR")]
    student: Option<PathBuf>,
    /// Rows with `question`, `solution` and `completion` (or `explanation`, `reasoning_trace`, or a list
    /// `completions`, each of which becomes a row)
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// Where the scored rows go (.jsonl): each row with `reward` and `parts`
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Add the per-token arrays: texts, log-probabilities (nats) and D_j
    #[arg(long)]
    ledger: bool,
    /// Stop at the first row that lacks its question, its solution or its explanation; without this such rows are written
    /// with the reason
    #[arg(long)]
    strict: bool,
    #[arg(long, value_name = "N", value_parser = parse_positive, help = TOKENS_HELP)]
    tokens_per_batch: Option<usize>,
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

impl ScoreArgs {
    /// Scores on all ranks.
    pub fn run(&self, context: &Context) -> Result<()> {
        dealt(&context.ranks, self.score(context))
    }

    /// Checks every input that is cheap to check before it loads a model.
    fn score(&self, context: &Context) -> Result<()> {
        let config = context.load_config_on(&self.config, &self.device)?;
        let (teacher_dir, student_dir) = self.models(&config)?;
        let inputs = inputs(&self.config, &config).with("--data", &self.data);
        check_output(&inputs.with("--teacher", teacher_dir).with("--student", student_dir), &self.out)?;
        let (server_of_teacher, server_of_student) = (config.server_of_teacher(), config.server_of_student());
        let is_one = student_dir == teacher_dir && server_of_student.is_none();
        let student_is_served = server_of_student.is_some() || (is_one && server_of_teacher.is_some());
        config.check_scored_by_servers(server_of_teacher.is_some(), student_is_served)?;
        let style = PromptStyle::resolve(&config.prompts)?;
        let data = DataConfig { path: self.data.clone(), ..config.data.clone() };
        let gaps = if self.strict { Gaps::Refused } else { Gaps::Written };
        let read = |folder: &Path| -> Result<ChatText> {
            Ok(ChatText::from_dir(folder)?.reading(config.data.special_tokens))
        };
        let (teacher_chat, student_chat) = (read(teacher_dir)?, read(student_dir)?);
        ChatText::check_same_vocabulary(&teacher_chat, &student_chat)?;
        let mut typed = TypedCheck::new(&student_chat);
        let checked = check_traces(&data, &style, gaps, &mut typed)?;
        typed.tell(&context.progress);
        if let Some(warning) = style.thought_in_thought(&student_chat) {
            context.progress.warn(&warning);
        }
        let detail = if self.ledger { Detail::Ledger } else { Detail::Parts };
        let holding = config.memory.holding_of_frozen(&context.ranks);
        let find =
            |server, folder| LocatedModel::find(server, &config.model, folder, &holding, &context.progress);
        let served_teacher = server_of_teacher.map(|server| find(Some(server), teacher_dir)).transpose()?;
        let served_student = server_of_student.map(|server| find(Some(server), student_dir)).transpose()?;
        let files = |folder, is_served| {
            let deciding = if is_served { Deciding::WithoutWeights } else { Deciding::WithWeights };
            ModelFiles::of(folder, deciding, &context.progress)
        };
        let of_teacher = files(teacher_dir, served_teacher.is_some())?;
        let of_student =
            if is_one { of_teacher.clone() } else { files(student_dir, served_student.is_some())? };
        let models = [of_teacher, of_student];
        let servers: Vec<_> = [&served_teacher, &served_student]
            .into_iter()
            .map(|model| model.as_ref().and_then(LocatedModel::served).map(|served| served.deciding()))
            .collect();
        let located = [&served_teacher, &served_student].into_iter().flatten();
        let tokens_per_batch = tokens_per_batch(self.tokens_per_batch, located);
        let work = |time: TemplateTime| {
            let mut work = json!({
                "version": env!("CARGO_PKG_VERSION"),
                "models": &models,
                "template_time": time,
                "rows": &checked,
                "data": &data,
                "style": format!("{style:?}"),
                "reward": &config.reward,
                "world": &config.world.name,
                "arithmetic": config.model.arithmetic,
                "longest": (config.reward.add != AddedRewards::default()).then_some(config.sampling.max_new_tokens),
                "detail": detail,
                "tokens_per_batch": tokens_per_batch,
            });
            if config.model.device != DeviceName::Cpu {
                work["device"] = json!(config.model.device);
            }
            if servers.iter().any(Option::is_some) {
                work["servers"] = json!(servers);
            }
            work.to_string()
        };
        let unfinished = rlt_files::unfinished_work(&self.out);
        let time = template_time(unfinished, |time, earlier| work(time) == earlier);
        let time = first_ranks(&context.ranks, time)?;
        let (teacher_chat, student_chat) = (teacher_chat.at(time), student_chat.at(time));
        let formats = Formats { style: &style, teacher: &teacher_chat, student: &student_chat };

        let (progress, stop) = (&context.progress, stop_flag());
        let or_here = |served: Option<LocatedModel>, folder| served.map_or_else(|| find(None, folder), Ok);
        let teacher = or_here(served_teacher, teacher_dir)?;
        let own_student = if is_one { None } else { Some(or_here(served_student, student_dir)?) };
        let wanted = Wanted { scoring: true, ..Wanted::default() };
        teacher.check(&teacher_chat.tokenizer, &wanted, progress)?;
        if let Some(student) = &own_student {
            student.check(&student_chat.tokenizer, &wanted, progress)?;
        }
        let ranks = &context.ranks;
        // What is computed here alone is done to the end of a lot.
        let stop_of = |model: &LocatedModel| {
            let waits_for_others = model.served().is_some() || ranks.size() > 1;
            if waits_for_others { Stop::when(stop) } else { Stop::never() }
        };
        let teacher_scorer = teacher.scorer(stop_of(&teacher), progress);
        let own_scorer = own_student.as_ref().map(|student| student.scorer(stop_of(student), progress));
        let student_scorer = own_scorer.as_deref().unwrap_or(&*teacher_scorer);
        agree_on_work(ranks, &work(time))?;
        if !ranks.is_first() {
            let scorers: Vec<(Whose, &dyn Scorer)> =
                vec![(Whose::Teacher, &*teacher_scorer), (Whose::Student, student_scorer)];
            return serve_first_rank(ranks, &Answering { scorers, ..Answering::default() }, stop);
        }
        let located = [Some(&teacher), own_student.as_ref()];
        let servers = || located.into_iter().flatten().filter_map(LocatedModel::served);
        servers().try_for_each(|served| served.keep_answers(&self.out))?;
        let teacher = DealtScorer { own: &*teacher_scorer, whose: Whose::Teacher, ranks };
        let student = DealtScorer { own: student_scorer, whose: Whose::Student, ranks };
        let scorer = TraceScorer {
            formats,
            teacher: teacher.scorer(),
            student: student.scorer(),
            config: &config,
            detail,
            tokens_per_batch,
        };
        let tally = score_file(&data, &checked, &self.out, &work(time), &scorer, progress, stop)?;
        servers().try_for_each(|served| served.forget_answers())?;
        self.answer(context, &tally)
    }

    fn models<'a>(&'a self, config: &'a Config) -> Result<(&'a Path, &'a Path)> {
        let folder = |flag: &str, given: &'a Option<PathBuf>, key: &str, configured: &'a Path| {
            let path = given.as_deref().unwrap_or(configured);
            if path.as_os_str().is_empty() {
                return Err(Error::Usage(format!(
                    "give the {flag}: --{flag} DIR, or {key} in the configuration"
                )));
            }
            model_folder(path)
        };
        Ok((
            folder("teacher", &self.teacher, "model.path", &config.model.path)?,
            folder("student", &self.student, "model.student", &config.model.student)?,
        ))
    }

    fn answer(&self, context: &Context, tally: &Tally) -> Result<()> {
        let (n_rows, n_scored) = (tally.traces + tally.gaps, tally.scored);
        let reasons = match tally.reasons.total() {
            0 => String::new(),
            n => format!("\n{n} rows whose parts.status is not ok: {}", tally.reasons),
        };
        let mean = (n_scored > 0).then(|| tally.reward_sum / n_scored as f64);
        let mean_text = mean.map_or(String::new(), |mean| format!("; mean reward {mean:.4} nats"));
        let out = self.out.display();
        context.answer(
            &format!("scored {n_scored} of {n_rows} rows in {out}{mean_text}{reasons}"),
            &json!({ "rows": n_rows, "scored": n_scored, "gaps": tally.gaps, "reasons": tally.reasons, "reward_mean": mean, "out": self.out }),
        )
    }
}
