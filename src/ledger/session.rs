//! One SQL session of ours and its prepared statements.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, Statement};

use super::error::{Doing, LedgerError};
use crate::postgres::{self, ConnectError, Target};

/// What every session of ours sets: nothing waits long for a lock, nothing runs long, what is committed is durable.
pub(crate) const OPTIONS: &str = "-c synchronous_commit=on -c lock_timeout=5s -c statement_timeout=60s \
     -c idle_in_transaction_session_timeout=60s -c jit=off";

/// The server gives a statement up after 60 s. Where even that is not heard, something between us and it (a proxy, a pooler)
/// takes our bytes and passes nothing on, which TCP itself never notices.
const ANSWER_MAX: Duration = Duration::from_secs(90);

/// A session. Dropping it closes the connection.
pub struct Session {
    client: postgres::Session,
    statements: Mutex<HashMap<String, Statement>>,
}

impl Session {
    /// Connects. `name` becomes the `application_name` that a DBA sees.
    pub async fn connect(target: &Target, name: &str) -> Result<Arc<Self>, ConnectError> {
        let client = postgres::connect_sql(target, name, OPTIONS).await?;
        Ok(Arc::new(Self { client, statements: Mutex::default() }))
    }

    /// As [`Session::connect`], for statements that find rows by key whatever their parameters: planned once, since for a
    /// few rows planning takes longer than finding them. That holds for HR's record query too. None may take as long as one
    /// over a whole table.
    ///
    /// Planned while a table was small or empty, a statement would read the whole of it for each of its rows long after it has
    /// grown, until statistics are gathered anew. So no plan may begin with that where there is an index; and our own statements
    /// compare keys of the ledger with `= any (array[key])`, which can be the condition of an index, but not of a hash or merge
    /// join, and gives the planner no reason to read an index from end to end.
    pub async fn connect_by_key(target: &Target, name: &str) -> Result<Arc<Self>, ConnectError> {
        let options = format!(
            "{OPTIONS} -c plan_cache_mode=force_generic_plan -c enable_seqscan=off -c statement_timeout=20s"
        );
        let client = postgres::connect_sql(target, name, &options).await?;
        Ok(Arc::new(Self { client, statements: Mutex::default() }))
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// The client, for transactions and plain statements.
    pub fn client(&self) -> &postgres::Session {
        &self.client
    }

    /// Runs a statement that is prepared once a session.
    pub async fn query(
        &self,
        what: &'static str,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, LedgerError> {
        bounded(what, async {
            let statement = self.prepared(what, sql).await?;
            self.client.query(&statement, params).await.doing(what)
        })
        .await
    }

    /// As [`Session::query`], for statements whose rows are of no interest.
    pub async fn execute(
        &self,
        what: &'static str,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<u64, LedgerError> {
        bounded(what, async {
            let statement = self.prepared(what, sql).await?;
            self.client.execute(&statement, params).await.doing(what)
        })
        .await
    }

    /// Runs several statements as one, in the simple protocol.
    pub async fn batch(&self, what: &'static str, sql: &str) -> Result<(), LedgerError> {
        bounded(what, async { self.client.batch_execute(sql).await.doing(what) }).await
    }

    async fn prepared(&self, what: &'static str, sql: &str) -> Result<Statement, LedgerError> {
        let mut statements = self.statements.lock().await;
        if let Some(statement) = statements.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(sql).await.doing(what)?;
        statements.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }
}

async fn bounded<T>(
    what: &'static str,
    answer: impl Future<Output = Result<T, LedgerError>>,
) -> Result<T, LedgerError> {
    let limit = ANSWER_MAX;
    tokio::time::timeout(limit, answer).await.unwrap_or(Err(LedgerError::NoAnswer { what, limit }))
}
