//! The simulated platform keeps the rules of the API document, and its faults look to a client as they should.
//!
//! Real HTTP over loopback throughout. Whether the answers also fit the document's schemas is what
//! `tests/contract/check` looks at.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use benefits_sync::sandbox::{
    FaultRule, OauthClient, RunningSandbox, Sandbox, SandboxOptions, SeedAccount, self_registered,
};
use proptest::prelude::*;
use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A sandbox and somebody who talks to it.
struct Rig {
    sandbox: RunningSandbox,
    client: Client,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Value,
}

impl Answer {
    /// The status, and the last part of the problem's type.
    fn problem(&self) -> (u16, &str) {
        let kind = self.body["type"].as_str().unwrap_or_default();
        assert_eq!(self.headers["content-type"], "application/problem+json", "{}", self.body);
        assert_eq!(self.body["status"], self.status.as_u16());
        (self.status.as_u16(), kind.strip_prefix("/problems/").unwrap())
    }

    fn id(&self) -> &str {
        self.body["id"].as_str().unwrap()
    }

    fn errors(&self) -> HashMap<String, String> {
        let errors = self.body["errors"].as_array().unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        errors.iter().map(|error| (text(&error["field"]), text(&error["code"]))).collect()
    }
}

fn client() -> Client {
    drop(rustls::crypto::ring::default_provider().install_default());
    Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap()
}

impl Rig {
    async fn new() -> Self {
        Self::with(SandboxOptions { keep_bodies: true, ..SandboxOptions::default() }).await
    }

    async fn with(options: SandboxOptions) -> Self {
        Self { sandbox: Sandbox::start(options).await.unwrap(), client: client() }
    }

    fn url(&self, path: &str) -> String {
        format!("{}/platforms/demo{path}", self.sandbox.base_url())
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, self.url(path)).bearer_auth("sandbox-token")
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let body = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or(Value::Null);
        Answer { status, headers, body }
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    fn posting(&self, key: &str, body: &Value) -> reqwest::RequestBuilder {
        let request = self.request(Method::POST, "/employees").header("Idempotency-Key", key);
        request.header("Content-Type", "application/json").body(body.to_string())
    }

    fn patching(&self, id: &str, key: &str, body: &Value) -> reqwest::RequestBuilder {
        let request = self.request(Method::PATCH, &format!("/employees/{id}")).header("Idempotency-Key", key);
        request.header("Content-Type", "application/merge-patch+json").body(body.to_string())
    }

    async fn create(&self, key: &str, body: &Value) -> Answer {
        self.send(self.posting(&padded(key), body)).await
    }

    async fn patch(&self, id: &str, key: &str, body: &Value) -> Answer {
        self.send(self.patching(id, &padded(key), body)).await
    }

    fn arm(&self, rule: &str) {
        self.sandbox.arm(rule.parse::<FaultRule>().unwrap());
    }
}

/// A key of a length that is allowed.
fn padded(key: &str) -> String {
    format!("{key:-<16}")
}

/// A new employee with nothing but what is required.
fn employee(external_id: &str) -> Value {
    json!({
        "externalId": external_id, "sourceVersion": 10, "title": "Ms", "forenames": "Ada", "surname": "Byron",
        "dateOfBirth": "1985-12-10", "gender": "Female", "email": format!("Ada.{external_id}@Example.com"),
        "annualPay": "31000.00", "payBasis": "Annual", "payFrequency": "Monthly", "payChangeReason": "New starter",
    })
}

fn with(mut base: Value, changes: Value) -> Value {
    let Value::Object(changes) = changes else { panic!("changes are an object") };
    for (name, value) in changes {
        base[name] = value;
    }
    base
}

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

#[tokio::test]
async fn an_employee_is_found_by_email_ignoring_case_and_by_hr_id() {
    let rig = Rig::new().await;
    let created = rig.create("k", &employee("7")).await;
    for query in ["email=aDA.7%40example.COM", "externalId=7", "email=ada.7@example.com&externalId=7"] {
        let found = rig.get(&format!("/employees?{query}")).await;
        assert_eq!(found.body["items"], json!([created.body]), "{query}");
    }
    for query in ["email=ada.8@example.com", "externalId=", "email=ada.7@example.com&externalId=8"] {
        assert_eq!(rig.get(&format!("/employees?{query}")).await.body["items"], json!([]), "{query}");
    }
}

#[tokio::test]
async fn paging_shows_each_employee_once_and_ends() {
    let rig = Rig::new().await;
    let ids: Vec<_> = self_registered(23, 1).into_iter().map(|one| rig.sandbox.seed(one).unwrap()).collect();
    rig.sandbox.remove_account(&ids[9], true);
    let (mut seen, mut path) = (Vec::new(), "/employees?limit=5".to_owned());
    loop {
        let page = rig.get(&path).await.body;
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= 5);
        seen.extend(items.iter().map(|item| item["id"].as_str().unwrap().to_owned()));
        let Some(cursor) = page["nextCursor"].as_str() else { break };
        path = format!("/employees?limit=5&cursor={cursor}");
    }
    let expected: Vec<_> = ids.iter().filter(|id| **id != ids[9]).cloned().collect();
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn a_bad_query_is_a_bad_request() {
    let rig = Rig::new().await;
    for query in
        ["limit=0", "limit=501", "limit=x", "limit=", "cursor=nonsense", "email=%ff", "limit=1&limit=2"]
    {
        assert_eq!(rig.get(&format!("/employees?{query}")).await.problem(), (400, "bad-request"), "{query}");
    }
    assert_eq!(rig.get("/employees?limit=500").await.status, 200);
}

#[tokio::test]
async fn a_new_employee_is_created_with_its_location() {
    let rig = Rig::new().await;
    let body = with(employee("1"), json!({"packageId": "plus", "leaveDate": null, "knownAs": "A"}));
    let created = rig.create("k", &body).await;
    assert_eq!(created.status, 201);
    for (name, value) in body.as_object().unwrap() {
        assert_eq!(&created.body[name], value, "{name}");
    }
    assert_eq!(created.body["status"], "active");
    let location = created.headers["location"].to_str().unwrap();
    assert!(location.ends_with(&format!("/platforms/demo/employees/{}", created.id())), "{location}");
    assert_eq!(rig.get(&format!("/employees/{}", created.id())).await.body, created.body);
}

#[tokio::test]
async fn a_patch_changes_only_what_is_present_and_null_clears() {
    let rig = Rig::new().await;
    let created = rig.create("k", &with(employee("1"), json!({"mobile": "1", "telephone": "2"}))).await;
    let patched =
        rig.patch(created.id(), "p", &json!({"sourceVersion": 11, "mobile": null, "surname": "King"})).await;
    let expected =
        with(created.body.clone(), json!({"sourceVersion": 11, "mobile": null, "surname": "King"}));
    assert_eq!((patched.status.as_u16(), patched.body), (200, expected));
}

#[tokio::test]
async fn a_leaver_is_an_employee_whose_leave_date_has_come_and_null_reinstates() {
    let rig = Rig::new().await;
    let id = rig.create("k", &employee("1")).await.id().to_owned();
    for (version, date, status) in [
        (11, json!("2020-01-31"), "leaver"),
        (12, json!("9999-12-31"), "active"),
        (13, Value::Null, "active"),
    ] {
        let patch = json!({"sourceVersion": version, "leaveDate": date});
        assert_eq!(rig.patch(&id, &format!("p{version}"), &patch).await.body["status"], status);
    }
}

#[tokio::test]
async fn every_missing_mandatory_field_is_reported_at_once() {
    let rig = Rig::new().await;
    let answer = rig.create("k", &json!({})).await;
    assert_eq!(answer.problem(), (422, "validation"));
    let required = employee("1");
    let expected: HashMap<_, _> =
        required.as_object().unwrap().keys().map(|name| (name.clone(), "required".to_owned())).collect();
    assert_eq!(answer.errors(), expected);
}

#[tokio::test]
async fn every_kind_of_fault_is_reported_under_its_field() {
    let rig = Rig::new().await;
    let bad = [
        ("employeeNumber", json!("x".repeat(21)), "too-long"),
        ("title", json!("Baron"), "unknown-value"),
        ("forenames", json!(""), "required"),
        ("surname", Value::Null, "required"),
        ("dateOfBirth", json!("1985-02-30"), "format"),
        ("gender", json!(7), "format"),
        ("nationalInsuranceNumber", json!("QQ123456E"), "format"),
        ("email", json!("nobody"), "format"),
        ("postcode", json!("É".repeat(13)), "too-long"),
        ("countryCode", json!("gb"), "format"),
        ("leaveDate", json!("31/01/2026"), "format"),
        ("weeklyHours", json!("1000"), "out-of-range"),
        ("fte", json!("2.0"), "out-of-range"),
        ("annualPay", json!(31000.0), "format"),
        ("currency", json!("POUND"), "format"),
        ("payBasis", json!("annual"), "unknown-value"),
        ("payFrequency", json!({}), "format"),
        ("payChangeReason", json!("x".repeat(61)), "too-long"),
        ("sourceVersion", json!(0), "out-of-range"),
        ("externalId", json!("x".repeat(101)), "too-long"),
    ];
    let body = bad.iter().fold(employee("1"), |body, (name, value, _)| with(body, json!({*name: value})));
    let answer = rig.create("k", &body).await;
    assert_eq!(answer.problem(), (422, "validation"));
    let expected: HashMap<_, _> =
        bad.iter().map(|(name, _, code)| ((*name).into(), (*code).into())).collect();
    assert_eq!(answer.errors(), expected);
    assert!(rig.sandbox.accounts().is_empty());
}

#[tokio::test]
async fn a_version_is_a_whole_number_a_double_can_hold() {
    let rig = Rig::new().await;
    for (version, code) in [
        (json!(9_007_199_254_740_992_i64), "out-of-range"),
        (json!(-1), "out-of-range"),
        (json!(1e300), "out-of-range"),
        (json!(1.5), "format"),
        (json!("10"), "format"),
    ] {
        let answer = rig.create("k", &with(employee("1"), json!({"sourceVersion": version}))).await;
        assert_eq!(answer.errors(), HashMap::from([("sourceVersion".into(), code.into())]), "{version}");
    }
    let greatest = with(employee("1"), json!({"sourceVersion": 9_007_199_254_740_991_i64}));
    assert_eq!(rig.create("k", &greatest).await.status, 201);
}

#[tokio::test]
async fn a_property_the_document_does_not_have_is_refused() {
    let rig = Rig::new().await;
    let answer = rig.create("k", &with(employee("1"), json!({"nickname": "A"}))).await;
    assert_eq!(answer.problem(), (422, "validation"));
    let answer = rig.create("k", &with(employee("1"), json!({"previousExternalId": "2"}))).await;
    assert_eq!(answer.problem(), (422, "validation"));
    let id = rig.create("k", &employee("1")).await.id().to_owned();
    let answer = rig.patch(&id, "p", &json!({"sourceVersion": 11, "status": "leaver"})).await;
    assert_eq!(answer.errors().keys().collect::<Vec<_>>(), ["status"]);
}

#[tokio::test]
async fn a_picklist_that_was_repaired_is_accepted() {
    let rig = Rig::new().await;
    let body = with(employee("1"), json!({"title": "Baron"}));
    assert_eq!(rig.create("k", &body).await.problem(), (422, "validation"));
    rig.sandbox.set_picklist("title", &["Baron"]);
    assert_eq!(rig.create("k", &body).await.status, 201);
}

#[tokio::test]
async fn an_unknown_package_has_a_problem_of_its_own() {
    let rig = Rig::new().await;
    let answer = rig.create("k", &with(employee("1"), json!({"packageId": "gold"}))).await;
    assert_eq!(answer.problem(), (422, "unknown-package"));
}

#[tokio::test]
async fn a_body_that_is_not_json_is_a_bad_request() {
    let rig = Rig::new().await;
    for body in ["", "{", "{\"a\":1}}", "nope", "\u{feff}{}"] {
        let answer = rig.send(rig.posting(&padded("k"), &Value::Null).body(body)).await;
        assert_eq!(answer.problem(), (400, "bad-request"), "{body}");
    }
    assert_eq!(rig.create("k", &json!([1])).await.problem(), (422, "validation"));
}

#[tokio::test]
async fn a_body_of_another_media_type_is_refused() {
    let rig = Rig::new().await;
    let id = rig.create("k", &employee("1")).await.id().to_owned();
    let typed = |request: reqwest::RequestBuilder, kind: &str| {
        let (client, request) = request.build_split();
        let mut request = request.unwrap();
        request.headers_mut().insert("Content-Type", HeaderValue::from_str(kind).unwrap());
        reqwest::RequestBuilder::from_parts(client, request)
    };
    let post = || rig.posting(&padded("k2"), &employee("2"));
    let patch = |version| rig.patching(&id, &padded("p"), &json!({"sourceVersion": version}));
    assert_eq!(rig.send(typed(post(), "text/json")).await.problem(), (415, "unsupported-media-type"));
    assert_eq!(rig.send(typed(post(), "application/merge-patch+json")).await.problem().0, 415);
    assert_eq!(rig.send(typed(patch(11), "application/json")).await.problem().0, 415);
    assert_eq!(rig.send(typed(post(), "Application/JSON; charset=utf-8")).await.status, 201);
}

#[tokio::test]
async fn a_method_the_document_does_not_have_is_refused_with_those_it_has() {
    let rig = Rig::new().await;
    for (method, path, allowed) in [
        (Method::DELETE, "/employees/ben-000001", "GET, PATCH"),
        (Method::PUT, "/employees", "GET, POST"),
        (Method::POST, "", "GET"),
    ] {
        let answer = rig.send(rig.request(method, path)).await;
        assert_eq!(answer.problem(), (405, "method-not-allowed"), "{path}");
        assert_eq!(answer.headers["allow"], allowed);
    }
}

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
async fn a_refusing_fault_answers_with_its_problem_and_does_nothing() {
    let rig = Rig::new().await;
    for (rule, expected) in [
        ("429,retry-after=7", (429, "rate-limited")),
        ("503", (503, "unavailable")),
        ("500", (500, "internal")),
        ("401", (401, "unauthenticated")),
        ("403", (403, "forbidden")),
        ("suspended", (403, "platform-suspended")),
        ("404", (404, "not-found")),
        ("410", (410, "gone")),
        ("reject", (422, "validation")),
    ] {
        rig.arm(&format!("{rule},next=1"));
        assert_eq!(rig.create("k", &employee("1")).await.problem(), expected, "{rule}");
    }
    assert!(rig.sandbox.accounts().is_empty());
    assert_eq!(rig.create("k", &employee("1")).await.status, 201, "no key was left behind");
}

#[tokio::test]
async fn retry_after_is_a_number_of_seconds_or_an_http_date() {
    let rig = Rig::new().await;
    rig.arm("429,retry-after=7,next=1");
    rig.arm("503,retry-after=date:90,next=1");
    assert_eq!(rig.get("").await.headers["retry-after"], "7");
    let date = rig.get("").await.headers["retry-after"].to_str().unwrap().to_owned();
    let at = jiff::fmt::rfc2822::parse(&date).unwrap().timestamp();
    let ahead = at.duration_since(jiff::Timestamp::now()).as_secs();
    assert!((80..=90).contains(&ahead) && date.ends_with(" GMT"), "{date}");
}

#[tokio::test]
async fn a_fault_can_be_aimed_at_one_employee() {
    let rig = Rig::new().await;
    let id = rig.create("k1", &employee("1")).await.id().to_owned();
    let other = rig.create("k2", &employee("2")).await.id().to_owned();
    rig.arm("reject,external-id=1,on=writes");
    let patch = json!({"sourceVersion": 11, "mobile": "1"});
    assert_eq!(rig.patch(&id, "p1", &patch).await.problem(), (422, "validation"));
    assert_eq!(rig.patch(&other, "p2", &patch).await.status, 200);
    assert_eq!(rig.get(&format!("/employees/{id}")).await.status, 200);
}

/// Everything the server sends on a raw connection until it closes it.
async fn raw_create(rig: &Rig, key: &str, body: &Value) -> String {
    let body = body.to_string();
    let mut stream = TcpStream::connect(rig.sandbox.address()).await.unwrap();
    let head = format!(
        "POST /platforms/demo/employees HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sandbox-token\r\n\
         Content-Type: application/json\r\nIdempotency-Key: {}\r\nContent-Length: {}\r\n\r\n",
        padded(key),
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn an_answer_lost_before_the_write_leaves_not_a_byte_and_no_account() {
    let rig = Rig::new().await;
    rig.arm("lost-before,next=1");
    assert_eq!(raw_create(&rig, "k", &employee("1")).await, "");
    assert!(rig.sandbox.accounts().is_empty());
    assert_eq!(rig.sandbox.journal()[0].fault, Some("lost-before"));
}

#[tokio::test]
async fn an_answer_lost_after_the_write_leaves_not_a_byte_but_an_account() {
    let rig = Rig::new().await;
    rig.arm("lost-after,next=1");
    assert_eq!(raw_create(&rig, "k", &employee("1")).await, "");
    assert_eq!(rig.sandbox.accounts().len(), 1);
    let again = rig.create("k", &employee("1")).await;
    assert_eq!(again.status, 201, "the repetition gets the answer that was lost");
    assert_eq!(rig.sandbox.accounts().len(), 1);
}

#[tokio::test]
async fn to_a_client_a_lost_answer_is_a_closed_connection() {
    let rig = Rig::new().await;
    rig.arm("lost-after,next=1");
    let error = rig.posting(&padded("k"), &employee("1")).send().await.unwrap_err();
    assert!(error.is_request() && !error.is_connect() && !error.is_timeout(), "{error:?}");
}

#[tokio::test]
async fn half_an_answer_ends_inside_the_body_it_announced() {
    let rig = Rig::new().await;
    rig.arm("half-answer,next=2");
    let raw = raw_create(&rig, "k", &employee("1")).await;
    let (head, body) = raw.split_once("\r\n\r\n").unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    assert_eq!(body.len(), length.parse::<usize>().unwrap() / 2);
    let response = rig.posting(&padded("k2"), &employee("2")).send().await.unwrap();
    assert_eq!(response.status(), 201);
    assert!(response.bytes().await.is_err());
    assert_eq!(rig.sandbox.accounts().len(), 2);
}

#[tokio::test]
async fn an_answer_can_be_spoiled_after_the_write() {
    let rig = Rig::new().await;
    rig.arm("internal-after,next=1");
    assert_eq!(rig.create("k1", &employee("1")).await.problem(), (500, "internal"));
    rig.arm("wrong-content-type,next=1");
    let page = rig.create("k2", &employee("2")).await;
    assert_eq!(
        (page.status.as_u16(), &page.headers["content-type"]),
        (201, &"text/html; charset=utf-8".parse().unwrap())
    );
    rig.arm("invalid-json,next=1");
    assert_eq!(rig.create("k3", &employee("3")).await.body, Value::Null);
    rig.arm("huge-body,next=1");
    let huge = rig.posting(&padded("k4"), &employee("4")).send().await.unwrap();
    assert_eq!(huge.bytes().await.unwrap().len(), 10_000_002);
    assert_eq!(rig.sandbox.accounts().len(), 4);
}

#[tokio::test]
async fn a_redirect_names_another_address_and_does_nothing() {
    let rig = Rig::new().await;
    rig.arm("redirect,next=1");
    let answer = rig.create("k", &employee("1")).await;
    assert_eq!(answer.status, 307);
    assert!(answer.headers.contains_key("location") && rig.sandbox.accounts().is_empty());
}

#[tokio::test]
async fn waiting_happens_before_the_write_or_after_it() {
    let rig = Rig::new().await;
    rig.arm("slow,delay=1h,next=1");
    let slow = tokio::spawn(rig.posting(&padded("k1"), &employee("1")).send());
    while !rig.sandbox.faults().is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(rig.sandbox.accounts().is_empty());
    rig.arm("slow-answer,delay=1h,next=1");
    let late = tokio::spawn(rig.posting(&padded("k2"), &employee("2")).send());
    rig.sandbox.until(|one| !one.accounts().is_empty()).await;
    assert!(!slow.is_finished() && !late.is_finished());
    assert!(rig.sandbox.account_of("1").is_none());
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

/// One write of a random history. Few people, emails, versions and keys, so that they collide.
#[derive(Debug, Clone)]
struct Step {
    account: usize,
    email: u8,
    version: i64,
    key: u8,
    link: Option<(u8, Option<u8>)>,
    create: bool,
}

fn step() -> impl Strategy<Value = Step> {
    let link = proptest::option::of((0..4_u8, proptest::option::of(0..4_u8)));
    (0..4_usize, 0..4_u8, 1..6_i64, 0..12_u8, link, any::<bool>()).prop_map(
        |(account, email, version, key, link, create)| Step { account, email, version, key, link, create },
    )
}

impl Step {
    fn body(&self) -> Value {
        let cased = ["a@x.example", "A@x.example", "b@x.example", "B@X.example"][usize::from(self.email)];
        if self.create {
            let changes = json!({"email": cased, "sourceVersion": self.version});
            return with(employee(&self.account.to_string()), changes);
        }
        let mut body = json!({"sourceVersion": self.version, "email": cased});
        if let Some((id, previous)) = self.link {
            body["externalId"] = json!(id.to_string());
            previous.inspect(|previous| body["previousExternalId"] = json!(previous.to_string()));
        }
        body
    }
}

/// Runs a history and looks after every step: versions never fall, emails and links stay unique, replays are identical.
async fn keeps_its_promises(rig: &Rig, steps: &[Step]) -> Result<(), TestCaseError> {
    let mut accepted: HashMap<(u8, usize, String), (u16, Value)> = HashMap::new();
    let mut versions: HashMap<String, i64> = HashMap::new();
    for step in steps {
        let body = step.body();
        let (target, answer) = if step.create {
            (usize::MAX, rig.create(&step.key.to_string(), &body).await)
        } else {
            let id = format!("ben-{:06}", step.account + 1);
            (step.account, rig.patch(&id, &step.key.to_string(), &body).await)
        };
        let asked = (step.key, target, body.to_string());
        let status = answer.status.as_u16();
        match accepted.get(&asked) {
            Some(earlier) => prop_assert_eq!(earlier, &(status, answer.body)),
            None if status < 300 => {
                prop_assert!(
                    !accepted.keys().any(|(key, ..)| *key == step.key),
                    "a key was taken for another write"
                );
                accepted.insert(asked, (status, answer.body));
            }
            None => {}
        }
        let accounts = rig.sandbox.accounts();
        let emails: HashSet<_> =
            accounts.iter().map(|one| one.get("email").unwrap().to_lowercase()).collect();
        prop_assert_eq!(emails.len(), accounts.len());
        let linked: Vec<_> = accounts.iter().filter_map(|one| one.external_id.clone()).collect();
        prop_assert_eq!(linked.iter().collect::<HashSet<_>>().len(), linked.len());
        for one in accounts {
            let version = one.source_version.unwrap_or(0);
            let before = versions.insert(one.id, version).unwrap_or(0);
            prop_assert!(version >= before, "a version fell from {before} to {version}");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_writes_keeps_versions_rising_emails_unique_and_replays_identical(
        steps in proptest::collection::vec(step(), 1..60)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let rig = Rig::new().await;
            rig.sandbox.seed(SeedAccount::new("c@x.example")).unwrap();
            keeps_its_promises(&rig, &steps).await
        })?;
    }
}
