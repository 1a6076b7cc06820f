//! The promise, what comes before anything flows, and the fields that are sent: each sentence of the domain by its name.

use std::collections::BTreeMap;
use std::time::Duration;

use benefits_sync::record::Field;
use benefits_sync::sandbox::SeedAccount;

use crate::for_each_major;
use crate::support::site::{Site, eventually};

async fn started() -> Site {
    let mut site = Site::new(18).await;
    site.start().await;
    site
}

/// Employee 1 with a value in every column that is mapped, and in those that are nobody's business.
const FULL: &str = "
    update hr.employee set employee_number = 'E-1', title = ' mrs', forenames = 'Ada May', known_as = 'Ada', surname = 'Lovelace',
        date_of_birth = '1980-12-10', gender = 'F', ni_number = 'qq 12 34 56 c', start_date = '2020-02-01',
        continuous_service_date = '2019-01-31', leave_date = '2090-06-30', benefits_level = 'Enhanced',
        bank_sort_code = '99-88-77', bank_account = '87654321', ethnicity = 'Undisclosed', notes = 'Privately told' where id = 1;
    delete from hr.email where employee_id = 1;
    insert into hr.email (employee_id, kind, address)
    values (1, 'home', 'home@example.org'), (1, 'work', 'work@example.org'), (1, 'services', 'services@example.org');
    delete from hr.phone where employee_id = 1;
    insert into hr.phone (employee_id, kind, number)
    values (1, 'home', '020 7946 0001'), (1, 'mobile', '07700 900001'), (1, 'emergency', '07700 900999');
    delete from hr.address where employee_id = 1;
    insert into hr.address (employee_id, kind, line_1, line_2, line_3, line_4, postcode, country_code, from_date)
    values (1, 'home', 'Flat 1', '12 Low Road', 'Leeds', 'Yorkshire', 'LS1 4AP', 'GB', '2001-01-01');
    delete from hr.job_pay where employee_id = 1;
    delete from hr.job where employee_id = 1;
    with j as (
        insert into hr.job (employee_id, is_primary, title, grade_id, department_id, location_id, weekly_hours, fte, started_on)
        values (1, true, 'Analyst', 3, 2, 1, 36.5, 0.9733, '2020-02-01'), (1, false, 'Night porter', 2, 1, 2, 5, 0.1, '2021-01-01')
        returning id, is_primary
    )
    insert into hr.job_pay (employee_id, job_id, effective_from, annual_pay, basis, frequency, change_reason)
    select 1, j.id, '2020-02-01', case when j.is_primary then 41250.5 else 1 end, 'Per annum', 'Calendar monthly', 'Starter' from j";

for_each_major! {
    async fn every_field_is_sent_from_its_column_in_the_form_that_the_api_takes(major: u32) {
        let mut site = Site::new(major).await;
        site.hr.batch_execute(FULL).await.unwrap();
        site.start().await;
        site.sync(&["1"]).await;
        assert_eq!(site.status("1").await, ("successful".to_owned(), None));
        let department: String = site.hr.query_one("select name from hr.department where id = 2", &[]).await.unwrap().get(0);
        let expected = BTreeMap::from([
            ("employeeNumber", "E-1"), ("title", "Mrs"), ("forenames", "Ada May"), ("knownAs", "Ada"), ("surname", "Lovelace"),
            ("dateOfBirth", "1980-12-10"), ("gender", "Female"), ("nationalInsuranceNumber", "QQ123456C"), ("email", "work@example.org"),
            ("telephone", "020 7946 0001"), ("mobile", "07700 900001"), ("addressLine1", "Flat 1"), ("addressLine2", "12 Low Road"),
            ("addressLine3", "Leeds"), ("addressLine4", "Yorkshire"), ("postcode", "LS1 4AP"), ("countryCode", "GB"),
            ("startDate", "2020-02-01"), ("continuousServiceDate", "2019-01-31"), ("leaveDate", "2090-06-30"), ("jobTitle", "Analyst"),
            ("grade", "B2"), ("department", department.as_str()), ("location", "London, Fenchurch Street"), ("weeklyHours", "36.5"),
            ("fte", "0.9733"), ("annualPay", "41250.50"), ("currency", "GBP"), ("payBasis", "Annual"), ("payFrequency", "Monthly"),
            ("payChangeReason", "New starter"), ("payEffectiveDate", "2020-02-01"), ("packageId", "plus"),
        ]);
        assert_eq!(expected.len(), Field::all().count(), "every field there is");
        for (field, value) in expected {
            assert_eq!(site.held("1", field).as_deref(), Some(value), "{field}");
        }
        assert_eq!(site.sandbox.account_of("1").unwrap().external_id.as_deref(), Some("1"));
        site.stop().await;
    }

    async fn bank_details_diversity_and_notes_are_never_sent_and_a_change_of_them_is_passed_over(major: u32) {
        let mut site = Site::new(major).await;
        site.hr.batch_execute(FULL).await.unwrap();
        site.start().await;
        site.sync(&["1"]).await;
        // Seen once, so that the next save is known to change nothing that is sent.
        site.hr.batch_execute("update hr.employee set notes = 'Privately told twice' where id = 1").await.unwrap();
        site.settled().await;
        let requests = site.sandbox.requests();
        site.hr
            .batch_execute("update hr.employee set bank_account = '11112222', ethnicity = 'Told', notes = 'More', last_login = now() where id = 1")
            .await
            .unwrap();
        site.settled().await;
        assert_eq!(site.sandbox.requests(), requests);
        for entry in site.sandbox.journal() {
            let body = entry.body.map(|body| String::from_utf8_lossy(&body).into_owned()).unwrap_or_default();
            for private in ["99-88-77", "87654321", "11112222", "Undisclosed", "Privately", "07700 900999"] {
                assert!(!body.contains(private), "{private}");
            }
        }
        site.stop().await;
    }
}

#[tokio::test]
async fn an_address_a_salary_and_a_benefits_level_reach_benefits_by_themselves() {
    let mut site = started().await;
    site.sync(&["1"]).await;
    for (sql, field, value) in [
        ("update hr.address set line_1 = '1 New Row' where employee_id = 1", "addressLine1", "1 New Row"),
        ("update hr.job_pay set annual_pay = 61234.5 where employee_id = 1", "annualPay", "61234.50"),
        ("update hr.employee set benefits_level = 'Executive' where id = 1", "packageId", "executive"),
    ] {
        site.hr.batch_execute(sql).await.unwrap();
        eventually(field, async || site.held("1", field).as_deref() == Some(value)).await;
    }
    site.stop().await;
}

#[tokio::test]
async fn a_change_is_at_benefits_within_a_second_of_hrs_commit() {
    let mut site = started().await;
    site.sync(&["1"]).await;
    for n in 0..21 {
        let sql = format!("update hr.employee set surname = 'Name {n}' where id = 1");
        site.hr.batch_execute(&sql).await.unwrap();
        site.settled().await;
    }
    let sql = "select extract(epoch from percentile_disc(0.5) within group (order by latency))::float8
        from benefits.sync_history where event = 'updated' and fields = array['surname']";
    let median: f64 = site.hr.query_one(sql, &[]).await.unwrap().get(0);
    assert!(median > 0.0 && median < 1.0, "{median} s");
    site.stop().await;
}

#[tokio::test]
async fn latency_is_measured_from_hrs_commit_also_when_the_service_was_down_meanwhile() {
    let mut site = started().await;
    site.sync(&["1"]).await;
    site.stop().await;
    let asked = std::time::Instant::now();
    site.hr.batch_execute("update hr.employee set surname = 'Waited' where id = 1").await.unwrap();
    let committed = std::time::Instant::now();
    eventually("some time passes", async || committed.elapsed() > Duration::from_millis(1_500)).await;
    site.start().await;
    site.settled().await;
    let sql = "select extract(epoch from latency)::float8 from benefits.sync_history where employee_id = '1' order by at desc limit 1";
    let latency: f64 = site.hr.query_one(sql, &[]).await.unwrap().get(0);
    assert!(latency >= 1.5 && latency <= asked.elapsed().as_secs_f64(), "{latency} s");
    site.stop().await;
}

#[tokio::test]
async fn nothing_is_copied_back_from_benefits_except_the_id_of_the_linked_account() {
    let mut site = Site::new(18).await;
    let account =
        SeedAccount::new(&site.email("1").await).with("mobile", "07700 900555").with("knownAs", "Theirs");
    let id = site.sandbox.seed(account).unwrap();
    let all = "select md5(string_agg(t.row, '|' order by t.row)) from (
        select e::text as row from hr.employee as e union all select m::text from hr.email as m union all select p::text from hr.phone as p
        union all select a::text from hr.address as a union all select j::text from hr.job as j union all select y::text from hr.job_pay as y) as t";
    let before: String = site.hr.query_one(all, &[]).await.unwrap().get(0);
    site.start().await;
    site.sync(&["1", "2"]).await;
    assert_eq!(site.hr.query_one(all, &[]).await.unwrap().get::<_, String>(0), before, "HR is as it was");
    let sql = "select benefits_id from benefits.employee_status where employee_id = '1'";
    assert_eq!(site.hr.query_one(sql, &[]).await.unwrap().get::<_, String>(0), id);
    site.stop().await;
}

#[tokio::test]
async fn while_the_module_is_off_nothing_flows_and_what_is_asked_for_waits_in_progress() {
    let mut site = Site::new(18).await;
    "enabled = false".clone_into(&mut site.benefits);
    site.start().await;
    site.hr.batch_execute("select benefits.sync(array['1'])").await.unwrap();
    site.passed().await;
    assert_eq!(site.status("1").await.0, "in_progress");
    assert_eq!(site.sandbox.requests(), 0);
    let told = "switched off in the configuration";
    eventually("it is told", async || site.why("1").await.contains(told)).await;
    assert_eq!(
        site.hr.query_one("select halted_code from benefits.site", &[]).await.unwrap().get::<_, &str>(0),
        "switched-off"
    );
    site.stop().await;
    site.benefits.clear();
    site.start().await;
    site.settled().await;
    assert!(!site.why("1").await.contains(told), "{}", site.why("1").await);
    assert_eq!(site.status("1").await, ("successful".to_owned(), None));
    site.stop().await;
}

#[tokio::test]
async fn the_email_that_is_sent_and_looked_up_is_the_one_of_the_sites_email_source() {
    for source in ["home", "work", "services"] {
        let mut site = Site::new(18).await;
        site.hr.batch_execute(FULL).await.unwrap();
        let linked = site.sandbox.seed(SeedAccount::new(&format!("{source}@example.org"))).unwrap();
        site.email_source = source;
        site.start().await;
        site.sync(&["1"]).await;
        assert_eq!(site.held("1", "email"), Some(format!("{source}@example.org")));
        assert_eq!(site.sandbox.account_of("1").unwrap().id, linked, "{source}");
        site.stop().await;
    }
}

#[tokio::test]
async fn where_nobody_has_the_email_an_account_is_created_and_its_id_kept() {
    let mut site = started().await;
    site.sync(&["1"]).await;
    let history = site.history("1").await;
    assert_eq!((history.len(), history[0].0.as_str()), (1, "created"));
    let sql = "select benefits_id from benefits.employee_status where employee_id = '1'";
    let kept: String = site.hr.query_one(sql, &[]).await.unwrap().get(0);
    assert_eq!(kept, site.sandbox.account_of("1").unwrap().id);
    site.stop().await;
}

#[tokio::test]
async fn each_mandatory_field_is_required_and_a_record_without_any_other_field_is_taken() {
    let mut site = started().await;
    site.hr
        .batch_execute(
            "update hr.employee set title = '', forenames = null, surname = ' ', date_of_birth = null, gender = null where id = 1;
             delete from hr.email where employee_id = 1; delete from hr.job_pay where employee_id = 1;
             update hr.employee set known_as = null, ni_number = null, start_date = null, continuous_service_date = null,
                leave_date = null, benefits_level = null where id = 2;
             delete from hr.phone where employee_id = 2; delete from hr.address where employee_id = 2;
             update hr.job set grade_id = null, department_id = null, location_id = null, weekly_hours = null, fte = null where employee_id = 2",
        )
        .await
        .unwrap();
    site.sync(&["1", "2"]).await;
    let history = site.history("1").await;
    assert_eq!(
        history[0].1,
        [
            "title",
            "forenames",
            "surname",
            "dateOfBirth",
            "gender",
            "email",
            "annualPay",
            "payBasis",
            "payFrequency",
            "payChangeReason"
        ]
    );
    assert_eq!(history[0].2.as_deref(), Some("required"));
    assert_eq!(site.status("2").await, ("successful".to_owned(), None), "a blank level is fine, too");
    site.stop().await;
}

#[tokio::test]
async fn a_value_that_benefits_does_not_list_is_refused_in_each_of_the_five_picklists() {
    let mut site = started().await;
    site.hr
        .batch_execute(
            "update hr.employee set title = 'Baron', gender = 'Z' where id = 1;
             update hr.job_pay set basis = 'By the piece', frequency = 'Now and then', change_reason = 'Whim' where employee_id = 1",
        )
        .await
        .unwrap();
    site.sync(&["1"]).await;
    let history = site.history("1").await;
    assert_eq!(history[0].1, ["title", "gender", "payBasis", "payFrequency", "payChangeReason"]);
    assert_eq!(history[0].2.as_deref(), Some("unknown-value"));
    site.stop().await;
}

#[tokio::test]
async fn each_typical_value_of_the_picklists_is_taken() {
    let mut site = started().await;
    let values = [
        "Mr,Annual,Weekly,New starter,Male",
        "Mrs,Monthly,Fortnightly,Annual review,Female",
        "Miss,Weekly,Four-weekly,Promotion,Non-binary",
        "Ms,Daily,Monthly,Job change,Prefer not to say",
        "Mx,Hourly,Quarterly,Hours change,Male",
        "Dr,Annual,Annually,Correction,Male",
        "Prof,Annual,Monthly,Correction,Male",
        "Rev,Annual,Monthly,Correction,Male",
        "Sir,Annual,Monthly,Correction,Male",
        "Lady,Annual,Monthly,Correction,Female",
    ];
    let ids: Vec<String> = (1..=values.len()).map(|id| id.to_string()).collect();
    for (id, values) in ids.iter().zip(values) {
        let v: Vec<&str> = values.split(',').collect();
        site.hr
            .batch_execute(&format!(
                "update hr.employee set title = '{}', gender = '{}' where id = {id};
                 update hr.job_pay set basis = '{}', frequency = '{}', change_reason = '{}' where employee_id = {id}",
                v[0], v[4], v[1], v[2], v[3]
            ))
            .await
            .unwrap();
    }
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    site.sync(&ids).await;
    for id in ids {
        assert_eq!(site.status(id).await, ("successful".to_owned(), None), "{id}");
    }
    site.stop().await;
}

#[tokio::test]
async fn the_list_of_levels_is_all_packages_of_the_platform() {
    let mut site = started().await;
    eventually("the packages are fetched", async || {
        site.hr.query_one("select count(*) from benefits.package", &[]).await.unwrap().get::<_, i64>(0) == 4
    })
    .await;
    site.hr.batch_execute("delete from benefits.level_package where level = 'Executive'").await.unwrap();
    let sql = "select string_agg(distinct package_id, ',' order by package_id) from benefits.known_level";
    let listed: String = site.hr.query_one(sql, &[]).await.unwrap().get(0);
    assert_eq!(listed, "apprentice,core,executive,plus", "mapped to a level or not");
    site.stop().await;
}

#[tokio::test]
async fn history_is_kept_thirteen_months_by_default() {
    let mut site = Site::new(18).await;
    for months in [12, 13, 14] {
        site.hr
            .batch_execute(&format!(
                "do $$ declare first date := date_trunc('month', now() at time zone 'UTC') - interval '{months} months'; begin
                    execute format('create table benefits.%I partition of benefits.history for values from (%L) to (%L)',
                        'history_' || to_char(first, 'YYYY_MM'), first || ' 00:00+00', (first + interval '1 month')::date || ' 00:00+00');
                    insert into benefits.history (at, employee_id, event, outcome) values (first + interval '5 days', '{months}', 'updated', 'successful');
                 end $$"
            ))
            .await
            .unwrap();
    }
    site.start().await;
    let kept =
        "select coalesce(string_agg(employee_id, ',' order by employee_id), '') from benefits.sync_history";
    eventually("what is older is dropped", async || {
        site.hr.query_one(kept, &[]).await.unwrap().get::<_, String>(0) == "12,13"
    })
    .await;
    site.stop().await;
}
