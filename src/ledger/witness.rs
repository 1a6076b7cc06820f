//! The witness: what this process remembers of the ledger, outside the ledger.
//!
//! A database that was set back (a copy of its files put back as it was, a snapshot of its disk) starts like one that has
//! crashed: the same system id, the same timeline, and a ledger that agrees with the WAL, because both lost the same tail.
//! Nothing in it can tell; somebody who remembers more can. The process does for as long as it runs, and with
//! `ledger.witness_file` over its restarts.
//!
//! A ledger that was taken away and set up anew does not look set back: on the same server its positions are later ones,
//! on another server the memory begins anew. So a witness that is left over does no harm, and neither does deleting it.
//!
//! Two positions are remembered, and neither ever falls by itself: how far the server's WAL was confirmed, which is exact,
//! and how far the ledger said that it is, which still tells once the server has written new WAL over the lost one.

use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;
use tokio_postgres::types::PgLsn;

use super::checkpoint::Checkpoint;
use super::doubt;
use super::error::LedgerError;
use super::session::Session;
use crate::lsn::Lsn;

/// The file can be no witness.
#[derive(Debug, thiserror::Error)]
#[error("ledger.witness_file {path}: {reason}")]
pub struct WitnessError {
    /// The file.
    pub path: String,
    /// What is wrong, with it or with its directory.
    pub reason: String,
}

/// Of one system and timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    system_id: String,
    timeline: i32,
    /// The server's WAL was at least so long.
    wal: Lsn,
    /// The ledger's checkpoint was at least so far.
    ledger: Lsn,
}

/// The memory, shared by the tasks of a process.
#[derive(Debug, Default)]
pub struct Witness {
    file: Option<PathBuf>,
    seen: Mutex<Option<Seen>>,
    /// What the stream confirms, for as long as nobody has looked.
    confirmed: Mutex<Option<watch::Receiver<Lsn>>>,
}

impl Witness {
    /// A memory that begins with what `file` holds, if there is one. What cannot be read remembers nothing; a place that cannot
    /// be written to is an error now, since nobody would miss the file before it is needed.
    pub fn new(file: Option<PathBuf>) -> Result<Self, WitnessError> {
        let seen = file.as_deref().map(begin).transpose()?.flatten();
        Ok(Self { file, seen: Mutex::new(seen), confirmed: Mutex::default() })
    }

    /// From now on what the stream confirms counts as seen.
    pub fn follow(&self, confirmed: watch::Receiver<Lsn>) {
        *self.confirmed.lock().unwrap_or_else(PoisonError::into_inner) = Some(confirmed);
    }

    /// Remembers where the ledger says that it is. Another system or timeline begins anew.
    pub fn remember(&self, held: &Checkpoint) {
        let known = self.known();
        let same = known.filter(|seen| seen.system_id == held.system_id && seen.timeline == held.timeline);
        if same.is_none() {
            // What another timeline's stream has confirmed says nothing about this one.
            self.follow(watch::channel(Lsn::ZERO).1);
        }
        let (wal, ledger) = same.as_ref().map_or((Lsn::ZERO, Lsn::ZERO), |seen| (seen.wal, seen.ledger));
        let ledger = ledger.max(held.lsn);
        self.set(Seen {
            system_id: held.system_id.clone(),
            timeline: held.timeline,
            wal: wal.max(ledger),
            ledger,
        });
    }

    /// Notes the gravest doubt where the ledger, or the server's WAL, is shorter than it has been.
    pub async fn testify(&self, session: &Session) -> Result<(), LedgerError> {
        // What is remembered first: meanwhile both go on growing.
        let known = self.known();
        let Some(held) = Checkpoint::load(session).await? else { return Ok(()) };
        let rows = session.query("ask how long the WAL is", "select pg_current_wal_lsn()", &[]).await?;
        let end = rows.first().map_or(Lsn::ZERO, |row| Lsn(u64::from(row.get::<_, PgLsn>(0))));
        if let Some(seen) = known.filter(|seen| is_shorter(seen, &held, end)) {
            tracing::warn!(
                ledger = %held.lsn,
                ledger_was = %seen.ledger,
                wal = %end,
                wal_was = %seen.wal,
                "the database was set back to an earlier state of itself; everyone is compared with the platform before anything is sent"
            );
            doubt::note(session, doubt::PLATFORM).await?;
            self.forget();
        }
        self.remember(&held);
        Ok(())
    }

    /// Begins anew: the doubt is noted.
    fn forget(&self) {
        *self.confirmed.lock().unwrap_or_else(PoisonError::into_inner) = None;
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// What was seen, the stream included.
    fn known(&self) -> Option<Seen> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let confirmed = self.confirmed.lock().unwrap_or_else(PoisonError::into_inner);
        let confirmed = confirmed.as_ref().map_or(Lsn::ZERO, |confirmed| *confirmed.borrow());
        seen.map(|seen| Seen { wal: seen.wal.max(confirmed), ..seen })
    }

    fn set(&self, now: Seen) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // The file holds the ledger's position only: a look every two seconds must not write at every keepalive.
        let moved = seen.as_ref().is_none_or(|seen| {
            (seen.ledger, &seen.system_id, seen.timeline) != (now.ledger, &now.system_id, now.timeline)
        });
        if moved
            && let Some(file) = &self.file
            && let Err(error) = write(file, &now)
        {
            tracing::warn!(%error, file = %file.display(), "ledger.witness_file cannot be written");
        }
        *seen = Some(now);
    }
}

fn is_shorter(seen: &Seen, held: &Checkpoint, wal_end: Lsn) -> bool {
    // Another system or timeline is doubt for itself.
    seen.system_id == held.system_id
        && seen.timeline == held.timeline
        && (held.lsn < seen.ledger || wal_end < seen.wal)
}

/// `system id, timeline, LSN`, in one line.
fn parse(text: &str) -> Option<Seen> {
    let mut parts = text.split_whitespace();
    let (system_id, timeline) = (parts.next()?.to_owned(), parts.next()?.parse().ok()?);
    let ledger: Lsn = parts.next()?.parse().ok()?;
    Some(Seen { system_id, timeline, wal: ledger, ledger })
}

/// What the file holds; and that it can be written.
fn begin(file: &Path) -> Result<Option<Seen>, WitnessError> {
    let fault = |reason: String| WitnessError { path: file.display().to_string(), reason };
    let text = match std::fs::read_to_string(file) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) if error.kind() == ErrorKind::InvalidData => Some(String::new()),
        Err(error) => return Err(fault(error.to_string())),
    };
    let beside = beside(file);
    match std::fs::File::create(&beside) {
        Ok(_) => drop(std::fs::remove_file(beside)),
        // A disk that is full at the moment is no mistake of anybody's.
        Err(error) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {}
        Err(error) => return Err(fault(format!("cannot write in its directory: {error}"))),
    }
    let seen = text.as_deref().and_then(parse);
    if text.is_some() && seen.is_none() {
        tracing::warn!(file = %file.display(), "ledger.witness_file holds no position; it begins anew");
    }
    Ok(seen)
}

/// The file that is written before it takes the other's name.
fn beside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

/// In one step, so that nobody reads half a line. What a power cut takes of it is merely forgotten.
fn write(file: &Path, seen: &Seen) -> std::io::Result<()> {
    let beside = beside(file);
    let mut written = std::fs::File::create(&beside)?;
    writeln!(written, "{} {} {}", seen.system_id, seen.timeline, seen.ledger)?;
    std::fs::rename(beside, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(lsn: u64, timeline: i32) -> Checkpoint {
        Checkpoint {
            system_id: "7".to_owned(),
            timeline,
            platform_id: "p".to_owned(),
            slot_name: "s".to_owned(),
            slot_generation: 1,
            lsn: Lsn(lsn),
            closed: false,
            slot_txns: None,
            publication: Vec::new(),
            restarted: false,
            reader: 1,
        }
    }

    fn contradicted(witness: &Witness, held: &Checkpoint, wal_end: u64) -> bool {
        witness.known().is_some_and(|seen| is_shorter(&seen, held, Lsn(wal_end)))
    }

    #[test]
    fn a_ledger_or_wal_that_is_shorter_than_it_was_is_noticed() {
        let witness = Witness::default();
        assert!(!contradicted(&witness, &held(5, 1), 5), "nothing is remembered yet");
        witness.remember(&held(100, 1));
        let (confirm, confirmed) = watch::channel(Lsn(150));
        witness.follow(confirmed);
        assert!(!contradicted(&witness, &held(100, 1), 150));
        assert!(
            contradicted(&witness, &held(99, 1), 1_000),
            "new WAL hides nothing from the ledger's own position"
        );
        drop(confirm);
        assert!(contradicted(&witness, &held(100, 1), 149));
        assert!(!contradicted(&witness, &held(10, 2), 20), "another timeline is doubt for itself");
        witness.remember(&held(10, 2));
        assert!(!contradicted(&witness, &held(10, 2), 20), "and begins anew");
        witness.forget();
        assert!(!contradicted(&witness, &held(5, 2), 5));
    }

    #[test]
    fn a_file_remembers_over_a_restart_and_one_that_is_damaged_remembers_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("witness");
        Witness::new(Some(file.clone())).unwrap().remember(&held(100, 3));
        let witness = Witness::new(Some(file.clone())).unwrap();
        assert!(contradicted(&witness, &held(99, 3), 200));
        assert!(!contradicted(&witness, &held(100, 3), 100));
        std::fs::write(&file, "7 three").unwrap();
        assert!(!contradicted(&Witness::new(Some(file)).unwrap(), &held(1, 3), 1));
    }
    #[test]
    fn a_file_that_can_be_no_witness_is_named_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let refused = |file: PathBuf| Witness::new(Some(file)).unwrap_err().to_string();
        for file in [directory.path().join("not/there/witness"), directory.path().to_owned()] {
            let text = refused(file.clone());
            assert!(
                text.starts_with("ledger.witness_file ") && text.contains(&file.display().to_string()),
                "{text}"
            );
        }
        std::fs::write(directory.path().join("bytes"), b"\xff\xfe").unwrap();
        let witness = Witness::new(Some(directory.path().join("bytes"))).unwrap();
        assert!(!contradicted(&witness, &held(1, 3), 1));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "trying leaves nothing behind");
    }
}
