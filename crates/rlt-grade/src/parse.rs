//! Tokens to a tree, in one pass of bounded depth.

use super::expression::{Bracket, Constant, Expr, Function, Operation, Relation, SetOperation};
use super::rational::Rational;
use super::token::{Comma, Kind, Token, tokens};

/// Deepest nesting that is followed.
const MAX_DEPTH: usize = 40;
/// Longest answer, tokens: a sum of many terms is a deep tree, too.
const MAX_TOKENS: usize = 600;

/// Reads an answer; `None` when it is not mathematics that this grammar knows.
pub(super) fn parse(text: &str, comma: Comma) -> Option<Expr> {
    let mut parser = Parser { tokens: tokens(text, comma)?, at: 0, depth: 0, bars: 0 };
    if parser.tokens.is_empty() || parser.tokens.len() > MAX_TOKENS {
        return None;
    }
    let items = parser.list()?;
    (parser.at == parser.tokens.len()).then_some(())?;
    Some(alone_or_set(items))
}

fn alone_or_set(mut items: Vec<Expr>) -> Expr {
    if items.len() == 1 { items.remove(0) } else { Expr::Set(items) }
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
    /// Open `|`.
    bars: usize,
}

impl Parser {
    fn peek(&self) -> Option<&Kind> {
        self.peek_at(0)
    }

    fn peek_at(&self, ahead: usize) -> Option<&Kind> {
        self.tokens.get(self.at + ahead).map(|token| &token.kind)
    }

    fn is_symbol(&self, symbol: char) -> bool {
        self.peek() == Some(&Kind::Symbol(symbol))
    }

    fn is_command(&self, name: &str) -> bool {
        matches!(self.peek(), Some(Kind::Command(command)) if command == name)
    }

    fn take_symbol(&mut self, symbol: char) -> bool {
        let is = self.is_symbol(symbol);
        self.at += usize::from(is);
        is
    }

    fn take_command(&mut self, name: &str) -> bool {
        let is = self.is_command(name);
        self.at += usize::from(is);
        is
    }

    fn expect_symbol(&mut self, symbol: char) -> Option<()> {
        self.take_symbol(symbol).then_some(())
    }

    fn expect_command(&mut self, name: &str) -> Option<()> {
        self.take_command(name).then_some(())
    }

    /// Items up to whatever does not continue a list. A trailing separator is forgiven.
    fn list(&mut self) -> Option<Vec<Expr>> {
        let mut items = vec![self.item()?];
        loop {
            let mut separated = false;
            while self.take_symbol(',') || self.take_symbol(';') {
                separated = true;
            }
            let ends = match self.peek() {
                None => true,
                Some(Kind::Symbol(c)) => matches!(c, ')' | ']' | '}'),
                Some(Kind::Command(name)) => matches!(name.as_str(), "}" | "rangle"),
                _ => false,
            };
            if ends || !separated {
                return Some(items);
            }
            items.push(self.item()?);
        }
    }

    /// One item with the words around it.
    fn item(&mut self) -> Option<Expr> {
        if let Some(Kind::Text(first)) = self.peek() {
            let mut words = first.clone();
            self.at += 1;
            while let Some(kind) = self.peek() {
                match kind {
                    Kind::Text(more) => words = format!("{words} {more}"),
                    Kind::Letter(more) => words = format!("{words} {more}"),
                    _ => break,
                }
                self.at += 1;
            }
            return match self.relation() {
                // `Area = 5`
                Some(relation) => self.relations(Expr::Variable(words), relation),
                None => Some(Expr::Text(words)),
            };
        }
        let expr = self.statement()?;
        let unit = self.unit();
        Some(if unit.is_empty() { expr } else { Expr::WithUnit(Box::new(expr), unit) })
    }

    /// Words behind a number, with their power: `cm^2`, `miles / hour`.
    fn unit(&mut self) -> String {
        let mut unit = String::new();
        while let Some(Kind::Text(word)) = self.peek() {
            if !unit.is_empty() {
                unit.push(' ');
            }
            unit.push_str(word);
            self.at += 1;
            loop {
                match (self.peek(), self.peek_at(1)) {
                    (Some(Kind::Symbol('^')), Some(Kind::Number(power))) => {
                        unit = format!("{unit}^{power}");
                        self.at += 2;
                    }
                    (Some(Kind::Symbol('^')), Some(Kind::Symbol('{'))) => {
                        let (Some(Kind::Number(power)), Some(Kind::Symbol('}'))) =
                            (self.peek_at(2), self.peek_at(3))
                        else {
                            break;
                        };
                        unit = format!("{unit}^{power}");
                        self.at += 4;
                    }
                    (Some(Kind::Symbol('/')), Some(Kind::Text(_))) => {
                        unit.push('/');
                        self.at += 1;
                        break;
                    }
                    _ => break,
                }
            }
        }
        unit
    }

    fn relation(&mut self) -> Option<Relation> {
        let relation = match self.peek()? {
            Kind::Symbol('=') => Relation::Equal,
            Kind::Symbol('<') => Relation::Less,
            Kind::Symbol('>') => Relation::Greater,
            Kind::Command(name) => match name.as_str() {
                "le" => Relation::LessEqual,
                "ge" => Relation::GreaterEqual,
                "ne" => Relation::NotEqual,
                "in" => Relation::Element,
                "equiv" | "approx" => Relation::Equal,
                _ => return None,
            },
            _ => return None,
        };
        self.at += 1;
        Some(relation)
    }

    fn statement(&mut self) -> Option<Expr> {
        let first = self.sets()?;
        match self.relation() {
            Some(relation) => self.relations(first, relation),
            None => Some(first),
        }
    }

    fn relations(&mut self, first: Expr, relation: Relation) -> Option<Expr> {
        let mut sides = vec![(relation, self.sets()?)];
        while let Some(relation) = self.relation() {
            sides.push((relation, self.sets()?));
        }
        Some(Expr::Statement(Box::new(first), sides))
    }

    fn sets(&mut self) -> Option<Expr> {
        let mut left = self.sum()?;
        loop {
            let operation = match self.peek() {
                Some(Kind::Command(name)) => match name.as_str() {
                    "cup" | "bigcup" => SetOperation::Union,
                    "cap" | "bigcap" => SetOperation::Intersection,
                    "setminus" | "backslash" => SetOperation::Difference,
                    _ => return Some(left),
                },
                _ => return Some(left),
            };
            self.at += 1;
            left = Expr::SetOperation(operation, Box::new(left), Box::new(self.sum()?));
        }
    }

    fn sum(&mut self) -> Option<Expr> {
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
    fn signed(&mut self) -> Option<Expr> {
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

    fn product(&mut self) -> Option<Expr> {
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
            let right = self.power()?;
            let right = if negative { Expr::unary(Function::Neg, right) } else { right };
            left = Expr::binary(operation, left, right);
        }
    }

    /// `(0, 9) U (9, 36)`: a letter that means a union.
    fn union_letter(&self, left: &Expr) -> bool {
        matches!(left, Expr::Group { .. })
            && matches!(self.peek(), Some(Kind::Letter('U')))
            && matches!(self.peek_at(1), Some(Kind::Symbol('(' | '[')))
    }

    /// Whether what comes next multiplies without a sign.
    fn begins_factor(&self) -> bool {
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
            Some(Kind::Symbol(c)) => matches!(c, '(' | '{') || (*c == '|' && self.bars == 0),
            Some(Kind::Command(name)) => !matches!(
                name.as_str(),
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
                    | "pm"
                    | "mp"
                    | "}"
                    | "rangle"
                    | "rfloor"
                    | "rceil"
                    | "newline"
                    | "end"
            ),
            _ => false,
        }
    }

    fn power(&mut self) -> Option<Expr> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return None;
        }
        let result = self.power_inside();
        self.depth -= 1;
        result
    }

    fn power_inside(&mut self) -> Option<Expr> {
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
    fn degree(&mut self) -> bool {
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
    fn exponent(&mut self) -> Option<Expr> {
        let negative = self.take_symbol('-');
        let exponent = self.power()?;
        Some(if negative { Expr::unary(Function::Neg, exponent) } else { exponent })
    }

    fn primary(&mut self) -> Option<Expr> {
        let kind = self.peek()?.clone();
        self.at += 1;
        match kind {
            Kind::Number(text) => self.number(&text),
            Kind::Letter(letter) => self.letter(letter),
            Kind::Symbol(open @ ('(' | '[')) => self.group(open),
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
            Kind::Command(name) => self.command(&name),
            Kind::Symbol(_) | Kind::Text(_) => None,
        }
    }

    fn group(&mut self, open: char) -> Option<Expr> {
        let mut items = self.list()?;
        let close = match self.peek()? {
            Kind::Symbol(')') => Bracket::Round,
            Kind::Symbol(']') => Bracket::Square,
            _ => return None,
        };
        self.at += 1;
        let open = if open == '(' { Bracket::Round } else { Bracket::Square };
        if items.len() == 1 && open == close {
            return Some(items.remove(0));
        }
        (items.len() > 1).then_some(Expr::Group { open, close, items })
    }

    /// A literal, with what makes it a mixed number or one in another base.
    fn number(&mut self, text: &str) -> Option<Expr> {
        let value = Rational::from_decimal(text)?;
        let places = text.split_once('.').map(|(_, places)| places.len() as u32);
        if places.is_none() {
            if self.is_symbol('_') {
                self.at += 1;
                let base = self.braced_index()?;
                return (2..=36)
                    .contains(&base)
                    .then(|| Expr::Based { digits: text.trim_start_matches('0').into(), base });
            }
            let whole = Expr::Number { value: value.clone(), places };
            if self.is_command("frac") {
                return self.number_and_fraction(whole);
            }
            if let Some(part) = self.fraction_behind() {
                return Some(Expr::binary(Operation::Add, whole, part));
            }
        }
        Some(Expr::Number { value, places })
    }

    /// `1\frac{4}{5}`, a mixed number, or `2\frac{x}{5}`, a product.
    fn number_and_fraction(&mut self, whole: Expr) -> Option<Expr> {
        self.at += 1;
        let (top, bottom) = (self.argument()?, self.argument()?);
        let integers = [&top, &bottom].iter().all(|part| matches!(part, Expr::Number { places: None, .. }));
        let operation = if integers { Operation::Add } else { Operation::Mul };
        Some(Expr::binary(operation, whole, Expr::binary(Operation::Div, top, bottom)))
    }

    /// The fraction of a mixed number in plain text: `1 4/5`.
    fn fraction_behind(&mut self) -> Option<Expr> {
        let integer = |kind: Option<&Kind>| match kind {
            Some(Kind::Number(text)) if !text.contains('.') => Rational::from_decimal(text),
            _ => None,
        };
        let spaced = self.tokens.get(self.at).is_some_and(|token| token.spaced);
        if !spaced || self.peek_at(1) != Some(&Kind::Symbol('/')) {
            return None;
        }
        let (top, bottom) = (integer(self.peek())?, integer(self.peek_at(2))?);
        self.at += 3;
        let literal = |value| Expr::Number { value, places: None };
        Some(Expr::binary(Operation::Div, literal(top), literal(bottom)))
    }

    fn braced_index(&mut self) -> Option<u32> {
        let braced = self.take_symbol('{');
        let Some(Kind::Number(text)) = self.peek() else { return None };
        let index = text.parse().ok()?;
        self.at += 1;
        if braced {
            self.expect_symbol('}')?;
        }
        Some(index)
    }

    fn letter(&mut self, letter: char) -> Option<Expr> {
        // `f(x) =`: a name, not a product.
        if let (Some(Kind::Symbol('(')), Some(Kind::Letter(of)), Some(Kind::Symbol(')')), Some(next)) =
            (self.peek(), self.peek_at(1), self.peek_at(2), self.peek_at(3))
            && *next == Kind::Symbol('=')
        {
            let name = format!("{letter}({of})");
            self.at += 3;
            return Some(Expr::Variable(name));
        }
        self.named(letter.to_string())
    }

    fn named(&mut self, mut name: String) -> Option<Expr> {
        if self.take_symbol('_') {
            name = format!("{name}_{}", self.subscript()?);
        }
        Some(match name.as_str() {
            "e" => Expr::Constant(Constant::E),
            "i" => Expr::Constant(Constant::I),
            _ => Expr::Variable(name),
        })
    }

    /// A subscript as text.
    fn subscript(&mut self) -> Option<String> {
        let mut text = String::new();
        let braced = self.take_symbol('{');
        loop {
            match self.peek()? {
                Kind::Number(part) | Kind::Command(part) | Kind::Text(part) => text.push_str(part),
                Kind::Letter(letter) => text.push(*letter),
                Kind::Symbol(symbol) if braced && *symbol != '}' => text.push(*symbol),
                Kind::Symbol(_) => {}
            }
            if braced && self.take_symbol('}') {
                break;
            }
            self.at += 1;
            if !braced {
                break;
            }
        }
        (!text.is_empty()).then_some(text)
    }

    /// An argument as TeX takes it: a group, or one token, where of a number that is one digit.
    fn argument(&mut self) -> Option<Expr> {
        if self.take_symbol('{') {
            let inside = self.sum()?;
            self.expect_symbol('}')?;
            return Some(inside);
        }
        if let Kind::Number(text) = self.peek()?.clone()
            && text.len() > 1
            && text.is_ascii()
            && !text.starts_with('.')
        {
            let (first, rest) = text.split_at(1);
            self.tokens[self.at].kind = Kind::Number(rest.into());
            return Some(Expr::Number { value: Rational::from_decimal(first)?, places: None });
        }
        match self.peek()? {
            Kind::Number(text) => {
                let value = Rational::from_decimal(text)?;
                self.at += 1;
                Some(Expr::Number { value, places: None })
            }
            Kind::Letter(letter) => {
                let letter = *letter;
                self.at += 1;
                self.named(letter.to_string())
            }
            Kind::Symbol('(') | Kind::Command(_) => self.primary_at_depth(),
            _ => None,
        }
    }

    fn primary_at_depth(&mut self) -> Option<Expr> {
        self.depth += 1;
        let inside = (self.depth <= MAX_DEPTH).then(|| self.primary())?;
        self.depth -= 1;
        inside
    }

    fn command(&mut self, name: &str) -> Option<Expr> {
        let constant = |constant| Some(Expr::Constant(constant));
        match name {
            "frac" => {
                let (top, bottom) = (self.argument()?, self.argument()?);
                Some(Expr::binary(Operation::Div, top, bottom))
            }
            "sqrt" => self.root(),
            "binom" => {
                let (n, k) = (self.argument()?, self.argument()?);
                Some(Expr::binary(Operation::Binomial, n, k))
            }
            "pi" => constant(Constant::Pi),
            "infty" => constant(Constant::Infinity),
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
            "mathbb" => {
                let braced = self.take_symbol('{');
                let Some(Kind::Letter(letter)) = self.peek() else { return None };
                let letter = *letter;
                self.at += 1;
                if braced {
                    self.expect_symbol('}')?;
                }
                Some(real_line(letter))
            }
            "log" | "lg" | "ln" => self.logarithm(name),
            _ => match function(name) {
                Some(function) => self.application(function),
                None if GREEK.contains(&name) => self.named(format!("\\{name}")),
                None => None,
            },
        }
    }

    fn root(&mut self) -> Option<Expr> {
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

    fn enclosed(&mut self, close: &str, function: Function) -> Option<Expr> {
        let inside = self.sum()?;
        self.expect_command(close)?;
        Some(Expr::unary(function, inside))
    }

    fn logarithm(&mut self, name: &str) -> Option<Expr> {
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

    fn application(&mut self, function: Function) -> Option<Expr> {
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
    fn function_power(&mut self) -> Option<Option<Expr>> {
        if self.take_symbol('^') { Some(Some(self.exponent()?)) } else { Some(None) }
    }

    /// What a function is applied to: brackets, or factors side by side.
    fn function_argument(&mut self) -> Option<Expr> {
        if self.is_symbol('(') {
            return self.primary_at_depth();
        }
        let negative = self.take_symbol('-');
        let of = self.factors()?;
        Some(if negative { Expr::unary(Function::Neg, of) } else { of })
    }

    /// Factors side by side, up to the next function or bracket.
    fn factors(&mut self) -> Option<Expr> {
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
    fn matrix(&mut self) -> Option<Expr> {
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
    fn environment(&mut self) -> Option<String> {
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

const GREEK: [&str; 30] = [
    "alpha",
    "beta",
    "gamma",
    "delta",
    "epsilon",
    "varepsilon",
    "zeta",
    "eta",
    "theta",
    "vartheta",
    "iota",
    "kappa",
    "lambda",
    "mu",
    "nu",
    "xi",
    "rho",
    "sigma",
    "tau",
    "phi",
    "varphi",
    "chi",
    "psi",
    "omega",
    "Gamma",
    "Delta",
    "Omega",
    "Theta",
    "ell",
    "Phi",
];

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
