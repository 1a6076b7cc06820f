//! Doubt: a reason to compare everyone, kept in `benefits.site` until a comparison has ended well.
//!
//! Doubts are counted, as marks are: one that comes up while everyone is being compared outlives that comparison.

use super::error::LedgerError;
use super::session::Session;

/// The gravest doubt: the ledger may have lost its own tail, so nothing is sent before it was compared with the platform.
pub const PLATFORM: &str = "platform";

/// What there is to compare for, by the database's clock.
#[derive(Debug, Clone, PartialEq)]
pub struct Doubt {
    /// The gravest reason, if there is one.
    pub why: Option<String>,
    /// How many there have been.
    pub count: i64,
    /// Raised when a comparison has corrected `row_owner`.
    pub owners_version: i64,
    /// Whether the site is described, so that there is something to compare.
    pub described: bool,
    /// Now, in seconds since 1970.
    pub now: f64,
    /// When the last comparison that ended well began, in seconds since 1970; 0 where there was none, nothing before a
    /// slot was read.
    pub reconciled_at: Option<f64>,
}

impl Doubt {
    /// Whether delivery has to wait.
    pub fn is_of_platform(&self) -> bool {
        self.why.as_deref() == Some(PLATFORM)
    }
}

/// Notes a doubt; the graver one stays.
pub async fn note(session: &Session, why: &str) -> Result<(), LedgerError> {
    session.execute("note a doubt", include_str!("../../sql/queries/note_doubt.sql"), &[&why]).await.map(drop)
}

/// Reads it.
pub async fn load(session: &Session) -> Result<Doubt, LedgerError> {
    let rows =
        session.query("look for doubts", include_str!("../../sql/queries/load_doubt.sql"), &[]).await?;
    let row = rows.first().ok_or_else(|| LedgerError::Unexpected("benefits.site is empty".to_owned()))?;
    Ok(Doubt {
        why: row.get("doubt"),
        count: row.get("doubt_count"),
        owners_version: row.get("owners_version"),
        described: row.get("described_at_all"),
        now: row.get("now"),
        reconciled_at: row.get("reconciled_at"),
    })
}

/// Everyone was compared for `answered`; whether no newer doubt is left.
pub async fn clear(session: &Session, answered: &Doubt, owners_corrected: bool) -> Result<bool, LedgerError> {
    let sql = include_str!("../../sql/queries/clear_doubt.sql");
    let rows =
        session.query("clear doubts", sql, &[&answered.count, &answered.now, &owners_corrected]).await?;
    Ok(rows.first().is_some_and(|row| row.get(0)))
}
