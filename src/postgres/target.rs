//! Where to connect, as whom, and how securely. Holds a password, so its `Debug` shows none.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::error::ConnectError;
use super::url::{self, TargetError};
use crate::config::{Database, TlsMode};

/// A connection target: a URL with the settings that override it.
#[derive(Debug, Clone)]
pub struct Target {
    /// The servers, in the order they are tried.
    pub endpoints: Vec<Endpoint>,
    /// The role.
    pub user: String,
    /// The URL's password.
    pub password: Option<SecretString>,
    /// A file that has the password, read at every connect; it wins over the URL's.
    pub password_file: Option<PathBuf>,
    /// The database.
    pub database: String,
    /// How much TLS.
    pub tls: TlsMode,
    /// A private CA.
    pub ca_file: Option<PathBuf>,
    /// A client certificate and its key, PEM.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
    /// Which of the servers will do.
    pub session: SessionAttributes,
    /// Limit for one server: from the first packet until the session is ready.
    pub connect_timeout: Duration,
    /// `application_name`, when the URL sets one.
    pub application_name: Option<String>,
    /// Extra startup options of the URL.
    pub options: Option<String>,
}

/// One server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its address.
    pub host: Host,
    /// Its port; for a unix socket part of the file's name.
    pub port: u16,
}

/// A server's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// A name or an IP address.
    Tcp(String),
    /// The directory of a unix socket.
    Unix(PathBuf),
}

/// libpq's `target_session_attrs`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SessionAttributes {
    /// Any server.
    #[default]
    Any,
    /// Not in recovery, and transactions may write.
    ReadWrite,
    /// In recovery, or transactions may not write.
    ReadOnly,
    /// Not in recovery.
    Primary,
    /// In recovery.
    Standby,
    /// In recovery if there is such a server, else any.
    PreferStandby,
}

impl SessionAttributes {
    /// libpq's name for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::ReadWrite => "read-write",
            Self::ReadOnly => "read-only",
            Self::Primary => "primary",
            Self::Standby => "standby",
            Self::PreferStandby => "prefer-standby",
        }
    }
}

impl Target {
    /// Reads a `postgresql://` URL. Errors name the part, never its content.
    pub fn parse(url: &str) -> Result<Self, TargetError> {
        url::parse(url)
    }

    /// The login that keeps the ledger and reads records.
    pub fn for_ledger(database: &Database) -> Result<Self, TargetError> {
        Self::with_overrides(&database.url, database)
    }

    /// The login with REPLICATION.
    pub fn for_replication(database: &Database) -> Result<Self, TargetError> {
        let url = database.replication_url.as_ref().unwrap_or(&database.url);
        let mut target = Self::with_overrides(url, database)?;
        if database.replication_password_file.is_some() {
            target.password_file.clone_from(&database.replication_password_file);
        }
        Ok(target)
    }

    fn with_overrides(url: &SecretString, database: &Database) -> Result<Self, TargetError> {
        let mut target = Self::parse(url.expose_secret())?;
        target.tls = database.tls.unwrap_or(target.tls);
        target.ca_file = database.ca_file.clone().or(target.ca_file);
        target.password_file.clone_from(&database.password_file);
        Ok(target)
    }

    /// That the certificates, keys and the password file which are named can be read. They are read again at every connect.
    pub fn look_at_files(&self) -> Result<(), ConnectError> {
        if let Some(path) = &self.password_file {
            std::fs::read_to_string(path)
                .map_err(|source| ConnectError::PasswordFile { path: path.clone(), source })?;
        }
        super::tls::look_at_files(self)
    }

    /// The password of the moment: a file is read anew, so that it can be rotated under a running process.
    pub(crate) async fn current_password(&self) -> Result<Option<SecretString>, ConnectError> {
        let Some(path) = &self.password_file else { return Ok(self.password.clone()) };
        let text = tokio::fs::read_to_string(path)
            .await
            .map_err(|source| ConnectError::PasswordFile { path: path.clone(), source })?;
        Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned().into()))
    }

    /// The startup `options`: what is pinned, what the URL adds, what the caller adds (the last one wins).
    pub(crate) fn startup_options(&self, extra: &str) -> String {
        let mut options = super::PINNED_OPTIONS.to_owned();
        for part in [self.options.as_deref().unwrap_or_default(), extra] {
            if !part.is_empty() {
                options.push(' ');
                options.push_str(part);
            }
        }
        options
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at ", self.database)?;
        for (index, endpoint) in self.endpoints.iter().enumerate() {
            write!(f, "{}{endpoint}", if index == 0 { "" } else { ", " })?;
        }
        write!(f, " as {}", self.user)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Tcp(name) if name.contains(':') => write!(f, "[{name}]:{}", self.port),
            Host::Tcp(name) => write!(f, "{name}:{}", self.port),
            Host::Unix(directory) => write!(f, "{}/.s.PGSQL.{}", directory.display(), self.port),
        }
    }
}
