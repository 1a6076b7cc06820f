//! `pg_upgrade` from 17 to 18: another system id, the same ledger. With the slot carried over, or dropped before.

use std::process::Output;

use benefits_sync::demo::cluster::{Cluster, StopMode};
use benefits_sync::sandbox::SandboxOptions;

use crate::reconcile::{ASKS_SOON, asked_in_vain, calm, doubted, drop_slot, unlisted};
use crate::slot::doubts;
use crate::support::database::{connect, database_on};
use crate::support::proof::prove;
use crate::support::site::{Site, prepare};
use crate::support::{options, private_cluster, private_cluster_with, wanted};

/// Runs `pg_upgrade` between two servers that are stopped.
async fn upgrade(old: &Cluster, new: &Cluster) {
    let mut command = new.binaries().server("pg_upgrade");
    command.arg("-b").arg(old.binaries().path("")).arg("-B").arg(new.binaries().path(""));
    command.arg("-d").arg(old.directory().join("data")).arg("-D").arg(new.directory().join("data"));
    command.args(["-p", &old.port().to_string(), "-P", &new.port().to_string(), "-U", "postgres"]);
    command.arg("-s").arg(new.socket_directory()).arg("--no-sync").current_dir(new.socket_directory());
    let done: Output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
}

async fn surname(site: &Site, id: i64, name: &str) {
    let sql = "update hr.employee set surname = $2 where id = $1";
    site.hr.execute(sql, &[&id, &name]).await.unwrap();
}

/// `keeps_slot`: the pipeline runs all the while, and `pg_upgrade` carries its slot over. How many new slots it has taken.
async fn follows(keeps_slot: bool) -> i64 {
    let old = private_cluster(17).await;
    let mut database = database_on(&old, 17).await;
    prepare(&database.url).await;
    let mut options = options(18);
    // 17's cluster has none, and pg_upgrade wants both alike.
    options.initdb = vec!["--no-data-checksums".to_owned()];
    let new = private_cluster_with(options).await;
    database.url = format!(
        "postgresql://postgres@127.0.0.1:{},127.0.0.1:{}/hr?target_session_attrs=read-write",
        old.port(),
        new.port()
    );
    new.stop(StopMode::Fast).await.unwrap();
    let options = SandboxOptions { keep_bodies: true, ..SandboxOptions::default() };
    let mut site = Site::on(database, options).await;
    ASKS_SOON.clone_into(&mut site.more);
    site.start().await;
    calm(&site).await;
    site.sync(&["1", "2", "3"]).await;
    surname(&site, 1, "Before").await;
    site.settled().await;
    let generation = doubts(&site).await.0;
    if keeps_slot {
        // Its WAL has to be read to the end: the pipeline goes on until the server has stopped.
        old.stop(StopMode::Fast).await.unwrap();
    } else {
        site.stop().await;
        drop_slot(&site).await;
        surname(&site, 2, "Unread").await;
        old.stop(StopMode::Fast).await.unwrap();
    }
    upgrade(&old, &new).await;
    let sent = site.sandbox.journal().len();
    unlisted(&site);
    new.restart().await.unwrap();
    site.hr = connect(&new.url("hr")).await;
    if keeps_slot {
        surname(&site, 2, "Unread").await;
    } else {
        site.start_unready();
    }
    doubted(&site).await;
    asked_in_vain(&site).await;
    assert_eq!(site.sandbox.journal().len(), sent, "nothing leaves before the platform was compared");
    site.sandbox.disarm_all();
    calm(&site).await;
    let later: Vec<_> = site.sandbox.journal().into_iter().skip(sent).collect();
    assert_eq!(later.len(), 1, "{later:#?}");
    assert_eq!((later[0].external_id.as_deref(), &*later[0].fields), (Some("2"), &["surname"][..]));
    surname(&site, 3, "After").await;
    prove(&site).await;
    site.until_ready().await;
    site.stop().await;
    doubts(&site).await.0 - generation
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_pg_upgrade_the_slot_that_it_carried_over_goes_on_and_only_differences_are_sent() {
    if wanted(17) && wanted(18) {
        assert_eq!(follows(true).await, 0, "the same slot goes on");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_pg_upgrade_without_the_slot_only_differences_are_sent() {
    if wanted(17) && wanted(18) {
        assert_eq!(follows(false).await, 1, "the slot is a new one");
    }
}
