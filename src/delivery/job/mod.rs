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
//! An update of an employee in hand is sent without an intent. If it is not accepted within a moment, mark and intent
//! are written after all, and it goes on as any other.
//!
//! Here is the write itself, with its intent; `opening` is how it comes to that, `ends` what is recorded of it, `in_hand`
//! the way without an intent.

mod ends;
mod in_hand;
mod opening;

use std::future::Future;
use std::time::{Duration, Instant};

use self::in_hand::updated;
use self::opening::email_in_use;
use super::api::Written;
use super::batcher::Ended;
use super::breaker::Signal;
use super::context::{Context, Reserved};
use super::decide::{Draft, Rejection};
use super::gate::Precedence;
use super::guard::{Ending, Verdict};
use super::outcome::{Answer, Class, Failure};
use super::tickets::Tickets;
use crate::failpoint;
use crate::ledger::outcomes::Recorded;
use crate::ledger::work::{Claim, Intent, IntentKind, Loaded};
use crate::record::{Write, idempotency_key};

pub use self::ends::{in_step, not_theirs, reject, wait};
pub use self::in_hand::{mark, mark_by};

/// How a delivery ended.
#[derive(Debug, Clone, PartialEq)]
pub enum End {
    /// It is on its way into the ledger, and ends when it is there.
    Recording,
    /// An outcome is recorded.
    Settled {
        /// What was recorded.
        recorded: Recorded,
        /// Whether the platform was sent a write; else nothing had to be sent, or could be.
        wrote: bool,
    },
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
    answer: Answer<Written>,
}

/// Asks the guard about an ending. `None`: it may go.
pub async fn held_back(context: &Context, ending: Ending) -> Result<Option<End>, Ended> {
    Ok(match context.endings.call(ending).await? {
        Verdict::Go => None,
        Verdict::Held => Some(End::Held),
        Verdict::Wait => Some(End::Unjudged),
    })
}

/// Delivers. An error means that the ledger session has ended.
pub async fn deliver(context: &Context, draft: Box<Draft>) -> Result<End, Ended> {
    let mut delivery = Delivery::new(context, draft, None);
    let written = delivery.run().await;
    delivery.end(written).await
}

/// Sends the ordinary update of an employee in hand, of whom nothing else can come. Not accepted at the time given, they
/// are marked after all.
pub async fn update(
    context: &Context,
    draft: Box<Draft>,
    hand: Tickets,
    until: tokio::time::Instant,
) -> Result<End, Ended> {
    let mut delivery = Delivery::new(context, draft, Some((hand, until)));
    match delivery.write(IntentKind::Update).await {
        Ok(accepted) => match delivery.hand.take() {
            Some((hand, _)) => updated(context, &delivery.draft, hand, accepted).await,
            None => delivery.succeeded(accepted).await,
        },
        stopped => Box::pin(delivery.end(stopped)).await,
    }
}

struct Delivery<'c> {
    context: &'c Context,
    /// In hand still, until then at most: no mark, no claim, no intent.
    hand: Option<(Tickets, tokio::time::Instant)>,
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

impl<'c> Delivery<'c> {
    fn new(context: &'c Context, draft: Box<Draft>, hand: Option<(Tickets, tokio::time::Instant)>) -> Self {
        Self {
            context,
            hand,
            claimed: false,
            intent: draft.work.claim.as_ref().map(|claim| claim.version),
            floor: 0,
            account: draft.work.benefits_id.clone(),
            previous: None,
            draft,
        }
    }

    async fn end(self, written: Result<Accepted, Stop>) -> Result<End, Ended> {
        match written {
            Ok(accepted) => self.succeeded(accepted).await,
            Err(Stop::Reject(rejection)) => self.rejected(rejection, None).await,
            Err(Stop::Failed(failure)) => self.failed(&failure).await,
            Err(Stop::Blocked(wait)) => self.postpone(wait, false).await,
            Err(Stop::LoadAgain) => self.postpone(Duration::ZERO, false).await,
            Err(Stop::Halt(code)) => {
                self.postpone(Duration::ZERO, false).await?;
                Ok(End::Halt(code))
            }
            Err(Stop::Ended) => Err(Ended),
        }
    }

    /// Sends one write; where the platform holds a higher version, once more above it.
    async fn write(&mut self, kind: IntentKind) -> Result<Accepted, Stop> {
        match self.attempt(kind).await {
            Err(Stop::Failed(failure)) if failure.class == Class::StaleVersion => {
                Box::pin(self.write_above(kind)).await
            }
            other => other,
        }
    }

    /// Sends the write above the version that the platform holds.
    async fn write_above(&mut self, kind: IntentKind) -> Result<Accepted, Stop> {
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
            Box::pin(self.reserve(kind, claim.clone())).await?;
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
            loaded: Loaded { intent: self.intent, ..self.draft.work.loaded() },
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
        ask(self.context, &self.draft.work.employee_id, Precedence::InTurn, operation, request).await
    }
}

async fn ask<T>(
    context: &Context,
    employee_id: &str,
    precedence: Precedence,
    operation: &'static str,
    request: impl Future<Output = Result<Answer<T>, Box<Failure>>>,
) -> Result<Answer<T>, Stop> {
    failpoint::hit("request-sent").await?;
    let pass = context.gate.enter(employee_id, precedence).await.map_err(Stop::Blocked)?;
    let started = Instant::now();
    let answer = request.await;
    let (signal, outcome) = match &answer {
        Ok(_) => (Signal::Well, "accepted"),
        Err(failure) => (failure.signal(), failure.label()),
    };
    context.gate.leave(pass, signal);
    failpoint::hit("answer-received").await?;
    context.metrics.attempt(operation, outcome, started.elapsed());
    answer.map_err(Stop::Failed)
}
