//! `doctor`: every precondition and every cost of ours, for the DBA; it never writes.
//!
//! ```text
//!  server ──▶ description, publication ──▶ privileges ──▶ record query's plan ──▶ platform ──▶ Report
//!  (facts are asked for in one statement an area; judging them is pure and has no I/O)
//! ```
//!
//! Each line is a [`Check`] with a stable id, and where it is not ok with what mends it: SQL to be run as a DBA, or a setting.
//! A warning is a thing that will hurt one day; a failed check is one that the pipeline does not work with.

mod configuration;
mod cost;
mod description;
mod plan;
mod platform;
mod privileges;
mod server;

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_postgres::types::ToSql;

use crate::config::Config;
use crate::ledger::{LedgerError, Session};
use crate::paint::Paint;
use crate::postgres::{ConnectError, SessionAttributes, Target, TargetError};
use crate::replication::Connection;

/// Between the two looks that the WAL's rate is taken from.
const SAMPLE: Duration = Duration::from_millis(300);

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// It works, and will hurt one day.
    Warning,
    /// It does not work like this.
    Failed,
}

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Stable name: `server.wal_level`.
    pub id: &'static str,
    /// How it came out.
    pub level: Level,
    /// What was found.
    pub text: String,
    /// SQL or a setting that mends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Check {
    fn ok(id: &'static str, text: impl Into<String>) -> Self {
        Self { id, level: Level::Ok, text: text.into(), remedy: None }
    }

    fn warning(id: &'static str, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { id, level: Level::Warning, text: text.into(), remedy: Some(remedy.into()) }
    }

    fn failed(id: &'static str, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { id, level: Level::Failed, text: text.into(), remedy: Some(remedy.into()) }
    }
}

/// All checks.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Whether the database has our schema.
    pub set_up: bool,
    /// In the order in which they were made.
    pub checks: Vec<Check>,
}

impl Report {
    /// The gravest level.
    pub fn worst(&self) -> Level {
        self.checks.iter().map(|check| check.level).max().unwrap_or(Level::Ok)
    }

    /// The ids of what is not ok.
    pub fn findings(&self) -> Vec<&'static str> {
        self.checks.iter().filter(|check| check.level != Level::Ok).map(|check| check.id).collect()
    }

    /// For people.
    pub(crate) fn render(&self, paint: Paint) -> String {
        let mut text = String::new();
        for check in &self.checks {
            let mark = match check.level {
                Level::Ok => paint.good("ok     "),
                Level::Warning => paint.warning("warning"),
                Level::Failed => paint.bad("failed "),
            };
            text.extend([format!("{mark}  {:<26} {}\n", check.id, check.text)]);
            for line in check.remedy.iter().flat_map(|remedy| remedy.lines()) {
                text.extend([format!("{:36} {}\n", "", paint.faint(line))]);
            }
        }
        let count = |level| self.checks.iter().filter(|check| check.level == level).count();
        text + &format!(
            "{} ok, {} to look at, {} failed\n",
            count(Level::Ok),
            count(Level::Warning),
            count(Level::Failed)
        )
    }
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum DoctorError {
    /// A URL cannot be used.
    #[error("{key}: {source}")]
    Target {
        /// `database.url` or `database.replication_url`.
        key: &'static str,
        /// Why.
        source: TargetError,
    },
}

/// Makes every check that can be made.
pub async fn run(config: &Config) -> Result<Report, DoctorError> {
    let named = |key| move |source| DoctorError::Target { key, source };
    let sql = Target::for_ledger(&config.database).map_err(named("database.url"))?;
    let replication = Target::for_replication(&config.database).map_err(named("database.replication_url"))?;
    let mut checks = Vec::new();
    let session = match Session::connect(&sql, "benefits-sync doctor").await {
        Ok(session) => session,
        Err(error) => {
            checks.push(unreachable("server.reachable", "database.url", &error));
            checks.extend(platform::check(config, None).await);
            return Ok(Report { set_up: true, checks });
        }
    };
    checks.push(Check::ok("server.reachable", format!("connected to {sql}")));
    let set_up = match examine(config, &session, (&sql, &replication), &mut checks).await {
        Ok(set_up) => set_up,
        Err(error) => {
            checks.push(Check::failed("server.answers", error.to_string(), "look at PostgreSQL's log"));
            true
        }
    };
    Ok(Report { set_up, checks })
}

/// Whether the database is set up.
async fn examine(
    config: &Config,
    session: &Arc<Session>,
    (sql, replication): (&Target, &Target),
    checks: &mut Vec<Check>,
) -> Result<bool, LedgerError> {
    let first = look_at_server(config, session).await?;
    tokio::time::sleep(SAMPLE).await;
    let server = look_at_server(config, session).await?;
    checks.extend(server::judge(config, &server, server.wal_rate_since(&first)));
    checks.push(reader(replication).await);
    if !server.has_schema {
        checks.push(Check::failed(
            "ledger.schema",
            "the database has no schema benefits",
            "benefits-sync setup --admin-url postgresql://a-dba@.../database   (--print shows the SQL first)",
        ));
        checks.extend(platform::check(config, None).await);
        return Ok(false);
    }
    let query = include_str!("../../sql/queries/doctor_description.sql");
    let described: description::Facts =
        match facts(session, "look at the description", query, &[&config.database.publication]).await {
            Ok(described) => described,
            Err(error) => {
                checks.push(Check::failed(
                    "ledger.schema",
                    format!("the schema benefits cannot be read: {error}"),
                    "benefits-sync setup   (as a DBA: it adds what is missing)",
                ));
                return Ok(true);
            }
        };
    checks.extend(server::judge_slot(config, &server, described.has_started));
    if let Some(slot) = &server.slot {
        checks.extend(standbys(config, sql, slot.has_failover).await);
    }
    checks.extend(description::judge(config, &described));
    let query = include_str!("../../sql/queries/doctor_privileges.sql");
    match facts(session, "look at the privileges", query, &[&replication.user]).await {
        Ok(found) => checks.extend(privileges::judge(&found, &replication.user)),
        Err(error) => {
            checks.push(Check::failed("privileges.service", error.to_string(), "benefits-sync setup"));
        }
    }
    let failed = |id| checks.iter().any(|check| check.id == id && check.level == Level::Failed);
    // What follows from another finding is not told a second time.
    if described.is_described
        && !failed("description.drift")
        && !failed("privileges.owner")
        && !failed("privileges.service")
    {
        checks.extend(plan::check(session).await);
        checks.push(plan::search(session, described.has_search).await);
    }
    let told = |id| checks.iter().any(|check| check.id == id && check.level == Level::Failed);
    if told("privileges.reader") || told("server.wal_senders") {
        checks.retain(|check| check.id != "reader.connects");
    }
    checks.extend(configuration::check(config, &described));
    checks.extend(platform::check(config, Some((&described, server.now))).await);
    checks.extend(cost::check(session, &server, &described, &config.database.slot).await);
    Ok(true)
}

async fn look_at_server(config: &Config, session: &Session) -> Result<server::Facts, LedgerError> {
    let sql = include_str!("../../sql/queries/doctor_server.sql");
    facts(session, "look at the server", sql, &[&config.database.slot, &config.reconcile.time_zone]).await
}

/// The other hosts of `database.url`, each asked by itself; for their copies of the slot, where there should be any.
async fn standbys(config: &Config, target: &Target, has_failover: bool) -> Vec<Check> {
    let mut checks = Vec::new();
    if target.endpoints.len() < 2 {
        return checks;
    }
    for endpoint in &target.endpoints {
        let host = endpoint.to_string();
        let mut alone = target.clone();
        alone.endpoints = vec![endpoint.clone()];
        alone.session = SessionAttributes::Any;
        let looked = match Session::connect(&alone, "benefits-sync doctor").await {
            Ok(session) => look_at_server(config, &session).await.map_err(|error| error.to_string()),
            Err(error) => Err(error.primary().clone()),
        };
        match looked {
            Ok(facts) if !has_failover && facts.version_number >= 170_000 => {}
            Ok(facts) => checks.extend(server::judge_standby(&host, &facts, &config.database.slot)),
            Err(why) => checks.push(Check::warning(
                "server.hosts",
                format!("{host}, a host of database.url, does not answer: {why}"),
                "start it, or take it out of database.url and database.replication_url: after a failover there would be nobody",
            )),
        }
    }
    checks
}

/// The reader's login proves itself: it can open a replication connection, which writes nothing.
async fn reader(target: &Target) -> Check {
    let id = "reader.connects";
    match Connection::connect(target).await {
        Ok(mut connection) => match connection.identify_system().await {
            Ok(_) => Check::ok(id, format!("a replication connection as {} works", target.user)),
            Err(error) => Check::failed(
                id,
                format!("{error}: {}", error.detail().unwrap_or_default()),
                error.hint().unwrap_or_default(),
            ),
        },
        Err(error) => Check::failed(
            id,
            format!("no replication connection as {}: {error} {}", target.user, error.detail().unwrap_or_default()),
            error.hint().map_or_else(
                || {
                    format!(
                        "alter role {} replication;   and in pg_hba.conf a line for database {} (logical replication names it)",
                        target.user, target.database
                    )
                },
                Into::into,
            ),
        ),
    }
}

fn unreachable(id: &'static str, key: &str, error: &ConnectError) -> Check {
    let detail = error.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
    Check::failed(id, format!("{key}: {}{detail}", error.primary()), error.hint().unwrap_or_default())
}

/// One document of facts.
async fn facts<T: DeserializeOwned>(
    session: &Session,
    what: &'static str,
    sql: &str,
    params: &[&(dyn ToSql + Sync)],
) -> Result<T, LedgerError> {
    let rows = session.query(what, sql, params).await?;
    let document: serde_json::Value = rows.first().map(|row| row.get(0)).unwrap_or_default();
    serde_json::from_value(document).map_err(|error| LedgerError::Unexpected(error.to_string()))
}

/// A name as SQL wants it.
fn ident(name: &str) -> String {
    let plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        && !name.starts_with(|c: char| c.is_ascii_digit());
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}
