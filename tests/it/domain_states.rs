//! The four states with their precedence, the two doors in, and what `why` says in every situation.

use crate::for_each_major;
use crate::support::site::{Site, eventually};

async fn started() -> Site {
    let mut site = Site::new(18).await;
    site.start().await;
    site
}

/// Made-up rows of the ledger: few of every state but Successful, at the end of the order by id or spread.
async fn crowd(site: &Site, first: i32, last: i32) {
    site.hr
        .batch_execute(&format!(
            "insert into benefits.employee (employee_id) select n::text from generate_series({first}, {last}) as n;
             insert into benefits.enrolment (employee_id, platform_id, requested_by, outcome, error_code)
             select n::text, 'demo', 'test', case when n % 100 = 50 then 'failed' else 'successful' end, case when n % 100 = 50 then 'required' end
             from generate_series({first}, {last}) as n where n % 1000 <> 999;
             insert into benefits.pending (employee_id, cause, changed_at, last_changed_at)
             select n::text, 'change', now(), now() from generate_series({first}, {last}) as n where n % 500 in (50, 150) and n % 1000 < 500;
             analyze benefits.employee; analyze benefits.enrolment; analyze benefits.pending; analyze benefits.request"
        ))
        .await
        .unwrap();
    // All of them were known before they were enrolled, which leaves empty pages in the index of those who are not: by their
    // number, and by what the sample for the statistics has met, the planner finds that index dear or not. A new one is small.
    site.hr
        .batch_execute("reindex index benefits.employee_not_enrolled_ix; analyze benefits.employee")
        .await
        .unwrap();
}

/// Rows of the two large tables that a plan has read, shown or not.
fn rows_read(plan: &serde_json::Value) -> f64 {
    match plan {
        serde_json::Value::Array(items) => items.iter().map(rows_read).sum(),
        serde_json::Value::Object(node) => {
            let number = |key: &str| node.get(key).and_then(serde_json::Value::as_f64).unwrap_or(0.0);
            let large = matches!(
                node.get("Relation Name").and_then(|name| name.as_str()),
                Some("employee" | "enrolment")
            );
            let own = number("Actual Rows")
                + number("Rows Removed by Filter")
                + number("Rows Removed by Join Filter");
            let below: f64 = ["Plan", "Plans"].iter().filter_map(|key| node.get(*key)).map(rows_read).sum();
            below + if large { own * number("Actual Loops") } else { 0.0 }
        }
        _ => 0.0,
    }
}

for_each_major! {
    async fn every_employee_is_in_exactly_one_of_four_states(major: u32) {
        let mut site = Site::new(major).await;
        site.start().await;
        site.hr.batch_execute("update hr.employee set title = null where id in (2, 3)").await.unwrap();
        site.sync(&["1", "2", "3"]).await;
        site.stop().await;
        site.hr.batch_execute("select benefits.sync(array['3', '4'])").await.unwrap();
        let sql = "select employee_id, count(*), min(state) from benefits.employee_status group by 1 order by 1::bigint";
        let rows = site.hr.query(sql, &[]).await.unwrap();
        let found: Vec<(String, i64, String)> = rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
        assert_eq!(found.len(), 30);
        for (id, count, state) in found {
            let wanted = match id.as_str() {
                "1" => "successful",
                "2" => "failed",
                // In progress comes before Failed: the service is down, and it shows at once.
                "3" | "4" => "in_progress",
                _ => "not_syncing",
            };
            assert_eq!((count, state.as_str()), (1, wanted), "{id}");
        }
    }

    async fn a_new_starter_ticked_on_insert_or_on_a_later_update_is_sent_by_itself(major: u32) {
        let mut site = Site::new(major).await;
        site.hr.batch_execute("update hr.employee set create_benefits_record = false").await.unwrap();
        site.start().await;
        site.hr
            .batch_execute(
                "begin;
                 insert into hr.employee (id, employee_number, title, forenames, surname, date_of_birth, gender, create_benefits_record)
                 values (500, 'N500', 'Mx', 'New', 'Starter', '1990-01-01', 'F', true), (501, 'N501', 'Mx', 'Not', 'Ticked', '1990-01-01', 'F', false);
                 insert into hr.email (employee_id, kind, address) values (500, 'work', 'n500@example.org'), (501, 'work', 'n501@example.org');
                 with j as (insert into hr.job (employee_id, is_primary, title, started_on)
                     values (500, true, 'Clerk', '2026-01-01'), (501, true, 'Clerk', '2026-01-01') returning id, employee_id)
                 insert into hr.job_pay (employee_id, job_id, effective_from, annual_pay, basis, frequency, change_reason)
                 select employee_id, id, '2026-01-01', 30000, 'Per annum', 'Calendar monthly', 'Starter' from j;
                 commit",
            )
            .await
            .unwrap();
        site.passed().await;
        site.until_state("500", "successful").await;
        assert_eq!(site.status("501").await.0, "not_syncing", "a forgotten tick stays Not syncing");
        site.hr.batch_execute("update hr.employee set create_benefits_record = true where id in (501, 1)").await.unwrap();
        site.passed().await;
        site.until_state("501", "successful").await;
        site.until_state("1", "successful").await;
        let sql = "select distinct requested_by from benefits.sync_history where employee_id in ('500', '501')";
        assert_eq!(site.hr.query_one(sql, &[]).await.unwrap().get::<_, &str>(0), "starter flag");
        site.stop().await;
    }

    async fn a_page_of_any_state_and_a_join_from_hr_read_little_more_than_they_show_however_many_there_are(major: u32) {
        let site = Site::new(major).await;
        site.hr.batch_execute("create table hr.list as select n::bigint as id from generate_series(1000, 1010) as n; analyze hr.list").await.unwrap();
        for (first, last) in [(1_000, 20_999), (21_000, 60_999)] {
            crowd(&site, first, last).await;
            for question in [
                "order by employee_id",
                "where employee_id > '3' order by employee_id",
                "where state = 'failed' order by employee_id",
                "where state = 'successful' order by employee_id",
                "where state = 'in_progress' order by employee_id",
                "where state = 'not_syncing' order by employee_id",
                "as s inner join hr.list as l on s.employee_id = l.id::text",
                "as s right join hr.list as l on s.employee_id = l.id::text where coalesce(s.state, '') <> 'failed'",
                "where employee_id = '1500'",
                "where employee_id = any (array['1500', '1501', '1502'])",
            ] {
                let sql = format!("explain (analyze, format json) select * from benefits.employee_status {question} limit 20");
                let plan: serde_json::Value = site.hr.query_one(&sql, &[]).await.unwrap().get(0);
                let read = rows_read(&plan);
                assert!(read < 1_500.0, "{question}: {read} rows read of {last}: {plan:#}");
            }
        }
        let sql = "select state, count(*) from benefits.employee_status where employee_id::integer >= 1000 group by state order by state";
        let counts: Vec<(String, i64)> = site.hr.query(sql, &[]).await.unwrap().iter().map(|row| (row.get(0), row.get(1))).collect();
        let counts: Vec<(&str, i64)> = counts.iter().map(|(state, n)| (state.as_str(), *n)).collect();
        // One in 1,000 is never enrolled, one in 100 has failed, one in 500 is pending.
        assert_eq!(counts, [("failed", 480), ("in_progress", 120), ("not_syncing", 60), ("successful", 59_340)]);
    }
}

#[tokio::test]
async fn flags_that_were_up_at_set_up_are_a_baseline_until_they_go_down_and_up_again() {
    let mut site = Site::new(18).await;
    site.hr
        .batch_execute(
            "update hr.employee set create_benefits_record = true where id = 1;
             update benefits.employee set starter_baseline = true where employee_id = '1'",
        )
        .await
        .unwrap();
    site.start().await;
    site.hr.batch_execute("update hr.employee set surname = 'Edited' where id = 1").await.unwrap();
    site.passed().await;
    assert_eq!(site.status("1").await.0, "not_syncing");
    assert!(site.why("1").await.contains("before the integration was set up"));
    site.hr
        .batch_execute("update hr.employee set create_benefits_record = false where id = 1")
        .await
        .unwrap();
    site.hr.batch_execute("update hr.employee set create_benefits_record = true where id = 1").await.unwrap();
    site.passed().await;
    site.until_state("1", "successful").await;
    site.stop().await;
}

#[tokio::test]
async fn there_is_no_way_back_to_not_syncing() {
    let mut site = started().await;
    site.sync(&["1"]).await;
    site.hr.batch_execute("update hr.employee set create_benefits_record = true where id = 1").await.unwrap();
    site.hr
        .batch_execute(
            "update hr.employee set create_benefits_record = false, leave_date = '2020-01-01' where id = 1",
        )
        .await
        .unwrap();
    site.settled().await;
    assert_eq!(site.status("1").await.0, "successful");
    site.stop().await;
}

#[tokio::test]
async fn sync_returns_the_number_of_distinct_people_and_an_unknown_id_raises_and_requests_nothing() {
    let site = Site::new(18).await;
    let sql = "select benefits.sync(array['1', '2', '1', null])";
    assert_eq!(site.hr.query_one(sql, &[]).await.unwrap().get::<_, i32>(0), 2);
    let (message, hint) = site.refused("select benefits.sync(array['3', '998', '999'])").await;
    assert_eq!(message, "unknown employee: 998, 999");
    assert!(hint.starts_with("Nothing was requested"));
    assert_eq!(site.status("3").await.0, "not_syncing");
    assert_eq!(site.refused("select benefits.sync(array['abc'])").await.0, "unknown employee: abc");
}

#[tokio::test]
async fn somebody_hired_in_this_very_transaction_can_be_synced() {
    let mut site = started().await;
    site.stop().await;
    site.hr
        .batch_execute(
            "begin;
             insert into hr.employee (id, employee_number, surname) values (500, 'N500', 'New');
             select benefits.sync(array['500']); commit",
        )
        .await
        .unwrap();
    assert_eq!(site.status("500").await.0, "in_progress");
    site.start().await;
    site.settled().await;
    assert_eq!(site.status("500").await.0, "failed");
    site.stop().await;
}

#[tokio::test]
async fn send_again_sends_the_full_record() {
    let mut site = started().await;
    site.sync(&["1"]).await;
    site.sync(&["1"]).await;
    let history = site.history("1").await;
    assert_eq!(history.len(), 2);
    assert_eq!(history[0].1, history[1].1);
    site.stop().await;
}

#[tokio::test]
async fn why_answers_in_a_sentence_for_somebody_unknown_not_syncing_successful_and_failed() {
    let mut site = started().await;
    assert!(site.why("999").await.starts_with("Unknown: HR has no employee '999'"));
    assert_eq!(
        site.why("1").await,
        "Not syncing: never sent to Benefits; use Sync, or set the tick for new starters in HR."
    );
    site.hr.batch_execute("update hr.employee set title = null where id = 2").await.unwrap();
    site.sync(&["1", "2"]).await;
    assert!(site.why("1").await.starts_with("Successful: Benefits is in step with HR, last sent at 20"));
    let why = site.why("2").await;
    assert!(why.starts_with("Failed since 20"), "{why}");
    assert!(why.ends_with("(required): Title is empty: supply it in HR; the next save retries."), "{why}");
    site.stop().await;
}

#[tokio::test]
async fn why_tells_what_somebody_in_progress_waits_for() {
    let mut site = started().await;
    site.sync(&["1"]).await;
    // A platform that does not answer: retried.
    site.sandbox.arm("503".parse().unwrap());
    site.hr.batch_execute("update hr.employee set surname = 'Retried' where id = 1").await.unwrap();
    eventually("it retries", async || site.why("1").await.contains("retrying since")).await;
    assert_eq!(site.status("1").await.0, "in_progress");
    site.sandbox.disarm_all();
    site.settled().await;
    // Paused by a person.
    site.hr.batch_execute("select benefits.pause('pay day')").await.unwrap();
    let paused = "select paused_reason from benefits.site";
    assert_eq!(site.hr.query_one(paused, &[]).await.unwrap().get::<_, &str>(0), "pay day, by postgres");
    // The dispatcher looks once a second.
    let writes = site.sandbox.journal().len();
    eventually("nothing is sent any more", async || {
        let before = site.sandbox.journal().len();
        site.hr.batch_execute("update hr.employee set surname = surname || 'x' where id = 1").await.unwrap();
        site.passed().await;
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        site.sandbox.journal().len() == before
    })
    .await;
    assert!(site.sandbox.journal().len() >= writes);
    let why = site.why("1").await;
    assert!(
        why.contains("delivery is paused for the site (pay day, by postgres); a manager resumes it"),
        "{why}"
    );
    site.hr.batch_execute("select benefits.resume()").await.unwrap();
    site.settled().await;
    assert_eq!(site.status("1").await.0, "successful");
    // Suspended by the platform: nobody is blamed.
    site.sandbox.set_suspended(true);
    site.hr.batch_execute("update hr.employee set surname = 'Halted' where id = 1").await.unwrap();
    eventually("halted", async || site.why("1").await.contains("the platform is suspended")).await;
    assert_eq!(site.status("1").await, ("in_progress".to_owned(), None));
    site.stop().await;
    // Down altogether.
    site.hr.batch_execute("select benefits.resume(), benefits.sync(array['2'])").await.unwrap();
    let why = site.why("2").await;
    assert!(
        why.starts_with("In progress: postgres asked for Sync at 20")
            && why.contains("not running; operators start it"),
        "{why}"
    );
    assert!(site.why("1").await.contains("not running"));
}

#[tokio::test]
async fn a_failed_employee_is_sent_again_by_sync() {
    let mut site = started().await;
    site.sandbox.arm("reject".parse().unwrap());
    site.sync(&["1"]).await;
    assert_eq!(site.status("1").await.0, "failed");
    site.sandbox.disarm_all();
    site.sync(&["1"]).await;
    assert_eq!(site.status("1").await, ("successful".to_owned(), None));
    site.stop().await;
}

#[tokio::test]
async fn somebody_who_is_forgotten_is_not_syncing_again_and_a_new_first_sync_finds_them() {
    let mut site = started().await;
    site.sync(&["1"]).await;
    site.hr.batch_execute("select benefits.forget('1')").await.unwrap();
    assert_eq!(site.status("1").await.0, "not_syncing");
    let sql = "select count(*) from benefits.employee_status where state = 'not_syncing'";
    assert_eq!(site.hr.query_one(sql, &[]).await.unwrap().get::<_, i64>(0), 30);
    site.hr.batch_execute("select benefits.sync(array['1'])").await.unwrap();
    site.settled().await;
    assert_ne!(site.status("1").await.0, "not_syncing");
    site.stop().await;
}
