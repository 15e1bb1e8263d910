//! Answers as tokens: LaTeX and plain text alike, layout commands gone.

use super::typography::{greek, is_minus, subscript, superscript, vulgar_fraction};

/// Longest text that is parsed, bytes; longer ones are compared as text only.
const MAX_BYTES: usize = 4096;

/// What a token is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// Digits with at most one point; `0.1(6)` where digits repeat, `1.5e-7` in scientific notation.
    Number(String),
    Letter(char),
    /// A LaTeX command or a function's name without the backslash; `and` and `or` between items.
    Command(String),
    /// Words.
    Text(String),
    Symbol(char),
}

/// A token and whether white space stands before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub kind: Kind,
    pub spaced: bool,
}

/// What `1,234` means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comma {
    /// One number, where the digits can be groups of three.
    Thousands,
    /// Two items.
    Separates,
}

const FUNCTIONS: [&str; 26] = [
    "sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "asin", "acos", "atan", "sinh",
    "cosh", "tanh", "log", "ln", "lg", "exp", "sqrt", "pi", "infty", "inf", "cup", "cap", "binom",
];
/// Short words that are units behind a number.
const SHORT_UNITS: [&str; 34] = [
    "cm", "mm", "km", "kg", "mg", "ml", "mL", "ft", "in", "mi", "yd", "lb", "lbs", "oz", "sec", "min", "hr",
    "hrs", "mph", "kph", "deg", "rad", "day", "cup", "sq", "cu", "USD", "Hz", "kHz", "MHz", "GHz", "eV",
    "keV", "MeV",
];
/// Single upright letters that are units behind a number.
const UNIT_LETTERS: &str = "msghJNVWAKCFHTLlM";
/// What stands before a function's name in programs.
const LIBRARIES: [&str; 6] = ["np", "numpy", "math", "cmath", "sp", "sympy"];
/// Commands that only change how things look.
const LAYOUT: [&str; 24] = [
    "left",
    "right",
    "displaystyle",
    "textstyle",
    "quad",
    "qquad",
    "big",
    "Big",
    "bigl",
    "bigr",
    "Bigl",
    "Bigr",
    "bigg",
    "Bigg",
    "mathbf",
    "boldsymbol",
    "bm",
    "limits",
    "hspace",
    "hfill",
    "angle",
    "rm",
    "bf",
    "triangle",
];
const TEXT_COMMANDS: [&str; 12] = [
    "text",
    "mbox",
    "textbf",
    "textit",
    "textrm",
    "mathrm",
    "operatorname",
    "texttt",
    "textnormal",
    "emph",
    "hbox",
    "mathit",
];

/// The tokens of `text`; `None` when it is too long or holds what no answer holds.
pub(super) fn tokens(text: &str, comma: Comma) -> Option<Vec<Token>> {
    if text.len() > MAX_BYTES {
        return None;
    }
    let chars: Vec<char> = text.chars().collect();
    let mut lexer = Lexer { chars: &chars, at: 0, comma, spaced: false, set_off: false, tokens: Vec::new() };
    while lexer.at < chars.len() {
        lexer.step()?;
    }
    Some(lexer.tokens)
}

struct Lexer<'a> {
    chars: &'a [char],
    at: usize,
    comma: Comma,
    spaced: bool,
    /// Whether the space before what comes next is one that sets off a unit: `\,` or `~`.
    set_off: bool,
    tokens: Vec<Token>,
}

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn push(&mut self, kind: Kind) {
        self.tokens.push(Token { kind, spaced: self.spaced });
        (self.spaced, self.set_off) = (false, false);
    }

    fn command(&mut self, name: &str) {
        self.push(Kind::Command(name.into()));
    }

    fn step(&mut self) -> Option<()> {
        let c = self.peek(0)?;
        self.at += 1;
        match c {
            c if c.is_whitespace() => self.spaced = true,
            '\u{200b}' => self.spaced = true,
            '~' => (self.spaced, self.set_off) = (true, true),
            '$' | '£' | '€' | '`' | '?' => {}
            '\\' => self.backslash()?,
            '0'..='9' => {
                self.at -= 1;
                self.number();
            }
            '.' if self.peek(0).is_some_and(|c| c.is_ascii_digit()) => {
                self.at -= 1;
                self.number();
            }
            // A sentence ends.
            '.' if self.peek(0).is_none_or(char::is_whitespace) => {}
            c if is_minus(c) => self.push(Kind::Symbol('-')),
            '×' | '·' | '∗' | '⋅' => self.push(Kind::Symbol('*')),
            '*' if self.peek(0) == Some('*') => {
                self.at += 1;
                self.push(Kind::Symbol('^'));
            }
            '′' => self.push(Kind::Symbol('\'')),
            '″' => {
                self.push(Kind::Symbol('\''));
                self.push(Kind::Symbol('\''));
            }
            '÷' => self.push(Kind::Symbol('/')),
            '∞' => self.command("infty"),
            '√' => self.radical(),
            '°' => self.command("degree"),
            '∪' => self.command("cup"),
            '∩' => self.command("cap"),
            '∈' => self.command("in"),
            '≤' | '⩽' => self.command("le"),
            '≥' | '⩾' => self.command("ge"),
            'ℝ' | 'ℤ' | 'ℕ' | 'ℚ' => {
                self.command("mathbb");
                let letter = ['R', 'Z', 'N', 'Q'][['ℝ', 'ℤ', 'ℕ', 'ℚ'].iter().position(|&of| of == c)?];
                self.push(Kind::Letter(letter));
            }
            '∅' => self.command("emptyset"),
            '℃' => self.push(Kind::Text("celsius".into())),
            '℉' => self.push(Kind::Text("fahrenheit".into())),
            'Å' | '\u{212b}' if self.behind_number() => self.push(Kind::Text("angstrom".into())),
            '，' => self.push(Kind::Symbol(',')),
            '≠' => self.command("ne"),
            '≈' => self.command("approx"),
            '±' => self.command("pm"),
            c if superscript(c).is_some() => {
                self.at -= 1;
                self.shifted('^', superscript);
            }
            c if subscript(c).is_some() => {
                self.at -= 1;
                self.shifted('_', subscript);
            }
            c if vulgar_fraction(c).is_some() => {
                let (top, bottom) = vulgar_fraction(c)?;
                self.command("frac");
                self.push(Kind::Number(top.into()));
                self.push(Kind::Number(bottom.into()));
            }
            // `25\,{}^{\circ}`: nothing, so that the exponent has a base.
            '{' if self.peek(0) == Some('}') && self.peek(1) == Some('^') => self.at += 1,
            '<' | '>' if self.peek(0) == Some('=') => {
                self.at += 1;
                self.command(if c == '<' { "le" } else { "ge" });
            }
            '!' if self.peek(0) == Some('=') => {
                self.at += 1;
                self.command("ne");
            }
            '=' => {
                if self.peek(0) == Some('=') {
                    self.at += 1;
                }
                self.push(Kind::Symbol('='));
            }
            c if c.is_ascii_alphabetic() => {
                self.at -= 1;
                self.word()?;
            }
            c if greek(c).is_some() => self.named(greek(c)?)?,
            c if c.is_alphabetic() => self.push(Kind::Letter(c)),
            '+' | '*' | '/' | '^' | '_' | '(' | ')' | '[' | ']' | '{' | '}' | '|' | '<' | '>' | ',' | ';'
            | '!' | '%' | '&' | ':' | '\'' => self.push(Kind::Symbol(c)),
            _ => return None,
        }
        Some(())
    }

    fn backslash(&mut self) -> Option<()> {
        let c = self.peek(0)?;
        self.at += 1;
        match c {
            ',' | ';' | ':' | ' ' => (self.spaced, self.set_off) = (true, true),
            '!' | '(' | ')' | '[' | ']' => self.spaced = true,
            '\\' => self.command("newline"),
            '{' => self.command("{"),
            '}' => self.command("}"),
            '|' => self.push(Kind::Symbol('|')),
            '%' => self.push(Kind::Symbol('%')),
            '$' | '#' => {}
            '&' | '_' => self.push(Kind::Text(c.into())),
            c if c.is_ascii_alphabetic() => {
                self.at -= 1;
                let name = self.letters();
                self.named(&name)?;
            }
            _ => return None,
        }
        Some(())
    }

    fn named(&mut self, name: &str) -> Option<()> {
        if LAYOUT.contains(&name) {
            // `\left.` and `\right.` are brackets that do not show.
            if matches!(name, "left" | "right") && self.peek(0) == Some('.') {
                self.at += 1;
            }
            return Some(());
        }
        if !TEXT_COMMANDS.contains(&name) {
            let unit = match name {
                "Omega" if self.set_off => "Ω",
                "mu" if self.set_off => "μ",
                "AA" => "angstrom",
                "mathring" if self.set_off && self.chars[self.at..].starts_with(&['{', 'A', '}']) => {
                    "angstrom"
                }
                _ => "",
            };
            if !unit.is_empty() && self.behind_number() {
                self.push(Kind::Text(unit.into()));
                self.at += if name == "mathring" { 3 } else { 0 };
                return Some(());
            }
            self.command(match name {
                "dfrac" | "tfrac" | "cfrac" | "sfrac" => "frac",
                "tbinom" | "dbinom" => "binom",
                "leq" | "leqslant" => "le",
                "geq" | "geqslant" => "ge",
                "neq" => "ne",
                "lbrace" => "{",
                "rbrace" => "}",
                "asin" => "arcsin",
                "acos" => "arccos",
                "atan" => "arctan",
                "lor" | "vee" => "or",
                "land" | "wedge" => "and",
                "lvert" | "rvert" | "vert" | "mid" => {
                    self.push(Kind::Symbol('|'));
                    return Some(());
                }
                "lbrack" | "rbrack" => {
                    self.push(Kind::Symbol(if name == "lbrack" { '[' } else { ']' }));
                    return Some(());
                }
                "lt" | "gt" => {
                    self.push(Kind::Symbol(if name == "lt" { '<' } else { '>' }));
                    return Some(());
                }
                "cdot" | "times" | "ast" => {
                    self.push(Kind::Symbol('*'));
                    return Some(());
                }
                "div" => {
                    self.push(Kind::Symbol('/'));
                    return Some(());
                }
                other => other,
            });
            return Some(());
        }
        while self.peek(0).is_some_and(char::is_whitespace) {
            self.at += 1;
        }
        if self.peek(0) != Some('{') {
            return Some(());
        }
        let content = self.braced()?;
        self.text_content(name, content.trim())
    }

    /// What stands in `\text{..}`: words, or mathematics in an upright font.
    fn text_content(&mut self, name: &str, content: &str) -> Option<()> {
        let content = content.trim_matches('~').trim_end_matches(['.', ':']).trim();
        let one_letter = content.len() == 1 && content.chars().all(|c| c.is_ascii_alphabetic());
        match content {
            "" => {}
            "," => self.push(Kind::Symbol(',')),
            "and" | ", and" => self.command("and"),
            "or" | ", or" => self.command("or"),
            scale if self.behind_degree() && temperature(scale).is_some() => {
                self.push(Kind::Text(temperature(scale)?.into()));
            }
            word if FUNCTIONS.contains(&word) => self.known(word),
            unit if one_letter && UNIT_LETTERS.contains(unit) && self.behind_quantity() => {
                self.push(Kind::Text(unit.into()));
            }
            letter if one_letter && name.starts_with("math") => {
                self.push(Kind::Letter(letter.chars().next()?));
            }
            maths if !maths.chars().any(char::is_alphabetic) => {
                for token in tokens(maths, self.comma)? {
                    self.push(token.kind);
                }
            }
            words => self.push(Kind::Text(words.to_owned())),
        }
        Some(())
    }

    /// The content of the braces that begin here.
    fn braced(&mut self) -> Option<String> {
        let start = self.at + 1;
        let mut depth = 0;
        while let Some(c) = self.peek(0) {
            self.at += 1;
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return Some(self.chars[start..self.at - 1].iter().collect());
            }
        }
        None
    }

    fn letters(&mut self) -> String {
        let start = self.at;
        while self.peek(0).is_some_and(|c| c.is_ascii_alphabetic()) {
            self.at += 1;
        }
        self.chars[start..self.at].iter().collect()
    }

    fn known(&mut self, name: &str) {
        self.command(match name {
            "asin" => "arcsin",
            "acos" => "arccos",
            "atan" => "arctan",
            "inf" => "infty",
            other => other,
        });
    }

    /// Letters without a backslash: a function, a unit, a word, or variables side by side.
    fn word(&mut self) -> Option<()> {
        let word = self.letters();
        if LIBRARIES.contains(&word.as_str())
            && self.peek(0) == Some('.')
            && self.peek(1).is_some_and(|c| c.is_ascii_alphabetic())
        {
            self.at += 1;
            return self.of_library();
        }
        let behind_number = self.behind_number();
        let one = word.len() == 1;
        match word.as_str() {
            "and" | "or" => self.command(&word),
            scale if self.behind_degree() && temperature(scale).is_some() => {
                self.push(Kind::Text(temperature(scale).unwrap_or_default().into()));
            }
            "sqrt" => self.radical(),
            "x" if self.multiplies_power_of_ten() => self.push(Kind::Symbol('*')),
            "infinity" | "Infinity" | "oo" => self.command("infty"),
            unit if behind_number && SHORT_UNITS.contains(&unit) => self.push(Kind::Text(word)),
            name if FUNCTIONS.contains(&name) => self.known(name),
            "in" => self.command("in"),
            _ if word.len() >= 4 => self.push(Kind::Text(word)),
            _ if one => self.push(Kind::Letter(word.chars().next().unwrap_or('?'))),
            _ => word.chars().for_each(|c| self.push(Kind::Letter(c))),
        }
        Some(())
    }

    /// What a program's library calls a function or a constant, behind its prefix: `np.arcsin`, `math.log`.
    fn of_library(&mut self) -> Option<()> {
        let name = self.letters();
        match name.as_str() {
            "sqrt" => self.radical(),
            // The natural logarithm; `log10` and `log2` say their base.
            "log" => {
                let digits: String =
                    self.chars[self.at..].iter().take_while(|c| c.is_ascii_digit()).collect();
                self.at += digits.len();
                if digits.is_empty() {
                    self.command("ln");
                } else {
                    self.command("log");
                    self.push(Kind::Symbol('_'));
                    self.push(Kind::Symbol('{'));
                    self.push(Kind::Number(digits));
                    self.push(Kind::Symbol('}'));
                }
            }
            "e" => self.push(Kind::Letter('e')),
            "oo" => self.command("infty"),
            known if FUNCTIONS.contains(&known) => self.known(known),
            _ => return None,
        }
        Some(())
    }

    /// Whether a number, a unit or a bracket ends here, so that a unit may follow.
    fn behind_number(&self) -> bool {
        self.tokens.last().is_some_and(|token| {
            matches!(&token.kind, Kind::Number(_) | Kind::Text(_) | Kind::Symbol('}' | ')' | '/'))
        })
    }

    /// Whether an upright letter here is a unit: right behind digits or another unit, or set off from a bracket.
    fn behind_quantity(&self) -> bool {
        let mut kinds = self.tokens.iter().rev().map(|token| &token.kind);
        match kinds.next() {
            Some(Kind::Number(_) | Kind::Text(_)) => true,
            Some(Kind::Symbol('/' | '*')) => matches!(kinds.next(), Some(Kind::Text(_))),
            Some(Kind::Symbol('}' | ')')) => self.spaced,
            _ => false,
        }
    }

    /// Whether the sign of a degree stands before, bare or as `^{\circ}`.
    fn behind_degree(&self) -> bool {
        let mut kinds = self.tokens.iter().rev().map(|token| &token.kind).peekable();
        kinds.next_if(|kind| **kind == Kind::Symbol('}'));
        matches!(kinds.next(), Some(Kind::Command(name)) if name == "circ" || name == "degree")
    }

    /// Whether the letter x here is the sign of `1.5 x 10^7`.
    fn multiplies_power_of_ten(&self) -> bool {
        let number = matches!(self.tokens.last(), Some(Token { kind: Kind::Number(_), .. }));
        let mut rest = self.chars[self.at..].iter().copied().skip_while(|c| c.is_whitespace());
        let ten = rest.next() == Some('1') && rest.next() == Some('0');
        number && ten && rest.next().is_some_and(|c| c == '^' || c == '*' || superscript(c).is_some())
    }

    /// Characters above or below the line, as an exponent or a subscript in braces.
    fn shifted(&mut self, mark: char, plain: impl Fn(char) -> Option<char>) {
        self.push(Kind::Symbol(mark));
        self.push(Kind::Symbol('{'));
        let mut digits = String::new();
        while let Some(c) = self.peek(0).and_then(&plain) {
            self.at += 1;
            if c.is_ascii_digit() {
                digits.push(c);
                continue;
            }
            self.push_digits(&mut digits);
            self.push(if c.is_alphabetic() { Kind::Letter(c) } else { Kind::Symbol(c) });
        }
        self.push_digits(&mut digits);
        self.push(Kind::Symbol('}'));
    }

    fn push_digits(&mut self, digits: &mut String) {
        if !digits.is_empty() {
            self.push(Kind::Number(std::mem::take(digits)));
        }
    }

    /// `√16` and `sqrt 16`: a root of all the digits, where TeX's `\sqrt16` takes the first one.
    fn radical(&mut self) {
        self.command("sqrt");
        let ahead = self.chars[self.at..].iter().take_while(|c| c.is_whitespace()).count();
        if self.peek(ahead).is_some_and(|c| c.is_ascii_digit()) {
            self.at += ahead;
            self.push(Kind::Symbol('{'));
            self.number();
            self.push(Kind::Symbol('}'));
        }
    }

    fn number(&mut self) {
        let mut text = String::new();
        let mut pointed = false;
        while let Some(c) = self.peek(0) {
            match c {
                '0'..='9' => text.push(c),
                '.' if !pointed && self.peek(1).is_some_and(|c| c.is_ascii_digit()) => {
                    pointed = true;
                    text.push(c);
                }
                _ => match self.thousands(&text, pointed) {
                    Some(skip) => {
                        self.at += skip;
                        continue;
                    }
                    None => break,
                },
            }
            self.at += 1;
        }
        if !self.repeating(&mut text, pointed) {
            if !pointed && self.point_without_places() {
                self.at += 1;
            }
            self.scientific(&mut text);
        }
        self.push(Kind::Number(text));
    }

    /// Whether a point stands here that only ends a whole number in the middle of a formula: `1./3`, `3.\pi`, `6.e-3`.
    fn point_without_places(&self) -> bool {
        self.peek(0) == Some('.')
            && match self.peek(1) {
                Some('e' | 'E') => {
                    let sign = usize::from(self.peek(2).is_some_and(|c| c == '+' || is_minus(c)));
                    self.peek(2 + sign).is_some_and(|c| c.is_ascii_digit())
                }
                Some(c) => is_minus(c) || superscript(c).is_some() || "/*^+)]},;=<>\\×·÷%".contains(c),
                None => false,
            }
    }

    /// The digits that repeat for ever, behind those of a decimal: `0.\overline{3}`, `0.1\bar6`, `0.(3)`.
    fn repeating(&mut self, text: &mut String, pointed: bool) -> bool {
        let rest = &self.chars[self.at..];
        let point = usize::from(!pointed && rest.first() == Some(&'.'));
        if !pointed && point == 0 {
            return false;
        }
        let rest = &rest[point..];
        let mark = ["\\overline", "\\bar", "\\dot"]
            .iter()
            .find(|mark| rest.len() > mark.len() && mark.chars().zip(rest).all(|(a, &b)| a == b));
        let (mark, close) = match mark {
            Some(mark) if rest[mark.len()] == '{' => (mark.len() + 1, Some('}')),
            Some(mark) => (mark.len(), None),
            // `0.1(6)` could be a product.
            None if point == 1 && rest.first() == Some(&'(') => (1, Some(')')),
            None => return false,
        };
        let limit = if close.is_some() { usize::MAX } else { 1 };
        let cycle: String = rest[mark..].iter().take(limit).take_while(|c| c.is_ascii_digit()).collect();
        let end = mark + cycle.len();
        if cycle.is_empty() || close.is_some_and(|close| rest.get(end) != Some(&close)) {
            return false;
        }
        self.at += point + end + usize::from(close.is_some());
        let point = if pointed { "" } else { "." };
        for part in [point, "(", &cycle, ")"] {
            text.push_str(part);
        }
        true
    }

    /// `e14`, `E-5` behind digits: a power of ten. `2e` and `2e - 5` are Euler's number.
    fn scientific(&mut self, text: &mut String) {
        if !matches!(self.peek(0), Some('e' | 'E')) || text.is_empty() {
            return;
        }
        let sign = self.peek(1).filter(|&c| c == '+' || is_minus(c));
        let start = 1 + usize::from(sign.is_some());
        let digits: String =
            self.chars[self.at..].iter().skip(start).take_while(|c| c.is_ascii_digit()).collect();
        if digits.is_empty() {
            return;
        }
        self.at += start + digits.len();
        let minus = if sign.is_some_and(is_minus) { "-" } else { "" };
        for part in ["e", minus, &digits] {
            text.push_str(part);
        }
    }

    /// How many characters separate the digits so far from the next group of three.
    fn thousands(&self, digits: &str, pointed: bool) -> Option<usize> {
        let rest = &self.chars[self.at..];
        // `10,\!080` and `10{,}080` can only be one number.
        let marks = [
            "\u{202f}", "\u{2009}", "\u{a0}", ",\\!\\,", ",\\! ", ",\\!", "{,}\\!", "{,}", "\\,", "\\;",
            "\\ ", "{\\,}", ",",
        ];
        let mark = marks.iter().find(|mark| {
            let n = mark.chars().count();
            rest.len() >= n && mark.chars().zip(rest).all(|(a, &b)| a == b)
        })?;
        if *mark == "," && self.comma == Comma::Separates {
            return None;
        }
        let n = mark.chars().count();
        let group = rest.get(n..n + 3)?;
        let ends = rest.get(n + 3).is_none_or(|c| !c.is_ascii_digit());
        let fits = !pointed && !digits.is_empty() && !digits.starts_with('0');
        // The first group has one to three digits; those after it were all of three.
        let first = digits.len() <= 3 || self.follows_group(digits.len());
        (fits && ends && first && group.iter().all(char::is_ascii_digit)).then_some(n)
    }

    /// Whether the last three digits were reached through a separator.
    fn follows_group(&self, n_digits: usize) -> bool {
        n_digits > 3 && self.at > 3 && !self.chars[self.at - 4].is_ascii_digit()
    }
}

/// The unit that a letter behind the sign of a degree is.
fn temperature(scale: &str) -> Option<&'static str> {
    Some(match scale {
        "C" | "Celsius" => "celsius",
        "F" | "Fahrenheit" => "fahrenheit",
        "K" => "kelvin",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, comma: Comma) -> String {
        let show = |token: Token| match token.kind {
            Kind::Number(text) | Kind::Command(text) => text,
            Kind::Text(text) => format!("'{text}'"),
            Kind::Letter(c) | Kind::Symbol(c) => c.to_string(),
        };
        tokens(text, comma).unwrap().into_iter().map(show).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn digits_in_groups_are_one_number() {
        for text in ["10,080", "10,\\!080", "10{,}080", "10\\,080", "10,\\! 080"] {
            assert_eq!(shown(text, Comma::Thousands), "10080", "{text}");
        }
        assert_eq!(shown("11,\\! 111,\\! 111,\\! 100", Comma::Separates), "11111111100");
        assert_eq!(shown("10,080", Comma::Separates), "10 , 080");
        assert_eq!(shown("1,2", Comma::Thousands), "1 , 2");
        assert_eq!(shown("1234,567", Comma::Thousands), "1234 , 567");
        assert_eq!(shown("1,2345", Comma::Thousands), "1 , 2345");
    }

    #[test]
    fn words_letters_and_units() {
        assert_eq!(shown("5.4 cents", Comma::Separates), "5.4 'cents'");
        assert_eq!(shown("15\\mbox{ cm}^2", Comma::Separates), "15 'cm' ^ 2");
        assert_eq!(shown("2xy cm", Comma::Separates), "2 x y c m");
        assert_eq!(shown("x = 1 \\text{ or } x = 2", Comma::Separates), "x = 1 or x = 2");
        assert_eq!(shown("\\left( \\dfrac12 \\right)", Comma::Separates), "( frac 12 )");
    }
}
