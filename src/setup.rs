//! `setup` and `teardown`: what a DBA runs, or reads and runs in psql.
//!
//! `setup` is a plan of steps, each a piece of SQL that does no harm when it is run again: the roles, the schema's
//! migrations that are missing, what depends on the configuration (time zone, publication). `setup --print` shows the same
//! text. The slot is not made here but by `run`, whose login has REPLICATION: a slot that nobody reads pins WAL.

use std::io::Write as _;
use std::path::Path;

use rand::RngCore as _;
use secrecy::ExposeSecret;
use tokio_postgres::types::ToSql;

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
    Migration { version: 8, name: "status", sql: include_str!("../sql/migrations/008_status.sql") },
    Migration {
        version: 9,
        name: "server_start",
        sql: include_str!("../sql/migrations/009_server_start.sql"),
    },
    Migration { version: 10, name: "people", sql: include_str!("../sql/migrations/010_people.sql") },
    Migration {
        version: 11,
        name: "least_power",
        sql: include_str!("../sql/migrations/011_least_power.sql"),
    },
    Migration { version: 12, name: "pace", sql: include_str!("../sql/migrations/012_pace.sql") },
    Migration { version: 13, name: "intents", sql: include_str!("../sql/migrations/013_intents.sql") },
    Migration { version: 14, name: "keys", sql: include_str!("../sql/migrations/014_keys.sql") },
    Migration {
        version: 15,
        name: "descriptions",
        sql: include_str!("../sql/migrations/015_descriptions.sql"),
    },
];

/// The roles that `sql/setup/roles.sql` makes.
const ROLE_OPTIONS: [(&str, &str); 5] = [
    ("benefits_owner", "nologin; owns the schema, reads what is described"),
    ("benefits_service", "login; keeps the ledger, reads records through functions"),
    ("benefits_reader", "login replication; reads the slot"),
    ("benefits_viewer", "nologin; for HR users who look"),
    ("benefits_manager", "nologin; for HR users who act"),
];

/// What a DBA is told above the SQL.
const HEADER: &str = "\
-- benefits-sync: what setup runs, for psql in database {database}.
-- Nothing here touches an HR table. All of it goes away with: benefits-sync teardown
--
-- Who can run it: a superuser; or a login with CREATEROLE and CREATE on the database, which for the description is also a member
-- of the role that owns the HR tables. What such a login cannot do has to be run by a superuser first:
--   create role benefits_reader login replication;    -- from PostgreSQL 16 on a login that has REPLICATION itself can do this, too
--   grant pg_read_all_stats to benefits_owner;         -- optional: else status cannot say whose transaction pins the WAL
--
-- Afterwards:
--   \\password benefits_service        \\password benefits_reader
--   pg_hba.conf, by the database's name, and no line with \"replication\" in its place: REPLICATION then reads a slot of this
--   database, and can take no base backup:
--     hostssl  {database}  benefits_service  <address of benefits-sync>/32  scram-sha-256
--     hostssl  {database}  benefits_reader   <address of benefits-sync>/32  scram-sha-256
--   What REPLICATION allows: to read every table of this database through a slot, and to drop slots. Guard it as a DBA's.
--   Then describe the site (describe_record, describe_source). The slot {slot} is made by benefits-sync run, because a slot
--   that nobody reads keeps WAL.
\\set ON_ERROR_STOP on
";

/// How often a step is tried that met others' locks; each try waits 5 s at most.
const TRIES: u32 = 10;
/// The time that others have to finish before the next try.
const BETWEEN_TRIES: std::time::Duration = std::time::Duration::from_millis(300);

const LACKING: &str = include_str!("../sql/setup/lacking.sql");
const ROLES: &str = include_str!("../sql/setup/roles.sql");
const SCHEMA: &str = include_str!("../sql/setup/schema.sql");
const IN_THE_WAY: &str = include_str!("../sql/setup/in_the_way.sql");
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
    /// The DBA's login has too little power; nothing was changed.
    #[error("{login} lacks what setup needs, and nothing was changed. Have a superuser run:\n{}", lines(.lacking))]
    Power {
        /// The DBA.
        login: String,
        /// What is lacking.
        lacking: Vec<Lacking>,
    },
    /// Teardown would break something; nothing was removed.
    #[error("nothing was removed:\n  {}", .0.join("\n  "))]
    InTheWay(Vec<String>),
    /// A step failed.
    #[error("{step}: {}", .source.with_raised())]
    Step {
        /// Which.
        step: String,
        /// Why.
        source: LedgerError,
    },
    /// Others held locks that a step needs, at every try.
    #[error(
        "{step}: {source}. It was tried {tried} times and nothing of this step was done: end the session that holds the lock \
         (pg_blocking_pids tells whose), or run setup again when the tables are quiet"
    )]
    Locked {
        /// Which.
        step: String,
        /// How often.
        tried: u32,
        /// What PostgreSQL said at the last try.
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

/// A power that the DBA's login lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lacking {
    /// What.
    pub what: String,
    /// SQL that mends it.
    pub remedy: String,
}

fn lines(lacking: &[Lacking]) -> String {
    let line = |one: &Lacking| format!("  {}\n      -- it lacks {}", one.remedy, one.what);
    lacking.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// One step of the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What it is for.
    pub title: String,
    /// What is run, in one transaction.
    pub sql: String,
}

/// Every migration's version, in order.
pub fn versions() -> impl Iterator<Item = i32> {
    MIGRATIONS.iter().map(|migration| migration.version)
}

/// The whole plan for an empty database.
pub fn plan(config: &Config) -> Vec<Step> {
    steps(config, None)
}

/// What is missing where these migrations have been applied; `None` where there is no schema.
fn steps(config: &Config, applied: Option<&[i32]>) -> Vec<Step> {
    let mut steps = vec![Step { title: "roles".to_owned(), sql: ROLES.to_owned() }];
    if applied.is_none() {
        steps.push(Step { title: "schema benefits".to_owned(), sql: SCHEMA.to_owned() });
    }
    for migration in missing(applied) {
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

/// Migrations that are still to be applied.
fn missing(applied: Option<&[i32]>) -> impl Iterator<Item = &'static Migration> {
    let applied = applied.unwrap_or_default();
    MIGRATIONS.iter().filter(|migration| !applied.contains(&migration.version))
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
    for (login, role) in logins(config) {
        sql.extend([format!("select benefits.grant_login({}, '{role}');\n", literal(&login))]);
    }
    sql
}

/// The logins of the URLs, which may have names of their own, and the role that each has to be a member of.
fn logins(config: &Config) -> Vec<(String, &'static str)> {
    [(&config.database.url, "benefits_service"), (config.replication_url(), "benefits_reader")]
        .into_iter()
        .filter_map(|(url, role)| Some((Target::parse(url.expose_secret()).ok()?.user, role)))
        .collect()
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// The whole plan as text that psql runs as it is: for an empty database, or with `admin` for what that one lacks.
pub async fn script(admin: Option<&Target>, config: &Config) -> Result<String, SetupError> {
    let applied = match admin {
        None => None,
        Some(admin) => applied(&*Session::connect(admin, "benefits-sync setup").await?).await?,
    };
    let database = Target::parse(config.database.url.expose_secret())?.database;
    let header = HEADER.replace("{database}", &database);
    let mut text = header.replace("{slot}", &config.database.slot);
    for step in steps(config, applied.as_deref()) {
        text.extend([format!(
            "\n-- {}\nbegin;\nset local lock_timeout = '5s';\n{}commit;\n",
            step.title, step.sql
        )]);
    }
    Ok(text)
}

/// What [`apply`] would change, a line each; empty where everything is there. Changes nothing.
pub async fn changes(admin: &Target, config: &Config) -> Result<Vec<String>, SetupError> {
    let session = Session::connect(admin, "benefits-sync setup").await?;
    let applied = applied(&session).await?;
    let asked = |source| SetupError::Step { step: "look at what is there".to_owned(), source };
    let sql = "select r.name, r.options from unnest($1::text[], $2::text[]) with ordinality as r (name, options, n) \
               where not exists (select from pg_roles as k where k.rolname = r.name) order by r.n";
    let (names, options): (Vec<&str>, Vec<&str>) = ROLE_OPTIONS.iter().copied().unzip();
    let rows = session.query("look for roles", sql, &[&names, &options]).await.map_err(asked)?;
    let mut changes: Vec<String> = rows
        .iter()
        .map(|row| format!("create role {} ({})", row.get::<_, &str>(0), row.get::<_, &str>(1)))
        .collect();
    if applied.is_none() {
        changes.push("create schema benefits, owned by benefits_owner".to_owned());
    }
    for migration in missing(applied.as_deref()) {
        changes.push(format!("migrate schema benefits to {:03} {}", migration.version, migration.name));
    }
    let publication = &config.database.publication;
    let sql = "select exists (select from pg_publication where pubname = $1::text::name)";
    let rows = session.query("look for the publication", sql, &[publication]).await.map_err(asked)?;
    if !rows.first().is_some_and(|row| row.get(0)) {
        changes.push(format!(
            "create publication {publication} for our command tables (HR's follow with the description)"
        ));
    }
    for (login, role) in logins(config) {
        let sql = "select exists (select from pg_roles as r where r.rolname = $1::text::name and not r.rolsuper \
                   and $1::text <> $2::text and not exists (select from pg_auth_members as m \
                   where m.member = r.oid and m.roleid = (select o.oid from pg_roles as o where o.rolname = $2::text)))";
        let rows = session.query("look for a login", sql, &[&login, &role]).await.map_err(asked)?;
        if rows.first().is_some_and(|row| row.get(0)) {
            changes.push(format!("grant {role} to {login}"));
        }
    }
    if !config.ledger.fingerprint_key_file.exists() {
        changes.push(format!("make a fingerprint key in {}", config.ledger.fingerprint_key_file.display()));
    }
    Ok(changes)
}

/// What the DBA's login lacks to run the set-up; empty for a superuser.
pub async fn lacking(admin: &Target, config: &Config) -> Result<Vec<Lacking>, SetupError> {
    lacking_in(&*Session::connect(admin, "benefits-sync setup").await?, config).await
}

async fn lacking_in(session: &Session, config: &Config) -> Result<Vec<Lacking>, SetupError> {
    let asked = |source| SetupError::Step { step: "look at the login's powers".to_owned(), source };
    let roles = ROLE_OPTIONS.map(|(name, _)| name);
    let parameters: &[&(dyn ToSql + Sync)] = &[&&roles[..], &config.database.publication];
    let rows = session.query("look at the login's powers", LACKING, parameters).await.map_err(asked)?;
    Ok(rows.iter().map(|row| Lacking { what: row.get(0), remedy: row.get(1) }).collect())
}

/// Applies what is missing; the titles of the steps that were run.
pub async fn apply(admin: &Target, config: &Config) -> Result<Vec<String>, SetupError> {
    let session = Session::connect(admin, "benefits-sync setup").await?;
    let lacking = lacking_in(&session, config).await?;
    if !lacking.is_empty() {
        return Err(SetupError::Power { login: admin.user.clone(), lacking });
    }
    let steps = steps(config, applied(&session).await?.as_deref());
    for step in &steps {
        apply_step(&session, step).await?;
    }
    make_key(&config.ledger.fingerprint_key_file)?;
    Ok(steps.into_iter().map(|step| step.title).collect())
}

/// Removes everything of ours from the database, and nothing of HR's with it; what was removed, a line each.
pub async fn remove(admin: &Target, config: &Config) -> Result<Vec<String>, SetupError> {
    let session = Session::connect(admin, "benefits-sync teardown").await?;
    let failed = |source| SetupError::Step { step: "teardown".to_owned(), source };
    // Asked before anything is done: a slot that is dropped does not come back with the transaction.
    let rows = session.query("look for what is in the way", IN_THE_WAY, &[&config.database.slot]).await;
    let in_the_way: Vec<String> = rows.map_err(failed)?.iter().map(|row| row.get(0)).collect();
    if !in_the_way.is_empty() {
        return Err(SetupError::InTheWay(in_the_way));
    }
    let sql = TEARDOWN
        .replace(":'slot'", &literal(&config.database.slot))
        .replace(":'publication'", &literal(&config.database.publication));
    run(&session, "teardown", &sql).await?;
    let rows = session.query("report", "select line from pg_temp.benefits_removed order by n", &[]).await;
    Ok(rows.map_err(failed)?.iter().map(|row| row.get(0)).collect())
}

/// Runs one step in a transaction of its own. Whoever works in the schema meanwhile goes first: a step waits for a lock no
/// longer than 5 s, gives way, and comes again, ten times at most.
pub async fn apply_step(session: &Session, step: &Step) -> Result<(), SetupError> {
    tracing::info!(step = step.title, "setting up");
    let sql = format!(
        "begin; set local lock_timeout = '5s'; set local client_min_messages = warning;\n{}\ncommit;",
        step.sql
    );
    run(session, &step.title, &sql).await
}

async fn run(session: &Session, step: &str, sql: &str) -> Result<(), SetupError> {
    let failed = |source| SetupError::Step { step: step.to_owned(), source };
    for tried in 1.. {
        let Err(source) = session.batch("run a step of the set-up", sql).await else { break };
        if !source.gave_way() {
            return Err(failed(source));
        }
        session.batch("undo a step of the set-up", "rollback").await.map_err(failed)?;
        if tried == TRIES {
            return Err(SetupError::Locked { step: step.to_owned(), tried, source });
        }
        tracing::warn!(step, tried, "another session holds a lock that this step needs; trying again");
        tokio::time::sleep(BETWEEN_TRIES).await;
    }
    Ok(())
}

/// The migrations that have been applied, in order; `None` without a schema. A set-up that was cut off may have left none in one.
async fn applied(session: &Session) -> Result<Option<Vec<i32>>, SetupError> {
    let failed = |source| SetupError::Step { step: "read the schema's version".to_owned(), source };
    let sql = "select to_regclass('benefits.migration') is not null";
    let rows = session.query("look for the schema", sql, &[]).await.map_err(failed)?;
    if !rows.first().is_some_and(|row| row.get(0)) {
        return Ok(None);
    }
    let sql = "select version from benefits.migration order by version";
    let rows = session.query("read the schema's version", sql, &[]).await.map_err(failed)?;
    Ok(Some(rows.iter().map(|row| row.get(0)).collect()))
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
