//! Ranks that are each at work of their own hand each other bytes in between.
//!
//! A collective needs every rank at the same place, and dealt work is not: one rank reads twenty rows while another samples
//! three. So a rank that needs something of the others *meets* them. All say what they came for; whoever asks is given every
//! rank's share of it, whoever hands something in is rid of it, and a rank that came for a collective goes on answering until
//! all have come for one. No rank waits longer than the others take to their next meeting, and what anyone is given does not
//! depend on who else asked.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::Result;
use crate::lender::Lender;
use crate::ranks::Ranks;
use crate::transport::Kind;

/// A [`Lender`] that all ranks have a part of.
#[derive(Debug, Clone)]
pub struct Lent {
    ranks: Ranks,
    lender: usize,
}

impl Ranks {
    /// From here on all ranks lend and take through their `lender`s, which all of them bring in the same order. A collective.
    ///
    /// # Errors
    /// As [`Ranks::barrier`].
    pub fn lend(&self, lender: Arc<dyn Lender>) -> Result<Lent> {
        self.barrier()?;
        let lender = self.add_lender(lender);
        Ok(Lent { ranks: self.clone(), lender })
    }

    /// Answers the others until all have come for a collective; at once where nothing is lent.
    pub(crate) fn attend(&self) -> Result<()> {
        if self.size() == 1 || self.lenders().is_empty() {
            return Ok(());
        }
        loop {
            if self.meeting(Purpose::Collective, &[])?.all_came_for_a_collective {
                return Ok(());
            }
        }
    }

    fn meeting(&self, own: Purpose, handed_in: &[&[u8]]) -> Result<Meeting> {
        let said = self.exchange(Kind::Meeting, &vec![&own.to_bytes()[..]; self.size()])?;
        let purposes: Vec<Purpose> = said.iter().map(|bytes| Purpose::from_bytes(bytes)).collect();
        let mut meeting = Meeting {
            all_came_for_a_collective: purposes.iter().all(|purpose| *purpose == Purpose::Collective),
            shares: Vec::new(),
        };
        let lenders = self.lenders();
        if purposes.iter().any(|purpose| matches!(purpose, Purpose::Ask { .. })) {
            let mut shares: BTreeMap<(usize, usize), Vec<u8>> = BTreeMap::new();
            for purpose in &purposes {
                if let Purpose::Ask { lender, item } = *purpose
                    && let Some(from) = lenders.get(lender)
                {
                    shares.entry((lender, item)).or_insert_with(|| from.share(item));
                }
            }
            let for_rank = |purpose: &Purpose| match purpose {
                Purpose::Ask { lender, item } => shares.get(&(*lender, *item)).map_or(&[][..], Vec::as_slice),
                _ => &[],
            };
            let parts: Vec<&[u8]> = purposes.iter().map(for_rank).collect();
            meeting.shares = self.exchange(Kind::Lending, &parts)?;
        }
        if purposes.iter().any(|purpose| matches!(purpose, Purpose::HandIn { .. })) {
            let nothing: &[u8] = &[];
            let parts = if handed_in.is_empty() { vec![nothing; self.size()] } else { handed_in.to_vec() };
            let mut came = self.exchange(Kind::HandingIn, &parts)?;
            let mut items: BTreeMap<(usize, usize), Vec<Option<Vec<u8>>>> = BTreeMap::new();
            for (rank, purpose) in purposes.iter().enumerate() {
                if let Purpose::HandIn { lender, item } = *purpose {
                    let of_item = items.entry((lender, item)).or_insert_with(|| vec![None; self.size()]);
                    of_item[rank] = Some(std::mem::take(&mut came[rank]));
                }
            }
            for ((lender, item), parts) in items {
                if let Some(lender) = lenders.get(lender) {
                    lender.take(item, parts);
                }
            }
        }
        Ok(meeting)
    }
}

impl Lent {
    /// Every rank's share of an item, in their order. The others need not ask for anything themselves.
    ///
    /// # Errors
    /// As [`Ranks::barrier`].
    pub fn shares_of(&self, item: usize) -> Result<Vec<Vec<u8>>> {
        Ok(self.ranks.meeting(Purpose::Ask { lender: self.lender, item }, &[])?.shares)
    }

    /// Part `p` goes to rank `p`'s [`Lender::take`], together with what others hand in for the same item at the same meeting.
    ///
    /// # Errors
    /// As [`Ranks::barrier`].
    ///
    /// # Panics
    /// When there is not a part a rank.
    pub fn hand_in(&self, item: usize, parts: &[&[u8]]) -> Result<()> {
        assert_eq!(parts.len(), self.ranks.size(), "a part for every rank");
        self.ranks.meeting(Purpose::HandIn { lender: self.lender, item }, parts).map(drop)
    }
}

struct Meeting {
    all_came_for_a_collective: bool,
    /// Of what this rank asked for.
    shares: Vec<Vec<u8>>,
}

/// What a rank comes to a meeting for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Collective,
    Ask { lender: usize, item: usize },
    HandIn { lender: usize, item: usize },
}

impl Purpose {
    fn to_bytes(self) -> [u8; 24] {
        let [kind, lender, item] = match self {
            Self::Collective => [0, 0, 0],
            Self::Ask { lender, item } => [1, lender as u64, item as u64],
            Self::HandIn { lender, item } => [2, lender as u64, item as u64],
        };
        bytemuck::cast([kind, lender, item])
    }

    fn from_bytes(bytes: &[u8]) -> Self {
        let number = |at: usize| {
            let bytes = bytes.get(8 * at..8 * (at + 1)).and_then(|bytes| bytes.try_into().ok());
            bytes.map_or(0, u64::from_ne_bytes)
        };
        let (lender, item) = (number(1) as usize, number(2) as usize);
        match number(0) {
            1 => Self::Ask { lender, item },
            2 => Self::HandIn { lender, item },
            _ => Self::Collective,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::on_threads;

    /// An item, and what each rank handed in for it.
    type Taken = (usize, Vec<Option<Vec<u8>>>);

    #[derive(Debug)]
    struct Shelf {
        rank: u8,
        taken: Mutex<Vec<Taken>>,
    }

    impl Lender for Shelf {
        fn share(&self, item: usize) -> Vec<u8> {
            vec![self.rank, item as u8]
        }

        fn take(&self, item: usize, parts: Vec<Option<Vec<u8>>>) {
            self.taken.lock().unwrap().push((item, parts));
        }
    }

    fn shelf(ranks: &Ranks) -> (Arc<Shelf>, Lent) {
        let shelf = Arc::new(Shelf { rank: ranks.rank() as u8, taken: Mutex::default() });
        let lent = ranks.lend(shelf.clone()).unwrap();
        (shelf, lent)
    }

    #[test]
    fn ranks_of_unequal_work_are_given_what_they_ask_for() {
        for n in [1, 2, 3, 4] {
            on_threads(n, |ranks| {
                let (_first, one) = shelf(&ranks);
                let (_second, other) = shelf(&ranks);
                // Rank 0 asks for nothing, rank 3 for nine items, in an order of its own.
                for round in 0..3 * ranks.rank() {
                    let (lent, item) = if round % 2 == 0 { (&one, round) } else { (&other, 40 - round) };
                    let all: Vec<Vec<u8>> = (0..n as u8).map(|rank| vec![rank, item as u8]).collect();
                    assert_eq!(lent.shares_of(item).unwrap(), all);
                }
                assert!(!ranks.any(false).unwrap());
                assert!(ranks.any(ranks.is_first()).unwrap());
            });
        }
    }

    #[test]
    fn what_is_handed_in_together_arrives_together() {
        on_threads(3, |ranks| {
            let (shelf, lent) = shelf(&ranks);
            let rank = ranks.rank() as u8;
            // Rank 1 hands in nothing, and waits at the collective.
            if rank != 1 {
                let parts: Vec<[u8; 2]> = (0..3).map(|to| [rank, to]).collect();
                let parts: Vec<&[u8]> = parts.iter().map(<[u8; 2]>::as_slice).collect();
                lent.hand_in(7, &parts).unwrap();
            }
            ranks.barrier().unwrap();
            let taken = shelf.taken.lock().unwrap();
            assert_eq!(*taken, [(7, vec![Some(vec![0, rank]), None, Some(vec![2, rank])])]);
        });
    }

    #[test]
    fn a_rank_that_is_gone_is_told_to_who_asks_and_to_who_waits() {
        let outcomes = on_threads(3, |ranks| {
            let (_shelf, lent) = shelf(&ranks);
            match ranks.rank() {
                0 => {
                    let asked = lent.shares_of(1).map(drop);
                    // Whoever lost a rank does not meet the others again.
                    assert_eq!(ranks.barrier().is_err(), asked.is_err());
                    asked
                }
                1 => ranks.barrier(),
                _ => {
                    ranks.abort("out of memory");
                    Ok(())
                }
            }
        });
        for outcome in &outcomes[..2] {
            let said = outcome.as_ref().unwrap_err().to_string();
            assert!(said.contains("rank 2"), "{said}");
        }
    }
}
