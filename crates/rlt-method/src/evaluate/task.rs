//! What a model can be evaluated on: the questions, the grader, and the prompt that a student answers.

use std::path::Path;

use rlt_grade::{SolutionTags, ThoughtRule, Verdict, grade_choice, grade_countdown, grade_math};
use rlt_model::Stop;
use rlt_model::generate::Completion;
use rlt_model::ids::TokenIds;

use super::{Answer, EvalOptions, EvalQuestion, EvalSummary, QuestionRecord, Thought, evaluate};
use crate::config::{AnswerRule, DataConfig, World};
use crate::dataset::{Finish, QuestionRow, read_questions};
use crate::error::{Error, Result};
use crate::grading::{grade, solution_tags};
use crate::progress::Progress;
use crate::prompts::{ChatText, PromptStyle, TypedCheck};
use crate::sampling::{Author, TokenRate};
use crate::traces::text_ids;

/// What keys this work's random draws.
const STREAM: u64 = u64::from_be_bytes(*b"evaluate");

/// Questions and what counts as a right answer to them.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// The name in tables and files.
    pub name: String,
    /// Which of its questions, for example `heldout`.
    pub split: String,
    /// How answers are judged.
    pub grader: Grader,
    /// The questions.
    pub rows: Vec<QuestionRow>,
}

/// How answers are judged. For the first only a completion of a closed thought and a closed solution can be
/// right; the others read the whole generation, as published evaluations do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grader {
    /// The solution section, by a rule of `reward.grader`.
    Section(AnswerRule),
    /// The answer found in the generation is equivalent to the row's.
    Math(ThoughtRule),
    /// The letter picked is the row's.
    Choice(ThoughtRule),
    /// The expression makes the target, the first number of the row's gold text, from the others.
    Countdown(ThoughtRule),
}

impl Task {
    /// The rows that `data` names, judged as `world` does.
    ///
    /// # Errors
    /// As [`read_questions`].
    pub fn world_rows(world: World, data: &DataConfig) -> Result<Self> {
        let split = stem(&data.path);
        Ok(Self {
            name: world.name().into(),
            split,
            grader: Grader::Section(world.answer_rule()),
            rows: read_questions(data)?,
        })
    }

    /// The rows that `data` names, whose solutions an answer must say.
    ///
    /// # Errors
    /// As [`read_questions`].
    pub fn rows(data: &DataConfig) -> Result<Self> {
        let (name, rows) = (stem(&data.path), read_questions(data)?);
        Ok(Self { name, split: "all".into(), grader: Grader::Section(AnswerRule::Solution), rows })
    }

    fn grade(&self, completion: &str, gold: &str, tags: &SolutionTags) -> Verdict {
        match self.grader {
            Grader::Section(rule) => grade(rule, completion, gold, tags),
            Grader::Math(thought) => grade_math(completion, gold, thought),
            Grader::Choice(thought) => grade_choice(completion, gold, thought),
            Grader::Countdown(thought) => {
                let digits = |c: char| !c.is_ascii_digit() && c != '-';
                let numbers: Vec<i64> = gold.split(digits).filter_map(|text| text.parse().ok()).collect();
                match numbers.split_first() {
                    Some((target, numbers)) => grade_countdown(completion, numbers, *target, thought),
                    None => Verdict { reason: "the row has no target".into(), ..Verdict::default() },
                }
            }
        }
    }
}

fn stem(path: &Path) -> String {
    path.file_stem().map_or_else(|| "data".into(), |stem| stem.to_string_lossy().into_owned())
}

/// Text that stands after the student's prompt, before the first sampled token.
fn forced(style: &PromptStyle, chat: &ChatText, thought: Thought) -> String {
    match thought {
        Thought::Free => String::new(),
        Thought::None => format!("{}{}", style.open_thought(chat), style.end_of_thought),
    }
}

/// Asks `student` every question of `task` and grades the answers. An answer's text begins with what
/// `thought` forces, and before that with the thought's opening where the chat template writes it: what was
/// never closed is known as a thought.
///
/// Every prompt is checked before the first token is sampled. An answer depends on the seed, the
/// question's place among the rows and the sample alone.
///
/// # Errors
/// [`crate::Error::Usage`] when there is nothing to ask, [`crate::Error::Failed`] for a prompt that does not fit the
/// context, and whatever templates, tokenizer and generator report.
pub fn run_task(
    student: &Author,
    task: &Task,
    thought: Thought,
    options: &EvalOptions,
    progress: &dyn Progress,
) -> Result<(EvalSummary, Vec<QuestionRecord>)> {
    resume_task(student, task, thought, options, Vec::new(), &mut |_| Ok(()), Stop::never(), progress)
}

/// As [`run_task`], going on behind the `done` records of an earlier call; each batch of new ones is handed to
/// `save`. The result is that of an uninterrupted call.
///
/// # Errors
/// As [`run_task`], and what `save` reports; [`crate::Error::Interrupted`] after `stop`.
pub fn resume_task(
    student: &Author,
    task: &Task,
    thought: Thought,
    options: &EvalOptions,
    done: Vec<QuestionRecord>,
    save: &mut dyn FnMut(&[QuestionRecord]) -> Result<()>,
    stop: Stop,
    progress: &dyn Progress,
) -> Result<(EvalSummary, Vec<QuestionRecord>)> {
    let style = student.style;
    let tags = solution_tags(style);
    let forced = forced(style, student.chat, thought);
    let written = format!("{}{forced}", student.chat.opened_by_template(&style.begin_of_thought));
    TypedCheck::of_rows(student.chat, &task.rows, progress)?;
    let prompts = task
        .rows
        .iter()
        .map(|row| {
            let text = format!("{}{forced}", style.student_question_text(student.chat, row)?);
            let prompt = student.chat.encode(&text)?;
            student.check_prompt(row.row, &prompt)?;
            Ok(prompt.into())
        })
        .collect::<Result<Vec<TokenIds>>>()?;
    let question = |row: &QuestionRow| EvalQuestion {
        row: row.row,
        question: row.question.clone(),
        gold: row.solution.clone(),
    };
    let questions: Vec<EvalQuestion> = task.rows.iter().map(question).collect();
    let rate = TokenRate::new();
    let answer = |completion: &Completion| {
        let finish = Finish::from(completion.finish);
        let text = student.chat.tokenizer.decode(text_ids(&completion.ids, finish));
        Answer {
            text: format!("{written}{text}"),
            n_tokens: completion.ids.len(),
            truncated: finish == Finish::Length,
        }
    };
    let answers = |first: usize, take: &mut dyn FnMut(Vec<Vec<Answer>>) -> Result<()>| {
        let (mut n_done, mut is_save_error) = (first, false);
        let to_come = prompts[first..].iter().cloned().map(Ok);
        let mut on_progress = |now| progress.advance(0, &rate.text(now));
        let n = options.n_samples;
        let outcome = student.write(STREAM, first, to_come, n, stop, &mut on_progress, &mut |completions| {
            n_done += completions.len();
            let of = |samples: &Vec<Completion>| samples.iter().map(answer).collect();
            let taken = take(completions.iter().map(of).collect());
            is_save_error = taken.is_err();
            taken
        });
        outcome.map_err(|error| {
            let is_stopped = matches!(error, Error::Model(rlt_model::Error::Stopped));
            if is_save_error || (n_done == first && !is_stopped) {
                return error;
            }
            let all = task.rows.len();
            error.of_unfinished(format!(
                "{n_done} of {all} questions are answered; the same command continues"
            ))
        })
    };
    let grade = |question: &EvalQuestion, text: &str| task.grade(text, &question.gold, &tags);
    evaluate(&questions, options, done, answers, grade, save, progress)
}
