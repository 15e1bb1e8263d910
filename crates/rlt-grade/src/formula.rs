//! Whether two formulas are the same number, or the same function of their variables.

use super::budget::Budget;
use super::exact::exact;
use super::expression::{Constant, Expr, Function, Operation};
use super::numeric::{Complex, numeric};
use super::rational::Rational;

/// Points at which formulas must agree.
pub(super) const N_POINTS: usize = 8;
/// Points that are tried to find those at which both have a value, and then those of other sizes.
const N_TRIED: usize = 24;
const N_MORE: usize = 40;
/// Doubles that differ by less, relative to their size, are the same number.
const RELATIVE: f64 = 1e-14;
/// And so are those that differ by no more than this many times what rounding may have changed them by.
const ROUNDINGS: f64 = 8.0;
/// Significant digits, and places after the point, that a decimal needs to stand for a number it only
/// approximates.
const MIN_DIGITS: u64 = 6;

/// How two formulas compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    /// Equal as fractions.
    Exact,
    /// Equal at every point that was tried.
    Sampled,
    /// One is the other, rounded to six or more places.
    Rounded,
    /// Different.
    Different,
    /// Nothing was shown: no point at which both have a value, or too much work.
    Unknown,
}

impl Comparison {
    pub fn equal(self) -> bool {
        matches!(self, Self::Exact | Self::Sampled | Self::Rounded)
    }
}

/// Compares two scalar formulas.
pub(super) fn compare(a: &Expr, b: &Expr, budget: &Budget) -> Comparison {
    if a == b {
        return Comparison::Exact;
    }
    if let (Some(a), Some(b)) = (infinite(a), infinite(b)) {
        return if a == b { Comparison::Exact } else { Comparison::Different };
    }
    let names = names(a, b);
    if names.is_empty() {
        return compare_numbers(a, b, budget);
    }
    let mut agreed = 0;
    let mut by_fractions = true;
    for point in points(&names, discrete(a) || discrete(b)) {
        if agreed == N_POINTS || budget.exhausted() {
            break;
        }
        match at_point(a, b, &point, budget) {
            Some((true, exactly)) => {
                agreed += 1;
                by_fractions &= exactly;
            }
            Some((false, _)) => return Comparison::Different,
            None => {}
        }
    }
    match (agreed >= N_POINTS / 2, by_fractions) {
        (false, _) => Comparison::Unknown,
        (true, true) => Comparison::Exact,
        (true, false) => Comparison::Sampled,
    }
}

pub(super) fn names<'a>(a: &'a Expr, b: &'a Expr) -> Vec<&'a str> {
    let mut names = a.variables();
    for name in b.variables() {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// The sign of an infinity.
pub(super) fn infinite(expr: &Expr) -> Option<bool> {
    match expr {
        Expr::Constant(Constant::Infinity) => Some(true),
        Expr::Unary(Function::Neg, of) => infinite(of).map(|positive| !positive),
        _ => None,
    }
}

/// Whether it is defined for whole numbers only, or jumps between them.
pub(super) fn discrete(expr: &Expr) -> bool {
    expr.any(|part| {
        matches!(
            part,
            Expr::Unary(Function::Factorial | Function::Floor | Function::Ceil, _)
                | Expr::Binary(Operation::Binomial, ..)
        )
    })
}

/// Points to try: fractions of both signs, or whole numbers from 1 where the formula counts things. Those behind the
/// first are for formulas with few values there: below 1, above it, and negative.
pub(super) fn points<'a>(names: &[&'a str], discrete: bool) -> Vec<Vec<(&'a str, Rational)>> {
    let n = if names.is_empty() { 1 } else { N_TRIED + N_MORE };
    // A fixed multiplicative sequence: the same points on every machine and in every run.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut draw = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % below) as i64
    };
    let fraction = |num: i64, den: i64| {
        Rational::integer(num)
            .div(&Rational::integer(den), &Budget::new(1000))
            .unwrap_or(Rational::integer(1))
    };
    (0..n)
        .map(|index| {
            let value = |draw: &mut dyn FnMut(u64) -> i64| {
                if discrete {
                    return Rational::integer(1 + draw(12));
                }
                if let Some(more) = index.checked_sub(N_TRIED) {
                    // Roots and inverse functions may want all of one kind, or some of each.
                    let kind = [0, 1, 2, draw(3)][more % 4];
                    return match kind {
                        0 => fraction(1 + draw(88), 91),
                        1 => fraction(60 + draw(540), 53),
                        _ => fraction(11 + draw(190), 47).neg(),
                    };
                }
                let value = fraction(11 + draw(190), 47);
                // Every third point may be negative.
                if index % 3 == 2 && draw(2) == 0 { value.neg() } else { value }
            };
            names.iter().map(|name| (*name, value(&mut draw))).collect()
        })
        .collect()
}

/// Whether they agree at a point, and whether that was shown by fractions; `None` without a value there.
fn at_point(a: &Expr, b: &Expr, point: &[(&str, Rational)], budget: &Budget) -> Option<(bool, bool)> {
    if let (Some(left), Some(right)) = (exact(a, point, budget), exact(b, point, budget)) {
        return Some((left == right, true));
    }
    let ((left, left_error), (right, right_error)) = (numeric(a, point, budget)?, numeric(b, point, budget)?);
    if !left.is_finite() || !right.is_finite() {
        return None;
    }
    // Where a formula of real numbers leaves them, its branch is a convention.
    let complex = |expr: &Expr| expr.any(|part| matches!(part, Expr::Constant(Constant::I)));
    let leaves = |value: Complex| value.im.abs() > 1e-9 * value.abs();
    if (leaves(left) || leaves(right)) && !complex(a) && !complex(b) {
        return None;
    }
    let agree = close(left, right, left_error + right_error);
    // `\sqrt{x}\sqrt{y}` at two negative numbers is real again.
    if !agree
        && !complex(a)
        && !complex(b)
        && (parts_leave(a, point, budget) || parts_leave(b, point, budget))
    {
        return None;
    }
    Some((agree, false))
}

/// Whether a root, a power or a logarithm in it is no real number.
fn parts_leave(expr: &Expr, point: &[(&str, Rational)], budget: &Budget) -> bool {
    let mut leave = false;
    expr.visit(&mut |part| {
        let may = matches!(
            part,
            Expr::Unary(Function::Sqrt | Function::Ln | Function::Log10, _)
                | Expr::Binary(Operation::Pow | Operation::Root | Operation::Log, ..)
        );
        leave = leave
            || (may
                && numeric(part, point, budget).is_none_or(|(value, _)| value.im.abs() > 1e-9 * value.abs()));
    });
    leave
}

fn close(left: Complex, right: Complex, error: f64) -> bool {
    left.sub(right).abs() <= RELATIVE * left.abs().max(right.abs()) + ROUNDINGS * error
}

fn compare_numbers(a: &Expr, b: &Expr, budget: &Budget) -> Comparison {
    let (left, right) = (exact(a, &[], budget), exact(b, &[], budget));
    if let (Some(left), Some(right)) = (&left, &right) {
        if left == right {
            return Comparison::Exact;
        }
        return if rounded(a, left.to_f64(), b, right.to_f64()) {
            Comparison::Rounded
        } else {
            Comparison::Different
        };
    }
    if left.is_none() != right.is_none() && exact_only(a) && exact_only(b) {
        return Comparison::Unknown;
    }
    let (Some((left, left_error)), Some((right, right_error))) =
        (numeric(a, &[], budget), numeric(b, &[], budget))
    else {
        return Comparison::Unknown;
    };
    if !left.is_finite() || !right.is_finite() {
        return Comparison::Unknown;
    }
    if close(left, right, left_error + right_error) {
        return Comparison::Sampled;
    }
    let real = left.im == 0.0 && right.im == 0.0;
    if real && rounded(a, left.re, b, right.re) { Comparison::Rounded } else { Comparison::Different }
}

/// Whether every part of it is rational, so that only its size kept it from being computed exactly.
fn exact_only(expr: &Expr) -> bool {
    !expr.any(|part| match part {
        Expr::Constant(_) => true,
        Expr::Unary(function, _) => !matches!(
            function,
            Function::Neg | Function::Abs | Function::Factorial | Function::Floor | Function::Ceil
        ),
        Expr::Binary(operation, ..) => matches!(operation, Operation::Root | Operation::Log | Operation::Pow),
        _ => false,
    })
}

/// Whether one side is a decimal of at least six digits that the other, which is none, rounds to.
fn rounded(a: &Expr, a_value: f64, b: &Expr, b_value: f64) -> bool {
    match (decimal(a), decimal(b)) {
        (Some(places), None) => rounds_to(a, a_value, places, b_value),
        (None, Some(places)) => rounds_to(b, b_value, places, a_value),
        _ => false,
    }
}

fn rounds_to(decimal: &Expr, value: f64, places: u32, other: f64) -> bool {
    let digits = match decimal {
        Expr::Number { value, .. } => value,
        Expr::Unary(_, of) => match &**of {
            Expr::Number { value, .. } => value,
            _ => return false,
        },
        _ => return false,
    };
    let significant = significant_digits(digits, places);
    significant >= MIN_DIGITS
        && u64::from(places) >= MIN_DIGITS
        && (value - other).abs() <= 0.5000001 * 10_f64.powi(-(places as i32))
}

fn significant_digits(value: &Rational, places: u32) -> u64 {
    let size = value.to_f64().abs().log10().floor() + 1.0 + f64::from(places);
    if size.is_finite() && size > 0.0 { size as u64 } else { 0 }
}

/// The places of a decimal literal, signed or not.
fn decimal(expr: &Expr) -> Option<u32> {
    match expr {
        Expr::Number { places, .. } => *places,
        Expr::Unary(Function::Neg, of) => decimal(of),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse::{Functions, parse};
    use super::super::token::Comma;
    use super::*;

    fn comparison(a: &str, b: &str) -> Comparison {
        let parsed = |text: &str| {
            parse(text, Comma::Separates, Functions::Named(&[])).unwrap_or_else(|| panic!("{text}"))
        };
        compare(&parsed(a), &parsed(b), &Budget::new(Budget::COMPARISON))
    }

    #[test]
    fn numbers_of_every_form() {
        for (a, b) in [
            ("\\frac{1}{2}", "0.5"),
            ("1\\frac{4}{5}", "1.8"),
            ("2^{10}", "1024"),
            ("2^{2020}", "2 \\cdot 2^{2019}"),
            ("\\frac{100!}{2^{50}}", "100!/2^50"),
            ("\\sqrt[3]{-8}", "-2"),
            ("\\binom{5}{2}", "10"),
        ] {
            assert!(comparison(a, b).equal(), "{a} = {b}: {:?}", comparison(a, b));
        }
        assert_eq!(comparison("\\frac{1}{\\sqrt{2}}", "\\frac{\\sqrt{2}}{2}"), Comparison::Sampled);
        assert_eq!(comparison("\\sqrt{2}", "1.414214"), Comparison::Rounded);
        assert_eq!(comparison("\\frac13", "0.333333"), Comparison::Rounded);
        for (a, b) in [
            ("\\frac13", "0.3333"),
            ("\\frac13", "0.333334"),
            ("\\pi", "3.14159"),
            ("2^{2020}", "2^{2019}"),
            ("2017.0000001", "2017"),
            ("0.0000672", "0.0000671"),
        ] {
            let found = comparison(a, b);
            assert_eq!(found, Comparison::Different, "{a}, {b}");
        }
        assert_eq!(comparison("9^{9^{9^9}}", "9^{9^9}"), Comparison::Unknown);
    }

    #[test]
    fn functions_of_variables() {
        for (a, b) in [
            ("(x+1)^2", "x^2+2x+1"),
            ("\\frac{x^2-1}{x-1}", "x+1"),
            ("\\cot x", "\\frac{\\cos x}{\\sin x}"),
            ("\\binom{2n}{n}", "\\frac{(2n)!}{n!^2}"),
            ("m n-\\lfloor m / 2\\rfloor", "mn - \\lfloor \\frac{m}{2} \\rfloor"),
            ("\\ln x^2", "2\\ln x"),
            ("e^{i x}", "e^{ix}"),
            ("\\sin^2 x", "1 - \\cos^2 x"),
        ] {
            assert!(comparison(a, b).equal(), "{a} = {b}: {:?}", comparison(a, b));
        }
        for (a, b) in
            [("\\sqrt{x^2}", "x"), ("x", "y"), ("x", "2"), ("2^n", "n^2"), ("\\lfloor n/2 \\rfloor", "n/2")]
        {
            assert_eq!(comparison(a, b), Comparison::Different, "{a} {b}");
        }
    }
}
