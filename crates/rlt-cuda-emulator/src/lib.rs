//! For tests: a libcuda and a libcublasLt that need no GPU. The kernels of `rlt-cuda` are compiled by g++ and run on the
//! processor, every thread of a block a fiber; the host's code is the very one that runs on a GPU, and does not notice.
//!
//! It finds what a reader does not see: accesses beyond memory (they end the process), numbers that nobody wrote (they are
//! not numbers), and, in its checked build, accesses of two threads that no barrier parts. It says nothing about speed.
//!
//! What the libraries read of the environment:
//! - `EMU_ORDER`: the order in which threads run; 0 as they are numbered, 1 in reverse, from 2 on shuffled;
//! - `EMU_RACES`: in the checked build, races end the process with code 71;
//! - `EMU_PLACES`: a file to which each barrier that is met is written, and `EMU_WITHOUT`: one of these that is passed over;
//! - `EMU_LATE`: digits of the streams (as they were made, from 0) that do their work no sooner than somebody waits for it, and
//!   `EMU_WITHOUT_WAIT`: as `1<0`, that stream 1 does not wait for events of stream 0;
//! - `EMU_GPUS`: how many GPUs there are, which share one memory; without it one;
//! - `EMU_MEMORY`: bytes of memory that there are; without it 8 GiB; `EMU_HOST_MEMORY`: the most of the host's that is given at once;
//! - `EMU_LAUNCHES`: launches that go well: the next one fails, which shows at the call after it, and at all that follow;
//! - `EMU_DRIVER_VERSION`: what the driver says it is.

use std::ffi::{CString, c_char, c_int, c_void};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::SystemTime;

/// How the kernels are compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Build {
    /// To be quick.
    Plain,
    /// Every access is looked at.
    Checked,
}

/// The libraries, by the names under which they are looked for first.
const LIBRARIES: [&str; 2] = ["libcuda.so", "libcublasLt.so"];

/// The folder with the libraries, built where they are not yet: for the `LD_LIBRARY_PATH` of a process.
///
/// # Errors
/// Why there is none here: no g++, or another type of processor.
pub fn libraries(build: Build) -> Result<PathBuf, String> {
    if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        return Err("the emulated GPU is made for x86-64 Linux".into());
    }
    if Command::new("g++").arg("--version").stdout(Stdio::null()).status().is_err() {
        return Err("the emulated GPU needs g++".into());
    }
    made(build).map_err(|e| format!("the emulated GPU cannot be built: {e}"))
}

/// Lets this process find the libraries.
///
/// # Errors
/// As [`libraries`].
pub fn load() -> Result<(), String> {
    static LOADED: OnceLock<Result<(), String>> = OnceLock::new();
    let load = || {
        let folder = libraries(Build::Plain)?;
        LIBRARIES.iter().try_for_each(|name| open(&folder.join(name)))
    };
    LOADED.get_or_init(load).clone()
}

unsafe extern "C" {
    fn dlopen(path: *const c_char, flags: c_int) -> *mut c_void;
}

/// Opens a library for good. Whoever asks for its name afterwards finds it: it is the name that it says it has.
fn open(path: &Path) -> Result<(), String> {
    const NOW: c_int = 2;
    let text = CString::new(path.as_os_str().as_encoded_bytes()).map_err(|e| e.to_string())?;
    // SAFETY: a path that ends with a zero; what the library does when it is opened is to register its kernels.
    let library = unsafe { dlopen(text.as_ptr(), NOW) };
    if library.is_null() { Err(format!("{} cannot be opened", path.display())) } else { Ok(()) }
}

/// Builds what is older than its sources. One process at a time.
fn made(build: Build) -> std::io::Result<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (cpp, kernels) = (own.join("cpp"), own.join("../rlt-cuda/kernels").canonicalize()?);
    let tests = std::env::current_exe()?;
    let target = tests.ancestors().nth(2).unwrap_or(own);
    let folder = target.join("cuda-emulator").join(format!("{build:?}").to_lowercase());
    fs::create_dir_all(&folder)?;
    let lock = File::create(folder.join("lock"))?;
    lock.lock()?;
    let headers = newest(&[&cpp, &kernels], &["h", "cuh"])?;
    let mut objects = Vec::new();
    for name in ["emulator", "streams", "driver"] {
        objects.push(compiled(&cpp.join(name).with_extension("cpp"), headers, &cpp, &folder, Build::Plain)?);
    }
    for source in files(&kernels, &["cu"])? {
        let name = source.file_stem().unwrap_or_default().to_owned();
        let listed = folder.join(&name).with_extension("cpp");
        let names = entries(&source.with_extension("ptx"))?;
        let added = names.join(")\nEMU_KERNEL(");
        let text = format!("#define RLT_EMULATOR\n#include \"{}\"\nEMU_KERNEL({added})\n", source.display());
        let changed = changed(&source)?.max(changed(&source.with_extension("ptx"))?).max(headers);
        if !is_newer(&listed, changed) {
            fs::write(&listed, text)?;
        }
        objects.push(compiled(&listed, changed, &cpp, &folder, build)?);
    }
    linked(&objects, &folder.join(LIBRARIES[0]))?;
    let products = compiled(&cpp.join("cublaslt.cpp"), headers, &cpp, &folder, Build::Plain)?;
    linked(&[products], &folder.join(LIBRARIES[1]))?;
    Ok(folder)
}

/// The object of a source, made where it is not newer than what it is made of.
fn compiled(
    source: &Path,
    others: SystemTime,
    include: &Path,
    folder: &Path,
    build: Build,
) -> std::io::Result<PathBuf> {
    let object = folder.join(source.file_stem().unwrap_or_default()).with_extension("o");
    if is_newer(&object, changed(source)?.max(others)) {
        return Ok(object);
    }
    let mut command = Command::new("g++");
    // One rounding an operation, as the kernels have it where they do not ask for fewer.
    command.args(["-std=c++17", "-O2", "-march=native", "-ffp-contract=off", "-fPIC", "-w", "-c"]);
    if build == Build::Checked {
        command.arg("-fsanitize=thread");
    }
    run(command.arg("-I").arg(include).arg("-o").arg(&object).arg(source))?;
    Ok(object)
}

fn linked(objects: &[PathBuf], library: &Path) -> std::io::Result<()> {
    let mut newest = SystemTime::UNIX_EPOCH;
    for object in objects {
        newest = newest.max(changed(object)?);
    }
    if is_newer(library, newest) {
        return Ok(());
    }
    let name = library.file_name().unwrap_or_default().to_string_lossy();
    // Under another name until it is whole.
    let part = library.with_extension("part");
    run(Command::new("g++")
        .args(["-shared", "-o"])
        .arg(&part)
        .arg(format!("-Wl,-soname,{name}"))
        .args(objects)
        .arg("-ldl"))?;
    fs::rename(part, library)
}

fn run(command: &mut Command) -> std::io::Result<()> {
    let done = command.output()?;
    if done.status.success() {
        return Ok(());
    }
    Err(std::io::Error::other(String::from_utf8_lossy(&done.stderr).into_owned()))
}

/// Names of the kernels in a file of PTX.
fn entries(ptx: &Path) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for line in BufReader::new(File::open(ptx)?).lines() {
        if let Some(rest) = line?.strip_prefix(".visible .entry ") {
            names.push(rest.trim_end_matches('(').to_owned());
        }
    }
    Ok(names)
}

/// Files of a folder by their endings, in order.
fn files(folder: &Path, endings: &[&str]) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| endings.iter().any(|one| ending == *one)) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// When the newest of some folders' files was changed.
fn newest(folders: &[&Path], endings: &[&str]) -> std::io::Result<SystemTime> {
    let mut newest = SystemTime::UNIX_EPOCH;
    for folder in folders {
        for file in files(folder, endings)? {
            newest = newest.max(changed(&file)?);
        }
    }
    Ok(newest)
}

fn changed(path: &Path) -> std::io::Result<SystemTime> {
    fs::metadata(path)?.modified()
}

fn is_newer(path: &Path, than: SystemTime) -> bool {
    changed(path).is_ok_and(|time| time > than)
}
