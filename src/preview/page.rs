//! Reads employees for the preview, a page at a time; nothing is claimed or written.

use std::collections::HashSet;

use tokio_postgres::Row;

use crate::ledger::halves::{Fate, Halves};
use crate::ledger::work::sqlstate;
use crate::ledger::{LedgerError, Session, Trouble};
use crate::record::{COLUMNS, FieldSet, Fingerprints, RawRecord};

/// An employee as HR and the ledger have them.
pub(super) struct Candidate {
    pub(super) employee_id: String,
    pub(super) found: Found,
    pub(super) enrolment: Option<Enrolment>,
}

/// What the record query says.
pub(super) enum Found {
    One(Box<RawRecord>),
    None,
    /// The id is nobody's, and perhaps cannot be one.
    NoEmployee,
    Several,
    /// It fails for this employee; the SQLSTATE.
    Unreadable(String),
}

/// What the ledger says.
pub(super) struct Enrolment {
    pub(super) benefits_id: Option<String>,
    pub(super) linked: bool,
    pub(super) in_full: bool,
    pub(super) acknowledged: Fingerprints,
    pub(super) unknown: FieldSet,
}

/// How many there are in HR.
pub(super) async fn count(session: &Session) -> Result<u64, LedgerError> {
    let sql = "select count(*) from benefits.employee where gone_at is null";
    let rows = session.query("count employees", sql, &[]).await?;
    Ok(rows.first().map_or(0, |row| u64::try_from(row.get::<_, i64>(0)).unwrap_or(0)))
}

/// The next ids.
pub(super) async fn ids(session: &Session, after: &str, limit: i64) -> Result<Vec<String>, LedgerError> {
    let sql = include_str!("../../sql/queries/preview_page.sql");
    let rows = session.query("read a page of employees", sql, &[&after, &limit]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Which of these ids are enrolled.
pub(super) async fn enrolled(session: &Session, ids: &[&str]) -> Result<HashSet<String>, LedgerError> {
    let sql = "select employee_id from benefits.enrolment where employee_id = any ($1::text[])";
    let rows = session.query("look for employees", sql, &[&ids]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Their records. Where one employee's makes the query fail, or take so long twice that PostgreSQL ends it, the page is halved
/// until that employee stands alone.
pub(super) async fn read(session: &Session, ids: Vec<String>) -> Result<Vec<Candidate>, LedgerError> {
    let sql = include_str!("../../sql/queries/preview_work.sql");
    let mut candidates = Vec::with_capacity(ids.len());
    let mut halves = Halves::of(ids.len());
    while let Some(range) = halves.next_batch() {
        let batch = ids.get(range.clone()).unwrap_or_default();
        match session.query("read records", sql, &[&batch]).await {
            Ok(rows) => {
                collect(&rows, &mut candidates);
                halves.read();
            }
            Err(error) => match halves.failed(range, &error) {
                Fate::Again => {}
                Fate::Unreadable => {
                    for employee_id in batch {
                        let found = if is_employee(session, employee_id).await? {
                            Found::Unreadable(sqlstate(&error))
                        } else {
                            Found::NoEmployee
                        };
                        let employee_id = employee_id.clone();
                        candidates.push(Candidate { employee_id, found, enrolment: None });
                    }
                }
                Fate::NotOfARecord => return Err(error),
            },
        }
    }
    Ok(candidates)
}

/// As the commands judge an id: the ledger knows it, or HR's own table has it.
async fn is_employee(session: &Session, id: &str) -> Result<bool, LedgerError> {
    let known = "select from benefits.employee where employee_id = $1 and gone_at is null";
    if !session.query("look for the employee", known, &[&id]).await?.is_empty() {
        return Ok(true);
    }
    let listed = "select benefits.find_in_roster(array[$1])";
    match session.query("look for the employee in HR", listed, &[&id]).await {
        Ok(rows) => Ok(!rows.is_empty()),
        Err(error) if error.trouble() == Trouble::Passing => Err(error),
        // It is not of the key's type; or no described table lists everybody, and nobody else is known.
        Err(_) => Ok(false),
    }
}

fn collect(rows: &[Row], candidates: &mut Vec<Candidate>) {
    for row in rows {
        let employee_id: &str = row.get("employee_id");
        if let Some(last) = candidates.last_mut()
            && last.employee_id == employee_id
        {
            last.found = Found::Several;
            continue;
        }
        // The columns of read_records stand behind the fixed ones: its employee_id, then COLUMNS in order.
        let first = row.len().saturating_sub(COLUMNS.len());
        let found = match row.get::<_, Option<&str>>(first.saturating_sub(1)) {
            None => Found::None,
            Some(_) => Found::One(Box::new(RawRecord {
                employee_id: employee_id.to_owned(),
                values: (first..row.len()).map(|at| row.get(at)).collect(),
            })),
        };
        let enrolment = row.get::<_, Option<bool>>("enrolled").unwrap_or(false).then(|| Enrolment {
            benefits_id: row.get("benefits_id"),
            linked: row.get("linked"),
            in_full: row.get("in_full"),
            acknowledged: row
                .get::<_, Option<&[u8]>>("acknowledged")
                .map_or(Fingerprints::UNKNOWN, Fingerprints::from_bytes),
            unknown: FieldSet::from_bits(row.get("unknown_fields")),
        });
        candidates.push(Candidate { employee_id: employee_id.to_owned(), found, enrolment });
    }
}
