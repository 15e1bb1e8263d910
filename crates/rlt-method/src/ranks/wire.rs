//! Values on their way between ranks, as bytes: little-endian numbers, lengths before what has one.

use std::borrow::Cow;
use std::ops::Range;

use rlt_model::generate::{Completion, Finish};
use rlt_model::ids::TokenIds;
use rlt_ranks::Ranks;

use crate::error::{Error, Result};

/// What ranks can send each other. Every bit of a number arrives.
pub(crate) trait Wire: Sized {
    /// Appends it.
    fn put(&self, to: &mut Vec<u8>);

    /// Takes it off the front; none where the bytes are not one.
    fn take(from: &mut &[u8]) -> Option<Self>;
}

/// The values of all ranks, in the order of ranks; `mine` are this one's.
///
/// # Errors
/// [`Error::Ranks`] where a rank is gone, [`Error::Failed`] where one sent something else.
pub(crate) fn gather<T: Wire>(ranks: &Ranks, mine: Vec<T>) -> Result<Vec<T>> {
    if ranks.size() == 1 {
        return Ok(mine);
    }
    let mut bytes = Vec::new();
    mine.put(&mut bytes);
    let of_all = ranks.all_gather(&bytes)?;
    drop(bytes);
    let mut mine = Some(mine);
    let mut all = Vec::new();
    for (rank, bytes) in of_all.into_iter().enumerate() {
        if rank == ranks.rank() {
            all.extend(mine.take().into_iter().flatten());
            continue;
        }
        let mut left = bytes.as_slice();
        match Vec::<T>::take(&mut left) {
            Some(theirs) if left.is_empty() => all.extend(theirs),
            _ => {
                let what = format!("rank {rank} sent something else: do all ranks run the same program?");
                return Err(Error::Failed(what));
            }
        }
    }
    Ok(all)
}

/// [`Wire`] of a struct that is its fields one after another.
macro_rules! wire_fields {
    ($type:ty { $($field:ident),+ $(,)? }) => {
        impl $crate::ranks::wire::Wire for $type {
            fn put(&self, to: &mut Vec<u8>) {
                // Taken apart, so that a field that is added is sent, too.
                let Self { $($field),+ } = self;
                $($crate::ranks::wire::Wire::put($field, to);)+
            }

            fn take(from: &mut &[u8]) -> Option<Self> {
                $(let $field = $crate::ranks::wire::Wire::take(from)?;)+
                Some(Self { $($field),+ })
            }
        }
    };
}
pub(crate) use wire_fields;

macro_rules! wire_numbers {
    ($($type:ty),+) => {
        $(impl Wire for $type {
            fn put(&self, to: &mut Vec<u8>) {
                to.extend_from_slice(&self.to_le_bytes());
            }

            fn take(from: &mut &[u8]) -> Option<Self> {
                let (bytes, rest) = from.split_first_chunk()?;
                *from = rest;
                Some(Self::from_le_bytes(*bytes))
            }
        })+
    };
}
wire_numbers!(u8, u32, u64, f32, f64);

impl Wire for usize {
    fn put(&self, to: &mut Vec<u8>) {
        (*self as u64).put(to);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        Self::try_from(u64::take(from)?).ok()
    }
}

impl Wire for bool {
    fn put(&self, to: &mut Vec<u8>) {
        u8::from(*self).put(to);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        match u8::take(from)? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}

impl Wire for String {
    fn put(&self, to: &mut Vec<u8>) {
        self.len().put(to);
        to.extend_from_slice(self.as_bytes());
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        let n = usize::take(from)?;
        let (text, rest) = from.split_at_checked(n)?;
        *from = rest;
        Self::from_utf8(text.to_vec()).ok()
    }
}

impl Wire for Cow<'static, str> {
    fn put(&self, to: &mut Vec<u8>) {
        self.len().put(to);
        to.extend_from_slice(self.as_bytes());
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        String::take(from).map(Self::Owned)
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn put(&self, to: &mut Vec<u8>) {
        self.len().put(to);
        for item in self {
            item.put(to);
        }
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        let n = usize::take(from)?;
        // Nothing is allocated that the bytes could not hold.
        let mut all = Self::with_capacity(n.min(from.len()));
        for _ in 0..n {
            all.push(T::take(from)?);
        }
        Some(all)
    }
}

impl<T: Wire> Wire for Option<T> {
    fn put(&self, to: &mut Vec<u8>) {
        self.is_some().put(to);
        if let Some(item) = self {
            item.put(to);
        }
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        Some(if bool::take(from)? { Some(T::take(from)?) } else { None })
    }
}

impl<T: Wire> Wire for Box<T> {
    fn put(&self, to: &mut Vec<u8>) {
        (**self).put(to);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        T::take(from).map(Self::new)
    }
}

impl<A: Wire, B: Wire> Wire for (A, B) {
    fn put(&self, to: &mut Vec<u8>) {
        self.0.put(to);
        self.1.put(to);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        Some((A::take(from)?, B::take(from)?))
    }
}

impl Wire for Range<usize> {
    fn put(&self, to: &mut Vec<u8>) {
        (self.start, self.end).put(to);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        let (start, end) = Wire::take(from)?;
        Some(start..end)
    }
}

impl Wire for TokenIds {
    fn put(&self, to: &mut Vec<u8>) {
        self.len().put(to);
        self.iter().for_each(|id| id.put(to));
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        Vec::<u32>::take(from).map(Into::into)
    }
}

impl Wire for Finish {
    fn put(&self, to: &mut Vec<u8>) {
        (*self == Self::Stop).put(to);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        Some(if bool::take(from)? { Self::Stop } else { Self::Length })
    }
}

wire_fields!(Completion { ids, logprobs, finish, version });

#[cfg(test)]
mod tests {
    use rlt_ranks::on_threads;

    use super::*;

    fn completion(n: usize) -> Completion {
        let logprobs = (0..n).map(|i| [-0.0, f32::NAN, -1.5, f32::NEG_INFINITY][i % 4]).collect();
        Completion {
            ids: (0..n as u32).collect::<Vec<_>>().into(),
            logprobs,
            finish: Finish::Length,
            version: 7,
        }
    }

    #[test]
    fn values_arrive_bit_for_bit_in_the_order_of_ranks() {
        let gathered = on_threads(3, |ranks| {
            let mine: Vec<(Completion, Option<String>)> = (0..ranks.rank())
                .map(|i| (completion(3 + i), (i == 0).then(|| "\u{e9}".repeat(ranks.rank()))))
                .collect();
            gather(&ranks, mine).unwrap()
        });
        for all in gathered {
            let lengths: Vec<usize> = all.iter().map(|(completion, _)| completion.ids.len()).collect();
            assert_eq!(lengths, [3, 3, 4]);
            let texts: Vec<Option<&str>> = all.iter().map(|(_, text)| text.as_deref()).collect();
            assert_eq!(texts, [Some("\u{e9}"), Some("\u{e9}\u{e9}"), None]);
            for (found, _) in all {
                let bits = |completion: &Completion| {
                    completion.logprobs.iter().map(|x| x.to_bits()).collect::<Vec<_>>()
                };
                let expected = completion(found.ids.len());
                assert_eq!((&found.ids, bits(&found), found.version), (&expected.ids, bits(&expected), 7));
                assert_eq!(found.finish, Finish::Length);
            }
        }
    }

    #[test]
    fn what_is_cut_short_or_is_something_else_is_no_value() {
        let mut bytes = Vec::new();
        vec![completion(5)].put(&mut bytes);
        for cut in 0..bytes.len() {
            assert!(Vec::<Completion>::take(&mut &bytes[..cut]).is_none(), "{cut}");
        }
        let mut huge = u64::MAX.to_le_bytes().to_vec();
        huge.extend([1, 2, 3]);
        assert!(Vec::<Completion>::take(&mut &huge[..]).is_none());
        assert!(String::take(&mut &huge[..]).is_none());
    }
}
