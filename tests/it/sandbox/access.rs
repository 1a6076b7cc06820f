//! Who may ask, and what the platform shows of itself: tokens, suspension, request ids, lists.

use std::collections::HashSet;
use std::time::Duration;

use benefits_sync::sandbox::{OauthClient, SandboxOptions};
use reqwest::StatusCode;
use serde_json::json;

use super::{Rig, employee};

#[tokio::test]
async fn a_request_without_the_right_bearer_token_is_unauthenticated() {
    let rig = Rig::new().await;
    let bare = rig.send(rig.client.get(rig.url(""))).await;
    assert_eq!(bare.problem(), (401, "unauthenticated"));
    let wrong = rig.send(rig.client.get(rig.url("")).bearer_auth("other")).await;
    assert_eq!(wrong.problem(), (401, "unauthenticated"));
    let basic = rig.send(rig.client.get(rig.url("")).basic_auth("sandbox-token", Some(""))).await;
    assert_eq!(basic.problem(), (401, "unauthenticated"));
}

#[tokio::test]
async fn a_rotated_token_takes_the_place_of_the_old_one() {
    let rig = Rig::new().await;
    rig.sandbox.set_token("other");
    assert_eq!(rig.get("").await.problem(), (401, "unauthenticated"));
    assert_eq!(rig.send(rig.client.get(rig.url("")).bearer_auth("other")).await.status, 200);
}

#[tokio::test]
async fn a_token_for_client_credentials_is_good_until_it_expires_or_is_revoked() {
    let lifetime = Duration::from_mins(10);
    let client = OauthClient { id: "sync".into(), secret: "s e+c".into(), lifetime };
    let rig = Rig::with(SandboxOptions { oauth_client: Some(client), ..SandboxOptions::default() }).await;
    let asking = || rig.client.post(format!("http://{}/oauth2/token", rig.sandbox.address()));
    let grant = "grant_type=client_credentials&scope=employees%3Awrite";
    assert_eq!(rig.send(asking().basic_auth("sync", Some("wrong")).body(grant)).await.status, 401);
    assert_eq!(
        rig.send(asking().basic_auth("sync", Some("s e+c")).body("grant_type=password")).await.status,
        400
    );
    let answer = rig.send(asking().basic_auth("sync", Some("s e+c")).body(grant)).await;
    assert_eq!((&answer.body["token_type"], &answer.body["expires_in"]), (&json!("Bearer"), &json!(600)));
    let fetch = || rig.send(asking().body(format!("{grant}&client_id=sync&client_secret=s+e%2Bc")));
    let tokens =
        [answer, fetch().await].map(|answer| answer.body["access_token"].as_str().unwrap().to_owned());
    let proves = |token: &str| rig.send(rig.client.get(rig.url("")).bearer_auth(token));
    assert_eq!(
        (proves(&tokens[0]).await.status, proves(&tokens[1]).await.status),
        (StatusCode::OK, StatusCode::OK)
    );
    rig.sandbox.advance_clock(lifetime);
    assert_eq!(proves(&tokens[0]).await.problem(), (401, "unauthenticated"));
    let token = fetch().await.body["access_token"].as_str().unwrap().to_owned();
    assert_eq!(proves(&token).await.status, 200);
    rig.sandbox.revoke_tokens();
    assert_eq!(proves(&token).await.status, 401);
    assert_eq!(rig.sandbox.tokens_issued(), 3);
}

#[tokio::test]
async fn another_platform_or_address_is_not_found() {
    let rig = Rig::new().await;
    let base = rig.sandbox.base_url();
    for url in
        ["/platforms/other", "/platforms/other/employees", "/platforms/demo/staff", "/", "/platforms/demo/"]
    {
        let answer = rig.send(rig.client.get(format!("{base}{url}")).bearer_auth("sandbox-token")).await;
        assert_eq!(answer.problem(), (404, "not-found"), "{url}");
    }
}

#[tokio::test]
async fn every_answer_carries_a_request_id_of_its_own() {
    let rig = Rig::new().await;
    let mut seen = HashSet::new();
    for answer in [rig.get("").await, rig.get("/employees/ben-000009").await, rig.get("/packages").await] {
        assert!(seen.insert(answer.headers["x-request-id"].clone()));
    }
}

#[tokio::test]
async fn a_suspended_platform_shows_itself_and_forbids_everything_else() {
    let rig = Rig::new().await;
    assert_eq!(
        rig.get("").await.body,
        json!({"id": "demo", "name": "Demonstration platform", "status": "active"})
    );
    rig.sandbox.set_suspended(true);
    let platform = rig.get("").await;
    assert_eq!((platform.status.as_u16(), &platform.body["status"]), (200, &json!("suspended")));
    for path in ["/packages", "/picklists", "/employees", "/employees/ben-000001"] {
        assert_eq!(rig.get(path).await.problem(), (403, "platform-suspended"), "{path}");
    }
    assert_eq!(rig.create("k", &employee("1")).await.problem(), (403, "platform-suspended"));
    rig.sandbox.set_suspended(false);
    assert_eq!(rig.get("/packages").await.status, 200);
}

#[tokio::test]
async fn the_platform_lists_its_packages_and_picklists() {
    let rig = Rig::new().await;
    let packages = rig.get("/packages").await;
    assert!(packages.body["items"].as_array().unwrap().iter().any(|package| package["id"] == "executive"));
    let picklists = rig.get("/picklists").await;
    let names: HashSet<_> = picklists.body.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, HashSet::from(["title", "gender", "payBasis", "payFrequency", "payChangeReason"]));
}
