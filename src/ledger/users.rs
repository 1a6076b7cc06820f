//! Who runs which transaction: the WAL does not say, and a hold should name whose mass change it is.
//!
//! `pg_stat_activity` shows a transaction's user while it is open. It is looked at a few times a second, so the user of a
//! transaction that takes as long is known when its commit arrives; of a shorter one nobody can tell. Kept in memory and
//! bounded.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use super::error::LedgerError;
use super::session::Session;

/// Transactions that are remembered.
const KEPT_MAX: usize = 1_000;

/// The users of recent transactions, by top-level xid.
#[derive(Debug, Default)]
pub struct TransactionUsers {
    seen: Mutex<VecDeque<(u32, String)>>,
}

impl TransactionUsers {
    /// Looks at who has a transaction open now.
    pub async fn look(&self, session: &Session) -> Result<(), LedgerError> {
        let sql = "select backend_xid::text::bigint, usename::text from pg_stat_activity \
                   where datname = current_database() and backend_xid is not null and usename is not null \
                   and pid <> pg_backend_pid()";
        for row in session.query("look at open transactions", sql, &[]).await? {
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
    fn old_transactions_are_forgotten() {
        let users = TransactionUsers::default();
        for xid in 0..=u32::try_from(KEPT_MAX).unwrap() {
            users.note(xid, "ada".to_owned());
        }
        assert_eq!(users.of(std::iter::once(0)), None);
        assert!(users.of(std::iter::once(1)).is_some());
    }
}
