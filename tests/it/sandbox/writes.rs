//! What makes a repeated, late or colliding write harmless: keys, versions, links, unique emails.

use std::time::Duration;

use benefits_sync::sandbox::SeedAccount;
use serde_json::json;

use super::{Rig, employee, padded, with};

#[tokio::test]
async fn a_write_needs_an_idempotency_key_of_sixteen_to_128_characters() {
    let rig = Rig::new().await;
    for key in ["x".repeat(15), "x".repeat(129)] {
        assert_eq!(rig.send(rig.posting(&key, &employee("1"))).await.problem(), (400, "bad-request"));
    }
    assert_eq!(rig.send(rig.posting(&"x".repeat(128), &employee("1"))).await.status, 201);
}

#[tokio::test]
async fn emails_are_unique_ignoring_case() {
    let rig = Rig::new().await;
    let first = rig.create("k1", &employee("1")).await;
    let clash = with(employee("2"), json!({"email": "ADA.1@EXAMPLE.COM"}));
    assert_eq!(rig.create("k2", &clash).await.problem(), (409, "email-in-use"));
    let second = rig.create("k2", &employee("2")).await;
    let patch = json!({"sourceVersion": 11, "email": "ada.1@example.com"});
    assert_eq!(rig.patch(second.id(), "p", &patch).await.problem(), (409, "email-in-use"));
    // One's own in other letters is no clash, and what one has left is free.
    assert_eq!(rig.patch(first.id(), "p1", &patch).await.status, 200);
    let away = json!({"sourceVersion": 12, "email": "new@example.com"});
    assert_eq!(rig.patch(first.id(), "p2", &away).await.status, 200);
    assert_eq!(rig.patch(second.id(), "p", &patch).await.status, 200);
}

#[tokio::test]
async fn hr_ids_are_unique() {
    let rig = Rig::new().await;
    rig.create("k1", &employee("1")).await;
    let clash = with(employee("2"), json!({"externalId": "1"}));
    assert_eq!(rig.create("k2", &clash).await.problem(), (409, "external-id-in-use"));
    let id = rig.sandbox.seed(SeedAccount::new("z@example.com")).unwrap();
    let link = json!({"sourceVersion": 1, "externalId": "1"});
    assert_eq!(rig.patch(&id, "p", &link).await.problem(), (409, "external-id-in-use"));
}

#[tokio::test]
async fn a_link_is_set_where_there_is_none_repeated_freely_and_moved_by_naming_it() {
    let rig = Rig::new().await;
    let id = rig.sandbox.seed(SeedAccount::new("z@example.com").with("surname", "Z")).unwrap();
    assert_eq!(rig.sandbox.account(&id).unwrap().status, "pending");
    let steps = [
        (json!({"externalId": "1", "previousExternalId": "9"}), Some("external-id-mismatch")),
        (json!({"externalId": "1"}), None),
        (json!({"externalId": "1"}), None),
        (json!({"externalId": "2"}), Some("external-id-mismatch")),
        (json!({"externalId": "2", "previousExternalId": "9"}), Some("external-id-mismatch")),
        (json!({"externalId": "2", "previousExternalId": "1"}), None),
        (json!({"externalId": "2", "previousExternalId": "1"}), Some("external-id-mismatch")),
        (json!({"previousExternalId": "2"}), Some("validation")),
        (json!({"externalId": null}), Some("validation")),
    ];
    for (version, (patch, problem)) in (1..).zip(steps) {
        let answer =
            rig.patch(&id, &format!("p{version}"), &with(patch, json!({"sourceVersion": version}))).await;
        match problem {
            Some(kind) => assert_eq!(answer.problem().1, kind, "step {version}"),
            None => assert_eq!(answer.status, 200, "step {version}"),
        }
    }
    assert_eq!(rig.sandbox.account_of("2").unwrap().id, id);
    assert!(rig.sandbox.account_of("1").is_none());
}

#[tokio::test]
async fn a_version_never_goes_down_and_takes_one_body_only() {
    let rig = Rig::new().await;
    let id = rig.create("k", &employee("1")).await.id().to_owned();
    let patch = json!({"sourceVersion": 12, "mobile": "1"});
    assert_eq!(rig.patch(&id, "p1", &patch).await.status, 200);
    let lower = json!({"sourceVersion": 11, "mobile": "2"});
    assert_eq!(rig.patch(&id, "p2", &lower).await.problem(), (409, "stale-source-version"));
    let other = json!({"sourceVersion": 12, "mobile": "2"});
    assert_eq!(rig.patch(&id, "p3", &other).await.problem(), (409, "stale-source-version"));
    assert_eq!(rig.patch(&id, "p4", &patch).await.status, 200, "the same body under another key");
    let account = rig.sandbox.account(&id).unwrap();
    assert_eq!((account.source_version, account.get("mobile")), (Some(12), Some("1")));
}

#[tokio::test]
async fn a_repeated_write_gets_the_same_answer_and_changes_nothing() {
    let rig = Rig::new().await;
    let first = rig.create("k", &employee("1")).await;
    let id = first.id().to_owned();
    rig.patch(&id, "p", &json!({"sourceVersion": 11, "mobile": "1"})).await;
    let again = rig.create("k", &employee("1")).await;
    assert_eq!((again.status.as_u16(), &again.body), (201, &first.body));
    assert_eq!(again.headers["location"], first.headers["location"]);
    assert_eq!(rig.sandbox.accounts().len(), 1);
    assert_eq!(rig.sandbox.account(&id).unwrap().get("mobile"), Some("1"));
    assert_eq!(rig.sandbox.counts().replayed, 1);
}

#[tokio::test]
async fn a_key_is_not_to_be_used_for_another_write() {
    let rig = Rig::new().await;
    let id = rig.create("k", &employee("1")).await.id().to_owned();
    assert_eq!(rig.create("k", &employee("2")).await.problem(), (422, "idempotency-key-reused"));
    assert_eq!(rig.patch(&id, "k", &employee("1")).await.problem(), (422, "idempotency-key-reused"));
}

#[tokio::test]
async fn a_refused_write_leaves_no_key_behind() {
    let rig = Rig::new().await;
    assert_eq!(rig.create("k", &json!({})).await.status, 422);
    assert_eq!(rig.create("k", &employee("1")).await.status, 201);
}

#[tokio::test]
async fn keys_are_kept_for_a_day() {
    let rig = Rig::new().await;
    rig.create("k", &employee("1")).await;
    rig.sandbox.advance_clock(Duration::from_hours(23));
    assert_eq!(rig.create("k", &employee("1")).await.status, 201);
    rig.sandbox.advance_clock(Duration::from_hours(1));
    assert_eq!(rig.create("k", &employee("1")).await.problem(), (409, "external-id-in-use"));
}

#[tokio::test]
async fn a_key_that_is_being_worked_on_is_in_progress() {
    let rig = Rig::new().await;
    rig.arm("slow,delay=1h,next=1");
    let slow = tokio::spawn(rig.posting(&padded("k"), &employee("1")).send());
    while !rig.sandbox.faults().is_empty() {
        tokio::task::yield_now().await;
    }
    // One thread: between spending the rule and marking the key the server does not wait.
    let answer = rig.create("k", &employee("1")).await;
    assert_eq!(answer.problem(), (409, "request-in-progress"));
    // A client that goes away gives its key free.
    slow.abort();
    let freed = async {
        while rig.create("k", &employee("1")).await.status != 201 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), freed).await.expect("the key is given free");
    assert_eq!(rig.sandbox.accounts().len(), 1);
}

#[tokio::test]
async fn a_removed_account_is_not_found_or_gone() {
    let rig = Rig::new().await;
    let id = rig.create("k", &employee("1")).await.id().to_owned();
    let other = rig.create("k2", &employee("2")).await.id().to_owned();
    assert!(rig.sandbox.remove_account(&id, true) && rig.sandbox.remove_account(&other, false));
    let patch = json!({"sourceVersion": 11});
    assert_eq!(rig.get(&format!("/employees/{id}")).await.problem(), (410, "gone"));
    assert_eq!(rig.patch(&id, "p", &patch).await.problem(), (410, "gone"));
    assert_eq!(rig.get(&format!("/employees/{other}")).await.problem(), (404, "not-found"));
    assert_eq!(rig.patch(&other, "p", &patch).await.problem(), (404, "not-found"));
    assert_eq!(rig.create("k3", &employee("1")).await.status, 201, "email and HR id are free again");
}
