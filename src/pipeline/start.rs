//! What is checked at the start, and which slot is read.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::health::Health;
use crate::config::{Config, Database};
use crate::delivery::client::{Client, SetupError};
use crate::ledger::{LedgerError, Session, Site, Trouble, Witness, WitnessError};
use crate::postgres::{ConnectError, ConnectErrorClass, Target, TargetError};
use crate::record::FingerprintKey;
use crate::replication::{Connection, ReplicationError};

/// `invalid_password`: what the server says of a login that it does not know, too.
const WRONG_PASSWORD: &str = "28P01";

/// Where the database is.
#[derive(Debug, Clone)]
pub struct Targets {
    /// For queries.
    pub sql: Target,
    /// For the stream.
    pub replication: Target,
}

/// What the start has found.
#[derive(Debug, Clone)]
pub struct Started {
    /// Where the database is.
    pub targets: Targets,
    /// Keys the fingerprints.
    pub key: FingerprintKey,
}

/// Why an instance does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The URL cannot be used.
    #[error("{key}: {source}")]
    Target {
        /// `database.url` or `database.replication_url`.
        key: &'static str,
        /// Why.
        source: TargetError,
    },
    /// The server refuses us as configured, or a file that the connection needs cannot be used.
    #[error("{key}: {}{}{}", error.primary(), in_text(": ", error.detail(), ""), in_text(" (", error.hint(), ")"))]
    Refused {
        /// Of `[database]`.
        key: &'static str,
        /// Why.
        error: ConnectError,
    },
    /// The key file is missing, unreadable or not a key.
    #[error("ledger.fingerprint_key_file {path}: {reason}")]
    Key {
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// The witness's file can be none.
    #[error(transparent)]
    Witness(#[from] WitnessError),
    /// No client of the platform can be made: its CA's file.
    #[error(transparent)]
    Platform(#[from] SetupError),
    /// The key is not the one that the ledger was written with.
    #[error(
        "ledger.fingerprint_key_file is another key than the ledger was written with; restore the old file, or have \
         everything sent again: update benefits.site set fingerprint_check = null; update benefits.enrolment set acknowledged = null"
    )]
    KeyChanged,
    /// The ledger is about another platform.
    #[error(
        "benefits.platform_id is {configured}, but the ledger is about {held}: a ledger never changes its platform"
    )]
    OtherPlatform {
        /// In the configuration.
        configured: String,
        /// In the ledger.
        held: String,
    },
    /// There is no ledger in the database.
    #[error(
        "the database has no schema benefits, or one of another version: run benefits-sync setup first ({0})"
    )]
    NotSetUp(LedgerError),
    /// The ledger's schema is older than this program. An older program works with a newer schema, never the other way round.
    #[error(
        "the schema benefits lacks migrations {lacks}: run benefits-sync setup first (what runs already goes on meanwhile)"
    )]
    OldSchema {
        /// Their numbers.
        lacks: String,
    },
}

fn in_text(before: &str, part: Option<String>, after: &str) -> String {
    part.map(|part| format!("{before}{part}{after}")).unwrap_or_default()
}

impl StartError {
    /// The key that has to be changed, where it is one.
    pub fn key(&self) -> Option<&'static str> {
        match self {
            Self::Target { key, .. }
            | Self::Refused { key, .. }
            | Self::Platform(SetupError::Address { key, .. }) => Some(key),
            Self::Key { .. } | Self::KeyChanged => Some("ledger.fingerprint_key_file"),
            Self::Witness(_) => Some("ledger.witness_file"),
            Self::Platform(SetupError::CaFile { .. }) => Some("benefits.ca_file"),
            Self::OtherPlatform { .. } => Some("benefits.platform_id"),
            Self::Platform(SetupError::Tls(_)) | Self::NotSetUp(_) | Self::OldSchema { .. } => None,
        }
    }

    /// Whether it is the database that is not ready, and the configuration may be well.
    pub fn is_not_ready(&self) -> bool {
        matches!(self, Self::NotSetUp(_) | Self::OldSchema { .. })
    }
}

/// Why a command could not begin.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// A setting or the set-up has to be changed.
    #[error(transparent)]
    Start(#[from] StartError),
    /// PostgreSQL is away.
    #[error("{}{}", .0.primary(), .0.detail().map(|detail| format!(" ({detail})")).unwrap_or_default())]
    Away(ConnectError),
    /// The ledger cannot be read at the moment.
    #[error(transparent)]
    Ledger(LedgerError),
}

impl From<LedgerError> for CheckError {
    fn from(error: LedgerError) -> Self {
        match error.trouble() {
            Trouble::Passing => Self::Ledger(error),
            Trouble::Site | Trouble::Data => Self::Start(StartError::NotSetUp(error)),
        }
    }
}

/// One of the two logins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Login {
    Service,
    Reader,
}

impl Login {
    /// With the key that has to be changed.
    fn refused(self, database: &Database, error: ConnectError) -> StartError {
        let own = |set: bool| self == Self::Reader && set;
        let url =
            if own(database.replication_url.is_some()) { "database.replication_url" } else { "database.url" };
        let password = if own(database.replication_password_file.is_some()) {
            Some("database.replication_password_file")
        } else {
            database.password_file.as_ref().map(|_| "database.password_file")
        };
        let key = match &error {
            ConnectError::PasswordFile { .. } => password,
            ConnectError::Refused { error, .. } if error.code == WRONG_PASSWORD => password,
            ConnectError::Certificates { path, .. } => {
                let named = database.ca_file.as_ref().is_some_and(|file| file.as_os_str() == path.as_str());
                named.then_some("database.ca_file")
            }
            _ => None,
        };
        StartError::Refused { key: key.unwrap_or(url), error }
    }
}

/// The targets that the configuration names.
pub fn targets(config: &Config) -> Result<Targets, StartError> {
    let named = |key| move |source| StartError::Target { key, source };
    Ok(Targets {
        sql: Target::for_ledger(&config.database).map_err(named("database.url"))?,
        replication: Target::for_replication(&config.database).map_err(named("database.replication_url"))?,
    })
}

/// Reads the fingerprint key.
pub fn fingerprint_key(path: &Path) -> Result<FingerprintKey, StartError> {
    let fault = |reason: String| StartError::Key { path: path.display().to_string(), reason };
    let text = std::fs::read_to_string(path)
        .map_err(|error| fault(format!("{error}; benefits-sync setup makes one")))?;
    FingerprintKey::from_hex(text.trim()).map_err(|error| fault(error.to_string()))
}

/// Files that would else be found bad when they are used, which may be much later.
pub(super) fn look_at_files(config: &Config) -> Result<Witness, StartError> {
    let targets = targets(config)?;
    for (target, login) in [(targets.sql, Login::Service), (targets.replication, Login::Reader)] {
        target.look_at_files().map_err(|error| login.refused(&config.database, error))?;
    }
    Client::new(config)?;
    Ok(Witness::new(config.ledger.witness_file.clone())?)
}

/// Everything that a person would have to mend before the instance can run. A server that is away is waited for, and
/// `health` says so.
pub(super) async fn check(config: &Config, health: &Health) -> Result<Started, StartError> {
    let schedule = super::session_schedule();
    let mut failures = 0;
    loop {
        let error = match begin(config).await {
            Ok(started) => {
                health.set_streaming(Err("starting".to_owned()));
                return Ok(started);
            }
            Err(CheckError::Start(error)) => return Err(error),
            Err(error) => error,
        };
        // Waiting brings no key.
        fingerprint_key(&config.ledger.fingerprint_key_file)?;
        let what = match &error {
            CheckError::Ledger(_) => "the ledger cannot be read yet",
            _ => "PostgreSQL is away",
        };
        tracing::warn!(%error, "{what}; waiting for it");
        health.set_streaming(Err(format!("{what}: {error}")));
        failures += 1;
        tokio::time::sleep(schedule.delay(failures).max(Duration::from_millis(100))).await;
    }
}

async fn begin(config: &Config) -> Result<Started, CheckError> {
    let (started, _session) = take(config, "benefits-sync start").await?;
    // Else the stream would be refused at every attempt, and nobody be told which key to change. Whatever else goes wrong with
    // this login either passes or is told by the reader.
    if let Err(ReplicationError::Connect(error)) = Connection::connect(&started.targets.replication).await
        && error.class() == ConnectErrorClass::Usage
    {
        return Err(Login::Reader.refused(&config.database, error).into());
    }
    Ok(started)
}

/// As `check`, for a command: a server that is away is its failure.
pub async fn check_once(config: &Config) -> Result<(Started, Arc<Session>), CheckError> {
    take(config, "benefits-sync command").await
}

/// A ledger that is about no platform yet, and written with no key, takes both.
async fn take(config: &Config, name: &str) -> Result<(Started, Arc<Session>), CheckError> {
    let Looked { session, key, .. } = look(config, name).await?;
    let sql = "update benefits.site set platform_id = $1, fingerprint_check = $2, time_zone = $3 \
               where platform_id is distinct from $1 or fingerprint_check is distinct from $2 or time_zone <> $3";
    let (platform, check) = (&config.benefits.platform_id, key.check().into_bytes());
    session.execute("note the platform", sql, &[platform, &check, &config.reconcile.time_zone]).await?;
    Ok((Started { targets: targets(config)?, key }, session))
}

/// A session of the service's login. `name` is what a DBA sees.
pub async fn connect(config: &Config, name: &str) -> Result<Arc<Session>, CheckError> {
    let target = targets(config)?.sql;
    Session::connect(&target, name).await.map_err(|error| match error.class() {
        ConnectErrorClass::Away => CheckError::Away(error),
        ConnectErrorClass::Usage => Login::Service.refused(&config.database, error).into(),
    })
}

/// A ledger that this configuration is about.
pub struct Looked {
    /// On it.
    pub session: Arc<Session>,
    /// The key that it was written with.
    pub key: FingerprintKey,
    /// What it says of the site.
    pub site: Site,
}

/// Looks whether the ledger is set up, and about no other platform and written with no other key. Writes nothing.
pub async fn look(config: &Config, name: &str) -> Result<Looked, CheckError> {
    let file = &config.ledger.fingerprint_key_file;
    let key = fingerprint_key(file);
    // A file that is no key is wrong whatever the database says. Where there is none, setup makes one: whether there was a
    // setup comes first.
    let key = if file.exists() { Ok(key?) } else { key };
    let session = connect(config, name).await?;
    let missing = missing_migrations(&session).await?;
    if !missing.is_empty() {
        return Err(StartError::OldSchema { lacks: missing.join(", ") }.into());
    }
    let site = Site::load(&session).await?;
    let key = key?;
    if site.fingerprint_check.as_ref().is_some_and(|held| *held != key.check().into_bytes()) {
        return Err(StartError::KeyChanged.into());
    }
    let configured = &config.benefits.platform_id;
    if let Some(held) = site.platform_id.as_ref().filter(|held| *held != configured) {
        return Err(StartError::OtherPlatform { configured: configured.clone(), held: held.clone() }.into());
    }
    Ok(Looked { session, key, site })
}

/// Migrations that this program needs and the ledger has not. It may well have others: they only ever add.
async fn missing_migrations(session: &Session) -> Result<Vec<String>, LedgerError> {
    let known: Vec<i32> = crate::setup::versions().collect();
    let sql = "select k.version::text from unnest($1::integer[]) as k (version) \
               where not exists (select from benefits.migration as m where m.version = k.version) order by k.version";
    let rows = session.query("read the schema's version", sql, &[&known]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
