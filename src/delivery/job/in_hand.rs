//! Employees in hand: sent without mark and intent, and marked after all when they are not accepted within a moment.

use std::future::Future;
use std::pin::pin;
use std::time::Instant;

use super::{Accepted, Delivery, End, Stop, ask};
use crate::delivery::batcher::{Batcher, Ended};
use crate::delivery::context::Context;
use crate::delivery::decide::Draft;
use crate::delivery::gate::Precedence;
use crate::delivery::outcome::{Answer, Failure};
use crate::delivery::tickets::Tickets;
use crate::ledger::in_hand::{Delivered, Taken, ToTake};
use crate::ledger::work::Claim;

/// Marks an employee in hand after all, with the write that may be on its way; `in_full` where nothing is known of what the
/// platform holds. `None`: they are not enrolled any more.
pub async fn mark(
    context: &Context,
    employee_id: &str,
    tickets: Tickets,
    claim: Option<Claim>,
    in_full: bool,
) -> Result<Option<Taken>, Ended> {
    mark_by(&context.takes, employee_id, tickets, claim, in_full).await
}

/// As [`mark`], for whoever has no more than the way to the ledger.
pub async fn mark_by(
    to_ledger: &Batcher<ToTake, Option<Taken>>,
    employee_id: &str,
    tickets: Tickets,
    claim: Option<Claim>,
    in_full: bool,
) -> Result<Option<Taken>, Ended> {
    let employee_id = employee_id.to_owned();
    let change = tickets.change();
    let mass_change = tickets.mass_change();
    let taken = to_ledger.call(ToTake { employee_id, change, claim, in_full, mass_change }).await?;
    tickets.settle();
    Ok(taken)
}

impl Delivery<'_> {
    /// As [`Delivery::ask`]. An employee in hand who is not accepted within a moment is marked in the ledger, as if they
    /// had been from the start.
    pub(super) async fn ask_or_mark<T>(
        &mut self,
        operation: &'static str,
        claim: Claim,
        request: impl Future<Output = Result<Answer<T>, Box<Failure>>>,
    ) -> Result<Answer<T>, Stop> {
        let Some((hand, until)) = self.hand.take() else { return self.ask(operation, request).await };
        let (context, version, id) = (self.context, claim.version, self.draft.work.employee_id.clone());
        let precedence = if hand.mass_change().is_none() { Precedence::Ahead } else { Precedence::InTurn };
        let mut asking = pin!(ask(context, &id, precedence, operation, request));
        let prompt = tokio::time::timeout_at(until, asking.as_mut()).await;
        if let Ok(Ok(accepted)) = prompt {
            self.hand = Some((hand, until));
            return Ok(accepted);
        }
        if let Ok(Err(Stop::Ended)) = prompt {
            return Err(Stop::Ended);
        }
        let taken = Box::pin(mark(context, &id, hand, Some(claim), false)).await?;
        let answer = match prompt {
            Ok(refused) => refused,
            Err(_late) => asking.await,
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
}

/// Has the accepted update of an employee in hand recorded.
pub(super) async fn updated(
    context: &Context,
    draft: &Draft,
    hand: Tickets,
    accepted: Accepted,
) -> Result<End, Ended> {
    let delivered = Delivered {
        employee_id: draft.work.employee_id.clone(),
        place: draft.work.place.clone(),
        row_version: draft.work.row_version.clone(),
        version: accepted.version,
        acknowledged: draft.acknowledged(accepted.kind),
        fields: draft.sent(accepted.kind),
        request_id: accepted.answer.request_id,
        answered: Instant::now(),
        changed_at: hand.change().first,
    };
    context.updates.post((delivered, hand)).await?;
    Ok(End::Recording)
}
