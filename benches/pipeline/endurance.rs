//! What must not get worse however long it lasts: employees that change all the time, and a platform that is down.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::at_most;
use crate::bench_site::BenchSite;
use crate::platform::Platform;
use crate::table::Line;

/// 100,000 changes to 100 employees, each sent once a second at most.
pub async fn hot(site: &BenchSite) -> Line {
    const EMPLOYEES: u64 = 100;
    const CHANGES: u64 = 100_000;
    let (tell, mut arrivals) = tokio::sync::mpsc::unbounded_channel();
    let platform = Platform::start(Duration::ZERO, Some(tell));
    let process = site.run(&platform.url, "[delivery]\nmin_interval = \"1s\"\n").await;
    let started = Instant::now();
    let last = site.hot_changes(CHANGES, EMPLOYEES).await;
    site.until_settled().await;
    let seconds = started.elapsed().as_secs_f64();
    process.stop();
    let mut held = std::collections::HashMap::new();
    let mut calls = 0_u64;
    while let Ok(arrival) = arrivals.try_recv() {
        calls += 1;
        held.insert(arrival.path, arrival.tag);
    }
    let stale = held.values().filter(|tag| **tag < last).count();
    assert_eq!((held.len() as u64, stale), (EMPLOYEES, 0), "everybody's last value is in place");
    let each = calls as f64 / (EMPLOYEES as f64 * seconds.ceil());
    let figure =
        format!("{each:.2} calls an employee-second ({CHANGES} changes, {calls} calls, {seconds:.1} s)");
    at_most("hot employees: 100,000 changes to 100 employees, min_interval 1 s", each, 1.0, figure, "1")
}

/// 60 s of 503 at 200 changes a second.
pub async fn outage(site: &BenchSite) -> Vec<Line> {
    const LENGTH: Duration = Duration::from_mins(1);
    let platform = Platform::start(Duration::ZERO, None);
    let process = site.run(&platform.url, "[delivery]\nbackoff_max = \"5s\"\n").await;
    for n in 0..1_000 {
        site.tagged_change(1 + n).await;
    }
    site.until_settled().await;
    platform.seen.down.store(true, Ordering::Relaxed);
    let (rss_before, started) = (process.rss_mb(), Instant::now());
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    let mut cpu = vec![process.cpu_seconds()];
    let (mut unconfirmed, mut retained, mut changes) = (0_u64, 0_u64, 0_u64);
    while started.elapsed() < LENGTH {
        ticks.tick().await;
        site.tagged_change(1 + changes * 13 % site.employees).await;
        changes += 1;
        if changes.is_multiple_of(400) {
            let wal = site.wal_behind().await;
            (unconfirmed, retained) = (unconfirmed.max(wal.0), retained.max(wal.1));
            cpu.push(process.cpu_seconds());
        }
    }
    let rss_after = process.rss_mb();
    let half = cpu.len() / 2;
    let growth = (cpu[cpu.len() - 1] - cpu[half]) / (cpu[half] - cpu[0]);
    platform.seen.down.store(false, Ordering::Relaxed);
    let back = Instant::now();
    site.until_settled().await;
    let caught_up = back.elapsed().as_secs_f64();
    process.stop();
    let grown = rss_after - rss_before;
    let mb = |bytes: u64| bytes as f64 / 1024.0 / 1024.0;
    let scene = |what: &str| format!("outage, 60 s of 503 at 200 changes/s: {what}");
    let cpu_total = (cpu[cpu.len() - 1] - cpu[0]) * 1e6 / changes as f64;
    let wal = format!(
        "{:.2} MB unconfirmed, {:.1} MB retained at most; in step {caught_up:.1} s after it",
        mb(unconfirmed),
        mb(retained)
    );
    let memory = format!("{rss_before:.0} MB before, {rss_after:.0} MB at its end");
    let processor = format!("second half {growth:.2} of the first; {cpu_total:.0} µs a change");
    vec![
        at_most(&scene("memory"), grown, 8.0, memory, "flat (8 MB)"),
        at_most(&scene("WAL"), mb(retained), 64.0, wal, "flat (64 MB)"),
        at_most(&scene("CPU"), growth, 1.2, processor, "flat (1.2)"),
    ]
}
