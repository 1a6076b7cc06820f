//! Replies become responses here, whole or spoiled by a fault.
//!
//! A lost answer is a response whose body fails at its first poll. Hyper has the head only in its write buffer then, and
//! drops the connection on the error without flushing, so the client reads end of file and not one byte of an answer
//! (tests/it/sandbox/faults.rs looks at the socket). Half an answer announces its full length, lets the first half be flushed
//! by being pending once, and fails then.

use std::io;

use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use futures_util::{StreamExt, stream};

use super::answer::{Problem, Reply};
use super::draft::FieldError;
use super::faults::Fault;
use super::field::Code;

/// Ten million bytes and two quotes.
const HUGE_BYTES: usize = 10_000_000;

/// What is sent instead of working on the request; `None`: the fault lets the work be done.
pub(super) fn instead(fault: &Fault) -> Option<Response> {
    let problem = match fault {
        Fault::RateLimited(after) => Problem::RateLimited(*after),
        Fault::Unavailable(after) => Problem::Unavailable(*after),
        Fault::Internal => Problem::Internal,
        Fault::Unauthenticated => Problem::Unauthenticated,
        Fault::Forbidden => Problem::Forbidden,
        Fault::Suspended => Problem::PlatformSuspended,
        Fault::NotFound => Problem::NotFound("so it was ordered"),
        Fault::Gone => Problem::Gone,
        Fault::Reject => {
            Problem::Validation(vec![FieldError { field: "surname".into(), code: Code::Format }])
        }
        Fault::LostBefore => return Some(lost()),
        Fault::Redirect => {
            let mut response = respond(StatusCode::TEMPORARY_REDIRECT, Body::empty());
            response.headers_mut().insert(LOCATION, HeaderValue::from_static("/_sandbox/redirected"));
            return Some(response);
        }
        Fault::Slow { .. }
        | Fault::SlowAnswer { .. }
        | Fault::InternalAfter
        | Fault::LostAfter
        | Fault::HalfAnswer
        | Fault::WrongContentType
        | Fault::HugeBody
        | Fault::InvalidJson => return None,
    };
    Some(whole(problem.into()))
}

/// The reply as the fault leaves it.
pub(super) fn spoiled(reply: Reply, fault: &Fault) -> Response {
    match fault {
        Fault::InternalAfter => whole(Problem::Internal.into()),
        Fault::LostAfter => lost(),
        Fault::HalfAnswer => half(reply),
        Fault::WrongContentType => {
            let page = Bytes::from_static(b"<!doctype html><title>Welcome</title><p>Please sign in.");
            let mut response = respond(reply.status, Body::from(page));
            set_type(response.headers_mut(), "text/html; charset=utf-8");
            response
        }
        Fault::HugeBody => {
            let mut text = vec![b' '; HUGE_BYTES];
            text.insert(0, b'"');
            text.push(b'"');
            whole(Reply { body: text.into(), ..reply })
        }
        Fault::InvalidJson => whole(Reply { body: Bytes::from_static(b"{\"id\": \"ben-"), ..reply }),
        _ => whole(reply),
    }
}

/// The reply as it is.
pub(super) fn whole(reply: Reply) -> Response {
    let mut response = respond(reply.status, Body::from(reply.body));
    response.headers_mut().extend(reply.headers);
    response
}

fn respond(status: StatusCode, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

fn set_type(headers: &mut HeaderMap, kind: &'static str) {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
}

fn torn() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the answer is lost on purpose")
}

fn lost() -> Response {
    let body = stream::once(async { Err::<Bytes, io::Error>(torn()) });
    respond(StatusCode::OK, Body::from_stream(body))
}

fn half(reply: Reply) -> Response {
    let length = reply.body.len();
    let first = reply.body.slice(..length / 2);
    let torn_off = async {
        // Pending once: the connection flushes what it has before it asks again.
        tokio::task::yield_now().await;
        Err(torn())
    };
    let body = stream::once(async { Ok::<Bytes, io::Error>(first) }).chain(stream::once(torn_off));
    let mut response = respond(reply.status, Body::from_stream(body));
    response.headers_mut().extend(reply.headers);
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    response
}
