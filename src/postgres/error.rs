//! Why there is no connection, and whether waiting can help.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::server::ServerError;
use super::url::TargetError;

/// Why no connection could be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The URL or a setting beside it cannot be used.
    #[error("the database URL cannot be used")]
    Target(#[from] TargetError),
    /// The password file cannot be read.
    #[error("cannot read the password file {path}")]
    PasswordFile {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// A certificate or key file cannot be used, or the system has no trusted roots.
    #[error("cannot use the certificates in {path}: {reason}")]
    Certificates {
        /// The file, or "the system's store".
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The server refused the session.
    #[error("the server at {endpoint} refused the connection: {}", error.message)]
    Refused {
        /// `host:port`.
        endpoint: String,
        /// What it said.
        error: Box<ServerError>,
    },
    /// The server asked for a password and there is none.
    #[error("the server at {endpoint} asks for a password, and none is configured")]
    PasswordMissing {
        /// `host:port`.
        endpoint: String,
    },
    /// The server asked for a way of authentication that is not spoken here, or failed to prove that it knows the
    /// password.
    #[error("cannot authenticate with the server at {endpoint}: {reason}")]
    Authentication {
        /// `host:port`.
        endpoint: String,
        /// What was asked for, or went wrong.
        reason: String,
    },
    /// TLS is required, and the server has none.
    #[error("the server at {endpoint} does not offer TLS")]
    TlsNotOffered {
        /// `host:port`.
        endpoint: String,
    },
    /// The server's certificate was not accepted.
    #[error("the certificate of the server at {endpoint} is not accepted")]
    Certificate {
        /// `host:port`.
        endpoint: String,
        /// Why not.
        source: rustls::Error,
    },
    /// The server cannot be reached, or went away while the session was being set up.
    #[error("cannot connect to {endpoint}")]
    Unreachable {
        /// `host:port`, or the socket's path.
        endpoint: String,
        /// The operating system's reason.
        source: io::Error,
    },
    /// Nothing came of it in time.
    #[error("no session with {endpoint} within {}", humantime::format_duration(*limit))]
    TimedOut {
        /// `host:port`.
        endpoint: String,
        /// `connect_timeout`.
        limit: Duration,
    },
    /// Servers were reached, but none of the wanted kind.
    #[error("no server satisfies target_session_attrs={wanted}")]
    Unsuitable {
        /// The attribute's libpq name.
        wanted: &'static str,
    },
    /// Something answers, but does not speak as PostgreSQL does.
    #[error("unexpected answer from {endpoint}: {reason}")]
    Protocol {
        /// `host:port`.
        endpoint: String,
        /// What was wrong.
        reason: String,
    },
}

/// What a failed connect means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectErrorClass {
    /// Somebody must change a setting, here or at the server: exit code 2 at start.
    Usage,
    /// The server is away; wait and try again.
    Away,
}

impl ConnectError {
    /// Whether waiting can help.
    pub fn class(&self) -> ConnectErrorClass {
        match self {
            Self::Target(_)
            | Self::PasswordFile { .. }
            | Self::Certificates { .. }
            | Self::PasswordMissing { .. }
            | Self::Authentication { .. }
            | Self::TlsNotOffered { .. }
            | Self::Certificate { .. } => ConnectErrorClass::Usage,
            Self::Refused { error, .. } => match error.code.as_str() {
                // Wrong password, no such role, pg_hba.conf, no such database, CONNECT or REPLICATION not granted,
                // a startup parameter that is not known.
                "28P01" | "28000" | "3D000" | "42501" | "42704" | "08P01" | "22023" => {
                    ConnectErrorClass::Usage
                }
                _ => ConnectErrorClass::Away,
            },
            Self::Unreachable { .. }
            | Self::TimedOut { .. }
            | Self::Unsuitable { .. }
            | Self::Protocol { .. } => ConnectErrorClass::Away,
        }
    }

    /// What happened, in one line.
    pub fn primary(&self) -> String {
        self.to_string()
    }

    /// More about it.
    pub fn detail(&self) -> Option<String> {
        match self {
            Self::Target(error) => Some(error.to_string()),
            Self::PasswordFile { source, .. } | Self::Unreachable { source, .. } => Some(source.to_string()),
            Self::Refused { error, .. } => error.detail.clone(),
            Self::Certificate { source, .. } => Some(source.to_string()),
            Self::Certificates { .. }
            | Self::PasswordMissing { .. }
            | Self::Authentication { .. }
            | Self::TlsNotOffered { .. }
            | Self::TimedOut { .. }
            | Self::Unsuitable { .. }
            | Self::Protocol { .. } => None,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Target(_) => "Write it as postgresql://user@host:5432/database?sslmode=verify-full.",
            Self::PasswordFile { .. } => "The file must be readable by the user that runs benefits-sync.",
            Self::Certificates { .. } => "Name a PEM file with database.ca_file.",
            Self::PasswordMissing { .. } => "Set database.password_file, or put the password into the URL.",
            Self::Authentication { .. } => {
                "Use scram-sha-256, md5, password, trust, peer or cert in pg_hba.conf."
            }
            Self::TlsNotOffered { .. } => "Set ssl = on at the server, or choose another database.tls.",
            Self::Certificate { source, .. } => certificate_hint(source),
            Self::Refused { error, .. } => return refusal_hint(error),
            Self::Unreachable { .. } | Self::TimedOut { .. } => {
                "Is the server running, and does it accept connections from here?"
            }
            Self::Unsuitable { .. } => {
                "Name all servers of the cluster in the URL, or loosen target_session_attrs."
            }
            Self::Protocol { .. } => "Is this PostgreSQL's port?",
        };
        Some(text.to_owned())
    }
}

fn certificate_hint(error: &rustls::Error) -> &'static str {
    use rustls::{CertificateError, Error, OtherError};
    match error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "Name the CA that signed it with database.ca_file (sslrootcert)."
        }
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "Connect by a name that is in the certificate, or choose verify-ca.",
        // `openssl req -x509` marks a self-signed certificate as a CA, and a CA's certificate may not be a server's.
        Error::InvalidCertificate(CertificateError::Other(OtherError(other)))
            if other.to_string().contains("CaUsedAsEndEntity") =>
        {
            "A CA's certificate cannot serve as the server's: make it with basicConstraints=CA:FALSE."
        }
        _ => "Renew it, or name the right CA with database.ca_file (sslrootcert).",
    }
}

fn refusal_hint(error: &ServerError) -> Option<String> {
    if let Some(hint) = &error.hint {
        return Some(hint.clone());
    }
    let text = match error.code.as_str() {
        "28P01" => "Check the password; a password file is read again at every connect.",
        "28000" => "Check the role's name, its LOGIN attribute, and pg_hba.conf.",
        "3D000" => "Check the database's name at the end of the URL.",
        "42501" => {
            "Grant CONNECT on the database; the replication login also needs the REPLICATION attribute."
        }
        "08P01" => {
            "A pooler such as pgbouncer does not pass replication on: name PostgreSQL itself in database.replication_url."
        }
        "53300" => "Raise max_connections or max_wal_senders, or close other sessions.",
        _ => return None,
    };
    Some(text.to_owned())
}
