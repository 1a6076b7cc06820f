//! A replication session before its stream: simple queries, and the way into the stream.

use std::time::Duration;

use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::{DataRowBody, Message};
use postgres_protocol::message::frontend;
use tokio::sync::watch;
use tokio::time::timeout;

use super::error::{Phase, ReplicationError, classify};
use super::frames::Frames;
use super::handshake::{Greeting, Handshake, parse, read_message, write};
use super::slot::{Canceller, quote_identifier, quote_literal};
use super::status::Timing;
use super::stream::Stream;
use crate::lsn::Lsn;
use crate::postgres::{ConnectError, Endpoint, Role, Search, ServerError, Target, Wire};

const APPLICATION_NAME: &str = "benefits-sync";
/// Limit for a command that the server answers from memory.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// The queries asked here have a handful of rows.
const MAX_ROWS: usize = 10_000;

/// A row of a simple query: text, or null.
pub type Row = Vec<Option<String>>;

/// A session that can replicate, before it does. A future of it that is dropped half-way leaves it unusable: drop it too.
pub struct Connection {
    pub(super) frames: Frames<Wire>,
    pub(super) greeting: Greeting,
    pub(super) target: Target,
    pub(super) endpoint: Endpoint,
}

/// `IDENTIFY_SYSTEM`: which cluster this is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SystemIdentity {
    /// The cluster's identity, given at initdb; a physical copy has the same.
    pub system_id: u64,
    /// The timeline: one more after every promotion.
    pub timeline: u32,
    /// Up to where WAL is flushed.
    pub flush_lsn: Lsn,
    /// The database.
    pub database: String,
}

/// What to stream, from where, and how attentively.
#[derive(Debug, Clone)]
pub struct StartOptions {
    /// The slot.
    pub slot: String,
    /// The publications, in their own spelling.
    pub publications: Vec<String>,
    /// Where to go on; [`Lsn::ZERO`] for where the slot is. Never before the slot's confirmed position.
    pub start: Lsn,
    /// Whether `pg_logical_emit_message` is wanted too.
    pub messages: bool,
    /// What is durable with us, to be confirmed. The sender may be dropped; the last value stays.
    pub confirmed: watch::Receiver<Lsn>,
    /// Longest time between status updates; a third of the server's `wal_sender_timeout` if that is shorter.
    pub status_interval: Duration,
    /// After so long without a byte the connection is given up; the server is asked for an answer at half of it.
    pub idle_limit: Duration,
}

impl StartOptions {
    /// The defaults: from where the slot is, no messages, a status every 10 s, 60 s of silence.
    pub fn new(slot: &str, publication: &str, confirmed: watch::Receiver<Lsn>) -> Self {
        Self {
            slot: slot.to_owned(),
            publications: vec![publication.to_owned()],
            start: Lsn::ZERO,
            messages: false,
            confirmed,
            status_interval: Duration::from_secs(10),
            idle_limit: Duration::from_mins(1),
        }
    }
}

/// What came in answer to a simple query, so far.
#[derive(Default)]
pub(super) struct Answer {
    pub(super) rows: Vec<Row>,
    pub(super) error: Option<ServerError>,
}

/// The settings that decide how, and whether, to stream.
struct ServerSettings {
    wal_level: String,
    /// `None` when it is switched off.
    wal_sender_timeout: Option<Duration>,
}

impl Connection {
    /// Connects to the first server that will do.
    pub async fn connect(target: &Target) -> Result<Self, ReplicationError> {
        let mut search = Search::new(target);
        while let Some(candidate) = search.next() {
            let attempt = async {
                let mut connection = Self::open(target, &candidate.endpoint).await?;
                let suits = !candidate.is_choosy() || candidate.accepts(connection.role().await?);
                Ok::<_, ReplicationError>(suits.then_some(connection))
            };
            match timeout(target.connect_timeout, attempt).await {
                Ok(Ok(Some(connection))) => return Ok(connection),
                Ok(Ok(None)) => search.unsuitable(),
                Ok(Err(ReplicationError::Connect(error))) => search.failed(error)?,
                Ok(Err(error)) => return Err(error),
                Err(_elapsed) => search.failed(ConnectError::TimedOut {
                    endpoint: candidate.endpoint.to_string(),
                    limit: target.connect_timeout,
                })?,
            }
        }
        Err(search.into_error().into())
    }

    async fn open(target: &Target, endpoint: &Endpoint) -> Result<Self, ConnectError> {
        let wire = Wire::open(target, endpoint).await?;
        Self::over(wire, target, endpoint).await
    }

    /// A session over a wire that stands already.
    pub(super) async fn over(wire: Wire, target: &Target, endpoint: &Endpoint) -> Result<Self, ConnectError> {
        let mut frames = Frames::new(wire);
        let password = target.current_password().await?;
        let handshake = Handshake {
            frames: &mut frames,
            target,
            password: password.as_ref(),
            endpoint: endpoint.to_string(),
        };
        let greeting = handshake.run(APPLICATION_NAME).await?;
        Ok(Self { frames, greeting, target: target.clone(), endpoint: endpoint.clone() })
    }

    /// As in `server_version_num`: 150019 for 15.19.
    pub fn server_version(&self) -> u32 {
        self.greeting.server_version
    }

    /// Which server of the target this is.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The way to end this session from outside, once nothing comes through it any more.
    pub fn canceller(&self) -> Canceller {
        Canceller { greeting: self.greeting, target: self.target.clone(), endpoint: self.endpoint.clone() }
    }

    /// Which cluster this is.
    pub async fn identify_system(&mut self) -> Result<SystemIdentity, ReplicationError> {
        let rows = self.simple_query("IDENTIFY_SYSTEM").await?;
        let bad = || ReplicationError::Protocol("IDENTIFY_SYSTEM has an unexpected answer".to_owned());
        let [system_id, timeline, flush_lsn, database] =
            rows.first().and_then(|row| <&[_; 4]>::try_from(row.as_slice()).ok()).ok_or_else(bad)?;
        Ok(SystemIdentity {
            system_id: parsed(system_id.as_ref()).ok_or_else(bad)?,
            timeline: parsed(timeline.as_ref()).ok_or_else(bad)?,
            flush_lsn: parsed(flush_lsn.as_ref()).ok_or_else(bad)?,
            database: database.clone().unwrap_or_default(),
        })
    }

    /// A query or replication command without parameters; at most 30 s.
    pub async fn simple_query(&mut self, query: &str) -> Result<Vec<Row>, ReplicationError> {
        let mut answer = Answer::default();
        let ask = async {
            self.send_query(query).await?;
            self.collect(&mut answer).await
        };
        match timeout(ANSWER_LIMIT, ask).await {
            Ok(done) => done?,
            Err(_elapsed) => {
                return Err(ReplicationError::NoAnswer { command: "a query", limit: ANSWER_LIMIT });
            }
        }
        match answer.error {
            Some(error) => Err(classify(error, Phase::Query)),
            None => Ok(answer.rows),
        }
    }

    /// Starts streaming. The slot's changes are decoded with protocol 2 on version 15 and 4 from 16 on; large open
    /// transactions come in chunks.
    pub async fn start(mut self, options: StartOptions) -> Result<Stream, ReplicationError> {
        let settings = self.settings().await?;
        settings.allow_decoding()?;
        let command = start_command(&options, self.server_version());
        match timeout(ANSWER_LIMIT, self.enter_stream(&command)).await {
            Ok(Ok(())) => {}
            Ok(Err(ReplicationError::Server { error, .. })) => {
                return Err(self.diagnose(&options.slot, *error).await);
            }
            Ok(Err(error)) => return Err(error),
            Err(_elapsed) => {
                return Err(ReplicationError::NoAnswer { command: "START_REPLICATION", limit: ANSWER_LIMIT });
            }
        }
        let timing = Timing::new(options.status_interval, settings.wal_sender_timeout, options.idle_limit);
        let (frames, writer) = self.frames.split();
        Ok(Stream::new(frames, writer, options.confirmed, timing))
    }

    /// Sends the command and waits for `CopyBothResponse`, which the message parser does not know.
    async fn enter_stream(&mut self, command: &str) -> Result<(), ReplicationError> {
        self.send_query(command).await?;
        loop {
            let head = self.frames.next().await?;
            let body = self.frames.take(head);
            match head.tag {
                b'W' => return Ok(()),
                b'E' => {
                    let Message::ErrorResponse(error) = parse(head.tag, body)? else {
                        return Err(ReplicationError::Protocol("an error that is none".to_owned()));
                    };
                    let error = ServerError::from_fields(error.fields());
                    // The session stays usable, once it has said so; a FATAL error ends it instead, which is found
                    // out by the next query.
                    if self.collect(&mut Answer::default()).await.is_err() {
                        tracing::debug!("the session ended after the error");
                    }
                    return Err(classify(error, Phase::Start));
                }
                b'N' | b'S' => {}
                tag => {
                    return Err(ReplicationError::Protocol(format!(
                        "message {:?} in answer to START_REPLICATION",
                        char::from(tag)
                    )));
                }
            }
        }
    }

    /// The session's role, for `target_session_attrs`.
    async fn role(&mut self) -> Result<Role, ReplicationError> {
        let rows = self.simple_query(Role::QUERY).await?;
        let cell = |index| rows.first().and_then(|row| row.get(index)).and_then(Option::as_deref);
        Ok(Role::from_text(cell(0), cell(1)))
    }

    async fn settings(&mut self) -> Result<ServerSettings, ReplicationError> {
        let rows = self
            .simple_query(
                "select pg_catalog.current_setting('wal_level'), setting from pg_catalog.pg_settings \
                 where name = 'wal_sender_timeout'",
            )
            .await?;
        let cell = |index| rows.first().and_then(|row| row.get(index)).and_then(Option::as_deref);
        let milliseconds = cell(1).and_then(|text| text.parse().ok()).unwrap_or(0);
        Ok(ServerSettings {
            wal_level: cell(0).unwrap_or_default().to_owned(),
            wal_sender_timeout: (milliseconds > 0).then(|| Duration::from_millis(milliseconds)),
        })
    }

    /// Fails when `wal_level` is too low: the server's own errors for it differ by version and language.
    pub(super) async fn require_logical(&mut self) -> Result<(), ReplicationError> {
        self.settings().await?.allow_decoding()
    }

    pub(super) async fn send_query(&mut self, query: &str) -> Result<(), ReplicationError> {
        let mut buffer = BytesMut::new();
        frontend::query(query, &mut buffer)?;
        Ok(write(self.frames.inner_mut(), &buffer).await?)
    }

    /// Collects an answer up to `ReadyForQuery`, past errors too: the session is usable again only after it.
    pub(super) async fn collect(&mut self, answer: &mut Answer) -> Result<(), ReplicationError> {
        loop {
            match read_message(&mut self.frames).await {
                Ok(Message::DataRow(row)) if answer.rows.len() < MAX_ROWS => {
                    answer.rows.push(text_row(&row)?);
                }
                Ok(Message::DataRow(_)) => {
                    return Err(ReplicationError::Protocol(format!("more than {MAX_ROWS} rows")));
                }
                Ok(Message::ErrorResponse(body)) => {
                    answer.error = Some(ServerError::from_fields(body.fields()));
                }
                Ok(Message::ReadyForQuery(_)) => return Ok(()),
                Ok(_) => {}
                // After FATAL the server closes: the error is the answer.
                Err(_) if answer.error.is_some() => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}

impl ServerSettings {
    fn allow_decoding(&self) -> Result<(), ReplicationError> {
        match self.wal_level.as_str() {
            "logical" => Ok(()),
            _ => Err(ReplicationError::WalLevel { found: self.wal_level.clone() }),
        }
    }
}

fn parsed<T: std::str::FromStr>(cell: Option<&String>) -> Option<T> {
    cell?.parse().ok()
}

fn text_row(row: &DataRowBody) -> Result<Row, ReplicationError> {
    let malformed = || ReplicationError::Protocol("a malformed row".to_owned());
    row.ranges()
        .map(|range| {
            let bytes = range.map(|range| row.buffer().get(range).unwrap_or_default());
            Ok(bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned()))
        })
        .collect()
        .or(Err(malformed()))
}

/// `publication_names` is a list of identifiers within a string: quoted twice, else upper case is folded.
fn start_command(options: &StartOptions, server_version: u32) -> String {
    let publications =
        options.publications.iter().map(|name| quote_identifier(name)).collect::<Vec<_>>().join(",");
    let (protocol, origin) = if server_version >= 160_000 { (4, ", origin 'any'") } else { (2, "") };
    let messages = if options.messages { ", messages 'on'" } else { "" };
    format!(
        "START_REPLICATION SLOT {} LOGICAL {} (proto_version '{protocol}', publication_names {}, \
         streaming 'on'{origin}{messages})",
        quote_identifier(&options.slot),
        options.start,
        quote_literal(&publications),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_as_identifiers_inside_a_literal() {
        let (_sender, confirmed) = watch::channel(Lsn::ZERO);
        let mut options = StartOptions::new("slot", "My'Pub", confirmed);
        options.publications.push("a\"b".to_owned());
        options.start = Lsn(0x1_0000_0002);
        assert_eq!(
            start_command(&options, 150_019),
            "START_REPLICATION SLOT \"slot\" LOGICAL 1/2 (proto_version '2', \
             publication_names '\"My''Pub\",\"a\"\"b\"', streaming 'on')"
        );
        options.messages = true;
        assert!(start_command(&options, 180_006).ends_with("streaming 'on', origin 'any', messages 'on')"));
    }
}
