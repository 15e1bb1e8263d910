//! A device without numbers: shapes are checked, memory is asked for and handed back, work is counted, and nothing is
//! computed. What a run takes is found by running it here.
//!
//! Whoever runs code on it does so on one thread: what other devices do at the same time is done one after another, in
//! lanes (`Sizes::in_lanes`), each of which keeps what it has handed back until all are done. So their peaks count as
//! if they came at the same moment, and come out the same every time.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::parallel::is_alone;
use crate::recycling::{Free, Piece, SMALLEST_ELEMENTS, Usage, size_class};

/// A kind of operation, by what its time depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// A matrix product over many rows.
    Product,
    /// One over so few rows that it waits for the weights.
    FewRows,
    /// Attention over packed segments, forward or backward.
    Attention,
    /// Attention of newest tokens over stored keys and values.
    Decode,
    /// What reads and writes rows: norms, activations, rotations, sums, the optimizer.
    Rows,
    /// No computation: what leaves for other processes.
    Sending,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Product, Self::FewRows, Self::Attention, Self::Decode, Self::Rows, Self::Sending];
}

/// Work of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Work {
    /// Calls of operations, those that stand for several counted once.
    pub calls: u64,
    /// Multiplications with an addition each.
    pub multiply_adds: f64,
    /// Bytes of the operands and the result, each counted once.
    pub bytes: f64,
}

/// Whose rules of memory are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rules {
    /// Small blocks are not counted, others as far as they are touched; tasks hold theirs at the same time.
    Processor,
    /// Every block counts whole; one task comes after another.
    Gpu,
}

struct Ledger {
    usage: Usage,
    /// Bytes that there are. Before more are asked for, what waits for its next use is given back.
    memory: Option<u64>,
    free: Free<()>,
    /// What each of the lanes has handed back.
    lanes: Vec<Free<()>>,
    /// The lane in hand.
    lane: Option<usize>,
    work: [Work; Operation::ALL.len()],
    /// How often what is done counts.
    times: f64,
}

/// The device; its clones are the same one.
#[derive(Clone)]
pub struct Sizes {
    rules: Rules,
    ledger: Arc<Mutex<Ledger>>,
}

impl Default for Sizes {
    fn default() -> Self {
        Self::following(Rules::Processor, None)
    }
}

impl Sizes {
    /// Takes memory as a GPU of so many bytes does, where that is known.
    pub(crate) fn of_gpu(memory: Option<u64>) -> Self {
        Self::following(Rules::Gpu, memory)
    }

    fn following(rules: Rules, memory: Option<u64>) -> Self {
        let (usage, free) = (Usage::NOTHING, Free::new());
        let (lanes, work) = (Vec::new(), Default::default());
        let ledger = Ledger { usage, memory, free, lanes, lane: None, work, times: 1.0 };
        Self { rules, ledger: Arc::new(Mutex::new(ledger)) }
    }

    /// Whether it takes memory as a GPU does.
    pub(crate) fn is_of_gpu(&self) -> bool {
        self.rules == Rules::Gpu
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A block for so many numbers of 4 bytes; none where they are too few to be counted.
    pub(crate) fn take(&self, elements: usize) -> Option<Piece<()>> {
        let (class, elements) = match self.rules {
            Rules::Processor if elements < SMALLEST_ELEMENTS => return None,
            Rules::Processor => (size_class(elements), elements),
            Rules::Gpu => {
                let block = rlt_cuda::block_bytes(4 * elements) / 4;
                (block, block)
            }
        };
        let ledger = &mut *self.ledger();
        let lane = ledger.lane.and_then(|lane| ledger.lanes[lane].pop(class));
        if let Some(mut piece) = lane.or_else(|| ledger.free.pop(class)) {
            // A GPU's blocks are in use whole.
            let elements = if self.rules == Rules::Gpu { piece.class() } else { elements };
            ledger.usage.again(&mut piece, elements);
            return Some(piece);
        }
        let wanted = ledger.usage.held + 4 * class as u64;
        if ledger.memory.is_some_and(|memory| wanted > memory) {
            ledger.usage.release(&ledger.free);
            ledger.free = Free::new();
        }
        Some(ledger.usage.begin((), class, elements))
    }

    pub(crate) fn give(&self, piece: Piece<()>) {
        let ledger = &mut *self.ledger();
        ledger.usage.give(&piece);
        match ledger.lane {
            Some(lane) => ledger.lanes[lane].push(piece),
            None => ledger.free.push(piece),
        }
    }

    pub(crate) fn lose(&self, piece: &Piece<()>) {
        self.ledger().usage.lose(piece);
    }

    pub(crate) fn release_all(&self) {
        let ledger = &mut *self.ledger();
        ledger.usage.release(&ledger.free);
        ledger.free = Free::new();
    }

    pub(crate) fn count<R>(&self, change: impl FnOnce(&mut Usage) -> R) -> R {
        change(&mut self.ledger().usage)
    }

    /// Does `work` for each of `tasks`, of which a device of numbers does as many at the same time as it has threads. With one
    /// thread, inside a task, and where a thread is left alone with its rows, tasks follow each other.
    pub(crate) fn in_lanes<T>(&self, tasks: impl IntoIterator<Item = T>, mut work: impl FnMut(T)) {
        let n_threads = rayon::current_num_threads();
        if self.is_of_gpu() || is_alone() || n_threads == 1 || self.ledger().lane.is_some() {
            return tasks.into_iter().for_each(work);
        }
        for (index, task) in tasks.into_iter().enumerate() {
            let lane = index % n_threads;
            {
                let ledger = &mut *self.ledger();
                if ledger.lanes.len() <= lane {
                    ledger.lanes.push(Free::new());
                }
                ledger.lane = Some(lane);
            }
            work(task);
        }
        let ledger = &mut *self.ledger();
        ledger.lane = None;
        for lane in std::mem::take(&mut ledger.lanes) {
            ledger.free.append(lane);
        }
    }

    /// Counts an operation that touches `elements` numbers of 4 bytes.
    pub(crate) fn did(&self, operation: Operation, multiply_adds: f64, elements: usize) {
        let ledger = &mut *self.ledger();
        let work = &mut ledger.work[operation as usize];
        work.calls += 1;
        work.multiply_adds += ledger.times * multiply_adds;
        work.bytes += ledger.times * 4.0 * elements as f64;
    }

    /// Counts an operation that touches `elements` numbers and is bound by that.
    pub(crate) fn did_rows(&self, elements: usize) {
        self.did(Operation::Rows, elements as f64, elements);
    }

    /// Counts `numbers` of 4 bytes that leave for other processes.
    pub(crate) fn sent(&self, numbers: usize) {
        self.did(Operation::Sending, 0.0, numbers);
    }

    /// Counts what `work` does `times` times.
    pub(crate) fn counted<R>(&self, times: usize, work: impl FnOnce() -> R) -> R {
        let before = std::mem::replace(&mut self.ledger().times, times as f64);
        let result = work();
        self.ledger().times = before;
        result
    }

    /// What was done since the last call, by kind.
    pub fn take_work(&self) -> [(Operation, Work); Operation::ALL.len()] {
        let work = std::mem::take(&mut self.ledger().work);
        std::array::from_fn(|index| (Operation::ALL[index], work[index]))
    }
}

impl fmt::Debug for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sizes({:?})", self.ledger().usage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_hold_their_blocks_at_the_same_time_and_hand_them_on() {
        let sizes = Sizes::default();
        let threads = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        let task = |_| {
            let take = || sizes.take(10_000).expect("large enough to be counted");
            let (a, b) = (take(), take());
            sizes.give(a);
            // The same block again.
            let c = take();
            sizes.give(b);
            sizes.give(c);
        };
        let peak = |tasks: usize| {
            threads.install(|| sizes.in_lanes(0..tasks, task));
            sizes.count(Usage::take_peak) / 40_000
        };
        assert_eq!([peak(1), peak(2), peak(3), peak(7)], [2, 4, 6, 6]);
        sizes.release_all();
        assert_eq!(sizes.count(|usage| usage.held), 0);
    }

    #[test]
    fn a_gpus_blocks_count_whole_and_one_task_follows_another() {
        let sizes = Sizes::of_gpu(None);
        let held = || sizes.count(|usage| usage.held);
        let take = |n| sizes.take(n).expect("every block counts");
        let (tiny, small) = (take(1), take(1000));
        assert_eq!(held(), 256 + 4096);
        sizes.give(small);
        sizes.in_lanes(0..5, |_| sizes.give(take(900)));
        assert_eq!((held(), sizes.count(|usage| usage.in_use)), (256 + 4096, 256));
        sizes.give(tiny);
        sizes.release_all();
        assert_eq!(held(), 0);
    }

    #[test]
    fn where_a_gpus_memory_is_short_free_blocks_go_back_first() {
        let sizes = Sizes::of_gpu(Some(10_000));
        let take = |n| sizes.take(n).expect("every block counts");
        let kept = take(1000);
        sizes.give(take(400));
        assert_eq!(sizes.count(|usage| usage.held), 4096 + 1792);
        let large = take(1200);
        assert_eq!(sizes.count(Usage::take_peak), 4096 + 5120);
        // What is in use counts however much it is.
        let too_much = take(1000);
        assert_eq!(sizes.count(Usage::take_peak), 4096 + 5120 + 4096);
        for piece in [kept, large, too_much] {
            sizes.give(piece);
        }
    }
}
