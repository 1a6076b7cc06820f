//! History: complete, append-only, a partition a month, erased for one person on demand.

use crate::for_each_major;
use crate::support::database::connect;
use crate::support::site::Site;

for_each_major! {
    async fn every_line_says_when_what_who_asked_how_it_ended_and_how_long_it_took(major: u32) {
        let mut site = Site::new(major).await;
        site.start().await;
        site.hr.batch_execute("set benefits.page_user = 'grace'; select benefits.sync(array['1'])").await.unwrap();
        site.settled().await;
        site.hr.batch_execute("update hr.employee set title = null where id = 1").await.unwrap();
        site.settled().await;
        let sql = "select event, outcome, error_code, requested_by, latency between '0' and '1 minute', request_id is not null,
                cardinality(fields), at > now() - interval '1 minute'
            from benefits.sync_history where employee_id = '1' order by at desc";
        let rows = site.hr.query(sql, &[]).await.unwrap();
        let line = |n: usize| (rows[n].get::<_, String>(0), rows[n].get::<_, String>(1), rows[n].get::<_, Option<String>>(2), rows[n].get::<_, Option<String>>(3));
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(line(0), ("rejected".to_owned(), "failed".to_owned(), text("required"), None));
        assert_eq!(line(1), ("created".to_owned(), "successful".to_owned(), None, text("postgres (grace)")));
        assert!(rows.iter().all(|row| row.get::<_, bool>(4) && row.get::<_, bool>(7)));
        assert_eq!((rows[0].get::<_, bool>(5), rows[1].get::<_, bool>(5)), (false, true));
        assert_eq!(rows[0].get::<_, i32>(6), 1);
        site.stop().await;
    }

    async fn the_service_makes_the_months_ahead_and_drops_those_that_are_too_old(major: u32) {
        let mut site = Site::new(major).await;
        site.logins = true;
        site.hr
            .batch_execute(
                "create table benefits.history_2020_01 partition of benefits.history for values from ('2020-01-01 00:00+00') to ('2020-02-01 00:00+00');
                 alter table benefits.history_2020_01 owner to benefits_owner;
                 insert into benefits.history (at, employee_id, event, outcome) values ('2020-01-15', '1', 'updated', 'successful');
                 do $$ begin
                    execute 'drop table benefits.history_' || to_char(now() at time zone 'UTC' + interval '1 month', 'YYYY_MM');
                 end $$;
                 insert into benefits.history (at, employee_id, event, outcome)
                 values (date_trunc('month', now()) + interval '1 month 5 days', '2', 'updated', 'successful')",
            )
            .await
            .unwrap();
        site.start().await;
        crate::support::site::eventually("the months are kept", async || {
            let sql = "select to_regclass('benefits.history_2020_01') is null
                and to_regclass('benefits.history_' || to_char(now() at time zone 'UTC' + interval '1 month', 'YYYY_MM')) is not null";
            site.hr.query_one(sql, &[]).await.unwrap().get(0)
        })
        .await;
        let count = "select (select count(*) from benefits.history), (select count(*) from benefits.history_default)";
        let row = site.hr.query_one(count, &[]).await.unwrap();
        assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (1, 0), "what was in the default partition has moved");
        site.sync(&["1"]).await;
        let sql = "select tableoid::regclass::text = 'benefits.history_' || to_char(now() at time zone 'UTC', 'YYYY_MM') from benefits.history where employee_id = '1'";
        assert!(site.hr.query_one(sql, &[]).await.unwrap().get::<_, bool>(0));
        site.stop().await;
    }
}

#[tokio::test]
async fn history_is_append_only_for_the_service_too() {
    let site = Site::new(18).await;
    let service = connect(&site.database.url_as("benefits_service")).await;
    for sql in [
        "update benefits.history set error = ''",
        "delete from benefits.history",
        "truncate benefits.history",
    ] {
        let error = service.batch_execute(sql).await.unwrap_err();
        assert_eq!(error.code().unwrap().code(), "42501", "{sql}");
    }
}

#[tokio::test]
async fn forget_erases_every_trace_of_a_person_from_the_ledger() {
    let mut site = Site::new(18).await;
    site.more = "[guard]\nminimum = 1\n".to_owned();
    site.start().await;
    site.hr.batch_execute("update hr.employee set leave_date = null").await.unwrap();
    // An id that is not part of anything else.
    site.hr.batch_execute("insert into hr.employee select (jsonb_populate_record(e, '{\"id\": 77777, \"employee_number\": \"N77777\"}')).* from hr.employee as e where id = 1").await.unwrap();
    site.hr
        .batch_execute(
            "insert into hr.email (employee_id, kind, address) values (77777, 'work', 'n77777@example.org');
             with j as (insert into hr.job (employee_id, is_primary, title, started_on) values (77777, true, 'Clerk', '2026-01-01') returning id)
             insert into hr.job_pay (employee_id, job_id, effective_from, annual_pay, basis, frequency, change_reason)
             select 77777, id, '2026-01-01', 30000, 'Per annum', 'Calendar monthly', 'Starter' from j",
        )
        .await
        .unwrap();
    site.passed().await;
    site.sync(&["77777", "1", "2"]).await;
    assert_eq!(site.status("77777").await.0, "successful");
    site.hr
        .batch_execute("update hr.employee set leave_date = '2027-01-01' where id in (77777, 1, 2)")
        .await
        .unwrap();
    crate::support::site::eventually("held", async || site.why("77777").await.contains("held")).await;
    site.hr
        .batch_execute(
            "begin; delete from hr.job_pay where employee_id = 77777; delete from hr.job where employee_id = 77777;
             delete from hr.email where employee_id = 77777; delete from hr.employee where id = 77777; commit",
        )
        .await
        .unwrap();
    site.passed().await;
    site.stop().await;
    site.hr.batch_execute("select benefits.forget('77777')").await.unwrap();
    let tables = "select format('%I.%I', n.nspname, c.relname) from pg_class as c inner join pg_namespace as n on n.oid = c.relnamespace
        where n.nspname = 'benefits' and c.relkind = 'r'";
    for row in site.hr.query(tables, &[]).await.unwrap() {
        let table: &str = row.get(0);
        let sql = format!("select count(*) from {table} as t where t::text like '%77777%'");
        assert_eq!(site.hr.query_one(&sql, &[]).await.unwrap().get::<_, i64>(0), 0, "{table}");
    }
    assert!(site.why("77777").await.starts_with("Unknown"));
    site.start().await;
    site.settled_but_held().await;
    assert!(site.why("77777").await.starts_with("Unknown"));
    site.stop().await;
}
