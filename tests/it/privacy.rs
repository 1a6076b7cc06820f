//! No personal value in logs, metrics, history, states, or anywhere else in the ledger: unmistakable values are planted
//! in every column, everything is made to fail, and then all that was written and printed is searched.

use std::fmt::Write as _;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Bytes;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use benefits_sync::sandbox::FaultRule;

use crate::for_each_major;
use crate::support::site::{Site, eventually};

/// What is planted into text columns contains this; numbers and dates are given below.
const MARK: &str = "zqxplanted";
/// Other planted values, as they would be printed.
const PLANTED: [&str; 6] = ["zqxplanted", "73519.82", "1957-03-09", "QQ735198C", "07700973519", "31.75"];

/// Raises an error that quotes its argument wherever an error has room.
const GRUMBLE: &str = "create function hr.grumble(what text) returns numeric language plpgsql immutable as $$ begin \
    raise exception using message = what, detail = what, hint = what, column = 'c' || what, constraint = 'k' || what, \
    datatype = 'd' || what, table = 't' || what, schema = 's' || what; end $$; grant usage on schema hr to benefits_owner";

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

/// What people have printed for them, and may send to whoever helps: every command that looks, as they call it.
fn printed(site: &Site) -> String {
    let config = site.config_file();
    let mut all = String::new();
    for line in [
        "doctor",
        "doctor --json",
        "status",
        "status --json",
        "preview",
        "preview --json --employee 1 --employee 2 --employee 3 --employee 4",
        "reconcile --dry-run --json",
        "reconcile --dry-run --platform",
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_benefits-sync"));
        let output = command.args(line.split(' ')).arg("--config").arg(&config).output().unwrap();
        for stream in [output.stdout, output.stderr] {
            writeln!(
                all,
                "{line}: {}",
                String::from_utf8(stream).unwrap().replace('\n', &format!("\n{line}: "))
            )
            .unwrap();
        }
    }
    all
}

/// What our sessions have PostgreSQL show to whoever may look at its activity.
async fn activity(site: &Site) -> String {
    let sql = "select coalesce(string_agg(query, E'\n'), '') from pg_stat_activity \
               where datname = current_database() and application_name like 'benefits-sync%'";
    site.hr.query_one(sql, &[]).await.unwrap().get(0)
}

/// `why` of everybody.
async fn reasons(site: &Site) -> String {
    let sql = "select string_agg(benefits.why(employee_id), E'\n') from benefits.employee_status";
    site.hr.query_one(sql, &[]).await.unwrap().get(0)
}

/// A platform that repeats what it was sent wherever there is room for it; after that it is the sandbox.
async fn echo(site: &Site) -> String {
    let (writes, searches) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let behind = site.sandbox.base_url().trim_end_matches("/api/v1").to_owned();
    let answer = async move |method: Method, uri: Uri, headers: HeaderMap, body: Bytes| {
        let sent = String::from_utf8_lossy(&body).into_owned();
        if method != Method::GET {
            let n = writes.fetch_add(1, Ordering::SeqCst);
            if let Some(refusal) = refusal(n, &sent) {
                return refusal;
            }
        } else if uri.query().is_some_and(|query| query.contains("email="))
            && searches.fetch_add(1, Ordering::SeqCst) < 2
        {
            return (
                StatusCode::INTERNAL_SERVER_ERROR,
                [("content-type", "text/plain"), ("location", "/")].map(owned).to_vec(),
                uri.to_string(),
            );
        }
        let mut request = reqwest::Client::new().request(method, format!("{behind}{uri}")).body(body);
        for name in ["authorization", "content-type", "idempotency-key"] {
            request =
                headers.get(name).into_iter().fold(request, |request, value| request.header(name, value));
        }
        let response = request.send().await.unwrap();
        let content_type =
            response.headers().get("content-type").map_or("", |value| value.to_str().unwrap()).to_owned();
        (response.status(), vec![("content-type".to_owned(), content_type)], response.text().await.unwrap())
    };
    let answer = Arc::new(answer);
    let app =
        axum::Router::new().fallback(move |method: Method, uri: Uri, headers: HeaderMap, body: Bytes| {
            let answer = Arc::clone(&answer);
            async move {
                let (status, headers, body) = answer(method, uri, headers, body).await;
                let mut response = axum::response::Response::new(axum::body::Body::from(body));
                *response.status_mut() = status;
                for (name, value) in headers {
                    response
                        .headers_mut()
                        .insert(name.parse::<axum::http::HeaderName>().unwrap(), value.parse().unwrap());
                }
                response
            }
        });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    format!("http://{address}/api/v1")
}

fn owned((name, value): (&str, &str)) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

type Refusal = (StatusCode, Vec<(String, String)>, String);

/// The n-th: each repeats the body in places of its own.
fn refusal(n: usize, sent: &str) -> Option<Refusal> {
    let quoted = serde_json::Value::from(sent);
    let problem = serde_json::json!({
        "type": format!("/problems/duplicate?of={sent}"), "title": quoted, "status": 422, "detail": quoted, "instance": quoted,
        "errors": [{ "field": quoted, "code": quoted, "message": quoted }, { "field": "surname", "code": quoted }],
    });
    let kind = |kind: &str| vec![("content-type".to_owned(), kind.to_owned())];
    let header = |name: &str| {
        let value: String = sent.chars().filter(char::is_ascii_graphic).collect();
        [kind("text/html"), vec![(name.to_owned(), value)]].concat()
    };
    let html = format!("<html><body>{sent}</body></html>");
    Some(match n {
        0 => (StatusCode::UNPROCESSABLE_ENTITY, kind("application/problem+json"), problem.to_string()),
        1 => (StatusCode::CONFLICT, kind("application/problem+json"), problem.to_string()),
        2 => (StatusCode::INTERNAL_SERVER_ERROR, kind("text/html"), html),
        3 => (StatusCode::OK, kind("text/html"), html),
        4 => (StatusCode::OK, kind("application/json"), serde_json::json!([sent]).to_string()),
        5 => (
            StatusCode::CREATED,
            kind("application/json"),
            serde_json::json!({ "id": 7, "status": sent, "sourceVersion": sent }).to_string(),
        ),
        6 => (StatusCode::FOUND, header("location"), html),
        7 => (StatusCode::PAYLOAD_TOO_LARGE, header("x-request-id"), html),
        8 => (
            StatusCode::OK,
            [kind("application/json"), vec![("content-encoding".to_owned(), "gzip".to_owned())]].concat(),
            sent.to_owned(),
        ),
        _ => return None,
    })
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
                .replace("        j.fte,", "        case when e.notes like '%cast%' then e.notes::numeric when e.notes like '%grumble%' then hr.grumble(e.notes) \
                    else j.fte end as fte,");
            site.hr.batch_execute(GRUMBLE).await.unwrap();
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
            // Neither does what a function of HR's says when it raises an error.
            statement(&site, &format!("update hr.employee set notes = 'grumble {MARK}' where id = 2")).await;
            assert!(site.why("2").await.contains("unreadable"), "{}", site.why("2").await);
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
            nothing_planted("what commands print", &printed(&site));
            // The record query breaks for everybody.
            site.hr.batch_execute(&format!("alter table hr.employee rename column known_as to k; update hr.employee set k = '{MARK} k' where id = 3")).await.unwrap();
            eventually("delivery is halted", async || site.get("/readyz").await.0 == 503).await;
            site.passed().await;
            let sent = site.sandbox.journal();
            let is_planted = |body: &[u8]| String::from_utf8_lossy(body).contains(MARK);
            assert!(sent.iter().any(|e| e.body.as_deref().is_some_and(is_planted)), "the values did pass through");
            nothing_planted("what commands print", &printed(&site));
            nothing_planted("pg_stat_activity", &activity(&site).await);
            nothing_planted("why", &reasons(&site).await);
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
    async fn a_platform_that_repeats_what_it_was_sent_is_not_repeated(major: u32) {
        let mut site = Site::new(major).await;
        let quick = "[delivery]\nbackoff_min = \"10ms\"\nbackoff_max = \"50ms\"\n";
        site.more = format!("{quick}[log]\nlevel = \"trace\"\n");
        for id in 1..=3 {
            plant(&site, id).await;
        }
        let process = site.spawn_at(&echo(&site).await);
        site.until_ready().await;
        for id in ["1", "2", "3"] {
            site.hr.execute("select benefits.sync($1)", &[&[id].as_slice()]).await.unwrap();
            site.settled().await;
        }
        let refused = "select count(*) from benefits.history where error_code in ('refused', 'validation')";
        assert!(site.hr.query_one(refused, &[]).await.unwrap().get::<_, i64>(0) > 0, "it did refuse");
        statement(&site, "update hr.employee set notes = 'saved again' where id in (1, 2, 3)").await;
        site.sync(&["1", "2", "3"]).await;
        for id in ["1", "2", "3"] {
            assert_eq!(site.status(id).await.0, "successful", "nothing is lost: {}", site.why(id).await);
        }
        let metrics = site.get("/metrics").await.1;
        process.kill9();
        nothing_planted("the log", &site.log());
        nothing_planted("/metrics", &metrics);
        nothing_planted("the ledger", &ledger(&site).await);
        nothing_planted("why", &reasons(&site).await);
    }
    async fn an_error_that_a_function_of_hrs_raises_as_a_passing_one_fails_alone_and_is_not_repeated(major: u32) {
        let mut site = Site::new(major).await;
        site.more = format!("[log]\nlevel = \"{}\"\n", "trace");
        let grumble = GRUMBLE.replace("using message", "using errcode = '55000', message");
        site.hr.batch_execute(&grumble).await.unwrap();
        let anew = include_str!("../../sql/demo/describe.sql").replace("        j.fte,", "        case when e.notes like '%grumble%' then hr.grumble(e.notes) else j.fte end as fte,");
        site.hr.batch_execute(&anew).await.unwrap();
        plant(&site, 1).await;
        site.hr.execute("update hr.employee set notes = $1 where id = 1", &[&format!("grumble {MARK}")]).await.unwrap();
        let process = site.spawn().await;
        site.sync(&["1", "2"]).await;
        assert_eq!(site.status("1").await, ("failed".to_owned(), Some("unreadable".to_owned())));
        assert_eq!(site.status("2").await.0, "successful");
        assert!(site.why("1").await.contains("55000"), "{}", site.why("1").await);
        nothing_planted("what commands print", &printed(&site));
        process.kill9();
        nothing_planted("the log", &site.log());
        nothing_planted("the ledger", &ledger(&site).await);
    }
}
