//! Numbers as they are written, names that are given a value, and subscripts.

use super::super::derivative::quotient;
use super::super::expression::{Expr, Operation};
use super::super::rational::Rational;
use super::super::token::Kind;
use super::{Functions, Parser};

impl Parser<'_> {
    /// A literal, with what makes it a mixed number or one in another base.
    pub(super) fn number(&mut self, text: &str) -> Option<Expr> {
        let value = Rational::from_decimal(text, &self.budget)?;
        let places = decimal_places(text);
        if is_whole(text) {
            if self.is_symbol('_') {
                self.at += 1;
                let base = self.braced_index()?;
                return (2..=36)
                    .contains(&base)
                    .then(|| Expr::Based { digits: text.trim_start_matches('0').into(), base });
            }
            let whole = Expr::Number { value: value.clone(), places };
            if self.is_command("frac") {
                return self.number_and_fraction(whole);
            }
            if let Some(part) = self.fraction_behind() {
                return Some(Expr::binary(Operation::Add, whole, part));
            }
        }
        Some(Expr::Number { value, places })
    }

    /// `1\frac{4}{5}`, a mixed number, or `2\frac{x}{5}`, a product.
    pub(super) fn number_and_fraction(&mut self, whole: Expr) -> Option<Expr> {
        self.at += 1;
        let (top, bottom) = (self.argument()?, self.argument()?);
        let integers = [&top, &bottom].iter().all(|part| matches!(part, Expr::Number { places: None, .. }));
        let operation = if integers { Operation::Add } else { Operation::Mul };
        Some(Expr::binary(operation, whole, quotient(top, bottom)))
    }

    /// The fraction of a mixed number in plain text: `1 4/5`.
    pub(super) fn fraction_behind(&mut self) -> Option<Expr> {
        let integer = |kind: Option<&Kind>| match kind {
            Some(Kind::Number(text)) if is_whole(text) => Rational::from_decimal(text, &self.budget),
            _ => None,
        };
        let spaced = self.tokens.get(self.at).is_some_and(|token| token.spaced);
        if !spaced || self.peek_at(1) != Some(&Kind::Symbol('/')) {
            return None;
        }
        let (top, bottom) = (integer(self.peek())?, integer(self.peek_at(2))?);
        self.at += 3;
        let literal = |value| Expr::Number { value, places: None };
        Some(Expr::binary(Operation::Div, literal(top), literal(bottom)))
    }

    pub(super) fn braced_index(&mut self) -> Option<u32> {
        let braced = self.take_symbol('{');
        let Some(Kind::Number(text)) = self.peek() else { return None };
        let index = text.parse().ok()?;
        self.at += 1;
        if braced {
            self.expect_symbol('}')?;
        }
        Some(index)
    }

    pub(super) fn letter(&mut self, letter: char) -> Option<Expr> {
        if let Some(name) = self.label(letter) {
            return Some(Expr::Variable(name));
        }
        self.named(&letter.to_string())
    }

    /// `f(x) =` where an item begins: a name, not a product.
    fn label(&mut self, letter: char) -> Option<String> {
        let (Kind::Symbol('('), Kind::Letter(of), Kind::Symbol(')'), Kind::Symbol('=')) =
            (self.peek()?, self.peek_at(1)?, self.peek_at(2)?, self.peek_at(3)?)
        else {
            return None;
        };
        let before = self.at.checked_sub(2).map(|before| &self.tokens[before].kind);
        let begins =
            before.is_none_or(|kind| matches!(kind, Kind::Symbol(',' | ';' | '{') | Kind::Command(_)));
        let function =
            matches!(self.functions, Functions::Named(names) if names.contains(&letter.to_string()));
        let name = (begins && !function).then(|| format!("{letter}({of})"))?;
        self.at += 3;
        Some(name)
    }

    /// A subscript as text.
    pub(super) fn subscript(&mut self) -> Option<String> {
        let mut text = String::new();
        let braced = self.take_symbol('{');
        loop {
            match self.peek()? {
                Kind::Number(part) | Kind::Command(part) | Kind::Text(part) => text.push_str(part),
                Kind::Letter(letter) => text.push(*letter),
                // A prime behind a name is a derivative's.
                Kind::Symbol('\'') if braced => text.push('′'),
                Kind::Symbol(symbol) if braced && *symbol != '}' => text.push(*symbol),
                Kind::Symbol(_) => {}
            }
            if braced && self.take_symbol('}') {
                break;
            }
            self.at += 1;
            if !braced {
                break;
            }
        }
        (!text.is_empty()).then_some(text)
    }
}

/// Whether a literal is nothing but digits.
fn is_whole(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit())
}

/// The places of a decimal, `None` of whole numbers and of digits that never end.
fn decimal_places(text: &str) -> Option<u32> {
    let (digits, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let (_, places) = digits.split_once('.').unwrap_or((digits, ""));
    let places = places.len() as i64 - exponent.parse::<i64>().ok()?;
    (!text.contains('(') && places > 0).then(|| u32::try_from(places).ok())?
}
