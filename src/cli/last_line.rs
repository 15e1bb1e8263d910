//! The one line that a process leaves which cannot go on: no memory, a GPU that failed, or a fault of its own.
//!
//! Whatever thread it happens on, the process ends there and then, with exit code 1. To unwind instead would need
//! memory, and locks that other threads wait for. What a run has saved is whole at every moment, as after a kill.

use std::alloc::{GlobalAlloc, Layout, System};
use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rlt_engine::device::GpuFailure;

/// Exit code of work that failed.
const EXIT_FAILED: i32 = 1;

/// The system's allocator, but for what happens when it has nothing left to give: one line and exit code 1, where the
/// standard library would abort. It serves this program only; who uses the library keeps their own.
pub struct Allocator;

// SAFETY: every call is the system allocator's own; no null is returned, which is allowed.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        given(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        given(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        given(unsafe { System.realloc(memory, layout, size) }, size)
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[inline]
fn given(memory: *mut u8, bytes: usize) -> *mut u8 {
    if memory.is_null() {
        end_without_memory(bytes)
    }
    memory
}

#[cold]
fn end_without_memory(bytes: usize) -> ! {
    let mut line = Line::of_this_rank();
    line.push(b"error: memory ran out: the system refused ");
    line.push_number(bytes);
    line.push(
        b" more bytes; give it more (ulimit -v), or ask for less (`rlt plan` shows what a run needs: smaller \
          tokens_per_microbatch, sampling.max_running, --threads)",
    );
    end(&mut line)
}

/// Whether the process goes on after a fault.
static OUTLIVES: AtomicBool = AtomicBool::new(false);

/// From here on a panic is a line, and ends the work that it happened in, but not the process: for a command that catches
/// it and has others to serve.
pub fn outlive_faults() {
    OUTLIVES.store(true, Ordering::SeqCst);
}

/// Makes every panic one line and exit code 1, on whatever thread it happens.
pub fn install() {
    std::panic::set_hook(Box::new(|panic| {
        // A library's fault over a stranger's file becomes an error about that file.
        if rlt_model::guarded::is_guarded() {
            return;
        }
        // A GPU that failed does nothing for others either.
        if let Some(failure) = GpuFailure::of_this_panic() {
            end(&mut line_of_failure(&failure));
        }
        let mut line = line_of_panic(panic);
        if OUTLIVES.load(Ordering::SeqCst) {
            write(line.finished());
        } else {
            end(&mut line);
        }
    }));
}

fn line_of_failure(failure: &GpuFailure) -> Line {
    let mut line = Line::of_this_rank();
    line.push(b"error: ");
    line.push_text(&failure.to_string(), MESSAGE_BYTES);
    line.push(what_next(failure));
    line
}

fn line_of_panic(panic: &PanicHookInfo) -> Line {
    let mut line = Line::of_this_rank();
    let payload = panic.payload();
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let message = text.unwrap_or("a panic without a message");
    // What the standard library says where a thread cannot be started: a limit, not a fault.
    if message.starts_with("failed to spawn thread") {
        line.push(b"error: the system refused another thread; raise its limit (ulimit -u, ulimit -v), or ask for less (--threads)");
        return line;
    }
    line.push(b"error: a fault in rlt itself: ");
    line.push_text(message, MESSAGE_BYTES);
    if let Some(place) = panic.location() {
        line.push(b" (");
        line.push_text(place.file(), MESSAGE_BYTES);
        line.push(b":");
        line.push_number(place.line() as usize);
        line.push(b")");
    }
    line.push(b"; please report it with the command that led here (");
    line.push(env!("CARGO_PKG_REPOSITORY").as_bytes());
    line.push(b"/issues)");
    line
}

/// What helps against a GPU's failure.
fn what_next(failure: &GpuFailure) -> &'static [u8] {
    match failure {
        GpuFailure::Memory { .. } => {
            b"; ask for less (smaller tokens_per_microbatch or sampling.max_running, memory.recompute=blocks, \
              memory.offload, memory.idle=release, lora.rank; `rlt plan --device cuda` shows what a run needs) and start the same command \
              again: what was saved is whole"
        }
        GpuFailure::Host { .. } => {
            b"; keep less there (memory.offload; optimizer.moments=bf16 halves the moments) or free some, and start the same \
              command again: what was saved is whole"
        }
        GpuFailure::Work { .. } => {
            b"; start the same command again: what was saved is whole; if it happens again, `nvidia-smi` and the system's log \
              (Xid) say what ails the GPU"
        }
    }
}

/// Most bytes of a message that is passed on.
const MESSAGE_BYTES: usize = 400;

/// A line that is put together without memory of its own.
struct Line {
    bytes: [u8; 1400],
    used: usize,
}

impl Line {
    fn new() -> Self {
        Self { bytes: [0; 1400], used: 0 }
    }

    /// Begun with the rank's place, where there are several.
    fn of_this_rank() -> Self {
        let mut line = Self::new();
        let thread = std::thread::current();
        // Ranks that are threads are called so.
        let place = super::ranks::place().or_else(|| thread.name().filter(|name| name.starts_with("rank ")));
        if let Some(place) = place {
            line.push_text(place, MESSAGE_BYTES);
            line.push(b": ");
        }
        line
    }

    fn push(&mut self, bytes: &[u8]) {
        let room = &mut self.bytes[self.used..];
        let n = bytes.len().min(room.len());
        room[..n].copy_from_slice(&bytes[..n]);
        self.used += n;
    }

    /// At most `most` bytes of a text, in which anything that would end the line or steer a terminal is a space.
    fn push_text(&mut self, text: &str, most: usize) {
        for (at, c) in text.char_indices() {
            if at + c.len_utf8() > most {
                return self.push(b" ..");
            }
            let mut utf8 = [0; 4];
            self.push(if c.is_control() { b" " } else { c.encode_utf8(&mut utf8).as_bytes() });
        }
    }

    /// The line with its end, for which the newest byte gives way where it is full.
    fn finished(&mut self) -> &[u8] {
        self.used = self.used.min(self.bytes.len() - 1);
        self.push(b"\n");
        &self.bytes[..self.used]
    }

    fn push_number(&mut self, mut number: usize) {
        let mut digits = [0; 20];
        let mut first = digits.len();
        loop {
            first -= 1;
            digits[first] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                break;
            }
        }
        self.push(&digits[first..]);
    }
}

/// Without the standard library's streams, whose locks another thread may hold.
#[cfg(unix)]
fn write(line: &[u8]) {
    // SAFETY: the bytes are readable; a closed standard error is nobody's concern any more.
    let _ = unsafe { libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), line.len()) };
}

#[cfg(not(unix))]
fn write(line: &[u8]) {
    use std::io::Write;
    drop(std::io::stderr().write_all(line));
}

/// Writes the line and ends the process. Only the first thread that comes here does: the others are about to end with it.
fn end(line: &mut Line) -> ! {
    static ENDING: AtomicBool = AtomicBool::new(false);
    while ENDING.swap(true, Ordering::SeqCst) {
        std::thread::sleep(Duration::from_secs(1));
    }
    write_and_exit(line.finished())
}

/// Without what is to be done at exit.
fn write_and_exit(line: &[u8]) -> ! {
    write(line);
    super::ranks::last_word();
    #[cfg(unix)]
    // SAFETY: it takes a number, and runs nothing of ours.
    unsafe {
        libc::_exit(EXIT_FAILED)
    }
    #[cfg(not(unix))]
    std::process::exit(EXIT_FAILED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_put_together_and_cut() {
        let mut line = Line::new();
        line.push(b"refused ");
        line.push_number(usize::MAX);
        line.push(b", ");
        line.push_number(0);
        line.push_text(", a\nb\x1b[31m\u{e9}\u{e9}", 12);
        assert_eq!(
            std::str::from_utf8(&line.bytes[..line.used]).unwrap(),
            format!("refused {}, 0, a b [31m\u{e9} ..", usize::MAX)
        );
        line.push(&[b'x'; 3000]);
        assert_eq!(line.used, line.bytes.len());
    }
}
