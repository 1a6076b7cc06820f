//! From bytes to messages: one function a message, in the order of PostgreSQL's documentation.

use super::error::{DecodeError, Fault};
use super::message::{
    Column, Decoded, DeletedTuple, Message, OldTuple, Relation, RelationIds, ReplicaIdentity,
    StreamAbortPosition,
};
use super::reader::Reader;
use super::tuple::Tuple;

/// Reads one message. `in_stream` is whether a stream start has come without its stream stop.
pub fn decode(payload: &[u8], in_stream: bool) -> Result<Decoded<'_>, DecodeError> {
    let mut reader = Reader::new(payload);
    let start = reader.clone();
    let tag = reader.byte("the tag").or(Err(start.fail(Fault::Empty)))?;
    let xid = match tag {
        b'R' | b'Y' | b'I' | b'U' | b'D' | b'T' | b'M' if in_stream => Some(reader.unsigned("the xid")?),
        _ => None,
    };
    let message = match tag {
        b'B' => begin(&mut reader)?,
        b'C' => commit(&mut reader)?,
        b'O' => Message::Origin {
            commit_lsn: reader.lsn("the origin's commit LSN")?,
            name: reader.name("the origin's name")?,
        },
        b'R' => Message::Relation(relation(&mut reader)?),
        b'Y' => Message::Type {
            oid: reader.unsigned("the type's oid")?,
            schema: catalog_if_empty(reader.name("the type's schema")?),
            name: reader.name("the type's name")?,
        },
        b'I' => insert(&mut reader)?,
        b'U' => update(&mut reader)?,
        b'D' => delete(&mut reader)?,
        b'T' => truncate(&mut reader)?,
        b'M' => logical(&mut reader)?,
        b'S' => Message::StreamStart { xid: reader.unsigned("the xid")?, first: first_chunk(&mut reader)? },
        b'E' => Message::StreamStop,
        b'c' => stream_commit(&mut reader)?,
        b'A' => stream_abort(&mut reader)?,
        b'b' | b'P' | b'K' | b'r' | b'p' => return Err(start.fail(Fault::NotAskedFor)),
        _ => return Err(start.fail(Fault::UnknownTag)),
    };
    reader.end()?;
    Ok(Decoded { xid, message })
}

fn begin<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    Ok(Message::Begin {
        final_lsn: reader.lsn("the final LSN")?,
        committed_at: reader.timestamp("the commit time")?,
        xid: reader.unsigned("the xid")?,
    })
}

fn commit<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    no_flags(reader)?;
    Ok(Message::Commit {
        commit_lsn: reader.lsn("the commit LSN")?,
        end_lsn: reader.lsn("the end LSN")?,
        committed_at: reader.timestamp("the commit time")?,
    })
}

fn relation(reader: &mut Reader<'_>) -> Result<Relation, DecodeError> {
    let oid = reader.unsigned("the relation's oid")?;
    let schema = catalog_if_empty(reader.name("the relation's schema")?).to_owned();
    let name = reader.name("the relation's name")?.to_owned();
    let before = reader.clone();
    let replica_identity = match reader.byte("the replica identity")? {
        b'd' => ReplicaIdentity::Default,
        b'n' => ReplicaIdentity::Nothing,
        b'f' => ReplicaIdentity::Full,
        b'i' => ReplicaIdentity::Index,
        code => return Err(before.fail(Fault::UnknownCode { what: "the replica identity", code })),
    };
    let count = reader.count("the relation's column count")?;
    // A column takes ten bytes at least: a false count must not reserve memory.
    let mut columns = Vec::with_capacity(usize::from(count).min(reader.remaining() / 10));
    for _ in 0..count {
        columns.push(Column {
            is_key: reader.byte("a column's flags")? & 1 == 1,
            name: reader.name("a column's name")?.to_owned(),
            type_oid: reader.unsigned("a column's type")?,
            type_modifier: reader.signed("a column's type modifier")?,
        });
    }
    Ok(Relation { oid, schema, name, replica_identity, columns })
}

fn insert<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    let relation = reader.unsigned("the relation's oid")?;
    Ok(Message::Insert { relation, new: new_tuple(reader)? })
}

fn update<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    let relation = reader.unsigned("the relation's oid")?;
    let before = reader.clone();
    let old = match reader.byte("the tuple's kind")? {
        b'K' => OldTuple::Key(Tuple::read(reader)?),
        b'O' => OldTuple::Full(Tuple::read(reader)?),
        b'N' => {
            *reader = before;
            OldTuple::KeyUnchanged
        }
        code => return Err(before.fail(Fault::UnknownCode { what: "the tuple", code })),
    };
    Ok(Message::Update { relation, old, new: new_tuple(reader)? })
}

fn delete<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    let relation = reader.unsigned("the relation's oid")?;
    let before = reader.clone();
    let old = match reader.byte("the tuple's kind")? {
        b'K' => DeletedTuple::Key(Tuple::read(reader)?),
        b'O' => DeletedTuple::Full(Tuple::read(reader)?),
        code => return Err(before.fail(Fault::UnknownCode { what: "the tuple", code })),
    };
    Ok(Message::Delete { relation, old })
}

fn truncate<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    let before = reader.clone();
    let count = reader.length("the relation count")?;
    let options = reader.byte("the truncate options")?;
    let length = count.checked_mul(4).ok_or_else(|| before.fail(Fault::Truncated("the relation oids")))?;
    let relations = RelationIds(reader.bytes(length, "the relation oids")?);
    Ok(Message::Truncate { relations, cascade: options & 1 != 0, restart_identity: options & 2 != 0 })
}

fn logical<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    let flags = reader.byte("the message's flags")?;
    let lsn = reader.lsn("the message's LSN")?;
    let prefix = reader.name("the message's prefix")?;
    let length = reader.length("the message's length")?;
    let content = reader.bytes(length, "the message's content")?;
    Ok(Message::Logical { transactional: flags & 1 == 1, lsn, prefix, content })
}

fn stream_commit<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    let xid = reader.unsigned("the xid")?;
    no_flags(reader)?;
    Ok(Message::StreamCommit {
        xid,
        commit_lsn: reader.lsn("the commit LSN")?,
        end_lsn: reader.lsn("the end LSN")?,
        committed_at: reader.timestamp("the commit time")?,
    })
}

fn stream_abort<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    let xid = reader.unsigned("the xid")?;
    let subxid = reader.unsigned("the subtransaction's xid")?;
    let position = match reader.remaining() {
        0 => None,
        _ => Some(StreamAbortPosition {
            lsn: reader.lsn("the abort LSN")?,
            at: reader.timestamp("the abort time")?,
        }),
    };
    Ok(Message::StreamAbort { xid, subxid, position })
}

fn new_tuple<'a>(reader: &mut Reader<'a>) -> Result<Tuple<'a>, DecodeError> {
    let before = reader.clone();
    match reader.byte("the tuple's kind")? {
        b'N' => Tuple::read(reader),
        code => Err(before.fail(Fault::UnknownCode { what: "the new tuple", code })),
    }
}

fn first_chunk(reader: &mut Reader<'_>) -> Result<bool, DecodeError> {
    reader.byte("the first-chunk flag").map(|flag| flag == 1)
}

/// Commits have a flags byte that no version uses; anything in it would change the meaning in ways unknown here.
fn no_flags(reader: &mut Reader<'_>) -> Result<(), DecodeError> {
    let before = reader.clone();
    match reader.byte("the flags")? {
        0 => Ok(()),
        code => Err(before.fail(Fault::UnknownCode { what: "the flags byte", code })),
    }
}

/// pgoutput writes `pg_catalog` as an empty name.
fn catalog_if_empty(schema: &str) -> &str {
    if schema.is_empty() { "pg_catalog" } else { schema }
}
