//! What delivery reads of pending employees, and the intents that it writes before anything leaves.

use std::time::{Duration, SystemTime};

use tokio_postgres::Row;
use tokio_postgres::types::FromSql;

use super::error::{LedgerError, Trouble};
use super::halves::{Fate, Halves};
use super::outcomes::StateName;
use super::session::Session;
use crate::record::{COLUMNS, Described, FieldSet, Fingerprints, RawRecord};

/// The class of our session-level advisory locks: an instance's claims live as long as its lock.
const LOCK_CLASS: i32 = 0x0062_7379;

/// `Work::seq` of an employee in hand: no mark has this number.
pub const UNMARKED: i64 = 0;

/// Whose work is to be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Who.
    pub employee_id: String,
    /// In hand: loaded without a mark as well.
    pub in_hand: bool,
}

/// What a write does at the platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IntentKind {
    /// POST a new account.
    Create,
    /// PATCH an account that was found, taking it over.
    Link,
    /// PATCH the linked account.
    Update,
}

impl IntentKind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Link => "link",
            Self::Update => "update",
        }
    }

    /// From `benefits.pending.intent_kind`.
    pub(super) fn named(name: &str) -> Result<Self, LedgerError> {
        let mut kinds = [Self::Create, Self::Link, Self::Update].into_iter();
        let unknown = || LedgerError::Unexpected(format!("intent of kind {name}"));
        kinds.find(|kind| kind.as_str() == name).ok_or_else(unknown)
    }
}

/// A write that may be on its way, as kept in the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// What it does.
    pub kind: IntentKind,
    /// Its `sourceVersion`.
    pub version: i64,
    /// The fields it carries, and those of writes before it whose fate is unknown.
    pub fields: FieldSet,
    /// Keyed hash of its body without the version.
    pub hash: Vec<u8>,
}

/// A command that lets the next link take an account that a match by email alone may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkBy {
    /// The account of an ended record goes over to a new one.
    Transfer,
    /// A person has decided whose account it is.
    Relink,
}

impl LinkBy {
    fn from_name(name: &str) -> Option<Self> {
        match name {
            "transfer" => Some(Self::Transfer),
            "relink" => Some(Self::Relink),
            _ => None,
        }
    }
}

/// The record as HR has it.
#[derive(Debug, Clone)]
pub enum Read {
    /// One row.
    One(Box<RawRecord>),
    /// The query has no row for the employee.
    Gone,
    /// More than one.
    Ambiguous,
    /// The query fails for this employee; the text holds no value.
    Unreadable(String),
}

/// What somebody else's delivery would have changed since a record was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loaded {
    /// [`Work::version`].
    pub version: i64,
    /// The version of [`Work::claim`].
    pub intent: Option<i64>,
    /// [`Work::progressed_at`].
    pub progressed_at: Option<SystemTime>,
}

/// A pending employee with all that is needed to decide what to send.
#[derive(Debug, Clone)]
pub struct Work {
    /// Who.
    pub employee_id: String,
    /// The marks counted when the record was read; [`UNMARKED`] for an employee in hand.
    pub seq: i64,
    /// Where the enrolment's row lay.
    pub place: String,
    /// The enrolment's row version: another one says that somebody has recorded something since.
    pub row_version: String,
    /// Everything is sent, whatever was acknowledged.
    pub in_full: bool,
    /// Attempts without an outcome so far.
    pub attempts: i32,
    /// A write that may be on its way.
    pub claim: Option<Claim>,
    /// When an outcome was last recorded beside a newer mark. A statement that has waited for the mark's lock compares with
    /// this as it is then, while the enrolment's version is as it was when the statement began. `None` without a mark.
    pub progressed_at: Option<SystemTime>,
    /// The linked account, or the one reserved to be linked.
    pub benefits_id: Option<String>,
    /// Whether the account is linked.
    pub linked: bool,
    /// The version floor.
    pub version: i64,
    /// What the platform has acknowledged.
    pub acknowledged: Fingerprints,
    /// Fields whose state at the platform is unknown.
    pub unknown: FieldSet,
    /// The command that the next link is made for.
    pub link_by: Option<LinkBy>,
    /// The employee whose account was transferred to this one.
    pub transferred_from: Option<String>,
    /// Hash of the record whose mass change was discarded.
    pub discarded: Option<Vec<u8>>,
    /// A create was sent once and its answer never came, nor was the write resolved since.
    pub create_unresolved: bool,
    /// Counts changes of translations, levels and description; as of the snapshot in which the record was read.
    pub rules_version: i64,
    /// What the latest attempt came to; `None` before the first.
    pub outcome: Option<StateName>,
    /// Time since the last acknowledgement.
    pub since_last_sync: Option<Duration>,
    /// The database clock in microseconds since 1970, which versions are drawn from.
    pub clock: i64,
    /// The record.
    pub record: Read,
}

impl Work {
    /// Whether the employee is in hand: the ledger has no mark.
    pub fn is_unmarked(&self) -> bool {
        self.seq == UNMARKED
    }

    /// As it was read, for what is written later.
    pub fn loaded(&self) -> Loaded {
        Loaded {
            version: self.version,
            intent: self.claim.as_ref().map(|claim| claim.version),
            progressed_at: self.progressed_at,
        }
    }

    /// Whether the latest attempt was rejected.
    pub fn was_failed(&self) -> bool {
        self.outcome == Some(StateName::Failed)
    }

    /// Whether nothing but an update can come of this, and nothing but its acknowledgement has to be recorded.
    pub fn is_in_order(&self) -> bool {
        self.linked
            && self.outcome == Some(StateName::Successful)
            && self.claim.is_none()
            && self.link_by.is_none()
            && self.discarded.is_none()
            && !self.create_unresolved
    }
}

/// Work could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum WorkError {
    /// The record query itself does not work (a column or privilege is missing): nobody's record can be read.
    #[error("the record query does not work: {0}")]
    Query(LedgerError),
    /// PostgreSQL is away.
    #[error(transparent)]
    Away(LedgerError),
}

impl WorkError {
    /// Of a statement that failed for another reason than a record.
    pub(super) fn of(error: LedgerError) -> Self {
        if error.trouble() == Trouble::Site { Self::Query(error) } else { Self::Away(error) }
    }
}

/// A write about to leave.
#[derive(Debug, Clone)]
pub struct Intent {
    /// Who.
    pub employee_id: String,
    /// As it was when it was decided.
    pub loaded: Loaded,
    /// The write.
    pub claim: Claim,
    /// For a link: the account, reserved so that no other employee takes it.
    pub benefits_id: Option<String>,
}

/// Takes a claim token that is ours as long as the session lives.
pub async fn take_token(session: &Session) -> Result<i64, LedgerError> {
    let sql = "select t.token from (select nextval('benefits.claim_token') as token) as t, \
               lateral pg_advisory_lock($1::integer, t.token::integer)";
    let rows = session.query("take a claim token", sql, &[&LOCK_CLASS]).await?;
    rows.first().map(|row| row.get(0)).ok_or_else(|| LedgerError::Unexpected("no claim token".to_owned()))
}

/// `Work::rules_version` as it is now.
pub async fn rules_version(session: &Session) -> Result<i64, LedgerError> {
    let sql = "select rules_version from benefits.site";
    let rows = session.query("read the rules' version", sql, &[]).await?;
    rows.first()
        .map(|row| row.get(0))
        .ok_or_else(|| LedgerError::Unexpected("benefits.site is empty".to_owned()))
}

/// Frees claims of instances that are no more; how many.
pub async fn rescue(session: &Session) -> Result<u64, LedgerError> {
    let class = u32::try_from(LOCK_CLASS).unwrap_or_default();
    session.execute("rescue claims", include_str!("../../sql/queries/rescue_claims.sql"), &[&class]).await
}

/// Pending employees whom nobody delivers: id, and whether they are bulk.
pub async fn due(session: &Session, limit: i64) -> Result<Vec<(String, bool)>, LedgerError> {
    let rows =
        session.query("find who is due", include_str!("../../sql/queries/load_due.sql"), &[&limit]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// Loads employees' work with their records, in one snapshot. Where one employee's record makes the query fail, or take so
/// long twice that PostgreSQL ends it, the batch is halved until that employee stands alone.
pub async fn load(session: &Session, wanted: &[Wanted]) -> Result<Vec<Work>, WorkError> {
    load_in(session, wanted, false).await
}

/// As [`load`], to judge a mass change: whoever is held, claimed or to be tried later is loaded as well.
pub async fn load_to_judge(session: &Session, ids: Vec<String>) -> Result<Vec<Work>, WorkError> {
    let wanted: Vec<Wanted> =
        ids.into_iter().map(|employee_id| Wanted { employee_id, in_hand: false }).collect();
    load_in(session, &wanted, true).await
}

async fn load_in(session: &Session, wanted: &[Wanted], any_state: bool) -> Result<Vec<Work>, WorkError> {
    let mut loaded = Vec::with_capacity(wanted.len());
    let mut halves = Halves::of(wanted.len());
    while let Some(range) = halves.next_batch() {
        let batch = wanted.get(range.clone()).unwrap_or_default();
        let sql = include_str!("../../sql/queries/load_work.sql");
        match query_work(session, "read records", sql, batch, any_state).await {
            Ok(rows) => {
                collect(&rows, &mut loaded)?;
                halves.read();
            }
            Err(error) => match halves.failed(range, &error) {
                Fate::Again => {}
                Fate::Unreadable => loaded.extend(unreadable(session, batch, any_state, &error).await?),
                Fate::NotOfARecord => return Err(WorkError::of(error)),
            },
        }
    }
    Ok(loaded)
}

async fn query_work(
    session: &Session,
    what: &'static str,
    sql: &str,
    wanted: &[Wanted],
    any_state: bool,
) -> Result<Vec<Row>, LedgerError> {
    // In the order of the keys, by which neighbours in an index are met one after the other.
    let mut wanted: Vec<&Wanted> = wanted.iter().collect();
    wanted.sort_unstable_by(|a, b| a.employee_id.cmp(&b.employee_id));
    let ids: Vec<&str> = wanted.iter().map(|wanted| wanted.employee_id.as_str()).collect();
    let in_hand: Vec<bool> = wanted.iter().map(|wanted| wanted.in_hand).collect();
    session.query(what, sql, &[&ids, &in_hand, &any_state]).await
}

/// The employee's work without the record that cannot be read.
async fn unreadable(
    session: &Session,
    wanted: &[Wanted],
    any_state: bool,
    error: &LedgerError,
) -> Result<Vec<Work>, WorkError> {
    let sql = include_str!("../../sql/queries/load_work.sql")
        .replace("    r.*\n", "    null::text as no_record\n")
        .replace("left join benefits.read_records($1::text[]) as r on r.employee_id = w.employee_id\n", "");
    let rows = query_work(session, "read an unreadable employee's work", &sql, wanted, any_state)
        .await
        .map_err(WorkError::Away)?;
    let text = sqlstate(error);
    rows.iter()
        .map(|row| head(row, Read::Unreadable(text.clone())))
        .collect::<Result<_, _>>()
        .map_err(WorkError::Query)
}

fn collect(rows: &[Row], loaded: &mut Vec<Work>) -> Result<(), WorkError> {
    for row in rows {
        let employee_id: &str = row.get(0);
        if let Some(last) = loaded.last_mut()
            && last.employee_id == employee_id
        {
            last.record = Read::Ambiguous;
            continue;
        }
        loaded.push(head(row, read_of(row, employee_id)).map_err(WorkError::Query)?);
    }
    Ok(())
}

/// The columns of `read_records` stand behind a statement's own: its `employee_id`, then [`COLUMNS`] in order.
pub(super) fn read_of(row: &Row, employee_id: &str) -> Read {
    let first = row.len().saturating_sub(COLUMNS.len());
    match row.get::<_, Option<&str>>(first.saturating_sub(1)) {
        None => Read::Gone,
        Some(_) => Read::One(Box::new(RawRecord {
            employee_id: employee_id.to_owned(),
            values: (first..row.len()).map(|at| row.get(at)).collect(),
        })),
    }
}

/// What may be shown of the error that an employee's record makes.
pub(crate) fn sqlstate(error: &LedgerError) -> String {
    match error {
        LedgerError::Statement { source, .. } => {
            source.code().map_or("unknown", |state| state.code()).to_owned()
        }
        other => other.to_string(),
    }
}

/// A row's columns one after the other: to look for each by its name costs more than to read it.
struct Columns<'r> {
    row: &'r Row,
    next: usize,
}

impl<'r> Columns<'r> {
    fn take<T: FromSql<'r>>(&mut self) -> T {
        self.next += 1;
        self.row.get(self.next - 1)
    }
}

/// The columns of `load_work.sql` in their order, up to the record's.
fn head(row: &Row, record: Read) -> Result<Work, LedgerError> {
    let mut columns = Columns { row, next: 0 };
    Ok(Work {
        employee_id: columns.take(),
        seq: columns.take(),
        in_full: columns.take(),
        attempts: columns.take(),
        claim: claim(&mut columns)?,
        progressed_at: columns.take(),
        benefits_id: columns.take(),
        linked: columns.take(),
        version: columns.take(),
        acknowledged: columns.take::<Option<&[u8]>>().map_or(Fingerprints::UNKNOWN, Fingerprints::from_bytes),
        unknown: FieldSet::from_bits(columns.take()),
        outcome: StateName::named(columns.take()),
        link_by: columns.take::<Option<&str>>().and_then(LinkBy::from_name),
        transferred_from: columns.take(),
        discarded: columns.take(),
        create_unresolved: columns.take(),
        rules_version: columns.take(),
        place: columns.take(),
        row_version: columns.take(),
        since_last_sync: columns
            .take::<Option<f64>>()
            .and_then(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).ok()),
        clock: columns.take(),
        record,
    })
}

fn claim(columns: &mut Columns<'_>) -> Result<Option<Claim>, LedgerError> {
    let kind: Option<&str> = columns.take();
    let (version, fields, hash): (Option<i64>, Option<i64>, Option<Vec<u8>>) =
        (columns.take(), columns.take(), columns.take());
    let Some(kind) = kind else { return Ok(None) };
    Ok(Some(Claim {
        kind: IntentKind::named(kind)?,
        version: version.unwrap_or(0),
        fields: FieldSet::from_bits(fields.unwrap_or(0)),
        hash: hash.unwrap_or_default(),
    }))
}

/// Which of the record's columns the site has described.
pub fn described(columns: &[String]) -> Described {
    Described::from_columns(columns.iter().map(String::as_str))
}

/// Claims employees and makes their writes durable; the ids that are ours to send. An account that is reserved by another
/// employee makes the whole call fail with a unique violation: see [`is_taken`].
pub async fn write_intents(
    session: &Session,
    token: i64,
    intents: &[Intent],
) -> Result<Vec<String>, LedgerError> {
    let mut intents: Vec<&Intent> = intents.iter().collect();
    intents.sort_unstable_by(|a, b| a.employee_id.cmp(&b.employee_id));
    let ids: Vec<&str> = intents.iter().map(|i| i.employee_id.as_str()).collect();
    let loaded: Vec<i64> = intents.iter().map(|i| i.loaded.version).collect();
    let loaded_intent: Vec<Option<i64>> = intents.iter().map(|i| i.loaded.intent).collect();
    let progressed: Vec<Option<SystemTime>> = intents.iter().map(|i| i.loaded.progressed_at).collect();
    let kinds: Vec<&str> = intents.iter().map(|i| i.claim.kind.as_str()).collect();
    let versions: Vec<i64> = intents.iter().map(|i| i.claim.version).collect();
    let fields: Vec<i64> = intents.iter().map(|i| i.claim.fields.bits()).collect();
    let hashes: Vec<&[u8]> = intents.iter().map(|i| i.claim.hash.as_slice()).collect();
    let accounts: Vec<Option<&str>> = intents.iter().map(|i| i.benefits_id.as_deref()).collect();
    let rows = session
        .query(
            "write intents",
            include_str!("../../sql/queries/write_intents.sql"),
            &[
                &token,
                &ids,
                &loaded,
                &loaded_intent,
                &kinds,
                &versions,
                &fields,
                &hashes,
                &accounts,
                &progressed,
            ],
        )
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Whether an intent failed because its account is another employee's.
pub fn is_taken(error: &LedgerError) -> bool {
    matches!(error, LedgerError::Statement { source, .. }
        if source.code() == Some(&tokio_postgres::error::SqlState::UNIQUE_VIOLATION))
}
