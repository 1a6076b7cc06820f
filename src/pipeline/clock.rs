//! The clock: what comes with time and not with a save.
//!
//! At the site's midnight the dated rows that begin or end with the day mark their employees, and rows with a time of day do
//! so at their instant: nobody has saved anything, so the stream is silent. The ledger notes the last day and instant that
//! were marked, so that any number of instances mark once, and what comes without one running is made up at the next start.
//! How long it is to midnight is PostgreSQL's word: its clock and its zone rules are those that `benefits.today()` and
//! `benefits.now()` follow, across daylight saving. The history's partitions are kept here, too.

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
/// The same where rows become current at instants: one that is saved later than this before its own may be so much late.
const SOON: Duration = Duration::from_secs(10);
/// How long after an instant the clock looks.
const BEHIND: Duration = Duration::from_millis(20);
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

/// Marks whose rows have become current, where there are any; how long to wait.
async fn look(
    session: &Session,
    config: &Config,
    notify: &mpsc::Sender<Notice>,
) -> Result<Duration, LedgerError> {
    let described = "select to_regprocedure('benefits.read_becoming(date, date)') is not null";
    let rows = session.query("look for dated sources", described, &[]).await?;
    let pause = if rows.first().is_some_and(|row| row.get(0)) {
        mark(session, config, notify).await?
    } else {
        PAUSE_MAX
    };
    let months = i32::try_from(config.ledger.history_months).unwrap_or(i32::MAX);
    session.execute("keep the history's months", "select benefits.keep_history($1)", &[&months]).await?;
    Ok(pause)
}

async fn mark(
    session: &Session,
    config: &Config,
    notify: &mpsc::Sender<Notice>,
) -> Result<Duration, LedgerError> {
    let mut next = see(session).await?;
    if next.is_due {
        let minimum = i32::try_from(config.guard.minimum).unwrap_or(i32::MAX);
        let sql = include_str!("../../sql/queries/mark_becoming.sql");
        let rows =
            session.query("mark whose rows become current", sql, &[&minimum, &config.guard.fraction]).await?;
        if !rows.is_empty() {
            tracing::info!(employees = rows.len(), "dated rows became current");
            // A dispatcher that is behind finds them by its scan.
            drop(notify.try_send(Notice::Marked { employees: Vec::new(), rescan: true }));
        }
        // That may have taken a while.
        next = see(session).await?;
    }
    Ok(next.pause())
}

/// What PostgreSQL's clock says.
struct Next {
    /// Rows have become current and are not marked yet.
    is_due: bool,
    to_midnight: Duration,
    /// Within [`SOON`].
    to_instant: Option<Duration>,
    has_instants: bool,
}

impl Next {
    fn pause(&self) -> Duration {
        let longest = if self.has_instants { SOON } else { PAUSE_MAX };
        // A moment behind midnight rather than a moment before it.
        let next = self.to_instant.map_or(self.to_midnight, |to| to.min(self.to_midnight)) + BEHIND;
        next.min(longest)
    }
}

async fn see(session: &Session) -> Result<Next, LedgerError> {
    let sql = include_str!("../../sql/queries/look_at_clock.sql");
    let rows = session.query("look at the clock", sql, &[&SOON.as_secs_f64()]).await?;
    let row = rows.first().ok_or_else(|| LedgerError::Unexpected("benefits.site is empty".to_owned()))?;
    let seconds =
        |seconds: f64| Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(PAUSE_MAX).min(PAUSE_MAX);
    Ok(Next {
        is_due: row.get("is_due"),
        to_midnight: seconds(row.get("to_midnight")),
        to_instant: row.get::<_, Option<f64>>("to_next").map(seconds),
        has_instants: row.get("has_instants"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(to_midnight: u64, to_instant: Option<u64>, has_instants: bool) -> Duration {
        let to_instant = to_instant.map(Duration::from_secs);
        let to_midnight = Duration::from_secs(to_midnight);
        Next { is_due: false, to_midnight, to_instant, has_instants }.pause()
    }

    #[test]
    fn the_clock_wakes_a_moment_after_midnight_or_an_instant_and_looks_often_only_where_there_are_instants() {
        assert_eq!(next(4_000, None, false), PAUSE_MAX);
        assert_eq!(next(20, None, false), Duration::from_secs(20) + BEHIND);
        assert_eq!(next(4_000, None, true), SOON);
        assert_eq!(next(4_000, Some(3), true), Duration::from_secs(3) + BEHIND);
        assert_eq!(next(2, Some(3), true), Duration::from_secs(2) + BEHIND);
    }
}
