//! What a message can be. Rows borrow from the payload; a [`Relation`] is owned, because it outlives its frame.

use super::timestamp::Timestamp;
use super::tuple::Tuple;
use crate::lsn::Lsn;

/// A message, and whose change it is when it came inside a streamed chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded<'a> {
    /// The (sub)transaction that wrote the change; only between stream start and stream stop, and only for changes.
    pub xid: Option<u32>,
    /// The message.
    pub message: Message<'a>,
}

/// Every pgoutput message that can come without `two_phase`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message<'a> {
    /// A transaction begins; all of it follows at once.
    Begin {
        /// Where its commit record starts.
        final_lsn: Lsn,
        /// When it committed.
        committed_at: Timestamp,
        /// Its top-level transaction id, 32 bits without epoch.
        xid: u32,
    },
    /// The transaction ends.
    Commit {
        /// Where the commit record starts (equals Begin's `final_lsn`).
        commit_lsn: Lsn,
        /// Where the commit record ends: what may be confirmed once the transaction is durable with us.
        end_lsn: Lsn,
        /// When it committed.
        committed_at: Timestamp,
    },
    /// The transaction came from another server by replication.
    Origin {
        /// Its commit position there.
        commit_lsn: Lsn,
        /// The origin's name here.
        name: &'a str,
    },
    /// A table's shape: before its first row on this connection, and again whenever it may have changed.
    Relation(Relation),
    /// The name of a type that is not built in; comes before the Relation that uses it.
    Type {
        /// The type's oid.
        oid: u32,
        /// Its schema; empty for `pg_catalog`.
        schema: &'a str,
        /// Its name.
        name: &'a str,
    },
    /// A row was inserted.
    Insert {
        /// Which table, by the oid in its Relation message.
        relation: u32,
        /// The new row.
        new: Tuple<'a>,
    },
    /// A row was updated.
    Update {
        /// Which table, by the oid in its Relation message.
        relation: u32,
        /// What is known of the row before.
        old: OldTuple<'a>,
        /// The new row; it may have unchanged TOAST columns.
        new: Tuple<'a>,
    },
    /// A row was deleted.
    Delete {
        /// Which table, by the oid in its Relation message.
        relation: u32,
        /// What is known of the row.
        old: DeletedTuple<'a>,
    },
    /// Tables were emptied.
    Truncate {
        /// Which ones.
        relations: RelationIds<'a>,
        /// `CASCADE` was given.
        cascade: bool,
        /// `RESTART IDENTITY` was given.
        restart_identity: bool,
    },
    /// `pg_logical_emit_message` (only when `messages` was asked for).
    Logical {
        /// Whether it belongs to a transaction, or stands alone.
        transactional: bool,
        /// Where it was written.
        lsn: Lsn,
        /// Whose message it is.
        prefix: &'a str,
        /// What it says.
        content: &'a [u8],
    },
    /// A chunk of a transaction that is still open begins.
    StreamStart {
        /// Its top-level transaction id.
        xid: u32,
        /// Whether this is its first chunk.
        first: bool,
    },
    /// The chunk ends; the transaction's fate is open.
    StreamStop,
    /// A streamed transaction committed.
    StreamCommit {
        /// Its top-level transaction id.
        xid: u32,
        /// Where the commit record starts.
        commit_lsn: Lsn,
        /// Where the commit record ends: what may be confirmed.
        end_lsn: Lsn,
        /// When it committed.
        committed_at: Timestamp,
    },
    /// A streamed transaction, or one subtransaction of it, rolled back.
    StreamAbort {
        /// The top-level transaction id.
        xid: u32,
        /// What was rolled back; equals `xid` when it is the whole.
        subxid: u32,
        /// Where and when; only with `streaming 'parallel'`.
        position: Option<StreamAbortPosition>,
    },
}

/// Where and when a streamed transaction was rolled back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamAbortPosition {
    /// The abort record's position.
    pub lsn: Lsn,
    /// When it was rolled back.
    pub at: Timestamp,
}

/// What an update tells about the row before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OldTuple<'a> {
    /// Nothing: replica identity is not full and none of its columns changed.
    KeyUnchanged,
    /// The replica identity's old columns (others are null): at least one of them changed.
    Key(Tuple<'a>),
    /// The whole old row: replica identity is full.
    Full(Tuple<'a>),
}

/// What a delete tells about the row it removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeletedTuple<'a> {
    /// The replica identity's columns; others are null.
    Key(Tuple<'a>),
    /// The whole row: replica identity is full.
    Full(Tuple<'a>),
}

/// A table's shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    /// The oid that row messages name it by.
    pub oid: u32,
    /// Its schema, `pg_catalog` spelt out.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Which old columns its changes carry.
    pub replica_identity: ReplicaIdentity,
    /// The published columns, in tuple order.
    pub columns: Vec<Column>,
}

/// A published column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Whether it is part of the replica identity (with identity full: of course).
    pub is_key: bool,
    /// Its name.
    pub name: String,
    /// Its type's oid.
    pub type_oid: u32,
    /// Its type modifier; -1 for none.
    pub type_modifier: i32,
}

/// `pg_class.relreplident`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplicaIdentity {
    /// The primary key, if there is one.
    Default,
    /// Nothing: updates and deletes of a published table fail.
    Nothing,
    /// The whole row.
    Full,
    /// A unique index.
    Index,
}

/// The tables of a truncate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelationIds<'a>(pub(super) &'a [u8]);

impl<'a> RelationIds<'a> {
    /// Their oids.
    pub fn iter(&self) -> impl Iterator<Item = u32> + use<'a> {
        let (chunks, _) = self.0.as_chunks::<4>();
        chunks.iter().map(|oid| u32::from_be_bytes(*oid))
    }
}
