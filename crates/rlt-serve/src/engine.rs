//! The engine's thread: takes what waits, as much together as it can, and answers.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use rlt_model::batch::ScoringGroup;
use rlt_model::generate::{Completion, GenerationProgress, GenerationRequest, Receiver, generate_each};
use rlt_model::{Error, Stop};

use crate::queue::{Answer, Done, Found, Generation, Job, Queue, Work};
use crate::refusal::Refusal;
use crate::weights::{Loaded, Weights};

/// Works until the queue closes. About `tokens_per_batch` tokens are scored at a time.
pub(crate) fn work(queue: &Queue, weights: &Weights, tokens_per_batch: usize) {
    while let Some(jobs) = queue.take() {
        let model = weights.current();
        let mut waiting: Vec<Option<Job>> = jobs.into_iter().map(Some).collect();
        let call = || call(queue, &model, &mut waiting, tokens_per_batch);
        let refusal = match catch_unwind(AssertUnwindSafe(call)) {
            Ok(Ok(())) => continue,
            Ok(Err(Error::Stopped)) if queue.is_closing() => Refusal::closing(),
            Ok(Err(Error::Stopped)) => aborted_scores(),
            Ok(Err(error)) => Refusal::wrong(error.to_string()),
            Err(_) => Refusal::new(500, "the engine failed; the server's log has more"),
        };
        waiting.into_iter().flatten().for_each(|job| job.answer(Err(refusal.clone())));
    }
}

fn aborted_scores() -> Refusal {
    Refusal::busy("aborted: the weights are about to change")
}

/// The answer to work that was aborted before it began.
pub(crate) fn aborted(work: &Work, model: &Arc<Loaded>) -> Answer {
    let found = match work {
        Work::Score(_) => return Err(aborted_scores()),
        Work::Generate(generation) => {
            Found::Completions(generation.requests.iter().map(|request| vec![None; request.n]).collect())
        }
    };
    Ok(Done { found, model: model.clone() })
}

fn call(
    queue: &Queue,
    model: &Arc<Loaded>,
    waiting: &mut [Option<Job>],
    tokens_per_batch: usize,
) -> rlt_model::Result<()> {
    let first = waiting.iter().flatten().next().map(|job| job.work.clone());
    match first {
        None => Ok(()),
        Some(Work::Score(_)) => score(queue, model, waiting, tokens_per_batch),
        Some(Work::Generate(generation)) => {
            let jobs = waiting.iter().enumerate();
            let of_jobs = jobs.flat_map(|(job, waiting)| requests(waiting.as_ref()).map(move |r| (job, r)));
            let (jobs, requests): (Vec<usize>, Vec<GenerationRequest>) =
                of_jobs.map(|(job, request)| (job, request.clone())).unzip();
            let mut receiver = Answering::new(queue, model, &jobs, &requests, waiting);
            let stop = Stop::when(queue.ends_call());
            let Generation { params, seed, .. } = &generation;
            match generate_each(&model.decoder, &requests, params, *seed, stop, &mut receiver) {
                Err(Error::Stopped) if !queue.is_closing() => {
                    receiver.answer_as_it_is();
                    Ok(())
                }
                outcome => outcome,
            }
        }
    }
}

fn requests(job: Option<&Job>) -> impl Iterator<Item = &GenerationRequest> {
    let requests = job.map(|job| match &job.work {
        Work::Generate(generation) => generation.requests.as_slice(),
        Work::Score(_) => &[],
    });
    requests.unwrap_or_default().iter()
}

/// Scores all sequences of all jobs together, some rows at a time; jobs are answered as soon as theirs are done.
fn score(
    queue: &Queue,
    model: &Arc<Loaded>,
    waiting: &mut [Option<Job>],
    tokens_per_batch: usize,
) -> rlt_model::Result<()> {
    let mut first = 0;
    while first < waiting.len() {
        waiting[first..].iter_mut().for_each(|job| drop(job.take_if(|job| job.is_abandoned())));
        // As many jobs as fill a batch: nobody waits for what comes after it.
        let mut groups: Vec<ScoringGroup> = Vec::new();
        let mut counts = Vec::new();
        let mut rows = 0;
        for job in &waiting[first..] {
            let of_job: &[ScoringGroup] = match job.as_ref().map(|job| &job.work) {
                Some(Work::Score(groups)) => groups,
                _ => &[],
            };
            let more: usize = of_job.iter().map(ScoringGroup::n_rows).sum();
            if !counts.is_empty() && rows + more > tokens_per_batch {
                break;
            }
            rows += more;
            groups.extend(of_job.iter().cloned());
            counts.push(of_job.len());
        }
        let stop = Stop::when(queue.ends_call());
        let scored = model.decoder.token_logprobs_unless(stop, &groups, 1.0, tokens_per_batch)?;
        let mut scored = scored.into_iter().map(|mut group| group.pop().unwrap_or_default());
        for (job, n) in waiting[first..].iter_mut().zip(&counts) {
            let of_job: Vec<Vec<f32>> = scored.by_ref().take(*n).collect();
            if let Some(job) = job.take() {
                job.answer(Ok(Done { found: Found::Scores(of_job), model: model.clone() }));
            }
        }
        first += counts.len();
    }
    Ok(())
}

/// Answers each job as soon as its last completion has ended.
struct Answering<'a> {
    queue: &'a Queue,
    model: &'a Arc<Loaded>,
    /// The job of each request.
    jobs: &'a [usize],
    /// The first request of each job.
    firsts: Vec<usize>,
    /// By job: `[request][sample]`.
    found: Vec<Vec<Vec<Option<Completion>>>>,
    /// By job: completions that have not ended.
    missing: Vec<usize>,
    waiting: &'a mut [Option<Job>],
}

impl<'a> Answering<'a> {
    fn new(
        queue: &'a Queue,
        model: &'a Arc<Loaded>,
        jobs: &'a [usize],
        requests: &[GenerationRequest],
        waiting: &'a mut [Option<Job>],
    ) -> Self {
        let n_jobs = waiting.len();
        let (mut found, mut missing) = (vec![Vec::new(); n_jobs], vec![0; n_jobs]);
        let mut firsts = vec![usize::MAX; n_jobs];
        for (at, (&job, request)) in jobs.iter().zip(requests).enumerate() {
            firsts[job] = firsts[job].min(at);
            found[job].push(vec![None; request.n]);
            missing[job] += request.n;
        }
        Self { queue, model, jobs, firsts, found, missing, waiting }
    }
}

impl Answering<'_> {
    /// Answers with what has ended; the rest was aborted.
    fn answer_as_it_is(self) {
        for (job, found) in self.waiting.iter_mut().zip(self.found) {
            if let Some(job) = job.take() {
                job.answer(Ok(Done { found: Found::Completions(found), model: self.model.clone() }));
            }
        }
    }
}

impl Receiver for Answering<'_> {
    fn receive(&mut self, request: usize, sample: usize, completion: Completion) {
        let job = self.jobs[request];
        self.found[job][request - self.firsts[job]][sample] = Some(completion);
        self.missing[job] -= 1;
        if self.missing[job] == 0
            && let Some(waiting) = self.waiting[job].take()
        {
            let found = Found::Completions(std::mem::take(&mut self.found[job]));
            waiting.answer(Ok(Done { found, model: self.model.clone() }));
        }
    }

    fn progress(&mut self, _progress: GenerationProgress) {
        // Nobody is there to read what it would come to.
        if self.waiting.iter().flatten().all(Job::is_abandoned) {
            self.queue.ends_call().store(true, std::sync::atomic::Ordering::SeqCst);
        }
    }
}
