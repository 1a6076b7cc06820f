//! No personal value in logs, metrics, history, states, or anywhere else in the ledger: unmistakable values are planted
//! in every column, everything is made to fail, and then all that was written is searched.

use std::fmt::Write as _;

use benefits_sync::sandbox::FaultRule;

use crate::for_each_major;
use crate::support::site::{Site, eventually};

/// What is planted into text columns contains this; numbers and dates are given below.
const MARK: &str = "zqxplanted";
/// Other planted values, as they would be printed.
const PLANTED: [&str; 6] = ["zqxplanted", "73519.82", "1957-03-09", "QQ735198C", "07700973519", "31.75"];

async fn plant(site: &Site, id: i64) {
    let sql = format!(
        "update hr.employee set forenames = '{MARK} fore', known_as = '{MARK} known', surname = '{MARK} surname', \
            date_of_birth = '1957-03-09', ni_number = 'QQ735198C', bank_account = '{MARK} bank', \
            ethnicity = '{MARK} eth', notes = '{MARK} notes', employee_number = '{MARK}{id}' where id = {id};
         update hr.email set address = '{MARK}.' || kind || '{id}@planted.example' where employee_id = {id};
         update hr.phone set number = '07700973519' where employee_id = {id};
         update hr.address set line_1 = '{MARK} line 1', line_2 = '{MARK} line 2', line_3 = '{MARK} line 3', \
            line_4 = '{MARK} line 4', postcode = 'ZX9 9ZX' where employee_id = {id};
         update hr.job set title = '{MARK} job', weekly_hours = 31.75 where employee_id = {id};
         update hr.job_pay set annual_pay = 73519.82 where employee_id = {id};"
    );
    site.hr.batch_execute(&sql).await.unwrap();
}

async fn statement(site: &Site, sql: &str) {
    site.hr.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    site.settled().await;
}

fn arm(site: &Site, rule: &str) {
    site.sandbox.arm(rule.parse::<FaultRule>().unwrap());
}

/// Every row of every table and view of the ledger, as text.
async fn ledger(site: &Site) -> String {
    let tables = "select c.oid::regclass::text from pg_class as c \
                  where c.relnamespace = 'benefits'::regnamespace and c.relkind in ('r', 'p', 'v')";
    let mut all = String::new();
    for table in site.hr.query(tables, &[]).await.unwrap() {
        let table: String = table.get(0);
        let rows = match site.hr.query(&format!("select t::text from {table} as t"), &[]).await {
            Ok(rows) => rows,
            // A view that reads records says so where the record query does not work: that is on show, too.
            Err(error) => {
                writeln!(all, "{table}: {error:?}").unwrap();
                continue;
            }
        };
        for row in rows {
            writeln!(all, "{table}: {}", row.get::<_, Option<&str>>(0).unwrap_or_default()).unwrap();
        }
    }
    all
}

fn nothing_planted(what: &str, text: &str) {
    for value in PLANTED {
        if let Some(line) = text.lines().find(|line| line.to_lowercase().contains(&value.to_lowercase())) {
            panic!("{what} holds {value}: {line}");
        }
    }
    assert!(!text.contains("ZX9 9ZX"), "{what} holds the postcode");
}

for_each_major! {
    async fn whatever_fails_no_personal_value_is_written_down(major: u32) {
        for format in ["text", "json"] {
            let mut site = Site::new(major).await;
            site.more = format!(
                "[delivery]\nbackoff_min = \"10ms\"\nbackoff_max = \"50ms\"\n[log]\nlevel = \"trace\"\nformat = \"{format}\"\n"
            );
            let anew = include_str!("../../sql/demo/describe.sql")
                .replace("        j.fte,", "        case when e.notes like '%cast%' then e.notes::numeric else j.fte end as fte,");
            site.hr.batch_execute(&anew).await.unwrap();
            for id in 1..=4 {
                plant(&site, id).await;
            }
            let process = site.spawn().await;
            // Accepted.
            site.sync(&["1", "2", "3"]).await;
            // Invalid here: an unknown title (which may be shown, once refused) and values of a bad form or length.
            statement(&site, "update hr.employee set title = 'Grand Vizier' where id = 1").await;
            statement(&site, &format!("update hr.employee set title = 'Mx', ni_number = '{MARK}', surname = repeat('{MARK}', 50) where id = 1")).await;
            statement(&site, &format!("update hr.email set address = '{MARK} at home' where employee_id = 1")).await;
            // Unreadable: PostgreSQL quotes the value in its message.
            statement(&site, &format!("update hr.employee set notes = 'cast {MARK}' where id = 2")).await;
            assert_eq!(site.status("2").await, ("failed".to_owned(), Some("unreadable".to_owned())));
            // Refused there: an email in use, quoted or not, a validation problem, nonsense for an answer.
            statement(&site, &format!("update hr.email set address = '{MARK}.work2@planted.example' where employee_id = 3")).await;
            assert_eq!(site.status("3").await, ("failed".to_owned(), Some("email-in-use".to_owned())));
            statement(&site, &format!("update hr.email set address = '{MARK}.work3@planted.example' where employee_id = 3")).await;
            for rule in ["reject", "internal", "invalid-json", "wrong-content-type", "huge-body", "half-answer", "lost-after", "429", "redirect"] {
                arm(&site, &format!("{rule},next=1,on=writes,external-id=3"));
                statement(&site, &format!("update hr.employee set known_as = '{MARK} {rule}' where id = 3")).await;
            }
            // Somebody whose email is another's, whose account is gone, and whose create fails.
            let account = site.sandbox.account_of("3").unwrap();
            site.sandbox.remove_account(&account.id, true);
            statement(&site, &format!("update hr.employee set known_as = '{MARK} gone' where id = 3")).await;
            assert_eq!(site.status("3").await.1.as_deref(), Some("link-broken"));
            arm(&site, "reject,next=1,on=createEmployee");
            site.sync(&["4"]).await;
            // The record query breaks for everybody.
            site.hr.batch_execute(&format!("alter table hr.employee rename column known_as to k; update hr.employee set k = '{MARK} k' where id = 3")).await.unwrap();
            eventually("delivery is halted", async || site.get("/readyz").await.0 == 503).await;
            site.passed().await;
            let sent = site.sandbox.journal();
            let is_planted = |body: &[u8]| String::from_utf8_lossy(body).contains(MARK);
            assert!(sent.iter().any(|e| e.body.as_deref().is_some_and(is_planted)), "the values did pass through");
            let metrics = site.get("/metrics").await.1;
            let ready = site.get("/readyz").await.1;
            process.kill9();
            let log = std::fs::read_to_string(site.directory.path().join("log")).unwrap();
            assert!(log.lines().count() > 20, "{log}");
            nothing_planted("the log", &log);
            nothing_planted("/metrics", &metrics);
            nothing_planted("/readyz", &ready);
            let ledger = ledger(&site).await;
            nothing_planted("the ledger", &ledger);
            assert!(ledger.contains("Grand Vizier"), "a refused picklist value is shown to whoever has to mend it");
            assert!(!log.contains("Grand Vizier") && !metrics.contains("Grand Vizier"));
            assert!(!log.contains("sandbox-token"), "nor the token");
        }
    }
}
