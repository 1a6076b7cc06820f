//! A platform that speaks HTTP/2: one connection for everybody, and what happens when it goes.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use benefits_sync::delivery::client::Client;
use benefits_sync::delivery::outcome::Failure;
use bytes::Bytes;
use futures_util::future::join_all;
use h2::Reason;
use h2::server::SendResponse;
use hyper::Response;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::{EMPLOYEE, tls};

/// What is done with a request.
#[derive(Clone, Copy)]
enum Act {
    Answer,
    /// `RST_STREAM`: refused, the connection is well.
    Refuse,
    /// `GOAWAY`, and the answer after a while.
    GoAway,
    /// From now on nothing is read or written on the connection.
    FallSilent,
}

/// By the number of the connection and of the request on it, from 1.
type Script = fn(usize, usize) -> Act;

#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    open: AtomicUsize,
    requests: AtomicUsize,
    /// Of the requests that came over HTTP/1.
    heads: Mutex<Vec<String>>,
}

impl Seen {
    /// Connections ever, connections open now, requests read.
    fn counts(&self) -> (usize, usize, usize) {
        let [connections, open, requests] =
            [&self.connections, &self.open, &self.requests].map(|count| count.load(Ordering::Relaxed));
        (connections, open, requests)
    }
}

struct Platform {
    client: Client,
    seen: Arc<Seen>,
    _directory: TempDir,
}

impl Platform {
    /// The first so many connections speak HTTP/2, the others HTTP/1.
    async fn new(of_http_2: usize, script: Script) -> Self {
        let (both, authority) = tls::acceptor(&[b"h2", b"http/1.1"]);
        let (old, authority_of_old) = tls::acceptor(&[b"http/1.1"]);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let counts = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let number = counts.connections.fetch_add(1, Ordering::Relaxed) + 1;
                let counts = Arc::clone(&counts);
                if number <= of_http_2 {
                    tokio::spawn(serve(both.clone(), stream, number, script, counts));
                } else {
                    tokio::spawn(serve_over_http_1(old.clone(), stream, counts));
                }
            }
        });
        let directory = tls::directory(&(authority + &authority_of_old));
        let client = tls::client(address, directory.path(), "timeout = \"10s\"");
        Self { client, seen, _directory: directory }
    }

    async fn update(&self) -> Result<String, Failure> {
        let outcome = self.client.update("b-1", br#"{"sourceVersion":8}"#.to_vec(), "0123456789abcdef").await;
        outcome.map(|answer| answer.value.id).map_err(|failure| *failure)
    }

    async fn at_once(&self, count: usize) {
        for outcome in join_all((0..count).map(|_| self.update())).await {
            outcome.unwrap();
        }
    }
}

async fn serve(acceptor: TlsAcceptor, stream: TcpStream, number: usize, script: Script, seen: Arc<Seen>) {
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let mut connection = h2::server::handshake(stream).await.unwrap();
    seen.open.fetch_add(1, Ordering::Relaxed);
    let mut nth = 0;
    while let Some(Ok((request, respond))) = connection.accept().await {
        nth += 1;
        seen.requests.fetch_add(1, Ordering::Relaxed);
        assert_eq!(request.uri().path(), "/api/v1/platforms/acme/employees/b-1");
        assert!(request.uri().authority().unwrap().as_str().starts_with("localhost:"));
        assert!(request.headers().get("host").is_none());
        match script(number, nth) {
            Act::Answer => drop(tokio::spawn(respond_after(Duration::from_millis(20), respond))),
            Act::Refuse => {
                let mut respond = respond;
                respond.send_reset(Reason::REFUSED_STREAM);
            }
            Act::GoAway => {
                connection.graceful_shutdown();
                tokio::spawn(respond_after(Duration::from_millis(500), respond));
            }
            Act::FallSilent => std::future::pending().await,
        }
    }
    seen.open.fetch_sub(1, Ordering::Relaxed);
}

async fn respond_after(wait: Duration, mut respond: SendResponse<Bytes>) {
    tokio::time::sleep(wait).await;
    let head = Response::builder().header("content-type", "application/json").body(()).unwrap();
    // Who asked may have gone.
    if let Ok(mut body) = respond.send_response(head, false) {
        drop(body.send_data(Bytes::from_static(EMPLOYEE.as_bytes()), true));
    }
}

async fn serve_over_http_1(acceptor: TlsAcceptor, stream: TcpStream, seen: Arc<Seen>) {
    let mut stream = acceptor.accept(stream).await.unwrap();
    let mut request = Vec::new();
    while !request.ends_with(b"}") {
        assert!(stream.read_buf(&mut request).await.unwrap() > 0);
    }
    seen.requests.fetch_add(1, Ordering::Relaxed);
    seen.heads.lock().unwrap().push(String::from_utf8(request).unwrap());
    stream.write_all(&super::bytes("200 OK", "application/json", "", EMPLOYEE)).await.unwrap();
    stream.shutdown().await.unwrap();
}

#[tokio::test]
async fn everybody_shares_one_connection() {
    let platform = Platform::new(usize::MAX, |_, _| Act::Answer).await;
    // Nobody knows yet that one would do.
    platform.at_once(20).await;
    let (most, ..) = platform.seen.counts();
    for _ in 0..5 {
        platform.at_once(20).await;
    }
    assert_eq!(platform.seen.counts(), (most, 1, 120));
}

#[tokio::test]
async fn a_refused_request_does_not_cost_the_connection() {
    let platform = Platform::new(usize::MAX, |_, nth| if nth == 2 { Act::Refuse } else { Act::Answer }).await;
    platform.update().await.unwrap();
    assert!(super::is_ambiguous(&platform.update().await.unwrap_err()));
    platform.at_once(10).await;
    assert_eq!(platform.seen.counts(), (1, 1, 12));
}

/// What the platform had not begun is sent on another connection, here of HTTP/1, and everything once.
#[tokio::test]
async fn a_platform_that_goes_away_costs_no_update() {
    let platform = Platform::new(1, |_, nth| if nth == 2 { Act::GoAway } else { Act::Answer }).await;
    platform.update().await.unwrap();
    let (long, ()) = tokio::join!(platform.update(), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        platform.update().await.unwrap();
    });
    long.unwrap();
    let (connections, _, requests) = platform.seen.counts();
    assert_eq!((connections, requests), (2, 3));
    let heads = platform.seen.heads.lock().unwrap();
    assert!(heads[0].starts_with("PATCH /api/v1/platforms/acme/employees/b-1 HTTP/1.1\r\n"), "{}", heads[0]);
    assert!(heads[0].contains("host: localhost:"), "{}", heads[0]);
}

#[tokio::test]
async fn a_connection_that_has_fallen_silent_is_given_up_for_everybody() {
    let platform =
        Platform::new(
            usize::MAX,
            |number, nth| if (number, nth) == (1, 2) { Act::FallSilent } else { Act::Answer },
        )
        .await;
    platform.update().await.unwrap();
    let since = Instant::now();
    assert!(super::is_ambiguous(&platform.update().await.unwrap_err()));
    assert!(since.elapsed() < Duration::from_secs(8), "{:?}", since.elapsed());
    platform.update().await.unwrap();
    let (connections, ..) = platform.seen.counts();
    assert_eq!(connections, 2);
}
