//! What a key is that is not given.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::{Delivery, Guard, Http, Ledger, Log, LogFormat, Reconcile};

pub(super) fn yes() -> bool {
    true
}

pub(super) fn idle_limit() -> Duration {
    Duration::from_mins(1)
}

pub(super) fn name() -> String {
    "benefits_sync".to_owned()
}

pub(super) fn scope() -> String {
    "employees:write".to_owned()
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            fingerprint_key_file: PathBuf::from("benefits-sync.key"),
            history_months: 13,
            witness_file: None,
        }
    }
}

impl Default for Delivery {
    fn default() -> Self {
        Self {
            concurrency: 32,
            requests_per_second: None,
            timeout: Duration::from_secs(10),
            settle: Duration::ZERO,
            min_interval: Duration::ZERO,
            backoff_min: Duration::from_millis(500),
            backoff_max: Duration::from_mins(5),
        }
    }
}

impl Default for Guard {
    fn default() -> Self {
        Self { fraction: 0.10, minimum: 20, window: Duration::from_mins(10) }
    }
}

impl Default for Reconcile {
    fn default() -> Self {
        Self { daily_at: "00:05".to_owned(), time_zone: "Europe/London".to_owned() }
    }
}

impl Default for Http {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 9287)) }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: "info".to_owned() }
    }
}
