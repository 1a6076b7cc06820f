//! Which connection a request goes out on: a kept one where one is open, and never one whose state is not known.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::scripted::{Act, json, read_request};
use super::{EMPLOYEE, PLATFORM, Site, tls};

/// What a platform that keeps its connections has seen.
struct Keeping {
    site: Site,
    connections: Arc<AtomicUsize>,
    /// Told of every connection that has ended, and which end closed it.
    ended: mpsc::UnboundedReceiver<End>,
}

#[derive(Debug, PartialEq, Eq)]
enum End {
    Theirs,
    Ours,
}

impl Keeping {
    /// Each connection takes so many requests and is then closed, without a word in the answer before it.
    async fn new(requests_each: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut site = Site::new([]).await;
        site.platform.address = listener.local_addr().unwrap();
        let credentials = format!("token_file = \"{}/token\"", site.directory.path().display());
        site.client = super::client(&site.platform, &credentials, "timeout = \"5s\"");
        let connections = Arc::new(AtomicUsize::new(0));
        let (tell, ended) = mpsc::unbounded_channel();
        let counted = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                let tell = tell.clone();
                tokio::spawn(async move { tell.send(serve(stream, requests_each).await) });
            }
        });
        Self { site, connections, ended }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

async fn serve(mut stream: TcpStream, requests: usize) -> End {
    for _ in 0..requests {
        if stream.peek(&mut [0]).await.is_ok_and(|length| length == 0) {
            return End::Ours;
        }
        read_request(&mut stream).await;
        let length = EMPLOYEE.len();
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{EMPLOYEE}"
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
    stream.shutdown().await.unwrap();
    End::Theirs
}

#[tokio::test]
async fn requests_one_after_another_share_a_connection() {
    let platform = Keeping::new(usize::MAX).await;
    for _ in 0..5 {
        platform.site.update().await.unwrap();
    }
    assert_eq!(platform.connections(), 1);
    let twenty = join_all((0..20).map(|_| platform.site.update())).await;
    assert!(twenty.iter().all(Result::is_ok));
    let most = platform.connections();
    assert!(most <= 20, "{most}");
    platform.site.update().await.unwrap();
    assert_eq!(platform.connections(), most, "the latest kept is taken again");
}

#[tokio::test]
async fn what_the_platform_has_closed_is_not_used_again() {
    let mut platform = Keeping::new(1).await;
    for sent in 1..=5 {
        platform.site.update().await.unwrap();
        assert_eq!(platform.ended.recv().await.unwrap(), End::Theirs);
        // Time to hear of it.
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(platform.connections(), sent);
    }
}

/// Closed while the request is on its way, which is sent all the same, once: nothing of it was read.
#[tokio::test]
async fn a_platform_that_closes_after_every_answer_costs_no_update() {
    let platform = Keeping::new(1).await;
    for sent in 1..=200 {
        if let Err(failure) = platform.site.update().await {
            // The kernel took the request just before it heard of the end: nobody can tell whether it was read.
            assert!(super::is_ambiguous(&failure), "{failure:?}");
        }
        assert!(platform.connections() <= sent);
    }
}

#[tokio::test]
async fn an_idle_connection_is_closed_by_us_before_the_platform_would() {
    let mut platform = Keeping::new(usize::MAX).await;
    platform.site.update().await.unwrap();
    let since = Instant::now();
    let end = timeout(Duration::from_secs(8), platform.ended.recv()).await.expect("it is never closed");
    assert_eq!(end.unwrap(), End::Ours);
    let waited = since.elapsed();
    assert!((Duration::from_secs(3)..Duration::from_secs(6)).contains(&waited), "{waited:?}");
    platform.site.update().await.unwrap();
    assert_eq!(platform.connections(), 2);
}

/// What comes late on it would be taken for the answer to something else.
#[tokio::test]
async fn a_connection_whose_answer_was_not_read_to_its_end_is_not_used_again() {
    for unfinished in
        [Act::Endless, Act::SendAndStall(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n".to_vec())]
    {
        let site = Site::with("timeout = \"1s\"", [unfinished, json("200 OK", EMPLOYEE)]).await;
        assert!(super::is_ambiguous(&site.update().await.unwrap_err()));
        assert_eq!(site.update().await.unwrap(), "b-1");
        assert_eq!(site.platform.requests().len(), 2);
    }
}

#[tokio::test]
async fn a_platform_that_speaks_http_2_is_asked_on_one_connection() {
    let (acceptor, authority) = tls::acceptor(&[b"h2", b"http/1.1"]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            let stream = TokioIo::new(acceptor.accept(stream).await.unwrap());
            let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(serving.serve_connection(
                stream,
                service_fn(async |request: Request<Incoming>| {
                    assert_eq!(request.version(), Version::HTTP_2);
                    assert_eq!(request.uri().scheme_str(), Some("https"));
                    assert!(request.uri().authority().unwrap().as_str().starts_with("localhost:"));
                    assert_eq!(request.uri().path(), "/api/v1/platforms/acme");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    let answer = Response::builder().header("content-type", "application/json");
                    Ok::<_, Infallible>(
                        answer.body(Full::new(Bytes::from_static(PLATFORM.as_bytes()))).unwrap(),
                    )
                }),
            ));
        }
    });
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("token"), "t").unwrap();
    std::fs::write(directory.path().join("ca.pem"), authority).unwrap();
    let ca = format!("ca_file = \"{}/ca.pem\"", directory.path().display());
    let client = tls::client(address, directory.path(), &ca);
    client.platform().await.unwrap();
    for answer in join_all((0..20).map(|_| client.platform())).await {
        assert_eq!(answer.unwrap().value.id, "acme");
    }
    assert_eq!(connections.load(Ordering::Relaxed), 1);
}
