//! Everybody at once: first sync, and one change an employee in transactions of several sizes.

use std::time::{Duration, Instant};

use benefits_sync::sandbox::{Sandbox, SandboxOptions};

use crate::bench_site::{BenchSite, Cost, Keys, median};
use crate::platform::Platform;
use crate::requests;
use crate::table::Line;
use crate::{EMPLOYEES, at_least, at_most};

pub struct Burst {
    pub line: Line,
    pub rate: f64,
}

/// Find by email, then create, for everyone.
pub async fn first_sync(site: &BenchSite) -> Line {
    let platform = Platform::start(Duration::ZERO, None);
    let process = site.run(&platform.url, "").await;
    // The comparison of the first start, with nobody in it, is no part of a first sync.
    site.until_compared().await;
    let started = Instant::now();
    site.sync_everyone().await;
    site.until_settled().await;
    let seconds = started.elapsed().as_secs_f64();
    site.vacuum().await;
    site.rest().await;
    process.stop();
    let rate = site.employees as f64 / seconds;
    let figure = format!("{rate:.0} employees/s ({seconds:.1} s)");
    at_least(&format!("first sync of {}", site.employees), rate, 8_000.0, figure, "8,000/s")
}

/// One change an employee, prepared while nobody reads.
pub async fn burst(site: &BenchSite, scene: &str, rows: u64) -> Burst {
    let mut rates = Vec::new();
    let mut floors = Vec::new();
    let mut requests = Vec::new();
    let mut costs: Vec<Cost> = Vec::new();
    for round in 0..3 {
        site.change_everyone(rows, round).await;
        floors.push(site.floor().await);
        let platform = Platform::start(Duration::ZERO, None);
        requests.push(requests::alone(site.employees, &site.config(&platform.url, 0, "")).await);
        let (rate, cost) = one_burst(site).await;
        rates.push(rate);
        costs.push(cost);
    }
    let (rate, floor) = (median(&mut rates), site.employees as f64 / median(&mut floors));
    let cost = costs.last().map(ToString::to_string).unwrap_or_default();
    let requests = median(&mut requests);
    let figure = format!(
        "{rate:.0}/s acknowledged; pg_recvlogical alone reads {floor:.0}/s, the requests alone go at {requests:.0}/s; {cost}"
    );
    Burst { line: at_least(scene, rate, 25_000.0, figure, "25,000/s"), rate }
}

/// What is prepared, against the trivial platform: updates a second, and what one costs.
async fn one_burst(site: &BenchSite) -> (f64, Cost) {
    let platform = Platform::start(Duration::ZERO, None);
    let before = site.ledger_cost().await;
    let backlog = site.wal_end().await;
    let started = Instant::now();
    let process = site.start(&platform.url, "");
    site.until_writes(&platform.seen, site.employees).await;
    // All is recorded, durably, once its WAL is confirmed: what the ledger itself has written since is no part of it.
    site.until_confirmed(&backlog).await;
    site.until_nothing_is_pending().await;
    let rate = site.employees as f64 / started.elapsed().as_secs_f64();
    let after = site.ledger_cost().await;
    let cost = after.since(&before, site.employees, process.cpu_seconds(), process.rss_max_mb());
    site.rest().await;
    process.stop();
    (rate, cost)
}

/// The burst again, while another session holds a snapshot open.
pub async fn old_snapshot(site: &BenchSite, rate_without: f64) -> Line {
    let mut rates = Vec::new();
    for round in 0..3 {
        site.change_everyone(1, 50 + round).await;
        site.floor().await;
        let holder = site.old_snapshot().await;
        rates.push(one_burst(site).await.0);
        drop(holder);
    }
    let ratio = rate_without / median(&mut rates);
    let scene = "old snapshot: the single-row burst beside one";
    at_most(scene, ratio, 1.2, format!("{ratio:.2} of the time without"), "1.2")
}

/// The burst where employees' keys are uuids.
pub async fn of_other_keys() -> Line {
    let site = BenchSite::new(EMPLOYEES, Keys::Uuid).await;
    first_sync(&site).await;
    burst(&site, "burst, single-row transactions, uuid keys", 1).await.line
}

/// The burst against the validating sandbox.
pub async fn against_the_sandbox() -> Line {
    let employees = EMPLOYEES / 2;
    let site = BenchSite::new(employees, Keys::Bigint).await;
    let options = SandboxOptions {
        token: "bench".to_owned(),
        platform_id: "bench".to_owned(),
        ..SandboxOptions::default()
    };
    let sandbox = Sandbox::start(options).await.unwrap();
    let url = sandbox.base_url();
    let process = site.run(&url, "").await;
    site.until_compared().await;
    site.sync_everyone().await;
    site.until_settled().await;
    site.vacuum().await;
    process.stop();
    let mut rates = Vec::new();
    for round in 0..3 {
        site.change_everyone(1, round).await;
        site.floor().await;
        let before = sandbox.counts().updated;
        let backlog = site.wal_end().await;
        let started = Instant::now();
        let process = site.start(&url, "");
        site.until_confirmed(&backlog).await;
        site.until_nothing_is_pending().await;
        rates.push(employees as f64 / started.elapsed().as_secs_f64());
        site.rest().await;
        process.stop();
        assert_eq!(sandbox.counts().updated - before, employees, "one update an employee");
    }
    let rate = median(&mut rates);
    let figure = format!("{rate:.0}/s acknowledged, {employees} employees");
    at_least("burst, single-row transactions, against the sandbox", rate, 15_000.0, figure, "15,000/s")
}
