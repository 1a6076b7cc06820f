//! The pipeline against targets, on a throw-away PostgreSQL: `make bench`.
//!
//! Each scene prepares its backlog first, then times the real program from its start until the ledger has nothing pending.
//! The floor is `pg_recvlogical` reading the same backlog from a second slot to nowhere, in the same run. The platform that
//! answers is a trivial one ([`platform`]). Figures are medians; ratios within a run are what can be compared.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::cast_precision_loss,
    reason = "a measuring program that cannot go on should stop"
)]

mod bench_site;
mod platform;

use std::time::{Duration, Instant};

use bench_site::{BenchSite, Cost, median};

/// Employees that are synced in the burst scenes.
const EMPLOYEES: u64 = 50_000;

struct Line {
    scene: String,
    figure: String,
    target: &'static str,
    met: Option<bool>,
}

fn main() {
    // cargo passes --bench; anything else names the scenes to run.
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let wants = |scene: &str| wanted.is_empty() || wanted.iter().any(|name| scene.contains(name.as_str()));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let lines = runtime.block_on(async {
        let mut lines = Vec::new();
        let site = BenchSite::new(EMPLOYEES).await;
        println!("fsync of one commit: {:.2} ms", site.fsync_ms().await);
        lines.push(first_sync(&site).await);
        for (scene, rows) in [
            ("burst, single-row transactions", 1),
            ("burst, 100 rows", 100),
            ("burst, one transaction", EMPLOYEES),
        ] {
            if wants("burst") {
                lines.push(burst(&site, scene, rows).await);
            }
        }
        if wants("noise") {
            lines.extend(noise(&site).await);
        }
        if wants("slow") {
            lines.extend(slow(&site).await);
        }
        if wants("latency") {
            lines.extend(latency(&site).await);
        }
        lines
    });
    println!("\n| scene | figure | target | verdict |\n|---|---|---|---|");
    for line in lines {
        let verdict = line.met.map_or("", |met| if met { "met" } else { "missed" });
        println!("| {} | {} | {} | {verdict} |", line.scene, line.figure, line.target);
    }
}

/// Find by email, then create, for everyone.
async fn first_sync(site: &BenchSite) -> Line {
    let platform = platform::Platform::start(Duration::ZERO, None);
    let process = site.run(&platform.url, "").await;
    let started = Instant::now();
    site.sync_everyone().await;
    site.until_settled().await;
    let seconds = started.elapsed().as_secs_f64();
    process.stop();
    let rate = EMPLOYEES as f64 / seconds;
    Line {
        scene: format!("first sync of {EMPLOYEES}"),
        figure: format!("{rate:.0} employees/s ({seconds:.1} s)"),
        target: "8,000/s",
        met: Some(rate >= 8_000.0),
    }
}

/// One change an employee, prepared while nobody reads.
async fn burst(site: &BenchSite, scene: &str, rows: u64) -> Line {
    let mut rates = Vec::new();
    let mut floors = Vec::new();
    let mut costs: Vec<Cost> = Vec::new();
    for round in 0..3 {
        site.change_everyone(rows, round).await;
        floors.push(site.floor().await);
        let platform = platform::Platform::start(Duration::ZERO, None);
        let before = site.ledger_cost().await;
        let started = Instant::now();
        let process = site.start(&platform.url, "");
        site.until_writes(&platform.seen, EMPLOYEES).await;
        site.until_settled().await;
        rates.push(EMPLOYEES as f64 / started.elapsed().as_secs_f64());
        costs.push(site.ledger_cost().await.since(
            &before,
            EMPLOYEES,
            process.cpu_seconds(),
            process.rss_max_mb(),
        ));
        process.stop();
    }
    let (rate, floor) = (median(&mut rates), median(&mut floors));
    let cost = costs.last().map(ToString::to_string).unwrap_or_default();
    Line {
        scene: scene.to_owned(),
        figure: format!("{rate:.0} acknowledged/s; floor {:.0}/s; {cost}", EMPLOYEES as f64 / floor),
        target: "25,000/s",
        met: Some(rate >= 25_000.0),
    }
}

/// A million changes, one in a hundred of a synced employee.
async fn noise(site: &BenchSite) -> Vec<Line> {
    const CHANGES: u64 = 1_000_000;
    let mut ratios = Vec::new();
    let mut micros = Vec::new();
    for round in 0..3 {
        site.make_noise(CHANGES, round).await;
        let floor = site.floor().await;
        let platform = platform::Platform::start(Duration::ZERO, None);
        let started = Instant::now();
        let process = site.start(&platform.url, "");
        site.until_passed().await;
        ratios.push(started.elapsed().as_secs_f64() / floor);
        micros.push(process.cpu_seconds() * 1e6 / CHANGES as f64);
        site.until_settled().await;
        process.stop();
    }
    let (ratio, cpu) = (median(&mut ratios), median(&mut micros));
    vec![
        Line {
            scene: "noise: 1,000,000 changes, 1 % relevant".to_owned(),
            figure: format!("{ratio:.2} of pg_recvlogical's wall time"),
            target: "1.10",
            met: Some(ratio <= 1.10),
        },
        Line {
            scene: "noise: CPU".to_owned(),
            figure: format!("{cpu:.2} µs a change, kernel and delivery included"),
            target: "2.5 µs",
            met: Some(cpu <= 2.5),
        },
    ]
}

/// The burst at 20 ms an answer, and a single change in the middle.
async fn slow(site: &BenchSite) -> Vec<Line> {
    site.change_everyone(100, 99).await;
    let delay = Duration::from_millis(20);
    let (tell, mut arrivals) = tokio::sync::mpsc::unbounded_channel();
    let platform = platform::Platform::start(delay, Some(tell));
    let started = Instant::now();
    let process = site.start(&platform.url, "");
    site.until_writes(&platform.seen, EMPLOYEES / 4).await;
    let (tag, committed) = site.tagged_change(1).await;
    let overtaking = loop {
        let (seen, at) = arrivals.recv().await.expect("an arrival");
        if seen == tag {
            break at.duration_since(committed);
        }
    };
    site.until_settled().await;
    let seconds = started.elapsed().as_secs_f64();
    process.stop();
    let bound = EMPLOYEES as f64 * delay.as_secs_f64() / 32.0;
    vec![
        Line {
            scene: "slow platform: 20 ms an answer, 32 in flight".to_owned(),
            figure: format!("{:.2} of the bound ({seconds:.1} s)", seconds / bound),
            target: "1.03",
            met: Some(seconds / bound <= 1.03),
        },
        Line {
            scene: "slow platform: a single change meanwhile".to_owned(),
            figure: format!("{} ms", overtaking.as_millis()),
            target: "100 ms",
            met: Some(overtaking <= Duration::from_millis(100)),
        },
    ]
}

/// 200 commits a second for 30 s, from the acknowledged commit to the request at the platform.
async fn latency(site: &BenchSite) -> Vec<Line> {
    const COMMITS: u64 = 6_000;
    let (tell, mut arrivals) = tokio::sync::mpsc::unbounded_channel();
    let platform = platform::Platform::start(Duration::ZERO, Some(tell));
    let process = site.run(&platform.url, "").await;
    let mut committed = std::collections::HashMap::new();
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    for number in 0..COMMITS {
        ticks.tick().await;
        let (tag, at) = site.tagged_change(1 + number * 7 % EMPLOYEES).await;
        committed.insert(tag, at);
    }
    site.until_settled().await;
    process.stop();
    let mut waits: Vec<f64> = Vec::new();
    while let Ok((tag, at)) = arrivals.try_recv() {
        if let Some(since) = committed.remove(&tag) {
            waits.push(at.saturating_duration_since(since).as_secs_f64() * 1e3);
        }
    }
    waits.sort_by(f64::total_cmp);
    let at = |share: f64| {
        waits
            .iter()
            .skip_while({
                let mut left = (waits.len() - 1) as f64 * share;
                move |_| {
                    left -= 1.0;
                    left >= 0.0
                }
            })
            .copied()
            .next()
            .unwrap_or_default()
    };
    println!("latency: {} of {COMMITS} commits seen one by one", waits.len());
    vec![
        Line {
            scene: "latency at 200 commits/s, p50".to_owned(),
            figure: format!("{:.2} ms", at(0.5)),
            target: "1.5 ms",
            met: Some(at(0.5) <= 1.5),
        },
        Line {
            scene: "latency at 200 commits/s, p99".to_owned(),
            figure: format!("{:.2} ms", at(0.99)),
            target: "6 ms",
            met: Some(at(0.99) <= 6.0),
        },
    ]
}
