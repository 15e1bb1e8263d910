//! Explanations of a market story, of every quality, and the judge that tells them apart.
//!
//! A complete explanation has one line per operation, separated by blank lines:
//!
//! ```text
//! She finds 5: 47 + 5 = 52.
//!
//! She sells 8: 52 - 8 = 44.
//! ```
//!
//! [`ExplanationKind::write`] makes an explanation of a wanted kind, [`classify`] reads any text and says
//! which kind it is; reports count kinds before and after training with it.

use serde::{Deserialize, Serialize};

use super::story::{MAX_VALUE, MIN_VALUE, Operation, Story};
use rlt_method::random::Stream;

/// What stands between two lines of an explanation.
pub const LINE_BREAK: &str = "\n\n";

/// The quality of an explanation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExplanationKind {
    /// Every operation, in order, each right; at most a closing line with the answer after them.
    Full,
    /// Right steps, but some operations are missing: the reader must jump.
    Skipping,
    /// At least one step is wrong (an arithmetic slip, or not in the story at that place).
    Wrong,
    /// The answer is stated without the steps that lead to it.
    Restatement,
    /// Every step is there and right, among remarks that help nobody.
    Rambling,
    /// Anything else.
    Other,
}

impl ExplanationKind {
    /// Every kind, best first.
    pub const ALL: [Self; 6] =
        [Self::Full, Self::Rambling, Self::Skipping, Self::Wrong, Self::Restatement, Self::Other];

    /// The name in files and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Skipping => "skipping",
            Self::Wrong => "wrong",
            Self::Restatement => "restatement",
            Self::Rambling => "rambling",
            Self::Other => "other",
        }
    }

    /// An explanation of this kind. A story of one operation has no step to skip: `Skipping`
    /// gives its full explanation. `Other` has no text of its own and gives remarks alone.
    pub fn write(self, story: &Story, stream: &mut Stream) -> String {
        let lines = match self {
            Self::Full => steps(story, &story.values()),
            Self::Skipping => without_some(steps(story, &story.values()), stream),
            Self::Wrong => steps(story, &values_with_a_slip(story, stream)),
            Self::Restatement => {
                let mut lines = restatements(story).to_vec();
                stream.shuffle(&mut lines);
                lines.truncate(1 + stream.below(2));
                lines
            }
            Self::Rambling => with_remarks(steps(story, &story.values()), remarks(story).to_vec(), stream),
            Self::Other => with_remarks(Vec::new(), remarks(story).to_vec(), stream),
        };
        lines.join(LINE_BREAK)
    }
}

/// One line per operation, with the values given (one more than there are operations).
fn steps(story: &Story, values: &[u32]) -> Vec<String> {
    let pairs = values.iter().zip(&values[1..]);
    story
        .operations
        .iter()
        .zip(pairs)
        .map(|(operation, (before, after))| {
            let (sign, operand) = operation.sign_and_operand();
            format!("{} {operation}: {before} {sign} {operand} = {after}.", story.pronoun())
        })
        .collect()
}

/// Lines without one to half of them; a single line stays.
pub(super) fn without_some(lines: Vec<String>, stream: &mut Stream) -> Vec<String> {
    let mut lines: Vec<Option<String>> = lines.into_iter().map(Some).collect();
    let n = lines.len();
    if n >= 2 {
        let mut order: Vec<usize> = (0..n).collect();
        stream.shuffle(&mut order);
        let n_missing = 1 + stream.below(n / 2);
        for &i in &order[..n_missing] {
            lines[i] = None;
        }
    }
    lines.into_iter().flatten().collect()
}

/// The story's values with one slip (up to nine off, or ten) that the later steps carry on.
fn values_with_a_slip(story: &Story, stream: &mut Stream) -> Vec<u32> {
    let values = story.values();
    let mut slips: Vec<(usize, i64)> = Vec::new();
    for step in 1..values.len() {
        slips.extend((-10..=10).filter(|slip| *slip != 0).map(|slip| (step, slip)));
    }
    stream.shuffle(&mut slips);
    for (step, slip) in slips {
        let mut wrong = values[..step].to_vec();
        let slipped = values[step] as i64 + slip;
        if !(MIN_VALUE as i64..=MAX_VALUE as i64).contains(&slipped) {
            continue;
        }
        wrong.push(slipped as u32);
        for operation in &story.operations[step..] {
            let Some(next) = operation.apply(wrong[wrong.len() - 1]) else { break };
            wrong.push(next);
        }
        if wrong.len() == values.len() {
            return wrong;
        }
    }
    unreachable!("a slip in the last step is always possible")
}

/// Lines that state the answer.
fn restatements(story: &Story) -> [String; 3] {
    let (answer, item) = (story.answer(), story.item());
    [
        story.solution(),
        format!("The answer is {answer}."),
        format!("So {} has {answer} {item} at the end.", story.pronoun().to_lowercase()),
    ]
}

/// Lines that say nothing about the steps.
fn remarks(story: &Story) -> [String; 5] {
    let (name, item) = (story.name(), story.item());
    [
        "Let us look at the story again.".into(),
        "The market is busy today.".into(),
        "That was the easy part.".into(),
        "We are getting near the end.".into(),
        format!("{name} likes {item} a lot."),
    ]
}

/// `lines` with one to three of `remarks` among them.
pub(super) fn with_remarks(
    mut lines: Vec<String>,
    mut remarks: Vec<String>,
    stream: &mut Stream,
) -> Vec<String> {
    stream.shuffle(&mut remarks);
    remarks.truncate(1 + stream.below(3));
    for remark in remarks {
        lines.insert(stream.below(lines.len() + 1), remark);
    }
    lines
}

/// Every step, right, among one to `most` remarks, the same ones again and again where there are many.
pub fn padded(story: &Story, most: usize, stream: &mut Stream) -> String {
    let (mut lines, remarks) = (steps(story, &story.values()), remarks(story));
    for _ in 0..=stream.below(most.max(1)) {
        let remark = remarks[stream.below(remarks.len())].clone();
        lines.insert(stream.below(lines.len() + 1), remark);
    }
    lines.join(LINE_BREAK)
}

/// A step as it was written.
#[derive(Debug, PartialEq, Eq)]
struct WrittenStep {
    operation: Operation,
    before: u32,
    sign: String,
    operand: u32,
    after: u32,
}

/// Reads one line "She finds 5: 47 + 5 = 52."
fn parse_step(line: &str) -> Option<WrittenStep> {
    let (pronoun, rest) = line.split_once(' ')?;
    if !matches!(pronoun, "She" | "He") {
        return None;
    }
    let (clause, equation) = rest.strip_suffix('.')?.split_once(": ")?;
    let operation = Operation::parse(clause)?;
    let parts: Vec<&str> = equation.split(' ').collect();
    let [before, sign, operand, "=", after] = parts[..] else { return None };
    Some(WrittenStep {
        operation,
        before: before.parse().ok()?,
        sign: sign.into(),
        operand: operand.parse().ok()?,
        after: after.parse().ok()?,
    })
}

impl WrittenStep {
    /// Whether this is operation `i` of the story, carried out rightly.
    fn is(&self, story: &Story, values: &[u32], i: usize) -> bool {
        let operation = story.operations[i];
        self.operation == operation
            && (self.sign.as_str(), self.operand) == operation.sign_and_operand()
            && self.before == values[i]
            && self.after == values[i + 1]
    }
}

/// Share of the story's operations, 0 to 1, that `explanation` carries out rightly and in order.
pub fn right_steps(story: &Story, explanation: &str) -> f64 {
    let values = story.values();
    let (mut next, mut n_right) = (0, 0);
    for step in explanation.trim().split(LINE_BREAK).filter_map(parse_step) {
        if let Some(i) = (next..story.operations.len()).find(|&i| step.is(story, &values, i)) {
            next = i + 1;
            n_right += 1;
        }
    }
    f64::from(n_right) / story.operations.len() as f64
}

/// The kind of `explanation` for `story`. Surrounding white space does not count.
pub fn classify(story: &Story, explanation: &str) -> ExplanationKind {
    let values = story.values();
    let (restatements, remarks) = (restatements(story), remarks(story));
    let (mut n_steps, mut n_remarks) = (0, 0);
    let (mut restated_early, mut wrong) = (false, false);
    // The first operation that has not been explained yet.
    let mut next = 0;
    for line in explanation.trim().split(LINE_BREAK) {
        if let Some(step) = parse_step(line) {
            n_steps += 1;
            match (next..story.operations.len()).find(|&i| step.is(story, &values, i)) {
                Some(i) => next = i + 1,
                None => wrong = true,
            }
        } else if restatements.iter().any(|known| known == line) {
            restated_early |= n_steps < story.operations.len();
        } else if remarks.iter().any(|known| known == line) {
            n_remarks += 1;
        } else {
            return ExplanationKind::Other;
        }
    }
    Read { wrong, restated_early, n_steps, n_remarks }.kind(story.operations.len())
}

/// What an explanation's lines have come to.
pub(super) struct Read {
    /// A step is wrong.
    pub wrong: bool,
    /// The answer was stated before its steps.
    pub restated_early: bool,
    pub n_steps: usize,
    pub n_remarks: usize,
}

impl Read {
    /// The kind of an explanation that needs so many steps.
    pub(super) fn kind(&self, n_needed: usize) -> ExplanationKind {
        match () {
            () if self.wrong => ExplanationKind::Wrong,
            () if self.restated_early => ExplanationKind::Restatement,
            () if self.n_steps == 0 => ExplanationKind::Other,
            () if self.n_steps < n_needed => ExplanationKind::Skipping,
            () if self.n_remarks > 0 => ExplanationKind::Rambling,
            () => ExplanationKind::Full,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::story::Side;
    use super::*;

    fn story() -> Story {
        Story::parse(
            "Mia has 47 shells. She finds 5 and sells 8. Then she doubles them and loses half. \
             How many shells does she have?",
        )
        .expect("a story")
    }

    #[test]
    fn a_full_explanation_shows_every_step() {
        let text = ExplanationKind::Full.write(&story(), &mut Stream::new(0, "test", 0));
        assert_eq!(
            text,
            "She finds 5: 47 + 5 = 52.\n\nShe sells 8: 52 - 8 = 44.\n\n\
             She doubles them: 44 x 2 = 88.\n\nShe loses half: 88 / 2 = 44."
        );
    }

    #[test]
    fn classify_inverts_write() {
        for i in 0..3000 {
            let mut stream = Stream::new(4, "classify", i);
            let n_operations = 2 + stream.below(6);
            let story = Story::sample(n_operations, Side::Train, &mut stream);
            for kind in ExplanationKind::ALL {
                let text = kind.write(&story, &mut stream);
                assert_eq!(classify(&story, &text), kind, "{}\n{text}", story.question());
                assert_eq!(classify(&story, &format!("\n\n{text}\n\n")), kind);
            }
        }
    }

    #[test]
    fn one_operation_has_nothing_to_skip() {
        let story = Story::sample(1, Side::Train, &mut Stream::new(4, "one", 0));
        let text = ExplanationKind::Skipping.write(&story, &mut Stream::new(4, "one", 1));
        assert_eq!(classify(&story, &text), ExplanationKind::Full);
    }

    #[test]
    fn a_slip_is_carried_on_and_ends_in_another_answer() {
        for i in 0..500 {
            let mut stream = Stream::new(4, "slip", i);
            let story = Story::sample(1 + stream.below(7), Side::Train, &mut stream);
            let (right, wrong) = (story.values(), values_with_a_slip(&story, &mut stream));
            assert_ne!(right.last(), wrong.last());
            let false_steps = (0..story.operations.len())
                .filter(|&k| story.operations[k].apply(wrong[k]) != Some(wrong[k + 1]))
                .count();
            assert_eq!(false_steps, 1);
        }
    }

    #[test]
    fn padding_leaves_every_step_and_goes_up_to_its_most() {
        let lengths: Vec<usize> = (0..300)
            .map(|i| {
                let text = padded(&story(), 12, &mut Stream::new(4, "padded", i));
                assert_eq!(classify(&story(), &text), ExplanationKind::Rambling, "{text}");
                assert_eq!(right_steps(&story(), &text), 1.0);
                text.split(LINE_BREAK).count() - story().operations.len()
            })
            .collect();
        assert_eq!((lengths.iter().min(), lengths.iter().max()), (Some(&1), Some(&12)));
    }

    #[test]
    fn right_steps_by_hand() {
        let full = ExplanationKind::Full.write(&story(), &mut Stream::new(0, "test", 0));
        assert_eq!(right_steps(&story(), &full), 1.0);
        assert_eq!(right_steps(&story(), &full.replace("88 / 2 = 44", "88 / 2 = 45")), 0.75);
        assert_eq!(right_steps(&story(), "She loses half: 88 / 2 = 44."), 0.25);
        assert_eq!(right_steps(&story(), "Mia has 44 shells."), 0.0);
    }

    #[test]
    fn texts_nobody_wrote_on_purpose() {
        let kind = |text: &str| classify(&story(), text);
        let full = ExplanationKind::Full.write(&story(), &mut Stream::new(0, "test", 0));
        assert_eq!(kind(""), ExplanationKind::Other);
        assert_eq!(kind("Because."), ExplanationKind::Other);
        assert_eq!(kind(&full.replace("44 x 2", "44 + 2")), ExplanationKind::Wrong);
        assert_eq!(kind(&full.replace("finds", "buys")), ExplanationKind::Wrong);
        assert_eq!(kind(&full.replace("= 44.", "= 45.")), ExplanationKind::Wrong);
        assert_eq!(kind(&full.replace("= 44.", "= 44")), ExplanationKind::Other);
        assert_eq!(kind(&format!("{full}\n\nMia has 44 shells.")), ExplanationKind::Full);
        assert_eq!(kind(&format!("Mia has 44 shells.\n\n{full}")), ExplanationKind::Restatement);
        assert_eq!(kind(&format!("{full}\n\n{full}")), ExplanationKind::Wrong);
    }
}
