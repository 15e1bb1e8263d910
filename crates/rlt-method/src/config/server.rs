//! `[server]`, `[teacher_server]` and `[student_server]`: models that another program serves.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::validate::require;
use super::{Config, KlEstimator, RewardKind};
use crate::error::{Error, Result};

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

/// Most requests under way at one address: each has a thread.
const MOST_IN_FLIGHT: usize = 4096;

/// Most addresses.
const MOST_URLS: usize = 256;

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

    /// Refuses what is no address, what a file must not hold, and numbers out of range. `table` names it.
    pub(super) fn check(&self, table: &str) -> Result<()> {
        require(self.urls.len() <= MOST_URLS, &format!("{table}.urls"), self.urls.len(), "256 at most")?;
        for (key, url) in std::iter::once(("url", &self.url)).chain(self.urls.iter().map(|url| ("urls", url)))
        {
            check_address(&format!("{table}.{key}"), url, key == "url")?;
        }
        // What was put there may be the key itself: it is not repeated.
        if !is_variable(&self.key_env) {
            return Err(Error::Usage(format!(
                "{table}.key_env must be the name of an environment variable (capital letters, digits, _), which holds the \
                 key; the key itself stands in no file"
            )));
        }
        let range = format!("between 1 and {MOST_IN_FLIGHT}");
        let key = format!("{table}.in_flight");
        require((1..=MOST_IN_FLIGHT).contains(&self.in_flight), &key, self.in_flight, &range)?;
        let key = format!("{table}.timeout_s");
        let holds = (0.01..=1e6).contains(&self.timeout_s);
        require(holds, &key, self.timeout_s, "between 0.01 and 1000000.0")?;
        let key = format!("{table}.retries");
        require(self.retries <= 1000, &key, self.retries, "at most 1000")?;
        let key = format!("{table}.tolerance");
        require((1e-6..=10.0).contains(&self.tolerance), &key, self.tolerance, "between 1e-6 and 10.0")
    }
}

/// An address without what people copy along: a final slash, `/v1`.
fn address(url: &str) -> String {
    let url = url.trim().trim_end_matches('/');
    url.strip_suffix("/v1").unwrap_or(url).trim_end_matches('/').to_owned()
}

fn check_address(key: &str, url: &str, may_be_empty: bool) -> Result<()> {
    let refuse = |what: &str| Err(Error::Usage(format!("{key} {what}")));
    if url.is_empty() {
        return if may_be_empty { Ok(()) } else { refuse("holds an empty address; leave it out") };
    }
    let rest = url.trim().strip_prefix("http://").or_else(|| url.trim().strip_prefix("https://"));
    let host = rest.map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
    if url.contains('@') {
        return refuse(
            "holds a user name or a password; no file keeps one: give the address without, and the key by an environment \
             variable that key_env names",
        );
    }
    let is_plain = |c: char| c.is_ascii_graphic() && !"<>\"'\\^`{|}?#".contains(c);
    match host {
        Some(host) if !host.is_empty() && !host.starts_with(':') && url.trim().chars().all(is_plain) => {
            Ok(())
        }
        _ => refuse(&format!("is {url:?}; it must be an address like http://127.0.0.1:8000")),
    }
}

fn is_variable(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    name.len() <= 100 && name.chars().all(plain) && !name.starts_with(|c: char| c.is_ascii_digit())
}

impl Config {
    /// Who serves the model that writes and is trained, with the name of the table; none where it is computed here.
    pub fn server_of_teacher(&self) -> Option<(&'static str, &ServerConfig)> {
        [("teacher_server", &self.teacher_server), ("server", &self.server)]
            .into_iter()
            .find(|(_, server)| server.is_set())
    }

    /// Who serves the reward's student: `[student_server]`, which nothing else stands for.
    pub fn server_of_student(&self) -> Option<(&'static str, &ServerConfig)> {
        self.student_server.is_set().then_some(("student_server", &self.student_server))
    }

    /// Refuses what models that are served cannot be asked for: whole distributions, and log-probabilities of given tokens
    /// at another temperature than 1. `teacher` and `student` say which of the reward's models are.
    ///
    /// # Errors
    /// [`Error::Usage`] with the key and what works.
    pub fn check_scored_by_servers(&self, teacher: bool, student: bool) -> Result<()> {
        let reward = &self.reward;
        if (teacher || student) && reward.kl == KlEstimator::Full && reward.kind == RewardKind::Rlt {
            return Err(Error::Usage(
                "reward.kl is \"full\": it needs the hidden states of both models, and a server gives log-probabilities only; \
                 choose another reward.kl, or let both be computed here"
                    .into(),
            ));
        }
        for (key, temperature, is_served) in [
            ("reward.teacher_temperature", reward.teacher_temperature, teacher),
            ("reward.student_temperature", reward.student_temperature, student),
        ] {
            if is_served && temperature != 1.0 {
                return Err(Error::Usage(format!(
                    "{key} is {temperature}, and servers give log-probabilities of given tokens at temperature 1 only, whatever \
                     they are asked; set {key}=1, or let the model be computed here"
                )));
            }
        }
        Ok(())
    }

    pub(super) fn check_servers(&self) -> Result<()> {
        self.server.check("server")?;
        self.teacher_server.check("teacher_server")?;
        self.student_server.check("student_server")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(overrides: &[&str]) -> Result<Config> {
        Config::load(None, &overrides.iter().map(|&o| o.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn addresses_are_read_and_what_is_none_is_refused() {
        let config = load(&["server.url=http://127.0.0.1:8000/v1/"]).unwrap();
        assert_eq!(config.server.addresses(), ["http://127.0.0.1:8000"]);
        assert_eq!(config.server_of_teacher().unwrap().0, "server");
        let config =
            load(&["server.url=http://a:1", "teacher_server.urls=[\"http://b:1\", \"https://c/x\"]"])
                .unwrap();
        let (table, teacher) = config.server_of_teacher().unwrap();
        assert_eq!(
            (table, teacher.addresses()),
            ("teacher_server", vec!["http://b:1".into(), "https://c/x".into()])
        );
        assert!(load(&[]).unwrap().server_of_teacher().is_none());
        for url in ["ftp://a", "127.0.0.1:8000", "http://", "http://:80", "http://a b", "http://a?key=1"] {
            let message = load(&[&format!("server.url={url}")]).unwrap_err().to_string();
            assert!(message.starts_with("server.url is "), "{url}: {message}");
        }
        assert!(load(&["student_server.urls=[\"\"]"]).is_err());
    }

    #[test]
    fn no_key_gets_into_a_configuration_or_a_message() {
        for (argument, key) in [
            ("server.url=http://me:s3cret@host:1", "server.url"),
            ("student_server.urls=[\"https://s3cret@host\"]", "student_server.urls"),
            ("server.key_env=sk-s3cret", "server.key_env"),
            ("server.key_env=hf_s3cret", "server.key_env"),
        ] {
            let message = load(&[argument]).unwrap_err().to_string();
            assert!(message.starts_with(key) && !message.contains("s3cret"), "{message}");
        }
        assert_eq!(load(&["server.key_env=VLLM_API_KEY"]).unwrap().server.key_env, "VLLM_API_KEY");
    }

    #[test]
    fn what_servers_cannot_score_is_refused_with_what_works() {
        let refusal = |overrides: &[&str], teacher, student| {
            load(overrides).unwrap().check_scored_by_servers(teacher, student).unwrap_err().to_string()
        };
        let message = refusal(&[], true, false);
        assert!(
            message.starts_with("reward.teacher_temperature is 0.7") && message.contains("temperature=1"),
            "{message}"
        );
        let message = refusal(&["reward.teacher_temperature=1"], true, true);
        assert!(message.starts_with("reward.student_temperature is 0.7"), "{message}");
        let message = refusal(&["reward.kl=full", "reward.student_temperature=1"], false, true);
        assert!(
            message.starts_with("reward.kl is \"full\"") && message.contains("hidden states"),
            "{message}"
        );
        let at_one = load(&["reward.teacher_temperature=1", "reward.student_temperature=1"]).unwrap();
        at_one.check_scored_by_servers(true, true).unwrap();
        load(&[]).unwrap().check_scored_by_servers(false, false).unwrap();
    }

    #[test]
    fn numbers_are_bounded() {
        for argument in [
            "server.in_flight=0",
            "server.timeout_s=0",
            "student_server.retries=100000",
            "server.tolerance=nan",
        ] {
            let key = argument.split('=').next().unwrap();
            let message = load(&[argument]).unwrap_err().to_string();
            assert!(message.starts_with(&format!("{key} is ")), "{argument}: {message}");
        }
    }
}
