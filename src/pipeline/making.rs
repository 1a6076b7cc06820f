//! Making a slot: PostgreSQL first waits for every transaction that is open, in any database of the cluster, so that a
//! forgotten session can keep it waiting. The wait is bounded, and `/readyz` and the log name the one that is waited for.

use std::time::Duration;

use super::reader::{ReadError, Setting};
use super::slot::{Seen, look};
use crate::ledger::{LedgerError, Session};
use crate::lsn::Lsn;
use crate::replication::{Connection, CreatedSlot, ReplicationError};

/// How long the creation of a slot may take.
const SLOT_MAX: Duration = Duration::from_mins(1);
/// After so long it is asked who is waited for, and again and again.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// Makes a slot, in place of one that is of no use. Where the new one starts.
pub(super) async fn make(
    setting: &Setting,
    session: &Session,
    connection: &mut Connection,
    old: Option<&Seen>,
) -> Result<Lsn, ReadError> {
    let name = &setting.config.database.slot;
    if let Some(old) = old {
        tracing::error!(
            slot = name,
            lost = old.lost,
            "the slot cannot be read on; it is replaced. Where WAL was removed: raise max_slot_wal_keep_size"
        );
        connection.drop_slot(name).await?;
    }
    let failover = connection.server_version() >= 170_000;
    let created = watched(setting, session, connection.create_slot(name, failover, SLOT_MAX)).await?;
    tracing::info!(slot = name, from = %created.consistent_point, failover, "made a replication slot");
    let seen = look(session, name).await?;
    Ok(seen.map_or(created.consistent_point, |seen| seen.confirmed))
}

/// Waits for the creation, and says whom it waits for.
async fn watched(
    setting: &Setting,
    session: &Session,
    creation: impl Future<Output = Result<CreatedSlot, ReplicationError>>,
) -> Result<CreatedSlot, ReadError> {
    let mut creation = std::pin::pin!(creation);
    let mut blocker = None;
    loop {
        match tokio::time::timeout(ASK_EVERY, &mut creation).await {
            Ok(Ok(created)) => return Ok(created),
            Ok(Err(source @ ReplicationError::SlotCreationTimedOut { .. })) => {
                return Err(match blocker {
                    Some(by) => ReadError::SlotBlocked { by, source },
                    None => source.into(),
                });
            }
            Ok(Err(error)) => return Err(error.into()),
            Err(_elapsed) => {
                let by = oldest(session).await?;
                if let Some(by) = by.as_ref().filter(|by| blocker.as_ref() != Some(*by)) {
                    tracing::warn!(by, "the new slot waits for an older transaction to end");
                    setting.health.set_streaming(Err(format!("the new slot waits for {by}")));
                }
                blocker = by.or(blocker);
            }
        }
    }
}

/// The oldest open transaction that has written, as `status` names it.
async fn oldest(session: &Session) -> Result<Option<String>, LedgerError> {
    let sql = "select case when t.kind = 'prepared' then format('the prepared transaction %s', t.application) \
               else format('the transaction of process %s (user %s, database %s, application %s)', \
                           t.pid, t.username, t.database, coalesce(nullif(t.application, ''), 'unnamed')) end \
               from benefits.oldest_transactions(1) as t";
    let rows = session.query("look who is waited for", sql, &[]).await?;
    Ok(rows.first().map(|row| row.get(0)))
}
