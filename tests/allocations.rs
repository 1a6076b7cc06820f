//! Rows of other tables and of employees who are not synced cost no allocation, and neither do unchanged rows of those
//! who are.
//!
//! In a test binary of its own, because the counter takes the allocator's place for the whole process.
#![allow(
    missing_docs,
    unsafe_code,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "an allocator is unsafe by its signature; this one hands everything on to the system's"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use benefits_sync::pgoutput;
use benefits_sync::selection::{Description, KeyHasher, Members, RowFilter, Selector, Source};

thread_local! {
    /// This thread's: the test harness has threads of its own.
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

fn count() {
    // A thread that is ending counts no more.
    ALLOCATIONS.try_with(|count| count.set(count.get() + 1)).ok();
}

struct Counting;

// SAFETY: every call goes to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static GLOBAL: Counting = Counting;

const EMPLOYEE: u32 = 1;
const ADDRESS: u32 = 2;
const AUDIT: u32 = 3;

fn source(id: i32, table: &str, employee: &str, root: bool) -> Source {
    Source {
        id,
        schema: "hr".to_owned(),
        table: table.to_owned(),
        employee_key: Some(employee.to_owned()),
        starter_flag: root.then(|| "starter".to_owned()),
        mapped: vec!["value".to_owned(), employee.to_owned()],
        key: vec!["id".to_owned()],
        root,
        tracked: true,
    }
}

fn relation(oid: u32, table: &str, columns: &[&str]) -> Vec<u8> {
    let mut out = vec![b'R'];
    out.extend(oid.to_be_bytes());
    out.extend(b"hr\0");
    out.extend(table.as_bytes());
    out.extend(b"\0d");
    out.extend(u16::try_from(columns.len()).unwrap().to_be_bytes());
    for (at, column) in columns.iter().enumerate() {
        out.push(u8::from(at == 0));
        out.extend(column.as_bytes());
        out.push(0);
        out.extend(25_u32.to_be_bytes());
        out.extend((-1_i32).to_be_bytes());
    }
    out
}

fn update(oid: u32, cells: &[&str]) -> Vec<u8> {
    let mut out = vec![b'U'];
    out.extend(oid.to_be_bytes());
    out.push(b'N');
    out.extend(u16::try_from(cells.len()).unwrap().to_be_bytes());
    for cell in cells {
        out.push(b't');
        out.extend(u32::try_from(cell.len()).unwrap().to_be_bytes());
        out.extend(cell.as_bytes());
    }
    out
}

#[test]
fn rows_that_do_not_matter_allocate_nothing() {
    let hasher = KeyHasher::with_key([3; 16]);
    let mut members = Members::default();
    members.enrol(hasher.employee(b"1"));
    let description = Description {
        sources: vec![source(1, "employee", "id", true), source(2, "address", "employee_id", false)],
    };
    let mut selector = Selector::new(description, hasher, members, RowFilter::with_capacity(10), 1_000);
    let mut begin = vec![b'B'];
    begin.extend([0; 20]);
    let mut commit = vec![b'C'];
    commit.extend([0; 25]);
    let mut start = vec![b'S'];
    start.extend([0, 0, 0, 9, 1]);
    let take = |selector: &mut Selector, payload: &[u8]| {
        let decoded = pgoutput::decode(payload, selector.in_chunk()).unwrap();
        selector.accept(&decoded).unwrap()
    };
    for shape in [
        relation(EMPLOYEE, "employee", &["id", "value", "junk", "starter"]),
        relation(ADDRESS, "address", &["id", "employee_id", "value", "junk"]),
        relation(AUDIT, "audit", &["id", "value"]),
    ] {
        take(&mut selector, &shape);
    }
    // What the synced employee's rows are, so that they are known; and the first use of every buffer.
    let known = [update(EMPLOYEE, &["1", "Ada", "x", "f"]), update(ADDRESS, &["10", "1", "Road", "x"])];
    let unchanged = [update(EMPLOYEE, &["1", "Ada", "y", "f"]), update(ADDRESS, &["10", "1", "Road", "y"])];
    let others = [
        update(EMPLOYEE, &["2", "Bob", "y", "f"]),
        update(ADDRESS, &["11", "2", "Lane", "y"]),
        update(AUDIT, &["1", "a long enough entry that it would have to be allocated"]),
    ];
    take(&mut selector, &begin);
    for row in known.iter().chain(&others) {
        take(&mut selector, row);
    }
    assert!(take(&mut selector, &commit).unwrap().touches.is_some());
    let before = ALLOCATIONS.get();
    for _ in 0..1_000 {
        take(&mut selector, &begin);
        for row in unchanged.iter().chain(&others) {
            take(&mut selector, row);
        }
        assert!(take(&mut selector, &commit).unwrap().touches.is_none());
    }
    assert_eq!(ALLOCATIONS.get() - before, 0, "for 5,000 rows in 1,000 transactions");
    // The same in a streamed transaction, where the rows carry their subtransaction's id.
    let streamed: Vec<Vec<u8>> =
        others.iter().map(|row| [&row[..1], &9_u32.to_be_bytes(), &row[1..]].concat()).collect();
    take(&mut selector, &start);
    let before = ALLOCATIONS.get();
    for _ in 0..1_000 {
        for row in &streamed {
            take(&mut selector, row);
        }
    }
    assert_eq!(ALLOCATIONS.get() - before, 0, "for 3,000 streamed rows");
}
