//! What rank 0 asks and what the others answer.

use rlt_model::batch::{Continuation, ScoringGroup};
use rlt_model::generate::{Completion, GenerationRequest};

use crate::error::{Error, Result};
use crate::ranks::{Wire, wire_fields};

/// What rank 0 wants of the others.
#[derive(Debug, PartialEq)]
pub(super) enum Order {
    /// Completions of these requests.
    Sample(Vec<GenerationRequest>),
    /// Log-probabilities under the model with this number.
    Score(Scoring),
    /// Nothing more.
    Dismissed,
}

/// What is to be scored, and how.
#[derive(Debug, PartialEq)]
pub(super) struct Scoring {
    /// Which of the models that every rank holds.
    pub model: u32,
    pub temperature: f32,
    pub tokens_per_batch: usize,
    pub groups: Vec<ScoringGroup>,
}

/// A completion and whose it is.
#[derive(Debug, PartialEq)]
pub(super) struct Placed {
    pub request: usize,
    pub sample: usize,
    pub completion: Completion,
}

/// What a share of sampling came to.
#[derive(Debug, PartialEq)]
pub(super) struct Sampled {
    pub completions: Vec<Placed>,
    /// It was asked to stop before all were there.
    pub is_stopped: bool,
}

/// Log-probabilities `[group][continuation][scored token]`.
pub(super) type Logprobs = Vec<Vec<Vec<f32>>>;

/// What a share of scoring came to.
#[derive(Debug, PartialEq)]
pub(super) struct Scored {
    pub logprobs: Logprobs,
    /// This rank is asked to stop.
    pub is_stopped: bool,
}

wire_fields!(Continuation { ids, then, scored });
wire_fields!(ScoringGroup { prefix, continuations });
wire_fields!(Scoring { model, temperature, tokens_per_batch, groups });
wire_fields!(Placed { request, sample, completion });
wire_fields!(Sampled { completions, is_stopped });
wire_fields!(Scored { logprobs, is_stopped });

impl Wire for GenerationRequest {
    fn put(&self, to: &mut Vec<u8>) {
        let Self { prompt, n, stream: [purpose, index] } = self;
        prompt.put(to);
        n.put(to);
        (*purpose, *index).put(to);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        let (prompt, n) = (Wire::take(from)?, Wire::take(from)?);
        let (purpose, index) = Wire::take(from)?;
        Some(Self { prompt, n, stream: [purpose, index] })
    }
}

impl Wire for Order {
    fn put(&self, to: &mut Vec<u8>) {
        match self {
            Self::Sample(requests) => {
                1u8.put(to);
                requests.put(to);
            }
            Self::Score(scoring) => {
                2u8.put(to);
                scoring.put(to);
            }
            Self::Dismissed => 3u8.put(to),
        }
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        match u8::take(from)? {
            1 => Wire::take(from).map(Self::Sample),
            2 => Wire::take(from).map(Self::Score),
            3 => Some(Self::Dismissed),
            _ => None,
        }
    }
}

/// As it is sent.
pub(super) fn to_bytes(message: &impl Wire) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.put(&mut bytes);
    bytes
}

/// As it was sent.
///
/// # Errors
/// [`Error::Failed`] where it is something else.
pub(super) fn from_bytes<T: Wire>(mut bytes: &[u8]) -> Result<T> {
    let message = T::take(&mut bytes).filter(|_| bytes.is_empty());
    let garbled =
        || Error::Failed("another rank's message cannot be read: do all ranks run the same program?".into());
    message.ok_or_else(garbled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_arrive_whole_or_not_at_all() {
        let request = GenerationRequest { prompt: [7, 8].into(), n: 3, stream: [u64::MAX, 5] };
        let continuation = Continuation { ids: [1, 2, 3].into(), then: [4].into(), scored: vec![0..1, 2..4] };
        let group =
            ScoringGroup { prefix: [9].into(), continuations: vec![continuation, Continuation::whole([])] };
        let scoring = Scoring { model: 1, temperature: 0.7, tokens_per_batch: 4096, groups: vec![group] };
        for order in [Order::Sample(vec![request.clone(), request]), Order::Score(scoring), Order::Dismissed]
        {
            let bytes = to_bytes(&order);
            assert_eq!(from_bytes::<Order>(&bytes).unwrap(), order);
            assert!((0..bytes.len()).all(|cut| from_bytes::<Order>(&bytes[..cut]).is_err()), "{order:?}");
            assert!(from_bytes::<Order>(&[bytes.as_slice(), &[0]].concat()).is_err());
        }
    }
}
