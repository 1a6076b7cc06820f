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
use super::guard::{self, Ending, Judged};
use super::job::{self, Context, End, Reserved};
use super::lanes::Lanes;
use super::outcome::{Class, Failure, HaltReason};
use super::pace::Pace;
use super::retry::Schedule;
use super::site_rules::{self, Lists};
use crate::config::Config;
use crate::failpoint;
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
/// Between two scans when there is more than memory holds: each reads all that is pending.
const SCAN_PAUSE: Duration = Duration::from_millis(100);
/// How long a mass change may wait to be judged while people are delivered.
const JUDGE_AFTER: Duration = Duration::from_secs(3);
/// Scans between two looks for claims of instances that are no more.
const RESCUE_EVERY: u32 = 5;
/// Employees that a scan names.
const SCAN_MAX: i64 = 5_000;
/// Between two questions to a platform that halted the site, and two refreshes of its lists.
const ASK_EVERY: Duration = Duration::from_secs(10);
/// The halt that only `benefits.resume()` lifts.
const ANOTHER_WRITER: &str = "another-writer";
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
    Judged(Result<Judged, WorkError>),
    Asked(Result<Lists, Box<Failure>>),
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
    /// Mass changes are being judged.
    judging: bool,
    /// Since when there may be one that is not judged yet.
    judge_wanted: Option<Instant>,
    scanned: Instant,
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
            judging: false,
            judge_wanted: None,
            scanned: Instant::now(),
            events: JoinSet::new(),
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
            self.load_more();
            let wake = self.lanes.next_wake(Instant::now()).into_iter().chain(self.scan_due_in()).min();
            tokio::select! {
                () = shutdown.cancelled() => {}
                Some(notice) = notices.recv() => self.noticed(notice).await?,
                Some(event) = self.events.join_next() => self.happened(event.map_err(DeliveryError::Task)?).await?,
                Some(ended) = self.batchers.join_next() => return Err(batcher_ended(ended)),
                _ = scan.tick() => self.tick().await?,
                () = tokio::time::sleep(wake.unwrap_or_default()), if wake.is_some() => {}
            }
        }
        self.drain().await
    }

    /// What is under way ends by itself: every wait in it is bounded. The caller bounds the whole.
    async fn drain(&mut self) -> Result<(), DeliveryError> {
        // Who has not been sent yet is given back; the next start takes them up.
        self.context.gate.close();
        while let Some(event) = self.events.join_next().await {
            if let Event::Delivered { end, .. } = event.map_err(DeliveryError::Task)? {
                end?;
            }
        }
        Ok(())
    }

    fn load_more(&mut self) {
        let busy = self.lanes.under_way();
        if busy > 0 && self.context.gate.is_on_trial() {
            return;
        }
        let free = self.pace.under_way_max().saturating_sub(busy).min(LOAD_MAX);
        let room = if self.paused || !self.asked { 0 } else { self.context.gate.room(free) };
        if room == 0 || self.loading >= LOADS_MAX || !self.lanes.is_waiting() {
            return;
        }
        let ids = self.lanes.take(room);
        let session = Arc::clone(&self.session);
        self.loading += 1;
        self.events.spawn(async move {
            let works = match work::load(&session, ids.clone()).await {
                Ok(works) => match failpoint::hit("record-read").await {
                    Ok(()) => Ok(works),
                    Err(tripped) => Err(WorkError::Away(tripped.into())),
                },
                Err(error) => Err(error),
            };
            Event::Loaded { ids, works }
        });
    }

    async fn happened(&mut self, event: Event) -> Result<(), DeliveryError> {
        match event {
            Event::Loaded { ids, works } => {
                self.loading -= 1;
                self.loaded(ids, works)
            }
            Event::Asked(answer) => self.platform_answered(answer).await,
            Event::Delivered { id, end } => {
                self.pace.ended(Instant::now());
                let end = end?;
                if self.context.gate.is_on_trial() {
                    match end {
                        End::Settled(_) => self.resume(),
                        // Proved nothing, or the contrary: the halt was never over, and the platform is asked anew.
                        End::Postponed(_) | End::Held | End::Unjudged | End::Halt(_) => {
                            self.context.gate.set_trial(false);
                        }
                    }
                }
                match end {
                    End::Settled(recorded) => {
                        self.lanes.finish(&id, !recorded.last);
                    }
                    End::Postponed(wait) => self.lanes.postpone(&id, Instant::now() + wait),
                    // Only the ledger knows when: the scan finds them.
                    End::Held => self.lanes.finish(&id, false),
                    End::Unjudged => {
                        self.lanes.finish(&id, false);
                        self.judge();
                    }
                    End::Halt(code) => {
                        self.halt(&code);
                        self.lanes.postpone(&id, Instant::now() + SCAN_EVERY);
                    }
                }
                Ok(())
            }
            Event::Judged(judged) => {
                self.judging = false;
                match judged {
                    Ok(Judged::Settled) => self.lanes.more_in_ledger(),
                    Ok(Judged::RulesAreStale) => self.rules_stale = true,
                    Ok(Judged::Nothing) => {}
                    Err(WorkError::Away(error)) => return Err(error.into()),
                    // Delivery meets the same query, and says so.
                    Err(WorkError::Query(error)) => {
                        tracing::debug!(%error, "a mass change cannot be judged yet");
                    }
                }
                Ok(())
            }
        }
    }

    /// Judges the mass changes that the ledger knows of, beside the deliveries. Who is delivered first is judged by that,
    /// and need not be read a second time.
    fn judge(&mut self) {
        let wanted = *self.judge_wanted.get_or_insert_with(Instant::now);
        let later = self.lanes.is_waiting() && wanted.elapsed() < JUDGE_AFTER;
        if !self.asked || later || std::mem::replace(&mut self.judging, true) {
            return;
        }
        self.judge_wanted = None;
        let (session, rules, context) =
            (Arc::clone(&self.session), Arc::clone(&self.rules), Arc::clone(&self.context));
        let limits = self.outfit.config.guard.clone();
        let version = self.rules_version;
        self.events.spawn(async move {
            let terms = Terms { rules: &rules, key: &context.key, min_interval: Duration::ZERO };
            Event::Judged(guard::judge(&session, &limits, &terms, version).await)
        });
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
            if work.rules_version > self.rules_version {
                // Decided by the rules of before, a refusal that the new ones lift would stay for good.
                self.rules_stale = true;
                self.lanes.finish(&work.employee_id, true);
            } else {
                self.decided(work);
            }
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
        let decision = decide(work, &terms);
        let ending = guard::ending(&loaded, &decision, &self.context.key);
        match decision {
            Decision::Wait(wait) => {
                // In the ledger too: what only memory knew to wait would be found due by every scan.
                self.events.spawn(async move {
                    Event::Delivered { end: job::wait(&context, &loaded, wait).await, id }
                });
            }
            Decision::InStep => {
                self.events.spawn(async move {
                    Event::Delivered { end: job::in_step(&context, &loaded).await, id }
                });
            }
            Decision::Reject(rejection) => {
                if matches!(rejection.code.as_str(), "unknown-value" | "no-package") {
                    self.lists_max_age = LISTS_MAX_AGE_BLOCKED;
                }
                self.events.spawn(async move {
                    let end = match held_back(&context, ending).await {
                        Ok(None) => job::reject(&context, loaded, rejection).await,
                        Ok(Some(end)) => Ok(end),
                        Err(ended) => Err(ended),
                    };
                    Event::Delivered { end, id }
                });
            }
            Decision::Send(draft) => {
                self.events.spawn(async move {
                    let end = match held_back(&context, ending).await {
                        Ok(None) => job::deliver(&context, draft).await,
                        Ok(Some(end)) => Ok(end),
                        Err(ended) => Err(ended),
                    };
                    Event::Delivered { end, id }
                });
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
                    self.judge();
                }
            }
            Notice::Rules => {
                self.reload_rules().await?;
                self.lanes.more_in_ledger();
            }
        }
        Ok(())
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

    /// Whether delivery waits: paused by a person, or for the comparison with the platform.
    async fn look_at_site(&mut self) -> Result<Site, DeliveryError> {
        let site = Site::load(&self.session).await?;
        let doubted = site.doubt.as_deref() == Some(doubt::PLATFORM);
        self.paused = is_paused(&site);
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
        let stored = site.halted_code.as_deref();
        if halted.as_deref() == Some(ANOTHER_WRITER)
            && stored != Some(ANOTHER_WRITER)
            && self.unshown.is_none()
        {
            self.resume();
        } else if halted.is_none() && stored == Some(ANOTHER_WRITER) && self.unshown.is_none() {
            // Found by another instance, or before a restart: only a person lifts it.
            self.halt(ANOTHER_WRITER);
        } else if self.asked_at.elapsed() > ASK_EVERY
            && (halted.is_some() || self.lists_at.elapsed() > self.lists_max_age)
        {
            self.ask_platform();
        }
        self.ticks = self.ticks.wrapping_add(1);
        if self.ticks.is_multiple_of(RESCUE_EVERY) {
            work::rescue(&self.session).await?;
        }
        self.judge();
        if self.lanes.is_plentiful() {
            self.lanes.more_in_ledger();
        } else if self.context.gate.room(1) > 0 {
            self.scan().await?;
        }
        self.outfit.metrics.breaker(self.context.gate.breaker());
        Ok(())
    }

    /// Asks for the platform, its picklists and packages; a halt that the platform caused ends when it answers well.
    /// Beside everything else: a platform that is slow to say so must not stop what goes well.
    fn ask_platform(&mut self) {
        if std::mem::replace(&mut self.asking, true) {
            return;
        }
        self.asked_at = Instant::now();
        let context = Arc::clone(&self.context);
        self.events.spawn(async move { Event::Asked(site_rules::from_platform(&context.client).await) });
    }

    async fn platform_answered(&mut self, answer: Result<Lists, Box<Failure>>) -> Result<(), DeliveryError> {
        self.asking = false;
        self.asked = true;
        match answer {
            Ok(lists) => {
                self.rules_version = work::rules_version(&self.session).await?;
                if site_rules::store(&self.session, &lists).await? {
                    tracing::info!(
                        "the platform's picklists or packages have changed: whoever they blocked is tried again"
                    );
                    self.lanes.more_in_ledger();
                }
                self.rules =
                    Arc::new(site_rules::load(&self.session, &self.outfit.config, None).await?.with(lists));
                self.lists_at = Instant::now();
                self.lists_max_age = LISTS_MAX_AGE;
                match self.context.gate.halted().as_deref() {
                    None | Some(ANOTHER_WRITER) => {}
                    Some(code) if HaltReason::is_over_when_asked_well(code) => self.resume(),
                    // Reading proves nothing of writing, nor of our own query: one employee tries.
                    Some(_) => {
                        self.context.gate.set_trial(true);
                        self.lanes.more_in_ledger();
                    }
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

    /// Stored before anything else is looked at: what the ledger does not show as halted counts as resumed by a person.
    fn halt(&mut self, code: &str) {
        self.context.gate.set_trial(false);
        if self.context.gate.halted().is_none() {
            tracing::error!(code, "delivery is halted for the site; changes are still collected");
            self.context.gate.halt(code);
            self.outfit.metrics.halted(Some(code));
            self.outfit.halted.send_replace(Some(code.to_owned()));
            self.unshown = Some(Some(code.to_owned()));
        }
    }

    fn resume(&mut self) {
        tracing::info!("delivery goes on");
        self.context.gate.resume();
        self.outfit.metrics.halted(None);
        self.outfit.halted.send_replace(None);
        self.unshown = Some(None);
        self.lanes.more_in_ledger();
    }
}

fn is_paused(site: &Site) -> bool {
    site.paused_reason.is_some() || site.doubt.as_deref() == Some("platform")
}

/// Shows a halt to people.
async fn show_halt(session: &Session, code: Option<&str>) -> Result<(), LedgerError> {
    let sql = "update benefits.site set halted_code = $1 where halted_code is distinct from $1";
    session.execute("show a halt", sql, &[&code]).await.map(|_| ())
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
    let (for_postponed, for_known, for_guard) =
        (Arc::clone(&recorder), Arc::clone(session), Arc::clone(session));
    let limits = config.guard.clone();
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
        endings: Batcher::spawn(tasks, move |endings: Vec<Ending>| {
            let (session, limits) = (Arc::clone(&for_guard), limits.clone());
            async move { guard::admit(&session, &limits, &endings).await }
        }),
        metrics: outfit.metrics.clone(),
    })
}

async fn held_back(context: &Context, ending: Option<Ending>) -> Result<Option<End>, Ended> {
    match ending {
        Some(ending) => job::held_back(context, ending).await,
        None => Ok(None),
    }
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
    let recorded = match outcomes::record(&session, &outcomes).await {
        Err(error) if work::is_taken(&error) => record_singly(&session, &outcomes).await?,
        recorded => recorded?,
    };
    failpoint::hit("outcome-recorded").await?;
    let mut recorded: std::collections::HashMap<String, Recorded> =
        recorded.into_iter().map(|recorded| (recorded.employee_id.clone(), recorded)).collect();
    Ok(outcomes.iter().map(|outcome| recorded.remove(&outcome.employee_id)).collect())
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
