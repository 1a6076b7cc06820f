//! Durations as people write them: `10s`, `500ms`, `5m`.

use std::time::Duration;

use serde::Deserializer;
use serde::de::{Error, Visitor};

struct Written;

impl Visitor<'_> for Written {
    type Value = Duration;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("a duration, as \"500ms\", \"10s\" or \"5m\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Duration, E> {
        humantime::parse_duration(text.trim())
            .map_err(|_which_letter| E::custom("expected a duration, as \"500ms\", \"10s\" or \"5m\""))
    }
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    deserializer.deserialize_str(Written)
}
