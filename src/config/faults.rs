//! What may stand in each key, as far as it can be told without a network. `None` is well; a text says what would be.

use std::time::Duration;

use secrecy::ExposeSecret as _;

use super::{Config, ConfigError};
use crate::postgres::Target;

const NO_ADDRESS: &str = "is not an http:// or https:// address";

impl Config {
    /// The first setting that cannot work.
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let faults = [
            ("database.url", url_fault(self.database.url.expose_secret())),
            (
                "database.replication_url",
                self.database.replication_url.as_ref().and_then(|url| url_fault(url.expose_secret())),
            ),
            ("database.slot", slot_fault(&self.database.slot)),
            ("database.publication", name_fault(&self.database.publication)),
            ("database.idle_limit", duration_fault(self.database.idle_limit, 1_000, 3_600_000)),
            ("ledger.history_months", range_fault(self.ledger.history_months, 1, 1200)),
            ("benefits.platform_id", platform_fault(&self.benefits.platform_id)),
            ("benefits.subdomain", self.benefits.subdomain.as_deref().and_then(subdomain_fault)),
            ("benefits.base_url", self.address_fault()),
            (
                "benefits.oauth.token_url",
                self.benefits.oauth.as_ref().and_then(|oauth| address_fault(&oauth.token_url)),
            ),
            ("benefits.token_file", self.credentials_fault()),
            ("delivery.concurrency", range_fault(self.delivery.concurrency, 1, 1024)),
            ("delivery.requests_per_second", self.delivery.requests_per_second.and_then(rate_fault)),
            ("delivery.timeout", duration_fault(self.delivery.timeout, 1, 600_000)),
            ("delivery.settle", duration_fault(self.delivery.settle, 0, 86_400_000)),
            ("delivery.min_interval", duration_fault(self.delivery.min_interval, 0, 86_400_000)),
            ("delivery.backoff_min", duration_fault(self.delivery.backoff_min, 1, 3_600_000)),
            ("delivery.backoff_max", self.backoff_fault()),
            ("guard.fraction", fraction_fault(self.guard.fraction)),
            ("log.level", level_fault(&self.log.level)),
            ("guard.window", duration_fault(self.guard.window, 1_000, 86_400_000)),
            ("reconcile.daily_at", time_fault(&self.reconcile.daily_at)),
            ("reconcile.time_zone", zone_fault(&self.reconcile.time_zone)),
        ];
        match faults.into_iter().find_map(|(key, fault)| fault.map(|reason| (key, reason))) {
            None => Ok(()),
            Some((key, reason)) => Err(ConfigError::Invalid { origin: self.origin.of(key), key, reason }),
        }
    }

    fn address_fault(&self) -> Option<String> {
        let url = self.base_url();
        if url.is_empty() {
            return Some("give benefits.base_url or benefits.subdomain".to_owned());
        }
        address_fault(&url)
    }

    fn credentials_fault(&self) -> Option<String> {
        match (&self.benefits.token_file, &self.benefits.oauth) {
            (None, None) => Some("give benefits.token_file or [benefits.oauth]".to_owned()),
            (Some(_), Some(_)) => Some("give benefits.token_file or [benefits.oauth], not both".to_owned()),
            _ => None,
        }
    }

    fn backoff_fault(&self) -> Option<String> {
        if self.delivery.backoff_max < self.delivery.backoff_min {
            return Some("is shorter than delivery.backoff_min".to_owned());
        }
        duration_fault(self.delivery.backoff_max, 1, 86_400_000)
    }
}

fn url_fault(url: &str) -> Option<String> {
    Target::parse(url).err().map(|error| error.to_string())
}

/// Nothing of it is quoted: it may hold a password that is in the wrong place.
fn address_fault(url: &str) -> Option<String> {
    let Ok(url) = url::Url::parse(url) else { return Some(NO_ADDRESS.to_owned()) };
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Some(NO_ADDRESS.to_owned());
    }
    let more = [
        (url.query().is_some() || url.fragment().is_some(), "must end with its path, without ? or #"),
        (!url.username().is_empty() || url.password().is_some(), "must hold no user or password"),
    ];
    more.into_iter().find_map(|(is_there, fault)| is_there.then(|| fault.to_owned()))
}

/// It becomes a part of a host's name.
fn subdomain_fault(name: &str) -> Option<String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    (name.is_empty() || !name.chars().all(allowed)).then(|| "must be of a-z, 0-9, - and .".to_owned())
}

fn slot_fault(name: &str) -> Option<String> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    (name.is_empty() || name.len() > 63 || !name.chars().all(allowed))
        .then(|| "must be 1 to 63 of a-z, 0-9 and _ (PostgreSQL's rule for slots)".to_owned())
}

/// A bare word that is no level would be taken for a target, and nothing else would be logged.
fn level_fault(level: &str) -> Option<String> {
    let is_level = |word: &str| {
        let known = ["off", "error", "warn", "info", "debug", "trace"];
        known.iter().any(|known| word.eq_ignore_ascii_case(known))
    };
    let well = level.split(',').all(|part| match part.trim().split_once('=') {
        None => is_level(part.trim()),
        Some((target, level)) => !target.trim().is_empty() && is_level(level.trim()),
    });
    (!well).then(|| "must be off, error, warn, info, debug or trace, or a list with target=level".to_owned())
}

fn name_fault(name: &str) -> Option<String> {
    (name.is_empty() || name.len() > 63 || name.contains('\0')).then(|| "must be 1 to 63 bytes".to_owned())
}

fn platform_fault(id: &str) -> Option<String> {
    (id.is_empty() || id.contains(['/', '?', '#']))
        .then(|| "must be the platform's id, without / ? #".to_owned())
}

fn range_fault<T: PartialOrd + std::fmt::Display + Copy>(value: T, least: T, most: T) -> Option<String> {
    (value < least || value > most).then(|| format!("must be {least} to {most}"))
}

fn rate_fault(rate: f64) -> Option<String> {
    (!rate.is_finite() || rate <= 0.0).then(|| "must be above 0".to_owned())
}

fn fraction_fault(fraction: f64) -> Option<String> {
    (!(0.0..=1.0).contains(&fraction)).then(|| "must be 0 to 1".to_owned())
}

fn duration_fault(value: Duration, least_ms: u64, most_ms: u64) -> Option<String> {
    let (least, most) = (Duration::from_millis(least_ms), Duration::from_millis(most_ms));
    (value < least || value > most).then(|| {
        format!("must be {} to {}", humantime::format_duration(least), humantime::format_duration(most))
    })
}

fn time_fault(text: &str) -> Option<String> {
    jiff::civil::Time::strptime("%H:%M", text).is_err().then(|| "is not a time of day as HH:MM".to_owned())
}

fn zone_fault(name: &str) -> Option<String> {
    jiff::tz::TimeZone::get(name).is_err().then(|| "is not an IANA time zone, as Europe/London".to_owned())
}
