//! A GPU that is open: its context, its stream, its memory and what runs on it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cudarc::cublaslt;
use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys;

use crate::catalogue::Kernels;
use crate::error::{Error, describe};
use crate::failure::Failure;
use crate::plans::Products;
use crate::pool::{Block, Pool, Usage};

/// What the driver must at least be: the first that reads PTX 8.4.
const OLDEST_DRIVER: i32 = 12_040;

/// A GPU; clones are the same one.
#[derive(Clone)]
pub struct Gpu(Arc<Open>);

struct Open {
    ordinal: usize,
    name: String,
    context: sys::CUcontext,
    stream: sys::CUstream,
    /// Of copies to the GPU, and of those to the host, beside its work.
    copies: [sys::CUstream; 2],
    kernels: Kernels,
    products: Mutex<Products>,
    pool: Mutex<Pool>,
}

// SAFETY: contexts, streams, functions and cuBLASLt's handles may be used from any thread that has the context current, which
// every call sees to.
unsafe impl Send for Open {}
// SAFETY: as above; what is changed stands behind mutexes.
unsafe impl Sync for Open {}

impl Gpu {
    /// Opens GPU `ordinal`, from 0; the same one for all who ask, so that there is one order to all that happens on it.
    ///
    /// # Errors
    /// There is none, its driver is too old, or cuBLASLt is missing.
    pub fn open(ordinal: usize) -> Result<Self, Error> {
        static OPENED: Mutex<BTreeMap<usize, Gpu>> = Mutex::new(BTreeMap::new());
        let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(gpu) = opened.get(&ordinal) {
            return Ok(gpu.clone());
        }
        let gpu = Self::open_anew(ordinal)?;
        opened.insert(ordinal, gpu.clone());
        Ok(gpu)
    }

    /// How many GPUs the driver finds.
    ///
    /// # Errors
    /// There is no driver, or it is too old.
    pub fn count() -> Result<usize, Error> {
        Self::count_for(0)
    }

    /// As [`Self::count`], for whoever asks for GPU `ordinal`.
    fn count_for(ordinal: usize) -> Result<usize, Error> {
        // SAFETY: looks for a library. Asked first because the first call without one would panic.
        if !unsafe { sys::is_culib_present() } {
            return Err(Error::NoDriver);
        }
        let failed = |e: DriverError| Error::Failed(ordinal, describe(e));
        result::init().map_err(failed)?;
        let mut version = 0;
        // SAFETY: writes the version where it is told to.
        unsafe { sys::cuDriverGetVersion(&raw mut version) }.result().map_err(failed)?;
        if version < OLDEST_DRIVER {
            return Err(Error::OldDriver(version / 1000, version % 1000 / 10));
        }
        Ok(result::device::get_count().map_err(failed)? as usize)
    }

    fn open_anew(ordinal: usize) -> Result<Self, Error> {
        let found = Self::count_for(ordinal)?;
        let failed = |e: DriverError| Error::Failed(ordinal, describe(e));
        if ordinal >= found {
            return Err(Error::NoSuchGpu { asked: ordinal, found });
        }
        let device = result::device::get(ordinal as i32).map_err(failed)?;
        let name = result::device::get_name(device).map_err(failed)?;
        let attribute = |which| {
            // SAFETY: a device that the driver gave.
            unsafe { result::device::get_attribute(device, which) }.map_err(failed)
        };
        let major = attribute(sys::CUdevice_attribute_enum::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = attribute(sys::CUdevice_attribute_enum::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        if major < 8 {
            return Err(Error::OldGpu(ordinal, name, major, minor));
        }
        // SAFETY: looks for a library.
        if !unsafe { cublaslt::sys::is_culib_present() } {
            return Err(Error::NoProducts);
        }
        // SAFETY: a device that the driver gave; its context is held for as long as the process lives.
        let context = unsafe { result::primary_ctx::retain(device) }.map_err(failed)?;
        // SAFETY: the context is retained.
        unsafe { result::ctx::set_current(context) }.map_err(failed)?;
        let new_stream = || result::stream::create(result::stream::StreamKind::NonBlocking).map_err(failed);
        let (stream, copies) = (new_stream()?, [new_stream()?, new_stream()?]);
        let kernels = Kernels::load().map_err(|e| Error::Failed(ordinal, e))?;
        let products = Products::new().map_err(|e| Error::Failed(ordinal, e))?;
        let (products, pool) = (Mutex::new(products), Mutex::new(Pool::default()));
        Ok(Self(Arc::new(Open { ordinal, name, context, stream, copies, kernels, products, pool })))
    }

    /// Its number.
    pub fn ordinal(&self) -> usize {
        self.0.ordinal
    }

    /// What the driver calls it.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Bytes of its memory in all, where the driver tells.
    pub fn memory_bytes(&self) -> Option<u64> {
        self.make_current();
        result::mem_get_info().ok().map(|(_, all)| all as u64)
    }

    /// Bytes of its memory that are held.
    pub fn usage(&self) -> Usage {
        self.pool().usage
    }

    /// The most bytes that were held since the last call.
    pub fn take_peak(&self) -> u64 {
        self.pool().usage.take_peak()
    }

    /// Returns recycled memory to the driver.
    pub fn release_memory(&self) {
        self.make_current();
        self.wait();
        self.pool().release_all();
    }

    /// Waits for everything that was asked for.
    pub fn wait(&self) {
        self.make_current();
        // SAFETY: the stream lives as long as the GPU is open.
        self.expect("its work", unsafe { result::stream::synchronize(self.0.stream) });
    }

    /// Makes the calls that this thread makes next be this GPU's.
    pub(crate) fn make_current(&self) {
        // SAFETY: the context is retained for as long as the process lives.
        self.expect("its context", unsafe { result::ctx::set_current(self.0.context) });
    }

    pub(crate) fn stream(&self) -> sys::CUstream {
        self.0.stream
    }

    pub(crate) fn copies(&self) -> [sys::CUstream; 2] {
        self.0.copies
    }

    pub(crate) fn kernels(&self) -> &Kernels {
        &self.0.kernels
    }

    pub(crate) fn products(&self) -> MutexGuard<'_, Products> {
        self.0.products.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn pool(&self) -> MutexGuard<'_, Pool> {
        self.0.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the driver gave, which it must.
    ///
    /// # Panics
    /// If it reports an error.
    pub(crate) fn expect<T>(&self, what: &str, result: Result<T, DriverError>) -> T {
        result.unwrap_or_else(|e| Failure::of(self.called(), what, e).end())
    }

    /// A block of memory. The context must be current.
    ///
    /// # Panics
    /// With a [`Failure`] if there is no more.
    pub(crate) fn block(&self, bytes: usize) -> Block {
        let taken = self.pool().take(bytes);
        taken.unwrap_or_else(|e| {
            if e.0 != sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY {
                Failure::of(self.called(), "asking for memory", e).end()
            }
            let all = result::mem_get_info().ok().map(|(free, all)| (free as u64, all as u64));
            let (asked, in_use) = (bytes as u64, self.usage().in_use);
            Failure::Memory { gpu: self.called(), asked, in_use, all }.end()
        })
    }

    /// Number and name.
    pub(crate) fn called(&self) -> String {
        format!("GPU {} ({})", self.0.ordinal, self.0.name)
    }
}

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gpu({}, {})", self.0.ordinal, self.0.name)
    }
}
