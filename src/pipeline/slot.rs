//! The slot: that there is one, that it is the one which the ledger has followed, and that it stays so.
//!
//! Whatever is not as it was is doubt, noted durably before anything else is done; a comparison of everyone answers it.
//! PostgreSQL gives a slot no identity that would survive its name, so that one which was dropped and made again by hand is
//! told by two signs. Its confirmed LSN is ahead of what we confirmed: exactly so after an orderly stop, and by more than
//! [`NOTE_BYTES`] at any other time, since an idle system must not write its position down at every keepalive. And the
//! count of transactions that were decoded through it has gone down: statistics live and die with the slot (or with a
//! crash of PostgreSQL). A false alarm costs one comparison.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_postgres::types::PgLsn;

use super::making;
use super::reader::{ReadError, Setting};
use crate::config::Config;
use crate::delivery::retry::Schedule;
use crate::ledger::{Checkpoint, LedgerError, Session, Witness, doubt, is_elsewhere};
use crate::lsn::Lsn;
use crate::replication::Connection;

/// The confirmed position is written down once it has moved by so much without a mark.
const NOTE_BYTES: u64 = 16 << 20;
/// How far the slot may be ahead of what was written down: one note, and what is confirmed until it is due.
const AHEAD_MAX: u64 = 4 * NOTE_BYTES;
/// Between two looks at the publication.
const PUBLICATION_EVERY: Duration = Duration::from_secs(30);
/// Between two looks at the partitions of HR's tables.
const PARTITIONS_EVERY: Duration = Duration::from_secs(10);
/// After so long without one, a replacement counts as the first.
const REPLACED_LONG_AGO: Duration = Duration::from_hours(1);

/// Replacements of the slot, spaced: each costs a comparison of everyone.
#[derive(Debug, Default)]
pub(super) struct Replacing {
    /// The slot in place is of no use.
    pub(super) wanted: bool,
    times: u32,
    last: Option<Instant>,
}

impl Replacing {
    /// The first is at once, each further one waits twice as long as the one before, ten minutes at most.
    fn admit(&self, now: Instant) -> Result<(), ReadError> {
        let Some(since) = self.last.map(|last| now.duration_since(last)) else { return Ok(()) };
        let schedule = Schedule::new(Duration::from_secs(2), Duration::from_mins(10)).without_jitter();
        let pause = schedule.delay(self.times);
        if since < pause { Err(ReadError::ReplacedOften(pause.saturating_sub(since))) } else { Ok(()) }
    }

    fn replaced(&mut self, now: Instant) {
        let long_ago = self.last.is_none_or(|last| now.duration_since(last) > REPLACED_LONG_AGO);
        self.times = if long_ago { 1 } else { self.times.saturating_add(1) };
        self.last = Some(now);
    }
}

/// The slot as PostgreSQL shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Another plugin's or another database's: not ours to touch.
    foreign: bool,
    pub(super) lost: bool,
    active_pid: Option<i32>,
    pub(super) confirmed: Lsn,
    txns: Option<i64>,
}

pub(super) async fn look(session: &Session, name: &str) -> Result<Option<Seen>, LedgerError> {
    let sql = "select s.plugin is distinct from 'pgoutput' or s.database is distinct from current_database(), \
               coalesce(s.wal_status = 'lost', false), s.active_pid, s.confirmed_flush_lsn, t.total_txns \
               from pg_replication_slots as s left join pg_stat_replication_slots as t on t.slot_name = s.slot_name \
               where s.slot_name = $1::text::name";
    let rows = session.query("look for the slot", sql, &[&name]).await?;
    Ok(rows.first().map(|row| Seen {
        foreign: row.get(0),
        lost: row.get(1),
        active_pid: row.get(2),
        confirmed: row.get::<_, Option<PgLsn>>(3).map_or(Lsn::ZERO, |lsn| Lsn(u64::from(lsn))),
        txns: row.get(4),
    }))
}

/// What the publication is made of; `None` where there is none.
async fn publication(session: &Session, name: &str) -> Result<Option<Vec<String>>, LedgerError> {
    let sql = include_str!("../../sql/queries/observe_publication.sql");
    let rows = session.query("look at the publication", sql, &[&name]).await?;
    Ok(rows.first().map(|row| row.get(0)))
}

/// Notes a doubt where a whole partition was emptied or exchanged.
async fn look_at_partitions(session: &Session) -> Result<(), LedgerError> {
    let sql = include_str!("../../sql/queries/observe_partitions.sql");
    let rows = session.query("look at the partitions", sql, &[]).await?;
    if let Some(changed) = rows.first().map(|row| row.get::<_, i64>(0)) {
        tracing::info!(
            changed,
            "partitions of HR's tables were emptied, attached or detached; everyone is compared"
        );
    }
    Ok(())
}

/// Whether something that was published is not any more, or was not for a while.
fn has_gaps(then: &[String], now: &[String]) -> bool {
    then.iter().any(|part| !now.contains(part))
}

/// Whether it is another publication of the same name. The slot may stand where there was none.
fn was_made_again(then: &[String], now: &[String]) -> bool {
    let oid = |parts: &[String]| parts.iter().find(|part| part.starts_with("publication ")).cloned();
    oid(then).is_some_and(|then| oid(now) != Some(then))
}

/// Whether the slot is not the one that the ledger has followed: see the module's text.
fn is_another(held: &Checkpoint, seen: &Seen) -> bool {
    if seen.confirmed <= held.lsn {
        return false;
    }
    held.closed
        || seen.confirmed.bytes_since(held.lsn) > AHEAD_MAX
        || held.slot_txns.is_some_and(|noted| seen.txns.unwrap_or(0) < noted)
}

/// Why everyone has to be compared, if so. `usable` is the slot that can be read on, `is_missing` that there is none at all;
/// `server` is system id and timeline.
fn doubtful(
    held: Option<&Checkpoint>,
    (usable, is_missing): (Option<&Seen>, bool),
    name: &str,
    server: (&str, i32),
    published: &[String],
) -> Option<&'static str> {
    let Some(held) = held else { return Some("first-start") };
    if (held.system_id.as_str(), held.timeline) != server {
        return Some(doubt::PLATFORM);
    }
    let lost = match usable {
        None => true,
        Some(seen) => held.slot_name != name || is_another(held, seen),
    };
    match lost {
        // A copy of the server's files without its slots, or a dropped slot and a restart: only the platform can tell. As it
        // alone can what was in hand when the reader ended without order, since that WAL is not read again.
        true if !held.closed || is_missing && held.restarted => Some(doubt::PLATFORM),
        true => Some("slot"),
        false => has_gaps(&held.publication, published).then_some("publication"),
    }
}

/// A slot that is ready to be read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taken {
    /// Where the WAL ended when it was taken: what comes before was collected while nobody read.
    pub(super) collected_until: Lsn,
    /// The reader before did not stop in order: whoever the collected commits touch may have been in hand, and been sent
    /// something that the ledger does not know of.
    is_replay: bool,
    /// Whose it is now.
    reader: i64,
}

impl Taken {
    /// Commits up to here may have been in hand when the reader before was stopped uncleanly.
    pub(super) fn replayed_until(&self) -> Lsn {
        if self.is_replay { self.collected_until } else { Lsn::ZERO }
    }
}

/// Makes sure that there is a slot to be read, and notes a doubt where it is not the one that the ledger has followed.
pub(super) async fn take(
    setting: &Setting,
    session: &Session,
    connection: &mut Connection,
    replacing: &mut Replacing,
) -> Result<Taken, ReadError> {
    let Setting { config, witness, .. } = setting;
    let name = &config.database.slot;
    let identity = connection.identify_system().await?;
    let system_id = identity.system_id.to_string();
    let timeline = i32::try_from(identity.timeline).unwrap_or(i32::MAX);
    // The one's WAL says nothing about the other's records.
    if is_elsewhere(session, &system_id, timeline).await? {
        return Err(ReadError::TwoServers);
    }
    let published = publication(session, &config.database.publication).await?;
    let published = published.ok_or_else(|| ReadError::NoPublication(config.database.publication.clone()))?;
    witness.testify(session).await?;
    look_at_partitions(session).await?;
    let held = Checkpoint::load(session).await?;
    let seen = look(session, name).await?;
    if let Some(pid) = seen.as_ref().and_then(|seen| seen.active_pid) {
        return Err(ReadError::Busy(pid));
    }
    // In another system (after pg_upgrade) everything has other oids, and the slot was made after the publication.
    let remade = held
        .as_ref()
        .is_some_and(|held| held.system_id == system_id && was_made_again(&held.publication, &published));
    let usable =
        seen.as_ref().filter(|seen| seen.foreign || !(seen.lost || replacing.wanted || remade)).cloned();
    let found = (usable.as_ref(), seen.is_none());
    let why = doubtful(held.as_ref(), found, name, (&system_id, timeline), &published);
    if usable.is_none() && held.is_some() {
        replacing.admit(Instant::now())?;
    }
    if let Some(why) = why {
        if held.is_some() {
            tracing::warn!(
                doubt = why,
                slot = name,
                "the stream is not what the ledger has followed; everyone is compared"
            );
        }
        doubt::note(session, why).await?;
    }
    let (lsn, slot_txns) = if let Some(seen) = &usable {
        (seen.confirmed, seen.txns)
    } else {
        if let Some(held) = &held {
            // Whoever finds the new slot after a death of ours takes it for another: nobody has decoded so much through it.
            Checkpoint::note(session, held.reader, held.lsn, Some(i64::MAX), held.closed).await?;
        }
        let start = making::make(setting, session, connection, seen.as_ref()).await?;
        // Making it may take long, and a comparison that ended before it was there answers nothing: what came in between is
        // in no WAL that is read. So it is doubted again; what the platform has is not.
        doubt::note(session, why.filter(|why| *why != doubt::PLATFORM).unwrap_or("slot")).await?;
        if held.is_some() {
            replacing.replaced(Instant::now());
        }
        (start, Some(0))
    };
    replacing.wanted = false;
    let generation =
        held.as_ref().map_or(1, |held| held.slot_generation.saturating_add(i64::from(usable.is_none())));
    // Where all is as it was the ledger's own position stays: it may be behind the slot's, never the other way round.
    let lsn = match &held {
        Some(held) if why.is_none() => held.lsn,
        // It never falls, or it would look as if the database had been set back.
        Some(held) if why != Some(doubt::PLATFORM) => held.lsn.max(lsn),
        _ => lsn,
    };
    let checkpoint = Checkpoint {
        system_id,
        timeline,
        platform_id: config.benefits.platform_id.clone(),
        slot_name: name.clone(),
        slot_generation: generation,
        lsn,
        closed: false,
        slot_txns,
        publication: published,
        restarted: false,
        reader: held.as_ref().map_or(0, |held| held.reader).saturating_add(1),
    };
    // A comparison with the platform, before which nothing leaves, tells what the platform holds.
    let is_compared = doubt::load(session).await?.why.as_deref() == Some(doubt::PLATFORM);
    let is_replay = held.is_some_and(|held| !held.closed) && !is_compared;
    let collected_until = wal_end(session).await?;
    // Whether the reader before has stopped in order is known of the one that was looked at only.
    if !checkpoint.store(session).await? {
        return Err(ReadError::Overtaken);
    }
    witness.remember(&checkpoint);
    crate::failpoint::hit("slot-taken").await?;
    Ok(Taken { collected_until, is_replay, reader: checkpoint.reader })
}

async fn wal_end(session: &Session) -> Result<Lsn, LedgerError> {
    let rows = session.query("look where the WAL ends", "select pg_current_wal_insert_lsn()", &[]).await?;
    Ok(rows.first().map_or(Lsn::ZERO, |row| Lsn(u64::from(row.get::<_, PgLsn>(0)))))
}

/// Keeps an eye on the slot while it is read.
pub(super) struct SlotWatch {
    taken: Taken,
    slot: String,
    publication: String,
    parts: Vec<String>,
    looked: Instant,
    looked_at_partitions: Instant,
    confirmed: watch::Receiver<Lsn>,
    noted: Lsn,
    counted: bool,
}

impl SlotWatch {
    /// Of a slot whose stream has begun, so that nobody else reads it. Whoever has done so since it was taken has taken it
    /// too, and may have left anything in hand.
    pub(super) async fn new(
        mut taken: Taken,
        config: &Config,
        session: &Arc<Session>,
        confirmed: watch::Receiver<Lsn>,
    ) -> Result<Self, ReadError> {
        if let Some(reader) = Checkpoint::retake(session, taken.reader).await? {
            taken = Taken { collected_until: wal_end(session).await?, is_replay: true, reader };
        }
        let held = Checkpoint::load(session).await?;
        Ok(Self {
            taken,
            slot: config.database.slot.clone(),
            publication: config.database.publication.clone(),
            parts: held.as_ref().map(|held| held.publication.clone()).unwrap_or_default(),
            looked: Instant::now(),
            looked_at_partitions: Instant::now(),
            confirmed,
            noted: held.as_ref().map_or(Lsn::ZERO, |held| held.lsn),
            counted: held.and_then(|held| held.slot_txns).is_some_and(|count| count > 0),
        })
    }

    /// As it is known now that the stream has begun.
    pub(super) fn taken(&self) -> Taken {
        self.taken
    }

    /// The position that is written down.
    pub(super) fn noted(&self) -> Lsn {
        self.noted
    }

    /// Writes the position down where that is due, and looks whether the publication is still the same.
    pub(super) async fn look(&mut self, session: &Session, witness: &Witness) -> Result<(), ReadError> {
        if let Some(held) = Checkpoint::load(session).await? {
            witness.remember(&held);
        }
        let confirmed = *self.confirmed.borrow();
        let moved = confirmed > self.noted && confirmed.bytes_since(self.noted) > NOTE_BYTES;
        if moved || !self.counted {
            let txns = look(session, &self.slot).await?.and_then(|seen| seen.txns);
            let counted = txns.is_some_and(|count| count > 0);
            if moved || counted {
                Checkpoint::note(session, self.taken.reader, confirmed, txns, false).await?;
                self.noted = confirmed;
                self.counted = counted;
            }
        }
        if self.looked_at_partitions.elapsed() > PARTITIONS_EVERY {
            self.looked_at_partitions = Instant::now();
            look_at_partitions(session).await?;
        }
        if self.looked.elapsed() > PUBLICATION_EVERY {
            self.looked = Instant::now();
            let now = publication(session, &self.publication).await?.unwrap_or_default();
            if has_gaps(&self.parts, &now) {
                return Err(ReadError::PublicationChanged);
            }
        }
        Ok(())
    }

    /// An orderly stop: what was confirmed is written down exactly. Where what the reader before left in doubt was not all
    /// read again, the rest of it still is.
    pub(super) async fn close(&mut self, session: &Session, witness: &Witness) -> Result<(), ReadError> {
        let confirmed = *self.confirmed.borrow();
        let txns = look(session, &self.slot).await?.and_then(|seen| seen.txns);
        // Nothing was confirmed in a session that ended before it had heard anything: the slot is where it was.
        if confirmed > Lsn::ZERO {
            let in_order = confirmed >= self.taken.replayed_until();
            Checkpoint::note(session, self.taken.reader, confirmed, txns, in_order).await?;
        }
        if let Some(held) = Checkpoint::load(session).await? {
            witness.remember(&held);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(lsn: u64, closed: bool, slot_txns: Option<i64>) -> Checkpoint {
        Checkpoint {
            system_id: "1".to_owned(),
            timeline: 1,
            platform_id: "p".to_owned(),
            slot_name: "s".to_owned(),
            slot_generation: 1,
            lsn: Lsn(lsn),
            closed,
            slot_txns,
            publication: Vec::new(),
            restarted: false,
            reader: 1,
        }
    }

    fn seen(confirmed: u64, txns: Option<i64>) -> Seen {
        Seen { confirmed: Lsn(confirmed), txns, ..Seen::default() }
    }

    #[test]
    fn a_slot_that_is_not_ahead_is_ours_whatever_the_statistics_say() {
        assert!(!is_another(&held(100, true, Some(5)), &seen(100, None)));
        assert!(!is_another(&held(100, false, Some(5)), &seen(50, Some(0))));
    }

    #[test]
    fn after_an_orderly_stop_any_byte_ahead_is_another_slot() {
        assert!(is_another(&held(100, true, Some(5)), &seen(101, Some(9))));
    }

    #[test]
    fn after_a_crash_the_slot_may_be_ahead_by_what_idle_keepalives_confirmed() {
        assert!(!is_another(&held(100, false, Some(5)), &seen(100 + AHEAD_MAX, Some(5))));
        assert!(is_another(&held(100, false, Some(5)), &seen(101 + AHEAD_MAX, Some(5))));
    }

    #[test]
    fn fewer_transactions_than_were_counted_are_another_slot() {
        assert!(is_another(&held(100, false, Some(5)), &seen(101, Some(4))));
        assert!(is_another(&held(100, false, Some(5)), &seen(101, None)));
        assert!(!is_another(&held(100, false, None), &seen(101, None)));
    }

    #[test]
    fn replacements_are_spaced_and_spacing_is_forgotten() {
        let mut replacing = Replacing::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(replacing.admit(start).is_ok());
        replacing.replaced(start);
        assert!(replacing.admit(at(1)).is_err());
        assert!(replacing.admit(at(2)).is_ok());
        replacing.replaced(at(2));
        assert!(replacing.admit(at(5)).is_err(), "four seconds this time");
        assert!(replacing.admit(at(6)).is_ok());
        replacing.replaced(at(4_000));
        assert!(replacing.admit(at(4_002)).is_ok(), "as after the first");
    }

    #[test]
    fn a_publication_with_more_in_it_has_no_gap() {
        let parts = |parts: &[&str]| parts.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>();
        let then = parts(&["publication 7", "entry 1", "insert"]);
        assert!(!has_gaps(&then, &parts(&["publication 7", "entry 1", "entry 2", "insert"])));
        assert!(has_gaps(&then, &parts(&["publication 7", "entry 2", "insert"])));
        assert!(has_gaps(&then, &parts(&["publication 7", "entry 1"])));
        assert!(was_made_again(&then, &parts(&["publication 8"])));
        assert!(!was_made_again(&then, &parts(&["publication 7"])) && !was_made_again(&[], &then));
    }
}
