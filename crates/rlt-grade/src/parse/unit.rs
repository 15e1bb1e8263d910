//! Words behind numbers, and words in the place of an answer.

use super::super::token::Kind;
use super::Parser;

impl Parser<'_> {
    /// Words at this place, letters among them included.
    pub(super) fn words(&mut self) -> Option<String> {
        let Some(Kind::Text(first)) = self.peek() else { return None };
        let mut words = first.clone();
        self.at += 1;
        while let Some(kind) = self.peek() {
            match kind {
                Kind::Text(more) => words = format!("{words} {more}"),
                Kind::Letter(more) => words = format!("{words} {more}"),
                _ => break,
            }
            self.at += 1;
        }
        Some(words)
    }

    /// Words behind a number, with their powers: `cm^2`, `miles / hour`, `kg m s^{-2}`. Empty where there are none.
    pub(super) fn unit(&mut self) -> String {
        let mut unit = String::new();
        while let Some(Kind::Text(word)) = self.peek() {
            if !unit.is_empty() && !unit.ends_with('/') {
                unit.push(' ');
            }
            unit.push_str(word);
            self.at += 1;
            while let Some(power) = self.unit_power() {
                unit = format!("{unit}^{power}");
            }
            if matches!(self.peek_at(1), Some(Kind::Text(_))) {
                if self.take_symbol('/') {
                    unit.push('/');
                } else {
                    self.take_symbol('*');
                }
            }
        }
        unit
    }

    /// `^2`, `^{2}`, `^{-1}` or `^-1` behind a unit.
    fn unit_power(&mut self) -> Option<String> {
        let start = self.at;
        let power = self.unit_power_ahead();
        if power.is_none() {
            self.at = start;
        }
        power
    }

    fn unit_power_ahead(&mut self) -> Option<String> {
        self.expect_symbol('^')?;
        let braced = self.take_symbol('{');
        let sign = if self.take_symbol('-') { "-" } else { "" };
        let Some(Kind::Number(power)) = self.peek() else { return None };
        let power = format!("{sign}{power}");
        self.at += 1;
        if braced {
            self.expect_symbol('}')?;
        }
        Some(power)
    }
}
