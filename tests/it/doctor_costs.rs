//! What `doctor` says that an update costs, against the server's own count: how far its WAL has grown, less what HR has written.

use benefits_sync::{doctor, pipeline};
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use crate::for_each_major;
use crate::support::logins::Logins;
use crate::support::site::eventually;

/// So many that what a start writes once is a small part of it.
const UPDATES: usize = 600;

/// HR saves one record after the other. How many bytes of WAL the server wrote meanwhile.
async fn edit(hr: &Client, round: &str) -> f64 {
    let before = end(hr).await;
    for n in 0..UPDATES {
        let sql = "update hr.employee set known_as = $2 where id = $1::bigint";
        let id = i64::try_from(n % 30 + 1).unwrap();
        hr.execute(sql, &[&id, &format!("{round} {n:06}")]).await.unwrap();
    }
    end(hr).await - before
}

/// Where the WAL ends, in bytes.
async fn end(hr: &Client) -> f64 {
    hr.query_one("select (pg_current_wal_insert_lsn() - '0/0')::float8", &[]).await.unwrap().get(0)
}

async fn eventually_true(hr: &Client, what: &str, sql: &str) {
    eventually(what, async || hr.query_one(sql, &[]).await.unwrap().get(0)).await;
}

/// `1.7 kB of WAL for each of 640 acknowledged updates since ...`: bytes for one, and how many.
fn figures(text: &str) -> (f64, f64) {
    let words: Vec<&str> = text.split(' ').collect();
    let unit = match words[1] {
        "B" => 1.0,
        "kB" => 1024.0,
        "MB" => 1_048_576.0,
        other => panic!("{other}: {text}"),
    };
    let updates = words.iter().skip_while(|word| **word != "each").nth(2).unwrap();
    (words[0].parse::<f64>().unwrap() * unit, updates.parse().unwrap())
}

async fn told(logins: &Logins) -> (f64, f64) {
    let report = doctor::run(&logins.config()).await.unwrap();
    let check = report.checks.iter().find(|check| check.id == "cost.wal_written").unwrap();
    figures(&check.text)
}

for_each_major! {
    async fn the_wal_of_an_update_is_what_the_servers_own_count_says(major: u32) {
        let options = Logins::options(major).setting("autovacuum", "off").setting("checkpoint_timeout", "1h");
        // From 18 on sessions are counted, without the extension.
        let counts_statements = major < 18;
        let options =
            if counts_statements { options.setting("shared_preload_libraries", "pg_stat_statements") } else { options };
        let logins = Logins::on(options).await.described().await;
        let hr = &logins.admin;
        // The first round writes whole pages and makes room.
        edit(hr, "first").await;
        let by_hr = edit(hr, "alone").await;
        if counts_statements {
            hr.batch_execute("create extension pg_stat_statements; select pg_stat_statements_reset()").await.unwrap();
        }
        let began = end(hr).await;
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(pipeline::run(logins.config(), shutdown.clone()));
        eventually_true(hr, "it streams", "select count(*) = 1 from pg_replication_slots where active").await;
        hr.batch_execute("select benefits.sync(array(select id::text from hr.employee))").await.unwrap();
        let synced = "select count(*) = 30 from benefits.employee_status where state = 'successful'";
        eventually_true(hr, "everybody is synced", synced).await;
        edit(hr, "synced").await;
        let passed = format!(
            "select bool_and(confirmed_flush_lsn >= '{}') and not exists (select from benefits.pending) from pg_replication_slots",
            hr.query_one("select pg_current_wal_lsn()::text", &[]).await.unwrap().get::<_, String>(0)
        );
        eventually_true(hr, "everything is acknowledged", &passed).await;
        let written = end(hr).await - began - by_hr;
        let acknowledged = "select count(*)::float8 from benefits.history where outcome = 'successful'";
        let acknowledged: f64 = hr.query_one(acknowledged, &[]).await.unwrap().get(0);
        let mut seen = (0.0, 0.0);
        // A session's counters are shown within seconds of its transactions.
        eventually("the figure is complete", async || {
            seen = told(&logins).await;
            seen.0 * seen.1 > 0.8 * written
        })
        .await;
        let (each, updates) = seen;
        assert!((updates - acknowledged).abs() <= 1.0, "{updates} were counted of {acknowledged}");
        assert!(each * updates < 1.1 * written, "{each} B for each of {updates}; the server wrote {written} B");
        shutdown.cancel();
        running.await.unwrap().unwrap();
    }
}
