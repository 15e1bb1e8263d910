//! The collectives, over whatever carries the bytes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::lender::Lender;
use crate::transport::{Call, Kind, Transport, host_name};

/// Longest message whose length another rank may choose, bytes: what is gathered are rows and settings, never arrays.
const LONGEST_MESSAGE: u64 = 4 << 30;

/// This process's place among the ranks of a job, and what they do together. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Ranks(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// None where there is one rank.
    transport: Option<Box<dyn Transport>>,
    /// Collectives so far.
    calls: AtomicU64,
    /// Time spent in them, nanoseconds: what others were waited for and what moved.
    nanoseconds: AtomicU64,
    /// Where pieces of others' arrays lie until they are summed: kept, since fresh memory costs more than the sum.
    room: Mutex<Vec<f32>>,
    /// What is lent between collectives.
    lenders: RwLock<Vec<Arc<dyn Lender>>>,
    /// Why the others were lost: nobody is met again then, whatever part of the work finds out first.
    lost: OnceLock<Error>,
}

impl Ranks {
    /// One rank: every collective is done at once.
    pub fn alone() -> Self {
        Self::new(None)
    }

    pub(crate) fn over(transport: Box<dyn Transport>) -> Self {
        Self::new(Some(transport))
    }

    fn new(transport: Option<Box<dyn Transport>>) -> Self {
        let (calls, nanoseconds) = (AtomicU64::new(0), AtomicU64::new(0));
        let (room, lenders, lost) = (Mutex::default(), RwLock::default(), OnceLock::new());
        Self(Arc::new(Inner { transport, calls, nanoseconds, room, lenders, lost }))
    }

    /// This process's place, from 0.
    pub fn rank(&self) -> usize {
        self.0.transport.as_ref().map_or(0, |transport| transport.rank())
    }

    /// How many ranks there are.
    pub fn size(&self) -> usize {
        self.0.transport.as_ref().map_or(1, |transport| transport.size())
    }

    /// Whether this is rank 0, which owns files, log and progress.
    pub fn is_first(&self) -> bool {
        self.rank() == 0
    }

    /// The machine of a rank, as it calls itself.
    pub fn host(&self, rank: usize) -> String {
        self.0.transport.as_ref().map_or_else(host_name, |transport| transport.host(rank))
    }

    /// This rank's place among those of its machine, from 0.
    pub fn rank_on_host(&self) -> usize {
        let own = self.host(self.rank());
        (0..self.rank()).filter(|&rank| self.host(rank) == own).count()
    }

    /// "rank 2 of 4 on node7".
    pub fn place(&self) -> String {
        format!("rank {} of {} on {}", self.rank(), self.size(), self.host(self.rank()))
    }

    /// Time that collectives took so far, the waiting for others included.
    pub fn time_in_collectives(&self) -> Duration {
        Duration::from_nanos(self.0.nanoseconds.load(Ordering::Relaxed))
    }

    /// Waits until every rank is here.
    ///
    /// # Errors
    /// Naming a rank that is gone, failed, late or elsewhere; so in every collective.
    pub fn barrier(&self) -> Result<()> {
        self.gather(Kind::Barrier, &[]).map(|_| ())
    }

    /// Whether any rank says so.
    ///
    /// # Errors
    /// As [`Self::barrier`].
    pub fn any(&self, mine: bool) -> Result<bool> {
        Ok(self.all_gather(&[mine.into()])?.iter().any(|said| said == &[1]))
    }

    /// The first rank that has an error, and what it says; all ranks learn the same.
    ///
    /// # Errors
    /// As [`Self::barrier`].
    pub fn first_error(&self, mine: Option<String>) -> Result<Option<(usize, String)>> {
        // A byte before the text tells an empty text from none.
        let mine = mine.map_or_else(Vec::new, |text| [b"!", text.as_bytes()].concat());
        let said = self.all_gather(&mine)?;
        let first = said.iter().position(|text| !text.is_empty());
        Ok(first.map(|rank| (rank, String::from_utf8_lossy(&said[rank][1..]).into_owned())))
    }

    /// What `root` gave, on every rank.
    ///
    /// # Errors
    /// As [`Self::barrier`].
    pub fn broadcast(&self, root: usize, bytes: Vec<u8>) -> Result<Vec<u8>> {
        let Some(transport) = &self.0.transport else { return Ok(bytes) };
        let nothing: &[u8] = &[];
        let mine: Vec<&[u8]> = (0..transport.size())
            .map(|to| if transport.rank() == root && to != root { &bytes } else { nothing })
            .collect();
        self.attend()?;
        let mut theirs = self.exchange(Kind::Broadcast, &mine)?;
        Ok(if transport.rank() == root { bytes } else { std::mem::take(&mut theirs[root]) })
    }

    /// What every rank gave, in their order; lengths may differ.
    ///
    /// # Errors
    /// As [`Self::barrier`].
    pub fn all_gather(&self, mine: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.gather(Kind::AllGather, mine)
    }

    fn gather(&self, kind: Kind, mine: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.attend()?;
        self.exchange(kind, &vec![mine; self.size()])
    }

    /// What every rank gave, in their order, on rank 0; nothing elsewhere.
    ///
    /// # Errors
    /// As [`Self::barrier`].
    pub fn gather_to_first(&self, mine: &[u8]) -> Result<Vec<Vec<u8>>> {
        let nothing: &[u8] = &[];
        let mut parts = vec![nothing; self.size()];
        parts[0] = mine;
        self.attend()?;
        let all = self.exchange(Kind::Gather, &parts)?;
        Ok(if self.is_first() { all } else { Vec::new() })
    }

    /// Part `p` goes to rank `p`; what every rank had for this one, in their order.
    ///
    /// # Errors
    /// As [`Self::barrier`].
    pub fn all_to_all(&self, parts: &[&[u8]]) -> Result<Vec<Vec<u8>>> {
        self.attend()?;
        self.exchange(Kind::AllToAll, parts)
    }

    /// Tells the others that this rank cannot go on; where the transport can, their processes end.
    pub fn abort(&self, why: &str) {
        if let Some(transport) = &self.0.transport {
            transport.abort(why);
        }
    }

    /// As [`Self::abort`] for a process that has told the user why and ends now, whatever state it is in: it needs no memory
    /// and waits for no lock.
    pub fn last_word(&self) {
        if let Some(transport) = &self.0.transport {
            transport.last_word();
        }
    }

    /// This rank has done its work: from here on its end is no loss to the others. All ranks leave together.
    pub fn leave(&self) {
        if let Some(transport) = &self.0.transport {
            transport.leave();
        }
    }

    pub(crate) fn lenders(&self) -> Vec<Arc<dyn Lender>> {
        self.0.lenders.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The number of a new one.
    pub(crate) fn add_lender(&self, lender: Arc<dyn Lender>) -> usize {
        let mut lenders = self.0.lenders.write().unwrap_or_else(PoisonError::into_inner);
        lenders.push(lender);
        lenders.len() - 1
    }

    /// Part `p` goes to rank `p`, whatever its length.
    pub(crate) fn exchange(&self, kind: Kind, parts: &[&[u8]]) -> Result<Vec<Vec<u8>>> {
        assert_eq!(parts.len(), self.size(), "a part for every rank");
        let Some(transport) = &self.0.transport else { return Ok(vec![parts[0].to_vec()]) };
        let lengths: Vec<u64> = parts.iter().map(|part| part.len() as u64).collect();
        self.timed(kind, &lengths, |call, theirs| {
            let mut all = Vec::with_capacity(theirs.len());
            for (from, &length) in theirs.iter().enumerate() {
                if length > LONGEST_MESSAGE {
                    let what = format!("it announces a message of {length} bytes");
                    return Err(Error::Lost { rank: from, host: transport.host(from), what });
                }
                all.push(vec![0; length as usize]);
            }
            all[transport.rank()].copy_from_slice(parts[transport.rank()]);
            let outgoing = others(transport.as_ref()).map(|to| (to, parts[to]));
            let outgoing: Vec<(usize, &[u8])> = outgoing.filter(|(_, part)| !part.is_empty()).collect();
            let incoming = all.iter_mut().enumerate().filter(|(from, _)| *from != transport.rank());
            let mut incoming: Vec<(usize, &mut [u8])> = incoming
                .filter(|(_, part)| !part.is_empty())
                .map(|(from, part)| (from, part.as_mut_slice()))
                .collect();
            transport.exchange(call, &outgoing, &mut incoming)?;
            Ok(all)
        })
    }

    /// What carries the bytes; none where there is one rank.
    pub(crate) fn transport(&self) -> Option<&dyn Transport> {
        self.0.transport.as_deref()
    }

    /// Where pieces of others' arrays lie until they are used up.
    pub(crate) fn room(&self) -> &Mutex<Vec<f32>> {
        &self.0.room
    }

    /// Meets all ranks at a collective, then does its work. `lengths[p]` is told to rank `p`, and what each rank told this
    /// one is handed to `work`.
    ///
    /// # Errors
    /// [`Error::Elsewhere`] where a rank is at another collective, or at this one with arrays of other lengths.
    pub(crate) fn timed<T>(
        &self,
        kind: Kind,
        lengths: &[u64],
        work: impl FnOnce(&Call, &[u64]) -> Result<T>,
    ) -> Result<T> {
        if let Some(lost) = self.0.lost.get() {
            return Err(lost.clone());
        }
        let started = Instant::now();
        let call = Call { kind, number: self.0.calls.fetch_add(1, Ordering::Relaxed) + 1 };
        let done = self.meet(&call, lengths).and_then(|theirs| work(&call, &theirs));
        self.0.nanoseconds.fetch_add(started.elapsed().as_nanos() as u64, Ordering::Relaxed);
        if let Err(error) = &done {
            let _ = self.0.lost.set(error.clone());
        }
        done
    }

    fn meet(&self, call: &Call, lengths: &[u64]) -> Result<Vec<u64>> {
        let Some(transport) = &self.0.transport else { return Ok(lengths.to_vec()) };
        let heads: Vec<[u64; 3]> =
            lengths.iter().map(|&length| [call.kind as u64, call.number, length]).collect();
        let mut theirs = heads.clone();
        let rank = transport.rank();
        let outgoing: Vec<(usize, &[u8])> =
            others(transport.as_ref()).map(|to| (to, bytemuck::cast_slice(&heads[to][..]))).collect();
        let incoming = theirs.iter_mut().enumerate().filter(|(from, _)| *from != rank);
        let mut incoming: Vec<(usize, &mut [u8])> =
            incoming.map(|(from, head)| (from, bytemuck::cast_slice_mut(&mut head[..]))).collect();
        transport.exchange(call, &outgoing, &mut incoming)?;
        for (from, &[kind, number, length]) in theirs.iter().enumerate() {
            let array = matches!(call.kind, Kind::ReduceShards | Kind::GatherShards);
            let same =
                (kind, number) == (call.kind as u64, call.number) && !(array && length != lengths[from]);
            if !same {
                let place = |call: &Call, length: u64| {
                    if array { format!("the {call} of {length} numbers") } else { format!("the {call}") }
                };
                let other = Kind::of(kind).map(|kind| Call { kind, number });
                let theirs = other.map_or_else(|| "no collective".into(), |call| place(&call, length));
                let ours = place(call, lengths[from]);
                return Err(Error::Elsewhere { rank: from, host: transport.host(from), theirs, ours });
            }
        }
        Ok(theirs.into_iter().map(|[_, _, length]| length).collect())
    }
}

/// All ranks but this one.
pub(crate) fn others(transport: &dyn Transport) -> impl Iterator<Item = usize> + use<> {
    let rank = transport.rank();
    (0..transport.size()).filter(move |other| *other != rank)
}
