//! `preview`: what a first sync would do, before anything is sent.
//!
//! ```text
//!  employees, page by page ──▶ records (one statement a page) ──▶ prepare ──┬─ faults ──────────▶ blocked
//!                                                                           ├─ linked: diff ────▶ update / in step
//!                                                                           └─ ask the platform ▶ create / link / conflict
//! ```
//!
//! It reads what delivery would read and decides as delivery would, and sends no write. Memory is bounded by the page and,
//! for everybody seen so far, eight bytes of a keyed hash of the email: two employees with one address would meet at the
//! platform, and the preview says so before they do.

mod page;
mod report;

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use serde::Serialize;

use crate::config::{Config, LinkCheck};
use crate::delivery::client::{Client, SetupError};
use crate::delivery::decide::unreadable;
use crate::delivery::gate::{Gate, Precedence};
use crate::delivery::outcome::{Class, Failure};
use crate::delivery::site_rules;
use crate::ledger::{LedgerError, Session, Trouble};
use crate::pipeline::{self, CheckError, Looked};
use crate::record::{Fault, Field, FingerprintKey, Fingerprints, Record, Rules, diff, prepare};

pub use report::{Progress, Report};

use page::{Candidate, Found};

/// Employees that one statement reads.
const PAGE: i64 = 256;
/// Times that the platform is asked again when it does not answer.
const ATTEMPTS_MAX: u32 = 5;

/// Why there is no preview.
#[derive(Debug, thiserror::Error)]
pub enum PreviewError {
    /// It could not begin.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// The site has no record query yet.
    #[error(
        "the site is not described yet: run its description with psql (describe_record, describe_source)"
    )]
    NotDescribed,
    /// The schema or the record query does not work any more.
    #[error("the ledger or the record query does not work: benefits-sync doctor says what is missing ({0})")]
    Broken(LedgerError),
    /// A statement failed.
    #[error(transparent)]
    Ledger(LedgerError),
    /// The HTTP client cannot be made as configured.
    #[error(transparent)]
    Client(#[from] SetupError),
    /// The platform does not answer, or refuses us.
    #[error("the platform: {0}")]
    Platform(#[from] Box<Failure>),
    /// The output cannot be written.
    #[error("cannot write: {0}")]
    Output(#[from] std::io::Error),
}

impl From<LedgerError> for PreviewError {
    fn from(error: LedgerError) -> Self {
        match error.trouble() {
            Trouble::Site => Self::Broken(error),
            Trouble::Passing | Trouble::Data => Self::Ledger(error),
        }
    }
}

/// What would be done for an employee.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// A new account.
    Create,
    /// An account with the employee's email is taken over.
    Link,
    /// A linked account is changed.
    Update,
    /// A linked account has it all.
    InStep,
    /// The account with the employee's email cannot be taken.
    Conflict,
    /// The record would be refused, or there is none.
    Blocked,
}

/// What would be done for one employee, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Forecast {
    /// Who.
    pub employee_id: String,
    /// What.
    pub action: Action,
    /// The account that would be linked or changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub benefits_id: Option<String>,
    /// Names of the fields that would be sent, or that are at fault. Never a value.
    pub fields: Vec<&'static str>,
    /// Why not, one text a reason.
    pub reasons: Vec<Reason>,
}

/// Why something would not be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// The error code that the employee would get.
    pub code: String,
    /// For people.
    pub text: String,
}

/// Who is previewed.
#[derive(Debug, Clone)]
pub enum Scope {
    /// Everybody in HR.
    Everyone,
    /// These.
    Named(Vec<String>),
}

struct Preview {
    session: Arc<Session>,
    client: Client,
    gate: Gate,
    rules: Rules,
    key: FingerprintKey,
    link_check: LinkCheck,
    concurrency: usize,
}

/// Previews `scope` into `report`.
pub async fn run(config: &Config, scope: Scope, report: &mut Report<'_>) -> Result<(), PreviewError> {
    let Looked { session, key, site } = pipeline::look(config, "benefits-sync preview").await?;
    if !site.described_at_all {
        return Err(PreviewError::NotDescribed);
    }
    let client = Client::new(config)?;
    let rules = site_rules::load(&session, config, None).await?;
    let rules = rules.with(site_rules::from_platform(&client).await?);
    let preview = Preview {
        session,
        client,
        gate: Gate::new(&config.delivery),
        rules,
        key,
        link_check: config.benefits.link_check,
        concurrency: config.delivery.concurrency,
    };
    let mut emails = Emails::default();
    match scope {
        Scope::Named(mut ids) => {
            let mut seen = HashSet::new();
            ids.retain(|id| seen.insert(id.clone()));
            report.expect(u64::try_from(ids.len()).unwrap_or(0));
            for ids in ids.chunks(usize::try_from(PAGE).unwrap_or(1)) {
                preview.page(ids.to_vec(), &mut emails, report).await?;
            }
        }
        Scope::Everyone => {
            report.expect(page::count(&preview.session).await?);
            let mut after = String::new();
            loop {
                let ids = page::ids(&preview.session, &after, PAGE).await?;
                let Some(last) = ids.last() else { break };
                after.clone_from(last);
                preview.page(ids, &mut emails, report).await?;
            }
        }
    }
    Ok(report.finish()?)
}

impl Preview {
    async fn page(
        &self,
        ids: Vec<String>,
        emails: &mut Emails,
        report: &mut Report<'_>,
    ) -> Result<(), PreviewError> {
        let candidates = page::read(&self.session, ids).await?;
        let mut drafts = Vec::with_capacity(candidates.len());
        for candidate in candidates {
            drafts.push(self.judge(candidate, emails));
        }
        let mut forecasts = futures_util::stream::iter(drafts.into_iter().map(|draft| self.complete(draft)))
            .buffered(self.concurrency);
        let mut done = Vec::new();
        while let Some(forecast) = forecasts.next().await {
            done.push(forecast?);
        }
        drop(forecasts);
        let known = self.known(&done).await?;
        for draft in done {
            report.add(&draft.settle(&known))?;
        }
        Ok(())
    }

    /// As far as it goes without the platform.
    fn judge(&self, candidate: Candidate, emails: &mut Emails) -> Draft {
        let Candidate { employee_id, found, enrolment } = candidate;
        let raw = match found {
            Found::One(raw) => raw,
            Found::None => {
                return Draft::Done(blocked(
                    employee_id,
                    "record-gone",
                    "HR has no record of this employee.",
                ));
            }
            Found::NoEmployee => {
                return Draft::Done(blocked(
                    employee_id,
                    "unknown-employee",
                    "There is no such employee in HR.",
                ));
            }
            Found::Several => {
                return Draft::Done(blocked(
                    employee_id,
                    "ambiguous-record",
                    "The record query gives two rows for this employee: one must be made unique in HR, or the query.",
                ));
            }
            Found::Unreadable(state) => {
                return Draft::Done(blocked(employee_id, "unreadable", &unreadable(&state)));
            }
        };
        let record = match prepare(&raw, &self.rules) {
            Ok(record) => record,
            Err(faults) => return Draft::Done(faulty(employee_id, &faults)),
        };
        let fields = record.fields();
        if let Some(enrolment) = enrolment.filter(|enrolment| enrolment.benefits_id.is_some()) {
            let now = Fingerprints::of(&self.key, &record);
            let sent = if enrolment.in_full || !enrolment.linked {
                fields
            } else {
                diff(&enrolment.acknowledged, enrolment.unknown, &now, fields)
            };
            let action = match (enrolment.linked, sent.is_empty()) {
                (false, _) => Action::Link,
                (true, false) => Action::Update,
                (true, true) => Action::InStep,
            };
            let forecast = Forecast {
                employee_id,
                action,
                benefits_id: enrolment.benefits_id,
                fields: sent.names(),
                reasons: vec![],
            };
            return Draft::Done(forecast);
        }
        let email = record.value(Field::Email).unwrap_or_default();
        if let Some(reason) = emails.meet(email) {
            return Draft::Done(conflict(employee_id, None, reason));
        }
        Draft::Ask(Box::new(record))
    }

    /// Asks the platform, where that is needed.
    async fn complete(&self, draft: Draft) -> Result<Draft, PreviewError> {
        let Draft::Ask(record) = draft else { return Ok(draft) };
        let employee_id = record.employee_id().to_owned();
        let email = record.value(Field::Email).unwrap_or_default();
        let account = match self.find(&employee_id, email).await {
            Ok(account) => account,
            Err(failure) => match failure.class {
                Class::Rejected { code, .. } => {
                    let reason = Reason { code: code.to_owned(), text: failure.text.clone() };
                    return Ok(Draft::Done(conflict(employee_id, None, reason)));
                }
                _ => return Err(failure.into()),
            },
        };
        let Some(account) = account else {
            let fields = record.fields().names();
            return Ok(Draft::Done(Forecast {
                employee_id,
                action: Action::Create,
                benefits_id: None,
                fields,
                reasons: vec![],
            }));
        };
        if let Some(holder) = account.external_id {
            return Ok(Draft::Held { employee_id, account: account.id, holder });
        }
        let birth = Field::DateOfBirth;
        if self.link_check == LinkCheck::DateOfBirth && account.value(birth) != record.value(birth) {
            let text = "The account with this email has another date of birth, so it may be somebody else's: correct the \
                        email or the date in HR, or relink.";
            let reason = Reason { code: "conflict".to_owned(), text: text.to_owned() };
            return Ok(Draft::Done(conflict(employee_id, Some(account.id), reason)));
        }
        let fields = record.fields().names();
        Ok(Draft::Done(Forecast {
            employee_id,
            action: Action::Link,
            benefits_id: Some(account.id),
            fields,
            reasons: vec![],
        }))
    }

    /// One look-up, asked again while the platform is busy or away.
    async fn find(
        &self,
        employee_id: &str,
        email: &str,
    ) -> Result<Option<crate::delivery::api::Employee>, Box<Failure>> {
        let mut attempt = 0;
        loop {
            let pass = match self.gate.enter(employee_id, Precedence::InTurn).await {
                Ok(pass) => pass,
                Err(wait) => {
                    tokio::time::sleep(wait).await;
                    continue;
                }
            };
            let answer = self.client.find_by_email(email).await;
            let signal = match &answer {
                Ok(_) => crate::delivery::breaker::Signal::Well,
                Err(failure) => failure.signal(),
            };
            self.gate.leave(pass, signal);
            let failure = match answer {
                Ok(answer) => return Ok(answer.value),
                Err(failure) => failure,
            };
            attempt += 1;
            match failure.class {
                Class::Throttled { retry_after } => drop(self.gate.throttled(retry_after)),
                Class::Unavailable { .. } | Class::Busy if attempt < ATTEMPTS_MAX => {
                    tokio::time::sleep(failure.retry_after().unwrap_or(Duration::from_millis(500))).await;
                }
                _ => return Err(failure),
            }
        }
    }

    /// Which holders of accounts are employees of ours.
    async fn known(&self, drafts: &[Draft]) -> Result<HashSet<String>, PreviewError> {
        let holders: Vec<&str> = drafts
            .iter()
            .filter_map(|draft| match draft {
                Draft::Held { holder, .. } => Some(holder.as_str()),
                _ => None,
            })
            .collect();
        if holders.is_empty() {
            return Ok(HashSet::new());
        }
        Ok(page::enrolled(&self.session, &holders).await?)
    }
}

/// A forecast on its way.
enum Draft {
    Done(Forecast),
    Ask(Box<Record>),
    /// The account with the employee's email is somebody's.
    Held {
        employee_id: String,
        account: String,
        holder: String,
    },
}

impl Draft {
    fn settle(self, known: &HashSet<String>) -> Forecast {
        match self {
            Self::Done(forecast) => forecast,
            Self::Ask(record) => blocked(record.employee_id().to_owned(), "unavailable", "Not asked."),
            Self::Held { employee_id, account, holder } => {
                let (code, text) = if holder == employee_id {
                    (
                        "conflict",
                        "The account with this email carries this employee's id, and the ledger does not know why: relink \
                         it if it is theirs.",
                    )
                } else if known.contains(&holder) {
                    (
                        "email-in-use",
                        "The email belongs to the account of another employee: correct the email in HR, or transfer the link.",
                    )
                } else {
                    (
                        "conflict",
                        "The account with this email is linked to somebody whom the ledger does not know: a person decides, \
                         by correcting the email, by a transfer or by relinking.",
                    )
                };
                conflict(employee_id, Some(account), Reason { code: code.to_owned(), text: text.to_owned() })
            }
        }
    }
}

fn blocked(employee_id: String, code: &str, text: &str) -> Forecast {
    let reasons = vec![Reason { code: code.to_owned(), text: text.to_owned() }];
    Forecast { employee_id, action: Action::Blocked, benefits_id: None, fields: vec![], reasons }
}

fn conflict(employee_id: String, benefits_id: Option<String>, reason: Reason) -> Forecast {
    Forecast {
        employee_id,
        action: Action::Conflict,
        benefits_id,
        fields: vec![Field::Email.api_name()],
        reasons: vec![reason],
    }
}

fn faulty(employee_id: String, faults: &[Fault]) -> Forecast {
    let reason = |fault: &Fault| Reason { code: fault.code.as_str().to_owned(), text: fault.to_string() };
    Forecast {
        employee_id,
        action: Action::Blocked,
        benefits_id: None,
        fields: faults.iter().map(|fault| fault.field.api_name()).collect(),
        reasons: faults.iter().map(reason).collect(),
    }
}

/// The addresses met so far, as keyed hashes: no value is kept.
#[derive(Default)]
struct Emails {
    hasher: RandomState,
    seen: HashSet<u64>,
}

impl Emails {
    fn meet(&mut self, email: &str) -> Option<Reason> {
        let fresh = self.seen.insert(self.hasher.hash_one(email.to_lowercase()));
        (!fresh).then(|| Reason {
            code: "email-in-use".to_owned(),
            text: "Another employee of this preview has the same email: the first one synced gets the account. Correct the \
                   email in HR."
                .to_owned(),
        })
    }
}

/// How many of each.
pub type Counts = HashMap<Action, u64>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_employee_with_one_address_is_a_conflict_whatever_the_case() {
        let mut emails = Emails::default();
        assert_eq!(emails.meet("ada@example.org"), None);
        assert_eq!(emails.meet("ADA@example.org").map(|reason| reason.code), Some("email-in-use".to_owned()));
        assert_eq!(emails.meet("bob@example.org"), None);
    }

    #[test]
    fn an_account_that_somebody_holds_is_told_apart_by_whether_they_are_ours() {
        let held = |holder: &str| Draft::Held {
            employee_id: "7".into(),
            account: "b".into(),
            holder: holder.into(),
        };
        let known = HashSet::from(["8".to_owned()]);
        let code = |draft: Draft| draft.settle(&known).reasons.first().map(|reason| reason.code.clone());
        assert_eq!(code(held("8")).as_deref(), Some("email-in-use"));
        assert_eq!(code(held("9")).as_deref(), Some("conflict"));
        assert_eq!(code(held("7")).as_deref(), Some("conflict"));
    }
}
