//! The clock: what comes with time and not with a save.
//!
//! At the site's midnight the dated rows that begin or end with the day mark their employees: nobody has saved anything, so
//! the stream is silent. The ledger notes the last day that was marked, so that any number of instances mark a day once, and
//! a midnight without one is made up at the next start. How long it is to midnight is PostgreSQL's word: its clock and its
//! zone rules are those that `benefits.today()` follows, across daylight saving. The history's partitions are kept here, too.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::delivery::dispatch::Notice;
use crate::ledger::{LedgerError, Session};
use crate::postgres::Target;

/// The longest pause: a clock that was put forward, or a machine that slept, is noticed within it.
const PAUSE_MAX: Duration = Duration::from_mins(5);
/// The pause while PostgreSQL is away.
const AWAY: Duration = Duration::from_secs(5);

pub(super) async fn run(
    config: Arc<Config>,
    target: Target,
    notify: mpsc::Sender<Notice>,
    shutdown: CancellationToken,
) {
    let mut session: Option<Arc<Session>> = None;
    loop {
        let looked = async {
            let open = super::reopened(&mut session, &target, "benefits-sync clock").await.ok()?;
            match look(&open, &config, &notify).await {
                Ok(pause) => Some(pause),
                Err(error) => {
                    tracing::warn!(%error, "the dated rows of today could not be looked at; trying again");
                    None
                }
            }
        };
        let Some(looked) = shutdown.run_until_cancelled(looked).await else { return };
        if looked.is_none() {
            session = None;
        }
        let pause = tokio::time::sleep(looked.unwrap_or(AWAY));
        if shutdown.run_until_cancelled(pause).await.is_none() {
            return;
        }
    }
}

/// Marks for today, unless that is done; how long to wait.
async fn look(
    session: &Session,
    config: &Config,
    notify: &mpsc::Sender<Notice>,
) -> Result<Duration, LedgerError> {
    let described = "select to_regprocedure('benefits.read_becoming(date, date)') is not null";
    let rows = session.query("look for dated sources", described, &[]).await?;
    if rows.first().is_some_and(|row| row.get(0)) {
        let minimum = i32::try_from(config.guard.minimum).unwrap_or(i32::MAX);
        let sql = include_str!("../../sql/queries/mark_becoming.sql");
        let rows =
            session.query("mark whose rows become current", sql, &[&minimum, &config.guard.fraction]).await?;
        if !rows.is_empty() {
            tracing::info!(employees = rows.len(), "dated rows became current at midnight");
            // A dispatcher that is behind finds them by its scan.
            drop(notify.try_send(Notice::Marked { employees: Vec::new(), rescan: true }));
        }
    }
    let months = i32::try_from(config.ledger.history_months).unwrap_or(i32::MAX);
    session.execute("keep the history's months", "select benefits.keep_history($1)", &[&months]).await?;
    let sql = "select extract(epoch from benefits.until_midnight(clock_timestamp()))::float8";
    let rows = session.query("ask how long it is to midnight", sql, &[]).await?;
    let seconds = rows.first().map_or(0.0, |row| row.get::<_, f64>(0));
    // A moment behind midnight rather than a moment before it.
    let pause =
        Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(PAUSE_MAX) + Duration::from_millis(20);
    Ok(pause.min(PAUSE_MAX))
}
