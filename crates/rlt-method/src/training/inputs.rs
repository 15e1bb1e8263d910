//! What a run must find unchanged to go on.
//!
//! A run that goes on reads its rows, its models' text sides and some of its models anew. Everything of that which decides a
//! number is in [`Inputs`], and only there: `Inputs::refusal` takes the struct apart, so that a field that is added is
//! compared as well, with a line of its own.

use std::ops::Range;
use std::path::Path;

use rlt_files::checksum;
use rlt_ranks::Ranks;
use serde::{Deserialize, Serialize};

use crate::config::{Config, PromptsConfig};
use crate::error::{Error, Result, io_error};
use crate::model_files::{Deciding, ModelFiles};
use crate::progress::Progress;

/// Fingerprints of what a run began with, as its checkpoints keep them. `None` is what the checkpoint of an earlier version
/// did not record: it is not compared.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Inputs {
    /// `sft`, `grpo` or `distill`.
    pub work: String,
    /// Seed of every random stream.
    pub seed: u64,
    /// The configuration as it was given, without what changes no number.
    pub config: Option<Box<Config>>,
    /// The file that `prompts.style` names; empty for a built-in style.
    pub style: Option<String>,
    /// The rows in use, as token ids.
    pub rows: Option<RowsSum>,
    /// What is learnt of them: the gold answers that grade (`rlt train`), or which tokens count (`rlt sft`).
    pub answers: Option<String>,
    /// The rows of `eval.data`, with their answers; none where nothing is evaluated.
    pub held_out: Option<RowsSum>,
    /// `model.path`: where training begins, and its text side.
    pub model: Option<ModelFiles>,
    /// `model.student`, where the reward asks one.
    pub student: Option<ModelFiles>,
    /// `model.reference`, where there is one.
    pub reference: Option<ModelFiles>,
}

/// How many rows, and a checksum over them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowsSum {
    /// How many.
    pub n: usize,
    /// CRC-32C, eight hexadecimal digits.
    pub checksum: String,
}

impl RowsSum {
    /// Of rows as token ids.
    pub fn of_ids<'a>(rows: impl ExactSizeIterator<Item = &'a [u32]>) -> Self {
        let mut sum = Checksum::default();
        let n = rows.len();
        for ids in rows {
            sum.add_ids(ids);
        }
        Self { n, checksum: sum.finish() }
    }
}

/// CRC-32C over parts and their lengths: what lies in one part cannot slip into the next.
#[derive(Debug, Default)]
pub struct Checksum(u32);

impl Checksum {
    fn add_bytes(&mut self, bytes: &[u8]) {
        self.0 = crc32c::crc32c_append(self.0, bytes);
    }

    /// Adds token ids.
    pub fn add_ids(&mut self, ids: &[u32]) {
        self.add_bytes(&(ids.len() as u64).to_le_bytes());
        for id in ids {
            self.add_bytes(&id.to_le_bytes());
        }
    }

    /// Adds a text.
    pub fn add_text(&mut self, text: &str) {
        self.add_bytes(&(text.len() as u64).to_le_bytes());
        self.add_bytes(text.as_bytes());
    }

    /// Adds a span of tokens.
    pub fn add_span(&mut self, span: &Range<usize>) {
        self.add_bytes(&(span.start as u64).to_le_bytes());
        self.add_bytes(&(span.end as u64).to_le_bytes());
    }

    /// Eight hexadecimal digits.
    pub fn finish(self) -> String {
        format!("{:08x}", self.0)
    }
}

impl Inputs {
    /// What both kinds of training begin with: `given` is the configuration before a world's paths were put in,
    /// `config` that with them. The rows, the student and the reference are the caller's to add.
    ///
    /// # Errors
    /// A file of the model or the style cannot be read.
    pub fn of(work: &str, given: &Config, config: &Config, progress: &dyn Progress) -> Result<Self> {
        // Of a model that training makes anew, the weights are never read.
        let deciding =
            if config.model.from_scratch { Deciding::WithoutWeights } else { Deciding::WithWeights };
        Ok(Self {
            work: work.into(),
            seed: given.seed,
            config: Some(Box::new(given.deciding())),
            style: Some(style_file(&config.prompts)?),
            model: Some(ModelFiles::of(&config.model.path, deciding, progress)?),
            held_out: Some(RowsSum::default()),
            student: Some(ModelFiles::default()),
            reference: Some(ModelFiles::default()),
            rows: None,
            answers: None,
        })
    }

    /// Refuses to go on from `checkpoint` where `now` differs from what the run began with (`self`).
    ///
    /// # Errors
    /// [`Error::Usage`] that names the first of what changed.
    pub fn check(&self, now: &Self, checkpoint: &Path) -> Result<()> {
        let Some(what) = self.refusal(now)? else { return Ok(()) };
        Err(Error::Usage(format!(
            "{}: {what}; give this run another name or run_dir, or restore what it began with",
            checkpoint.display()
        )))
    }

    fn refusal(&self, now: &Self) -> Result<Option<String>> {
        let Self { work, seed, config, style, rows, answers, held_out, model, student, reference } = self;
        let config = match (config, &now.config) {
            (Some(was), Some(is)) => was.first_change(is)?,
            _ => None,
        };
        let refusals = [
            (*work != now.work).then(|| format!("belongs to a run of {work}, not {}", now.work)),
            (*seed != now.seed).then(|| format!("belongs to a run of seed {seed}, not {}", now.seed)),
            config.map(|change| format!("was made with another configuration ({change})")),
            changed(style.as_ref(), now.style.as_ref(), |_, _| {
                "was made with another file of prompts.style".into()
            }),
            changed(rows.as_ref(), now.rows.as_ref(), |was, is| {
                format!("was made with other rows ({} then, {} now, or other text)", was.n, is.n)
            }),
            changed(answers.as_ref(), now.answers.as_ref(), |_, _| {
                "was made with other answers to the same rows of data.path: their solutions changed".into()
            }),
            changed(held_out.as_ref(), now.held_out.as_ref(), |was, is| {
                format!(
                    "was evaluated on other rows of eval.data ({} then, {} now, or other text)",
                    was.n, is.n
                )
            }),
            files("model.path", model.as_ref(), now.model.as_ref()),
            files("model.student", student.as_ref(), now.student.as_ref()),
            files("model.reference", reference.as_ref(), now.reference.as_ref()),
        ];
        Ok(refusals.into_iter().flatten().next())
    }

    /// Refuses to begin where a rank reads other things than the first: they would not do the same work.
    ///
    /// # Errors
    /// [`Error::Usage`] on all ranks, naming the first rank that does, and what differs.
    pub fn check_same_on(&self, ranks: &Ranks) -> Result<()> {
        if ranks.size() == 1 {
            return Ok(());
        }
        let own = serde_json::to_vec(self).map_err(|e| Error::Failed(e.to_string()))?;
        let of_first = ranks.broadcast(0, own)?;
        let difference = match serde_json::from_slice::<Self>(&of_first) {
            Ok(of_first) => of_first.difference(self)?,
            Err(e) => Some(e.to_string()),
        };
        let refused =
            difference.map(|what| format!("{} reads other things than rank 0: {what}", ranks.place()));
        match ranks.first_error(refused)? {
            Some((_, line)) => {
                Err(Error::Usage(format!("{line}; give all ranks the same files and settings")))
            }
            None => Ok(()),
        }
    }

    /// The first part in which another rank's differs.
    fn difference(&self, theirs: &Self) -> Result<Option<String>> {
        let Self { work, seed, config, style, rows, answers, held_out, model, student, reference } = self;
        let config = match (config, &theirs.config) {
            (Some(ours), Some(theirs)) => ours.first_change(theirs)?,
            _ => None,
        };
        let of_model = |key: &str, ours: &Option<ModelFiles>, theirs: &Option<ModelFiles>| {
            Some(format!("{key}: {}", ours.as_ref()?.first_change(theirs.as_ref()?)?))
        };
        let name = |differs: bool, name: &str| differs.then(|| name.to_owned());
        let differences = [
            name(*work != theirs.work, "the command"),
            config.map(|change| change.replacen(" was ", " is ", 1).replacen(", now ", " there, here ", 1)),
            name(*seed != theirs.seed, "seed"),
            name(*style != theirs.style, "the file of prompts.style"),
            of_model("model.path", model, &theirs.model),
            of_model("model.student", student, &theirs.student),
            of_model("model.reference", reference, &theirs.reference),
            name(*rows != theirs.rows, "the rows of data.path"),
            name(*answers != theirs.answers, "the answers in data.path"),
            name(*held_out != theirs.held_out, "the rows of eval.data"),
        ];
        Ok(differences.into_iter().flatten().next())
    }

    /// The parts that the checkpoint of an earlier version did not record.
    pub fn not_recorded(&self) -> Vec<&'static str> {
        let Self { work: _, seed: _, config, style, rows, answers, held_out, model, student, reference } =
            self;
        let parts = [
            ("the configuration", config.is_none()),
            ("prompts.style", style.is_none()),
            ("the rows", rows.is_none()),
            ("their answers", answers.is_none()),
            ("eval.data", held_out.is_none()),
            ("model.path", model.is_none()),
            ("model.student", student.is_none()),
            ("model.reference", reference.is_none()),
        ];
        parts.into_iter().filter(|(_, missing)| *missing).map(|(name, _)| name).collect()
    }
}

/// The line of a part that both record and that differs.
fn changed<T: PartialEq>(
    was: Option<&T>,
    is: Option<&T>,
    line: impl FnOnce(&T, &T) -> String,
) -> Option<String> {
    match (was, is) {
        (Some(was), Some(is)) if was != is => Some(line(was, is)),
        _ => None,
    }
}

/// The line of a model whose files changed.
fn files(key: &str, was: Option<&ModelFiles>, is: Option<&ModelFiles>) -> Option<String> {
    let change = was?.first_change(is?)?;
    Some(format!("was made with another {key}: {change}"))
}

/// The fingerprint of the file that `prompts.style` names.
fn style_file(prompts: &PromptsConfig) -> Result<String> {
    let path = Path::new(&prompts.style);
    if !path.is_file() {
        return Ok(String::new());
    }
    let sum = checksum(path).map_err(io_error(path))?;
    Ok(format!("{} {}", sum.bytes, sum.crc32c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_that_differs_is_named_and_what_was_not_recorded_is_not_compared() {
        let sum = |n, checksum: &str| Some(RowsSum { n, checksum: checksum.into() });
        let files = |json: &str| serde_json::from_str::<Option<ModelFiles>>(json).unwrap();
        let weights =
            |crc: &str| files(&format!(r#"{{"model.safetensors":{{"bytes":5,"crc32c":"{crc}"}}}}"#));
        let began = Inputs {
            work: "grpo".into(),
            seed: 1,
            config: Some(Box::default()),
            style: Some("9 a".into()),
            rows: sum(3, "a"),
            answers: Some("a".into()),
            held_out: sum(2, "a"),
            model: weights("a"),
            student: weights("a"),
            reference: weights("a"),
        };
        let mut config = Config::default();
        config.grpo.steps = 7;
        let all_changed = Inputs {
            work: "sft".into(),
            seed: 2,
            config: Some(Box::new(config)),
            style: Some("9 b".into()),
            rows: sum(3, "b"),
            answers: Some("b".into()),
            held_out: sum(2, "b"),
            model: weights("b"),
            student: weights("b"),
            reference: weights("b"),
        };
        let lines = [
            "belongs to a run of grpo, not sft",
            "belongs to a run of seed 1, not 2",
            "was made with another configuration (grpo.steps was 125, now 7)",
            "was made with another file of prompts.style",
            "was made with other rows (3 then, 3 now, or other text)",
            "was made with other answers",
            "was evaluated on other rows of eval.data",
            "was made with another model.path: model.safetensors changed",
            "was made with another model.student: model.safetensors changed",
            "was made with another model.reference: model.safetensors changed",
        ];
        // One field at a time, through the form in which checkpoints keep them, so that none is left out.
        let (was, is) = (serde_json::to_value(&began).unwrap(), serde_json::to_value(&all_changed).unwrap());
        let fields: Vec<&String> = was.as_object().unwrap().keys().collect();
        assert_eq!(fields.len(), lines.len());
        for (field, line) in fields.into_iter().zip(lines) {
            let mut one = was.clone();
            one[field] = is[field].clone();
            let one: Inputs = serde_json::from_value(one).unwrap();
            let message = began.check(&one, Path::new("step-000003")).unwrap_err().to_string();
            assert!(message.starts_with(&format!("step-000003: {line}")), "{field}: {message}");
            assert!(message.ends_with("restore what it began with"), "{message}");
        }
        began.check(&began, Path::new("")).unwrap();

        let earlier = Inputs { work: "sft".into(), seed: 2, ..Inputs::default() };
        earlier.check(&all_changed, Path::new("")).unwrap();
        assert_eq!(earlier.not_recorded().len(), lines.len() - 2);
        assert_eq!(began.not_recorded(), [""; 0]);
    }

    #[test]
    fn a_rank_that_reads_other_things_is_named_on_all() {
        type Change = fn(&mut Inputs);
        let refused = |change: Change| {
            rlt_ranks::on_threads(3, |ranks| {
                let config = Some(Box::default());
                let mut inputs =
                    Inputs { work: "sft".into(), config, style: Some("1".into()), ..Inputs::default() };
                if ranks.rank() == 2 {
                    change(&mut inputs);
                }
                inputs.check_same_on(&ranks).map_err(|error| error.to_string())
            })
        };
        assert!(refused(|_| ()).into_iter().all(|checked| checked.is_ok()));
        let changes: [(Change, &str); 3] = [
            (|inputs| inputs.seed = 4, "seed;"),
            (|inputs| inputs.style = Some("2".into()), "the file of prompts.style;"),
            (
                |inputs| inputs.config.as_mut().unwrap().sft.batch_rows = 7,
                "sft.batch_rows is 16 there, here 7; give all ranks the same",
            ),
        ];
        for (change, what) in changes {
            for line in refused(change) {
                let line = line.unwrap_err();
                assert!(line.starts_with("rank 2 of 3 on ") && line.contains(what), "{line}");
            }
        }
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        let of = |texts: &[&str]| {
            let mut sum = Checksum::default();
            for text in texts {
                sum.add_text(text);
            }
            sum.finish()
        };
        assert_ne!(of(&["ab", "c"]), of(&["a", "bc"]));
        assert_eq!(of(&["ab", "c"]), of(&["ab", "c"]));
    }
}
