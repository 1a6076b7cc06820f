//! The platform: address, credentials, its lists against the site's translations and levels, its clock.

use super::Check;
use super::description::{Facts, each};
use crate::config::Config;
use crate::delivery::api::PlatformStatus;
use crate::delivery::client::Client;
use crate::delivery::outcome::{Class, Failure, HaltReason};
use crate::record::Field;

/// Clocks that differ by more make times in logs and histories hard to compare; versions come from PostgreSQL's clock.
const SKEW_MAX_SECONDS: f64 = 30.0;

/// Asks the platform. With the site's facts and PostgreSQL's clock, its lists and clock are compared too.
pub(super) async fn check(config: &Config, site: Option<(&Facts, f64)>) -> Vec<Check> {
    let address = config.base_url();
    let client = match Client::new(config) {
        Ok(client) => client,
        Err(error) => {
            return vec![Check::failed("platform.address", error.to_string(), "mend benefits.ca_file")];
        }
    };
    let mut checks: Vec<Check> = in_the_clear(&address).into_iter().collect();
    let asked = std::time::Instant::now();
    let (platform, date) = client.platform_and_date().await;
    let took = asked.elapsed();
    let platform = match platform {
        Ok(answer) => answer.value,
        Err(failure) => {
            checks.push(refused(&failure, &address));
            return checks;
        }
    };
    checks
        .push(Check::ok("platform.address", format!("{} answers at {address} in {took:.0?}", platform.name)));
    if platform.status == PlatformStatus::Suspended {
        checks.push(Check::failed(
            "platform.status",
            "the platform is suspended",
            "ask the platform's operator",
        ));
        return checks;
    }
    checks.push(Check::ok("platform.credentials", "the credentials are accepted"));
    let Some((facts, now)) = site else { return checks };
    checks.push(packages(&client, facts).await);
    checks.push(picklists(&client, facts).await);
    checks.push(skew(date, now));
    checks
}

/// Without TLS everybody on the way reads the records and the token. What stays on this machine has no such way.
fn in_the_clear(address: &str) -> Option<Check> {
    let url = url::Url::parse(address).ok().filter(|url| url.scheme() == "http")?;
    let host = url.host_str()?;
    let stays = host == "localhost" || host == "[::1]" || host.starts_with("127.");
    (!stays).then(|| {
        Check::warning(
            "platform.encryption",
            format!("records and the token travel to {host} unencrypted"),
            "benefits.base_url = \"https://...\", with benefits.ca_file where the CA is your own",
        )
    })
}

fn refused(failure: &Failure, address: &str) -> Check {
    match failure.class {
        Class::Halt { reason: HaltReason::Credentials | HaltReason::Forbidden } => Check::failed(
            "platform.credentials",
            failure.text.clone(),
            "renew the token in benefits.token_file, or mend [benefits.oauth]; scope employees:write",
        ),
        Class::Halt { reason: HaltReason::Suspended } => {
            Check::failed("platform.status", failure.text.clone(), "ask the platform's operator")
        }
        _ => Check::failed(
            "platform.address",
            format!("{address}: {}", failure.text),
            "check benefits.base_url, benefits.platform_id, the firewall, benefits.ca_file",
        ),
    }
}

async fn packages(client: &Client, facts: &Facts) -> Check {
    let id = "platform.packages";
    let listed = match client.packages().await {
        Ok(answer) => answer.value,
        Err(failure) => return Check::failed(id, failure.text.clone(), "ask the platform's operator"),
    };
    let unknown: Vec<&String> =
        facts.levels.iter().filter(|id| !listed.iter().any(|package| package.id == **id)).collect();
    if unknown.is_empty() {
        return Check::ok(id, format!("{} packages; every mapped level leads to one", listed.len()));
    }
    let known: Vec<&str> = listed.iter().map(|package| package.id.as_str()).take(20).collect();
    Check::failed(
        id,
        format!("levels lead to packages that the platform does not list ({})", known.join(", ")),
        each(&unknown, |package| {
            format!("update benefits.level_package set package_id = '...' where package_id = '{package}';")
        }),
    )
}

async fn picklists(client: &Client, facts: &Facts) -> Check {
    let id = "platform.picklists";
    let lists = match client.picklists().await {
        Ok(answer) => answer.value,
        Err(failure) => return Check::failed(id, failure.text.clone(), "ask the platform's operator"),
    };
    let bad: Vec<&(String, String, String)> = facts
        .translations
        .iter()
        .filter(|(field, _, value)| {
            let api = Field::all().find(|known| snake(known.api_name()) == snake(field)).map(Field::api_name);
            let listed = api.and_then(|api| lists.get(api));
            listed.is_some_and(|listed| !listed.contains(value))
        })
        .collect();
    if bad.is_empty() {
        return Check::ok(id, format!("{} lists; every translation leads to a listed value", lists.len()));
    }
    Check::failed(
        id,
        "translations lead to values that the platform does not list",
        each(&bad, |(field, hr, value)| {
            format!(
                "update benefits.picklist_value set benefits_value = '...' where field = '{field}' and hr_value = '{hr}';   (now '{value}')"
            )
        }),
    )
}

fn snake(name: &str) -> String {
    let mut text = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() {
            text.push('_');
        }
        text.push(c.to_ascii_lowercase());
    }
    text
}

/// Whose clock is right is not ours to say.
fn skew(date: Option<f64>, now: f64) -> Check {
    let id = "platform.clock";
    let Some(date) = date else { return Check::ok(id, "the platform does not tell its time") };
    let skew = date - now;
    if skew.abs() <= SKEW_MAX_SECONDS {
        return Check::ok(id, "the platform's clock and PostgreSQL's agree");
    }
    Check::warning(
        id,
        format!(
            "the platform's clock is {:.0} s {} of PostgreSQL's",
            skew.abs(),
            if skew > 0.0 { "ahead" } else { "behind" }
        ),
        "synchronise the database server's clock (chrony, systemd-timesyncd)",
    )
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn a_clock_that_is_far_off_is_a_warning_with_its_direction() {
        assert_eq!(skew(Some(1_000.0), 1_029.0).level, Level::Ok);
        assert_eq!(skew(None, 0.0).level, Level::Ok);
        let behind = skew(Some(1_000.0), 1_100.0);
        assert_eq!(behind.level, Level::Warning);
        assert!(behind.text.contains("100 s behind"), "{}", behind.text);
    }

    #[test]
    fn a_field_is_found_in_either_spelling() {
        assert_eq!(snake("payBasis"), snake("pay_basis"));
    }
}
