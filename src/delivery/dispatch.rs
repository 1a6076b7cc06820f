//! The dispatcher: takes who is due, loads and decides in batches, runs deliveries side by side.
//!
//! A [`Dispatcher`] lives as long as its ledger session. Any error of the ledger ends it and everything under way with it;
//! the intents are in the ledger, so that the next one takes up where it was. That is the same path as after a kill -9.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::batcher::{Batcher, Ended};
use super::client::{Client, SetupError};
use super::decide::{Decision, Terms, decide};
use super::gate::Gate;
use super::job::{self, Context, End, Reserved};
use super::lanes::Lanes;
use super::outcome::{Class, Failure};
use super::pace::Pace;
use super::retry::Schedule;
use super::site_rules;
use crate::config::Config;
use crate::ledger::outcomes::{self, Outcome, Postponed, Recorded};
use crate::ledger::work::{self, Intent, Work, WorkError};
use crate::ledger::{Checkpoint, LedgerError, Session, Site, doubt};
use crate::metrics::Metrics;
use crate::postgres::{ConnectError, Target};
use crate::record::{FingerprintKey, Rules};

/// Employees that one statement loads.
const LOAD_MAX: usize = 512;
/// Loads under way at once: one is read while another one's rows are on their way.
const LOADS_MAX: usize = 2;
/// Employees under way, beyond which none is loaded.
const UNDER_WAY_MAX: usize = 2048;
/// Between two looks at the ledger for what nobody told us.
const SCAN_EVERY: Duration = Duration::from_secs(1);
/// Scans between two looks for claims of instances that are no more.
const RESCUE_EVERY: u32 = 5;
/// Employees that a scan names.
const SCAN_MAX: i64 = 5_000;
/// Between two questions to a platform that halted the site, and two refreshes of its lists.
const ASK_EVERY: Duration = Duration::from_secs(10);
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
}

/// What a spawned task brings back.
enum Event {
    Loaded { ids: Vec<String>, works: Result<Vec<Work>, WorkError> },
    Delivered { id: String, end: Result<End, Ended> },
}

/// One session of delivery.
pub struct Dispatcher<'o> {
    outfit: &'o Outfit,
    session: Arc<Session>,
    context: Arc<Context>,
    rules: Arc<Rules>,
    lists_at: Instant,
    asked_at: Instant,
    paused: bool,
    doubted: bool,
    ticks: u32,
    lanes: Lanes,
    pace: Pace,
    loading: usize,
    events: JoinSet<Event>,
    batchers: JoinSet<Result<(), LedgerError>>,
}

impl<'o> Dispatcher<'o> {
    /// Connects, takes a claim token, frees the claims of the dead, and loads the rules.
    pub async fn start(outfit: &'o Outfit) -> Result<Self, DeliveryError> {
        let session = Session::connect(&outfit.target, "benefits-sync delivery").await?;
        let token = work::take_token(&session).await?;
        work::rescue(&session).await?;
        // The reader looks too, but nothing may leave before somebody has.
        if let Some(followed) = Checkpoint::load(&session).await?
            && followed.is_elsewhere(&session).await?
        {
            tracing::warn!("this is another server, or another timeline of it, than the ledger has followed");
            doubt::note(&session, doubt::PLATFORM).await?;
        }
        let mut batchers = JoinSet::new();
        let context = Arc::new(context(outfit, token, &session, &mut batchers).await?);
        let mut dispatcher = Self {
            outfit,
            rules: Arc::new(site_rules::load(&session, &outfit.config, None).await?),
            session,
            lists_at: Instant::now(),
            asked_at: Instant::now(),
            paused: true,
            doubted: false,
            ticks: 0,
            lanes: Lanes::new(outfit.config.delivery.concurrency.max(16)),
            pace: Pace::new(
                outfit.config.delivery.concurrency.saturating_mul(2).max(64),
                UNDER_WAY_MAX,
                Instant::now(),
            ),
            loading: 0,
            events: JoinSet::new(),
            batchers,
            context,
        };
        dispatcher.ask_platform().await?;
        dispatcher.look_at_site().await?;
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
        while !shutdown.is_cancelled() {
            self.lanes.wake(Instant::now());
            if self.lanes.wants_scan() {
                self.scan().await?;
            }
            self.load_more();
            let wake = self.lanes.next_wake(Instant::now()).unwrap_or(SCAN_EVERY);
            tokio::select! {
                () = shutdown.cancelled() => {}
                Some(notice) = notices.recv() => self.noticed(notice).await?,
                Some(event) = self.events.join_next() => self.happened(event.map_err(DeliveryError::Task)?)?,
                Some(ended) = self.batchers.join_next() => return Err(batcher_ended(ended)),
                _ = scan.tick() => self.tick().await?,
                () = tokio::time::sleep(wake), if self.lanes.next_wake(Instant::now()).is_some() => {}
            }
        }
        self.drain().await
    }

    /// What is under way ends by itself: every wait in it is bounded. The caller bounds the whole.
    async fn drain(&mut self) -> Result<(), DeliveryError> {
        while let Some(event) = self.events.join_next().await {
            if let Event::Delivered { end, .. } = event.map_err(DeliveryError::Task)? {
                end?;
            }
        }
        Ok(())
    }

    fn load_more(&mut self) {
        let busy = self.lanes.under_way();
        let free = self.pace.under_way_max().saturating_sub(busy).min(LOAD_MAX);
        let room = if self.paused { 0 } else { self.context.gate.room(free) };
        if room == 0 || self.loading >= LOADS_MAX || !self.lanes.is_waiting() {
            return;
        }
        let ids = self.lanes.take(room);
        let session = Arc::clone(&self.session);
        self.loading += 1;
        self.events.spawn(async move {
            let works = work::load(&session, ids.clone()).await;
            Event::Loaded { ids, works }
        });
    }

    fn happened(&mut self, event: Event) -> Result<(), DeliveryError> {
        match event {
            Event::Loaded { ids, works } => {
                self.loading -= 1;
                self.loaded(ids, works)
            }
            Event::Delivered { id, end } => {
                self.pace.ended(Instant::now());
                match end? {
                    End::Settled(recorded) => {
                        self.lanes.finish(&id, !recorded.last);
                    }
                    End::Postponed(wait) => self.lanes.postpone(&id, Instant::now() + wait),
                    End::Halt(code) => {
                        self.halt(&code);
                        self.lanes.postpone(&id, Instant::now() + SCAN_EVERY);
                    }
                }
                Ok(())
            }
        }
    }

    fn loaded(&mut self, ids: Vec<String>, works: Result<Vec<Work>, WorkError>) -> Result<(), DeliveryError> {
        let works = match works {
            Ok(works) => works,
            Err(WorkError::Away(error)) => return Err(error.into()),
            Err(WorkError::Query(error)) => {
                tracing::error!(%error, "the record query does not work: delivery is halted, changes are still collected");
                self.halt("record-query");
                for id in ids {
                    self.lanes.postpone(&id, Instant::now() + ASK_EVERY);
                }
                return Ok(());
            }
        };
        let mut rest: std::collections::HashSet<String> = ids.into_iter().collect();
        for work in works {
            rest.remove(&work.employee_id);
            self.decided(work);
        }
        // Delivered by somebody else meanwhile, or not due yet: the scan knows.
        for id in rest {
            self.lanes.finish(&id, false);
        }
        Ok(())
    }

    fn decided(&mut self, work: Work) {
        let terms = Terms {
            rules: &self.rules,
            key: &self.context.key,
            min_interval: self.outfit.config.delivery.min_interval,
        };
        let context = Arc::clone(&self.context);
        let id = work.employee_id.clone();
        // Rejections and "in step" are recorded against the work as it was loaded.
        let loaded = work.clone();
        match decide(work, &terms) {
            Decision::Wait(wait) => self.lanes.postpone(&id, Instant::now() + wait),
            Decision::InStep => {
                self.events.spawn(async move {
                    Event::Delivered { end: job::in_step(&context, &loaded).await, id }
                });
            }
            Decision::Reject(rejection) => {
                self.events.spawn(async move {
                    Event::Delivered { end: job::reject(&context, loaded, rejection).await, id }
                });
            }
            Decision::Send(draft) => {
                self.events
                    .spawn(async move { Event::Delivered { end: job::deliver(&context, draft).await, id } });
            }
        }
    }

    async fn noticed(&mut self, notice: Notice) -> Result<(), DeliveryError> {
        match notice {
            Notice::Marked { employees, rescan } => {
                let bulk = employees.len() > self.outfit.config.delivery.concurrency;
                for employee in employees {
                    self.lanes.push(employee, bulk);
                }
                if rescan {
                    self.lanes.more_in_ledger();
                }
            }
            Notice::Rules => {
                self.rules =
                    Arc::new(site_rules::load(&self.session, &self.outfit.config, Some(&self.rules)).await?);
                self.lanes.more_in_ledger();
            }
        }
        Ok(())
    }

    async fn scan(&mut self) -> Result<(), DeliveryError> {
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

    /// Whether delivery waits: paused by a person, or for the comparison with the platform.
    async fn look_at_site(&mut self) -> Result<Site, DeliveryError> {
        let site = Site::load(&self.session).await?;
        let doubted = site.doubt.as_deref() == Some(doubt::PLATFORM);
        self.paused = site.paused_reason.is_some() || doubted;
        if doubted != self.doubted {
            self.doubted = doubted;
            if doubted {
                tracing::warn!("delivery waits until everyone was compared with the platform");
            } else {
                tracing::info!("the comparison with the platform has ended; delivery goes on");
            }
            if self.context.gate.halted().is_none() {
                let code = doubted.then_some("platform-doubt");
                self.outfit.metrics.halted(code);
                self.outfit.halted.send_replace(code.map(str::to_owned));
            }
        }
        Ok(site)
    }

    async fn tick(&mut self) -> Result<(), DeliveryError> {
        let site = self.look_at_site().await?;
        let halted = self.context.gate.halted();
        if halted.as_deref() == Some("another-writer") && site.halted_code.is_none() {
            self.resume();
        } else if self.asked_at.elapsed() > ASK_EVERY
            && (halted.is_some() || self.lists_at.elapsed() > LISTS_MAX_AGE)
        {
            self.ask_platform().await?;
        }
        self.ticks = self.ticks.wrapping_add(1);
        if self.ticks.is_multiple_of(RESCUE_EVERY) {
            work::rescue(&self.session).await?;
        }
        if self.context.gate.room(1) > 0 {
            self.scan().await?;
        }
        self.outfit.metrics.breaker(self.context.gate.breaker());
        Ok(())
    }

    /// Asks for the platform, its picklists and packages; a halt that the platform caused ends when it answers well.
    async fn ask_platform(&mut self) -> Result<(), DeliveryError> {
        self.asked_at = Instant::now();
        match site_rules::from_platform(&self.context.client).await {
            Ok(lists) => {
                self.rules =
                    Arc::new(site_rules::load(&self.session, &self.outfit.config, None).await?.with(lists));
                self.lists_at = Instant::now();
                if self.context.gate.halted().is_some_and(|code| code != "another-writer") {
                    self.resume();
                }
            }
            Err(failure) => self.platform_failed(&failure),
        }
        Ok(())
    }

    fn platform_failed(&mut self, failure: &Failure) {
        match &failure.class {
            Class::Halt { reason } => self.halt(reason.as_str()),
            _ => {
                tracing::warn!(reason = %failure, "the platform's picklists and packages cannot be had; going on without");
            }
        }
    }

    fn halt(&mut self, code: &str) {
        if self.context.gate.halted().is_none() {
            tracing::error!(code, "delivery is halted for the site; changes are still collected");
            self.context.gate.halt(code);
            self.outfit.metrics.halted(Some(code));
            self.outfit.halted.send_replace(Some(code.to_owned()));
            let session = Arc::clone(&self.session);
            let code = code.to_owned();
            tokio::spawn(async move { store_halt(&session, Some(&code)).await });
        }
    }

    fn resume(&mut self) {
        tracing::info!("delivery goes on");
        self.context.gate.resume();
        self.outfit.metrics.halted(None);
        self.outfit.halted.send_replace(None);
        let session = Arc::clone(&self.session);
        tokio::spawn(async move { store_halt(&session, None).await });
        self.lanes.more_in_ledger();
    }
}

/// Shows a halt to people. Not to be able to is no reason to stop: the gauge and the log say it too.
async fn store_halt(session: &Session, code: Option<&str>) {
    let sql = "update benefits.site set halted_code = $1 where halted_code is distinct from $1";
    if let Err(error) = session.execute("show a halt", sql, &[&code]).await {
        tracing::debug!(%error, "a halt could not be stored");
    }
}

fn batcher_ended(ended: Result<Result<(), LedgerError>, JoinError>) -> DeliveryError {
    match ended {
        Ok(Ok(())) => DeliveryError::Ended(Ended),
        Ok(Err(error)) => error.into(),
        Err(error) => DeliveryError::Task(error),
    }
}

async fn context(
    outfit: &Outfit,
    token: i64,
    session: &Arc<Session>,
    tasks: &mut JoinSet<Result<(), LedgerError>>,
) -> Result<Context, DeliveryError> {
    let config = &outfit.config;
    let writer = Session::connect(&outfit.target, "benefits-sync intents").await?;
    let recorder = Session::connect(&outfit.target, "benefits-sync outcomes").await?;
    let (for_postponed, for_known) = (Arc::clone(&recorder), Arc::clone(session));
    Ok(Context {
        client: Client::new(config)?,
        gate: Gate::new(&config.delivery),
        schedule: Schedule::new(config.delivery.backoff_min, config.delivery.backoff_max),
        key: outfit.key.clone(),
        platform_id: config.benefits.platform_id.clone(),
        link_check: config.benefits.link_check,
        token,
        intents: Batcher::spawn(tasks, move |intents| write_intents(Arc::clone(&writer), token, intents)),
        outcomes: Batcher::spawn(tasks, move |outcomes| record_outcomes(Arc::clone(&recorder), outcomes)),
        postponed: Batcher::spawn(tasks, move |postponed| {
            postpone(Arc::clone(&for_postponed), token, postponed)
        }),
        acquaintances: Batcher::spawn(tasks, move |ids| are_known(Arc::clone(&for_known), ids)),
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
            let ours: std::collections::HashSet<String> = ours.into_iter().collect();
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

async fn record_outcomes(
    session: Arc<Session>,
    outcomes: Vec<Outcome>,
) -> Result<Vec<Option<Recorded>>, LedgerError> {
    let mut recorded: std::collections::HashMap<String, Recorded> = outcomes::record(&session, &outcomes)
        .await?
        .into_iter()
        .map(|recorded| (recorded.employee_id.clone(), recorded))
        .collect();
    Ok(outcomes.iter().map(|outcome| recorded.remove(&outcome.employee_id)).collect())
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
    let known: std::collections::HashSet<&str> = rows.iter().map(|row| row.get(0)).collect();
    Ok(ids.iter().map(|id| known.contains(id.as_str())).collect())
}
