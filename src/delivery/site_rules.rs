//! The rules that records are prepared by: the site's translations and levels, the platform's picklists and packages.

use super::api::Picklists;
use super::client::Client;
use super::outcome::{Failure, Outcome};
use crate::config::Config;
use crate::ledger::{LedgerError, Session, Site, work};
use crate::record::Rules;

/// What the platform lists.
pub struct Lists {
    picklists: Picklists,
    packages: Vec<(String, String)>,
}

/// Asks the platform whether it is there, and for its lists.
pub(crate) async fn from_platform(client: &Client) -> Result<Lists, Box<Failure>> {
    client.platform().await?;
    let packages: Outcome<_> = client.packages().await;
    let packages = packages?.value.into_iter().map(|package| (package.id, package.name)).collect();
    Ok(Lists { picklists: client.picklists().await?.value, packages })
}

/// Reads the site's part from the ledger; the platform's part is taken over from `known`.
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
        None => rules,
    })
}

impl Rules {
    /// The same rules with what the platform lists.
    #[must_use]
    pub fn with(self, lists: Lists) -> Self {
        self.with_picklists(lists.picklists).with_packages(lists.packages)
    }
}
