//! What to do for one pending employee, from the record, the ledger and the clock alone. Pure.
//!
//! A write is (employee, version, body). The same body keeps its version and idempotency key on every attempt and after a
//! restart; another body takes a higher version and carries every field whose state at the platform is unknown: that is
//! what makes A, B, A end at A when B's answer was lost.

use std::time::Duration;

use super::guard;
use crate::ledger::work::{Claim, IntentKind, LinkBy, Read, Work};
use crate::record::{
    Body, Fault, FaultCode, FieldSet, FingerprintKey, Fingerprints, Link, Record, Rules, diff, prepare,
};

/// The highest `sourceVersion` that the API takes.
const VERSION_MAX: i64 = 9_007_199_254_740_991;

/// What to do.
#[derive(Debug)]
pub enum Decision {
    /// Nothing differs from what was acknowledged.
    InStep,
    /// No call is made: the record would be refused, or there is none.
    Reject(Rejection),
    /// Not yet: the employee was sent a moment ago.
    Wait(Duration),
    /// Send it.
    Send(Box<Plan>),
}

/// Why an employee fails, in the words of the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// `required`, `email-in-use`, ...
    pub code: String,
    /// What the person reads; holds no value but a refused picklist value.
    pub text: String,
    /// The fields concerned.
    pub fields: FieldSet,
    /// A mandatory field is empty.
    pub lacks_mandatory: bool,
}

impl Rejection {
    /// A rejection that is about no field in particular.
    pub fn new(code: &str, text: impl Into<String>) -> Self {
        Self { code: code.to_owned(), text: text.into(), fields: FieldSet::EMPTY, lacks_mandatory: false }
    }

    /// All faults of a record, the first one's code standing for them.
    pub fn of_faults(code: Option<&str>, faults: &[Fault]) -> Self {
        let first = faults.first().map_or("validation", |fault| fault.code.as_str());
        Self {
            code: code.unwrap_or(first).to_owned(),
            text: Fault::describe(faults),
            fields: faults.iter().map(|fault| fault.field).collect(),
            lacks_mandatory: faults.iter().any(|fault| fault.code == FaultCode::Required),
        }
    }
}

/// What has to be sent, and how.
#[derive(Debug)]
pub struct Plan {
    /// The record as the API takes it.
    pub record: Record,
    /// Its fingerprints.
    pub now: Fingerprints,
    /// What differs or is unknown; all of it where the account is not linked yet.
    pub fields: FieldSet,
    /// How it starts.
    pub opening: Opening,
}

/// An employee with what has to be sent.
#[derive(Debug)]
pub struct Draft {
    /// The employee as loaded.
    pub work: Work,
    /// What was decided.
    pub plan: Plan,
}

/// How a delivery starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// Look the employee up by email: link or create.
    Find,
    /// A create was on its way; its answer was lost.
    ResumeCreate,
    /// The account is reserved; link it.
    Link,
    /// The account is linked; patch it.
    Update,
}

/// The site's side of a decision.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// Validation and translation.
    pub rules: &'a Rules,
    /// Keys the fingerprints.
    pub key: &'a FingerprintKey,
    /// `delivery.min_interval`.
    pub min_interval: Duration,
}

/// Decides.
pub fn decide(work: &Work, terms: &Terms<'_>) -> Decision {
    if let Some(since) = work.since_last_sync
        && since < terms.min_interval
    {
        return Decision::Wait(terms.min_interval.saturating_sub(since));
    }
    if !work.in_full && guard::is_discarded(work, terms.key) {
        return Decision::InStep;
    }
    let record = match sendable(&work.record, terms.rules) {
        Ok(record) => record,
        Err(rejection) => return Decision::Reject(rejection),
    };
    let now = Fingerprints::of(terms.key, &record);
    let opening = opening(work);
    let fields = if work.in_full || opening != Opening::Update {
        record.fields()
    } else {
        diff(&work.acknowledged, unknown(work), &now, record.fields())
    };
    if fields.is_empty() {
        return Decision::InStep;
    }
    Decision::Send(Box::new(Plan { record, now, fields, opening }))
}

/// The record as the API takes it, or why there is nothing that could be sent.
pub fn sendable(read: &Read, rules: &Rules) -> Result<Record, Rejection> {
    match read {
        Read::One(raw) => prepare(raw, rules).map_err(|faults| Rejection::of_faults(None, &faults)),
        Read::Gone => Err(Rejection::new(
            "record-gone",
            "HR has no record of this employee any more. Nothing was changed at Benefits: decide there.",
        )),
        Read::Ambiguous => Err(Rejection::new(
            "ambiguous-record",
            "The record query gives two rows for this employee: one must be made unique in HR, or the query.",
        )),
        Read::Unreadable(state) => Err(Rejection::new("unreadable", unreadable(state))),
    }
}

/// Why the record query cannot read an employee, for people.
pub fn unreadable(state: &str) -> String {
    if state == "57014" {
        return "The record query takes so long for this employee that it is ended: ask the DBA why (doctor shows its plan)."
            .to_owned();
    }
    format!("The record query fails for this employee (SQLSTATE {state}): correct the value in HR.")
}

/// Tells whether a record that was refused is still the same. `faults` is what we found wrong with it; empty where the
/// platform refused it.
pub fn refused_hash(key: &FingerprintKey, employee_id: &str, read: &Read, faults: &str) -> Vec<u8> {
    let values: &[Option<String>] = match read {
        Read::One(raw) => &raw.values,
        Read::Gone | Read::Ambiguous | Read::Unreadable(_) => &[],
    };
    key.refused(employee_id, values, faults).to_vec()
}

fn opening(work: &Work) -> Opening {
    match (&work.benefits_id, work.linked, &work.claim) {
        (Some(_), true, _) => Opening::Update,
        (Some(_), false, _) => Opening::Link,
        (None, _, Some(claim)) if claim.kind == IntentKind::Create => Opening::ResumeCreate,
        (None, _, _) if work.create_unresolved => Opening::ResumeCreate,
        (None, _, _) => Opening::Find,
    }
}

/// Fields whose state at the platform is unknown: of earlier rejections, and of a write whose outcome was never recorded.
pub fn unknown(work: &Work) -> FieldSet {
    work.claim.as_ref().map_or(work.unknown, |claim| work.unknown.union(claim.fields))
}

impl Draft {
    /// The body of a write of this kind. A link carries the id that ties the account to the employee, and the id that the
    /// account carries now where the link is moved.
    pub fn body(&self, kind: IntentKind, previous: Option<&str>) -> Body {
        let link = Link { external_id: &self.work.employee_id, previous_external_id: previous };
        match kind {
            IntentKind::Create => Body::create(&self.plan.record),
            IntentKind::Link => Body::patch(&self.plan.record, self.plan.record.fields(), Some(link)),
            IntentKind::Update => Body::patch(&self.plan.record, self.plan.fields, None),
        }
    }

    /// The claim for a write: the version of the write that is on its way already when it is the same write, else a new
    /// one. `floor` is the highest version seen elsewhere, `clock` the database clock in microseconds.
    pub fn claim(
        &self,
        kind: IntentKind,
        body: &Body,
        key: &FingerprintKey,
        floor: i64,
        clock: i64,
    ) -> Claim {
        let hash = body.hash(key, &self.work.employee_id).to_vec();
        let earlier = self.work.claim.as_ref();
        if let Some(earlier) = earlier
            && earlier.kind == kind
            && earlier.hash == hash
            && earlier.version > floor
        {
            return earlier.clone();
        }
        let used = earlier.map_or(0, |claim| claim.version).max(self.work.version).max(floor);
        Claim {
            kind,
            version: clock.max(used.saturating_add(1)).min(VERSION_MAX),
            fields: unknown(&self.work).union(self.sent(kind)),
            hash,
        }
    }

    /// Whether the account's present holder may lose it to this employee: a command says so, not the email alone.
    pub fn may_take_from(&self, holder: &str) -> bool {
        match self.work.link_by {
            Some(LinkBy::Transfer) => self.work.transferred_from.as_deref() == Some(holder),
            Some(LinkBy::Relink) => true,
            None => false,
        }
    }

    /// The fields that a write of this kind carries.
    pub fn sent(&self, kind: IntentKind) -> FieldSet {
        match kind {
            IntentKind::Create | IntentKind::Link => self.plan.record.fields(),
            IntentKind::Update => self.plan.fields,
        }
    }

    /// What the platform holds once it has accepted a write of this kind.
    pub fn acknowledged(&self, kind: IntentKind) -> Fingerprints {
        self.work.acknowledged.with(self.sent(kind), &self.plan.now)
    }
}
