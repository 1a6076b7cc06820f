//! The main job: a change in HR reaches Benefits, on every major version.

use crate::for_each_major;
use crate::support::site::Site;

for_each_major! {
    async fn a_synced_employee_is_created_and_a_change_is_sent_as_that_field_alone(major: u32) {
        let mut site = Site::new(major).await;
        site.start().await;
        site.sync(&["1"]).await;
        assert_eq!(site.status("1").await, ("successful".to_owned(), None));
        site.hr.execute("update hr.employee set surname = 'Lovelace' where id = 1", &[]).await.unwrap();
        site.settled().await;
        assert_eq!(site.held("1", "surname").as_deref(), Some("Lovelace"));
        let events: Vec<_> = site.history("1").await.into_iter().map(|(event, fields, _)| (event, fields.len())).collect();
        assert_eq!(events.last(), Some(&("updated".to_owned(), 1)));
        assert_eq!(events.first().map(|(event, _)| event.as_str()), Some("created"));
        site.stop().await;
    }
}
