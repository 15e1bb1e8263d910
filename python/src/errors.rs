//! Errors of the library as exceptions, with the line that the command line prints.

use pyo3::PyErr;
use pyo3::create_exception;
use pyo3::exceptions::PyException;
use rlt::Error;

create_exception!(rlt, PyError, PyException, "Work failed: what, where, and what to do next.");
create_exception!(rlt, PyUsageError, PyError, "The call was wrong, and nothing was started.");

/// The exception of an error.
pub fn raised(error: Error) -> PyErr {
    match error {
        Error::Usage(what) => PyUsageError::new_err(what),
        error => PyError::new_err(error.to_string()),
    }
}

/// The exception of JSON that is none.
pub fn not_json(what: &str) -> impl Fn(serde_json::Error) -> PyErr {
    move |error| PyUsageError::new_err(format!("{what}: {error}"))
}
