//! Sets of real numbers: intervals, unions of them, inequalities in one variable.
//!
//! Two such sets are equal when they agree at every end point and between neighbouring ones.

use super::budget::Budget;
use super::expression::{Bracket, Expr, Relation, SetOperation};
use super::formula::infinite;
use super::numeric::numeric;

/// Whether two expressions are the same set of real numbers; `None` when one is none.
pub(super) fn same_real_set(a: &Expr, b: &Expr, budget: &Budget) -> Option<bool> {
    // Conditions on different variables describe different things, but `\{x \mid ..\}` gives its own a name.
    let (names, others) = (a.variables(), b.variables());
    if names.len() > 1 || others.len() > 1 {
        return None;
    }
    if !names.is_empty() && !others.is_empty() && names != others && !names_its_own(a) && !names_its_own(b) {
        return None;
    }
    let sets = [RealSet::of(a, budget)?, RealSet::of(b, budget)?];
    let points = points_that_decide(&sets, budget)?;
    Some(points.into_iter().all(|x| sets[0].contains(x) == sets[1].contains(x)))
}

/// Whether it is a set by a condition.
fn names_its_own(expr: &Expr) -> bool {
    match expr {
        Expr::SetOperation(SetOperation::Intersection, domain, _) => {
            matches!(&**domain, Expr::Group { .. }) || names_its_own(domain)
        }
        _ => false,
    }
}

/// All end points, one point between each neighbouring two, and one beyond them on each side.
fn points_that_decide(sets: &[RealSet], budget: &Budget) -> Option<Vec<f64>> {
    let mut ends = Vec::new();
    for set in sets {
        set.ends(&mut ends);
    }
    ends.retain(|x| x.is_finite());
    ends.sort_by(f64::total_cmp);
    ends.dedup_by(|x, y| near(*x, *y));
    let mut points = vec![ends.first().map_or(0.0, |x| x - 1.0), ends.last().map_or(0.0, |x| x + 1.0)];
    points.extend(ends.windows(2).map(|pair| f64::midpoint(pair[0], pair[1])));
    points.extend(&ends);
    budget.spend(points.len() as u64 * ends.len() as u64)?;
    Some(points)
}

enum RealSet {
    Interval {
        low: f64,
        low_closed: bool,
        high: f64,
        high_closed: bool,
    },
    Points(Vec<f64>),
    /// Everything but a point.
    Except(f64),
    Of(SetOperation, Box<RealSet>, Box<RealSet>),
}

impl RealSet {
    fn of(expr: &Expr, budget: &Budget) -> Option<Self> {
        match expr {
            Expr::Group { open, close, items } if items.len() == 2 => Some(Self::Interval {
                low: number(&items[0], budget)?,
                low_closed: *open == Bracket::Square,
                high: number(&items[1], budget)?,
                high_closed: *close == Bracket::Square,
            }),
            Expr::Set(_) if expr.is_inequality() => Self::of_conditions(expr, budget),
            Expr::Set(items) => {
                items.iter().map(|item| number(item, budget)).collect::<Option<Vec<f64>>>().map(Self::Points)
            }
            Expr::SetOperation(operation, left, right) => Some(Self::Of(
                *operation,
                Box::new(Self::of(left, budget)?),
                Box::new(Self::of(right, budget)?),
            )),
            Expr::Statement(first, rest) => Self::of_statement(first, rest, budget),
            _ => None,
        }
    }

    /// `x < -2, x > 2`: a comma means "or" where both cannot hold, and "and" where they can.
    fn of_conditions(list: &Expr, budget: &Budget) -> Option<Self> {
        let Expr::Set(items) = list else { return None };
        let conditions = items.iter().all(|item| matches!(item, Expr::Statement(..)));
        let sets: Vec<Self> =
            items.iter().map(|item| Self::of(item, budget)).collect::<Option<_>>().filter(|_| conditions)?;
        let overlap = points_that_decide(&sets, budget)?
            .into_iter()
            .any(|x| sets.iter().filter(|set| set.contains(x)).count() > 1);
        let operation = if overlap { SetOperation::Intersection } else { SetOperation::Union };
        sets.into_iter().reduce(|a, b| Self::Of(operation, Box::new(a), Box::new(b)))
    }

    fn of_statement(first: &Expr, rest: &[(Relation, Expr)], budget: &Budget) -> Option<Self> {
        if let (Expr::Variable(_), [(Relation::Element, set)]) = (first, rest) {
            return Self::of(set, budget);
        }
        let mut sets = Vec::new();
        let mut left = first;
        for (relation, right) in rest {
            sets.push(match (left, right) {
                (Expr::Variable(_), bound) => half_line(*relation, number(bound, budget)?)?,
                (bound, Expr::Variable(_)) => half_line(reversed(*relation)?, number(bound, budget)?)?,
                _ => return None,
            });
            left = right;
        }
        let variables: Vec<&Expr> = std::iter::once(first)
            .chain(rest.iter().map(|(_, side)| side))
            .filter(|side| matches!(side, Expr::Variable(_)))
            .collect();
        (variables.len() == 1).then_some(())?;
        sets.into_iter().reduce(|a, b| Self::Of(SetOperation::Intersection, Box::new(a), Box::new(b)))
    }

    fn ends(&self, into: &mut Vec<f64>) {
        match self {
            Self::Interval { low, high, .. } => into.extend([*low, *high]),
            Self::Points(points) => into.extend(points),
            Self::Except(point) => into.push(*point),
            Self::Of(_, left, right) => {
                left.ends(into);
                right.ends(into);
            }
        }
    }

    fn contains(&self, x: f64) -> bool {
        match self {
            Self::Interval { low, low_closed, high, high_closed } => {
                let above = if near(x, *low) { *low_closed } else { x > *low };
                let below = if near(x, *high) { *high_closed } else { x < *high };
                above && below
            }
            Self::Points(points) => points.iter().any(|point| near(x, *point)),
            Self::Except(point) => !near(x, *point),
            Self::Of(operation, left, right) => match operation {
                SetOperation::Union => left.contains(x) || right.contains(x),
                SetOperation::Intersection => left.contains(x) && right.contains(x),
                SetOperation::Difference => left.contains(x) && !right.contains(x),
            },
        }
    }
}

/// `x relation bound` as a set of x.
fn half_line(relation: Relation, bound: f64) -> Option<RealSet> {
    let (low, high) = (f64::NEG_INFINITY, f64::INFINITY);
    let interval =
        |low, low_closed, high, high_closed| RealSet::Interval { low, low_closed, high, high_closed };
    Some(match relation {
        Relation::Less => interval(low, false, bound, false),
        Relation::LessEqual => interval(low, false, bound, true),
        Relation::Greater => interval(bound, false, high, false),
        Relation::GreaterEqual => interval(bound, true, high, false),
        Relation::NotEqual => RealSet::Except(bound),
        Relation::Equal => RealSet::Points(vec![bound]),
        Relation::Element => return None,
    })
}

/// The relation with its sides exchanged.
pub(super) fn reversed(relation: Relation) -> Option<Relation> {
    Some(match relation {
        Relation::Less => Relation::Greater,
        Relation::LessEqual => Relation::GreaterEqual,
        Relation::Greater => Relation::Less,
        Relation::GreaterEqual => Relation::LessEqual,
        Relation::Equal | Relation::NotEqual => relation,
        Relation::Element => return None,
    })
}

fn number(expr: &Expr, budget: &Budget) -> Option<f64> {
    if let Some(positive) = infinite(expr) {
        return Some(if positive { f64::INFINITY } else { f64::NEG_INFINITY });
    }
    let expr = match expr {
        Expr::WithUnit(of, _) => of,
        other => other,
    };
    let (value, _) = numeric(expr, &[], budget)?;
    (value.is_finite() && value.im == 0.0).then_some(value.re)
}

fn near(a: f64, b: f64) -> bool {
    let difference = (a - b).abs();
    a.is_finite() && b.is_finite() && (difference <= 1e-11 * a.abs().max(b.abs()) || difference <= 1e-13)
}
