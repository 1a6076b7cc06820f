//! Addresses to listen on: an IP address and a port. A name could stand for several.

use std::net::SocketAddr;

use serde::de::Error;
use serde::{Deserialize as _, Deserializer};

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse()
        .map_err(|_syntax| D::Error::custom("expected an IP address and a port, as \"127.0.0.1:9287\""))
}
