//! A platform that does what it is told, one act a connection, down to the bytes.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// What is done with a connection.
pub(super) enum Act {
    /// Read the request, send these bytes, close.
    Send(Vec<u8>),
    /// Reset without reading anything.
    ResetAtOnce,
    /// Read the request, then reset: it may have been acted on.
    ResetAfterReading,
    /// Read the request, send these bytes, then reset.
    SendAndReset(Vec<u8>),
    /// Read the request, send these bytes, and nothing more for as long as the client waits.
    SendAndStall(Vec<u8>),
    /// Send a head and then a body that does not end.
    Endless,
}

/// An answer with a body and more headers (each ended by CRLF).
pub(super) fn answer(status: &str, content_type: &str, headers: &str, body: &str) -> Act {
    Act::Send(bytes(status, content_type, headers, body))
}

/// A JSON answer.
pub(super) fn json(status: &str, body: &str) -> Act {
    answer(status, "application/json", "", body)
}

/// A problem document of this type.
pub(super) fn problem(status: &str, kind: &str, headers: &str) -> Act {
    let body =
        format!("{{\"type\":\"/problems/{kind}\",\"title\":\"t\",\"status\":0,\"detail\":\"bob@x.org\"}}");
    answer(status, "application/problem+json", headers, &body)
}

pub(super) fn bytes(status: &str, content_type: &str, headers: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\nconnection: close\r\n{headers}\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// The running script.
pub(super) struct Scripted {
    pub(super) address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Scripted {
    pub(super) async fn play(acts: impl IntoIterator<Item = Act>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let mut acts: VecDeque<Act> = acts.into_iter().collect();
        let seen = Arc::clone(&requests);
        tokio::spawn(async move {
            while let Some(act) = acts.pop_front() {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(perform(stream, act, Arc::clone(&seen)));
            }
        });
        Self { address, requests }
    }

    /// What has been read so far, head and body.
    pub(super) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

async fn perform(mut stream: TcpStream, act: Act, seen: Arc<Mutex<Vec<String>>>) {
    if matches!(act, Act::ResetAtOnce) {
        stream.set_zero_linger().unwrap();
        return;
    }
    let request = read_request(&mut stream).await;
    seen.lock().unwrap().push(request);
    match act {
        Act::Send(bytes) => {
            stream.write_all(&bytes).await.unwrap();
            stream.shutdown().await.unwrap();
        }
        Act::SendAndReset(bytes) => {
            stream.write_all(&bytes).await.unwrap();
            stream.set_zero_linger().unwrap();
        }
        Act::ResetAfterReading | Act::ResetAtOnce => stream.set_zero_linger().unwrap(),
        Act::SendAndStall(bytes) => {
            stream.write_all(&bytes).await.unwrap();
            // Ends when the client gives up.
            let ended = stream.read(&mut [0]).await;
            drop(ended);
        }
        Act::Endless => {
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n[";
            stream.write_all(head.as_bytes()).await.unwrap();
            // Fails when the client has had enough.
            let blanks = vec![b' '; 65_536];
            while stream.write_all(&blanks).await.is_ok() {}
        }
    }
}

pub(super) async fn read_request(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).to_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return String::from_utf8(bytes).unwrap();
            }
        }
        assert!(stream.read_buf(&mut bytes).await.unwrap() > 0, "the request ended early");
    }
}
