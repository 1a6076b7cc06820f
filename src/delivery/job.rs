//! One employee's delivery, from the draft to the recorded outcome.
//!
//! ```text
//!  draft ─┬─ update ──────────────────────────────────────────────┐
//!         ├─ transfer, relink ─▶ look at the account's holder ───────┤
//!         └─ find by email ─┬─ none ──▶ create ───────────────────┤
//!                           ├─ unlinked account ──▶ reserve, link ┼─▶ intent (durable) ─▶ send ─▶ outcome (durable)
//!                           └─ somebody else's ──▶ reject         │
//!  intent of a create whose answer was lost ─▶ create again ──────┘
//! ```
//!
//! An update of an employee in hand is sent without an intent. If it is not accepted within [`IN_HAND_MAX`], mark and intent
//! are written after all, and it goes on as any other.

use std::future::Future;
use std::time::{Duration, Instant};

use super::api::Employee;
use super::batcher::Ended;
use super::breaker::Signal;
use super::context::{Context, Reserved};
use super::decide::{Draft, Opening, Rejection, refused_hash, unknown};
use super::guard::{self, Ending, Verdict};
use super::outcome::{Answer, Class, Failure};
use super::tickets::Tickets;
use crate::config::LinkCheck;
use crate::failpoint;
use crate::ledger::in_hand::{Delivered, Taken, ToTake};
use crate::ledger::outcomes::{HistoryLine, Outcome, Postponed, Recorded, StateName};
use crate::ledger::work::{Claim, Intent, IntentKind, LinkBy, Work};
use crate::record::{Field, FieldSet, Write, idempotency_key};

/// How long an employee in hand may take to be accepted before the ledger is told of them.
const IN_HAND_MAX: Duration = Duration::from_millis(50);

/// How a delivery ended.
#[derive(Debug, Clone, PartialEq)]
pub enum End {
    /// An outcome is recorded.
    Settled(Recorded),
    /// To be tried again after so long.
    Postponed(Duration),
    /// Held by the mass-change guard, for a person.
    Held,
    /// The rest of the mass change has to be judged first.
    Unjudged,
    /// In hand, and marked in the ledger after all: due from there.
    Marked,
    /// Stop for the site.
    Halt(String),
}

/// Why a delivery stops short of an accepted write.
enum Stop {
    /// Of the employee's own making.
    Reject(Rejection),
    /// The platform's answer, or the lack of one.
    Failed(Box<Failure>),
    /// Nothing may be sent for so long.
    Blocked(Duration),
    /// The ledger has moved on.
    LoadAgain,
    /// Stop for the site.
    Halt(String),
    /// The ledger session has ended.
    Ended,
}

impl From<Ended> for Stop {
    fn from(_: Ended) -> Self {
        Self::Ended
    }
}

impl From<failpoint::Tripped> for Stop {
    fn from(_: failpoint::Tripped) -> Self {
        Self::Ended
    }
}

/// An accepted write.
struct Accepted {
    kind: IntentKind,
    version: i64,
    answer: Answer<Employee>,
}

/// Asks the guard about an ending. `None`: it may go.
pub async fn held_back(context: &Context, ending: Ending) -> Result<Option<End>, Ended> {
    Ok(match context.endings.call(ending).await? {
        Verdict::Go => None,
        Verdict::Held => Some(End::Held),
        Verdict::Wait => Some(End::Unjudged),
    })
}

/// Delivers. An error means that the ledger session has ended. `hand` for an employee in hand, of whom nothing can come but
/// an update.
pub async fn deliver(context: &Context, draft: Box<Draft>, hand: Option<Tickets>) -> Result<End, Ended> {
    let mut delivery = Delivery {
        context,
        hand,
        claimed: false,
        intent: draft.work.claim.as_ref().map(|claim| claim.version),
        floor: 0,
        account: draft.work.benefits_id.clone(),
        previous: None,
        draft,
    };
    match delivery.run().await {
        Ok(accepted) => delivery.succeeded(accepted).await,
        Err(Stop::Reject(rejection)) => delivery.rejected(rejection, None).await,
        Err(Stop::Failed(failure)) => delivery.failed(&failure).await,
        Err(Stop::Blocked(wait)) => delivery.postpone(wait, false).await,
        Err(Stop::LoadAgain) => delivery.postpone(Duration::ZERO, false).await,
        Err(Stop::Halt(code)) => {
            delivery.postpone(Duration::ZERO, false).await?;
            Ok(End::Halt(code))
        }
        Err(Stop::Ended) => Err(Ended),
    }
}

/// Marks an employee in hand after all, with the write that may be on its way; `in_full` where nothing is known of what the
/// platform holds. `None`: they are not enrolled any more.
pub async fn mark(
    context: &Context,
    employee_id: &str,
    tickets: Tickets,
    claim: Option<Claim>,
    in_full: bool,
) -> Result<Option<Taken>, Ended> {
    let to_take = ToTake { employee_id: employee_id.to_owned(), change: tickets.change(), claim, in_full };
    let taken = context.takes.call(to_take).await?;
    tickets.settle();
    Ok(taken)
}

/// Records a rejection that needed no call.
pub async fn reject(context: &Context, work: Work, rejection: Rejection) -> Result<End, Ended> {
    let outcome = Outcome {
        refused: Some(refused_hash(&context.key, &work.employee_id, &work.record, &rejection.text)),
        lines: vec![HistoryLine { event: "rejected", fields: rejection.fields, request_id: None }],
        error: Some((rejection.code, rejection.text)),
        ..untouched(&work, StateName::Failed)
    };
    settle(context, outcome).await
}

/// Records that nothing had to be sent.
pub async fn in_step(context: &Context, work: &Work) -> Result<End, Ended> {
    let discarded = guard::is_discarded(work, &context.key);
    settle(context, Outcome { discarded, ..untouched(work, StateName::Successful) }).await
}

/// An outcome without a write: what is known of the platform stays as it was.
fn untouched(work: &Work, state: StateName) -> Outcome {
    Outcome {
        employee_id: work.employee_id.clone(),
        seq: work.seq,
        claim: None,
        loaded_version: work.version,
        create_unresolved: work.create_unresolved
            || work.claim.as_ref().is_some_and(|claim| claim.kind == IntentKind::Create),
        version: work.claim.as_ref().map_or(work.version, |claim| claim.version.max(work.version)),
        acknowledged: None,
        unknown: unknown(work),
        state,
        error: None,
        benefits_id: work.benefits_id.clone(),
        linked: work.linked,
        answered: Instant::now(),
        synced: false,
        refused: None,
        discarded: false,
        lines: Vec::new(),
    }
}

/// What is recorded where the platform answers with an account that the ledger holds for another employee.
pub fn not_theirs(outcome: &Outcome) -> Outcome {
    let text = "Benefits answered with an account that another employee of ours is linked to: a person decides, by relinking.";
    Outcome {
        acknowledged: None,
        state: StateName::Failed,
        error: Some(("conflict".to_owned(), text.to_owned())),
        benefits_id: None,
        linked: false,
        synced: false,
        lines: vec![HistoryLine {
            event: "rejected",
            fields: FieldSet::EMPTY,
            request_id: outcome.lines.first().and_then(|line| line.request_id.clone()),
        }],
        ..outcome.clone()
    }
}

/// Gives the employee back before anything was sent, for so long.
pub async fn wait(context: &Context, work: &Work, wait: Duration) -> Result<End, Ended> {
    let postponed = Postponed {
        employee_id: work.employee_id.clone(),
        wait_seconds: wait.as_secs_f64(),
        attempts: work.attempts,
    };
    context.postponed.call(postponed).await?;
    Ok(End::Postponed(wait))
}

async fn settle(context: &Context, outcome: Outcome) -> Result<End, Ended> {
    Ok(context.outcomes.call(outcome).await?.map_or(End::Postponed(Duration::ZERO), End::Settled))
}

struct Delivery<'c> {
    context: &'c Context,
    /// In hand still: no mark, no claim, no intent.
    hand: Option<Tickets>,
    draft: Box<Draft>,
    /// Whether the claim is ours, so that an outcome is recorded under it.
    claimed: bool,
    /// The version of the intent that the ledger holds.
    intent: Option<i64>,
    /// The highest version seen or used: another write goes above it.
    floor: i64,
    /// The account that is written to.
    account: Option<String>,
    /// Whom the account is taken from.
    previous: Option<String>,
}

impl Delivery<'_> {
    async fn run(&mut self) -> Result<Accepted, Stop> {
        match self.draft.plan.opening {
            Opening::Update => self.write(IntentKind::Update).await,
            Opening::Link if self.draft.work.link_by.is_some() => self.take_over().await,
            Opening::Link => self.write(IntentKind::Link).await,
            Opening::ResumeCreate => match self.write(IntentKind::Create).await {
                Err(Stop::Failed(failure)) if in_use_code(&failure).is_some() => self.adopt(failure).await,
                other => other,
            },
            Opening::Find => self.find().await,
        }
    }

    /// First sync: by email, ignoring case.
    async fn find(&mut self) -> Result<Accepted, Stop> {
        let email = self.draft.plan.record.value(Field::Email).unwrap_or_default().to_owned();
        let found = self.ask("find", Box::pin(self.context.client.find_by_email(&email))).await?;
        let Some(account) = found.value else { return self.write(IntentKind::Create).await };
        let is_ours = account.external_id.as_ref() == Some(&self.draft.work.employee_id);
        if let Some(holder) = &account.external_id
            && !(is_ours && self.draft.work.link_by == Some(LinkBy::Relink))
        {
            return Err(Stop::Reject(self.held_by(holder).await?));
        }
        let birth = Field::DateOfBirth;
        if self.context.link_check == LinkCheck::DateOfBirth
            && account.value(birth) != self.draft.plan.record.value(birth)
        {
            return Err(Stop::Reject(Rejection::new(
                "conflict",
                "The account with this email has another date of birth, so it may be somebody else's: correct the \
                 email or the date in HR, or relink.",
            )));
        }
        self.floor = account.source_version.unwrap_or(0);
        self.account = Some(account.id);
        self.write(IntentKind::Link).await
    }

    /// A transfer, or a relink to an account that a person has named: whoever holds it now is named in the write.
    async fn take_over(&mut self) -> Result<Accepted, Stop> {
        let Some(id) = self.account.clone() else { return Err(Stop::LoadAgain) };
        let account = self.ask("get", Box::pin(self.context.client.get(&id))).await?.value;
        self.floor = self.floor.max(account.source_version.unwrap_or(0));
        if let Some(holder) = account.external_id.filter(|holder| *holder != self.draft.work.employee_id) {
            let is_transfer = self.draft.work.link_by == Some(LinkBy::Transfer);
            if !self.draft.may_take_from(&holder) {
                return Err(Stop::Reject(Rejection::new(
                    "conflict",
                    "The account carries neither this employee's id nor that of the record it is transferred from: a \
                     person decides, by relinking.",
                )));
            }
            if !is_transfer && self.context.acquaintances.call(holder.clone()).await? {
                return Err(Stop::Reject(Rejection::new(
                    "email-in-use",
                    "The account named is linked to another employee: transfer the link instead.",
                )));
            }
            self.previous = Some(holder);
        }
        self.write(IntentKind::Link).await
    }

    /// The account with the employee's email is linked already.
    async fn held_by(&self, holder: &str) -> Result<Rejection, Stop> {
        if holder == self.draft.work.employee_id {
            return Ok(Rejection::new(
                "conflict",
                "The account with this email carries this employee's id, and the ledger does not know why: relink it \
                 if it is theirs.",
            ));
        }
        if self.context.acquaintances.call(holder.to_owned()).await? {
            return Ok(email_in_use());
        }
        Ok(Rejection::new(
            "conflict",
            "The account with this email is linked to somebody whom the ledger does not know: a person decides, by \
             correcting the email, by a transfer or by relinking.",
        ))
    }

    /// A create was refused because its email or id is in use: by the account that an earlier attempt at the same create
    /// made, if it carries our id. Only an unresolved intent of ours allows to take it.
    async fn adopt(&mut self, refusal: Box<Failure>) -> Result<Accepted, Stop> {
        let id = self.draft.work.employee_id.clone();
        let found = self.ask("find", Box::pin(self.context.client.find_by_external_id(&id))).await?;
        let Some(account) = found.value else {
            // The earlier create never came to anything: who holds the email is found out as at a first sync.
            return if in_use_code(&refusal) == Some("email-in-use") {
                self.find().await
            } else {
                Err(Stop::Failed(refusal))
            };
        };
        self.floor = self.floor.max(account.source_version.unwrap_or(0));
        self.account = Some(account.id);
        self.write(IntentKind::Link).await
    }

    /// Sends one write; where the platform holds a higher version, once more above it.
    async fn write(&mut self, kind: IntentKind) -> Result<Accepted, Stop> {
        match self.attempt(kind).await {
            Err(Stop::Failed(failure)) if failure.class == Class::StaleVersion => {}
            other => return other,
        }
        let another_writer = || Stop::Halt("another-writer".to_owned());
        let account = self.account.clone().ok_or_else(another_writer)?;
        let held = self.ask("get", Box::pin(self.context.client.get(&account))).await?;
        self.floor = self.floor.max(held.value.source_version.unwrap_or(0));
        match self.attempt(kind).await {
            Err(Stop::Failed(failure)) if failure.class == Class::StaleVersion => Err(another_writer()),
            other => other,
        }
    }

    /// The intent, then the request.
    async fn attempt(&mut self, kind: IntentKind) -> Result<Accepted, Stop> {
        let body = self.draft.body(kind, self.previous.as_deref());
        let claim = self.draft.claim(kind, &body, &self.context.key, self.floor, self.draft.work.clock);
        let version = claim.version;
        if self.hand.is_none() {
            self.reserve(kind, claim.clone()).await?;
        }
        let account = self.account.clone();
        let key = idempotency_key(
            &self.context.key,
            &Write {
                platform_id: &self.context.platform_id,
                employee_id: &self.draft.work.employee_id,
                benefits_id: account.as_deref().filter(|_| kind != IntentKind::Create),
                version,
                body: &body,
            },
        );
        let bytes = body.to_bytes(version);
        let client = &self.context.client;
        let answer = match (kind, account.as_deref()) {
            (IntentKind::Create, _) => self.ask("create", Box::pin(client.create(bytes, &key))).await,
            (IntentKind::Link, Some(id)) => self.ask("link", Box::pin(client.update(id, bytes, &key))).await,
            (IntentKind::Update, Some(id)) => {
                self.ask_or_mark("update", claim, Box::pin(client.update(id, bytes, &key))).await
            }
            (IntentKind::Link | IntentKind::Update, None) => Err(Stop::LoadAgain),
        };
        if answer.is_err() {
            self.floor = self.floor.max(version);
        }
        Ok(Accepted { kind, version, answer: answer? })
    }

    async fn reserve(&mut self, kind: IntentKind, claim: Claim) -> Result<(), Stop> {
        let version = claim.version;
        let intent = Intent {
            employee_id: self.draft.work.employee_id.clone(),
            loaded_version: self.draft.work.version,
            loaded_intent: self.intent,
            claim,
            benefits_id: self.account.clone().filter(|_| kind == IntentKind::Link),
        };
        match self.context.intents.call(intent).await? {
            Reserved::Ours => {
                self.claimed = true;
                self.intent = Some(version);
                Ok(failpoint::hit("intent-written").await?)
            }
            Reserved::NotOurs => Err(Stop::LoadAgain),
            Reserved::AccountTaken => {
                self.account.clone_from(&self.draft.work.benefits_id);
                Err(Stop::Reject(email_in_use()))
            }
        }
    }

    /// One request through the gate.
    async fn ask<T>(
        &self,
        operation: &'static str,
        request: impl Future<Output = Result<Answer<T>, Box<Failure>>>,
    ) -> Result<Answer<T>, Stop> {
        failpoint::hit("request-sent").await?;
        let pass = self.context.gate.enter(&self.draft.work.employee_id).await.map_err(Stop::Blocked)?;
        let started = Instant::now();
        let answer = request.await;
        let (signal, outcome) = match &answer {
            Ok(_) => (Signal::Well, "accepted"),
            Err(failure) => (failure.signal(), failure.label()),
        };
        self.context.gate.leave(pass, signal);
        failpoint::hit("answer-received").await?;
        self.context.metrics.attempt(operation, outcome, started.elapsed());
        answer.map_err(Stop::Failed)
    }

    /// As [`Delivery::ask`]. An employee in hand who is not accepted within a moment is marked in the ledger, as if they
    /// had been from the start.
    async fn ask_or_mark<T>(
        &mut self,
        operation: &'static str,
        claim: Claim,
        request: impl Future<Output = Result<Answer<T>, Box<Failure>>>,
    ) -> Result<Answer<T>, Stop> {
        let Some(hand) = self.hand.take() else { return self.ask(operation, request).await };
        let version = claim.version;
        let (context, id) = (self.context, self.draft.work.employee_id.clone());
        let (answer, taken) = {
            let asking = self.ask(operation, request);
            tokio::pin!(asking);
            match tokio::time::timeout(IN_HAND_MAX, &mut asking).await {
                Ok(Err(Stop::Ended)) => return Err(Stop::Ended),
                Ok(Err(stop)) => (Err(stop), Err(mark(context, &id, hand, Some(claim), false).await?)),
                Ok(accepted) => (accepted, Ok(hand)),
                Err(_) => {
                    let taken = mark(context, &id, hand, Some(claim), false).await?;
                    (asking.await, Err(taken))
                }
            }
        };
        let taken = match taken {
            Ok(hand) => {
                self.hand = Some(hand);
                return answer;
            }
            Err(taken) => taken,
        };
        match taken {
            Some(Taken { seq, ours: true }) => {
                self.claimed = true;
                self.intent = Some(version);
                self.draft.work.seq = seq;
                answer
            }
            // Somebody else delivers, and everything; or nobody has to any more.
            Some(Taken { ours: false, .. }) | None => Err(Stop::LoadAgain),
        }
    }

    async fn succeeded(self, accepted: Accepted) -> Result<End, Ended> {
        if let Some(hand) = self.hand {
            return updated(self.context, &self.draft, hand, accepted).await;
        }
        let line =
            |event, fields| HistoryLine { event, fields, request_id: accepted.answer.request_id.clone() };
        let sent = self.draft.sent(accepted.kind);
        let lines = match accepted.kind {
            IntentKind::Create => vec![line("created", sent)],
            IntentKind::Link => {
                let event = match self.draft.work.link_by {
                    None => "linked",
                    Some(LinkBy::Transfer) => "transferred",
                    Some(LinkBy::Relink) => "relinked",
                };
                vec![line(event, FieldSet::EMPTY), line("updated", sent)]
            }
            IntentKind::Update => vec![line("updated", sent)],
        };
        let outcome = Outcome {
            claim: Some(self.context.token),
            version: accepted.version,
            acknowledged: Some(self.draft.acknowledged(accepted.kind)),
            // Everything unknown was part of the write.
            unknown: FieldSet::EMPTY,
            create_unresolved: false,
            benefits_id: Some(accepted.answer.value.id),
            linked: true,
            synced: true,
            lines,
            ..untouched(&self.draft.work, StateName::Successful)
        };
        let end = settle(self.context, outcome).await?;
        if let End::Settled(recorded) = &end {
            self.context.metrics.acknowledged(recorded.latency_seconds);
        }
        Ok(end)
    }

    async fn failed(self, failure: &Failure) -> Result<End, Ended> {
        match &failure.class {
            Class::Rejected { code, faults } => {
                let mut rejection = Rejection::new(code, failure.text.clone());
                rejection.fields = faults.iter().map(|fault| fault.field).collect();
                self.rejected(rejection, failure.request_id.clone()).await
            }
            Class::AccountMissing => self.account_missing(failure).await,
            Class::Halt { reason } => {
                let code = reason.as_str().to_owned();
                self.postpone(Duration::ZERO, false).await?;
                Ok(End::Halt(code))
            }
            Class::Throttled { retry_after } => {
                let wait = self.context.gate.throttled(*retry_after);
                self.postpone(wait, false).await
            }
            Class::StaleVersion | Class::Busy | Class::Unavailable { .. } => {
                let attempt = u32::try_from(self.draft.work.attempts).unwrap_or(0).saturating_add(1);
                let wait = self.context.schedule.delay_after(attempt, failure.retry_after());
                self.postpone(wait, true).await
            }
        }
    }

    /// A 404 or 410: a withdrawn platform must not break anybody's link, so the platform is asked first.
    async fn account_missing(self, failure: &Failure) -> Result<End, Ended> {
        match self.ask("platform", Box::pin(self.context.client.platform())).await {
            Ok(_) => {
                let text =
                    "The linked account is gone at Benefits. It is not created again: relink the employee.";
                self.rejected(Rejection::new("link-broken", text), failure.request_id.clone()).await
            }
            Err(Stop::Failed(problem)) => match problem.class {
                Class::Halt { reason } => {
                    self.postpone(Duration::ZERO, false).await?;
                    Ok(End::Halt(reason.as_str().to_owned()))
                }
                _ => self.postpone(Duration::from_secs(1), true).await,
            },
            Err(Stop::Blocked(wait)) => self.postpone(wait, false).await,
            Err(_) => self.postpone(Duration::from_secs(1), true).await,
        }
    }

    async fn rejected(self, rejection: Rejection, request_id: Option<String>) -> Result<End, Ended> {
        let work = &self.draft.work;
        let before = untouched(work, StateName::Failed);
        let outcome = Outcome {
            refused: Some(refused_hash(&self.context.key, &work.employee_id, &work.record, "")),
            claim: self.claimed.then_some(self.context.token),
            version: before.version.max(self.floor),
            benefits_id: self.account.filter(|_| self.draft.work.linked || self.claimed),
            lines: vec![HistoryLine { event: "rejected", fields: rejection.fields, request_id }],
            error: Some((rejection.code, rejection.text)),
            ..before
        };
        settle(self.context, outcome).await
    }

    async fn postpone(&self, wait: Duration, attempted: bool) -> Result<End, Ended> {
        let work = &self.draft.work;
        let postponed = Postponed {
            employee_id: work.employee_id.clone(),
            wait_seconds: wait.as_secs_f64(),
            attempts: work.attempts.saturating_add(i32::from(attempted)),
        };
        self.context.postponed.call(postponed).await?;
        Ok(End::Postponed(wait))
    }
}

/// Records the accepted update of an employee in hand.
async fn updated(context: &Context, draft: &Draft, hand: Tickets, accepted: Accepted) -> Result<End, Ended> {
    let delivered = Delivered {
        employee_id: draft.work.employee_id.clone(),
        row_version: draft.work.row_version.clone(),
        version: accepted.version,
        acknowledged: draft.acknowledged(accepted.kind),
        fields: draft.sent(accepted.kind),
        request_id: accepted.answer.request_id,
        answered: Instant::now(),
        changed_at: hand.change().first,
    };
    let Some(recorded) = context.updates.call(delivered).await? else {
        // What the ledger holds has changed since, and says nothing of this write.
        mark(context, &draft.work.employee_id, hand, None, true).await?;
        return Ok(End::Marked);
    };
    hand.settle();
    context.metrics.acknowledged(recorded.latency_seconds);
    Ok(End::Settled(recorded))
}

fn email_in_use() -> Rejection {
    Rejection::new(
        "email-in-use",
        "The email belongs to the account of another employee: correct the email in HR, or transfer the link.",
    )
}

/// The code where a create was refused because its email or its id is there already.
fn in_use_code(failure: &Failure) -> Option<&'static str> {
    match failure.class {
        Class::Rejected { code: code @ ("email-in-use" | "external-id-in-use"), .. } => Some(code),
        _ => None,
    }
}
