//! What is on this machine: the fingerprint key, and whether the ledger is about this platform.

use std::os::unix::fs::PermissionsExt as _;

use super::Check;
use super::description::Facts;
use crate::config::Config;
use crate::pipeline::fingerprint_key;

pub(super) fn check(config: &Config, facts: &Facts) -> Vec<Check> {
    vec![key(config, facts), platform(config, facts)]
}

fn key(config: &Config, facts: &Facts) -> Check {
    let (id, path) = ("configuration.key", &config.ledger.fingerprint_key_file);
    let key = match fingerprint_key(path) {
        Ok(key) => key,
        Err(error) => {
            return Check::failed(id, error.to_string(), "restore the file, or have setup make a new one");
        }
    };
    let held = facts.fingerprint_check.as_deref();
    let check = key.check();
    if held.is_some_and(|held| held != check) {
        return Check::failed(
            id,
            "ledger.fingerprint_key_file is another key than the ledger was written with",
            "restore the old file; or have everything sent again:\n\
             update benefits.site set fingerprint_check = null; update benefits.enrolment set acknowledged = null;",
        );
    }
    match std::fs::metadata(path) {
        Ok(file) if file.permissions().mode() & 0o077 != 0 => Check::warning(
            id,
            "others on this machine can read the fingerprint key",
            format!("chmod 600 {}", path.display()),
        ),
        _ => Check::ok(id, "the fingerprint key is the ledger's, and private"),
    }
}

fn platform(config: &Config, facts: &Facts) -> Check {
    let (id, configured) = ("configuration.platform_id", &config.benefits.platform_id);
    match &facts.platform_id {
        Some(held) if held != configured => Check::failed(
            id,
            format!("benefits.platform_id is {configured}, and the ledger is about {held}"),
            "a ledger never changes its platform: see the README's \"Moving to another platform\"",
        ),
        _ if facts.has_started && facts.time_zone != config.reconcile.time_zone => Check::warning(
            id,
            format!(
                "the ledger's time zone is {}, the configuration's {}",
                facts.time_zone, config.reconcile.time_zone
            ),
            "restart benefits-sync run, then run the description again: record reads use the zone of that time",
        ),
        _ => Check::ok(id, format!("the ledger is about {configured}")),
    }
}
