//! Tokens to a tree, in one pass of bounded depth.

mod command;
mod literal;
mod scalar;
mod symbol;
mod unit;

use super::budget::Budget;
use super::expression::{Expr, Relation, SetOperation};
use super::token::{Comma, Kind, Token, tokens};

/// Deepest nesting that is followed.
const MAX_DEPTH: usize = 40;
/// Longest answer, tokens: a sum of many terms is a deep tree, too.
const MAX_TOKENS: usize = 600;

/// Which names before a bracket are functions and no factors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Functions<'a> {
    /// Those before numbers or symbols, but no sum of them: `f(2)`, `u(t)`, `f(-x)`, `f(2x)`, but not `k(x+1)`.
    ByTheirArguments,
    /// All.
    Every,
    /// These, whatever they are applied to.
    Named(&'a [String]),
}

/// Reads an answer; `None` when it is not mathematics that this grammar knows.
pub(super) fn parse(text: &str, comma: Comma, functions: Functions) -> Option<Expr> {
    let mut parser = Parser {
        functions,
        exponent: None,
        tokens: tokens(text, comma)?,
        at: 0,
        depth: 0,
        bars: 0,
        budget: Budget::new(Budget::COMPARISON),
    };
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

/// Whether they are conditions, an inequality among them: `x < -2`, `x > 2`.
fn are_conditions(items: &[Expr]) -> bool {
    let condition = |item: &Expr| matches!(item, Expr::Statement(..) | Expr::SetOperation(..));
    items.len() > 1 && items.iter().all(condition) && items.iter().any(Expr::is_inequality)
}

fn all_in_one(operation: SetOperation, items: Vec<Expr>) -> Vec<Expr> {
    let joined = |a, b| Expr::SetOperation(operation, Box::new(a), Box::new(b));
    items.into_iter().reduce(joined).into_iter().collect()
}

struct Parser<'a> {
    functions: Functions<'a>,
    /// Where an exponent without braces begins: one symbol, applied to nothing.
    exponent: Option<usize>,
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
    /// Open `|`.
    bars: usize,
    /// What reading literals may cost.
    budget: Budget,
}

impl Parser<'_> {
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

    /// Items up to whatever does not continue a list. A trailing separator is forgiven. Conditions on a number that
    /// are joined by `or` or `and` become one set.
    fn list(&mut self) -> Option<Vec<Expr>> {
        let mut items = vec![self.item()?];
        let (mut any_and, mut any_or) = (false, false);
        loop {
            let mut separated = false;
            loop {
                let (and, or) = (self.take_command("and"), self.take_command("or"));
                (any_and, any_or) = (any_and || and, any_or || or);
                if !(and || or || self.take_symbol(',') || self.take_symbol(';')) {
                    break;
                }
                separated = true;
            }
            let ends = match self.peek() {
                None => true,
                Some(Kind::Symbol(c)) => matches!(c, ')' | ']' | '}'),
                Some(Kind::Command(name)) => matches!(name.as_str(), "}" | "rangle"),
                _ => false,
            };
            if ends || !separated {
                break;
            }
            items.push(self.item()?);
        }
        Some(match (any_and, any_or) {
            (false, true) if are_conditions(&items) => all_in_one(SetOperation::Union, items),
            (true, false) if are_conditions(&items) => all_in_one(SetOperation::Intersection, items),
            _ => items,
        })
    }

    /// One item with the words around it.
    fn item(&mut self) -> Option<Expr> {
        if let Some(words) = self.words() {
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
        let mut sides = vec![(relation, self.side()?)];
        while let Some(relation) = self.relation() {
            sides.push((relation, self.side()?));
        }
        Some(Expr::Statement(Box::new(first), sides))
    }

    /// The right side of a relation, which may be words: `SRMC = LRMC`.
    fn side(&mut self) -> Option<Expr> {
        match self.words() {
            Some(words) => Some(Expr::Text(words)),
            None => self.sets(),
        }
    }

    fn sets(&mut self) -> Option<Expr> {
        let mut left = self.ratio()?;
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

    /// `3 : 2 : 1`, or a sum alone.
    fn ratio(&mut self) -> Option<Expr> {
        let first = self.sum()?;
        if !self.is_symbol(':') {
            return Some(first);
        }
        let mut parts = vec![first];
        while self.take_symbol(':') {
            parts.push(self.sum()?);
        }
        Some(Expr::Ratio(parts))
    }
}
