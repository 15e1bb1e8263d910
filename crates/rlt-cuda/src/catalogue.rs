//! The kernels of this crate: their PTX, and what each takes.

use std::collections::HashMap;
use std::ffi::CString;
use std::path::Path;

use cudarc::driver::{result, sys};

use crate::error::describe;

/// Files of kernels, as PTX (`kernels/build.py` makes it of the `.cu` file of the same name).
const FILES: [(&str, &str); 15] = [
    ("attention", include_str!("../kernels/attention.ptx")),
    ("attention_backward", include_str!("../kernels/attention_backward.ptx")),
    ("attention_bf16", include_str!("../kernels/attention_bf16.ptx")),
    ("attention_bf16_backward", include_str!("../kernels/attention_bf16_backward.ptx")),
    ("columns", include_str!("../kernels/columns.ptx")),
    ("elements", include_str!("../kernels/elements.ptx")),
    ("gated", include_str!("../kernels/gated.ptx")),
    ("halves", include_str!("../kernels/halves.ptx")),
    ("head", include_str!("../kernels/head.ptx")),
    ("heads", include_str!("../kernels/heads.ptx")),
    ("kv", include_str!("../kernels/kv.ptx")),
    ("norm", include_str!("../kernels/norm.ptx")),
    ("optimizer", include_str!("../kernels/optimizer.ptx")),
    ("rows", include_str!("../kernels/rows.ptx")),
    ("sample", include_str!("../kernels/sample.ptx")),
];

/// Names a folder of these kernels compiled for one architecture (`kernels/build.py --cubin`), instead of what the driver makes
/// of the PTX.
const COMPILED: &str = "RLT_CUDA_KERNELS";

/// The file of a folder that has kernels compiled: of this version of them, since what they take must be what is given.
fn compiled(file: &str, ptx: &str) -> String {
    // FNV-1a, as `build.py` has it.
    let of = |number: u64, byte: u8| (number ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    format!("{file}-{:016x}.cubin", ptx.bytes().fold(0xcbf2_9ce4_8422_2325, of))
}

/// The kernels of such a file. The context must be current.
fn compiled_module(path: &Path) -> Result<sys::CUmodule, String> {
    let again = format!("make it again by crates/rlt-cuda/kernels/build.py --cubin, or unset {COMPILED}");
    let refused = |why: String| format!("{}: {why}; {again}", path.display());
    if !path.is_file() {
        return Err(refused("there are no kernels of this version".into()));
    }
    let name = path.as_os_str().as_encoded_bytes();
    let name = CString::new(name).map_err(|_| refused("no file has such a name".into()))?;
    result::module::load(name).map_err(|e| refused(describe(e)))
}

/// What a kernel takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An address, or a count of 64 bits.
    Wide,
    Int,
    Float,
}

pub(crate) struct Kernel {
    pub function: sys::CUfunction,
    pub takes: Vec<Kind>,
}

/// All kernels by name.
pub(crate) struct Kernels(HashMap<&'static str, Kernel>);

/// Names of the kernels in PTX, with what they take.
fn entries(ptx: &'static str) -> impl Iterator<Item = (&'static str, Vec<Kind>)> {
    ptx.split(".visible .entry ").skip(1).map(|entry| {
        let (name, rest) = entry.split_once('(').expect("a list of parameters");
        let (list, _) = rest.split_once(')').expect("its end");
        let kinds = list.split(".param ").skip(1).map(|parameter| match &parameter[..4] {
            ".u64" => Kind::Wide,
            ".u32" => Kind::Int,
            ".f32" => Kind::Float,
            other => unreachable!("a kernel takes {other}"),
        });
        (name, kinds.collect())
    })
}

impl Kernels {
    /// Hands all of them to the driver. The context must be current.
    ///
    /// # Errors
    /// What the driver reports.
    pub(crate) fn load() -> Result<Self, String> {
        let mut kernels = HashMap::new();
        let folder = std::env::var_os(COMPILED);
        for (file, ptx) in FILES {
            let failed = |e| format!("the kernels of {file} are refused: {}", describe(e));
            // The module is kept for as long as the process lives.
            let module = if let Some(folder) = &folder {
                compiled_module(&Path::new(folder).join(compiled(file, ptx)))?
            } else {
                let image = CString::new(ptx).expect("PTX is text");
                // SAFETY: text that ends with a zero.
                unsafe { result::module::load_data(image.as_ptr().cast()) }.map_err(failed)?
            };
            for (name, takes) in entries(ptx) {
                let symbol = CString::new(name).expect("names are text");
                // SAFETY: the module that was loaded.
                let function = unsafe { result::module::get_function(module, symbol) }.map_err(failed)?;
                kernels.insert(name, Kernel { function, takes });
            }
        }
        Ok(Self(kernels))
    }

    /// A kernel by its name.
    ///
    /// # Panics
    /// If there is none.
    pub(crate) fn get(&self, name: &str) -> &Kernel {
        self.0.get(name).unwrap_or_else(|| panic!("no kernel {name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kernels_take_is_read_off_their_ptx() {
        let all: HashMap<_, _> = FILES.iter().flat_map(|(_, ptx)| entries(ptx)).collect();
        assert_eq!(all["fill"], [Kind::Wide, Kind::Wide, Kind::Float]);
        assert_eq!(all["gather_rows"], [Kind::Wide, Kind::Wide, Kind::Wide, Kind::Int]);
        assert!(all.len() > 30, "{} kernels", all.len());
    }

    /// Set in the processes of the test below.
    const INSIDE: &str = "RLT_TEST_COMPILED";

    #[test]
    #[expect(clippy::print_stdout, reason = "a skipped test says so, and processes say what they saw")]
    fn kernels_may_come_compiled() {
        if let Err(why) = rlt_cuda_emulator::load() {
            println!("skipped: {why}");
            return;
        }
        if std::env::var_os(INSIDE).is_some() {
            match crate::Gpu::open(0) {
                Ok(gpu) => println!("it has {:?}", gpu.upload(&[1.5_f32; 3]).copy().to_host::<f32>()),
                Err(e) => println!("it says {e}"),
            }
            return;
        }
        let folder = std::env::temp_dir().join(format!("rlt-kernels-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        for (file, ptx) in FILES {
            std::fs::write(folder.join(compiled(file, ptx)), b"\x7fELF").unwrap();
        }
        let said = || {
            let mut command = std::process::Command::new(std::env::current_exe().unwrap());
            command.args(["--exact", "--nocapture", "catalogue::tests::kernels_may_come_compiled"]);
            let output = command.env(INSIDE, "").env(COMPILED, &folder).output().unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            text.lines().find_map(|line| Some(line.split_once("it ")?.1.to_owned())).unwrap()
        };
        assert_eq!(said(), "has [1.5, 1.5, 1.5]");
        let (file, ptx) = FILES[10];
        let one = folder.join(compiled(file, ptx));
        std::fs::write(&one, b"something else").unwrap();
        let refused = said();
        assert!(refused.contains(&*one.to_string_lossy()) && refused.contains("--cubin"), "{refused}");
        std::fs::remove_file(&one).unwrap();
        let missing = said();
        assert!(missing.contains("no kernels of this version"), "{missing}");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
