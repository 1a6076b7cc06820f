//! An encoder written from PostgreSQL's documentation, and the decoder held against it.

use proptest::prelude::*;

use super::*;
use crate::lsn::Lsn;

/// A column value that owns its bytes.
#[derive(Debug, Clone, PartialEq)]
enum Cell {
    Null,
    Unchanged,
    Text(Vec<u8>),
    Binary(Vec<u8>),
}

type Cells = Vec<Cell>;

/// A message that owns its parts, as a server would have it before encoding.
#[derive(Debug, Clone)]
enum Source {
    Begin(u64, i64, u32),
    Commit(u64, u64, i64),
    Origin(u64, String),
    Relation(Relation),
    Type(u32, String, String),
    Insert(u32, Cells),
    Update(u32, Option<(bool, Cells)>, Cells),
    Delete(u32, bool, Cells),
    Truncate(Vec<u32>, u8),
    Logical(bool, u64, String, Vec<u8>),
    StreamStart(u32, bool),
    StreamStop,
    StreamCommit(u32, u64, u64, i64),
    StreamAbort(u32, u32, Option<(u64, i64)>),
}

#[derive(Default)]
struct Out(Vec<u8>);

impl Out {
    fn put(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }
    fn name(self, name: &str) -> Self {
        self.put(name.as_bytes()).put(&[0])
    }
    fn number(self, number: usize) -> Self {
        self.put(&u32::try_from(number).unwrap().to_be_bytes())
    }
    fn count(self, number: usize) -> Self {
        self.put(&u16::try_from(number).unwrap().to_be_bytes())
    }
    fn tuple(self, kind: u8, cells: &Cells) -> Self {
        let out = self.put(&[kind]).count(cells.len());
        cells.iter().fold(out, |out, cell| match cell {
            Cell::Null => out.put(b"n"),
            Cell::Unchanged => out.put(b"u"),
            Cell::Text(bytes) => out.put(b"t").number(bytes.len()).put(bytes),
            Cell::Binary(bytes) => out.put(b"b").number(bytes.len()).put(bytes),
        })
    }
}

fn encode(source: &Source, xid: Option<u32>) -> Vec<u8> {
    let tag = |tag: u8| Out::default().put(&[tag]);
    let change = |letter: u8| match xid {
        Some(xid) => tag(letter).put(&xid.to_be_bytes()),
        None => tag(letter),
    };
    let out = match source {
        Source::Begin(lsn, at, xid) => {
            tag(b'B').put(&lsn.to_be_bytes()).put(&at.to_be_bytes()).put(&xid.to_be_bytes())
        }
        Source::Commit(lsn, end, at) => {
            tag(b'C').put(&[0]).put(&lsn.to_be_bytes()).put(&end.to_be_bytes()).put(&at.to_be_bytes())
        }
        Source::Origin(lsn, name) => tag(b'O').put(&lsn.to_be_bytes()).name(name),
        Source::Relation(relation) => encode_relation(change(b'R'), relation),
        Source::Type(oid, schema, name) => change(b'Y').put(&oid.to_be_bytes()).name(schema).name(name),
        Source::Insert(relation, new) => change(b'I').put(&relation.to_be_bytes()).tuple(b'N', new),
        Source::Update(relation, old, new) => {
            let out = change(b'U').put(&relation.to_be_bytes());
            match old {
                None => out,
                Some((full, old)) => out.tuple(if *full { b'O' } else { b'K' }, old),
            }
            .tuple(b'N', new)
        }
        Source::Delete(relation, full, old) => {
            change(b'D').put(&relation.to_be_bytes()).tuple(if *full { b'O' } else { b'K' }, old)
        }
        Source::Truncate(relations, options) => {
            relations.iter().fold(change(b'T').number(relations.len()).put(&[*options]), |out, oid| {
                out.put(&oid.to_be_bytes())
            })
        }
        Source::Logical(transactional, lsn, prefix, content) => change(b'M')
            .put(&[u8::from(*transactional)])
            .put(&lsn.to_be_bytes())
            .name(prefix)
            .number(content.len())
            .put(content),
        Source::StreamStart(xid, first) => tag(b'S').put(&xid.to_be_bytes()).put(&[u8::from(*first)]),
        Source::StreamStop => tag(b'E'),
        Source::StreamCommit(xid, lsn, end, at) => tag(b'c')
            .put(&xid.to_be_bytes())
            .put(&[0])
            .put(&lsn.to_be_bytes())
            .put(&end.to_be_bytes())
            .put(&at.to_be_bytes()),
        Source::StreamAbort(xid, subxid, position) => {
            let out = tag(b'A').put(&xid.to_be_bytes()).put(&subxid.to_be_bytes());
            match position {
                Some((lsn, at)) => out.put(&lsn.to_be_bytes()).put(&at.to_be_bytes()),
                None => out,
            }
        }
    };
    out.0
}

fn encode_relation(out: Out, relation: &Relation) -> Out {
    let identity = match relation.replica_identity {
        ReplicaIdentity::Default => b'd',
        ReplicaIdentity::Nothing => b'n',
        ReplicaIdentity::Full => b'f',
        ReplicaIdentity::Index => b'i',
    };
    let schema = if relation.schema == "pg_catalog" { "" } else { &relation.schema };
    let out = out
        .put(&relation.oid.to_be_bytes())
        .name(schema)
        .name(&relation.name)
        .put(&[identity])
        .count(relation.columns.len());
    relation.columns.iter().fold(out, |out, column| {
        out.put(&[u8::from(column.is_key)])
            .name(&column.name)
            .put(&column.type_oid.to_be_bytes())
            .put(&column.type_modifier.to_be_bytes())
    })
}

fn owned(tuple: Tuple<'_>) -> Cells {
    let cells: Cells = tuple
        .values()
        .map(|value| match value {
            Value::Null => Cell::Null,
            Value::Unchanged => Cell::Unchanged,
            Value::Text(bytes) => Cell::Text(bytes.to_vec()),
            Value::Binary(bytes) => Cell::Binary(bytes.to_vec()),
        })
        .collect();
    assert_eq!(cells.len(), tuple.columns());
    cells
}

/// Back from the decoder's form to the owned one.
fn source(message: &Message<'_>) -> Source {
    match *message {
        Message::Begin { final_lsn, committed_at, xid } => Source::Begin(final_lsn.0, committed_at.0, xid),
        Message::Commit { commit_lsn, end_lsn, committed_at } => {
            Source::Commit(commit_lsn.0, end_lsn.0, committed_at.0)
        }
        Message::Origin { commit_lsn, name } => Source::Origin(commit_lsn.0, name.to_owned()),
        Message::Relation(ref relation) => Source::Relation(relation.clone()),
        Message::Type { oid, schema, name } => Source::Type(oid, schema.to_owned(), name.to_owned()),
        Message::Insert { relation, new } => Source::Insert(relation, owned(new)),
        Message::Update { relation, old, new } => {
            let old = match old {
                OldTuple::KeyUnchanged => None,
                OldTuple::Key(old) => Some((false, owned(old))),
                OldTuple::Full(old) => Some((true, owned(old))),
            };
            Source::Update(relation, old, owned(new))
        }
        Message::Delete { relation, old: DeletedTuple::Key(old) } => {
            Source::Delete(relation, false, owned(old))
        }
        Message::Delete { relation, old: DeletedTuple::Full(old) } => {
            Source::Delete(relation, true, owned(old))
        }
        Message::Truncate { relations, cascade, restart_identity } => {
            Source::Truncate(relations.iter().collect(), u8::from(cascade) | u8::from(restart_identity) << 1)
        }
        Message::Logical { transactional, lsn, prefix, content } => {
            Source::Logical(transactional, lsn.0, prefix.to_owned(), content.to_vec())
        }
        Message::StreamStart { xid, first } => Source::StreamStart(xid, first),
        Message::StreamStop => Source::StreamStop,
        Message::StreamCommit { xid, commit_lsn, end_lsn, committed_at } => {
            Source::StreamCommit(xid, commit_lsn.0, end_lsn.0, committed_at.0)
        }
        Message::StreamAbort { xid, subxid, position } => {
            Source::StreamAbort(xid, subxid, position.map(|position| (position.lsn.0, position.at.0)))
        }
    }
}

fn cells() -> impl Strategy<Value = Cells> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..20);
    let cell = prop_oneof![
        Just(Cell::Null),
        Just(Cell::Unchanged),
        bytes().prop_map(Cell::Text),
        bytes().prop_map(Cell::Binary)
    ];
    proptest::collection::vec(cell, 0..8)
}

fn name() -> impl Strategy<Value = String> {
    "[^\0]{1,12}"
}

fn relation() -> impl Strategy<Value = Relation> {
    let column = (any::<bool>(), name(), any::<u32>(), any::<i32>())
        .prop_map(|(is_key, name, type_oid, type_modifier)| Column { is_key, name, type_oid, type_modifier });
    let identity = prop_oneof![
        Just(ReplicaIdentity::Default),
        Just(ReplicaIdentity::Nothing),
        Just(ReplicaIdentity::Full),
        Just(ReplicaIdentity::Index)
    ];
    let schema = prop_oneof![name(), Just("pg_catalog".to_owned())];
    (any::<u32>(), schema, name(), identity, proptest::collection::vec(column, 0..6)).prop_map(
        |(oid, schema, name, replica_identity, columns)| Relation {
            oid,
            schema,
            name,
            replica_identity,
            columns,
        },
    )
}

fn any_source() -> impl Strategy<Value = Source> {
    let content = proptest::collection::vec(any::<u8>(), 0..30);
    prop_oneof![
        (any::<u64>(), any::<i64>(), any::<u32>()).prop_map(|(a, b, c)| Source::Begin(a, b, c)),
        (any::<u64>(), any::<u64>(), any::<i64>()).prop_map(|(a, b, c)| Source::Commit(a, b, c)),
        (any::<u64>(), name()).prop_map(|(a, b)| Source::Origin(a, b)),
        relation().prop_map(Source::Relation),
        (any::<u32>(), name(), name()).prop_map(|(a, b, c)| Source::Type(a, b, c)),
        (any::<u32>(), cells()).prop_map(|(a, b)| Source::Insert(a, b)),
        (any::<u32>(), proptest::option::of((any::<bool>(), cells())), cells())
            .prop_map(|(a, b, c)| Source::Update(a, b, c)),
        (any::<u32>(), any::<bool>(), cells()).prop_map(|(a, b, c)| Source::Delete(a, b, c)),
        (proptest::collection::vec(any::<u32>(), 0..5), 0..4_u8).prop_map(|(a, b)| Source::Truncate(a, b)),
        (any::<bool>(), any::<u64>(), name(), content).prop_map(|(a, b, c, d)| Source::Logical(a, b, c, d)),
        (any::<u32>(), any::<bool>()).prop_map(|(a, b)| Source::StreamStart(a, b)),
        Just(Source::StreamStop),
        (any::<u32>(), any::<u64>(), any::<u64>(), any::<i64>())
            .prop_map(|(a, b, c, d)| Source::StreamCommit(a, b, c, d)),
        (any::<u32>(), any::<u32>(), proptest::option::of((any::<u64>(), any::<i64>())))
            .prop_map(|(a, b, c)| Source::StreamAbort(a, b, c)),
    ]
}

/// Whether the message carries an xid inside a stream.
fn is_change(source: &Source) -> bool {
    matches!(
        source,
        Source::Relation(_)
            | Source::Type(..)
            | Source::Insert(..)
            | Source::Update(..)
            | Source::Delete(..)
            | Source::Truncate(..)
            | Source::Logical(..)
    )
}

proptest! {
    #[test]
    fn what_is_encoded_decodes_to_the_same(message in any_source(), streamed in any::<Option<u32>>()) {
        let xid = streamed.filter(|_| is_change(&message));
        let payload = encode(&message, xid);
        let decoded = decode(&payload, streamed.is_some()).unwrap();
        prop_assert_eq!(decoded.xid, xid);
        prop_assert_eq!(format!("{:?}", source(&decoded.message)), format!("{message:?}"));
    }

    #[test]
    fn a_message_cut_anywhere_is_an_error(message in any_source(), streamed in any::<Option<u32>>()) {
        let payload = encode(&message, streamed.filter(|_| is_change(&message)));
        // An abort without its position is an abort of an older protocol.
        let old_abort = matches!(message, Source::StreamAbort(_, _, Some(_))).then_some(9);
        for end in (0..payload.len()).filter(|end| Some(*end) != old_abort) {
            let error = decode(&payload[..end], streamed.is_some()).unwrap_err();
            prop_assert!(error.offset <= end);
            prop_assert_eq!(error.tag, payload[..end].first().copied());
        }
    }

    #[test]
    fn bytes_after_a_message_are_an_error(message in any_source(), extra in 1..8_usize) {
        let mut payload = encode(&message, None);
        payload.resize(payload.len() + extra, 0);
        let is_abort = matches!(message, Source::StreamAbort(..));
        let fault = decode(&payload, false).unwrap_err().fault;
        prop_assert!(is_abort || fault == Fault::Trailing(extra), "{:?}", fault);
    }

    #[test]
    fn any_bytes_at_all_are_survived(
        tag in proptest::sample::select(b"BCORYIUDTMSEcAbPKrp?".to_vec()),
        rest in proptest::collection::vec(prop_oneof![Just(0_u8), Just(b'N'), Just(b't'), Just(0xff), any::<u8>()], 0..60),
        in_stream in any::<bool>(),
    ) {
        let payload = [&[tag], rest.as_slice()].concat();
        match decode(&payload, in_stream) {
            Ok(decoded) => drop(source(&decoded.message)),
            Err(error) => prop_assert!(error.offset <= payload.len()),
        }
    }
}

#[test]
fn errors_say_what_is_wrong_and_where() {
    for (payload, expected) in [
        (b"".as_slice(), "pgoutput message (none): the payload is empty at byte 0"),
        (b"?", "pgoutput message '?': the message type is unknown at byte 0"),
        (b"\x01", "pgoutput message 0x01: the message type is unknown at byte 0"),
        (
            b"P",
            "pgoutput message 'P': a two-phase message, which was not asked for (option two_phase) at byte 0",
        ),
        (b"I\0\0\0\x01N\xff\xff", "pgoutput message 'I': a tuple's column count is negative at byte 6"),
        (b"I\0\0\0\x01N\0\x01x", "pgoutput message 'I': a column has the unknown code 120 at byte 8"),
        (
            b"I\0\0\0\x01N\0\x01t\0\0\0\x05abc",
            "pgoutput message 'I': the payload ends inside a column's value at byte 13",
        ),
        (b"O\0\0\0\0\0\0\0\x01\xff\0", "pgoutput message 'O': the origin's name is not UTF-8 at byte 9"),
        (b"E!", "pgoutput message 'E': 1 bytes are left over at byte 1"),
    ] {
        assert_eq!(decode(payload, false).unwrap_err().to_string(), expected);
    }
}

#[test]
fn a_false_count_reserves_no_memory() {
    let payload = b"R\0\0\0\x01a\0b\0d\x7f\xff\x01c\0\0\0\0\0\0\0\0\0";
    assert!(matches!(decode(payload, false).unwrap_err().fault, Fault::Truncated(_)));
    let payload = b"T\x7f\xff\xff\xff\0";
    assert!(matches!(decode(payload, false).unwrap_err().fault, Fault::Truncated(_)));
}

#[test]
fn timestamps_count_from_the_year_2000() {
    assert_eq!(Timestamp(0).unix_micros(), 946_684_800_000_000);
    assert_eq!(Timestamp::from_unix_micros(Timestamp(12).unix_micros()), Timestamp(12));
    assert_eq!(Lsn::ZERO.to_string(), "0/0");
}
