//! Which models are served, and what cannot be asked of them.

use super::rollout::RolloutConfig;
use super::server::ServerConfig;
use super::validate::require;
use super::{Config, KlEstimator, RewardKind, SamplingConfig};
use crate::error::{Error, Result};

/// Most requests under way at one address: each has a thread.
const MOST_IN_FLIGHT: usize = 4096;

/// Most addresses.
const MOST_URLS: usize = 256;

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

    /// Refuses what a policy that servers draw from cannot be trained with.
    ///
    /// # Errors
    /// [`Error::Usage`] with the key and the reason.
    pub fn check_served_training(&self) -> Result<()> {
        if self.server_of_student().is_some() && self.reward.kind == RewardKind::Pedagogical {
            return Err(Error::Usage(
                "reward.kind is \"pedagogical\": it asks the student for the most likely token's log-probability beside that of the \
                 given one, and servers give the latter only; leave student_server out, so that the student is computed here"
                    .into(),
            ));
        }
        self.check_scored_by_servers(
            false,
            self.server_of_student().is_some() && self.reward.kind.asks_student(),
        )?;
        let Some((table, _)) = self.server_of_teacher() else {
            let range = "0 where no server draws: the own engine draws by the very weights that are trained";
            return require(
                self.rollout.steps_ahead == 0,
                "rollout.steps_ahead",
                self.rollout.steps_ahead,
                range,
            );
        };
        let SamplingConfig { top_k, top_p, min_p, repetition_penalty, .. } = self.sampling;
        for (key, is_set) in [
            ("sampling.top_k", top_k > 0),
            ("sampling.top_p", top_p != 1.0),
            ("sampling.min_p", min_p > 0.0),
            ("sampling.repetition_penalty", repetition_penalty != 1.0),
        ] {
            if is_set {
                return Err(Error::Usage(format!(
                    "{key} does not go with {table} in training: a server gives log-probabilities of what is left of the \
                     distribution, which would bias every ratio; leave it out"
                )));
            }
        }
        Ok(())
    }

    pub(super) fn check_servers(&self) -> Result<()> {
        check_server("server", &self.server)?;
        check_server("teacher_server", &self.teacher_server)?;
        check_server("student_server", &self.student_server)?;
        check_rollout(&self.rollout)
    }
}

fn check_rollout(rollout: &RolloutConfig) -> Result<()> {
    let between = |key: &str, value: f32, low: f32, high: f32| {
        let range = format!("between {low:?} and {high:?}");
        require((low..=high).contains(&value), key, value, &range)
    };
    between("rollout.cap", rollout.cap, 1.0, 1e6)?;
    between("rollout.mask_low", rollout.mask_low, 0.0, 1.0)?;
    between("rollout.mask_high", rollout.mask_high, 1.0, 1e6)?;
    between("rollout.band", rollout.band, 1e-6, 1.0)?;
    require(rollout.steps_ahead <= 1, "rollout.steps_ahead", rollout.steps_ahead, "0 or 1")
}

/// Refuses what is no address, what a file must not hold, and numbers out of range. `table` names it.
fn check_server(table: &str, server: &ServerConfig) -> Result<()> {
    require(server.urls.len() <= MOST_URLS, &format!("{table}.urls"), server.urls.len(), "256 at most")?;
    for (key, url) in std::iter::once(("url", &server.url)).chain(server.urls.iter().map(|url| ("urls", url)))
    {
        check_address(&format!("{table}.{key}"), url, key == "url")?;
    }
    // What was put there may be the key itself: it is not repeated.
    if !is_variable(&server.key_env) {
        return Err(Error::Usage(format!(
            "{table}.key_env must be the name of an environment variable (capital letters, digits, _), which holds the \
             key; the key itself stands in no file"
        )));
    }
    let range = format!("between 1 and {MOST_IN_FLIGHT}");
    let key = format!("{table}.in_flight");
    require((1..=MOST_IN_FLIGHT).contains(&server.in_flight), &key, server.in_flight, &range)?;
    let key = format!("{table}.timeout_s");
    let holds = (0.01..=1e6).contains(&server.timeout_s);
    require(holds, &key, server.timeout_s, "between 0.01 and 1000000.0")?;
    let key = format!("{table}.retries");
    require(server.retries <= 1000, &key, server.retries, "at most 1000")?;
    let key = format!("{table}.tolerance");
    require((1e-6..=10.0).contains(&server.tolerance), &key, server.tolerance, "between 1e-6 and 10.0")
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
    fn what_would_bias_ratios_is_refused_while_training() {
        let url = "server.url=http://127.0.0.1:1";
        for argument in [
            "sampling.top_k=5",
            "sampling.top_p=0.9",
            "sampling.min_p=0.1",
            "sampling.repetition_penalty=1.1",
        ] {
            let key = argument.split('=').next().unwrap();
            let message = load(&[url, argument]).unwrap().check_served_training().unwrap_err().to_string();
            assert!(message.starts_with(key) && message.contains("bias every ratio"), "{message}");
            load(&[argument]).unwrap().check_served_training().unwrap();
        }
        load(&[url, "rollout.steps_ahead=1"]).unwrap().check_served_training().unwrap();
        let message =
            load(&["rollout.steps_ahead=1"]).unwrap().check_served_training().unwrap_err().to_string();
        assert!(
            message.starts_with("rollout.steps_ahead is 1; it must be 0 where no server draws"),
            "{message}"
        );
        let student = "student_server.url=http://127.0.0.1:1";
        assert!(load(&[student]).unwrap().check_served_training().is_err(), "at 0.7");
        load(&[student, "reward.student_temperature=1"]).unwrap().check_served_training().unwrap();
        let message = load(&[student, "reward.kind=pedagogical"])
            .unwrap()
            .check_served_training()
            .unwrap_err()
            .to_string();
        assert!(
            message.starts_with("reward.kind is \"pedagogical\"")
                && message.contains("leave student_server out"),
            "{message}"
        );
        load(&[url, "reward.kind=pedagogical"]).unwrap().check_served_training().unwrap();
    }

    #[test]
    fn numbers_are_bounded() {
        for argument in [
            "server.in_flight=0",
            "server.timeout_s=0",
            "student_server.retries=100000",
            "server.tolerance=nan",
            "rollout.cap=0.5",
            "rollout.mask_low=2",
            "rollout.mask_high=0.5",
            "rollout.steps_ahead=2",
        ] {
            let key = argument.split('=').next().unwrap();
            let message = load(&[argument]).unwrap_err().to_string();
            assert!(message.starts_with(&format!("{key} is ")), "{argument}: {message}");
        }
    }
}
