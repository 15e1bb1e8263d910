//! What a GPU is told of the pages of sequences.

use rlt_cuda::{Gpu, PageLayout, PageTable, Run};

use super::pages::{KvSequence, runs};

/// What the newest tokens attend to, which are stored or will be.
pub(super) fn page_table<'a>(gpu: &Gpu, sequences: &[&'a KvSequence], layout: PageLayout) -> PageTable<'a> {
    let own = |sequence: &&'a KvSequence| {
        let (before, stored) = (sequence.prefix.len(), sequence.own.len() + 1);
        sequence.own.pages_on_gpu(stored, before)
    };
    let runs = runs(sequences, usize::MAX).into_iter().map(|run| {
        let prompt = &sequences[run.start].prefix;
        Run { prompt: prompt.pages_on_gpu(prompt.len(), 0), own: sequences[run].iter().map(own).collect() }
    });
    gpu.page_table(&runs.collect::<Vec<_>>(), layout)
}
