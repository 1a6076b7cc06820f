//! What deliveries share: the platform, the way out to it, and the batchers that write to the ledger for them.

use std::sync::Arc;
use std::time::Duration;

use foldhash::{HashMap, HashSet};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::batcher::{Batcher, Ended, Gather};
use super::client::Client;
use super::courier;
use super::dispatch::{DeliveryError, Outfit};
use super::gate::Gate;
use super::guard::{self, Ending, Verdict};
use super::job::{self, End};
use super::retry::Schedule;
use super::tickets::Tickets;
use crate::config::LinkCheck;
use crate::failpoint;
use crate::ledger::in_hand::{self, Delivered, Taken, ToTake};
use crate::ledger::outcomes::{self, Outcome, Postponed, Recorded};
use crate::ledger::work::{self, Intent};
use crate::ledger::{LedgerError, Session};
use crate::metrics::Metrics;
use crate::record::FingerprintKey;

/// Nothing leaves before its intent: only as long as it takes a few more to come.
const INTENTS: Gather = Gather::Every(Duration::from_millis(4));
/// The platform has answered, and no change waits for it to be recorded.
const OUTCOMES: Gather = Gather::Every(Duration::from_millis(20));

/// What a delivery needs of the instance it runs in.
pub struct Context {
    /// The platform.
    pub client: Client,
    /// The way out.
    pub gate: Gate,
    /// Waits between attempts.
    pub schedule: Schedule,
    /// Keys fingerprints and idempotency keys.
    pub key: FingerprintKey,
    /// The platform's id.
    pub platform_id: String,
    /// What must agree before an account is linked.
    pub link_check: LinkCheck,
    /// This instance's claim token.
    pub token: i64,
    /// Writes intents.
    pub intents: Batcher<Intent, Reserved>,
    /// Records outcomes; each is told to the dispatcher when it is durable.
    pub outcomes: Batcher<Outcome, ()>,
    /// Records accepted updates of employees in hand, in the same way.
    pub updates: Batcher<(Delivered, Tickets), ()>,
    /// Marks employees in hand after all; `None` where they are not enrolled any more.
    pub takes: Batcher<ToTake, Option<Taken>>,
    /// Gives claims back.
    pub postponed: Batcher<Postponed, ()>,
    /// Whether the ledger knows an employee of ours by this id.
    pub acquaintances: Batcher<String, bool>,
    /// Counts endings against the guard's limit.
    pub endings: Batcher<Ending, Verdict>,
    /// Counters.
    pub metrics: Metrics,
}

/// What became of an intent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reserved {
    /// Durable; the employee is ours to send.
    Ours,
    /// Another instance delivers, or the ledger has moved on: load again.
    NotOurs,
    /// The account is reserved by another employee.
    AccountTaken,
}

/// Connects the sessions that deliveries write through, and starts their batchers. `endings` hears of what is recorded.
pub(super) async fn context(
    outfit: &Outfit,
    token: i64,
    session: &Arc<Session>,
    endings: mpsc::Sender<courier::Ending>,
    tasks: &mut JoinSet<Result<(), LedgerError>>,
) -> Result<Context, DeliveryError> {
    let config = &outfit.config;
    let writer = Session::connect_by_key(&outfit.target, "benefits-sync intents").await?;
    let recorder = Session::connect_by_key(&outfit.target, "benefits-sync outcomes").await?;
    let for_takes = Arc::clone(&writer);
    let takes =
        Batcher::spawn(tasks, Gather::AtOnce, move |to_take| take(Arc::clone(&for_takes), token, to_take));
    let (for_postponed, for_known, for_guard) =
        (Arc::clone(&recorder), Arc::clone(session), Arc::clone(session));
    let recorder =
        Recorder { session: recorder, takes: takes.clone(), endings, metrics: outfit.metrics.clone() };
    let for_updates = recorder.clone();
    let limits = config.guard.clone();
    Ok(Context {
        client: Client::new(config)?,
        gate: Gate::new(&config.delivery),
        schedule: Schedule::new(config.delivery.backoff_min, config.delivery.backoff_max),
        key: outfit.key.clone(),
        platform_id: config.benefits.platform_id.clone(),
        link_check: config.benefits.link_check,
        token,
        intents: Batcher::spawn(tasks, INTENTS, move |intents| {
            write_intents(Arc::clone(&writer), token, intents)
        }),
        outcomes: Batcher::spawn(tasks, OUTCOMES, move |outcomes| recorder.clone().outcomes(outcomes)),
        updates: Batcher::spawn(tasks, OUTCOMES, move |updates| for_updates.clone().updates(updates)),
        takes,
        postponed: Batcher::spawn(tasks, Gather::AtOnce, move |postponed| {
            postpone(Arc::clone(&for_postponed), token, postponed)
        }),
        acquaintances: Batcher::spawn(tasks, Gather::AtOnce, move |ids| {
            are_known(Arc::clone(&for_known), ids)
        }),
        endings: Batcher::spawn(tasks, Gather::AtOnce, move |endings: Vec<Ending>| {
            let (session, limits) = (Arc::clone(&for_guard), limits.clone());
            async move { guard::admit(&session, &limits, &endings).await }
        }),
        metrics: outfit.metrics.clone(),
    })
}

async fn write_intents(
    session: Arc<Session>,
    token: i64,
    intents: Vec<Intent>,
) -> Result<Vec<Reserved>, LedgerError> {
    match work::write_intents(&session, token, &intents).await {
        Ok(ours) => {
            let ours: HashSet<String> = ours.into_iter().collect();
            let reserved = |intent: &Intent| {
                if ours.contains(&intent.employee_id) { Reserved::Ours } else { Reserved::NotOurs }
            };
            Ok(intents.iter().map(reserved).collect())
        }
        // Two employees want one account: one at a time, so that exactly one of them is told.
        Err(error) if work::is_taken(&error) => {
            let mut reserved = Vec::with_capacity(intents.len());
            for intent in intents {
                reserved.push(
                    match work::write_intents(&session, token, std::slice::from_ref(&intent)).await {
                        Ok(ours) if ours.is_empty() => Reserved::NotOurs,
                        Ok(_) => Reserved::Ours,
                        Err(error) if work::is_taken(&error) => Reserved::AccountTaken,
                        Err(error) => return Err(error),
                    },
                );
            }
            Ok(reserved)
        }
        Err(error) => Err(error),
    }
}

/// Records what deliveries came to, and tells the dispatcher.
#[derive(Clone)]
struct Recorder {
    session: Arc<Session>,
    takes: Batcher<ToTake, Option<Taken>>,
    endings: mpsc::Sender<courier::Ending>,
    metrics: Metrics,
}

impl Recorder {
    async fn outcomes(self, outcomes: Vec<Outcome>) -> Result<Vec<()>, LedgerError> {
        let recorded = match outcomes::record(&self.session, &outcomes).await {
            Err(error) if work::is_taken(&error) => record_singly(&self.session, &outcomes).await?,
            recorded => recorded?,
        };
        failpoint::hit("outcome-recorded").await?;
        let recorded = in_order(outcomes.iter().map(|outcome| &outcome.employee_id), recorded);
        for (outcome, recorded) in outcomes.iter().zip(recorded) {
            let end = match recorded {
                Some(recorded) => {
                    if outcome.synced {
                        self.metrics.acknowledged(recorded.latency_seconds);
                    }
                    End::Settled { recorded, wrote: outcome.claim.is_some() }
                }
                // The claim is lost.
                None => End::Postponed(Duration::ZERO),
            };
            self.tell(&outcome.employee_id, Ok(end)).await;
        }
        Ok(vec![(); outcomes.len()])
    }

    async fn updates(self, updates: Vec<(Delivered, Tickets)>) -> Result<Vec<()>, LedgerError> {
        failpoint::hit("update-accepted").await?;
        let (updates, hands): (Vec<Delivered>, Vec<Tickets>) = updates.into_iter().unzip();
        let recorded = in_hand::record(&self.session, &updates).await?;
        failpoint::hit("outcome-recorded").await?;
        let recorded = in_order(updates.iter().map(|update| &update.employee_id), recorded);
        for ((update, hand), recorded) in updates.iter().zip(hands).zip(recorded) {
            let id = &update.employee_id;
            let end = match recorded {
                Some(recorded) => {
                    hand.settle();
                    self.metrics.acknowledged(recorded.latency_seconds);
                    Ok(End::Settled { recorded, wrote: true })
                }
                // What the ledger holds has changed since, and says nothing of this write.
                None => job::mark_by(&self.takes, id, hand, None, true).await.map(|_| End::Marked),
            };
            self.tell(id, end).await;
        }
        Ok(vec![(); updates.len()])
    }

    /// A dispatcher that has gone needs no answer.
    async fn tell(&self, id: &str, end: Result<End, Ended>) {
        drop(self.endings.send((id.to_owned(), end)).await);
    }
}

/// The platform has answered about an account that the ledger holds for another employee. That is between those two, and
/// a person's to decide; nobody else waits for it.
async fn record_singly(session: &Session, outcomes: &[Outcome]) -> Result<Vec<Recorded>, LedgerError> {
    let mut recorded = Vec::with_capacity(outcomes.len());
    for outcome in outcomes {
        match outcomes::record(session, std::slice::from_ref(outcome)).await {
            Err(error) if work::is_taken(&error) => {
                recorded.extend(outcomes::record(session, &[job::not_theirs(outcome)]).await?);
            }
            one => recorded.extend(one?),
        }
    }
    Ok(recorded)
}

/// What was recorded of each employee asked for; `None` where the ledger knew better.
fn in_order<'a>(asked: impl Iterator<Item = &'a String>, recorded: Vec<Recorded>) -> Vec<Option<Recorded>> {
    let mut recorded: HashMap<String, Recorded> =
        recorded.into_iter().map(|recorded| (recorded.employee_id.clone(), recorded)).collect();
    asked.map(|employee_id| recorded.remove(employee_id)).collect()
}

async fn take(
    session: Arc<Session>,
    token: i64,
    to_take: Vec<ToTake>,
) -> Result<Vec<Option<Taken>>, LedgerError> {
    let marks = in_hand::take_into_ledger(&session, token, &to_take).await?;
    failpoint::hit("taken-into-ledger").await?;
    Ok(marks)
}

async fn postpone(
    session: Arc<Session>,
    token: i64,
    postponed: Vec<Postponed>,
) -> Result<Vec<()>, LedgerError> {
    outcomes::postpone(&session, token, &postponed).await?;
    Ok(vec![(); postponed.len()])
}

async fn are_known(session: Arc<Session>, ids: Vec<String>) -> Result<Vec<bool>, LedgerError> {
    let sql = "select employee_id from benefits.enrolment where employee_id = any ($1::text[])";
    let rows = session.query("look for an employee", sql, &[&ids]).await?;
    let known: HashSet<&str> = rows.iter().map(|row| row.get(0)).collect();
    Ok(ids.iter().map(|id| known.contains(id.as_str())).collect())
}
