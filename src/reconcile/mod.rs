//! Reconcile: everyone, compared with what was last acknowledged.
//!
//! ```text
//!  doubt, local midnight, on demand
//!      │
//!      ├─ (platform) every account ──▶ links, version floors, acknowledged fingerprints
//!      ├─ HR's roster ──▶ hires, who has gone, missed starters ──▶ benefits.request ──▶ WAL ──▶ reader
//!      ├─ requests that nobody passed ──▶ touched ─────────────────────────────────────▶ WAL ──▶ reader
//!      └─ everyone who is synced, page by page: whose rows, then record against acknowledged ──▶ pending
//! ```
//!
//! Whoever has to be enrolled is asked for in `benefits.request` and never enrolled here: the reader's membership is in
//! memory and in the order of the WAL. A page's rows are seeded before its records are read, so that a child row which
//! leaves an employee is met by the stream or seen in the record. Marking somebody twice is harmless; so is a comparison that
//! is broken off: it clears no doubt, and starts again.
//!
//! One comparison runs at a time, whatever the number of instances: a session-level advisory lock says whose.

pub mod cli;
mod hr;
mod platform;
mod report;
mod timetable;
mod verdict;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

pub use report::{PlatformReport, Report};
pub use timetable::Timetable;

use crate::config::Config;
use crate::delivery::client::{Client, SetupError};
use crate::delivery::outcome::Failure;
use crate::delivery::retry::Schedule;
use crate::delivery::site_rules;
use crate::ledger::doubt::{self, Doubt};
use crate::ledger::work::WorkError;
use crate::ledger::{LedgerError, Session};
use crate::metrics::Metrics;
use crate::postgres::{ConnectError, Target};
use crate::record::{FingerprintKey, Rules};

/// The advisory lock of whoever compares.
const LOCK_CLASS: i32 = 0x0062_7379;
const LOCK: i32 = -1;
/// Between two looks whether there is something to compare for.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Employees a page.
const PAGE: usize = 500;

/// Why a comparison did not end well. It is tried again.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// No session.
    #[error("{}", .0.primary())]
    Connect(#[from] ConnectError),
    /// A statement failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// Records cannot be read.
    #[error(transparent)]
    Work(#[from] WorkError),
    /// The HTTP client cannot be made as configured.
    #[error(transparent)]
    Client(#[from] SetupError),
    /// The platform cannot be asked.
    #[error("the platform cannot be asked: {0}")]
    Platform(Box<Failure>),
    /// The platform's pages do not end.
    #[error("the platform's list of accounts does not end: page {0} begins where an earlier one did")]
    Endless(u64),
    /// Deliveries of other instances have not ended.
    #[error("{0} deliveries are still under way; the platform is compared once they have ended")]
    UnderWay(i64),
    /// The site has no record query yet.
    #[error(
        "the site is not described yet: run its description with psql (describe_record, describe_source)"
    )]
    NotDescribed,
    /// The platform is not to be asked.
    #[error("benefits.enabled is false, so that nothing can be compared with the platform")]
    Disabled,
    /// Told to stop.
    #[error("stopped before the comparison had ended")]
    Stopped,
}

/// What is wanted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted {
    /// Count, and change nothing.
    pub dry_run: bool,
    /// Compare with the platform too.
    pub platform: bool,
}

/// How far a comparison is.
#[derive(Debug, Default)]
pub struct Progress {
    done: AtomicU64,
    total: AtomicU64,
}

impl Progress {
    /// Employees (and accounts) compared, and how many there are; 0 is not known yet.
    pub fn get(&self) -> (u64, u64) {
        (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed))
    }

    fn start(&self, total: u64) {
        self.done.store(0, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
    }

    fn add(&self, count: usize) {
        self.done.fetch_add(u64::try_from(count).unwrap_or(0), Ordering::Relaxed);
    }
}

/// One comparison, with all that it needs.
pub struct Comparison<'c> {
    /// The ledger.
    pub session: Arc<Session>,
    /// The configuration.
    pub config: &'c Config,
    /// Keys the fingerprints.
    pub key: &'c FingerprintKey,
    /// How far it is.
    pub progress: &'c Progress,
    /// Stops it between two pages.
    pub shutdown: &'c CancellationToken,
}

impl Comparison<'_> {
    /// Compares everyone. A doubt of the platform is answered whether it was asked for or not.
    pub async fn run(&self, wanted: Wanted) -> Result<Report, ReconcileError> {
        let began = std::time::Instant::now();
        let doubt = doubt::load(&self.session).await?;
        if !doubt.described {
            return Err(ReconcileError::NotDescribed);
        }
        let mut report = Report { dry_run: wanted.dry_run, doubt: doubt.why.clone(), ..Report::default() };
        let client = self.client()?;
        if wanted.platform || doubt.is_of_platform() {
            let client = client.as_ref().ok_or(ReconcileError::Disabled)?;
            report.platform = Some(self.compare_platform(client, &doubt, wanted.dry_run).await?);
        }
        let rules = self.rules(client.as_ref(), &doubt).await?;
        self.compare_hr(&rules, &doubt, wanted.dry_run, &mut report).await?;
        if !wanted.dry_run {
            let corrected = report.owners_corrected > 0;
            report.doubt_remains = !doubt::clear(&self.session, &doubt, corrected).await?;
        }
        report.seconds = began.elapsed().as_secs_f64();
        Ok(report)
    }

    fn client(&self) -> Result<Option<Client>, ReconcileError> {
        Ok(if self.config.benefits.enabled { Some(Client::new(self.config)?) } else { None })
    }

    /// In doubt a comparison without the platform's lists is better than none: it finds too many, and delivery finds that
    /// nothing differs. The nightly one waits for the platform instead.
    async fn rules(&self, client: Option<&Client>, doubt: &Doubt) -> Result<Rules, ReconcileError> {
        let rules = site_rules::load(&self.session, self.config, None).await?;
        let Some(client) = client else { return Ok(rules) };
        match site_rules::from_platform(client).await {
            Ok(lists) => Ok(rules.with(lists)),
            Err(failure) if doubt.why.is_some() => {
                tracing::warn!(reason = %failure, "the platform's lists cannot be had; everyone is compared without");
                Ok(rules)
            }
            Err(failure) => Err(ReconcileError::Platform(failure)),
        }
    }

    fn go_on(&self) -> Result<(), ReconcileError> {
        if self.shutdown.is_cancelled() { Err(ReconcileError::Stopped) } else { Ok(()) }
    }
}

/// Takes the lock of whoever compares, if nobody has it. It is held as long as the session.
pub async fn take_turn(session: &Session) -> Result<bool, LedgerError> {
    let sql = "select pg_try_advisory_lock($1::integer, $2::integer)";
    let rows = session.query("take a turn to compare", sql, &[&LOCK_CLASS, &LOCK]).await?;
    Ok(rows.first().is_some_and(|row| row.get(0)))
}

async fn end_turn(session: &Session) -> Result<(), LedgerError> {
    let sql = "select pg_advisory_unlock($1::integer, $2::integer)";
    session.query("end a turn to compare", sql, &[&LOCK_CLASS, &LOCK]).await.map(drop)
}

/// What the task of an instance needs.
pub struct Setting {
    /// The configuration.
    pub config: Arc<Config>,
    /// The ledger's database.
    pub target: Target,
    /// Keys the fingerprints.
    pub key: FingerprintKey,
    /// Counters.
    pub metrics: Metrics,
    /// Ends it.
    pub shutdown: CancellationToken,
}

/// Compares everyone whenever there is doubt, and once a night, until told to stop.
pub async fn supervise(setting: Setting) {
    // Checked with the configuration; without a timetable there is no nightly comparison.
    let timetable = Timetable::new(&setting.config.reconcile.daily_at, &setting.config.reconcile.time_zone);
    let schedule = Schedule::new(Duration::from_secs(1), Duration::from_mins(5));
    let mut session = None;
    let mut failures = 0;
    loop {
        let wait = if failures == 0 { LOOK_EVERY } else { LOOK_EVERY + schedule.delay(failures) };
        if setting.shutdown.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
            return;
        }
        match turn(&setting, timetable.as_ref(), &mut session).await {
            Ok(()) => failures = 0,
            Err(ReconcileError::Stopped) => return,
            Err(error) => {
                failures += 1;
                // The first failures are a failover or a restart, as often as not.
                if failures.is_power_of_two() {
                    tracing::warn!(%error, failures, "everyone could not be compared; it is tried again");
                }
                session = None;
            }
        }
    }
}

/// One look, and a comparison where it is due.
async fn turn(
    setting: &Setting,
    timetable: Option<&Timetable>,
    session: &mut Option<Arc<Session>>,
) -> Result<(), ReconcileError> {
    let session = crate::pipeline::reopened(session, &setting.target, "benefits-sync reconcile").await?;
    let due = |doubt: &Doubt| {
        doubt.described
            && (doubt.why.is_some() || timetable.is_some_and(|t| t.is_due(doubt.now, doubt.reconciled_at)))
    };
    if !due(&doubt::load(&session).await?) || !take_turn(&session).await? {
        return Ok(());
    }
    // Another instance may have done it between the look and the lock.
    let doubt = doubt::load(&session).await?;
    let compared = if due(&doubt) { compare(setting, &session, &doubt).await } else { Ok(()) };
    end_turn(&session).await?;
    compared
}

async fn compare(setting: &Setting, session: &Arc<Session>, doubt: &Doubt) -> Result<(), ReconcileError> {
    tracing::info!(why = doubt.why.as_deref().unwrap_or("the nightly time"), "everyone is compared");
    let progress = Progress::default();
    let comparison = Comparison {
        session: Arc::clone(session),
        config: &setting.config,
        key: &setting.key,
        progress: &progress,
        shutdown: &setting.shutdown,
    };
    let compared = {
        let mut run = std::pin::pin!(comparison.run(Wanted::default()));
        let mut told = tokio::time::interval(Duration::from_secs(10));
        told.tick().await;
        loop {
            tokio::select! {
                compared = &mut run => break compared,
                _ = told.tick() => {
                    let (done, of) = progress.get();
                    tracing::info!(done, of, "comparing everyone");
                }
            }
        }
    };
    match compared {
        Ok(report) => {
            setting.metrics.reconciled(true, report.differing, doubt.now);
            report.log();
            Ok(())
        }
        Err(error) => {
            setting.metrics.reconciled(false, 0, doubt.now);
            Err(error)
        }
    }
}
