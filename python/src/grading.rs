//! `rlt.grade`.

use pyo3::prelude::*;
use rlt_grade::{ThoughtRule, grade_choice, grade_math};

use crate::errors::PyUsageError;

/// (correct, extracted, reason, formatted) of a prediction against a gold answer.
#[pyfunction]
pub fn grade(
    py: Python<'_>,
    gold: &str,
    prediction: &str,
    grader: &str,
    remove_thought: bool,
) -> PyResult<(bool, Option<String>, String, bool)> {
    let thought = if remove_thought { ThoughtRule::Remove } else { ThoughtRule::Keep };
    let verdict = py.detach(|| match grader {
        "math" => Some(grade_math(prediction, gold, thought)),
        "choice" => Some(grade_choice(prediction, gold, thought)),
        _ => None,
    });
    let verdict = verdict.ok_or_else(|| {
        PyUsageError::new_err(format!("grader is {grader:?}; it must be \"math\" or \"choice\""))
    })?;
    Ok((verdict.correct, verdict.extracted, verdict.reason, verdict.formatted))
}
