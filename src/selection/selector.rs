//! The state machine over the stream: messages in, one [`Commit`] out for each committed transaction.

use std::collections::HashMap;

use super::binding::Binding;
use super::deeds::Deeds;
use super::description::Description;
use super::hash::{KeyHash, KeyHasher, KeyMap};
use super::members::Members;
use super::row::Row;
use super::rows::{RowCache, RowFilter};
use super::touches::{Mark, Touches};
use crate::lsn::Lsn;
use crate::pgoutput::{Decoded, DeletedTuple, Message, OldTuple, Relation, Timestamp, Tuple};

/// Open streamed transactions that are followed at once. PostgreSQL has at most `max_connections` of them.
const OPEN_MAX: usize = 10_000;

/// A committed transaction, in the order of the WAL.
#[derive(Debug, PartialEq, Eq)]
pub struct Commit {
    /// Top-level transaction id, 32 bits without epoch.
    pub xid: u32,
    /// The end of its commit record: what may be confirmed once this commit is durable with us.
    pub end_lsn: Lsn,
    /// When it committed, by the server's clock.
    pub committed_at: Timestamp,
    /// How many commits that enrol somebody the stream has seen, this one included. See [`Selector::seeded`].
    pub enrolments: u64,
    /// What it touched; `None` when it touched nothing that matters.
    pub touches: Option<Box<Touches>>,
}

/// What became of row changes, counted since the counts were last taken.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Decisions {
    /// Tables that are not described.
    pub other_table: u64,
    /// Employees who are not synced.
    pub not_synced: u64,
    /// Synced employees, no mapped column changed.
    pub unchanged: u64,
    /// Somebody was marked.
    pub marked: u64,
}

/// The stream breaks the protocol. The connection is closed and the stream starts again from what was confirmed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SelectionError {
    /// A row before its Relation message.
    #[error("a row of relation {0} came before the relation was described")]
    UnknownRelation(u32),
    /// Messages in an order that the protocol does not have.
    #[error("message out of place in the stream: {0}")]
    OutOfPlace(&'static str),
    /// More transactions open than can be.
    #[error("more than {OPEN_MAX} streamed transactions are open at once")]
    TooManyOpen,
}

#[derive(Default)]
struct Open {
    xid: u32,
    touches: Touches,
    deeds: Deeds,
    /// Who was enrolled since this streamed transaction began.
    newcomers: KeyMap<Box<str>>,
}

/// A published table as it is now.
struct Table {
    binding: Binding,
    /// Another one whenever earlier row versions say nothing about later ones.
    generation: u64,
}

/// Decides, message by message. One for each connection: what it remembers is only as good as the stream is gapless.
pub struct Selector {
    description: Description,
    hasher: KeyHasher,
    members: Members,
    cache: RowCache,
    filter: RowFilter,
    tables: HashMap<u32, Table>,
    generations: u64,
    /// The transaction between Begin and Commit.
    whole: Option<Open>,
    /// Streamed transactions whose end is not known yet.
    streamed: HashMap<u32, Open>,
    /// The streamed transaction whose chunk is being read.
    chunk: Option<Open>,
    decisions: Decisions,
    enrolments: u64,
    seeded: u64,
    /// Rows that the filter does not know may belong to synced employees all the same.
    distrusts_filter: bool,
    scratch: Vec<u8>,
}

impl Selector {
    /// A selector for a new connection. `cache_rows` bounds the fingerprints kept.
    pub fn new(
        description: Description,
        hasher: KeyHasher,
        members: Members,
        filter: RowFilter,
        cache_rows: usize,
    ) -> Self {
        Self {
            description,
            hasher,
            members,
            cache: RowCache::with_capacity(cache_rows),
            filter,
            tables: HashMap::new(),
            generations: 0,
            whole: None,
            streamed: HashMap::new(),
            chunk: None,
            decisions: Decisions::default(),
            enrolments: 0,
            seeded: 0,
            distrusts_filter: false,
            scratch: Vec::new(),
        }
    }

    /// Whether the next payload is inside a streamed chunk, which `pgoutput::decode` must know.
    pub fn in_chunk(&self) -> bool {
        self.chunk.is_some()
    }

    /// Whether no transaction is under way: a keepalive's LSN then stands for everything before it. Streamed transactions
    /// that are still open do not count; the slot itself keeps their WAL.
    pub fn is_between_transactions(&self) -> bool {
        self.whole.is_none() && self.chunk.is_none()
    }

    /// Who is a member, for what the rest of the program learns (failures).
    pub fn members_mut(&mut self) -> &mut Members {
        &mut self.members
    }

    /// The hasher that members are hashed with.
    pub fn hasher(&self) -> &KeyHasher {
        &self.hasher
    }

    /// The ledger has recorded the child rows of everyone enrolled by the first `enrolments` such commits; here are their
    /// hashes. Until then every row of unknown owner counts as one of a synced employee: its owner may be among those
    /// whose rows are being read.
    pub fn seeded(&mut self, enrolments: u64, rows: impl IntoIterator<Item = KeyHash>) {
        for row in rows {
            self.filter.insert(row);
        }
        self.seeded = self.seeded.max(enrolments);
    }

    /// The ledger's map of child rows may have gaps, being in doubt: for this selector's life every row of unknown owner
    /// counts as one of a synced employee.
    pub fn distrust_filter(&mut self) {
        self.distrusts_filter = true;
    }

    /// Whether [`Selector::distrust_filter`] was called.
    pub fn distrusts_filter(&self) -> bool {
        self.distrusts_filter
    }

    /// The counts since the last call.
    pub fn take_decisions(&mut self) -> Decisions {
        std::mem::take(&mut self.decisions)
    }

    /// Takes one message; a commit, when it is the end of one.
    pub fn accept(&mut self, decoded: &Decoded<'_>) -> Result<Option<Commit>, SelectionError> {
        let xid = decoded.xid;
        match &decoded.message {
            Message::Insert { relation, new } => self.inserted(*relation, xid, *new)?,
            Message::Update { relation, old, new } => self.updated(*relation, xid, *old, *new)?,
            Message::Delete { relation, old } => self.deleted(*relation, xid, *old)?,
            Message::Truncate { relations, .. } => {
                for relation in relations.iter() {
                    self.truncated(relation)?;
                }
            }
            Message::Relation(relation) => self.described(relation),
            Message::Begin { xid, .. } => {
                if !self.is_between_transactions() {
                    return Err(SelectionError::OutOfPlace("begin"));
                }
                self.whole = Some(Open { xid: *xid, ..Open::default() });
            }
            Message::Commit { end_lsn, committed_at, .. } => {
                let open = self.whole.take().ok_or(SelectionError::OutOfPlace("commit"))?;
                return Ok(Some(self.committed(open, *end_lsn, *committed_at)));
            }
            Message::StreamStart { xid, .. } => self.chunk_starts(*xid)?,
            Message::StreamStop => {
                let open = self.chunk.take().ok_or(SelectionError::OutOfPlace("stream stop"))?;
                self.streamed.insert(open.xid, open);
            }
            Message::StreamCommit { xid, end_lsn, committed_at, .. } => {
                // A transaction all of whose chunks were skipped may commit without ever having started here.
                let open = self.streamed.remove(xid).unwrap_or_default();
                return Ok(Some(self.committed(Open { xid: *xid, ..open }, *end_lsn, *committed_at)));
            }
            Message::StreamAbort { xid, subxid, .. } if xid == subxid => {
                self.streamed.remove(xid);
            }
            // A rolled-back subtransaction's marks stay, because over-marking is harmless; its deeds do not.
            Message::StreamAbort { xid, subxid, .. } => {
                if let Some(open) = self.streamed.get_mut(xid) {
                    open.deeds.roll_back(*subxid);
                }
            }
            Message::Origin { .. } | Message::Type { .. } | Message::Logical { .. } => {}
        }
        Ok(None)
    }

    fn chunk_starts(&mut self, xid: u32) -> Result<(), SelectionError> {
        if !self.is_between_transactions() {
            return Err(SelectionError::OutOfPlace("stream start"));
        }
        if self.streamed.len() >= OPEN_MAX {
            return Err(SelectionError::TooManyOpen);
        }
        let open = self.streamed.remove(&xid).unwrap_or_default();
        self.chunk = Some(Open { xid, ..open });
        Ok(())
    }

    /// A table's shape, before its first row on this connection and after whatever may have changed it. Every streamed
    /// transaction repeats the shapes that it uses; outside of them a repetition means DDL, which may have changed rows
    /// that never show in the WAL.
    fn described(&mut self, relation: &Relation) {
        let binding = Binding::new(relation, &self.description);
        if self.chunk.is_some()
            && self.tables.get(&relation.oid).is_some_and(|table| table.binding == binding)
        {
            return;
        }
        self.generations += 1;
        self.tables.insert(relation.oid, Table { binding, generation: self.generations });
    }

    /// Makes what the transaction did to memberships true for everything after it.
    fn committed(&mut self, open: Open, end_lsn: Lsn, committed_at: Timestamp) -> Commit {
        let Open { xid, mut touches, deeds, newcomers } = open;
        deeds.perform(&mut touches);
        for (employee, id) in newcomers {
            touches.mark(employee, id.as_bytes(), Mark::Change);
            touches.newcomers.insert(id);
        }
        for (employee, id) in touches.take_requested() {
            self.enrol(employee, &id);
        }
        for (employee, (id, up)) in touches.take_flags() {
            match (up, self.members.is_baseline(employee)) {
                (true, false) => {
                    touches.mark(employee, id.as_bytes(), Mark::Starter);
                    self.enrol(employee, &id);
                }
                (false, true) => {
                    touches.flag_lowered.insert(id);
                    self.members.clear_baseline(employee);
                }
                _ => {}
            }
        }
        for row in touches.owned_rows() {
            self.filter.insert(row);
        }
        if touches.enrols() || touches.owners {
            self.enrolments += 1;
        }
        let touches = (!touches.is_empty()).then(|| Box::new(touches));
        Commit { xid, end_lsn, committed_at, enrolments: self.enrolments, touches }
    }

    /// From here on the employee's changes matter; those that open transactions have shown already, when these commit.
    fn enrol(&mut self, employee: KeyHash, id: &str) {
        if !self.members.is_synced(employee) {
            self.members.enrol(employee);
            for open in self.streamed.values_mut() {
                open.newcomers.insert(employee, id.into());
            }
        }
    }

    fn inserted(&mut self, relation: u32, xid: Option<u32>, new: Tuple<'_>) -> Result<(), SelectionError> {
        let mut at = self.row_context(relation, xid)?;
        match at.binding {
            Binding::Other => at.decisions.other_table += 1,
            Binding::Description => at.touches.description = true,
            Binding::Rules => at.touches.rules = true,
            Binding::Requests(columns) => at.requested(columns, new),
            Binding::Failed(columns) => at.failed(columns, new, true),
            Binding::Lookup(columns) => at.looked_up(columns, new),
            Binding::Employees(columns) => {
                at.hired(columns, new);
                at.written(columns, new, None);
            }
        }
        Ok(())
    }

    fn updated(
        &mut self,
        relation: u32,
        xid: Option<u32>,
        old: OldTuple<'_>,
        new: Tuple<'_>,
    ) -> Result<(), SelectionError> {
        let mut at = self.row_context(relation, xid)?;
        match at.binding {
            Binding::Other | Binding::Failed(_) => at.decisions.other_table += 1,
            Binding::Description => at.touches.description = true,
            Binding::Rules => at.touches.rules = true,
            // Touched by a comparison of everyone, which found it waiting: its own commit came before the slot.
            Binding::Requests(columns) => at.requested(columns, new),
            Binding::Lookup(columns) => {
                if let OldTuple::Key(old) | OldTuple::Full(old) = old {
                    at.lookup_moved(columns, old, new);
                }
                at.looked_up(columns, new);
            }
            Binding::Employees(columns) => {
                if let OldTuple::Key(old) | OldTuple::Full(old) = old {
                    at.left(columns, old, new);
                }
                at.written(columns, new, Some(old));
            }
        }
        Ok(())
    }

    fn deleted(
        &mut self,
        relation: u32,
        xid: Option<u32>,
        old: DeletedTuple<'_>,
    ) -> Result<(), SelectionError> {
        let (DeletedTuple::Key(old) | DeletedTuple::Full(old)) = old;
        let mut at = self.row_context(relation, xid)?;
        match at.binding {
            // A request that is deleted was released; that is not news.
            Binding::Other | Binding::Requests(_) => at.decisions.other_table += 1,
            Binding::Failed(columns) => at.failed(columns, old, false),
            Binding::Description => at.touches.description = true,
            Binding::Rules => at.touches.rules = true,
            Binding::Lookup(columns) => at.lookup_gone(columns, old),
            Binding::Employees(columns) => at.erased(columns, old),
        }
        Ok(())
    }

    fn truncated(&mut self, relation: u32) -> Result<(), SelectionError> {
        // Rows of the same keys may be inserted again: what was seen of them is over.
        self.generations += 1;
        if let Some(table) = self.tables.get_mut(&relation) {
            table.generation = self.generations;
        }
        let at = self.row_context(relation, None)?;
        match at.binding {
            Binding::Employees(columns) => {
                at.touches.everyone = true;
                at.touches.roster |= columns.root;
            }
            Binding::Lookup(_) => at.touches.everyone = true,
            Binding::Rules => at.touches.rules = true,
            Binding::Description => at.touches.description = true,
            Binding::Other | Binding::Requests(_) | Binding::Failed(_) => at.decisions.other_table += 1,
        }
        Ok(())
    }

    /// Splits the selector into what a row needs, so that the binding is borrowed and not copied.
    fn row_context(&mut self, relation: u32, xid: Option<u32>) -> Result<Row<'_>, SelectionError> {
        let table = self.tables.get(&relation).ok_or(SelectionError::UnknownRelation(relation))?;
        let (touches, chunk) = match (&mut self.chunk, &mut self.whole) {
            (Some(open), _) => (&mut open.touches, Some((xid.unwrap_or(open.xid), &mut open.deeds))),
            (None, Some(open)) => (&mut open.touches, None),
            (None, None) => return Err(SelectionError::OutOfPlace("row")),
        };
        Ok(Row {
            binding: &table.binding,
            generation: table.generation,
            touches,
            chunk,
            hasher: &self.hasher,
            members: &mut self.members,
            cache: &mut self.cache,
            filter: &self.filter,
            filter_is_complete: !self.distrusts_filter && self.seeded >= self.enrolments,
            decisions: &mut self.decisions,
            scratch: &mut self.scratch,
        })
    }
}
