//! The instance on this machine: what it says of itself at `http.listen`.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// An instance that takes longer is as good as none.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// No page of ours is larger.
const PAGE_MAX: u64 = 4 << 20;

/// What an instance says of itself.
#[derive(Debug, Clone, Serialize)]
pub struct Instance {
    /// Where it was asked.
    pub address: SocketAddr,
    /// Whether one answered.
    pub answers: bool,
    /// Why it is not ready; empty when it is.
    pub not_ready: Vec<String>,
    /// `closed` (flowing), `half-open` (one probe) or `open` (stopped).
    pub breaker: Option<String>,
}

impl Instance {
    /// Asks it.
    pub(super) async fn ask(address: SocketAddr) -> Self {
        let away = Self { address, answers: false, not_ready: Vec::new(), breaker: None };
        let Some(ready) = page(address, "/readyz").await else { return away };
        let Ok(ready) = serde_json::from_str::<serde_json::Value>(&ready) else { return away };
        let Some(not_ready) = ready.get("not_ready").and_then(|list| list.as_array()) else { return away };
        let not_ready = not_ready.iter().filter_map(|text| text.as_str().map(ToOwned::to_owned)).collect();
        let metrics = page(address, "/metrics").await.unwrap_or_default();
        Self { answers: true, not_ready, breaker: breaker(&metrics).map(ToOwned::to_owned), ..away }
    }
}

fn breaker(metrics: &str) -> Option<&'static str> {
    let line = metrics.lines().find_map(|line| line.strip_prefix("benefits_sync_breaker_state "))?;
    match line.trim() {
        "0" => Some("closed"),
        "1" => Some("half-open"),
        "2" => Some("open"),
        _ => None,
    }
}

/// A page's body. HTTP/1.0, so that it ends where the connection does.
async fn page(address: SocketAddr, path: &str) -> Option<String> {
    let asked = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        let request = format!("GET {path} HTTP/1.0\r\nhost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.take(PAGE_MAX).read_to_string(&mut answer).await.ok()?;
        answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
    };
    tokio::time::timeout(ANSWER_MAX, asked).await.ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_breakers_state_is_read_from_a_scrape() {
        let scrape = "# HELP benefits_sync_breaker_state x\nbenefits_sync_breaker_state 2\n";
        assert_eq!(breaker(scrape), Some("open"));
        assert_eq!(breaker("nothing"), None);
    }
}
