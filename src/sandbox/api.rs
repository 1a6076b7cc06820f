//! The API document over HTTP: routing, credentials, queries, headers; then faults; then the platform's rules.
//!
//! Checks run in this order, and the first that fails answers: token, address, platform id, method, suspension, armed
//! faults, media type, idempotency key, JSON, and then the platform's own.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, request};
use axum::response::Response;
use bytes::Bytes;
use percent_encoding::percent_decode_str;
use serde::Serialize;

use super::Shared;
use super::answer::{Problem, Reply};
use super::draft::{Draft, Kind, NotADraft, parse};
use super::faults::Fired;
use super::journal::{Operation, Seen, Verdict};
use super::keys::{Asked, hash_body};
use super::platform::{Filter, Request, index_of_id};
use super::spoil::{instead, spoiled, whole};
use super::{control, credentials};

/// A body of more bytes is not read: the largest valid one is under 10 kB.
const BODY_MAX_BYTES: usize = 256 * 1024;
const PAGE_DEFAULT: usize = 100;
const PAGE_MAX: usize = 500;

/// What a request addresses.
#[derive(Debug)]
enum Place {
    Platform,
    Packages,
    Picklists,
    Employees,
    Employee(String),
}

/// A request that may be worked on.
#[derive(Debug)]
struct Call {
    operation: Operation,
    /// The account addressed, if one is.
    id: Option<String>,
}

/// Answers one request; every answer that leaves carries an `x-request-id`.
pub(super) async fn answer(State(shared): State<Arc<Shared>>, request: axum::extract::Request) -> Response {
    let number = shared.requests.fetch_add(1, Ordering::Relaxed) + 1;
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    let mut response = match (path.strip_prefix("/_sandbox/"), &shared.options.oauth_client) {
        (Some(rest), _) => control::answer(&shared, rest, &parts, body).await,
        (None, Some(client)) if path == "/oauth2/token" && parts.method == Method::POST => {
            credentials::token(&shared, client, &parts, body).await
        }
        _ => match admit(&shared, &parts) {
            Ok(call) => work(&shared, call, &parts, body).await,
            Err(problem) => whole(problem.into()),
        },
    };
    if let Ok(id) = HeaderValue::try_from(format!("req-{:016x}-{number}", shared.options.seed)) {
        response.headers_mut().insert("x-request-id", id);
    }
    response
}

/// Token, address, platform id, method, suspension.
fn admit(shared: &Shared, parts: &request::Parts) -> Result<Call, Problem> {
    let token = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token =
        token.and_then(|value| value.split_once(' ')).filter(|(kind, _)| kind.eq_ignore_ascii_case("bearer"));
    if token.is_none_or(|(_, token)| !shared.accepts(token.trim())) {
        return Err(Problem::Unauthenticated);
    }
    let (platform_id, place) =
        place(parts.uri.path()).ok_or(Problem::NotFound("there is nothing at this address"))?;
    if platform_id != shared.options.platform_id {
        return Err(Problem::NotFound("there is no such platform"));
    }
    let (operation, id) = match (place, &parts.method) {
        (Place::Platform, &Method::GET) => (Operation::Platform, None),
        (Place::Packages, &Method::GET) => (Operation::Packages, None),
        (Place::Picklists, &Method::GET) => (Operation::Picklists, None),
        (Place::Employees, &Method::GET) => (Operation::Find, None),
        (Place::Employees, &Method::POST) => (Operation::Create, None),
        (Place::Employee(id), &Method::GET) => (Operation::Get, Some(id)),
        (Place::Employee(id), &Method::PATCH) => (Operation::Update, Some(id)),
        (Place::Employees, _) => return Err(Problem::MethodNotAllowed("GET, POST")),
        (Place::Employee(_), _) => return Err(Problem::MethodNotAllowed("GET, PATCH")),
        _ => return Err(Problem::MethodNotAllowed("GET")),
    };
    if operation != Operation::Platform && shared.platform.is_suspended() {
        return Err(Problem::PlatformSuspended);
    }
    Ok(Call { operation, id })
}

/// The platform id and the place in a path, below `/api/v1` or not.
fn place(path: &str) -> Option<(Cow<'_, str>, Place)> {
    let path = path.strip_prefix("/api/v1").unwrap_or(path);
    let mut parts = path.strip_prefix("/platforms/")?.split('/');
    let decoded = |part: &'_ str| percent_decode_str(part).decode_utf8().ok().map(Cow::into_owned);
    let platform_id = decoded(parts.next()?)?;
    let place = match (parts.next(), parts.next(), parts.next()) {
        (None, ..) => Place::Platform,
        (Some("packages"), None, _) => Place::Packages,
        (Some("picklists"), None, _) => Place::Picklists,
        (Some("employees"), None, _) => Place::Employees,
        (Some("employees"), Some(id), None) if !id.is_empty() => Place::Employee(decoded(id)?),
        _ => return None,
    };
    Some((platform_id.into(), place))
}

/// Faults and waits around the platform's own work.
async fn work(shared: &Shared, call: Call, parts: &request::Parts, body: Body) -> Response {
    let operation = call.operation;
    let body = if operation.is_write() { to_bytes(body, BODY_MAX_BYTES).await } else { Ok(Bytes::new()) };
    let Ok(body) = body else {
        return whole(Problem::BadRequest("the body is too large or was not sent in full").into());
    };
    let draft = if operation.is_write() { Some(parse(&body)) } else { None };
    let fired = shared.faults.decide(operation, || employee_of(shared, &call, parts, draft.as_ref()));
    let fault = fired.fault.as_ref();
    let verdict = Verdict {
        operation,
        status: None,
        problem: None,
        replayed: false,
        fault: fault.map(super::Fault::name),
    };
    let seen = draft.as_ref().filter(|_| shared.journal.is_on()).map(|draft| Seen {
        id: call.id.clone(),
        external_id: employee_of(shared, &call, parts, Some(draft)),
        source_version: draft.as_ref().ok().and_then(Draft::source_version),
        key: header(&parts.headers, "idempotency-key").unwrap_or_default().to_owned(),
        names: draft.as_ref().map_or(0, Draft::names),
        body: body.clone(),
    });

    if let Some(response) = fault.and_then(instead) {
        fired.wait_before().await;
        shared.note(verdict, seen);
        return response;
    }
    let done = if let Some(draft) = draft {
        write(shared, &call, parts, draft, &body, &fired).await
    } else {
        fired.wait_before().await;
        Done { reply: read(shared, &call, parts).unwrap_or_else(Reply::from), replayed: false, created: None }
    };
    let Done { reply, replayed, created } = done;
    let verdict =
        Verdict { status: Some(reply.status.as_u16()), problem: reply.problem, replayed, ..verdict };
    let seen = seen.map(|seen| Seen { id: seen.id.or(created), ..seen });
    shared.note(verdict, seen);
    fired.wait_after().await;
    match fault {
        Some(fault) => spoiled(reply, fault),
        None => whole(reply),
    }
}

impl Shared {
    /// Writes a request down, and wakes who waits for it.
    fn note(&self, verdict: Verdict, seen: Option<Seen>) {
        self.journal.note(verdict, seen);
        self.decided.notify_waiters();
    }
}

/// The HR employee a request is about.
fn employee_of(
    shared: &Shared,
    call: &Call,
    parts: &request::Parts,
    draft: Option<&Result<Draft<'_>, NotADraft>>,
) -> Option<String> {
    let in_body = draft.and_then(|draft| draft.as_ref().ok()?.external_id());
    match (in_body, &call.id) {
        (Some(id), _) => Some(id.to_owned()),
        (None, Some(id)) => shared.platform.external_id_of(id),
        (None, None) => filter(parts.uri.query()).ok()?.external_id,
    }
}

/// What became of a request that was worked on.
struct Done {
    reply: Reply,
    replayed: bool,
    created: Option<String>,
}

async fn write(
    shared: &Shared,
    call: &Call,
    parts: &request::Parts,
    draft: Result<Draft<'_>, NotADraft>,
    body: &Bytes,
    fired: &Fired,
) -> Done {
    let refused = |problem: Problem| Done { reply: problem.into(), replayed: false, created: None };
    let (key, draft) = match readable(call, &parts.headers, draft) {
        Ok(readable) => readable,
        Err(problem) => return refused(problem),
    };
    let body = hash_body(body);
    let asked = Asked { account: call.id.as_deref().and_then(index_of_id), body };
    // Only a write that waits can meet another one with its key: without a wait it is one critical section.
    let reservation = if fired.before.is_zero() { None } else { shared.platform.reserve(key, asked) };
    fired.wait_before().await;

    let kind = if call.id.is_some() { Kind::Patch } else { Kind::Create };
    let write = draft.check(kind, &shared.catalogue);
    let package = write.as_ref().ok().and_then(super::draft::Write::package);
    let package_known = package.is_none_or(|id| shared.catalogue.has_package(id));
    let request = Request { key, body, reserved: reservation.is_some(), write, package_known };
    let outcome = match &call.id {
        Some(id) => shared.platform.patch(id, request),
        None => shared.platform.create(request),
    };
    match outcome {
        Ok(outcome) => Done {
            created: outcome.accepted.created.clone(),
            reply: Reply::accepted(outcome.accepted, parts.uri.path()),
            replayed: outcome.replayed,
        },
        Err(problem) => refused(problem),
    }
}

/// Media type, idempotency key, JSON.
fn readable<'h, 'b>(
    call: &Call,
    headers: &'h HeaderMap,
    draft: Result<Draft<'b>, NotADraft>,
) -> Result<(&'h str, Draft<'b>), Problem> {
    let (wanted, detail) = if call.id.is_some() {
        ("application/merge-patch+json", "a patch is application/merge-patch+json")
    } else {
        ("application/json", "a new employee is application/json")
    };
    let media_type = header(headers, CONTENT_TYPE.as_str()).unwrap_or_default();
    let media_type = media_type.split_once(';').map_or(media_type, |(kind, _)| kind).trim();
    if !media_type.eq_ignore_ascii_case(wanted) {
        return Err(Problem::UnsupportedMediaType(detail));
    }
    let key = header(headers, "idempotency-key").filter(|key| (16..=128).contains(&key.len()));
    let key = key.ok_or(Problem::BadRequest("an Idempotency-Key of 16 to 128 characters is required"))?;
    match draft {
        Ok(draft) => Ok((key, draft)),
        Err(NotADraft::NotJson) => Err(Problem::BadRequest("the body is not JSON")),
        Err(NotADraft::NotAnObject) => Err(Problem::NotAnObject),
    }
}

fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn read(shared: &Shared, call: &Call, parts: &request::Parts) -> Result<Reply, Problem> {
    match (call.operation, &call.id) {
        (_, Some(id)) => shared.platform.get(id).map(|body| Reply::ok(StatusCode::OK, body)),
        (Operation::Packages, _) => {
            Ok(Reply::json(&serde_json::json!({ "items": shared.catalogue.packages() })))
        }
        (Operation::Picklists, _) => Ok(Reply::json(&shared.catalogue.picklists())),
        (Operation::Find, _) => {
            let (page, next) = shared.platform.find(&filter(parts.uri.query())?);
            let mut body = b"{\"items\":[".to_vec();
            for (at, account) in page.iter().enumerate() {
                if at > 0 {
                    body.push(b',');
                }
                body.extend_from_slice(account);
            }
            let next = next.map_or("null".to_owned(), |next| format!("\"{CURSOR_PREFIX}{next}\""));
            body.extend_from_slice(format!("],\"nextCursor\":{next}}}").as_bytes());
            Ok(Reply::ok(StatusCode::OK, body.into()))
        }
        _ => Ok(Reply::json(&PlatformJson {
            id: &shared.options.platform_id,
            name: &shared.options.platform_name,
            status: if shared.platform.is_suspended() { "suspended" } else { "active" },
        })),
    }
}

#[derive(Serialize)]
struct PlatformJson<'a> {
    id: &'a str,
    name: &'a str,
    status: &'static str,
}

/// A cursor is this and the place of the next account; clients are to treat it as opaque.
const CURSOR_PREFIX: &str = "after-";

/// The query of `findEmployees`. Parameters the document does not have are passed over.
pub(super) fn filter(query: Option<&str>) -> Result<Filter, Problem> {
    let mut filter = Filter { limit: PAGE_DEFAULT, ..Filter::default() };
    let mut seen = [false; 4];
    for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = form_decoded(value)?;
        let place = match name {
            "email" => {
                filter.email = Some(value);
                0
            }
            "externalId" => {
                filter.external_id = Some(value);
                1
            }
            "cursor" => {
                let place = value.strip_prefix(CURSOR_PREFIX).and_then(|place| place.parse().ok());
                filter.cursor = place.ok_or(Problem::BadRequest("cursor is not one that was given out"))?;
                2
            }
            "limit" => {
                let limit = value.parse().ok().filter(|limit| (1..=PAGE_MAX).contains(limit));
                filter.limit = limit.ok_or(Problem::BadRequest("limit is a whole number from 1 to 500"))?;
                3
            }
            _ => continue,
        };
        match seen.get_mut(place) {
            Some(true) => return Err(Problem::BadRequest("a query parameter is given twice")),
            Some(seen) => *seen = true,
            None => {}
        }
    }
    Ok(filter)
}

pub(super) fn form_decoded(value: &str) -> Result<String, Problem> {
    let spaced = value.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8();
    decoded.map(Cow::into_owned).map_err(|_not_utf8| Problem::BadRequest("the query is not UTF-8"))
}
