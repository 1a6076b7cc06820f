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

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;

use super::batcher::Ended;
use super::context::Context;
use super::decide::{Draft, Rejection};
use super::guard;
use super::job::{self, End};
use super::tickets::Tickets;
use crate::ledger::LedgerError;
use crate::ledger::work::Work;

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
    /// In hand, and an ordinary update: sent.
    Update(Box<Draft>, Tickets),
    /// In hand, and nothing that can be done without a mark.
    Mark(Tickets),
}

/// How a parcel ended: whose, and how.
pub type Ending = (String, Result<End, Ended>);

/// Runs deliveries until nobody hands in any more and all have ended.
pub async fn run(
    context: Arc<Context>,
    begun_max: usize,
    mut parcels: mpsc::Receiver<Parcel>,
    endings: mpsc::Sender<Ending>,
) -> Result<(), LedgerError> {
    let mut under_way = FuturesUnordered::new();
    let mut open = true;
    while open || !under_way.is_empty() {
        tokio::select! {
            biased;
            Some(ending) = under_way.next(), if !under_way.is_empty() => {
                if let Some(ending) = ending {
                    // Without a dispatcher nobody has to know.
                    drop(endings.send(ending).await);
                }
            }
            parcel = parcels.recv(), if open && under_way.len() < begun_max => match parcel {
                Some(parcel) => under_way.push(carry(&context, parcel)),
                None => open = false,
            },
        }
    }
    Ok(())
}

/// How it ended; `None` where the recorder tells.
async fn carry(context: &Context, parcel: Parcel) -> Option<Ending> {
    let Parcel { id, errand } = parcel;
    let end = match errand {
        Errand::Update(draft, hand) => job::update(context, draft, hand).await,
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
        Errand::Update(draft, hand) => job::update(context, draft, hand).await,
        Errand::Mark(hand) => job::mark(context, id, hand, None, false).await.map(|_| End::Marked),
    }
}

async fn held_back(context: &Context, ending: Option<guard::Ending>) -> Result<Option<End>, Ended> {
    match ending {
        Some(ending) => job::held_back(context, ending).await,
        None => Ok(None),
    }
}
