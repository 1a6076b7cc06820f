//! The replication client against real servers, each major that is there.

use std::time::Duration;

use benefits_sync::lsn::Lsn;
use benefits_sync::pgoutput::{DeletedTuple, Message, OldTuple, Tuple, Value, decode};
use benefits_sync::postgres::{ConnectError, ConnectErrorClass, Target, connect_sql};
use benefits_sync::replication::{
    CloseReason, Connection, Frame, Problem, Remedy, ReplicationError, StartOptions, Stream,
};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::replication_support::{Cluster, Settings, majors, start_cluster};

const LIMIT: Duration = Duration::from_secs(30);

async fn create_slot(cluster: &Cluster) -> Lsn {
    let mut connection = Connection::connect(&cluster.target()).await.unwrap();
    connection.create_slot("slot", false, LIMIT).await.unwrap().consistent_point
}

async fn start(cluster: &Cluster, confirmed: watch::Receiver<Lsn>) -> Result<Stream, ReplicationError> {
    let connection = Connection::connect(&cluster.target()).await.unwrap();
    connection.start(StartOptions::new("slot", "Pub", confirmed)).await
}

async fn execute(cluster: &Cluster, statements: &str) {
    cluster.sql().await.batch_execute(statements).await.unwrap();
}

fn row(tuple: Tuple<'_>) -> Vec<String> {
    let show = |value| match value {
        Value::Null => "null".to_owned(),
        Value::Unchanged => "unchanged".to_owned(),
        Value::Text(text) => String::from_utf8_lossy(text).into_owned(),
        Value::Binary(_) => "binary".to_owned(),
    };
    tuple.values().map(show).collect()
}

/// A message in short, and the position to confirm after it.
fn describe(message: &Message<'_>) -> (String, Option<Lsn>) {
    let text = match message {
        Message::Begin { .. } => "begin".to_owned(),
        Message::Commit { end_lsn, .. } => return ("commit".to_owned(), Some(*end_lsn)),
        Message::Relation(relation) => format!("relation {}.{}", relation.schema, relation.name),
        Message::Type { name, .. } => format!("type {name}"),
        Message::Insert { new, .. } => format!("insert {:?}", row(*new)),
        Message::Update { old: OldTuple::KeyUnchanged, new, .. } => format!("update {:?}", row(*new)),
        Message::Update { old: OldTuple::Key(old) | OldTuple::Full(old), new, .. } => {
            format!("update {:?} -> {:?}", row(*old), row(*new))
        }
        Message::Delete { old: DeletedTuple::Key(old), .. } => format!("delete key {:?}", row(*old)),
        Message::Delete { old: DeletedTuple::Full(old), .. } => format!("delete {:?}", row(*old)),
        Message::Truncate { relations, cascade, .. } => {
            format!("truncate {} cascade={cascade}", relations.iter().count())
        }
        Message::StreamStart { first, .. } => format!("stream start first={first}"),
        Message::StreamStop => "stream stop".to_owned(),
        Message::StreamCommit { end_lsn, .. } => return ("stream commit".to_owned(), Some(*end_lsn)),
        Message::StreamAbort { .. } => "stream abort".to_owned(),
        other => format!("{other:?}"),
    };
    (text, None)
}

/// Reads messages up to the one that ends a transaction.
async fn transaction(stream: &mut Stream) -> (Vec<String>, Lsn) {
    let mut seen = Vec::new();
    let mut in_stream = false;
    loop {
        let frame = timeout(LIMIT, stream.next()).await.expect("a frame in time").unwrap();
        let Frame::Data { payload, .. } = frame else { continue };
        let decoded = decode(payload, in_stream).unwrap();
        match decoded.message {
            Message::StreamStart { .. } => in_stream = true,
            Message::StreamStop => in_stream = false,
            _ => assert!(!in_stream || decoded.xid.is_some()),
        }
        let (text, end) = describe(&decoded.message);
        seen.push(text);
        if let Some(end) = end {
            return (seen, end);
        }
    }
}

async fn confirmed_flush(cluster: &Cluster) -> Lsn {
    let session = cluster.sql().await;
    let query = "select confirmed_flush_lsn::text from pg_replication_slots where slot_name = 'slot'";
    session.query_one(query, &[]).await.unwrap().get::<_, String>(0).parse().unwrap()
}

#[tokio::test]
async fn changes_come_in_order_and_what_is_confirmed_moves_the_slot() {
    for major in majors() {
        let cluster = start_cluster(major, &Settings::default());
        execute(
            &cluster,
            "create type grade as enum ('a', 'b');
             create table t (id int primary key, name text, grade grade, big text);
             alter table t alter big set storage external;
             create publication \"Pub\" for table t",
        )
        .await;
        create_slot(&cluster).await;
        let (confirm, confirmed) = watch::channel(Lsn::ZERO);
        let mut stream = start(&cluster, confirmed).await.unwrap();

        execute(&cluster, "insert into t values (1, 'x', 'a', repeat('y', 10000)), (2, null, 'b', null)")
            .await;
        let (seen, _) = transaction(&mut stream).await;
        assert_eq!(seen[..3], ["begin", "type grade", "relation public.t"]);
        assert!(seen[3].starts_with("insert [\"1\", \"x\", \"a\", \"yyyy"));
        assert_eq!(seen[4..], ["insert [\"2\", \"null\", \"b\", \"null\"]", "commit"]);

        execute(&cluster, "update t set name = 'z' where id = 1").await;
        let (seen, _) = transaction(&mut stream).await;
        assert_eq!(seen, ["begin", "update [\"1\", \"z\", \"a\", \"unchanged\"]", "commit"]);

        execute(&cluster, "update t set id = 3 where id = 2").await;
        let (seen, _) = transaction(&mut stream).await;
        assert!(seen[1].starts_with("update [\"2\", \"null\", \"null\", \"null\"] -> [\"3\""), "{seen:?}");

        execute(&cluster, "alter table t add extra int; delete from t where id = 3; truncate t cascade")
            .await;
        let (seen, end) = transaction(&mut stream).await;
        assert!(
            seen.contains(&"delete key [\"3\", \"null\", \"null\", \"null\", \"null\"]".to_owned()),
            "{seen:?}"
        );
        assert_eq!(seen[seen.len() - 2..], ["truncate 1 cascade=true", "commit"]);

        confirm.send(end).unwrap();
        stream.close(LIMIT).await.unwrap();
        assert_eq!(confirmed_flush(&cluster).await, end, "{}", cluster.major);
    }
}

#[tokio::test]
async fn a_keepalive_of_an_idle_publication_can_be_confirmed() {
    for major in majors() {
        let cluster = start_cluster(major, &Settings::default());
        execute(&cluster, "create table t (id int); create publication \"Pub\"").await;
        create_slot(&cluster).await;
        let (confirm, confirmed) = watch::channel(Lsn::ZERO);
        let mut stream = start(&cluster, confirmed).await.unwrap();
        execute(&cluster, "insert into t select generate_series(1, 10000)").await;
        let session = cluster.sql().await;
        let end = session.query_one("select pg_current_wal_flush_lsn()::text", &[]).await.unwrap();
        let end: Lsn = end.get::<_, String>(0).parse().unwrap();
        let idle_end = loop {
            match timeout(LIMIT, stream.next()).await.expect("a keepalive in time").unwrap() {
                Frame::Keepalive { wal_end, .. } if wal_end >= end => break wal_end,
                Frame::Data { payload, .. } => {
                    assert!(matches!(payload[0], b'B' | b'C'), "only empty transactions");
                }
                _ => {}
            }
        };
        confirm.send(idle_end).unwrap();
        stream.close(LIMIT).await.unwrap();
        assert_eq!(confirmed_flush(&cluster).await, idle_end);
    }
}

#[tokio::test]
async fn a_large_open_transaction_comes_in_chunks() {
    for major in majors() {
        let settings = Settings {
            config: vec!["logical_decoding_work_mem = '64kB'"],
            tls: Some(&rcgen::PKCS_ECDSA_P256_SHA256),
            ..Settings::default()
        };
        let cluster = start_cluster(major, &settings);
        execute(
            &cluster,
            "create table t (id int primary key, name text); create publication \"Pub\" for table t",
        )
        .await;
        create_slot(&cluster).await;
        // Over TLS, which reads and writes through one state.
        let ca = cluster.ca();
        let url = cluster.tcp_url("postgres", &format!("?sslmode=verify-full&sslrootcert={}", ca.display()));
        let connection = Connection::connect(&Target::parse(&url).unwrap()).await.unwrap();
        let (_confirm, confirmed) = watch::channel(Lsn::ZERO);
        let mut stream = connection.start(StartOptions::new("slot", "Pub", confirmed)).await.unwrap();
        execute(
            &cluster,
            "begin; insert into t select i, repeat('x', 100) from generate_series(1, 5000) i;
             savepoint s; insert into t select i, repeat('x', 100) from generate_series(5001, 10000) i;
             rollback to s; commit",
        )
        .await;
        let (seen, _) = transaction(&mut stream).await;
        let count = |text: &str| seen.iter().filter(|message| message.starts_with(text)).count();
        assert_eq!(seen[0], "stream start first=true");
        assert!(count("stream start first=false") > 2);
        assert_eq!(count("stream start"), count("stream stop"));
        assert!(count("insert") >= 5000);
        assert_eq!(count("stream abort"), 1, "the subtransaction's");
        assert_eq!(seen.last().unwrap(), "stream commit");
        stream.close(LIMIT).await.unwrap();
    }
}

fn problem(error: &ReplicationError) -> &Problem {
    match error {
        ReplicationError::Server { problem, .. } => problem,
        other => panic!("not the server's error: {other:?}"),
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_slot_is_told_apart() {
    for major in majors() {
        let cluster = start_cluster(major, &Settings::default());
        let (_confirm, confirmed) = watch::channel(Lsn::ZERO);
        execute(&cluster, "create publication \"Pub\"").await;

        let missing = start(&cluster, confirmed.clone()).await.err().unwrap();
        assert_eq!((problem(&missing), missing.remedy()), (&Problem::SlotMissing, Remedy::RecreateSlot));

        execute(&cluster, "select pg_create_physical_replication_slot('slot')").await;
        let foreign = start(&cluster, confirmed.clone()).await.err().unwrap();
        assert_eq!((problem(&foreign), foreign.remedy()), (&Problem::SlotForeign, Remedy::Configuration));
        execute(&cluster, "select pg_drop_replication_slot('slot')").await;

        create_slot(&cluster).await;
        let mut again = Connection::connect(&cluster.target()).await.unwrap();
        let exists = again.create_slot("slot", true, LIMIT).await.unwrap_err();
        assert_eq!(problem(&exists), &Problem::SlotExists);

        let stream = start(&cluster, confirmed.clone()).await.unwrap();
        let busy = start(&cluster, confirmed.clone()).await.err().unwrap();
        assert!(matches!(problem(&busy), Problem::SlotBusy { pid: Some(pid) } if *pid > 0), "{busy:?}");
        assert_eq!(busy.remedy(), Remedy::Retry);
        stream.close(LIMIT).await.unwrap();
        again.drop_slot("slot").await.unwrap();
    }
}

#[tokio::test]
async fn a_slot_whose_wal_is_gone_is_lost() {
    for major in majors() {
        let settings = Settings {
            config: vec!["max_slot_wal_keep_size = '1MB'", "min_wal_size = '32MB'", "max_wal_size = '32MB'"],
            ..Settings::default()
        };
        let cluster = start_cluster(major, &settings);
        execute(&cluster, "create publication \"Pub\"").await;
        create_slot(&cluster).await;
        let session = cluster.sql().await;
        for _ in 0..4 {
            session.batch_execute("select pg_logical_emit_message(false, 'x', 'y')").await.unwrap();
            session.batch_execute("select pg_switch_wal()").await.unwrap();
        }
        session.batch_execute("checkpoint").await.unwrap();
        let (_confirm, confirmed) = watch::channel(Lsn::ZERO);
        let lost = start(&cluster, confirmed).await.err().unwrap();
        assert_eq!((problem(&lost), lost.remedy()), (&Problem::SlotLost, Remedy::RecreateSlot), "{lost:?}");
    }
}

#[tokio::test]
async fn a_wal_level_below_logical_is_a_matter_of_configuration() {
    for major in majors() {
        let settings = Settings { config: vec!["wal_level = replica"], ..Settings::default() };
        let cluster = start_cluster(major, &settings);
        let mut connection = Connection::connect(&cluster.target()).await.unwrap();
        let error = connection.create_slot("slot", false, LIMIT).await.unwrap_err();
        assert!(matches!(&error, ReplicationError::WalLevel { found } if found == "replica"), "{error:?}");
        assert_eq!(error.remedy(), Remedy::Configuration);
    }
}

#[tokio::test]
async fn a_slot_that_waits_for_an_old_transaction_is_cancelled_and_leaves_nothing() {
    for major in majors() {
        let cluster = start_cluster(major, &Settings::default());
        let mut old = cluster.sql().await;
        let transaction = old.transaction().await.unwrap();
        transaction.batch_execute("select pg_current_xact_id()").await.unwrap();
        let mut connection = Connection::connect(&cluster.target()).await.unwrap();
        let error = connection.create_slot("slot", false, Duration::from_millis(300)).await.unwrap_err();
        assert!(matches!(error, ReplicationError::SlotCreationTimedOut { .. }), "{error:?}");
        assert!(error.hint().unwrap().contains("pg_stat_activity"));
        let left = connection.simple_query("select slot_name from pg_replication_slots").await.unwrap();
        assert!(left.is_empty(), "{left:?}");
        transaction.commit().await.unwrap();
        connection.create_slot("slot", false, LIMIT).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fast_shutdown_finishes_when_keepalives_are_confirmed() {
    for major in majors() {
        let cluster = start_cluster(major, &Settings::default());
        execute(&cluster, "create publication \"Pub\"").await;
        create_slot(&cluster).await;
        let (confirm, confirmed) = watch::channel(Lsn::ZERO);
        let mut stream = start(&cluster, confirmed).await.unwrap();
        let reading = tokio::spawn(async move {
            loop {
                match timeout(LIMIT, stream.next()).await.expect("an end in time") {
                    Ok(Frame::Keepalive { wal_end, .. }) => drop(confirm.send(wal_end)),
                    Ok(_) => {}
                    Err(error) => break error,
                }
            }
        });
        // pg_ctl fails when the server has not stopped in time.
        tokio::task::block_in_place(|| cluster.pg_ctl(&["-m", "fast", "-t", "20", "-w", "stop"]));
        let end = reading.await.unwrap();
        // Which of the two it says depends on what the walsender was doing at that moment.
        let in_order = matches!(
            end,
            ReplicationError::Closed { reason: CloseReason::Server }
                | ReplicationError::Server { problem: Problem::ShuttingDown, .. }
        );
        assert!(in_order, "{end:?}");
    }
}

#[tokio::test]
async fn a_publication_that_is_missing_is_found_at_the_first_change() {
    for major in majors() {
        let cluster = start_cluster(major, &Settings::default());
        execute(&cluster, "create table t (id int primary key)").await;
        create_slot(&cluster).await;
        let (_confirm, confirmed) = watch::channel(Lsn::ZERO);
        let mut stream = start(&cluster, confirmed).await.unwrap();
        execute(&cluster, "insert into t values (1)").await;
        loop {
            match timeout(LIMIT, stream.next()).await.expect("an answer in time") {
                Ok(Frame::Notice { severity, message, .. }) => {
                    assert!(major >= 18, "only 18 goes on");
                    assert_eq!((severity.as_str(), message.contains("\"Pub\"")), ("WARNING", true));
                    break;
                }
                Ok(_) => {}
                Err(error) => {
                    assert!(major < 18, "18 goes on: {error:?}");
                    assert_eq!(problem(&error), &Problem::PublicationMissing);
                    break;
                }
            }
        }
    }
}

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
    let key = rcgen::KeyPair::generate().unwrap();
    let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let path = cluster.path().join("other-ca.pem");
    std::fs::write(&path, ca.self_signed(&key).unwrap().pem()).unwrap();
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
