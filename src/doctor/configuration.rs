//! What is on this machine: the fingerprint key, and whether the ledger is about this platform.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use super::Check;
use super::description::{Facts, each};
use crate::config::Config;
use crate::pipeline::fingerprint_key;

pub(super) fn check(config: &Config, facts: &Facts) -> Vec<Check> {
    vec![key(config, facts), witness(config), secrets(config), platform(config, facts)]
}

/// Whether more people than its owner and, for a file of root's, its group can read it: as PostgreSQL judges a server key.
fn is_open(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|file| {
        let others = if file.uid() == 0 { 0o037 } else { 0o077 };
        file.permissions().mode() & others != 0
    })
}

fn secrets(config: &Config) -> Check {
    let id = "configuration.secrets";
    let oauth = config.benefits.oauth.as_ref().map(|oauth| &oauth.client_secret_file);
    let database = &config.database;
    let (service, reader) = (database.password_file.as_ref(), database.replication_password_file.as_ref());
    let files = [service, reader, config.benefits.token_file.as_ref(), oauth];
    let files: Vec<_> = files.into_iter().flatten().map(std::path::PathBuf::as_path).collect();
    if let Some(missing) = files.iter().find(|file| std::fs::File::open(file).is_err()) {
        return Check::failed(
            id,
            format!("{} cannot be read by this user", missing.display()),
            "write it, or run doctor as the user that the service runs as (sudo -u benefits-sync)",
        );
    }
    let open: Vec<_> = files.into_iter().filter(|file| is_open(file)).collect();
    if open.is_empty() {
        return Check::ok(id, "passwords and tokens are private");
    }
    Check::warning(
        id,
        "others on this machine can read a password or a token",
        each(&open, |file| format!("chmod 600 {}", file.display())),
    )
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
    if is_open(path) {
        return Check::warning(
            id,
            "others on this machine can read the fingerprint key",
            format!("chmod 600 {}", path.display()),
        );
    }
    Check::ok(id, "the fingerprint key is the ledger's, and private")
}

/// Looked at only: whether it can be written is what `run` tries at its start.
fn witness(config: &Config) -> Check {
    let id = "configuration.witness";
    let Some(file) = &config.ledger.witness_file else {
        return Check::ok(
            id,
            "there is no ledger.witness_file: files of the server that are put back while nobody runs are not noticed",
        );
    };
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !directory.is_dir() || file.is_dir() {
        return Check::failed(
            id,
            format!("ledger.witness_file {} cannot be written", file.display()),
            format!("install -d -o benefits-sync {}", directory.display()),
        );
    }
    Check::ok(id, format!("{} remembers how far the ledger has come", file.display()))
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
