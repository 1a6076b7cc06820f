//! What is checked at the start, and which slot is read.

use std::path::Path;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::delivery::client::{Client, SetupError};
use crate::ledger::{LedgerError, Session, Site, Trouble, Witness, WitnessError};
use crate::postgres::{ConnectError, ConnectErrorClass, Target, TargetError};
use crate::record::FingerprintKey;

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
    /// The server refuses us as configured.
    #[error("database.url: {}{}", .0.primary(), .0.hint().map(|hint| format!(" ({hint})")).unwrap_or_default())]
    Refused(ConnectError),
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
    /// Stopped before it had started.
    #[error("stopped before PostgreSQL could be reached")]
    Stopped,
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
    for target in [targets.sql, targets.replication] {
        target.look_at_files().map_err(StartError::Refused)?;
    }
    Client::new(config)?;
    Ok(Witness::new(config.ledger.witness_file.clone())?)
}

/// Everything that a person would have to mend before the instance can run. A server that is away is waited for.
pub(super) async fn check(config: &Config, shutdown: &CancellationToken) -> Result<Started, StartError> {
    let targets = targets(config)?;
    let key = fingerprint_key(&config.ledger.fingerprint_key_file)?;
    let schedule = super::session_schedule();
    let mut failures = 0;
    loop {
        match Session::connect(&targets.sql, "benefits-sync start").await {
            Ok(session) => match agree(config, &session, &key).await? {
                Agreement::Yes => return Ok(Started { targets, key }),
                Agreement::AskAgain(error) => tracing::warn!(%error, "the ledger cannot be read yet"),
            },
            Err(error) if error.class() == ConnectErrorClass::Usage => {
                return Err(StartError::Refused(error));
            }
            Err(error) => {
                tracing::warn!(
                    error = error.primary(),
                    detail = error.detail(),
                    "PostgreSQL is away; waiting for it"
                );
            }
        }
        failures += 1;
        let pause = tokio::time::sleep(schedule.delay(failures).max(Duration::from_millis(100)));
        if shutdown.run_until_cancelled(pause).await.is_none() {
            return Err(StartError::Stopped);
        }
    }
}

enum Agreement {
    Yes,
    AskAgain(LedgerError),
}

/// As `check`, for a command: a server that is away is its failure.
pub async fn check_once(config: &Config) -> Result<(Started, std::sync::Arc<Session>), CheckError> {
    let targets = targets(config)?;
    let key = fingerprint_key(&config.ledger.fingerprint_key_file)?;
    let session = match Session::connect(&targets.sql, "benefits-sync command").await {
        Err(error) if error.class() == ConnectErrorClass::Usage => {
            return Err(StartError::Refused(error).into());
        }
        other => other?,
    };
    match agree(config, &session, &key).await? {
        Agreement::Yes => Ok((Started { targets, key }, session)),
        Agreement::AskAgain(error) => Err(error.into()),
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
    Away(#[from] ConnectError),
    /// The ledger cannot be read at the moment.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// The ledger is about this platform and was written with this key; a new one takes both.
async fn agree(config: &Config, session: &Session, key: &FingerprintKey) -> Result<Agreement, StartError> {
    match missing_migrations(session).await {
        Ok(missing) if missing.is_empty() => {}
        Ok(missing) => return Err(StartError::OldSchema { lacks: missing.join(", ") }),
        Err(error) if error.trouble() == Trouble::Passing => return Ok(Agreement::AskAgain(error)),
        Err(error) => return Err(StartError::NotSetUp(error)),
    }
    let site = match Site::load(session).await {
        Ok(site) => site,
        Err(error) if error.trouble() == Trouble::Passing => return Ok(Agreement::AskAgain(error)),
        Err(error) => return Err(StartError::NotSetUp(error)),
    };
    let check = key.check().into_bytes();
    let configured = &config.benefits.platform_id;
    if site.fingerprint_check.as_ref().is_some_and(|held| *held != check) {
        return Err(StartError::KeyChanged);
    }
    if let Some(held) = site.platform_id.filter(|held| held != configured) {
        return Err(StartError::OtherPlatform { configured: configured.clone(), held });
    }
    let sql = "update benefits.site set platform_id = $1, fingerprint_check = $2, time_zone = $3 \
               where platform_id is distinct from $1 or fingerprint_check is distinct from $2 or time_zone <> $3";
    match session.execute("note the platform", sql, &[configured, &check, &config.reconcile.time_zone]).await
    {
        Ok(_) => Ok(Agreement::Yes),
        Err(error) if error.trouble() == Trouble::Passing => Ok(Agreement::AskAgain(error)),
        Err(error) => Err(StartError::NotSetUp(error)),
    }
}

/// Migrations that this program needs and the ledger has not. It may well have others: they only ever add.
async fn missing_migrations(session: &Session) -> Result<Vec<String>, LedgerError> {
    let known: Vec<i32> = crate::setup::versions().collect();
    let sql = "select k.version::text from unnest($1::integer[]) as k (version) \
               where not exists (select from benefits.migration as m where m.version = k.version) order by k.version";
    let rows = session.query("read the schema's version", sql, &[&known]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
