//! By what factor two formulas differ: what makes two equations the same.

use super::budget::Budget;
use super::derivative::{derived, is_derivative};
use super::exact::Point;
use super::expression::Expr;
use super::formula::{N_POINTS, discrete, names, points};
use super::numeric::numeric;

/// The factor c for which `a = c b`, where it is the same at every point; `None` otherwise. A factor needs no
/// more than its sign to be known.
pub(super) fn ratio(a: &Expr, b: &Expr, budget: &Budget) -> Option<f64> {
    let names = names(a, b);
    let mut factor: Option<f64> = None;
    let mut agreed = 0;
    for point in points(&names, discrete(a) || discrete(b)) {
        let (Some((left, _)), Some((right, error))) =
            (numeric(a, &point, budget), numeric(b, &point, budget))
        else {
            if budget.exhausted() {
                return None;
            }
            continue;
        };
        if !left.is_finite() || !right.is_finite() || right.abs() <= 1e6 * error {
            continue;
        }
        let quotient = left.div(right);
        if quotient.im.abs() > 1e-9 || quotient.re == 0.0 {
            return None;
        }
        match factor {
            Some(known) if (known - quotient.re).abs() > 1e-9 * known.abs() => return None,
            _ => factor = Some(factor.unwrap_or(quotient.re)),
        }
        agreed += 1;
        if agreed == N_POINTS {
            break;
        }
    }
    // Without variables every pair of numbers has a ratio: that shows nothing.
    if names.is_empty() || agreed < N_POINTS / 2 { None } else { factor }
}

/// Whether `a = 0` and `b = 0` are the same differential equation: at every point their quotient is a number other
/// than zero that depends neither on a derivative nor on what is derived nor on an unknown function, so that no
/// solution is lost or won. `x^2 = x` and `x = 1`, whose quotient depends on x, are none.
pub(super) fn proportional(a: &Expr, b: &Expr, budget: &Budget) -> bool {
    let names = names(a, b);
    let own = |tree: &Expr| -> Vec<String> {
        let mut own: Vec<String> =
            tree.variables().into_iter().filter(|name| is_derivative(name)).map(str::to_owned).collect();
        own.sort_unstable();
        own
    };
    if own(a).is_empty() || own(a) != own(b) {
        return false;
    }
    let unknowns: Vec<&str> =
        names.iter().filter(|name| is_derivative(name)).map(|name| derived(name)).collect();
    let unknown = |name: &str| name.ends_with("()") || is_derivative(name) || unknowns.contains(&name);
    let points = points(&names, discrete(a) || discrete(b));
    let quotient = |point: &Point| -> Option<f64> {
        let ((left, left_error), (right, right_error)) =
            (numeric(a, point, budget)?, numeric(b, point, budget)?);
        let known = left.is_finite()
            && right.is_finite()
            && left.abs() > 1e6 * left_error
            && right.abs() > 1e6 * right_error;
        let quotient = left.div(right);
        (known && quotient.im.abs() <= 1e-9 * quotient.re.abs()).then_some(quotient.re)
    };
    let mut agreed = 0;
    for (index, parameters) in points.iter().enumerate() {
        if agreed == N_POINTS || budget.exhausted() {
            break;
        }
        // The same parameters with the unknowns of three points.
        let mut found: Vec<f64> = Vec::new();
        for shift in [0, 1, 5] {
            let others = &points[(index + shift) % points.len()];
            let point: Vec<_> = parameters
                .iter()
                .zip(others)
                .map(|(own, other)| if unknown(own.0) { other.clone() } else { own.clone() })
                .collect();
            found.extend(quotient(&point));
        }
        let [first, rest @ ..] = found.as_slice() else { continue };
        if rest.iter().any(|other| (other - first).abs() > 1e-9 * first.abs()) {
            return false;
        }
        agreed += usize::from(rest.len() == 2);
    }
    !budget.exhausted() && agreed >= N_POINTS / 2
}
