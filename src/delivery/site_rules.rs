//! The rules that records are prepared by: the site's translations and levels, the platform's picklists and packages.

use super::api::{Picklists, PlatformStatus};
use super::client::Client;
use super::outcome::{Failure, HaltReason, Outcome};
use crate::config::Config;
use crate::ledger::{LedgerError, Session, Site, work};
use crate::record::Rules;

/// What the platform lists.
pub struct Lists {
    picklists: Picklists,
    packages: Vec<(String, String)>,
}

/// Asks the platform whether it is there and takes writes, and for its lists.
pub(crate) async fn from_platform(client: &Client) -> Result<Lists, Box<Failure>> {
    let platform = client.platform().await?;
    if platform.value.status == PlatformStatus::Suspended {
        let failure = Failure::halt(HaltReason::Suspended, "The Benefits platform is suspended.");
        return Err(Box::new(Failure { request_id: platform.request_id, ..failure }));
    }
    let packages: Outcome<_> = client.packages().await;
    let packages = packages?.value.into_iter().map(|package| (package.id, package.name)).collect();
    Ok(Lists { picklists: client.picklists().await?.value, packages })
}

/// Keeps the platform's lists in the ledger, for people and for a start without the platform; whether they are others than
/// before. Then everyone whom the old ones may have blocked is marked.
pub(super) async fn store(session: &Session, lists: &Lists) -> Result<bool, LedgerError> {
    let (ids, names): (Vec<&str>, Vec<&str>) =
        lists.packages.iter().map(|(id, name)| (id.as_str(), name.as_str())).unzip();
    let (fields, values): (Vec<&str>, Vec<&str>) = lists
        .picklists
        .iter()
        .flat_map(|(field, values)| values.iter().map(move |value| (field.as_str(), value.as_str())))
        .unzip();
    let sql = "select benefits.keep_lists($1, $2, $3, $4)";
    let rows = session.query("keep the platform's lists", sql, &[&ids, &names, &fields, &values]).await?;
    let changed = rows.first().is_some_and(|row| row.get(0));
    if changed {
        let now = std::time::SystemTime::now();
        session
            .execute("mark whom lists blocked", include_str!("../../sql/queries/mark_blocked.sql"), &[&now])
            .await?;
    }
    Ok(changed)
}

/// The lists as last kept; `None` before the first time.
async fn stored(session: &Session) -> Result<Option<Lists>, LedgerError> {
    let sql = "select package_id, name from benefits.package";
    let rows = session.query("read the packages", sql, &[]).await?;
    let packages: Vec<(String, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let sql = "select field, value from benefits.picklist order by field, value";
    let mut picklists = Picklists::new();
    for row in session.query("read the picklists", sql, &[]).await? {
        picklists.entry(row.get(0)).or_default().push(row.get(1));
    }
    Ok((!packages.is_empty()).then_some(Lists { picklists, packages }))
}

/// Reads the site's part from the ledger; the platform's part is taken over from `known`, or is what was last kept.
pub(crate) async fn load(
    session: &Session,
    config: &Config,
    known: Option<&Rules>,
) -> Result<Rules, LedgerError> {
    let site = Site::load(session).await?;
    let sql = "select field, hr_value, benefits_value from benefits.picklist_value";
    let rows = session.query("read translations", sql, &[]).await?;
    let translations = rows.iter().map(|row| (row.get(0), row.get(1), row.get(2)));
    let described = work::described(&site.described);
    let rules = Rules::new(config.benefits.email_source, described).with_translations(translations);
    let rows =
        session.query("read levels", "select level, package_id from benefits.level_package", &[]).await?;
    let rules = rules.with_levels(rows.iter().map(|row| (row.get(0), row.get(1))));
    Ok(match known {
        Some(known) => rules.with_lists_of(known),
        None => match stored(session).await? {
            Some(lists) => rules.with(lists),
            None => rules,
        },
    })
}

impl Rules {
    /// The same rules with what the platform lists.
    #[must_use]
    pub fn with(self, lists: Lists) -> Self {
        self.with_picklists(lists.picklists).with_packages(lists.packages)
    }
}
