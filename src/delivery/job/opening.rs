//! How a delivery begins: an update, a first sync that finds an account or creates one, a link that is taken over.

use super::{Accepted, Delivery, Stop};
use crate::config::LinkCheck;
use crate::delivery::decide::{Opening, Rejection};
use crate::delivery::outcome::{Class, Failure};
use crate::ledger::work::{IntentKind, LinkBy};
use crate::record::Field;

impl Delivery<'_> {
    pub(super) async fn run(&mut self) -> Result<Accepted, Stop> {
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
}

pub(super) fn email_in_use() -> Rejection {
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
