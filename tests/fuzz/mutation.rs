//! Inputs that nobody has written, drawn from those that somebody has.

use serde_json::{Map, Value, json};

/// Numbers that follow a seed (splitmix64).
pub struct Draws(u64);

impl Draws {
    /// Those of the `n`-th input of a target.
    pub fn new(seed: u64, target: &str, n: u64) -> Self {
        let name =
            target.bytes().fold(seed, |hash, byte| hash.wrapping_mul(31).wrapping_add(u64::from(byte)));
        Self(name.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ n.wrapping_mul(0xbf58_476d_1ce4_e5b9))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        if n == 0 { 0 } else { (self.next() % n as u64) as usize }
    }

    pub fn of<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}

/// An example with a few changes: to its bytes, by words of its format, or to its values where it is JSON.
pub fn mutated(draws: &mut Draws, examples: &[Vec<u8>], words: &[&str]) -> Vec<u8> {
    let mut input = draws.of(examples).clone();
    if draws.below(3) > 0
        && let Ok(mut value) = serde_json::from_slice::<Value>(&input)
    {
        for _ in 0..=draws.below(3) {
            change_value(draws, &mut value);
        }
        return serde_json::to_vec(&value).unwrap();
    }
    for _ in 0..=draws.below(6) {
        change_bytes(draws, &mut input, examples, words);
    }
    input
}

fn change_bytes(draws: &mut Draws, input: &mut Vec<u8>, examples: &[Vec<u8>], words: &[&str]) {
    let at = draws.below(input.len() + 1);
    let length = |draws: &mut Draws, most: usize| {
        let most = [1, 2, 4, 8, 64, 1024][draws.below(6)].min(most);
        draws.below(most + 1)
    };
    match draws.below(9) {
        0 if at < input.len() => input[at] ^= 1 << draws.below(8),
        1 if at < input.len() => input[at] = draws.below(256) as u8,
        2 => {
            let n = length(draws, input.len() - at);
            input.drain(at..at + n);
        }
        3 => {
            // The same once more, or many times.
            let n = length(draws, input.len() - at);
            let piece = input[at..at + n].to_vec();
            let times = if draws.below(8) == 0 { 200 } else { 1 };
            input.splice(at..at, piece.repeat(times));
        }
        4 => {
            let other = draws.of(examples);
            let from = draws.below(other.len() + 1);
            let n = length(draws, other.len() - from);
            let piece = other[from..from + n].to_vec();
            input.splice(at..at, piece);
        }
        5 => input.truncate(at),
        6 if at + 8 <= input.len() => {
            // A size, in either order of its bytes.
            let size =
                *draws.of(&[0, 1, 0x7f, 0xff, 0xffff, 1 << 31, u64::from(u32::MAX), 1 << 62, u64::MAX]);
            let width = *draws.of(&[1, 2, 4, 8]);
            let bytes = size.to_le_bytes();
            let bytes = if draws.below(2) == 0 { bytes } else { size.to_be_bytes() };
            input[at..at + width].copy_from_slice(&bytes[..width]);
        }
        _ if !words.is_empty() => {
            let word = draws.of(words).as_bytes();
            let times = if draws.below(10) == 0 { 300 } else { 1 };
            // In place of as much, or between.
            let n = if draws.below(2) == 0 { word.len().min(input.len() - at) } else { 0 };
            input.splice(at..at + n, word.repeat(times));
        }
        _ => input.insert(at, draws.below(256) as u8),
    }
}

/// Values that ask for trouble.
fn trouble(draws: &mut Draws) -> Value {
    match draws.below(24) {
        0 => Value::Null,
        1 => json!(0),
        2 => json!(-1),
        3 => json!(1),
        4 => json!(u64::MAX),
        5 => json!(1_u64 << 62),
        6 => json!(1_u64 << 32),
        7 => json!(1_000_000),
        8 => json!(1e308),
        9 => json!(1e-308),
        10 => json!(0.5),
        11 => json!(""),
        12 => json!("\u{0}\u{1b}[2J\u{202e}"),
        13 => json!("x".repeat(100_000)),
        14 => json!([]),
        15 => json!({}),
        16 => json!(true),
        17 => json!(vec![0; 10_000]),
        18 => (0..100).fold(json!(1), |inner, _| json!([inner])),
        19 => (0..100).fold(json!(1), |inner, _| json!({"a": inner})),
        20 => json!("../../../etc/passwd"),
        21 => json!("{{ messages }}"),
        22 => json!(-9_223_372_036_854_775_808_i64),
        _ => json!(draws.next() as i64),
    }
}

/// Changes one place of a value: another value, none, one more, one as elsewhere.
fn change_value(draws: &mut Draws, value: &mut Value) {
    if draws.below(4) > 0 {
        match value {
            Value::Object(fields) if !fields.is_empty() => {
                let names: Vec<String> = fields.keys().cloned().collect();
                let name = draws.of(&names).clone();
                return change_field(draws, fields, &name);
            }
            Value::Array(items) if !items.is_empty() => {
                let at = draws.below(items.len());
                match draws.below(8) {
                    0 => drop(items.remove(at)),
                    1 => items.insert(at, items[at].clone()),
                    _ => change_value(draws, &mut items[at]),
                }
                return;
            }
            Value::String(text) if draws.below(2) == 0 => {
                let mut bytes = std::mem::take(text).into_bytes();
                change_bytes(
                    draws,
                    &mut bytes,
                    &[Vec::new()],
                    &["\\", "{", "}", "(", ")*", "|", "[", "\u{2581}"],
                );
                *text = String::from_utf8_lossy(&bytes).into_owned();
                return;
            }
            Value::Number(number) if draws.below(2) == 0 => {
                let number = number.as_f64().unwrap_or(1.0);
                *value = json!(number * draws.of(&[-1.0, 0.5, 2.0, 1000.0]));
                return;
            }
            _ => {}
        }
    }
    *value = trouble(draws);
}

fn change_field(draws: &mut Draws, fields: &mut Map<String, Value>, name: &str) {
    match draws.below(10) {
        0 => drop(fields.shift_remove(name)),
        1 => {
            let names: Vec<String> = fields.keys().cloned().collect();
            let other = fields[draws.of(&names)].clone();
            fields.insert(name.to_owned(), other);
        }
        2 => drop(fields.insert(format!("{name}_"), trouble(draws))),
        _ => change_value(draws, fields.get_mut(name).unwrap()),
    }
}
