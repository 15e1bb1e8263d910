//! Exact fractions of bounded size.

use num_bigint::BigInt;
use num_integer::Integer;
use num_traits::{One, Signed, ToPrimitive, Zero};

use super::budget::Budget;

/// Longest numerator or denominator, bits. `3^2023` takes 3,207.
const MAX_BITS: u64 = 8192;
/// Longest decimal literal, and largest power of ten behind one.
const MAX_DIGITS: usize = 2000;
/// Longest number a root is taken of, bits.
const MAX_ROOT_BITS: u64 = 1024;

/// A fraction in lowest terms with a positive denominator. Operations give `None` beyond the size limit,
/// for a division by zero, and when the budget is spent.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Rational {
    num: BigInt,
    den: BigInt,
}

impl Rational {
    pub fn integer(value: i64) -> Self {
        Self { num: value.into(), den: BigInt::one() }
    }

    /// A decimal literal: digits with at most one point, those that repeat in brackets behind them (`0.1(6)`) or
    /// a power of ten (`1.5e-7`).
    pub fn from_decimal(text: &str, budget: &Budget) -> Option<Self> {
        let (text, exponent) = text.split_once('e').unwrap_or((text, "0"));
        let exponent =
            exponent.parse::<i64>().ok().filter(|size| size.unsigned_abs() <= MAX_DIGITS as u64)?;
        let (text, cycle) = match text.split_once('(') {
            Some((text, cycle)) => (text, Some(cycle.strip_suffix(')')?)),
            None => (text, None),
        };
        let (whole, places) = text.split_once('.').unwrap_or((text, ""));
        let digits = format!("{whole}{places}");
        if digits.len() + cycle.map_or(0, str::len) > MAX_DIGITS {
            return None;
        }
        let value = match cycle {
            // 0.(6) is 6/9, 0.(36) is 36/99.
            Some(cycle) => {
                let nines = Self::from_digits(&"9".repeat(cycle.len()))?;
                let head = Self::from_digits(if digits.is_empty() { "0" } else { &digits })?;
                head.add(&Self::from_digits(cycle)?.div(&nines, budget)?, budget)?
            }
            None => Self::from_digits(&digits)?,
        };
        value.mul(&Self::power_of_ten(exponent - places.len() as i64), budget)
    }

    fn from_digits(digits: &str) -> Option<Self> {
        let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        plain
            .then(|| BigInt::parse_bytes(digits.as_bytes(), 10))
            .flatten()
            .map(|num| Self { num, den: BigInt::one() })
    }

    fn power_of_ten(exponent: i64) -> Self {
        let power = BigInt::from(10).pow(exponent.unsigned_abs() as u32);
        if exponent < 0 {
            Self { num: BigInt::one(), den: power }
        } else {
            Self { num: power, den: BigInt::one() }
        }
    }

    fn reduced(num: BigInt, den: BigInt, budget: &Budget) -> Option<Self> {
        let longer = num.bits().max(den.bits());
        if den.is_zero() || longer > 2 * MAX_BITS {
            return None;
        }
        let limbs = longer / 64 + 1;
        let result = if den.is_one() {
            budget.spend(1)?;
            Self { num, den }
        } else {
            budget.spend(1 + 2 * limbs * limbs)?;
            let divisor = num.gcd(&den);
            let sign = if den.is_negative() { -BigInt::one() } else { BigInt::one() };
            Self { num: num / &divisor * &sign, den: den / divisor * sign }
        };
        (result.num.bits() <= MAX_BITS && result.den.bits() <= MAX_BITS).then_some(result)
    }

    pub fn add(&self, other: &Self, budget: &Budget) -> Option<Self> {
        Self::reduced(&self.num * &other.den + &other.num * &self.den, &self.den * &other.den, budget)
    }

    pub fn sub(&self, other: &Self, budget: &Budget) -> Option<Self> {
        self.add(&other.neg(), budget)
    }

    pub fn mul(&self, other: &Self, budget: &Budget) -> Option<Self> {
        Self::reduced(&self.num * &other.num, &self.den * &other.den, budget)
    }

    pub fn div(&self, other: &Self, budget: &Budget) -> Option<Self> {
        Self::reduced(&self.num * &other.den, &self.den * &other.num, budget)
    }

    pub fn neg(&self) -> Self {
        Self { num: -&self.num, den: self.den.clone() }
    }

    pub fn abs(&self) -> Self {
        Self { num: self.num.abs(), den: self.den.clone() }
    }

    /// The largest integer not above it.
    pub fn floor(&self) -> Self {
        Self { num: self.num.div_floor(&self.den), den: BigInt::one() }
    }

    /// `self^exponent` where that is a fraction: whole exponents, and roots that come out even. A negative
    /// number has no fractional power here.
    pub fn pow(&self, exponent: &Self, budget: &Budget) -> Option<Self> {
        let root = exponent.den.to_u32().filter(|&root| root <= 64)?;
        let power = exponent.num.to_i64()?;
        let base = if root == 1 { self.clone() } else { self.root(root, budget)? };
        let count = u32::try_from(power.unsigned_abs()).ok()?;
        if base.num.bits().max(base.den.bits()).saturating_sub(1) * u64::from(count) > MAX_BITS {
            return None;
        }
        let limbs = base.num.bits().max(base.den.bits()) * u64::from(count) / 64 + 1;
        budget.spend(1 + limbs * limbs / 8)?;
        let (num, den) = (base.num.pow(count), base.den.pow(count));
        if power >= 0 {
            Some(Self { num, den })
        } else {
            Self { num: BigInt::one(), den: BigInt::one() }.div(&Self { num, den }, budget)
        }
    }

    fn root(&self, root: u32, budget: &Budget) -> Option<Self> {
        let bits = self.num.bits().max(self.den.bits());
        if self.num.is_negative() || bits > MAX_ROOT_BITS {
            return None;
        }
        budget.spend(100 + bits)?;
        let (num, den) = (self.num.nth_root(root), self.den.nth_root(root));
        (num.pow(root) == self.num && den.pow(root) == self.den).then_some(Self { num, den })
    }

    /// Its factorial, for whole numbers from 0 to 1000.
    pub fn factorial(&self, budget: &Budget) -> Option<Self> {
        let n = self.to_index().filter(|&n| n <= 1000)?;
        budget.spend(1 + n * n / 64)?;
        let num = (2..=n).fold(BigInt::one(), |product, i| product * i);
        (num.bits() <= MAX_BITS).then_some(Self { num, den: BigInt::one() })
    }

    /// Ways to choose `k` of `self` things.
    pub fn binomial(&self, k: &Self, budget: &Budget) -> Option<Self> {
        let (n, k) = (self.to_index().filter(|&n| n <= 2000)?, k.to_index()?);
        if k > n {
            return Some(Self::integer(0));
        }
        let k = k.min(n - k);
        budget.spend(1 + k * k / 16)?;
        let num = (0..k).fold(BigInt::one(), |product, i| product * (n - i) / (i + 1));
        (num.bits() <= MAX_BITS).then_some(Self { num, den: BigInt::one() })
    }

    /// Its value when it is a whole number that fits.
    pub fn to_index(&self) -> Option<u64> {
        if self.den.is_one() { self.num.to_u64() } else { None }
    }

    pub fn is_zero(&self) -> bool {
        self.num.is_zero()
    }

    /// The nearest double, or as near as two divisions come.
    pub fn to_f64(&self) -> f64 {
        // Both scaled by the same power of two, so that long numbers do not overflow.
        let shift = self.num.bits().max(self.den.bits()).saturating_sub(1000);
        let (num, den) = (&self.num >> shift, &self.den >> shift);
        num.to_f64().unwrap_or(f64::INFINITY) / den.to_f64().unwrap_or(f64::INFINITY)
    }

    /// Number of decimal digits of the numerator, at most.
    pub fn digits(&self) -> u64 {
        self.num.bits() * 302 / 1000 + 1
    }
}

impl std::fmt::Display for Rational {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.digits() > 60 || self.den.bits() > 200 {
            write!(f, "a fraction of about {} digits", self.digits())
        } else if self.den.is_one() {
            write!(f, "{}", self.num)
        } else {
            write!(f, "{}/{}", self.num, self.den)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget() -> Budget {
        Budget::new(Budget::COMPARISON)
    }

    fn fraction(num: i64, den: i64) -> Rational {
        Rational::integer(num).div(&Rational::integer(den), &budget()).unwrap()
    }

    #[test]
    fn arithmetic_is_exact() {
        let b = budget();
        assert_eq!(fraction(1, 2).add(&fraction(1, 3), &b), Some(fraction(5, 6)));
        assert_eq!(fraction(1, -2), fraction(-1, 2));
        assert_eq!(Rational::from_decimal(".35625", &b), Some(fraction(57, 160)));
        assert_eq!(Rational::from_decimal("0.1(6)", &b), Some(fraction(1, 6)));
        assert_eq!(Rational::from_decimal("0.(36)", &b), Some(fraction(4, 11)));
        assert_eq!(Rational::from_decimal("1.5e-3", &b), Some(fraction(3, 2000)));
        assert_eq!(Rational::from_decimal("2e3", &b), Some(Rational::integer(2000)));
        for text in ["1.2.3", "1e2001", "1e99999999999999999999", "0.()", "0.(1", "e5", "."] {
            assert_eq!(Rational::from_decimal(text, &b), None, "{text}");
        }
        assert_eq!(fraction(27, 8).pow(&fraction(-2, 3), &b), Some(fraction(4, 9)));
        assert_eq!(Rational::integer(2).pow(&fraction(1, 2), &b), None);
        assert_eq!(fraction(-7, 2).floor(), Rational::integer(-4));
        assert_eq!(Rational::integer(10).binomial(&Rational::integer(3), &b), Some(Rational::integer(120)));
        assert_eq!(Rational::integer(5).factorial(&b), Some(Rational::integer(120)));
        assert_eq!(Rational::integer(1).div(&Rational::integer(0), &b), None);
        assert!((fraction(1, 3).to_f64() - 1.0 / 3.0).abs() < 1e-15);
    }

    #[test]
    fn size_and_work_are_bounded() {
        let b = budget();
        let nine = Rational::integer(9);
        let large = nine.pow(&Rational::integer(2000), &b).unwrap();
        assert_eq!(nine.pow(&large, &b), None);
        assert_eq!(large.mul(&large, &b).and_then(|n| n.mul(&n, &b)), None);
        assert_eq!(fraction(1, 2).add(&fraction(1, 3), &Budget::new(1)), None);
    }
}
