//! What attempts came to, recorded in batches: state, history, and the pending row cleared where nothing came in between.

use std::collections::HashSet;
use std::time::SystemTime;

use super::error::LedgerError;
use super::session::Session;
use super::work::Loaded;
use crate::record::{FieldSet, Fingerprints};

/// `benefits.enrolment.outcome`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateName {
    /// In step.
    Successful,
    /// Rejected, here or there.
    Failed,
}

impl StateName {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Successful => "successful",
            Self::Failed => "failed",
        }
    }

    /// From `benefits.enrolment.outcome`; `None` for anything else.
    pub(super) fn named(name: &str) -> Option<Self> {
        [Self::Successful, Self::Failed].into_iter().find(|state| state.as_str() == name)
    }
}

/// A line of `benefits.history`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryLine {
    /// `linked`, `created`, `updated`, `rejected`.
    pub event: &'static str,
    /// The fields that were sent or refused.
    pub fields: FieldSet,
    /// The platform's id of the request.
    pub request_id: Option<String>,
}

/// What an employee's attempt came to.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, not a state")]
pub struct Outcome {
    /// Who.
    pub employee_id: String,
    /// The marks counted when the record was read: only if no more have come is the employee in step.
    pub seq: i64,
    /// The claim it was sent under; `None` when nothing had to be sent.
    pub claim: Option<i64>,
    /// As it was when it was decided: without a claim, anything else says that somebody else has sent or delivered since.
    pub loaded: Loaded,
    /// The highest version used or seen.
    pub version: i64,
    /// What the platform holds now; `None` leaves what is stored.
    pub acknowledged: Option<Fingerprints>,
    /// Fields whose state at the platform is unknown.
    pub unknown: FieldSet,
    /// A create was sent and its fate is unknown.
    pub create_unresolved: bool,
    /// In step, or rejected.
    pub state: StateName,
    /// For a rejection: code and text.
    pub error: Option<(String, String)>,
    /// The account.
    pub benefits_id: Option<String>,
    /// Whether it is linked.
    pub linked: bool,
    /// When the answer came.
    pub answered: std::time::Instant,
    /// Whether the platform accepted a write.
    pub synced: bool,
    /// For a rejection: keyed hash of the record that was refused, so that a comparison leaves it alone while it is the same.
    pub refused: Option<Vec<u8>>,
    /// What a person has discarded is still what HR has: it stays discarded.
    pub discarded: bool,
    /// For the history.
    pub lines: Vec<HistoryLine>,
}

/// What was recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    /// Who.
    pub employee_id: String,
    /// No change came in between: the pending row is gone.
    pub last: bool,
    /// From HR's commit to the answer, in seconds.
    pub latency_seconds: f64,
}

/// Records outcomes in one transaction. Those that are not in the answer had lost their claim: nothing is recorded for
/// them, and whoever holds the claim now will do it.
pub async fn record(session: &Session, outcomes: &[Outcome]) -> Result<Vec<Recorded>, LedgerError> {
    let mut sorted: Vec<&Outcome> = outcomes.iter().collect();
    sorted.sort_unstable_by(|a, b| a.employee_id.cmp(&b.employee_id));
    let mut recorded = record_once(session, &sorted).await?;
    if recorded.len() < sorted.len() {
        // Marked again in the instant between the statement's snapshot and its lock; or the claim is lost indeed. The second
        // statement sees that mark, and records beside it, and beside any that it has to wait for.
        let known: HashSet<String> = recorded.iter().map(|recorded| recorded.employee_id.clone()).collect();
        sorted.retain(|outcome| !known.contains(&outcome.employee_id));
        recorded.extend(record_once(session, &sorted).await?);
    }
    Ok(recorded)
}

async fn record_once(session: &Session, outcomes: &[&Outcome]) -> Result<Vec<Recorded>, LedgerError> {
    let ids: Vec<&str> = outcomes.iter().map(|o| o.employee_id.as_str()).collect();
    let seqs: Vec<i64> = outcomes.iter().map(|o| o.seq).collect();
    let claims: Vec<Option<i64>> = outcomes.iter().map(|o| o.claim).collect();
    let versions: Vec<i64> = outcomes.iter().map(|o| o.version).collect();
    let acknowledged: Vec<Option<Vec<u8>>> =
        outcomes.iter().map(|o| o.acknowledged.as_ref().map(Fingerprints::to_bytes)).collect();
    let unknown: Vec<i64> = outcomes.iter().map(|o| o.unknown.bits()).collect();
    let states: Vec<&str> = outcomes.iter().map(|o| o.state.as_str()).collect();
    let codes: Vec<Option<&str>> =
        outcomes.iter().map(|o| o.error.as_ref().map(|(code, _)| code.as_str())).collect();
    let errors: Vec<Option<&str>> =
        outcomes.iter().map(|o| o.error.as_ref().map(|(_, text)| text.as_str())).collect();
    let accounts: Vec<Option<&str>> = outcomes.iter().map(|o| o.benefits_id.as_deref()).collect();
    let linked: Vec<bool> = outcomes.iter().map(|o| o.linked).collect();
    let ages: Vec<f64> = outcomes.iter().map(|o| o.answered.elapsed().as_secs_f64()).collect();
    let synced: Vec<bool> = outcomes.iter().map(|o| o.synced).collect();
    let refused: Vec<Option<&[u8]>> = outcomes.iter().map(|o| o.refused.as_deref()).collect();
    let discarded: Vec<bool> = outcomes.iter().map(|o| o.discarded).collect();
    let loaded: Vec<i64> = outcomes.iter().map(|o| o.loaded.version).collect();
    let intents: Vec<Option<i64>> = outcomes.iter().map(|o| o.loaded.intent).collect();
    let progressed: Vec<Option<SystemTime>> = outcomes.iter().map(|o| o.loaded.progressed_at).collect();
    let unresolved: Vec<bool> = outcomes.iter().map(|o| o.create_unresolved).collect();
    let lines = Lines::of(outcomes);
    let rows = session
        .query(
            "record outcomes",
            include_str!("../../sql/queries/record_outcomes.sql"),
            &[
                &ids,
                &seqs,
                &claims,
                &versions,
                &acknowledged,
                &unknown,
                &states,
                &codes,
                &errors,
                &accounts,
                &linked,
                &ages,
                &synced,
                &lines.ids,
                &lines.events,
                &lines.fields,
                &lines.states,
                &lines.codes,
                &lines.errors,
                &lines.requests,
                &loaded,
                &unresolved,
                &discarded,
                &refused,
                &intents,
                &progressed,
            ],
        )
        .await?;
    Ok(rows
        .iter()
        .map(|row| Recorded { employee_id: row.get(0), last: row.get(1), latency_seconds: row.get(2) })
        .collect())
}

/// History lines, a vector a column.
#[derive(Default)]
struct Lines<'o> {
    ids: Vec<&'o str>,
    events: Vec<&'o str>,
    fields: Vec<i64>,
    states: Vec<&'o str>,
    codes: Vec<Option<&'o str>>,
    errors: Vec<Option<&'o str>>,
    requests: Vec<Option<&'o str>>,
}

impl<'o> Lines<'o> {
    fn of(outcomes: &[&'o Outcome]) -> Self {
        let mut lines = Self::default();
        for (outcome, line) in outcomes.iter().flat_map(|o| o.lines.iter().map(move |line| (*o, line))) {
            lines.ids.push(&outcome.employee_id);
            lines.events.push(line.event);
            lines.fields.push(line.fields.bits());
            lines.states.push(outcome.state.as_str());
            lines.codes.push(outcome.error.as_ref().map(|(code, _)| code.as_str()));
            lines.errors.push(outcome.error.as_ref().map(|(_, text)| text.as_str()));
            lines.requests.push(line.request_id.as_deref());
        }
        lines
    }
}

/// A claim that is given back, to be tried again later. Its intent stays.
#[derive(Debug, Clone)]
pub struct Postponed {
    /// Who.
    pub employee_id: String,
    /// Seconds from now.
    pub wait_seconds: f64,
    /// Attempts without an outcome so far.
    pub attempts: i32,
}

/// Gives claims back.
pub async fn postpone(session: &Session, token: i64, postponed: &[Postponed]) -> Result<(), LedgerError> {
    let mut postponed: Vec<&Postponed> = postponed.iter().collect();
    postponed.sort_unstable_by(|a, b| a.employee_id.cmp(&b.employee_id));
    let ids: Vec<&str> = postponed.iter().map(|p| p.employee_id.as_str()).collect();
    let waits: Vec<f64> = postponed.iter().map(|p| p.wait_seconds).collect();
    let attempts: Vec<i32> = postponed.iter().map(|p| p.attempts).collect();
    let sql = include_str!("../../sql/queries/postpone.sql");
    session.execute("postpone", sql, &[&token, &ids, &waits, &attempts]).await?;
    Ok(())
}
