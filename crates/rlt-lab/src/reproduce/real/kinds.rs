//! Six kinds of explanation, made from worked solutions in words: the whole rationale, and what is wrong with one.

use std::collections::HashMap;

use rlt_method::random::Stream;

/// A question with its rationale and the solution it leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkedQuestion {
    /// The question.
    pub question: String,
    /// Why the solution is right, step by step.
    pub rationale: String,
    /// The solution alone.
    pub solution: String,
}

/// A kind of explanation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExplanationVariant {
    /// The rationale as it is.
    Full,
    /// Its sentences in another order.
    Shuffled,
    /// Each number replaced by another of the same length.
    Altered,
    /// The rationale of another question of the same source.
    Another,
    /// All but its last sentence.
    Cut,
    /// The solution and nothing else.
    Restated,
}

impl ExplanationVariant {
    /// In the order of the tables.
    pub const ALL: [Self; 6] =
        [Self::Full, Self::Shuffled, Self::Altered, Self::Another, Self::Cut, Self::Restated];

    /// In rows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Shuffled => "shuffled",
            Self::Altered => "altered",
            Self::Another => "another",
            Self::Cut => "cut",
            Self::Restated => "restated",
        }
    }

    /// In tables.
    pub fn words(self) -> &'static str {
        match self {
            Self::Full => "full rationale",
            Self::Shuffled => "sentences shuffled",
            Self::Altered => "numbers altered",
            Self::Another => "another question's rationale",
            Self::Cut => "last step left out",
            Self::Restated => "bare restatement of the solution",
        }
    }
}

/// A text between two separators, and the separator after it.
type Sentence<'a> = (&'a str, &'a str);

/// The sentences of `text`, each with what separates it from the next: a line end, or a space after a full stop,
/// question mark or exclamation mark. Joined again they are the text.
fn sentences(text: &str) -> Vec<Sentence<'_>> {
    let mut sentences = Vec::new();
    let (mut start, mut at) = (0, 0);
    while at < text.len() {
        let rest = &text[at..];
        let is_end =
            rest.starts_with('\n') || (rest.starts_with(' ') && text[start..at].ends_with(['.', '?', '!']));
        if !is_end || text[start..at].trim().is_empty() {
            at += rest.chars().next().map_or(1, char::len_utf8);
            continue;
        }
        let separator = rest.len() - rest.trim_start().len();
        sentences.push((&text[start..at], &text[at..at + separator]));
        at += separator;
        start = at;
    }
    if start < text.len() {
        sentences.push((&text[start..], ""));
    }
    sentences
}

/// The sentences in another order, the separators where they were; `None` where there is no other order.
pub fn shuffled(text: &str, stream: &mut Stream) -> Option<String> {
    let sentences = sentences(text);
    let mut order: Vec<&str> = sentences.iter().map(|(sentence, _)| *sentence).collect();
    if order.iter().all(|sentence| *sentence == order[0]) {
        return None;
    }
    let before = order.clone();
    while order == before {
        stream.shuffle(&mut order);
    }
    Some(order.iter().zip(&sentences).flat_map(|(sentence, (_, separator))| [*sentence, separator]).collect())
}

/// Each run of digits replaced by another of its length, the same one wherever it stands; `None` without numbers.
pub fn altered(text: &str, stream: &mut Stream) -> Option<String> {
    let mut replacements: HashMap<&str, String> = HashMap::new();
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let length = rest[start..].find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len() - start);
        let number = &rest[start..start + length];
        let other = replacements.entry(number).or_insert_with(|| another_number(number, stream));
        out.push_str(&rest[..start]);
        out.push_str(other);
        rest = &rest[start + length..];
    }
    out.push_str(rest);
    (!replacements.is_empty()).then_some(out)
}

/// A number of as many digits, without a zero in front of others.
fn another_number(number: &str, stream: &mut Stream) -> String {
    loop {
        let digit = |i: usize, stream: &mut Stream| {
            let least = usize::from(i == 0 && number.len() > 1);
            char::from(b'0' + (least + stream.below(10 - least)) as u8)
        };
        let other: String = (0..number.len()).map(|i| digit(i, stream)).collect();
        if other != number {
            return other;
        }
    }
}

/// All but the last sentence; `None` where nothing would be left.
pub fn cut(text: &str) -> Option<String> {
    let sentences = sentences(text);
    let (_, kept) = sentences.split_last()?;
    let text: String = kept.iter().flat_map(|(sentence, separator)| [*sentence, separator]).collect();
    let text = text.trim_end();
    (!text.is_empty()).then(|| text.to_owned())
}

/// The explanation of this kind for question `index` of `all`; `None` where there is none.
pub fn explanation(
    kind: ExplanationVariant,
    all: &[WorkedQuestion],
    index: usize,
    seed: u64,
) -> Option<String> {
    let mut stream = Stream::new(seed, kind.name(), index as u64);
    let row = &all[index];
    match kind {
        ExplanationVariant::Full => Some(row.rationale.clone()),
        ExplanationVariant::Shuffled => shuffled(&row.rationale, &mut stream),
        ExplanationVariant::Altered => altered(&row.rationale, &mut stream),
        ExplanationVariant::Another => {
            let other = &all[(index + 1) % all.len()].rationale;
            (*other != row.rationale).then(|| other.clone())
        }
        ExplanationVariant::Cut => cut(&row.rationale),
        ExplanationVariant::Restated => Some(row.solution.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Each sells 3.5 kg. That is 12 in all!\nSo 12 / 3 = 4.\n\n Done";

    fn stream() -> Stream {
        Stream::new(1, "test", 0)
    }

    #[test]
    fn sentences_end_at_line_ends_and_full_stops_before_a_space() {
        let found: Vec<&str> = sentences(TEXT).into_iter().map(|(sentence, _)| sentence).collect();
        assert_eq!(found, ["Each sells 3.5 kg.", "That is 12 in all!", "So 12 / 3 = 4.", "Done"]);
        for text in [TEXT, "", " ", "\n\na\n", "é. ü"] {
            let joined: String = sentences(text).into_iter().flat_map(|(a, b)| [a, b]).collect();
            assert_eq!(joined, text);
        }
    }

    #[test]
    fn shuffling_keeps_every_sentence_and_separator_and_changes_the_order() {
        for index in 0..20 {
            let text = shuffled("a.\nb. c.\nd", &mut Stream::new(1, "test", index)).unwrap();
            assert_ne!(text, "a.\nb. c.\nd");
            let mut parts: Vec<&str> = text.split([' ', '\n']).collect();
            parts.sort_unstable();
            assert_eq!(parts, ["a.", "b.", "c.", "d"]);
            assert_eq!(text.matches('\n').count(), 2);
        }
        assert_eq!(shuffled("b.\na.", &mut stream()).unwrap(), "a.\nb.");
        assert_eq!(shuffled("only one", &mut stream()), None);
        assert_eq!(shuffled("same\nsame", &mut stream()), None);
        assert_eq!(shuffled("", &mut stream()), None);
    }

    #[test]
    fn every_number_changes_and_nothing_else() {
        let text = altered(TEXT, &mut stream()).unwrap();
        let digits = |c: char| c.is_ascii_digit();
        assert_eq!(text.replace(digits, "#"), TEXT.replace(digits, "#"));
        let numbers = |text: &str| -> Vec<String> {
            text.split(|c: char| !digits(c)).filter(|n| !n.is_empty()).map(str::to_owned).collect()
        };
        let (before, after) = (numbers(TEXT), numbers(&text));
        assert!(before.iter().zip(&after).all(|(b, a)| b != a), "{before:?} {after:?}");
        assert_eq!(after[2], after[3], "12 is the same number in both places");
        assert!(!after[2].starts_with('0'));
        assert_eq!(altered("no numbers", &mut stream()), None);
    }

    #[test]
    fn the_last_sentence_is_left_out() {
        assert_eq!(cut(TEXT).unwrap(), "Each sells 3.5 kg. That is 12 in all!\nSo 12 / 3 = 4.");
        assert_eq!(cut("one"), None);
        assert_eq!(cut(""), None);
    }

    #[test]
    fn six_kinds_of_two_questions() {
        let worked = |question: &str, rationale: &str, solution: &str| WorkedQuestion {
            question: question.into(),
            rationale: rationale.into(),
            solution: solution.into(),
        };
        let all =
            [worked("1 + 1?", "One more than 1.\nThat is 2.", "2"), worked("2 + 2?", "Twice 2 is 4.", "4")];
        let of = |kind, index| explanation(kind, &all, index, 1);
        assert_eq!(of(ExplanationVariant::Full, 0).unwrap(), "One more than 1.\nThat is 2.");
        assert_eq!(of(ExplanationVariant::Shuffled, 0).unwrap(), "That is 2.\nOne more than 1.");
        assert_eq!(of(ExplanationVariant::Another, 0).unwrap(), "Twice 2 is 4.");
        assert_eq!(of(ExplanationVariant::Another, 1).unwrap(), "One more than 1.\nThat is 2.");
        assert_eq!(of(ExplanationVariant::Cut, 0).unwrap(), "One more than 1.");
        assert_eq!(of(ExplanationVariant::Restated, 0).unwrap(), "2");
        assert_eq!((of(ExplanationVariant::Shuffled, 1), of(ExplanationVariant::Cut, 1)), (None, None));
        assert_eq!(
            of(ExplanationVariant::Altered, 0),
            of(ExplanationVariant::Altered, 0),
            "the same draw every time"
        );
    }
}
