//! One row version, as the bytes it came in.

use super::error::{DecodeError, Fault};
use super::reader::Reader;

const NULL: u8 = b'n';
const UNCHANGED: u8 = b'u';
const TEXT: u8 = b't';
const BINARY: u8 = b'b';

/// A row version. Its framing has been checked; the values are read when they are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuple<'a> {
    columns: u16,
    body: &'a [u8],
}

/// One column of a row version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// SQL null. In a key-only old tuple also every column outside the replica identity.
    Null,
    /// An out-of-line (TOAST) value that the update did not touch: the WAL does not have it. Not null, and not known here.
    Unchanged,
    /// The value in text form, in `client_encoding`.
    Text(&'a [u8]),
    /// The value in the type's binary form (only when `binary` was asked for).
    Binary(&'a [u8]),
}

impl<'a> Tuple<'a> {
    /// How many columns the tuple has; the order is that of the last Relation message.
    pub fn columns(&self) -> usize {
        usize::from(self.columns)
    }

    /// The values, in column order.
    pub fn values(&self) -> Values<'a> {
        Values { left: self.columns, reader: Reader::new(self.body) }
    }

    /// Reads a tuple's framing and keeps its bytes.
    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let columns = reader.count("a tuple's column count")?;
        let body = reader.rest();
        let before = reader.remaining();
        for _ in 0..columns {
            read_value(reader)?;
        }
        let length = before - reader.remaining();
        Ok(Self { columns, body: body.get(..length).unwrap_or_default() })
    }
}

/// Iterator over a tuple's values.
#[derive(Debug, Clone)]
pub struct Values<'a> {
    left: u16,
    reader: Reader<'a>,
}

impl<'a> Iterator for Values<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        self.left = self.left.checked_sub(1)?;
        // Tuple::read went over the same bytes, so this cannot fail.
        read_value(&mut self.reader).ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (usize::from(self.left), Some(usize::from(self.left)))
    }
}

impl ExactSizeIterator for Values<'_> {}

fn read_value<'a>(reader: &mut Reader<'a>) -> Result<Value<'a>, DecodeError> {
    let before = reader.clone();
    match reader.byte("a column's kind")? {
        NULL => Ok(Value::Null),
        UNCHANGED => Ok(Value::Unchanged),
        TEXT => read_bytes(reader).map(Value::Text),
        BINARY => read_bytes(reader).map(Value::Binary),
        code => Err(before.fail(Fault::UnknownCode { what: "a column", code })),
    }
}

fn read_bytes<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], DecodeError> {
    let length = reader.length("a column's length")?;
    reader.bytes(length, "a column's value")
}
