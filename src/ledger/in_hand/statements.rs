//! What is recorded of employees in hand: their outcome, or a mark after all.

use std::collections::{HashMap, HashSet};
use std::time::{Instant, SystemTime};

use super::Change;
use crate::ledger::outcomes::Recorded;
use crate::ledger::work::Claim;
use crate::ledger::{LedgerError, Session};
use crate::record::{FieldSet, Fingerprints};

/// An accepted update of an employee who has no mark.
#[derive(Debug, Clone)]
pub struct Delivered {
    /// Who.
    pub employee_id: String,
    /// `Work::place`.
    pub place: String,
    /// `Work::row_version`: recorded only if the enrolment is still as it was loaded.
    pub row_version: String,
    /// The version that was used.
    pub version: i64,
    /// What the platform holds now.
    pub acknowledged: Fingerprints,
    /// What was sent.
    pub fields: FieldSet,
    /// The platform's id of the request.
    pub request_id: Option<String>,
    /// When the answer came.
    pub answered: Instant,
    /// When HR committed the change.
    pub changed_at: SystemTime,
}

/// Records accepted updates. Those that are not in the answer were not recorded: what the ledger knows of them has changed
/// since they were loaded.
pub async fn record(session: &Session, delivered: &[Delivered]) -> Result<Vec<Recorded>, LedgerError> {
    let mut delivered: Vec<&Delivered> = delivered.iter().collect();
    delivered.sort_unstable_by(|a, b| a.employee_id.cmp(&b.employee_id));
    let ids: Vec<&str> = delivered.iter().map(|d| d.employee_id.as_str()).collect();
    let places: Vec<&str> = delivered.iter().map(|d| d.place.as_str()).collect();
    let rows: Vec<&str> = delivered.iter().map(|d| d.row_version.as_str()).collect();
    let versions: Vec<i64> = delivered.iter().map(|d| d.version).collect();
    let acknowledged: Vec<Vec<u8>> = delivered.iter().map(|d| d.acknowledged.to_bytes()).collect();
    let fields: Vec<i64> = delivered.iter().map(|d| d.fields.bits()).collect();
    let requests: Vec<Option<&str>> = delivered.iter().map(|d| d.request_id.as_deref()).collect();
    let ages: Vec<f64> = delivered.iter().map(|d| d.answered.elapsed().as_secs_f64()).collect();
    let changed: Vec<SystemTime> = delivered.iter().map(|d| d.changed_at).collect();
    let sql = include_str!("../../../sql/queries/record_in_hand.sql");
    let rows = session
        .query(
            "record updates of employees in hand",
            sql,
            &[&ids, &places, &rows, &versions, &acknowledged, &fields, &requests, &ages, &changed],
        )
        .await?;
    Ok(rows
        .iter()
        .map(|row| Recorded { employee_id: row.get(0), last: true, latency_seconds: row.get(1) })
        .collect())
}

/// An employee in hand who is to be marked after all.
#[derive(Debug, Clone)]
pub struct ToTake {
    /// Who.
    pub employee_id: String,
    /// When the changes were committed.
    pub change: Change,
    /// A write that may be on its way.
    pub claim: Option<Claim>,
    /// What the platform holds is not known: everything is sent.
    pub in_full: bool,
    /// The mass change that they are judged with.
    pub mass_change: Option<i64>,
}

/// The mark that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// The marks counted.
    pub seq: i64,
    /// The claim is ours, for the write that was named.
    pub ours: bool,
}

/// Marks employees; in their order, `None` for who is not enrolled any more.
pub async fn take_into_ledger(
    session: &Session,
    token: i64,
    to_take: &[ToTake],
) -> Result<Vec<Option<Taken>>, LedgerError> {
    let mut marks: Vec<Option<Taken>> = vec![None; to_take.len()];
    let mut left: Vec<usize> = (0..to_take.len()).collect();
    while !left.is_empty() {
        // A statement marks nobody twice.
        let mut seen = HashSet::new();
        let (now, later): (Vec<usize>, Vec<usize>) =
            left.into_iter().partition(|at| to_take.get(*at).is_some_and(|t| seen.insert(&t.employee_id)));
        let round: Vec<&ToTake> = now.iter().filter_map(|at| to_take.get(*at)).collect();
        for (at, one) in now.iter().zip(take_once(session, token, &round).await?) {
            if let Some(place) = marks.get_mut(*at) {
                *place = one;
            }
        }
        left = later;
    }
    Ok(marks)
}

async fn take_once(
    session: &Session,
    token: i64,
    to_take: &[&ToTake],
) -> Result<Vec<Option<Taken>>, LedgerError> {
    let mut sorted: Vec<&ToTake> = to_take.to_vec();
    sorted.sort_unstable_by(|a, b| a.employee_id.cmp(&b.employee_id));
    let ids: Vec<&str> = sorted.iter().map(|t| t.employee_id.as_str()).collect();
    let first: Vec<SystemTime> = sorted.iter().map(|t| t.change.first).collect();
    let last: Vec<SystemTime> = sorted.iter().map(|t| t.change.last).collect();
    let claims = || sorted.iter().map(|t| t.claim.as_ref());
    let versions: Vec<Option<i64>> = claims().map(|claim| Some(claim?.version)).collect();
    let fields: Vec<Option<i64>> = claims().map(|claim| Some(claim?.fields.bits())).collect();
    let hashes: Vec<Option<&[u8]>> = claims().map(|claim| Some(claim?.hash.as_slice())).collect();
    let in_full: Vec<bool> = sorted.iter().map(|t| t.in_full).collect();
    let batches: Vec<Option<i64>> = sorted.iter().map(|t| t.mass_change).collect();
    let sql = include_str!("../../../sql/queries/take_into_ledger.sql");
    let rows = session
        .query(
            "mark employees in hand",
            sql,
            &[&token, &ids, &first, &last, &versions, &fields, &hashes, &in_full, &batches],
        )
        .await?;
    let marks: HashMap<&str, (i64, Option<i64>, Option<i64>)> =
        rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2), row.get(3)))).collect();
    Ok(to_take
        .iter()
        .map(|t| {
            let (seq, claim, version) = *marks.get(t.employee_id.as_str())?;
            let ours = t.claim.as_ref().is_some_and(|c| claim == Some(token) && version == Some(c.version));
            Some(Taken { seq, ours })
        })
        .collect())
}
