//! Countdown: an expression of given numbers, each used exactly once, that makes a target.

use super::budget::Budget;
use super::equivalence::Judgement;
use super::rational::Rational;
use super::typography::is_minus;

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
    if !reader.uses_each_once(numbers) {
        let mut given = numbers.to_vec();
        given.sort_unstable();
        return Judgement::no(format!("uses {:?}, not each of {given:?} once", reader.used()));
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
    Number(u64),
    Sign(char),
}

struct Reader {
    symbols: Vec<Symbol>,
    at: usize,
    depth: usize,
    /// The numbers as they are written, without a sign, and whether a minus stands right before.
    used: Vec<(u64, bool)>,
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
                c if is_minus(c) => symbols.push(Symbol::Sign('-')),
                '0'..='9' => {
                    let mut digits = String::from(c);
                    while let Some(c) = chars.next_if(char::is_ascii_digit) {
                        digits.push(c);
                    }
                    symbols.push(Symbol::Number(digits.parse().ok()?));
                }
                '+' | '*' | '/' | '(' | ')' => symbols.push(Symbol::Sign(c)),
                _ => return None,
            }
        }
        Some(Self { symbols, at: 0, depth: 0, used: Vec::new(), undefined: false })
    }

    /// Whether the numbers are `given`, each once. A minus before a number is its own sign where that number was
    /// given, and else one of the expression's.
    fn uses_each_once(&self, given: &[i64]) -> bool {
        let sizes = |numbers: Vec<u64>| {
            let mut numbers = numbers;
            numbers.sort_unstable();
            numbers
        };
        let used = sizes(self.used.iter().map(|(size, _)| *size).collect());
        let wanted = sizes(given.iter().map(|number| number.unsigned_abs()).collect());
        // A negative number must be written with its sign.
        let signed = |size: u64| self.used.iter().filter(|used| **used == (size, true)).count();
        let negative = |of: i64| given.iter().filter(|number| **number == of).count();
        used == wanted && given.iter().all(|&of| of >= 0 || signed(of.unsigned_abs()) >= negative(of))
    }

    /// The numbers in order, for messages.
    fn used(&self) -> Vec<u64> {
        let mut sizes: Vec<u64> = self.used.iter().map(|(size, _)| *size).collect();
        sizes.sort_unstable();
        sizes
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

    /// Whether the symbol at a place is a minus that subtracts from nothing.
    fn is_unary_minus(&self, at: usize) -> bool {
        let minus = matches!(self.symbols.get(at), Some(Symbol::Sign('-')));
        let operand = |symbol: &Symbol| matches!(symbol, Symbol::Number(_) | Symbol::Sign(')'));
        minus && !at.checked_sub(1).is_some_and(|before| operand(&self.symbols[before]))
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
                let signed = self.at.checked_sub(1).is_some_and(|before| self.is_unary_minus(before));
                self.at += 1;
                self.used.push((number, signed));
                Some(Rational::integer(i64::try_from(number).ok()?))
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
    fn negative_numbers_are_written_with_their_sign() {
        for (text, numbers, target) in [
            ("5 - (-3)", vec![5, -3], 8),
            ("-3 + 5", vec![-3, 5], 2),
            ("(−3) \\times 4", vec![-3, 4], -12),
            ("-3 - -4 = 1", vec![-3, -4], 1),
            ("5 * (-(3))", vec![5, 3], -15),
            ("44 - (-19)", vec![44, 19], 63),
        ] {
            let judgement = judge_countdown(text, &numbers, target);
            assert!(judgement.equal, "{text}: {}", judgement.reason);
        }
        for (text, numbers, target) in [
            // The number that was given is -3.
            ("5 - 3", vec![5, -3], 2),
            ("5 * 3", vec![5, -3], 15),
            ("5 - (-3)", vec![5, -3, -3], 8),
            ("-3 + 5", vec![3, -5], 2),
            ("-(3) + 5", vec![-3, 5], 2),
        ] {
            assert!(!judge_countdown(text, &numbers, target).equal, "{text}");
        }
    }

    #[test]
    fn hostile_input_is_refused() {
        for text in ["(".repeat(20_000), "-".repeat(900), "9**9**9".into(), "__import__('os')".into()] {
            assert!(!judge_countdown(&text, &[9, 9, 9], 1).equal);
        }
    }
}
