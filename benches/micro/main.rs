//! What a row costs, step by step: decoding, selection, validation and diff. `make bench` runs it after the pipeline;
//! `cargo bench --bench micro` alone.
#![allow(missing_docs, clippy::unwrap_used, reason = "a measuring program that cannot go on should stop")]

use benefits_sync::config::EmailSource;
use benefits_sync::pgoutput;
use benefits_sync::record::{
    COLUMNS, Described, FieldSet, FingerprintKey, Fingerprints, RawRecord, Rules, diff, prepare,
};
use benefits_sync::selection::{Description, KeyHasher, Members, RowFilter, Selector, Source};
use divan::{Bencher, black_box};

const EMPLOYEE: u32 = 1;

fn main() {
    divan::main();
}

/// The Relation message of a table of twelve columns, the first one its key.
fn relation() -> Vec<u8> {
    let mut out = vec![b'R'];
    out.extend(EMPLOYEE.to_be_bytes());
    out.extend(b"hr\0employee\0d");
    out.extend(12_u16.to_be_bytes());
    for at in 0..12 {
        out.push(u8::from(at == 0));
        out.extend(if at == 0 { "id".to_owned() } else { format!("c{at}") }.as_bytes());
        out.push(0);
        out.extend(25_u32.to_be_bytes());
        out.extend((-1_i32).to_be_bytes());
    }
    out
}

fn update(id: &str, value: &str) -> Vec<u8> {
    let mut out = vec![b'U'];
    out.extend(EMPLOYEE.to_be_bytes());
    out.push(b'N');
    out.extend(12_u16.to_be_bytes());
    for at in 0..12 {
        let cell = if at == 0 { id } else { value };
        out.push(b't');
        out.extend(u32::try_from(cell.len()).unwrap().to_be_bytes());
        out.extend(cell.as_bytes());
    }
    out
}

/// A selector with employee 1 synced, inside a transaction.
fn selector() -> Selector {
    let hasher = KeyHasher::with_key([3; 16]);
    let mut members = Members::default();
    members.enrol(hasher.employee(b"1"));
    let source = Source {
        id: 1,
        schema: "hr".to_owned(),
        table: "employee".to_owned(),
        employee_key: Some("id".to_owned()),
        starter_flag: None,
        mapped: vec!["c1".to_owned(), "c2".to_owned(), "c3".to_owned()],
        key: vec!["id".to_owned()],
        root: true,
        tracked: true,
    };
    let description = Description { sources: vec![source] };
    let mut selector = Selector::new(description, hasher, members, RowFilter::with_capacity(10), 1_000);
    let mut begin = vec![b'B'];
    begin.extend([0; 20]);
    for message in [relation(), begin] {
        selector.accept(&pgoutput::decode(&message, false).unwrap()).unwrap();
    }
    selector
}

#[divan::bench]
fn decode_a_row(bencher: Bencher) {
    let row = update("1", "a value of some length");
    bencher.bench_local(|| pgoutput::decode(black_box(&row), false).unwrap());
}

#[divan::bench]
fn pass_over_a_stranger(bencher: Bencher) {
    let (mut selector, row) = (selector(), update("2", "a value of some length"));
    bencher.bench_local(|| selector.accept(&pgoutput::decode(black_box(&row), false).unwrap()).unwrap());
}

#[divan::bench]
fn see_that_a_synced_row_is_unchanged(bencher: Bencher) {
    let (mut selector, row) = (selector(), update("1", "a value of some length"));
    bencher.bench_local(|| selector.accept(&pgoutput::decode(black_box(&row), false).unwrap()).unwrap());
}

fn record() -> RawRecord {
    let value = |column: &&str| {
        let value = match *column {
            "title" => "Ms",
            "forenames" => "Ann Mary",
            "surname" => "Smith",
            "date_of_birth" => "1980-01-01",
            "gender" => "Female",
            "work_email" => "ann.smith@example.com",
            "mobile" => "07700 900123",
            "annual_pay" => "31250.50",
            "pay_basis" | "pay_frequency" => "Annual",
            "pay_change_reason" => "Annual review",
            "address_line_1" => "1 High Street",
            "postcode" => "LS1 4AP",
            _ => return None,
        };
        Some(value.to_owned())
    };
    RawRecord { employee_id: "1".to_owned(), values: COLUMNS.iter().map(value).collect() }
}

fn rules() -> Rules {
    let titles = ["Mr", "Mrs", "Miss", "Ms"].map(str::to_owned).to_vec();
    Rules::new(EmailSource::Work, Described::from_columns(COLUMNS.iter().copied()))
        .with_picklists([("title".to_owned(), titles)])
}

#[divan::bench]
fn validate_a_record(bencher: Bencher) {
    let (raw, rules) = (record(), rules());
    bencher.bench_local(|| prepare(black_box(&raw), &rules));
}

#[divan::bench]
fn fingerprint_and_diff_a_record(bencher: Bencher) {
    let key = FingerprintKey::from_hex(&"07".repeat(32)).unwrap();
    let record = prepare(&record(), &rules()).unwrap();
    let before = Fingerprints::of(&key, &record);
    bencher.bench_local(|| {
        let now = Fingerprints::of(&key, black_box(&record));
        diff(&before, FieldSet::EMPTY, &now, record.fields())
    });
}
