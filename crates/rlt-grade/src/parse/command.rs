//! LaTeX commands: fractions, roots, functions, sets, matrices.

use super::super::derivative::quotient;
use super::super::expression::{Bracket, Constant, Expr, Function, Operation, SetOperation};
use super::super::token::Kind;
use super::Parser;

impl Parser<'_> {
    pub(super) fn command(&mut self, name: &str) -> Option<Expr> {
        let constant = |constant| Some(Expr::Constant(constant));
        match name {
            "frac" => {
                let (top, bottom) = (self.argument()?, self.argument()?);
                Some(quotient(top, bottom))
            }
            "sqrt" => self.root(),
            "binom" => {
                let (n, k) = (self.argument()?, self.argument()?);
                Some(Expr::binary(Operation::Binomial, n, k))
            }
            "pi" => constant(Constant::Pi),
            "infty" => constant(Constant::Infinity),
            "{" if self.builds_set() => self.set_builder(|parser| parser.expect_command("}")),
            "{" => {
                if self.take_command("}") {
                    return Some(Expr::Set(Vec::new()));
                }
                let items = self.list()?;
                self.expect_command("}")?;
                Some(Expr::Set(items))
            }
            "emptyset" | "varnothing" => Some(Expr::Set(Vec::new())),
            "langle" => {
                let items = self.list()?;
                self.expect_command("rangle")?;
                Some(Expr::Group { open: Bracket::Round, close: Bracket::Round, items })
            }
            "lfloor" => self.enclosed("rfloor", Function::Floor),
            "lceil" => self.enclosed("rceil", Function::Ceil),
            "begin" => self.matrix(),
            "mathbb" => self.number_domain(),
            "log" | "lg" | "ln" => self.logarithm(name),
            _ => match function(name) {
                Some(function) => self.application(function),
                None => self.command_symbol(name),
            },
        }
    }

    /// Whether `x |`, `x :` or `x \in \mathbb{R} |` comes next: what begins a set by a condition.
    pub(super) fn builds_set(&self) -> bool {
        let mark = |ahead| matches!(self.peek_at(ahead), Some(Kind::Symbol('|' | ':')));
        let domain = matches!(self.peek_at(1), Some(Kind::Command(name)) if name == "in")
            && matches!(self.peek_at(2), Some(Kind::Command(name)) if name == "mathbb")
            && (mark(4) || mark(6));
        matches!(self.peek(), Some(Kind::Letter(_))) && (mark(1) || domain)
    }

    /// `\{x \in D \mid conditions\}`: the part of D, or of the real line, where all conditions hold.
    pub(super) fn set_builder(&mut self, close: impl Fn(&mut Self) -> Option<()>) -> Option<Expr> {
        self.at += 1;
        let domain = if self.take_command("in") {
            self.at += 1;
            self.number_domain()?
        } else {
            real_line('R')
        };
        // The mark that was seen.
        self.at += 1;
        let conditions = self.list()?;
        close(self)?;
        let condition = |of: &Expr| matches!(of, Expr::Statement(..) | Expr::SetOperation(..));
        conditions.iter().all(condition).then_some(())?;
        let part = |a, b| Expr::SetOperation(SetOperation::Intersection, Box::new(a), Box::new(b));
        Some(conditions.into_iter().fold(domain, part))
    }

    /// The letter behind `\mathbb`.
    fn number_domain(&mut self) -> Option<Expr> {
        let braced = self.take_symbol('{');
        let Some(Kind::Letter(letter)) = self.peek() else { return None };
        let letter = *letter;
        self.at += 1;
        if braced {
            self.expect_symbol('}')?;
        }
        Some(real_line(letter))
    }

    pub(super) fn root(&mut self) -> Option<Expr> {
        let degree = if self.take_symbol('[') {
            let degree = self.sum()?;
            self.expect_symbol(']')?;
            Some(degree)
        } else {
            None
        };
        let of = if self.is_symbol('(') { self.primary_at_depth()? } else { self.argument()? };
        Some(match degree {
            Some(degree) => Expr::binary(Operation::Root, degree, of),
            None => Expr::unary(Function::Sqrt, of),
        })
    }

    pub(super) fn enclosed(&mut self, close: &str, function: Function) -> Option<Expr> {
        let inside = self.sum()?;
        self.expect_command(close)?;
        Some(Expr::unary(function, inside))
    }

    pub(super) fn logarithm(&mut self, name: &str) -> Option<Expr> {
        let base = if self.take_symbol('_') { Some(self.argument()?) } else { None };
        let power = self.function_power()?;
        let of = self.function_argument()?;
        let value = match (base, name) {
            (Some(base), _) => Expr::binary(Operation::Log, base, of),
            (None, "ln") => Expr::unary(Function::Ln, of),
            (None, _) => Expr::unary(Function::Log10, of),
        };
        Some(raised(value, power))
    }

    pub(super) fn application(&mut self, function: Function) -> Option<Expr> {
        let power = self.function_power()?;
        let of = self.function_argument()?;
        let inverse =
            power.as_ref().is_some_and(|power| *power == Expr::unary(Function::Neg, Expr::integer(1)));
        let inverted = match function {
            Function::Sin => Some(Function::Arcsin),
            Function::Cos => Some(Function::Arccos),
            Function::Tan => Some(Function::Arctan),
            _ => None,
        };
        match inverted {
            Some(inverted) if inverse => Some(Expr::unary(inverted, of)),
            _ => Some(raised(Expr::unary(function, of), power)),
        }
    }

    /// `\sin^2`: `Some(None)` without a power, `None` when it cannot be read.
    #[expect(clippy::option_option, reason = "absent and unreadable differ")]
    pub(super) fn function_power(&mut self) -> Option<Option<Expr>> {
        if self.take_symbol('^') { Some(Some(self.exponent()?)) } else { Some(None) }
    }

    /// What a function is applied to: brackets, or factors side by side.
    pub(super) fn function_argument(&mut self) -> Option<Expr> {
        if self.is_symbol('(') {
            return self.primary_at_depth();
        }
        let negative = self.take_symbol('-');
        let of = self.factors()?;
        Some(if negative { Expr::unary(Function::Neg, of) } else { of })
    }

    /// Factors side by side, up to the next function or bracket.
    pub(super) fn factors(&mut self) -> Option<Expr> {
        let mut of = self.power()?;
        loop {
            let next_function = matches!(self.peek(), Some(Kind::Command(name))
                if function(name).is_some() || matches!(name.as_str(), "log" | "ln" | "lg"));
            if next_function || self.is_symbol('(') || !self.begins_factor() {
                return Some(of);
            }
            of = Expr::binary(Operation::Mul, of, self.power()?);
        }
    }

    /// `\begin{pmatrix} a & b \\ c & d \end{pmatrix}`.
    pub(super) fn matrix(&mut self) -> Option<Expr> {
        let name = self.environment()?;
        if !name.ends_with("matrix") && name != "array" {
            return None;
        }
        if name == "array" && self.take_symbol('{') {
            while !self.take_symbol('}') {
                self.peek()?;
                self.at += 1;
            }
        }
        let mut rows = vec![Vec::new()];
        loop {
            if self.take_command("end") {
                break;
            } else if self.take_command("newline") {
                rows.push(Vec::new());
            } else if !self.take_symbol('&') {
                let cell = self.sum()?;
                rows.last_mut()?.push(cell);
            }
        }
        (self.environment()? == name).then_some(())?;
        rows.retain(|row| !row.is_empty());
        (!rows.is_empty()).then_some(Expr::Matrix(rows))
    }

    /// `{pmatrix}` behind `\begin` or `\end`.
    pub(super) fn environment(&mut self) -> Option<String> {
        self.expect_symbol('{')?;
        let name = match self.peek()? {
            Kind::Text(name) => name.clone(),
            _ => return None,
        };
        self.at += 1;
        self.expect_symbol('}')?;
        Some(name)
    }
}

fn raised(value: Expr, power: Option<Expr>) -> Expr {
    match power {
        Some(power) => Expr::binary(Operation::Pow, value, power),
        None => value,
    }
}

fn real_line(letter: char) -> Expr {
    if letter != 'R' {
        return Expr::Variable(format!("\\mathbb{letter}"));
    }
    let infinity = Expr::Constant(Constant::Infinity);
    let items = vec![Expr::unary(Function::Neg, infinity.clone()), infinity];
    Expr::Group { open: Bracket::Round, close: Bracket::Round, items }
}

fn function(name: &str) -> Option<Function> {
    Some(match name {
        "exp" => Function::Exp,
        "sin" => Function::Sin,
        "cos" => Function::Cos,
        "tan" => Function::Tan,
        "cot" => Function::Cot,
        "sec" => Function::Sec,
        "csc" => Function::Csc,
        "arcsin" => Function::Arcsin,
        "arccos" => Function::Arccos,
        "arctan" => Function::Arctan,
        "sinh" => Function::Sinh,
        "cosh" => Function::Cosh,
        "tanh" => Function::Tanh,
        _ => return None,
    })
}
