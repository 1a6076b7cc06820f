//! Who runs which transaction: the WAL does not say, and a hold should name whose mass change it is.
//!
//! PostgreSQL tells a transaction's user only while it is open. So the list of open transactions, which costs about as much
//! as `select 1`, is asked for 20 times a second; only where one has been on it twice is `pg_stat_activity` looked at, once
//! for each such transaction. A transaction that takes 100 ms or more is known when its commit arrives; of a shorter one
//! nobody can tell, and nobody is guessed. Kept in memory and bounded.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use super::error::LedgerError;
use super::session::Session;

/// Transactions that are remembered.
const KEPT_MAX: usize = 1_000;

/// The users of recent transactions, by top-level xid.
#[derive(Debug, Default)]
pub struct TransactionUsers {
    seen: Mutex<VecDeque<(u32, String)>>,
    open: Mutex<Open>,
}

/// Transactions that were open at the last look.
#[derive(Debug, Default)]
struct Open {
    all: BTreeSet<u32>,
    /// Of them those whose user has been asked for; those of other databases stay unknown.
    asked: BTreeSet<u32>,
}

impl Open {
    /// Takes a look; whether somebody is open for the second time and was not asked for.
    fn look(&mut self, now: BTreeSet<u32>) -> bool {
        self.asked.retain(|xid| now.contains(xid));
        let is_new = now.iter().any(|xid| self.all.contains(xid) && !self.asked.contains(xid));
        if is_new {
            self.asked.clone_from(&now);
        }
        self.all = now;
        is_new
    }
}

impl TransactionUsers {
    /// Looks at which transactions are open now, and at whose they are if one has been for a while.
    pub async fn look(&self, session: &Session) -> Result<(), LedgerError> {
        let sql = include_str!("../../sql/queries/look_at_transactions.sql");
        let rows = session.query("look at open transactions", sql, &[]).await?;
        let open: Vec<i64> = rows.first().map(|row| row.get(0)).unwrap_or_default();
        let open = open.into_iter().filter_map(|xid| u32::try_from(xid).ok()).collect();
        if !self.open.lock().unwrap_or_else(PoisonError::into_inner).look(open) {
            return Ok(());
        }
        let sql = "select backend_xid::text::bigint, usename::text from pg_stat_activity \
                   where datname = current_database() and backend_xid is not null and usename is not null \
                   and pid <> pg_backend_pid()";
        for row in session.query("look at the users of transactions", sql, &[]).await? {
            if let Ok(xid) = u32::try_from(row.get::<_, i64>(0)) {
                self.note(xid, row.get(1));
            }
        }
        Ok(())
    }

    fn note(&self, xid: u32, user: String) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.iter().any(|(known, _)| *known == xid) {
            return;
        }
        if seen.len() >= KEPT_MAX {
            seen.pop_front();
        }
        seen.push_back((xid, user));
    }

    /// The user of all these transactions; none where one is not known, or they are several.
    pub fn of(&self, mut xids: impl Iterator<Item = u32>) -> Option<String> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let user = |xid| seen.iter().rev().find(|(known, _)| *known == xid).map(|(_, user)| user);
        let first = user(xids.next()?)?;
        xids.all(|xid| user(xid) == Some(first)).then(|| first.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_named_only_where_all_transactions_are_known_to_be_theirs() {
        let users = TransactionUsers::default();
        for (xid, user) in [(1, "ada"), (2, "ada"), (3, "bob")] {
            users.note(xid, user.to_owned());
        }
        assert_eq!(users.of([1, 2].into_iter()).as_deref(), Some("ada"));
        assert_eq!(users.of([1, 3].into_iter()), None);
        assert_eq!(users.of([1, 9].into_iter()), None);
        assert_eq!(users.of(std::iter::empty()), None);
    }

    #[test]
    fn a_users_name_is_asked_for_once_when_a_transaction_is_open_at_two_looks() {
        let set = |xids: &[u32]| xids.iter().copied().collect::<BTreeSet<u32>>();
        let mut open = Open::default();
        assert!(!open.look(set(&[1, 2])), "they may be over in a moment");
        assert!(!open.look(set(&[3])), "they were");
        assert!(open.look(set(&[3, 4])));
        assert!(!open.look(set(&[3, 4])), "4 was seen in the same look at the activity as 3");
        assert!(!open.look(set(&[3, 5])));
        assert!(open.look(set(&[3, 5])));
        assert!(!open.look(set(&[])));
    }

    #[test]
    fn old_transactions_are_forgotten() {
        let users = TransactionUsers::default();
        for xid in 0..=u32::try_from(KEPT_MAX).unwrap() {
            users.note(xid, "ada".to_owned());
        }
        assert_eq!(users.of(std::iter::once(0)), None);
        assert!(users.of(std::iter::once(1)).is_some());
    }
}
