//! Whose the child rows are.

use std::collections::BTreeMap;

use super::{Marked, Marks, PAGE};
use crate::ledger::doubt;
use crate::ledger::error::{LedgerError, Trouble};
use crate::selection::{KeyHash, Touches};

impl Marks {
    /// Reads and records the child rows of employees, in the transaction under way. Whom a row has left is added to `left`:
    /// the reader will meet that change later, and will not be able to tell any more. Where HR's tables or rights are not as
    /// they were described, that is a doubt and no reason to stop: everybody's changes would wait.
    pub(super) async fn seed(
        &self,
        enrolled: &[String],
        left: &mut Vec<String>,
        marked: &mut Marked,
    ) -> Result<Vec<KeyHash>, LedgerError> {
        if enrolled.is_empty() {
            return Ok(Vec::new());
        }
        let rows = self.attempt(self.read_owners(enrolled, left)).await?;
        if let Err(error) = &rows {
            tracing::error!(
                %error,
                "whose child rows are cannot be read: describe HR's tables as they are now; until then nothing that they \
                 lose is missed, but much is read in vain"
            );
            doubt::note(&self.session, "owners").await?;
            marked.gaps = true;
        }
        Ok(rows.unwrap_or_default())
    }

    async fn read_owners(
        &self,
        enrolled: &[String],
        left: &mut Vec<String>,
    ) -> Result<Vec<KeyHash>, LedgerError> {
        let mut hashes = Vec::new();
        let page = usize::try_from(PAGE).unwrap_or(1);
        for ids in enrolled.chunks(page) {
            let sql = include_str!("../../../sql/queries/seed_owners.sql");
            let rows = self.session.query("read whose rows are", sql, &[&ids]).await?;
            left.extend(rows.iter().filter_map(|row| row.get::<_, Option<String>>(2)));
            hashes
                .extend(rows.iter().map(|row| self.hasher.row(row.get(0), row.get::<_, &str>(1).as_bytes())));
        }
        Ok(hashes)
    }

    /// Tries statements that read what HR has described, in the transaction under way. The inner error is one that a person
    /// has to mend, a statement that takes too long among them, since it would at every attempt: the transaction is then as
    /// if they had not been tried.
    pub(super) async fn attempt<T>(
        &self,
        reading: impl Future<Output = Result<T, LedgerError>>,
    ) -> Result<Result<T, LedgerError>, LedgerError> {
        self.session.batch("set a savepoint", "savepoint described").await?;
        match reading.await {
            Ok(read) => {
                self.session.batch("release a savepoint", "release savepoint described").await?;
                Ok(Ok(read))
            }
            Err(error) if error.trouble() == Trouble::Passing && !error.was_cancelled() => Err(error),
            Err(error) => {
                self.session.batch("roll back", "rollback to savepoint described").await?;
                Ok(Err(error))
            }
        }
    }

    pub(super) async fn own(&self, owned: &BTreeMap<(i32, &str), &str>) -> Result<Vec<String>, LedgerError> {
        if owned.is_empty() {
            return Ok(Vec::new());
        }
        let sources: Vec<i32> = owned.keys().map(|(source, _)| *source).collect();
        let rows: Vec<&str> = owned.keys().map(|(_, row)| *row).collect();
        let employees: Vec<&str> = owned.values().copied().collect();
        let sql = include_str!("../../../sql/queries/own_rows.sql");
        let left = self.session.query("record whose rows are", sql, &[&sources, &rows, &employees]).await?;
        Ok(left.iter().map(|row| row.get(0)).collect())
    }

    pub(super) async fn take_orphans(&self, touches: &Touches) -> Result<Vec<String>, LedgerError> {
        if touches.orphaned.is_empty() {
            return Ok(Vec::new());
        }
        let sources: Vec<i32> = touches.orphaned.iter().map(|(source, _)| *source).collect();
        let rows: Vec<&str> = touches.orphaned.iter().map(|(_, row)| row.as_ref()).collect();
        let sql = include_str!("../../../sql/queries/take_orphans.sql");
        let owners = self.session.query("find whose rows were", sql, &[&sources, &rows]).await?;
        Ok(owners.iter().map(|row| row.get(0)).collect())
    }
}
