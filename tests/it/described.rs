//! HR's tables are not as they were described, or are described otherwise: nobody's changes wait for that, and nobody is
//! enrolled by it.

use crate::for_each_major;
use crate::support::database::connect;
use crate::support::options;
use crate::support::proof::prove;
use crate::support::site::{Site, eventually};

async fn doubt(site: &Site) -> Option<String> {
    site.hr.query_one("select doubt from benefits.site", &[]).await.unwrap().get(0)
}

async fn drop_slot(site: &Site) {
    let sql = "select pg_drop_replication_slot($1::text::name)";
    site.hr.execute(sql, &[&site.database.slot]).await.unwrap();
}

async fn until_compared(site: &Site) {
    eventually("everyone was compared", async || doubt(site).await.is_none()).await;
}

async fn rename(site: &Site, id: i64, name: &str) {
    site.hr.execute("update hr.employee set surname = $2 where id = $1", &[&id, &name]).await.unwrap();
}

for_each_major! {
    async fn a_child_tables_key_that_is_renamed_stops_nobody_and_is_made_up_for_when_it_is_described(major: u32) {
        let mut site = Site::new(major).await;
        site.start().await;
        site.sync(&["1", "2"]).await;
        site.hr.batch_execute("alter table hr.phone rename column id to phone_id").await.unwrap();
        // Whose rows of a starter are cannot be read, and a deleted row does not say whose it was.
        site.hr.execute("select benefits.sync(array['3'])", &[]).await.unwrap();
        site.hr.batch_execute("delete from hr.phone where employee_id = 2 and kind = 'mobile'").await.unwrap();
        rename(&site, 1, "Goes on").await;
        site.passed().await;
        eventually("the others are delivered", async || {
            site.held("1", "surname").as_deref() == Some("Goes on") && site.status("3").await.0 == "successful"
        })
        .await;
        assert_eq!(doubt(&site).await.as_deref(), Some("owners"));
        site.hr.batch_execute(include_str!("../../sql/demo/describe.sql")).await.unwrap();
        eventually("the row is missed no more", async || site.held("2", "mobile").is_none()).await;
        until_compared(&site).await;
        site.settled().await;
        prove(&site).await;
        site.stop().await;
    }

    async fn wal_of_a_shape_that_is_described_no_more_is_passed_and_everyone_compared(major: u32) {
        let mut site = Site::new(major).await;
        site.start().await;
        site.sync(&["1"]).await;
        site.stop().await;
        site.hr.batch_execute(
            "update hr.department set name = name || ' (new)';
             delete from hr.phone where employee_id = 1;
             alter table hr.department rename column id to department_id;
             alter table hr.phone rename column id to phone_id",
        ).await.unwrap();
        let anew = include_str!("../../sql/demo/describe.sql").replace("on d.id = j.department_id", "on d.department_id = j.department_id");
        site.hr.batch_execute(&anew).await.unwrap();
        site.start().await;
        site.passed().await;
        until_compared(&site).await;
        site.settled().await;
        prove(&site).await;
        assert_eq!(site.held("1", "mobile"), None);
        assert!(site.held("1", "department").unwrap().ends_with(" (new)"));
        site.stop().await;
    }

    async fn whom_a_lookup_affects_cannot_be_read_so_everyone_is_compared(major: u32) {
        let mut site = Site::new(major).await;
        site.start().await;
        site.sync(&["1"]).await;
        site.hr.batch_execute(
            "create table hr.seat as select employee_id, department_id from hr.job;
             grant select on hr.seat to benefits_owner;
             select benefits.describe_source('hr.department', affected => $$
                 select seat.employee_id from hr.seat where seat.department_id = any($1) $$)",
        ).await.unwrap();
        site.settled().await;
        site.hr.batch_execute("alter table hr.seat rename column department_id to place").await.unwrap();
        site.hr.batch_execute("update hr.department set name = name || ' (new)'").await.unwrap();
        rename(&site, 1, "Goes on").await;
        site.passed().await;
        until_compared(&site).await;
        site.settled().await;
        prove(&site).await;
        assert!(site.held("1", "department").unwrap().ends_with(" (new)"));
        assert_eq!(site.held("1", "surname").as_deref(), Some("Goes on"));
        site.stop().await;
    }

    async fn a_lookup_that_takes_too_long_stops_nobody_and_everyone_is_compared(major: u32) {
        let mut site = Site::new(major).await;
        // As a statement that runs into its time limit, without the waiting.
        site.hr.batch_execute(
            "create function hr.slow(name text) returns boolean language plpgsql stable security definer as $$ begin
             perform pg_cancel_backend(pg_backend_pid()); perform pg_sleep(60); return true; end $$;
             grant usage on schema hr to benefits_owner;
             select benefits.describe_source('hr.department', affected => $$
                 select job.employee_id from hr.job join hr.department as d on d.id = job.department_id
                 where d.id = any($1) and hr.slow(d.name) $$)",
        ).await.unwrap();
        site.start().await;
        site.sync(&["1"]).await;
        site.hr.batch_execute("update hr.department set name = name || ' (new)'").await.unwrap();
        rename(&site, 1, "Goes on").await;
        site.passed().await;
        until_compared(&site).await;
        site.settled().await;
        prove(&site).await;
        assert!(site.held("1", "department").unwrap().ends_with(" (new)"));
        site.stop().await;
    }

    async fn a_description_is_applied_once(major: u32) {
        let mut site = Site::new(major).await;
        site.start().await;
        site.sync(&["1"]).await;
        let counted = "select rules_version from benefits.site";
        for _ in 0..5 {
            let before: i64 = site.hr.query_one(counted, &[]).await.unwrap().get(0);
            site.hr.batch_execute("update benefits.description set version = version + 1").await.unwrap();
            site.passed().await;
            rename(&site, 1, &format!("After {before}")).await;
            site.settled().await;
            let now: i64 = site.hr.query_one(counted, &[]).await.unwrap().get(0);
            assert_eq!(now, before + 1, "it is not met again when the stream begins anew");
        }
        site.stop().await;
    }

    async fn a_starter_flag_that_is_described_later_makes_nobody_a_starter(major: u32) {
        let mut site = Site::new(major).await;
        site.hr.batch_execute(
            "select benefits.describe_source('hr.employee', employee_key => 'id');
             update hr.employee set create_benefits_record = true where id in (5, 6);
             select benefits.describe_source('hr.employee', employee_key => 'id', starter_flag => 'create_benefits_record')",
        ).await.unwrap();
        site.start().await;
        until_compared(&site).await;
        rename(&site, 5, "Edited").await;
        // Described once more, the same: who has become a starter since stays one.
        site.hr.batch_execute("update hr.employee set create_benefits_record = true where id = 7").await.unwrap();
        site.hr.batch_execute(include_str!("../../sql/demo/describe.sql")).await.unwrap();
        site.until_state("7", "successful").await;
        site.settled().await;
        assert_eq!(site.status("5").await.0, "not_syncing");
        assert_eq!(site.status("6").await.0, "not_syncing");
        site.stop().await;
    }

    async fn a_tick_that_was_cleared_unseen_makes_a_starter_when_it_comes_again(major: u32) {
        let mut site = Site::new(major).await;
        site.hr.batch_execute(
            "update hr.employee set create_benefits_record = true where id = 5;
             update benefits.employee set starter_baseline = true where employee_id = '5'",
        ).await.unwrap();
        site.start().await;
        site.stop().await;
        drop_slot(&site).await;
        site.hr.batch_execute("update hr.employee set create_benefits_record = false where id = 5").await.unwrap();
        site.start().await;
        until_compared(&site).await;
        site.restart().await;
        site.until_ready().await;
        site.hr.batch_execute("update hr.employee set create_benefits_record = true where id = 5").await.unwrap();
        site.until_state("5", "successful").await;
        site.stop().await;
    }

    async fn an_edit_that_is_read_again_enrols_nobody_whose_tick_has_been_cleared_since(major: u32) {
        let (cluster, mut site) = Site::apart(options(major), major).await;
        site.hr.batch_execute(
            "update hr.employee set create_benefits_record = true where id between 5 and 9;
             update benefits.employee set starter_baseline = true where employee_id in ('5', '6', '7', '8', '9')",
        ).await.unwrap();
        site.start().await;
        site.sync(&["1"]).await;
        site.stop().await;
        for id in 5..=9 {
            let process = site.spawn().await;
            // Where a slot stands is on disk since a checkpoint, or since it could be read from further on.
            site.hr.batch_execute("checkpoint").await.unwrap();
            site.passed().await;
            rename(&site, id, "Edited").await;
            let clear = "update hr.employee set create_benefits_record = false where id = $1";
            site.hr.execute(clear, &[&id]).await.unwrap();
            eventually("the tick's end is recorded", async || {
                let sql = "select not starter_baseline from benefits.employee where employee_id = $1::bigint::text";
                site.hr.query_one(sql, &[&id]).await.unwrap().get(0)
            })
            .await;
            site.passed().await;
            let before = confirmed(&site).await;
            process.kill9();
            cluster.kill9().await.unwrap();
            cluster.restart().await.unwrap();
            site.hr = connect(&site.database.url).await;
            let forgotten = confirmed(&site).await < before;
            site.start().await;
            rename(&site, 1, &format!("After {id}")).await;
            site.settled().await;
            assert_eq!(site.status(&id.to_string()).await.0, "not_syncing");
            assert!(site.sandbox.account_of(&id.to_string()).is_none());
            site.stop().await;
            if forgotten {
                return;
            }
        }
        panic!("the slot never forgot where it stood");
    }

    async fn a_partition_that_is_emptied_or_exchanged_is_noticed(major: u32) {
        let mut site = Site::new(major).await;
        site.hr.batch_execute(
            "alter table hr.phone rename to phone_before;
             create table hr.phone (
                 id bigint generated by default as identity, employee_id bigint not null, kind text not null, number text not null,
                 primary key (id, kind)
             ) partition by list (kind);
             create table hr.phone_home partition of hr.phone for values in ('home');
             create table hr.phone_mobile partition of hr.phone for values in ('mobile');
             create table hr.phone_other partition of hr.phone default;
             insert into hr.phone (employee_id, kind, number) select employee_id, kind, number from hr.phone_before;
             delete from hr.phone where employee_id = 1;
             insert into hr.phone (employee_id, kind, number) values (1, 'mobile', '07700 900123')",
        ).await.unwrap();
        site.hr.batch_execute(include_str!("../../sql/demo/describe.sql")).await.unwrap();
        site.start().await;
        site.sync(&["1"]).await;
        assert!(site.held("1", "mobile").is_some());
        let has_mobile = async |wanted: bool| {
            eventually("it is noticed", async || site.held("1", "mobile").is_some() == wanted).await;
            until_compared(&site).await;
        };
        site.hr.batch_execute("alter table hr.phone detach partition hr.phone_mobile").await.unwrap();
        has_mobile(false).await;
        let attach = "alter table hr.phone attach partition hr.phone_mobile for values in ('mobile')";
        site.hr.batch_execute(attach).await.unwrap();
        has_mobile(true).await;
        // One that comes empty, and what comes into it by the table itself, is nobody's doubt.
        let doubts = "select doubt_count from benefits.site";
        let before: i64 = site.hr.query_one(doubts, &[]).await.unwrap().get(0);
        site.hr.batch_execute("create table hr.phone_fax partition of hr.phone for values in ('fax')").await.unwrap();
        eventually("it is seen", async || {
            let sql = "select exists (select from benefits.partition where table_oid = 'hr.phone_fax'::regclass)";
            site.hr.query_one(sql, &[]).await.unwrap().get(0)
        })
        .await;
        assert_eq!(site.hr.query_one(doubts, &[]).await.unwrap().get::<_, i64>(0), before);
        site.stop().await;
        site.hr.batch_execute("truncate hr.phone_mobile").await.unwrap();
        site.start().await;
        eventually("it is noticed", async || site.held("1", "mobile").is_none()).await;
        until_compared(&site).await;
        prove(&site).await;
        site.stop().await;
    }

    async fn a_time_in_a_rows_key_has_one_text(major: u32) {
        let mut site = Site::new(major).await;
        site.hr.batch_execute(
            "create table hr.allowance (
                 valid_from timestamptz, kind text, employee_id bigint not null, note text, primary key (valid_from, kind));
             insert into hr.allowance values ('2026-07-01 00:00:00Z', 'car', 1, 'a');
             select benefits.describe_source('hr.allowance', employee_key => 'employee_id', columns => array['note'])",
        ).await.unwrap();
        site.start().await;
        site.sync(&["1"]).await;
        site.hr.batch_execute("update hr.allowance set note = 'b'").await.unwrap();
        site.settled().await;
        let sql = "select w.row_key from benefits.row_owner as w inner join benefits.source as s using (source_id) \
                   where s.table_name = 'allowance'";
        let keys: Vec<String> = site.hr.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
        assert_eq!(keys, ["2026-07-01 00:00:00+00\u{1f}car"]);
        site.stop().await;
    }
}

async fn confirmed(site: &Site) -> tokio_postgres::types::PgLsn {
    let sql = "select confirmed_flush_lsn from pg_replication_slots where slot_name = $1::text::name";
    site.hr.query_one(sql, &[&site.database.slot]).await.unwrap().get(0)
}
