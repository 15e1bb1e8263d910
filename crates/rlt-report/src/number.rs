//! Numbers as people read them, and round ones for axes.

/// At most this many ticks on an axis.
const MOST_TICKS: usize = 6;

/// Three significant digits or so, with a real minus sign: `−1.23`, `0.041`, `12.3`, `1,234`, `3e−6`.
pub(super) fn compact(value: f64) -> String {
    let magnitude = value.abs();
    let text = if !value.is_finite() {
        return "n/a".into();
    } else if magnitude >= 1000.0 {
        return signed(value, &thousands(magnitude.round() as u64));
    } else if magnitude >= 100.0 {
        format!("{magnitude:.0}")
    } else if magnitude >= 10.0 {
        format!("{magnitude:.1}")
    } else if magnitude >= 0.1 || magnitude == 0.0 {
        format!("{magnitude:.2}")
    } else if magnitude >= 0.001 {
        format!("{magnitude:.4}").trim_end_matches('0').to_owned()
    } else {
        format!("{magnitude:.2e}").replace(".00e", "e").replace("0e", "e").replace('-', "\u{2212}")
    };
    signed(value, &text)
}

/// Text inside XML.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Three decimals, always signed, for figures that are compared or added: `+1.204`.
pub(super) fn nats(value: f64) -> String {
    let sign = if value < 0.0 { "\u{2212}" } else { "+" };
    format!("{sign}{:.3}", value.abs())
}

/// `87.5 %`, without decimals where they say nothing.
pub(super) fn percent(share: f64) -> String {
    let text = format!("{:.1}", share * 100.0);
    format!("{}\u{202f}%", text.strip_suffix(".0").unwrap_or(&text))
}

/// `48 s`, `5 min 12 s`, `3 h 20 min`.
pub(super) fn duration(seconds: f64) -> String {
    let whole = seconds.round().max(0.0) as u64;
    match whole {
        0 => format!("{seconds:.1} s"),
        1..60 => format!("{whole} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

/// Digits in groups of three.
pub(super) fn thousands(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn signed(value: f64, text: &str) -> String {
    if value < 0.0 { format!("\u{2212}{text}") } else { text.to_owned() }
}

/// The smallest of 1, 2, 5 times a power of ten that is not below `value` (which is positive).
pub(super) fn round_up(value: f64) -> f64 {
    let power = 10f64.powf(value.log10().floor());
    let leading = value / power;
    let rounded = [1.0, 2.0, 5.0, 10.0].into_iter().find(|&r| leading <= r * (1.0 + 1e-9));
    rounded.unwrap_or(10.0) * power
}

/// Round numbers in `low..=high` (`low < high`), and how each is written.
pub(super) fn ticks(low: f64, high: f64) -> Vec<(f64, String)> {
    let step = round_up((high - low) / MOST_TICKS as f64);
    let first = (low / step - 1e-9).ceil() as i64;
    let last = (high / step + 1e-9).floor() as i64;
    (first..=last).map(|n| (n as f64 * step, tick_label(n, step))).collect()
}

/// `n * step`, with the decimals that the step needs.
fn tick_label(n: i64, step: f64) -> String {
    let value = n as f64 * step;
    let exponent = step.log10().floor() as i32;
    if n == 0 {
        "0".into()
    } else if exponent < -3 {
        let text = format!("{:.1e}", value.abs()).replace(".0e", "e").replace('-', "\u{2212}");
        signed(value, &text)
    } else if exponent >= 3 {
        signed(value, &thousands(value.abs().round() as u64))
    } else {
        signed(value, &format!("{:.*}", (-exponent).max(0) as usize, value.abs()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let cases = [
            (0.0, "0.00"),
            (-1.234, "−1.23"),
            (0.0412, "0.0412"),
            (0.002, "0.002"),
            (12.34, "12.3"),
            (-456.7, "−457"),
            (1_234_567.0, "1,234,567"),
            (3e-6, "3e−6"),
            (2.5e-5, "2.5e−5"),
            (f64::NAN, "n/a"),
        ];
        for (value, text) in cases {
            assert_eq!(compact(value), text);
        }
        assert_eq!(nats(-0.5), "−0.500");
        assert_eq!(percent(0.875), "87.5\u{202f}%");
        assert_eq!(percent(1.0), "100\u{202f}%");
        assert_eq!((duration(0.25), duration(312.4)), ("0.2 s".into(), "5 min 12 s".into()));
    }

    #[test]
    fn ticks_are_round_and_inside() {
        let labels = |low, high| ticks(low, high).into_iter().map(|(_, text)| text).collect::<Vec<_>>();
        assert_eq!(labels(-1.1, 0.3), ["−1.0", "−0.5", "0"]);
        assert_eq!(labels(0.0, 125.0), ["0", "50", "100"]);
        assert_eq!(labels(-10.2, 0.3), ["−10", "−8", "−6", "−4", "−2", "0"]);
        assert_eq!(labels(0.0, 1e-5), ["0", "2e−6", "4e−6", "6e−6", "8e−6", "1e−5"]);
        assert_eq!(labels(0.0, 4000.0), ["0", "1,000", "2,000", "3,000", "4,000"]);
        assert_eq!(labels(0.61, 0.655), ["0.61", "0.62", "0.63", "0.64", "0.65"]);
    }
}
