//! Leavers and the mass-change guard.

use crate::for_each_major;
use crate::reconcile::drop_slot;
use crate::support::site::{Site, eventually};

/// Twelve people synced, of whom three may be ended at once.
pub async fn guarded(major: u32) -> Site {
    let mut site = Site::new(major).await;
    "[guard]\nminimum = 3\n".clone_into(&mut site.more);
    site.start().await;
    site.sync(&["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12"]).await;
    site.hr.batch_execute("update hr.employee set leave_date = null").await.unwrap();
    site.settled().await;
    site
}

async fn leave(site: &Site, ids: &str) {
    let sql = format!("update hr.employee set leave_date = '2027-03-31' where id in ({ids})");
    site.hr.batch_execute(&sql).await.unwrap();
    site.passed().await;
}

/// Deletes people, children and all, in one transaction.
async fn erase(site: &Site, ids: &str) {
    let mut sql = vec!["begin".to_owned()];
    for table in ["job_pay", "job", "phone", "email", "address"] {
        sql.push(format!("delete from hr.{table} where employee_id in ({ids})"));
    }
    sql.push(format!("delete from hr.employee where id in ({ids}); commit"));
    site.hr.batch_execute(&sql.join("; ")).await.unwrap();
    site.passed().await;
}

/// Waits for a hold of so many people; its id and reason.
pub async fn hold_of(site: &Site, count: usize) -> (i64, String) {
    eventually("people are held", async || {
        let sql =
            "select count(*) from benefits.hold where state = 'open' and cardinality(employee_ids) = $1";
        site.hr.query_one(sql, &[&i32::try_from(count).unwrap()]).await.unwrap().get::<_, i64>(0) == 1
    })
    .await;
    let row = site
        .hr
        .query_one("select hold_id, reason from benefits.hold where state = 'open'", &[])
        .await
        .unwrap();
    (row.get(0), row.get(1))
}

async fn state_of_hold(site: &Site, id: i64) -> String {
    site.hr.query_one("select state from benefits.hold where hold_id = $1", &[&id]).await.unwrap().get(0)
}

fn left(site: &Site) -> usize {
    site.sandbox.accounts().iter().filter(|account| account.get("leaveDate").is_some()).count()
}

async fn events(site: &Site, id: &str) -> Vec<String> {
    site.history(id).await.into_iter().map(|(event, ..)| event).collect()
}

for_each_major! {
    async fn a_mass_of_leave_dates_is_held_whole_until_a_person_releases_it(major: u32) {
        let mut site = guarded(major).await;
        leave(&site, "1, 2, 3, 4").await;
        let (hold, reason) = hold_of(&site, 4).await;
        assert_eq!(reason, "4 employees (4 would get a leave date) within 00:10:00; the limit is 3");
        assert_eq!(left(&site), 0, "counted before anything is sent");
        assert_eq!(site.status("1").await.0, "in_progress");
        let why = site.why("1").await;
        assert!(why.contains("held since") && why.contains(&format!("benefits.release({hold})")), "{why}");
        eventually("the metric tells", async || site.get("/metrics").await.1.contains("benefits_sync_holds 1")).await;

        site.hr.execute("select benefits.release($1)", &[&hold]).await.unwrap();
        site.settled().await;
        assert_eq!(left(&site), 4);
        assert_eq!(state_of_hold(&site, hold).await, "released");
        assert_eq!(events(&site, "1").await.split_off(1), ["held", "released", "updated"]);
        let sql = "select requested_by from benefits.sync_history where employee_id = '1' and event = 'released'";
        assert_eq!(site.hr.query_one(sql, &[]).await.unwrap().get::<_, &str>(0), "postgres");
        site.stop().await;
    }
}

#[tokio::test]
async fn what_a_comparison_finds_is_judged_whole_too() {
    let mut site = guarded(18).await;
    site.stop().await;
    // Changed while no slot was there to tell.
    drop_slot(&site).await;
    for id in 1..=5 {
        let sql = format!("update hr.employee set leave_date = '2027-03-31' where id = {id}");
        site.hr.batch_execute(&sql).await.unwrap();
    }
    site.start().await;
    hold_of(&site, 5).await;
    assert_eq!(left(&site), 0);
    site.stop().await;
}

#[tokio::test]
async fn everybody_else_flows_while_people_are_held() {
    let mut site = guarded(18).await;
    site.hr
        .batch_execute(
            "update hr.employee set leave_date = case when id <= 4 then date '2027-03-31' end,
                surname = 'Flows' where id <= 12",
        )
        .await
        .unwrap();
    hold_of(&site, 4).await;
    for id in ["5", "12"] {
        site.until_state(id, "successful").await;
        assert_eq!(site.held(id, "surname").as_deref(), Some("Flows"));
    }
    assert_ne!(site.held("1", "surname").as_deref(), Some("Flows"), "a held delivery is held as a whole");
    site.stop().await;
}

#[tokio::test]
async fn what_was_discarded_stays_discarded_until_hr_changes_the_record_again() {
    let mut site = guarded(18).await;
    leave(&site, "1, 2, 3, 4").await;
    let (hold, _) = hold_of(&site, 4).await;
    // Marked again by a comparison at that moment, and not judged again yet.
    site.hr
        .batch_execute(&format!(
            "begin; update benefits.pending set seq = seq + 1, ending = null where employee_id in ('3', '4');
             select benefits.discard({hold}); commit"
        ))
        .await
        .unwrap();
    site.settled().await;
    assert_eq!(state_of_hold(&site, hold).await, "discarded");
    assert_eq!(site.status("1").await, ("successful".to_owned(), None));
    let why = site.why("1").await;
    assert!(why.contains("a mass change was discarded by postgres"), "{why}");
    // A save that edits nothing, a comparison, a restart: nothing is sent.
    site.hr
        .batch_execute(
            "update hr.employee set leave_date = leave_date where id = 1;
             insert into benefits.pending (employee_id, cause, changed_at, last_changed_at) values ('2', 'reconcile', now(), now())",
        )
        .await
        .unwrap();
    site.stop().await;
    site.start().await;
    site.settled().await;
    assert_eq!(left(&site), 0);
    assert_eq!(site.status("2").await.0, "successful");
    // HR changes it again: then all of it goes.
    site.hr.batch_execute("update hr.employee set surname = 'Goes' where id = 1").await.unwrap();
    site.settled().await;
    assert_eq!(site.held("1", "leaveDate").as_deref(), Some("2027-03-31"));
    assert_eq!(left(&site), 1);
    // The same mistake once more is a new one.
    site.hr.batch_execute("update hr.employee set leave_date = null where id = 2").await.unwrap();
    site.settled().await;
    leave(&site, "2").await;
    site.settled().await;
    assert_eq!(site.held("2", "leaveDate").as_deref(), Some("2027-03-31"));
    site.stop().await;
}

#[tokio::test]
async fn as_many_as_the_limit_flow_and_the_next_within_the_window_is_held_also_after_a_restart() {
    let mut site = guarded(18).await;
    leave(&site, "1, 2, 3").await;
    site.settled().await;
    assert_eq!(left(&site), 3);
    site.stop().await;
    site.start().await;
    leave(&site, "4").await;
    hold_of(&site, 1).await;
    assert_eq!(left(&site), 3);
    site.stop().await;
}

#[tokio::test]
async fn changes_that_were_collected_while_the_service_was_down_are_judged_together() {
    let mut site = guarded(18).await;
    site.stop().await;
    site.hr.batch_execute("create table hr.note (text text)").await.unwrap();
    for id in 1..=5 {
        // What is nobody's takes the server a moment to pass: the changes do not come in one read.
        site.hr
            .batch_execute("insert into hr.note select g::text from generate_series(1, 30000) as g")
            .await
            .unwrap();
        site.hr
            .batch_execute(&format!("update hr.employee set leave_date = '2027-03-31' where id = {id}"))
            .await
            .unwrap();
    }
    site.start().await;
    hold_of(&site, 5).await;
    assert_eq!(left(&site), 0);
    site.stop().await;
}

#[tokio::test]
async fn lost_mandatory_fields_and_deleted_rows_count_as_leave_dates_do() {
    let mut site = guarded(18).await;
    site.hr
        .batch_execute(
            "begin; update hr.employee set surname = null where id in (1, 2);
             update hr.employee set leave_date = '2027-03-31' where id in (3, 4); commit",
        )
        .await
        .unwrap();
    let (hold, reason) = hold_of(&site, 4).await;
    assert!(
        reason.starts_with("4 employees (2 would get a leave date, 2 would lose a mandatory field)"),
        "{reason}"
    );
    erase(&site, "5").await;
    hold_of(&site, 5).await;
    for id in ["1", "3", "5"] {
        assert_eq!(site.status(id).await.0, "in_progress");
    }
    site.hr.execute("select benefits.release($1)", &[&hold]).await.unwrap();
    site.settled().await;
    assert_eq!(site.status("1").await, ("failed".to_owned(), Some("required".to_owned())));
    assert_eq!(site.status("3").await, ("successful".to_owned(), None));
    assert_eq!(site.status("5").await, ("failed".to_owned(), Some("record-gone".to_owned())));
    site.stop().await;
}

#[tokio::test]
async fn a_hold_that_hr_puts_right_by_itself_is_resolved_and_nothing_of_it_was_sent() {
    let mut site = guarded(18).await;
    let writes = site.sandbox.journal().len();
    leave(&site, "1, 2, 3, 4").await;
    let (hold, _) = hold_of(&site, 4).await;
    site.hr.batch_execute("update hr.employee set leave_date = null").await.unwrap();
    site.settled().await;
    assert_eq!(state_of_hold(&site, hold).await, "resolved");
    assert_eq!(site.sandbox.journal().len(), writes);
    assert_eq!(site.status("1").await.0, "successful");
    let (message, _) = site.refused(&format!("select benefits.release({hold})")).await;
    assert_eq!(message, format!("hold {hold} is not open any more: it is resolved"));
    assert_eq!(site.refused("select benefits.discard(999)").await.0, "there is no hold 999");
    site.stop().await;
}

#[tokio::test]
async fn a_held_person_stays_held_through_another_change_and_a_restart() {
    let mut site = guarded(18).await;
    leave(&site, "1, 2, 3, 4").await;
    let (hold, _) = hold_of(&site, 4).await;
    site.hr.batch_execute("update hr.employee set surname = 'Still' where id = 1").await.unwrap();
    site.passed().await;
    site.stop().await;
    site.start().await;
    eventually("judged again", async || {
        let sql =
            "select hold_seq = seq and ending is not null from benefits.pending where employee_id = '1'";
        site.hr.query_one(sql, &[]).await.unwrap().get(0)
    })
    .await;
    assert_eq!(hold_of(&site, 4).await.0, hold);
    assert_eq!(left(&site), 0);
    site.hr.execute("select benefits.release($1)", &[&hold]).await.unwrap();
    site.settled().await;
    assert_eq!(
        site.held("1", "surname").as_deref(),
        Some("Still"),
        "what is sent is the record as it is now"
    );
    site.stop().await;
}

#[tokio::test]
async fn a_translation_or_description_that_would_empty_a_mandatory_field_of_everybody_is_held() {
    let mut site = guarded(18).await;
    site.hr
        .batch_execute(
            "begin; update benefits.site set record_query = replace(record_query, 'e.surname,', 'null::text as surname,');
             select benefits.generate_read_records(); update benefits.description set version = version + 1; commit",
        )
        .await
        .unwrap();
    hold_of(&site, 12).await;
    assert_eq!(site.status("12").await.0, "in_progress");
    site.stop().await;
}

#[tokio::test]
async fn a_leave_date_is_sent_as_soon_as_it_is_recorded_future_or_past_and_corrections_and_re_instatement_follow()
 {
    let mut site = Site::new(18).await;
    site.start().await;
    site.hr.batch_execute("update hr.employee set leave_date = null").await.unwrap();
    site.sync(&["1"]).await;
    for (date, held) in [
        ("'2090-01-31'", Some("2090-01-31")),
        ("'2020-01-31'", Some("2020-01-31")),
        ("'2020-02-29'", Some("2020-02-29")),
        ("null", None),
    ] {
        site.hr
            .batch_execute(&format!("update hr.employee set leave_date = {date} where id = 1"))
            .await
            .unwrap();
        site.settled().await;
        assert_eq!(site.held("1", "leaveDate").as_deref(), held);
    }
    site.hr.batch_execute("update hr.employee set leave_date = '2020-01-31' where id = 1").await.unwrap();
    site.hr.batch_execute("update hr.employee set surname = 'Corrected' where id = 1").await.unwrap();
    site.settled().await;
    assert_eq!(
        site.held("1", "surname").as_deref(),
        Some("Corrected"),
        "corrections after leaving keep flowing"
    );
    site.stop().await;
}

#[tokio::test]
async fn leaving_a_primary_job_while_a_secondary_is_promoted_is_no_leaver() {
    let mut site = Site::new(18).await;
    site.start().await;
    site.hr.batch_execute("update hr.employee set leave_date = null where id = 1").await.unwrap();
    site.sync(&["1"]).await;
    site.hr
        .batch_execute(
            "begin; update hr.job set is_primary = false, ended_on = current_date where employee_id = 1;
             with j as (insert into hr.job (employee_id, is_primary, title, started_on) values (1, true, 'Promoted', '2020-01-01') returning id)
             insert into hr.job_pay (employee_id, job_id, effective_from, annual_pay, basis, frequency, change_reason)
             select 1, j.id, '2020-01-01', 50000, 'Per annum', 'Calendar monthly', 'Promotion' from j; commit",
        )
        .await
        .unwrap();
    site.settled().await;
    assert_eq!(site.status("1").await, ("successful".to_owned(), None));
    assert_eq!(site.held("1", "leaveDate"), None);
    assert_eq!(site.held("1", "jobTitle").as_deref(), Some("Promoted"));
    assert_eq!(site.held("1", "annualPay").as_deref(), Some("50000.00"));
    site.stop().await;
}

#[tokio::test]
async fn a_row_deleted_from_hr_is_never_a_delete_at_benefits_but_flagged_for_a_person() {
    let mut site = Site::new(18).await;
    site.start().await;
    site.sync(&["1"]).await;
    let writes = site.sandbox.journal().len();
    erase(&site, "1").await;
    site.settled().await;
    assert_eq!(site.status("1").await, ("failed".to_owned(), Some("record-gone".to_owned())));
    assert_eq!(site.sandbox.journal().len(), writes);
    assert!(site.sandbox.account_of("1").is_some());
    let why = site.why("1").await;
    assert!(why.contains("HR has no record of this employee any more"), "{why}");
    site.stop().await;
}
