//! Connections to one HTTP server, kept between requests.
//!
//! ```text
//!  Origin::send ──▶ a kept connection, or a new one ──▶ request ──▶ answer's head
//!       ▲                                                              │
//!       └───────────── Origin::keep ◀── its whole body was read ◀──────┘
//! ```
//!
//! hyper speaks HTTP on each connection; what is ours is which one a request takes. A platform takes thousands of small requests a
//! second, and an HTTP client for every purpose (redirects, cookies, an address parsed for each request) costs each of them as much again
//! as sending it.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper::header::{HOST, HeaderValue};
use hyper::{Response, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::{Connection as _, HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout};
use tower_service::Service as _;

/// A request; its address is the path and query alone.
pub(super) type Request = hyper::Request<Full<Bytes>>;

/// Receivers commonly close idle connections after five seconds. A request that meets the closing end fails and is
/// ambiguous, so ours are given up first.
const IDLE_MAX: Duration = Duration::from_secs(4);

/// A kept connection that cannot take a request by then is passed over: its server has answered without reading all that it was sent.
const READY_MAX: Duration = Duration::from_millis(100);

/// While somebody waits for an answer over HTTP/2, the server is asked for a sign of life so often: the connection is everybody's,
/// and who gives up on an answer does not know whether it is dead.
const ALIVE_EVERY: Duration = Duration::from_secs(3);

/// A sign of life that takes longer will not come.
const ALIVE_MAX: Duration = Duration::from_secs(2);

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Fault {
    /// No connection: nothing of the request was sent.
    NoConnection(Option<Box<dyn std::error::Error + Send + Sync>>),
    /// The connection ended, with the request or without it.
    Broken,
}

/// Makes connections to whatever server.
#[derive(Clone)]
pub(super) struct Connector {
    connector: HttpsConnector<HttpConnector>,
    connect_max: Duration,
}

impl Connector {
    /// `connect_max`: a longer time to connect, TLS included, says that nobody is there. HTTP/2 is spoken to whom TLS says so.
    pub(super) fn new(tls: rustls::ClientConfig, connect_max: Duration) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        // Shared out among the addresses of a name, so that one that is dead is not all that is tried.
        tcp.set_connect_timeout(Some(connect_max));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(tcp);
        Self { connector, connect_max }
    }

    /// The server at this address: scheme and authority, the rest is not looked at.
    pub(super) fn to(&self, address: &Uri) -> Result<Origin, hyper::http::Error> {
        let authority = address.authority().map_or("", |authority| authority.as_str());
        let scheme = address.scheme_str().unwrap_or_default();
        let address = Uri::builder().scheme(scheme).authority(authority).path_and_query("/").build()?;
        let host = HeaderValue::from_str(authority)?;
        Ok(Origin { connector: self.clone(), address, host, kept: Arc::default() })
    }

    async fn connect(&self, address: &Uri) -> Result<Link, Fault> {
        let connecting = async {
            let mut connector = self.connector.clone();
            poll_fn(|context| connector.poll_ready(context)).await?;
            let stream = connector.call(address.clone()).await?;
            Ok(if stream.connected().is_negotiated_h2() {
                let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                    .timer(TokioTimer::new())
                    .keep_alive_interval(ALIVE_EVERY)
                    .keep_alive_timeout(ALIVE_MAX)
                    .handshake(stream)
                    .await?;
                tokio::spawn(connection);
                Link::Http2(sender)
            } else {
                let (sender, connection) = http1::handshake(stream).await?;
                tokio::spawn(connection);
                Link::Http1(sender)
            })
        };
        match timeout(self.connect_max, connecting).await {
            Ok(connected) => connected.map_err(|error| Fault::NoConnection(Some(error))),
            Err(_elapsed) => Err(Fault::NoConnection(None)),
        }
    }
}

/// One server, with the connections to it.
pub(super) struct Origin {
    connector: Connector,
    address: Uri,
    host: HeaderValue,
    kept: Arc<Kept>,
}

/// What a request goes out on: a connection of HTTP/1 alone, one of HTTP/2 beside others.
pub(super) enum Link {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Link {
    async fn is_ready(&mut self) -> bool {
        match self {
            Self::Http1(sender) => timeout(READY_MAX, sender.ready()).await.is_ok_and(|ready| ready.is_ok()),
            Self::Http2(sender) => !sender.is_closed(),
        }
    }

    async fn send(&mut self, request: Request) -> Result<Response<Incoming>, TrySendError<Request>> {
        match self {
            Self::Http1(sender) => sender.try_send_request(request).await,
            Self::Http2(sender) => sender.try_send_request(request).await,
        }
    }
}

/// A connection for a request, and whether it has taken others before.
type Taken = (Link, bool);

impl Origin {
    /// Scheme and authority.
    pub(super) const fn address(&self) -> &Uri {
        &self.address
    }

    /// Sends a request, once. A kept connection that turns out to have ended before it took anything of the request is none: the
    /// request then goes out on another. With the answer's head comes what it came on, to be kept once all is read.
    pub(super) async fn send(&self, mut request: Request) -> Result<(Response<Incoming>, Link), Fault> {
        loop {
            let (mut link, was_kept) = self.take().await?;
            self.direct(&mut request, &link);
            match link.send(request).await {
                Ok(response) => return Ok((response, link)),
                Err(mut error) => match error.take_message() {
                    Some(unsent) if was_kept => request = unsent,
                    _ => return Err(Fault::Broken),
                },
            }
        }
    }

    /// Keeps a connection for the next request.
    pub(super) fn keep(&self, link: Link) {
        self.kept.keep(link);
    }

    /// A kept connection, or a new one; or one that becomes free before the new one is there, as it will at a server that takes no more.
    async fn take(&self) -> Result<Taken, Fault> {
        if let Some(link) = self.kept.take().await {
            return Ok((link, true));
        }
        let mut connecting = self.connect();
        loop {
            tokio::select! {
                connected = &mut connecting => return connected.unwrap_or(Err(Fault::NoConnection(None))),
                () = self.kept.freed.notified() => {
                    if let Some(link) = self.kept.take().await {
                        return Ok((link, true));
                    }
                }
            }
        }
    }

    /// Connects in a task of its own: where nobody wants the connection any more, it is kept.
    fn connect(&self) -> oneshot::Receiver<Result<Taken, Fault>> {
        let (tell, connected) = oneshot::channel();
        let (connector, address, kept) =
            (self.connector.clone(), self.address.clone(), Arc::clone(&self.kept));
        tokio::spawn(async move {
            let taken = connector.connect(&address).await.map(|link| kept.share(link));
            if let Err(Ok((link, _))) = tell.send(taken) {
                kept.keep(link);
            }
        });
        connected
    }

    /// HTTP/1 wants the host in a header, HTTP/2 in the address.
    fn direct(&self, request: &mut Request, link: &Link) {
        let path = request.uri().path_and_query().cloned();
        match link {
            Link::Http1(_) => {
                request.headers_mut().insert(HOST, self.host.clone());
                // It may have been meant for a connection of HTTP/2.
                if let (Some(path), true) = (path, request.uri().authority().is_some()) {
                    *request.uri_mut() = Uri::from(path);
                }
            }
            Link::Http2(_) => {
                request.headers_mut().remove(HOST);
                let mut parts = self.address.clone().into_parts();
                parts.path_and_query = path;
                // Of the parts of two addresses comes an address.
                if let Ok(whole) = Uri::from_parts(parts) {
                    *request.uri_mut() = whole;
                }
            }
        }
    }
}

/// Connections that can take a request.
#[derive(Default)]
struct Kept {
    state: Mutex<State>,
    /// Told of every one that can take a request again.
    freed: Notify,
}

#[derive(Default)]
struct State {
    /// Since when each has waited, the latest at the back.
    http1: VecDeque<(Instant, http1::SendRequest<Full<Bytes>>)>,
    /// One is enough for everybody. Since when nobody has taken it or given it back.
    http2: Option<(Instant, http2::SendRequest<Full<Bytes>>)>,
    /// Somebody will come and close what has waited too long.
    is_watched: bool,
}

impl State {
    /// Closes what has waited too long; whether anything is left.
    fn close_idle(&mut self) -> bool {
        let now = Instant::now();
        let is_idle = |since: Instant| now.saturating_duration_since(since) >= IDLE_MAX;
        while self.http1.pop_front_if(|(since, _)| is_idle(*since)).is_some() {}
        if self.http2.as_ref().is_some_and(|(since, sender)| is_idle(*since) || sender.is_closed()) {
            self.http2 = None;
        }
        !self.http1.is_empty() || self.http2.is_some()
    }

    fn take(&mut self) -> Option<Link> {
        self.close_idle();
        if let Some((since, sender)) = &mut self.http2 {
            *since = Instant::now();
            return Some(Link::Http2(sender.clone()));
        }
        self.http1.pop_back().map(|(_, sender)| Link::Http1(sender))
    }
}

impl Kept {
    /// One that can take a request now.
    async fn take(&self) -> Option<Link> {
        loop {
            let mut link = self.state().take()?;
            if link.is_ready().await {
                return Some(link);
            }
        }
    }

    /// A new connection of HTTP/2 is everybody's at once; where there is one already, that one is.
    fn share(self: &Arc<Self>, link: Link) -> Taken {
        if !matches!(link, Link::Http2(_)) {
            return (link, false);
        }
        let held = {
            let mut state = self.state();
            state.close_idle();
            state.http2.as_ref().map(|(_, sender)| Link::Http2(sender.clone()))
        };
        if let Some(held) = held {
            return (held, true);
        }
        if let Link::Http2(sender) = &link {
            self.keep(Link::Http2(sender.clone()));
        }
        (link, false)
    }

    fn keep(self: &Arc<Self>, link: Link) {
        let now = Instant::now();
        let mut state = self.state();
        match link {
            Link::Http1(sender) if !sender.is_closed() => {
                state.http1.push_back((now, sender));
                self.freed.notify_one();
            }
            Link::Http2(sender) if !sender.is_closed() => {
                match &mut state.http2 {
                    Some((since, held)) if !held.is_closed() => *since = now,
                    slot => *slot = Some((now, sender)),
                }
                self.freed.notify_waiters();
            }
            Link::Http1(_) | Link::Http2(_) => return,
        }
        if !std::mem::replace(&mut state.is_watched, true) {
            tokio::spawn(Arc::clone(self).watch());
        }
    }

    async fn watch(self: Arc<Self>) {
        loop {
            tokio::time::sleep(IDLE_MAX / 4).await;
            let mut state = self.state();
            if !state.close_idle() {
                state.is_watched = false;
                break;
            }
        }
    }

    /// The state is valid between any two statements, so a poisoned lock is as good as any.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
