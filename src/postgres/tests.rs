use secrecy::ExposeSecret;

use super::hosts::{Role, Search};
use super::*;
use crate::config::TlsMode;

fn target(url: &str) -> Target {
    Target::parse(url).unwrap()
}

#[test]
fn a_full_url_is_read() {
    let target = target(
        "postgresql://reader:p%40ss@db1:5433,db2/hr?sslmode=verify-full&sslrootcert=/ca.pem\
         &target_session_attrs=read-write&connect_timeout=3&application_name=x&options=-c%20a%3Db",
    );
    assert_eq!(target.user, "reader");
    assert_eq!(target.password.as_ref().unwrap().expose_secret(), "p@ss");
    assert_eq!(target.to_string(), "hr at db1:5433, db2:5432 as reader");
    assert_eq!(target.tls, TlsMode::VerifyFull);
    assert_eq!(target.session, SessionAttributes::ReadWrite);
    assert_eq!(target.connect_timeout.as_secs(), 3);
    assert!(
        target
            .startup_options("-c lock_timeout=1s")
            .ends_with("client_encoding=UTF8 -c a=b -c lock_timeout=1s")
    );
}

#[test]
fn the_database_is_the_users_name_when_none_is_given() {
    assert_eq!(target("postgres://someone@h").database, "someone");
    assert_eq!(target("postgres://someone@h?dbname=hr").database, "hr");
}

#[test]
fn a_unix_socket_is_a_host_parameter_or_an_encoded_host() {
    let by_parameter = target("postgresql://u@/hr?host=/run/postgresql&port=5444");
    let by_authority = target("postgresql://u@%2Frun%2Fpostgresql:5444/hr");
    assert_eq!(by_parameter.endpoints, by_authority.endpoints);
    assert_eq!(by_parameter.endpoints[0].to_string(), "/run/postgresql/.s.PGSQL.5444");
}

#[test]
fn addresses_of_version_6_stand_in_brackets() {
    let target = target("postgresql://u@[::1]:5433,[fe80::2]/hr");
    assert_eq!(target.endpoints[0], Endpoint { host: Host::Tcp("::1".into()), port: 5433 });
    assert_eq!(target.endpoints[1].to_string(), "[fe80::2]:5432");
}

#[test]
fn an_error_names_the_part_and_never_quotes_the_url() {
    for (url, expected) in [
        ("mysql://secret@h", "it does not start with postgresql:// or postgres://"),
        ("postgresql://u:secret@h/d?sslmod=x", "the parameter sslmod is not known"),
        ("postgresql://u:secret@h/d?se/cret=x", "the parameter (not a parameter's name) is not known"),
        ("postgresql://u:secret@h/d?sslmode=allow", "the parameter sslmode must be disable, prefer"),
        ("postgresql://u:secret@h:99999/d", "a port is not a number from 1 to 65535"),
        ("postgresql://u:secret%2@h/d", "the password is not properly percent-encoded UTF-8"),
        ("postgresql://u:secret%00@h/d", "the password holds a zero byte"),
        ("postgresql://:secret@h/d", "it names no user"),
        ("postgresql://u:secret@a,b/d?port=1,2,3", "it has 2 hosts but 3 ports"),
        ("postgresql://u:secret@h/d?sslcert=x", "sslcert and sslkey must be given together"),
        (
            "postgresql://u:secret@h/d?connect_timeout=secret",
            "the parameter connect_timeout must be 0 to 600",
        ),
    ] {
        let error = Target::parse(url).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
}

#[test]
fn debug_output_shows_no_password() {
    let text = format!("{:?}", target("postgresql://u:hunter2@h/d?password=hunter3"));
    assert!(!text.contains("hunter"), "{text}");
}

#[tokio::test]
async fn a_password_file_is_read_at_every_connect() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut target = target("postgresql://u:old@h/d");
    target.password_file = Some(file.path().to_owned());
    for password in ["first", "second"] {
        std::fs::write(file.path(), format!("{password}\n")).unwrap();
        let read = target.current_password().await.unwrap().unwrap();
        assert_eq!(read.expose_secret(), password);
    }
}

#[test]
fn prefer_standby_takes_anyone_in_the_second_round() {
    let mut search = Search::new(&target("postgresql://u@a,b/d?target_session_attrs=prefer-standby"));
    let primary = Role { in_recovery: false, read_only: false };
    let mut accepted = Vec::new();
    while let Some(candidate) = search.next() {
        accepted.push((candidate.endpoint.to_string(), candidate.accepts(primary)));
    }
    let expected = [("a:5432", false), ("b:5432", false), ("a:5432", true), ("b:5432", true)];
    assert_eq!(accepted, expected.map(|(host, accepts)| (host.to_owned(), accepts)));
}

#[test]
fn a_wrong_password_ends_the_search_and_an_absent_host_does_not() {
    let mut search = Search::new(&target("postgresql://u@a,b/d"));
    let absent = ConnectError::Unreachable {
        endpoint: "a:5432".into(),
        source: std::io::ErrorKind::ConnectionRefused.into(),
    };
    assert!(search.failed(absent).is_ok());
    let error = ServerError {
        severity: "FATAL".into(),
        code: "28P01".into(),
        message: "no".into(),
        detail: None,
        hint: None,
    };
    let refused = search
        .failed(ConnectError::Refused { endpoint: "b:5432".into(), error: Box::new(error) })
        .unwrap_err();
    assert_eq!(refused.class(), ConnectErrorClass::Usage);
}

#[test]
fn versions_are_numbers() {
    assert_eq!(version_number("15.19 (Debian 15.19-1)"), Some(150_019));
    assert_eq!(version_number("18beta1"), Some(180_000));
    assert_eq!(version_number("nothing"), None);
}
