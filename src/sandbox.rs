//! A simulated Benefits platform: the whole of the API document, in memory, with faults on demand.
//!
//! `benefits-sync sandbox --listen ADDR` serves it by itself; the demo and the tests hold a [`Sandbox`] in their own
//! process, seed accounts into it, script its faults and read what it saw. A request walks through
//! `api` (routing, credentials, faults) → `draft` (the body, every field held to the document) → `platform` (links,
//! versions, uniqueness, idempotency keys; one short critical section) → `answer`, and leaves a line in the `journal`.
//!
//! The API is served below `/api/v1` and, for convenience, below `/`. These are not part of the API document, take no
//! token and are for rehearsals only:
//!
//! | request | does |
//! |---|---|
//! | `GET /_sandbox/state` | counts: accounts, writes, answers by operation and status, faults armed, the seed |
//! | `GET /_sandbox/journal[?externalId=X]` | the latest writes: versions, keys, field names, outcome |
//! | `GET`, `POST`, `DELETE /_sandbox/faults` | lists the armed faults; arms those in the body, one a line (see [`FaultRule`]); disarms all, which also ends the waits under way |
//! | `POST /_sandbox/suspend`, `/_sandbox/resume` | suspends the platform, and ends that |
//! | `POST /_sandbox/accounts` | a self-registered account: a JSON object of fields, `email` at least |
//! | `POST /oauth2/token` | a token for client credentials, where a client is configured |
//! | `DELETE /_sandbox/accounts/{id}[?gone=true]` | removes an account: 404 from then on, or 410 |
//!
//! Where the document leaves a choice: bodies are compared byte for byte; a key that is missing or of a bad length is
//! a `bad-request`; an unknown property is a `validation` error of code `format`; the version is judged before the link,
//! and the link before uniqueness; a repeated version with the same body is answered 200 and changes nothing.

mod account;
mod answer;
mod api;
mod catalogue;
pub mod cli;
mod control;
mod credentials;
mod draft;
mod faults;
mod field;
mod journal;
mod keys;
mod platform;
mod population;
mod server;
mod spoil;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

pub use account::{AccountView, SeedAccount};
pub use catalogue::Package;
pub use faults::{Fault, FaultRule, FaultRuleError, Operations, RetryAfter};
pub use journal::{Counts, JournalEntry, Operation};
pub use platform::SeedError;
pub use population::self_registered;
pub use server::RunningSandbox;

use catalogue::Catalogue;
use credentials::Credentials;
use faults::Faults;
use journal::Journal;
use platform::Platform;

/// What a [`Sandbox`] is made with.
#[derive(Debug, Clone)]
pub struct SandboxOptions {
    /// The one platform id that exists.
    pub platform_id: String,
    /// The platform's name as `getPlatform` gives it.
    pub platform_name: String,
    /// The bearer token that is accepted.
    pub token: String,
    /// Who may fetch further tokens at `/oauth2/token`; `None`: nobody.
    pub oauth_client: Option<OauthClient>,
    /// Drives every random decision; the same seed and the same requests give the same faults.
    pub seed: u64,
    /// Faults that are armed from the start.
    pub faults: Vec<FaultRule>,
    /// Journal entries kept; the oldest go first. 0 keeps none (for benchmarks).
    pub journal_max: usize,
    /// Whether journal entries hold the request's body. Bodies hold personal values: for tests.
    pub keep_bodies: bool,
    /// Idempotency keys kept with their answers (1 to 1.5 kB each) within the 24 hours; the oldest go first.
    pub keys_max: usize,
}

/// A client that may fetch tokens.
#[derive(Debug, Clone)]
pub struct OauthClient {
    /// `client_id`
    pub id: String,
    /// `client_secret`
    pub secret: String,
    /// How long a token is good.
    pub lifetime: Duration,
}

impl Default for SandboxOptions {
    fn default() -> Self {
        Self {
            platform_id: "demo".into(),
            platform_name: "Demonstration platform".into(),
            token: "sandbox-token".into(),
            oauth_client: None,
            seed: 1,
            faults: Vec::new(),
            journal_max: 10_000,
            keep_bodies: false,
            keys_max: 250_000,
        }
    }
}

/// The simulated platform. Clones share one state, so one clone serves while another is asked and scripted.
#[derive(Debug, Clone)]
pub struct Sandbox {
    shared: Arc<Shared>,
}

/// What all connections and handles share.
#[derive(Debug)]
struct Shared {
    options: SandboxOptions,
    catalogue: Catalogue,
    platform: Platform,
    faults: Faults,
    journal: Journal,
    requests: AtomicU64,
    credentials: Credentials,
    /// Woken whenever a request was decided on.
    decided: Notify,
}

impl Shared {
    fn accepts(&self, token: &str) -> bool {
        self.credentials.accept(token, self.platform.now())
    }
}

impl Sandbox {
    /// A platform without accounts, with the default packages and picklists.
    pub fn new(options: SandboxOptions) -> Self {
        let shared = Shared {
            catalogue: Catalogue::default(),
            platform: Platform::new(options.keys_max),
            faults: Faults::new(options.seed, options.faults.clone()),
            journal: Journal::new(options.journal_max, options.keep_bodies),
            requests: AtomicU64::new(0),
            credentials: Credentials::new(options.token.clone()),
            decided: Notify::new(),
            options,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Adds an account that nobody has written through the API yet; gives its id.
    pub fn seed(&self, account: SeedAccount) -> Result<String, SeedError> {
        self.shared.platform.seed(account)
    }

    /// Every account that is there, in the order of creation.
    pub fn accounts(&self) -> Vec<AccountView> {
        self.shared.platform.accounts()
    }

    /// The account with this platform id.
    pub fn account(&self, id: &str) -> Option<AccountView> {
        self.shared.platform.account(id)
    }

    /// The account that is linked to this HR employee.
    pub fn account_of(&self, external_id: &str) -> Option<AccountView> {
        self.shared.platform.account_of(external_id)
    }

    /// Changes fields of an account behind the API's back (drift), leaving its version alone. False: no such account
    /// or field, or the email is taken.
    pub fn tamper(&self, id: &str, changes: &[(&str, Option<&str>)]) -> bool {
        self.shared.platform.tamper(id, changes)
    }

    /// Removes an account: its address answers 404 from then on, or 410 when `gone`. False: there was none.
    pub fn remove_account(&self, id: &str, gone: bool) -> bool {
        self.shared.platform.remove(id, gone)
    }

    /// Suspends the platform, or ends that.
    pub fn set_suspended(&self, suspended: bool) {
        self.shared.platform.set_suspended(suspended);
    }

    /// Replaces the token that is accepted, as when a secret is rotated.
    pub fn set_token(&self, token: &str) {
        self.shared.credentials.set_token(token);
    }

    /// Takes back all tokens that were given out for client credentials.
    pub fn revoke_tokens(&self) {
        self.shared.credentials.revoke();
    }

    /// How many tokens were given out for client credentials.
    pub fn tokens_issued(&self) -> u64 {
        self.shared.credentials.issued()
    }

    /// Waits until the condition holds, asking it now and after every request of the API; without a time limit. A
    /// request counts as soon as it is decided on, a moment before its answer leaves.
    pub async fn until(&self, mut holds: impl FnMut(&Self) -> bool) {
        loop {
            let mut decided = std::pin::pin!(self.shared.decided.notified());
            // Listening begins before the question, so that no request falls between the two.
            decided.as_mut().enable();
            if holds(self) {
                return;
            }
            decided.await;
        }
    }

    /// Arms one more fault.
    pub fn arm(&self, rule: FaultRule) {
        self.shared.faults.arm(rule);
    }

    /// Disarms all faults. Whoever waits because of one waits no longer.
    pub fn disarm_all(&self) {
        self.shared.faults.disarm_all();
    }

    /// The faults that are armed.
    pub fn faults(&self) -> Vec<FaultRule> {
        self.shared.faults.rules()
    }

    /// Replaces the values that a picklist field accepts.
    pub fn set_picklist(&self, field: &str, values: &[&str]) {
        self.shared.catalogue.set_picklist(field, values);
    }

    /// The values that picklist fields accept, by field.
    pub fn picklists(&self) -> std::collections::BTreeMap<String, Vec<String>> {
        self.shared.catalogue.picklists()
    }

    /// The packages.
    pub fn packages(&self) -> Vec<Package> {
        self.shared.catalogue.packages()
    }

    /// Replaces the packages.
    pub fn set_packages(&self, packages: Vec<Package>) {
        self.shared.catalogue.set_packages(packages);
    }

    /// The journal's entries, oldest first: every write that came in, whatever became of it.
    pub fn journal(&self) -> Vec<JournalEntry> {
        self.shared.journal.entries()
    }

    /// The journal's entries for one HR employee, oldest first.
    pub fn journal_of(&self, external_id: &str) -> Vec<JournalEntry> {
        self.shared.journal.entries_of(external_id)
    }

    /// What was asked and answered since the start.
    pub fn counts(&self) -> Counts {
        self.shared.journal.counts()
    }

    /// Requests received so far, the control endpoints' included.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// The seed of the random decisions, to be printed.
    pub fn seed_value(&self) -> u64 {
        self.shared.options.seed
    }

    /// Moves the clock by which idempotency keys and issued tokens age.
    pub fn advance_clock(&self, by: Duration) {
        self.shared.platform.advance_clock(by);
    }
}
