//! Values as exact fractions, where an expression has one.

use super::budget::Budget;
use super::expression::{Expr, Function, Operation};
use super::rational::Rational;

/// A variable's name with its value.
pub(super) type Point<'a> = [(&'a str, Rational)];

/// The value of `expr` at `point` as a fraction; `None` where it is none (an irrational number, a division by
/// zero), or where it takes too many digits or too much work.
pub(super) fn exact(expr: &Expr, point: &Point, budget: &Budget) -> Option<Rational> {
    budget.spend(1)?;
    let value = |of: &Expr| exact(of, point, budget);
    match expr {
        Expr::Number { value, .. } => Some(value.clone()),
        Expr::Variable(name) => point.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone()),
        Expr::Percent(of) => value(of)?.div(&Rational::integer(100), budget),
        Expr::Unary(function, of) => {
            let of = value(of)?;
            match function {
                Function::Neg => Some(of.neg()),
                Function::Abs => Some(of.abs()),
                Function::Factorial => of.factorial(budget),
                Function::Floor => Some(of.floor()),
                Function::Ceil => Some(of.neg().floor().neg()),
                Function::Sqrt => of.pow(&half(budget)?, budget),
                _ => None,
            }
        }
        Expr::Binary(operation, left, right) => {
            let (left, right) = (value(left)?, value(right)?);
            match operation {
                Operation::Add => left.add(&right, budget),
                Operation::Sub => left.sub(&right, budget),
                Operation::Mul => left.mul(&right, budget),
                Operation::Div => left.div(&right, budget),
                Operation::Pow => {
                    // 0^0 has no value everybody agrees on.
                    (!(left.is_zero() && right.is_zero())).then_some(())?;
                    left.pow(&right, budget)
                }
                Operation::Root => right.pow(&Rational::integer(1).div(&left, budget)?, budget),
                Operation::Binomial => left.binomial(&right, budget),
                Operation::Log => whole_logarithm(&left, &right, budget),
                Operation::PlusMinus | Operation::MinusPlus => None,
            }
        }
        _ => None,
    }
}

fn half(budget: &Budget) -> Option<Rational> {
    Rational::integer(1).div(&Rational::integer(2), budget)
}

/// `\log_base of` where it is a whole number from 0 to 64.
fn whole_logarithm(base: &Rational, of: &Rational, budget: &Budget) -> Option<Rational> {
    let mut power = Rational::integer(1);
    for exponent in 0..=64 {
        if power == *of {
            return Some(Rational::integer(exponent));
        }
        power = power.mul(base, budget)?;
    }
    None
}
