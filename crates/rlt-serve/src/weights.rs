//! The weights that are served, and how they are exchanged while the server runs.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rlt_model::Decoder;

use crate::refusal::Refusal;

/// Longest label of a version, bytes.
const MAX_LABEL_BYTES: usize = 256;

/// A model in memory. Work that has begun with it ends with it, whatever is loaded meanwhile.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub decoder: Decoder,
    /// How many times weights were loaded before it.
    pub n_reloads: u64,
}

/// The weights, the folder that others may come from, and the label that clients give them.
pub(crate) struct Weights {
    current: RwLock<Arc<Loaded>>,
    /// Where the current ones came from, and one reload at a time.
    folder: Mutex<PathBuf>,
    /// Resolved: links do not lead out of it.
    allowed: Option<PathBuf>,
    label: Mutex<String>,
}

impl Weights {
    /// `decoder`, loaded from `folder`; `allowed` is the resolved folder below which others may lie.
    pub fn new(decoder: Decoder, folder: PathBuf, allowed: Option<PathBuf>) -> Self {
        let current = RwLock::new(Arc::new(Loaded { decoder, n_reloads: 0 }));
        Self { current, folder: Mutex::new(folder), allowed, label: Mutex::new("default".into()) }
    }

    /// Those that new work is done with.
    pub fn current(&self) -> Arc<Loaded> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The label, as a client set it; the server gives it no meaning.
    pub fn label(&self) -> String {
        self.label.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sets the label.
    ///
    /// # Errors
    /// It is too long.
    pub fn set_label(&self, label: String) -> Result<(), Refusal> {
        if label.len() > MAX_LABEL_BYTES {
            return Err(Refusal::field("new_version", format!("at most {MAX_LABEL_BYTES} bytes")));
        }
        *self.label.lock().unwrap_or_else(PoisonError::into_inner) = label;
        Ok(())
    }

    /// Loads the weights of `path`, or once more those of the folder that the current ones came from. Where that fails
    /// the current ones stay.
    ///
    /// # Errors
    /// The folder is not allowed, holds no whole model, or one of another shape.
    pub fn reload(&self, path: Option<&str>) -> Result<(), Refusal> {
        let mut folder = self.folder.lock().unwrap_or_else(PoisonError::into_inner);
        let from = match path {
            Some(path) => self.allowed_folder(path)?,
            None => folder.clone(),
        };
        let before = self.current();
        let failed = |error: &dyn std::fmt::Display| {
            Refusal::wrong(format!("{error}; the weights are the ones from before"))
        };
        let device = before.decoder.device();
        let decoder = Decoder::load_frozen_on(device, &from).map_err(|error| failed(&error))?;
        let decoder = decoder.in_arithmetic(before.decoder.arithmetic());
        let shape = |decoder: &Decoder| {
            let config = decoder.config();
            [config.vocab_size, config.hidden_size, config.n_layers, config.context()]
        };
        let (old, new) = (shape(&before.decoder), shape(&decoder));
        if old != new {
            return Err(failed(&format!(
                "{} holds another model: vocabulary, width, layers and context are {new:?}, not {old:?}",
                from.display()
            )));
        }
        let loaded = Arc::new(Loaded { decoder, n_reloads: before.n_reloads + 1 });
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = loaded;
        *folder = from;
        Ok(())
    }

    /// `path` resolved, if it is a folder below the allowed one. What lies elsewhere is not even said to exist.
    fn allowed_folder(&self, path: &str) -> Result<PathBuf, Refusal> {
        let Some(allowed) = &self.allowed else {
            let what = "no folder was allowed: start the server with --reload-dir DIR";
            return Err(Refusal::new(403, what));
        };
        let resolved = Path::new(path).canonicalize().ok();
        let inside = resolved.filter(|folder| folder.starts_with(allowed) && folder.is_dir());
        inside.ok_or_else(|| {
            let shown: String = path.chars().take(200).collect();
            let what = format!("weights_path {shown:?} is no folder below the one that --reload-dir allows");
            Refusal::new(403, format!("{what}; the weights are the ones from before"))
        })
    }
}
