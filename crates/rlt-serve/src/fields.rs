//! What fields of a request may hold, read without taking more memory than their text takes.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de};

use crate::refusal::Refusal;

/// Most prompts of a request, and most completions.
pub(crate) const MAX_SEQUENCES: usize = 4096;

/// Prompts as ids: one list, or a list of them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Prompts(pub Vec<Vec<u32>>);

impl<'de> Deserialize<'de> for Prompts {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct OneOrMany;
        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Prompts;

            fn expecting(&self, to: &mut fmt::Formatter) -> fmt::Result {
                to.write_str("a list of token ids, or a list of such lists, as `prompt` (texts: POST /tokenize gives ids)")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Prompts, A::Error> {
                let (mut one, mut many) = (Vec::new(), Vec::new());
                while items.next_element_seed(Item { one: &mut one, many: &mut many })?.is_some() {}
                Ok(Prompts(if many.is_empty() { vec![one] } else { many }))
            }
        }
        from.deserialize_any(OneOrMany)
    }
}

/// An item of `prompt`: an id, or a list of them. Not both in one prompt.
struct Item<'a> {
    one: &'a mut Vec<u32>,
    many: &'a mut Vec<Vec<u32>>,
}

impl<'de> DeserializeSeed<'de> for Item<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Item<'_> {
    type Value = ();

    fn expecting(&self, to: &mut fmt::Formatter) -> fmt::Result {
        to.write_str("token ids, or lists of them, in `prompt` (texts: POST /tokenize gives ids)")
    }

    fn visit_u64<E: Error>(self, id: u64) -> Result<(), E> {
        if !self.many.is_empty() {
            return Err(E::custom("`prompt` mixes ids and lists"));
        }
        let id = u32::try_from(id).map_err(|_| E::custom(format!("Token id {id} is out of vocabulary")))?;
        self.one.push(id);
        Ok(())
    }

    fn visit_i64<E: Error>(self, id: i64) -> Result<(), E> {
        Err(E::custom(format!("Token id {id} is out of vocabulary")))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<(), A::Error> {
        if !self.one.is_empty() {
            return Err(A::Error::custom("`prompt` mixes ids and lists"));
        }
        if self.many.len() == MAX_SEQUENCES {
            return Err(A::Error::custom(format!("`prompt` holds more than {MAX_SEQUENCES} lists")));
        }
        self.many.push(Vec::deserialize(de::value::SeqAccessDeserializer::new(items))?);
        Ok(())
    }
}

/// A number, whole or not; or something else that stands where one is expected.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) enum Number {
    Whole(i128),
    Other(f64),
    #[default]
    None,
    NotOne,
}

/// Something that may be there as long as it asks for nothing: `null`, `false`, `0`, or empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Neutral(pub bool);

/// What an unexpected value is, whatever it is.
struct Any;

/// A value as far as [`Number`] and [`Neutral`] need to know it.
struct Seen {
    number: Number,
    is_neutral: bool,
}

impl<'de> Visitor<'de> for Any {
    type Value = Seen;

    fn expecting(&self, to: &mut fmt::Formatter) -> fmt::Result {
        to.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Seen, E> {
        Ok(Seen { number: Number::None, is_neutral: true })
    }

    fn visit_bool<E>(self, value: bool) -> Result<Seen, E> {
        Ok(Seen { number: Number::NotOne, is_neutral: !value })
    }

    fn visit_u64<E>(self, value: u64) -> Result<Seen, E> {
        Ok(Seen { number: Number::Whole(value.into()), is_neutral: value == 0 })
    }

    fn visit_i64<E>(self, value: i64) -> Result<Seen, E> {
        Ok(Seen { number: Number::Whole(value.into()), is_neutral: value == 0 })
    }

    fn visit_f64<E>(self, value: f64) -> Result<Seen, E> {
        Ok(Seen { number: Number::Other(value), is_neutral: value == 0.0 })
    }

    fn visit_str<E>(self, value: &str) -> Result<Seen, E> {
        Ok(Seen { number: Number::NotOne, is_neutral: value.is_empty() })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Seen, A::Error> {
        let mut is_neutral = true;
        while items.next_element::<IgnoredAny>()?.is_some() {
            is_neutral = false;
        }
        Ok(Seen { number: Number::NotOne, is_neutral })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut items: A) -> Result<Seen, A::Error> {
        let mut is_neutral = true;
        while items.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
            is_neutral = false;
        }
        Ok(Seen { number: Number::NotOne, is_neutral })
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(from.deserialize_any(Any)?.number)
    }
}

impl<'de> Deserialize<'de> for Neutral {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(Self(from.deserialize_any(Any)?.is_neutral))
    }
}

impl Number {
    /// A whole number from `least` to `most`; `default` where there is none.
    pub fn whole(self, field: &'static str, default: i128, least: i128, most: i128) -> Result<i128, Refusal> {
        let value = match self {
            Self::None => return Ok(default),
            Self::Whole(value) => Some(value),
            Self::Other(value) if value.fract() == 0.0 && value.abs() < 9e15 => Some(value as i128),
            Self::Other(_) | Self::NotOne => None,
        };
        let value = value.ok_or_else(|| Refusal::field(field, "a whole number is expected"))?;
        let outside = || Refusal::field(field, format!("{value} is not from {least} to {most}"));
        if (least..=most).contains(&value) { Ok(value) } else { Err(outside()) }
    }

    /// A number from `least` to `most`; `default` where there is none.
    pub fn real(self, field: &'static str, default: f64, least: f64, most: f64) -> Result<f64, Refusal> {
        let value = match self {
            Self::None => return Ok(default),
            Self::Whole(value) => value as f64,
            Self::Other(value) => value,
            Self::NotOne => return Err(Refusal::field(field, "a number is expected")),
        };
        let outside = || Refusal::field(field, format!("{value} is not from {least} to {most}"));
        if (least..=most).contains(&value) { Ok(value) } else { Err(outside()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_are_one_list_or_many_and_nothing_else() {
        let read = |text: &str| serde_json::from_str::<Prompts>(text).map_err(|e| e.to_string());
        assert_eq!(read("[1, 2]"), Ok(Prompts(vec![vec![1, 2]])));
        assert_eq!(read("[[1, 2], [3]]"), Ok(Prompts(vec![vec![1, 2], vec![3]])));
        assert_eq!(read("[]"), Ok(Prompts(vec![vec![]])));
        for (wrong, says) in [
            ("[1, [2]]", "mixes"),
            ("[[2], 1]", "mixes"),
            ("\"text\"", "/tokenize"),
            ("[\"text\"]", "/tokenize"),
            ("[-1]", "Token id -1 is out of vocabulary"),
            ("[4294967296]", "out of vocabulary"),
            ("[1.5]", "token ids"),
            ("[[[1]]]", "u32"),
        ] {
            let error = read(wrong).unwrap_err();
            assert!(error.contains(says), "{wrong}: {error}");
        }
        let many = format!("[{}]", vec!["[1]"; MAX_SEQUENCES + 1].join(","));
        assert!(read(&many).unwrap_err().contains("more than 4096 lists"));
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(read(&deep).is_err());
    }

    #[test]
    fn numbers_say_which_field_and_what_is_allowed() {
        let read = |text: &str| serde_json::from_str::<Number>(text).unwrap();
        assert_eq!(read("3").whole("n", 1, 1, 9), Ok(3));
        assert_eq!(read("3.0").whole("n", 1, 1, 9), Ok(3));
        assert_eq!(read("null").whole("n", 1, 1, 9), Ok(1));
        for wrong in ["1.5", "\"3\"", "[]", "{\"a\": [1]}", "10", "-1", "1e300"] {
            let refusal = read(wrong).whole("n", 1, 1, 9).unwrap_err();
            assert_eq!((refusal.status, refusal.param), (400, Some("n")), "{wrong}");
        }
        assert_eq!(read("0.5").real("top_p", 1.0, 0.0, 1.0), Ok(0.5));
        assert!(read("1.5").real("top_p", 1.0, 0.0, 1.0).is_err());
    }

    #[test]
    fn what_asks_for_nothing_is_neutral() {
        let read = |text: &str| serde_json::from_str::<Neutral>(text).unwrap().0;
        assert!(["null", "false", "0", "0.0", "\"\"", "[]", "{}"].iter().all(|text| read(text)));
        assert!(["true", "1", "\"a\"", "[0]", "{\"a\": 1}"].iter().all(|text| !read(text)));
    }
}
