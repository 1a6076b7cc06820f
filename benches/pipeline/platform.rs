//! A platform that says yes to everything as fast as it can: what is measured is the client, not this.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// What the platform has seen.
#[derive(Default)]
pub struct Seen {
    pub writes: AtomicU64,
    pub finds: AtomicU64,
    /// What writes were kept waiting, together.
    pub waited_micros: AtomicU64,
    /// Every write is answered 503.
    pub down: AtomicBool,
}

/// A request that carried a tag (its `mobile`).
pub struct Arrival {
    pub tag: u64,
    pub path: String,
    pub at: Instant,
}

pub struct Platform {
    pub url: String,
    pub seen: Arc<Seen>,
}

impl Platform {
    /// Starts it on threads of its own: one for all connections, or one for each where writes take `delay`, which is then kept
    /// to a tenth of a millisecond. `arrivals` is told of every tagged write.
    pub fn start(delay: Duration, arrivals: Option<mpsc::UnboundedSender<Arrival>>) -> Self {
        let seen = Arc::new(Seen::default());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a non-blocking listener");
        let url = format!("http://{}/api/v1", listener.local_addr().expect("an address"));
        let counts = Arc::clone(&seen);
        std::thread::spawn(move || {
            on_this_thread(async move {
                let listener = TcpListener::from_std(listener).expect("a listener");
                while let Ok((stream, _)) = listener.accept().await {
                    let stream = stream.into_std().expect("a stream");
                    let serving = serve(stream, Arc::clone(&counts), delay, arrivals.clone());
                    if delay.is_zero() {
                        tokio::spawn(serving);
                    } else {
                        std::thread::spawn(move || {
                            // The kernel may wake who sleeps 50 µs late otherwise, to save power.
                            let at_once = std::num::NonZeroU64::new(1);
                            rustix::thread::set_current_timer_slack(at_once).expect("a timer's slack");
                            on_this_thread(serving)
                        });
                    }
                }
            });
        });
        Self { url, seen }
    }
}

fn on_this_thread<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work)
}

async fn serve(
    stream: std::net::TcpStream,
    seen: Arc<Seen>,
    delay: Duration,
    arrivals: Option<mpsc::UnboundedSender<Arrival>>,
) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut stream = TcpStream::from_std(stream).ok()?;
    let mut buffer = Vec::with_capacity(8192);
    loop {
        let (end, length) = loop {
            if let Some(end) = find(&buffer, b"\r\n\r\n") {
                break (end, content_length(buffer.get(..end)?));
            }
            if stream.read_buf(&mut buffer).await.ok()? == 0 {
                return None;
            }
        };
        let whole = end + 4 + length;
        while buffer.len() < whole {
            if stream.read_buf(&mut buffer).await.ok()? == 0 {
                return None;
            }
        }
        let at = Instant::now();
        let head = std::str::from_utf8(buffer.get(..end)?).ok()?;
        if let (Some(arrivals), Some(tag)) = (&arrivals, tag(buffer.get(end + 4..whole)?)) {
            let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
            // Whoever listened may have heard enough.
            drop(arrivals.send(Arrival { tag, path, at }));
        }
        let answer = answer(head, &seen);
        if length > 0 && !delay.is_zero() {
            // The runtime's own timer comes up to a millisecond late, which of 20 ms is more than the target allows us.
            // Nobody else is on this thread.
            std::thread::sleep(delay.saturating_sub(at.elapsed()));
            seen.waited_micros.fetch_add(at.elapsed().as_micros() as u64, Ordering::Relaxed);
        }
        stream.write_all(answer.as_bytes()).await.ok()?;
        buffer.drain(..whole);
    }
}

fn answer(head: &str, seen: &Seen) -> String {
    let target = head.split(' ').nth(1).unwrap_or_default();
    let path = target.split('?').next().unwrap_or_default();
    let writes = head.starts_with("POST") || head.starts_with("PATCH");
    let (status, body) = if writes && seen.down.load(Ordering::Relaxed) {
        ("503 Service Unavailable", "{}".to_owned())
    } else if head.starts_with("POST") {
        let number = seen.writes.fetch_add(1, Ordering::Relaxed);
        ("201 Created", format!("{{\"id\":\"b{number}\",\"status\":\"active\",\"email\":\"a@b.example\"}}"))
    } else if head.starts_with("PATCH") {
        seen.writes.fetch_add(1, Ordering::Relaxed);
        let id = path.rsplit('/').next().unwrap_or_default();
        ("200 OK", format!("{{\"id\":\"{id}\",\"status\":\"active\",\"email\":\"a@b.example\"}}"))
    } else if path.ends_with("/employees") {
        seen.finds.fetch_add(1, Ordering::Relaxed);
        ("200 OK", "{\"items\":[]}".to_owned())
    } else if path.ends_with("/packages") {
        ("200 OK", "{\"items\":[]}".to_owned())
    } else if path.ends_with("/picklists") {
        ("200 OK", "{}".to_owned())
    } else {
        ("200 OK", "{\"id\":\"bench\",\"name\":\"Bench\",\"status\":\"active\"}".to_owned())
    };
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

fn content_length(head: &[u8]) -> usize {
    const NAME: &[u8] = b"content-length:";
    let is_it = |line: &&[u8]| line.get(..NAME.len()).is_some_and(|name| name.eq_ignore_ascii_case(NAME));
    let line = head.split(|byte| *byte == b'\n').find(is_it).unwrap_or_default();
    let value = std::str::from_utf8(line.get(NAME.len()..).unwrap_or_default()).unwrap_or_default();
    value.trim().parse().unwrap_or(0)
}

fn tag(body: &[u8]) -> Option<u64> {
    let start = find(body, b"\"mobile\":\"")? + 10;
    let digits = body.get(start..)?.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(body.get(start..start + digits)?).ok()?.parse().ok()
}
