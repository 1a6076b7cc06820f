//! Which connection a request goes out on: a kept one where one is open, and never one whose state is not known.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, timeout};

use super::scripted::{Act, json, read_request};
use super::{EMPLOYEE, PLATFORM, Site, tls};

/// A platform that keeps its connections.
struct Keeping {
    site: Site,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
    /// Told of every connection that has ended, and which end closed it.
    ended: mpsc::UnboundedReceiver<End>,
}

#[derive(Debug, PartialEq, Eq)]
enum End {
    Theirs,
    Ours,
}

/// What becomes of the request after those that are answered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    /// There is none: the connection was closed, without a word in the answer before it.
    IsAnswered,
    /// It is read, and the connection closed.
    IsReadOnly,
}

impl Keeping {
    /// Each connection answers so many requests.
    async fn new(answers: usize, last: Last) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut site = Site::new([]).await;
        site.client = site.client_of(listener.local_addr().unwrap());
        let (connections, requests) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (tell, ended) = mpsc::unbounded_channel();
        let (counted, read) = (Arc::clone(&connections), Arc::clone(&requests));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                let (tell, read) = (tell.clone(), Arc::clone(&read));
                tokio::spawn(async move { tell.send(serve(stream, answers, last, &read).await) });
            }
        });
        Self { site, connections, requests, ended }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

async fn serve(mut stream: TcpStream, answers: usize, last: Last, read: &AtomicUsize) -> End {
    for nth in 0..=answers {
        if nth == answers && last == Last::IsAnswered {
            break;
        }
        if stream.peek(&mut [0]).await.is_ok_and(|length| length == 0) {
            return End::Ours;
        }
        read_request(&mut stream).await;
        read.fetch_add(1, Ordering::Relaxed);
        if nth < answers {
            stream.write_all(answer(EMPLOYEE).as_bytes()).await.unwrap();
        }
    }
    stream.shutdown().await.unwrap();
    End::Theirs
}

/// An answer after which the connection stays.
fn answer(body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}")
}

#[tokio::test]
async fn requests_one_after_another_share_a_connection() {
    let platform = Keeping::new(usize::MAX, Last::IsAnswered).await;
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
    let mut platform = Keeping::new(1, Last::IsAnswered).await;
    for sent in 1..=5 {
        platform.site.update().await.unwrap();
        assert_eq!(platform.ended.recv().await.unwrap(), End::Theirs);
        // Time to hear of it.
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(platform.connections(), sent);
    }
}

#[tokio::test]
async fn a_write_that_a_kept_connection_may_have_taken_is_not_sent_again() {
    let mut platform = Keeping::new(1, Last::IsReadOnly).await;
    platform.site.update().await.unwrap();
    assert!(super::is_ambiguous(&platform.site.update().await.unwrap_err()));
    assert_eq!(platform.ended.recv().await.unwrap(), End::Theirs);
    assert_eq!(platform.requests.load(Ordering::Relaxed), 2);
}

/// A server that takes so many connections and lets all others wait.
#[tokio::test]
async fn who_waits_to_connect_takes_a_connection_that_becomes_free() {
    let (acceptor, authority) = tls::acceptor(&[]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let places = Arc::new(Semaphore::new(2));
    tokio::spawn(async move {
        loop {
            let place = Arc::clone(&places).acquire_owned().await.unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut stream = acceptor.accept(stream).await.unwrap();
                let mut request = Vec::new();
                while stream.read_buf(&mut request).await.is_ok_and(|length| length > 0) {
                    if request.ends_with(b"\r\n\r\n") {
                        request.clear();
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        stream.write_all(answer(PLATFORM).as_bytes()).await.unwrap();
                    }
                }
                drop(place);
            });
        }
    });
    let directory = tls::directory(&authority);
    let client = tls::client(address, directory.path(), "timeout = \"4s\"");
    let since = Instant::now();
    let answers = join_all((0..8).map(|_| client.platform())).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
}

/// The server answers before it has read the body, and reads no more: nothing can be sent after it.
#[tokio::test]
async fn a_connection_that_takes_no_more_is_passed_over() {
    let platform = Keeping::new(usize::MAX, Last::IsAnswered).await;
    let stalling = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = platform.site.client_of(stalling.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = stalling.accept().await.unwrap();
            tokio::spawn(async move {
                stream.read_exact(&mut [0; 256]).await.unwrap();
                stream.write_all(answer(EMPLOYEE).as_bytes()).await.unwrap();
                tokio::time::sleep(Duration::from_hours(1)).await;
            });
        }
    });
    let large = vec![b' '; 16 << 20];
    client.update("b-1", large, "0123456789abcdef").await.unwrap();
    let since = Instant::now();
    client.update("b-1", b"{}".to_vec(), "0123456789abcdef").await.unwrap();
    assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
}

#[tokio::test]
async fn an_idle_connection_is_closed_by_us_before_the_platform_would() {
    let mut platform = Keeping::new(usize::MAX, Last::IsAnswered).await;
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
