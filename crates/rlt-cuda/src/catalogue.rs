//! The kernels of this crate: their PTX, and what each takes.

use std::collections::HashMap;
use std::ffi::CString;

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
        for (file, ptx) in FILES {
            let failed = |e| format!("the kernels of {file} are refused: {}", describe(e));
            let image = CString::new(ptx).expect("PTX is text");
            // SAFETY: text that ends with a zero. The module is kept for as long as the process lives.
            let module = unsafe { result::module::load_data(image.as_ptr().cast()) }.map_err(failed)?;
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
}
