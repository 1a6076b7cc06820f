//! The dispatcher: takes who is due, loads and decides in batches, runs deliveries side by side.
//!
//! A [`Dispatcher`] lives as long as its ledger session. Any error of the ledger ends it and everything under way with it;
//! the intents are in the ledger, so that the next one takes up where it was. That is the same path as after a kill -9.

mod events;
mod halts;
mod in_hand;
mod loading;

use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::HashMap;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use events::Event;
use halts::is_paused;
pub use halts::show_halt;
use in_hand::{Held, IN_HAND_MAX, MASS_IN_HAND_MAX};

use super::appetite::Appetite;
use super::batcher::Ended;
use super::client::SetupError;
use super::context::{Context, context};
use super::courier::{self, Errand, Parcel, Update};
use super::lanes::Lanes;
use super::pace::{FAST_PER_SECOND, Pace};
use super::site_rules;
use crate::config::Config;
use crate::ledger::in_hand::Ticket;
use crate::ledger::work;
use crate::ledger::{Checkpoint, LedgerError, Session, Site, Witness, doubt};
use crate::metrics::Metrics;
use crate::postgres::{ConnectError, Target};
use crate::record::{FingerprintKey, Rules};

/// Employees under way, beyond which none is loaded.
const UNDER_WAY_MAX: usize = 3072;
/// Parcels, and ends of parcels, on their way: nobody under way has more than one, whoever is marked overdue included.
const PARCELS_MAX: usize = 2 * UNDER_WAY_MAX;
/// Ends of parcels that are taken at once.
const ENDINGS_AT_ONCE: usize = 256;
/// Between two looks at the ledger for what nobody told us.
const SCAN_EVERY: Duration = Duration::from_secs(1);
/// Between two scans when there is more than memory holds: each reads all that is pending.
const SCAN_PAUSE: Duration = Duration::from_millis(100);
/// Scans between two looks for claims of instances that are no more.
const RESCUE_EVERY: u32 = 5;
/// Employees that a scan names.
const SCAN_MAX: i64 = 15_000;
/// Between two questions to a platform that halted the site, and two refreshes of its lists.
const ASK_EVERY: Duration = Duration::from_secs(10);
/// The halt that only `benefits.resume()` lifts.
const ANOTHER_WRITER: &str = "another-writer";
/// The halt of a record query that does not work.
const RECORD_QUERY: &str = "record-query";
/// What is told where delivery waits for the comparison with the platform.
const PLATFORM_DOUBT: &str = "platform-doubt";
/// What is told where the module is switched off in the configuration.
pub const SWITCHED_OFF: &str = "switched-off";
/// How old the platform's picklists and packages may get while they block somebody.
const LISTS_MAX_AGE_BLOCKED: Duration = Duration::from_mins(1);
/// How old the platform's picklists and packages may get.
const LISTS_MAX_AGE: Duration = Duration::from_mins(10);

/// What the reader tells delivery.
#[derive(Debug)]
pub enum Notice {
    /// Employees were marked; `rescan`: more than are named.
    Marked {
        /// Who.
        employees: Vec<String>,
        /// Whether the ledger has more.
        rescan: bool,
    },
    /// Employees of commits in hand: they have no mark in the ledger.
    InHand(Vec<(String, Ticket)>),
    /// Something waits for the end of the mass change in hand: whoever of it still waits is to be marked.
    MarkMassChange,
    /// Translations, levels or the description changed.
    Rules,
}

/// Why a dispatcher ended.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// No session.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// A statement failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The session closed under way.
    #[error(transparent)]
    Ended(#[from] Ended),
    /// The HTTP client cannot be made as configured.
    #[error(transparent)]
    Client(#[from] SetupError),
    /// A task of ours panicked: a defect.
    #[error("a delivery task ended abnormally")]
    Task(#[source] JoinError),
}

/// What outlives a dispatcher.
pub struct Outfit {
    /// The configuration.
    pub config: Arc<Config>,
    /// The ledger's database.
    pub target: Target,
    /// Keys fingerprints.
    pub key: FingerprintKey,
    /// Counters.
    pub metrics: Metrics,
    /// Whether delivery is halted, for `/readyz`.
    pub halted: tokio::sync::watch::Sender<Option<String>>,
    /// Whether the ledger was set back.
    pub witness: Arc<Witness>,
    /// How many employees are taken in hand.
    pub appetite: Arc<Appetite>,
}

/// One session of delivery.
#[expect(clippy::struct_excessive_bools, reason = "independent facts, not a state")]
pub struct Dispatcher<'o> {
    outfit: &'o Outfit,
    session: Arc<Session>,
    context: Arc<Context>,
    rules: Arc<Rules>,
    /// `benefits.site`'s when the rules were read; never newer than what was read.
    rules_version: i64,
    /// Somebody was loaded with newer rules in force: they are read before anybody else is.
    rules_stale: bool,
    lists_at: Instant,
    /// How old the lists may get: less where they have blocked somebody since they were fetched.
    lists_max_age: Duration,
    asked_at: Instant,
    /// The platform is being asked whether it is there.
    asking: bool,
    /// Whether it has answered, well or not: nobody is delivered before.
    asked: bool,
    /// A halt, or the end of one, that people cannot see yet.
    #[expect(clippy::option_option, reason = "nothing to show, an end to show, a halt to show")]
    unshown: Option<Option<String>>,
    paused: bool,
    doubted: bool,
    ticks: u32,
    lanes: Lanes,
    pace: Pace,
    loading: usize,
    /// Employees in hand who wait in the lanes.
    in_hand: HashMap<String, Held>,
    /// How long a mass change in hand may wait at the platform's present pace.
    mass_patience: Duration,
    /// Mass changes are being judged.
    judging: bool,
    /// Since when there may be one that is not judged yet.
    judge_wanted: Option<Instant>,
    scanned: Instant,
    events: JoinSet<Event>,
    parcels: mpsc::Sender<Parcel>,
    endings: mpsc::Receiver<courier::Ending>,
    /// Parcels that have not come to their end.
    carried: usize,
    batchers: JoinSet<Result<(), LedgerError>>,
}

impl<'o> Dispatcher<'o> {
    /// Connects, takes a claim token, frees the claims of the dead, and loads the rules.
    pub async fn start(outfit: &'o Outfit) -> Result<Self, DeliveryError> {
        let session = Session::connect_by_key(&outfit.target, "benefits-sync delivery").await?;
        let token = work::take_token(&session).await?;
        work::rescue(&session).await?;
        // The reader looks too, but nothing may leave before somebody has.
        if let Some(followed) = Checkpoint::load(&session).await?
            && followed.is_elsewhere(&session).await?
        {
            tracing::warn!("this is another server, or another timeline of it, than the ledger has followed");
            doubt::note(&session, doubt::PLATFORM).await?;
        }
        outfit.witness.testify(&session).await?;
        let mut batchers = JoinSet::new();
        let (tell, endings) = mpsc::channel(PARCELS_MAX);
        let context = Arc::new(context(outfit, token, &session, tell.clone(), &mut batchers).await?);
        let (parcels, to_carry) = mpsc::channel(PARCELS_MAX);
        batchers.spawn(courier::run(
            Arc::clone(&context),
            outfit.config.delivery.concurrency,
            to_carry,
            tell,
        ));
        let site = Site::load(&session).await?;
        // What halted an earlier session is found anew, but for what waits for a person.
        let halted = site.halted_code.clone().filter(|code| code == ANOTHER_WRITER);
        if let Some(code) = &halted {
            context.gate.halt(code);
        }
        outfit.metrics.halted(halted.as_deref());
        outfit.halted.send_replace(halted.clone());
        let mut dispatcher = Self {
            outfit,
            rules_version: work::rules_version(&session).await?,
            rules_stale: false,
            rules: Arc::new(site_rules::load(&session, &outfit.config, None).await?),
            session,
            lists_at: Instant::now(),
            lists_max_age: LISTS_MAX_AGE,
            asked_at: Instant::now(),
            asking: false,
            asked: false,
            // What waits for a person is shown already; to write it again could undo their word.
            unshown: halted.is_none().then_some(None),
            paused: is_paused(&site),
            doubted: false,
            ticks: 0,
            lanes: Lanes::new(outfit.config.delivery.concurrency.max(16)),
            pace: Pace::new(
                outfit.config.delivery.concurrency.saturating_mul(2).max(64),
                UNDER_WAY_MAX,
                Instant::now(),
            ),
            loading: 0,
            in_hand: HashMap::default(),
            mass_patience: IN_HAND_MAX,
            judging: false,
            judge_wanted: None,
            scanned: Instant::now(),
            events: JoinSet::new(),
            parcels,
            endings,
            carried: 0,
            batchers,
            context,
        };
        dispatcher.look_at_site().await?;
        dispatcher.ask_platform();
        dispatcher.lanes.more_in_ledger();
        Ok(dispatcher)
    }

    /// Delivers until `shutdown`, then lets what is under way end.
    pub async fn run(
        &mut self,
        notices: &mut mpsc::Receiver<Notice>,
        shutdown: &CancellationToken,
    ) -> Result<(), DeliveryError> {
        let mut scan = tokio::time::interval(SCAN_EVERY);
        scan.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut ended = Vec::new();
        while !shutdown.is_cancelled() {
            self.lanes.wake(Instant::now());
            if let Some(code) = self.unshown.take() {
                show_halt(&self.session, code.as_deref()).await?;
            }
            if self.rules_stale {
                self.reload_rules().await?;
            }
            if self.scan_due_in().is_some_and(|wait| wait.is_zero()) {
                self.scan().await?;
            }
            self.load_more()?;
            self.show_appetite();
            let wake = self.lanes.next_wake(Instant::now()).into_iter().chain(self.scan_due_in()).min();
            tokio::select! {
                () = shutdown.cancelled() => {}
                Some(notice) = notices.recv() => self.noticed(notice).await?,
                1.. = self.endings.recv_many(&mut ended, ENDINGS_AT_ONCE) => {
                    for (id, end) in ended.drain(..) {
                        self.ended(&id, end?);
                    }
                }
                Some(event) = self.events.join_next() => self.happened(event.map_err(DeliveryError::Task)?).await?,
                Some(ended) = self.batchers.join_next() => return Err(batcher_ended(ended)),
                _ = scan.tick() => self.tick().await?,
                () = tokio::time::sleep(wake.unwrap_or_default()), if wake.is_some() => {}
            }
        }
        self.drain(notices).await
    }

    /// What is under way ends by itself: every wait in it is bounded. The caller bounds the whole.
    async fn drain(&mut self, notices: &mut mpsc::Receiver<Notice>) -> Result<(), DeliveryError> {
        // Who has not been sent yet is given back, or marked; the next start takes them up.
        self.outfit.appetite.close();
        self.context.gate.close();
        loop {
            while let Ok(notice) = notices.try_recv() {
                if let Notice::InHand(employees) = notice {
                    for (id, ticket) in employees {
                        self.take_in_hand(id, ticket);
                    }
                }
            }
            self.mark_held(|_, _| true);
            let event = tokio::select! {
                Some((_, end)) = self.endings.recv(), if self.carried > 0 => {
                    self.carried -= 1;
                    end?;
                    continue;
                }
                Some(ended) = self.batchers.join_next() => return Err(batcher_ended(ended)),
                event = self.events.join_next(), if self.carried == 0 || !self.events.is_empty() => event,
            };
            match event.transpose().map_err(DeliveryError::Task)? {
                Some(Event::MarkedHeld(marked)) => drop(marked?),
                Some(Event::Loaded(loaded)) => {
                    for (id, hand) in loaded.asked {
                        hand.map_or(Ok(()), |hand| self.mark(id, hand))?;
                    }
                }
                Some(Event::Judged(_) | Event::Asked(_)) => {}
                None => return Ok(()),
            }
        }
    }

    async fn noticed(&mut self, notice: Notice) -> Result<(), DeliveryError> {
        match notice {
            Notice::Marked { employees, rescan } => {
                let bulk = employees.len() > self.outfit.config.delivery.concurrency;
                for employee in employees {
                    self.lanes.push_marked(employee, bulk);
                }
                if rescan {
                    self.lanes.more_in_ledger();
                    self.judge();
                }
            }
            Notice::InHand(employees) => {
                for (id, ticket) in employees {
                    self.take_in_hand(id, ticket);
                }
            }
            Notice::MarkMassChange => self.mark_held(|_, held| held.is_of_mass_change()),
            Notice::Rules => {
                self.reload_rules().await?;
                self.lanes.more_in_ledger();
            }
        }
        Ok(())
    }

    /// Tells the marker how many employees may be in hand: none while nothing, or only a probe, can go.
    fn show_appetite(&mut self) {
        let open = self.asked && !self.paused && !self.doubted && self.context.gate.room(2) == 2;
        let settles = !self.outfit.config.delivery.settle.is_zero();
        let fast = open && !self.pace.is_slower_than(FAST_PER_SECOND, Instant::now());
        self.mass_patience = if fast { MASS_IN_HAND_MAX } else { IN_HAND_MAX };
        if open && !settles {
            self.outfit.appetite.set(self.pace.under_way_max(), fast);
        } else {
            self.outfit.appetite.close();
        }
    }

    async fn reload_rules(&mut self) -> Result<(), DeliveryError> {
        self.rules_stale = false;
        // The version first: rules that are newer than it are merely read once more.
        self.rules_version = work::rules_version(&self.session).await?;
        let rules = site_rules::load(&self.session, &self.outfit.config, Some(&self.rules)).await?;
        self.rules = Arc::new(rules);
        Ok(())
    }

    /// When the ledger may be asked for more, if memory wants more.
    fn scan_due_in(&self) -> Option<Duration> {
        self.lanes.wants_scan().then(|| SCAN_PAUSE.saturating_sub(self.scanned.elapsed()))
    }

    async fn scan(&mut self) -> Result<(), DeliveryError> {
        self.scanned = Instant::now();
        self.lanes.scanned();
        let due = work::due(&self.session, SCAN_MAX).await?;
        let more = i64::try_from(due.len()).is_ok_and(|count| count == SCAN_MAX);
        for (employee, bulk) in due {
            self.lanes.push(employee, bulk);
        }
        if more {
            self.lanes.more_in_ledger();
        }
        Ok(())
    }

    async fn tick(&mut self) -> Result<(), DeliveryError> {
        let site = self.look_at_site().await?;
        let halted = self.context.gate.halted();
        let stored = site.halted_code.as_deref();
        if halted.as_deref() == Some(ANOTHER_WRITER)
            && stored != Some(ANOTHER_WRITER)
            && self.unshown.is_none()
        {
            self.resume();
        } else if halted.is_none() && stored == Some(ANOTHER_WRITER) && self.unshown.is_none() {
            // Found by another instance, or before a restart: only a person lifts it.
            self.halt(ANOTHER_WRITER);
        } else if halted.is_some() && stored.is_none() && self.unshown.is_none() {
            // A person says that it is mended: the platform is asked whether it is. Until then it is shown.
            self.unshown = Some(halted);
            self.ask_platform();
        } else if self.asked_at.elapsed() > ASK_EVERY
            && (halted.is_some() || self.lists_at.elapsed() > self.lists_max_age)
        {
            self.ask_platform();
        }
        self.ticks = self.ticks.wrapping_add(1);
        if self.ticks.is_multiple_of(RESCUE_EVERY) {
            work::rescue(&self.session).await?;
        }
        self.mark_held(Self::is_overdue);
        self.judge();
        if self.lanes.is_plentiful() {
            self.lanes.more_in_ledger();
        } else if self.context.gate.room(1) > 0 {
            self.scan().await?;
        }
        self.outfit.metrics.breaker(self.context.gate.breaker());
        Ok(())
    }
}

impl Drop for Dispatcher<'_> {
    fn drop(&mut self) {
        self.outfit.appetite.close();
    }
}

fn batcher_ended(ended: Result<Result<(), LedgerError>, JoinError>) -> DeliveryError {
    match ended {
        Ok(Ok(())) => DeliveryError::Ended(Ended),
        Ok(Err(error)) => error.into(),
        Err(error) => DeliveryError::Task(error),
    }
}
