//! People are found by name: described by the site, read from HR, kept nowhere, for viewers and managers only.

use tokio_postgres::Client;

use crate::for_each_major;
use crate::support::database::connect;
use crate::support::site::Site;

/// Ids of those who are found, in order.
async fn found(client: &Client, search: &str) -> Vec<String> {
    let sql = "select employee_id from benefits.search_employees($1)";
    client.query(sql, &[&search]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

/// A login of this test's own, with a role or none.
async fn login(site: &Site, role: &str) -> (String, Client) {
    let name = format!("search_{role}_{}", site.database.name);
    let member = if role.is_empty() { String::new() } else { format!(" in role {role}") };
    site.hr.batch_execute(&format!("create role \"{name}\" login{member}")).await.unwrap();
    let client = connect(&site.database.url_as(&name)).await;
    (name, client)
}

async fn named(site: &Site) {
    site.hr
        .batch_execute(
            "update hr.employee set forenames = 'Zebedee Quincy', known_as = null, surname = 'O''Zyx' where id = 1;
             update hr.employee set forenames = 'Quincy', known_as = 'Zeb', surname = '100%_Zyx' where id = 2;
             update hr.employee set forenames = 'Éowyn', known_as = null, surname = 'Zyx', employee_number = 'N-7\\7' where id = 3",
        )
        .await
        .unwrap();
}

for_each_major! {
    async fn people_are_found_by_every_word_in_any_described_column_whatever_its_case_and_shown_with_their_state(major: u32) {
        let mut site = Site::new(major).await;
        named(&site).await;
        site.start().await;
        site.sync(&["2"]).await;
        for (search, ids) in [
            ("zyx", &["2", "1", "3"][..]),
            ("  ZYX   quincy ", &["2", "1"]),
            ("éowyn", &["3"]),
            ("ÉOWYN", &["3"]),
            ("100%_", &["2"]),
            ("0__Z", &[]),
            ("o'z", &["1"]),
            ("n-7\\7", &["3"]),
            ("zyx nobody", &[]),
            ("", &[]),
            ("   ", &[]),
            ("'; drop table hr.employee; --", &[]),
        ] {
            assert_eq!(found(&site.hr, search).await, ids, "{search:?}");
        }
        let rows = site.hr.query("select name, state from benefits.search_employees('zyx', 2)", &[]).await.unwrap();
        let shown: Vec<(&str, &str)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        assert_eq!(shown, [("Zeb 100%_Zyx", "successful"), ("Zebedee Quincy O'Zyx", "not_syncing")]);
        let sql = "select string_agg(employee_id || ' ' || name, ', ' order by employee_id) from benefits.employee_names(array['1', '3', '999', 'x', '1'])";
        assert_eq!(site.hr.query_one(sql, &[]).await.unwrap().get::<_, &str>(0), "1 Zebedee Quincy O'Zyx, 3 Éowyn Zyx");
        site.stop().await;
    }

    async fn viewers_and_managers_may_search_and_nobody_else_whatever_they_were_granted(major: u32) {
        let site = Site::new(major).await;
        named(&site).await;
        for role in ["benefits_viewer", "benefits_manager", ""] {
            let (name, client) = login(&site, role).await;
            site.hr.batch_execute(&format!("grant usage on schema benefits to \"{name}\"")).await.unwrap();
            for sql in ["select * from benefits.search_employees('zyx')", "select * from benefits.employee_names(array['1'])"] {
                let refused = client.query(sql, &[]).await.err().map(|error| error.code().unwrap().code().to_owned());
                assert_eq!(refused.as_deref(), role.is_empty().then_some("42501"), "{role}: {sql}");
            }
            for sql in [
                "select * from benefits.read_search(array['%'], 5)",
                "select * from benefits.read_names(array['1'])",
                "select benefits.explain_search()",
                "select benefits.describe_search('select 1 as employee_id, 2 as name')",
                "select surname from hr.employee",
            ] {
                assert_eq!(client.batch_execute(sql).await.unwrap_err().code().unwrap().code(), "42501", "{role}: {sql}");
            }
            // By mistake, the right to execute alone: the function asks who it is.
            site.hr.batch_execute(&format!("grant execute on function benefits.search_employees(text, integer) to \"{name}\"")).await.unwrap();
            assert_eq!(client.query("select * from benefits.search_employees('zyx')", &[]).await.is_ok(), !role.is_empty(), "{role}");
            site.hr.batch_execute(&format!("drop owned by \"{name}\"; drop role \"{name}\"")).await.unwrap();
        }
    }

    async fn a_search_that_cannot_work_is_refused_with_what_and_where_and_leaves_the_one_before_in_place(major: u32) {
        let site = Site::new(major).await;
        named(&site).await;
        site.hr
            .batch_execute("create function hr.shout(text) returns text language sql stable as 'select upper($1)'")
            .await
            .unwrap();
        for (query, named, hint) in [
            ("select id as employee_id, name from hr.nowhere", "hr.nowhere", ""),
            ("select id as employee_id, surname from hr.employee", "no column name", "Select what people are called as name"),
            ("select surname as name from hr.employee", "no column employee_id", "Select the employee's key"),
            ("select employee_number as employee_id, surname as name from hr.employee", "employee_id has type text in the search query, and bigint in the record query", "same key"),
            ("select id as employee_id, hr.shout(surname) as name from hr.employee", "the search query calls functions that may read tables unseen: hr.shout",
                "benefits.describe_search(query, declared => array['schema.function(type)'::regprocedure]); benefits_owner needs the right"),
            ("select e.id as employee_id, e::text as name from hr.employee as e", "the search query refers to a whole row", ""),
            ("delete from hr.employee", "syntax", ""),
            ("select id as employee_id, surname as name from hr.employee; drop table hr.email", ";", ""),
        ] {
            let (message, told) = site.refused(&format!("select benefits.describe_search($q$ {query} $q$)")).await;
            assert!(message.contains(named) && told.contains(hint), "{query}: {message} ({told})");
        }
        assert_eq!(found(&site.hr, "éowyn").await, ["3"]);
    }
}

#[tokio::test]
async fn without_a_description_of_names_a_search_says_so_and_everything_else_works() {
    let mut site = Site::new(18).await;
    site.hr.batch_execute("select benefits.describe_search(null)").await.unwrap();
    let (message, hint) = site.refused("select * from benefits.search_employees('a')").await;
    assert_eq!(message, "the site has not described how people are found by name");
    assert!(hint.contains("benefits.describe_search"), "{hint}");
    site.start().await;
    site.sync(&["1"]).await;
    assert_eq!(site.status("1").await.0, "successful");
    site.stop().await;
}

#[tokio::test]
async fn names_are_read_when_they_are_asked_for_and_nothing_of_them_is_stored_nor_stands_in_hrs_way() {
    let site = Site::new(18).await;
    named(&site).await;
    assert_eq!(found(&site.hr, "éowyn").await, ["3"]);
    let tables = "select format('%I.%I', n.nspname, c.relname) from pg_class as c inner join pg_namespace as n on n.oid = c.relnamespace
        where n.nspname = 'benefits' and c.relkind = 'r'";
    for row in site.hr.query(tables, &[]).await.unwrap() {
        let table: &str = row.get(0);
        let sql = format!(
            "select count(*) from {table} as t where t::text ilike '%éowyn%' or t::text like '%Zyx%'"
        );
        assert_eq!(site.hr.query_one(&sql, &[]).await.unwrap().get::<_, i64>(0), 0, "{table}");
    }
    // HR's own migration is not held up, and the next search tells that it was not described anew.
    site.hr.batch_execute("alter table hr.employee drop column known_as").await.unwrap();
    assert!(site.refused("select * from benefits.search_employees('a')").await.0.contains("known_as"));
}

#[tokio::test]
async fn a_page_has_at_most_a_thousand_names() {
    let site = Site::new(18).await;
    let sql = "select benefits.employee_names(array(select n::text from generate_series(1, 1001) as n))";
    assert_eq!(site.refused(sql).await.0, "names of 1001 employees at once");
    let sql = "select count(*) from benefits.search_employees('a', 1000000)";
    assert!(site.hr.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) <= 1000);
    let sql = "select count(*) from benefits.search_employees('a', null)";
    assert!(site.hr.query_one(sql, &[]).await.is_ok());
}
