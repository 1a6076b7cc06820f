//! Who may ask: the platform's own token, and those given out for client credentials (RFC 6749, section 4.4).
//!
//! `POST /oauth2/token` is on only where a client is configured. The client names itself with Basic authentication or in
//! the form; the scope is not judged. Tokens age by the sandbox's clock, which tests can move.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, HeaderValue};
use axum::http::{StatusCode, request};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::json;

use super::answer::Reply;
use super::api::form_decoded;
use super::spoil::whole;
use super::{OauthClient, Shared};

const FORM_MAX_BYTES: usize = 16 * 1024;
/// Tokens remembered; the oldest go first.
const ISSUED_MAX: usize = 1000;

/// The tokens that are accepted.
#[derive(Debug)]
pub(super) struct Credentials {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    token: String,
    /// Token, and until when on the sandbox's clock.
    issued: std::collections::VecDeque<(String, Duration)>,
    count: u64,
}

impl Credentials {
    pub(super) fn new(token: String) -> Self {
        Self { state: Mutex::new(State { token, issued: std::collections::VecDeque::new(), count: 0 }) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_token(&self, token: &str) {
        token.clone_into(&mut self.lock().token);
    }

    /// Whether the token is good at this time.
    pub(super) fn accept(&self, token: &str, now: Duration) -> bool {
        let state = self.lock();
        state.token == token || state.issued.iter().any(|(issued, until)| issued == token && now < *until)
    }

    /// Takes back all tokens that were given out.
    pub(super) fn revoke(&self) {
        self.lock().issued.clear();
    }

    /// How many tokens were given out so far.
    pub(super) fn issued(&self) -> u64 {
        self.lock().count
    }

    fn issue(&self, now: Duration, lifetime: Duration) -> String {
        let mut state = self.lock();
        state.count += 1;
        let token = format!("issued-{:08}", state.count);
        if state.issued.len() >= ISSUED_MAX {
            state.issued.pop_front();
        }
        state.issued.push_back((token.clone(), now + lifetime));
        token
    }
}

/// Answers `POST /oauth2/token`.
pub(super) async fn token(
    shared: &Shared,
    client: &OauthClient,
    parts: &request::Parts,
    body: Body,
) -> Response {
    let refused = |status, error| whole(Reply { status, ..Reply::json(&json!({ "error": error })) });
    let Ok(body) = to_bytes(body, FORM_MAX_BYTES).await else {
        return refused(StatusCode::BAD_REQUEST, "invalid_request");
    };
    let text = String::from_utf8_lossy(&body);
    let field = |wanted: &str| {
        let (_, value) =
            text.split('&').filter_map(|pair| pair.split_once('=')).find(|(name, _)| *name == wanted)?;
        form_decoded(value).ok()
    };
    let basic = format!("Basic {}", BASE64.encode(format!("{}:{}", client.id, client.secret)));
    let by_header =
        parts.headers.get(AUTHORIZATION).is_some_and(|given| given.as_bytes() == basic.as_bytes());
    let by_form = || {
        field("client_id").as_deref() == Some(&client.id)
            && field("client_secret").as_deref() == Some(&client.secret)
    };
    if !by_header && !by_form() {
        return refused(StatusCode::UNAUTHORIZED, "invalid_client");
    }
    if field("grant_type").as_deref() != Some("client_credentials") {
        return refused(StatusCode::BAD_REQUEST, "unsupported_grant_type");
    }
    let token = shared.credentials.issue(shared.platform.now(), client.lifetime);
    let answer =
        json!({ "access_token": token, "token_type": "Bearer", "expires_in": client.lifetime.as_secs() });
    let mut reply = Reply::json(&answer);
    reply.headers.push((CACHE_CONTROL, HeaderValue::from_static("no-store")));
    whole(reply)
}
