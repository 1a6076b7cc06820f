//! The observer: what cannot be counted where it happens is asked every few seconds, all LSNs in one query.

use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::types::PgLsn;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::ledger::{LedgerError, Session};
use crate::lsn::Lsn;
use crate::metrics::Metrics;
use crate::postgres::Target;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(5);
/// Looks between two counts of all employees, which cost more.
const COUNT_EVERY: u32 = 6;

/// Keeps the gauges true until `shutdown`.
pub(super) async fn run(config: Arc<Config>, target: Target, metrics: Metrics, shutdown: CancellationToken) {
    let mut session: Option<Arc<Session>> = None;
    let mut looks = 0_u32;
    let mut every = tokio::time::interval(EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while shutdown.run_until_cancelled(every.tick()).await.is_some() {
        let looked = async {
            let session = super::reopened(&mut session, &target, "benefits-sync observer").await.ok()?;
            slot(&session, &config.database.slot, &metrics).await.ok()?;
            if looks.is_multiple_of(COUNT_EVERY) {
                count(&session, &metrics).await.ok()?;
            }
            Some(())
        };
        if shutdown.run_until_cancelled(looked).await.flatten().is_none() {
            // The reader and delivery say loudly enough that PostgreSQL is away.
            session = None;
        }
        looks = looks.wrapping_add(1);
    }
}

async fn slot(session: &Session, name: &str, metrics: &Metrics) -> Result<(), LedgerError> {
    let sql = include_str!("../../sql/queries/observe_slot.sql");
    let rows = session.query("look at the slot", sql, &[&name]).await?;
    let Some(row) = rows.first() else { return Ok(()) };
    let lsn = |column: &str| row.get::<_, Option<PgLsn>>(column).map_or(Lsn::ZERO, |lsn| Lsn(u64::from(lsn)));
    let end = lsn("wal_end");
    let bytes = |since: Lsn| i64::try_from(end.bytes_since(since)).unwrap_or(i64::MAX);
    if row.get("has_slot") {
        let safe = row.get::<_, Option<i64>>("safe_wal_size").unwrap_or(-1);
        metrics.slot(bytes(lsn("confirmed_flush_lsn")), bytes(lsn("restart_lsn")), safe);
        metrics.lag(end, lsn("received_lsn").max(lsn("confirmed_flush_lsn")), lsn("confirmed_flush_lsn"));
    }
    metrics.pending(row.get("pending"), row.get("oldest_seconds"));
    metrics.holds(row.get("holds"));
    Ok(())
}

async fn count(session: &Session, metrics: &Metrics) -> Result<(), LedgerError> {
    let sql = include_str!("../../sql/queries/count_states.sql");
    for row in session.query("count employees", sql, &[]).await? {
        metrics.employees(row.get(0), row.get(1));
    }
    Ok(())
}
