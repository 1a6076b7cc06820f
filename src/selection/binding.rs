//! A described table laid over the columns that the WAL has now.
//!
//! Bound anew at every Relation message, because DDL moves columns. A mapped column that has gone is no reason to stop
//! the stream: every row then counts as changed, and the record query reports the missing column.

use super::description::{Description, Source, SourceId};
use super::hash::{KeyHash, KeyHasher};
use crate::pgoutput::{Relation, Tuple, Value};

/// The schema of the ledger's own tables.
const LEDGER_SCHEMA: &str = "benefits";
/// `bpchar`: its text form is padded with blanks, a cast to text is not.
const BPCHAR: u32 = 1042;

/// What a published table is to us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Binding {
    /// Not described: passed over.
    Other,
    /// `benefits.request`.
    Requests(Columns),
    /// `benefits.failed`.
    Failed(Columns),
    /// `benefits.description`.
    Description,
    /// `benefits.picklist_value` or `benefits.level_package`.
    Rules,
    /// Rows that name their employee.
    Employees(Columns),
    /// Rows that many employees refer to.
    Lookup(Columns),
}

/// Where a table's interesting columns are.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, not a state")]
pub(super) struct Columns {
    pub(super) source: SourceId,
    pub(super) root: bool,
    /// A row that leaves its employee does not say so: the ledger's `row_owner` has to.
    pub(super) hides_owner: bool,
    /// The employee is part of the row's key: another employee makes another row of it.
    pub(super) keyed_by_employee: bool,
    /// All mapped columns are there; else every row counts as changed.
    pub(super) complete: bool,
    employee: Option<usize>,
    employee_padded: bool,
    flag: Option<usize>,
    mapped: Vec<bool>,
    key: Vec<bool>,
    /// All columns of the described key are there; else nothing is known by it.
    keyed: bool,
}

/// The few values of a row that decide whether it matters.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Outline<'a> {
    /// The employee's id; `None` where it is null, or not in this (old) tuple.
    pub(super) employee: Option<&'a [u8]>,
    /// The starter flag, where there is one.
    pub(super) flag: Option<bool>,
}

impl Binding {
    pub(super) fn new(relation: &Relation, description: &Description) -> Self {
        if relation.schema == LEDGER_SCHEMA {
            return match relation.name.as_str() {
                "request" => Self::Requests(Columns::of_ledger(relation, "request_id")),
                "failed" => Self::Failed(Columns::of_ledger(relation, "employee_id")),
                "description" => Self::Description,
                "picklist_value" | "level_package" => Self::Rules,
                _ => Self::Other,
            };
        }
        let described =
            description.sources.iter().find(|s| s.schema == relation.schema && s.table == relation.name);
        match described {
            None => Self::Other,
            Some(source) if source.employee_key.is_some() => Self::Employees(Columns::of(relation, source)),
            Some(source) => Self::Lookup(Columns::of(relation, source)),
        }
    }
}

impl Columns {
    fn of(relation: &Relation, source: &Source) -> Self {
        let position = |name: &String| relation.columns.iter().position(|column| &column.name == name);
        let flags =
            |names: &[String]| relation.columns.iter().map(|column| names.contains(&column.name)).collect();
        let employee = source.employee_key.as_ref().and_then(position);
        Self {
            source: source.id,
            root: source.root,
            hides_owner: source.hides_owner(),
            keyed_by_employee: source.employee_key.as_ref().is_some_and(|column| source.key.contains(column)),
            complete: source.mapped.iter().all(|name| position(name).is_some()),
            employee,
            employee_padded: employee
                .and_then(|at| relation.columns.get(at))
                .is_some_and(|column| column.type_oid == BPCHAR),
            flag: source.starter_flag.as_ref().and_then(position),
            mapped: flags(&source.mapped),
            key: flags(&source.key),
            keyed: source.key.iter().all(|name| position(name).is_some()),
        }
    }

    fn of_ledger(relation: &Relation, key: &str) -> Self {
        let position = |name: &str| relation.columns.iter().position(|column| column.name == name);
        let is = |name: &str| relation.columns.iter().map(|column| column.name == name).collect();
        Self {
            source: 0,
            root: false,
            hides_owner: false,
            keyed_by_employee: false,
            complete: true,
            employee: position("employee_id"),
            employee_padded: false,
            flag: None,
            mapped: is("argument"),
            key: is(key),
            keyed: true,
        }
    }

    /// Reads as little of the row as tells whose it is.
    pub(super) fn outline<'a>(&self, tuple: Tuple<'a>) -> Outline<'a> {
        let mut outline = Outline::default();
        let last = self.employee.max(self.flag);
        for (at, value) in tuple.values().enumerate() {
            if Some(at) == self.employee
                && let Value::Text(text) = value
            {
                outline.employee = Some(if self.employee_padded { without_padding(text) } else { text });
            }
            if Some(at) == self.flag {
                outline.flag = Some(is_up(value));
            }
            if Some(at) >= last {
                break;
            }
        }
        outline
    }

    /// Whether there is a starter flag.
    pub(super) fn has_flag(&self) -> bool {
        self.flag.is_some()
    }

    /// The fingerprint of the mapped columns. An unchanged TOAST value counts as a value of its own: the same again means
    /// unchanged since the row version before, whose fingerprint said the same. `generation` counts the table's shapes:
    /// what was seen before DDL or TRUNCATE says nothing about what is seen after it.
    pub(super) fn fingerprint(&self, hasher: &KeyHasher, generation: u64, tuple: Tuple<'_>) -> u64 {
        let mut parts = hasher.parts();
        parts.number(generation);
        for (value, mapped) in tuple.values().zip(&self.mapped) {
            if !mapped {
                continue;
            }
            match value {
                Value::Null => parts.number(0),
                Value::Unchanged => parts.number(1),
                Value::Text(bytes) | Value::Binary(bytes) => {
                    parts.number(2);
                    parts.bytes(bytes);
                }
            }
        }
        parts.finish().get()
    }

    /// The hash of the row's key, read from a new tuple or from an old one that has the key. `None` where the WAL has not
    /// the key that is described: a column of it has another name now, or another index is the replica identity.
    pub(super) fn row(&self, hasher: &KeyHasher, tuple: Tuple<'_>, scratch: &mut Vec<u8>) -> Option<KeyHash> {
        self.row_key(tuple, scratch).then(|| hasher.row(self.source, scratch))
    }

    /// The row's key as text: its columns joined by the unit separator, as the ledger's `row_owner` has it. Whether it is
    /// there as a whole.
    pub(super) fn row_key(&self, tuple: Tuple<'_>, text: &mut Vec<u8>) -> bool {
        text.clear();
        let mut whole = self.keyed;
        let mut first = true;
        for (value, key) in tuple.values().zip(&self.key) {
            if !key {
                continue;
            }
            if !std::mem::take(&mut first) {
                text.push(0x1f);
            }
            match value {
                Value::Text(bytes) | Value::Binary(bytes) => text.extend_from_slice(bytes),
                Value::Null | Value::Unchanged => whole = false,
            }
        }
        whole
    }

    /// Whether any mapped column differs between two full row versions.
    pub(super) fn differs(&self, old: Tuple<'_>, new: Tuple<'_>) -> bool {
        old.values().zip(new.values()).zip(&self.mapped).any(|((old, new), mapped)| {
            // Replica identity FULL sends a TOASTed value once, in the old tuple; the new one says "unchanged".
            *mapped && new != Value::Unchanged && old != new
        })
    }
}

/// Whether a flag's value means yes. The same list stands in the generated `read_roster`.
fn is_up(value: Value<'_>) -> bool {
    let Value::Text(text) = value else { return false };
    let text = without_padding(text);
    [&b"t"[..], b"true", b"1", b"y", b"yes"].iter().any(|yes| text.eq_ignore_ascii_case(yes))
}

/// `bpchar` comes padded with blanks.
fn without_padding(text: &[u8]) -> &[u8] {
    let end = text.iter().rposition(|byte| *byte != b' ').map_or(0, |last| last + 1);
    text.get(..end).unwrap_or(text)
}
