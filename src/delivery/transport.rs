//! HTTP with limits: no redirects, no retries, no proxy, every wait and every body bounded.
//!
//! What goes wrong here is always [`super::outcome::Class::Unavailable`], and the question that matters is whether the request
//! can have reached the platform: it cannot only where no connection was made. Everything later (a reset before or after
//! the request was read, half an answer, a body that is too large or is not JSON) leaves open what happened to a write.

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue, USER_AGENT};
use hyper::{StatusCode, Uri};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::time::{Instant, timeout_at};

use super::connections::{Connector, Fault, Origin, Request};
use super::outcome::Failure;

/// A longer time to connect says that nobody is there.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// An answer about one employee.
pub(super) const BODY_MAX: usize = 1 << 20;

/// An answer with a page of employees.
pub(super) const PAGE_BODY_MAX: usize = 4 << 20;

const REQUEST_ID_MAX: usize = 128;

/// Why there can be no client.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The private CA's file.
    #[error("benefits.ca_file {path}: {reason}")]
    CaFile {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The address is none.
    #[error("{key} is not a URL: {reason}")]
    Address {
        /// `benefits.base_url` or `benefits.oauth.token_url`.
        key: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// TLS cannot be set up.
    #[error("cannot set up TLS for the Benefits platform")]
    Tls(#[from] rustls::Error),
}

/// A whole answer.
pub(super) struct Received {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Received {
    /// Whether the body says it is JSON: `application/json`, or `application/problem+json` and its like.
    pub(super) fn is_json(&self) -> bool {
        let Some(value) = self.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()) else {
            return false;
        };
        let media = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        media == "application/json" || (media.starts_with("application/") && media.ends_with("+json"))
    }

    /// A header's text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The platform's id of the request, if it is short and printable: it goes into history and logs.
    pub(super) fn request_id(&self) -> Option<String> {
        ["x-request-id", "request-id", "x-correlation-id"].into_iter().find_map(|name| {
            let id = self.header(name)?.trim();
            let good =
                (1..=REQUEST_ID_MAX).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
            good.then(|| id.to_owned())
        })
    }
}

/// What every request of ours keeps to, to the platform and to its token endpoint.
pub(super) struct Transport {
    connector: Connector,
    /// For a whole exchange.
    timeout: Duration,
}

/// A server that answers us.
pub(super) struct Server {
    origin: Origin,
    timeout: Duration,
}

impl Transport {
    /// As configured. Makes no connection.
    pub(super) fn new(timeout: Duration, ca_file: Option<&Path>) -> Result<Self, SetupError> {
        let connector = Connector::new(tls(ca_file)?, CONNECT_MAX.min(timeout / 2));
        Ok(Self { connector, timeout })
    }

    /// The server that an address names, and the path and query that it asks for. `key` is where the address is configured.
    pub(super) fn to(&self, key: &'static str, address: &str) -> Result<(Server, String), SetupError> {
        let fault = |reason: String| SetupError::Address { key, reason };
        // Read as people write addresses: with capitals or accents.
        let address = url::Url::parse(address).map_err(|error| fault(error.to_string()))?;
        let address: Uri = address
            .as_str()
            .parse()
            .map_err(|error: hyper::http::uri::InvalidUri| fault(error.to_string()))?;
        let origin = self.connector.to(&address).map_err(|error| fault(error.to_string()))?;
        let path = address.path_and_query().map_or("/", |path| path.as_str());
        Ok((Server { origin, timeout: self.timeout }, path.to_owned()))
    }
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.origin.address().fmt(f)
    }
}

/// TLS 1.2 or 1.3 with the ring provider: the system's CAs, and the site's own.
fn tls(ca_file: Option<&Path>) -> Result<rustls::ClientConfig, SetupError> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = ca_file {
        let fault = |reason: String| SetupError::CaFile { path: path.display().to_string(), reason };
        let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect)
            .map_err(|error| fault(error.to_string()))?;
        if certificates.is_empty() {
            return Err(fault("holds no PEM certificate".to_owned()));
        }
        for certificate in certificates {
            roots.add(certificate).map_err(|error| fault(error.to_string()))?;
        }
    }
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    Ok(rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

impl Server {
    /// Sends a request and reads the whole answer, up to `limit` bytes of body.
    pub(super) async fn exchange(&self, mut request: Request, limit: usize) -> Result<Received, Failure> {
        let headers = request.headers_mut();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, application/problem+json"));
        headers.insert(
            USER_AGENT,
            HeaderValue::from_static(concat!("benefits-sync/", env!("CARGO_PKG_VERSION"))),
        );
        let until = Instant::now() + self.timeout;
        let sent = timeout_at(until, self.origin.send(request)).await.map_err(|_elapsed| no_answer())?;
        let (response, link) = sent.map_err(|fault| of_fault(&fault))?;
        let (head, mut body) = response.into_parts();
        let body =
            timeout_at(until, read(&mut body, limit)).await.unwrap_or_else(|_elapsed| Err(no_answer()));
        let received = Received { status: head.status, headers: head.headers, body: Vec::new() };
        match body {
            Ok(body) => {
                self.origin.keep(link);
                Ok(Received { body, ..received })
            }
            // A refusal is known by its status, even when its text cannot be had.
            Err(_) if head.status.is_client_error() || head.status.is_server_error() => Ok(received),
            Err(failure) => Err(Failure {
                request_id: received.request_id(),
                status: Some(head.status.as_u16()),
                ..failure
            }),
        }
    }
}

async fn read(incoming: &mut Incoming, limit: usize) -> Result<Vec<u8>, Failure> {
    let too_large = || Failure::unavailable("Benefits sent an answer that is too large.", true);
    let announced = incoming.size_hint().lower();
    if announced > u64::try_from(limit).unwrap_or(u64::MAX) {
        return Err(too_large());
    }
    let mut body = Vec::with_capacity(usize::try_from(announced).unwrap_or(0));
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(|_broken| broken())?;
        let Some(chunk) = frame.data_ref() else { continue };
        if body.len() + chunk.len() > limit {
            return Err(too_large());
        }
        body.extend_from_slice(chunk);
    }
    Ok(body)
}

/// No answer. The error itself is not repeated: it can hold the URL, and a URL can hold an email.
fn of_fault(fault: &Fault) -> Failure {
    match fault {
        Fault::NoConnection(error) => match error.as_deref().and_then(|error| certificate_fault(error)) {
            // A handshake that was given up: nothing of the request was sent.
            Some(fault) => {
                let text = format!(
                    "The certificate of Benefits is not accepted ({fault}): name its CA with benefits.ca_file, or have it renewed."
                );
                Failure::unavailable(text, false)
            }
            None => Failure::unavailable("No connection to Benefits.", false),
        },
        Fault::Broken => broken(),
    }
}

fn broken() -> Failure {
    Failure::unavailable("The connection to Benefits broke before the answer was complete.", true)
}

fn no_answer() -> Failure {
    Failure::unavailable("Benefits did not answer in time.", true)
}

/// What TLS has against the server's certificate. Names of hosts at most, no URL.
fn certificate_fault<'e>(error: &'e (dyn Error + Send + Sync + 'static)) -> Option<&'e rustls::Error> {
    let mut cause: Option<&'e (dyn Error + 'static)> = Some(error);
    while let Some(inner) = cause {
        if let Some(fault @ rustls::Error::InvalidCertificate(_)) = inner.downcast_ref() {
            return Some(fault);
        }
        // The source of an I/O error passes by the error that is in it.
        cause = match inner.downcast_ref::<std::io::Error>().map(std::io::Error::get_ref) {
            Some(Some(within)) => Some(within),
            Some(None) => None,
            None => inner.source(),
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(name: &'static str, value: &str) -> Received {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        Received { status: StatusCode::OK, headers, body: Vec::new() }
    }

    #[test]
    fn json_is_known_by_its_media_type() {
        for good in ["application/json", "Application/JSON; charset=utf-8", "application/problem+json"] {
            assert!(received("content-type", good).is_json(), "{good}");
        }
        for bad in ["text/html", "text/json+html", "application/jsonp", ""] {
            assert!(!received("content-type", bad).is_json(), "{bad}");
        }
        assert!(!received("x-request-id", "1").is_json());
    }

    #[test]
    fn a_request_id_is_kept_when_it_is_short_and_printable() {
        assert_eq!(received("x-request-id", " abc-1 ").request_id().as_deref(), Some("abc-1"));
        for bad in ["", "a b", &"x".repeat(129)] {
            assert_eq!(received("x-request-id", bad).request_id(), None);
        }
    }

    #[test]
    fn a_ca_file_that_is_none_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = tls(Some(file.path())).unwrap_err().to_string();
        assert!(error.contains("holds no PEM certificate"), "{error}");
    }
}
