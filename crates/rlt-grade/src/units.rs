//! Words behind numbers: which of them are units, and which units are the same.

/// Names of each unit, the first one standing for all.
const UNITS: [&[&str]; 33] = [
    &["cm", "centimeter", "centimetre"],
    &["mm", "millimeter", "millimetre"],
    &["km", "kilometer", "kilometre"],
    &["m", "meter", "metre"],
    &["inch", "in", "inche"],
    &["foot", "feet", "ft"],
    &["yard", "yd"],
    &["mile", "mi"],
    &["kg", "kilogram"],
    &["g", "gram"],
    &["mg", "milligram"],
    &["pound", "lb"],
    &["ounce", "oz"],
    &["liter", "litre", "l"],
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
    &["mph"],
    &["percent"],
    &["ton"],
    &["acre"],
    &["quart"],
    &["cup"],
];

/// A unit with its power; `None` for other words ("apples") and for the unit of a drawing ("square units").
fn canonical(words: &str) -> Option<(&'static str, u32)> {
    let lower = words.to_lowercase();
    let mut power = 1;
    let mut name = None;
    for word in lower.split([' ', '.', '-']).filter(|word| !word.is_empty()) {
        let (word, raised) = word.split_once('^').unwrap_or((word, ""));
        power = match (word, raised) {
            ("square" | "sq" | "squared", _) | (_, "2") => 2,
            ("cubic" | "cu" | "cubed", _) | (_, "3") => 3,
            _ => power,
        };
        let singular = if word.len() > 2 { word.strip_suffix('s').unwrap_or(word) } else { word };
        let known = |names: &&&[&'static str]| names.contains(&word) || names.contains(&singular);
        name = name.or_else(|| UNITS.iter().find(known).map(|names| names[0]));
    }
    name.map(|name| (name, power))
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
    canonical(words).is_some_and(|(name, _)| name == "percent")
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
}
