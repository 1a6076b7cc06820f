//! What goes on all day: noise, a slow platform, single changes.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::at_most;
use crate::bench_site::{BenchSite, median};
use crate::platform::Platform;
use crate::table::Line;

/// A million changes, one in a hundred of a synced employee.
pub async fn noise(site: &BenchSite) -> Vec<Line> {
    const CHANGES: u64 = 1_000_000;
    let mut ratios = Vec::new();
    let mut micros = Vec::new();
    for round in 0..3 {
        site.make_noise(CHANGES, round).await;
        let floor = site.floor().await;
        let platform = Platform::start(Duration::ZERO, None);
        let started = Instant::now();
        let process = site.start(&platform.url, "");
        site.until_passed().await;
        ratios.push(started.elapsed().as_secs_f64() / floor);
        micros.push(process.cpu_seconds() * 1e6 / CHANGES as f64);
        site.until_settled().await;
        site.rest().await;
        process.stop();
    }
    let (ratio, cpu) = (median(&mut ratios), median(&mut micros));
    let scene = "noise: 1,000,000 changes, 1 % relevant";
    let of_floor = format!("{ratio:.2} of pg_recvlogical's wall time");
    let of_cpu = format!("{cpu:.2} µs of CPU a change, kernel and delivery included");
    vec![at_most(scene, ratio, 1.10, of_floor, "1.10"), at_most(scene, cpu, 2.5, of_cpu, "2.5 µs")]
}

/// The burst at 20 ms an answer, and a single change in the middle.
pub async fn slow(site: &BenchSite) -> Vec<Line> {
    site.change_everyone(1, 99).await;
    site.floor().await;
    let delay = Duration::from_millis(20);
    let (tell, mut arrivals) = tokio::sync::mpsc::unbounded_channel();
    let platform = Platform::start(delay, Some(tell));
    let started = Instant::now();
    let process = site.start(&platform.url, "");
    site.until_writes(&platform.seen, site.employees / 4).await;
    let mut overtaking = Vec::new();
    for n in 0..9 {
        let (tag, committed) = site.tagged_change(1 + n).await;
        let arrived = loop {
            let arrival = arrivals.recv().await.expect("an arrival");
            if arrival.tag == tag {
                break arrival.at;
            }
        };
        overtaking.push(arrived.duration_since(committed).as_secs_f64() * 1e3);
    }
    let end = site.wal_end().await;
    let writes = site.employees + overtaking.len() as u64;
    site.until_writes(&platform.seen, writes).await;
    site.until_confirmed(&end).await;
    site.until_nothing_is_pending().await;
    let seconds = started.elapsed().as_secs_f64();
    process.stop();
    let writes = writes as f64;
    let ratio = seconds / (writes * delay.as_secs_f64() / 32.0);
    let longest = overtaking.iter().copied().fold(0.0, f64::max);
    let answered = platform.seen.waited_micros.load(Ordering::Relaxed) as f64 / 1e3 / writes;
    let bound =
        format!("{ratio:.3} of the bound ({seconds:.1} s; the platform took {answered:.2} ms an answer)");
    let change =
        format!("{:.0} ms, the longest of {} {longest:.0} ms", median(&mut overtaking), overtaking.len());
    vec![
        at_most("slow platform: the burst at 20 ms an answer, 32 in flight", ratio, 1.03, bound, "1.03"),
        at_most("slow platform: a single change meanwhile", longest, 100.0, change, "100 ms"),
    ]
}

/// 200 commits a second for 30 s, from the acknowledged commit to the request at the platform.
pub async fn latency(site: &BenchSite) -> Vec<Line> {
    const COMMITS: u64 = 6_000;
    let (tell, mut arrivals) = tokio::sync::mpsc::unbounded_channel();
    let platform = Platform::start(Duration::ZERO, Some(tell));
    let process = site.run(&platform.url, "").await;
    let mut committed = HashMap::new();
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    for number in 0..COMMITS {
        ticks.tick().await;
        let (tag, at) = site.tagged_change(1 + number * 7 % site.employees).await;
        committed.insert(tag, at);
    }
    site.until_settled().await;
    process.stop();
    let mut waits: Vec<f64> = Vec::new();
    while let Ok(arrival) = arrivals.try_recv() {
        if let Some(since) = committed.remove(&arrival.tag) {
            // It may be there before the commit's acknowledgement is here.
            waits.push(arrival.at.saturating_duration_since(since).as_secs_f64() * 1e3);
        }
    }
    waits.sort_by(f64::total_cmp);
    let at = |share: f64| waits[((waits.len() - 1) as f64 * share) as usize];
    assert!(waits.len() as u64 > COMMITS * 9 / 10, "{} of {COMMITS} commits were seen", waits.len());
    let (p50, p99) = (at(0.5), at(0.99));
    let scene = |which: &str| format!("latency at 200 commits/s, {which}");
    vec![
        at_most(&scene("p50"), p50, 1.5, format!("{p50:.2} ms"), "1.5 ms"),
        at_most(&scene("p99"), p99, 6.0, format!("{p99:.2} ms"), "6 ms"),
    ]
}
