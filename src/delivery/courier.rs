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
pub enum Parcel {
    /// The ordinary update of an employee in hand.
    Update(Update),
    /// Everything else.
    Errand {
        /// Who.
        id: String,
        /// What.
        errand: Errand,
    },
}

/// The ordinary update of an employee in hand: sent, or marked after all if it is not accepted in time.
pub struct Update {
    id: String,
    draft: Box<Draft>,
    hand: Tickets,
    /// When the ledger is told of it at the latest.
    until: Instant,
}

impl Update {
    /// To be accepted within a moment from now.
    pub fn new(draft: Box<Draft>, hand: Tickets) -> Self {
        Self { id: draft.work.employee_id.clone(), draft, hand, until: Instant::now() + IN_HAND_MAX }
    }
}

/// Updates that have not begun, those of a mass change behind all others.
#[derive(Default)]
struct Waiting {
    single: VecDeque<Update>,
    of_mass_change: VecDeque<Update>,
}

impl Waiting {
    fn push(&mut self, update: Update) {
        let is_of_mass_change = update.hand.mass_change().is_some();
        let queue = if is_of_mass_change { &mut self.of_mass_change } else { &mut self.single };
        queue.push_back(update);
    }

    fn pop(&mut self) -> Option<Update> {
        self.single.pop_front().or_else(|| self.of_mass_change.pop_front())
    }

    /// One that has waited too long. In each queue the one in front has waited longest.
    fn pop_overdue(&mut self, now: Instant) -> Option<Update> {
        let mut queues = [&mut self.single, &mut self.of_mass_change].into_iter();
        queues.find_map(|queue| queue.pop_front_if(|update| update.until <= now))
    }

    fn is_empty(&self) -> bool {
        self.single.is_empty() && self.of_mass_change.is_empty()
    }
}

/// What is to be done, if it is no ordinary update.
pub enum Errand {
    /// Sent a moment ago: given back for so long.
    Wait(Box<Work>, Duration),
    /// Recorded as being in step.
    InStep(Box<Work>),
    /// Recorded as rejected, if the guard lets the ending pass.
    Reject(Box<Work>, Rejection, Option<guard::Ending>),
    /// Sent, if the guard lets the ending pass.
    Send(Box<Draft>, Option<guard::Ending>),
    /// In hand, and nothing that can be done without a mark.
    Mark(Tickets),
}

/// How a parcel ended: whose, and how.
pub type Ending = (String, Result<End, Ended>);

/// Runs deliveries until nobody hands in any more and all have ended. `concurrency`: how many requests may be under way;
/// whoever comes when a few times as many have begun waits for their turn here, where waiting costs least. Updates in hand
/// do not queue behind the others, of whom a first sync makes thousands, nor behind a mass change.
pub async fn run(
    context: Arc<Context>,
    concurrency: usize,
    mut parcels: mpsc::Receiver<Parcel>,
    endings: mpsc::Sender<Ending>,
) -> Result<(), LedgerError> {
    let (mut updates, mut updates_waiting) = (FuturesUnordered::new(), Waiting::default());
    let (mut others, mut sends_waiting) = (FuturesUnordered::new(), VecDeque::new());
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut open = true;
    while open || !updates.is_empty() || !others.is_empty() {
        while updates.len() < concurrency * UPDATES_BEGUN
            && let Some(update) = updates_waiting.pop()
        {
            updates.push(send_update(&context, update));
        }
        while others.len() < concurrency * SENDS_BEGUN
            && let Some((id, errand)) = sends_waiting.pop_front()
        {
            others.push(run_errand(&context, id, errand));
        }
        let ending = tokio::select! {
            biased;
            Some(ending) = updates.next(), if !updates.is_empty() => ending,
            Some(ending) = others.next(), if !others.is_empty() => ending,
            _ = look.tick(), if !updates_waiting.is_empty() => {
                while let Some(Update { id, hand, .. }) = updates_waiting.pop_overdue(Instant::now()) {
                    others.push(run_errand(&context, id, Errand::Mark(hand)));
                }
                None
            }
            parcel = parcels.recv(), if open => {
                match parcel {
                    Some(Parcel::Update(update)) => updates_waiting.push(update),
                    Some(Parcel::Errand { id, errand: errand @ Errand::Send(..) }) => sends_waiting.push_back((id, errand)),
                    // For the ledger alone, which does not wait for the platform.
                    Some(Parcel::Errand { id, errand }) => others.push(run_errand(&context, id, errand)),
                    None => open = false,
                }
                None
            }
        };
        if let Some(ending) = ending {
            // Without a dispatcher nobody has to know.
            drop(endings.send(ending).await);
        }
    }
    Ok(())
}

/// How it ended; `None` where the recorder tells.
async fn send_update(context: &Context, update: Update) -> Option<Ending> {
    let Update { id, draft, hand, until } = update;
    told_here(id, job::update(context, draft, hand, until).await)
}

/// How it ended; `None` where the recorder tells.
async fn run_errand(context: &Context, id: String, errand: Errand) -> Option<Ending> {
    let end = match errand {
        Errand::Wait(work, wait) => job::wait(context, &work, wait).await,
        Errand::InStep(work) => job::in_step(context, &work).await,
        Errand::Reject(work, rejection, ending) => match held_back(context, ending).await {
            Ok(None) => job::reject(context, *work, rejection).await,
            Ok(Some(end)) => Ok(end),
            Err(ended) => Err(ended),
        },
        Errand::Send(draft, ending) => match held_back(context, ending).await {
            Ok(None) => job::deliver(context, draft).await,
            Ok(Some(end)) => Ok(end),
            Err(ended) => Err(ended),
        },
        Errand::Mark(hand) => job::mark(context, &id, hand, None, false).await.map(|_| End::Marked),
    };
    told_here(id, end)
}

fn told_here(id: String, end: Result<End, Ended>) -> Option<Ending> {
    (!matches!(end, Ok(End::Recording))).then_some((id, end))
}

async fn held_back(context: &Context, ending: Option<guard::Ending>) -> Result<Option<End>, Ended> {
    match ending {
        Some(ending) => job::held_back(context, ending).await,
        None => Ok(None),
    }
}
