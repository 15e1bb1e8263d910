//! `[server]`, `[teacher_server]` and `[student_server]`: models that another program serves.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What answers at an address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ServerKind {
    /// It is asked.
    #[default]
    Auto,
    /// vLLM.
    Vllm,
    /// SGLang.
    Sglang,
    /// Whatever else answers `/v1/completions` with token ids.
    Openai,
    /// `rlt serve`.
    Rlt,
}

/// A server, or several that serve the same model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ServerConfig {
    /// Its address, `http://HOST:PORT`; empty where the model is computed here.
    pub url: String,
    /// Addresses of several: a request goes to the one that has least to do.
    pub urls: Vec<String>,
    /// The name under which it serves the model; empty for the only one.
    pub model: String,
    /// What it is.
    pub kind: ServerKind,
    /// The environment variable that holds its key; empty where it wants none.
    pub key_env: String,
    /// Requests under way at each address.
    pub in_flight: usize,
    /// A request that takes longer is asked again, seconds.
    pub timeout_s: f64,
    /// How often a request that failed in passing is asked again.
    pub retries: usize,
    /// How far its log-probability of a token of the probe may be from the own engine's, nats.
    pub tolerance: f32,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            url: String::new(),
            urls: Vec::new(),
            model: String::new(),
            kind: ServerKind::Auto,
            key_env: String::new(),
            in_flight: 64,
            timeout_s: 600.0,
            retries: 16,
            tolerance: 0.05,
        }
    }
}

impl ServerConfig {
    /// Its addresses; none where the model is computed here.
    pub fn addresses(&self) -> Vec<String> {
        let given = std::iter::once(&self.url).chain(&self.urls).filter(|url| !url.is_empty());
        given.map(|url| address(url)).collect()
    }

    /// Whether a server is asked at all.
    pub fn is_set(&self) -> bool {
        !self.url.is_empty() || !self.urls.is_empty()
    }
}

/// An address without what people copy along: a final slash, `/v1`.
fn address(url: &str) -> String {
    let url = url.trim().trim_end_matches('/');
    url.strip_suffix("/v1").unwrap_or(url).trim_end_matches('/').to_owned()
}
