//! The configuration: typed, validated once, secrets opaque.
//!
//! One TOML file, every key of which can also be given as an environment variable
//! `BENEFITS_SYNC_<SECTION>__<KEY>` (the variable wins). [`Config::load`] reads both, refuses unknown keys by name, and
//! checks everything that can be checked without a network, so that the rest of the program never meets a bad setting.
//! Defaults are in the field docs and in the README's table; a test keeps the two the same.

mod address;
mod defaults;
mod duration;
mod environment;
mod faults;
mod malformed;
mod origin;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::SecretString;
use serde::Deserialize;

pub use origin::Origin;

/// Why a configuration cannot be used. Always exit code 2.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is missing or cannot be read.
    #[error("cannot read the configuration file {path}: {reason}")]
    Unreadable {
        /// The file as named by the user.
        path: PathBuf,
        /// The operating system's reason.
        reason: String,
    },
    /// The file is not TOML, has an unknown key, or a value of the wrong kind.
    #[error("{origin}: {reason}")]
    Malformed {
        /// The file, or the environment variable.
        origin: String,
        /// What is wrong, with the key and the place where known.
        reason: String,
    },
    /// A value that cannot work.
    #[error("{origin}: {key}: {reason}")]
    Invalid {
        /// The file, or the environment variable.
        origin: String,
        /// `section.key`.
        key: &'static str,
        /// What is wrong and what would be right.
        reason: String,
    },
}

/// Everything an instance is told.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `[database]`: the HR database.
    pub database: Database,
    /// `[ledger]`: what is kept in the HR database.
    #[serde(default)]
    pub ledger: Ledger,
    /// `[benefits]`: the platform.
    pub benefits: Benefits,
    /// `[delivery]`: how changes are sent.
    #[serde(default)]
    pub delivery: Delivery,
    /// `[guard]`: the mass-change guard.
    #[serde(default)]
    pub guard: Guard,
    /// `[reconcile]`: the comparison of everyone.
    #[serde(default)]
    pub reconcile: Reconcile,
    /// `[http]`: metrics and health.
    #[serde(default)]
    pub http: Http,
    /// `[log]`: what is written to standard error.
    #[serde(default)]
    pub log: Log,
    /// Where all of it was read.
    #[serde(skip)]
    pub origin: Origin,
}

/// `[database]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// `postgresql://` URL of the login that keeps the ledger and reads records (`benefits_service`).
    pub url: SecretString,
    /// URL of the login with REPLICATION (`benefits_reader`). Default: `url`.
    #[serde(default)]
    pub replication_url: Option<SecretString>,
    /// A file with the password for both URLs; read again at every connect, so that it can be rotated.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// The same for `replication_url` alone. Default: `password_file`.
    #[serde(default)]
    pub replication_password_file: Option<PathBuf>,
    /// The replication slot. Default `benefits_sync`.
    #[serde(default = "defaults::name")]
    pub slot: String,
    /// The publication. Default `benefits_sync`.
    #[serde(default = "defaults::name")]
    pub publication: String,
    /// Silence of the stream after which its connection is given up and made anew; PostgreSQL is asked for a sign of life at
    /// half of it. At least 1s. Default 60s.
    #[serde(default = "defaults::idle_limit", with = "duration")]
    pub idle_limit: Duration,
    /// TLS mode, overriding `sslmode` in the URLs.
    #[serde(default)]
    pub tls: Option<TlsMode>,
    /// A private CA (PEM), overriding `sslrootcert` in the URLs.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
}

/// libpq's `sslmode`, less `allow`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TlsMode {
    /// Never TLS.
    Disable,
    /// TLS where the server offers it, unverified.
    Prefer,
    /// TLS or nothing, unverified unless a CA file is given.
    Require,
    /// The certificate must come from a trusted CA.
    VerifyCa,
    /// And it must name the host.
    VerifyFull,
}

/// `[ledger]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ledger {
    /// File with 64 hex digits that key the fingerprints. `setup` makes one where it is missing. Default
    /// `benefits-sync.key` beside the working directory.
    pub fingerprint_key_file: PathBuf,
    /// How long history is kept, in months. Default 13.
    pub history_months: u32,
    /// File outside the database where `run` notes how far the ledger has come, so that a database that was set back while
    /// nobody ran is noticed. Default none.
    pub witness_file: Option<PathBuf>,
}

/// `[benefits]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Benefits {
    /// Whether the module is switched on for the site. Default true.
    #[serde(default = "defaults::yes")]
    pub enabled: bool,
    /// The platform's id, as in its API's paths.
    pub platform_id: String,
    /// The site's sub-domain, used in the default `base_url`.
    #[serde(default)]
    pub subdomain: Option<String>,
    /// Where the API is. Default `https://{subdomain}.benefits.example/api/v1`.
    #[serde(default)]
    pub base_url: Option<String>,
    /// A file with the bearer token; read again whenever it changes.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// OAuth 2 client credentials, in place of `token_file`.
    #[serde(default)]
    pub oauth: Option<Oauth>,
    /// Which of the record's emails is sent.
    pub email_source: EmailSource,
    /// A check beyond the email before an account is linked. Default none.
    #[serde(default)]
    pub link_check: LinkCheck,
    /// A private CA (PEM) for the platform.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
}

/// `[benefits.oauth]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Oauth {
    /// Where tokens are asked for.
    pub token_url: String,
    /// The client's id.
    pub client_id: String,
    /// A file with the client's secret.
    pub client_secret_file: PathBuf,
    /// The scope asked for. Default `employees:write`.
    #[serde(default = "defaults::scope")]
    pub scope: String,
}

/// Which of the record's emails is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EmailSource {
    /// `home_email`.
    Home,
    /// `work_email`.
    Work,
    /// `services_email`.
    Services,
}

impl EmailSource {
    /// The record query's column for this source.
    pub const fn column(self) -> &'static str {
        match self {
            Self::Home => "home_email",
            Self::Work => "work_email",
            Self::Services => "services_email",
        }
    }
}

/// A check beyond the email before an account is linked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkCheck {
    /// The email alone decides.
    #[default]
    None,
    /// The dates of birth must agree.
    DateOfBirth,
}

/// `[delivery]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Delivery {
    /// Requests in flight at the platform. Default 32.
    pub concurrency: usize,
    /// A ceiling on requests a second. Default none.
    pub requests_per_second: Option<f64>,
    /// One request's limit, answer included. Default 10s.
    #[serde(with = "duration")]
    pub timeout: Duration,
    /// How long a changed record is left to settle before it is sent. Default 0s.
    #[serde(with = "duration")]
    pub settle: Duration,
    /// Least time between two sends of one employee; the first goes at once. Default 0s.
    #[serde(with = "duration")]
    pub min_interval: Duration,
    /// First wait after a failed attempt. Default 500ms.
    #[serde(with = "duration")]
    pub backoff_min: Duration,
    /// Longest wait between attempts. Default 5m.
    #[serde(with = "duration")]
    pub backoff_max: Duration,
}

/// `[guard]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Guard {
    /// Share of the synced employees that may be ended at once. Default 0.10.
    pub fraction: f64,
    /// Number of employees that may always be ended at once. Default 20.
    pub minimum: u32,
    /// Over which time they are counted. Default 10m.
    #[serde(with = "duration")]
    pub window: Duration,
}

/// `[reconcile]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Reconcile {
    /// Local time of the nightly comparison. Default 00:05.
    pub daily_at: String,
    /// The site's time zone: "today" in records, and `daily_at`. Default Europe/London.
    pub time_zone: String,
}

/// `[http]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    /// Where `/metrics`, `/livez` and `/readyz` are served. Default 127.0.0.1:9287.
    #[serde(deserialize_with = "address::deserialize")]
    pub listen: SocketAddr,
}

/// `[log]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// Default text.
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug`, `trace`, or targets: `info,benefits_sync::delivery=debug`. Default info.
    pub level: String,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl Config {
    /// Reads the file, lays the environment's variables over it, and validates the whole.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::Unreadable { path: path.to_owned(), reason: error.to_string() })?;
        Self::parse(&text, &path.display().to_string(), environment::variables()?)
    }

    /// As [`Config::load`], from text and given variables. `file` names the text in errors.
    pub fn parse(
        text: &str,
        file: &str,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let mut table: toml::Table =
            toml::from_str(text).map_err(|error| malformed::syntax(file, text, &error))?;
        let origin =
            Origin { file: file.to_owned(), variables: environment::overlay(&mut table, variables)? };
        let read = table.clone().try_into();
        let mut config: Self = read.map_err(|error| malformed::settings(&origin, text, &table, &error))?;
        config.origin = origin;
        config.validate()?;
        Ok(config)
    }

    /// Where the platform's API is, without a slash at the end.
    pub fn base_url(&self) -> String {
        match (&self.benefits.base_url, &self.benefits.subdomain) {
            (Some(url), _) => url.trim_end_matches('/').to_owned(),
            (None, Some(subdomain)) => format!("https://{subdomain}.benefits.example/api/v1"),
            (None, None) => String::new(),
        }
    }

    /// The URL of the replication login.
    pub fn replication_url(&self) -> &SecretString {
        self.database.replication_url.as_ref().unwrap_or(&self.database.url)
    }
}

#[cfg(test)]
mod tests;
