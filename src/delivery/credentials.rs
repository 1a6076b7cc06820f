//! The bearer token: from a file that may be rotated, or from an OAuth 2 token endpoint.
//!
//! A file is looked at once a second, read again when its modification time or size has changed, and after a 401. A token from an endpoint is kept until
//! shortly before it expires. One caller at a time renews, the others wait for the same token; and a caller whose token was
//! refused only renews if nobody has done so since.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http_body_util::Full;
use hyper::Method;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::outcome::{Failure, HaltReason};
use super::transport::{Server, SetupError, Transport};
use crate::config;

/// For a token endpoint that does not say how long its tokens live.
const LIFETIME_DEFAULT: Duration = Duration::from_mins(5);

/// A token is renewed so long before it expires, or after half its life if that is shorter.
const MARGIN: Duration = Duration::from_secs(30);

/// Between two looks at the token's file: a look for each request would cost a tenth of it.
const LOOK_EVERY: Duration = Duration::from_secs(1);

const TOKEN_MAX: usize = 64 * 1024;

pub(super) struct Credentials {
    source: Source,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    held: Option<Held>,
    /// The last attempt to renew, if it failed: when, and how.
    failed: Option<(Instant, Failure)>,
}

enum Source {
    File(PathBuf),
    Endpoint(Box<Endpoint>),
}

struct Endpoint {
    oauth: config::Oauth,
    server: Server,
    /// Path and query.
    target: String,
}

struct Held {
    token: SecretString,
    valid: Validity,
}

enum Validity {
    /// As long as the file looks as it did, when it was looked at last.
    File {
        stamp: Stamp,
        looked: Instant,
    },
    Until(Instant),
}

/// How a file's change is noticed.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
}

#[derive(Deserialize)]
struct Grant {
    access_token: SecretString,
    #[serde(default)]
    expires_in: Option<u64>,
}

impl Credentials {
    /// From the configuration, which has validated that there is one of the two. Without a file nothing is valid.
    pub(super) fn new(config: &config::Benefits, transport: &Transport) -> Result<Self, SetupError> {
        let source = match &config.oauth {
            Some(oauth) => {
                let (server, target) = transport.to("benefits.oauth.token_url", &oauth.token_url)?;
                Source::Endpoint(Box::new(Endpoint { oauth: oauth.clone(), server, target }))
            }
            None => Source::File(config.token_file.clone().unwrap_or_default()),
        };
        Ok(Self { source, state: Mutex::new(State::default()) })
    }

    /// The token to send. `refused` is one that the platform has just answered 401 to.
    pub(super) async fn token(&self, refused: Option<&SecretString>) -> Result<SecretString, Failure> {
        let asked = Instant::now();
        let mut state = self.state.lock().await;
        if let Some(current) = &mut state.held {
            let refused = refused.is_some_and(|token| same(token, &current.token));
            if !refused && self.is_valid(&mut current.valid).await {
                return Ok(current.token.clone());
            }
        }
        // Who waited for somebody else's attempt shares its failure: one dead endpoint, one timeout.
        if let Some((_, failure)) = state.failed.as_ref().filter(|(at, _)| *at > asked) {
            return Err(failure.clone());
        }
        match self.renew().await {
            Ok(renewed) => {
                let token = renewed.token.clone();
                *state = State { held: Some(renewed), failed: None };
                Ok(token)
            }
            Err(failure) => {
                state.failed = Some((Instant::now(), failure.clone()));
                Err(failure)
            }
        }
    }

    async fn renew(&self) -> Result<Held, Failure> {
        match &self.source {
            Source::File(path) => read_token(path).await,
            Source::Endpoint(endpoint) => endpoint.ask().await,
        }
    }

    async fn is_valid(&self, valid: &mut Validity) -> bool {
        match (valid, &self.source) {
            (Validity::Until(end), _) => Instant::now() < *end,
            (Validity::File { looked, .. }, Source::File(_)) if looked.elapsed() < LOOK_EVERY => true,
            (Validity::File { stamp, looked }, Source::File(path)) => {
                *looked = Instant::now();
                stamp_of(path).await == Some(*stamp)
            }
            (Validity::File { .. }, Source::Endpoint(_)) => false,
        }
    }
}

pub(super) fn same(one: &SecretString, other: &SecretString) -> bool {
    one.expose_secret() == other.expose_secret()
}

/// The `Authorization` header, never shown by `Debug`.
pub(super) fn bearer(token: &SecretString) -> Result<HeaderValue, Failure> {
    secret_header(&format!("Bearer {}", token.expose_secret()))
}

fn secret_header(text: &str) -> Result<HeaderValue, Failure> {
    let mut value = HeaderValue::try_from(text).map_err(|_invalid| {
        // The error would quote nothing, but what is invalid is the secret: nothing of it is passed on.
        credentials("The Benefits token has characters that cannot be sent.")
    })?;
    value.set_sensitive(true);
    Ok(value)
}

fn credentials(text: impl Into<String>) -> Failure {
    Failure::halt(HaltReason::Credentials, text)
}

async fn stamp_of(path: &Path) -> Option<Stamp> {
    let metadata = tokio::fs::metadata(path).await.ok()?;
    Some(Stamp { modified: metadata.modified().ok(), length: metadata.len() })
}

async fn read_token(path: &Path) -> Result<Held, Failure> {
    // The stamp is taken first: a change in between is then noticed at the next use.
    let looked = Instant::now();
    let stamp = stamp_of(path).await;
    let text = read_secret("benefits.token_file", path).await?;
    let stamp = stamp.unwrap_or(Stamp { modified: None, length: 0 });
    Ok(Held { token: text, valid: Validity::File { stamp, looked } })
}

async fn read_secret(key: &str, path: &Path) -> Result<SecretString, Failure> {
    let shown = path.display();
    let text = tokio::fs::read_to_string(path)
        .await
        .map_err(|error| credentials(format!("{key} {shown} cannot be read: {}.", error.kind())))?;
    let secret = text.trim();
    if secret.is_empty() {
        return Err(credentials(format!("{key} {shown} is empty.")));
    }
    Ok(SecretString::from(secret))
}

impl Endpoint {
    /// The client credentials grant (RFC 6749, section 4.4), the client's secret in the Basic header (section 2.3.1).
    async fn ask(&self) -> Result<Held, Failure> {
        let Self { oauth, server, target } = self;
        let secret = read_secret("benefits.oauth.client_secret_file", &oauth.client_secret_file).await?;
        let scope = utf8_percent_encode(&oauth.scope, NON_ALPHANUMERIC);
        let basic = BASE64.encode(format!("{}:{}", oauth.client_id, secret.expose_secret()));
        let request = hyper::Request::builder()
            .method(Method::POST)
            .uri(target)
            .header(AUTHORIZATION, secret_header(&format!("Basic {basic}"))?)
            .header(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"))
            .body(Full::from(format!("grant_type=client_credentials&scope={scope}")))
            .map_err(|_invalid| credentials("The Benefits token endpoint's address cannot be asked."))?;
        let asked = Instant::now();
        // No write of ours has been sent yet, whatever became of the token's request.
        let unavailable = |text: &str| Failure::unavailable(text, false);
        let received = server
            .exchange(request, TOKEN_MAX)
            .await
            .map_err(|_no_answer| unavailable("The Benefits token endpoint does not answer."))?;
        match received.status.as_u16() {
            200 => {}
            400 | 401 | 403 => {
                return Err(credentials("The Benefits token endpoint refuses the client's credentials."));
            }
            _ => return Err(unavailable("The Benefits token endpoint is not available.")),
        }
        let grant: Grant = serde_json::from_slice(&received.body)
            .map_err(|_invalid| unavailable("The Benefits token endpoint's answer cannot be read."))?;
        let life = grant.expires_in.map_or(LIFETIME_DEFAULT, Duration::from_secs);
        // Tokens that live for years are good for a day at a time: an instant has an end.
        let life = life.min(Duration::from_hours(24));
        let until = asked + life.saturating_sub(MARGIN).max(life / 2);
        Ok(Held { token: grant.access_token, valid: Validity::Until(until) })
    }
}
