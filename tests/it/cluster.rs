//! The throw-away clusters themselves: what the other tests and the demo rely on.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use benefits_sync::demo::cluster::{Cluster, StopMode};

use crate::for_each_major;
use crate::support::{self, database::connect};

for_each_major! {
    async fn a_test_database_is_dropped_with_a_slot_in_use(major: u32) {
        let database = support::database(major).await;
        let (name, slot) = (database.name.clone(), database.slot.clone());
        let client = database.client().await;
        client.execute("select pg_create_logical_replication_slot($1, 'pgoutput')", &[&slot]).await.unwrap();
        let mut reader = database.binaries().client("pg_recvlogical");
        reader.args(["-d", &database.url, "-S", &slot, "--start", "-f", "-", "-n"]);
        reader.args(["-o", "proto_version=1", "-o", "publication_names=none"]);
        let mut reader = reader.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let active = "select active from pg_replication_slots where slot_name = $1";
        while !client.query_one(active, &[&slot]).await.unwrap().get::<_, bool>(0) {
            tokio::task::yield_now().await;
        }
        let admin = connect(&database.url.replace(&name, "postgres")).await;
        tokio::task::spawn_blocking(|| drop(database)).await.unwrap();
        let left = "select (select count(*) from pg_database where datname = $1)
                         + (select count(*) from pg_replication_slots where slot_name = $2)";
        assert_eq!(admin.query_one(left, &[&name, &slot]).await.unwrap().get::<_, i64>(0), 0);
        reader.wait().unwrap();
    }

    async fn a_prepared_database_is_filled_once_and_copied(major: u32) {
        let mut filled = 0;
        for _ in 0..2 {
            let content = format!("for process {}", std::process::id());
            let database = support::database_prepared(major, &content, async |url| {
                filled += 1;
                connect(&url).await.batch_execute("create table t as select 1 as a").await.unwrap();
            });
            assert_eq!(database.await.psql("select a from t").await, "1");
        }
        assert_eq!(filled, 1);
    }

    async fn committed_rows_survive_kill9_and_a_restart(major: u32) {
        let cluster = support::private_cluster(major).await;
        assert_eq!(cluster.psql("postgres", "show wal_level").await.unwrap(), "logical");
        cluster.psql("postgres", "create table t (a int); insert into t values (1)").await.unwrap();
        cluster.kill9().await.unwrap();
        assert!(cluster.psql("postgres", "select 1").await.is_err());
        cluster.restart().await.unwrap();
        assert_eq!(cluster.psql("postgres", "select a from t").await.unwrap(), "1");
        cluster.stop(StopMode::Fast).await.unwrap();
        cluster.restart().await.unwrap();
        assert_eq!(cluster.psql("postgres", "select a from t").await.unwrap(), "1");
    }

    async fn nothing_is_left_of_a_dropped_cluster(major: u32) {
        let cluster = support::private_cluster(major).await;
        let directory = cluster.directory().to_owned();
        let postmaster = postmaster(&directory);
        assert!(runs(&postmaster));
        drop(cluster);
        assert!(!directory.exists());
        assert!(!runs(&postmaster));
    }
}

fn postmaster(directory: &Path) -> String {
    let pid = std::fs::read_to_string(directory.join("data/postmaster.pid")).unwrap();
    format!("/proc/{}/cmdline", pid.lines().next().unwrap())
}

/// A process that has ended but was not collected has an empty command line.
fn runs(command_line: &str) -> bool {
    std::fs::read(command_line).is_ok_and(|text| !text.is_empty())
}

#[tokio::test]
async fn a_cluster_without_tcp_is_reached_through_its_socket() {
    let mut options = support::options(18);
    options.tcp = false;
    let cluster = support::private_cluster_with(options).await;
    let client = connect(&cluster.url("postgres")).await;
    assert_eq!(client.query_one("show listen_addresses", &[]).await.unwrap().get::<_, &str>(0), "");
}

#[tokio::test]
async fn settings_access_lines_and_files_are_obeyed() {
    let mut options = support::options(18).setting("application_name", "it's ours");
    options.hba = vec!["host all nobody 127.0.0.1/32 reject".to_owned()];
    options.files = vec![("note".to_owned(), b"for the server".to_vec())];
    let cluster = support::private_cluster_with(options).await;
    let client = connect(&cluster.url("postgres")).await;
    let row = client.query_one(
        "select reset_val, pg_read_file('note') from pg_settings where name = 'application_name'",
        &[],
    );
    let row = row.await.unwrap();
    assert_eq!((row.get(0), row.get(1)), ("it's ours", "for the server"));
    let refused = tokio_postgres::connect(&cluster.url_as("nobody", "postgres"), tokio_postgres::NoTls).await;
    let refused = refused.err().unwrap();
    assert!(refused.as_db_error().unwrap().message().contains("pg_hba.conf rejects"));
}

#[test]
fn nothing_is_left_of_a_cluster_whose_process_was_killed() {
    const NAME: &str = "cluster::nothing_is_left_of_a_cluster_whose_process_was_killed";
    // The process that is killed is this test, run once more with the variable set.
    if std::env::var_os("BENEFITS_SYNC_TEST_VICTIM").is_some() {
        let cluster = Cluster::start_blocking(&support::options(18)).unwrap();
        writeln!(std::io::stdout(), "\nstarted {}", cluster.directory().display()).unwrap();
        std::io::stdin().lines().for_each(drop);
        return;
    }
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", NAME, "--nocapture"])
        .env("BENEFITS_SYNC_TEST_VICTIM", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(victim.stdout.take().unwrap()).lines().map(Result::unwrap);
    let directory = lines.find_map(|line| line.strip_prefix("started ").map(PathBuf::from)).unwrap();
    let postmaster = postmaster(&directory);
    victim.kill().unwrap();
    victim.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while directory.exists() {
        assert!(Instant::now() < deadline, "{} is still there", directory.display());
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(!runs(&postmaster));
}
