//! `rlt import`: a GGUF file as a model folder.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use rlt::Result;
use rlt::import::{Imported, Options, import};
use rlt_model::weights::Dtype;
use serde_json::json;

use super::common::Context;
use super::interrupt::stop_flag;

/// Turn a GGUF file into a model folder in the Hugging Face layout
///
/// Quantised weights become ordinary numbers. The folder appears whole or not at all. docs/IMPORT.md says what is
/// read.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// The .gguf file: architecture llama, qwen2, qwen3 or gemma3
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The new model folder, which must not exist yet or must be empty
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The model's tokenizer.json, or a folder with it; without it, it is built from the file's own vocabulary
    #[arg(long, value_name = "PATH")]
    tokenizer: Option<PathBuf>,
    /// What the weights are stored as; f32 keeps every value exactly
    #[arg(long, value_enum, default_value_t = Stored::Bf16)]
    dtype: Stored,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Stored {
    /// Two bytes, the range of f32: rounds by up to 1 part in 256
    Bf16,
    /// Two bytes, up to 65504: rounds by up to 1 part in 2048
    F16,
    /// Four bytes
    F32,
}

impl ImportArgs {
    /// Imports and says what came of it.
    pub fn run(&self, context: &Context) -> Result<()> {
        let dtype = match self.dtype {
            Stored::Bf16 => Dtype::Bf16,
            Stored::F16 => Dtype::F16,
            Stored::F32 => Dtype::F32,
        };
        let options = Options {
            file: self.file.clone(),
            tokenizer: self.tokenizer.clone(),
            out: self.out.clone(),
            dtype,
        };
        let Imported { architecture, parameters, formats, own_tokenizer, chat_template } =
            import(&options, &context.progress, stop_flag())?;
        let list: Vec<String> = formats.iter().map(|(name, n)| format!("{n} x {name}")).collect();
        let tokenizer = if own_tokenizer { "built from the file" } else { "as given" };
        let template = if chat_template { "a" } else { "no" };
        context.answer(
            &format!(
                "imported a {architecture} model of {parameters} parameters ({}) to {} as {}; tokenizer {tokenizer}, \
                 {template} chat template",
                list.join(", "),
                self.out.display(),
                dtype.torch_name()
            ),
            &json!({
                "architecture": architecture,
                "parameters": parameters,
                "formats": formats.into_iter().map(|(name, n)| (name, n.into())).collect::<serde_json::Map<_, _>>(),
                "dtype": dtype.torch_name(),
                "own_tokenizer": own_tokenizer,
                "chat_template": chat_template,
                "out": self.out,
            }),
        )
    }
}
