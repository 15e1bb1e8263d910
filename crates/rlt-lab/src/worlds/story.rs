//! The stories of the `market` world: a start value and a list of operations on it.
//!
//! Every value on the way is a two-digit number, so that an answer cannot be guessed and each
//! number is a tens digit and a units digit. A story is text and structure at once:
//! [`Story::question`] writes it, [`Story::parse`] reads it back.

use std::fmt;

use rlt_method::random::{Stream, hash_bytes};

/// Smallest value a story may pass through.
pub const MIN_VALUE: u32 = 10;
/// Largest value a story may pass through.
pub const MAX_VALUE: u32 = 99;

/// People and their pronouns.
pub const PEOPLE: [(&str, &str); 12] = [
    ("Mia", "She"),
    ("Tom", "He"),
    ("Ana", "She"),
    ("Ben", "He"),
    ("Eva", "She"),
    ("Leo", "He"),
    ("Zoe", "She"),
    ("Max", "He"),
    ("Ida", "She"),
    ("Sam", "He"),
    ("Lea", "She"),
    ("Jon", "He"),
];

/// What they count.
pub const ITEMS: [&str; 8] = ["coins", "shells", "beads", "cards", "stamps", "apples", "pins", "eggs"];

/// Verbs that add.
pub const GAINS: [&str; 3] = ["finds", "buys", "wins"];
/// Verbs that take away.
pub const LOSSES: [&str; 3] = ["sells", "drops", "loses"];

/// One thing that happens to the pile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// `GAINS[verb]` this many.
    Gain {
        /// Index into [`GAINS`].
        verb: usize,
        /// 1 to 9.
        amount: u32,
    },
    /// `LOSSES[verb]` this many.
    Lose {
        /// Index into [`LOSSES`].
        verb: usize,
        /// 1 to 9.
        amount: u32,
    },
    /// The pile doubles.
    Double,
    /// Half of the pile goes.
    Halve,
}

impl Operation {
    /// The value after this operation, or `None` when it would leave the two-digit numbers or
    /// halve an odd number.
    pub fn apply(self, value: u32) -> Option<u32> {
        let result = match self {
            Self::Gain { amount, .. } => value + amount,
            Self::Lose { amount, .. } => value.checked_sub(amount)?,
            Self::Double => value * 2,
            Self::Halve if value.is_multiple_of(2) => value / 2,
            Self::Halve => return None,
        };
        (MIN_VALUE..=MAX_VALUE).contains(&result).then_some(result)
    }

    /// The sign and the right operand of this operation's equation, `("+", 5)`.
    pub fn sign_and_operand(self) -> (&'static str, u32) {
        match self {
            Self::Gain { amount, .. } => ("+", amount),
            Self::Lose { amount, .. } => ("-", amount),
            Self::Double => ("x", 2),
            Self::Halve => ("/", 2),
        }
    }

    /// Reads what [`fmt::Display`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        let (verb, object) = text.split_once(' ')?;
        match (verb, object) {
            ("doubles", "them") => return Some(Self::Double),
            ("loses", "half") => return Some(Self::Halve),
            _ => {}
        }
        let amount = object.parse().ok().filter(|amount| (1..=9).contains(amount))?;
        let index = |verbs: &[&str]| verbs.iter().position(|known| *known == verb);
        match (index(&GAINS), index(&LOSSES)) {
            (Some(verb), _) => Some(Self::Gain { verb, amount }),
            (None, Some(verb)) => Some(Self::Lose { verb, amount }),
            (None, None) => None,
        }
    }

    /// A random operation that `value` allows. Doubling and halving never follow one another: a story
    /// that undoes itself, or doubles twice, reads badly.
    fn sample(value: u32, previous: Option<Self>, stream: &mut Stream) -> Self {
        loop {
            let operation = match stream.pick_weighted(&[(0, 6), (1, 6), (2, 4), (3, 4)]) {
                0 => Self::Gain { verb: stream.below(GAINS.len()), amount: 1 + stream.below(9) as u32 },
                1 => Self::Lose { verb: stream.below(LOSSES.len()), amount: 1 + stream.below(9) as u32 },
                2 => Self::Double,
                _ => Self::Halve,
            };
            let scales = |operation| matches!(operation, Self::Double | Self::Halve);
            if !(scales(operation) && previous.is_some_and(scales)) && operation.apply(value).is_some() {
                return operation;
            }
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Gain { verb, amount } => write!(f, "{} {amount}", GAINS[verb]),
            Self::Lose { verb, amount } => write!(f, "{} {amount}", LOSSES[verb]),
            Self::Double => f.write_str("doubles them"),
            Self::Halve => f.write_str("loses half"),
        }
    }
}

/// Which questions a story belongs to. The two sides share no arithmetic: the side is a hash of
/// the start value and the operations, so no seed can put a story on both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Four stories in five: all training data.
    Train,
    /// One story in five: evaluation only.
    HeldOut,
}

/// A question about a pile that changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Story {
    /// Index into [`PEOPLE`].
    pub person: usize,
    /// Index into [`ITEMS`].
    pub item: usize,
    /// The pile at the beginning.
    pub start: u32,
    /// What happens, in order; at least one.
    pub operations: Vec<Operation>,
}

impl Story {
    /// A random story of `n_operations` (at least 1) on the given side.
    pub fn sample(n_operations: usize, side: Side, stream: &mut Stream) -> Self {
        loop {
            let start = MIN_VALUE + stream.below((MAX_VALUE - MIN_VALUE + 1) as usize) as u32;
            let mut operations: Vec<Operation> = Vec::with_capacity(n_operations);
            let mut value = start;
            for _ in 0..n_operations {
                let operation = Operation::sample(value, operations.last().copied(), stream);
                value = operation.apply(value).expect("sampled operations are possible");
                operations.push(operation);
            }
            let (person, item) = (stream.below(PEOPLE.len()), stream.below(ITEMS.len()));
            let story = Self { person, item, start, operations };
            if story.side() == side {
                return story;
            }
        }
    }

    /// The side this story's arithmetic belongs to; names, items and verbs do not count.
    pub fn side(&self) -> Side {
        let mut canonical = self.start.to_string();
        for operation in &self.operations {
            let (sign, operand) = operation.sign_and_operand();
            canonical.push_str(sign);
            canonical.push_str(&operand.to_string());
        }
        if hash_bytes(canonical.as_bytes()).is_multiple_of(5) { Side::HeldOut } else { Side::Train }
    }

    /// The value before the first operation and after each: `operations.len() + 1` numbers.
    pub fn values(&self) -> Vec<u32> {
        let mut values = vec![self.start];
        for operation in &self.operations {
            let last = values[values.len() - 1];
            values.push(operation.apply(last).expect("a story's operations are possible"));
        }
        values
    }

    /// The pile at the end.
    pub fn answer(&self) -> u32 {
        *self.values().last().expect("there is a start value")
    }

    /// Who the story is about.
    pub fn name(&self) -> &'static str {
        PEOPLE[self.person].0
    }

    /// `She` or `He`.
    pub fn pronoun(&self) -> &'static str {
        PEOPLE[self.person].1
    }

    /// What is counted, in the plural.
    pub fn item(&self) -> &'static str {
        ITEMS[self.item]
    }

    /// The story and its question: sentences of at most three operations.
    pub fn question(&self) -> String {
        let she = self.pronoun().to_lowercase();
        let mut sentences = vec![format!("{} has {} {}.", self.name(), self.start, self.item())];
        let n_sentences = self.operations.len().div_ceil(3);
        let mut rest = &self.operations[..];
        for i in 0..n_sentences {
            let (now, later) = rest.split_at(rest.len().div_ceil(n_sentences - i));
            rest = later;
            let opening = if i == 0 { self.pronoun().to_owned() } else { format!("Then {she}") };
            sentences.push(format!("{opening} {}.", enumeration(now)));
        }
        sentences.push(format!("How many {} does {she} have?", self.item()));
        sentences.join(" ")
    }

    /// The solution: the final answer and nothing else.
    pub fn solution(&self) -> String {
        format!("{} has {} {}.", self.name(), self.answer(), self.item())
    }

    /// Reads what [`Story::question`] writes; `None` for any other text.
    pub fn parse(question: &str) -> Option<Self> {
        let mut sentences = question.split_inclusive(['.', '?']);
        let mut opening = sentences.next()?.strip_suffix('.')?.split(' ');
        let name = opening.next()?;
        let person = PEOPLE.iter().position(|(known, _)| *known == name)?;
        let start = opening.nth(1)?.parse().ok()?;
        let noun = opening.next()?;
        let item = ITEMS.iter().position(|known| *known == noun)?;
        let mut operations = Vec::new();
        let mut value: u32 = start;
        for sentence in sentences.take_while(|sentence| sentence.ends_with('.')) {
            let sentence = sentence.strip_suffix('.')?.trim_start();
            let sentence = sentence.strip_prefix("Then ").unwrap_or(sentence);
            let (_, clauses) = sentence.split_once(' ')?;
            for clause in clauses.replace(" and ", ", ").split(", ") {
                let operation = Operation::parse(clause)?;
                value = operation.apply(value)?;
                operations.push(operation);
            }
        }
        let story = Self { person, item, start, operations };
        (story.question() == question).then_some(story)
    }
}

/// "finds 5, sells 8 and doubles them".
fn enumeration(operations: &[Operation]) -> String {
    let words: Vec<String> = operations.iter().map(Operation::to_string).collect();
    match words.split_last() {
        Some((last, others)) if !others.is_empty() => format!("{} and {last}", others.join(", ")),
        _ => words.concat(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    fn stories(n: u64, n_operations: usize, side: Side) -> Vec<Story> {
        (0..n).map(|i| Story::sample(n_operations, side, &mut Stream::new(9, "stories", i))).collect()
    }

    #[test]
    fn a_story_reads_as_english() {
        let story = Story {
            person: 0,
            item: 1,
            start: 47,
            operations: vec![
                Operation::Gain { verb: 0, amount: 5 },
                Operation::Lose { verb: 0, amount: 8 },
                Operation::Double,
                Operation::Halve,
                Operation::Gain { verb: 1, amount: 3 },
            ],
        };
        assert_eq!(
            story.question(),
            "Mia has 47 shells. She finds 5, sells 8 and doubles them. Then she loses half and buys 3. \
             How many shells does she have?"
        );
        assert_eq!(story.values(), [47, 52, 44, 88, 44, 47]);
        assert_eq!(story.solution(), "Mia has 47 shells.");
    }

    #[test]
    fn parse_inverts_question() {
        for n_operations in 1..=9 {
            for story in stories(200, n_operations, Side::Train) {
                assert_eq!(Story::parse(&story.question()), Some(story));
            }
        }
        let text = stories(1, 3, Side::Train)[0].question();
        assert_eq!(Story::parse(&text.replace("How", "So how")), None);
        assert_eq!(Story::parse(&text.replace("has", "had")), None);
        assert_eq!(Story::parse(""), None);
    }

    #[test]
    fn every_value_has_two_digits() {
        for story in stories(2000, 7, Side::HeldOut) {
            assert!(story.values().iter().all(|value| (MIN_VALUE..=MAX_VALUE).contains(value)));
        }
    }

    #[test]
    fn train_and_held_out_questions_are_disjoint() {
        for n_operations in [1, 4, 7] {
            let texts = |side| -> HashSet<String> {
                stories(3000, n_operations, side).iter().map(Story::question).collect()
            };
            let (train, held_out) = (texts(Side::Train), texts(Side::HeldOut));
            assert!(train.is_disjoint(&held_out));
            assert!(held_out.len() > 100);
        }
    }

    #[test]
    fn the_side_ignores_names_items_and_verbs() {
        for story in stories(100, 4, Side::Train) {
            let mut other = story.clone();
            other.person = (story.person + 1) % PEOPLE.len();
            other.item = (story.item + 1) % ITEMS.len();
            for operation in &mut other.operations {
                if let Operation::Gain { verb, .. } | Operation::Lose { verb, .. } = operation {
                    *verb = (*verb + 1) % 3;
                }
            }
            assert_eq!(story.side(), other.side());
        }
    }

    #[test]
    fn the_best_guess_is_right_less_than_two_times_in_a_hundred() {
        for n_operations in 4..=7 {
            let n = 20_000;
            let mut counts: HashMap<u32, usize> = HashMap::new();
            for story in stories(n, n_operations, Side::HeldOut) {
                *counts.entry(story.answer()).or_default() += 1;
            }
            let best = counts.values().max().copied().unwrap_or(0);
            let share = best as f64 / n as f64;
            assert!(share < 0.02, "{n_operations} operations: one answer has a share of {share}");
        }
    }
}
