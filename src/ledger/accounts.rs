//! The ledger's side of a comparison with the platform: what it holds about accounts, and what is put right.

use super::error::LedgerError;
use super::session::Session;
use super::work::IntentKind;
use crate::record::{FieldSet, Fingerprints};

/// What the ledger holds about an employee's account.
#[derive(Debug, Clone, PartialEq)]
pub struct Held {
    /// Who.
    pub employee_id: String,
    /// The account, linked or reserved.
    pub benefits_id: Option<String>,
    /// Whether it is linked.
    pub linked: bool,
    /// The version floor.
    pub version: i64,
    /// What was acknowledged.
    pub acknowledged: Fingerprints,
    /// Fields whose state is unknown.
    pub unknown: FieldSet,
    /// A write that may be on its way: kind and version.
    pub intent: Option<(IntentKind, i64)>,
    /// A create was sent whose fate is unknown.
    pub create_unresolved: bool,
    /// Somebody is delivering at this moment.
    pub claimed: bool,
}

/// What an account makes of the ledger's row.
#[derive(Debug, Clone, PartialEq)]
pub struct Correction {
    /// Who.
    pub employee_id: String,
    /// [`Held::version`] as it was loaded: a newer one means that something was sent meanwhile.
    pub loaded_version: i64,
    /// The intent's version as it was loaded.
    pub loaded_intent: Option<i64>,
    /// The version floor from now on.
    pub version: i64,
    /// What the platform holds; `None` is nothing that we know of.
    pub acknowledged: Option<Fingerprints>,
    /// The account, if there is still one.
    pub benefits_id: Option<String>,
    /// Whether it is linked.
    pub linked: bool,
    /// What comes next.
    pub fate: Fate,
}

/// What comes after a correction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Nothing: the comparison with HR says whether something is to be sent.
    Kept,
    /// Delivery. A write that was on its way has arrived, or never will.
    Due,
    /// A person has to decide.
    Conflict,
}

/// Loads what is held about accounts, or about employees without one whom accounts name.
pub async fn load(
    session: &Session,
    accounts: &[&str],
    employees: &[&str],
    platform_id: &str,
) -> Result<Vec<Held>, LedgerError> {
    let sql = include_str!("../../sql/queries/load_accounts.sql");
    let rows =
        session.query("read who has these accounts", sql, &[&accounts, &employees, &platform_id]).await?;
    rows.iter()
        .map(|row| {
            let unresolved = row.get::<_, bool>("create_unresolved");
            let intent = match row.get::<_, Option<&str>>("intent_kind") {
                None => None,
                Some(kind) => Some((IntentKind::named(kind)?, row.get("intent_version"))),
            };
            Ok(Held {
                employee_id: row.get("employee_id"),
                benefits_id: row.get("benefits_id"),
                linked: row.get("linked"),
                version: row.get("version"),
                acknowledged: row
                    .get::<_, Option<&[u8]>>("acknowledged")
                    .map_or(Fingerprints::UNKNOWN, Fingerprints::from_bytes),
                unknown: FieldSet::from_bits(row.get("unknown_fields")),
                intent,
                create_unresolved: unresolved || matches!(intent, Some((IntentKind::Create, _))),
                claimed: row.get("is_claimed"),
            })
        })
        .collect()
}

/// Puts the ledger right; how many rows. `text` is for people, where one has to decide.
pub async fn record(session: &Session, corrections: &[Correction], text: &str) -> Result<usize, LedgerError> {
    let ids: Vec<&str> = corrections.iter().map(|c| c.employee_id.as_str()).collect();
    let loaded: Vec<i64> = corrections.iter().map(|c| c.loaded_version).collect();
    let intents: Vec<Option<i64>> = corrections.iter().map(|c| c.loaded_intent).collect();
    let versions: Vec<i64> = corrections.iter().map(|c| c.version).collect();
    let acknowledged: Vec<Option<Vec<u8>>> =
        corrections.iter().map(|c| c.acknowledged.as_ref().map(Fingerprints::to_bytes)).collect();
    let accounts: Vec<Option<&str>> = corrections.iter().map(|c| c.benefits_id.as_deref()).collect();
    let linked: Vec<bool> = corrections.iter().map(|c| c.linked).collect();
    let due: Vec<bool> = corrections.iter().map(|c| c.fate == Fate::Due).collect();
    let conflicts: Vec<bool> = corrections.iter().map(|c| c.fate == Fate::Conflict).collect();
    let sql = include_str!("../../sql/queries/record_accounts.sql");
    let rows = session
        .query(
            "put accounts right",
            sql,
            &[&ids, &loaded, &intents, &versions, &acknowledged, &accounts, &linked, &due, &conflicts, &text],
        )
        .await?;
    Ok(rows.len())
}

/// The next page of the employees who were linked before `before` (epoch seconds): employee, and whether anything is
/// acknowledged.
pub async fn linked(
    session: &Session,
    after: &str,
    limit: i64,
    before: f64,
) -> Result<Vec<(String, bool)>, LedgerError> {
    let sql = include_str!("../../sql/queries/page_linked.sql");
    let rows = session.query("page who is linked", sql, &[&after, &limit, &before]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(2))).collect())
}

/// The platform does not list these employees' accounts. `ids` are sorted.
pub async fn forget(session: &Session, ids: &[String]) -> Result<(), LedgerError> {
    if ids.is_empty() {
        return Ok(());
    }
    let sql = include_str!("../../sql/queries/forget_acknowledged.sql");
    session.execute("forget what was acknowledged", sql, &[&ids]).await.map(drop)
}

/// Deliveries that are under way, of instances that live.
pub async fn under_way(session: &Session) -> Result<i64, LedgerError> {
    super::work::rescue(session).await?;
    let sql = "select count(*) from benefits.pending where claim is not null";
    let rows = session.query("count deliveries under way", sql, &[]).await?;
    Ok(rows.first().map_or(0, |row| row.get(0)))
}
