//! The site as described, and the stream's view of its employees, loaded when a stream starts.

use super::error::LedgerError;
use super::session::Session;
use crate::selection::{Description, KeyHasher, Members, RowFilter, Source};

/// `benefits.site`, with the version of the description.
#[derive(Debug, Clone)]
pub struct Site {
    /// Whether there is a record query.
    pub described_at_all: bool,
    /// The record query's columns.
    pub described: Vec<String>,
    /// The platform that the ledger is about; `None` before the first start.
    pub platform_id: Option<String>,
    /// The site's time zone.
    pub time_zone: String,
    /// Tells a changed fingerprint key.
    pub fingerprint_check: Option<Vec<u8>>,
    /// Delivery is paused by a person.
    pub paused_reason: Option<String>,
    /// Delivery is halted until a person resumes it.
    pub halted_code: Option<String>,
    /// Why the ledger may not know what the platform holds.
    pub doubt: Option<String>,
    /// Counts changes of the description.
    pub description_version: i64,
}

impl Site {
    /// Reads it.
    pub async fn load(session: &Session) -> Result<Self, LedgerError> {
        let rows =
            session.query("read the site", include_str!("../../sql/queries/load_site.sql"), &[]).await?;
        let row = rows.first().ok_or_else(|| LedgerError::Unexpected("benefits.site is empty".to_owned()))?;
        Ok(Self {
            described_at_all: row.get("described_at_all"),
            described: row.get("described"),
            platform_id: row.get("platform_id"),
            time_zone: row.get("time_zone"),
            fingerprint_check: row.get("fingerprint_check"),
            paused_reason: row.get("paused_reason"),
            halted_code: row.get("halted_code"),
            doubt: row.get("doubt"),
            description_version: row.get("version"),
        })
    }

    /// Reads the described tables.
    pub async fn sources(session: &Session) -> Result<Description, LedgerError> {
        let rows = session
            .query("read the sources", include_str!("../../sql/queries/load_sources.sql"), &[])
            .await?;
        let sources = rows.iter().map(|row| Source {
            id: row.get("source_id"),
            schema: row.get("table_schema"),
            table: row.get("table_name"),
            employee_key: row.get("employee_key"),
            starter_flag: row.get("starter_flag"),
            mapped: row.get("mapped_columns"),
            key: row.get("key_columns"),
            root: row.get("is_root"),
            tracked: row.get("tracked"),
        });
        Ok(Description { sources: sources.collect() })
    }
}

/// Rows a page: what is loaded whole is loaded in short statements, or a million employees would meet the statement
/// timeout. Nobody but the stream that is about to start enrols, so that pages need no common snapshot.
const PAGE: i64 = 20_000;

/// Who is synced, who has failed, who is in the starter baseline.
pub async fn load_members(session: &Session, hasher: &KeyHasher) -> Result<Members, LedgerError> {
    let count = count(session, "select count(*) from benefits.enrolment").await?;
    let mut members = Members::with_capacity(count);
    let sql = "select employee_id from benefits.enrolment where employee_id > $1 and transferred_to is null \
               order by employee_id limit $2";
    pages(session, "read who is synced", sql, |id| members.enrol(hasher.employee(id))).await?;
    let sql = "select employee_id from benefits.failed where employee_id > $1 order by employee_id limit $2";
    pages(session, "read who has failed", sql, |id| members.fail(hasher.employee(id))).await?;
    let sql = "select employee_id from benefits.employee where employee_id > $1 and starter_baseline \
               order by employee_id limit $2";
    pages(session, "read the starter baseline", sql, |id| members.set_baseline(hasher.employee(id))).await?;
    Ok(members)
}

/// Every employee that a query names, in the order of their ids; `$1` is the last id of the page before, `$2` how many.
async fn pages(
    session: &Session,
    what: &'static str,
    sql: &str,
    mut take: impl FnMut(&[u8]),
) -> Result<(), LedgerError> {
    let mut after = String::new();
    loop {
        let rows = session.query(what, sql, &[&after, &PAGE]).await?;
        for row in &rows {
            take(row.get::<_, &str>(0).as_bytes());
        }
        let Some(last) = rows.last() else { return Ok(()) };
        after = last.get(0);
    }
}

/// The child rows of synced employees.
pub async fn load_filter(session: &Session, hasher: &KeyHasher) -> Result<RowFilter, LedgerError> {
    let rows = count(session, "select count(*) from benefits.row_owner").await?;
    let mut filter = RowFilter::with_capacity(rows.saturating_mul(2));
    let sql = "select source_id, row_key from benefits.row_owner where (source_id, row_key) > ($1, $2) \
               order by source_id, row_key limit $3";
    let mut after = (i32::MIN, String::new());
    loop {
        let rows = session.query("read whose rows are", sql, &[&after.0, &after.1, &PAGE]).await?;
        for row in &rows {
            filter.insert(hasher.row(row.get(0), row.get::<_, &str>(1).as_bytes()));
        }
        let Some(last) = rows.last() else { return Ok(filter) };
        after = (last.get(0), last.get(1));
    }
}

async fn count(session: &Session, sql: &'static str) -> Result<usize, LedgerError> {
    let rows = session.query("count", sql, &[]).await?;
    Ok(rows.first().and_then(|row| usize::try_from(row.get::<_, i64>(0)).ok()).unwrap_or(0))
}
