//! What `/livez` and `/readyz` answer from.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::pulse::Pulse;

/// How long a commit may wait to become visible before the instance says that it is not ready.
const INVISIBLE_MAX: Duration = Duration::from_secs(5);

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotReady {
    /// No stream, and why.
    NotStreaming(String),
    /// No delivery session.
    LedgerAway,
    /// Delivery is halted.
    Halted(String),
    /// A commit has been waiting to become visible.
    CommitInvisible(Duration),
}

impl std::fmt::Display for NotReady {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotStreaming(reason) => write!(f, "not streaming: {reason}"),
            Self::LedgerAway => f.write_str("the ledger cannot be reached"),
            Self::Halted(code) => write!(f, "delivery is halted: {code}"),
            Self::CommitInvisible(waited) => {
                write!(
                    f,
                    "a commit has been waiting {} s to become visible: is a synchronous standby away?",
                    waited.as_secs()
                )
            }
        }
    }
}

/// The instance's state, shared by its tasks.
pub struct Health {
    pulse: Pulse,
    streaming: Mutex<Result<(), String>>,
    ledger: AtomicBool,
    halted: watch::Sender<Option<String>>,
    invisible_since: Mutex<Option<Instant>>,
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

impl Health {
    /// Nothing is up yet.
    pub fn new() -> Self {
        Self {
            pulse: Pulse::default(),
            streaming: Mutex::new(Err("starting".to_owned())),
            ledger: AtomicBool::new(false),
            halted: watch::Sender::new(None),
            invisible_since: Mutex::new(None),
        }
    }

    /// Whether the tasks turn over.
    pub fn pulse(&self) -> &Pulse {
        &self.pulse
    }

    /// Whether the stream is up, or why not. Another instance that reads is as good as reading.
    pub fn set_streaming(&self, state: Result<(), String>) {
        *self.streaming.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    /// Whether delivery has its session.
    pub fn set_ledger(&self, reachable: bool) {
        self.ledger.store(reachable, Ordering::Relaxed);
    }

    /// Where delivery says that it is halted.
    pub fn halted(&self) -> watch::Sender<Option<String>> {
        self.halted.clone()
    }

    /// Since when a commit has been waiting to become visible.
    pub fn set_invisible(&self, since: Option<Instant>) {
        *self.invisible_since.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    /// Everything that is not as it should be; empty when ready.
    pub fn faults(&self) -> Vec<NotReady> {
        let mut faults = Vec::new();
        if let Err(reason) = &*self.streaming.lock().unwrap_or_else(PoisonError::into_inner) {
            faults.push(NotReady::NotStreaming(reason.clone()));
        }
        if !self.ledger.load(Ordering::Relaxed) {
            faults.push(NotReady::LedgerAway);
        }
        if let Some(code) = &*self.halted.borrow() {
            faults.push(NotReady::Halted(code.clone()));
        }
        let waited =
            self.invisible_since.lock().unwrap_or_else(PoisonError::into_inner).map(|since| since.elapsed());
        if let Some(waited) = waited.filter(|waited| *waited > INVISIBLE_MAX) {
            faults.push(NotReady::CommitInvisible(waited));
        }
        faults
    }
}
