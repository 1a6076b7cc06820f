//! Employees are found, created and changed, and every fault of a body is reported.

use std::collections::HashMap;

use benefits_sync::sandbox::self_registered;
use reqwest::Method;
use reqwest::header::HeaderValue;
use serde_json::{Value, json};

use super::{Rig, employee, padded, with};

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
