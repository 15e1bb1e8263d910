//! Every gold answer of the benchmarks in its other usual notations, each of which must match, and near misses, none of
//! which may. An answer that only ever meets itself shows nothing about how it is read.

#![expect(clippy::print_stderr, reason = "figures that docs/GRADING.md quotes, and why a test was skipped")]

mod benchmarks;

use std::collections::BTreeMap;
use std::path::Path;

use benchmarks::{answers, golds};
use rlt_grade::{ThoughtRule, equivalent, grade_math};

/// An answer in another notation: how it was made, and whether it is still the same answer.
struct Rewrite {
    name: &'static str,
    text: String,
    same: bool,
}

#[derive(Default)]
struct Rewrites(Vec<Rewrite>);

impl Rewrites {
    fn same(&mut self, name: &'static str, text: impl Into<String>) {
        self.0.push(Rewrite { name, text: text.into(), same: true });
    }

    fn different(&mut self, name: &'static str, text: impl Into<String>) {
        self.0.push(Rewrite { name, text: text.into(), same: false });
    }

    /// What a replacement makes of `gold`, where it changes anything.
    fn replaced(&mut self, name: &'static str, gold: &str, changed: Option<String>) {
        if let Some(changed) = changed.filter(|changed| changed != gold) {
            self.same(name, changed);
        }
    }
}

/// A number as a fraction of whole numbers.
#[derive(Clone, Copy, PartialEq)]
struct Fraction {
    num: i128,
    den: i128,
}

fn gcd(a: i128, b: i128) -> i128 {
    if b == 0 { a.abs() } else { gcd(b, a % b) }
}

impl Fraction {
    fn new(num: i128, den: i128) -> Self {
        let divisor = gcd(num, den).max(1) * den.signum();
        Self { num: num / divisor, den: den / divisor }
    }

    /// Of "42", "-7", "1.25", "14/3" and `\frac{14}{3}`, read apart from the grader.
    fn parse(text: &str) -> Option<Self> {
        let text = text.replace("\\!", "").replace("\\dfrac", "\\frac");
        if let Some(positive) = text.strip_prefix('-') {
            return Self::parse(positive)
                .filter(|_| !positive.starts_with('-'))
                .map(|of| Self::new(-of.num, of.den));
        }
        let whole = |text: &str| {
            let plain = !text.is_empty() && text.len() <= 12 && text.bytes().all(|b| b.is_ascii_digit());
            plain.then(|| text.parse::<i128>().unwrap())
        };
        if let Some(parts) = text.strip_prefix("\\frac{").and_then(|rest| rest.strip_suffix('}')) {
            let (num, den) = parts.split_once("}{")?;
            return Some(Self::new(whole(num)?, whole(den)?));
        }
        if let Some((num, den)) = text.split_once('/') {
            return Some(Self::new(whole(num)?, whole(den)?));
        }
        let (whole_part, places) = text.split_once('.').unwrap_or((&text, ""));
        let digits = whole(&format!("{whole_part}{places}"))?;
        (places.len() <= 12 && !(text.len() > 1 && text.starts_with('0') && places.is_empty()))
            .then(|| Self::new(digits, 10_i128.pow(places.len() as u32)))
    }

    fn scaled(self, num: i128, den: i128) -> Self {
        Self::new(self.num * num, self.den * den)
    }

    fn latex(self) -> String {
        let sign = if self.num < 0 { "-" } else { "" };
        if self.den == 1 {
            self.num.to_string()
        } else {
            format!("{sign}\\frac{{{}}}{{{}}}", self.num.abs(), self.den)
        }
    }

    /// Digits before the point, behind it, and those that repeat.
    fn decimals(self) -> Option<(String, String, String)> {
        let (whole, mut rest) = (self.num.abs() / self.den, self.num.abs() % self.den);
        let (mut digits, mut seen) = (String::new(), Vec::new());
        while rest != 0 && digits.len() < 16 {
            if let Some(start) = seen.iter().position(|&known| known == rest) {
                let cycle = digits.split_off(start);
                return Some((whole.to_string(), digits, cycle));
            }
            seen.push(rest);
            digits.push_str(&(rest * 10 / self.den).to_string());
            rest = rest * 10 % self.den;
        }
        (rest == 0).then(|| (whole.to_string(), digits, String::new()))
    }

    /// Mantissa and power of ten, of a terminating decimal that is not zero.
    fn scientific(self) -> Option<(String, i32)> {
        let (whole, places, cycle) = self.decimals().filter(|_| self.num != 0)?;
        if !cycle.is_empty() {
            return None;
        }
        let all = format!("{whole}{places}");
        let digits = all.trim_start_matches('0');
        let power = whole.len() as i32 - 1 - (all.len() - digits.len()) as i32;
        let digits = digits.trim_end_matches('0');
        let sign = if self.num < 0 { "-" } else { "" };
        let (first, rest) = digits.split_at(1);
        let point = if rest.is_empty() { "" } else { "." };
        Some((format!("{sign}{first}{point}{rest}"), power))
    }
}

fn raised(number: i32) -> String {
    let digits = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];
    let digit = |c: char| c.to_digit(10).map_or('⁻', |digit| digits[digit as usize]);
    number.to_string().chars().map(digit).collect()
}

/// A number that is `mantissa` times ten to the `power`, as people write it.
fn scientific_forms(mantissa: &str, power: i32) -> Vec<(&'static str, String)> {
    vec![
        ("e-notation", format!("{mantissa}e{power}")),
        ("e-notation", format!("{mantissa}E{power:+}")),
        ("e-notation", format!("{mantissa}e{power:+03}")),
        ("times ten to the", format!("{mantissa} \\times 10^{{{power}}}")),
        ("times ten to the", format!("{mantissa}\\cdot10^{{{power}}}")),
        ("times ten to the", format!("{mantissa} × 10{}", raised(power))),
        ("times ten to the", format!("{mantissa}*10^{power}")),
        ("times ten to the", format!("{mantissa}*10**({power})")),
        ("times ten to the", format!("{mantissa} x 10^{power}")),
    ]
}

fn grouped(digits: &str, mark: &str) -> String {
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push_str(mark);
        }
        out.push(digit);
    }
    out
}

fn of_numbers(value: Fraction, into: &mut Rewrites) {
    let sign = if value.num < 0 { "-" } else { "" };
    let (num, den) = (value.num.abs(), value.den);
    into.same("unreduced", format!("{sign}\\frac{{{}}}{{{}}}", 2 * num, 2 * den));
    into.same("slash", format!("{}/{den}", value.num));
    into.same("over", format!("{{{sign}{num} \\over {den}}}"));
    into.same("fraction", format!("{sign}\\dfrac{{{num}}}{{{den}}}"));
    into.same("fraction", format!("\\frac{{{sign}{num}}}{{{den}}}"));
    into.same("division sign", format!("{sign}{num} \\div {den}"));
    into.same("labelled", format!("x = {}", value.latex()));
    into.same("dressed", format!("\\mathbf{{{}}}", value.latex()));
    into.same("dressed", format!("\\displaystyle {}", value.latex()));
    if value.num < 0 {
        into.same("Unicode minus", value.latex().replace('-', "−"));
        into.same("Unicode minus", value.latex().replace('-', "\u{2013}"));
    }
    if den > 1 && num > den && num < 100_000 {
        let (whole, part) = (num / den, num % den);
        into.same("mixed number", format!("{sign}{whole}\\frac{{{part}}}{{{den}}}"));
        if sign.is_empty() {
            into.same("mixed number", format!("{whole} {part}/{den}"));
        }
        if Fraction::new(whole * part, den).num != num {
            into.different(
                "mixed number as a product",
                format!("{sign}{whole} \\cdot \\frac{{{part}}}{{{den}}}"),
            );
        }
    }
    if let Some((whole, places, cycle)) = value.decimals() {
        if cycle.is_empty() {
            let point = if places.is_empty() { "" } else { "." };
            into.same("decimal", format!("{sign}{whole}.{places}0"));
            into.same("decimal", format!("{sign}{whole}{point}{places}"));
            if whole == "0" && !places.is_empty() {
                into.same("decimal", format!("{sign}.{places}"));
            }
            into.different("another digit", format!("{sign}{whole}.{places}1"));
            if whole.len() > 3 {
                for mark in [",", ",\\!", "{,}", "\\,", "\u{2009}"] {
                    into.same("thousands", format!("{sign}{}{point}{places}", grouped(&whole, mark)));
                }
                into.different("thousands", format!("{sign}{}", grouped(&format!("{whole}0"), ",")));
            }
        } else {
            into.same("repeating", format!("{sign}{whole}.{places}\\overline{{{cycle}}}"));
            into.same("repeating", format!("{sign}{whole}.{places}\\bar{{{cycle}}}"));
            // Six places and more stand for the number.
            if places.len() + cycle.len() < 6 {
                into.different("cut decimal", format!("{sign}{whole}.{places}{cycle}"));
            }
            into.different(
                "cut decimal",
                format!("{sign}{whole}.{places}{cycle}{cycle}").chars().take(5).collect::<String>(),
            );
            into.different("other repetition", format!("{sign}{whole}.{places}0\\overline{{{cycle}}}"));
        }
    }
    if let Some((mantissa, power)) = value.scientific() {
        for (name, text) in scientific_forms(&mantissa, power) {
            into.same(name, text);
        }
        for (name, text) in
            scientific_forms(&mantissa, power + 1).into_iter().chain(scientific_forms(&mantissa, power - 1))
        {
            into.different(name, text);
        }
        if num != 1 && power != 0 {
            into.different("e as Euler's number", format!("{mantissa} \\cdot e^{{{power}}}"));
            into.different("no mantissa", format!("e{power}"));
        }
    }
    let percent = value.scaled(100, 1);
    into.same("percent", format!("{}\\%", percent.latex()));
    if percent.num.abs() < percent.den * 100 && num != 0 {
        into.different("percent", format!("{}\\%", value.latex()));
    }
    into.same("degrees", format!("{}^{{\\circ}}", value.latex()));
    for unit in [
        "\\text{ cm}",
        "\\,\\mathrm{kg}",
        "~\\mathrm{m}/\\mathrm{s}^2",
        " \\text{ square units}",
        "^{\\circ}\\mathrm{C}",
    ] {
        into.same("unit", format!("{}{unit}", value.latex()));
    }
    let prose = [
        "The answer is {}, which is what was asked for.",
        "The answer is {} (since 1 + 1 = 2).",
        "The answer is {} because 1 + 1 = 2.",
        "**Answer:** {}",
        "Final Answer: The final answer is ${}$. I hope it is correct.",
        "So the sum is \\(\\boxed{{}}\\), as was to be shown (see step 3).",
        "2 + 2 = 4\n#### {}",
        "It comes to 12, so <answer>{}</answer>",
    ];
    for form in prose {
        into.same("in prose", form.replacen("{}", &value.latex(), 1));
    }
    for other in
        [value.scaled(1, 10), value.scaled(10, 1), value.scaled(-1, 1), Fraction::new(value.num + den, den)]
    {
        if other != value {
            into.different("another number", other.latex());
            into.different(
                "another number",
                format!("The answer is {}, unlike {}.", other.latex(), value.latex()),
            );
        }
    }
    if num != den && num != 0 {
        into.different("upside down", Fraction::new(den * value.num.signum(), num).latex());
    }
    into.different(
        "one of two",
        format!("{}, {}", value.latex(), Fraction::new(value.num + den, den).latex()),
    );
    into.different(
        "one of two",
        format!("\\boxed{{{}}} or \\boxed{{{}}}", Fraction::new(value.num + den, den).latex(), value.latex()),
    );
}

/// The index behind the brace that closes the one at `open`.
fn closing(text: &str, open: usize) -> Option<usize> {
    let mut depth = 0;
    for (at, byte) in text.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(at + 1);
        }
    }
    None
}

/// Every `\frac{a}{b}` as `make` writes it; `None` where one is a mixed number's, an exponent without braces, or cannot
/// be cut out.
fn fractions(text: &str, make: impl Fn(&str, &str) -> String) -> Option<String> {
    let mut text = text.replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac");
    while let Some(at) = text.rfind("\\frac") {
        let top = at + 5;
        let before = text[..at].trim_end().chars().next_back();
        if !text[top..].starts_with('{') || before.is_some_and(|c| c.is_ascii_digit() || c == '^' || c == '_')
        {
            return None;
        }
        let bottom = closing(&text, top)?;
        if !text[bottom..].starts_with('{') {
            return None;
        }
        let end = closing(&text, bottom)?;
        let made = make(&text[top + 1..bottom - 1], &text[bottom + 1..end - 1]);
        text.replace_range(at..end, &made);
    }
    Some(text)
}

/// Every `\sqrt{a}` as `make` writes it.
fn roots(text: &str, make: impl Fn(&str) -> Option<String>) -> Option<String> {
    let mut text = text.to_owned();
    while let Some(at) = text.rfind("\\sqrt") {
        if !text[at + 5..].starts_with('{') {
            return None;
        }
        let end = closing(&text, at + 5)?;
        let made = make(&text[at + 6..end - 1])?;
        text.replace_range(at..end, &made);
    }
    Some(text)
}

/// `^2` and `^{12}` as raised digits.
fn raised_digits(text: &str) -> Option<String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('^') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let (digits, end) = match after.strip_prefix('{') {
            Some(inside) => (inside.split('}').next()?, inside.find('}')? + 2),
            None if after.chars().nth(1).is_some_and(|c| c.is_ascii_digit()) => return None,
            None => (after.get(..1)?, 1),
        };
        out.push_str(&raised(digits.parse().ok()?));
        rest = &after[end..];
    }
    out.push_str(rest);
    Some(out)
}

fn replace_all(text: &str, pairs: &[(&str, &str)]) -> String {
    pairs.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// What changes how a formula is set, not what it says.
fn of_formulas(gold: &str, into: &mut Rewrites) {
    let words =
        gold.contains("\\text") || gold.contains("\\mbox") || gold.contains("\\mathrm") || gold.contains('$');
    into.replaced("fraction", gold, fractions(gold, |a, b| format!("\\dfrac{{{a}}}{{{b}}}")));
    into.replaced("fraction", gold, fractions(gold, |a, b| format!("\\tfrac {{{a}}} {{{b}}}")));
    into.replaced("slash", gold, fractions(gold, |a, b| format!("(({a})/({b}))")));
    into.replaced("over", gold, fractions(gold, |a, b| format!("{{{{{a}}} \\over {{{b}}}}}")));
    into.replaced("root as a power", gold, roots(gold, |a| Some(format!("({a})^{{1/2}}"))));
    let plain = |a: &str| a.bytes().all(|b| b.is_ascii_digit());
    into.replaced("root sign", gold, roots(gold, |a| plain(a).then(|| format!("√{a}"))));
    into.replaced("root sign", gold, roots(gold, |a| Some(format!("√({a})"))));
    into.replaced("root in words", gold, roots(gold, |a| Some(format!(" sqrt({a})"))));
    if !words {
        into.replaced("raised digits", gold, raised_digits(gold));
        into.replaced("Unicode minus", gold, Some(gold.replace('-', "−")));
    }
    let bare = replace_all(gold, &[("\\left", ""), ("\\right", "")]);
    into.replaced("without \\left", gold, Some(bare).filter(|_| !gold.contains("arrow")));
    if !gold.contains("\\left") && !gold.contains("sqrt[") && !words {
        let sized =
            replace_all(gold, &[("(", "\\left("), (")", "\\right)"), ("[", "\\left["), ("]", "\\right]")]);
        into.replaced("with \\left", gold, Some(sized));
    }
    let typed = [
        ("\\pi", "π"),
        ("\\infty", "∞"),
        ("\\cup", "∪"),
        ("\\cdot", "·"),
        ("\\times", "×"),
        ("\\pm", "±"),
        ("^\\circ", "°"),
        ("^{\\circ}", "°"),
        ("\\leqslant", "≤"),
        ("\\geqslant", "≥"),
        ("\\leq", "≤"),
        ("\\geq", "≥"),
        ("\\alpha", "α"),
        ("\\theta", "θ"),
    ];
    into.replaced("Unicode", gold, Some(replace_all(gold, &typed)));
    into.replaced("times", gold, Some(gold.replace("\\cdot", "\\times")));
    into.replaced(
        "styled",
        gold,
        Some(format!("\\displaystyle{{{gold}}}")).filter(|_| !words && !gold.contains(',')),
    );
    into.same("in prose", format!("Thus the result is $$\\boxed{{{gold}}}$$ as was to be shown, see (3)."));
    if !gold.contains('$') {
        into.same("in prose", format!("Final Answer: The final answer is ${gold}$. I hope it is correct."));
        into.same("in prose", format!("The answer is \\({gold}\\), which follows from 1 + 1 = 2."));
        into.same("in prose", format!("<answer>{gold}</answer>"));
    }
}

/// The items of a list at its outermost level; `None` when it has none.
fn items(text: &str) -> Option<Vec<&str>> {
    let (mut depth, mut start, mut items) = (0, 0, Vec::new());
    for (at, c) in text.char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' if depth == 0 => return None,
            ')' | ']' | '}' => depth -= 1,
            ',' if depth == 0 => {
                items.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    items.push(text[start..].trim());
    (depth == 0 && items.len() > 1 && items.iter().all(|item| !item.is_empty())).then_some(items)
}

fn of_lists(gold: &str, into: &mut Rewrites) {
    // `10,080` may be one number, and `x=1, y=2` are labels.
    let Some(items) = items(gold).filter(|items| {
        !gold.contains(",\\!")
            && !gold.contains(['$', '=', '<', '>'])
            && !gold.contains("\\text")
            && !items[1..].iter().any(|item| item.len() == 3 && item.bytes().all(|b| b.is_ascii_digit()))
    }) else {
        return;
    };
    let turned: Vec<&str> = items.iter().rev().copied().collect();
    into.same("list, turned", turned.join(", "));
    into.same("list, in braces", format!("\\{{{}\\}}", turned.join(", ")));
    into.same("list, and", items.join(" \\text{ and } "));
    into.same("list, or", format!("x = {}", turned.join(" \\text{ or } x = ")));
    into.same(
        "list, boxes",
        format!(
            "${}$.",
            items.iter().map(|item| format!("\\boxed{{{item}}}")).collect::<Vec<_>>().join("$ or $")
        ),
    );
    into.different("list, one short", items[1..].join(", "));
    into.different("list, one more", format!("{gold}, 123457"));
}

/// Intervals of numbers: `(a, b]`.
fn of_intervals(gold: &str, into: &mut Rewrites) {
    let plain = replace_all(gold, &[("\\left", ""), ("\\right", "")]).replace(' ', "");
    let parts: Vec<&str> = plain.split("\\cup").collect();
    let one = |part: &str| {
        let open = part.chars().next().filter(|c| "([".contains(*c))?;
        let close = part.chars().next_back().filter(|c| ")]".contains(*c))?;
        let (a, b) = part[1..part.len() - 1].split_once(',')?;
        (!b.contains(',') && !a.contains(['(', '['])).then(|| (open, a.to_owned(), b.to_owned(), close))
    };
    let Some(intervals) = parts.iter().map(|part| one(part)).collect::<Option<Vec<_>>>() else { return };
    // A pair of round brackets alone may be a point.
    if intervals.len() == 1 && intervals[0].0 == '(' && intervals[0].3 == ')' && !plain.contains("infty") {
        return;
    }
    let french = |(open, a, b, close): &(char, String, String, char)| {
        format!("{}{a};{b}{}", if *open == '(' { ']' } else { '[' }, if *close == ')' { '[' } else { ']' })
    };
    into.same("interval, French", intervals.iter().map(french).collect::<Vec<_>>().join(" \\cup "));
    let condition = |(open, a, b, close): &(char, String, String, char), name: &str| {
        let (left, right) =
            (if *open == '(' { "<" } else { "\\le " }, if *close == ')' { "<" } else { "\\le " });
        match (a.contains("infty"), b.contains("infty")) {
            (true, false) => format!("{name} {right} {b}"),
            (false, true) => format!("{a} {left} {name}"),
            _ => format!("{a} {left} {name} {right} {b}"),
        }
    };
    let all: Vec<String> = intervals.iter().map(|interval| condition(interval, "x")).collect();
    into.same("interval, inequalities", all.join(" \\text{ or } "));
    into.same("interval, element", format!("x \\in {gold}"));
    let other: Vec<String> = intervals.iter().map(|interval| condition(interval, "t")).collect();
    into.same("interval, set", format!("\\{{t \\mid {}\\}}", other.join(" \\text{ or } ")));
    into.same("interval, set", format!("\\{{ t \\in \\mathbb{{R}} : {} \\}}", other.join(" or ")));
    if intervals.len() > 1 {
        into.same("interval, turned", parts.iter().rev().copied().collect::<Vec<_>>().join(" \\cup "));
        into.different("interval, one short", parts[1..].join(" \\cup "));
        into.different("interval, and", all.join(" \\text{ and } "));
    }
    for (from, to) in [('(', '['), ('[', '('), (')', ']'), (']', ')')] {
        let mut changed = intervals.clone();
        let (open, a, b, close) = &mut changed[0];
        let finite = |end: &str| !end.contains("infty");
        if *open == from && finite(a) {
            *open = to;
        } else if *close == from && finite(b) {
            *close = to;
        } else {
            continue;
        }
        into.different("interval, other end", changed.iter().map(french).collect::<Vec<_>>().join(" \\cup "));
        let all: Vec<String> = changed.iter().map(|interval| condition(interval, "x")).collect();
        into.different("interval, other end", all.join(" \\text{ or } "));
    }
}

/// `\text{Evelyn}`, `5.4 \text{ cents}`, `52_8`, `1 \pm \sqrt{19}`, `90^\circ`.
fn of_other_forms(gold: &str, into: &mut Rewrites) {
    if let Some(word) = gold.strip_prefix("\\text{").and_then(|rest| rest.strip_suffix('}'))
        && word.chars().all(char::is_alphabetic)
        && word.len() > 1
    {
        for form in ["{}", "\\textbf{{}}", "\\mathrm{{}}", "\\mbox{{}}", "\\text{ {}}", "\\text{{}.}"] {
            into.same("words", form.replace("{}", word));
        }
        into.same("words", format!("The answer is {word}, because nobody else can be."));
        into.same("words", format!("The answer is **{word}**."));
        into.different("words", format!("not {word}"));
        into.different("words", &word[..word.len() - 1]);
        into.different("words", format!("{word} and Zoe"));
    }
    if let Some((digits, base)) = gold.split_once('_')
        && digits.bytes().all(|b| b.is_ascii_digit())
        && let Ok(base) = base.trim_matches(['{', '}']).parse::<u32>()
    {
        let lowered: String =
            base.to_string().chars().filter_map(|c| char::from_u32('₀' as u32 + c.to_digit(10)?)).collect();
        into.same("base", format!("{digits}_{{{base}}}"));
        into.same("base", format!("{digits}{lowered}"));
        into.different("base", format!("{digits}_{{{}}}", base + 1));
        into.different("base", format!("{digits}1_{{{base}}}"));
    }
    if let Some((left, right)) = gold.split_once("\\pm")
        && !gold.contains([',', '=', '{'])
    {
        into.same("plus minus", format!("{left}+{right}, {left}-{right}"));
        into.different("plus minus", format!("{left}+{right}"));
    }
    if let Some(number) = gold.strip_suffix("^\\circ").or_else(|| gold.strip_suffix("^{\\circ}"))
        && let Some(value) = Fraction::parse(number)
    {
        for form in ["{}°", "{} degrees", "{}\\text{ degrees}", "{}^{\\circ}", "{}\\degree", "{}"] {
            into.same("degrees", form.replace("{}", number));
        }
        into.different(
            "degrees",
            format!("{}^{{\\circ}}", Fraction::new(value.num + value.den, value.den).latex()),
        );
    }
    let tuple = gold.replace("\\left", "").replace("\\right", "");
    if let Some(inside) = tuple.trim().strip_prefix('(').and_then(|rest| rest.strip_suffix(')'))
        && let Some(entries) = items(inside)
    {
        into.same("tuple", format!("\\langle {} \\rangle", entries.join(", ")));
        into.same("tuple", format!("\\left( {} \\right)", entries.join(" , ")));
        if entries.first() != entries.last() {
            into.different(
                "tuple, turned",
                format!("({})", entries.iter().rev().copied().collect::<Vec<_>>().join(",")),
            );
        }
        into.different("tuple, one more", format!("({inside},7)"));
        into.different("tuple as a set", format!("\\{{{inside}\\}}"));
    }
    for (unit, other) in [
        ("cents", "dollars"),
        ("cm", "km"),
        ("inches", "feet"),
        ("miles", "km"),
        ("degrees", "radians"),
        ("days", "weeks"),
    ] {
        for (open, text) in [("\\text{ ", "\\text{"), ("\\mbox{ ", "\\mbox{")] {
            let written = format!("{open}{unit}}}");
            if gold.contains(&written) {
                into.same("unit", gold.replace(&written, &format!("\\,\\mathrm{{{unit}}}")));
                into.same("unit", gold.replace(&written, &format!("~{text}{unit}}}")));
                if !gold.contains(&format!("{written}^")) {
                    into.same("unit", gold.replace(&written, ""));
                }
                into.different("unit", gold.replace(&written, &format!("{open}{other}}}")));
            }
        }
    }
}

fn rewrites(gold: &str) -> Vec<Rewrite> {
    let mut into = Rewrites::default();
    of_formulas(gold, &mut into);
    match Fraction::parse(gold) {
        Some(value) => of_numbers(value, &mut into),
        None => of_lists(gold, &mut into),
    }
    of_intervals(gold, &mut into);
    of_other_forms(gold, &mut into);
    into.0
}

/// Grades every rewrite of every answer: how many of each kind there were, and which went wrong.
fn judge(
    name: &str,
    answers: &[String],
    counts: &mut BTreeMap<(bool, &'static str), usize>,
    wrong: &mut Vec<String>,
) {
    for gold in answers {
        let plain = gold.trim_matches('$');
        for Rewrite { name: kind, text, same } in rewrites(plain) {
            *counts.entry((same, kind)).or_default() += 1;
            let whole = text.contains("answer")
                || text.contains("\\boxed")
                || text.contains("####")
                || text.contains("Answer");
            let completion = if whole { text.clone() } else { format!("So it is $\\boxed{{{text}}}$.") };
            let verdict = grade_math(&completion, gold, ThoughtRule::Keep);
            if verdict.correct != same {
                wrong.push(format!("{name}, {kind}: {completion} for {gold}: {}", verdict.reason));
            }
        }
    }
}

#[test]
fn every_benchmark_answer_is_right_in_its_other_notations_and_no_near_miss_is() {
    let (mut counts, mut wrong) = (BTreeMap::new(), Vec::new());
    let all = golds();
    for (name, answers) in &all {
        judge(name, answers, &mut counts, &mut wrong);
    }
    let total = |same: bool| counts.iter().filter(|((of, _), _)| *of == same).map(|(_, n)| n).sum::<usize>();
    eprintln!("{} notations, {} near misses: {counts:?}", total(true), total(false));
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    if !all.is_empty() {
        assert!(counts.len() > 40 && total(true) > 20_000 && total(false) > 10_000, "{counts:?}");
    }
}

/// A file with the answers of Minerva Math, or of any other benchmark: `RLT_ANSWERS=minerva.jsonl cargo test -p rlt-grade
/// --test rewrites`.
#[test]
fn answers_of_another_file_are_right_in_their_other_notations() {
    let Ok(file) = std::env::var("RLT_ANSWERS") else {
        eprintln!("skipped: RLT_ANSWERS names no file");
        return;
    };
    let (mut counts, mut wrong) = (BTreeMap::new(), Vec::new());
    let answers = answers(Path::new(&file));
    judge(&file, &answers, &mut counts, &mut wrong);
    eprintln!("{} answers: {counts:?}", answers.len());
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// The notation of most answers of Minerva Math, over the sizes that physics knows.
#[test]
fn powers_of_ten_are_the_same_number_in_every_notation_and_no_other() {
    let mut n = 0;
    for mantissa in ["1", "2", "7.353", "-6.02", "2.45", "9.109", "1.60218", "-1.0"] {
        for power in -40..=40 {
            let forms = scientific_forms(mantissa, power);
            for (_, gold) in &forms {
                for ((_, same), (_, other)) in forms.iter().zip(scientific_forms(mantissa, power + 1)) {
                    n += 1;
                    let judgement = equivalent(gold, same);
                    assert!(judgement.equal, "{gold} = {same}: {}", judgement.reason);
                    assert!(!equivalent(gold, &other).equal, "{gold} is not {other}");
                }
                let (_, e_notation) = &forms[0];
                let negative =
                    if mantissa.starts_with('-') { &e_notation[1..] } else { &format!("-{e_notation}") };
                assert!(!equivalent(gold, negative).equal, "{gold} is not {negative}");
                let euler = e_notation.replacen('e', " e ", 1).replace("e -", "e - ");
                assert!(power >= 0 || !equivalent(gold, &euler).equal, "{gold} is not {euler}");
            }
        }
    }
    eprintln!("{n} pairs");
}
