//! Faults on demand, as a client and as the socket see them.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Rig, employee, padded};

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
async fn who_waits_is_let_go_when_the_faults_are_disarmed() {
    let rig = Rig::new().await;
    rig.arm("slow,delay=1h,next=1");
    let slow = tokio::spawn(rig.posting(&padded("k1"), &employee("1")).send());
    while !rig.sandbox.faults().is_empty() {
        tokio::task::yield_now().await;
    }
    rig.arm("slow-answer,delay=1h");
    let late = tokio::spawn(rig.posting(&padded("k2"), &employee("2")).send());
    rig.sandbox.until(|one| one.account_of("2").is_some()).await;
    assert!(!slow.is_finished() && !late.is_finished() && rig.sandbox.account_of("1").is_none());
    rig.sandbox.disarm_all();
    for waiting in [slow, late] {
        assert_eq!(waiting.await.unwrap().unwrap().status(), 201);
    }
}
