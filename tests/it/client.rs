//! The client against a platform that misbehaves in every way it can.

mod connections;
mod http2;
mod scripted;
mod tls;

use std::net::SocketAddr;
use std::time::Duration;

use benefits_sync::config::Config;
use benefits_sync::delivery::client::Client;
use benefits_sync::delivery::outcome::{Class, Failure, HaltReason};
use tempfile::TempDir;

use scripted::{Act, Scripted, answer, bytes, json, problem};

const EMPLOYEE: &str =
    r#"{"id":"b-1","externalId":"1042","status":"active","email":"Ada@x.org","sourceVersion":7}"#;
const PLATFORM: &str = r#"{"id":"acme","name":"Acme","status":"active"}"#;

struct Site {
    platform: Scripted,
    client: Client,
    directory: TempDir,
}

impl Site {
    async fn new(acts: impl IntoIterator<Item = Act>) -> Self {
        Self::with("timeout = \"5s\"", acts).await
    }

    async fn with(delivery: &str, acts: impl IntoIterator<Item = Act>) -> Self {
        let platform = Scripted::play(acts).await;
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("token"), "first\n").unwrap();
        std::fs::write(directory.path().join("secret"), "s3cret\n").unwrap();
        let credentials = format!("token_file = \"{}/token\"", directory.path().display());
        let client = client(platform.address, &credentials, delivery);
        Self { platform, client, directory }
    }

    /// A client of another platform, with the same token.
    fn client_of(&self, address: SocketAddr) -> Client {
        let credentials = format!("token_file = \"{}/token\"", self.directory.path().display());
        client(address, &credentials, "timeout = \"5s\"")
    }

    fn rotate(&self) {
        std::fs::write(self.directory.path().join("token"), "the second").unwrap();
    }

    async fn update(&self) -> Result<String, Failure> {
        let body = br#"{"sourceVersion":8}"#.to_vec();
        let outcome = self.client.update("b-1", body, "0123456789abcdef").await;
        outcome.map(|answer| answer.value.id).map_err(|failure| *failure)
    }
}

fn client(platform: SocketAddr, credentials: &str, delivery: &str) -> Client {
    let text = format!(
        "[database]\nurl = \"postgresql://hr@db/hr\"\n[benefits]\nplatform_id = \"acme\"\nemail_source = \"work\"\n\
         base_url = \"http://{platform}/api/v1\"\n{credentials}\n[delivery]\n{delivery}\n"
    );
    Client::new(&Config::parse(&text, "test.toml", []).unwrap()).unwrap()
}

fn oauth(login: &Scripted, site: &Site) -> String {
    format!(
        "[benefits.oauth]\ntoken_url = \"http://{}/token\"\nclient_id = \"hr\"\nclient_secret_file = \"{}/secret\"",
        login.address,
        site.directory.path().display()
    )
}

fn is_ambiguous(failure: &Failure) -> bool {
    assert!(matches!(failure.class, Class::Unavailable { .. }), "{failure:?}");
    failure.is_ambiguous()
}

#[tokio::test]
async fn an_update_is_a_merge_patch_with_its_key_and_the_token() {
    let site = Site::new([answer("200 OK", "application/json", "x-request-id: req-9\r\n", EMPLOYEE)]).await;
    let body = br#"{"sourceVersion":8}"#.to_vec();
    let answer = site.client.update("b-1", body, "0123456789abcdef").await.unwrap();
    assert_eq!(answer.value.id, "b-1");
    assert_eq!(answer.request_id.as_deref(), Some("req-9"));
    let request = site.platform.requests().remove(0);
    assert!(request.starts_with("PATCH /api/v1/platforms/acme/employees/b-1 HTTP/1.1\r\n"), "{request}");
    for line in [
        &format!("host: {}\r\n", site.platform.address),
        "accept: application/json, application/problem+json\r\n",
        &format!("user-agent: benefits-sync/{}\r\n", env!("CARGO_PKG_VERSION")),
        "content-length: 19\r\n",
        "authorization: Bearer first\r\n",
        "idempotency-key: 0123456789abcdef\r\n",
        "content-type: application/merge-patch+json\r\n",
    ] {
        assert!(request.contains(line), "{request}");
    }
    assert!(request.ends_with("\r\n\r\n{\"sourceVersion\":8}"), "{request}");
}

#[tokio::test]
async fn a_create_is_plain_json() {
    let site = Site::new([json("201 Created", EMPLOYEE)]).await;
    site.client.create(b"{}".to_vec(), "0123456789abcdef").await.unwrap();
    let request = site.platform.requests().remove(0);
    assert!(request.starts_with("POST /api/v1/platforms/acme/employees HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("content-type: application/json\r\n"), "{request}");
}

#[tokio::test]
async fn a_search_is_encoded_and_keeps_only_what_was_asked_for() {
    let everyone =
        format!("{{\"items\":[{{\"id\":\"b-0\",\"email\":\"bob@x.org\",\"externalId\":\"7\"}},{EMPLOYEE}]}}");
    let site = Site::new((0..3).map(|_| json("200 OK", &everyone))).await;
    let found = site.client.find_by_email("ADA@x.org").await.unwrap().value.unwrap();
    assert_eq!(found.id, "b-1");
    assert!(site.client.find_by_email("a+b&c@x.org").await.unwrap().value.is_none());
    assert_eq!(site.client.find_by_external_id("7").await.unwrap().value.unwrap().id, "b-0");
    let requests = site.platform.requests();
    assert!(requests[1].contains("/employees?email=a%2Bb%26c%40x.org HTTP"), "{}", requests[1]);
    assert!(requests[2].contains("/employees?externalId=7 HTTP"), "{}", requests[2]);
}

#[tokio::test]
async fn two_accounts_for_one_email_are_for_a_person_to_decide() {
    let site = Site::new([json("200 OK", &format!("{{\"items\":[{EMPLOYEE},{EMPLOYEE}]}}"))]).await;
    let failure = site.client.find_by_email("ada@x.org").await.unwrap_err();
    assert_eq!(failure.code(), "conflict");
}

#[tokio::test]
async fn pages_lists_and_the_platform_are_read() {
    let site = Site::new([
        json("200 OK", &format!("{{\"items\":[{EMPLOYEE}],\"nextCursor\":\"c/2\"}}")),
        json("200 OK", "{\"items\":[]}"),
        json("200 OK", r#"{"items":[{"id":"p1","name":"Gold"}]}"#),
        json("200 OK", r#"{"gender":["Male","Female"]}"#),
        json("200 OK", PLATFORM),
    ])
    .await;
    let page = site.client.page(None, 9000).await.unwrap().value;
    let rest = site.client.page(page.next_cursor.as_deref(), 2).await.unwrap().value;
    assert!(rest.items.is_empty() && rest.next_cursor.is_none());
    assert_eq!(site.client.packages().await.unwrap().value[0].name, "Gold");
    assert_eq!(site.client.picklists().await.unwrap().value["gender"].len(), 2);
    assert_eq!(site.client.platform().await.unwrap().value.name, "Acme");
    let requests = site.platform.requests();
    assert!(requests[0].contains("employees?limit=500 "), "{}", requests[0]);
    assert!(requests[1].contains("employees?limit=2&cursor=c%2F2 "), "{}", requests[1]);
}

#[tokio::test]
async fn another_platform_at_the_address_halts() {
    let site = Site::new([
        json("200 OK", &PLATFORM.replace("acme", "other")),
        problem("404 Not Found", "not-found", ""),
    ])
    .await;
    for _ in 0..2 {
        let failure = site.client.platform().await.unwrap_err();
        assert_eq!(failure.class, Class::Halt { reason: HaltReason::WrongPlatform });
    }
}

#[tokio::test]
async fn an_answer_about_another_account_is_not_believed() {
    let site = Site::new([json("200 OK", &EMPLOYEE.replace("b-1", "b-2"))]).await;
    assert!(is_ambiguous(&site.update().await.unwrap_err()));
}

#[tokio::test]
async fn a_refused_connection_is_the_only_failure_that_leaves_no_doubt() {
    let site = Site::new([]).await;
    // The script is over, so nobody listens any more once its task has ended.
    while tokio::net::TcpStream::connect(site.platform.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(!is_ambiguous(&site.update().await.unwrap_err()));
}

#[tokio::test]
async fn a_write_that_may_have_been_applied_is_ambiguous() {
    let whole = bytes("200 OK", "application/json", "", EMPLOYEE);
    let half = whole[..whole.len() - 10].to_vec();
    for act in [
        Act::ResetAtOnce,
        Act::ResetAfterReading,
        Act::Send(half.clone()),
        Act::SendAndReset(half),
        Act::Send(b"HTTP/1.1 200".to_vec()),
        Act::Send(b"nonsense\r\n\r\n".to_vec()),
        json("200 OK", "{\"id\":"),
        json("200 OK", "[]"),
        json("202 Accepted", EMPLOYEE),
        answer("204 No Content", "application/json", "", ""),
        answer("200 OK", "text/html", "", EMPLOYEE),
        answer("302 Found", "application/json", "location: http://127.0.0.1:9/\r\n", "{}"),
        answer("307 Temporary Redirect", "text/html", "location: /elsewhere\r\n", ""),
        problem("500 Internal Server Error", "internal", ""),
        problem("503 Service Unavailable", "unavailable", ""),
        answer("502 Bad Gateway", "text/html", "", "<html>"),
        answer("404 Not Found", "text/html", "", "<html>"),
    ] {
        let site = Site::new([act]).await;
        let failure = site.update().await.unwrap_err();
        assert!(is_ambiguous(&failure), "{failure:?}");
        assert!(site.platform.requests().len() <= 1, "sent more than once");
    }
}

#[tokio::test]
async fn a_platform_that_never_answers_is_given_up() {
    let whole = bytes("200 OK", "application/json", "", EMPLOYEE);
    for sent in [Vec::new(), whole[..40].to_vec(), whole[..whole.len() - 1].to_vec()] {
        let site = Site::with("timeout = \"1s\"", [Act::SendAndStall(sent)]).await;
        let failure = site.update().await.unwrap_err();
        assert!(is_ambiguous(&failure) && failure.text.contains("in time"), "{failure}");
    }
}

#[tokio::test]
async fn an_answer_that_does_not_end_is_cut_off() {
    let announced = bytes("200 OK", "application/json", "", &" ".repeat(10 << 20));
    for act in [Act::Endless, Act::Send(announced[..200].to_vec())] {
        let failure = Site::new([act]).await.update().await.unwrap_err();
        assert!(is_ambiguous(&failure) && failure.text.contains("too large"), "{failure}");
    }
}

#[tokio::test]
async fn a_rejection_has_our_words_and_not_the_platforms() {
    let headers = "x-request-id: r1\r\n";
    let site = Site::new([problem("409 Conflict", "email-in-use", headers)]).await;
    let failure = site.update().await.unwrap_err();
    assert_eq!((failure.code(), failure.status), ("email-in-use", Some(409)));
    assert_eq!(failure.request_id.as_deref(), Some("r1"));
    assert!(!format!("{failure:?}").contains("bob"), "{failure:?}");
}

#[tokio::test]
async fn a_missing_account_is_told_from_a_missing_platform() {
    let gone = || problem("410 Gone", "gone", "");
    let site = Site::new([gone(), gone()]).await;
    assert_eq!(site.client.get("b-1").await.unwrap_err().class, Class::AccountMissing);
    assert_eq!(site.client.find_by_email("a@b.c").await.unwrap_err().label(), "halted");
}

#[tokio::test]
async fn an_id_that_would_leave_its_path_is_never_sent() {
    let site = Site::new([]).await;
    for id in ["", ".", ".."] {
        assert_eq!(site.client.get(id).await.unwrap_err().class, Class::AccountMissing);
    }
}

#[tokio::test]
async fn throttling_is_told_with_either_form_of_retry_after() {
    let later = jiff::Timestamp::now() + Duration::from_mins(10);
    let date = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&later).unwrap();
    let site = Site::new([
        problem("429 Too Many Requests", "rate-limited", "retry-after: 7\r\n"),
        problem("429 Too Many Requests", "rate-limited", &format!("retry-after: {date}\r\n")),
        answer("429 Too Many Requests", "text/plain", "", "slow down"),
    ])
    .await;
    assert_eq!(site.update().await.unwrap_err().retry_after(), Some(Duration::from_secs(7)));
    let wait = site.update().await.unwrap_err().retry_after().unwrap();
    assert!(wait > Duration::from_mins(9) && wait <= Duration::from_mins(10), "{wait:?}");
    assert_eq!(site.update().await.unwrap_err().class, Class::Throttled { retry_after: None });
}

#[tokio::test]
async fn a_rotated_token_is_taken_up_without_a_refusal() {
    let site = Site::new([json("200 OK", EMPLOYEE), json("200 OK", EMPLOYEE)]).await;
    site.update().await.unwrap();
    site.rotate();
    // The file is looked at once a second.
    tokio::time::pause();
    tokio::time::advance(std::time::Duration::from_secs(1)).await;
    tokio::time::resume();
    site.update().await.unwrap();
    assert!(site.platform.requests()[1].contains("Bearer the second\r\n"));
}

#[tokio::test]
async fn a_refused_token_halts_without_a_second_try_while_the_file_is_the_same() {
    let site = Site::new([problem("401 Unauthorized", "unauthenticated", "")]).await;
    let failure = site.update().await.unwrap_err();
    assert_eq!(failure.class, Class::Halt { reason: HaltReason::Credentials });
    assert_eq!(site.platform.requests().len(), 1);
}

#[tokio::test]
async fn a_missing_token_file_halts_and_says_which() {
    let site = Site::new([]).await;
    std::fs::remove_file(site.directory.path().join("token")).unwrap();
    let failure = site.update().await.unwrap_err();
    assert_eq!(failure.code(), "credentials");
    assert!(failure.text.contains("benefits.token_file"), "{failure}");
}

#[tokio::test]
async fn a_token_of_the_endpoint_is_kept_and_renewed_after_a_refusal() {
    let token = |name: &str| json("200 OK", &format!(r#"{{"access_token":"{name}","expires_in":3600}}"#));
    let login = Scripted::play([token("t1"), token("t2")]).await;
    let site = Site::new([
        json("200 OK", EMPLOYEE),
        json("200 OK", EMPLOYEE),
        problem("401 Unauthorized", "unauthenticated", ""),
        json("200 OK", EMPLOYEE),
    ])
    .await;
    let client = client(site.platform.address, &oauth(&login, &site), "");
    for _ in 0..3 {
        client.get("b-1").await.unwrap();
    }
    let tokens: Vec<_> =
        site.platform.requests().iter().map(|request| request.contains("Bearer t2\r\n")).collect();
    assert_eq!(tokens, [false, false, false, true]);
    let asked = login.requests();
    assert_eq!(asked.len(), 2);
    // base64 of hr:s3cret
    assert!(asked[0].contains("authorization: Basic aHI6czNjcmV0\r\n"), "{}", asked[0]);
    assert!(asked[0].ends_with("grant_type=client_credentials&scope=employees%3Awrite"), "{}", asked[0]);
}

#[tokio::test]
async fn a_token_endpoint_that_is_away_is_no_ambiguity_and_one_that_refuses_halts() {
    let login = Scripted::play([
        answer("503 Service Unavailable", "text/html", "", ""),
        json("401 Unauthorized", r#"{"error":"invalid_client"}"#),
    ])
    .await;
    let site = Site::new([]).await;
    let client = client(site.platform.address, &oauth(&login, &site), "");
    assert!(!is_ambiguous(&client.platform().await.unwrap_err()));
    assert_eq!(client.platform().await.unwrap_err().code(), "credentials");
}

#[tokio::test]
async fn callers_that_wait_together_share_one_token_request() {
    let login = Scripted::play([json("200 OK", r#"{"access_token":"t1"}"#)]).await;
    let site = Site::new((0..8).map(|_| json("200 OK", EMPLOYEE))).await;
    let client = client(site.platform.address, &oauth(&login, &site), "");
    let answers = futures_util::future::join_all((0..8).map(|_| client.get("b-1"))).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(login.requests().len(), 1);
}

#[tokio::test]
async fn callers_that_wait_together_share_one_failure_of_the_token_endpoint() {
    let login = Scripted::play([Act::SendAndStall(Vec::new())]).await;
    let site = Site::new([]).await;
    let client = client(site.platform.address, &oauth(&login, &site), "timeout = \"200ms\"");
    let answers = futures_util::future::join_all((0..8).map(|_| client.get("b-1"))).await;
    assert!(answers.iter().all(|answer| !is_ambiguous(answer.as_ref().unwrap_err())));
    assert_eq!(login.requests().len(), 1);
}
