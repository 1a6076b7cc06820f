//! The same load beside ever more synced employees: neither a change's cost nor the start may follow their number.

use std::time::{Duration, Instant};

use crate::at_most;
use crate::bench_site::{BenchSite, Keys, Process, median};
use crate::platform::Platform;
use crate::table::Line;

const CHANGES: u64 = 10_000;
/// Rounds of changes that are measured: CPU time is counted in hundredths of a second, which of one round is 1 µs a change.
const ROUNDS: usize = 21;
/// Starts that are timed.
const STARTS: usize = 5;

struct Measured {
    cpu_micros: f64,
    rss_mb: f64,
    start_seconds: f64,
}

pub async fn scale() -> Vec<Line> {
    let mut measured = Vec::new();
    for employees in [10_000, 100_000, 1_000_000] {
        measured.push((employees, of(employees).await));
    }
    let (least, most) = (&measured[0].1, &measured[2].1);
    let growth = most.cpu_micros / least.cpu_micros;
    let costs: Vec<String> =
        measured.iter().map(|(employees, m)| format!("{employees}: {:.0} µs", m.cpu_micros)).collect();
    let scene = |what: &str| format!("scale to 1,000,000 synced: {what}");
    vec![
        at_most(
            &scene("cost of a change"),
            growth,
            1.10,
            format!("{growth:.2} of that at 10,000 (CPU of both sides, {})", costs.join(", ")),
            "1.10",
        ),
        at_most(&scene("memory"), most.rss_mb, 96.0, format!("{:.0} MB at most", most.rss_mb), "96 MB"),
        at_most(
            &scene("start to streaming"),
            most.start_seconds,
            3.0,
            format!("{:.1} s", most.start_seconds),
            "3 s",
        ),
    ]
}

/// Everybody linked without a first sync, and the program started some times. Then rounds of single-row changes: the first
/// finds out what the platform holds, and lets sessions and tables get used to each other; the others are measured.
async fn of(employees: u64) -> Measured {
    let site = BenchSite::new(employees, Keys::Bigint).await;
    let platform = Platform::start(Duration::ZERO, None);
    // The first start compares everyone there is: nobody yet.
    let process = site.run(&platform.url, "").await;
    site.until_compared().await;
    process.stop();
    site.link_everyone().await;
    let mut starts = Vec::new();
    for _ in 1..STARTS {
        let (process, seconds) = timed_start(&site, &platform).await;
        starts.push(seconds);
        process.stop();
    }
    let (process, seconds) = timed_start(&site, &platform).await;
    starts.push(seconds);
    site.until_settled().await;
    // The first count of everybody by state, which is repeated once in minutes and no part of a change.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let mut costs = Vec::new();
    for round in 0..=ROUNDS as u64 {
        let (before, own) = (site.ledger_cost().await, process.cpu_seconds());
        site.change_some(CHANGES, round).await;
        site.until_writes(&platform.seen, CHANGES * (round + 1)).await;
        site.until_settled().await;
        let after = site.ledger_cost().await;
        let cost = after.since(&before, CHANGES, process.cpu_seconds() - own, process.rss_max_mb());
        costs.push(cost.cpu_micros + cost.server_cpu_micros);
    }
    let rss_mb = process.rss_max_mb();
    process.stop();
    Measured { cpu_micros: median(&mut costs[1..]), rss_mb, start_seconds: median(&mut starts) }
}

/// A start, and the seconds until it streams.
async fn timed_start(site: &BenchSite, platform: &Platform) -> (Process, f64) {
    let started = Instant::now();
    let process = site.run(&platform.url, "").await;
    (process, started.elapsed().as_secs_f64())
}
