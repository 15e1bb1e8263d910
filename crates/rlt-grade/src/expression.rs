//! What an answer can be, as a tree.

use super::rational::Rational;

/// A binary operation on numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Add,
    Sub,
    Mul,
    Div,
    Pow,
    /// `a \pm b`: both signs.
    PlusMinus,
    /// `a \mp b`: the other sign than that of `\pm`.
    MinusPlus,
    /// `\binom{a}{b}`.
    Binomial,
    /// `\log_a b`.
    Log,
    /// `\sqrt[a]{b}`.
    Root,
}

/// A function of one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    Neg,
    Factorial,
    Abs,
    Floor,
    Ceil,
    Sqrt,
    Exp,
    Ln,
    Log10,
    Sin,
    Cos,
    Tan,
    Cot,
    Sec,
    Csc,
    Arcsin,
    Arccos,
    Arctan,
    Sinh,
    Cosh,
    Tanh,
}

/// A number with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Constant {
    Pi,
    E,
    I,
    Infinity,
}

/// How two sides of a statement are related.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Relation {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    Element,
}

/// An operation on sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SetOperation {
    Union,
    Intersection,
    Difference,
}

/// What encloses a group of items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bracket {
    Round,
    Square,
}

/// A parsed answer or a part of one.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Expr {
    /// A literal; `places` after the decimal point, where there is one.
    Number {
        value: Rational,
        places: Option<u32>,
    },
    Constant(Constant),
    /// A letter, with its subscript if it has one (`x`, `a_1`, `\alpha`), or a derivative (see the module `derivative`).
    Variable(String),
    /// A function that only has a name, of one or more numbers: `f(2)`. The name ends in `()`, so that it is no
    /// variable's.
    Applied {
        name: String,
        of: Vec<Expr>,
    },
    Unary(Function, Box<Expr>),
    Binary(Operation, Box<Expr>, Box<Expr>),
    /// `50\%`: its hundredth, or the number itself where the question names the unit.
    Percent(Box<Expr>),
    /// `52_8`: digits in a base.
    Based {
        digits: String,
        base: u32,
    },
    /// `(a, b)`, `[a, b)`, `(a, b, c)`: a tuple, a point or an interval.
    Group {
        open: Bracket,
        close: Bracket,
        items: Vec<Expr>,
    },
    /// `\{a, b\}`, or items without any bracket: order and repetition do not count.
    Set(Vec<Expr>),
    /// Rows of a matrix or a column vector.
    Matrix(Vec<Vec<Expr>>),
    SetOperation(SetOperation, Box<Expr>, Box<Expr>),
    /// `a < b \le c`: the first term, then relations with their right sides.
    Statement(Box<Expr>, Vec<(Relation, Expr)>),
    /// `3 : 2`, or what a clock shows.
    Ratio(Vec<Expr>),
    /// Words.
    Text(String),
    /// A number with the words behind it.
    WithUnit(Box<Expr>, String),
}

impl Expr {
    pub fn integer(value: i64) -> Self {
        Self::Number { value: Rational::integer(value), places: None }
    }

    pub fn unary(function: Function, of: Self) -> Self {
        Self::Unary(function, Box::new(of))
    }

    pub fn binary(operation: Operation, left: Self, right: Self) -> Self {
        Self::Binary(operation, Box::new(left), Box::new(right))
    }

    /// The names of its variables and of its unknown functions, each once.
    pub fn variables(&self) -> Vec<&str> {
        let mut names = Vec::new();
        self.visit(&mut |expr| {
            if let Self::Variable(name) | Self::Applied { name, .. } = expr
                && !names.contains(&name.as_str())
            {
                names.push(name);
            }
        });
        names
    }

    /// Whether `holds` for it or any part of it.
    pub fn any(&self, holds: impl Fn(&Self) -> bool) -> bool {
        let mut found = false;
        self.visit(&mut |expr| found |= holds(expr));
        found
    }

    /// Whether it is one number or formula (no set, tuple, statement or text).
    pub fn is_scalar(&self) -> bool {
        !self.any(|expr| {
            matches!(
                expr,
                Self::Group { .. }
                    | Self::Set(_)
                    | Self::Matrix(_)
                    | Self::SetOperation(..)
                    | Self::Ratio(_)
                    | Self::Statement(..)
                    | Self::Text(_)
                    | Self::WithUnit(..)
            )
        })
    }

    /// Whether a relation in it bounds a number or leaves one out.
    pub fn is_inequality(&self) -> bool {
        let bounds =
            |(relation, _): &(Relation, Self)| !matches!(relation, Relation::Equal | Relation::Element);
        self.any(|expr| matches!(expr, Self::Statement(_, rest) if rest.iter().any(bounds)))
    }

    /// Sees it and every part of it.
    pub fn visit<'a>(&'a self, see: &mut impl FnMut(&'a Self)) {
        see(self);
        for part in self.parts() {
            part.visit(see);
        }
    }

    fn parts(&self) -> Vec<&Self> {
        match self {
            Self::Number { .. }
            | Self::Constant(_)
            | Self::Variable(_)
            | Self::Based { .. }
            | Self::Text(_) => Vec::new(),
            Self::Unary(_, of) | Self::Percent(of) | Self::WithUnit(of, _) => vec![of],
            Self::Binary(_, left, right) | Self::SetOperation(_, left, right) => vec![left, right],
            Self::Group { items, .. }
            | Self::Set(items)
            | Self::Ratio(items)
            | Self::Applied { of: items, .. } => items.iter().collect(),
            Self::Matrix(rows) => rows.iter().flatten().collect(),
            Self::Statement(first, rest) => {
                std::iter::once(&**first).chain(rest.iter().map(|(_, side)| side)).collect()
            }
        }
    }

    /// The same with every `\pm` as plus and `\mp` as minus, or the other way round.
    pub fn with_sign(&self, plus: Operation, minus: Operation) -> Self {
        self.changed(&|part| match part {
            Self::Binary(Operation::PlusMinus, left, right) => Self::Binary(plus, left, right),
            Self::Binary(Operation::MinusPlus, left, right) => Self::Binary(minus, left, right),
            other => other,
        })
    }

    /// The same with every part changed, the innermost first.
    pub fn changed(&self, change: &impl Fn(Self) -> Self) -> Self {
        let one = |expr: &Self| Box::new(expr.changed(change));
        let all = |items: &[Self]| items.iter().map(|item| item.changed(change)).collect::<Vec<_>>();
        change(match self {
            Self::Number { .. }
            | Self::Constant(_)
            | Self::Variable(_)
            | Self::Based { .. }
            | Self::Text(_) => self.clone(),
            Self::Applied { name, of } => Self::Applied { name: name.clone(), of: all(of) },
            Self::Unary(function, of) => Self::Unary(*function, one(of)),
            Self::Percent(of) => Self::Percent(one(of)),
            Self::WithUnit(of, unit) => Self::WithUnit(one(of), unit.clone()),
            Self::Binary(operation, left, right) => Self::Binary(*operation, one(left), one(right)),
            Self::SetOperation(operation, left, right) => {
                Self::SetOperation(*operation, one(left), one(right))
            }
            Self::Group { open, close, items } => {
                Self::Group { open: *open, close: *close, items: all(items) }
            }
            Self::Set(items) => Self::Set(all(items)),
            Self::Ratio(items) => Self::Ratio(all(items)),
            Self::Matrix(rows) => Self::Matrix(rows.iter().map(|row| all(row)).collect()),
            Self::Statement(first, rest) => Self::Statement(
                one(first),
                rest.iter().map(|(relation, side)| (*relation, side.changed(change))).collect(),
            ),
        })
    }
}
