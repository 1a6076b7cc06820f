//! How a delivery ends: what is recorded of an answer, and of an employee of whom nothing was sent.

use std::time::{Duration, Instant};

use super::{Accepted, Delivery, End, Stop};
use crate::delivery::batcher::Ended;
use crate::delivery::context::Context;
use crate::delivery::decide::{Rejection, refused_hash, unknown};
use crate::delivery::guard;
use crate::delivery::outcome::{Class, Failure};
use crate::ledger::outcomes::{HistoryLine, Outcome, Postponed, StateName};
use crate::ledger::work::{IntentKind, LinkBy, Work};
use crate::record::FieldSet;

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
        loaded: work.loaded(),
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
    context.outcomes.post(outcome).await?;
    Ok(End::Recording)
}

impl Delivery<'_> {
    pub(super) async fn succeeded(self, accepted: Accepted) -> Result<End, Ended> {
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
        settle(self.context, outcome).await
    }

    pub(super) async fn failed(self, failure: &Failure) -> Result<End, Ended> {
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

    pub(super) async fn rejected(
        self,
        rejection: Rejection,
        request_id: Option<String>,
    ) -> Result<End, Ended> {
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

    pub(super) async fn postpone(&self, wait: Duration, attempted: bool) -> Result<End, Ended> {
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
