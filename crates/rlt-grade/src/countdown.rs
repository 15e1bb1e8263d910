//! Countdown: an expression of given numbers, each used exactly once, that makes a target.

use super::budget::Budget;
use super::equivalence::Judgement;
use super::rational::Rational;

/// Longest expression that is read, bytes.
const MAX_BYTES: usize = 1000;
/// Deepest nesting of brackets.
const MAX_DEPTH: usize = 32;

/// Judges an expression of whole numbers, `+ - * /` and brackets (LaTeX signs and `\frac` too). What stands behind
/// an equals sign must be the target.
pub fn judge_countdown(expression: &str, numbers: &[i64], target: i64) -> Judgement {
    let (left, right) = match expression.split_once('=') {
        Some((left, right)) => (left, Some(right)),
        None => (expression, None),
    };
    let budget = Budget::new(Budget::COMPARISON);
    let Some(mut reader) = Reader::new(left) else {
        return Judgement::no("not an expression of whole numbers, + - * / and brackets");
    };
    let value = reader.sum(&budget);
    if reader.at < reader.symbols.len() || (value.is_none() && !reader.undefined) {
        return Judgement::no("not an expression of whole numbers, + - * / and brackets");
    }
    let (mut used, mut given) = (reader.used, numbers.to_vec());
    used.sort_unstable();
    given.sort_unstable();
    if used != given {
        return Judgement::no(format!("uses {used:?}, not each of {given:?} once"));
    }
    let Some(value) = value.filter(|_| !reader.undefined) else { return Judgement::no("divides by zero") };
    let target = Rational::integer(target);
    if value != target {
        return Judgement::no(format!("makes {value}, not {target}"));
    }
    if let Some(right) = right {
        let said = Reader::new(right).and_then(|mut reader| {
            let value = reader.sum(&budget)?;
            (reader.at == reader.symbols.len()).then_some(value)
        });
        if said != Some(target) {
            return Judgement::no("claims to make something else than the target");
        }
    }
    Judgement::yes("makes the target from each number once")
}

enum Symbol {
    Number(i64),
    Sign(char),
}

struct Reader {
    symbols: Vec<Symbol>,
    at: usize,
    depth: usize,
    used: Vec<i64>,
    /// A division by zero, or numbers beyond any sense.
    undefined: bool,
}

impl Reader {
    fn new(text: &str) -> Option<Self> {
        if text.len() > MAX_BYTES {
            return None;
        }
        let mut plain = text.replace("\\left", "").replace("\\right", "").replace("\\dfrac", "\\frac");
        for (from, to) in [
            ("\\times", "*"),
            ("\\cdot", "*"),
            ("\\div", "/"),
            ("×", "*"),
            ("·", "*"),
            ("÷", "/"),
            ("−", "-"),
            ("\\,", " "),
            ("\\ ", " "),
            ("$", " "),
            ("[", "("),
            ("]", ")"),
        ] {
            plain = plain.replace(from, to);
        }
        let plain = fractions(&plain)?;
        let mut symbols = Vec::new();
        let mut chars = plain.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                c if c.is_whitespace() => {}
                '0'..='9' => {
                    let mut digits = String::from(c);
                    while let Some(c) = chars.next_if(char::is_ascii_digit) {
                        digits.push(c);
                    }
                    symbols.push(Symbol::Number(digits.parse().ok()?));
                }
                '+' | '-' | '*' | '/' | '(' | ')' => symbols.push(Symbol::Sign(c)),
                _ => return None,
            }
        }
        Some(Self { symbols, at: 0, depth: 0, used: Vec::new(), undefined: false })
    }

    fn take(&mut self, signs: &str) -> Option<char> {
        match self.symbols.get(self.at) {
            Some(Symbol::Sign(sign)) if signs.contains(*sign) => {
                self.at += 1;
                Some(*sign)
            }
            _ => None,
        }
    }

    fn sum(&mut self, budget: &Budget) -> Option<Rational> {
        let mut value = self.product(budget)?;
        while let Some(sign) = self.take("+-") {
            let right = self.product(budget)?;
            value = if sign == '+' { value.add(&right, budget) } else { value.sub(&right, budget) }?;
        }
        Some(value)
    }

    fn product(&mut self, budget: &Budget) -> Option<Rational> {
        let mut value = self.factor(budget)?;
        while let Some(sign) = self.take("*/") {
            let right = self.factor(budget)?;
            if sign == '/' && right.is_zero() {
                self.undefined = true;
                // The numbers behind it still count as used.
                value = Rational::integer(0);
                continue;
            }
            value = if sign == '*' { value.mul(&right, budget) } else { value.div(&right, budget) }?;
        }
        Some(value)
    }

    fn factor(&mut self, budget: &Budget) -> Option<Rational> {
        if self.take("-").is_some() {
            self.depth += 1;
            let value = if self.depth > MAX_DEPTH { None } else { self.factor(budget) };
            self.depth -= 1;
            return Some(value?.neg());
        }
        if self.take("(").is_some() {
            self.depth += 1;
            if self.depth > MAX_DEPTH {
                return None;
            }
            let value = self.sum(budget)?;
            self.depth -= 1;
            self.take(")")?;
            return Some(value);
        }
        match self.symbols.get(self.at) {
            Some(Symbol::Number(number)) => {
                let number = *number;
                self.at += 1;
                self.used.push(number);
                Some(Rational::integer(number))
            }
            _ => None,
        }
    }
}

/// `\frac{a}{b}` as `((a)/(b))`; other braces become brackets.
fn fractions(text: &str) -> Option<String> {
    let mut out = String::new();
    // For each open brace: whether it closes a numerator.
    let mut open = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("\\frac") {
            let after = after.trim_start().strip_prefix('{')?;
            out.push_str("((");
            open.push(true);
            rest = after;
            continue;
        }
        rest = &rest[c.len_utf8()..];
        match c {
            '{' => {
                out.push('(');
                open.push(false);
            }
            '}' => {
                out.push(')');
                if open.pop()? {
                    rest = rest.trim_start().strip_prefix('{')?;
                    out.push_str("/(");
                    // Closes the denominator and the whole fraction.
                    open.push(false);
                    out = close_fraction(out, &mut rest)?;
                    open.pop();
                }
            }
            other => out.push(other),
        }
    }
    open.is_empty().then_some(out)
}

/// Appends the denominator up to its brace, and both closing brackets.
fn close_fraction(mut out: String, rest: &mut &str) -> Option<String> {
    let end = rest.find('}')?;
    let denominator = &rest[..end];
    if denominator.contains(['{', '\\']) {
        return None;
    }
    out.push_str(denominator);
    out.push_str("))");
    *rest = &rest[end + 1..];
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_once_and_the_target_exactly() {
        let right = ["44+19+35", "44 + (19 + 35) = 98", "35 + 44 + 19 = 98", "(44+19)+35", "44 - (-19) + 35"];
        for text in right {
            let judgement = judge_countdown(text, &[44, 19, 35], 98);
            assert!(judgement.equal, "{text}: {}", judgement.reason);
        }
        for text in [
            "44+19",
            "44+19+35+0",
            "44+54",
            "98",
            "44+19+35=97",
            "44*19+35",
            "44+19+35)",
            "",
            "4419+35",
            "44+19+35; 1",
        ] {
            assert!(!judge_countdown(text, &[44, 19, 35], 98).equal, "{text}");
        }
    }

    #[test]
    fn fractions_are_exact() {
        assert!(judge_countdown("8/(3-8/3)", &[8, 3, 8, 3], 24).equal);
        assert!(judge_countdown("\\frac{8}{3} \\times 3", &[8, 3, 3], 8).equal);
        assert!(judge_countdown("\\frac{8 + 4}{3}", &[8, 3, 4], 4).equal);
        assert_eq!(judge_countdown("5/(2-2)", &[5, 2, 2], 5).reason, "divides by zero");
        assert!(!judge_countdown("1/3*3000001", &[1, 3, 3_000_001], 1_000_000).equal);
    }

    #[test]
    fn hostile_input_is_refused() {
        for text in ["(".repeat(20_000), "-".repeat(900), "9**9**9".into(), "__import__('os')".into()] {
            assert!(!judge_countdown(&text, &[9, 9, 9], 1).equal);
        }
    }
}
