//! The first five invariants of the design, each broken on purpose at the place where it would hurt.

use benefits_sync::demo::cluster::Cluster;
use benefits_sync::sandbox::{FaultRule, JournalEntry, SandboxOptions, SeedAccount};

use crate::for_each_major;
use crate::support::database::connect;
use crate::support::site::{Site, eventually, prepare};
use crate::support::{database_on, private_cluster};

fn fault(text: &str) -> FaultRule {
    text.parse().unwrap()
}

async fn confirmed(site: &Site) -> String {
    let sql = "select confirmed_flush_lsn::text from pg_replication_slots where slot_name = $1::text::name";
    site.hr.query_one(sql, &[&site.database.slot]).await.unwrap().get(0)
}

async fn is_before(site: &Site, a: &str, b: &str) -> bool {
    let sql = "select $1::text::pg_lsn < $2::text::pg_lsn";
    site.hr.query_one(sql, &[&a, &b]).await.unwrap().get(0)
}

async fn wal_end(site: &Site) -> String {
    site.hr.query_one("select pg_current_wal_lsn()::text", &[]).await.unwrap().get(0)
}

async fn surname(site: &Site, id: i64, name: &str) {
    let sql = "update hr.employee set surname = $2 where id = $1";
    site.hr.execute(sql, &[&id, &name]).await.unwrap();
}

/// Waits until somebody waits for a lock on the table.
async fn until_blocked(site: &Site, table: &str) {
    eventually("the marker waits for the lock", async || {
        let sql = "select exists (select from pg_locks where relation = $1::text::regclass and not granted)";
        site.hr.query_one(sql, &[&table]).await.unwrap().get(0)
    })
    .await;
}

/// Writes of the employee that reached the platform, whatever became of them.
fn writes(site: &Site, id: &str) -> Vec<JournalEntry> {
    site.sandbox.journal_of(id)
}

fn versions_rise(entries: &[JournalEntry]) {
    let mut acted: Vec<i64> = entries.iter().filter(|e| e.acted()).filter_map(|e| e.source_version).collect();
    let seen = acted.clone();
    acted.sort_unstable();
    acted.dedup();
    assert_eq!(acted, seen, "versions of accepted writes rise");
}

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
        let mut site = Site::new(major).await;
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
        let elsewhere = crate::support::database(major).await;
        let client = elsewhere.client().await;
        client.batch_execute("create table busy as select generate_series(1, 20000) as n").await.unwrap();
        site.passed().await;
        assert_eq!(ledger().await, before, "nothing was written to the ledger");
        site.stop().await;
    }

    async fn a_change_that_comes_while_its_forerunner_is_in_flight_is_sent_as_well(major: u32) {
        let mut site = Site::new(major).await;
        site.start().await;
        site.sync(&["1"]).await;
        site.sandbox.arm(fault("slow-answer,delay=3s,next=1,on=writes"));
        surname(&site, 1, "First").await;
        site.sandbox.until(|s| s.account_of("1").unwrap().get("surname") == Some("First")).await;
        surname(&site, 1, "Second").await;
        site.hr.execute("update hr.employee set known_as = 'Both' where id = 1", &[]).await.unwrap();
        site.passed().await;
        assert_eq!(site.status("1").await.0, "in_progress");
        site.settled().await;
        assert_eq!(site.held("1", "surname").as_deref(), Some("Second"));
        assert_eq!(site.held("1", "knownAs").as_deref(), Some("Both"));
        versions_rise(&writes(&site, "1"));
        site.stop().await;
    }

    async fn the_same_write_has_the_same_key_and_version_after_a_kill_between_send_and_answer(major: u32) {
        let mut site = Site::new(major).await;
        let process = site.spawn().await;
        site.sync(&["1"]).await;
        let known = writes(&site, "1").len();
        site.sandbox.arm(fault("slow-answer,delay=20s,next=1,on=writes"));
        surname(&site, 1, "Once").await;
        site.sandbox.until(|s| s.journal_of("1").len() > known).await;
        // Once the slot has moved on the ledger knows of the write: what is read again is sent in full.
        site.passed().await;
        process.kill9();
        site.start().await;
        site.settled().await;
        let after = writes(&site, "1").split_off(known);
        assert_eq!(after.len(), 2, "{after:#?}");
        assert_eq!((&after[0].key, after[0].source_version), (&after[1].key, after[1].source_version));
        assert_eq!(after[0].body, after[1].body);
        assert!(after[1].replayed);
        assert_eq!(site.status("1").await.0, "successful");
        site.stop().await;
    }

    async fn after_a_kill_in_the_instant_before_the_ledger_knows_of_a_write_everything_is_sent_above_it(major: u32) {
        let mut site = Site::new(major).await;
        site.start().await;
        site.sync(&["1"]).await;
        site.stop().await;
        let known = writes(&site, "1").len();
        // The answer has come, and dies with the process before anything of it is recorded.
        let process = site.spawn_armed("answer-received=abort@9");
        site.until_ready().await;
        let mut n = 0;
        while site.get("/livez").await.0 == 200 {
            n += 1;
            surname(&site, 1, &format!("Try {n}")).await;
        }
        assert_eq!(process.ended().await.code(), None);
        site.start().await;
        site.settled().await;
        let held = format!("Try {n}");
        assert_eq!(site.held("1", "surname"), Some(held));
        let after = writes(&site, "1").split_off(known);
        versions_rise(&after);
        let last: serde_json::Value = serde_json::from_slice(after.last().unwrap().body.as_ref().unwrap()).unwrap();
        assert!(last.as_object().unwrap().len() > 10, "all that the platform may hold otherwise: {last}");
        site.stop().await;
    }

    async fn a_create_whose_answer_was_lost_by_a_kill_is_not_repeated_as_another(major: u32) {
        let mut site = Site::new(major).await;
        let process = site.spawn().await;
        site.sandbox.arm(fault("slow-answer,delay=20s,next=1,on=createEmployee"));
        site.hr.execute("select benefits.sync(array['3'])", &[]).await.unwrap();
        site.sandbox.until(|s| !s.journal_of("3").is_empty()).await;
        process.kill9();
        site.start().await;
        site.settled().await;
        let sent = writes(&site, "3");
        assert!(sent.iter().all(|entry| entry.key == sent[0].key), "{sent:#?}");
        assert_eq!(site.sandbox.accounts().len(), 1);
        assert_eq!(site.status("3").await.0, "successful");
        site.stop().await;
    }

    async fn a_value_that_goes_there_and_back_ends_where_it_began_though_an_answer_was_lost(major: u32) {
        let mut site = Site::new(major).await;
        site.more.push_str("[delivery]\nbackoff_min = \"1500ms\"\nbackoff_max = \"2s\"\n");
        site.start().await;
        surname(&site, 1, "A").await;
        site.sync(&["1"]).await;
        site.sandbox.arm(fault("lost-after,next=1,on=writes"));
        surname(&site, 1, "B").await;
        site.sandbox.until(|s| s.account_of("1").unwrap().get("surname") == Some("B")).await;
        surname(&site, 1, "A").await;
        site.settled().await;
        assert_eq!(site.held("1", "surname").as_deref(), Some("A"));
        versions_rise(&writes(&site, "1"));
        site.stop().await;
    }

    async fn claims_of_a_dead_instance_are_taken_over(major: u32) {
        let mut site = Site::new(major).await;
        let process = site.spawn().await;
        site.sync(&["1", "2"]).await;
        site.sandbox.arm(fault("slow,delay=20s,next=2,on=writes"));
        surname(&site, 1, "One").await;
        surname(&site, 2, "Two").await;
        eventually("both are claimed", async || {
            let sql = "select count(*) from benefits.pending where claim is not null";
            site.hr.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 2
        })
        .await;
        process.kill9();
        site.start().await;
        site.settled().await;
        assert_eq!(site.held("1", "surname").as_deref(), Some("One"));
        assert_eq!(site.held("2", "surname").as_deref(), Some("Two"));
        site.stop().await;
    }

    async fn two_instances_side_by_side_create_nobody_twice(major: u32) {
        let mut site = Site::new(major).await;
        site.start().await;
        let process = {
            let port = site.http;
            site.http = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let process = site.spawn().await;
            site.http = port;
            process
        };
        site.sandbox.arm(fault("slow,delay=30ms,jitter=60ms"));
        let ids: Vec<String> = (1..=30).map(|id: i32| id.to_string()).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        site.sync(&ids).await;
        let sql = "update hr.employee set known_as = 'Both'";
        site.hr.execute(sql, &[]).await.unwrap();
        site.settled().await;
        assert_eq!(site.sandbox.accounts().len(), 30);
        for id in &ids {
            let sent = writes(&site, id);
            let creates = sent.iter().filter(|e| e.acted() && e.operation.as_str() == "createEmployee").count();
            let updates = sent.iter().filter(|e| e.acted() && e.operation.as_str() == "updateEmployee").count();
            assert_eq!((creates, updates), (1, 1), "{id}: {sent:#?}");
            assert_eq!(site.held(id, "knownAs").as_deref(), Some("Both"));
            versions_rise(&sent);
        }
        drop(process);
        site.stop().await;
    }

    async fn when_the_reader_dies_the_other_instance_takes_the_slot(major: u32) {
        let mut site = Site::new(major).await;
        let process = site.spawn().await;
        site.sync(&["1"]).await;
        site.http = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        site.start().await;
        process.kill9();
        surname(&site, 1, "Heir").await;
        site.settled().await;
        assert_eq!(site.held("1", "surname").as_deref(), Some("Heir"));
        site.stop().await;
    }

    async fn a_second_stale_answer_halts_until_a_person_resumes_even_over_a_restart(major: u32) {
        let mut site = Site::new(major).await;
        site.start().await;
        site.sync(&["1", "2"]).await;
        // Nothing goes above the highest version there is.
        let account = site.sandbox.account_of("1").unwrap();
        let email = account.get("email").unwrap().to_owned();
        site.sandbox.remove_account(&account.id, false);
        let seed = SeedAccount::new(&email).linked_to("1", Some(9_007_199_254_740_991));
        let rival = site.sandbox.seed(seed).unwrap();
        let sql = "update benefits.enrolment set benefits_id = $1 where employee_id = '1'";
        site.hr.execute(sql, &[&rival]).await.unwrap();
        surname(&site, 1, "Ours").await;
        let halted = async |site: &Site| {
            let (status, text) = site.get("/readyz").await;
            status == 503 && text.contains("another-writer")
        };
        eventually("delivery is halted", async || halted(&site).await).await;
        let code: Option<String> =
            site.hr.query_one("select halted_code from benefits.site", &[]).await.unwrap().get(0);
        assert_eq!(code.as_deref(), Some("another-writer"));
        surname(&site, 2, "Waits").await;
        site.passed().await;
        site.restart().await;
        eventually("delivery is halted again", async || halted(&site).await).await;
        assert_ne!(site.held("2", "surname").as_deref(), Some("Waits"));
        // The rival has gone, and a person says so.
        site.sandbox.remove_account(&rival, false);
        let ours = site.sandbox.seed(SeedAccount::new(&email).linked_to("1", None)).unwrap();
        site.hr.execute(sql, &[&ours]).await.unwrap();
        site.hr.execute("select benefits.resume()", &[]).await.unwrap();
        eventually("2 is delivered", async || site.held("2", "surname").as_deref() == Some("Waits")).await;
        site.stop().await;
    }

    async fn an_account_that_is_ahead_raises_the_floor_once(major: u32) {
        let mut site = Site::new(major).await;
        let email: String = site
            .hr
            .query_one("select address from hr.email where employee_id = 1 and kind = 'work'", &[])
            .await
            .unwrap()
            .get(0);
        // The year 2200 in microseconds.
        let ahead = 7_258_118_400_000_000_i64;
        let account = site.sandbox.seed(SeedAccount::new(&email)).unwrap();
        site.start().await;
        site.sync(&["1"]).await;
        assert_eq!(site.sandbox.account(&account).unwrap().external_id.as_deref(), Some("1"));
        // Somebody has written to it with a version from the future, and has gone.
        site.sandbox.remove_account(&account, false);
        let mut seed = SeedAccount::new(&email).linked_to("1", Some(ahead));
        seed = seed.with("surname", "Elsewhere");
        let account = site.sandbox.seed(seed).unwrap();
        let sql = "update benefits.enrolment set benefits_id = $1 where employee_id = '1'";
        site.hr.execute(sql, &[&account]).await.unwrap();
        surname(&site, 1, "Ours").await;
        site.settled().await;
        let view = site.sandbox.account(&account).unwrap();
        assert_eq!(view.get("surname"), Some("Ours"));
        assert_eq!(view.source_version, Some(ahead + 1));
        surname(&site, 1, "Again").await;
        site.settled().await;
        assert_eq!(site.sandbox.account(&account).unwrap().source_version, Some(ahead + 2), "the floor stays");
        let stale = writes(&site, "1").iter().filter(|e| e.problem == Some("stale-source-version")).count();
        assert_eq!(stale, 1);
        site.stop().await;
    }
}

/// A site on a cluster of its own, whose settings may be changed.
async fn private_site(major: u32) -> (Cluster, Site) {
    let cluster = private_cluster(major).await;
    let database = database_on(&cluster, major).await;
    prepare(&database.url).await;
    let site = Site::on(database, SandboxOptions { keep_bodies: true, ..SandboxOptions::default() }).await;
    (cluster, site)
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
        let (_cluster, mut site) = private_site(major).await;
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
