//! Values that few programs expect, from HR's table to the platform: what has no place in the API fails for that employee
//! alone and says so, everything else arrives as it was typed; large values that an update leaves alone stay as they are.

use crate::for_each_major;
use crate::support::proof::prove;
use crate::support::site::{Site, eventually};

/// Letters of every one of the seventeen planes, the ends of their ranges, marks, both directions, quotes and backslashes.
fn every_plane() -> Vec<String> {
    let mut names = vec![
        "\u{d6}zg\u{fc}r \u{141}ukasz".to_owned(),
        "e\u{301} \u{202e}abc\u{202c} \u{5d0}\u{5d1} \u{627}\u{644}".to_owned(),
        "\u{1f469}\u{200d}\u{1f52c} \u{20bb7}\u{91ce}\u{5bb6}".to_owned(),
        "O'Brien \\ \"quoted\" \\u0041 \\x41 $1 % {}".to_owned(),
        "\u{7f}\u{80}\u{7ff}\u{800}\u{fffd}".to_owned(),
    ];
    names.extend((0..17_u32).map(|plane| {
        let at = |low: u32| char::from_u32(plane * 0x1_0000 + low).unwrap();
        format!("{}{}{}", at(0x00e9), at(0xabcd), at(0xfffd))
    }));
    names
}

/// A value, its column, and the property whose fault it is.
const IMPOSSIBLE: [(&str, &str, &str); 10] = [
    ("hr.job_pay set annual_pay = 'NaN' where employee_id = 1", "annual_pay", "annualPay"),
    ("hr.job set weekly_hours = 'NaN' where employee_id = 1", "weekly_hours", "weeklyHours"),
    ("hr.job set fte = 'NaN' where employee_id = 1", "fte", "fte"),
    ("hr.employee set start_date = 'infinity' where id = 1", "start_date", "startDate"),
    ("hr.employee set start_date = '-infinity' where id = 1", "start_date", "startDate"),
    ("hr.employee set start_date = '0044-03-15 BC' where id = 1", "start_date", "startDate"),
    ("hr.employee set date_of_birth = '4713-01-01 BC' where id = 1", "date_of_birth", "dateOfBirth"),
    ("hr.employee set leave_date = '5874897-12-31' where id = 1", "leave_date", "leaveDate"),
    ("hr.employee set leave_date = 'infinity' where id = 1", "leave_date", "leaveDate"),
    (
        "hr.job_pay set effective_from = '-infinity' where employee_id = 1",
        "effective_from",
        "payEffectiveDate",
    ),
];

for_each_major! {
    async fn text_of_every_unicode_plane_arrives_as_it_was_typed(major: u32) {
        let mut site = Site::new(major).await;
        site.start().await;
        site.sync(&["1"]).await;
        for name in every_plane() {
            let sql = "update hr.employee set known_as = $1, surname = $1 where id = 1";
            site.hr.execute(sql, &[&name]).await.unwrap();
            site.settled().await;
            assert_eq!(site.status("1").await, ("successful".to_owned(), None), "{name:?}");
            assert_eq!(site.held("1", "knownAs").as_ref(), Some(&name));
            assert_eq!(site.held("1", "surname").as_ref(), Some(&name));
        }
        prove(&site).await;
        site.stop().await;
    }

    async fn nan_infinity_and_years_bc_fail_alone_and_say_where(major: u32) {
        let mut site = Site::new(major).await;
        // The mass-change guard is not what is tested.
        site.start().await;
        site.sync(&["1", "2"]).await;
        for (n, (change, column, property)) in IMPOSSIBLE.into_iter().enumerate() {
            let table = change.split(' ').next().unwrap();
            let key = if table == "hr.employee" { "id" } else { "employee_id" };
            let kept = format!("create temp table kept as select id, {column} as v from {table} where {key} = 1");
            site.hr.batch_execute(&kept).await.unwrap();
            let other = format!("update {change}; update hr.employee set surname = 'Other {n}' where id = 2");
            site.hr.batch_execute(&other).await.unwrap();
            site.settled().await;
            let (state, code) = site.status("1").await;
            assert_eq!((state.as_str(), code.as_deref()), ("failed", Some("format")), "{change}");
            let (_, fields, _) = site.history("1").await.pop().unwrap();
            assert_eq!(fields, [property], "{change}");
            assert_eq!(site.held("2", "surname"), Some(format!("Other {n}")));
            let back = format!("update {table} as t set {column} = k.v from kept as k where k.id = t.id; drop table kept");
            site.hr.batch_execute(&back).await.unwrap();
            site.settled().await;
            assert_eq!(site.status("1").await.0, "successful", "{change}");
        }
        // A day that never comes, and one that always was: neither ends the clock's look at who becomes current.
        site.hr.batch_execute(
            "insert into hr.job_pay (employee_id, job_id, effective_from, annual_pay, basis, frequency, change_reason)
             select employee_id, id, 'infinity', 1, 'Per annum', 'Calendar monthly', 'Starter' from hr.job where employee_id = 2;
             insert into hr.address (employee_id, kind, line_1, from_date) values (2, 'home', 'Never', 'infinity'), (2, 'home', 'Always', '-infinity'),
             (2, 'home', 'Rome', '0044-03-15 BC')",
        ).await.unwrap();
        site.settled().await;
        assert_eq!(site.status("2").await.0, "successful");
        prove(&site).await;
        site.stop().await;
        site.start().await;
        prove(&site).await;
        site.stop().await;
    }

    async fn values_out_of_line_that_an_update_leaves_alone_stay_whatever_the_replica_identity(major: u32) {
        for identity in ["default", "full", "using index"] {
            let mut site = Site::new(major).await;
            let using = |index: &str| if identity == "using index" { format!("using index {index}") } else { identity.to_owned() };
            site.hr.batch_execute(&format!(
                "alter table hr.employee alter known_as set storage external, alter notes set storage external;
                 alter table hr.employee set (toast_tuple_target = 128);
                 alter table hr.employee replica identity {};
                 alter table hr.address alter line_1 set storage external, alter line_4 type text, alter line_4 set storage external;
                 alter table hr.address set (toast_tuple_target = 128);
                 create unique index address_whole_uq on hr.address (id, employee_id);
                 alter table hr.address replica identity {}",
                using("employee_number_uq"), using("address_whole_uq"),
            )).await.unwrap();
            site.hr.batch_execute(include_str!("../../sql/demo/describe.sql")).await.unwrap();
            let long = "n".repeat(90);
            let line = "l".repeat(70);
            site.hr.execute("update hr.employee set known_as = $1, notes = repeat('x', 3000) where id <= 3", &[&long]).await.unwrap();
            site.hr.execute("update hr.address set line_1 = $1 where employee_id <= 3 and kind = 'home'", &[&line]).await.unwrap();
            site.start().await;
            site.sync(&["1", "2", "3"]).await;
            assert_eq!(site.held("1", "knownAs").as_ref(), Some(&long));
            let toast = "select pg_relation_size(reltoastrelid) > 0 from pg_class where oid = 'hr.employee'::regclass";
            assert!(site.hr.query_one(toast, &[]).await.unwrap().get::<_, bool>(0), "nothing is out of line");
            let sent = site.sandbox.journal().len();
            let fields = |from: usize| -> Vec<Vec<String>> {
                let journal = site.sandbox.journal();
                journal[from..].iter().map(|entry| entry.fields.iter().map(ToString::to_string).collect()).collect()
            };
            // Beside the large values.
            site.hr.execute("update hr.employee set surname = 'Beside' where id = 1", &[]).await.unwrap();
            site.settled().await;
            assert_eq!(fields(sent), [["surname"]], "{identity}");
            // Large ones that nobody maps.
            site.hr.execute("update hr.employee set notes = repeat('y', 3000), last_login = now() where id = 1", &[]).await.unwrap();
            site.settled().await;
            assert_eq!(fields(sent).len(), 1, "{identity}");
            // The large value itself, there and back.
            for value in ["m".repeat(90), long.clone(), "m".repeat(90)] {
                site.hr.execute("update hr.employee set known_as = $1 where id = 1", &[&value]).await.unwrap();
                site.settled().await;
                assert_eq!(site.held("1", "knownAs"), Some(value), "{identity}");
            }
            assert_eq!(fields(sent).len(), 4, "{identity}");
            // The key of the replica identity, with the large value beside it.
            site.hr.execute("update hr.employee set employee_number = 'N1' where id = 1", &[]).await.unwrap();
            site.settled().await;
            assert_eq!(site.held("1", "employeeNumber").as_deref(), Some("N1"), "{identity}");
            // A child row that goes over to somebody else with its large value, and one that goes altogether.
            site.hr.batch_execute(
                "delete from hr.address where employee_id = 2 and kind = 'home';
                 update hr.address set employee_id = 2 where employee_id = 1 and kind = 'home'",
            ).await.unwrap();
            site.settled().await;
            assert_eq!((site.held("1", "addressLine1"), site.held("2", "addressLine1").as_ref()), (None, Some(&line)), "{identity}");
            site.hr.batch_execute("delete from hr.address where employee_id = 3").await.unwrap();
            site.settled().await;
            assert_eq!(site.held("3", "addressLine1"), None, "{identity}");
            prove(&site).await;
            site.stop().await;
        }
    }

    async fn a_replica_identity_that_changes_under_the_stream_loses_nothing(major: u32) {
        let mut site = Site::new(major).await;
        site.start().await;
        site.sync(&["1", "2"]).await;
        for (n, identity) in ["full", "using index address_whole_uq", "default", "full", "default"].into_iter().enumerate() {
            site.hr.batch_execute(&format!(
                "create unique index if not exists address_whole_uq on hr.address (id, employee_id);
                 alter table hr.address replica identity {identity};
                 update hr.address set line_1 = 'Line {n}' where employee_id = 1 and kind = 'home'"
            )).await.unwrap();
            eventually("it arrives", async || site.held("1", "addressLine1") == Some(format!("Line {n}"))).await;
            // And a row that leaves is missed by its owner.
            site.hr.batch_execute(
                "delete from hr.address where employee_id = 2;
                 insert into hr.address (employee_id, kind, line_1, from_date) values (2, 'home', 'Anew', '2020-01-01')",
            ).await.unwrap();
            site.settled().await;
            site.hr.batch_execute("delete from hr.address where employee_id = 2").await.unwrap();
            site.settled().await;
            assert_eq!(site.held("2", "addressLine1"), None, "{identity}");
        }
        prove(&site).await;
        site.stop().await;
    }
}
