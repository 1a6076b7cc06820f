//! One byte stream to a server: TCP or a unix socket, inside TLS where that was agreed.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::error::ConnectError;
use super::target::{Endpoint, Host, Target};
use super::tls;
use crate::config::TlsMode;

/// A silent peer is probed after this long, so that firewalls do not forget the connection.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// Bytes that stay unacknowledged this long end the connection: a peer behind a silent drop is noticed.
const TCP_USER_TIMEOUT: Duration = Duration::from_mins(1);
/// `SSLRequest`: a length and the code 1234 5679, in place of a startup message.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// What a connection runs over.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Transport for T {}

/// A byte stream to a server, ready for the startup message.
pub(crate) struct Wire {
    stream: Box<dyn Transport>,
    /// The hash of the server's certificate, where there is TLS and the certificate allows channel binding.
    server_end_point: Option<Vec<u8>>,
}

impl Wire {
    /// Any stream, without TLS.
    pub(crate) fn plain(stream: impl Transport + 'static) -> Self {
        Self { stream: Box::new(stream), server_end_point: None }
    }

    /// As if secured by a certificate with this hash.
    #[cfg(test)]
    pub(crate) fn bound(stream: impl Transport + 'static, server_end_point: &[u8]) -> Self {
        Self { stream: Box::new(stream), server_end_point: Some(server_end_point.to_vec()) }
    }

    /// SCRAM's channel binding, if there can be one.
    pub(crate) fn server_end_point(&self) -> Option<&[u8]> {
        self.server_end_point.as_deref()
    }

    /// Connects and agrees on TLS. Unix sockets never have TLS, whatever the mode (as in libpq).
    pub(crate) async fn open(target: &Target, endpoint: &Endpoint) -> Result<Self, ConnectError> {
        let unreachable = |source| ConnectError::Unreachable { endpoint: endpoint.to_string(), source };
        let name = match &endpoint.host {
            Host::Unix(directory) => {
                let path = directory.join(format!(".s.PGSQL.{}", endpoint.port));
                return UnixStream::connect(path).await.map(Self::plain).map_err(unreachable);
            }
            Host::Tcp(name) => name,
        };
        // Every address of the name is tried in turn.
        let mut stream = TcpStream::connect((name.as_str(), endpoint.port)).await.map_err(unreachable)?;
        set_options(&stream).map_err(unreachable)?;
        if target.tls == TlsMode::Disable {
            return Ok(Self::plain(stream));
        }
        stream.write_all(&SSL_REQUEST).await.map_err(unreachable)?;
        // Exactly one byte is read before the handshake: anything a man in the middle slipped in behind the answer
        // must meet TLS, not this client's buffer.
        match stream.read_u8().await.map_err(unreachable)? {
            b'S' => secure(stream, target, endpoint, name).await,
            b'N' if target.tls == TlsMode::Prefer => Ok(Self::plain(stream)),
            b'N' => Err(ConnectError::TlsNotOffered { endpoint: endpoint.to_string() }),
            _ => Err(ConnectError::Protocol {
                endpoint: endpoint.to_string(),
                reason: "it does not answer an SSLRequest".to_owned(),
            }),
        }
    }
}

fn set_options(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(
        &TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL).with_retries(3),
    )?;
    socket.set_tcp_user_timeout(Some(TCP_USER_TIMEOUT))
}

async fn secure(
    stream: TcpStream,
    target: &Target,
    endpoint: &Endpoint,
    name: &str,
) -> Result<Wire, ConnectError> {
    let server = ServerName::try_from(name.to_owned()).map_err(|error| ConnectError::Protocol {
        endpoint: endpoint.to_string(),
        reason: format!("its name cannot be used with TLS ({error})"),
    })?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(tls::client_config(target)?));
    let secured =
        connector.connect(server, stream).await.map_err(|error| handshake_error(endpoint, error))?;
    let server_end_point = secured
        .get_ref()
        .1
        .peer_certificates()
        .and_then(<[_]>::first)
        .and_then(|certificate| tls::server_end_point(certificate));
    Ok(Wire { stream: Box::new(secured), server_end_point })
}

/// A certificate that is refused is a matter of configuration; anything else may pass.
fn handshake_error(endpoint: &Endpoint, error: io::Error) -> ConnectError {
    let endpoint = endpoint.to_string();
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(source @ rustls::Error::InvalidCertificate(_)) => {
            ConnectError::Certificate { endpoint, source: source.clone() }
        }
        _ => ConnectError::Unreachable { endpoint, source: error },
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
