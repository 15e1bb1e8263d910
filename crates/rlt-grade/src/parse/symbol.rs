//! Symbols: letters with their accents, subscripts and primes, and what they are applied to where they are functions.

use super::super::derivative::{DOT, PARTIAL, PRIME};
use super::super::expression::{Bracket, Constant, Expr};
use super::super::token::Kind;
use super::{Functions, Parser};

/// Most primes or dots of a derivative.
const MAX_ORDER: usize = 9;

impl Parser<'_> {
    /// The symbol that begins with `base`, which has been read.
    pub(super) fn named(&mut self, base: &str) -> Option<Expr> {
        Some(match self.symbol(base)?.as_str() {
            "e" => Expr::Constant(Constant::E),
            "i" => Expr::Constant(Constant::I),
            name => Expr::Variable(name.to_owned()),
        })
    }

    /// A name with the subscript and the primes behind it, in either order: `x_1'`, `x'_1`.
    fn symbol(&mut self, base: &str) -> Option<String> {
        // `\dot{x}_1` is `\dot{x_1}`.
        let bare = base.trim_end_matches([PRIME, DOT]);
        let mut marks = base[bare.len()..].to_owned();
        let mut name = bare.to_owned();
        loop {
            let primes = self.primes();
            if primes > 0 {
                marks.push_str(&String::from(PRIME).repeat(primes));
            } else if !name.contains('_') && self.take_symbol('_') {
                name = format!("{name}_{}", self.subscript()?);
            } else {
                break;
            }
        }
        (marks.chars().count() <= MAX_ORDER).then(|| name + &marks)
    }

    /// Takes `'`, `^\prime` or `^{\prime\prime}`; how many there were.
    fn primes(&mut self) -> usize {
        let prime = |kind: Option<&Kind>| match kind {
            Some(Kind::Symbol('\'')) => true,
            Some(Kind::Command(name)) => name == "prime",
            _ => false,
        };
        let raised = self.is_symbol('^');
        let braced = raised && self.peek_at(1) == Some(&Kind::Symbol('{'));
        let start = usize::from(raised) + usize::from(braced);
        let mut n = 0;
        while n < MAX_ORDER && prime(self.peek_at(start + n)) && (n == 0 || !raised || braced) {
            n += 1;
        }
        if n == 0 || (braced && self.peek_at(start + n) != Some(&Kind::Symbol('}'))) {
            return 0;
        }
        self.at += start + n + usize::from(braced);
        n
    }

    /// A Greek letter or the like, or a symbol with an accent.
    pub(super) fn command_symbol(&mut self, name: &str) -> Option<Expr> {
        match name {
            "partial" => Some(Expr::Variable(PARTIAL.into())),
            "dot" | "ddot" | "dddot" => {
                let of = self.accented()?;
                let order = name.bytes().filter(|b| *b == b'd').count();
                // "dot" has one d, "ddot" two.
                self.named(&(of + &String::from(DOT).repeat(order)))
            }
            _ if ACCENTS.contains(&name) => {
                let of = self.accented()?;
                let accent = name.trim_start_matches("wide");
                self.named(&format!("\\{accent}{{{of}}}"))
            }
            _ if LETTERS.contains(&name) => self.named(&format!("\\{name}")),
            _ => None,
        }
    }

    /// What stands below an accent: one symbol, or letters side by side as in `\overline{AB}`.
    fn accented(&mut self) -> Option<String> {
        let braced = self.take_symbol('{');
        let mut name = String::new();
        loop {
            let base = match self.peek()? {
                Kind::Letter(letter) => letter.to_string(),
                Kind::Text(letters) => letters.clone(),
                Kind::Command(command) if LETTERS.contains(&command.as_str()) => format!("\\{command}"),
                _ => return None,
            };
            self.at += 1;
            name.push_str(&if braced { self.symbol(&base)? } else { base });
            if !braced || self.take_symbol('}') {
                return Some(name);
            }
        }
    }

    /// `value`, which began at `start`, applied to the brackets behind it where it is a function's name.
    pub(super) fn applied(&mut self, value: Expr, start: usize) -> Option<Expr> {
        let Expr::Variable(name) = &value else { return Some(value) };
        let open = match self.peek() {
            Some(Kind::Symbol(open @ ('(' | '['))) => *open,
            _ => return Some(value),
        };
        let function = match self.functions {
            Functions::ByTheirArguments => self.arguments_ahead(if open == '(' { ')' } else { ']' }),
            Functions::Every => true,
            Functions::Named(names) => names.iter().any(|known| known == name),
        };
        if !function || self.exponent == Some(start) || name.ends_with(')') {
            return Some(value);
        }
        self.at += 1;
        let of = match self.group_at_depth(open)? {
            Expr::Group { open, close, items } if open == close && open == Bracket::Round => items,
            Expr::Group { .. } => return None,
            one => vec![one],
        };
        of.iter().all(Expr::is_scalar).then(|| Expr::Applied { name: format!("{name}()"), of })
    }

    /// Whether the bracket here holds nothing but numbers and symbols, products, fractions and functions of them,
    /// signed or not, between commas.
    fn arguments_ahead(&self, close: char) -> bool {
        let mut at = 1;
        // Within the braces of a fraction or a subscript, and how deep in the brackets of a function.
        let (mut braces, mut brackets) = (0_usize, 0_usize);
        let mut begins = true;
        loop {
            let Some(kind) = self.peek_at(at) else { return false };
            begins = match kind {
                Kind::Symbol('-' | '+') if begins => false,
                Kind::Number(_) | Kind::Letter(_) | Kind::Symbol('*' | '/' | '_' | '\'') => false,
                Kind::Command(name) if LETTERS.contains(&name.as_str()) => false,
                Kind::Command(name) if matches!(name.as_str(), "infty" | "pi" | "frac") => false,
                Kind::Symbol(',') if braces == 0 => true,
                Kind::Symbol('{') => {
                    braces += 1;
                    true
                }
                Kind::Symbol('}') if braces > 0 => {
                    braces -= 1;
                    false
                }
                Kind::Symbol('(') if at > 1 && matches!(self.peek_at(at - 1), Some(Kind::Letter(_))) => {
                    brackets += 1;
                    true
                }
                Kind::Symbol(')') if brackets > 0 => {
                    brackets -= 1;
                    false
                }
                Kind::Symbol(end) => return at > 1 && braces == 0 && brackets == 0 && *end == close,
                _ => return false,
            };
            at += 1;
        }
    }
}

/// Accents that make another symbol of a letter.
const ACCENTS: [&str; 13] = [
    "bar",
    "hat",
    "vec",
    "tilde",
    "check",
    "breve",
    "acute",
    "grave",
    "mathring",
    "overline",
    "widehat",
    "widetilde",
    "underline",
];

/// Commands that are letters.
const LETTERS: [&str; 46] = [
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
    "varkappa",
    "lambda",
    "mu",
    "nu",
    "xi",
    "omicron",
    "rho",
    "varrho",
    "sigma",
    "varsigma",
    "varpi",
    "tau",
    "upsilon",
    "phi",
    "varphi",
    "chi",
    "psi",
    "omega",
    "Gamma",
    "Delta",
    "Theta",
    "Lambda",
    "Xi",
    "Pi",
    "Sigma",
    "Upsilon",
    "Phi",
    "Psi",
    "Omega",
    "ell",
    "hbar",
    "aleph",
    "imath",
    "jmath",
];
