//! Idempotency keys: what was answered to an accepted write, for 24 hours, and which keys are being worked on.
//!
//! Refused writes leave nothing here. Time is handed in, so that a test can let a day pass.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::Hasher;
use std::sync::Arc;
use std::time::Duration;

use siphasher::sip128::{Hasher128, SipHasher13};

use super::answer::Accepted;

/// How long the key of an accepted write is kept.
pub(super) const KEPT: Duration = Duration::from_hours(24);

/// A body, told apart from others. Not keyed: nobody attacks a sandbox.
pub(super) type BodyHash = u128;

/// The hash of a body.
pub(super) fn hash_body(body: &[u8]) -> BodyHash {
    let mut hasher = SipHasher13::new();
    hasher.write(body);
    hasher.finish128().as_u128()
}

/// What a key is compared by: what was asked (`None`: a create) and with which body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) account: Option<usize>,
    pub(super) body: BodyHash,
}

#[derive(Debug)]
struct Kept {
    asked: Asked,
    accepted: Accepted,
}

/// What is known of a key.
#[derive(Debug)]
pub(super) enum Known {
    /// Nothing: do the work.
    New,
    /// The same write was accepted: its answer.
    Accepted(Accepted),
    /// Another write was accepted with it.
    Reused,
    /// A request with this key is being worked on.
    InProgress,
}

/// All keys.
#[derive(Debug)]
pub(super) struct Keys {
    max: usize,
    kept: HashMap<Arc<str>, Kept>,
    by_age: VecDeque<(Duration, Arc<str>)>,
    in_progress: HashSet<Box<str>>,
}

impl Keys {
    pub(super) fn new(max: usize) -> Self {
        Self { max, kept: HashMap::new(), by_age: VecDeque::new(), in_progress: HashSet::new() }
    }

    /// What is known of the key at this time. `reserved`: the caller is the one working on it.
    pub(super) fn look(&mut self, now: Duration, key: &str, asked: Asked, reserved: bool) -> Known {
        self.forget_old(now);
        match self.kept.get(key) {
            Some(kept) if kept.asked == asked => Known::Accepted(kept.accepted.clone()),
            Some(_) => Known::Reused,
            None if !reserved && self.in_progress.contains(key) => Known::InProgress,
            None => Known::New,
        }
    }

    /// Marks the key as being worked on.
    pub(super) fn begin(&mut self, key: &str) {
        self.in_progress.insert(key.into());
    }

    /// Ends [`Keys::begin`], whatever became of the work.
    pub(super) fn end(&mut self, key: &str) {
        self.in_progress.remove(key);
    }

    /// Keeps the answer of an accepted write.
    pub(super) fn keep(&mut self, now: Duration, key: &str, asked: Asked, accepted: Accepted) {
        if self.max == 0 {
            return;
        }
        if self.kept.len() >= self.max {
            self.forget_oldest();
        }
        let key: Arc<str> = key.into();
        self.by_age.push_back((now, Arc::clone(&key)));
        self.kept.insert(key, Kept { asked, accepted });
    }

    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }

    fn forget_old(&mut self, now: Duration) {
        while self.by_age.front().is_some_and(|(at, _)| now.saturating_sub(*at) >= KEPT) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, key)) = self.by_age.pop_front() {
            self.kept.remove(&key);
        }
    }
}
