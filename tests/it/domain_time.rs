//! Time: dated rows that become current at midnight, what will send itself, the settle window and the least interval.

use crate::for_each_major;
use crate::support::site::{Site, eventually};

/// Zones whose days are never the same: it is 26 hours later in the one than in the other.
const EARLY: &str = "Etc/GMT+12";
const LATE: &str = "Pacific/Kiritimati";

const RAISE: &str = "insert into hr.job_pay (employee_id, job_id, effective_from, annual_pay, basis, frequency, change_reason)
    select employee_id, id, benefits.today() + 1, 77777, 'Per annum', 'Calendar monthly', 'Promotion'
    from hr.job where employee_id = 1 and is_primary";

for_each_major! {
    async fn pay_that_becomes_current_at_local_midnight_is_sent_with_no_save_at_all(major: u32) {
        let mut site = Site::new(major).await;
        site.time_zone = EARLY;
        site.start().await;
        site.hr.batch_execute("delete from hr.job_pay where employee_id = 1 and effective_from > '2026-01-01'").await.unwrap();
        site.sync(&["1"]).await;
        site.hr.batch_execute(RAISE).await.unwrap();
        site.settled().await;
        assert_ne!(site.held("1", "annualPay").as_deref(), Some("77777.00"), "not before its day");
        let sql = "select on_date = benefits.today() + 1, fields from benefits.upcoming_change where employee_id = '1'";
        let row = site.hr.query_one(sql, &[]).await.unwrap();
        assert!(row.get::<_, bool>(0));
        let fields: Vec<String> = row.get(1);
        assert!(fields.contains(&"annualPay".to_owned()) && fields.contains(&"payEffectiveDate".to_owned()), "{fields:?}");
        // Midnight passes: the site's day is another one now.
        site.stop().await;
        site.time_zone = LATE;
        site.start().await;
        eventually("the raise is sent", async || site.held("1", "annualPay").as_deref() == Some("77777.00")).await;
        site.settled().await;
        assert_eq!(site.status("1").await.0, "successful");
        let sql = "select count(*) from benefits.upcoming_change where employee_id = '1'";
        assert_eq!(site.hr.query_one(sql, &[]).await.unwrap().get::<_, i64>(0), 0);
        site.stop().await;
    }
}

/// The demo's description, with pay that begins at an instant.
fn by_the_minute() -> String {
    let text = include_str!("../../sql/demo/describe.sql");
    let anew = text
        .replace(
            "job_pay.effective_from <= greatest(benefits.today(), j.started_on)",
            "coalesce(job_pay.starts_at, job_pay.effective_from::timestamptz) <= benefits.now()",
        )
        .replace(
            "order by job_pay.effective_from desc",
            "order by coalesce(job_pay.starts_at, job_pay.effective_from) desc",
        )
        .replace(
            "'hr.job_pay', employee_key => 'employee_id', effective_from => 'effective_from'",
            "'hr.job_pay', employee_key => 'employee_id', effective_from => 'starts_at'",
        );
    format!("alter table hr.job_pay add column starts_at timestamptz; {anew}")
}

/// A raise of employee 1 that begins so many seconds from now.
fn raise(seconds: i32, pay: i32) -> String {
    format!(
        "insert into hr.job_pay (employee_id, job_id, effective_from, starts_at, annual_pay, basis, frequency, change_reason)
         select employee_id, id, benefits.today(), now() + interval '{seconds} seconds', {pay}, 'Per annum', 'Calendar monthly', 'Promotion'
         from hr.job where employee_id = 1 and is_primary"
    )
}

for_each_major! {
    async fn a_row_with_a_time_of_day_becomes_current_at_its_instant_and_is_announced_with_it(major: u32) {
        let mut site = Site::new(major).await;
        site.hr.batch_execute("delete from hr.job_pay where employee_id = 1 and effective_from > '2026-01-01'").await.unwrap();
        site.hr.batch_execute(&by_the_minute()).await.unwrap();
        site.start().await;
        site.sync(&["1"]).await;
        // Known some time before it: the clock sees it at its next look, here that of a start.
        site.stop().await;
        site.hr.batch_execute(&raise(4, 77_777)).await.unwrap();
        let sql = "select u.fields, u.at = p.starts_at, u.on_date = (p.starts_at at time zone 'Europe/London')::date
            from benefits.upcoming_change as u inner join hr.job_pay as p on p.annual_pay = 77777";
        let row = site.hr.query_one(sql, &[]).await.unwrap();
        assert!(row.get::<_, Vec<String>>(0).contains(&"annualPay".to_owned()));
        assert!(row.get::<_, bool>(1) && row.get::<_, bool>(2));
        site.start().await;
        let up: std::time::SystemTime = site.hr.query_one("select clock_timestamp()", &[]).await.unwrap().get(0);
        eventually("the raise is sent", async || site.held("1", "annualPay").as_deref() == Some("77777.00")).await;
        site.settled().await;
        let sql = "select extract(epoch from max(h.at) - p.starts_at)::float8, extract(epoch from max(h.at) - greatest(p.starts_at, $1))::float8
            from benefits.sync_history as h cross join hr.job_pay as p
            where h.employee_id = '1' and 'annualPay' = any (h.fields) and p.annual_pay = 77777 group by p.starts_at";
        let row = site.hr.query_one(sql, &[&up]).await.unwrap();
        let (after, late): (f64, f64) = (row.get(0), row.get(1));
        assert!(after >= 0.0, "sent {after} s after its instant");
        assert!(late < 5.0, "{late} s after its instant, with the service running");
        let sql = "select count(*) from benefits.upcoming_change";
        assert_eq!(site.hr.query_one(sql, &[]).await.unwrap().get::<_, i64>(0), 0);
        site.stop().await;
    }
}

#[tokio::test]
async fn an_instant_that_passed_without_a_running_instance_is_made_up_once() {
    let mut site = Site::new(18).await;
    site.hr
        .batch_execute("delete from hr.job_pay where employee_id = 1 and effective_from > '2026-01-01'")
        .await
        .unwrap();
    site.hr.batch_execute(&by_the_minute()).await.unwrap();
    site.start().await;
    site.sync(&["1"]).await;
    // Saved as a row of the future; its instant comes while nobody runs. The comparison of a start would find it, too:
    // what is looked at is the clock's own note.
    site.hr.batch_execute(&raise(1, 66_666)).await.unwrap();
    site.stop().await;
    let noted = "select clock_at < now() - interval '1 hour' from benefits.site";
    site.hr.batch_execute("update benefits.site set clock_at = now() - interval '2 hours'").await.unwrap();
    eventually("the instant has passed", async || {
        let sql = "select starts_at < now() from hr.job_pay where annual_pay = 66666";
        site.hr.query_one(sql, &[]).await.unwrap().get(0)
    })
    .await;
    assert!(site.hr.query_one(noted, &[]).await.unwrap().get::<_, bool>(0));
    site.start().await;
    eventually("the raise is sent", async || site.held("1", "annualPay").as_deref() == Some("66666.00"))
        .await;
    eventually("it is noted", async || !site.hr.query_one(noted, &[]).await.unwrap().get::<_, bool>(0)).await;
    site.settled().await;
    let at = "select clock_at::text from benefits.site";
    let before: String = site.hr.query_one(at, &[]).await.unwrap().get(0);
    site.stop().await;
    site.start().await;
    site.settled().await;
    let after: String = site.hr.query_one(at, &[]).await.unwrap().get(0);
    assert_eq!(after, before, "nothing has become current since: nothing is written");
    // One that is saved shortly before its instant is found as well, some seconds late at most.
    site.hr.batch_execute(&raise(1, 88_888)).await.unwrap();
    eventually("it is sent", async || site.held("1", "annualPay").as_deref() == Some("88888.00")).await;
    site.stop().await;
}

for_each_major! {
    async fn instants_of_every_type_are_found_across_daylight_saving_and_by_index(major: u32) {
        let site = Site::new(major).await;
        site.hr
            .batch_execute(
                "create domain hr.moment as timestamptz;
                 create table hr.local (id serial primary key, employee_id bigint, v timestamp);
                 create table hr.absolute (id serial primary key, employee_id bigint, v hr.moment);
                 create table hr.locals (id serial primary key, employee_id bigint, v tsrange);
                 create table hr.absolutes (id serial primary key, employee_id bigint, v tstzrange);
                 create index on hr.local (v); create index on hr.absolute (v);
                 create index on hr.locals using gist (v); create index on hr.absolutes using gist (v);
                 insert into hr.local (employee_id, v) values (1, '2026-10-25 01:30'), (2, '2026-03-29 01:30'), (3, 'infinity'), (4, null);
                 insert into hr.absolute (employee_id, v) values (5, '2026-10-25 01:30+00');
                 insert into hr.locals (employee_id, v) values (6, '[2026-10-25 00:10, 2026-10-25 01:30)'), (7, '(,)'), (8, 'empty');
                 insert into hr.absolutes (employee_id, v) values (9, '[2026-10-25 01:30+00, 2026-10-25 01:45+00)'), (10, null);
                 insert into hr.local (employee_id, v) select 20, date '2001-01-01' + n * interval '1 minute' from generate_series(1, 5000) as n;
                 insert into hr.absolutes (employee_id, v) select 20, tstzrange('2001-01-01', '2001-01-02') from generate_series(1, 5000);
                 analyze hr.local; analyze hr.absolutes;
                 select benefits.describe_source('hr.' || t, employee_key => 'employee_id', effective_from => 'v', columns => array['v']::name[])
                 from unnest(array['local', 'absolute', 'locals', 'absolutes']) as t",
            )
            .await
            .unwrap();
        let sql = "select coalesce(string_agg(distinct employee_id, ',' order by employee_id), '') from benefits.read_instants($1::text::timestamptz, $2::text::timestamptz)";
        let ids = async |after: &str, until: &str| -> String { site.hr.query_one(sql, &[&after, &until]).await.unwrap().get(0) };
        // The clocks go back at 01:00 UTC: 01:30 is at 00:30 and at 01:30 UTC, and PostgreSQL takes the second.
        assert_eq!(ids("2026-10-25 01:00+00", "2026-10-25 01:30+00").await, "1,5,6,9");
        assert_eq!(ids("2026-10-25 01:30+00", "2026-10-25 02:00+00").await, "9", "after the first, up to the last");
        assert_eq!(ids("2026-10-24 23:00+00", "2026-10-25 00:00+00").await, "6");
        // They go forward at 01:00 UTC: 01:30 is not on any clock, and is an hour later.
        assert_eq!(ids("2026-03-29 01:00+00", "2026-03-29 01:30+00").await, "2");
        assert_eq!(ids("2026-03-29 01:30+00", "2026-03-29 03:00+00").await, "");
        let scans = "select coalesce(sum(seq_tup_read), 0)::bigint from pg_stat_xact_user_tables where schemaname = 'hr'";
        site.hr.batch_execute("begin").await.unwrap();
        for _ in 0..3 {
            assert_eq!(ids("2026-10-25 01:30+00", "2026-10-25 02:00+00").await, "9");
        }
        let read: i64 = site.hr.query_one(scans, &[]).await.unwrap().get(0);
        site.hr.batch_execute("rollback").await.unwrap();
        assert!(read < 100, "{read} rows were read by scanning");
    }
}

#[tokio::test]
async fn a_site_without_times_of_day_is_not_asked_for_instants() {
    let site = Site::new(18).await;
    let sql = "select has_instants from benefits.site";
    assert!(!site.hr.query_one(sql, &[]).await.unwrap().get::<_, bool>(0));
    site.hr.batch_execute(&by_the_minute()).await.unwrap();
    assert!(site.hr.query_one(sql, &[]).await.unwrap().get::<_, bool>(0));
}

#[tokio::test]
async fn what_is_not_synced_and_what_changes_nothing_is_not_announced() {
    let mut site = Site::new(18).await;
    site.start().await;
    site.sync(&["1"]).await;
    site.hr
        .batch_execute(
            "insert into hr.address (employee_id, kind, line_1, from_date) values
                 (1, 'correspondence', 'Elsewhere', benefits.today() + 9), (2, 'home', 'Not synced', benefits.today() + 9),
                 (1, 'home', 'New house', benefits.today() + 9)",
        )
        .await
        .unwrap();
    let sql = "select employee_id, fields from benefits.upcoming_change where on_date = benefits.today() + 9";
    let rows = site.hr.query(sql, &[]).await.unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].get::<_, &str>(0), "1");
    assert!(rows[0].get::<_, Vec<String>>(1).contains(&"addressLine1".to_owned()));
    // Asking leaves today where it is.
    let sql = "select benefits.today() = (now() at time zone 'Europe/London')::date";
    assert!(site.hr.query_one(sql, &[]).await.unwrap().get::<_, bool>(0));
    site.stop().await;
}

#[tokio::test]
async fn a_day_across_daylight_saving_has_23_or_25_hours() {
    let site = Site::new(18).await;
    for (noon, hours) in [
        ("2026-03-28 00:00:00+00", 24),
        ("2026-03-29 00:00:00+00", 23),
        ("2026-10-24 23:00:00+00", 25),
        ("2026-10-26 00:00:00+00", 24),
    ] {
        let sql =
            "select (extract(epoch from benefits.until_midnight($1::text::timestamptz)) / 3600)::integer";
        assert_eq!(site.hr.query_one(sql, &[&noon]).await.unwrap().get::<_, i32>(0), hours, "{noon}");
    }
}

#[tokio::test]
async fn a_day_that_passed_without_a_running_instance_is_made_up_once() {
    let mut site = Site::new(18).await;
    site.start().await;
    site.sync(&["1"]).await;
    site.hr
        .batch_execute(
            "insert into hr.job_pay (employee_id, job_id, effective_from, annual_pay, basis, frequency, change_reason)
             select employee_id, id, benefits.today() - 3, 55555, 'Per annum', 'Calendar monthly', 'Promotion'
             from hr.job where employee_id = 1 and is_primary",
        )
        .await
        .unwrap();
    site.settled().await;
    site.stop().await;
    site.hr.batch_execute("update benefits.site set clock_on = benefits.today() - 5").await.unwrap();
    site.start().await;
    eventually("today is noted", async || {
        site.hr.query_one("select clock_on = benefits.today() from benefits.site", &[]).await.unwrap().get(0)
    })
    .await;
    site.settled().await;
    assert_eq!(site.status("1").await.0, "successful");
    site.stop().await;
}

#[tokio::test]
async fn a_half_typed_record_is_not_sent_twice_within_the_settle_window() {
    let mut site = Site::new(18).await;
    site.more = "[delivery]\nsettle = \"4s\"\n".to_owned();
    site.start().await;
    site.sync(&["1"]).await;
    for surname in ["H", "Ha", "Half", "Whole"] {
        site.hr.execute("update hr.employee set surname = $1 where id = 1", &[&surname]).await.unwrap();
        site.passed().await;
    }
    assert_eq!(site.status("1").await.0, "in_progress");
    site.settled().await;
    assert_eq!(site.held("1", "surname").as_deref(), Some("Whole"));
    let updates = site.history("1").await.iter().filter(|(event, ..)| event == "updated").count();
    assert_eq!(updates, 1);
    site.stop().await;
}

#[tokio::test]
async fn between_two_sends_of_one_employee_is_the_least_interval_and_the_first_goes_at_once() {
    let mut site = Site::new(18).await;
    site.more = "[delivery]\nmin_interval = \"5s\"\n".to_owned();
    site.start().await;
    let begun = std::time::Instant::now();
    site.sync(&["1"]).await;
    let sent = std::time::Instant::now();
    for surname in ["One", "Two", "Three"] {
        site.hr.execute("update hr.employee set surname = $1 where id = 1", &[&surname]).await.unwrap();
        site.passed().await;
    }
    site.settled().await;
    let sql = "select extract(epoch from max(at) - min(at))::float8, count(*) from benefits.sync_history where employee_id = '1'";
    let row = site.hr.query_one(sql, &[]).await.unwrap();
    assert!(row.get::<_, f64>(0) >= 4.9, "{begun:?} {sent:?}");
    assert_eq!(row.get::<_, i64>(1), 2, "what came in between went together");
    assert_eq!(site.held("1", "surname").as_deref(), Some("Three"));
    site.stop().await;
}
