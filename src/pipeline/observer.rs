//! The observer: what cannot be counted where it happens is asked every few seconds, all LSNs in one query.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_postgres::types::PgLsn;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::ledger::{LedgerError, Session, TransactionUsers};
use crate::lsn::Lsn;
use crate::metrics::Metrics;
use crate::postgres::Target;

/// Between two looks at who has a transaction open.
const EVERY: Duration = Duration::from_millis(50);
/// Between two looks at everything else. By the clock: on a busy machine a hundred of those looks take far longer.
const SLOT_EVERY: Duration = Duration::from_secs(5);
/// Counting all employees costs more the more they are: it gets this share of the time (one part in so many).
const COUNT_SHARE: u32 = 100;
/// The first count waits until what was collected before the start is on its way.
const COUNT_AFTER: Duration = Duration::from_secs(3);
/// Between two counts at least and at most.
const COUNT_EVERY: (Duration, Duration) = (Duration::from_secs(5), Duration::from_mins(5));
/// What "lately" is for the WAL's rate.
const RATE_WINDOW_SECONDS: f64 = 600.0;

/// Keeps the gauges true until `shutdown`.
pub(super) async fn run(
    config: Arc<Config>,
    target: Target,
    metrics: Metrics,
    users: Arc<TransactionUsers>,
    shutdown: CancellationToken,
) {
    let mut session: Option<Arc<Session>> = None;
    let mut rate = WalRate::default();
    let mut slot_due = Instant::now();
    let mut count_due = Instant::now() + COUNT_AFTER;
    let mut every = tokio::time::interval(EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while shutdown.run_until_cancelled(every.tick()).await.is_some() {
        let looked = async {
            let session = super::reopened(&mut session, &target, "benefits-sync observer").await.ok()?;
            users.look(&session).await.ok()?;
            if Instant::now() >= slot_due {
                slot(&session, &config.database.slot, &metrics, &mut rate).await.ok()?;
                slot_due = Instant::now() + SLOT_EVERY;
            }
            let began = Instant::now();
            if began >= count_due {
                count(&session, &metrics).await.ok()?;
                let (least, most) = COUNT_EVERY;
                count_due = began + (began.elapsed() * COUNT_SHARE).clamp(least, most);
            }
            Some(())
        };
        if shutdown.run_until_cancelled(looked).await.flatten().is_none() {
            // The reader and delivery say loudly enough that PostgreSQL is away.
            session = None;
        }
    }
}

async fn slot(
    session: &Session,
    name: &str,
    metrics: &Metrics,
    rate: &mut WalRate,
) -> Result<(), LedgerError> {
    let sql = include_str!("../../sql/queries/observe_slot.sql");
    let rows = session.query("look at the slot", sql, &[&name]).await?;
    let Some(row) = rows.first() else { return Ok(()) };
    let lsn = |column: &str| row.get::<_, Option<PgLsn>>(column).map_or(Lsn::ZERO, |lsn| Lsn(u64::from(lsn)));
    let end = lsn("wal_end");
    let bytes = |since: Lsn| i64::try_from(end.bytes_since(since)).unwrap_or(i64::MAX);
    let at: f64 = row.get("at");
    rate.look(at, end);
    if row.get("has_slot") {
        let safe = match row.get::<_, Option<&str>>("wal_status") {
            Some("lost") => Some(0),
            _ => row.get("safe_wal_size"),
        };
        let headroom = safe.map_or(f64::INFINITY, |safe| rate.lasts(safe));
        metrics.slot(
            bytes(lsn("confirmed_flush_lsn")),
            bytes(lsn("restart_lsn")),
            safe.unwrap_or(-1),
            headroom,
        );
        metrics.lag(end, lsn("received_lsn").max(lsn("confirmed_flush_lsn")), lsn("confirmed_flush_lsn"));
    }
    metrics.pending(row.get("pending"), row.get("oldest_seconds"));
    metrics.holds(row.get("holds"));
    metrics.stuck(row.get("stuck"));
    metrics.observed(at, row.get("is_active"));
    Ok(())
}

/// How much WAL was written a second, lately: the newest look counts for as much as its share of the window.
#[derive(Debug, Default)]
struct WalRate {
    last: Option<(f64, Lsn)>,
    bytes_per_second: Option<f64>,
}

impl WalRate {
    fn look(&mut self, at: f64, end: Lsn) {
        if let Some((earlier, from)) = self.last.filter(|(earlier, from)| at > *earlier && end >= *from) {
            let seconds = at - earlier;
            let now = approximate(end.bytes_since(from)) / seconds;
            let share = (seconds / RATE_WINDOW_SECONDS).min(1.0);
            let before = self.bytes_per_second.unwrap_or(now);
            self.bytes_per_second = Some(before + (now - before) * share);
        }
        self.last = Some((at, end));
    }

    /// How long it takes to write so many bytes.
    fn lasts(&self, bytes: i64) -> f64 {
        match self.bytes_per_second {
            _ if bytes <= 0 => 0.0,
            Some(rate) if rate > 0.0 => approximate(u64::try_from(bytes).unwrap_or(0)) / rate,
            _ => f64::INFINITY,
        }
    }
}

/// A count as a float: exact up to 2^53.
fn approximate(count: u64) -> f64 {
    Duration::from_secs(count).as_secs_f64()
}

async fn count(session: &Session, metrics: &Metrics) -> Result<(), LedgerError> {
    let sql = include_str!("../../sql/queries/count_states.sql");
    for row in session.query("count employees", sql, &[]).await? {
        metrics.employees(row.get(0), row.get(1));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headroom_is_what_is_left_at_the_rate_of_lately() {
        let mut rate = WalRate::default();
        assert!(rate.lasts(1000).is_infinite(), "nothing is known yet");
        rate.look(0.0, Lsn(0));
        rate.look(10.0, Lsn(1000));
        assert!((rate.lasts(5000) - 50.0).abs() < 1e-9);
        // A minute without WAL lowers the rate by a tenth.
        rate.look(70.0, Lsn(1000));
        assert!((rate.lasts(9000) - 100.0).abs() < 1e-9);
        assert!(rate.lasts(0) < 1e-9, "a lost slot has none");
    }

    #[test]
    fn a_server_that_begins_anew_counts_from_there() {
        let mut rate = WalRate::default();
        rate.look(0.0, Lsn(5000));
        rate.look(1.0, Lsn(10));
        rate.look(2.0, Lsn(20));
        assert!((rate.lasts(100) - 10.0).abs() < 1e-9);
    }
}
