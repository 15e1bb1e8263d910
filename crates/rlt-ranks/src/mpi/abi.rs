//! The dozen functions of MPI that are used, in the three binary interfaces that are installed anywhere: Open MPI's, that
//! of MPICH and its relatives (Intel MPI, Cray, MVAPICH), and the standard one of MPI 5.
//!
//! Loading beats linking here: one program runs with any of them and with none, and building it needs no MPI, no C compiler
//! and no libclang. The interfaces differ in what a handle is (an address in Open MPI, a number in the others) and in a few
//! constants. A handle is kept as a machine word: the numbers of MPICH are C `int`s, which the calling conventions of x86-64
//! and aarch64 pass in the low half of the same register; and of a request, which the library writes, the first bytes of a
//! zeroed word (both are little-endian).

use std::ffi::{c_char, c_int, c_void};
use std::fmt;

use crate::error::{Error, Result};

/// A communicator or a datatype.
type Handle = usize;

/// A message under way.
#[derive(Debug, Default)]
pub(super) struct Request(u64);

type InitThread = unsafe extern "C" fn(*mut c_int, *mut *mut *mut c_char, c_int, *mut c_int) -> c_int;
type Finalize = unsafe extern "C" fn() -> c_int;
type Number = unsafe extern "C" fn(Handle, *mut c_int) -> c_int;
type Send = unsafe extern "C" fn(*const c_void, c_int, Handle, c_int, c_int, Handle, *mut u64) -> c_int;
type Receive = unsafe extern "C" fn(*mut c_void, c_int, Handle, c_int, c_int, Handle, *mut u64) -> c_int;
type Test = unsafe extern "C" fn(*mut u64, *mut c_int, *mut [u64; STATUS_WORDS]) -> c_int;
type Abort = unsafe extern "C" fn(Handle, c_int) -> c_int;

/// Room for a status of any library: 20, 24 and 32 bytes in those that are known.
const STATUS_WORDS: usize = 16;

/// Marks our messages.
const TAG: c_int = 1;

/// A loaded MPI library. It stays loaded until the process ends.
pub(super) struct Library {
    name: String,
    world: Handle,
    byte: Handle,
    /// `MPI_THREAD_SERIALIZED`.
    serialized: c_int,
    init_thread: InitThread,
    finalize: Finalize,
    rank: Number,
    size: Number,
    send: Send,
    receive: Receive,
    test: Test,
    abort: Abort,
}

impl fmt::Debug for Library {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_tuple("Library").field(&self.name).finish()
    }
}

/// The libraries to try, for the launcher that the environment speaks of.
pub(crate) fn library_names(variable: &impl Fn(&str) -> Option<String>) -> Vec<String> {
    let open = ["libmpi.so.40", "libmpi.so.80", "libmpi.40.dylib", "libmpi.dylib"];
    let mpich = ["libmpi_abi.so.1", "libmpi_abi.so.0", "libmpi.so.12", "libmpich.so.12", "libmpi.12.dylib"];
    let (first, second) = if variable("OMPI_COMM_WORLD_SIZE").is_some() {
        (&open[..], &mpich[..])
    } else {
        (&mpich[..], &open[..])
    };
    first.iter().chain(second).chain(&["libmpi.so"]).map(ToString::to_string).collect()
}

impl Library {
    /// Loads the first of `names` that is there.
    ///
    /// # Errors
    /// [`Error::Launch`] where none can be loaded, or it is not MPI.
    pub fn open(names: &[String]) -> Result<Self> {
        if cfg!(all(target_env = "musl", target_feature = "crt-static")) {
            let what = "the job was started by an MPI launcher, and this is the static program, which can load no MPI library; \
                        start the ranks by RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, or use the program of the wheel";
            return Err(Error::Launch(what.into()));
        }
        let mut refusals = Vec::new();
        for name in names {
            match open_globally(name) {
                Ok(library) => return Self::of(name, library),
                Err(error) => refusals.push(format!("{name}: {error}")),
            }
        }
        let why = refusals.into_iter().next().unwrap_or_else(|| "no name is known on this system".into());
        let what = format!(
            "the job was started by an MPI launcher, and its MPI library cannot be loaded ({why}); set RLT_MPI_LIBRARY to \
             its path, or start the ranks by RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT"
        );
        Err(Error::Launch(what))
    }

    fn of(name: &str, library: libloading::Library) -> Result<Self> {
        // Never unloaded: an MPI library has threads and handlers of its own.
        let library: &'static libloading::Library = Box::leak(Box::new(library));
        let missing = |symbol: &str| {
            Error::Launch(format!("{name} is not an MPI library that is known here: it has no {symbol}"))
        };
        /// The function or object of that name.
        fn find<T: Copy>(library: &'static libloading::Library, symbol: &str) -> Option<T> {
            // SAFETY: the types are those of the MPI standard, as far as they are called below.
            unsafe { library.get::<T>(symbol.as_bytes()) }.ok().map(|found| *found)
        }
        // Open MPI's handles are addresses of objects that it exports.
        let object = |symbol: &str| find::<*const c_void>(library, symbol).map(|at| at as Handle);
        let (world, byte, serialized) = match (object("ompi_mpi_comm_world"), object("ompi_mpi_byte")) {
            (Some(world), Some(byte)) => (world, byte, 2),
            _ if name.contains("mpi_abi") => (0x101, 0x247, 2048),
            _ => (0x4400_0000, 0x4c00_010d, 2),
        };
        macro_rules! function {
            ($symbol:literal) => {
                find(library, $symbol).ok_or_else(|| missing($symbol))?
            };
        }
        Ok(Self {
            name: name.into(),
            world,
            byte,
            serialized,
            init_thread: function!("MPI_Init_thread"),
            finalize: function!("MPI_Finalize"),
            rank: function!("MPI_Comm_rank"),
            size: function!("MPI_Comm_size"),
            send: function!("MPI_Isend"),
            receive: function!("MPI_Irecv"),
            test: function!("MPI_Test"),
            abort: function!("MPI_Abort"),
        })
    }

    /// Starts MPI for a program whose threads call it one at a time.
    ///
    /// # Errors
    /// [`Error::Launch`] where it refuses.
    pub fn init(&self) -> Result<()> {
        let mut provided = 0;
        // SAFETY: MPI allows no arguments, and writes one number.
        let code = unsafe {
            (self.init_thread)(std::ptr::null_mut(), std::ptr::null_mut(), self.serialized, &raw mut provided)
        };
        self.check(code, "MPI_Init_thread")?;
        if provided < self.serialized {
            let what = format!("{}: it cannot be called from more than the first thread", self.name);
            return Err(Error::Launch(what));
        }
        Ok(())
    }

    /// This process's place.
    ///
    /// # Errors
    /// [`Error::Launch`] where the library refuses.
    pub fn rank(&self) -> Result<usize> {
        self.number(self.rank, "MPI_Comm_rank")
    }

    /// How many there are.
    ///
    /// # Errors
    /// [`Error::Launch`] where the library refuses.
    pub fn size(&self) -> Result<usize> {
        self.number(self.size, "MPI_Comm_size")
    }

    fn number(&self, function: Number, name: &str) -> Result<usize> {
        let mut number = 0;
        // SAFETY: writes one number.
        let code = unsafe { function(self.world, &raw mut number) };
        self.check(code, name)?;
        usize::try_from(number).map_err(|_| Error::Launch(format!("{}: {name} said {number}", self.name)))
    }

    fn check(&self, code: c_int, function: &str) -> Result<()> {
        if code == 0 {
            Ok(())
        } else {
            Err(Error::Launch(format!("{}: {function} failed with code {code}", self.name)))
        }
    }

    /// Starts to send. What goes wrong later ends the job: MPI's errors are fatal.
    ///
    /// # Safety
    /// `bytes` lives unchanged until the request is done.
    pub unsafe fn send(&self, to: usize, bytes: &[u8]) -> Request {
        let mut request = Request::default();
        // SAFETY: as this function's; the length fits, being cut by the caller.
        unsafe {
            (self.send)(
                bytes.as_ptr().cast(),
                bytes.len() as c_int,
                self.byte,
                to as c_int,
                TAG,
                self.world,
                &raw mut request.0,
            )
        };
        request
    }

    /// Starts to receive.
    ///
    /// # Safety
    /// `buffer` lives, and nobody else looks at it, until the request is done.
    pub unsafe fn receive(&self, from: usize, buffer: &mut [u8]) -> Request {
        let mut request = Request::default();
        // SAFETY: as this function's.
        unsafe {
            (self.receive)(
                buffer.as_mut_ptr().cast(),
                buffer.len() as c_int,
                self.byte,
                from as c_int,
                TAG,
                self.world,
                &raw mut request.0,
            )
        };
        request
    }

    /// Whether a message has gone or come; lets the library work on all of them.
    pub fn is_done(&self, request: &mut Request) -> bool {
        let (mut done, mut status) = (0, [0; STATUS_WORDS]);
        // SAFETY: the request is one of this library's, and the status is larger than any.
        unsafe { (self.test)(&raw mut request.0, &raw mut done, &raw mut status) };
        done != 0
    }

    /// Ends the processes of all ranks.
    pub fn abort(&self) {
        // SAFETY: no memory of ours is touched.
        unsafe { (self.abort)(self.world, 1) };
    }

    /// Leaves MPI in good order, which waits for all ranks.
    pub fn finalize(&self) {
        // SAFETY: no memory of ours is touched.
        unsafe { (self.finalize)() };
    }
}

/// Loads a library so that what it loads itself finds its symbols, as Open MPI's components need.
fn open_globally(name: &str) -> Result<libloading::Library, libloading::Error> {
    #[cfg(unix)]
    {
        use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
        // SAFETY: the user has the library that the job's launcher belongs to, and its initialisers run here.
        unsafe { Library::open(Some(name), RTLD_NOW | RTLD_GLOBAL) }.map(Into::into)
    }
    #[cfg(not(unix))]
    // SAFETY: as above.
    unsafe {
        libloading::Library::new(name)
    }
}
