//! Durations as people write them: `10s`, `500ms`, `5m`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de::Error};

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(text.trim()).map_err(|error| {
        D::Error::custom(format!("{error}; write a duration as \"500ms\", \"10s\" or \"5m\""))
    })
}
