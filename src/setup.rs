//! `setup` and `teardown`: what a DBA runs, or reads and runs in psql.
//!
//! `setup` is a plan of steps, each a piece of SQL that does no harm when it is run again: the roles, the schema's
//! migrations that are missing, what depends on the configuration (time zone, publication). `setup --print` shows the same
//! text. The slot is not made here but by `run`, whose login has REPLICATION: a slot that nobody reads pins WAL.

use std::io::Write as _;
use std::path::Path;

use rand::RngCore as _;
use secrecy::ExposeSecret;

use crate::config::Config;
use crate::ledger::{LedgerError, Session};
use crate::postgres::{ConnectError, Target, TargetError};

/// A migration: numbered, never edited once it has landed.
struct Migration {
    version: i32,
    name: &'static str,
    sql: &'static str,
}

const MIGRATIONS: &[Migration] = &[
    Migration { version: 1, name: "ledger", sql: include_str!("../sql/migrations/001_ledger.sql") },
    Migration { version: 2, name: "names", sql: include_str!("../sql/migrations/002_names.sql") },
    Migration { version: 3, name: "description", sql: include_str!("../sql/migrations/003_description.sql") },
    Migration { version: 4, name: "commands", sql: include_str!("../sql/migrations/004_commands.sql") },
    Migration { version: 5, name: "privileges", sql: include_str!("../sql/migrations/005_privileges.sql") },
    Migration { version: 6, name: "domain", sql: include_str!("../sql/migrations/006_domain.sql") },
    Migration { version: 7, name: "reconcile", sql: include_str!("../sql/migrations/007_reconcile.sql") },
];

const ROLES: &str = include_str!("../sql/setup/roles.sql");
const SCHEMA: &str = include_str!("../sql/setup/schema.sql");
const TEARDOWN: &str = include_str!("../sql/setup/teardown.sql");

/// Why the set-up did not go through. What was applied before stays: run it again.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The DBA's URL cannot be used.
    #[error("the admin URL: {0}")]
    Target(#[from] TargetError),
    /// No connection as the DBA.
    #[error("cannot connect as the DBA: {}{}", .0.primary(), .0.hint().map(|hint| format!(" ({hint})")).unwrap_or_default())]
    Connect(#[from] ConnectError),
    /// A step failed.
    #[error("{step}: {source}")]
    Step {
        /// Which.
        step: String,
        /// Why.
        source: LedgerError,
    },
    /// The key file cannot be written.
    #[error("ledger.fingerprint_key_file {path}: {reason}")]
    Key {
        /// The file.
        path: String,
        /// Why.
        reason: String,
    },
}

/// One step of the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What it is for.
    pub title: String,
    /// What is run, in one transaction.
    pub sql: String,
}

/// The whole plan for an empty database.
pub fn plan(config: &Config) -> Vec<Step> {
    steps(config, 0)
}

/// What is missing above a schema of this version.
fn steps(config: &Config, version: i32) -> Vec<Step> {
    let mut steps = vec![Step { title: "roles".to_owned(), sql: ROLES.to_owned() }];
    if version == 0 {
        steps.push(Step { title: "schema benefits".to_owned(), sql: SCHEMA.to_owned() });
    }
    for migration in MIGRATIONS.iter().filter(|migration| migration.version > version) {
        steps.push(Step {
            title: format!("migration {:03} {}", migration.version, migration.name),
            sql: format!(
                "{}\ninsert into benefits.migration (version, name) values ({}, '{}');\n",
                migration.sql, migration.version, migration.name
            ),
        });
    }
    steps.push(Step { title: "settings of the site".to_owned(), sql: settings(config) });
    steps
}

/// What depends on the configuration.
fn settings(config: &Config) -> String {
    let mut sql = format!(
        "update benefits.site set time_zone = {} where time_zone <> {0};\n\
         update benefits.site set publication = {} where publication <> {1};\n\
         select benefits.publish_sources();\n",
        literal(&config.reconcile.time_zone),
        literal(&config.database.publication)
    );
    // The logins of the URLs may have names of their own.
    for (url, role) in
        [(&config.database.url, "benefits_service"), (config.replication_url(), "benefits_reader")]
    {
        if let Ok(target) = Target::parse(url.expose_secret()) {
            let login = literal(&target.user);
            sql.extend(["select benefits.grant_login(", &login, ", '", role, "');\n"]);
        }
    }
    sql
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Applies what is missing; the titles of the steps that were run.
pub async fn apply(admin: &Target, config: &Config) -> Result<Vec<String>, SetupError> {
    let session = Session::connect(admin, "benefits-sync setup").await?;
    let steps = steps(config, version(&session).await?);
    for step in &steps {
        tracing::info!(step = step.title, "setting up");
        let sql = format!(
            "begin; set local lock_timeout = '5s'; set local client_min_messages = warning;\n{}\ncommit;",
            step.sql
        );
        run(&session, &step.title, &sql).await?;
    }
    make_key(&config.ledger.fingerprint_key_file)?;
    Ok(steps.into_iter().map(|step| step.title).collect())
}

/// Removes everything of ours from the database; what was removed, a line each.
pub async fn remove(admin: &Target, config: &Config) -> Result<Vec<String>, SetupError> {
    let session = Session::connect(admin, "benefits-sync teardown").await?;
    let sql = TEARDOWN
        .replace(":'slot'", &literal(&config.database.slot))
        .replace(":'publication'", &literal(&config.database.publication));
    run(&session, "teardown", &sql).await?;
    let rows = session.query("report", "select line from pg_temp.benefits_removed order by n", &[]).await;
    let rows = rows.map_err(|source| SetupError::Step { step: "teardown".to_owned(), source })?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

async fn run(session: &Session, step: &str, sql: &str) -> Result<(), SetupError> {
    let done = session.batch("run a step of the set-up", sql).await;
    done.map_err(|source| SetupError::Step { step: step.to_owned(), source })
}

async fn version(session: &Session) -> Result<i32, SetupError> {
    let failed = |source| SetupError::Step { step: "read the schema's version".to_owned(), source };
    let sql = "select to_regclass('benefits.migration') is not null";
    let rows = session.query("look for the schema", sql, &[]).await.map_err(failed)?;
    if !rows.first().is_some_and(|row| row.get(0)) {
        return Ok(0);
    }
    let sql = "select coalesce(max(version), 0) from benefits.migration";
    let rows = session.query("read the schema's version", sql, &[]).await.map_err(failed)?;
    Ok(rows.first().map_or(0, |row| row.get(0)))
}

/// Makes the fingerprint key where there is none: 64 hex digits, readable by its owner only.
pub fn make_key(path: &Path) -> Result<(), SetupError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let fault = |error: std::io::Error| SetupError::Key {
        path: path.display().to_string(),
        reason: error.to_string(),
    };
    let mut options = std::fs::OpenOptions::new();
    let mut file = match options.write(true).create_new(true).mode(0o600).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Ok(()),
        Err(error) => return Err(fault(error)),
    };
    let mut key = [0_u8; 32];
    rand::rngs::OsRng.fill_bytes(&mut key);
    for byte in key {
        write!(file, "{byte:02x}").map_err(fault)?;
    }
    writeln!(file).map_err(fault)?;
    tracing::info!(path = %path.display(), "made a fingerprint key; keep it with the configuration");
    Ok(())
}
