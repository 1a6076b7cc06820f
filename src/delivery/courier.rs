//! The courier: runs everybody's delivery side by side, in one task.
//!
//! ```text
//!  Dispatcher ──Parcel──▶ courier: job::deliver & co. ──▶ what a delivery comes to ──▶ recorder ─▶ ledger
//!      ▲                        │ nothing to record                                        │ recorded
//!      └───────── Ending of each parcel, many at a time ◀──────────────────────────────────┘
//! ```
//!
//! A delivery waits far more than it works, so that one task is enough for thousands of them, and costs less than a task
//! each. Every parcel comes to exactly one end: from here, or from the recorder once its outcome is durable.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::batcher::Ended;
use super::context::Context;
use super::decide::{Draft, Rejection};
use super::guard;
use super::job::{self, End};
use super::tickets::Tickets;
use crate::ledger::LedgerError;
use crate::ledger::work::Work;

/// How long an employee in hand may take to be accepted before the ledger is told of them.
const IN_HAND_MAX: Duration = Duration::from_millis(250);
/// Updates in hand are begun up to so many times the requests that may be under way: they only wait for their turn, and the
/// fewer have begun, the less memory is walked through.
const UPDATES_BEGUN: usize = 3;
/// The same of everybody else: most of them wait for the ledger, between or before their requests.
const SENDS_BEGUN: usize = 16;
/// Between two looks at who has waited too long.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What is to be done for one employee.
pub struct Parcel {
    /// Who.
    pub id: String,
    /// What.
    pub errand: Errand,
}

/// What is to be done.
pub enum Errand {
    /// Sent a moment ago: given back for so long.
    Wait(Box<Work>, Duration),
    /// Recorded as being in step.
    InStep(Box<Work>),
    /// Recorded as rejected, if the guard lets the ending pass.
    Reject(Box<Work>, Rejection, Option<guard::Ending>),
    /// Sent, if the guard lets the ending pass.
    Send(Box<Draft>, Option<guard::Ending>),
    /// In hand, and an ordinary update: sent, or marked after all if it is not accepted by then.
    Update {
        /// What to send.
        draft: Box<Draft>,
        /// What is settled by it.
        hand: Tickets,
        /// When the ledger is told of it at the latest.
        until: Instant,
    },
    /// In hand, and nothing that can be done without a mark.
    Mark(Tickets),
}

impl Errand {
    /// The ordinary update of an employee in hand.
    pub fn update(draft: Box<Draft>, hand: Tickets) -> Self {
        Self::Update { draft, hand, until: Instant::now() + IN_HAND_MAX }
    }

    /// Whether it goes to the platform.
    fn is_sent(&self) -> bool {
        matches!(self, Self::Send(..) | Self::Update { .. })
    }
}

/// How a parcel ended: whose, and how.
pub type Ending = (String, Result<End, Ended>);

/// Runs deliveries until nobody hands in any more and all have ended. `concurrency`: how many requests may be under way;
/// whoever comes when a few times as many have begun waits for their turn here, where waiting costs least.
pub async fn run(
    context: Arc<Context>,
    concurrency: usize,
    mut parcels: mpsc::Receiver<Parcel>,
    endings: mpsc::Sender<Ending>,
) -> Result<(), LedgerError> {
    let mut begun = FuturesUnordered::new();
    let mut waiting = Waiting::default();
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut open = true;
    while open || !begun.is_empty() {
        while let Some(parcel) = waiting.next(begun.len() / concurrency.max(1)) {
            begun.push(carry(&context, parcel));
        }
        tokio::select! {
            biased;
            Some(ending) = begun.next(), if !begun.is_empty() => {
                if let Some(ending) = ending {
                    // Without a dispatcher nobody has to know.
                    drop(endings.send(ending).await);
                }
            }
            _ = look.tick(), if !waiting.is_empty() => {
                begun.extend(waiting.overdue(Instant::now()).into_iter().map(|parcel| carry(&context, parcel)));
            }
            parcel = parcels.recv(), if open => match parcel {
                Some(parcel) if parcel.errand.is_sent() => waiting.push(parcel),
                // For the ledger alone, which does not wait for the platform.
                Some(parcel) => begun.push(carry(&context, parcel)),
                None => open = false,
            },
        }
    }
    Ok(())
}

/// Who waits for their turn to be sent, in the order in which they came.
#[derive(Default)]
struct Waiting(VecDeque<Parcel>);

impl Waiting {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn push(&mut self, parcel: Parcel) {
        self.0.push_back(parcel);
    }

    /// Who is next, where so many have begun for each request that may be under way.
    fn next(&mut self, begun: usize) -> Option<Parcel> {
        let begun_max = match self.0.front()?.errand {
            Errand::Update { .. } => UPDATES_BEGUN,
            _ => SENDS_BEGUN,
        };
        if begun < begun_max { self.0.pop_front() } else { None }
    }

    /// Whoever in hand has waited too long: they are to be marked instead.
    fn overdue(&mut self, now: Instant) -> Vec<Parcel> {
        let mut overdue = Vec::new();
        for parcel in std::mem::take(&mut self.0) {
            let Parcel { id, errand } = parcel;
            match errand {
                Errand::Update { hand, until, .. } if until <= now => {
                    overdue.push(Parcel { id, errand: Errand::Mark(hand) });
                }
                errand => self.0.push_back(Parcel { id, errand }),
            }
        }
        overdue
    }
}

/// How it ended; `None` where the recorder tells.
async fn carry(context: &Context, parcel: Parcel) -> Option<Ending> {
    let Parcel { id, errand } = parcel;
    let end = match errand {
        Errand::Update { draft, hand, until } => job::update(context, draft, hand, until).await,
        // Boxed: by far the most are updates, and each future has room for the largest.
        other => Box::pin(run_errand(context, &id, other)).await,
    };
    (!matches!(end, Ok(End::Recording))).then_some((id, end))
}

async fn run_errand(context: &Context, id: &str, errand: Errand) -> Result<End, Ended> {
    match errand {
        Errand::Wait(work, wait) => job::wait(context, &work, wait).await,
        Errand::InStep(work) => job::in_step(context, &work).await,
        Errand::Reject(work, rejection, ending) => match held_back(context, ending).await? {
            None => job::reject(context, *work, rejection).await,
            Some(end) => Ok(end),
        },
        Errand::Send(draft, ending) => match held_back(context, ending).await? {
            None => job::deliver(context, draft).await,
            Some(end) => Ok(end),
        },
        Errand::Update { draft, hand, until } => job::update(context, draft, hand, until).await,
        Errand::Mark(hand) => job::mark(context, id, hand, None, false).await.map(|_| End::Marked),
    }
}

async fn held_back(context: &Context, ending: Option<guard::Ending>) -> Result<Option<End>, Ended> {
    match ending {
        Some(ending) => job::held_back(context, ending).await,
        None => Ok(None),
    }
}
