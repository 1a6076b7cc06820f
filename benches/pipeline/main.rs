//! The pipeline against its targets, on throw-away PostgreSQL clusters: `make bench`.
//!
//! Each scene prepares its backlog first, then times the real program from its start until the ledger has nothing pending.
//! The floor is `pg_recvlogical` reading the same backlog from a second slot to nowhere, in the same run. The platform that
//! answers is a trivial one ([`platform`]) unless a line says otherwise. Figures are medians of three where a scene is short;
//! ratios within a run are what can be compared.
//!
//! Arguments: parts of scenes' names (all without any), and `--write` to put the table into README.md.
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
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a measuring program that cannot go on should stop"
)]

mod bench_site;
mod bursts;
mod endurance;
mod pages;
mod platform;
mod requests;
mod scale;
mod steady;
mod table;

use std::time::Instant;

use bench_site::{BenchSite, Keys};
use table::{Line, Table};

/// Employees that are synced in the burst scenes.
const EMPLOYEES: u64 = 50_000;

fn main() {
    // cargo passes --bench; anything else names the scenes to run.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let wanted: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with("--")).collect();
    let wants = |scene: &str| wanted.is_empty() || wanted.iter().any(|name| scene.contains(name.as_str()));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let started = Instant::now();
    let mut table = Table::default();
    runtime.block_on(async {
        let of_main_site = [
            "first sync",
            "burst, single-row transactions",
            "burst, transactions of 100 rows",
            "burst, one transaction",
            "old snapshot",
            "noise",
            "slow",
            "latency",
            "hot employees",
            "outage",
        ];
        if of_main_site.iter().any(|scene| wants(scene)) {
            let site = BenchSite::new(EMPLOYEES, Keys::Bigint).await;
            let fsync = site.fsync_ms().await;
            println!("fsync of one commit: {fsync:.2} ms");
            table.fsync_ms = Some(fsync);
            table.add(bursts::first_sync(&site).await);
            if wants("burst, single-row transactions") || wants("old snapshot") {
                let single = bursts::burst(&site, "burst, single-row transactions", 1).await;
                table.add(single.line);
                if wants("old snapshot") {
                    table.add(bursts::old_snapshot(&site, single.rate).await);
                }
            }
            for (scene, rows) in
                [("burst, transactions of 100 rows", 100), ("burst, one transaction", EMPLOYEES)]
            {
                if wants(scene) {
                    table.add(bursts::burst(&site, scene, rows).await.line);
                }
            }
            if wants("noise") {
                table.extend(steady::noise(&site).await);
            }
            if wants("slow") {
                table.extend(steady::slow(&site).await);
            }
            if wants("latency") {
                table.extend(steady::latency(&site).await);
            }
            if wants("hot employees") {
                table.add(endurance::hot(&site).await);
            }
            if wants("outage") {
                table.extend(endurance::outage(&site).await);
            }
        }
        if wants("uuid") {
            table.add(bursts::of_other_keys().await);
        }
        if wants("sandbox") {
            table.add(bursts::against_the_sandbox().await);
        }
        if wants("pages") {
            table.extend(pages::pages().await);
        }
        if wants("scale") {
            table.extend(scale::scale().await);
        }
    });
    println!("\n{table}\ntook {:.0} s", started.elapsed().as_secs_f64());
    if arguments.iter().any(|argument| argument == "--write") {
        table.write_into_readme();
    }
}

/// A line with a target that is met from below or from above.
fn at_least(scene: &str, value: f64, target: f64, figure: String, target_text: &'static str) -> Line {
    Line { scene: scene.to_owned(), figure, target: target_text, met: value >= target }
}

fn at_most(scene: &str, value: f64, target: f64, figure: String, target_text: &'static str) -> Line {
    Line { scene: scene.to_owned(), figure, target: target_text, met: value <= target }
}
