//! What an input may cost, and what is kept of one that costs more.

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// The most memory of one input, bytes, beside what was taken before it.
const MOST_BYTES: usize = 1 << 30;

/// The longest that one may compute.
const LONGEST: Duration = Duration::from_secs(10);

/// The longest that one may take by the clock: a machine at work on other things is slow, but nothing waits for ever.
const LONGEST_WAIT: Duration = Duration::from_secs(90);

/// How many failures of a kind are kept: a fault shows in many inputs.
const MOST_KEPT: usize = 20;

static NOW: AtomicUsize = AtomicUsize::new(0);
static BEFORE: AtomicUsize = AtomicUsize::new(0);
static IS_OVER: AtomicBool = AtomicBool::new(false);

/// The system's allocator, counted. Who asks for too much waits for ever: the guard's thread has the last word.
pub struct Counting;

fn count(n: usize) {
    let now = NOW.fetch_add(n, Ordering::Relaxed) + n;
    if now > BEFORE.load(Ordering::Relaxed) + MOST_BYTES && !IS_OVER.swap(true, Ordering::SeqCst) {
        loop {
            thread::sleep(Duration::from_secs(1));
        }
    }
}

// SAFETY: every call goes to the system's allocator as it came; counting changes nothing of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promise about the layout is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: as for `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: memory of this allocator is the system's, and of this layout by the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size.saturating_sub(layout.size()));
        NOW.fetch_sub(layout.size().saturating_sub(size), Ordering::Relaxed);
        // SAFETY: as for `dealloc`; the new size is the caller's promise.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// An input on disk, and when its attempt began.
#[derive(Clone)]
struct Watched {
    input: PathBuf,
    since: Instant,
    /// Processor time of the process at that moment.
    computed: Duration,
}

impl Watched {
    fn is_too_long(&self) -> bool {
        processor_time().saturating_sub(self.computed) > LONGEST || self.since.elapsed() > LONGEST_WAIT
    }
}

/// How long this process has computed, on all its threads; zero where the system does not tell.
fn processor_time() -> Duration {
    /// Of a second: what Linux counts in.
    const TICKS: f64 = 100.0;
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Fields 14 and 15; the second, a name in brackets, may hold spaces.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace();
    let ticks: f64 = fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    Duration::from_secs_f64(ticks / TICKS)
}

/// Watches over one input at a time.
pub struct Guard {
    folder: PathBuf,
    watched: Arc<Mutex<Option<Watched>>>,
    failures: Mutex<Vec<String>>,
}

impl Guard {
    /// With a thread that ends the process when an input takes too long or too much.
    pub fn start(folder: PathBuf) -> Self {
        fs::create_dir_all(&folder).unwrap();
        let watched = Arc::<Mutex<Option<Watched>>>::default();
        let of_thread = watched.clone();
        thread::spawn(move || {
            loop {
                thread::sleep(Duration::from_millis(20));
                let current = of_thread.lock().unwrap().clone();
                let Some(watched) = current else { continue };
                let what = if IS_OVER.load(Ordering::SeqCst) {
                    "takes more than 1 GiB"
                } else if watched.is_too_long() {
                    "computes longer than 10 s, or waits longer than 90 s"
                } else {
                    continue;
                };
                let kept = watched.input.with_extension("kept");
                let _ = fs::rename(&watched.input, &kept);
                eprintln!("{}: {what}", kept.display());
                std::process::exit(101);
            }
        });
        Self { folder, watched, failures: Mutex::default() }
    }

    /// Lets `attempt` have its try at `input`, which is on disk while it lasts.
    pub fn attempt(&self, target: &str, input: &[u8], attempt: impl FnOnce()) {
        let current = self.folder.join(format!("{target}.{}.current", std::process::id()));
        fs::write(&current, input).unwrap();
        BEFORE.store(NOW.load(Ordering::Relaxed), Ordering::Relaxed);
        let watched = Watched { input: current.clone(), since: Instant::now(), computed: processor_time() };
        *self.watched.lock().unwrap() = Some(watched);
        let outcome = catch_unwind(AssertUnwindSafe(attempt));
        *self.watched.lock().unwrap() = None;
        if outcome.is_err() {
            let mut failures = self.failures.lock().unwrap();
            let kept = self.folder.join(format!("{target}.{}-{}.panic", std::process::id(), failures.len()));
            fs::rename(&current, &kept).unwrap();
            failures.push(format!("{}: panics", kept.display()));
            assert!(failures.len() < MOST_KEPT, "{}", failures.join("\n"));
        } else {
            fs::remove_file(&current).unwrap();
        }
    }

    /// A line for each input that failed.
    pub fn failures(&self) -> Vec<String> {
        self.failures.lock().unwrap().clone()
    }
}
