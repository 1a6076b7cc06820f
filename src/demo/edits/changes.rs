//! What each kind of edit does to the HR tables.

use jiff::ToSpan;
use rand::Rng;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Row, Transaction};

use super::super::people::{self, DEPARTMENTS, Flaw, LOCATIONS, Person, pick};
use super::{Edits, Kind};

type Parameters<'a> = &'a [&'a (dyn ToSql + Sync)];

/// A new row of pay for the present primary jobs of `$1` (an array), by `$3` thousandths, from `$2` on.
const RAISE: &str = "
    insert into hr.job_pay (employee_id, job_id, effective_from, annual_pay, currency, basis, frequency, change_reason)
    select p.employee_id, p.job_id, $2::text::date, round(p.annual_pay * (1000 + $3::int) / 1000, 2), p.currency,
           p.basis, p.frequency, $4
    from hr.job j
    cross join lateral (
        select * from hr.job_pay where job_id = j.id order by effective_from desc, id desc limit 1
    ) p
    where j.employee_id = any($1) and j.is_primary
    returning employee_id";

/// The deleted one is the first or the last of several.
const DELETE_ADDRESS: &str = "
    delete from hr.address
    where id = (
        select case when $2 then max(id) else min(id) end from hr.address
        where kind = 'home' and employee_id = (
            select employee_id from hr.address
            where kind = 'home' and employee_id >= $1
            group by employee_id having count(*) > 1
            order by employee_id limit 1
        )
    )
    returning employee_id";

const INSERT_ADDRESS: &str = "
    insert into hr.address (employee_id, kind, line_1, line_2, line_3, line_4, postcode, from_date)
    values ($1, 'home', $2, $3, $4, $5, $6, $7::text::date)
    returning employee_id";

const CORRECT_ADDRESS: &str = "
    update hr.address set line_1 = $2, postcode = $3
    where id = (
        select id from hr.address where employee_id = $1 and kind = 'home' order by from_date desc, id desc limit 1
    )
    returning employee_id";

const RENAME_DEPARTMENT: &str = "
    with renamed as (
        update hr.department
        set name = case when name like '% (UK)' then left(name, -5) else name || ' (UK)' end
        where id = $1
        returning id
    )
    select j.employee_id from hr.job j join renamed on renamed.id = j.department_id where j.is_primary";

const REINSTATE: &str = "
    update hr.employee set leave_date = null, updated_at = now()
    where id = (select id from hr.employee where leave_date is not null and id >= $1 order by id limit 1)
    returning id";

const INSERT_JOB: &str = "
    insert into hr.job (employee_id, is_primary, title, grade_id, department_id, location_id, weekly_hours, fte, started_on)
    values ($1, false, $2, $3, $4, $5, $6::text::numeric, $7::text::numeric, $8::text::date)
    returning id";

const INSERT_PAY: &str = "
    insert into hr.job_pay (employee_id, job_id, effective_from, annual_pay, basis, frequency, change_reason)
    values ($1, $2, $3::text::date, $4::text::numeric, $5, $6, $7)
    returning employee_id";

/// Two rows change: the secondary job becomes primary, the primary one secondary.
const SWITCH_PRIMARY: &str = "
    with chosen as (
        select employee_id, max(id) as id from hr.job
        where not is_primary and employee_id >= $1 and ended_on is null
        group by employee_id order by employee_id limit 1
    )
    update hr.job set is_primary = (job.id = chosen.id)
    from chosen
    where job.employee_id = chosen.employee_id and (job.is_primary or job.id = chosen.id)
    returning job.employee_id";

impl Edits {
    /// Makes the edit and returns whose rows it changed.
    pub(super) async fn change(&mut self, kind: Kind) -> Result<Vec<i64>, Error> {
        let mut changed = match kind {
            Kind::PayRise | Kind::FuturePay | Kind::TeamReview => self.raise(kind).await?,
            Kind::NewAddress | Kind::AddressCorrected | Kind::AddressDeleted => self.move_house(kind).await?,
            Kind::Surname | Kind::Email | Kind::Level => self.rename(kind).await?,
            Kind::Leaver | Kind::Reinstated => self.leave(kind).await?,
            Kind::Moved | Kind::DepartmentRenamed | Kind::PrimarySwitched => self.reorganise(kind).await?,
            Kind::SecondJob => self.second_job().await?,
            Kind::Noise => self.noise().await?,
            Kind::RolledBack | Kind::Savepoint => self.second_thoughts(kind).await?,
            Kind::Starter | Kind::Unticked | Kind::LateTick => self.start(kind).await?,
            Kind::FlawMended => self.mend().await?,
        };
        changed.sort_unstable();
        changed.dedup();
        Ok(changed)
    }

    /// Runs one statement that returns employees' ids, in a transaction with the audit log's entry, as the application does.
    async fn save(&mut self, action: &str, sql: &str, parameters: Parameters<'_>) -> Result<Vec<i64>, Error> {
        let transaction = self.client.transaction().await?;
        let changed = ids(&transaction.query(sql, parameters).await?);
        audit(&transaction, action, &changed).await?;
        transaction.commit().await?;
        Ok(changed)
    }

    async fn raise(&mut self, kind: Kind) -> Result<Vec<i64>, Error> {
        let by: i32 = self.random.gen_range(5..80);
        let today = self.today.to_string();
        match kind {
            Kind::FuturePay => {
                let from = self.today.saturating_add(self.random.gen_range(1..120_i32).days()).to_string();
                let whom = vec![self.somebody()];
                self.save("agree pay", RAISE, &[&whom, &from, &by, &"Annual review"]).await
            }
            Kind::TeamReview => {
                let department = self.random.gen_range(1..=DEPARTMENTS);
                let team = "select employee_id from hr.job where department_id = $1 and is_primary order by 1 limit 25";
                let whom = ids(&self.client.query(team, &[&department]).await?);
                self.save("review", RAISE, &[&whom, &today, &by, &"Annual review"]).await
            }
            _ => {
                let reason =
                    pick(&mut self.random, &["Annual review", "Promotion", "Hours change", "Correction"]);
                let whom = vec![self.somebody()];
                self.save("raise pay", RAISE, &[&whom, &today, &by, &reason]).await
            }
        }
    }

    async fn move_house(&mut self, kind: Kind) -> Result<Vec<i64>, Error> {
        let id = self.somebody();
        let address = self.people.address(self.today);
        let [first, second, third, fourth] = &address.lines;
        match kind {
            Kind::AddressDeleted => {
                let last = self.random.gen_bool(0.5);
                self.save("delete address", DELETE_ADDRESS, &[&id, &last]).await
            }
            Kind::AddressCorrected => {
                self.save("correct address", CORRECT_ADDRESS, &[&id, first, &address.postcode]).await
            }
            _ => {
                let from = address.from_date.to_string();
                let row: Parameters<'_> = &[&id, first, second, third, fourth, &address.postcode, &from];
                self.save("add address", INSERT_ADDRESS, row).await
            }
        }
    }

    async fn rename(&mut self, kind: Kind) -> Result<Vec<i64>, Error> {
        let id = self.somebody();
        match kind {
            Kind::Surname => {
                let surname = self.people.surname();
                let sql =
                    "update hr.employee set surname = $2, updated_at = now() where id = $1 returning id";
                self.save("change name", sql, &[&id, &surname]).await
            }
            Kind::Level => {
                let level = pick(&mut self.random, &["Apprentice", "Standard", "Enhanced", "Executive"]);
                let sql = "update hr.employee set benefits_level = $2, updated_at = now() where id = $1 returning id";
                self.save("change level", sql, &[&id, &level]).await
            }
            _ => {
                let sql = "select forenames, surname from hr.employee where id = $1";
                let Some(row) = self.client.query_opt(sql, &[&id]).await? else { return Ok(Vec::new()) };
                let kind = pick(&mut self.random, &["home", "work"]);
                let email = self.people.email(kind, row.get(0), row.get(1));
                let sql = "update hr.email set address = $3 where employee_id = $1 and kind = $2 returning employee_id";
                self.save("change email", sql, &[&id, &kind, &email]).await
            }
        }
    }

    async fn leave(&mut self, kind: Kind) -> Result<Vec<i64>, Error> {
        let id = self.somebody();
        if kind == Kind::Reinstated {
            return self.save("re-instate", REINSTATE, &[&id]).await;
        }
        let on = self.today.saturating_add(self.random.gen_range(-3..90_i32).days()).to_string();
        let sql = "update hr.employee set leave_date = $2::text::date, updated_at = now()
                   where id = $1 and leave_date is null returning id";
        self.save("record leaver", sql, &[&id, &on]).await
    }

    async fn reorganise(&mut self, kind: Kind) -> Result<Vec<i64>, Error> {
        let id = self.somebody();
        let department = self.random.gen_range(1..=DEPARTMENTS);
        match kind {
            Kind::DepartmentRenamed => {
                self.save("rename department", RENAME_DEPARTMENT, &[&department]).await
            }
            Kind::PrimarySwitched => self.save("switch jobs", SWITCH_PRIMARY, &[&id]).await,
            _ => {
                let location = self.random.gen_range(1..=LOCATIONS);
                let sql = "update hr.job set department_id = $2, location_id = $3
                           where employee_id = $1 and is_primary returning employee_id";
                self.save("move", sql, &[&id, &department, &location]).await
            }
        }
    }

    async fn second_job(&mut self) -> Result<Vec<i64>, Error> {
        let id = self.somebody();
        let job = self.people.job(self.today, false);
        let from = self.today.to_string();
        let transaction = self.client.transaction().await?;
        let row: Parameters<'_> = &[
            &id,
            &job.title,
            &job.grade_id,
            &job.department_id,
            &job.location_id,
            &job.weekly_hours,
            &job.fte,
            &from,
        ];
        let job_id: i64 = transaction.query_one(INSERT_JOB, row).await?.get(0);
        for pay in &job.pay {
            let (from, amount) = (pay.effective_from.to_string(), pay.annual_pay());
            let row: Parameters<'_> =
                &[&id, &job_id, &from, &amount, &pay.basis, &pay.frequency, &pay.change_reason];
            transaction.query(INSERT_PAY, row).await?;
        }
        audit(&transaction, "add job", &[id]).await?;
        transaction.commit().await?;
        Ok(vec![id])
    }

    async fn noise(&mut self) -> Result<Vec<i64>, Error> {
        let id = self.somebody();
        match self.random.gen_range(0..10) {
            0..5 => {
                let sql = "update hr.employee set last_login = now() where id = $1 returning id";
                self.save("log in", sql, &[&id]).await
            }
            5..7 => {
                let account = format!("{:08}", self.random.gen_range(0..100_000_000));
                let sql =
                    "update hr.employee set bank_account = $2, updated_at = now() where id = $1 returning id";
                self.save("change bank details", sql, &[&id, &account]).await
            }
            _ => {
                let sql = "insert into hr.audit_log (employee_id, entry)
                           select $1::bigint + n, jsonb_build_object('action', 'view') from generate_series(0, 19) n
                           returning employee_id";
                self.save("list", sql, &[&id]).await
            }
        }
    }

    async fn second_thoughts(&mut self, kind: Kind) -> Result<Vec<i64>, Error> {
        let id = self.somebody();
        let surname = self.people.surname();
        let rename = "update hr.employee set surname = $2 where id = $1";
        let mut transaction = self.client.transaction().await?;
        if kind == Kind::RolledBack {
            transaction.execute(rename, &[&id, &surname]).await?;
            transaction.execute("update hr.job set weekly_hours = 35 where employee_id = $1", &[&id]).await?;
            transaction.rollback().await?;
            return Ok(vec![id]);
        }
        let savepoint = transaction.savepoint("before_the_name").await?;
        savepoint.execute(rename, &[&id, &surname]).await?;
        savepoint.rollback().await?;
        let number = format!("07700 900{:03}", self.random.gen_range(0..1000));
        let sql = "update hr.phone set number = $2 where employee_id = $1 and kind = 'mobile'";
        transaction.execute(sql, &[&id, &number]).await?;
        audit(&transaction, "change mobile", &[id]).await?;
        transaction.commit().await?;
        Ok(vec![id])
    }

    async fn start(&mut self, kind: Kind) -> Result<Vec<i64>, Error> {
        if kind == Kind::LateTick {
            let Some(id) = self.unticked.pop() else { return Ok(Vec::new()) };
            let sql = "update hr.employee set create_benefits_record = true, updated_at = now()
                       where id = $1 returning id";
            return self.save("tick", sql, &[&id]).await;
        }
        let starter = Person { create_benefits_record: kind == Kind::Starter, ..self.people.starter() };
        let transaction = self.client.transaction().await?;
        people::insert(&transaction, &starter).await?;
        audit(&transaction, "new employee", &[starter.id]).await?;
        transaction.commit().await?;
        self.employees = starter.id;
        if kind == Kind::Unticked {
            self.unticked.push(starter.id);
        }
        Ok(vec![starter.id])
    }

    async fn mend(&mut self) -> Result<Vec<i64>, Error> {
        let Some((id, flaw)) = self.flawed.pop() else { return Ok(Vec::new()) };
        let today = self.today.to_string();
        match flaw {
            Flaw::NoTitle | Flaw::UnknownTitle => {
                let sql = "update hr.employee set title = 'Mx' where id = $1 returning id";
                self.save("mend title", sql, &[&id]).await
            }
            Flaw::NoPay => {
                let sql = "insert into hr.job_pay (employee_id, job_id, effective_from, annual_pay, basis, frequency, change_reason)
                           select employee_id, id, least(started_on, $2::text::date), 31250, 'Per annum', 'Calendar monthly', 'Correction'
                           from hr.job where employee_id = $1 returning employee_id";
                self.save("mend pay", sql, &[&id, &today]).await
            }
            Flaw::UnknownReason => {
                let sql = "update hr.job_pay set change_reason = 'Job change'
                           where employee_id = $1 and change_reason = 'TUPE' returning employee_id";
                self.save("mend pay", sql, &[&id]).await
            }
            Flaw::NoEmail => {
                let addresses: Vec<String> = ["home", "work", "services"]
                    .map(|kind| self.people.email(kind, "mended", "later"))
                    .into();
                let sql = "insert into hr.email (employee_id, kind, address)
                           select $1::bigint, kind, address from unnest(array['home', 'work', 'services'], $2::text[]) as e (kind, address)
                           returning employee_id";
                self.save("mend email", sql, &[&id, &addresses]).await
            }
            Flaw::BadNationalInsurance => {
                let sql = "update hr.employee set ni_number = null where id = $1 returning id";
                self.save("mend number", sql, &[&id]).await
            }
            Flaw::UnmappedLevel => {
                let sql = "update hr.employee set benefits_level = 'Standard' where id = $1 returning id";
                self.save("mend level", sql, &[&id]).await
            }
        }
    }
}

/// The application's own trail, in the same transaction.
async fn audit(transaction: &Transaction<'_>, action: &str, employees: &[i64]) -> Result<(), Error> {
    let sql = "insert into hr.audit_log (employee_id, entry)
               select id, jsonb_build_object('action', $1::text) from unnest($2::bigint[]) as e (id)";
    transaction.execute(sql, &[&action, &employees]).await.map(drop)
}

fn ids(rows: &[Row]) -> Vec<i64> {
    rows.iter().map(|row| row.get(0)).collect()
}
