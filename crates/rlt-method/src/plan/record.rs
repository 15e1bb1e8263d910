//! What a rehearsal writes down: what stays, and the peak and the work of every stage.

use rlt_engine::Device;
use rlt_engine::arithmetic::Arithmetic;
use rlt_engine::sizes::{Operation, Work};

use super::cards::Card;

/// A named number of bytes or of seconds.
pub type Named<T> = (&'static str, T);

/// The stages of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Loading,
    Generation,
    Scoring,
    Update,
    Evaluation,
    Saving,
}

impl Stage {
    const ALL: [Self; 6] =
        [Self::Loading, Self::Generation, Self::Scoring, Self::Update, Self::Evaluation, Self::Saving];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Loading => "loading",
            Self::Generation => "generation",
            Self::Scoring => "scoring",
            Self::Update => "update",
            Self::Evaluation => "evaluation",
            Self::Saving => "saving",
        }
    }
}

/// Work of a stage, over all of its steps, by kind of operation.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct StageWork([Work; Operation::ALL.len()]);

impl StageWork {
    /// Multiply-adds of operations over many rows.
    pub fn many_rows(&self) -> f64 {
        self.multiply_adds([Operation::Product, Operation::Attention])
    }

    /// Multiply-adds of those that wait for weights, or for keys and values. What reads and writes rows is little beside them.
    pub fn few_rows(&self) -> f64 {
        self.multiply_adds([Operation::FewRows, Operation::Decode])
    }

    /// Bytes of weights and gradients that leave for other ranks meanwhile.
    pub fn sent_bytes(&self) -> f64 {
        self.0[Operation::Sending as usize].bytes
    }

    /// Seconds that a card takes at least.
    pub fn bound_s(&self, card: &Card, arithmetic: Arithmetic) -> f64 {
        card.bound_s(&Operation::ALL.map(|operation| (operation, self.0[operation as usize])), arithmetic)
    }

    fn multiply_adds(&self, operations: [Operation; 2]) -> f64 {
        operations.map(|operation| self.0[operation as usize].multiply_adds).iter().sum()
    }
}

/// A record on its way.
pub(super) struct Record {
    device: Device,
    /// What was held before.
    before: u64,
    pub stays: Vec<Named<u64>>,
    peaks: [u64; Stage::ALL.len()],
    work: [StageWork; Stage::ALL.len()],
    releases: bool,
}

impl Record {
    /// Of what is done on `device`, which `releases` the memory of a stage at its end or keeps it.
    pub fn of(device: &Device, releases: bool) -> Self {
        device.take_peak();
        let (before, device) = (device.usage().held, device.clone());
        let (peaks, work) = Default::default();
        Self { device, before, stays: Vec::new(), peaks, work, releases }
    }

    /// Names what is held beside what was named before.
    pub fn stays(&mut self, name: &'static str) {
        let held = self.device.usage().in_use;
        let more = held.saturating_sub(self.before);
        if more > 0 {
            self.stays.push((name, more));
            self.before = held;
        }
    }

    /// Ends a stage whose work stands for `times` as much.
    pub fn end(&mut self, stage: Stage, times: f64) {
        let peak = &mut self.peaks[stage as usize];
        *peak = (*peak).max(self.device.take_peak());
        let Device::Sizes(sizes) = &self.device else { return };
        let work: [(Operation, Work); Operation::ALL.len()] = sizes.take_work();
        let sums = &mut self.work[stage as usize].0;
        for (operation, work) in work {
            let sum = &mut sums[operation as usize];
            sum.calls += work.calls;
            sum.multiply_adds += times * work.multiply_adds;
            sum.bytes += times * work.bytes;
        }
    }

    /// As [`Self::end`], where the run may give back what the stage has done with.
    pub fn end_stage(&mut self, stage: Stage, times: f64) {
        self.end(stage, times);
        if self.releases {
            self.device.release_memory();
            self.device.take_peak();
        }
    }

    /// The peak of every stage there was.
    pub fn peaks(&self) -> Vec<Named<u64>> {
        let all = Stage::ALL.into_iter().zip(self.peaks);
        all.filter(|(_, bytes)| *bytes > 0).map(|(stage, bytes)| (stage.name(), bytes)).collect()
    }

    /// The most of all stages.
    pub fn peak(&self) -> u64 {
        self.peaks.iter().copied().max().unwrap_or(0)
    }

    /// The work of a stage.
    pub fn work(&self, stage: Stage) -> &StageWork {
        &self.work[stage as usize]
    }
}
