//! What the platform answers: accepted writes, and every problem of the document with its status and type.

use axum::http::StatusCode;
use axum::http::header::{
    ALLOW, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE,
};
use bytes::Bytes;
use serde::Serialize;
use serde::ser::{SerializeMap, SerializeSeq, Serializer};

use super::draft::FieldError;
use super::faults::RetryAfter;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// The answer to a write that was accepted, kept so that a replay is identical.
#[derive(Debug, Clone)]
pub(super) struct Accepted {
    /// The new record's id, for `Location`; `None` for a patch.
    pub(super) created: Option<String>,
    /// The record after the write.
    pub(super) body: Bytes,
}

/// Everything the platform refuses, as the document names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Problem {
    Validation(Vec<FieldError>),
    /// The body is JSON, but no object, so no field can be named.
    NotAnObject,
    EmailInUse,
    ExternalIdInUse,
    ExternalIdMismatch,
    UnknownPackage,
    StaleSourceVersion,
    IdempotencyKeyReused,
    RequestInProgress,
    NotFound(&'static str),
    Gone,
    Unauthenticated,
    Forbidden,
    RateLimited(RetryAfter),
    PlatformSuspended,
    Unavailable(Option<RetryAfter>),
    Internal,
    BadRequest(&'static str),
    MethodNotAllowed(&'static str),
    UnsupportedMediaType(&'static str),
}

impl Problem {
    /// Status, the last part of the type, and title.
    pub(super) const fn kind(&self) -> (StatusCode, &'static str, &'static str) {
        use StatusCode as S;
        match self {
            Self::Validation(_) | Self::NotAnObject => {
                (S::UNPROCESSABLE_ENTITY, "validation", "The record is not valid")
            }
            Self::EmailInUse => (S::CONFLICT, "email-in-use", "Another account has this email"),
            Self::ExternalIdInUse => {
                (S::CONFLICT, "external-id-in-use", "Another account is linked to this employee")
            }
            Self::ExternalIdMismatch => {
                (S::CONFLICT, "external-id-mismatch", "The account is linked to another employee")
            }
            Self::UnknownPackage => (S::UNPROCESSABLE_ENTITY, "unknown-package", "There is no such package"),
            Self::StaleSourceVersion => {
                (S::CONFLICT, "stale-source-version", "A later version of the record is held")
            }
            Self::IdempotencyKeyReused => {
                (S::UNPROCESSABLE_ENTITY, "idempotency-key-reused", "The key belongs to another write")
            }
            Self::RequestInProgress => {
                (S::CONFLICT, "request-in-progress", "A request with this key is being worked on")
            }
            Self::NotFound(_) => (S::NOT_FOUND, "not-found", "Not found"),
            Self::Gone => (S::GONE, "gone", "The account has been closed"),
            Self::Unauthenticated => (S::UNAUTHORIZED, "unauthenticated", "A valid bearer token is required"),
            Self::Forbidden => (S::FORBIDDEN, "forbidden", "The token does not allow this"),
            Self::RateLimited(_) => (S::TOO_MANY_REQUESTS, "rate-limited", "Too many requests"),
            Self::PlatformSuspended => (S::FORBIDDEN, "platform-suspended", "The platform is suspended"),
            Self::Unavailable(_) => (S::SERVICE_UNAVAILABLE, "unavailable", "Temporarily unavailable"),
            Self::Internal => (S::INTERNAL_SERVER_ERROR, "internal", "Internal error"),
            Self::BadRequest(_) => (S::BAD_REQUEST, "bad-request", "The request cannot be read"),
            Self::MethodNotAllowed(_) => (S::METHOD_NOT_ALLOWED, "method-not-allowed", "Method not allowed"),
            Self::UnsupportedMediaType(_) => {
                (S::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "Unsupported media type")
            }
        }
    }

    fn detail(&self) -> Option<&'static str> {
        match self {
            Self::NotAnObject => Some("the body is not a JSON object"),
            Self::NotFound(detail) | Self::BadRequest(detail) | Self::UnsupportedMediaType(detail) => {
                Some(detail)
            }
            _ => None,
        }
    }

    /// The header that goes with it, if any.
    fn header(&self) -> Option<(HeaderName, HeaderValue)> {
        match self {
            Self::RateLimited(after) | Self::Unavailable(Some(after)) => {
                after.header().map(|value| (RETRY_AFTER, value))
            }
            Self::Unauthenticated => Some((WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))),
            Self::MethodNotAllowed(allowed) => Some((ALLOW, HeaderValue::from_static(allowed))),
            _ => None,
        }
    }
}

impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (status, kind, title) = self.kind();
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("type", &format_args!("/problems/{kind}"))?;
        map.serialize_entry("title", title)?;
        map.serialize_entry("status", &status.as_u16())?;
        if let Some(detail) = self.detail() {
            map.serialize_entry("detail", detail)?;
        }
        if let Self::Validation(errors) = self {
            map.serialize_entry("errors", &Errors(errors))?;
        }
        map.end()
    }
}

struct Errors<'a>(&'a [FieldError]);

impl Serialize for Errors<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut seq = serializer.serialize_seq(Some(self.0.len()))?;
        for FieldError { field, code } in self.0 {
            seq.serialize_element(&serde_json::json!({ "field": field, "code": code.as_str() }))?;
        }
        seq.end()
    }
}

/// An answer before it is turned into a response, so that a fault can still spoil it.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) body: Bytes,
    /// The problem's type, for the journal.
    pub(super) problem: Option<&'static str>,
}

impl Reply {
    /// 200 with a JSON body.
    pub(super) fn json(value: &impl Serialize) -> Self {
        // Nothing that is answered here can fail to serialise: no maps with keys other than text.
        Self::ok(StatusCode::OK, serde_json::to_vec(value).unwrap_or_default().into())
    }

    pub(super) fn ok(status: StatusCode, body: Bytes) -> Self {
        Self { status, headers: vec![(CONTENT_TYPE, JSON)], body, problem: None }
    }

    /// An accepted write, whose `Location` starts with the collection's path.
    pub(super) fn accepted(accepted: Accepted, collection: &str) -> Self {
        let Some(id) = accepted.created else { return Self::ok(StatusCode::OK, accepted.body) };
        let mut reply = Self::ok(StatusCode::CREATED, accepted.body);
        if let Ok(location) = HeaderValue::try_from(format!("{collection}/{id}")) {
            reply.headers.push((LOCATION, location));
        }
        reply
    }
}

impl From<Problem> for Reply {
    fn from(problem: Problem) -> Self {
        let (status, kind, _) = problem.kind();
        let mut headers = vec![(CONTENT_TYPE, PROBLEM_JSON)];
        headers.extend(problem.header());
        let body = serde_json::to_vec(&problem).unwrap_or_default().into();
        Self { status, headers, body, problem: Some(kind) }
    }
}
