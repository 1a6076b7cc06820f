//! `status`: the state of things on one screen.

use std::io::BufRead as _;
use std::process::{Command, Output};

use serde_json::Value;

use crate::for_each_major;
use crate::support::database;
use crate::support::site::{Process, Site, eventually};

fn status(site: &Site, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_benefits-sync"))
        .arg("status")
        .args(arguments)
        .arg("--config")
        .arg(site.config_file())
        .output()
        .unwrap()
}

fn json(site: &Site) -> Value {
    let output = tokio::task::block_in_place(|| status(site, &["--json"]));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// `status --watch --json`, and its lines.
fn watch(site: &Site) -> (Process, impl Iterator<Item = Value>) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_benefits-sync"))
        .args(["status", "--watch", "--json", "--config"])
        .arg(site.config_file())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
    (Process { child }, lines.map(|line| serde_json::from_str(&line.unwrap()).unwrap()))
}

fn screen(site: &Site) -> String {
    let output = tokio::task::block_in_place(|| status(site, &[]));
    String::from_utf8(output.stdout).unwrap()
}

for_each_major! {
    async fn status_tells_streaming_from_not_counts_states_and_names_the_errors(major: u32) {
        let mut site = Site::new(major).await;
        let before = json(&site);
        assert_eq!(before["streaming"]["up"], false);
        assert!(before["streaming"]["why"].as_str().unwrap().contains("no slot yet"), "{before}");
        assert_eq!(before["instance"]["answers"], false);

        site.hr.execute("update hr.employee set surname = '' where id = 2", &[]).await.unwrap();
        site.start().await;
        site.sync(&["1", "2"]).await;
        let now = json(&site);
        assert_eq!((&now["streaming"]["up"], &now["verdict"]), (&true.into(), &"some_failed".into()), "{now}");
        assert_eq!((&now["employees"]["successful"], &now["employees"]["failed"]), (&1.into(), &1.into()));
        assert_eq!((&now["errors"][0]["code"], &now["errors"][0]["employees"]), (&"required".into(), &1.into()));
        assert_eq!((&now["errors"][0]["newest_employee"], &now["pending"]["employees"]), (&"2".into(), &0.into()));
        assert_eq!((&now["instance"]["breaker"], &now["instance"]["not_ready"]), (&"closed".into(), &serde_json::json!([])));
        assert!(now["slot"]["retained_bytes"].as_i64().unwrap() > 0);

        site.hr.execute("select benefits.pause('month end')", &[]).await.unwrap();
        let text = screen(&site);
        assert!(text.contains("needs attention") && text.contains("month end"), "{text}");
        assert!(!text.contains('\x1b'), "a pipe gets no colour");
        site.stop().await;
        crate::reconcile::slot_is_free(&site).await;
        let after = json(&site);
        assert!(after["streaming"]["why"].as_str().unwrap().starts_with("nobody has read the slot"), "{after}");
    }

    async fn watched_as_json_it_is_a_line_each_time_that_follows_what_happens(major: u32) {
        let mut site = Site::new(major).await;
        site.start().await;
        let (process, mut lines) = watch(&site);
        let mut next = || tokio::task::block_in_place(|| lines.next().unwrap());
        assert_eq!(next()["site"]["paused"], Value::Null);
        site.hr.execute("select benefits.pause('month end')", &[]).await.unwrap();
        // Some lines may have been written before.
        let mut seen = next();
        for _ in 0..30 {
            if seen["site"]["paused"].is_null() {
                seen = next();
            }
        }
        assert!(seen["site"]["paused"].as_str().unwrap().starts_with("month end"), "{seen}");
        assert_eq!(seen["verdict"], "stopped");
        process.kill9();
    }

    async fn watched_it_goes_on_while_postgresql_is_away(major: u32) {
        let (cluster, site) = Site::apart(crate::support::options(major), major).await;
        let (process, mut lines) = watch(&site);
        let mut until = |key: &str| {
            let found = tokio::task::block_in_place(|| lines.find(|line| line.get(key).is_some()));
            assert!(found.is_some(), "it ended before it showed {key}");
        };
        until("verdict");
        cluster.stop(benefits_sync::demo::cluster::StopMode::Immediate).await.unwrap();
        until("away");
        cluster.restart().await.unwrap();
        until("verdict");
        process.kill9();
    }

    async fn the_oldest_writing_transaction_of_any_database_is_named(major: u32) {
        let site = Site::new(major).await;
        let other = database(major).await;
        let holder = other.client().await;
        holder.batch_execute("set application_name = 'payroll run'; begin; select pg_current_xact_id()").await.unwrap();
        // Other tests' transactions on the shared server come and go; this one stays.
        eventually("it is named", async || {
            let now = json(&site);
            now["oldest_transaction"]["application"] == "payroll run" && now["oldest_transaction"]["database"] == other.name
        }).await;
    }

    async fn a_database_that_is_not_set_up_is_said_to_be_so_with_exit_code_3(major: u32) {
        let site = Site::on(database(major).await, benefits_sync::sandbox::SandboxOptions::default()).await;
        let output = status(&site, &[]);
        assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(String::from_utf8_lossy(&output.stderr).contains("benefits-sync setup"));
    }
}
