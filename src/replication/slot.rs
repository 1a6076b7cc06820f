//! Making a slot, and finding out what is wrong with one.

use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use tokio::time::timeout;

use super::connection::{Answer, Connection};
use super::error::{Phase, Problem, ReplicationError, classify};
use super::handshake::{Greeting, write};
use crate::lsn::Lsn;
use crate::postgres::{Endpoint, ServerError, Target, Wire};

/// How long the server gets to obey a cancel request.
const CANCEL_LIMIT: Duration = Duration::from_secs(10);
const QUERY_CANCELED: &str = "57014";

/// A new slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreatedSlot {
    /// Every transaction that commits after this position comes through the slot.
    pub consistent_point: Lsn,
}

impl Connection {
    /// Creates a logical slot for pgoutput, without a snapshot. `failover` (the slot is synchronised to standbys) needs
    /// version 17 and is ignored before.
    ///
    /// The server waits for every transaction that is open at the moment, which can be for ever. After `limit` the
    /// command is cancelled, what is left of the slot dropped, and the error says where to look.
    pub async fn create_slot(
        &mut self,
        name: &str,
        failover: bool,
        limit: Duration,
    ) -> Result<CreatedSlot, ReplicationError> {
        self.require_logical().await?;
        let failover = if failover && self.server_version() >= 170_000 { ", FAILOVER" } else { "" };
        let name_quoted = quote_identifier(name);
        let command =
            format!("CREATE_REPLICATION_SLOT {name_quoted} LOGICAL pgoutput (SNAPSHOT 'nothing'{failover})");
        self.send_query(&command).await?;
        let mut answer = Answer::default();
        let timed_out = match timeout(limit, self.collect(&mut answer)).await {
            Ok(done) => {
                done?;
                false
            }
            Err(_elapsed) => {
                self.canceller().cancel().await?;
                timeout(CANCEL_LIMIT, self.collect(&mut answer)).await.or(Err(
                    ReplicationError::NoAnswer { command: "a cancel request", limit: CANCEL_LIMIT },
                ))??;
                true
            }
        };
        match answer.error {
            // The slot may have been finished just before the request arrived: then it is as good as any.
            None => consistent_point(&answer),
            Some(error) if timed_out && error.code == QUERY_CANCELED => {
                self.drop_leftover(name).await?;
                Err(ReplicationError::SlotCreationTimedOut { slot: name.to_owned(), limit })
            }
            Some(error) => Err(classify(error, Phase::Create)),
        }
    }

    /// Drops a slot; waits until nobody uses it any more.
    pub async fn drop_slot(&mut self, name: &str) -> Result<(), ReplicationError> {
        self.simple_query(&format!("DROP_REPLICATION_SLOT {} WAIT", quote_identifier(name))).await.map(drop)
    }

    /// A slot that is not finished goes with its command, so there should be none. Creation would have failed at once
    /// had there been one of that name before, so whatever is there is ours.
    async fn drop_leftover(&mut self, name: &str) -> Result<(), ReplicationError> {
        let query = format!(
            "select 1 from pg_catalog.pg_replication_slots where slot_name = {} and not active",
            quote_literal(name)
        );
        if self.simple_query(&query).await?.is_empty() { Ok(()) } else { self.drop_slot(name).await }
    }

    /// What an error at `START_REPLICATION` means. SQLSTATE 55000 alone says no more than "not in this state", and the
    /// message may be in any language, so the slot itself is looked at.
    pub(super) async fn diagnose(&mut self, slot: &str, error: ServerError) -> ReplicationError {
        if matches!(error.code.as_str(), "55006" | "42501" | "53300") || error.code.starts_with("57P") {
            return classify(error, Phase::Start);
        }
        let invalidated = match self.server_version() {
            170_000.. => "invalidation_reason is not null",
            160_000.. => "coalesce(conflicting, false)",
            _ => "false",
        };
        let query = format!(
            "select case when plugin is distinct from 'pgoutput' \
                           or database is distinct from pg_catalog.current_database() then 'foreign' \
                         when coalesce(wal_status = 'lost', false) or {invalidated} then 'lost' \
                         else 'sound' end \
             from pg_catalog.pg_replication_slots where slot_name = {}",
            quote_literal(slot)
        );
        let Ok(rows) = self.simple_query(&query).await else { return classify(error, Phase::Start) };
        let verdict = rows.first().and_then(|row| row.first()).and_then(Option::as_deref);
        let problem = match verdict {
            None => Problem::SlotMissing,
            Some("foreign") => Problem::SlotForeign,
            Some("lost") => Problem::SlotLost,
            // The slot says it is well, and yet its WAL file is gone.
            Some(_) if error.code == "58P01" => Problem::SlotLost,
            Some(_) => Problem::Other,
        };
        ReplicationError::Server { problem, error: Box::new(error) }
    }
}

/// Makes the server give up what a session is doing, over a connection of its own (the only way there is). It needs the
/// session's secret, so it cannot hit another one.
#[derive(Clone)]
pub struct Canceller {
    pub(super) greeting: Greeting,
    pub(super) target: Target,
    pub(super) endpoint: Endpoint,
}

impl Canceller {
    /// Asks; the server does not say whether there was anything to give up.
    pub async fn cancel(&self) -> Result<(), ReplicationError> {
        let request = async {
            let mut wire = Wire::open(&self.target, &self.endpoint).await?;
            let mut buffer = BytesMut::new();
            frontend::cancel_request(self.greeting.process_id, self.greeting.secret_key, &mut buffer);
            write(&mut wire, &buffer).await?;
            Ok(())
        };
        timeout(CANCEL_LIMIT, request)
            .await
            .unwrap_or(Err(ReplicationError::NoAnswer { command: "a cancel request", limit: CANCEL_LIMIT }))
    }
}

fn consistent_point(answer: &Answer) -> Result<CreatedSlot, ReplicationError> {
    // slot_name, consistent_point, snapshot_name, output_plugin
    let cell = answer.rows.first().and_then(|row| row.get(1)).and_then(Option::as_deref);
    let consistent_point = cell.and_then(|text| text.parse().ok()).ok_or_else(|| {
        ReplicationError::Protocol("CREATE_REPLICATION_SLOT has an unexpected answer".to_owned())
    })?;
    Ok(CreatedSlot { consistent_point })
}

/// `"name"`, quotes doubled.
pub(super) fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `'text'`, quotes doubled. Neither replication commands nor `standard_conforming_strings` read backslashes.
pub(super) fn quote_literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
