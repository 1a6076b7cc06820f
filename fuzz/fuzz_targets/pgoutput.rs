//! `cargo +nightly fuzz run pgoutput`: no payload makes the decoder panic, and a decoded tuple has the columns it
//! announces. The first byte says whether the message is inside a streamed chunk.

#![no_main]

use benefits_sync::pgoutput::{DeletedTuple, Message, OldTuple, Tuple, decode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((mode, payload)) = bytes.split_first() else { return };
    match decode(payload, mode & 1 == 1) {
        Ok(decoded) => walk(&decoded.message),
        Err(error) => assert!(error.offset <= payload.len()),
    }
});

fn walk(message: &Message<'_>) {
    match message {
        Message::Insert { new, .. } => check(*new),
        Message::Update { old, new, .. } => {
            check(*new);
            if let OldTuple::Key(old) | OldTuple::Full(old) = old {
                check(*old);
            }
        }
        Message::Delete { old: DeletedTuple::Key(old) | DeletedTuple::Full(old), .. } => check(*old),
        Message::Truncate { relations, .. } => assert!(relations.iter().count() < usize::MAX),
        _ => {}
    }
}

fn check(tuple: Tuple<'_>) {
    assert_eq!(tuple.values().count(), tuple.columns());
}
