//! From a wire to a session: the startup message, authentication, and the parameters the server reports.

use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{
    ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256,
};
use postgres_protocol::message::backend::{AuthenticationSaslBody, Message};
use postgres_protocol::message::frontend;
use secrecy::{ExposeSecret, SecretString};
use std::io;
use tokio::io::AsyncWriteExt;

use super::error::ReplicationError;
use super::frames::Frames;
use crate::postgres::{ConnectError, ServerError, Target, Wire, version_number};

/// No message before the stream is longer; the body is copied to be parsed.
const MAX_MESSAGE: usize = 1024 * 1024;

/// What the server told while the session was set up.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Greeting {
    pub(super) server_version: u32,
    pub(super) process_id: i32,
    pub(super) secret_key: i32,
}

/// The dialogue before the session is ready.
pub(super) struct Handshake<'a> {
    pub(super) frames: &'a mut Frames<Wire>,
    pub(super) target: &'a Target,
    pub(super) password: Option<&'a SecretString>,
    /// `host:port`, for errors.
    pub(super) endpoint: String,
}

impl Handshake<'_> {
    /// Asks for a replication session in the database and goes on until the server is ready for a query.
    pub(super) async fn run(mut self, application_name: &str) -> Result<Greeting, ConnectError> {
        // As in the generated function that reads child rows: a time in a row's key has one text.
        let options = self.target.startup_options("-c timezone=UTC");
        let parameters = [
            ("user", self.target.user.as_str()),
            ("database", self.target.database.as_str()),
            ("replication", "database"),
            ("client_encoding", "UTF8"),
            ("application_name", self.target.application_name.as_deref().unwrap_or(application_name)),
            ("options", options.as_str()),
        ];
        self.send(|buffer| frontend::startup_message(parameters, buffer)).await?;
        self.authenticate().await?;
        let mut greeting = Greeting::default();
        loop {
            match self.receive().await? {
                Message::BackendKeyData(key) => {
                    greeting.process_id = key.process_id();
                    greeting.secret_key = key.secret_key();
                }
                Message::ParameterStatus(status) if status.name().ok() == Some("server_version") => {
                    greeting.server_version = status.value().ok().and_then(version_number).unwrap_or(0);
                }
                Message::ParameterStatus(_) => {}
                Message::ReadyForQuery(_) => return Ok(greeting),
                _ => return Err(self.unexpected("session parameters")),
            }
        }
    }

    async fn authenticate(&mut self) -> Result<(), ConnectError> {
        match self.receive().await? {
            Message::AuthenticationOk => return Ok(()),
            Message::AuthenticationCleartextPassword => {
                let password = self.password()?.to_owned();
                self.send(|buffer| frontend::password_message(password.as_bytes(), buffer)).await?;
            }
            Message::AuthenticationMd5Password(request) => {
                let hash = md5_hash(self.target.user.as_bytes(), self.password()?.as_bytes(), request.salt());
                self.send(|buffer| frontend::password_message(hash.as_bytes(), buffer)).await?;
            }
            Message::AuthenticationSasl(request) => self.scram(&request).await?,
            Message::AuthenticationGss | Message::AuthenticationSspi | Message::AuthenticationKerberosV5 => {
                return Err(self.cannot_authenticate("it asks for Kerberos (GSSAPI), which is not supported"));
            }
            _ => return Err(self.unexpected("an authentication request")),
        }
        match self.receive().await? {
            Message::AuthenticationOk => Ok(()),
            _ => Err(self.unexpected("the outcome of authentication")),
        }
    }

    async fn scram(&mut self, request: &AuthenticationSaslBody) -> Result<(), ConnectError> {
        let (mut plain, mut plus) = (false, false);
        let mut mechanisms = request.mechanisms();
        while let Ok(Some(mechanism)) = mechanisms.next() {
            plain |= mechanism == SCRAM_SHA_256;
            plus |= mechanism == SCRAM_SHA_256_PLUS;
        }
        let hash = self.frames.inner_mut().server_end_point().map(<[u8]>::to_vec);
        let (mechanism, binding) = match (plus, plain, hash) {
            (true, _, Some(hash)) => (SCRAM_SHA_256_PLUS, ChannelBinding::tls_server_end_point(hash)),
            // "We could, but you did not offer it": a server that did will see that somebody removed the offer.
            (false, true, Some(_)) => (SCRAM_SHA_256, ChannelBinding::unrequested()),
            (_, true, None) => (SCRAM_SHA_256, ChannelBinding::unsupported()),
            _ => return Err(self.cannot_authenticate("it offers no SCRAM mechanism that can be used here")),
        };
        let mut scram = ScramSha256::new(self.password()?.as_bytes(), binding);
        self.send(|buffer| frontend::sasl_initial_response(mechanism, scram.message(), buffer)).await?;
        let Message::AuthenticationSaslContinue(challenge) = self.receive().await? else {
            return Err(self.unexpected("a SCRAM challenge"));
        };
        scram.update(challenge.data()).map_err(|error| self.cannot_authenticate(&error.to_string()))?;
        self.send(|buffer| frontend::sasl_response(scram.message(), buffer)).await?;
        let Message::AuthenticationSaslFinal(proof) = self.receive().await? else {
            return Err(self.unexpected("the server's SCRAM proof"));
        };
        scram.finish(proof.data()).map_err(|error| self.cannot_authenticate(&error.to_string()))
    }

    fn password(&self) -> Result<&str, ConnectError> {
        self.password
            .map(ExposeSecret::expose_secret)
            .ok_or_else(|| ConnectError::PasswordMissing { endpoint: self.endpoint.clone() })
    }

    async fn send(
        &mut self,
        build: impl FnOnce(&mut BytesMut) -> io::Result<()>,
    ) -> Result<(), ConnectError> {
        let mut buffer = BytesMut::new();
        let written = match build(&mut buffer) {
            Ok(()) => write(self.frames.inner_mut(), &buffer).await,
            Err(error) => Err(error),
        };
        written.map_err(|source| ConnectError::Unreachable { endpoint: self.endpoint.clone(), source })
    }

    /// The next message that is not a notice. An error of the server is one here.
    async fn receive(&mut self) -> Result<Message, ConnectError> {
        loop {
            match read_message(self.frames).await {
                Ok(Message::NoticeResponse(_)) => {}
                Ok(Message::ErrorResponse(body)) => {
                    let error = Box::new(ServerError::from_fields(body.fields()));
                    return Err(ConnectError::Refused { endpoint: self.endpoint.clone(), error });
                }
                Ok(message) => return Ok(message),
                Err(ReplicationError::Io(source)) => {
                    return Err(ConnectError::Unreachable { endpoint: self.endpoint.clone(), source });
                }
                Err(ReplicationError::Closed { .. }) => {
                    let source = io::ErrorKind::UnexpectedEof.into();
                    return Err(ConnectError::Unreachable { endpoint: self.endpoint.clone(), source });
                }
                Err(error) => {
                    let reason = error.to_string();
                    return Err(ConnectError::Protocol { endpoint: self.endpoint.clone(), reason });
                }
            }
        }
    }

    fn unexpected(&self, wanted: &str) -> ConnectError {
        ConnectError::Protocol {
            endpoint: self.endpoint.clone(),
            reason: format!("it does not send {wanted}"),
        }
    }

    fn cannot_authenticate(&self, reason: &str) -> ConnectError {
        ConnectError::Authentication { endpoint: self.endpoint.clone(), reason: reason.to_owned() }
    }
}

/// Writes all of it, through TLS's own buffer too.
pub(super) async fn write(wire: &mut Wire, bytes: &[u8]) -> io::Result<()> {
    wire.write_all(bytes).await?;
    wire.flush().await
}

/// The next message outside the stream, parsed and owned.
pub(super) async fn read_message(frames: &mut Frames<Wire>) -> Result<Message, ReplicationError> {
    let head = frames.next().await?;
    parse(head.tag, frames.take(head))
}

/// Copies a message out of the buffer and has it parsed. Not for the stream's data.
pub(super) fn parse(tag: u8, body: &[u8]) -> Result<Message, ReplicationError> {
    let length = match u32::try_from(body.len() + 4) {
        Ok(length) if body.len() <= MAX_MESSAGE => length,
        _ => return Err(ReplicationError::Protocol(format!("a message of {} bytes", body.len()))),
    };
    let mut whole = BytesMut::with_capacity(body.len() + 5);
    whole.extend_from_slice(&[tag]);
    whole.extend_from_slice(&length.to_be_bytes());
    whole.extend_from_slice(body);
    Message::parse(&mut whole)
        .map_err(|error| ReplicationError::Protocol(error.to_string()))?
        .ok_or_else(|| ReplicationError::Protocol("a message is shorter than its length".to_owned()))
}
