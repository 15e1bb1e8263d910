//! Values as complex doubles, for roots, logarithms and angles.

use super::budget::Budget;
use super::exact::{Point, exact};
use super::expression::{Constant, Expr, Function, Operation};

/// A complex number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Complex {
    pub re: f64,
    pub im: f64,
}

impl Complex {
    pub const fn real(re: f64) -> Self {
        Self { re, im: 0.0 }
    }

    pub fn is_finite(self) -> bool {
        self.re.is_finite() && self.im.is_finite()
    }

    pub fn abs(self) -> f64 {
        self.re.hypot(self.im)
    }

    /// Moved by an error.
    fn shifted(self, by: f64) -> Self {
        Self { re: self.re + by, im: self.im }
    }

    pub fn sub(self, other: Self) -> Self {
        Self { re: self.re - other.re, im: self.im - other.im }
    }

    fn add(self, other: Self) -> Self {
        Self { re: self.re + other.re, im: self.im + other.im }
    }

    fn mul(self, other: Self) -> Self {
        Self { re: self.re * other.re - self.im * other.im, im: self.re * other.im + self.im * other.re }
    }

    pub fn div(self, other: Self) -> Self {
        let norm = other.re * other.re + other.im * other.im;
        let conjugate = Self { re: other.re / norm, im: -other.im / norm };
        self.mul(conjugate)
    }

    fn ln(self) -> Self {
        Self { re: self.abs().ln(), im: self.im.atan2(self.re) }
    }

    fn exp(self) -> Self {
        let size = self.re.exp();
        if self.im == 0.0 {
            return Self::real(size);
        }
        Self { re: size * self.im.cos(), im: size * self.im.sin() }
    }

    fn pow(self, exponent: Self) -> Self {
        if exponent.im == 0.0 && (self.im == 0.0 && (self.re > 0.0 || exponent.re.fract() == 0.0)) {
            return Self::real(self.re.powf(exponent.re));
        }
        if exponent.im == 0.0 && exponent.re.fract() == 0.0 && exponent.re.abs() <= 64.0 {
            let product = (0..exponent.re.abs() as u32).fold(Self::real(1.0), |product, _| product.mul(self));
            return if exponent.re < 0.0 { Self::real(1.0).div(product) } else { product };
        }
        if self.abs() == 0.0 {
            return Self::real(if exponent.re > 0.0 { 0.0 } else { f64::NAN });
        }
        self.ln().mul(exponent).exp()
    }

    /// Applies a function of real numbers; not a number elsewhere.
    fn map_real(self, function: impl Fn(f64) -> f64) -> Self {
        Self::real(if self.im.abs() < 1e-12 { function(self.re) } else { f64::NAN })
    }
}

/// Rounding of one operation, relative to its result.
const ROUNDING: f64 = 4e-16;

/// The value of `expr` at `point`, which may be infinite or not a number, and what rounding may have changed it
/// by. `None` when the budget is spent or there is no value at all.
pub(super) fn numeric(expr: &Expr, point: &Point, budget: &Budget) -> Option<(Complex, f64)> {
    budget.spend(2)?;
    let (value, carried) = match expr {
        Expr::Number { value, .. } => (Complex::real(value.to_f64()), 0.0),
        Expr::Variable(name) => {
            (Complex::real(point.iter().find(|(known, _)| known == name)?.1.to_f64()), 0.0)
        }
        Expr::Constant(constant) => {
            let value = match constant {
                Constant::Pi => Complex::real(std::f64::consts::PI),
                Constant::E => Complex::real(std::f64::consts::E),
                Constant::I => Complex { re: 0.0, im: 1.0 },
                Constant::Infinity => Complex::real(f64::INFINITY),
            };
            (value, 0.0)
        }
        Expr::Percent(of) => {
            let (of, error) = numeric(of, point, budget)?;
            (of.div(Complex::real(100.0)), error / 100.0)
        }
        Expr::Applied { name, of } => {
            let (_, size) = point.iter().find(|(known, _)| known == name)?;
            unknown_function(size.to_f64(), of, point, budget)?
        }
        Expr::Unary(Function::Factorial, _) | Expr::Binary(Operation::Binomial, ..) => {
            (Complex::real(exact(expr, point, budget)?.to_f64()), 0.0)
        }
        Expr::Unary(function, of) => {
            let (of, error) = numeric(of, point, budget)?;
            let value = apply(*function, of);
            (value, change(value, apply(*function, of.shifted(error))))
        }
        Expr::Binary(operation, left, right) => {
            let ((left, left_error), (right, right_error)) =
                (numeric(left, point, budget)?, numeric(right, point, budget)?);
            let value = combine(*operation, left, right)?;
            let by_left = change(value, combine(*operation, left.shifted(left_error), right)?);
            let by_right = change(value, combine(*operation, left, right.shifted(right_error))?);
            (value, by_left + by_right)
        }
        _ => return None,
    };
    Some((value, carried + ROUNDING * value.abs()))
}

/// The value of a function of which nothing is known: a smooth one of no symmetry, another at every point of
/// comparison, so that only the same function of the same arguments agrees.
fn unknown_function(size: f64, of: &[Expr], point: &Point, budget: &Budget) -> Option<(Complex, f64)> {
    let (mut argument, mut error) = (0.0, 0.0);
    for (place, of) in of.iter().enumerate() {
        let (value, by) = numeric(of, point, budget)?;
        // Of two arguments the order counts, and so does the imaginary part of each.
        let weight = 1.0 + 0.414_213_562_373_095 * place as f64;
        argument += weight * (value.re + 0.732_050_807_568_877 * value.im);
        error += weight * by;
    }
    let value = |argument: f64| {
        Complex::real(1.5 + size.abs() + (1.3 * argument + size).cos() + 0.25 * (0.7 * argument * size).sin())
    };
    Some((value(argument), change(value(argument), value(argument + error))))
}

/// How far an error in an argument moves a result; nothing where the moved one has no value.
fn change(value: Complex, moved: Complex) -> f64 {
    let change = value.sub(moved).abs();
    if change.is_finite() { change } else { 0.0 }
}

fn combine(operation: Operation, left: Complex, right: Complex) -> Option<Complex> {
    Some(match operation {
        Operation::Add => left.add(right),
        Operation::Sub => left.sub(right),
        Operation::Mul => left.mul(right),
        Operation::Div => left.div(right),
        Operation::Pow => left.pow(right),
        // An odd root of a negative number is the real one, as the radical sign means it.
        Operation::Root if left.re % 2.0 != 0.0 && right.re < 0.0 && right.im == 0.0 => {
            Complex::real(-(-right.re).powf(1.0 / left.re))
        }
        Operation::Root => right.pow(Complex::real(1.0).div(left)),
        Operation::Log => right.ln().div(left.ln()),
        Operation::Binomial | Operation::PlusMinus | Operation::MinusPlus => return None,
    })
}

/// A value a rounding error below a whole number counts as that number.
fn nearly_floor(x: f64) -> f64 {
    if (x - x.round()).abs() < 1e-9 { x.round() } else { x.floor() }
}

fn apply(function: Function, x: Complex) -> Complex {
    match function {
        // No negative zero: it would be the other side of the branch cut of roots and logarithms.
        Function::Neg => Complex { re: 0.0 - x.re, im: 0.0 - x.im },
        Function::Abs => Complex::real(x.abs()),
        Function::Floor => x.map_real(nearly_floor),
        Function::Ceil => x.map_real(|x| -nearly_floor(-x)),
        Function::Sqrt => x.pow(Complex::real(0.5)),
        Function::Exp => x.exp(),
        Function::Ln => x.ln(),
        Function::Log10 => x.ln().div(Complex::real(std::f64::consts::LN_10)),
        Function::Sin => x.map_real(f64::sin),
        Function::Cos => x.map_real(f64::cos),
        Function::Tan => x.map_real(f64::tan),
        Function::Cot => x.map_real(|x| x.cos() / x.sin()),
        Function::Sec => x.map_real(|x| 1.0 / x.cos()),
        Function::Csc => x.map_real(|x| 1.0 / x.sin()),
        Function::Arcsin => x.map_real(f64::asin),
        Function::Arccos => x.map_real(f64::acos),
        Function::Arctan => x.map_real(f64::atan),
        Function::Sinh => x.map_real(f64::sinh),
        Function::Cosh => x.map_real(f64::cosh),
        Function::Tanh => x.map_real(f64::tanh),
        Function::Factorial => Complex::real(f64::NAN),
    }
}
