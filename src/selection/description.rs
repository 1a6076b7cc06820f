//! The site's description, as far as the stream needs it: which tables, which columns, how a row leads to employees.

/// `benefits.source.source_id`.
pub type SourceId = i32;

/// A described HR table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The ledger's number for it.
    pub id: SourceId,
    /// Schema of the published table.
    pub schema: String,
    /// Its name.
    pub table: String,
    /// The column with the employee's id; `None` for a lookup table.
    pub employee_key: Option<String>,
    /// The column that makes a new employee a starter.
    pub starter_flag: Option<String>,
    /// Columns that the record query reads.
    pub mapped: Vec<String>,
    /// Columns of the replica identity.
    pub key: Vec<String>,
    /// Whether the table's own key is the employee's id.
    pub root: bool,
    /// Whether rows that leave an employee are followed by [`super::RowFilter`] and the ledger's `row_owner`.
    pub tracked: bool,
}

impl Source {
    /// Whether a deleted or re-pointed row of this table does not say whose it was.
    pub fn hides_owner(&self) -> bool {
        self.tracked && self.employee_key.as_ref().is_some_and(|column| !self.key.contains(column))
    }
}

/// All described tables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Description {
    /// In the order of their ids.
    pub sources: Vec<Source>,
}
