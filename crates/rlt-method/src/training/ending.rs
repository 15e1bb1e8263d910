//! What ends a text that a trained model writes: `generation_config.json` of everything that training saves.

use std::path::Path;

use rlt_files::{MOST_DESCRIPTION, write_atomic};
use rlt_model::Decoder;
use rlt_model::adapter_folder::base_folder;
use rlt_model::config::ModelConfig;
use serde_json::{Map, Value};

use crate::error::{Error, Result, io_error};

const GENERATION_CONFIG: &str = "generation_config.json";

/// Keys of `config.json` that transformers takes where a folder has no `generation_config.json`.
const FROM_CONFIG: [&str; 2] = ["bos_token_id", "pad_token_id"];

/// The tokens that end a text, and the generation settings they stand among: the base model's, whatever they are
/// (temperature, top_p, pad and bos ids ..).
#[derive(Debug, Clone, PartialEq)]
pub struct Ending {
    eos_token_ids: Vec<u32>,
    settings: Map<String, Value>,
}

impl Ending {
    /// Of a model that began as the one in the folder `base`: its own end-of-text tokens, and before them the end of the
    /// turn where training taught one and they lack it.
    ///
    /// # Errors
    /// The base's files cannot be read.
    pub fn of(base: &Path, turn_end: Option<u32>) -> Result<Self> {
        let base = base_folder(base)?;
        let mut eos_token_ids = ModelConfig::from_dir(&base)?.eos_token_ids;
        if let Some(id) = turn_end.filter(|id| !eos_token_ids.contains(id)) {
            eos_token_ids.insert(0, id);
        }
        let settings = if let Some(settings) = read_object(&base.join(GENERATION_CONFIG))? {
            settings
        } else {
            let mut config = read_object(&base.join("config.json"))?.unwrap_or_default();
            config.retain(|key, value| FROM_CONFIG.contains(&key.as_str()) && !value.is_null());
            config
        };
        Ok(Self { eos_token_ids, settings })
    }

    /// The model with these tokens in its configuration.
    pub(super) fn given_to(&self, decoder: Decoder) -> Decoder {
        decoder.ending_with(self.eos_token_ids.clone())
    }

    /// Writes `generation_config.json` into a model's or an adapter's folder.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, folder: &Path) -> Result<()> {
        let mut settings = self.settings.clone();
        if !self.eos_token_ids.is_empty() {
            settings.insert("eos_token_id".into(), self.eos_token_ids.clone().into());
        }
        let json = serde_json::to_vec_pretty(&settings)
            .map_err(|e| Error::Failed(format!("{GENERATION_CONFIG} cannot be written: {e}")))?;
        Ok(write_atomic(&folder.join(GENERATION_CONFIG), &json)?)
    }
}

/// The JSON object in a file that need not exist.
fn read_object(path: &Path) -> Result<Option<Map<String, Value>>> {
    match rlt_files::read_bytes(path, MOST_DESCRIPTION) {
        Ok(json) => serde_json::from_slice(&json)
            .map(Some)
            .map_err(|e| Error::File { path: path.to_owned(), what: format!("is not a JSON object: {e}") }),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(io_error(path)(e)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;
    use crate::training::run::tests::tiny_config;

    /// The settings that a model saves whose base has these.
    fn saved(of_base: Option<&Value>, turn_end: Option<u32>) -> Value {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(GENERATION_CONFIG);
        let mut config = tiny_config();
        (config["eos_token_id"], config["bos_token_id"], config["pad_token_id"]) =
            (7.into(), 5.into(), Value::Null);
        fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
        if let Some(json) = of_base {
            fs::write(&path, json.to_string()).unwrap();
        }
        let out = tempfile::tempdir().unwrap();
        Ending::of(dir.path(), turn_end).unwrap().save(out.path()).unwrap();
        serde_json::from_slice(&fs::read(out.path().join(GENERATION_CONFIG)).unwrap()).unwrap()
    }

    #[test]
    fn the_turns_end_comes_before_the_base_s_tokens_and_everything_else_stays() {
        let base = json!({"bos_token_id": 3, "pad_token_id": 4, "do_sample": true, "temperature": 0.6,
            "top_p": 0.95, "eos_token_id": 8, "transformers_version": "4.37.0"});
        let mut expected = base.clone();
        expected["eos_token_id"] = json!([9, 8]);
        assert_eq!(saved(Some(&base), Some(9)), expected);
        // A base that ends its turns already keeps its order.
        let chat = json!({"eos_token_id": [8, 9], "top_k": 20});
        assert_eq!(saved(Some(&chat), Some(9)), chat);
        // Nothing was taught.
        expected["eos_token_id"] = json!([8]);
        assert_eq!(saved(Some(&base), None), expected);
        // What the file lacks, or where there is none, comes from config.json.
        assert_eq!(
            saved(Some(&json!({"top_p": 0.5})), Some(9)),
            json!({"top_p": 0.5, "eos_token_id": [9, 7]})
        );
        assert_eq!(saved(None, Some(9)), json!({"bos_token_id": 5, "eos_token_id": [9, 7]}));
    }
}
