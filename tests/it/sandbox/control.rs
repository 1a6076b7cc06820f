//! What a test or a person scripts and sees of the sandbox itself.

use benefits_sync::sandbox::SandboxOptions;
use serde_json::json;

use super::{Rig, client, employee};

#[tokio::test]
async fn a_test_can_wait_for_what_it_expects() {
    let rig = Rig::new().await;
    let sandbox = rig.sandbox.sandbox().clone();
    let waiting = tokio::spawn(async move { sandbox.until(|one| one.account_of("2").is_some()).await });
    rig.create("k1", &employee("1")).await;
    assert!(!waiting.is_finished());
    rig.create("k2", &employee("2")).await;
    waiting.await.unwrap();
}

#[tokio::test]
async fn the_journal_tells_what_was_sent_without_values() {
    let rig = Rig::with(SandboxOptions { journal_max: 2, ..SandboxOptions::default() }).await;
    let id = rig.create("k", &employee("1")).await.id().to_owned();
    rig.patch(&id, "p1", &json!({"sourceVersion": 11, "mobile": "1"})).await;
    rig.patch(&id, "p2", &json!({"sourceVersion": 11, "surname": "X", "mobile": "2"})).await;
    let journal = rig.sandbox.journal_of("1");
    let told: Vec<_> =
        journal.iter().map(|entry| (entry.sequence, entry.fields.clone(), entry.status)).collect();
    assert_eq!(told, [(2, vec!["mobile"], Some(200)), (3, vec!["surname", "mobile"], Some(409))]);
    assert_eq!(journal[1].problem, Some("stale-source-version"));
    assert!(journal.iter().all(|entry| entry.body.is_none() && entry.id.as_deref() == Some(&*id)));
    let counts = rig.sandbox.counts();
    assert_eq!((counts.created, counts.updated, counts.refused), (1, 1, 1));
}

#[tokio::test]
async fn the_control_endpoints_script_and_show_the_sandbox() {
    let rig = Rig::new().await;
    let control = |path: &str| format!("http://{}/_sandbox/{path}", rig.sandbox.address());
    let seeded = rig.send(rig.client.post(control("accounts")).body(r#"{"email":"a@example.com"}"#)).await;
    assert_eq!(seeded.status, 201);
    let armed =
        rig.send(rig.client.post(control("faults")).body("503,next=1\nslow,delay=1ms,on=reads\n")).await;
    assert_eq!(armed.body, json!(["unavailable,next=1", "slow,delay=1ms,jitter=0s,on=reads"]));
    let wrong = rig.send(rig.client.post(control("faults")).body("503\nboom")).await;
    assert_eq!(wrong.status, 400);
    assert_eq!(rig.get("").await.problem(), (503, "unavailable"));
    assert_eq!(rig.send(rig.client.delete(control("faults"))).await.body, json!([]));
    let gone = format!("accounts/{}?gone=true", seeded.id());
    rig.send(rig.client.post(control("suspend"))).await;
    let state = rig.send(rig.client.delete(control(&gone))).await;
    assert_eq!((&state.body["accounts"], &state.body["suspended"]), (&json!(0), &json!(true)));
    rig.send(rig.client.post(control("resume"))).await;
    assert_eq!(rig.get(&format!("/employees/{}", seeded.id())).await.problem(), (410, "gone"));
    assert_eq!(rig.send(rig.client.get(control("journal"))).await.body, json!([]));
}

#[tokio::test]
async fn the_state_outlives_the_server() {
    let rig = Rig::new().await;
    rig.create("k", &employee("1")).await;
    let sandbox = rig.sandbox.sandbox().clone();
    rig.sandbox.stop().await.unwrap();
    let sandbox = sandbox.start_here().await.unwrap();
    let rig = Rig { sandbox, client: client() };
    assert_eq!(rig.get("/employees?externalId=1").await.body["items"].as_array().unwrap().len(), 1);
}
