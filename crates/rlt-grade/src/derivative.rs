//! Derivatives of a name: `\frac{dx}{dt}`, `x'` and `\dot{x}` are symbols of their own, no quotients and no products.
//!
//! A derivative is a variable whose name is that of what is derived, a mark for each order (`'`, or a dot), and behind a
//! slash, where it is said, by what: `x''/t`.

use super::expression::{Expr, Operation};

pub(super) const PRIME: char = '\'';
pub(super) const DOT: char = '\u{307}';

/// What `\partial` is read as.
pub(super) const PARTIAL: &str = "\\partial";

/// A derivative's name, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Derivative<'a> {
    of: &'a str,
    mark: char,
    order: usize,
    by: Option<&'a str>,
}

impl<'a> Derivative<'a> {
    /// Of a variable's or an unknown function's name; `None` where that is no derivative.
    fn named(name: &'a str) -> Option<Self> {
        let name = name.trim_end_matches("()");
        let marked = |text: &str| text.ends_with([PRIME, DOT]);
        let (head, by) = match name.rsplit_once('/') {
            Some((head, by)) if marked(head) => (head, Some(by)),
            _ => (name, None),
        };
        let mark = head.chars().next_back().filter(|_| marked(head))?;
        let of = head.trim_end_matches(mark);
        Some(Self { of, mark, order: head[of.len()..].chars().count(), by })
    }

    fn name(self) -> String {
        let marks = String::from(self.mark).repeat(self.order);
        match self.by {
            Some(by) => format!("{}{marks}/{by}", self.of),
            None => format!("{}{marks}", self.of),
        }
    }
}

/// Whether a name is a derivative's.
pub(super) fn is_derivative(name: &str) -> bool {
    Derivative::named(name).is_some()
}

/// What a derivative is the derivative of; the name itself where it is none.
pub(super) fn derived(name: &str) -> &str {
    Derivative::named(name).map_or_else(|| name.trim_end_matches("()"), |derivative| derivative.of)
}

/// The factors of a product, first to last.
fn factors(product: &Expr) -> Vec<&Expr> {
    match product {
        Expr::Binary(Operation::Mul, left, right) => {
            let mut all = factors(left);
            all.push(right);
            all
        }
        other => vec![other],
    }
}

fn product(factors: &[&Expr]) -> Option<Expr> {
    factors.iter().copied().cloned().reduce(|a, b| Expr::binary(Operation::Mul, a, b))
}

/// The whole exponent of a power, up to 9, and what is raised.
fn power(of: &Expr) -> Option<(&Expr, usize)> {
    match of {
        Expr::Binary(Operation::Pow, base, exponent) => {
            let order = (1..=9).find(|&n| **exponent == Expr::integer(n))?;
            Some((base, order as usize))
        }
        other => Some((other, 1)),
    }
}

/// `d`, `d^2`, `\partial`: which letter, and the order.
fn differential(of: &Expr) -> Option<(&str, usize)> {
    match power(of)? {
        (Expr::Variable(name), order) if name == "d" || name == PARTIAL => Some((name, order)),
        _ => None,
    }
}

/// Whether a product ends in a differential of one symbol: `m dv`.
pub(super) fn ends_in_differential(of: &Expr) -> bool {
    let factors = factors(of);
    matches!(factors.as_slice(), [.., d, Expr::Variable(_) | Expr::Applied { .. }] if differential(d).is_some())
}

/// `top` over `bottom`: a derivative where they are `d^n A` and `d B^n`.
pub(super) fn quotient(top: Expr, bottom: Expr) -> Expr {
    derivative(&top, &bottom).unwrap_or_else(|| Expr::binary(Operation::Div, top, bottom))
}

fn derivative(top: &Expr, bottom: &Expr) -> Option<Expr> {
    let (top, bottom) = (factors(top), factors(bottom));
    let (mark, _) = differential(bottom[0])?;
    let start = top.iter().rposition(|factor| differential(factor).is_some_and(|(name, _)| name == mark))?;
    let (_, order) = differential(top[start])?;
    let (factor, rest) = (&top[..start], &top[start + 1..]);
    // `\partial x\,\partial y`, `d t^2`.
    let (mut by, mut total) = (String::new(), 0);
    for pair in bottom.chunks(2) {
        let [d, of] = pair else { return None };
        let (Expr::Variable(name), n) = power(of)? else { return None };
        (differential(d)? == (mark, 1)).then_some(())?;
        let power = if n > 1 && bottom.len() > 2 { n.to_string() } else { String::new() };
        by = format!("{by}{}{name}{power}", if mark == PARTIAL { "∂" } else { "" });
        total += n;
    }
    (total == order).then_some(())?;
    let name = |of: &str| Derivative { of, mark: PRIME, order, by: Some(&by) }.name();
    let is_by = |expr: &Expr| matches!(expr, Expr::Variable(name) if *name == by);
    let symbol = match rest {
        // `\frac{d}{dt}` with what it is applied to behind it.
        [] if factor.is_empty() => Expr::Variable(name("")),
        [Expr::Variable(of)] => Expr::Variable(name(of)),
        [Expr::Applied { name: of, of: arguments }] if arguments.iter().all(is_by) => {
            Expr::Variable(name(of.trim_end_matches("()")))
        }
        // `\frac{dx(t)}{dt}`, where x is read as a factor elsewhere.
        [Expr::Variable(of), argument] if is_by(argument) => Expr::Variable(name(of)),
        [] => return None,
        _ => Expr::Applied { name: format!("{}()", name("")), of: vec![product(rest)?] },
    };
    Some(match product(factor) {
        Some(factor) => Expr::binary(Operation::Mul, factor, symbol),
        None => symbol,
    })
}

/// Both with one notation for each derivative: `x'` and `\dot{x}` are `\frac{dx}{dt}` where it stands in the other one
/// and nothing else that they could be does.
pub(super) fn in_one_notation(a: &Expr, b: &Expr) -> Option<(Expr, Expr)> {
    let names: Vec<&str> = a.variables().into_iter().chain(b.variables()).collect();
    let all: Vec<Derivative> = names.iter().filter_map(|name| Derivative::named(name)).collect();
    // One tree with two notations means two things by them.
    let mixed = |tree: &Expr, of: &str| {
        let own = tree.variables().into_iter().filter_map(Derivative::named).filter(|own| own.of == of);
        let mut notations: Vec<_> = own.map(|own| (own.mark, own.by.map(str::to_owned))).collect();
        notations.dedup();
        notations.len() > 1
    };
    let changed = |name: &str| -> Option<String> {
        let own = Derivative::named(name).filter(|own| own.by.is_none() && !own.of.is_empty())?;
        if mixed(a, own.of) || mixed(b, own.of) {
            return None;
        }
        let mut known = all.iter().filter(|other| other.of == own.of).filter_map(|other| other.by);
        let by = known.next();
        // A dot is a derivative by the time.
        let fits = by.is_none_or(|by| {
            (own.mark == PRIME || by == "t") && !by.contains('∂') && known.all(|other| other == by)
        });
        fits.then_some(())?;
        Some(Derivative { mark: PRIME, by, ..own }.name()).filter(|new| new != name)
    };
    if !names.iter().any(|name| changed(name).is_some()) {
        return None;
    }
    let change = |part| match part {
        Expr::Variable(name) => Expr::Variable(changed(&name).unwrap_or(name)),
        Expr::Applied { name, of } => {
            let new = changed(&name).map(|new| format!("{new}()"));
            Expr::Applied { name: new.unwrap_or(name), of }
        }
        other => other,
    };
    Some((a.changed(&change), b.changed(&change)))
}
