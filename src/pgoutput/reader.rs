//! A cursor over a payload that can only fail, never panic.

use super::error::{DecodeError, Fault};
use super::timestamp::Timestamp;
use crate::lsn::Lsn;

/// Reads big-endian parts from the front of a payload and remembers where it is.
#[derive(Debug, Clone)]
pub(super) struct Reader<'a> {
    whole: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(payload: &'a [u8]) -> Self {
        Self { whole: payload, rest: payload }
    }

    /// An error at the present offset.
    pub(super) fn fail(&self, fault: Fault) -> DecodeError {
        DecodeError { tag: self.whole.first().copied(), offset: self.whole.len() - self.rest.len(), fault }
    }

    pub(super) fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// What has not been read yet.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(super) fn bytes(&mut self, count: usize, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) =
            self.rest.split_at_checked(count).ok_or_else(|| self.fail(Fault::Truncated(what)))?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or_else(|| self.fail(Fault::Truncated(what)))?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(super) fn byte(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        self.array::<1>(what).map(|[byte]| byte)
    }

    pub(super) fn unsigned(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        self.array(what).map(u32::from_be_bytes)
    }

    pub(super) fn signed(&mut self, what: &'static str) -> Result<i32, DecodeError> {
        self.array(what).map(i32::from_be_bytes)
    }

    pub(super) fn lsn(&mut self, what: &'static str) -> Result<Lsn, DecodeError> {
        self.array(what).map(|bytes| Lsn(u64::from_be_bytes(bytes)))
    }

    pub(super) fn timestamp(&mut self, what: &'static str) -> Result<Timestamp, DecodeError> {
        self.array(what).map(|bytes| Timestamp(i64::from_be_bytes(bytes)))
    }

    /// A 16-bit count of columns.
    pub(super) fn count(&mut self, what: &'static str) -> Result<u16, DecodeError> {
        let before = self.clone();
        let count = self.array(what).map(i16::from_be_bytes)?;
        u16::try_from(count).or(Err(before.fail(Fault::Negative(what))))
    }

    /// A 32-bit length or count.
    pub(super) fn length(&mut self, what: &'static str) -> Result<usize, DecodeError> {
        let before = self.clone();
        let length = self.signed(what)?;
        usize::try_from(length).or(Err(before.fail(Fault::Negative(what))))
    }

    /// A zero-terminated name.
    pub(super) fn name(&mut self, what: &'static str) -> Result<&'a str, DecodeError> {
        let before = self.clone();
        let length = self
            .rest
            .iter()
            .position(|byte| *byte == 0)
            .ok_or_else(|| before.fail(Fault::Truncated(what)))?;
        let name = self.bytes(length, what)?;
        self.bytes(1, what)?;
        std::str::from_utf8(name).or(Err(before.fail(Fault::NotUtf8(what))))
    }

    /// Asserts that the message ends here.
    pub(super) fn end(&self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.fail(Fault::Trailing(self.rest.len()))) }
    }
}
