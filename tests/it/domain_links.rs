//! First sync and links: linked, created, conflicts, relink, and the transfer of a link after re-employment.

use benefits_sync::sandbox::{Operation, SeedAccount};
use serde_json::Value;

use crate::for_each_major;
use crate::support::site::Site;

async fn started() -> Site {
    let mut site = Site::new(18).await;
    site.start().await;
    site
}

async fn failed(site: &Site, id: &str) -> (String, String) {
    let sql =
        "select state, last_error_code, last_error from benefits.employee_status where employee_id = $1";
    let row = site.hr.query_one(sql, &[&id]).await.unwrap();
    assert_eq!(row.get::<_, &str>(0), "failed");
    (row.get(1), row.get(2))
}

async fn account_id(site: &Site, id: &str) -> Option<String> {
    let sql = "select benefits_id from benefits.employee_status where employee_id = $1";
    site.hr.query_one(sql, &[&id]).await.unwrap().get(0)
}

fn events(history: Vec<(String, Vec<String>, Option<String>)>) -> Vec<String> {
    history.into_iter().map(|(event, ..)| event).collect()
}

#[tokio::test]
async fn an_account_with_the_employees_email_is_linked_ignoring_case_and_sent_the_full_record() {
    let mut site = started().await;
    let id = site.sandbox.seed(SeedAccount::new(&site.email("1").await.to_uppercase())).unwrap();
    site.sync(&["1"]).await;
    assert_eq!(account_id(&site, "1").await, Some(id));
    let history = site.history("1").await;
    assert_eq!(events(history.clone()), ["linked", "updated"], "two history lines");
    assert!(history[1].1.len() > 20, "{history:?}");
    site.stop().await;
}

#[tokio::test]
async fn from_then_on_only_the_id_is_used_so_a_changed_email_is_an_ordinary_update() {
    let mut site = started().await;
    site.sync(&["1"]).await;
    let before = account_id(&site, "1").await;
    site.set_email("1", "somebody.else@example.org").await;
    site.settled().await;
    assert_eq!(account_id(&site, "1").await, before);
    assert_eq!(site.held("1", "email").as_deref(), Some("somebody.else@example.org"));
    assert_eq!(site.sandbox.counts().created, 1);
    site.stop().await;
}

#[tokio::test]
async fn an_account_that_is_linked_to_another_employee_of_ours_is_email_in_use() {
    let mut site = started().await;
    site.sync(&["1"]).await;
    site.set_email("2", &site.email("1").await).await;
    site.sync(&["2"]).await;
    let (code, text) = failed(&site, "2").await;
    assert_eq!(code, "email-in-use");
    assert!(text.contains("correct the email in HR, or transfer the link"), "{text}");
    site.set_email("2", "second@example.org").await;
    site.settled().await;
    assert_eq!(site.status("2").await, ("successful".to_owned(), None), "the remedy works");
    site.stop().await;
}

#[tokio::test]
async fn of_two_employees_with_one_email_at_the_same_moment_one_wins_and_the_other_is_told() {
    for has_account in [true, false] {
        let mut site = started().await;
        let email = site.email("1").await;
        site.set_email("2", &email).await;
        if has_account {
            site.sandbox.seed(SeedAccount::new(&email)).unwrap();
        }
        site.sync(&["1", "2"]).await;
        let mut states = vec![site.status("1").await, site.status("2").await];
        states.sort();
        let told = ("failed".to_owned(), Some("email-in-use".to_owned()));
        assert_eq!(states, [told, ("successful".to_owned(), None)], "account there before: {has_account}");
        assert_eq!(site.sandbox.accounts().len(), 1);
        site.stop().await;
    }
}

#[tokio::test]
async fn an_account_with_an_external_id_that_the_ledger_does_not_know_is_a_conflict() {
    let mut site = started().await;
    let email = site.email("1").await;
    let id = site.sandbox.seed(SeedAccount::new(&email).linked_to("old-system-7", Some(5))).unwrap();
    site.sync(&["1"]).await;
    assert_eq!(failed(&site, "1").await.0, "conflict");
    assert_eq!(site.sandbox.account(&id).unwrap().external_id.as_deref(), Some("old-system-7"));
    site.stop().await;
}

#[tokio::test]
async fn with_the_link_check_a_differing_birth_date_is_a_conflict() {
    let mut site = Site::new(18).await;
    site.benefits = "link_check = \"date_of_birth\"".to_owned();
    site.start().await;
    for (id, birth) in [("1", "1901-01-01"), ("2", "")] {
        let sql = "select date_of_birth::text from hr.employee where id = $1::text::bigint";
        let real: String = site.hr.query_one(sql, &[&id]).await.unwrap().get(0);
        let birth = if birth.is_empty() { &real } else { birth };
        site.sandbox.seed(SeedAccount::new(&site.email(id).await).with("dateOfBirth", birth)).unwrap();
    }
    site.sync(&["1", "2"]).await;
    assert_eq!(failed(&site, "1").await.0, "conflict");
    assert_eq!(site.status("2").await.0, "successful");
    site.stop().await;
}

#[tokio::test]
async fn an_empty_email_source_is_required() {
    let mut site = started().await;
    site.hr.batch_execute("delete from hr.email where employee_id = 1 and kind = 'work'").await.unwrap();
    site.sync(&["1"]).await;
    let (code, text) = failed(&site, "1").await;
    assert_eq!(
        (code.as_str(), text.as_str()),
        ("required", "Email is empty: supply it in HR; the next save retries.")
    );
    assert_eq!(site.sandbox.counts().created, 0, "a local failure makes no call");
    site.hr
        .batch_execute(
            "insert into hr.email (employee_id, kind, address) values (1, 'work', 'one@example.org')",
        )
        .await
        .unwrap();
    site.settled().await;
    assert_eq!(site.status("1").await.0, "successful");
    site.stop().await;
}

for_each_major! {
    async fn a_linked_account_that_is_gone_is_link_broken_and_never_silently_created_again_until_relinked(major: u32) {
        let mut site = Site::new(major).await;
        site.start().await;
        site.sync(&["1"]).await;
        let old = account_id(&site, "1").await.unwrap();
        assert!(site.sandbox.remove_account(&old, true));
        site.hr.batch_execute("update hr.employee set surname = 'Changed' where id = 1").await.unwrap();
        site.settled().await;
        let (code, text) = failed(&site, "1").await;
        assert_eq!(code, "link-broken");
        assert!(text.contains("relink"), "{text}");
        assert_eq!(site.sandbox.counts().created, 1);
        site.hr.batch_execute("select benefits.relink('1')").await.unwrap();
        site.settled().await;
        assert_eq!(site.status("1").await, ("successful".to_owned(), None));
        assert_ne!(account_id(&site, "1").await.unwrap(), old);
        assert_eq!(site.held("1", "surname").as_deref(), Some("Changed"));
        site.stop().await;
    }

    async fn after_re_employment_the_link_goes_over_to_the_new_record_and_the_old_one_stops_sending(major: u32) {
        let mut site = Site::new(major).await;
        site.start().await;
        site.sync(&["1"]).await;
        let account = account_id(&site, "1").await.unwrap();
        site.hr.batch_execute("update hr.employee set leave_date = '2026-01-31' where id = 1").await.unwrap();
        site.settled().await;
        let version = site.sandbox.account(&account).unwrap().source_version.unwrap();
        site.set_email("2", &site.email("1").await).await;
        site.sync(&["2"]).await;
        assert_eq!(site.status("2").await.1.as_deref(), Some("email-in-use"));

        site.hr.batch_execute("select benefits.transfer_link('1', '2')").await.unwrap();
        site.settled().await;
        assert_eq!(site.status("2").await, ("successful".to_owned(), None));
        assert_eq!(account_id(&site, "2").await.as_deref(), Some(account.as_str()));
        assert_eq!(account_id(&site, "1").await, None);
        let held = site.sandbox.account(&account).unwrap();
        assert_eq!(held.external_id.as_deref(), Some("2"));
        assert!(held.source_version.unwrap() > version);
        assert_eq!(held.get("leaveDate"), None, "the record is the new one's");
        let journal = site.sandbox.journal_of("2");
        let body: Value = serde_json::from_slice(journal.last().unwrap().body.as_ref().unwrap()).unwrap();
        assert_eq!((&body["externalId"], &body["previousExternalId"]), (&"2".into(), &"1".into()));

        assert_eq!(site.status("1").await, ("successful".to_owned(), None));
        assert!(site.why("1").await.contains("ended by transfer"), "{}", site.why("1").await);
        assert_eq!(events(site.history("1").await).last().map(String::as_str), Some("transferred"));
        assert_eq!(events(site.history("2").await), ["rejected", "transferred", "updated"]);
        let writes = site.sandbox.journal().len();
        site.hr.batch_execute("update hr.employee set surname = 'Old' where id = 1").await.unwrap();
        site.sync(&["1"]).await;
        assert_eq!(site.sandbox.journal().len(), writes, "the old record sends nothing any more");
        assert_eq!(site.status("1").await.0, "successful");
        site.hr.batch_execute("update hr.employee set surname = 'New' where id = 2").await.unwrap();
        site.settled().await;
        assert_eq!(site.held("2", "surname").as_deref(), Some("New"));
        site.stop().await;
    }
}

#[tokio::test]
async fn a_transfer_whose_answer_is_lost_ends_at_the_new_record_all_the_same() {
    for fault in ["lost-after,next=1,on=updateEmployee", "lost-before,next=1,on=updateEmployee"] {
        let mut site = started().await;
        site.sync(&["1"]).await;
        site.hr.batch_execute("update hr.employee set leave_date = '2026-01-31' where id = 1").await.unwrap();
        site.settled().await;
        let account = account_id(&site, "1").await.unwrap();
        site.sandbox.arm(fault.parse().unwrap());
        // Another body on the second attempt: the record changes in between.
        site.hr.batch_execute("select benefits.transfer_link('1', '2'); update hr.employee set surname = 'Later' where id = 2").await.unwrap();
        site.settled().await;
        assert_eq!(site.status("2").await, ("successful".to_owned(), None), "{fault}");
        assert_eq!(site.sandbox.account(&account).unwrap().external_id.as_deref(), Some("2"));
        site.stop().await;
    }
}

#[tokio::test]
async fn a_transfer_shows_as_in_progress_at_once_also_while_the_service_is_down() {
    let mut site = started().await;
    site.sync(&["1"]).await;
    site.hr.batch_execute("update hr.employee set leave_date = '2026-01-31' where id = 1").await.unwrap();
    site.settled().await;
    site.stop().await;
    site.hr.batch_execute("select benefits.transfer_link('1', '2')").await.unwrap();
    assert_eq!(site.status("2").await.0, "in_progress");
    let why = site.why("2").await;
    assert!(why.contains("postgres asked for a transfer") && why.contains("not running"), "{why}");
    let (message, _) = site.refused("select benefits.transfer_link('1', '3')").await;
    assert_eq!(message, "a transfer of this link is under way");
    site.start().await;
    site.settled().await;
    assert_eq!(site.status("2").await.0, "successful");
    site.stop().await;
}

#[tokio::test]
async fn a_transfer_is_refused_unless_the_old_record_is_linked_and_has_ended_and_the_new_one_is_free() {
    let mut site = started().await;
    site.sync(&["1", "2"]).await;
    assert_eq!(
        site.refused("select benefits.transfer_link('1', '3')").await.0,
        "employee 1 has no leave date, so the account is theirs"
    );
    site.hr.batch_execute("update hr.employee set leave_date = '2026-01-31' where id = 1").await.unwrap();
    site.settled().await;
    for (from, to, message) in [
        ("1", "2", "employee 2 is linked to an account already"),
        ("1", "1", "the link of employee 1 is theirs already"),
        ("1", "999", "unknown employee: 999"),
        ("3", "4", "employee 3 has no linked account to transfer"),
    ] {
        let sql = format!("select benefits.transfer_link('{from}', '{to}')");
        assert_eq!(site.refused(&sql).await.0, message);
    }
    site.stop().await;
}

#[tokio::test]
async fn a_conflict_is_solved_by_relinking_to_the_account_that_a_person_names() {
    let mut site = started().await;
    let email = site.email("1").await;
    let id = site.sandbox.seed(SeedAccount::new(&email).linked_to("old-system-7", Some(5))).unwrap();
    site.sync(&["1"]).await;
    assert_eq!(failed(&site, "1").await.0, "conflict");
    site.hr.execute("select benefits.relink('1', $1)", &[&id]).await.unwrap();
    site.settled().await;
    assert_eq!(site.status("1").await, ("successful".to_owned(), None));
    let held = site.sandbox.account(&id).unwrap();
    assert_eq!(held.external_id.as_deref(), Some("1"));
    assert!(held.source_version.unwrap() > 5);
    let history = site
        .hr
        .query_one(
            "select requested_by from benefits.sync_history where employee_id = '1' and event = 'relinked'",
            &[],
        )
        .await
        .unwrap();
    assert_eq!(history.get::<_, &str>(0), "postgres");
    site.stop().await;
}

#[tokio::test]
async fn an_account_that_carries_the_employees_own_id_is_taken_only_when_a_person_relinks() {
    let mut site = started().await;
    let id = site.sandbox.seed(SeedAccount::new(&site.email("1").await).linked_to("1", Some(5))).unwrap();
    site.sync(&["1"]).await;
    assert_eq!(failed(&site, "1").await.0, "conflict");
    site.hr.batch_execute("select benefits.relink('1')").await.unwrap();
    site.settled().await;
    assert_eq!(account_id(&site, "1").await, Some(id));
    site.stop().await;
}

#[tokio::test]
async fn a_relink_to_another_employees_account_is_refused() {
    let mut site = started().await;
    site.sync(&["1", "2"]).await;
    let account = account_id(&site, "1").await.unwrap();
    let (message, hint) = site.refused(&format!("select benefits.relink('2', '{account}')")).await;
    assert_eq!(message, format!("account {account} is linked to employee 1"));
    assert!(hint.contains("transfer_link"));
    assert_eq!(
        site.refused("select benefits.relink('3')").await.0,
        "employee 3 is not synced, so there is nothing to relink"
    );
    site.stop().await;
}

#[tokio::test]
async fn a_local_failure_makes_no_call_and_still_shows_in_the_history() {
    let mut site = started().await;
    site.hr.batch_execute("update hr.employee set surname = ' ' where id = 1").await.unwrap();
    let asked = site.sandbox.requests();
    site.sync(&["1"]).await;
    assert_eq!(events(site.history("1").await), ["rejected"]);
    assert_eq!(site.sandbox.requests(), asked);
    assert!(!site.sandbox.journal().iter().any(|entry| entry.operation == Operation::Create));
    site.stop().await;
}
