//! Large transactions and DDL: constant memory, the right result, and nothing that stops the stream.

use std::time::Duration;

use crate::for_each_major;
use crate::support::site::{Process, Site, eventually};

/// How much the process may grow while a million rows pass. Keeping anything a row would need more.
const GROWTH_MAX_KB: u64 = 64 * 1024;

/// The most memory that the process has ever had resident.
fn peak_kb(process: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.child.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

async fn stream_early(site: &Site) {
    // Decoding starts to stream a transaction beyond this, instead of spilling it to the server's disk.
    let sql = format!("alter database \"{}\" set logical_decoding_work_mem = '64kB'", site.database.name);
    site.hr.batch_execute(&sql).await.unwrap();
}

/// Waits until the slot has passed what is committed now, for as long as a million rows may take on a busy machine.
async fn passed_at_length(site: &Site) {
    let row = site.hr.query_one("select pg_current_wal_lsn()::text", &[]).await.unwrap();
    let lsn: String = row.get(0);
    let sql = "select confirmed_flush_lsn >= $1::text::pg_lsn from pg_replication_slots where slot_name = $2::text::name";
    let passed = async || {
        while !site.hr.query_one(sql, &[&lsn, &site.database.slot]).await.unwrap().get::<_, bool>(0) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(5), passed()).await.expect("the slot has passed");
}

/// A published table with a million rows, hardly any of them of synced employees.
async fn many_addresses(site: &Site, rows: u32) {
    let sql = format!(
        "insert into hr.address (employee_id, kind, line_1, from_date) \
         select 20 + n % 10, 'correspondence', 'Line', '2020-01-01' from generate_series(1, {rows}) as n"
    );
    site.hr.batch_execute(&sql).await.unwrap();
}

for_each_major! {
    async fn a_million_rows_in_one_transaction_cost_no_memory_and_only_the_synced_are_marked(major: u32) {
        let site = Site::new(major).await;
        stream_early(&site).await;
        let process = site.spawn().await;
        site.sync(&["1", "2"]).await;
        many_addresses(&site, 1_000_000).await;
        let sent = site.sandbox.journal().len();
        let before = peak_kb(&process);
        let update = "update hr.address set line_1 = 'Moved', line_2 = null where kind = 'correspondence' or employee_id in (1, 2)";
        site.hr.batch_execute(&format!("begin; {update}; rollback")).await.unwrap();
        passed_at_length(&site).await;
        site.settled().await;
        assert_eq!(site.sandbox.journal().len(), sent, "nothing comes of what was rolled back");
        site.hr.batch_execute(update).await.unwrap();
        passed_at_length(&site).await;
        site.settled().await;
        for id in ["1", "2"] {
            assert_eq!(site.held(id, "addressLine1").as_deref(), Some("Moved"));
        }
        assert_eq!(site.sandbox.journal().len(), sent + 2);
        let grown = peak_kb(&process).saturating_sub(before);
        eprintln!("2 x 1,000,000 rows on PostgreSQL {major}: {grown} kB beyond {before} kB");
        assert!(grown < GROWTH_MAX_KB, "grown by {grown} kB");
    }

    async fn thousands_of_subtransactions_leave_the_right_state(major: u32) {
        let mut site = Site::new(major).await;
        stream_early(&site).await;
        site.start().await;
        site.sync(&["1", "2"]).await;
        // Every second one is rolled back; so is one that deletes an address, and one that raises a starter's flag.
        let sql = "do $$ begin
            for n in 1..2000 loop
                begin
                    update hr.employee set surname = 'S' || n, notes = repeat('x', 500) where id = 1;
                    if n = 1000 then
                        delete from hr.address where employee_id = 2;
                        update hr.employee set create_benefits_record = true where id = 9;
                    end if;
                    if n % 2 = 0 then raise exception 'no'; end if;
                exception when raise_exception then null;
                end;
            end loop;
            update hr.employee set surname = 'S1999', notes = '' where id = 1;
        end $$";
        site.hr.batch_execute(sql).await.unwrap();
        site.settled().await;
        assert_eq!(site.held("1", "surname").as_deref(), Some("S1999"));
        assert_eq!(site.status("9").await.0, "not_syncing", "the flag was never up");
        assert!(site.held("2", "addressLine1").is_some());
        // The ledger still knows whose address it is.
        site.hr.execute("delete from hr.address where employee_id = 2", &[]).await.unwrap();
        site.settled().await;
        assert_eq!(site.held("2", "addressLine1"), None);
        site.stop().await;
    }

    async fn an_enrolment_during_an_open_transaction_misses_nothing_of_it(major: u32) {
        let mut site = Site::new(major).await;
        stream_early(&site).await;
        site.start().await;
        site.sync(&["1"]).await;
        let mut other = site.database.client().await;
        let open = other.transaction().await.unwrap();
        let sql = "update hr.address set line_1 = 'Late' where employee_id = 3; \
                   update hr.employee set notes = repeat('x', 1000)";
        for _ in 0..20 {
            open.batch_execute(sql).await.unwrap();
        }
        site.sync(&["3"]).await;
        assert_ne!(site.held("3", "addressLine1").as_deref(), Some("Late"));
        open.commit().await.unwrap();
        site.settled().await;
        assert_eq!(site.held("3", "addressLine1").as_deref(), Some("Late"));
        site.stop().await;
    }

    async fn a_truncated_table_marks_everyone(major: u32) {
        let mut site = Site::new(major).await;
        site.start().await;
        site.sync(&["1", "2"]).await;
        assert!(site.held("1", "addressLine1").is_some());
        site.hr.batch_execute("truncate hr.address").await.unwrap();
        site.settled().await;
        for id in ["1", "2"] {
            assert_eq!(site.held(id, "addressLine1"), None);
        }
        site.stop().await;
    }

    async fn a_child_row_that_goes_to_nobody_is_missed_by_its_owner(major: u32) {
        let mut site = Site::new(major).await;
        site.hr.batch_execute("alter table hr.phone alter employee_id drop not null").await.unwrap();
        site.start().await;
        site.hr.batch_execute("delete from hr.phone where employee_id = 1; insert into hr.phone (employee_id, kind, number) values (1, 'mobile', '07700900123')").await.unwrap();
        site.sync(&["1"]).await;
        assert!(site.held("1", "mobile").is_some());
        site.hr.batch_execute("update hr.phone set employee_id = null where employee_id = 1").await.unwrap();
        site.settled().await;
        assert_eq!(site.held("1", "mobile"), None);
        site.stop().await;
    }

    async fn ddl_on_unmapped_columns_goes_unnoticed(major: u32) {
        let mut site = Site::new(major).await;
        site.start().await;
        site.sync(&["1"]).await;
        for (n, ddl) in [
            "alter table hr.employee add column shoe_size integer default 9",
            "alter table hr.employee rename column shoe_size to shoe",
            "alter table hr.employee alter column shoe type numeric(4, 1)",
            "alter table hr.employee drop column shoe",
            "alter table hr.employee drop column ethnicity, add column first_pet text",
            "alter table hr.employee alter column known_as type varchar(200)",
        ]
        .into_iter()
        .enumerate()
        {
            let name = format!("After{n}");
            site.hr.batch_execute(&format!("begin; {ddl}; update hr.employee set surname = '{name}' where id = 1; commit")).await.unwrap();
            site.settled().await;
            assert_eq!(site.held("1", "surname"), Some(name), "{ddl}");
        }
        site.stop().await;
    }

    async fn ddl_in_the_middle_of_a_streamed_transaction_and_its_rollback_lose_nothing(major: u32) {
        let mut site = Site::new(major).await;
        stream_early(&site).await;
        site.start().await;
        site.sync(&["1", "2"]).await;
        let fill = "update hr.employee set notes = repeat('x', 2000)";
        let sql = format!(
            "begin; {fill}; savepoint s; alter table hr.employee drop column ethnicity; \
             alter table hr.employee add column colour text; {fill}; {fill}; rollback to s; {fill}; \
             update hr.employee set surname = 'Kept' where id = 1; {fill}; commit"
        );
        site.hr.batch_execute(&sql).await.unwrap();
        site.hr.batch_execute(&format!("begin; alter table hr.employee drop column bank_account; {fill}; {fill}; rollback")).await.unwrap();
        surname_of(&site, 2, "Next").await;
        site.settled().await;
        assert_eq!(site.held("1", "surname").as_deref(), Some("Kept"));
        assert_eq!(site.held("2", "surname").as_deref(), Some("Next"));
        site.stop().await;
    }

    async fn a_table_swapped_by_rename_is_followed_once_it_is_described_anew(major: u32) {
        let mut site = Site::new(major).await;
        site.start().await;
        site.sync(&["1", "2"]).await;
        // As migrations of large tables do: a copy, filled, and swapped in one transaction.
        site.hr.batch_execute(
            "begin;
             create table hr.phone_new (like hr.phone including all);
             insert into hr.phone_new select * from hr.phone;
             alter table hr.phone rename to phone_old; alter table hr.phone_new rename to phone;
             update hr.phone set number = '0113 496 0000' where employee_id = 1 and kind = 'mobile';
             insert into hr.phone (id, employee_id, kind, number) values (900001, 2, 'home', '0113 496 0001')
             on conflict (employee_id, kind) do update set number = excluded.number;
             commit",
        ).await.unwrap();
        site.hr.batch_execute(include_str!("../../sql/demo/describe.sql")).await.unwrap();
        site.settled().await;
        eventually("what was changed in the new table arrived", async || {
            site.held("2", "telephone").as_deref() == Some("0113 496 0001")
        }).await;
        // And the stream follows the new table from now on.
        site.hr.execute("update hr.phone set number = '0113 496 0002' where employee_id = 2 and kind = 'home'", &[]).await.unwrap();
        site.settled().await;
        assert_eq!(site.held("2", "telephone").as_deref(), Some("0113 496 0002"));
        site.hr.execute("delete from hr.phone where employee_id = 2", &[]).await.unwrap();
        site.settled().await;
        assert_eq!(site.held("2", "telephone"), None);
        site.stop().await;
    }

    async fn the_type_of_a_mapped_column_changes_under_the_stream(major: u32) {
        let mut site = Site::new(major).await;
        site.start().await;
        site.sync(&["1", "2"]).await;
        for (ddl, change, property, value) in [
            ("alter table hr.job alter weekly_hours type double precision", "update hr.job set weekly_hours = 30.5 where employee_id = 1", "weeklyHours", "30.5"),
            ("alter table hr.job_pay alter annual_pay type numeric(14, 4)", "update hr.job_pay set annual_pay = 31000.25 where employee_id = 1", "annualPay", "31000.25"),
            ("alter table hr.employee alter start_date type text", "update hr.employee set start_date = '2019-05-06' where id = 1", "startDate", "2019-05-06"),
            ("alter table hr.phone alter number type varchar(30)", "update hr.phone set number = '0113 496 0000' where employee_id = 1", "mobile", "0113 496 0000"),
        ] {
            site.hr.batch_execute(&format!("begin; {ddl}; {change}; commit")).await.unwrap();
            site.settled().await;
            assert_eq!((site.status("1").await, site.held("1", property).as_deref()), (("successful".to_owned(), None), Some(value)), "{ddl}");
        }
        site.stop().await;
    }

    async fn a_mapped_column_that_goes_halts_delivery_and_not_the_slot_until_it_is_described_anew(major: u32) {
        let mut site = Site::new(major).await;
        site.start().await;
        site.sync(&["1", "2"]).await;
        site.hr.batch_execute("alter table hr.employee rename column known_as to nickname").await.unwrap();
        site.hr.batch_execute("update hr.employee set surname = 'Held', nickname = 'Nick' where id = 1").await.unwrap();
        eventually("delivery is halted with a code", async || {
            let (status, text) = site.get("/readyz").await;
            status == 503 && text.contains("record-query")
        })
        .await;
        site.passed().await;
        assert_ne!(site.held("1", "surname").as_deref(), Some("Held"));
        let anew = include_str!("../../sql/demo/describe.sql")
            .replace("coalesce(e.known_as", "coalesce(e.nickname")
            .replace("e.known_as", "e.nickname as known_as");
        site.hr.batch_execute(&anew).await.unwrap();
        eventually("delivery goes on", async || site.held("1", "surname").as_deref() == Some("Held")).await;
        assert_eq!(site.held("1", "knownAs").as_deref(), Some("Nick"));
        site.settled().await;
        site.until_ready().await;
        site.stop().await;
    }
}

async fn surname_of(site: &Site, id: i64, name: &str) {
    site.hr.execute("update hr.employee set surname = $2 where id = $1", &[&id, &name]).await.unwrap();
}
