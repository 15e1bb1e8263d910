//! Places in a stream's work that other streams wait for.

use cudarc::driver::{result, sys};

use crate::gpu::Gpu;

/// A place in the work of whichever stream it was marked in last.
pub(crate) struct Event<'a> {
    gpu: &'a Gpu,
    event: sys::CUevent,
}

impl<'a> Event<'a> {
    /// One that nobody waits for until it is marked. The context must be current.
    pub(crate) fn new(gpu: &'a Gpu) -> Self {
        let event = result::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING);
        Self { gpu, event: gpu.expect("making an event", event) }
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

impl Drop for Event<'_> {
    fn drop(&mut self) {
        // SAFETY: nobody uses it any more; the driver keeps what waits for it. An error would be an earlier call's.
        let _ = unsafe { result::event::destroy(self.event) };
    }
}
