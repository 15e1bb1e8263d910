//! Places in a stream's work that other streams wait for.

use cudarc::driver::{result, sys};

use crate::gpu::Gpu;

/// A place in the work of whichever stream it was marked in last.
pub(crate) struct Event {
    gpu: Gpu,
    event: sys::CUevent,
}

// SAFETY: an event may be used from any thread that has its context current, which its users see to.
unsafe impl Send for Event {}
// SAFETY: as above; the driver changes it, and nothing of it is here.
unsafe impl Sync for Event {}

impl Event {
    /// One that nobody waits for until it is marked. The context must be current.
    pub(crate) fn new(gpu: &Gpu) -> Self {
        let event = result::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING);
        Self { gpu: gpu.clone(), event: gpu.expect("making an event", event) }
    }

    /// Stands for what `stream` was asked for so far.
    pub(crate) fn mark(&self, stream: sys::CUstream) {
        // SAFETY: both are of the GPU, and live.
        self.gpu.expect("marking a stream", unsafe { result::event::record(self.event, stream) });
    }

    /// Lets what `stream` is asked for next wait for it; the host does not.
    pub(crate) fn is_awaited_by(&self, stream: sys::CUstream) {
        let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
        // SAFETY: as above.
        let waits = unsafe { result::stream::wait_event(stream, self.event, flags) };
        self.gpu.expect("waiting for a stream", waits);
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: nobody uses it any more; the driver keeps what waits for it. An error would be an earlier call's.
        let _ = unsafe { result::event::destroy(self.event) };
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::process::Command;

    /// Runs `test` of this program in processes of its own, which find `inside` in the environment and print what they computed
    /// after "bits ": as `expected`, whether the streams named by a digit each in `lateness` do their work at once or as late as
    /// they may; but not if one of `waits` (as `1<0`: stream 1 for stream 0) is left out, which each is needed for.
    pub(crate) fn waits_are_needed(
        test: &str,
        (inside, value): (&str, &str),
        expected: &str,
        lateness: &[&str],
        waits: &[&str],
    ) {
        let computed = |late: &str, without: &str| {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["--exact", "--nocapture", test]).env(inside, value);
            let output = command.env("EMU_LATE", late).env("EMU_WITHOUT_WAIT", without).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let text = String::from_utf8(output.stdout).unwrap();
            text.lines().find_map(|line| Some(line.split_once("bits ")?.1.to_owned())).unwrap()
        };
        for late in lateness {
            assert_eq!(computed(late, ""), expected, "late: {late}");
        }
        for without in waits {
            let is_noticed = lateness.iter().any(|late| computed(late, without) != expected);
            assert!(is_noticed, "nobody notices that {without} is not waited for");
        }
    }
}
