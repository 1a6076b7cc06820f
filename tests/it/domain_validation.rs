//! What fails and what the person reads; retries without a button; translations and picklists.

use crate::support::site::Site;

async fn started() -> Site {
    let mut site = Site::new(18).await;
    site.start().await;
    site
}

async fn error(site: &Site, id: &str) -> (String, String) {
    let sql =
        "select state, last_error_code, last_error from benefits.employee_status where employee_id = $1";
    let row = site.hr.query_one(sql, &[&id]).await.unwrap();
    assert_eq!(row.get::<_, &str>(0), "failed");
    (row.get(1), row.get(2))
}

/// Lines of an employee's history.
async fn lines(site: &Site, id: &str) -> usize {
    site.history(id).await.len()
}

#[tokio::test]
async fn all_faults_of_a_record_are_reported_at_once_by_field_and_in_words_that_say_what_to_do() {
    let mut site = started().await;
    site.hr
        .batch_execute(
            "update hr.employee set surname = null, gender = 'Unsaid', ni_number = '12', known_as = repeat('x', 101) where id = 1;
             update hr.job_pay set annual_pay = -1 where employee_id = 1",
        )
        .await
        .unwrap();
    site.sync(&["1"]).await;
    let (code, text) = error(&site, "1").await;
    assert_eq!(code, "too-long", "the first in the order of the fields");
    for part in [
        "Surname is empty: supply it in HR; the next save retries.",
        "Gender \"Unsaid\" is not a value that Benefits lists (it lists ",
        "or add a translation.",
        "National Insurance",
        "is longer than 100 characters: shorten it in HR.",
        "Annual pay is outside what Benefits takes",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let fields = &site.history("1").await[0].1;
    assert_eq!(fields, &["knownAs", "surname", "gender", "nationalInsuranceNumber", "annualPay"]);
    site.stop().await;
}

#[tokio::test]
async fn a_mandatory_field_that_is_cleared_later_fails_and_supplying_it_retries() {
    let mut site = started().await;
    site.sync(&["1"]).await;
    site.hr.batch_execute("update hr.employee set date_of_birth = null where id = 1").await.unwrap();
    site.settled().await;
    assert_eq!(error(&site, "1").await.0, "required");
    site.hr.batch_execute("update hr.employee set date_of_birth = '1980-05-05' where id = 1").await.unwrap();
    site.settled().await;
    assert_eq!(site.status("1").await, ("successful".to_owned(), None));
    site.stop().await;
}

#[tokio::test]
async fn any_save_of_a_failed_employees_own_rows_even_one_that_edits_nothing_tries_again() {
    let mut site = started().await;
    site.hr.batch_execute("update hr.employee set title = null where id = 1").await.unwrap();
    site.sync(&["1"]).await;
    // Straight after the failure, and of any described table.
    for (tries, sql) in [
        (2, "update hr.employee set title = title where id = 1"),
        (3, "update hr.employee set last_login = now() where id = 1"),
        (4, "update hr.email set address = address where employee_id = 1 and kind = 'work'"),
    ] {
        site.hr.batch_execute(sql).await.unwrap();
        site.settled().await;
        assert_eq!(lines(&site, "1").await, tries, "{sql}");
    }
    site.stop().await;
}

#[tokio::test]
async fn a_save_of_somebody_in_step_that_edits_nothing_sends_nothing() {
    let mut site = started().await;
    site.hr.batch_execute("update hr.employee set title = null where id = 1").await.unwrap();
    site.sync(&["1"]).await;
    site.hr.batch_execute("update hr.employee set title = 'Mx' where id = 1").await.unwrap();
    site.settled().await;
    let (requests, lines_before) = (site.sandbox.requests(), lines(&site, "1").await);
    site.hr.batch_execute("update hr.employee set title = title where id = 1").await.unwrap();
    site.settled().await;
    assert_eq!((site.sandbox.requests(), lines(&site, "1").await), (requests, lines_before));
    site.stop().await;
}

#[tokio::test]
async fn a_save_of_a_lookup_does_not_retry_whom_it_leaves_as_they_are() {
    let mut site = started().await;
    site.hr.batch_execute("update hr.employee set title = null where id = 1").await.unwrap();
    site.sync(&["1"]).await;
    // Seen once, so that the next save is known to change nothing.
    site.hr.batch_execute("update hr.department set name = name").await.unwrap();
    site.settled().await;
    let before = lines(&site, "1").await;
    site.hr.batch_execute("update hr.department set name = name").await.unwrap();
    site.settled().await;
    assert_eq!(lines(&site, "1").await, before);
    site.stop().await;
}

#[tokio::test]
async fn renaming_a_department_reaches_its_people() {
    let mut site = started().await;
    site.sync(&["1", "2"]).await;
    site.hr
        .batch_execute(
            "update hr.department set name = 'Renamed' where id =
                 (select department_id from hr.job where employee_id = 1 and is_primary)",
        )
        .await
        .unwrap();
    site.settled().await;
    assert_eq!(site.held("1", "department").as_deref(), Some("Renamed"));
    assert_eq!(site.history("1").await.last().unwrap().1, ["department"]);
    site.stop().await;
}

#[tokio::test]
async fn adding_a_translation_replays_everyone_whom_it_had_blocked() {
    let mut site = started().await;
    site.hr.batch_execute("update hr.employee set gender = 'Femme' where id in (1, 2)").await.unwrap();
    site.sync(&["1", "2", "3"]).await;
    let (code, text) = error(&site, "1").await;
    assert_eq!(code, "unknown-value");
    assert!(text.starts_with("Gender \"Femme\" is not a value that Benefits lists"), "{text}");
    // Case and space are forgiven.
    site.hr
        .batch_execute("insert into benefits.picklist_value values ('gender', ' FEMME', 'female')")
        .await
        .unwrap();
    site.until_state("1", "successful").await;
    site.until_state("2", "successful").await;
    assert_eq!(site.held("2", "gender").as_deref(), Some("Female"));
    site.settled().await;
    assert_eq!(lines(&site, "3").await, 1, "nobody else is sent");
    site.stop().await;
}

#[tokio::test]
async fn a_picklist_that_the_platform_has_repaired_replays_whom_it_had_blocked_and_is_kept_in_the_ledger() {
    let mut site = started().await;
    site.hr.batch_execute("update hr.employee set title = 'Captain' where id = 1").await.unwrap();
    site.sync(&["1"]).await;
    assert_eq!(error(&site, "1").await.0, "unknown-value");
    site.stop().await;
    site.sandbox.set_picklist("title", &["Mx", "Mr", "Ms", "Captain"]);
    site.start().await;
    site.until_state("1", "successful").await;
    let sql = "select string_agg(value, ',' order by value) from benefits.picklist where field = 'title'";
    assert_eq!(site.hr.query_one(sql, &[]).await.unwrap().get::<_, &str>(0), "Captain,Mr,Ms,Mx");
    let sql = "select count(*) from benefits.package";
    assert_eq!(site.hr.query_one(sql, &[]).await.unwrap().get::<_, i64>(0), 4);
    site.stop().await;
}

#[tokio::test]
async fn a_remote_fault_is_told_by_field_and_code_in_our_words() {
    let mut site = started().await;
    site.sandbox.arm("reject".parse().unwrap());
    site.sync(&["1"]).await;
    let (code, text) = error(&site, "1").await;
    assert_eq!(code, "validation");
    assert!(text.starts_with("Benefits refused the record. Surname"), "{text}");
    assert_eq!(site.history("1").await[0].1, ["surname"]);
    let request: Option<String> = site
        .hr
        .query_one("select request_id from benefits.sync_history where employee_id = '1'", &[])
        .await
        .unwrap()
        .get(0);
    assert!(request.is_some(), "the platform's request id");
    site.sandbox.disarm_all();
    site.hr.batch_execute("update hr.employee set surname = surname where id = 1").await.unwrap();
    site.settled().await;
    assert_eq!(site.status("1").await.0, "successful");
    site.stop().await;
}
