//! Sums, products, powers and what they are made of.

use super::super::derivative::{ends_in_differential, quotient};
use super::super::expression::{Bracket, Expr, Function, Operation};
use super::super::rational::Rational;
use super::super::token::Kind;
use super::{MAX_DEPTH, Parser, alone_or_set};

impl Parser<'_> {
    /// A sum, or two of them one above the other: `3 \over 4`, `n \choose k`.
    pub(super) fn sum(&mut self) -> Option<Expr> {
        let top = self.terms()?;
        let operation = if self.take_command("over") {
            Operation::Div
        } else if self.take_command("choose") {
            Operation::Binomial
        } else {
            return Some(top);
        };
        let bottom = self.terms()?;
        Some(if operation == Operation::Div {
            quotient(top, bottom)
        } else {
            Expr::binary(operation, top, bottom)
        })
    }

    fn terms(&mut self) -> Option<Expr> {
        let mut left = self.signed()?;
        loop {
            let operation = match self.peek() {
                Some(Kind::Symbol('+')) => Operation::Add,
                Some(Kind::Symbol('-')) => Operation::Sub,
                Some(Kind::Command(name)) if name == "pm" => Operation::PlusMinus,
                Some(Kind::Command(name)) if name == "mp" => Operation::MinusPlus,
                _ => return Some(left),
            };
            self.at += 1;
            left = Expr::binary(operation, left, self.product()?);
        }
    }

    /// A product with signs before it.
    pub(super) fn signed(&mut self) -> Option<Expr> {
        let mut negative = false;
        loop {
            if self.take_symbol('-') {
                negative = !negative;
            } else if self.take_command("pm") {
                let of = self.product()?;
                return Some(Expr::binary(Operation::PlusMinus, Expr::integer(0), of));
            } else if !self.take_symbol('+') {
                break;
            }
        }
        let product = self.product()?;
        Some(if negative { Expr::unary(Function::Neg, product) } else { product })
    }

    pub(super) fn product(&mut self) -> Option<Expr> {
        let mut left = self.power()?;
        loop {
            let operation = match self.peek() {
                Some(Kind::Symbol('*')) => Operation::Mul,
                Some(Kind::Symbol('/')) => Operation::Div,
                _ if self.union_letter(&left) => {
                    self.tokens[self.at].kind = Kind::Command("cup".into());
                    return Some(left);
                }
                _ if self.begins_factor() => {
                    left = Expr::binary(Operation::Mul, left, self.power()?);
                    continue;
                }
                _ => return Some(left),
            };
            self.at += 1;
            let mut negative = false;
            while self.is_symbol('-') || self.is_symbol('+') {
                negative ^= self.is_symbol('-');
                self.at += 1;
            }
            let differential = operation == Operation::Div && ends_in_differential(&left);
            let mut right = self.power()?;
            // `dx/dt`
            if differential && right == Expr::Variable("d".into()) && self.begins_factor() {
                right = Expr::binary(Operation::Mul, right, self.power()?);
            }
            let right = if negative { Expr::unary(Function::Neg, right) } else { right };
            left = if operation == Operation::Div {
                quotient(left, right)
            } else {
                Expr::binary(operation, left, right)
            };
        }
    }

    /// `(0, 9) U (9, 36)`: a letter that means a union.
    pub(super) fn union_letter(&self, left: &Expr) -> bool {
        matches!(left, Expr::Group { .. })
            && matches!(self.peek(), Some(Kind::Letter('U')))
            && matches!(self.peek_at(1), Some(Kind::Symbol('(' | '[' | ']')))
    }

    /// Whether what comes next multiplies without a sign.
    pub(super) fn begins_factor(&self) -> bool {
        match self.peek() {
            Some(Kind::Letter(_)) => true,
            // `(n-2)2^n`, `n 2^n`
            Some(Kind::Number(_)) => {
                self.at > 0 && {
                    let [before, number] = [&self.tokens[self.at - 1], &self.tokens[self.at]];
                    before.kind == Kind::Symbol(')')
                        || (number.spaced && matches!(before.kind, Kind::Letter(_)))
                }
            }
            Some(Kind::Symbol('[')) => self.square_factor(),
            Some(Kind::Symbol(c)) => matches!(c, '(' | '{') || (*c == '|' && self.bars == 0),
            Some(Kind::Command(name)) => !ends_factors(name) && !matches!(name.as_str(), "pm" | "mp"),
            _ => false,
        }
    }

    /// Whether the square bracket here encloses a factor, as in `x[y+1]`, and no end of an interval is one of its
    /// brackets, as in `]1,2[ \cup ]3,4[`.
    fn square_factor(&self) -> bool {
        let mut depth = 0_usize;
        for (n, token) in self.tokens[self.at + 1..].iter().enumerate() {
            match &token.kind {
                Kind::Symbol(']') if depth == 0 => return n > 0,
                Kind::Symbol('(' | '[' | '{') => depth += 1,
                Kind::Symbol(')' | ']' | '}') if depth > 0 => depth -= 1,
                Kind::Symbol(')' | '}' | ',' | ';' | '=' | '<' | '>') if depth == 0 => return false,
                Kind::Command(name) if depth == 0 && ends_factors(name) => return false,
                _ => {}
            }
        }
        false
    }

    pub(super) fn power(&mut self) -> Option<Expr> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return None;
        }
        let result = self.power_inside();
        self.depth -= 1;
        result
    }

    pub(super) fn power_inside(&mut self) -> Option<Expr> {
        let mut base = self.primary()?;
        loop {
            base = match self.peek() {
                Some(Kind::Symbol('!')) => Expr::unary(Function::Factorial, base),
                Some(Kind::Symbol('%')) => Expr::Percent(Box::new(base)),
                Some(Kind::Command(name)) if name == "degree" || name == "circ" => base,
                Some(Kind::Symbol('\'')) => return None,
                Some(Kind::Symbol('^')) => {
                    self.at += 1;
                    if self.degree() {
                        continue;
                    }
                    let exponent = self.exponent()?;
                    return Some(Expr::binary(Operation::Pow, base, exponent));
                }
                _ => return Some(base),
            };
            self.at += 1;
        }
    }

    /// `\circ` or `{\circ}` in an exponent: an angle's unit.
    pub(super) fn degree(&mut self) -> bool {
        if self.take_command("circ") {
            return true;
        }
        let braced = self.is_symbol('{')
            && matches!(self.peek_at(1), Some(Kind::Command(name)) if name == "circ")
            && self.peek_at(2) == Some(&Kind::Symbol('}'));
        self.at += if braced { 3 } else { 0 };
        braced
    }

    /// An exponent: `2^{10}`, `2^10` as people write it, `2^-1`, `2^{3^4}`, `2^3^4`.
    pub(super) fn exponent(&mut self) -> Option<Expr> {
        let negative = self.take_symbol('-');
        self.exponent = Some(self.at);
        let exponent = self.power()?;
        Some(if negative { Expr::unary(Function::Neg, exponent) } else { exponent })
    }

    pub(super) fn primary(&mut self) -> Option<Expr> {
        let kind = self.peek()?.clone();
        let start = self.at;
        self.at += 1;
        match kind {
            Kind::Number(text) => self.number(&text),
            Kind::Letter(letter) => {
                let symbol = self.letter(letter)?;
                self.applied(symbol, start)
            }
            Kind::Symbol(open @ ('(' | '[' | ']')) => self.group(open),
            Kind::Symbol('{') if self.builds_set() => self.set_builder(|parser| parser.expect_symbol('}')),
            Kind::Symbol('{') => {
                let items = self.list()?;
                self.expect_symbol('}')?;
                Some(alone_or_set(items))
            }
            Kind::Symbol('|') => {
                self.bars += 1;
                let inside = self.sum()?;
                self.bars -= 1;
                self.expect_symbol('|')?;
                Some(Expr::unary(Function::Abs, inside))
            }
            Kind::Command(name) => {
                let value = self.command(&name)?;
                self.applied(value, start)
            }
            Kind::Symbol(_) | Kind::Text(_) => None,
        }
    }

    pub(super) fn primary_at_depth(&mut self) -> Option<Expr> {
        self.depth += 1;
        let inside = (self.depth <= MAX_DEPTH).then(|| self.primary())?;
        self.depth -= 1;
        inside
    }

    pub(super) fn group_at_depth(&mut self, open: char) -> Option<Expr> {
        self.depth += 1;
        let inside = (self.depth <= MAX_DEPTH).then(|| self.group(open))?;
        self.depth -= 1;
        inside
    }

    /// What brackets enclose: a sum, a tuple, an interval. `]a, b[` is an open interval, too.
    pub(super) fn group(&mut self, open: char) -> Option<Expr> {
        let mut items = self.list()?;
        let close = match self.peek()? {
            Kind::Symbol(c @ (')' | ']' | '[')) => *c,
            _ => return None,
        };
        self.at += 1;
        let turned = open == ']' || close == '[';
        if turned && (items.len() != 2 || open == '(' || close == ')') {
            return None;
        }
        let open = if open == '[' { Bracket::Square } else { Bracket::Round };
        let close = if close == ']' { Bracket::Square } else { Bracket::Round };
        if items.len() == 1 && open == close {
            return Some(items.remove(0));
        }
        (items.len() > 1).then_some(Expr::Group { open, close, items })
    }

    /// An argument as TeX takes it: a group, or one token, where of a number that is one digit.
    pub(super) fn argument(&mut self) -> Option<Expr> {
        if self.take_symbol('{') {
            let inside = self.sum()?;
            self.expect_symbol('}')?;
            return Some(inside);
        }
        if let Kind::Number(text) = self.peek()?.clone()
            && text.len() > 1
            && text.starts_with(|c: char| c.is_ascii_digit())
        {
            if !text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
                return None;
            }
            let (first, rest) = text.split_at(1);
            self.tokens[self.at].kind = Kind::Number(rest.into());
            return Some(Expr::Number { value: Rational::from_decimal(first, &self.budget)?, places: None });
        }
        match self.peek()? {
            Kind::Number(text) => {
                let value = Rational::from_decimal(text, &self.budget)?;
                self.at += 1;
                Some(Expr::Number { value, places: None })
            }
            Kind::Letter(letter) => {
                let letter = *letter;
                self.at += 1;
                self.named(&letter.to_string())
            }
            Kind::Symbol('(') | Kind::Command(_) => self.primary_at_depth(),
            _ => None,
        }
    }
}

/// Whether a command stands between terms or sets, or closes a bracket.
fn ends_factors(name: &str) -> bool {
    matches!(
        name,
        "le" | "ge"
            | "ne"
            | "in"
            | "approx"
            | "equiv"
            | "cup"
            | "cap"
            | "bigcup"
            | "bigcap"
            | "setminus"
            | "backslash"
            | "}"
            | "rangle"
            | "rfloor"
            | "rceil"
            | "newline"
            | "end"
            | "and"
            | "or"
            | "over"
            | "choose"
    )
}
