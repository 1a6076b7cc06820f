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
    site.more = "[delivery]\nsettle = \"1s\"\n".to_owned();
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
    site.more = "[delivery]\nmin_interval = \"2s\"\n".to_owned();
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
    assert!(row.get::<_, f64>(0) >= 1.9, "{begun:?} {sent:?}");
    assert_eq!(row.get::<_, i64>(1), 2, "what came in between went together");
    assert_eq!(site.held("1", "surname").as_deref(), Some("Three"));
    site.stop().await;
}
