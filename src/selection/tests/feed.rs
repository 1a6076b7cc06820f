//! The demo's tables as the server describes them, messages encoded as it sends them, and what came of a commit.

use super::*;
use crate::pgoutput;

pub(super) const EMPLOYEE: u32 = 1;
pub(super) const ADDRESS: u32 = 2;
pub(super) const DEPARTMENT: u32 = 3;
pub(super) const PHONE: u32 = 4;
pub(super) const CARD: u32 = 5;
pub(super) const OTHER: u32 = 6;
pub(super) const REQUEST: u32 = 7;

/// A cell that is null.
pub(super) const NULL: &str = "\0null";
/// A cell whose out-of-line value the WAL does not have.
pub(super) const SAME: &str = "\0same";

/// A table as the server describes it: schema, name, identity, columns with type and key flag.
pub(super) type Shape = (&'static str, &'static str, u8, &'static [(&'static str, u32, bool)]);

pub(super) const TEXT: u32 = 25;
const BPCHAR: u32 = 1042;

pub(super) fn shape(table: u32) -> Shape {
    match table {
        EMPLOYEE => (
            "hr",
            "employee",
            b'd',
            &[("id", 20, true), ("name", TEXT, false), ("note", TEXT, false), ("starter", 16, false)],
        ),
        ADDRESS => (
            "hr",
            "address",
            b'd',
            &[("id", 20, true), ("employee_id", 20, false), ("line", TEXT, false), ("junk", TEXT, false)],
        ),
        DEPARTMENT => {
            ("hr", "department", b'd', &[("id", 23, true), ("name", TEXT, false), ("cost", TEXT, false)])
        }
        PHONE => (
            "hr",
            "phone",
            b'd',
            &[("employee_id", BPCHAR, true), ("kind", TEXT, true), ("number", TEXT, false)],
        ),
        CARD => ("hr", "card", b'd', &[("id", 20, true), ("employee_id", 20, false), ("face", TEXT, false)]),
        REQUEST => (
            "benefits",
            "request",
            b'd',
            &[("request_id", 20, true), ("employee_id", TEXT, false), ("kind", TEXT, false)],
        ),
        _ => ("hr", "audit", b'd', &[("id", 20, true), ("entry", TEXT, false)]),
    }
}

pub(super) fn source(id: SourceId, table: u32, employee: Option<&str>, mapped: &[&str]) -> Source {
    let (schema, name, _, columns) = shape(table);
    let key: Vec<String> =
        columns.iter().filter(|(_, _, key)| *key).map(|(name, _, _)| (*name).to_owned()).collect();
    Source {
        id,
        schema: schema.to_owned(),
        table: name.to_owned(),
        employee_key: employee.map(ToOwned::to_owned),
        starter_flag: (table == EMPLOYEE).then(|| "starter".to_owned()),
        mapped: mapped.iter().map(|name| (*name).to_owned()).collect(),
        root: employee.is_some_and(|column| key == [column]),
        key,
        tracked: table != CARD,
    }
}

pub(super) fn description() -> Description {
    Description {
        sources: vec![
            source(1, EMPLOYEE, Some("id"), &["id", "name"]),
            source(2, ADDRESS, Some("employee_id"), &["id", "employee_id", "line"]),
            source(3, DEPARTMENT, None, &["name"]),
            source(4, PHONE, Some("employee_id"), &["employee_id", "kind", "number"]),
            source(5, CARD, Some("employee_id"), &["employee_id", "face"]),
        ],
    }
}

/// A selector, and a server that encodes for it.
pub(super) struct Feed {
    pub(super) selector: Selector,
    /// In a streamed chunk: the (sub)transaction that writes.
    pub(super) writer: Option<u32>,
    lsn: u64,
}

impl Feed {
    pub(super) fn new(synced: &[&str], baseline: &[&str], owned: &[(SourceId, &str)]) -> Self {
        let hasher = KeyHasher::with_key([7; 16]);
        let mut members = Members::default();
        for id in synced {
            members.enrol(hasher.employee(id.as_bytes()));
        }
        for id in baseline {
            members.set_baseline(hasher.employee(id.as_bytes()));
        }
        let mut filter = RowFilter::with_capacity(100);
        for (source, row) in owned {
            filter.insert(hasher.row(*source, row.as_bytes()));
        }
        let selector = Selector::new(description(), hasher, members, filter, 1_000);
        let mut feed = Self { selector, writer: None, lsn: 100 };
        for table in [EMPLOYEE, ADDRESS, DEPARTMENT, PHONE, CARD, OTHER, REQUEST] {
            feed.relation(table, shape(table));
        }
        feed
    }

    pub(super) fn try_send(&mut self, payload: &[u8]) -> Result<Option<Commit>, SelectionError> {
        let decoded = pgoutput::decode(payload, self.selector.in_chunk()).unwrap();
        self.selector.accept(&decoded)
    }

    pub(super) fn send(&mut self, payload: &[u8]) -> Option<Commit> {
        self.try_send(payload).unwrap()
    }

    pub(super) fn change(&mut self, tag: u8, table: u32, parts: &[(u8, &[&str])]) {
        let mut out = vec![tag];
        if let Some(xid) = self.writer {
            out.extend(xid.to_be_bytes());
        }
        out.extend(table.to_be_bytes());
        for (kind, cells) in parts {
            out.push(*kind);
            out.extend(u16::try_from(cells.len()).unwrap().to_be_bytes());
            for cell in *cells {
                match *cell {
                    NULL => out.push(b'n'),
                    SAME => out.push(b'u'),
                    text => {
                        out.push(b't');
                        out.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
                        out.extend(text.as_bytes());
                    }
                }
            }
        }
        assert!(self.send(&out).is_none());
    }

    pub(super) fn relation(&mut self, oid: u32, (schema, name, identity, columns): Shape) {
        let mut out = vec![b'R'];
        if let Some(xid) = self.writer {
            out.extend(xid.to_be_bytes());
        }
        out.extend(oid.to_be_bytes());
        for name in [schema, name] {
            out.extend(name.as_bytes());
            out.push(0);
        }
        out.push(identity);
        out.extend(u16::try_from(columns.len()).unwrap().to_be_bytes());
        for (name, kind, key) in columns {
            out.push(u8::from(*key));
            out.extend(name.as_bytes());
            out.push(0);
            out.extend(kind.to_be_bytes());
            out.extend((-1_i32).to_be_bytes());
        }
        assert!(self.send(&out).is_none());
    }

    pub(super) fn begin(&mut self, xid: u32) {
        let mut out = vec![b'B'];
        out.extend([0; 16]);
        out.extend(xid.to_be_bytes());
        assert!(self.send(&out).is_none());
    }

    pub(super) fn end(&mut self, mut out: Vec<u8>) -> Commit {
        self.lsn += 8;
        out.push(0);
        out.extend((self.lsn - 1).to_be_bytes());
        out.extend(self.lsn.to_be_bytes());
        out.extend([0; 8]);
        self.send(&out).expect("a commit")
    }

    pub(super) fn commit(&mut self) -> Commit {
        self.end(vec![b'C'])
    }

    /// A chunk of the streamed transaction `xid` begins.
    pub(super) fn chunk(&mut self, xid: u32) {
        let mut out = vec![b'S'];
        out.extend(xid.to_be_bytes());
        out.push(0);
        assert!(self.send(&out).is_none());
        self.writer = Some(xid);
    }

    pub(super) fn chunk_ends(&mut self) {
        assert!(self.send(b"E").is_none());
        self.writer = None;
    }

    pub(super) fn stream_commit(&mut self, xid: u32) -> Commit {
        let mut out = vec![b'c'];
        out.extend(xid.to_be_bytes());
        self.end(out)
    }

    pub(super) fn stream_abort(&mut self, xid: u32, subxid: u32) {
        let mut out = vec![b'A'];
        out.extend(xid.to_be_bytes());
        out.extend(subxid.to_be_bytes());
        assert!(self.send(&out).is_none());
    }

    pub(super) fn insert(&mut self, table: u32, new: &[&str]) {
        self.change(b'I', table, &[(b'N', new)]);
    }

    pub(super) fn update(&mut self, table: u32, new: &[&str]) {
        self.change(b'U', table, &[(b'N', new)]);
    }

    pub(super) fn update_key(&mut self, table: u32, old: &[&str], new: &[&str]) {
        self.change(b'U', table, &[(b'K', old), (b'N', new)]);
    }

    pub(super) fn update_full(&mut self, table: u32, old: &[&str], new: &[&str]) {
        self.change(b'U', table, &[(b'O', old), (b'N', new)]);
    }

    pub(super) fn delete(&mut self, table: u32, key: &[&str]) {
        self.change(b'D', table, &[(b'K', key)]);
    }

    pub(super) fn delete_full(&mut self, table: u32, old: &[&str]) {
        self.change(b'D', table, &[(b'O', old)]);
    }

    pub(super) fn truncate(&mut self, table: u32) {
        let mut out = vec![b'T'];
        if let Some(xid) = self.writer {
            out.extend(xid.to_be_bytes());
        }
        out.extend(1_u32.to_be_bytes());
        out.push(0);
        out.extend(table.to_be_bytes());
        assert!(self.send(&out).is_none());
    }

    /// A transaction of its own.
    pub(super) fn whole(&mut self, write: impl FnOnce(&mut Self)) -> Touched {
        self.begin(1);
        write(self);
        Touched::of(&self.commit())
    }
}

/// A commit's touches, owned and sorted.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Touched {
    pub(super) marked: Vec<(String, Mark)>,
    pub(super) owned: Vec<(SourceId, String, String)>,
    pub(super) orphaned: Vec<(SourceId, String)>,
    pub(super) lookups: Vec<(SourceId, String)>,
    pub(super) everyone: bool,
    pub(super) unkeyed: bool,
}

impl Touched {
    pub(super) fn of(commit: &Commit) -> Self {
        let Some(touches) = &commit.touches else { return Self::default() };
        let keys = |set: &std::collections::BTreeSet<(SourceId, Box<str>)>| {
            set.iter().map(|(source, key)| (*source, key.to_string())).collect()
        };
        let mut this = Self {
            marked: touches.employees().map(|(id, mark)| (id.to_owned(), mark)).collect(),
            owned: touches.owned().map(|(s, row, id)| (s, row.to_owned(), id.to_owned())).collect(),
            orphaned: keys(&touches.orphaned),
            lookups: keys(&touches.lookups),
            everyone: touches.everyone,
            unkeyed: touches.unkeyed,
        };
        this.marked.sort();
        this.owned.sort();
        this
    }

    pub(super) fn ids(&self) -> Vec<&str> {
        self.marked.iter().map(|(id, _)| id.as_str()).collect()
    }
}
