//! The date and time that a template tells.

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use jiff::Timestamp;
use jiff::civil::DateTime;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// What a template's `strftime_now` tells: a date and a time of day, without a zone (as Python's `datetime.now()`). Work
/// that goes on another day keeps the one it began with, so that its prompts stay the same. Written as
/// `2026-11-28T15:52:15`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TemplateTime(DateTime);

impl TemplateTime {
    /// The local time now, to the second.
    pub fn now() -> Self {
        let now = jiff::Zoned::now().datetime();
        Self(now.with().subsec_nanosecond(0).build().unwrap_or(now))
    }

    /// The local time when this process first asked: the same for every model that a command reads.
    pub fn of_this_process() -> Self {
        static FIRST: LazyLock<TemplateTime> = LazyLock::new(TemplateTime::now);
        *FIRST
    }

    /// `unix_seconds` in UTC.
    ///
    /// # Errors
    /// They are outside the years -9999 to 9999.
    pub fn from_unix_seconds(unix_seconds: i64) -> Result<Self> {
        let time = Timestamp::from_second(unix_seconds)
            .map_err(|e| Error::Invalid(format!("time {unix_seconds} s: {e}")))?;
        Ok(Self(time.to_zoned(jiff::tz::TimeZone::UTC).datetime()))
    }

    pub(super) fn datetime(self) -> DateTime {
        self.0
    }
}

impl fmt::Display for TemplateTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for TemplateTime {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        text.parse().map(Self).map_err(|e| Error::Invalid(format!("{text:?} is no date and time: {e}")))
    }
}

impl TryFrom<String> for TemplateTime {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<TemplateTime> for String {
    fn from(time: TemplateTime) -> Self {
        time.to_string()
    }
}
