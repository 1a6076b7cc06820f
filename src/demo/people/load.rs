//! People into the demo's schema: many at once with COPY, or one within a transaction.

use std::fmt::Write;
use std::pin::pin;

use bytes::Bytes;
use futures_util::SinkExt;
use jiff::civil::Date;
use tokio_postgres::{Client, Transaction};

use super::{Flaw, People, Person};

/// Rows are sent to the server in pieces of about this many bytes.
const PIECE: usize = 256 * 1024;

/// The people could not be stored.
#[derive(Debug, thiserror::Error)]
#[error("cannot load the demo's employees into {table}")]
pub struct LoadError {
    /// The table that refused them.
    pub table: &'static str,
    /// PostgreSQL's reason.
    pub source: tokio_postgres::Error,
}

/// What was loaded.
#[derive(Debug, Default)]
pub struct Loaded {
    /// How many employees.
    pub employees: usize,
    /// Those whose record will be refused, and why.
    pub flawed: Vec<(i64, Flaw)>,
}

/// The tables in the order in which their foreign keys let them be filled, with the columns that are given.
const TABLES: [(&str, &str); 6] = [
    (
        "employee",
        "id, employee_number, title, forenames, known_as, surname, date_of_birth, gender, ni_number, start_date, \
         continuous_service_date, leave_date, benefits_level, create_benefits_record, bank_sort_code, bank_account",
    ),
    ("email", "employee_id, kind, address"),
    ("phone", "employee_id, kind, number"),
    ("address", "employee_id, kind, line_1, line_2, line_3, line_4, postcode, from_date"),
    (
        "job",
        "id, employee_id, is_primary, title, grade_id, department_id, location_id, weekly_hours, fte, started_on",
    ),
    ("job_pay", "employee_id, job_id, effective_from, annual_pay, basis, frequency, change_reason"),
];

/// Loads the next `count` of `people` into an empty schema, in one transaction.
pub async fn load(client: &mut Client, people: &mut People, count: usize) -> Result<Loaded, LoadError> {
    let mut rows = TABLES.map(|_| String::new());
    let mut loaded = Loaded { employees: count, flawed: Vec::new() };
    let mut next_job = 1;
    for _ in 0..count {
        let person = people.employee();
        loaded.flawed.extend(person.flaw.map(|flaw| (person.id, flaw)));
        write_rows(&mut rows, &person, next_job);
        next_job += i64::try_from(person.jobs.len()).unwrap_or_default();
    }
    let failed = |table| move |source| LoadError { table, source };
    let transaction = client.transaction().await.map_err(failed("hr"))?;
    for ((table, columns), rows) in TABLES.into_iter().zip(rows) {
        copy(&transaction, table, columns, rows).await.map_err(failed(table))?;
    }
    for table in ["employee", "job"] {
        let sql = format!(
            "select setval(pg_get_serial_sequence('hr.{table}', 'id'), (select max(id) from hr.{table}))"
        );
        transaction.execute(&sql, &[]).await.map_err(failed(table))?;
    }
    transaction.commit().await.map_err(failed("hr"))?;
    client.batch_execute("analyze").await.map_err(failed("hr"))?;
    Ok(loaded)
}

/// Inserts one person, within the caller's transaction.
pub async fn insert(transaction: &Transaction<'_>, person: &Person) -> Result<(), tokio_postgres::Error> {
    let mut rows = TABLES.map(|_| String::new());
    // Ids of jobs are the sequence's to give, for pay rows name them. The demo alone inserts, so they are consecutive.
    let next_job = "select nextval(pg_get_serial_sequence('hr.job', 'id'))";
    let first_job: i64 = transaction.query_one(next_job, &[]).await?.get(0);
    for _ in person.jobs.iter().skip(1) {
        transaction.execute(next_job, &[]).await?;
    }
    write_rows(&mut rows, person, first_job);
    transaction
        .execute("select setval(pg_get_serial_sequence('hr.employee', 'id'), $1)", &[&person.id])
        .await?;
    for ((table, columns), rows) in TABLES.into_iter().zip(rows) {
        copy(transaction, table, columns, rows).await?;
    }
    Ok(())
}

async fn copy(
    transaction: &Transaction<'_>,
    table: &str,
    columns: &str,
    rows: String,
) -> Result<(), tokio_postgres::Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let sink = transaction.copy_in::<_, Bytes>(&format!("copy hr.{table} ({columns}) from stdin")).await?;
    let mut sink = pin!(sink);
    let mut rows = Bytes::from(rows);
    while !rows.is_empty() {
        sink.send(rows.split_to(PIECE.min(rows.len()))).await?;
    }
    sink.finish().await?;
    Ok(())
}

/// Adds a person's rows to each table's, in COPY's text format and the order of [`TABLES`].
fn write_rows(rows: &mut [String; 6], person: &Person, first_job: i64) {
    let [employee, email, phone, address, job, job_pay] = rows;
    let id = person.id;
    Row(employee)
        .value(id)
        .text(Some(&person.employee_number))
        .text(person.title.as_deref())
        .text(Some(&person.forenames))
        .text(person.known_as.as_deref())
        .text(Some(&person.surname))
        .value(person.date_of_birth)
        .text(Some(person.gender))
        .text(person.ni_number.as_deref())
        .value(person.start_date)
        .value(person.continuous_service_date)
        .date(person.leave_date)
        .text(person.benefits_level)
        .value(person.create_benefits_record)
        .text(Some(&person.bank_sort_code))
        .text(Some(&person.bank_account))
        .end();
    for (kind, it) in &person.emails {
        Row(email).value(id).text(Some(kind)).text(Some(it)).end();
    }
    for (kind, number) in &person.phones {
        Row(phone).value(id).text(Some(kind)).text(Some(number)).end();
    }
    for it in &person.addresses {
        let mut row = Row(address);
        row.value(id).text(Some("home"));
        it.lines.iter().for_each(|line| {
            row.text(line.as_deref());
        });
        row.text(Some(&it.postcode)).value(it.from_date).end();
    }
    for (job_id, it) in (first_job..).zip(&person.jobs) {
        let mut row = Row(job);
        row.value(job_id).value(id).value(it.is_primary).text(Some(it.title)).value(it.grade_id);
        row.value(it.department_id).value(it.location_id).text(Some(it.weekly_hours)).text(Some(it.fte));
        row.value(it.started_on).end();
        for pay in &it.pay {
            let mut row = Row(job_pay);
            row.value(id).value(job_id).value(pay.effective_from).text(Some(&pay.annual_pay()));
            row.text(Some(pay.basis)).text(Some(pay.frequency)).text(Some(pay.change_reason)).end();
        }
    }
}

/// Appends a row in COPY's text format.
struct Row<'a>(&'a mut String);

impl Row<'_> {
    fn value(&mut self, value: impl std::fmt::Display) -> &mut Self {
        // Writing to a String cannot fail.
        let _ok = write!(self.0, "{value}\t");
        self
    }

    fn date(&mut self, date: Option<Date>) -> &mut Self {
        match date {
            Some(date) => self.value(date),
            None => self.text(None),
        }
    }

    fn text(&mut self, text: Option<&str>) -> &mut Self {
        let Some(text) = text else {
            self.0.push_str("\\N\t");
            return self;
        };
        for letter in text.chars() {
            match letter {
                '\\' => self.0.push_str("\\\\"),
                '\t' => self.0.push_str("\\t"),
                '\n' => self.0.push_str("\\n"),
                other => self.0.push(other),
            }
        }
        self.0.push('\t');
        self
    }

    fn end(&mut self) {
        self.0.pop();
        self.0.push('\n');
    }
}
