//! Where the ledger has followed the WAL to, and which WAL that is.

use tokio_postgres::types::PgLsn;

use super::error::LedgerError;
use super::session::Session;
use crate::lsn::Lsn;

/// An LSN up to which everything that matters is durable in the ledger. Only the ledger makes one, and only one of these
/// may be confirmed to the slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PersistedLsn(Lsn);

impl PersistedLsn {
    /// Sealed: the marks have committed, or there was nothing to persist.
    pub(super) const fn after_commit(lsn: Lsn) -> Self {
        Self(lsn)
    }

    /// The position.
    pub const fn get(self) -> Lsn {
        self.0
    }
}

/// Which WAL the ledger follows. Another system, timeline or slot generation than the stored one is doubt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// `IDENTIFY_SYSTEM`'s system id.
    pub system_id: String,
    /// The timeline at the last start.
    pub timeline: i32,
    /// The platform that the ledger is about.
    pub platform_id: String,
    /// The slot.
    pub slot_name: String,
    /// Raised whenever a new slot takes the place of an old one.
    pub slot_generation: i64,
    /// Every relevant commit up to here is in the ledger.
    pub lsn: Lsn,
}

impl Checkpoint {
    /// The stored checkpoint; `None` before the first start.
    pub async fn load(session: &Session) -> Result<Option<Self>, LedgerError> {
        let sql = "select system_id, timeline, platform_id, slot_name::text, slot_generation, lsn from benefits.checkpoint";
        let rows = session.query("read the checkpoint", sql, &[]).await?;
        Ok(rows.first().map(|row| Self {
            system_id: row.get(0),
            timeline: row.get(1),
            platform_id: row.get(2),
            slot_name: row.get(3),
            slot_generation: row.get(4),
            lsn: Lsn(u64::from(row.get::<_, PgLsn>(5))),
        }))
    }

    /// Stores it, in place of what was there.
    pub async fn store(&self, session: &Session) -> Result<(), LedgerError> {
        let sql = "insert into benefits.checkpoint (system_id, timeline, platform_id, slot_name, slot_generation, lsn) \
                   values ($1, $2, $3, $4::text::name, $5, $6) on conflict (only_row) do update set \
                   system_id = excluded.system_id, timeline = excluded.timeline, platform_id = excluded.platform_id, \
                   slot_name = excluded.slot_name, slot_generation = excluded.slot_generation, lsn = excluded.lsn";
        let lsn = PgLsn::from(self.lsn.0);
        session
            .execute(
                "store the checkpoint",
                sql,
                &[
                    &self.system_id,
                    &self.timeline,
                    &self.platform_id,
                    &self.slot_name,
                    &self.slot_generation,
                    &lsn,
                ],
            )
            .await?;
        Ok(())
    }
}
