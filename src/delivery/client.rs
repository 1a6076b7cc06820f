//! The platform's API, one method an operation. Each makes one attempt and says what it came to.
//!
//! There is no retry here, with one exception: a request that is answered 401 is sent once more if a new token can be had,
//! since a refused request has changed nothing. Answers are checked to be about what was asked: a proxy's page, another
//! account, or a search that ignored its filter must not be taken for the platform's word.

use std::time::SystemTime;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, DATE, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Method, StatusCode, Uri};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;

use super::api::{self, Employee, Items, Package, Page, Picklists, Platform, Problem, Written};
use super::credentials::{self, Credentials};
use super::outcome::{Answer, Class, Failure, HaltReason, Outcome, Refusal, Subject, of_refusal};
use super::transport::{BODY_MAX, PAGE_BODY_MAX, Received, Server, Transport};
use crate::config::Config;
use crate::record::Field;

pub use super::transport::SetupError;

/// The API's largest page.
pub const PAGE_MAX: u32 = 500;

/// Everything but RFC 3986's unreserved characters.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// A client of one platform. Shared by reference; connections are pooled inside.
pub struct Client {
    server: Server,
    credentials: Credentials,
    platform_id: String,
    /// The path up to and with the platform's id.
    base: String,
}

/// One request, as often as it is sent.
struct Request {
    method: Method,
    /// Path and query.
    target: String,
    write: Option<Write>,
    subject: Subject,
    body_max: usize,
}

struct Write {
    body: Bytes,
    media_type: &'static str,
    key: String,
}

impl Client {
    /// A client as configured. Makes no request.
    pub fn new(config: &Config) -> Result<Self, SetupError> {
        let transport = Transport::new(config.delivery.timeout, config.benefits.ca_file.as_deref())?;
        let platform_id = config.benefits.platform_id.clone();
        let base = format!("{}/platforms/{}", config.base_url(), utf8_percent_encode(&platform_id, ENCODED));
        let (server, base) = transport.to("benefits.base_url", &base)?;
        let credentials = Credentials::new(&config.benefits, &transport)?;
        Ok(Self { server, credentials, platform_id, base })
    }

    /// The platform itself: proves address and credentials. Answers for a suspended platform too.
    pub async fn platform(&self) -> Outcome<Platform> {
        self.own(self.fetch(self.read("", Subject::Platform)).await)
    }

    /// The platform that answers is the one that is configured.
    fn own(&self, outcome: Outcome<Platform>) -> Outcome<Platform> {
        let answer = outcome?;
        if answer.value.id != self.platform_id {
            let failure = Failure::halt(
                HaltReason::WrongPlatform,
                "Another platform answers at this address: check platform_id and base_url.",
            );
            return Err(Box::new(Failure { request_id: answer.request_id, ..failure }));
        }
        Ok(answer)
    }

    /// As [`Client::platform`], with the platform's clock in Unix seconds where it tells it. One request, no second one
    /// after a 401.
    pub async fn platform_and_date(&self) -> (Outcome<Platform>, Option<f64>) {
        let request = self.read("", Subject::Platform);
        let received = async {
            let token = self.credentials.token(None).await?;
            self.send(&request, &token).await
        };
        match received.await {
            Ok(received) => {
                let date = received.header(DATE.as_str()).and_then(unix_time);
                (self.own(judge(&received, request.subject).map_err(Box::new)), date)
            }
            Err(failure) => (Err(Box::new(failure)), None),
        }
    }

    /// All packages.
    pub async fn packages(&self) -> Outcome<Vec<Package>> {
        let answer: Answer<Items<Package>> = self.fetch(self.read("/packages", Subject::Platform)).await?;
        Ok(Answer { value: answer.value.items, request_id: answer.request_id })
    }

    /// The values of every picklist.
    pub async fn picklists(&self) -> Outcome<Picklists> {
        self.fetch(self.read("/picklists", Subject::Platform)).await
    }

    /// The account with this email, ignoring case.
    pub async fn find_by_email(&self, email: &str) -> Outcome<Option<Employee>> {
        let wanted = email.to_lowercase();
        self.find("email", email, |account| {
            account.value(Field::Email).is_some_and(|held| held.to_lowercase() == wanted)
        })
        .await
    }

    /// The account that is linked to this employee of HR's.
    pub async fn find_by_external_id(&self, external_id: &str) -> Outcome<Option<Employee>> {
        self.find("externalId", external_id, |account| account.external_id.as_deref() == Some(external_id))
            .await
    }

    /// One account.
    pub async fn get(&self, benefits_id: &str) -> Outcome<Employee> {
        let request = self.read(&account_path(benefits_id)?, Subject::Account);
        let answer: Answer<Employee> = self.fetch(request).await?;
        about(benefits_id, &answer.value.id, answer.request_id.as_ref())?;
        Ok(answer)
    }

    /// Creates an account from a `NewEmployee`.
    pub async fn create(&self, body: Vec<u8>, idempotency_key: &str) -> Outcome<Written> {
        let write =
            Write { body: body.into(), media_type: "application/json", key: idempotency_key.to_owned() };
        let request = self.read("/employees", Subject::Platform);
        self.fetch(Request { method: Method::POST, write: Some(write), ..request }).await
    }

    /// Changes an account by an `EmployeePatch`.
    pub async fn update(&self, benefits_id: &str, body: Vec<u8>, idempotency_key: &str) -> Outcome<Written> {
        let media_type = "application/merge-patch+json";
        let write = Write { body: body.into(), media_type, key: idempotency_key.to_owned() };
        let request = self.read(&account_path(benefits_id)?, Subject::Account);
        let request = Request { method: Method::PATCH, write: Some(write), ..request };
        let answer: Answer<Written> = self.fetch(request).await?;
        about(benefits_id, &answer.value.id, answer.request_id.as_ref())?;
        Ok(answer)
    }

    /// Up to `limit` accounts (1 to [`PAGE_MAX`]), from the start or from a page's `next_cursor`.
    pub async fn page(&self, cursor: Option<&str>, limit: u32) -> Outcome<Page> {
        let mut path = format!("/employees?limit={}", limit.clamp(1, PAGE_MAX));
        if let Some(cursor) = cursor {
            path.push_str("&cursor=");
            path.extend(utf8_percent_encode(cursor, ENCODED));
        }
        self.fetch(Request { body_max: PAGE_BODY_MAX, ..self.read(&path, Subject::Platform) }).await
    }

    /// A filtered list holds at most one account. What does not match was not asked for: a platform that ignored the
    /// filter would otherwise have the first account of all linked to this employee.
    async fn find(
        &self,
        filter: &str,
        value: &str,
        matches: impl Fn(&Employee) -> bool,
    ) -> Outcome<Option<Employee>> {
        let path = format!("/employees?{filter}={}", utf8_percent_encode(value, ENCODED));
        let answer: Answer<Page> = self.fetch(self.read(&path, Subject::Platform)).await?;
        let mut found = answer.value.items.into_iter().filter(matches);
        let (account, another) = (found.next(), found.next());
        if another.is_some() {
            let failure = Failure::rejected(
                "conflict",
                "Several Benefits accounts match this employee: have all but one removed, or relink.",
            );
            return Err(Box::new(Failure { request_id: answer.request_id, ..failure }));
        }
        Ok(Answer { value: account, request_id: answer.request_id })
    }

    fn read(&self, path: &str, subject: Subject) -> Request {
        let target = format!("{}{path}", self.base);
        Request { method: Method::GET, target, write: None, subject, body_max: BODY_MAX }
    }

    async fn fetch<T: DeserializeOwned>(&self, request: Request) -> Outcome<T> {
        let first = self.credentials.token(None).await?;
        let mut received = self.send(&request, &first).await?;
        if received.status == StatusCode::UNAUTHORIZED {
            let second = self.credentials.token(Some(&first)).await?;
            if !credentials::same(&first, &second) {
                received = self.send(&request, &second).await?;
            }
        }
        judge(&received, request.subject).map_err(Box::new)
    }

    async fn send(&self, request: &Request, token: &secrecy::SecretString) -> Result<Received, Failure> {
        let body = request.write.as_ref().map_or_else(Bytes::new, |write| write.body.clone());
        let mut whole = hyper::Request::new(Full::new(body));
        *whole.method_mut() = request.method.clone();
        // Nothing that is encoded is refused; the error would quote the address, and that can hold an email.
        let unwritable = || Failure::unavailable("A request to Benefits cannot be written.", false);
        *whole.uri_mut() = Uri::try_from(&request.target).map_err(|_invalid| unwritable())?;
        let headers = whole.headers_mut();
        headers.insert(AUTHORIZATION, credentials::bearer(token)?);
        if let Some(write) = &request.write {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(write.media_type));
            let key = HeaderValue::try_from(&write.key).map_err(|_invalid| unwritable())?;
            headers.insert(IDEMPOTENCY_KEY, key);
        }
        self.server.exchange(whole, request.body_max).await
    }
}

/// Shows where it sends, not with what.
impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("server", &self.server.to_string())
            .field("base", &self.base)
            .finish_non_exhaustive()
    }
}

/// An HTTP date as Unix seconds.
fn unix_time(date: &str) -> Option<f64> {
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(date).ok()?;
    Some(date.as_duration().as_secs_f64())
}

fn account_path(benefits_id: &str) -> Result<String, Box<Failure>> {
    if api::is_usable_id(benefits_id) {
        return Ok(format!("/employees/{}", utf8_percent_encode(benefits_id, ENCODED)));
    }
    let failure =
        Failure::rejected("link-broken", "The linked account's id cannot be one: relink the employee.");
    Err(Box::new(Failure { class: Class::AccountMissing, ..failure }))
}

/// An answer is about the account that was asked for.
fn about(benefits_id: &str, answered: &str, request_id: Option<&String>) -> Result<(), Box<Failure>> {
    if answered == benefits_id {
        return Ok(());
    }
    let failure = Failure::unavailable("Benefits answered about another account.", true);
    Err(Box::new(Failure { request_id: request_id.cloned(), ..failure }))
}

/// Reads an answer: 200 or 201 with JSON of the wanted shape, or why not.
fn judge<T: DeserializeOwned>(received: &Received, subject: Subject) -> Result<Answer<T>, Failure> {
    let request_id = received.request_id();
    let status = received.status.as_u16();
    let failure = if !received.status.is_success() {
        let problem = if received.is_json() { Problem::parse(&received.body) } else { None };
        let retry_after = received.header(RETRY_AFTER.as_str());
        of_refusal(&Refusal { status, problem, retry_after, subject }, SystemTime::now())
    } else if !matches!(status, 200 | 201) {
        Failure::unavailable(format!("Benefits answered with an unexpected status {status}."), true)
    } else if !received.is_json() {
        Failure::unavailable("Benefits answered with something that is not JSON.", true)
    } else {
        match serde_json::from_slice(&received.body) {
            Ok(value) => return Ok(Answer { value, request_id }),
            // serde's message can quote the value that it stumbled over.
            Err(_) => Failure::unavailable("Benefits sent an answer that cannot be read.", true),
        }
    };
    Err(Failure { request_id, status: Some(status), ..failure })
}
