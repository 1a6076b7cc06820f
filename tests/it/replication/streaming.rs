//! What a stream brings, and that what is confirmed moves the slot.

use benefits_sync::lsn::Lsn;
use benefits_sync::pgoutput::{DeletedTuple, Message, OldTuple, Tuple, Value, decode};
use benefits_sync::postgres::Target;
use benefits_sync::replication::{
    CloseReason, Connection, Frame, Problem, ReplicationError, StartOptions, Stream,
};
use tokio::sync::watch;
use tokio::time::timeout;

use super::cluster::{Cluster, Settings, majors, start_cluster};
use super::{LIMIT, create_slot, execute, problem, start};

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
