//! `/_sandbox/…`: looking at the sandbox and scripting it while it runs. Not part of the API document; no token.

use axum::body::{Body, to_bytes};
use axum::http::{Method, StatusCode, request};
use axum::response::Response;
use serde_json::{Map, Value, json};

use super::Shared;
use super::account::SeedAccount;
use super::answer::{Problem, Reply};
use super::api::filter;
use super::faults::FaultRule;
use super::spoil::whole;

const BODY_MAX_BYTES: usize = 1024 * 1024;

/// Answers a control request; `rest` is the path below `/_sandbox/`.
pub(super) async fn answer(shared: &Shared, rest: &str, parts: &request::Parts, body: Body) -> Response {
    let Ok(body) = to_bytes(body, BODY_MAX_BYTES).await else {
        return whole(Problem::BadRequest("the body is too large or was not sent in full").into());
    };
    let query = parts.uri.query();
    let reply = match (rest.split_once('/').unwrap_or((rest, "")), &parts.method) {
        (("state", ""), &Method::GET) => Ok(Reply::json(&state(shared))),
        (("journal", ""), &Method::GET) => filter(query).map(|filter| match filter.external_id {
            Some(id) => Reply::json(&shared.journal.entries_of(&id)),
            None => Reply::json(&shared.journal.entries()),
        }),
        (("faults", ""), &Method::GET) => Ok(Reply::json(&armed(shared))),
        (("faults", ""), &Method::POST) => return arm(shared, &body),
        (("faults", ""), &Method::DELETE) => {
            shared.faults.disarm_all();
            Ok(Reply::json(&armed(shared)))
        }
        (("suspend", ""), &Method::POST) => {
            shared.platform.set_suspended(true);
            Ok(Reply::json(&state(shared)))
        }
        (("resume", ""), &Method::POST) => {
            shared.platform.set_suspended(false);
            Ok(Reply::json(&state(shared)))
        }
        (("accounts", ""), &Method::POST) => return seed(shared, &body),
        (("accounts", id), &Method::DELETE) if !id.is_empty() => {
            let gone = query.is_some_and(|query| query.split('&').any(|pair| pair == "gone=true"));
            let removed = shared.platform.remove(id, gone);
            removed.then(|| Reply::json(&state(shared))).ok_or(Problem::NotFound("there is no such employee"))
        }
        _ => Err(Problem::NotFound("there is no such control")),
    };
    whole(reply.unwrap_or_else(Reply::from))
}

fn state(shared: &Shared) -> Value {
    let (accounts, linked, keys) = shared.platform.sizes();
    json!({
        "platformId": shared.options.platform_id,
        "suspended": shared.platform.is_suspended(),
        "seed": shared.options.seed,
        "requests": shared.requests.load(std::sync::atomic::Ordering::Relaxed),
        "accounts": accounts,
        "linked": linked,
        "idempotencyKeys": keys,
        "counts": shared.journal.counts(),
        "faults": armed(shared),
    })
}

fn armed(shared: &Shared) -> Vec<String> {
    shared.faults.rules().iter().map(ToString::to_string).collect()
}

fn refused(reason: &str) -> Response {
    let body = json!({ "type": "/problems/bad-request", "title": "The request cannot be read", "status": 400,
        "detail": reason });
    whole(Reply { status: StatusCode::BAD_REQUEST, ..Reply::json(&body) })
}

/// Arms the rules in the body, one a line; all or none.
fn arm(shared: &Shared, body: &[u8]) -> Response {
    let text = String::from_utf8_lossy(body);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    match lines.map(str::parse::<FaultRule>).collect::<Result<Vec<_>, _>>() {
        Ok(rules) => {
            for rule in rules {
                shared.faults.arm(rule);
            }
            whole(Reply::json(&armed(shared)))
        }
        Err(error) => refused(&error.to_string()),
    }
}

fn seed(shared: &Shared, body: &[u8]) -> Response {
    let Ok(fields) = serde_json::from_slice::<Map<String, Value>>(body) else {
        return refused("the body is not a JSON object");
    };
    let mut account = SeedAccount::default();
    for (name, value) in fields {
        match (name.as_str(), value) {
            ("externalId", Value::String(id)) => account.external_id = Some(id),
            ("sourceVersion", value) => account.source_version = value.as_i64(),
            (_, Value::String(text)) => account.fields.push((name, text)),
            _ => return refused("a field's value is a text"),
        }
    }
    match shared.platform.seed(account) {
        Ok(id) => whole(Reply { status: StatusCode::CREATED, ..Reply::json(&json!({ "id": id })) }),
        Err(error) => refused(&error.to_string()),
    }
}
