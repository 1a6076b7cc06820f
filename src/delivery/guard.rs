//! The mass-change guard: what "ends" a person is counted before it is sent, and too many at once are held for a person.
//!
//! ```text
//!  decide ──▶ ending? ──no──▶ deliver
//!               │ yes
//!               ▼   one lock for all instances, counts kept in the ledger
//!             admit ──▶ go: deliver │ held: a person decides │ wait: the rest of its mass change is not judged yet
//! ```
//!
//! A commit that touches more people than the limit is a mass change ([`crate::ledger::Marks`] notes it). Whom it has marked
//! are read and decided once without sending (`judge`), apart from their delivery: those whom it does not end flow meanwhile,
//! from the ledger or in hand, and it is judged once all of it is marked or delivered.

use std::sync::Arc;

use tokio_postgres::types::ToSql;

use super::decide::{Decision, Opening, Terms, decide};
use crate::config::Guard;
use crate::ledger::work::{self, Read, Work, WorkError};
use crate::ledger::{LedgerError, Session};
use crate::record::{Field, FingerprintKey};

/// Employees that are judged at once.
const JUDGE_MAX: i64 = 256;

/// How a change ends a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndingKind {
    /// They get a leave date.
    LeaveDate,
    /// A mandatory field is emptied.
    Required,
    /// HR's row has gone.
    RecordGone,
}

impl EndingKind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::LeaveDate => "leave-date",
            Self::Required => "required",
            Self::RecordGone => "record-gone",
        }
    }
}

/// A change that would end a person.
#[derive(Debug, Clone)]
pub struct Ending {
    /// Who.
    pub employee_id: String,
    /// The marks counted when the record was read.
    pub seq: i64,
    /// Hash of the record.
    pub record: [u8; 16],
    /// How.
    pub kind: EndingKind,
}

/// What the guard says of an ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Within the limit.
    Go,
    /// Held for a person.
    Held,
    /// Part of a mass change that is not judged yet, or marked again meanwhile.
    Wait,
}

/// Whether a decision ends somebody who is in step so far. Somebody who is linked just now, or has failed already, is not
/// ended by it; nor is a leaver whose date is corrected.
pub fn ending(work: &Work, decision: &Decision, key: &FingerprintKey) -> Option<Ending> {
    let kind = match decision {
        Decision::Send(plan) if plan.opening == Opening::Update => {
            let none = key.fingerprint(&work.employee_id, Field::LeaveDate, None);
            let gets_one = plan.fields.contains(Field::LeaveDate)
                && plan.record.value(Field::LeaveDate).is_some()
                && work.acknowledged.get(Field::LeaveDate) == Some(none);
            gets_one.then_some(EndingKind::LeaveDate)?
        }
        Decision::Reject(rejection) if work.linked && !work.was_failed() => {
            if rejection.code == "record-gone" {
                EndingKind::RecordGone
            } else {
                rejection.lacks_mandatory.then_some(EndingKind::Required)?
            }
        }
        _ => return None,
    };
    let record = record_hash(work, key);
    Some(Ending { employee_id: work.employee_id.clone(), seq: work.seq, record, kind })
}

/// Whether HR's record is still the one whose mass change a person has discarded.
pub fn is_discarded(work: &Work, key: &FingerprintKey) -> bool {
    work.discarded.as_ref().is_some_and(|hash| hash.as_slice() == record_hash(work, key))
}

fn record_hash(work: &Work, key: &FingerprintKey) -> [u8; 16] {
    match &work.record {
        Read::One(raw) => raw.hash(key),
        // No row has no columns, and hashes to something that no row does.
        Read::Gone | Read::Ambiguous | Read::Unreadable(_) => {
            crate::record::RawRecord { employee_id: work.employee_id.clone(), values: Vec::new() }.hash(key)
        }
    }
}

/// Asks for a batch of endings; the verdicts in their order.
pub(super) async fn admit(
    session: &Session,
    guard: &Guard,
    endings: &[Ending],
) -> Result<Vec<Verdict>, LedgerError> {
    let ids: Vec<&str> = endings.iter().map(|e| e.employee_id.as_str()).collect();
    let seqs: Vec<i64> = endings.iter().map(|e| e.seq).collect();
    let records: Vec<&[u8]> = endings.iter().map(|e| e.record.as_slice()).collect();
    let kinds: Vec<&str> = endings.iter().map(|e| e.kind.as_str()).collect();
    let sql = "select employee_id, verdict from benefits.admit_endings($1, $2, $3, $4, $5, $6, make_interval(secs => $7))";
    let (minimum, window) = (minimum(guard), guard.window.as_secs_f64());
    let rows = session
        .query("count endings", sql, &[&ids, &seqs, &records, &kinds, &guard.fraction, &minimum, &window])
        .await?;
    let verdicts: std::collections::HashMap<&str, Verdict> = rows
        .iter()
        .map(|row| {
            let verdict = match row.get::<_, &str>(1) {
                "go" => Verdict::Go,
                "held" => Verdict::Held,
                _ => Verdict::Wait,
            };
            (row.get(0), verdict)
        })
        .collect();
    Ok(ids.iter().map(|id| verdicts.get(id).copied().unwrap_or(Verdict::Wait)).collect())
}

/// What became of the judging.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judged {
    /// Nothing to do, or not all of it can be done yet.
    Nothing,
    /// A mass change was settled: its people may be due.
    Settled,
    /// The rules have changed since they were read: judge again with new ones.
    RulesAreStale,
}

/// Judges every mass change there is, by rules of this version.
pub(super) async fn judge(
    session: &Arc<Session>,
    guard: &Guard,
    terms: &Terms<'_>,
    rules_version: i64,
) -> Result<Judged, WorkError> {
    let away = WorkError::Away;
    // Whoever was marking may have died; what an hour has not completed will not be.
    let sql = "update benefits.mass_change set complete = true \
               where not complete and noted_at < clock_timestamp() - interval '1 hour'";
    session.execute("complete old mass changes", sql, &[]).await.map_err(away)?;
    let sql = "select batch from benefits.mass_change where complete order by batch";
    let batches = session.query("look for mass changes", sql, &[]).await.map_err(away)?;
    let mut judged = Judged::Nothing;
    for row in &batches {
        let batch: i64 = row.get(0);
        let mut after = String::new();
        loop {
            let sql = "select employee_id from benefits.pending \
                       where batch = $1 and ending is null and employee_id > $2 order by employee_id limit $3";
            let params: &[&(dyn ToSql + Sync)] = &[&batch, &after, &JUDGE_MAX];
            let rows = session.query("find who is to be judged", sql, params).await.map_err(away)?;
            if rows.is_empty() {
                break;
            }
            let ids: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
            after = ids.last().cloned().unwrap_or_default();
            let works = work::load_to_judge(session, ids).await?;
            if works.iter().any(|work| work.rules_version > rules_version) {
                return Ok(Judged::RulesAreStale);
            }
            note(session, works, terms).await.map_err(away)?;
        }
        let sql = "select benefits.settle_batch($1, $2, $3, make_interval(secs => $4))";
        let (minimum, window) = (minimum(guard), guard.window.as_secs_f64());
        let rows = session
            .query("settle a mass change", sql, &[&batch, &guard.fraction, &minimum, &window])
            .await
            .map_err(away)?;
        if rows.first().is_some_and(|row| row.get(0)) {
            judged = Judged::Settled;
        }
    }
    Ok(judged)
}

async fn note(session: &Session, works: Vec<Work>, terms: &Terms<'_>) -> Result<(), LedgerError> {
    let mut ids = Vec::with_capacity(works.len());
    let mut seqs = Vec::with_capacity(works.len());
    let mut records: Vec<Option<Vec<u8>>> = Vec::with_capacity(works.len());
    let mut kinds: Vec<Option<&str>> = Vec::with_capacity(works.len());
    for work in works {
        let decision = decide(&work, terms);
        let ending = ending(&work, &decision, terms.key);
        ids.push(work.employee_id);
        seqs.push(work.seq);
        records.push(ending.as_ref().map(|ending| ending.record.to_vec()));
        kinds.push(ending.map(|ending| ending.kind.as_str()));
    }
    let sql = include_str!("../../sql/queries/judge.sql");
    session.execute("judge a mass change", sql, &[&ids, &seqs, &records, &kinds]).await?;
    Ok(())
}

fn minimum(guard: &Guard) -> i32 {
    i32::try_from(guard.minimum).unwrap_or(i32::MAX)
}
