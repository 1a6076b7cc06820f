//! `doctor` names what is planted in the server, around it and while the pipeline runs, and nothing else. The faults that SQL
//! alone can plant are in `doctor.rs`.

use std::os::unix::fs::PermissionsExt as _;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use benefits_sync::config::Config;
use benefits_sync::demo::cluster::StopMode;
use benefits_sync::doctor::{self, Report};
use benefits_sync::pipeline;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::for_each_major;
use crate::support::database::connect;
use crate::support::logins::Logins;
use crate::support::private_cluster_with;
use crate::support::site::eventually;

async fn report(config: &Config) -> Report {
    doctor::run(config).await.unwrap()
}

/// Asks until doctor names exactly these: a reload of settings, a promotion, a standby take their moment.
async fn named(config: &Config, wanted: &[&str]) {
    let mut last = None;
    for _ in 0..150 {
        let report = report(config).await;
        if report.findings() == wanted {
            let told = report.checks.iter().filter(|check| check.level != doctor::Level::Ok);
            assert!(
                told.clone().all(|check| check.remedy.as_ref().is_some_and(|text| !text.is_empty())),
                "{report:#?}"
            );
            return;
        }
        last = Some(report);
    }
    panic!("{wanted:?} is not what doctor names: {last:#?}");
}

/// The same configuration with another text in place of one.
fn other(logins: &Logins, from: &str, to: &str) -> Config {
    let text = logins.text();
    assert!(text.contains(from), "{from} in {text}");
    Config::parse(&text.replace(from, to), "test", []).unwrap()
}

struct Running {
    stop: CancellationToken,
    task: JoinHandle<Result<(), pipeline::RunError>>,
}

impl Running {
    async fn start(logins: &Logins) -> Self {
        let stop = CancellationToken::new();
        let task = tokio::spawn(pipeline::run(logins.config(), stop.clone()));
        eventually("it streams", async || {
            let sql = "select count(*) = 1 from pg_replication_slots where active and slot_type = 'logical'";
            logins.admin.query_one(sql, &[]).await.unwrap().get(0)
        })
        .await;
        Self { stop, task }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }
}

/// An address of this machine that is not its loopback's, if it has any. Nothing is sent.
fn outer_address() -> Option<std::net::IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|address| !address.is_loopback() && !address.is_unspecified())
}

/// The platform behind a proxy whose clock goes wrong by so many seconds.
async fn with_another_clock(base: String, seconds: i64) -> String {
    drop(rustls::crypto::ring::default_provider().install_default());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let forward = move |request: Request| {
        let (client, base) = (client.clone(), base.clone());
        async move {
            let path = request.uri().path().strip_prefix("/api/v1").unwrap().to_owned();
            let mut ask = client.get(format!("{base}{path}"));
            for (name, value) in request.headers().iter().filter(|(name, _)| name.as_str() != "host") {
                ask = ask.header(name, value);
            }
            let answer = ask.send().await.unwrap();
            let now = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds);
            let date = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&now).unwrap();
            Response::builder()
                .status(answer.status().as_u16())
                .header("content-type", "application/json")
                .header("date", date)
                .body(Body::from(answer.bytes().await.unwrap()))
                .unwrap()
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(forward)).await });
    format!("http://{address}/api/v1")
}

for_each_major! {
    async fn what_is_wrong_with_the_way_there_and_with_this_machine_is_named_and_nothing_else(major: u32) {
        let mut options = Logins::options(major).setting("listen_addresses", "*");
        let outer = outer_address();
        options.hba.extend(outer.map(|address| format!("host all all {address}/32 scram-sha-256")));
        let logins = Logins::on(options).await.described().await;
        named(&logins.config(), &[]).await;
        if let Some(address) = outer {
            let here = format!("127.0.0.1:{}", logins.cluster.port());
            let there = format!("{address}:{}", logins.cluster.port());
            named(&other(&logins, &here, &there), &["server.tls"]).await;
        }
        let late = with_another_clock(logins.sandbox.base_url(), -300).await;
        named(&other(&logins, &logins.sandbox.base_url(), &late), &["platform.clock"]).await;
        let token = logins.directory.path().join("token");
        std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o644)).unwrap();
        named(&logins.config(), &["configuration.secrets"]).await;
        std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o640)).unwrap();
        named(&logins.config(), if is_roots(&token) { &[] } else { &["configuration.secrets"] }).await;
    }

    async fn what_is_wrong_with_the_servers_state_is_named_and_nothing_else(major: u32) {
        let logins = Logins::new(major).await;
        let config = logins.config();
        let run = async |sql: &str| logins.admin.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        named(&config, &[]).await;

        run("insert into benefits.migration values (999, 'later')").await;
        named(&config, &["ledger.schema"]).await;
        run("delete from benefits.migration where version = 999").await;

        run("create table kept as select record_query from benefits.site; update benefits.site set record_query = null").await;
        named(&config, &["description.present"]).await;
        run("update benefits.site set record_query = replace(k.record_query, 'e.surname', 'e.no_such_column') from kept as k").await;
        named(&config, &["description.query"]).await;
        run("update benefits.site set record_query = k.record_query from kept as k; drop table kept").await;

        let reader = format!("benefits_reader:{}", crate::support::logins::READER_PASSWORD.replace(' ', "%20"));
        let service = format!("benefits_service:{}", crate::support::logins::SERVICE_PASSWORD.replace(' ', "%20"));
        named(&other(&logins, &reader, "nobody:x"), &["privileges.reader"]).await;
        run("alter role benefits_service replication").await;
        named(&other(&logins, &reader, &service), &["privileges.service_least"]).await;
        run("alter role benefits_service noreplication").await;

        let holder = connect(&logins.cluster.url("hr")).await;
        holder.batch_execute("set application_name = 'benefits-sync delivery'; begin; lock table hr.employee in share mode").await.unwrap();
        named(&config, &["cost.locks"]).await;
        drop(holder);

        logins.cluster.psql("postgres", "create database other").await.unwrap();
        logins.cluster.psql("other", "select pg_create_logical_replication_slot('benefits_sync', 'pgoutput')").await.unwrap();
        named(&config, &["slot.state"]).await;
        logins.cluster.psql("other", "select pg_drop_replication_slot('benefits_sync')").await.unwrap();

        run("select pg_create_logical_replication_slot('benefits_sync', 'pgoutput')").await;
        run("alter system set max_slot_wal_keep_size = '1MB'").await;
        run("select pg_reload_conf()").await;
        eventually("the slot is lost", async || {
            run("create table if not exists fill (n integer); insert into fill values (1)").await;
            run("select pg_switch_wal()").await;
            run("checkpoint").await;
            let sql = "select wal_status = 'lost' from pg_replication_slots";
            logins.admin.query_one(sql, &[]).await.unwrap().get(0)
        }).await;
        named(&config, &["slot.state"]).await;
        run("select pg_drop_replication_slot('benefits_sync'); drop table fill").await;
        run("alter system set max_slot_wal_keep_size = '4GB'").await;
        run("select pg_reload_conf()").await;

        let running = Running::start(&logins).await;
        named(&config, &[]).await;
        run("update benefits.site set time_zone = 'UTC'").await;
        named(&config, &["configuration.platform_id"]).await;
        running.stop().await;
    }

    async fn what_needs_a_restart_of_the_server_is_named_and_nothing_else(major: u32) {
        let logins = Logins::new(major).await;
        let config = logins.config();
        let set = async |setting: &str| logins.cluster.psql("postgres", &format!("alter system set {setting}")).await.unwrap();
        if major >= 18 {
            set("idle_replication_slot_timeout = '1h'").await;
            logins.cluster.psql("postgres", "select pg_reload_conf()").await.unwrap();
            named(&config, &["server.slot_timeout"]).await;
            set("idle_replication_slot_timeout = '7d'").await;
        }
        set("max_wal_senders = 0").await;
        logins.cluster.restart().await.unwrap();
        named(&config, &["server.wal_senders"]).await;
        set("max_wal_senders = 10").await;
        let signal = logins.cluster.directory().join("data/standby.signal");
        logins.cluster.stop(StopMode::Fast).await.unwrap();
        std::fs::write(&signal, "").unwrap();
        logins.cluster.restart().await.unwrap();
        named(&config, &["server.primary"]).await;
        logins.cluster.stop(StopMode::Fast).await.unwrap();
        std::fs::remove_file(&signal).unwrap();
        logins.cluster.restart().await.unwrap();
        named(&config, &[]).await;
    }

    async fn what_a_failover_would_lose_is_named_and_nothing_else(major: u32) {
        let logins = Logins::new(major).await;
        logins.cluster.psql("postgres", "select pg_create_physical_replication_slot('standby', true)").await.unwrap();
        let from = format!("host=127.0.0.1 port={} user=postgres dbname=hr", logins.cluster.port());
        let mut options = Logins::options(major)
            .setting("primary_conninfo", &from)
            .setting("primary_slot_name", "standby")
            .setting("hot_standby_feedback", "on");
        options.copy_of = Some(logins.cluster.url("postgres"));
        options.files = vec![("standby.signal".to_owned(), Vec::new())];
        let standby = private_cluster_with(options).await;
        let here = format!("127.0.0.1:{}", logins.cluster.port());
        let both = format!("{here},127.0.0.1:{}/hr?target_session_attrs=read-write", standby.port());
        let config = other(&logins, &format!("{here}/hr"), &both);
        let running = Running::start(&logins).await;
        if major < 17 {
            // Nothing can be done about it there, so it is said and not held against anybody.
            named(&config, &[]).await;
            let text = format!("{:#?}", report(&config).await);
            assert!(text.contains("a failover loses the slot"), "{text}");
        } else {
            named(&config, &["slot.failover", "slot.standby"]).await;
            logins.admin.batch_execute("alter system set synchronized_standby_slots = 'standby'").await.unwrap();
            logins.admin.batch_execute("select pg_reload_conf()").await.unwrap();
            named(&config, &["slot.standby"]).await;
            standby.psql("hr", "alter system set sync_replication_slots = on").await.unwrap();
            standby.psql("hr", "select pg_reload_conf()").await.unwrap();
            eventually("the copy is good", async || {
                logins.admin.batch_execute("update hr.employee set updated_at = clock_timestamp() where id = 1").await.unwrap();
                logins.admin.batch_execute("select pg_log_standby_snapshot()").await.unwrap();
                report(&config).await.findings().is_empty()
            }).await;
            standby.stop(StopMode::Fast).await.unwrap();
            named(&config, &["slot.failover", "server.hosts"]).await;
            let text = format!("{:#?}", report(&config).await);
            assert!(text.contains("changes wait until the standby is back whose slot is standby"), "{text}");
            logins.admin.batch_execute("alter system set synchronized_standby_slots = ''").await.unwrap();
            logins.admin.batch_execute("select pg_reload_conf()").await.unwrap();
        }
        if major >= 17 {
            named(&config, &["server.hosts"]).await;
            standby.restart().await.unwrap();
        }
        running.stop().await;
        eventually("nobody reads the slot", async || {
            let sql = "select not active from pg_replication_slots where slot_name = 'benefits_sync'";
            logins.admin.query_one(sql, &[]).await.unwrap().get(0)
        })
        .await;
        logins.admin.batch_execute("select pg_drop_replication_slot('benefits_sync')").await.unwrap();
        logins.admin.batch_execute("select pg_create_logical_replication_slot('benefits_sync', 'pgoutput')").await.unwrap();
        let running = Running::start(&logins).await;
        named(&config, if major < 17 { &[] } else { &["slot.failover"] }).await;
        running.stop().await;
    }
}

/// Every id of a check, as the sources have them.
#[test]
fn every_check_has_a_planted_fault() {
    let read = |directory: &str| -> Vec<(String, String)> {
        let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
        let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        let named = files.filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
        named.map(|path| (path.display().to_string(), std::fs::read_to_string(&path).unwrap())).collect()
    };
    let areas = [
        "server.",
        "slot.",
        "ledger.",
        "description.",
        "publication.",
        "privileges.",
        "reader.",
        "configuration.",
        "platform.",
        "cost.",
    ];
    let is_id = |text: &&str| {
        areas.iter().any(|area| {
            text.strip_prefix(area).is_some_and(|name| {
                !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
            })
        })
    };
    let (mut ids, mut planted) = (std::collections::BTreeSet::new(), String::new());
    for (_, text) in read("src/doctor") {
        let (code, tests) = text.split_once("#[cfg(test)]").unwrap_or((&text, ""));
        ids.extend(code.split('"').filter(is_id).map(ToOwned::to_owned));
        planted.push_str(tests);
    }
    let names = ["doctor.rs", "doctor_server.rs"];
    planted.extend(
        read("tests/it")
            .into_iter()
            .filter(|(name, _)| names.iter().any(|wanted| name.ends_with(&format!("/{wanted}"))))
            .map(|(_, text)| text),
    );
    assert!(ids.len() >= 40, "{ids:?}");
    // Figures, which are never anything but ok; and a statement of doctor's own that fails, which nobody knows how to plant.
    let figures = [
        "cost.wal_kept",
        "cost.schema",
        "cost.connections",
        "cost.wal_written",
        "cost.cpu",
        "server.answers",
    ];
    let without: Vec<_> = ids
        .iter()
        .filter(|id| !figures.contains(&id.as_str()) && !planted.contains(&format!("\"{id}\"")))
        .collect();
    assert!(without.is_empty(), "no test plants {without:?}");
}

fn is_roots(file: &std::path::Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(file).unwrap().uid() == 0
}
