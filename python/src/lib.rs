//! The native half of the Python package `rlt`. Rows and results cross the border as JSON text; `rlt/*.py` makes Python of
//! it. Long work lets go of the interpreter and looks now and then whether it was interrupted.

mod errors;
mod grading;
mod rendering;
mod scoring;
mod telling;

use pyo3::prelude::*;

/// The native half of `rlt`.
#[pymodule]
fn _rlt(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("Error", module.py().get_type::<errors::PyError>())?;
    module.add("UsageError", module.py().get_type::<errors::PyUsageError>())?;
    module.add_class::<rendering::Renderer>()?;
    module.add_class::<scoring::Scorer>()?;
    module.add_function(wrap_pyfunction!(grading::grade, module)?)?;
    Ok(())
}
