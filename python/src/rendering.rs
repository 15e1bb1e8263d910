//! `rlt.render`.

use std::path::PathBuf;

use pyo3::prelude::*;
use rlt::Error;
use rlt_model::chat_template::ChatTemplate;
use rlt_model::tokenizer::Tokenizer;
use serde_json::{Map, Value};

use crate::errors::{not_json, raised};

/// A model's tokenizer and chat template.
#[pyclass(frozen)]
pub struct Renderer {
    tokenizer: Tokenizer,
    template: ChatTemplate,
}

#[pymethods]
impl Renderer {
    /// Those of a model folder.
    #[new]
    fn new(py: Python<'_>, model: PathBuf) -> PyResult<Self> {
        py.detach(|| -> Result<Self, Error> {
            let (tokenizer, template) = (Tokenizer::from_dir(&model)?, ChatTemplate::from_dir(&model)?);
            Ok(Self { tokenizer, template })
        })
        .map_err(raised)
    }

    /// Text and ids of messages, which are JSON as are the template's other variables.
    fn render(
        &self,
        py: Python<'_>,
        messages: &str,
        add_generation_prompt: bool,
        variables: &str,
    ) -> PyResult<(String, Vec<u32>)> {
        let messages: Value = serde_json::from_str(messages).map_err(not_json("messages"))?;
        let variables: Map<String, Value> = serde_json::from_str(variables).map_err(not_json("variables"))?;
        py.detach(|| -> Result<_, Error> {
            let text = self.template.render_json(&messages, add_generation_prompt, &variables)?;
            let ids = self.tokenizer.encode(&text)?;
            Ok((text, ids))
        })
        .map_err(raised)
    }
}
