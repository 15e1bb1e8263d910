//! What can go wrong with a request, and whether asking again may help.

use std::time::Duration;

use serde_json::Value;

/// Why a request has not been answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// It may be over when it is asked again: a busy server, a broken connection, an answer that was cut.
    Passing {
        /// What happened.
        what: String,
        /// How long the server wants to be left alone.
        after: Option<Duration>,
    },
    /// It will be the same when it is asked again: another model, a request that the server refuses.
    Lasting(String),
}

impl Fault {
    /// Something passing without a wish of the server's.
    pub fn passing(what: impl Into<String>) -> Self {
        Self::Passing { what: what.into(), after: None }
    }

    /// What happened.
    pub fn what(&self) -> &str {
        match self {
            Self::Passing { what, .. } | Self::Lasting(what) => what,
        }
    }
}

/// Most characters of a server's own words that are told.
const MOST_WORDS: usize = 400;

/// What a server says in the body of a refusal, in one line: the message of its JSON, or its text. `secret` is never
/// repeated.
pub(super) fn own_words(body: &[u8], secret: Option<&str>) -> String {
    let text = String::from_utf8_lossy(body);
    let json: Option<Value> = serde_json::from_str(&text).ok();
    let said = json.as_ref().and_then(|json| {
        let places = [
            &json["error"]["message"],
            &json["error"],
            &json["message"],
            &json["detail"],
            &json["detail"][0]["msg"],
        ];
        places.into_iter().find_map(|place| place.as_str().map(str::to_owned))
    });
    let said = said.unwrap_or_else(|| text.into_owned());
    let line: String = said.split_whitespace().collect::<Vec<_>>().join(" ");
    let line = match secret {
        Some(secret) if !secret.is_empty() => line.replace(secret, "***"),
        _ => line,
    };
    match line.char_indices().nth(MOST_WORDS) {
        Some((end, _)) => format!("{} ..", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_words_are_one_bounded_line_without_the_key() {
        let words = |body: &str| own_words(body.as_bytes(), Some("s3cret"));
        assert_eq!(
            words(r#"{"error":{"message":"The model `x`\n does not exist."}}"#),
            "The model `x` does not exist."
        );
        assert_eq!(words(r#"{"detail":"Not Found"}"#), "Not Found");
        assert_eq!(words(r#"{"error":"bad key s3cret"}"#), "bad key ***");
        assert_eq!(words(r#"{"detail":[{"msg":"field required"}]}"#), "field required");
        assert_eq!(words("<html> busy </html>"), "<html> busy </html>");
        assert_eq!(words(&"ä".repeat(1000)).chars().count(), MOST_WORDS + 3);
    }
}
