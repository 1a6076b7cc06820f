//! The second floor beside `pg_recvlogical`: the requests of a burst alone, by the client library that delivery uses. Nothing is
//! read from a database and nothing recorded; what a pipeline does on top of the two is what it costs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::platform::Platform;

/// As many at once as delivery has by default.
const AT_ONCE: usize = 32;

/// Requests a second, each a small PATCH on a kept connection.
pub async fn alone(count: u64) -> f64 {
    let platform = Platform::start(Duration::ZERO, None);
    // Without a provider no client can be built, whether it speaks TLS or not; a second one is refused, which is as good.
    drop(rustls::crypto::ring::default_provider().install_default());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let next = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let senders: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let (client, next, url) = (client.clone(), Arc::clone(&next), platform.url.clone());
            tokio::spawn(async move {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= count {
                        break;
                    }
                    let body = format!("{{\"sourceVersion\":{n},\"mobile\":\"r1x0-{n}\"}}");
                    let url = format!("{url}/platforms/bench/employees/b{n}");
                    let answer = client.patch(url).bearer_auth("bench").body(body).send().await.unwrap();
                    assert!(answer.status().is_success());
                    answer.bytes().await.unwrap();
                }
            })
        })
        .collect();
    for sender in senders {
        sender.await.unwrap();
    }
    count as f64 / started.elapsed().as_secs_f64()
}
