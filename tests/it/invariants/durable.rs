//! Confirm only what is durable, and only once it is visible (invariants 1 and 2).

use super::{confirmed, is_before, surname, until_blocked, wal_end};
use crate::for_each_major;
use crate::support::database::connect;
use crate::support::options;
use crate::support::site::{Site, eventually};

for_each_major! {
    async fn what_is_not_durable_is_not_confirmed_and_survives_a_kill(major: u32) {
        let site = Site::new(major).await;
        let process = site.spawn().await;
        site.sync(&["1", "2"]).await;
        let mut other = site.database.client().await;
        let lock = other.transaction().await.unwrap();
        lock.batch_execute("lock table benefits.pending in access exclusive mode").await.unwrap();
        surname(&site, 1, "Lovelace").await;
        // At or behind the change's end: other tests write WAL on this server too.
        let bound = wal_end(&site).await;
        until_blocked(&site, "benefits.pending").await;
        // Something after it that touches nobody must not carry the confirmation past it.
        site.hr.execute("insert into hr.audit_log (entry) values ('{}')", &[]).await.unwrap();
        let after = wal_end(&site).await;
        assert!(is_before(&site, &confirmed(&site).await, &after).await);
        process.kill9();
        let at_rest = confirmed(&site).await;
        assert!(is_before(&site, &at_rest, &bound).await, "{at_rest} was confirmed, and the change ended at {bound} or before");
        lock.rollback().await.unwrap();
        let _process = site.spawn().await;
        site.settled().await;
        assert_eq!(site.held("1", "surname").as_deref(), Some("Lovelace"));
    }

    async fn a_marker_that_is_kept_waiting_tries_again_until_it_gets_through(major: u32) {
        let mut site = Site::new(major).await;
        site.start().await;
        site.sync(&["1"]).await;
        let mut other = site.database.client().await;
        let lock = other.transaction().await.unwrap();
        lock.batch_execute("lock table benefits.checkpoint in access exclusive mode").await.unwrap();
        surname(&site, 1, "Hopper").await;
        // The lock timeout ends those who wait; the next ones wait again.
        let waiting = "from pg_locks where relation = 'benefits.checkpoint'::regclass and not granted";
        for _ in 0..2 {
            until_blocked(&site, "benefits.checkpoint").await;
            let rows = site.hr.query(&format!("select pid {waiting}"), &[]).await.unwrap();
            let first: Vec<i32> = rows.iter().map(|row| row.get(0)).collect();
            eventually("the lock timeout", async || {
                let sql = format!("select not exists (select {waiting} and pid = any ($1))");
                site.hr.query_one(&sql, &[&first]).await.unwrap().get(0)
            })
            .await;
        }
        lock.rollback().await.unwrap();
        site.settled().await;
        assert_eq!(site.held("1", "surname").as_deref(), Some("Hopper"));
        site.stop().await;
    }

    async fn an_idle_slot_advances_and_writes_nothing(major: u32) {
        // Nobody else writes WAL here: beyond some megabytes of it the position is written down.
        let (cluster, mut site) = Site::apart(options(major), major).await;
        site.start().await;
        site.sync(&["1"]).await;
        site.passed().await;
        // Written once, when the server has first reported how many transactions it decoded.
        eventually("the checkpoint is complete", async || {
            let sql = "select coalesce(bool_or(slot_txns > 0), false) from benefits.checkpoint";
            site.hr.query_one(sql, &[]).await.unwrap().get(0)
        })
        .await;
        // The first start's comparison is judged and forgotten, too.
        eventually("the comparison is judged", async || {
            let sql = "select not exists (select from benefits.mass_change)";
            site.hr.query_one(sql, &[]).await.unwrap().get(0)
        })
        .await;
        // Every row version of the ledger: a write of any kind makes another one.
        let tables = "select c.oid::regclass::text from pg_class as c \
                      where c.relnamespace = 'benefits'::regnamespace and c.relkind = 'r' order by 1";
        let ledger = async || -> Vec<String> {
            let mut versions = Vec::new();
            for row in site.hr.query(tables, &[]).await.unwrap() {
                let table: String = row.get(0);
                let sql = format!(
                    "select '{table} ' || coalesce(string_agg(t.ctid::text || t.xmin, ',' order by t.ctid), '') \
                     from {table} as t"
                );
                versions.push(site.hr.query_one(&sql, &[]).await.unwrap().get(0));
            }
            versions
        };
        let before = ledger().await;
        site.hr.batch_execute("create table hr.busy (n integer)").await.unwrap();
        for _ in 0..20 {
            site.hr.batch_execute("insert into hr.busy select generate_series(1, 1000)").await.unwrap();
        }
        // Another database of the cluster is busy, too.
        let elsewhere = connect(&cluster.url("postgres")).await;
        elsewhere.batch_execute("create table busy as select generate_series(1, 20000) as n").await.unwrap();
        site.passed().await;
        // Every two seconds the reader considers whether to write its position down: it has done so twice since.
        let mut considered = std::collections::BTreeSet::new();
        eventually("the reader has considered it", async || {
            // What it asks right after.
            let sql = "select query_start::text from pg_stat_activity \
                       where application_name = 'benefits-sync marker' and query like '%owners_version%'";
            considered.extend(site.hr.query(sql, &[]).await.unwrap().iter().map(|row| row.get::<_, String>(0)));
            considered.len() > 2
        })
        .await;
        let checkpoint = site.hr.query_one("select c::text from benefits.checkpoint as c", &[]).await.unwrap();
        let checkpoint: String = checkpoint.get(0);
        assert_eq!(ledger().await, before, "nothing was written to the ledger: {checkpoint}");
        site.stop().await;
    }
}

async fn standby(site: &Site, names: &str) {
    // Not through our own commit: that would wait as well.
    site.hr.batch_execute("set synchronous_commit = local").await.unwrap();
    site.hr.batch_execute(&format!("alter system set synchronous_standby_names = '{names}'")).await.unwrap();
    site.hr.batch_execute("select pg_reload_conf()").await.unwrap();
    eventually("the setting is in force", async || {
        let row =
            site.hr.query_one("select current_setting('synchronous_standby_names')", &[]).await.unwrap();
        row.get::<_, &str>(0) == names
    })
    .await;
}

for_each_major! {
    async fn a_commit_that_is_decoded_before_it_is_visible_is_not_lost(major: u32) {
        let (_cluster, mut site) = Site::apart(options(major), major).await;
        site.start().await;
        site.sync(&["1", "2"]).await;
        standby(&site, "nobody").await;
        let url = site.database.url.clone();
        let waiting = |sql: &'static str| {
            let url = url.clone();
            tokio::spawn(async move { connect(&url).await.batch_execute(sql).await })
        };
        let change = waiting("update hr.employee set surname = 'Unseen' where id = 1");
        // A change of somebody who is enrolled by a later commit, which is visible at once.
        let early = waiting("update hr.employee set surname = 'Early' where id = 3");
        eventually("both wait for the standby", async || {
            let sql = "select count(*) from pg_stat_activity where wait_event = 'SyncRep' and query like 'update hr.%'";
            site.hr.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 2
        })
        .await;
        site.hr.execute("select benefits.sync(array['3'])", &[]).await.unwrap();
        eventually("/readyz says that a commit is not visible", async || {
            let (status, text) = site.get("/readyz").await;
            status == 503 && text.contains("visible")
        })
        .await;
        assert_ne!(site.held("1", "surname").as_deref(), Some("Unseen"));
        assert!(site.sandbox.account_of("3").is_none(), "an enrolment does not overtake the commit before it");
        standby(&site, "").await;
        change.await.unwrap().unwrap();
        early.await.unwrap().unwrap();
        site.settled().await;
        assert_eq!(site.held("1", "surname").as_deref(), Some("Unseen"));
        assert_eq!(site.held("3", "surname").as_deref(), Some("Early"));
        site.until_ready().await;
        site.stop().await;
    }
}
