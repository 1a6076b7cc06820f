//! The slot and the publication: lost, dropped, made again by hand; and no false alarm where all is well.

use crate::for_each_major;
use crate::reconcile::{calm, drop_slot, start};
use crate::support::database::connect;
use crate::support::site::{Site, eventually};
use crate::support::{options, private_cluster_with};

/// The slot's generation: raised whenever a new one took its place; and how often there was doubt.
pub async fn doubts(site: &Site) -> (i64, i64) {
    let sql = "select c.slot_generation, s.doubt_count from benefits.checkpoint as c, benefits.site as s";
    let row = site.hr.query_one(sql, &[]).await.unwrap();
    (row.get(0), row.get(1))
}

/// Dropped and made again under the same name, with a change in between that nobody decodes.
async fn make_slot_again(site: &Site) {
    drop_slot(site).await;
    site.hr.execute("update hr.employee set surname = 'Lovelace' where id = 1", &[]).await.unwrap();
    let sql = "select pg_create_logical_replication_slot($1::text::name, 'pgoutput')";
    site.hr.execute(sql, &[&site.database.slot]).await.unwrap();
}

async fn until_healed(site: &Site) {
    eventually("the change arrives", async || site.held("1", "surname").as_deref() == Some("Lovelace")).await;
    calm(site).await;
}

for_each_major! {
    async fn a_restart_raises_no_doubt_whatever_way_the_service_ended(major: u32) {
        let mut site = Site::new(major).await;
        start(&mut site).await;
        site.sync(&["1"]).await;
        let before = doubts(&site).await;
        site.stop().await;
        site.start().await;
        site.stop().await;
        let process = site.spawn().await;
        site.hr.execute("update hr.employee set surname = 'Lovelace' where id = 1", &[]).await.unwrap();
        site.settled().await;
        // WAL that is nobody's: an idle slot moves past it without a word in the ledger.
        site.hr.batch_execute("create table other as select generate_series(1, 1000) as a").await.unwrap();
        site.passed().await;
        process.kill9();
        site.start().await;
        site.settled().await;
        assert_eq!(doubts(&site).await, before);
        site.stop().await;
    }

    async fn a_slot_made_again_by_hand_after_an_orderly_stop_is_doubted(major: u32) {
        let mut site = Site::new(major).await;
        start(&mut site).await;
        site.sync(&["1"]).await;
        site.stop().await;
        make_slot_again(&site).await;
        site.start().await;
        until_healed(&site).await;
        site.stop().await;
    }

    async fn a_slot_made_again_by_hand_after_a_kill_is_doubted(major: u32) {
        let site = Site::new(major).await;
        let process = site.spawn().await;
        calm(&site).await;
        site.sync(&["1"]).await;
        eventually("transactions are counted", async || {
            let sql = "select coalesce(slot_txns, 0) > 0 from benefits.checkpoint";
            site.hr.query_one(sql, &[]).await.unwrap().get(0)
        }).await;
        process.kill9();
        make_slot_again(&site).await;
        let _process = site.spawn().await;
        until_healed(&site).await;
    }

    async fn a_publication_made_again_costs_a_comparison_and_no_change(major: u32) {
        let mut site = Site::new(major).await;
        start(&mut site).await;
        site.sync(&["1"]).await;
        site.hr.batch_execute("drop publication benefits_sync").await.unwrap();
        site.hr.execute("update hr.employee set surname = 'Lovelace' where id = 1", &[]).await.unwrap();
        eventually("the stream has stopped", async || site.get("/readyz").await.0 == 503).await;
        site.hr.batch_execute("select benefits.publish_sources()").await.unwrap();
        until_healed(&site).await;
        // And the stream goes on.
        site.hr.execute("update hr.employee set surname = 'Byron' where id = 1", &[]).await.unwrap();
        site.settled().await;
        assert_eq!(site.held("1", "surname").as_deref(), Some("Byron"));
        site.stop().await;
    }

    async fn a_table_that_was_out_of_the_publication_for_a_while_is_doubted(major: u32) {
        let mut site = Site::new(major).await;
        start(&mut site).await;
        site.sync(&["1"]).await;
        site.stop().await;
        site.hr.batch_execute(
            "alter publication benefits_sync drop table hr.employee;
             update hr.employee set surname = 'Lovelace' where id = 1;
             alter publication benefits_sync add table hr.employee",
        ).await.unwrap();
        site.start().await;
        until_healed(&site).await;
        site.stop().await;
    }

    async fn a_slot_that_waits_for_an_old_transaction_names_it_and_is_made_once_that_has_ended(major: u32) {
        // Every transaction of the whole cluster is waited for.
        let (cluster, mut site) = Site::apart(options(major), major).await;
        let mut forgotten = connect(&format!("{}?application_name=forgotten", cluster.url("postgres"))).await;
        let open = forgotten.transaction().await.unwrap();
        let pid: i32 = open.query_one("select pg_backend_pid() from pg_current_xact_id()", &[]).await.unwrap().get(0);
        site.start_unready();
        let named = format!("waits for the transaction of process {pid} (user postgres, database postgres, application forgotten)");
        eventually("it says who is waited for", async || site.get("/readyz").await.1.contains(&named)).await;
        // HR is not kept from anything meanwhile.
        site.hr.execute("update hr.employee set surname = 'Lovelace' where id = 1", &[]).await.unwrap();
        open.rollback().await.unwrap();
        site.until_ready().await;
        calm(&site).await;
        site.sync(&["1"]).await;
        assert_eq!(site.held("1", "surname").as_deref(), Some("Lovelace"));
        site.stop().await;
    }

    async fn what_comes_between_the_comparison_and_a_slot_that_is_long_in_the_making_is_not_lost(major: u32) {
        let (cluster, mut site) = Site::apart(options(major), major).await;
        start(&mut site).await;
        site.sync(&["1", "2"]).await;
        site.stop().await;
        drop_slot(&site).await;
        let mut forgotten = connect(&cluster.url("postgres")).await;
        let open = forgotten.transaction().await.unwrap();
        open.batch_execute("select pg_current_xact_id()").await.unwrap();
        site.start_unready();
        eventually("everyone was compared, and the slot is not there yet", async || {
            let sql = "select doubt is null and doubt_count > 1 and not exists (
                           select from pg_replication_slots where confirmed_flush_lsn is not null
                       ) from benefits.site";
            site.hr.query_one(sql, &[]).await.unwrap().get(0)
        }).await;
        site.hr.batch_execute("update hr.employee set surname = 'Lovelace' where id = 1; select benefits.sync('{7}')").await.unwrap();
        open.rollback().await.unwrap();
        until_healed(&site).await;
        eventually("the request is heard", async || site.status("7").await.0 == "successful").await;
        // A change of who was enrolled so is met by the stream.
        site.hr.execute("update hr.employee set surname = 'Byron' where id = 7", &[]).await.unwrap();
        site.settled().await;
        assert_eq!(site.held("7", "surname").as_deref(), Some("Byron"));
        site.stop().await;
    }

    async fn a_stream_of_another_server_than_the_ledgers_is_not_read(major: u32) {
        let mut site = Site::new(major).await;
        start(&mut site).await;
        site.sync(&["1"]).await;
        let before = doubts(&site).await;
        site.stop().await;
        // As after a failover that one of the two URLs has not heard of.
        let other = private_cluster_with(options(major)).await;
        other.psql("postgres", "create database hr").await.unwrap();
        site.more_of_database = format!("replication_url = \"{}\"\n", other.url("hr"));
        site.start_unready();
        eventually("it says so", async || site.get("/readyz").await.1.contains("lead to two servers")).await;
        assert_eq!(other.psql("hr", "select count(*) from pg_replication_slots").await.unwrap(), "0");
        site.stop().await;
        site.more_of_database.clear();
        site.start().await;
        site.hr.execute("update hr.employee set surname = 'Lovelace' where id = 1", &[]).await.unwrap();
        until_healed(&site).await;
        assert_eq!(doubts(&site).await, before);
        site.stop().await;
    }

    async fn a_slot_of_somebody_else_is_left_alone(major: u32) {
        let site = Site::new(major).await;
        let sql = "select pg_create_physical_replication_slot($1::text::name)";
        site.hr.execute(sql, &[&site.database.slot]).await.unwrap();
        let mut site = site;
        let shutdown = tokio_util::sync::CancellationToken::new();
        let running = tokio::spawn(benefits_sync::pipeline::run(site.config(), shutdown.clone()));
        eventually("it says so", async || site.get("/readyz").await.1.contains("the replication slot is not ours")).await;
        let sql = "select slot_type from pg_replication_slots where slot_name = $1::text::name";
        assert_eq!(site.hr.query_one(sql, &[&site.database.slot]).await.unwrap().get::<_, &str>(0), "physical");
        drop_slot(&site).await;
        site.until_ready().await;
        shutdown.cancel();
        running.await.unwrap().unwrap();
        start(&mut site).await;
        site.stop().await;
    }

    async fn a_slot_that_postgresql_gave_up_is_replaced(major: u32) {
        let options = options(major).setting("max_slot_wal_keep_size", "1MB").setting("max_wal_size", "32MB")
            .setting("min_wal_size", "32MB");
        let (_cluster, mut site) = Site::apart(options, major).await;
        start(&mut site).await;
        site.sync(&["1", "2"]).await;
        site.stop().await;
        site.hr.execute("update hr.employee set surname = 'Lovelace' where id = 1", &[]).await.unwrap();
        for _ in 0..4 {
            site.hr.batch_execute("create table filler as select repeat('x', 1000) from generate_series(1, 20000); drop table filler").await.unwrap();
            site.hr.batch_execute("select pg_switch_wal(); checkpoint").await.unwrap();
        }
        let status = "select wal_status from pg_replication_slots where slot_name = $1::text::name";
        assert_eq!(site.hr.query_one(status, &[&site.database.slot]).await.unwrap().get::<_, &str>(0), "lost");
        let (generation, _) = doubts(&site).await;
        start(&mut site).await;
        until_healed(&site).await;
        assert_eq!(doubts(&site).await.0, generation + 1);
        site.stop().await;
    }
}
