//! The site description fits other shapes of HR schema than the demo's, each run end to end.

use benefits_sync::config::Config;
use benefits_sync::postgres::Target;
use benefits_sync::sandbox::SandboxOptions;
use benefits_sync::setup;

use crate::for_each_major;
use crate::support::database::{connect, database};
use crate::support::site::{Site, eventually};

/// A site with another HR schema: what stands before `-- DESCRIPTION`, then the set-up, then the rest. It runs.
async fn site(major: u32, shape: &str) -> Site {
    let (schema, description) = shape.split_once("-- DESCRIPTION").unwrap();
    let database = database(major).await;
    let client = connect(&database.url).await;
    client.batch_execute(schema).await.unwrap();
    let mut site =
        Site::on(database, SandboxOptions { keep_bodies: true, ..SandboxOptions::default() }).await;
    let config: Config = site.config();
    setup::apply(&Target::parse(&site.database.url).unwrap(), &config).await.unwrap();
    client.batch_execute(description).await.unwrap();
    site.start().await;
    site
}

/// Runs SQL and waits until it has arrived.
async fn after(site: &Site, sql: &str) {
    site.hr.batch_execute(sql).await.unwrap();
    site.settled().await;
}

async fn last_fields(site: &Site, id: &str) -> Vec<String> {
    site.history(id).await.pop().unwrap().1
}

for_each_major! {
    async fn uuid_keys(major: u32) {
        let mut site = site(major, include_str!("shapes/uuid.sql")).await;
        let id = |n: u32| format!("a0000000-0000-4000-8000-00000000000{n}");
        let (one, two, three) = (id(1), id(2), id(3));
        site.sync(&[&one, &two]).await;
        assert_eq!(site.status(&one).await, ("successful".to_owned(), None));
        assert_eq!(site.held(&one, "annualPay").as_deref(), Some("30000.50"));
        assert_eq!(site.held(&one, "forenames").as_deref(), Some("Ada May"));
        after(&site, &format!("update people.person set middle_names = null where person_uuid = '{one}'")).await;
        assert_eq!(site.held(&one, "forenames").as_deref(), Some("Ada"));
        after(&site, "update people.department set label = 'Research'").await;
        assert_eq!(site.held(&two, "department").as_deref(), Some("Research"));
        after(&site, &format!("insert into people.salary (person_uuid, from_date, pennies, reason) values ('{two}', '2024-01-01', 3500000, 'Promotion')")).await;
        assert_eq!(site.held(&two, "annualPay").as_deref(), Some("35000.00"));
        // The child row's own key says nothing of whose it was.
        after(&site, "delete from people.salary where pennies = 3500000").await;
        assert_eq!(site.held(&two, "annualPay").as_deref(), Some("30000.50"));
        after(&site, &format!("select benefits.assign_level(array['{one}'], 'executive')")).await;
        assert_eq!(site.held(&one, "packageId").as_deref(), Some("executive"));
        site.hr.batch_execute(&format!("update people.person set send_to_benefits = 'Y' where person_uuid = '{three}'")).await.unwrap();
        site.passed().await;
        site.until_state(&three, "successful").await;
        assert_eq!(site.refused("select benefits.sync(array['a0000000-0000-4000-8000-00000000ffff'])").await.0,
            "unknown employee: a0000000-0000-4000-8000-00000000ffff");
        site.stop().await;
    }

    async fn everything_in_one_wide_table(major: u32) {
        let mut site = site(major, include_str!("shapes/wide.sql")).await;
        site.sync(&["AB-1", "AB-2"]).await;
        assert_eq!(site.status("AB-1").await, ("successful".to_owned(), None));
        for (field, value) in [("dateOfBirth", "1975-03-17"), ("annualPay", "28000.40"), ("postcode", "LS1 4AP"), ("weeklyHours", "37.5"), ("addressLine2", "Leeds")] {
            assert_eq!(site.held("AB-1", field).as_deref(), Some(value), "{field}");
        }
        after(&site, r#"update public."Staff" set "Address"[2] = 'York', "Photo" = 'another' where "Staff Code" = 'AB-1'"#).await;
        assert_eq!(last_fields(&site, "AB-1").await, ["addressLine2"]);
        let requests = site.sandbox.requests();
        after(&site, r#"update public."Staff" set "Photo" = 'not mapped' where "Staff Code" = 'AB-1'"#).await;
        assert_eq!(site.sandbox.requests(), requests);
        after(&site, r#"update public."Staff" set "Leaver" = '2026-12-31 17:00' where "Staff Code" = 'AB-2'"#).await;
        assert_eq!(site.held("AB-2", "leaveDate").as_deref(), Some("2026-12-31"));
        after(&site, "select benefits.assign_level(array['AB-1'], 'Core benefits')").await;
        assert_eq!(site.held("AB-1", "packageId").as_deref(), Some("core"));
        site.hr.batch_execute(r#"update public."Staff" set "New" = 1 where "Staff Code" = 'AB-3'"#).await.unwrap();
        site.passed().await;
        site.until_state("AB-3", "successful").await;
        // The key itself is changed: one has gone, another is new.
        after(&site, r#"update public."Staff" set "Staff Code" = 'AB-9' where "Staff Code" = 'AB-1'"#).await;
        assert_eq!(site.status("AB-1").await, ("failed".to_owned(), Some("record-gone".to_owned())));
        assert_eq!(site.status("AB-9").await.0, "not_syncing");
        site.stop().await;
    }

    async fn addresses_and_contacts_in_tables_with_types_and_history(major: u32) {
        let mut site = site(major, include_str!("shapes/typed.sql")).await;
        site.sync(&["1", "2"]).await;
        assert_eq!(site.status("1").await, ("successful".to_owned(), None));
        for (field, value) in [("email", "t1@example.org"), ("addressLine3", "Bath"), ("mobile", "07700 900121"), ("annualPay", "41000.00")] {
            assert_eq!(site.held("1", field).as_deref(), Some(value), "{field}");
        }
        // Another contact becomes the preferred one; then it is deleted.
        after(&site, "update core.contact set preferred = not preferred where worker_id = 1 and type = 'WORK_EMAIL'").await;
        assert_eq!(site.held("1", "email").as_deref(), Some("old.t1@example.org"));
        after(&site, "delete from core.contact where worker_id = 1 and preferred and type = 'WORK_EMAIL'").await;
        assert_eq!(site.held("1", "email").as_deref(), Some("t1@example.org"));
        // A move: the old address is closed, the new one begins.
        after(&site,
            "begin; update core.address set valid = daterange(lower(valid), benefits.today()) where worker_id = 1;
             insert into core.address (worker_id, usage, valid, lines, postal_code)
                 values (1, 'HOME', daterange(benefits.today(), null), E'9 New Street\nLeeds', 'LS1 1AA'),
                        (1, 'BILLING', daterange(benefits.today(), null), 'Elsewhere', null); commit").await;
        assert_eq!(site.held("1", "addressLine1").as_deref(), Some("9 New Street"));
        assert_eq!(site.held("1", "addressLine3"), None);
        // A contact that is moved to another person leaves the first one.
        after(&site, "update core.contact set worker_id = 2, preferred = true where worker_id = 1 and type = 'MOBILE'").await;
        assert_eq!(site.held("1", "mobile"), None);
        after(&site, "select benefits.assign_level(array['2'], 'plus')").await;
        assert_eq!(site.held("2", "packageId").as_deref(), Some("plus"));
        // A post that begins later is announced with what it changes, by the range's bounds.
        after(&site,
            "begin; update core.post set valid = tstzrange(lower(valid), (benefits.today() + 7)::timestamp at time zone 'Europe/London') where worker_id = 2;
             insert into core.post (worker_id, valid, salary, reason)
                 values (2, tstzrange((benefits.today() + 7)::timestamp at time zone 'Europe/London', null), 52000, 'Promotion'); commit").await;
        let row = site.hr.query_one("select on_date = benefits.today() + 7, fields from benefits.upcoming_change", &[]).await.unwrap();
        assert!(row.get::<_, bool>(0));
        assert_eq!(row.get::<_, Vec<String>>(1), ["annualPay", "packageId", "payChangeReason"]);
        site.hr.batch_execute("update core.worker set to_benefits = true where worker_id = 3").await.unwrap();
        eventually("the starter is sent", async || site.status("3").await.0 == "successful").await;
        site.stop().await;
    }
}
