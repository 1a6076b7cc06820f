//! The accounts and the rules of the document: links, versions, uniqueness, idempotency keys.
//!
//! A write is parsed and held to the schema before it comes here; then everything is decided in one critical section of
//! a few microseconds, so a write happens wholly or not at all, and two with one key cannot both act.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::account::{Account, AccountView, SeedAccount, email_key};
use super::answer::{Accepted, Problem};
use super::draft::{FieldError, Write};
use super::field::{EMAIL, index_of};
use super::keys::{Asked, BodyHash, Keys, Known};

/// Ids are this and a number of at least six digits.
const ID_PREFIX: &str = "ben-";

/// Why an account cannot be seeded.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SeedError {
    /// No such property in the API document.
    #[error("an account has no field {0}")]
    UnknownField(String),
    /// Emails are unique ignoring case, and each account has one.
    #[error("the email is missing or belongs to another account")]
    Email,
    /// Another account is linked to that employee.
    #[error("another account is linked to that employee")]
    ExternalId,
}

/// What stands at an account's address.
#[derive(Debug)]
enum Slot {
    Held(Box<Account>),
    /// 404
    Removed,
    /// 410
    Gone,
}

#[derive(Debug)]
struct State {
    slots: Vec<Slot>,
    by_email: HashMap<String, usize>,
    by_external_id: HashMap<String, usize>,
    keys: Keys,
}

/// All accounts of the one platform.
#[derive(Debug)]
pub(super) struct Platform {
    state: Mutex<State>,
    suspended: AtomicBool,
    started: Instant,
    clock_ahead_millis: AtomicU64,
}

/// A write on its way in.
#[derive(Debug)]
pub(super) struct Request<'a> {
    /// The `Idempotency-Key`.
    pub(super) key: &'a str,
    pub(super) body: BodyHash,
    /// Whether [`Platform::reserve`] was called for it.
    pub(super) reserved: bool,
    /// The body as the schema sees it.
    pub(super) write: Result<Write, Vec<FieldError>>,
    /// Whether the package it names exists.
    pub(super) package_known: bool,
}

/// What became of an accepted write.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) accepted: Accepted,
    /// Whether this is the answer of an earlier write with the same key.
    pub(super) replayed: bool,
}

/// What a page of accounts is selected by.
#[derive(Debug, Default)]
pub(super) struct Filter {
    pub(super) email: Option<String>,
    pub(super) external_id: Option<String>,
    /// Where a former page ended.
    pub(super) cursor: usize,
    pub(super) limit: usize,
}

impl Platform {
    pub(super) fn new(keys_max: usize) -> Self {
        let state = State {
            slots: Vec::new(),
            by_email: HashMap::new(),
            by_external_id: HashMap::new(),
            keys: Keys::new(keys_max),
        };
        Self {
            state: Mutex::new(state),
            suspended: AtomicBool::new(false),
            started: Instant::now(),
            clock_ahead_millis: AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sandbox's clock.
    pub(super) fn now(&self) -> Duration {
        self.started.elapsed() + Duration::from_millis(self.clock_ahead_millis.load(Ordering::Relaxed))
    }

    pub(super) fn advance_clock(&self, by: Duration) {
        let millis = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.clock_ahead_millis.fetch_add(millis, Ordering::Relaxed);
    }

    pub(super) fn set_suspended(&self, suspended: bool) {
        self.suspended.store(suspended, Ordering::Relaxed);
    }

    pub(super) fn is_suspended(&self) -> bool {
        self.suspended.load(Ordering::Relaxed)
    }

    /// Marks a key as being worked on until the guard is dropped. A key that is known already is left alone: the
    /// write itself will find the same.
    pub(super) fn reserve<'a>(&'a self, key: &'a str, asked: Asked) -> Option<Reservation<'a>> {
        let mut state = self.lock();
        if !matches!(state.keys.look(self.now(), key, asked, false), Known::New) {
            return None;
        }
        state.keys.begin(key);
        Some(Reservation { platform: self, key })
    }

    /// Creates an account.
    pub(super) fn create(&self, request: Request<'_>) -> Result<Outcome, Problem> {
        let now = self.now();
        let mut state = self.lock();
        let asked = Asked { account: None, body: request.body };
        if let Some(outcome) = state.known(now, &request, asked)? {
            return Ok(outcome);
        }
        let write = request.write.map_err(Problem::Validation)?;
        request.package_known.then_some(()).ok_or(Problem::UnknownPackage)?;
        let index = state.slots.len();
        state.check_unique(index, &write)?;

        let mut account = Account::new(id_of(index));
        apply(&mut account, write, request.body);
        let accepted = Accepted { created: Some(account.id.clone()), body: shown(&account) };
        state.insert(account);
        state.keys.keep(now, request.key, asked, accepted.clone());
        Ok(Outcome { accepted, replayed: false })
    }

    /// Changes the fields that are present.
    pub(super) fn patch(&self, id: &str, request: Request<'_>) -> Result<Outcome, Problem> {
        let now = self.now();
        let index = index_of_id(id).ok_or(NO_ACCOUNT)?;
        let mut state = self.lock();
        let asked = Asked { account: Some(index), body: request.body };
        if let Some(outcome) = state.known(now, &request, asked)? {
            return Ok(outcome);
        }
        let account = state.held(index)?;
        let write = request.write.map_err(Problem::Validation)?;
        request.package_known.then_some(()).ok_or(Problem::UnknownPackage)?;
        let unchanged = match account.source_version {
            Some(held) if write.source_version < held => return Err(Problem::StaleSourceVersion),
            Some(held) if write.source_version == held => {
                (account.accepted_body == Some(request.body))
                    .then_some(())
                    .ok_or(Problem::StaleSourceVersion)?;
                true
            }
            _ => false,
        };
        if !unchanged {
            check_link(account.external_id.as_deref(), &write)?;
            state.check_unique(index, &write)?;
            state.change(index, |account| apply(account, write, request.body));
        }
        let accepted = Accepted { created: None, body: shown(state.held(index)?) };
        state.keys.keep(now, request.key, asked, accepted.clone());
        Ok(Outcome { accepted, replayed: false })
    }

    /// The account at this address, as the API shows it.
    pub(super) fn get(&self, id: &str) -> Result<Bytes, Problem> {
        let index = index_of_id(id).ok_or(NO_ACCOUNT)?;
        self.lock().held(index).map(shown)
    }

    /// A page of accounts as JSON texts, and where the next one starts.
    pub(super) fn find(&self, filter: &Filter) -> (Vec<Bytes>, Option<usize>) {
        let state = self.lock();
        if filter.email.is_some() || filter.external_id.is_some() {
            let by_email = filter.email.as_deref().map(|email| state.by_email.get(&email_key(email)));
            let by_external = filter.external_id.as_deref().map(|id| state.by_external_id.get(id));
            let found = match (by_email, by_external) {
                (Some(a), Some(b)) => a.filter(|_| a == b),
                (Some(one), None) | (None, Some(one)) => one,
                (None, None) => None,
            };
            let account = found.and_then(|index| state.held(*index).ok());
            return (account.map(shown).into_iter().collect(), None);
        }
        let mut rest =
            state.slots.iter().enumerate().skip(filter.cursor).filter_map(|(index, slot)| match slot {
                Slot::Held(account) => Some((index, account)),
                Slot::Removed | Slot::Gone => None,
            });
        let page: Vec<Bytes> = rest.by_ref().take(filter.limit).map(|(_, account)| shown(account)).collect();
        (page, rest.next().map(|(index, _)| index))
    }

    /// The HR employee the account is linked to, for faults that are aimed at one.
    pub(super) fn external_id_of(&self, id: &str) -> Option<String> {
        self.lock().held(index_of_id(id)?).ok()?.external_id.clone()
    }

    pub(super) fn seed(&self, account: SeedAccount) -> Result<String, SeedError> {
        let mut state = self.lock();
        let id = id_of(state.slots.len());
        let account = account.build(id.clone()).map_err(SeedError::UnknownField)?;
        let email = account.email_key();
        if email.is_empty() || state.by_email.contains_key(&email) {
            return Err(SeedError::Email);
        }
        if account.external_id.as_ref().is_some_and(|id| state.by_external_id.contains_key(id)) {
            return Err(SeedError::ExternalId);
        }
        state.insert(account);
        Ok(id)
    }

    pub(super) fn tamper(&self, id: &str, changes: &[(&str, Option<&str>)]) -> bool {
        let mut state = self.lock();
        let Some(index) = index_of_id(id).filter(|index| state.held(*index).is_ok()) else { return false };
        let mut places = Vec::new();
        for (name, value) in changes {
            let Some(at) = index_of(name) else { return false };
            let taken =
                |email: &str| state.by_email.get(&email_key(email)).is_some_and(|other| *other != index);
            if at == EMAIL && value.is_none_or(taken) {
                return false;
            }
            places.push((at, value.map(Box::from)));
        }
        state.change(index, |account| places.into_iter().for_each(|(at, value)| account.set(at, value)));
        true
    }

    pub(super) fn remove(&self, id: &str, gone: bool) -> bool {
        let mut state = self.lock();
        let Some(index) = index_of_id(id) else { return false };
        let Ok(account) = state.held(index) else { return false };
        let (email, external_id) = (account.email_key(), account.external_id.clone());
        state.by_email.remove(&email);
        external_id.map(|id| state.by_external_id.remove(&id));
        if let Some(slot) = state.slots.get_mut(index) {
            *slot = if gone { Slot::Gone } else { Slot::Removed };
        }
        true
    }

    pub(super) fn accounts(&self) -> Vec<AccountView> {
        let state = self.lock();
        let held = state.slots.iter().filter_map(|slot| match slot {
            Slot::Held(account) => Some(account.view()),
            Slot::Removed | Slot::Gone => None,
        });
        held.collect()
    }

    pub(super) fn account(&self, id: &str) -> Option<AccountView> {
        Some(self.lock().held(index_of_id(id)?).ok()?.view())
    }

    pub(super) fn account_of(&self, external_id: &str) -> Option<AccountView> {
        let state = self.lock();
        let index = *state.by_external_id.get(external_id)?;
        Some(state.held(index).ok()?.view())
    }

    /// Accounts, linked accounts and idempotency keys that are there.
    pub(super) fn sizes(&self) -> (usize, usize, usize) {
        let state = self.lock();
        (state.by_email.len(), state.by_external_id.len(), state.keys.len())
    }
}

const NO_ACCOUNT: Problem = Problem::NotFound("there is no such employee");

impl State {
    /// The answer that the key already has, if it has one.
    fn known(
        &mut self,
        now: Duration,
        request: &Request<'_>,
        asked: Asked,
    ) -> Result<Option<Outcome>, Problem> {
        match self.keys.look(now, request.key, asked, request.reserved) {
            Known::New => Ok(None),
            Known::Accepted(accepted) => Ok(Some(Outcome { accepted, replayed: true })),
            Known::Reused => Err(Problem::IdempotencyKeyReused),
            Known::InProgress => Err(Problem::RequestInProgress),
        }
    }

    fn held(&self, index: usize) -> Result<&Account, Problem> {
        match self.slots.get(index) {
            Some(Slot::Held(account)) => Ok(account),
            Some(Slot::Gone) => Err(Problem::Gone),
            Some(Slot::Removed) | None => Err(NO_ACCOUNT),
        }
    }

    /// Neither the HR id nor the email may belong to an account other than the one at `index`.
    fn check_unique(&self, index: usize, write: &Write) -> Result<(), Problem> {
        let other = |owner: Option<&usize>| owner.is_some_and(|owner| *owner != index);
        if write.external_id.as_ref().is_some_and(|id| other(self.by_external_id.get(id))) {
            return Err(Problem::ExternalIdInUse);
        }
        let email = write.changes.iter().find(|(at, _)| *at == EMAIL).and_then(|(_, email)| email.as_deref());
        match email {
            Some(email) if other(self.by_email.get(&email_key(email))) => Err(Problem::EmailInUse),
            _ => Ok(()),
        }
    }

    fn insert(&mut self, account: Account) {
        let index = self.slots.len();
        self.by_email.insert(account.email_key(), index);
        if let Some(id) = &account.external_id {
            self.by_external_id.insert(id.clone(), index);
        }
        self.slots.push(Slot::Held(Box::new(account)));
    }

    /// Changes an account and keeps the indexes in step.
    fn change(&mut self, index: usize, change: impl FnOnce(&mut Account)) {
        let Some(Slot::Held(account)) = self.slots.get_mut(index) else { return };
        let (email, external_id) = (account.email_key(), account.external_id.clone());
        change(account);
        let email_now = account.email_key();
        if email_now != email {
            self.by_email.remove(&email);
            self.by_email.insert(email_now, index);
        }
        if account.external_id != external_id {
            external_id.map(|id| self.by_external_id.remove(&id));
            account.external_id.clone().map(|id| self.by_external_id.insert(id, index));
        }
    }
}

/// A patch may set the link where there is none, repeat it, or move it by naming the one that is held.
fn check_link(held: Option<&str>, write: &Write) -> Result<(), Problem> {
    let Some(wanted) = write.external_id.as_deref() else { return Ok(()) };
    let allowed = match (held, write.previous_external_id.as_deref()) {
        (None, None) => true,
        (Some(held), None) => held == wanted,
        (held, Some(previous)) => held == Some(previous),
    };
    allowed.then_some(()).ok_or(Problem::ExternalIdMismatch)
}

fn apply(account: &mut Account, write: Write, body: BodyHash) {
    if write.external_id.is_some() {
        account.external_id = write.external_id;
    }
    account.source_version = Some(write.source_version);
    account.accepted_body = Some(body);
    for (at, value) in write.changes {
        account.set(at, value);
    }
}

fn shown(account: &Account) -> Bytes {
    // An account serialises from text and numbers only: it cannot fail.
    let mut json = Vec::with_capacity(1024);
    serde_json::to_writer(&mut json, account).map_or_else(|_never| Bytes::new(), |()| json.into())
}

fn id_of(index: usize) -> String {
    format!("{ID_PREFIX}{:06}", index + 1)
}

/// The place of an account's address among all, whether or not anything is there.
pub(super) fn index_of_id(id: &str) -> Option<usize> {
    let digits = id.strip_prefix(ID_PREFIX)?;
    let number: usize = digits.parse().ok()?;
    let index = number.checked_sub(1)?;
    (id_of(index) == id).then_some(index)
}

/// While it lives, the key counts as being worked on; also when the client goes away meanwhile.
#[derive(Debug)]
pub(super) struct Reservation<'a> {
    platform: &'a Platform,
    key: &'a str,
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.platform.lock().keys.end(self.key);
    }
}
