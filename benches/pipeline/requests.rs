//! The second floor beside `pg_recvlogical`: the requests of a burst alone, by the client that delivery uses. Nothing is read from a
//! database and nothing recorded; what a pipeline does on top of the two is what it costs.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use benefits_sync::config::Config;
use benefits_sync::delivery::client::Client;

/// As many at once as delivery has by default.
const AT_ONCE: usize = 32;

/// Requests a second, each a small PATCH on a kept connection, to the platform of this configuration.
pub async fn alone(count: u64, config: &Path) -> f64 {
    let client = Arc::new(Client::new(&Config::load(config).unwrap()).unwrap());
    let next = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let senders: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let (client, next) = (Arc::clone(&client), Arc::clone(&next));
            tokio::spawn(async move {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= count {
                        break;
                    }
                    let body = format!("{{\"sourceVersion\":{n},\"mobile\":\"r1x0-{n}\"}}");
                    client.update(&format!("b{n}"), body.into_bytes(), "0123456789abcdef").await.unwrap();
                }
            })
        })
        .collect();
    for sender in senders {
        sender.await.unwrap();
    }
    count as f64 / started.elapsed().as_secs_f64()
}
