//! What a request is told that is not done: a status and one line, in the JSON of the OpenAI interface.

use serde_json::{Value, json};

/// Why a request is not answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// What is wrong, and what works instead.
    pub message: String,
    /// The field of the request that is wrong, where it is one.
    pub param: Option<&'static str>,
}

impl Refusal {
    pub fn new(status: u16, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), param: None }
    }

    /// A request that is wrong: asking again would change nothing.
    pub fn wrong(message: impl Into<String>) -> Self {
        Self::new(400, message)
    }

    /// A wrong field.
    pub fn field(param: &'static str, message: impl Into<String>) -> Self {
        Self { param: Some(param), ..Self::wrong(format!("{param}: {}", message.into())) }
    }

    /// No room now: asking again later may work.
    pub fn busy(message: impl Into<String>) -> Self {
        Self::new(503, message)
    }

    /// The server is about to end.
    pub fn closing() -> Self {
        Self::busy("the server is shutting down")
    }

    /// `{"error": {..}}`.
    pub fn to_json(&self) -> Value {
        let kind = match self.status {
            401 => "AuthenticationError",
            403 => "PermissionDeniedError",
            404 => "NotFoundError",
            500 => "InternalServerError",
            503 => "ServiceUnavailableError",
            _ => "BadRequestError",
        };
        json!({ "error": { "message": self.message, "type": kind, "param": self.param, "code": self.status } })
    }
}
