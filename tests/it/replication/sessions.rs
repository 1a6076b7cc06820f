//! Hosts, certificates and passwords, for both kinds of session.

use benefits_sync::postgres::{ConnectError, ConnectErrorClass, Target, connect_sql};
use benefits_sync::replication::{Connection, Remedy, ReplicationError};

use super::cluster::{Cluster, Settings, majors, start_cluster};
use super::execute;
use crate::support::certificates::certificates;

/// Connects both ways and gives both errors.
async fn refusals(url: &str) -> (ConnectError, ConnectError) {
    let target = Target::parse(url).unwrap();
    let sql = connect_sql(&target, "test", "").await.unwrap_err();
    match Connection::connect(&target).await.err() {
        Some(ReplicationError::Connect(replication)) => (sql, replication),
        other => panic!("no connect error: {other:?}"),
    }
}

/// Connects both ways; true when the session is encrypted.
async fn accepted(url: &str) -> bool {
    let target = Target::parse(url).unwrap();
    let session = connect_sql(&target, "test", "-c lock_timeout=1234ms").await.unwrap();
    let query = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
    let lock_timeout = session.query_one("show lock_timeout", &[]).await.unwrap();
    assert_eq!(lock_timeout.get::<_, &str>(0), "1234ms");
    let by_sql: bool = session.query_one(query, &[]).await.unwrap().get(0);
    let mut connection = Connection::connect(&target).await.unwrap();
    let identity = connection.identify_system().await.unwrap();
    assert_eq!((identity.database.as_str(), identity.timeline), ("postgres", 1));
    assert_eq!(connection.server_version(), session.server_version());
    let rows = connection.simple_query(query).await.unwrap();
    assert_eq!(rows[0][0].as_deref(), Some(if by_sql { "t" } else { "f" }));
    by_sql
}

const LOGINS: &str = "set password_encryption = 'md5'; create role md5 login replication password 'pw md5';
    set password_encryption = 'scram-sha-256'; create role scram login replication password 'pw scram';
    create role plain login replication password 'pw plain'; create role ordinary login password 'pw';
    create role trusted login replication";

fn authentication() -> Vec<&'static str> {
    vec![
        "host all trusted 127.0.0.1/32 trust",
        "host all md5 127.0.0.1/32 md5",
        "host all plain 127.0.0.1/32 password",
        "hostssl all scram 127.0.0.1/32 scram-sha-256",
        "host all ordinary 127.0.0.1/32 scram-sha-256",
    ]
}

#[tokio::test]
async fn every_way_of_authentication_works_for_both_kinds_of_session() {
    for major in majors() {
        let settings = Settings {
            hba: authentication(),
            tls: Some(&rcgen::PKCS_ECDSA_P256_SHA256),
            ..Settings::default()
        };
        let cluster = start_cluster(major, &settings);
        execute(&cluster, LOGINS).await;
        for credentials in ["trusted", "md5:pw%20md5", "plain:pw%20plain"] {
            assert!(!accepted(&cluster.tcp_url(credentials, "?sslmode=disable")).await);
            assert!(
                accepted(&cluster.tcp_url(credentials, "")).await,
                "prefer takes TLS where it is offered"
            );
        }
        assert!(accepted(&cluster.tcp_url("scram:pw%20scram", "?sslmode=require")).await);
        for credentials in ["md5:secret", "plain:secret", "scram:secret", "nobody:secret"] {
            let (sql, replication) = refusals(&cluster.tcp_url(credentials, "?sslmode=require")).await;
            for error in [sql, replication] {
                assert!(matches!(error, ConnectError::Refused { .. }), "{error:?}");
                assert_eq!(error.class(), ConnectErrorClass::Usage);
                assert!(!format!("{error} {:?} {:?}", error.detail(), error.hint()).contains("secret"));
            }
        }
        let (sql, replication) = refusals(&cluster.tcp_url("scram", "?sslmode=require")).await;
        for error in [sql, replication] {
            assert!(matches!(error, ConnectError::PasswordMissing { .. }), "{error:?}");
        }
        let (sql, replication) = refusals(&cluster.tcp_url("trusted", "?dbname=nowhere")).await;
        assert_eq!((sql.class(), replication.class()), (ConnectErrorClass::Usage, ConnectErrorClass::Usage));
        let ordinary = Target::parse(&cluster.tcp_url("ordinary:pw", "")).unwrap();
        let error = Connection::connect(&ordinary).await.err().unwrap();
        assert_eq!(error.remedy(), Remedy::Configuration, "{error:?}");
    }
}

#[tokio::test]
async fn certificates_are_verified_as_the_mode_says_and_bind_the_channel() {
    let algorithms = [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519];
    for (major, algorithm) in majors().into_iter().cycle().zip(algorithms) {
        let settings = Settings { hba: authentication(), tls: Some(algorithm), ..Settings::default() };
        let cluster = start_cluster(major, &settings);
        execute(&cluster, LOGINS).await;
        let other_ca = a_stranger_ca(&cluster);
        let login = |mode: &str, ca: &std::path::Path| {
            cluster.tcp_url("scram:pw%20scram", &format!("?sslmode={mode}&sslrootcert={}", ca.display()))
        };
        for mode in ["require", "verify-ca", "verify-full"] {
            assert!(accepted(&login(mode, &cluster.ca())).await);
            let (sql, replication) = refusals(&login(mode, &other_ca)).await;
            for error in [sql, replication] {
                assert!(matches!(error, ConnectError::Certificate { .. }), "{mode}: {error:?}");
                assert!(error.hint().unwrap().contains("sslrootcert"), "{:?}", error.hint());
            }
        }
        let by_address = |mode| login(mode, &cluster.ca()).replace("localhost", "127.0.0.1");
        assert!(accepted(&by_address("verify-ca")).await, "verify-ca does not look at the name");
        let (sql, replication) = refusals(&by_address("verify-full")).await;
        for error in [sql, replication] {
            assert!(error.hint().unwrap().contains("a name that is in the certificate"), "{error:?}");
        }
    }
}

/// A CA that has signed nothing.
fn a_stranger_ca(cluster: &Cluster) -> std::path::PathBuf {
    let path = cluster.path().join("other-ca.pem");
    std::fs::write(&path, certificates().authority).unwrap();
    path
}

#[tokio::test]
async fn hosts_are_tried_in_order_until_one_has_the_wanted_attributes() {
    let major = *majors().last().unwrap();
    let read_only = start_cluster(
        major,
        &Settings { config: vec!["default_transaction_read_only = on"], ..Settings::default() },
    );
    let read_write = start_cluster(major, &Settings::default());
    let url = |wanted: &str| {
        format!(
            "postgresql://postgres@localhost:1,localhost:{},localhost:{}/postgres?target_session_attrs={wanted}",
            read_only.port, read_write.port
        )
    };
    for (wanted, port) in [
        ("any", read_only.port),
        ("read-write", read_write.port),
        ("read-only", read_only.port),
        ("prefer-standby", read_only.port),
    ] {
        let target = Target::parse(&url(wanted)).unwrap();
        let session = connect_sql(&target, "test", "").await.unwrap();
        let found = session.query_one("select current_setting('port')", &[]).await.unwrap();
        assert_eq!(found.get::<_, String>(0), port.to_string(), "{wanted}");
        assert_eq!(Connection::connect(&target).await.unwrap().endpoint().port, port, "{wanted}");
    }
    let (sql, replication) = refusals(&url("standby")).await;
    assert!(matches!(sql, ConnectError::Unsuitable { .. }), "{sql:?}");
    assert_eq!(replication.class(), ConnectErrorClass::Away);
}
