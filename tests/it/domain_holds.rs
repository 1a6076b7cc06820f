//! Whose transaction a held mass change was.

use std::collections::BTreeSet;

use tokio_postgres::Client;

use crate::domain_guard::{guarded, hold_of};
use crate::support::site::{Site, eventually};

const MANY_LEAVE: &str = "begin; update hr.employee set leave_date = '2027-03-31' where id <= 4";

/// Waits until the service has looked at who has a transaction open, twice and whole: each look is four questions at most.
async fn looked(client: &Client) {
    let mut asked = BTreeSet::new();
    eventually("the service has looked who is there", async || {
        let sql = "select query_start::text from pg_stat_activity
            where application_name = 'benefits-sync observer' and datname = current_database()";
        asked.extend(client.query(sql, &[]).await.unwrap().iter().map(|row| row.get::<_, String>(0)));
        asked.len() > 12
    })
    .await;
}

#[tokio::test]
async fn a_hold_names_whose_transaction_it_was_where_that_could_be_seen() {
    let mut site = guarded(18).await;
    site.logins = true;
    site.stop().await;
    site.start().await;
    let other = site.database.client().await;
    site.hr.batch_execute(MANY_LEAVE).await.unwrap();
    looked(&other).await;
    site.hr.batch_execute("commit").await.unwrap();
    hold_of(&site, 4).await;
    let row = site
        .hr
        .query_one("select transaction_user from benefits.hold where state = 'open'", &[])
        .await
        .unwrap();
    assert_eq!(row.get::<_, Option<&str>>(0), Some("postgres"));
    site.stop().await;
}

#[tokio::test]
async fn a_hold_names_the_user_of_the_large_transaction_also_where_others_came_with_it() {
    let mut site = guarded(18).await;
    // They are read together: the small ones commit while the large one is open, and right after it.
    let other = site.database.client().await;
    site.hr.batch_execute(MANY_LEAVE).await.unwrap();
    looked(&other).await;
    for id in [7, 8] {
        other
            .batch_execute(&format!("update hr.employee set surname = 'Other' where id = {id}"))
            .await
            .unwrap();
    }
    site.hr.batch_execute("commit; update hr.employee set surname = 'Next' where id = 9").await.unwrap();
    hold_of(&site, 4).await;
    let sql = "select transaction_user from benefits.hold where state = 'open'";
    let user: Option<String> = site.hr.query_one(sql, &[]).await.unwrap().get(0);
    assert_eq!(user.as_deref(), Some("postgres"));
    site.stop().await;
}

#[tokio::test]
async fn an_open_transaction_is_seen_whether_or_not_another_has_ended_since_it_began() {
    let site = Site::new(18).await;
    let look = include_str!("../../sql/queries/look_at_transactions.sql");
    let mut other = site.database.client().await;
    let open = other.transaction().await.unwrap();
    let sql = "update hr.employee set surname = surname where id = 1 returning pg_current_xact_id()::xid::text::bigint";
    let xid: i64 = open.query_one(sql, &[]).await.unwrap().get(0);
    for _ in 0..2 {
        let seen: Vec<i64> = site.hr.query_one(look, &[]).await.unwrap().get(0);
        assert!(seen.contains(&xid), "{xid} in {seen:?}");
        site.hr.batch_execute("update hr.employee set surname = surname where id = 2").await.unwrap();
    }
    open.commit().await.unwrap();
    let seen: Vec<i64> = site.hr.query_one(look, &[]).await.unwrap().get(0);
    assert!(!seen.contains(&xid));
}
