//! The metrics are true: while all is idle, while delivery stands, while PostgreSQL is away; and so is what `status` says then.

use std::process::Command;

use benefits_sync::demo::cluster::StopMode;

use crate::for_each_major;
use crate::support::options;
use crate::support::site::{Site, eventually};

/// The value of a series, `name` or `name{label="value"}` (without the prefix), once there is one.
async fn value_yet(site: &Site, series: &str) -> Option<f64> {
    let (_, text) = site.get("/metrics").await;
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("benefits_sync_{series} ")));
    line.map(|value| value.parse().unwrap())
}

async fn value(site: &Site, series: &str) -> f64 {
    value_yet(site, series).await.unwrap_or_else(|| panic!("no {series}"))
}

async fn until(site: &Site, what: &str, series: &str, holds: impl Fn(f64) -> bool) {
    eventually(&format!("{what}: {series}"), async || value_yet(site, series).await.is_some_and(&holds))
        .await;
}

fn is(wanted: f64) -> impl Fn(f64) -> bool {
    move |value| (value - wanted).abs() < 1e-9
}

/// `status --json`, or what it said instead.
fn status(site: &Site) -> Result<serde_json::Value, String> {
    let file = site.config_file();
    let output = tokio::task::block_in_place(|| {
        Command::new(env!("CARGO_BIN_EXE_benefits-sync"))
            .args(["status", "--json", "--config"])
            .arg(file)
            .output()
            .unwrap()
    });
    if output.status.success() {
        Ok(serde_json::from_slice(&output.stdout).unwrap())
    } else {
        Err(format!("{:?} {}", output.status.code(), String::from_utf8_lossy(&output.stderr)))
    }
}

for_each_major! {
    async fn metrics_and_status_are_true_when_idle_when_stalled_and_when_disconnected(major: u32) {
        let options = options(major).setting("max_slot_wal_keep_size", "1GB");
        let (cluster, mut site) = Site::apart(options, major).await;
        site.start().await;
        site.sync(&["1", "2"]).await;

        // Idle: everything is confirmed although nothing comes, and the counts are the view's.
        until(&site, "idle", "slot_unconfirmed_bytes", is(0.0)).await;
        for (series, wanted) in [
            ("up", 1.0), ("replication_connected", 1.0), ("slot_active", 1.0), ("pending_employees", 0.0), ("stuck_employees", 0.0),
            ("pending_oldest_age_seconds", 0.0), ("breaker_state", 0.0), ("holds", 0.0), ("replication_lag_bytes{stage=\"received\"}", 0.0),
            ("replication_lag_bytes{stage=\"persisted\"}", 0.0), ("commit_invisible_seconds", 0.0),
        ] {
            until(&site, "idle", series, is(wanted)).await;
        }
        until(&site, "idle", "employees{state=\"successful\"}", is(2.0)).await;
        until(&site, "idle", "employees{state=\"not_syncing\"}", is(28.0)).await;
        let safe = value(&site, "slot_safe_wal_bytes").await;
        assert!(safe > 0.9 * 1024.0 * 1024.0 * 1024.0, "{safe}");
        until(&site, "what an idle server writes lasts long", "slot_headroom_seconds", |seconds| seconds > 600.0).await;
        let now = status(&site).unwrap();
        assert_eq!((&now["verdict"], &now["streaming"]["up"], &now["slot"]["unconfirmed_bytes"]), (&"in_step".into(), &true.into(), &0.into()));

        // Stalled: the platform is suspended. The slot goes on, what waits is counted and grows old.
        site.sandbox.set_suspended(true);
        site.hr.execute("update hr.employee set surname = 'Waits' where id in (1, 2)", &[]).await.unwrap();
        until(&site, "stalled", "pending_employees", is(2.0)).await;
        until(&site, "stalled", "pending_oldest_age_seconds", |age| age > 1.0).await;
        until(&site, "stalled", "delivery_halted{reason=\"platform-suspended\"}", is(1.0)).await;
        until(&site, "stalled", "slot_unconfirmed_bytes", is(0.0)).await;
        assert!(is(1.0)(value(&site, "replication_connected").await));
        let now = status(&site).unwrap();
        assert_eq!((&now["verdict"], &now["pending"]["employees"]), (&"stopped".into(), &2.into()));
        assert_eq!(now["site"]["halted"], "platform-suspended");

        // Disconnected: what is not known any more is not told as news.
        cluster.stop(StopMode::Fast).await.unwrap();
        until(&site, "disconnected", "replication_connected", is(0.0)).await;
        let read = value(&site, "observed_timestamp_seconds").await;
        let told = status(&site).unwrap_err();
        assert!(told.starts_with("Some(1)") && told.contains("127.0.0.1"), "{told}");
        assert!(is(read)(value(&site, "observed_timestamp_seconds").await));
        assert!(is(2.0)(value(&site, "pending_employees").await), "as it was last read");

        // And back.
        cluster.restart().await.unwrap();
        site.sandbox.set_suspended(false);
        until(&site, "back", "replication_connected", is(1.0)).await;
        until(&site, "back", "observed_timestamp_seconds", |at| at > read).await;
        until(&site, "back", "pending_employees", is(0.0)).await;
        until(&site, "back", "delivery_halted{reason=\"platform-suspended\"}", is(0.0)).await;
        until(&site, "back", "employees{state=\"successful\"}", is(2.0)).await;
    }
}
