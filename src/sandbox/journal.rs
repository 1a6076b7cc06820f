//! What the platform saw: every write with its version, key and field names, and counts of all answers.
//!
//! The journal is bounded; field values are in it only when a test asks for bodies.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use serde::Serialize;

use super::draft::names_of;

/// An operation of the API document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Operation {
    /// `getPlatform`
    #[serde(rename = "getPlatform")]
    Platform,
    /// `listPackages`
    #[serde(rename = "listPackages")]
    Packages,
    /// `listPicklists`
    #[serde(rename = "listPicklists")]
    Picklists,
    /// `findEmployees`
    #[serde(rename = "findEmployees")]
    Find,
    /// `getEmployee`
    #[serde(rename = "getEmployee")]
    Get,
    /// `createEmployee`
    #[serde(rename = "createEmployee")]
    Create,
    /// `updateEmployee`
    #[serde(rename = "updateEmployee")]
    Update,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Platform, Self::Packages, Self::Picklists, Self::Find, Self::Get, Self::Create, Self::Update];

    /// The document's `operationId`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Platform => "getPlatform",
            Self::Packages => "listPackages",
            Self::Picklists => "listPicklists",
            Self::Find => "findEmployees",
            Self::Get => "getEmployee",
            Self::Create => "createEmployee",
            Self::Update => "updateEmployee",
        }
    }

    /// Whether it changes a record.
    pub const fn is_write(self) -> bool {
        matches!(self, Self::Create | Self::Update)
    }
}

/// One write that came in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JournalEntry {
    /// Counts from 1 over all writes, those no longer kept included.
    pub sequence: u64,
    /// Create or update.
    pub operation: Operation,
    /// The account's id: as addressed, or as created.
    pub id: Option<String>,
    /// The HR employee: as in the body, else as linked.
    pub external_id: Option<String>,
    /// `sourceVersion` as in the body.
    pub source_version: Option<i64>,
    /// The `Idempotency-Key`.
    pub key: String,
    /// The properties in the body, but for `sourceVersion`.
    pub fields: Vec<&'static str>,
    /// The platform's own answer; `None` where a fault kept the write from being worked on.
    pub status: Option<u16>,
    /// The problem type's last part, where it was refused.
    pub problem: Option<&'static str>,
    /// Whether an earlier answer was repeated and nothing changed.
    pub replayed: bool,
    /// The fault that spoiled it.
    pub fault: Option<&'static str>,
    /// The body, where bodies are kept.
    #[serde(skip)]
    pub body: Option<Bytes>,
}

impl JournalEntry {
    /// Whether the write was accepted and was not a repetition.
    pub fn acted(&self) -> bool {
        !self.replayed && self.status.is_some_and(|status| status < 300)
    }
}

/// What was asked and answered since the start, whether or not the answers arrived.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Creates that were accepted, repetitions not counted.
    pub created: u64,
    /// Updates that were accepted, repetitions not counted.
    pub updated: u64,
    /// Writes answered with an earlier answer.
    pub replayed: u64,
    /// Writes refused by the platform's own rules.
    pub refused: u64,
    /// Requests that a fault spoiled, by kind; waits are not counted.
    pub faults: BTreeMap<&'static str, u64>,
    /// The platform's own answers by operation, then status.
    pub answers: BTreeMap<&'static str, BTreeMap<u16, u64>>,
}

/// A write as it is noted, cheaper than an entry.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) id: Option<String>,
    pub(super) external_id: Option<String>,
    pub(super) source_version: Option<i64>,
    pub(super) key: String,
    pub(super) names: u64,
    pub(super) body: Bytes,
}

/// What became of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Verdict {
    pub(super) operation: Operation,
    pub(super) status: Option<u16>,
    pub(super) problem: Option<&'static str>,
    pub(super) replayed: bool,
    pub(super) fault: Option<&'static str>,
}

/// The bounded journal and the counts.
#[derive(Debug)]
pub(super) struct Journal {
    max: usize,
    keep_bodies: bool,
    notes: Mutex<Notes>,
}

#[derive(Debug, Default)]
struct Notes {
    sequence: u64,
    entries: VecDeque<(u64, Verdict, Seen)>,
    counts: Counts,
}

impl Journal {
    pub(super) fn new(max: usize, keep_bodies: bool) -> Self {
        Self { max, keep_bodies, notes: Mutex::new(Notes::default()) }
    }

    /// Whether entries are kept at all.
    pub(super) fn is_on(&self) -> bool {
        self.max > 0
    }

    fn lock(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a request, and the write where it is one.
    pub(super) fn note(&self, verdict: Verdict, seen: Option<Seen>) {
        let mut notes = self.lock();
        notes.counts.add(verdict);
        if !verdict.operation.is_write() {
            return;
        }
        notes.sequence += 1;
        let sequence = notes.sequence;
        let Some(mut seen) = seen.filter(|_| self.max > 0) else { return };
        if !self.keep_bodies {
            seen.body = Bytes::new();
        }
        if notes.entries.len() >= self.max {
            notes.entries.pop_front();
        }
        notes.entries.push_back((sequence, verdict, seen));
    }

    pub(super) fn entries(&self) -> Vec<JournalEntry> {
        self.lock().entries.iter().map(|note| self.entry(note)).collect()
    }

    pub(super) fn entries_of(&self, external_id: &str) -> Vec<JournalEntry> {
        let notes = self.lock();
        let of = notes.entries.iter().filter(|(_, _, seen)| seen.external_id.as_deref() == Some(external_id));
        of.map(|note| self.entry(note)).collect()
    }

    pub(super) fn counts(&self) -> Counts {
        self.lock().counts.clone()
    }

    fn entry(&self, (sequence, verdict, seen): &(u64, Verdict, Seen)) -> JournalEntry {
        JournalEntry {
            sequence: *sequence,
            operation: verdict.operation,
            id: seen.id.clone(),
            external_id: seen.external_id.clone(),
            source_version: seen.source_version,
            key: seen.key.clone(),
            fields: names_of(seen.names),
            status: verdict.status,
            problem: verdict.problem,
            replayed: verdict.replayed,
            fault: verdict.fault,
            body: self.keep_bodies.then(|| seen.body.clone()),
        }
    }
}

impl Counts {
    fn add(&mut self, verdict: Verdict) {
        if let Some(fault) = verdict.fault {
            *self.faults.entry(fault).or_default() += 1;
        }
        let Some(status) = verdict.status else { return };
        let by_status = self.answers.entry(verdict.operation.as_str()).or_default();
        *by_status.entry(status).or_default() += 1;
        if !verdict.operation.is_write() {
            return;
        }
        let count = match (status < 300, verdict.replayed, verdict.operation) {
            (true, true, _) => &mut self.replayed,
            (true, false, Operation::Create) => &mut self.created,
            (true, false, _) => &mut self.updated,
            (false, _, _) => &mut self.refused,
        };
        *count += 1;
    }
}
