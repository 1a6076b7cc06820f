//! A busy HR department: edits of every kind, each a transaction, from a seed and at a rate.
//!
//! [`Edits::next`] makes one and tells what it was; [`run`] makes them at a steady rate until it is told to stop. Most are
//! what people do all day; some are there because they are hard to follow from outside: a deleted child row, a lookup
//! renamed, a transaction rolled back in part or whole, a change to columns that nobody sends.

mod changes;

use std::time::Duration;

use jiff::civil::Date;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use super::people::{Flaw, Loaded, People};

/// What an edit was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// More pay from today on.
    PayRise,
    /// More pay from a future date on.
    FuturePay,
    /// A review of up to 25 people in one transaction.
    TeamReview,
    /// A new address; the old one stays.
    NewAddress,
    /// The present address put right.
    AddressCorrected,
    /// One of several addresses deleted; it may be the present one.
    AddressDeleted,
    /// Another surname.
    Surname,
    /// Another email.
    Email,
    /// Another department and place of work.
    Moved,
    /// A department renamed, which changes everybody in it.
    DepartmentRenamed,
    /// Another Benefits Level.
    Level,
    /// A leave date.
    Leaver,
    /// A leave date cleared.
    Reinstated,
    /// A second job.
    SecondJob,
    /// The second job made the primary one.
    PrimarySwitched,
    /// A login, bank details, the audit log: nothing that is sent.
    Noise,
    /// Changes that were rolled back.
    RolledBack,
    /// A change rolled back to a savepoint, and another that stays.
    Savepoint,
    /// A new employee with "Create Benefits Record" ticked.
    Starter,
    /// The tick set on somebody who started without.
    LateTick,
    /// A new employee without the tick.
    Unticked,
    /// A record that was refused, put right.
    FlawMended,
}

/// Every kind, with how many there are in a thousand edits.
const WEIGHTS: [(Kind, u32); 22] = [
    (Kind::PayRise, 130),
    (Kind::FuturePay, 20),
    (Kind::TeamReview, 10),
    (Kind::NewAddress, 80),
    (Kind::AddressCorrected, 70),
    (Kind::AddressDeleted, 30),
    (Kind::Surname, 50),
    (Kind::Email, 50),
    (Kind::Moved, 80),
    (Kind::DepartmentRenamed, 2),
    (Kind::Level, 60),
    (Kind::Leaver, 10),
    (Kind::Reinstated, 10),
    (Kind::SecondJob, 20),
    (Kind::PrimarySwitched, 20),
    (Kind::Noise, 250),
    (Kind::RolledBack, 28),
    (Kind::Savepoint, 20),
    (Kind::Starter, 20),
    (Kind::LateTick, 10),
    (Kind::Unticked, 15),
    (Kind::FlawMended, 15),
];

impl Kind {
    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PayRise => "pay rise",
            Self::FuturePay => "future pay",
            Self::TeamReview => "team review",
            Self::NewAddress => "new address",
            Self::AddressCorrected => "address corrected",
            Self::AddressDeleted => "address deleted",
            Self::Surname => "surname",
            Self::Email => "email",
            Self::Moved => "department move",
            Self::DepartmentRenamed => "department renamed",
            Self::Level => "benefits level",
            Self::Leaver => "leaver",
            Self::Reinstated => "re-instated",
            Self::SecondJob => "second job",
            Self::PrimarySwitched => "primary job switched",
            Self::Noise => "noise",
            Self::RolledBack => "rolled back",
            Self::Savepoint => "savepoint",
            Self::Starter => "new starter",
            Self::LateTick => "late tick",
            Self::Unticked => "starter, no tick",
            Self::FlawMended => "record mended",
        }
    }

    /// Whether an edit of this kind changes what could be sent. It need not: the employee may not be synced, and a deleted
    /// address may have been an old one.
    pub const fn may_be_sent(self) -> bool {
        !matches!(self, Self::Noise | Self::RolledBack | Self::FuturePay | Self::SecondJob | Self::Unticked)
    }
}

/// An edit that was made.
#[derive(Debug, Clone)]
pub struct Edit {
    /// What it was.
    pub kind: Kind,
    /// Whose rows it changed, directly or by way of a lookup. Empty where it found nobody to change.
    pub employees: Vec<i64>,
}

/// PostgreSQL refused an edit.
#[derive(Debug, thiserror::Error)]
#[error("cannot make the edit \"{}\"", kind.name())]
pub struct EditError {
    /// What it was.
    pub kind: Kind,
    /// PostgreSQL's reason.
    pub source: tokio_postgres::Error,
}

/// The HR department.
#[derive(Debug)]
pub struct Edits {
    client: Client,
    people: People,
    random: StdRng,
    today: Date,
    /// Ids are 1 to this.
    employees: i64,
    flawed: Vec<(i64, Flaw)>,
    unticked: Vec<i64>,
}

impl Edits {
    /// Edits of the people that were `loaded` from `people`, which goes on supplying new ones. `today` is the site's.
    pub fn new(client: Client, people: People, loaded: &Loaded, seed: u64, today: Date) -> Self {
        Self {
            client,
            people,
            random: StdRng::seed_from_u64(seed),
            today,
            employees: i64::try_from(loaded.employees).unwrap_or(i64::MAX),
            flawed: loaded.flawed.clone(),
            unticked: Vec::new(),
        }
    }

    /// Makes one edit of some kind.
    pub async fn next(&mut self) -> Result<Edit, EditError> {
        let kind = WEIGHTS.choose_weighted(&mut self.random, |(_, weight)| *weight);
        self.make(kind.map_or(Kind::Noise, |(kind, _)| *kind)).await
    }

    /// Makes an edit of this kind. Where it would find nobody (no flaw left to mend), it is one of its next of kin.
    pub async fn make(&mut self, kind: Kind) -> Result<Edit, EditError> {
        let kind = match kind {
            Kind::FlawMended if self.flawed.is_empty() => Kind::PayRise,
            Kind::LateTick if self.unticked.is_empty() => Kind::Unticked,
            other => other,
        };
        let employees = self.change(kind).await.map_err(|source| EditError { kind, source })?;
        Ok(Edit { kind, employees })
    }

    fn somebody(&mut self) -> i64 {
        self.random.gen_range(1..=self.employees.max(1))
    }
}

/// Makes `per_second` edits a second until `stop`, and hands each on once it is committed (or rolled back). Ends early when
/// nobody listens any more. A late edit is made up for by the next ones.
pub async fn run(
    mut edits: Edits,
    per_second: u32,
    stop: CancellationToken,
    made: mpsc::Sender<Edit>,
) -> Result<Edits, EditError> {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / per_second.max(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(edits),
            _ = ticks.tick() => {}
        }
        if made.send(edits.next().await?).await.is_err() {
            return Ok(edits);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn weights_are_a_thousand_in_all_and_no_kind_is_there_twice() {
        assert_eq!(WEIGHTS.iter().map(|(_, weight)| weight).sum::<u32>(), 1000);
        assert_eq!(WEIGHTS.iter().map(|(kind, _)| kind.name()).collect::<HashSet<_>>().len(), WEIGHTS.len());
    }
}
