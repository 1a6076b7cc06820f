//! libpq's URL form, as far as it makes sense here. Read by ourselves: the SQL client's own parser refuses
//! `sslmode=verify-full` and `sslrootcert`. No error quotes the URL, which may hold a password.
//!
//! `postgresql://user:password@host1:5432,host2:5433/database?parameter=value`

use std::borrow::Cow;
use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::percent_decode_str;

use super::target::{Endpoint, Host, SessionAttributes, Target};
use crate::config::TlsMode;

const DEFAULT_PORT: u16 = 5432;
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// `connect_timeout` beyond this is taken for a mistake.
const LONGEST_CONNECT_TIMEOUT_SECONDS: u64 = 600;

/// What is wrong with a URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// It does not start as one.
    #[error("it does not start with postgresql:// or postgres://")]
    Scheme,
    /// A part has a broken percent escape, or is not UTF-8 once decoded.
    #[error("{0} is not properly percent-encoded UTF-8")]
    Encoding(&'static str),
    /// There is no user in it.
    #[error("it names no user")]
    NoUser,
    /// A port is not a number from 1 to 65535.
    #[error("a port is not a number from 1 to 65535")]
    Port,
    /// As many ports as hosts, or one, or none.
    #[error("it has {hosts} hosts but {ports} ports")]
    PortCount {
        /// Hosts given.
        hosts: usize,
        /// Ports given.
        ports: usize,
    },
    /// A parameter that is not known.
    #[error("the parameter {0} is not known")]
    UnknownParameter(String),
    /// A parameter without `=`.
    #[error("a parameter has no value")]
    NoValue,
    /// A parameter's value cannot be used.
    #[error("the parameter {name} must be {expected}")]
    Value {
        /// Which.
        name: &'static str,
        /// What it can be.
        expected: &'static str,
    },
    /// Only one of the two was given.
    #[error("sslcert and sslkey must be given together")]
    ClientCertificate,
    /// A zero byte, which no startup message can carry.
    #[error("{0} holds a zero byte")]
    ZeroByte(&'static str),
}

/// What the URL's query can add, before it is put together with the rest.
#[derive(Default)]
struct Parameters {
    hosts: Option<String>,
    ports: Option<String>,
    user: Option<String>,
    password: Option<String>,
    database: Option<String>,
    tls: Option<TlsMode>,
    ca_file: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    session: SessionAttributes,
    connect_timeout: Option<Duration>,
    application_name: Option<String>,
    options: Option<String>,
}

pub(super) fn parse(url: &str) -> Result<Target, TargetError> {
    let rest = url
        .strip_prefix("postgresql://")
        .or_else(|| url.strip_prefix("postgres://"))
        .ok_or(TargetError::Scheme)?;
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    // A password may hold an unescaped @, a host name never does.
    let (credentials, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = match credentials.split_once(':') {
        Some((user, password)) => (user, Some(password)),
        None => (credentials, None),
    };

    let mut given = parameters(query)?;
    let endpoints = endpoints(hosts, given.hosts.take(), given.ports.take())?;
    let user = match (decode(user, "the user")?, given.user.take()) {
        (_, Some(user)) => user,
        (user, None) => user.into_owned(),
    };
    if user.is_empty() {
        return Err(TargetError::NoUser);
    }
    let password = match (given.password.take(), password) {
        (Some(password), _) => Some(password),
        (None, Some(password)) => Some(decode(password, "the password")?.into_owned()),
        (None, None) => None,
    };
    let database = match (given.database.take(), decode(path, "the database")?) {
        (Some(database), _) => database,
        (None, path) if path.is_empty() => user.clone(),
        (None, path) => path.into_owned(),
    };
    let client_certificate = match (given.certificate.take(), given.key.take()) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        _ => return Err(TargetError::ClientCertificate),
    };
    Ok(Target {
        endpoints,
        user,
        password: password.map(Into::into),
        password_file: None,
        database,
        tls: given.tls.unwrap_or(TlsMode::Prefer),
        ca_file: given.ca_file,
        client_certificate,
        session: given.session,
        connect_timeout: given.connect_timeout.unwrap_or(DEFAULT_CONNECT_TIMEOUT),
        application_name: given.application_name,
        options: given.options,
    })
}

fn parameters(query: &str) -> Result<Parameters, TargetError> {
    let mut given = Parameters::default();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').ok_or(TargetError::NoValue)?;
        let value = decode(value, "a parameter")?.into_owned();
        match name {
            "host" => given.hosts = Some(value),
            "port" => given.ports = Some(value),
            "user" => given.user = Some(value),
            "password" => given.password = Some(value),
            "dbname" => given.database = Some(value),
            "sslmode" => given.tls = Some(tls_mode(&value)?),
            "sslrootcert" if value == "system" => given.ca_file = None,
            "sslrootcert" => given.ca_file = Some(value.into()),
            "sslcert" => given.certificate = Some(value.into()),
            "sslkey" => given.key = Some(value.into()),
            "target_session_attrs" => given.session = session_attributes(&value)?,
            "connect_timeout" => given.connect_timeout = connect_timeout(&value)?,
            "application_name" => given.application_name = Some(value),
            "options" => given.options = Some(value),
            unknown => return Err(TargetError::UnknownParameter(readable(unknown))),
        }
    }
    Ok(given)
}

/// A parameter's name for an error: a mistyped URL could put anything there, a password included.
fn readable(name: &str) -> String {
    let plausible = name.len() <= 40 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if plausible { name.to_owned() } else { "(not a parameter's name)".to_owned() }
}

fn tls_mode(value: &str) -> Result<TlsMode, TargetError> {
    match value {
        "disable" => Ok(TlsMode::Disable),
        "prefer" => Ok(TlsMode::Prefer),
        "require" => Ok(TlsMode::Require),
        "verify-ca" => Ok(TlsMode::VerifyCa),
        "verify-full" => Ok(TlsMode::VerifyFull),
        _ => Err(TargetError::Value {
            name: "sslmode",
            expected: "disable, prefer, require, verify-ca or verify-full",
        }),
    }
}

fn session_attributes(value: &str) -> Result<SessionAttributes, TargetError> {
    match value {
        "any" => Ok(SessionAttributes::Any),
        "read-write" => Ok(SessionAttributes::ReadWrite),
        "read-only" => Ok(SessionAttributes::ReadOnly),
        "primary" => Ok(SessionAttributes::Primary),
        "standby" => Ok(SessionAttributes::Standby),
        "prefer-standby" => Ok(SessionAttributes::PreferStandby),
        _ => Err(TargetError::Value {
            name: "target_session_attrs",
            expected: "any, read-write, read-only, primary, standby or prefer-standby",
        }),
    }
}

/// Seconds; libpq's 0 means no limit, which nothing here may have: the default then.
fn connect_timeout(value: &str) -> Result<Option<Duration>, TargetError> {
    match value.parse::<u64>() {
        Ok(0) => Ok(None),
        Ok(seconds) if seconds <= LONGEST_CONNECT_TIMEOUT_SECONDS => Ok(Some(Duration::from_secs(seconds))),
        _ => Err(TargetError::Value { name: "connect_timeout", expected: "0 to 600 seconds" }),
    }
}

/// Hosts of the authority, or of `host=` where it is given (libpq lets the parameter win).
fn endpoints(
    authority: &str,
    hosts: Option<String>,
    ports: Option<String>,
) -> Result<Vec<Endpoint>, TargetError> {
    let mut names = Vec::new();
    let mut found_ports = Vec::new();
    for part in authority.split(',') {
        let (host, port) = host_and_port(part)?;
        names.push(decode(host, "a host")?.into_owned());
        found_ports.push(port);
    }
    if let Some(hosts) = hosts {
        names = hosts.split(',').map(str::to_owned).collect();
        found_ports.resize(names.len(), found_ports.last().copied().flatten());
    }
    if let Some(ports) = ports {
        let given = ports.split(',').map(port).collect::<Result<Vec<_>, _>>()?;
        found_ports = match given.as_slice() {
            [one] => vec![Some(*one); names.len()],
            many if many.len() == names.len() => many.iter().copied().map(Some).collect(),
            many => return Err(TargetError::PortCount { hosts: names.len(), ports: many.len() }),
        };
    }
    let endpoint = |(name, port): (String, Option<u16>)| Endpoint {
        host: if name.is_empty() {
            Host::Tcp("localhost".to_owned())
        } else if name.starts_with('/') {
            Host::Unix(name.into())
        } else {
            Host::Tcp(name)
        },
        port: port.unwrap_or(DEFAULT_PORT),
    };
    Ok(names.into_iter().zip(found_ports).map(endpoint).collect())
}

/// `host`, `host:port`, `[v6]`, `[v6]:port`.
fn host_and_port(part: &str) -> Result<(&str, Option<u16>), TargetError> {
    if let Some(bracketed) = part.strip_prefix('[') {
        let (host, rest) = bracketed.split_once(']').ok_or(TargetError::Port)?;
        return match rest.strip_prefix(':') {
            Some(text) => Ok((host, Some(port(text)?))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err(TargetError::Port),
        };
    }
    match part.split_once(':') {
        Some((host, text)) if !text.is_empty() => Ok((host, Some(port(text)?))),
        Some((host, _)) => Ok((host, None)),
        None => Ok((part, None)),
    }
}

fn port(text: &str) -> Result<u16, TargetError> {
    text.parse().ok().filter(|port| *port != 0).ok_or(TargetError::Port)
}

fn decode<'a>(text: &'a str, what: &'static str) -> Result<Cow<'a, str>, TargetError> {
    let escapes_are_whole = text.split('%').skip(1).all(|after| {
        let mut digits = after.bytes().take(2);
        matches!((digits.next(), digits.next()), (Some(a), Some(b)) if a.is_ascii_hexdigit() && b.is_ascii_hexdigit())
    });
    if !escapes_are_whole {
        return Err(TargetError::Encoding(what));
    }
    let decoded = percent_decode_str(text).decode_utf8().or(Err(TargetError::Encoding(what)))?;
    if decoded.contains('\0') { Err(TargetError::ZeroByte(what)) } else { Ok(decoded) }
}
