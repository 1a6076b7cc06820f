//! Random histories of writes: versions never fall, emails and links stay unique, replays are identical.

use std::collections::{HashMap, HashSet};

use benefits_sync::sandbox::SeedAccount;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Rig, employee, with};

/// One write of a random history. Few people, emails, versions and keys, so that they collide.
#[derive(Debug, Clone)]
struct Step {
    account: usize,
    email: u8,
    version: i64,
    key: u8,
    link: Option<(u8, Option<u8>)>,
    create: bool,
}

fn step() -> impl Strategy<Value = Step> {
    let link = proptest::option::of((0..4_u8, proptest::option::of(0..4_u8)));
    (0..4_usize, 0..4_u8, 1..6_i64, 0..12_u8, link, any::<bool>()).prop_map(
        |(account, email, version, key, link, create)| Step { account, email, version, key, link, create },
    )
}

impl Step {
    fn body(&self) -> Value {
        let cased = ["a@x.example", "A@x.example", "b@x.example", "B@X.example"][usize::from(self.email)];
        if self.create {
            let changes = json!({"email": cased, "sourceVersion": self.version});
            return with(employee(&self.account.to_string()), changes);
        }
        let mut body = json!({"sourceVersion": self.version, "email": cased});
        if let Some((id, previous)) = self.link {
            body["externalId"] = json!(id.to_string());
            previous.inspect(|previous| body["previousExternalId"] = json!(previous.to_string()));
        }
        body
    }
}

/// Runs a history and looks after every step: versions never fall, emails and links stay unique, replays are identical.
async fn keeps_its_promises(rig: &Rig, steps: &[Step]) -> Result<(), TestCaseError> {
    let mut accepted: HashMap<(u8, usize, String), (u16, Value)> = HashMap::new();
    let mut versions: HashMap<String, i64> = HashMap::new();
    for step in steps {
        let body = step.body();
        let (target, answer) = if step.create {
            (usize::MAX, rig.create(&step.key.to_string(), &body).await)
        } else {
            let id = format!("ben-{:06}", step.account + 1);
            (step.account, rig.patch(&id, &step.key.to_string(), &body).await)
        };
        let asked = (step.key, target, body.to_string());
        let status = answer.status.as_u16();
        match accepted.get(&asked) {
            Some(earlier) => prop_assert_eq!(earlier, &(status, answer.body)),
            None if status < 300 => {
                prop_assert!(
                    !accepted.keys().any(|(key, ..)| *key == step.key),
                    "a key was taken for another write"
                );
                accepted.insert(asked, (status, answer.body));
            }
            None => {}
        }
        let accounts = rig.sandbox.accounts();
        let emails: HashSet<_> =
            accounts.iter().map(|one| one.get("email").unwrap().to_lowercase()).collect();
        prop_assert_eq!(emails.len(), accounts.len());
        let linked: Vec<_> = accounts.iter().filter_map(|one| one.external_id.clone()).collect();
        prop_assert_eq!(linked.iter().collect::<HashSet<_>>().len(), linked.len());
        for one in accounts {
            let version = one.source_version.unwrap_or(0);
            let before = versions.insert(one.id, version).unwrap_or(0);
            prop_assert!(version >= before, "a version fell from {before} to {version}");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_writes_keeps_versions_rising_emails_unique_and_replays_identical(
        steps in proptest::collection::vec(step(), 1..60)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let rig = Rig::new().await;
            rig.sandbox.seed(SeedAccount::new("c@x.example")).unwrap();
            keeps_its_promises(&rig, &steps).await
        })?;
    }
}
