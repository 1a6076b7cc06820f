//! Sessions for ordinary queries: `tokio-postgres` over a [`Wire`].
//!
//! The client crate is given a stream that is secured already, so that its own TLS and host handling (which knows no
//! `verify-full`, no CA file and no second host list) stay out of the way; authentication is its own.

use std::future::{Ready, poll_fn, ready};
use std::ops::{Deref, DerefMut};

use secrecy::ExposeSecret;
use tokio_postgres::config::{SslMode, SslNegotiation};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};
use tokio_postgres::{AsyncMessage, Client, Config, Connection, SimpleQueryMessage};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::error::ConnectError;
use super::hosts::{Candidate, Role, Search};
use super::server::{ServerError, version_number};
use super::target::{Endpoint, Target};
use super::wire::Wire;

/// A session. It is the client (by `Deref`), and ends when it is dropped.
#[derive(Debug)]
pub struct Session {
    client: Client,
    closed: CancellationToken,
    server_version: u32,
}

impl Session {
    /// Waits until the session has ended, for whatever reason.
    pub async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// As in `server_version_num`: 150019 for 15.19.
    pub fn server_version(&self) -> u32 {
        self.server_version
    }
}

impl Deref for Session {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

/// Opens a session at the first server that will do. `session_options` are startup options in the form
/// `-c lock_timeout=5s -c statement_timeout=30s`, added to the pinned ones.
pub async fn connect_sql(
    target: &Target,
    application_name: &str,
    session_options: &str,
) -> Result<Session, ConnectError> {
    let config = config(target, application_name, session_options).await?;
    let mut search = Search::new(target);
    while let Some(candidate) = search.next() {
        let attempt = open(target, &candidate, &config);
        let outcome =
            tokio::time::timeout(target.connect_timeout, attempt).await.unwrap_or_else(|_elapsed| {
                Err(ConnectError::TimedOut {
                    endpoint: candidate.endpoint.to_string(),
                    limit: target.connect_timeout,
                })
            });
        match outcome {
            Ok(Some(session)) => return Ok(session),
            Ok(None) => search.unsuitable(),
            Err(error) => search.failed(error)?,
        }
    }
    Err(search.into_error())
}

async fn config(
    target: &Target,
    application_name: &str,
    session_options: &str,
) -> Result<Config, ConnectError> {
    let mut config = Config::new();
    config
        .user(&target.user)
        .dbname(&target.database)
        .application_name(target.application_name.as_deref().unwrap_or(application_name))
        .options(target.startup_options(session_options))
        // The stream that is handed over is taken as it is: see AlreadySecured.
        .ssl_mode(SslMode::Require)
        .ssl_negotiation(SslNegotiation::Direct);
    if let Some(password) = target.current_password().await? {
        config.password(password.expose_secret());
    }
    Ok(config)
}

/// A session with this server; `None` when it is not of the wanted kind.
async fn open(
    target: &Target,
    candidate: &Candidate,
    config: &Config,
) -> Result<Option<Session>, ConnectError> {
    let endpoint = &candidate.endpoint;
    let wire = Wire::open(target, endpoint).await?;
    let (client, connection) =
        config.connect_raw(wire, AlreadySecured).await.map_err(|error| classify(endpoint, error))?;
    let server_version = connection.parameter("server_version").and_then(version_number).unwrap_or(0);
    let closed = CancellationToken::new();
    tokio::spawn(drive(connection, closed.clone().drop_guard()));
    if candidate.is_choosy() {
        let answer = client.simple_query(Role::QUERY).await.map_err(|error| classify(endpoint, error))?;
        let role = answer.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(Role::from_text(row.try_get(0).ok()?, row.try_get(1).ok()?)),
            _ => None,
        });
        if !role.is_some_and(|role| candidate.accepts(role)) {
            return Ok(None);
        }
    }
    Ok(Some(Session { client, closed, server_version }))
}

/// Runs the connection until it ends. Notices show at debug level, without their text: it may quote values.
async fn drive(mut connection: Connection<Wire, Wire>, closed: DropGuard) {
    loop {
        match poll_fn(|cx| connection.poll_message(cx)).await {
            Some(Ok(AsyncMessage::Notice(notice))) => {
                tracing::debug!(
                    severity = notice.severity(),
                    code = notice.code().code(),
                    "notice from PostgreSQL"
                );
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                tracing::debug!(%error, "a PostgreSQL session ended");
                break;
            }
            None => break,
        }
    }
    drop(closed);
}

fn classify(endpoint: &Endpoint, error: tokio_postgres::Error) -> ConnectError {
    let endpoint = endpoint.to_string();
    if let Some(refusal) = error.as_db_error() {
        return ConnectError::Refused { endpoint, error: Box::new(ServerError::from(refusal)) };
    }
    let text = error.to_string();
    let reason = std::error::Error::source(&error).map_or_else(|| text.clone(), ToString::to_string);
    if reason.contains("password missing") {
        ConnectError::PasswordMissing { endpoint }
    } else if text.starts_with("authentication error") {
        ConnectError::Authentication { endpoint, reason }
    } else if error.is_closed() {
        ConnectError::Unreachable { endpoint, source: std::io::ErrorKind::UnexpectedEof.into() }
    } else {
        let source = error.into_source().and_then(|source| source.downcast::<std::io::Error>().ok());
        match source {
            Some(source) => ConnectError::Unreachable { endpoint, source: *source },
            _ => ConnectError::Protocol { endpoint, reason },
        }
    }
}

/// "TLS" for the client crate: the wire is secured already, or deliberately not.
struct AlreadySecured;

impl TlsConnect<Wire> for AlreadySecured {
    type Stream = Wire;
    type Error = std::convert::Infallible;
    type Future = Ready<Result<Wire, Self::Error>>;

    fn connect(self, stream: Wire) -> Self::Future {
        ready(Ok(stream))
    }
}

impl TlsStream for Wire {
    fn channel_binding(&self) -> ChannelBinding {
        match self.server_end_point() {
            Some(hash) => ChannelBinding::tls_server_end_point(hash.to_vec()),
            None => ChannelBinding::none(),
        }
    }
}
