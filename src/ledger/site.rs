//! The site as described, and the stream's view of its employees, loaded when a stream starts.

use tokio_postgres::Row;

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

/// Rows that are fetched at once: what is loaded whole is loaded in short statements, or a million employees would meet the
/// statement timeout.
const ROWS_AT_ONCE: u32 = 20_000;

/// Who is synced, who has failed, who is in the starter baseline.
pub async fn load_members(session: &Session, hasher: &KeyHasher) -> Result<Members, LedgerError> {
    let mut members = Members::default();
    let employee = |row: &Row| hasher.employee(row.get::<_, &str>(0).as_bytes());
    let sql = "select employee_id from benefits.enrolment where transferred_to is null";
    each_row(session, "synced", sql, |row| members.enrol(employee(row))).await?;
    let sql = "select employee_id from benefits.failed";
    each_row(session, "failed", sql, |row| members.fail(employee(row))).await?;
    let sql = "select employee_id from benefits.employee where starter_baseline";
    each_row(session, "baseline", sql, |row| members.set_baseline(employee(row))).await?;
    Ok(members)
}

/// The child rows of synced employees.
pub async fn load_filter(session: &Session, hasher: &KeyHasher) -> Result<RowFilter, LedgerError> {
    let rows = count(session, "select count(*) from benefits.row_owner").await?;
    let mut filter = RowFilter::with_capacity(rows.saturating_mul(2));
    let sql = "select source_id, row_key from benefits.row_owner";
    each_row(session, "row_owners", sql, |row| {
        filter.insert(hasher.row(row.get(0), row.get::<_, &str>(1).as_bytes()));
    })
    .await?;
    Ok(filter)
}

/// All rows of a query, as of one moment and in the order in which they lie, which is the fastest way to read them all.
/// `cursor` names the statements.
async fn each_row(
    session: &Session,
    cursor: &str,
    sql: &str,
    mut take: impl FnMut(&Row),
) -> Result<(), LedgerError> {
    let open = format!("begin; declare {cursor} no scroll cursor for {sql}");
    session.batch("begin to load the stream's view", &open).await?;
    let fetch = format!("fetch {ROWS_AT_ONCE} from {cursor}");
    loop {
        let rows = session.query("load the stream's view", &fetch, &[]).await?;
        if rows.is_empty() {
            break;
        }
        rows.iter().for_each(&mut take);
    }
    session.batch("end loading the stream's view", "commit").await
}

async fn count(session: &Session, sql: &'static str) -> Result<usize, LedgerError> {
    let rows = session.query("count", sql, &[]).await?;
    Ok(rows.first().and_then(|row| usize::try_from(row.get::<_, i64>(0)).ok()).unwrap_or(0))
}
