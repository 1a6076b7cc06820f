//! Everyone, page by page: HR's roster, requests that nobody passed, what was acknowledged beside what HR has now.
//!
//! Every statement is short and holds its locks for a page at most; `dry` counts and writes nothing.

use std::sync::Arc;

use tokio_postgres::Row;

use super::error::LedgerError;
use super::halves::{Fate, Halves};
use super::session::Session;
use super::work::{Read, WorkError, read_of, sqlstate};
use crate::record::{FieldSet, Fingerprints};

/// What a page of the roster held.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RosterPage {
    /// Employees on it.
    pub seen: i64,
    /// Its last id; none after the end.
    pub last: Option<String>,
    /// Employees whom the ledger did not know.
    pub hired: i64,
    /// Missed starters, for whom this page has written a request.
    pub starters: i64,
}

/// An employee as acknowledged and as HR has them now.
#[derive(Debug, Clone)]
pub struct Enrolled {
    /// Who.
    pub employee_id: String,
    /// Whether an account is linked.
    pub linked: bool,
    /// What the platform has acknowledged.
    pub acknowledged: Fingerprints,
    /// Fields whose state at the platform is unknown.
    pub unknown: FieldSet,
    /// The latest attempt was rejected.
    pub failed: bool,
    /// Keyed hash of the record that was refused.
    pub refused: Option<Vec<u8>>,
    /// The record.
    pub record: Read,
}

/// Whether a table of everyone is described.
pub async fn has_roster(session: &Session) -> Result<bool, LedgerError> {
    let sql = "select to_regprocedure('benefits.read_roster(text, integer)') is not null";
    let rows = session.query("look for the roster", sql, &[]).await?;
    Ok(rows.first().is_some_and(|row| row.get(0)))
}

/// How many are synced, for the progress.
pub async fn count(session: &Session) -> Result<u64, LedgerError> {
    let sql = "select count(*) from benefits.enrolment where transferred_to is null";
    let rows = session.query("count who is synced", sql, &[]).await?;
    Ok(rows.first().and_then(|row| u64::try_from(row.get::<_, i64>(0)).ok()).unwrap_or(0))
}

/// Brings a page of the roster into the ledger; `after` is the last page's last id.
pub async fn roster(
    session: &Session,
    after: Option<&str>,
    limit: i32,
    dry: bool,
) -> Result<RosterPage, LedgerError> {
    let sql = include_str!("../../sql/queries/compare_roster.sql");
    let rows = session.query("compare the roster", sql, &[&after, &limit, &dry]).await?;
    Ok(rows.first().map_or_else(RosterPage::default, |row| RosterPage {
        seen: row.get("seen"),
        last: row.get("last_id"),
        hired: row.get("hired"),
        starters: row.get("starters"),
    }))
}

/// Looks a page of known employees up in HR: the page's last id, and how many have gone.
pub async fn gone(
    session: &Session,
    after: &str,
    limit: i64,
    dry: bool,
) -> Result<(Option<String>, i64), LedgerError> {
    let sql = include_str!("../../sql/queries/find_gone.sql");
    let rows = session.query("find who has gone", sql, &[&after, &limit, &dry]).await?;
    Ok(rows.first().map_or((None, 0), |row| (row.get("last_id"), row.get("gone"))))
}

/// Touches a page of requests at least so old: the page's last id, and how many.
pub async fn stranded(
    session: &Session,
    after: i64,
    limit: i64,
    age_seconds: f64,
    dry: bool,
) -> Result<(Option<i64>, i64), LedgerError> {
    let sql = include_str!("../../sql/queries/touch_requests.sql");
    let rows = session.query("touch stranded requests", sql, &[&after, &limit, &age_seconds, &dry]).await?;
    Ok(rows.first().map_or((None, 0), |row| (row.get("last_id"), row.get("stranded"))))
}

/// The next page of everyone who is synced.
pub async fn page(session: &Session, after: &str, limit: i64) -> Result<Vec<String>, LedgerError> {
    let sql = include_str!("../../sql/queries/page_enrolled.sql");
    let rows = session.query("page who is synced", sql, &[&after, &limit]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Corrects whose the employees' child rows are: how many rows, and the employees whom a row has left.
pub async fn correct_owners(session: &Session, ids: &[String]) -> Result<(i64, Vec<String>), LedgerError> {
    let sql = include_str!("../../sql/queries/correct_owners.sql");
    let rows = session.query("correct whose rows are", sql, &[&ids]).await?;
    Ok(rows.first().map_or((0, Vec::new()), |row| (row.get("corrected"), row.get("left_behind"))))
}

/// What is marked from now on is one mass change: the guard judges it whole, so that a comparison that finds a thousand
/// leavers ends none of them before a person has looked.
pub async fn begin_marking(session: &Session) -> Result<(), LedgerError> {
    end_marking(session).await?;
    let sql = "insert into benefits.mass_change (complete, is_comparison) values (false, true)";
    session.execute("note a comparison", sql, &[]).await.map(|_| ())
}

/// Everything is marked.
pub async fn end_marking(session: &Session) -> Result<(), LedgerError> {
    let sql = "update benefits.mass_change set complete = true where is_comparison and not complete";
    session.execute("complete a comparison", sql, &[]).await.map(|_| ())
}

/// Marks employees as out of step. `ids` are sorted.
pub async fn mark(session: &Session, ids: &[String]) -> Result<u64, LedgerError> {
    if ids.is_empty() {
        return Ok(0);
    }
    session.execute("mark who differs", include_str!("../../sql/queries/mark_differing.sql"), &[&ids]).await
}

/// Loads employees with their records, in one snapshot. Where one record makes the query fail, or take so long twice that
/// PostgreSQL ends it, the page is halved until that employee stands alone.
pub async fn load(session: &Arc<Session>, ids: Vec<String>) -> Result<Vec<Enrolled>, WorkError> {
    let sql = include_str!("../../sql/queries/load_enrolled.sql");
    let mut loaded: Vec<Enrolled> = Vec::with_capacity(ids.len());
    let mut halves = Halves::of(ids.len());
    while let Some(range) = halves.next_batch() {
        let batch = ids.get(range.clone()).unwrap_or_default();
        match session.query("read records", sql, &[&batch]).await {
            Ok(rows) => {
                collect(&rows, &mut loaded);
                halves.read();
            }
            Err(error) => match halves.failed(range, &error) {
                Fate::Again => {}
                Fate::Unreadable => loaded.extend(unreadable(session, batch, &error).await?),
                Fate::NotOfARecord => return Err(WorkError::of(error)),
            },
        }
    }
    Ok(loaded)
}

fn collect(rows: &[Row], loaded: &mut Vec<Enrolled>) {
    for row in rows {
        let employee_id: &str = row.get("employee_id");
        match loaded.last_mut().filter(|last| last.employee_id == employee_id) {
            Some(last) => last.record = Read::Ambiguous,
            None => loaded.push(enrolled(row, read_of(row, employee_id))),
        }
    }
}

/// The employee's state without the record that cannot be read.
async fn unreadable(
    session: &Session,
    ids: &[String],
    error: &LedgerError,
) -> Result<Vec<Enrolled>, WorkError> {
    let sql = include_str!("../../sql/queries/load_enrolled.sql")
        .replace("    r.*\n", "    null::text as no_record\n")
        .replace("left join benefits.read_records($1::text[]) as r on r.employee_id = w.employee_id\n", "");
    let rows = session.query("read an unreadable employee's state", &sql, &[&ids]).await;
    let state = sqlstate(error);
    let of = |row| enrolled(row, Read::Unreadable(state.clone()));
    Ok(rows.map_err(WorkError::Away)?.iter().map(of).collect())
}

fn enrolled(row: &Row, record: Read) -> Enrolled {
    Enrolled {
        employee_id: row.get("employee_id"),
        linked: row.get("linked"),
        acknowledged: row
            .get::<_, Option<&[u8]>>("acknowledged")
            .map_or(Fingerprints::UNKNOWN, Fingerprints::from_bytes),
        unknown: FieldSet::from_bits(row.get("unknown_fields")),
        failed: row.get("failed"),
        refused: row.get("refused"),
        record,
    }
}
