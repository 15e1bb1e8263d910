//! Whether two answers say the same.

use super::budget::Budget;
use super::derivative::{derived, is_derivative};
use super::exact::exact;
use super::expression::{Bracket, Expr, Function, Operation, Relation};
use super::formula::{Comparison, compare, infinite};
use super::numeric::numeric;
use super::parse::{Functions, parse};
use super::proportion::{proportional, ratio};
use super::reading::read;
use super::real_set::{reversed, same_real_set};
use super::token::Comma;
use super::units;

/// Most items of a list that are compared.
const MAX_ITEMS: usize = 64;

/// Longest text that is compared word by word, bytes.
const MAX_WORDS_BYTES: usize = 400;

/// Whether an answer is right, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// The answer says the same as the gold answer.
    pub equal: bool,
    /// One line for people.
    pub reason: String,
}

impl Judgement {
    pub(super) fn yes(reason: impl Into<String>) -> Self {
        Self { equal: true, reason: reason.into() }
    }

    pub(super) fn no(reason: impl Into<String>) -> Self {
        Self { equal: false, reason: reason.into() }
    }
}

/// Compares an answer with the gold answer; both are LaTeX or plain text without the words around them.
///
/// Never panics, and takes a bounded amount of work: what could not be shown equal within it is different.
pub fn equivalent(gold: &str, answer: &str) -> Judgement {
    let (gold, answer) = (trimmed(gold), trimmed(answer));
    if answer.is_empty() {
        return Judgement::no("the answer is empty");
    }
    if same_text(gold, answer) {
        return Judgement::yes("the same text");
    }
    if let (Some(a), Some(b)) = (words(gold), words(answer))
        && a == b
    {
        return Judgement::yes("the same words");
    }
    if let Some(judgement) = word_equations(gold, answer) {
        return judgement;
    }
    let budget = Budget::new(Budget::COMPARISON);
    let mut judgement = None;
    for comma in [Comma::Separates, Comma::Thousands] {
        let (gold, answer) = read(gold, answer, comma);
        let next = match (&gold, &answer) {
            (Some(gold), Some(answer)) => same(gold, answer, &budget),
            (None, None) => Judgement::no("neither is mathematics that is understood, and the texts differ"),
            (None, _) => Judgement::no("the gold answer is not understood, and the texts differ"),
            (_, None) => Judgement::no("the answer is not understood, and the texts differ"),
        };
        if next.equal {
            return next;
        }
        judgement = judgement.or(Some(next));
    }
    let judgement = judgement.unwrap_or_else(|| Judgement::no("different"));
    if budget.exhausted() { Judgement::no("not shown equal within the work allowed") } else { judgement }
}

/// Without what may stand around an answer: white space, dollar signs, a full stop.
fn trimmed(text: &str) -> &str {
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '$');
    let text = text.strip_suffix('.').unwrap_or(text).trim_end();
    let inside = [("\\(", "\\)"), ("\\[", "\\]")]
        .iter()
        .find_map(|(open, close)| text.strip_prefix(open)?.strip_suffix(close));
    inside.unwrap_or(text).trim()
}

/// Whether the texts agree but for white space: any at all in LaTeX, runs of it in words.
fn same_text(a: &str, b: &str) -> bool {
    let latex = a.contains('\\') && b.contains('\\');
    let visible = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
    a.split_whitespace().eq(b.split_whitespace()) || (latex && visible(a) == visible(b)) || same_style(a, b)
}

/// Whether both are the same letters in whatever fonts: `\text{No}`, `\textbf{No}`, `**No**`, `No`.
fn same_style(a: &str, b: &str) -> bool {
    let letters = |text: &str| {
        let plain = unstyled(text).replace(['{', '}', '*'], " ");
        let only = plain.chars().all(|c| c.is_alphabetic() || c.is_whitespace());
        (only && plain.chars().any(char::is_alphabetic))
            .then(|| plain.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    a.len().max(b.len()) <= MAX_WORDS_BYTES && letters(a).is_some_and(|a| letters(b) == Some(a))
}

/// Without the commands that choose a font.
fn unstyled(text: &str) -> String {
    let mut plain = text.to_owned();
    for command in ["\\text", "\\mbox", "\\mathrm", "\\mathbf", "\\operatorname"] {
        for style in ["bf", "it", "rm", "tt", ""] {
            plain = plain.replace(&format!("{command}{style}{{"), "{");
        }
    }
    plain
}

/// The sides of an equation of words: `SRAC = LRAC`, `\text{supply} = \text{demand}`. `None` where letters could be
/// variables side by side.
fn word_equation(text: &str) -> Option<Vec<String>> {
    if text.len() > MAX_WORDS_BYTES || !text.contains('=') {
        return None;
    }
    let layout = ["\\displaystyle", "\\textstyle", "\\quad", "\\,", "\\;", "\\ ", "~"];
    let plain = layout.iter().fold(unstyled(text), |text, command| text.replace(command, " "));
    let plain = plain.replace(['{', '}'], " ");
    let mut sides: Vec<String> = plain.split('=').map(|side| side.trim().to_owned()).collect();
    let word = |side: &String| {
        let capitals = side.bytes().all(|b| b.is_ascii_uppercase());
        let lower = side.bytes().skip(1).all(|b| b.is_ascii_lowercase()) && side.len() > 3;
        !side.is_empty() && (capitals || lower) && side.bytes().all(|b| b.is_ascii_alphabetic())
    };
    sides.sort_unstable();
    (sides.len() > 1 && sides.iter().all(word)).then_some(sides)
}

/// Compares equations of words, in either order of the sides; `None` where one of them may be something else, too.
/// What is a side of it is no answer: `SRAC = LRAC` gives neither a value.
fn word_equations(gold: &str, answer: &str) -> Option<Judgement> {
    let (a, b) = (word_equation(gold), word_equation(answer));
    if a.is_some() && a == b {
        return Some(Judgement::yes("the same equation of words"));
    }
    // Up to three capitals may be factors.
    let only_words = |side: &String| side.len() > 3;
    let no_name = |side: &String| side.bytes().all(|b| b.is_ascii_uppercase());
    let of_gold = a.is_some_and(|sides| sides.iter().any(only_words));
    // `Winner = Evelyn` names who wins.
    let of_answer = b.is_some_and(|sides| sides.iter().any(only_words) && sides.iter().all(no_name));
    (of_gold || of_answer).then(|| Judgement::no("not the same equation of words"))
}

/// A text of words alone: `\text{Evelyn}` as "evelyn", `(C)` as "C". `None` for anything with digits or operators,
/// and for letters that may be variables.
fn words(text: &str) -> Option<String> {
    if text.len() > MAX_WORDS_BYTES {
        return None;
    }
    let plain = unstyled(text).replace(['{', '}'], " ").replace("\\ ", " ");
    let allowed = |c: char| c.is_alphabetic() || c.is_whitespace() || ",.'-()".contains(c);
    if !plain.chars().all(allowed) {
        return None;
    }
    // A prime behind a letter is a derivative's; an apostrophe stands between two.
    let apart = plain.split('\'');
    let ends_bare = |part: &str| !part.ends_with(char::is_alphabetic);
    let begins_bare = |part: &str| !part.starts_with(char::is_alphabetic);
    if apart.clone().zip(apart.skip(1)).any(|(a, b)| !ends_bare(a) && begins_bare(b)) {
        return None;
    }
    let separates = |c: char| !c.is_alphabetic() && c != '-';
    let words: Vec<&str> = plain.split(separates).filter(|word| !word.is_empty()).collect();
    match words.as_slice() {
        // A choice: its case counts.
        [one] if one.chars().count() == 1 => Some((*one).to_owned()),
        words if words.iter().any(|word| word.chars().count() >= 3 || word.eq_ignore_ascii_case("no")) => {
            Some(words.join(" ").to_lowercase())
        }
        _ => None,
    }
}

fn same(gold: &Expr, answer: &Expr, budget: &Budget) -> Judgement {
    match (gold, answer) {
        (Expr::WithUnit(a, unit), Expr::WithUnit(b, other)) => {
            if units::conflict(unit, other) {
                return Judgement::no(format!("the unit is {unit}, not {other}"));
            }
            return same(a, b, budget);
        }
        (Expr::WithUnit(of, unit), other) if units::is_percent(unit) => {
            return same(&Expr::Percent(of.clone()), other, budget);
        }
        (other, Expr::WithUnit(of, unit)) if units::is_percent(unit) => {
            return same(other, &Expr::Percent(of.clone()), budget);
        }
        (Expr::WithUnit(of, unit), other) | (other, Expr::WithUnit(of, unit))
            if is_quantity(of, unit, other, budget) =>
        {
            return Judgement::yes("the same number and unit");
        }
        (Expr::WithUnit(of, _), other) => return same(of, other, budget),
        (other, Expr::WithUnit(of, _)) => return same(other, of, budget),
        _ => {}
    }
    if has_signs(gold) || has_signs(answer) || is_set(gold) || is_set(answer) {
        return same_sets(gold, answer, budget);
    }
    match (gold, answer) {
        (Expr::Text(a), Expr::Text(b)) => match (words(a), words(b)) {
            (Some(a), Some(b)) if a == b => Judgement::yes("the same words"),
            _ => Judgement::no(format!("\"{b}\" is not \"{a}\"")),
        },
        (Expr::Statement(..), _) | (_, Expr::Statement(..)) => statements(gold, answer, budget),
        (Expr::Group { .. }, Expr::Group { .. }) => groups(gold, answer, budget),
        (Expr::SetOperation(..), _) | (_, Expr::SetOperation(..)) => real_sets(gold, answer, budget),
        (Expr::Ratio(a), Expr::Ratio(b)) => ratios(a, b, budget),
        (Expr::Matrix(a), Expr::Matrix(b)) => matrices(a, b, budget),
        (Expr::Based { digits, base }, Expr::Based { digits: other, base: other_base }) => {
            if digits == other && base == other_base {
                Judgement::yes("the same digits in the same base")
            } else {
                Judgement::no(format!("{other} in base {other_base} is not {digits} in base {base}"))
            }
        }
        (Expr::Based { digits, .. }, Expr::Number { .. }) => based(digits, answer, budget),
        (Expr::Number { .. }, Expr::Based { digits, .. }) => based(digits, gold, budget),
        _ if gold.is_scalar() && answer.is_scalar() => scalars(gold, answer, budget),
        _ if gold == answer => Judgement::yes("the same"),
        _ => Judgement::no(format!("the gold answer is {}, the answer {}", kind(gold), kind(answer))),
    }
}

/// Whether a formula is a number with its unit in italics: `9.8 m/s^2` of `9.8\,\mathrm{m/s^2}`.
fn is_quantity(of: &Expr, unit: &str, formula: &Expr, budget: &Budget) -> bool {
    let written = formula.is_scalar() && !formula.variables().is_empty() && of.is_scalar();
    if !written || !of.variables().is_empty() {
        return false;
    }
    match parse(unit, Comma::Separates, Functions::Named(&[])) {
        Some(unit) if unit.is_scalar() => {
            compare(&Expr::binary(Operation::Mul, of.clone(), unit), formula, budget).equal()
        }
        _ => false,
    }
}

/// Ratios are the same entry by entry: 6:4 has not been reduced, and 10:30 may be a time.
fn ratios(a: &[Expr], b: &[Expr], budget: &Budget) -> Judgement {
    let equal = a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b, budget).equal);
    if equal { Judgement::yes("the same ratio") } else { Judgement::no("the ratios differ") }
}

fn based(digits: &str, number: &Expr, budget: &Budget) -> Judgement {
    let written = exact(number, &[], budget).map(|value| value.to_string());
    if written.as_deref() == Some(digits) {
        Judgement::yes("the same digits, where the question names the base")
    } else {
        Judgement::no("different digits")
    }
}

fn kind(expr: &Expr) -> &'static str {
    match expr {
        Expr::Group { items, .. } if items.len() == 2 => "a pair or an interval",
        Expr::Group { .. } => "a tuple",
        Expr::Set(_) => "a list",
        Expr::Matrix(_) => "a matrix",
        Expr::SetOperation(..) => "a set",
        Expr::Ratio(_) => "a ratio",
        Expr::Statement(..) => "a statement",
        Expr::Text(_) => "words",
        Expr::Based { .. } => "a number in another base",
        _ => "a formula",
    }
}

fn scalars(gold: &Expr, answer: &Expr, budget: &Budget) -> Judgement {
    match (gold, answer) {
        (Expr::Percent(a), Expr::Percent(b)) => return scalars(a, b, budget),
        // `50%` for 50 where the question asks for per cent; never `0.5%` for a half.
        (Expr::Percent(of), bare) | (bare, Expr::Percent(of)) => {
            let whole = numeric(bare, &[], budget).is_some_and(|(value, _)| value.re.abs() >= 1.0);
            if whole && compare(of, bare, budget).equal() {
                return Judgement::yes("the same number of per cent");
            }
        }
        _ => {}
    }
    match compare(gold, answer, budget) {
        Comparison::Exact => Judgement::yes("equal, by exact arithmetic"),
        Comparison::Sampled => Judgement::yes("equal, by value at every point tried"),
        Comparison::Rounded => Judgement::yes("equal, rounded to the places of the decimal"),
        Comparison::Different if gold.variables().is_empty() && answer.variables().is_empty() => {
            Judgement::no(format!(
                "different: {} is not {}",
                value_text(answer, budget),
                value_text(gold, budget)
            ))
        }
        Comparison::Different => Judgement::no("the formulas differ in value"),
        Comparison::Unknown => Judgement::no("not shown equal: too large, undefined, or too much work"),
    }
}

/// The value of a constant, for messages.
fn value_text(expr: &Expr, budget: &Budget) -> String {
    if let Some(value) = exact(expr, &[], budget) {
        return value.to_string();
    }
    match numeric(expr, &[], budget) {
        Some((value, _)) if value.im != 0.0 => format!("{:.6} + {:.6} i", value.re, value.im),
        Some((value, _)) if infinite(expr).is_none() => format!("{:.6}", value.re),
        _ => "the value".into(),
    }
}

fn has_signs(expr: &Expr) -> bool {
    expr.any(|part| matches!(part, Expr::Binary(Operation::PlusMinus | Operation::MinusPlus, ..)))
}

fn is_set(expr: &Expr) -> bool {
    match expr {
        Expr::Set(_) => true,
        Expr::Statement(first, rest) => {
            matches!(
                (&**first, rest.as_slice()),
                (Expr::Variable(_), [(Relation::Equal | Relation::Element, Expr::Set(_))])
            )
        }
        _ => false,
    }
}

/// The items of a list or set, both signs of `\pm` written out, without their labels.
fn elements(expr: &Expr) -> Vec<Expr> {
    let items: Vec<&Expr> = match expr {
        Expr::Set(items) => items.iter().collect(),
        Expr::Statement(_, rest) if is_set(expr) => match rest.first() {
            Some((_, Expr::Set(items))) => items.iter().collect(),
            _ => vec![expr],
        },
        other => vec![other],
    };
    items
        .into_iter()
        .flat_map(|item| {
            if has_signs(item) {
                vec![
                    item.with_sign(Operation::Add, Operation::Sub),
                    item.with_sign(Operation::Sub, Operation::Add),
                ]
            } else {
                vec![item.clone()]
            }
        })
        .collect()
}

fn same_sets(gold: &Expr, answer: &Expr, budget: &Budget) -> Judgement {
    if matches!(gold, Expr::SetOperation(..)) || matches!(answer, Expr::SetOperation(..)) {
        return real_sets(gold, answer, budget);
    }
    if (gold.is_inequality() || answer.is_inequality()) && same_real_set(gold, answer, budget) == Some(true) {
        return Judgement::yes("the same set of real numbers");
    }
    let (a, b) = (elements(gold), elements(answer));
    if a.len() > MAX_ITEMS || b.len() > MAX_ITEMS {
        return Judgement::no(format!("a list of more than {MAX_ITEMS} items is compared as text only"));
    }
    let mut found = vec![false; b.len()];
    for (i, item) in a.iter().enumerate() {
        // The same place first: lists are mostly in the same order.
        let order = (i..b.len()).chain(0..i.min(b.len()));
        let mut any = false;
        for j in order {
            if same(item, &b[j], budget).equal {
                (any, found[j]) = (true, true);
                break;
            }
        }
        if !any {
            return Judgement::no(format!("item {} of the gold answer's {} is missing", i + 1, a.len()));
        }
    }
    for (j, item) in b.iter().enumerate() {
        if !found[j] && !a.iter().any(|of| same(of, item, budget).equal) {
            return Judgement::no(format!(
                "item {} of the answer's {} is not in the gold answer",
                j + 1,
                b.len()
            ));
        }
    }
    Judgement::yes("the same items")
}

fn real_sets(gold: &Expr, answer: &Expr, budget: &Budget) -> Judgement {
    match same_real_set(gold, answer, budget) {
        Some(true) => Judgement::yes("the same set of real numbers"),
        Some(false) => Judgement::no("different sets of real numbers"),
        None => {
            // Ends with variables, or sets of something else: part by part.
            if let (Expr::SetOperation(a, l, r), Expr::SetOperation(b, m, s)) = (gold, answer)
                && a == b
                && same(l, m, budget).equal
                && same(r, s, budget).equal
            {
                return Judgement::yes("the same parts");
            }
            Judgement::no("the sets were not shown equal")
        }
    }
}

fn groups(gold: &Expr, answer: &Expr, budget: &Budget) -> Judgement {
    let (
        Expr::Group { open, close, items },
        Expr::Group { open: other_open, close: other_close, items: others },
    ) = (gold, answer)
    else {
        return Judgement::no("not two groups");
    };
    if items.len() != others.len() {
        return Judgement::no(format!("{} entries instead of {}", others.len(), items.len()));
    }
    // With two entries a bracket says whether an end belongs to the interval, except at infinity; with
    // more it is a matter of style.
    let differs =
        |a: &Bracket, b: &Bracket, end: &Expr| items.len() == 2 && a != b && infinite(end).is_none();
    if differs(open, other_open, &items[0]) || differs(close, other_close, &items[items.len() - 1]) {
        return Judgement::no(
            "the brackets differ: an end of the interval is open in one and closed in the other",
        );
    }
    for (i, (a, b)) in items.iter().zip(others).enumerate() {
        let judgement = same(a, b, budget);
        if !judgement.equal {
            return Judgement::no(format!("entry {}: {}", i + 1, judgement.reason));
        }
    }
    Judgement::yes("equal entry by entry")
}

fn matrices(a: &[Vec<Expr>], b: &[Vec<Expr>], budget: &Budget) -> Judgement {
    if a.len() != b.len() || a.iter().zip(b).any(|(a, b)| a.len() != b.len()) {
        return Judgement::no("matrices of different shapes");
    }
    for (i, (a, b)) in a.iter().flatten().zip(b.iter().flatten()).enumerate() {
        let judgement = same(a, b, budget);
        if !judgement.equal {
            return Judgement::no(format!("entry {}: {}", i + 1, judgement.reason));
        }
    }
    Judgement::yes("equal entry by entry")
}

/// What a statement says its variable is: `5` of `x = 5`, `[1, 2]` of `x \in [1, 2]`, `2x` of `f(x) = 2x`.
fn said(statement: &Expr) -> Option<(&Expr, Vec<&Expr>)> {
    let Expr::Statement(first, rest) = statement else { return None };
    match rest.as_slice() {
        [(Relation::Element, set)] => Some((&**first, vec![set])),
        equal if equal.iter().all(|(relation, _)| *relation == Relation::Equal) => {
            Some((&**first, equal.iter().map(|(_, side)| side).collect()))
        }
        _ => None,
    }
}

/// Whether `label = value` names `value`: the label is a variable that the value does not contain, or a formula
/// of variables where the value is a number. `x(t) = ..` names its function, and `\frac{dx}{dt} = ..` its derivative
/// where that is no equation for x.
fn is_label(label: &Expr, value: &Expr) -> bool {
    let contained = |name: &str| value.variables().contains(&name);
    match label {
        Expr::Variable(name) if is_derivative(name) => {
            !value.variables().into_iter().any(|other| derived(other) == derived(name))
        }
        Expr::Variable(name) => !contained(name),
        Expr::Applied { name, of } if of.iter().all(|of| matches!(of, Expr::Variable(_))) => {
            !contained(name.trim_end_matches("()")) && !value.any(|part| part == label)
        }
        _ => !label.variables().is_empty() && value.variables().is_empty(),
    }
}

fn statements(gold: &Expr, answer: &Expr, budget: &Budget) -> Judgement {
    match (gold, answer) {
        (Expr::Statement(a, sides), Expr::Statement(b, others)) => {
            if let (Some((label, values)), Some((other, other_values))) = (said(gold), said(answer))
                && let (Some(value), Some(other_value)) = (values.last(), other_values.last())
                && matches!(label, Expr::Variable(_) | Expr::Applied { .. })
                && label == other
                && is_label(label, value)
                && is_label(other, other_value)
            {
                return same(value, other_value, budget);
            }
            relations(a, sides, b, others, budget)
        }
        (_, Expr::Statement(..)) => unlabelled(gold, answer, budget),
        _ => unlabelled(answer, gold, budget),
    }
}

/// A bare answer against a statement that gives it a name, or against an inequality that describes it.
fn unlabelled(bare: &Expr, statement: &Expr, budget: &Budget) -> Judgement {
    if let Some((first, values)) = said(statement)
        && let Some((last, others)) = values.split_last()
    {
        let chained = others.iter().all(|side| same(last, side, budget).equal);
        let starts = is_label(first, last) || same(first, last, budget).equal;
        if chained && starts {
            return same(bare, last, budget);
        }
        return Judgement::no("the statement does not give one value");
    }
    real_sets(bare, statement, budget)
}

fn difference(left: &Expr, right: &Expr) -> Expr {
    Expr::binary(Operation::Sub, left.clone(), right.clone())
}

fn relations(
    a: &Expr,
    sides: &[(Relation, Expr)],
    b: &Expr,
    others: &[(Relation, Expr)],
    budget: &Budget,
) -> Judgement {
    let ([(relation, right)], [(other_relation, other_right)]) = (sides, others) else {
        return chains(a, sides, b, others, budget);
    };
    // Both as `something related to 0`; < and > differ by the sign.
    let (f, mut g) = (difference(a, right), difference(b, other_right));
    let turned = match (relation == other_relation, reversed(*relation) == Some(*other_relation)) {
        (true, _) => false,
        (false, true) => true,
        _ => return Judgement::no("the relations differ"),
    };
    if turned {
        g = Expr::unary(Function::Neg, g);
    }
    let ordered = !matches!(relation, Relation::Equal | Relation::NotEqual);
    match ratio(&f, &g, budget) {
        Some(factor) if factor > 0.0 || !ordered => Judgement::yes("the same statement up to a factor"),
        None if *relation == Relation::Equal && proportional(&f, &g, budget) => {
            Judgement::yes("the same differential equation up to a factor")
        }
        _ => Judgement::no("the statements differ by more than a factor"),
    }
}

/// `a < b < c` against the same, or against `c > b > a`.
fn chains(
    a: &Expr,
    sides: &[(Relation, Expr)],
    b: &Expr,
    others: &[(Relation, Expr)],
    budget: &Budget,
) -> Judgement {
    let no = || Judgement::no("the chains of relations differ");
    if sides.len() != others.len() {
        return no();
    }
    let terms = |first, rest: &[(Relation, Expr)]| -> Vec<Expr> {
        std::iter::once(first).chain(rest.iter().map(|(_, side)| side)).cloned().collect::<Vec<Expr>>()
    };
    let (a, mut b): (Vec<Expr>, Vec<Expr>) = (terms(a, sides), terms(b, others));
    let relations: Vec<Option<Relation>> = sides.iter().map(|(relation, _)| Some(*relation)).collect();
    let straight: Vec<Option<Relation>> = others.iter().map(|(relation, _)| Some(*relation)).collect();
    let turned: Vec<Option<Relation>> =
        others.iter().rev().map(|(relation, _)| reversed(*relation)).collect();
    if relations != straight {
        if relations != turned {
            return no();
        }
        b.reverse();
    }
    let equal = a.iter().zip(&b).all(|(a, b)| same(a, b, budget).equal);
    if equal { Judgement::yes("the same chain of relations") } else { no() }
}
