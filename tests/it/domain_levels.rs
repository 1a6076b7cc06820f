//! Levels: assigned to one or many through the site's own function, and mapped to packages.

use crate::for_each_major;
use crate::support::site::{Site, eventually};

/// A site with its pipeline running and these people synced.
async fn synced(major: u32, ids: &[&str]) -> Site {
    let mut site = Site::new(major).await;
    site.start().await;
    site.sync(ids).await;
    site
}

for_each_major! {
    async fn a_level_is_assigned_to_many_and_moves_them_to_its_package(major: u32) {
        let mut site = synced(major, &["1", "2"]).await;
        let ids = ["1", "2", "3", "2"];
        let row = site.hr.query_one("select benefits.assign_level($1, 'Executive')", &[&&ids[..]]).await.unwrap();
        assert_eq!(row.get::<_, i32>(0), 3, "the number of people, each counted once");
        site.settled().await;
        for id in ["1", "2"] {
            assert_eq!(site.held(id, "packageId").as_deref(), Some("executive"));
        }
        let sql = "select count(*) from hr.employee where benefits_level = 'Executive' and id in (1, 2, 3)";
        assert_eq!(site.hr.query_one(sql, &[]).await.unwrap().get::<_, i64>(0), 3, "HR has it, synced or not");
        assert_eq!(site.status("3").await.0, "not_syncing");
        site.stop().await;
    }
}

#[tokio::test]
async fn a_package_is_assigned_by_its_name_as_the_level_that_means_it() {
    let mut site = synced(18, &["1"]).await;
    for chosen in ["Plus: core with private health cover", "plus", " ENHANCED "] {
        site.hr.execute("update hr.employee set benefits_level = null where id = 1", &[]).await.unwrap();
        site.hr.execute("select benefits.assign_level(array['1'], $1)", &[&chosen]).await.unwrap();
        let row =
            site.hr.query_one("select benefits_level from hr.employee where id = 1", &[]).await.unwrap();
        assert_eq!(row.get::<_, &str>(0), "Enhanced", "{chosen}");
    }
    site.settled().await;
    assert_eq!(site.held("1", "packageId").as_deref(), Some("plus"));
    site.stop().await;
}

#[tokio::test]
async fn an_unknown_level_is_refused_with_the_list_of_known_ones() {
    let mut site = synced(18, &["1"]).await;
    let error = site.hr.execute("select benefits.assign_level(array['1'], 'Gold')", &[]).await.unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!(error.message(), "unknown level: Gold");
    assert_eq!(error.hint(), Some("Known levels: Apprentice, Enhanced, Executive, Standard."));
    site.stop().await;
}

#[tokio::test]
async fn a_package_that_no_level_means_can_be_assigned_by_its_name() {
    let mut site = synced(18, &["1"]).await;
    site.hr.batch_execute("delete from benefits.level_package where level = 'Executive'").await.unwrap();
    site.hr.batch_execute("select benefits.assign_level(array['1'], 'executive')").await.unwrap();
    site.settled().await;
    assert_eq!(
        site.held("1", "packageId").as_deref(),
        Some("executive"),
        "the package has the name of HR's level"
    );
    site.stop().await;
}

#[tokio::test]
async fn a_blank_level_takes_the_package_away() {
    let mut site = synced(18, &["1"]).await;
    site.hr.batch_execute("select benefits.assign_level(array['1'], 'Standard')").await.unwrap();
    site.settled().await;
    assert_eq!(site.held("1", "packageId").as_deref(), Some("core"));
    site.hr.batch_execute("select benefits.assign_level(array['1'], '')").await.unwrap();
    site.settled().await;
    assert_eq!(site.held("1", "packageId"), None);
    assert_eq!(site.status("1").await, ("successful".to_owned(), None));
    site.stop().await;
}

#[tokio::test]
async fn an_unknown_employee_is_named_and_nobody_is_assigned() {
    let site = Site::new(18).await;
    let before = site.hr.query_one("select benefits_level from hr.employee where id = 1", &[]).await.unwrap();
    let error = site
        .hr
        .execute("select benefits.assign_level(array['1', '999'], 'Executive')", &[])
        .await
        .unwrap_err();
    assert_eq!(error.as_db_error().unwrap().message(), "unknown employee: 999");
    let after = site.hr.query_one("select benefits_level from hr.employee where id = 1", &[]).await.unwrap();
    assert_eq!(before.get::<_, Option<&str>>(0), after.get(0));
}

#[tokio::test]
async fn an_assigned_level_shows_as_in_progress_while_the_service_is_down_and_the_history_names_who_asked() {
    let mut site = synced(18, &["1"]).await;
    site.stop().await;
    site.hr
        .batch_execute(
            "set benefits.page_user = 'ada'; select benefits.assign_level(array['1'], 'Executive')",
        )
        .await
        .unwrap();
    assert_eq!(site.status("1").await.0, "in_progress");
    site.start().await;
    site.settled().await;
    let sql =
        "select requested_by from benefits.sync_history where employee_id = '1' order by at desc limit 1";
    assert_eq!(site.hr.query_one(sql, &[]).await.unwrap().get::<_, &str>(0), "postgres (ada)");
    site.stop().await;
}

#[tokio::test]
async fn a_level_that_maps_to_no_package_fails_and_mapping_it_replays_whom_it_blocked() {
    let mut site = synced(18, &["1", "2"]).await;
    site.hr.batch_execute("update hr.employee set benefits_level = 'Legacy B' where id = 1").await.unwrap();
    site.settled().await;
    assert_eq!(site.status("1").await, ("failed".to_owned(), Some("no-package".to_owned())));
    site.hr.batch_execute("insert into benefits.level_package values ('legacy b', 'plus')").await.unwrap();
    eventually("the level is mapped", async || site.status("1").await.0 == "successful").await;
    assert_eq!(site.held("1", "packageId").as_deref(), Some("plus"));
    site.stop().await;
}
