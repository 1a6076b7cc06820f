//! The reader session: holds the slot, reads the stream, and hands committed touches to the marker.

mod error;
mod flood;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

pub(super) use self::error::ReadError;
use self::error::log;
use self::flood::Flood;
use super::health::Health;
use super::marker::{Ended, Marker, Seeded, Step};
use super::pulse::Task;
use super::slot::{self, Replacing, SlotWatch};
use super::start::Targets;
use crate::config::Config;
use crate::delivery::appetite::Appetite;
use crate::delivery::dispatch::Notice;
use crate::failpoint;
use crate::ledger::in_hand::InHand;
use crate::ledger::{MarkSettings, Marks, Session, Site, TransactionUsers, Witness, doubt, site};
use crate::lsn::Lsn;
use crate::metrics::Metrics;
use crate::pgoutput;
use crate::replication::{Canceller, Connection, Frame, StartOptions, Stream};
use crate::selection::{Commit, KeyHasher, Selector};

/// Rows whose fingerprints are remembered: 32 bytes each.
const CACHE_ROWS: usize = 400_000;
/// Commits handed to the marker at once.
const COMMITS_MAX: usize = 1_000;
/// Frames read between two looks at anything else.
const FRAMES_MAX: usize = 20_000;
/// How long what was collected is waited for at most, before it is handed on as far as it has come.
const COLLECT_MAX: Duration = Duration::from_secs(2);
/// How late a flooded reader comes.
const READ_LATE: Duration = Duration::from_millis(1);
/// Hand-overs that may wait for the marker.
const STEPS_MAX: usize = 32;
/// Between two looks at doubts, the slot and the publication.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long ending the session before may take: its server may be the one that has gone.
const CANCEL_MAX: Duration = Duration::from_secs(2);
/// How long the end of the stream may take at a graceful stop.
const CLOSE_MAX: Duration = Duration::from_secs(5);

/// What a reader needs.
pub(super) struct Setting {
    pub(super) config: Arc<Config>,
    pub(super) targets: Targets,
    pub(super) notify: mpsc::Sender<Notice>,
    pub(super) users: Arc<TransactionUsers>,
    pub(super) appetite: Arc<Appetite>,
    pub(super) metrics: Metrics,
    pub(super) health: Arc<Health>,
    pub(super) witness: Arc<Witness>,
    pub(super) shutdown: CancellationToken,
}

/// Reader sessions, one after the other.
pub(super) async fn supervise(setting: Setting) {
    let schedule = super::session_schedule();
    let mut failures = 0;
    let mut told = String::new();
    let mut replacing = Replacing::default();
    let mut before = None;
    while !setting.shutdown.is_cancelled() {
        let began = tokio::time::Instant::now();
        let ended = read(&setting, &mut replacing, &mut before).await;
        setting.metrics.connected(false);
        let Err(error) = ended else { return };
        let standing_by = error.is_standing_by();
        replacing.wanted |= error.calls_for_another_slot();
        let well = standing_by || error.is_turnover();
        setting.health.set_streaming(if well { Ok(()) } else { Err(error.to_string()) });
        failures = if began.elapsed() > Duration::from_mins(1) { 1 } else { failures + 1 };
        let wait = match &error {
            error if error.is_turnover() => Duration::ZERO,
            ReadError::ReplacedOften(wait) => *wait,
            _ if standing_by => Duration::from_secs(1),
            _ => schedule.delay(failures),
        };
        // The same trouble every second is one line, not a flood.
        let text = error.to_string();
        if text == told {
            tracing::debug!(%error, "the reader session ended again");
        } else if well {
            tracing::info!(%error, "not reading the slot");
        } else {
            log(&error, wait);
        }
        told = text;
        setting.health.pulse().rest(Task::Reader, wait);
        setting.shutdown.run_until_cancelled(tokio::time::sleep(wait)).await;
    }
}

/// `before` is the session before this one: where it fell silent, its end at the server may hold the slot for as long as
/// `wal_sender_timeout`.
async fn read(
    setting: &Setting,
    replacing: &mut Replacing,
    before: &mut Option<Canceller>,
) -> Result<(), ReadError> {
    let session = Session::connect(&setting.targets.sql, "benefits-sync marker").await?;
    if !Site::load(&session).await?.described_at_all {
        return Err(ReadError::NotDescribed);
    }
    let mut connection = Connection::connect(&setting.targets.replication).await?;
    if let Some(before) = before.as_ref() {
        match tokio::time::timeout(CANCEL_MAX, before.cancel()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the session before could not be ended"),
            Err(_) => tracing::debug!("the session before could not be ended in time"),
        }
    }
    let taken = slot::take(setting, &session, &mut connection, replacing).await?;
    let hasher = KeyHasher::with_key(rand::random());
    let doubt = doubt::load(&session).await?;
    let (confirmed, confirmed_by_ledger) = watch::channel(Lsn::ZERO);
    setting.witness.follow(confirmed_by_ledger.clone());
    let database = &setting.config.database;
    let options = StartOptions::new(&database.slot, &database.publication, confirmed_by_ledger.clone());
    let canceller = connection.canceller();
    let stream = connection.start(StartOptions { idle_limit: database.idle_limit, ..options }).await?;
    *before = Some(canceller);
    // The server begins to decode while our view of the site is loaded.
    let selector = selector(&session, &hasher, doubt.why.is_some()).await?;
    tracing::info!(slot = database.slot, "streaming");
    setting.metrics.connected(true);
    setting.health.set_streaming(Ok(()));
    let (handed, steps) = mpsc::channel(STEPS_MAX);
    let (seeded, from_marker) = mpsc::unbounded_channel();
    let watch = SlotWatch::new(taken, &setting.config, &session, confirmed_by_ledger).await?;
    let taken = watch.taken();
    let marks = Marks::new(Arc::clone(&session), hasher, mark_settings(setting, watch.noted()));
    marks.complete_mass_changes().await?;
    let marker = Marker {
        session: Arc::clone(&session),
        marks,
        hand: InHand::new(confirmed),
        appetite: Arc::clone(&setting.appetite),
        replayed_until: taken.replayed_until(),
        collected_until: Lsn::ZERO,
        mass_change: None,
        seeded,
        notify: setting.notify.clone(),
        metrics: setting.metrics.clone(),
        health: Arc::clone(&setting.health),
    };
    // While the marker makes progress the reader may wait for it.
    let health = Arc::clone(&setting.health);
    let mut marking =
        tokio::spawn(async move { health.pulse().beat_with(Task::Reader, marker.run(steps)).await });
    let mut reader = Reader {
        stream,
        selector,
        commits: Vec::new(),
        handed,
        from_marker,
        session,
        watch,
        owners_version: doubt.owners_version,
        collected_until: Some(taken.collected_until),
        flood: Flood::default(),
    };
    let ended = tokio::select! {
        ended = reader.run(setting) => ended,
        done = &mut marking => return Err(match done.map_err(ReadError::Marker)? {
            // It ends by itself for one reason only while the reader is there.
            Ok(Ended::DescriptionChanged | Ended::WithReader) => {
                // What it came to is confirmed, or the description would be met again, and everyone marked again.
                drop(reader.stream.close(CLOSE_MAX).await);
                ReadError::DescriptionChanged
            }
            Err(error) => error.into(),
        }),
    };
    let stop = match ended {
        Ok(stop) => stop,
        Err(error) => {
            marking.abort();
            return Err(error);
        }
    };
    // A graceful stop: what was handed over becomes durable and is confirmed before the connection closes.
    drop(reader.handed);
    if let Ok(done) = tokio::time::timeout(CLOSE_MAX, &mut marking).await {
        done.map_err(ReadError::Marker)??;
        reader.watch.close(&reader.session, &setting.witness).await?;
    } else {
        // Not in order: what is in hand is not known to be recorded.
        marking.abort();
    }
    reader.stream.close(CLOSE_MAX).await?;
    match stop {
        Stop::Shutdown => Ok(()),
        Stop::Reconciled => Err(ReadError::Reconciled),
    }
}

async fn selector(session: &Session, hasher: &KeyHasher, is_in_doubt: bool) -> Result<Selector, ReadError> {
    let members = site::load_members(session, hasher).await?;
    let anybody = members.synced() > 0;
    let mut selector = Selector::new(
        Site::sources(session).await?,
        hasher.clone(),
        members,
        site::load_filter(session, hasher).await?,
        CACHE_ROWS,
    );
    if is_in_doubt && anybody {
        selector.distrust_filter();
    }
    Ok(selector)
}

fn mark_settings(setting: &Setting, applied_until: Lsn) -> MarkSettings {
    let guard = &setting.config.guard;
    MarkSettings {
        platform_id: setting.config.benefits.platform_id.clone(),
        settle: setting.config.delivery.settle,
        guard: (i32::try_from(guard.minimum).unwrap_or(i32::MAX), guard.fraction),
        users: Arc::clone(&setting.users),
        applied_until,
    }
}

/// Why a reader stops in order.
enum Stop {
    Shutdown,
    /// A comparison has corrected whose rows are: the filter is loaded anew.
    Reconciled,
}

struct Reader {
    stream: Stream,
    selector: Selector,
    commits: Vec<Commit>,
    handed: mpsc::Sender<Step>,
    from_marker: mpsc::UnboundedReceiver<Seeded>,
    session: Arc<Session>,
    watch: SlotWatch,
    /// Of the map that the filter was loaded from.
    owners_version: i64,
    /// Until the first hand-over: where the WAL ended when this session began.
    collected_until: Option<Lsn>,
    flood: Flood,
}

impl Reader {
    async fn run(&mut self, setting: &Setting) -> Result<Stop, ReadError> {
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let publication = &setting.config.database.publication;
        loop {
            tokio::select! {
                biased;
                () = setting.shutdown.cancelled() => return Ok(Stop::Shutdown),
                Some(seeded) = self.from_marker.recv() => match seeded {
                    Seeded::Rows(enrolments, rows) => self.selector.seeded(enrolments, rows),
                    Seeded::Gaps => self.selector.distrust_filter(),
                },
                _ = look.tick() => {
                    self.watch.look(&self.session, &setting.witness).await?;
                    if self.was_reconciled().await? {
                        return Ok(Stop::Reconciled);
                    }
                }
                frame = self.stream.next() => {
                    let flooded = self.flood.read(Instant::now());
                    let mut idle = take(&frame?, &mut self.selector, &mut self.commits, publication)?;
                    // All that has arrived, before anything else is looked at.
                    for _ in 0..FRAMES_MAX {
                        if self.commits.len() >= COMMITS_MAX {
                            break;
                        }
                        let Some(frame) = self.stream.try_next()? else { break };
                        idle = take(&frame, &mut self.selector, &mut self.commits, publication)?;
                    }
                    let mut step: fn(Vec<Commit>) -> Step = Step::Commits;
                    if !self.commits.is_empty()
                        && let Some(end) = self.collected_until.take()
                    {
                        idle = self.collect(end, setting).await?.unwrap_or(idle);
                        step = Step::Collected;
                    }
                    setting.metrics.decided(&self.selector.take_decisions());
                    if !self.commits.is_empty() {
                        failpoint::hit("row-read").await?;
                    }
                    if setting.shutdown.run_until_cancelled(self.hand_over(step, idle)).await.transpose()?.is_none() {
                        // A marker that waits for a commit to become visible can take for ever. What was not handed over
                        // is not confirmed, and comes again.
                        return Ok(Stop::Shutdown);
                    }
                    if flooded {
                        tokio::time::sleep(READ_LATE).await;
                    }
                    self.flood.waits(Instant::now());
                }
            }
        }
    }

    /// Takes in what was collected while nobody read, so that it is handed on as one: a mass change that was made of many
    /// commits is then judged as one. What the last frame says of being idle, if there was any.
    async fn collect(&mut self, end: Lsn, setting: &Setting) -> Result<Option<Option<Lsn>>, ReadError> {
        let publication = &setting.config.database.publication;
        let latest = tokio::time::Instant::now() + COLLECT_MAX;
        let mut idle = None;
        while self.commits.len() < COMMITS_MAX && self.commits.last().is_some_and(|last| last.end_lsn < end) {
            let next = tokio::time::timeout_at(latest, self.stream.next());
            let Some(Ok(frame)) = setting.shutdown.run_until_cancelled(next).await else { break };
            let caught_up = take(&frame?, &mut self.selector, &mut self.commits, publication)?;
            idle = Some(caught_up);
            if caught_up.is_some_and(|lsn| lsn >= end) {
                break;
            }
        }
        Ok(idle)
    }

    async fn hand_over(&mut self, step: fn(Vec<Commit>) -> Step, idle: Option<Lsn>) -> Result<(), ReadError> {
        if !self.commits.is_empty() {
            let commits = std::mem::take(&mut self.commits);
            // A closed channel means that the marker has ended; its error ends the session.
            drop(self.handed.send(step(commits)).await);
            failpoint::hit("commit-handed").await?;
        }
        if let Some(lsn) = idle {
            drop(self.handed.send(Step::Idle(lsn)).await);
        }
        Ok(())
    }

    async fn was_reconciled(&mut self) -> Result<bool, ReadError> {
        let doubt = doubt::load(&self.session).await?;
        Ok(doubt.owners_version != self.owners_version
            || (self.selector.distrusts_filter() && doubt.why.is_none()))
    }
}

/// Takes one frame; the LSN of a keepalive that stands for everything before it.
fn take(
    frame: &Frame<'_>,
    selector: &mut Selector,
    commits: &mut Vec<Commit>,
    publication: &str,
) -> Result<Option<Lsn>, ReadError> {
    match frame {
        Frame::Data { wal_start, payload, .. } => {
            let lsn = *wal_start;
            let decoded = pgoutput::decode(payload, selector.in_chunk())
                .map_err(|source| ReadError::Decode { lsn, source })?;
            commits.extend(selector.accept(&decoded).map_err(|source| ReadError::Selection { lsn, source })?);
            Ok(None)
        }
        Frame::Keepalive { wal_end, .. } => Ok(selector.is_between_transactions().then_some(*wal_end)),
        // Version 18 goes on without a publication and skips its changes: "skipped loading publication".
        Frame::Notice { code, message, .. }
            if code == "55000" && message.contains(&format!("\"{publication}\"")) =>
        {
            Err(ReadError::PublicationChanged)
        }
        Frame::Notice { severity, code, message } => {
            tracing::warn!(severity, code, message, "PostgreSQL says in the stream");
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pgoutput::Timestamp;
    use crate::selection::{Description, Members, RowFilter};

    #[test]
    fn a_keepalive_within_a_transaction_stands_for_nothing_before_it() {
        let hasher = KeyHasher::with_key([7; 16]);
        let (description, members) = (Description::default(), Members::default());
        let mut selector = Selector::new(description, hasher, members, RowFilter::with_capacity(0), 1);
        let mut commits = Vec::new();
        let mut taken = |frame: &Frame<'_>| take(frame, &mut selector, &mut commits, "p").unwrap();
        let alive = Frame::Keepalive { wal_end: Lsn(100), reply_requested: false };
        let data = |payload| Frame::Data {
            wal_start: Lsn(90),
            wal_end: Lsn(90),
            server_clock: Timestamp(0),
            payload,
        };
        assert_eq!(taken(&alive), Some(Lsn(100)));
        // Begin: final LSN, time, xid. Commit: flags, LSN, end LSN, time.
        let begin = [b"B".as_slice(), &95_u64.to_be_bytes(), &[0; 8], &7_u32.to_be_bytes()].concat();
        taken(&data(&begin));
        assert_eq!(taken(&alive), None);
        let commit = [b"C\0".as_slice(), &95_u64.to_be_bytes(), &99_u64.to_be_bytes(), &[0; 8]].concat();
        taken(&data(&commit));
        assert_eq!(taken(&alive), Some(Lsn(100)));
        assert_eq!(commits.len(), 1);
    }
}
