//! `status`: one screen about the state of things, for an operator.
//!
//! ```text
//!  show_status.sql (one snapshot of ledger, slot and cluster) ──┐
//!                                                               ├──▶ Status ──▶ screen, or JSON
//!  /readyz and /metrics of the instance on this machine ────────┘
//! ```
//!
//! What is durable is asked of PostgreSQL, so that it is true whichever instance reads; what only a process knows (its
//! breaker, why it is not ready) is asked of the instance that `http.listen` names, if one answers there.

mod instance;
mod screen;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::ledger::{LedgerError, Session, Trouble};
use crate::pipeline::{self, CheckError};

pub use instance::Instance;
pub(crate) use screen::{render, render_away};

/// Why there is no status.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// No session.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// There is no ledger, or one of another version.
    #[error(
        "the database has no schema benefits, or one of another version: run benefits-sync setup first ({0})"
    )]
    NotSetUp(LedgerError),
    /// A statement failed.
    #[error(transparent)]
    Ledger(LedgerError),
}

impl StatusError {
    /// Whether waiting can help: PostgreSQL is away.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Check(error) => !matches!(error, CheckError::Start(_)),
            Self::Ledger(error) => error.trouble() == Trouble::Passing,
            Self::NotSetUp(_) => false,
        }
    }
}

impl From<LedgerError> for StatusError {
    fn from(error: LedgerError) -> Self {
        match error.trouble() {
            Trouble::Site => Self::NotSetUp(error),
            Trouble::Passing | Trouble::Data => Self::Ledger(error),
        }
    }
}

/// Everything that the screen shows.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// What it comes to.
    pub verdict: Verdict,
    /// Whether the WAL is read, and if not why not.
    pub streaming: Streaming,
    /// The instance on this machine.
    pub instance: Instance,
    /// What the database says.
    #[serde(flatten)]
    pub ledger: Ledger,
}

/// What a status comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Everything that HR has is at the platform.
    InStep,
    /// Changes are on their way.
    Working,
    /// Nothing is stuck, but some employees' records were refused.
    SomeFailed,
    /// A person has to act.
    Stopped,
}

/// Whether the WAL is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Streaming {
    /// Whether.
    pub up: bool,
    /// Where from, or why not.
    pub why: String,
}

/// What the database says; see `sql/queries/show_status.sql`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ledger {
    /// The server.
    pub server: Server,
    /// The slot.
    pub slot: Slot,
    /// The oldest writing transaction of the cluster, which keeps the slot's `restart_lsn` where it is.
    pub oldest_transaction: Option<Transaction>,
    /// The site.
    pub site: SiteState,
    /// How far the ledger has followed the WAL; `None` before the first start.
    pub checkpoint: Option<Checkpoint>,
    /// Employees by state.
    pub employees: Option<BTreeMap<String, i64>>,
    /// Employees with a change that is not acknowledged.
    pub pending: Pending,
    /// Commands that the reader has not come to.
    pub requests: i64,
    /// Deliveries of the last hour.
    pub last_hour: LastHour,
    /// Why employees have failed, the most frequent first.
    pub errors: Vec<Failing>,
    /// Mass changes that wait for a person.
    #[serde(default)]
    pub holds: Vec<Hold>,
}

/// The server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Server {
    /// `server_version`.
    pub version: String,
    /// The database.
    pub database: String,
    /// `max_slot_wal_keep_size` in bytes; negative where nothing limits it.
    pub keep_bytes: i64,
    /// WAL written a second, on average since the statistics were reset.
    pub wal_bytes_per_second: Option<i64>,
}

/// The slot.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "facts, each answered by itself")]
pub struct Slot {
    /// Whether there is one.
    pub has_slot: bool,
    /// Whether it is a slot of this database.
    pub is_ours: bool,
    /// Whether somebody reads it.
    pub is_active: bool,
    /// Whether the server is a standby.
    pub is_standby: bool,
    /// `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: Option<String>,
    /// Why it is lost, where the server says (17 and later).
    pub why_lost: Option<String>,
    /// `streaming`, `catchup`.
    pub stream_state: Option<String>,
    /// Where its reader is.
    pub reader_address: Option<String>,
    /// The reader's backend.
    pub reader_pid: Option<i32>,
    /// WAL between the server's end and what the ledger has confirmed.
    pub unconfirmed_bytes: Option<i64>,
    /// WAL between the server's end and what the reader has received.
    pub unreceived_bytes: Option<i64>,
    /// WAL that the slot keeps on disk.
    pub retained_bytes: Option<i64>,
    /// WAL that can be written before the slot is lost; `None` where nothing limits it.
    pub safe_wal_size: Option<i64>,
    /// The reader's lag in seconds, where PostgreSQL measured one lately.
    pub flush_lag_seconds: Option<f64>,
    /// Since when nobody reads it (17 and later).
    pub inactive_seconds: Option<f64>,
}

/// An open transaction.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Transaction {
    /// `session` or `prepared`.
    pub kind: String,
    /// Its backend.
    pub pid: Option<i32>,
    /// Whose it is.
    pub username: Option<String>,
    /// In which database.
    pub database: Option<String>,
    /// `application_name`, or the prepared transaction's id.
    pub application: Option<String>,
    /// `active`, `idle in transaction`, `prepared`.
    pub state: Option<String>,
    /// How long it has been open.
    pub age_seconds: Option<f64>,
}

/// The site's switches.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SiteState {
    /// The platform that the ledger is about.
    pub platform_id: Option<String>,
    /// Whether the site is described.
    pub described: bool,
    /// Paused by a person, who said why.
    pub paused: Option<String>,
    /// Halted, by what.
    pub halted: Option<String>,
    /// Why the ledger may not know what the platform holds.
    pub doubt: Option<String>,
}

/// How far the ledger has followed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Through which slot.
    pub slot: String,
    /// Every relevant commit up to here is in the ledger.
    pub lsn: String,
    /// When everyone was last compared.
    pub reconciled_seconds_ago: Option<f64>,
}

/// What is pending.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Pending {
    /// How many employees.
    pub employees: i64,
    /// Since when the oldest.
    pub oldest_seconds: Option<f64>,
    /// How many of them are in a hold.
    pub held: i64,
    /// How many are being sent.
    pub under_way: i64,
    /// How many were tried without an answer.
    pub retrying: i64,
}

/// Deliveries of the last hour.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LastHour {
    /// Acknowledged.
    pub sent: i64,
    /// Rejected.
    pub failed: i64,
    /// From HR's commit to the acknowledgement.
    pub median_latency_seconds: Option<f64>,
}

/// Employees that have failed for one reason.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Failing {
    /// The error code.
    pub code: String,
    /// How many.
    pub employees: i64,
    /// How long ago the newest failed.
    pub newest_seconds: Option<f64>,
    /// Who that is.
    pub newest_employee: Option<String>,
}

/// A mass change that waits.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Hold {
    /// To release or discard it by.
    pub hold_id: i64,
    /// Why.
    pub reason: String,
    /// How many employees.
    pub employees: i64,
    /// Since when.
    pub age_seconds: f64,
    /// Who changed them.
    pub transaction_user: Option<String>,
}

/// Looks again and again, over one session for as long as that lasts.
pub struct Observer {
    session: Option<Arc<Session>>,
    config: Config,
}

impl Observer {
    /// Connects as the service when it looks.
    pub fn new(config: Config) -> Self {
        Self { session: None, config }
    }

    /// Looks. After an error the next look connects anew.
    pub async fn look(&mut self) -> Result<Status, StatusError> {
        let session = match self.session.take() {
            Some(session) => session,
            None => pipeline::connect(&self.config, "benefits-sync status").await?,
        };
        let status = self.look_over(&session).await?;
        self.session = Some(session);
        Ok(status)
    }

    async fn look_over(&self, session: &Session) -> Result<Status, StatusError> {
        let sql = include_str!("../../sql/queries/show_status.sql");
        let rows = session.query("look at the status", sql, &[&self.config.database.slot]).await?;
        let document: serde_json::Value = rows.first().map(|row| row.get(0)).unwrap_or_default();
        let mut ledger: Ledger = serde_json::from_value(document)
            .map_err(|error| StatusError::Ledger(LedgerError::Unexpected(error.to_string())))?;
        ledger.holds = holds(session).await?;
        let instance = Instance::ask(self.config.http.listen).await;
        let streaming = streaming(&ledger);
        Ok(Status { verdict: verdict(&ledger, &instance, &streaming), streaming, instance, ledger })
    }
}

async fn holds(session: &Session) -> Result<Vec<Hold>, StatusError> {
    let sql = include_str!("../../sql/queries/show_holds.sql");
    let rows = session.query("look at the holds", sql, &[]).await?;
    Ok(rows
        .iter()
        .map(|row| Hold {
            hold_id: row.get("hold_id"),
            reason: row.get("reason"),
            employees: row.get("employees"),
            age_seconds: row.get("age_seconds"),
            transaction_user: row.get("transaction_user"),
        })
        .collect())
}

fn streaming(ledger: &Ledger) -> Streaming {
    let slot = &ledger.slot;
    let no = |why: String| Streaming { up: false, why };
    if !ledger.site.described {
        return no("the site is not described yet (describe_record, describe_source)".to_owned());
    }
    if !slot.has_slot {
        return no(match &ledger.checkpoint {
            None => "there is no slot yet: benefits-sync run makes it".to_owned(),
            Some(held) => format!(
                "the slot {} is gone: benefits-sync run makes a new one and compares everyone",
                held.slot
            ),
        });
    }
    if !slot.is_ours {
        return no("the slot belongs to another database: choose another database.slot".to_owned());
    }
    if slot.wal_status.as_deref() == Some("lost") {
        let why = slot.why_lost.as_deref().map(|why| format!(" ({why})")).unwrap_or_default();
        return no(format!("the slot is lost{why}: benefits-sync run makes a new one and compares everyone"));
    }
    if !slot.is_active {
        let since =
            slot.inactive_seconds.map(|s| format!(" for {}", crate::paint::span(s))).unwrap_or_default();
        return no(format!("nobody has read the slot{since}: is benefits-sync run up?"));
    }
    let from = slot.reader_address.as_deref().map(|address| format!(" to {address}")).unwrap_or_default();
    match slot.stream_state.as_deref() {
        None | Some("streaming") => Streaming { up: true, why: format!("streaming{from}") },
        Some("catchup") => Streaming { up: true, why: format!("catching up{from}") },
        Some(other) => no(format!("the slot is held{from}, in state {other}")),
    }
}

fn verdict(ledger: &Ledger, instance: &Instance, streaming: &Streaming) -> Verdict {
    let site = &ledger.site;
    let stopped = !streaming.up
        || site.paused.is_some()
        || site.halted.is_some()
        || site.doubt.as_deref() == Some("platform")
        || !ledger.holds.is_empty()
        || instance.breaker.as_deref() == Some("open");
    if stopped {
        Verdict::Stopped
    } else if ledger.pending.employees > ledger.pending.held || ledger.requests > 0 {
        Verdict::Working
    } else if ledger.errors.is_empty() {
        Verdict::InStep
    } else {
        Verdict::SomeFailed
    }
}
