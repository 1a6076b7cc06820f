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
    /// The last reader stopped in order, so that the slot has confirmed `lsn` and nothing beyond.
    pub closed: bool,
    /// Transactions decoded through the slot, as last noted; `None` where PostgreSQL did not say.
    pub slot_txns: Option<i64>,
    /// What the publication was made of.
    pub publication: Vec<String>,
    /// The server has been started anew since this was stored.
    pub restarted: bool,
    /// Which reader has stored it: each takes the next number.
    pub reader: i64,
}

impl Checkpoint {
    /// The stored checkpoint; `None` before the first start.
    pub async fn load(session: &Session) -> Result<Option<Self>, LedgerError> {
        let sql = "select system_id, timeline, platform_id, slot_name::text, slot_generation, lsn, closed, slot_txns, \
                   publication, coalesce(server_started <> pg_postmaster_start_time(), false), reader from benefits.checkpoint";
        let rows = session.query("read the checkpoint", sql, &[]).await?;
        Ok(rows.first().map(|row| Self {
            system_id: row.get(0),
            timeline: row.get(1),
            platform_id: row.get(2),
            slot_name: row.get(3),
            slot_generation: row.get(4),
            lsn: Lsn(u64::from(row.get::<_, PgLsn>(5))),
            closed: row.get(6),
            slot_txns: row.get(7),
            publication: row.get(8),
            restarted: row.get(9),
            reader: row.get(10),
        }))
    }

    /// Stores it, in place of what the reader before `reader` has left; false where another reader was first.
    pub async fn store(&self, session: &Session) -> Result<bool, LedgerError> {
        let sql = "insert into benefits.checkpoint as c (system_id, timeline, platform_id, slot_name, slot_generation, \
                   lsn, closed, slot_txns, publication, server_started, reader) \
                   values ($1, $2, $3, $4::text::name, $5, $6, $7, $8, $9, pg_postmaster_start_time(), $10) \
                   on conflict (only_row) do update set system_id = excluded.system_id, timeline = excluded.timeline, \
                   platform_id = excluded.platform_id, slot_name = excluded.slot_name, \
                   slot_generation = excluded.slot_generation, lsn = excluded.lsn, closed = excluded.closed, \
                   slot_txns = excluded.slot_txns, publication = excluded.publication, \
                   server_started = excluded.server_started, reader = excluded.reader \
                   where c.reader = excluded.reader - 1";
        let lsn = PgLsn::from(self.lsn.0);
        let stored = session
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
                    &self.closed,
                    &self.slot_txns,
                    &self.publication,
                    &self.reader,
                ],
            )
            .await?;
        Ok(stored > 0)
    }

    /// Where somebody has stored it since `reader` did: as of the next reader, whose number this gives, and not closed.
    pub async fn retake(session: &Session, reader: i64) -> Result<Option<i64>, LedgerError> {
        let sql = "update benefits.checkpoint set reader = reader + 1, closed = false where reader <> $1 returning reader";
        let rows = session.query("take the checkpoint again", sql, &[&reader]).await?;
        Ok(rows.first().map(|row| row.get(0)))
    }

    /// Whether the session's server is another than the checkpoint's: another system, or another timeline of it.
    pub async fn is_elsewhere(&self, session: &Session) -> Result<bool, LedgerError> {
        is_elsewhere(session, &self.system_id, self.timeline).await
    }

    /// Notes how far the slot has been confirmed where no mark did: seldom, or an idle system would never be idle. Only by
    /// the reader that has stored the checkpoint, or the one that is about to take its place: one that was overtaken does not
    /// know how the reading has ended.
    pub async fn note(
        session: &Session,
        reader: i64,
        lsn: Lsn,
        slot_txns: Option<i64>,
        closed: bool,
    ) -> Result<(), LedgerError> {
        let sql = "update benefits.checkpoint set lsn = greatest(lsn, $1), closed = $2, \
                   slot_txns = greatest(slot_txns, $3) where reader = $4";
        session
            .execute("note the checkpoint", sql, &[&PgLsn::from(lsn.0), &closed, &slot_txns, &reader])
            .await
            .map(drop)
    }
}

/// Whether the session's server is another than this system, or on another timeline than this one.
pub async fn is_elsewhere(session: &Session, system_id: &str, timeline: i32) -> Result<bool, LedgerError> {
    let sql =
        "select c.system_identifier, pg_walfile_name(pg_current_wal_lsn()) from pg_control_system() as c";
    let rows = session.query("identify the system", sql, &[]).await?;
    let Some(row) = rows.first() else { return Ok(false) };
    // Unsigned in the protocol, signed in SQL.
    let here = row.get::<_, i64>(0).cast_unsigned().to_string();
    let on = row.get::<_, &str>(1).get(..8).and_then(|hex| i32::from_str_radix(hex, 16).ok());
    Ok(here != system_id || on.is_some_and(|on| on != timeline))
}
