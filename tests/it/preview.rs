//! `preview`: what a first sync would do, told before anything is sent.

use std::process::Command;

use benefits_sync::config::Config;
use benefits_sync::preview::{self, Progress, Report, Scope};
use benefits_sync::sandbox::SeedAccount;
use serde_json::Value;

use crate::for_each_major;
use crate::support::site::{PEOPLE, Site};

async fn previewed(config: &Config, scope: Scope) -> Value {
    let mut out = Vec::new();
    let mut report = Report::json(&mut out, Progress::hidden());
    preview::run(config, scope, &mut report).await.unwrap();
    serde_json::from_slice(&out).unwrap()
}

fn of<'a>(document: &'a Value, id: &str) -> &'a Value {
    let employees = document["employees"].as_array().unwrap();
    employees.iter().find(|one| one["employee_id"] == id).unwrap_or_else(|| panic!("{id} in {document}"))
}

async fn email(site: &Site, id: i64) -> String {
    let sql = "select address from hr.email where employee_id = $1 and kind = 'work'";
    site.hr.query_one(sql, &[&id]).await.unwrap().get(0)
}

for_each_major! {
    async fn a_preview_says_who_would_be_created_linked_in_conflict_or_blocked_and_the_first_sync_does_just_that(major: u32) {
        let mut site = Site::new(major).await;
        let account = site.sandbox.seed(SeedAccount::new(&email(&site, 1).await.to_uppercase())).unwrap();
        site.sandbox.seed(SeedAccount::new(&email(&site, 2).await).linked_to("stranger", None)).unwrap();
        site.hr.batch_execute(
            "update hr.employee set surname = '', date_of_birth = null where id = 3;
             update hr.email set address = (select address from hr.email where employee_id = 5 and kind = 'work') where employee_id = 4 and kind = 'work'",
        ).await.unwrap();
        let config = site.config();
        let document = previewed(&config, Scope::Everyone).await;
        assert_eq!(document["employees"].as_array().unwrap().len(), usize::try_from(PEOPLE).unwrap());
        assert_eq!((&of(&document, "1")["action"], &of(&document, "1")["benefits_id"]), (&"link".into(), &account.clone().into()));
        assert_eq!((&of(&document, "2")["action"], &of(&document, "2")["reasons"][0]["code"]), (&"conflict".into(), &"conflict".into()));
        assert_eq!(of(&document, "3")["action"], "blocked");
        assert_eq!(of(&document, "3")["fields"], serde_json::json!(["surname", "dateOfBirth"]));
        assert_eq!(of(&document, "3")["reasons"].as_array().unwrap().len(), 2, "every reason at once");
        let pair = [&of(&document, "4")["action"], &of(&document, "5")["action"]];
        assert_eq!(pair, ["create", "conflict"], "two employees with one address meet");
        assert_eq!(of(&document, "6")["action"], "create");
        let counts = site.sandbox.counts();
        assert_eq!((counts.created, counts.updated, counts.refused), (0, 0, 0), "nothing was sent");

        site.start().await;
        site.sync(&["1", "2", "3", "6"]).await;
        assert_eq!(site.status("1").await.0, "successful");
        assert_eq!(site.sandbox.account_of("1").unwrap().id, account);
        assert_eq!(site.status("2").await, ("failed".to_owned(), Some("conflict".to_owned())));
        assert_eq!(site.status("3").await, ("failed".to_owned(), Some("required".to_owned())));
        site.stop().await;
        site.hr.batch_execute("update hr.employee set surname = 'Hopper' where id = 6").await.unwrap();
        let named = Scope::Named(["1", "6", "nobody"].map(ToOwned::to_owned).to_vec());
        let failed = preview::run(&config, named, &mut Report::json(&mut Vec::new(), Progress::hidden())).await;
        assert!(failed.is_ok(), "{failed:?}");
        let document = previewed(&config, Scope::Named(["1", "6"].map(ToOwned::to_owned).to_vec())).await;
        assert_eq!(of(&document, "1")["action"], "in_step");
        assert_eq!((&of(&document, "6")["action"], &of(&document, "6")["fields"]), (&"update".into(), &serde_json::json!(["surname"])));
        assert!(!document.to_string().contains("Hopper"), "a preview shows no value");
    }

    async fn the_command_prints_lines_for_people_and_exits_well(major: u32) {
        let site = Site::new(major).await;
        let output = Command::new(env!("CARGO_BIN_EXE_benefits-sync"))
            .args(["preview", "--employee", "1", "--employee", "2", "--config"])
            .arg(site.config_file())
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(text.starts_with("1            create    "), "{text}");
        assert!(text.ends_with("Nothing was sent.\n"), "{text}");
    }

    async fn an_id_that_is_given_twice_is_one_employee_and_a_mistyped_one_is_nobody(major: u32) {
        let site = Site::new(major).await;
        let named = Scope::Named(["1", "abc", "1", "99999999999999999999"].map(ToOwned::to_owned).to_vec());
        let document = previewed(&site.config(), named).await;
        assert_eq!(document["employees"].as_array().unwrap().len(), 3, "{document}");
        assert_eq!(of(&document, "1")["action"], "create");
        for id in ["abc", "99999999999999999999"] {
            assert_eq!(of(&document, id)["action"], "blocked");
            assert_eq!(of(&document, id)["reasons"][0]["code"], "unknown-employee", "{document}");
        }
    }

    async fn a_record_of_a_known_employee_that_cannot_be_read_is_not_taken_for_nobodys(major: u32) {
        let site = Site::new(major).await;
        let describe = include_str!("../../sql/demo/describe.sql");
        let anew = describe.replace("        j.weekly_hours,", "        nullif(e.notes, '')::numeric as weekly_hours,");
        assert_ne!(anew, describe);
        site.hr.batch_execute("update hr.employee set notes = null").await.unwrap();
        site.hr.batch_execute(&anew).await.unwrap();
        site.hr.batch_execute("update hr.employee set notes = 'rather often' where id = 7").await.unwrap();
        let document = previewed(&site.config(), Scope::Named(vec!["7".to_owned()])).await;
        assert_eq!(of(&document, "7")["reasons"][0]["code"], "unreadable", "{document}");
    }
}
