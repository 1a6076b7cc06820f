//! Faults on demand: which answers go wrong, how, how often and for whom.
//!
//! A [`FaultRule`] is written `KIND[,name=value]...`, on the command line, in a test and in the body of
//! `POST /_sandbox/faults` alike. Rules are asked in the order they were armed; all that slow down add up, the first
//! other one that fires decides. Shares are drawn from one seeded generator.

mod words;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::HeaderValue;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio_util::sync::CancellationToken;

pub use self::words::FaultRuleError;
use super::journal::Operation;

/// How an answer goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// `slow,delay=5s[,jitter=1s]`: the request waits before it is worked on.
    Slow {
        /// The least wait.
        delay: Duration,
        /// At most so much more, at random.
        jitter: Duration,
    },
    /// `slow-answer,delay=5s[,jitter=1s]`: the work is done at once, its answer waits.
    SlowAnswer {
        /// The least wait.
        delay: Duration,
        /// At most so much more, at random.
        jitter: Duration,
    },
    /// `rate-limited[,retry-after=2]` or `429`: 429, nothing done. `retry-after=date:2` gives an HTTP date,
    /// `retry-after=none` no header.
    RateLimited(RetryAfter),
    /// `unavailable[,retry-after=2]` or `503`: 503, nothing done.
    Unavailable(Option<RetryAfter>),
    /// `internal` or `500`: 500, nothing done.
    Internal,
    /// `internal-after`: the work is done, the answer is 500.
    InternalAfter,
    /// `lost-before`: the connection closes, nothing done.
    LostBefore,
    /// `lost-after`: the work is done, the connection closes without an answer.
    LostAfter,
    /// `half-answer`: the work is done, the connection closes in the middle of the answer's body.
    HalfAnswer,
    /// `wrong-content-type`: the work is done, the answer is a page of HTML.
    WrongContentType,
    /// `huge-body`: the work is done, the answer is 10 MB of JSON.
    HugeBody,
    /// `invalid-json`: the work is done, the answer claims to be JSON and is not.
    InvalidJson,
    /// `redirect`: 307 to another address, nothing done.
    Redirect,
    /// `unauthenticated` or `401`.
    Unauthenticated,
    /// `forbidden` or `403`.
    Forbidden,
    /// `suspended`: 403 as if the platform were suspended.
    Suspended,
    /// `not-found` or `404`.
    NotFound,
    /// `gone` or `410`.
    Gone,
    /// `reject` or `422`: a validation problem about `surname`, nothing done.
    Reject,
}

impl Fault {
    /// The kind as a rule spells it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Slow { .. } => "slow",
            Self::SlowAnswer { .. } => "slow-answer",
            Self::RateLimited(_) => "rate-limited",
            Self::Unavailable(_) => "unavailable",
            Self::Internal => "internal",
            Self::InternalAfter => "internal-after",
            Self::LostBefore => "lost-before",
            Self::LostAfter => "lost-after",
            Self::HalfAnswer => "half-answer",
            Self::WrongContentType => "wrong-content-type",
            Self::HugeBody => "huge-body",
            Self::InvalidJson => "invalid-json",
            Self::Redirect => "redirect",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::Suspended => "suspended",
            Self::NotFound => "not-found",
            Self::Gone => "gone",
            Self::Reject => "reject",
        }
    }
}

/// A `Retry-After` header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryAfter {
    /// A number of seconds.
    Seconds(u64),
    /// An HTTP date so many seconds ahead.
    DateIn(u64),
    /// None at all, as from something between us and the platform.
    None,
}

impl RetryAfter {
    pub(super) fn header(self) -> Option<HeaderValue> {
        let text = match self {
            Self::None => return None,
            Self::Seconds(seconds) => seconds.to_string(),
            Self::DateIn(seconds) => {
                let ahead = jiff::SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
                let at = jiff::Timestamp::now().checked_add(ahead).unwrap_or(jiff::Timestamp::MAX);
                // Fails only before the year 0.
                jiff::fmt::rfc2822::DateTimePrinter::new()
                    .timestamp_to_rfc9110_string(&at)
                    .unwrap_or_default()
            }
        };
        Some(HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("1")))
    }
}

/// Which operations a rule is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operations {
    /// `on=any`, and where nothing is said.
    Any,
    /// `on=reads`
    Reads,
    /// `on=writes`
    Writes,
    /// `on=createEmployee` and so on, by the document's `operationId`.
    One(Operation),
}

impl Operations {
    fn include(self, operation: Operation) -> bool {
        match self {
            Self::Any => true,
            Self::Reads => !operation.is_write(),
            Self::Writes => operation.is_write(),
            Self::One(one) => one == operation,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::Reads => "reads",
            Self::Writes => "writes",
            Self::One(operation) => operation.as_str(),
        }
    }
}

/// A fault, and when it happens. Without `share` and `next` it always does.
#[derive(Debug, Clone, PartialEq)]
pub struct FaultRule {
    /// What goes wrong.
    pub fault: Fault,
    /// `share=0.05`: for this part of the requests it is for, at random.
    pub share: Option<f64>,
    /// `next=3`: for so many requests, then never again.
    pub next: Option<u64>,
    /// `on=writes`: for these operations only.
    pub on: Operations,
    /// `external-id=42`: only where the request is about this HR employee (in the body, in the query, or by the link
    /// of the account addressed).
    pub external_id: Option<String>,
}

impl FaultRule {
    /// The fault, always and for everybody.
    pub fn always(fault: Fault) -> Self {
        Self { fault, share: None, next: None, on: Operations::Any, external_id: None }
    }

    /// The fault for the next so many requests.
    pub fn next(fault: Fault, count: u64) -> Self {
        Self { next: Some(count), ..Self::always(fault) }
    }

    /// The same for these operations only.
    #[must_use]
    pub fn on(self, on: Operations) -> Self {
        Self { on, ..self }
    }

    /// The same for one HR employee only.
    #[must_use]
    pub fn for_employee(self, external_id: &str) -> Self {
        Self { external_id: Some(external_id.to_owned()), ..self }
    }
}

/// What happens to one request.
#[derive(Debug, Default)]
pub(super) struct Fired {
    /// How long it waits before it is worked on.
    pub(super) before: Duration,
    /// How long its answer waits.
    pub(super) after: Duration,
    /// What else goes wrong.
    pub(super) fault: Option<Fault>,
    /// Ends its waits: the rules were disarmed.
    disarmed: Option<CancellationToken>,
}

impl Fired {
    /// Waits before the work is done.
    pub(super) async fn wait_before(&self) {
        self.wait(self.before).await;
    }

    /// Waits before the answer leaves.
    pub(super) async fn wait_after(&self) {
        self.wait(self.after).await;
    }

    async fn wait(&self, delay: Duration) {
        if let Some(disarmed) = &self.disarmed
            && !delay.is_zero()
        {
            // Whichever comes first: both end the wait.
            let _slept = disarmed.run_until_cancelled(tokio::time::sleep(delay)).await;
        }
    }
}

/// The armed rules.
#[derive(Debug)]
pub(super) struct Faults {
    /// Whether there is any rule: the way round the lock where there is none.
    armed: AtomicBool,
    armoury: Mutex<Armoury>,
}

#[derive(Debug)]
struct Armoury {
    rules: Vec<FaultRule>,
    random: StdRng,
    /// Cancelled, and followed by another, whenever the rules are disarmed.
    disarmed: CancellationToken,
}

impl Faults {
    pub(super) fn new(seed: u64, rules: Vec<FaultRule>) -> Self {
        let armed = AtomicBool::new(!rules.is_empty());
        let random = StdRng::seed_from_u64(seed);
        Self { armed, armoury: Mutex::new(Armoury { rules, random, disarmed: CancellationToken::new() }) }
    }

    fn lock(&self) -> MutexGuard<'_, Armoury> {
        self.armoury.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn arm(&self, rule: FaultRule) {
        self.lock().rules.push(rule);
        self.armed.store(true, Ordering::Release);
    }

    pub(super) fn disarm_all(&self) {
        let mut armoury = self.lock();
        armoury.rules.clear();
        std::mem::take(&mut armoury.disarmed).cancel();
        self.armed.store(false, Ordering::Release);
    }

    pub(super) fn rules(&self) -> Vec<FaultRule> {
        self.lock().rules.clone()
    }

    /// What happens to a request. `employee` tells whom it is about, and is asked only where a rule wants to know.
    pub(super) fn decide(&self, operation: Operation, employee: impl FnOnce() -> Option<String>) -> Fired {
        let mut fired = Fired::default();
        if !self.armed.load(Ordering::Acquire) {
            return fired;
        }
        let mut armoury = self.lock();
        fired.disarmed = Some(armoury.disarmed.clone());
        let Armoury { rules, random, .. } = &mut *armoury;
        let aimed = rules.iter().any(|rule| rule.external_id.is_some());
        let employee = if aimed { employee() } else { None };
        for rule in rules.iter_mut() {
            let meant = rule.on.include(operation)
                && rule.next != Some(0)
                && (rule.external_id.is_none() || rule.external_id == employee);
            let slows = matches!(rule.fault, Fault::Slow { .. } | Fault::SlowAnswer { .. });
            if !meant || (!slows && fired.fault.is_some()) {
                continue;
            }
            if rule.share.is_some_and(|share| random.gen_range(0.0..1.0) >= share) {
                continue;
            }
            rule.next = rule.next.map(|left| left.saturating_sub(1));
            match &rule.fault {
                Fault::Slow { delay, jitter } => {
                    fired.before += *delay + random.gen_range(Duration::ZERO..=*jitter);
                }
                Fault::SlowAnswer { delay, jitter } => {
                    fired.after += *delay + random.gen_range(Duration::ZERO..=*jitter);
                }
                other => fired.fault = Some(other.clone()),
            }
        }
        rules.retain(|rule| rule.next != Some(0));
        fired
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counted_fault_fires_so_often_and_only_where_it_is_meant() {
        let faults = Faults::new(7, vec!["internal,next=2,on=writes,external-id=a".parse().unwrap()]);
        let fires = |operation, who: &str| faults.decide(operation, || Some(who.into())).fault.is_some();
        assert!(!fires(Operation::Get, "a"));
        assert!(!fires(Operation::Update, "b"));
        assert!(fires(Operation::Update, "a"));
        assert!(fires(Operation::Create, "a"));
        assert!(!fires(Operation::Create, "a"));
        assert!(faults.rules().is_empty());
    }

    #[test]
    fn the_same_seed_gives_the_same_faults() {
        let run = |seed| {
            let faults = Faults::new(seed, vec!["503,share=0.5".parse().unwrap()]);
            (0..64).map(|_| faults.decide(Operation::Get, || None).fault.is_some()).collect::<Vec<_>>()
        };
        assert_eq!(run(5), run(5));
        assert_ne!(run(5), run(6));
    }
}
