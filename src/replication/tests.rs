//! The client against a scripted walsender over an in-memory pipe, with the clock paused where time matters.

use std::time::Duration;

use secrecy::SecretString;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::watch;
use tokio::time::Instant;

use super::connection::Connection;
use super::frames::Frames;
use super::status::{Timing, status_update};
use super::*;
use crate::lsn::Lsn;
use crate::pgoutput::Timestamp;
use crate::postgres::{ConnectError, Target, Wire};

const IDLE_LIMIT: Duration = Duration::from_mins(1);
const INTERVAL: Duration = Duration::from_secs(10);

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[tag], length.to_be_bytes().as_slice(), body].concat()
}

fn data(wal_start: u64, payload: &[u8]) -> Vec<u8> {
    let body = [b"w", wal_start.to_be_bytes().as_slice(), &[0; 16], payload].concat();
    message(b'd', &body)
}

fn keepalive(wal_end: u64, reply: bool) -> Vec<u8> {
    let body = [b"k", wal_end.to_be_bytes().as_slice(), &[0; 8], &[u8::from(reply)]].concat();
    message(b'd', &body)
}

/// A status update as the server sees it.
#[derive(Debug, PartialEq)]
struct Status {
    write: u64,
    flush: u64,
    ask: bool,
}

/// The server's side of a running stream.
struct Walsender {
    reader: ReadHalf<DuplexStream>,
    writer: WriteHalf<DuplexStream>,
}

impl Walsender {
    async fn send(&mut self, bytes: &[u8]) {
        self.writer.write_all(bytes).await.unwrap();
    }

    async fn status(&mut self) -> Status {
        let mut bytes = [0; 39];
        self.reader.read_exact(&mut bytes).await.unwrap();
        assert_eq!(bytes[..6], [b'd', 0, 0, 0, 38, b'r']);
        let number = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
        assert_eq!(number(14), number(22), "flush is apply");
        Status { write: number(6), flush: number(14), ask: bytes[38] == 1 }
    }
}

/// A stream right after `CopyBothResponse`, its server, and the handle that confirms. The first status has been read.
async fn streaming() -> (Stream, Walsender, watch::Sender<Lsn>) {
    let (client, server) = tokio::io::duplex(1 << 20);
    let (reader, writer) = tokio::io::split(server);
    let (confirm, confirmed) = watch::channel(Lsn::ZERO);
    let (frames, write_half) = Frames::new(Wire::plain(client)).split();
    let stream = Stream::new(frames, write_half, confirmed, Timing::new(INTERVAL, None, IDLE_LIMIT));
    let mut walsender = Walsender { reader, writer };
    assert_eq!(walsender.status().await, Status { write: 0, flush: 0, ask: false });
    (stream, walsender, confirm)
}

#[tokio::test]
async fn frames_come_whole_however_the_bytes_are_cut() {
    let (mut stream, mut walsender, _confirm) = streaming().await;
    let bytes = [data(7, b"abc"), keepalive(9, false), message(b'S', b"x\0y\0"), data(8, b"")].concat();
    let sending = tokio::spawn(async move {
        for byte in bytes {
            walsender.send(&[byte]).await;
            tokio::task::yield_now().await;
        }
        walsender
    });
    assert!(matches!(stream.next().await.unwrap(), Frame::Data { wal_start: Lsn(7), payload: b"abc", .. }));
    assert_eq!(stream.next().await.unwrap(), Frame::Keepalive { wal_end: Lsn(9), reply_requested: false });
    assert!(matches!(stream.next().await.unwrap(), Frame::Data { wal_start: Lsn(8), payload: b"", .. }));
    assert!(stream.try_next().unwrap().is_none());
    drop(sending.await.unwrap());
    let end = stream.next().await.unwrap_err();
    assert!(matches!(end, ReplicationError::Closed { reason: CloseReason::Connection }), "{end:?}");
    assert_eq!(end.remedy(), Remedy::Retry);
}

#[tokio::test]
async fn a_cancelled_wait_loses_nothing() {
    let (mut stream, mut walsender, _confirm) = streaming().await;
    let bytes = data(7, b"payload");
    for piece in bytes.chunks(3) {
        // The wait takes what is there and is dropped.
        walsender.send(piece).await;
        if bytes.ends_with(piece) {
            break;
        }
        let wait = stream.next();
        assert!(futures_util::FutureExt::now_or_never(wait).is_none());
    }
    assert!(matches!(stream.next().await.unwrap(), Frame::Data { payload: b"payload", .. }));
}

#[tokio::test]
async fn what_is_buffered_is_taken_without_waiting() {
    let (mut stream, mut walsender, _confirm) = streaming().await;
    walsender.send(&[data(1, b"a"), data(2, b"b")].concat()).await;
    assert!(!stream.buffered());
    assert!(matches!(stream.next().await.unwrap(), Frame::Data { payload: b"a", .. }));
    assert!(stream.buffered());
    assert!(matches!(stream.try_next().unwrap(), Some(Frame::Data { payload: b"b", .. })));
    assert!(!stream.buffered());
}

#[tokio::test]
async fn a_large_frame_does_not_keep_its_memory() {
    let (client, mut server) = tokio::io::duplex(1 << 16);
    let mut frames = Frames::new(client);
    let large = data(1, &vec![b'x'; 8 << 20]);
    let sending = tokio::spawn(async move {
        server.write_all(&large).await.unwrap();
        server.write_all(&data(2, b"small")).await.unwrap();
        server
    });
    let head = frames.next().await.unwrap();
    assert_eq!(frames.take(head).len(), 25 + (8 << 20));
    assert!(frames.capacity() < 12 << 20, "{}", frames.capacity());
    let head = frames.next().await.unwrap();
    assert!(frames.take(head).ends_with(b"small"));
    assert!(frames.capacity() <= 1 << 20, "{}", frames.capacity());
    drop(sending.await.unwrap());
}

#[tokio::test]
async fn an_impossible_length_ends_the_stream() {
    for length in [[0, 0, 0, 3], [0xff; 4]] {
        let (mut stream, mut walsender, _confirm) = streaming().await;
        walsender.send(&[b"d", length.as_slice()].concat()).await;
        assert!(matches!(stream.next().await.unwrap_err(), ReplicationError::Protocol(_)));
    }
}

#[tokio::test(start_paused = true)]
async fn status_updates_go_out_on_the_timer_while_nobody_reads() {
    let (_stream, mut walsender, _confirm) = streaming().await;
    for _ in 0..3 {
        let before = Instant::now();
        walsender.status().await;
        assert_eq!(before.elapsed(), INTERVAL);
    }
}

#[tokio::test(start_paused = true)]
async fn a_keepalive_that_asks_is_answered_at_once() {
    let (mut stream, mut walsender, _confirm) = streaming().await;
    let before = Instant::now();
    walsender.send(&keepalive(500, true)).await;
    assert!(matches!(stream.next().await.unwrap(), Frame::Keepalive { reply_requested: true, .. }));
    assert_eq!(walsender.status().await, Status { write: 500, flush: 0, ask: false });
    assert_eq!(before.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn confirmations_go_out_soon_and_in_bundles() {
    let (_stream, mut walsender, confirm) = streaming().await;
    let before = Instant::now();
    for lsn in 1..=100 {
        confirm.send(Lsn(lsn)).unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(walsender.status().await, Status { write: 100, flush: 100, ask: false });
    assert_eq!(before.elapsed(), Duration::from_millis(50));
    drop(confirm);
    assert_eq!(walsender.status().await.flush, 100, "the last value stays without a sender");
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_asked_and_then_given_up() {
    let (mut stream, mut walsender, _confirm) = streaming().await;
    let before = Instant::now();
    let asked = tokio::spawn(async move {
        while !walsender.status().await.ask {}
        (before.elapsed(), walsender)
    });
    let error = stream.next().await.unwrap_err();
    assert!(matches!(error, ReplicationError::Silent { .. }), "{error:?}");
    assert_eq!(before.elapsed(), IDLE_LIMIT);
    assert_eq!(asked.await.unwrap().0, IDLE_LIMIT / 2);
}

#[tokio::test(start_paused = true)]
async fn silence_counts_over_cancelled_waits_and_any_byte_ends_it() {
    let (mut stream, mut walsender, _confirm) = streaming().await;
    let second = Duration::from_secs(1);
    for _ in 0..59 {
        assert!(tokio::time::timeout(second, stream.next()).await.is_err());
    }
    walsender.send(&keepalive(1, false)).await;
    assert!(matches!(stream.next().await.unwrap(), Frame::Keepalive { .. }));
    for _ in 0..59 {
        assert!(tokio::time::timeout(second, stream.next()).await.is_err());
    }
    let ended = tokio::time::timeout(2 * second, stream.next()).await.expect("an end").unwrap_err();
    assert!(matches!(ended, ReplicationError::Silent { .. }), "{ended:?}");
}

#[tokio::test]
async fn taking_leave_confirms_first_and_waits_for_the_answer() {
    let (stream, mut walsender, confirm) = streaming().await;
    walsender.send(&data(5, b"late")).await;
    confirm.send(Lsn(77)).unwrap();
    let closing = tokio::spawn(stream.close(Duration::from_secs(30)));
    let mut last = walsender.status().await;
    let mut tail = [0; 5];
    loop {
        walsender.reader.read_exact(&mut tail).await.unwrap();
        if tail[0] == b'c' {
            break;
        }
        // A status of the timer's before the last one: read its rest.
        let mut rest = [0; 34];
        walsender.reader.read_exact(&mut rest).await.unwrap();
        last = Status { write: 77, flush: u64::from_be_bytes(rest[9..17].try_into().unwrap()), ask: false };
    }
    assert_eq!(last.flush, 77);
    walsender.send(&message(b'c', b"")).await;
    walsender.send(&message(b'C', b"COPY 0\0")).await;
    closing.await.unwrap().unwrap();
    walsender.reader.read_exact(&mut tail).await.unwrap();
    assert_eq!(tail, [b'X', 0, 0, 0, 4]);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_answer_the_leave_is_left_anyway() {
    let (stream, _walsender, _confirm) = streaming().await;
    let error = stream.close(Duration::from_secs(5)).await.unwrap_err();
    assert!(matches!(error, ReplicationError::NoAnswer { command: "CopyDone", .. }), "{error:?}");
}

#[tokio::test]
async fn dropping_the_stream_closes_the_connection() {
    let (stream, mut walsender, _confirm) = streaming().await;
    drop(stream);
    assert_eq!(walsender.reader.read(&mut [0; 64]).await.unwrap(), 0);
}

#[tokio::test]
async fn errors_and_warnings_within_the_stream_are_typed() {
    let (mut stream, mut walsender, _confirm) = streaming().await;
    let fields = |severity: &str, code: &str| {
        format!("S{severity}\0V{severity}\0C{code}\0Mtext\0Dmore\0\0").into_bytes()
    };
    walsender.send(&message(b'N', &fields("WARNING", "55000"))).await;
    walsender.send(&message(b'E', &fields("FATAL", "57P01"))).await;
    let Frame::Notice { severity, code, message } = stream.next().await.unwrap() else { panic!("a notice") };
    assert_eq!((severity.as_str(), code.as_str(), message.as_str()), ("WARNING", "55000", "text"));
    let error = stream.next().await.unwrap_err();
    assert!(matches!(&error, ReplicationError::Server { problem: Problem::ShuttingDown, .. }), "{error:?}");
    assert_eq!((error.remedy(), error.detail().as_deref()), (Remedy::Retry, Some("more")));
}

#[test]
fn the_status_interval_keeps_clear_of_the_servers_timeout() {
    let interval =
        |timeout: Option<u64>| Timing::new(INTERVAL, timeout.map(Duration::from_millis), IDLE_LIMIT).interval;
    assert_eq!(interval(None), INTERVAL);
    assert_eq!(interval(Some(60_000)), INTERVAL);
    assert_eq!(interval(Some(3_000)), Duration::from_secs(1));
    assert_eq!(interval(Some(30)), Duration::from_millis(100));
}

#[test]
fn a_status_update_has_34_bytes_in_the_servers_order() {
    let update = status_update(Lsn(1), Lsn(2), Timestamp(3), true);
    let mut expected = vec![b'd', 0, 0, 0, 38, b'r'];
    for number in [1_u64, 2, 2, 3] {
        expected.extend(number.to_be_bytes());
    }
    expected.push(1);
    assert_eq!(update.to_vec(), expected);
}

/// Answers a startup message with `answer` and gives the client's outcome.
async fn greeted(answer: Vec<u8>, password: Option<&str>) -> Result<Connection, ConnectError> {
    let (client, mut server) = tokio::io::duplex(1 << 16);
    let mut target = Target::parse("postgresql://u@h/d").unwrap();
    target.password = password.map(|password| SecretString::from(password.to_owned()));
    let serving = tokio::spawn(async move {
        let length = server.read_u32().await.unwrap();
        let mut startup = vec![0; usize::try_from(length).unwrap() - 4];
        server.read_exact(&mut startup).await.unwrap();
        let text = String::from_utf8_lossy(&startup).into_owned();
        assert!(text.contains("replication\0database\0") && text.contains("datestyle=ISO"), "{text:?}");
        server.write_all(&answer).await.unwrap();
    });
    let outcome = Connection::over(Wire::plain(client), &target, &target.endpoints[0]).await;
    serving.await.unwrap();
    outcome
}

#[tokio::test]
async fn the_greeting_gives_the_version() {
    let answer = [
        message(b'R', &[0; 4]),
        message(b'S', b"server_version\x0016.3 (x)\0"),
        message(b'K', &[0, 0, 0, 1, 0, 0, 0, 2]),
        message(b'Z', b"I"),
    ];
    assert_eq!(greeted(answer.concat(), None).await.ok().unwrap().server_version(), 160_003);
}

#[tokio::test]
async fn odd_requests_for_authentication_are_refused_clearly() {
    let kerberos = greeted(message(b'R', &[0, 0, 0, 7]), None).await.err().unwrap();
    assert!(matches!(kerberos, ConnectError::Authentication { .. }), "{kerberos:?}");
    let unknown = greeted(message(b'R', b"\0\0\0\x0aSCRAM-NEXT\0\0"), Some("x")).await.err().unwrap();
    assert!(matches!(unknown, ConnectError::Authentication { .. }), "{unknown:?}");
    let no_password = greeted(message(b'R', &[0, 0, 0, 3]), None).await.err().unwrap();
    assert!(matches!(no_password, ConnectError::PasswordMissing { .. }), "{no_password:?}");
    let not_postgres = greeted(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), None).await.err().unwrap();
    assert!(matches!(not_postgres, ConnectError::Protocol { .. }), "{not_postgres:?}");
    let pooler = message(b'E', b"SFATAL\0C08P01\0Munsupported startup parameter: replication\0\0");
    let pooler = greeted(pooler, None).await.err().unwrap();
    assert_eq!(pooler.class(), crate::postgres::ConnectErrorClass::Usage);
    assert!(pooler.hint().unwrap().contains("replication_url"));
}

/// Offers these SCRAM mechanisms over a wire with or without a certificate's hash; gives the client's first message.
async fn scram_opening(mechanisms: &str, hash: Option<&[u8]>) -> String {
    let (client, mut server) = tokio::io::duplex(1 << 16);
    let target = Target::parse("postgresql://u:p@h/d").unwrap();
    let offer = message(b'R', &[[0, 0, 0, 10].as_slice(), mechanisms.as_bytes(), &[0]].concat());
    let serving = tokio::spawn(async move {
        let length = server.read_u32().await.unwrap();
        server.read_exact(&mut vec![0; usize::try_from(length).unwrap() - 4]).await.unwrap();
        server.write_all(&offer).await.unwrap();
        assert_eq!(server.read_u8().await.unwrap(), b'p');
        let length = server.read_u32().await.unwrap();
        let mut opening = vec![0; usize::try_from(length).unwrap() - 4];
        server.read_exact(&mut opening).await.unwrap();
        String::from_utf8_lossy(&opening).into_owned()
    });
    let wire = match hash {
        Some(hash) => Wire::bound(client, hash),
        None => Wire::plain(client),
    };
    let outcome = Connection::over(wire, &target, &target.endpoints[0]).await;
    assert!(matches!(outcome.err(), Some(ConnectError::Unreachable { .. })), "the server hung up");
    serving.await.unwrap()
}

#[tokio::test]
async fn the_channel_is_bound_where_both_sides_can() {
    let both = "SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0";
    let bound = scram_opening(both, Some(b"hash")).await;
    assert!(
        bound.starts_with("SCRAM-SHA-256-PLUS\0") && bound.contains("p=tls-server-end-point,,"),
        "{bound:?}"
    );
    // No hash: Ed25519, or no TLS.
    let plain = scram_opening(both, None).await;
    assert!(plain.starts_with("SCRAM-SHA-256\0") && plain.contains("n,,"), "{plain:?}");
    // Not offered although we could: the server must learn that, in case somebody took the offer away.
    let stripped = scram_opening("SCRAM-SHA-256\0", Some(b"hash")).await;
    assert!(stripped.starts_with("SCRAM-SHA-256\0") && stripped.contains("y,,"), "{stripped:?}");
}
