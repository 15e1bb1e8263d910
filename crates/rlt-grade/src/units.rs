//! Words behind numbers: which of them are units, and which units are the same.

/// Names of each unit, the first one standing for all; case does not count.
const UNITS: [&[&str]; 46] = [
    &["cm", "centimeter", "centimetre"],
    &["mm", "millimeter", "millimetre"],
    &["km", "kilometer", "kilometre"],
    &["meter", "metre"],
    &["inch", "in", "inche"],
    &["foot", "feet", "ft"],
    &["yard", "yd"],
    &["mile", "mi"],
    &["kg", "kilogram"],
    &["gram"],
    &["mg", "milligram"],
    &["pound", "lb"],
    &["ounce", "oz"],
    &["liter", "litre"],
    &["ml", "milliliter", "millilitre"],
    &["gallon", "gal"],
    &["second", "sec"],
    &["minute", "min"],
    &["hour", "hr"],
    &["day"],
    &["week"],
    &["month"],
    &["year"],
    &["cent"],
    &["dollar", "usd"],
    &["degree", "deg"],
    &["radian", "rad"],
    &["percent"],
    &["ton"],
    &["acre"],
    &["quart"],
    &["cup"],
    &["celsius", "°c", "℃"],
    &["fahrenheit", "°f", "℉"],
    &["kelvin"],
    &["joule"],
    &["newton"],
    &["watt"],
    &["volt"],
    &["ampere", "amp"],
    &["coulomb"],
    &["farad"],
    &["tesla"],
    &["ohm"],
    &["hertz"],
    &["angstrom", "å"],
];

/// Symbols whose case counts.
const SYMBOLS: [(&str, &str); 16] = [
    ("m", "meter"),
    ("s", "second"),
    ("g", "gram"),
    ("h", "hour"),
    ("l", "liter"),
    ("L", "liter"),
    ("J", "joule"),
    ("N", "newton"),
    ("W", "watt"),
    ("V", "volt"),
    ("K", "kelvin"),
    ("C", "coulomb"),
    ("F", "farad"),
    ("T", "tesla"),
    ("Ω", "ohm"),
    ("Hz", "hertz"),
];

/// A product of units with their powers, in order.
type Unit = Vec<(&'static str, i32)>;

/// The units that words name; `None` for other words ("apples") and for the unit of a drawing ("square units").
fn canonical(words: &str) -> Option<Unit> {
    let words = words.replace("/ ", "/").replace(" /", "/").replace('/', " / ").replace(['*', '·', '.'], " ");
    let words: Vec<&str> = words.split_whitespace().collect();
    let mut unit = Unit::new();
    // `per` holds for all that follows, a slash for the next unit; `square` for the next one, too.
    let (mut per, mut slash, mut power) = (false, false, 1);
    for (at, word) in words.iter().enumerate() {
        let (word, raised) = word.split_once('^').unwrap_or((word, "1"));
        let raised: i32 = raised.parse().unwrap_or(1);
        match word.to_lowercase().as_str() {
            "per" => per = true,
            "/" => slash = true,
            "square" | "sq" => power = 2,
            "cubic" | "cu" => power = 3,
            "squared" => raise_last(&mut unit, 2),
            "cubed" => raise_last(&mut unit, 3),
            lower => {
                let sign = if per || slash { -1 } else { 1 };
                let scale = words.get(at + 1).and_then(|next| named(next)).is_some_and(is_temperature);
                match (lower, named(word)) {
                    ("mph", _) => unit.extend([("mile", 1), ("hour", -1)]),
                    ("kph" | "kmh", _) => unit.extend([("km", 1), ("hour", -1)]),
                    (_, Some("degree")) if scale => {}
                    (_, Some(name)) => unit.push((name, sign * raised.saturating_mul(power))),
                    (_, None) => {}
                }
                (slash, power) = (false, 1);
            }
        }
    }
    unit.sort_unstable();
    (!unit.is_empty()).then_some(unit)
}

fn is_temperature(name: &str) -> bool {
    matches!(name, "celsius" | "fahrenheit")
}

fn raise_last(unit: &mut Unit, power: i32) {
    if let Some((_, last)) = unit.last_mut() {
        *last = last.saturating_mul(power);
    }
}

/// The unit that one word names, in the singular or the plural.
fn named(word: &str) -> Option<&'static str> {
    if let Some((_, name)) = SYMBOLS.iter().find(|(symbol, _)| *symbol == word) {
        return Some(name);
    }
    let lower = word.to_lowercase();
    let singular = if lower.len() > 2 { lower.strip_suffix('s').unwrap_or(&lower) } else { &lower };
    let known = |names: &&&[&'static str]| names.contains(&lower.as_str()) || names.contains(&singular);
    UNITS.iter().find(known).map(|names| names[0])
}

/// Whether both name a unit, and not the same one.
pub(super) fn conflict(a: &str, b: &str) -> bool {
    match (canonical(a), canonical(b)) {
        (Some(a), Some(b)) => a != b,
        _ => false,
    }
}

/// Whether the words are the percent sign spelled out.
pub(super) fn is_percent(words: &str) -> bool {
    canonical(words).is_some_and(|unit| unit == [("percent", 1)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_conflict_only_when_both_are_known() {
        assert!(conflict("cents", "dollars"));
        assert!(conflict("cm", "cm^2"));
        assert!(!conflict("cm^2", "square centimeters"));
        assert!(!conflict("inches", "in"));
        assert!(!conflict("apples", "cm"));
        assert!(!conflict("square units", "cm^2"));
    }

    #[test]
    fn compound_units_are_compared_factor_by_factor() {
        for (a, b) in [
            ("m/s^2", "meters per second squared"),
            ("m s^-2", "m/s^2"),
            ("miles / hour", "mph"),
            ("degrees Celsius", "celsius"),
            ("kg*m", "m kg"),
            ("feet", "ft"),
        ] {
            assert!(!conflict(a, b), "{a} {b}");
        }
        for (a, b) in [
            ("m/s", "m/s^2"),
            ("m/s", "s/m"),
            ("celsius", "fahrenheit"),
            ("celsius", "K"),
            ("miles per hour", "miles"),
            ("J", "N"),
            ("m^3", "m^2"),
            ("meters per second squared", "meters per second"),
        ] {
            assert!(conflict(a, b), "{a} {b}");
        }
        assert!(is_percent("percent") && !is_percent("percent per year") && !is_percent("apples"));
    }
}
