use super::*;

const LEAST: &str = r#"
[database]
url = "postgresql://hr@db/hr"
[benefits]
platform_id = "acme"
subdomain = "acme"
token_file = "/run/token"
email_source = "work"
"#;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, "test.toml", [])
}

fn complaint(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

#[test]
fn the_least_configuration_takes_every_default() {
    let config = parse(LEAST).unwrap();
    assert_eq!(config.database.slot, "benefits_sync");
    assert_eq!(config.base_url(), "https://acme.benefits.example/api/v1");
    assert_eq!(config.delivery.timeout, Duration::from_secs(10));
    assert_eq!(config.guard.minimum, 20);
    assert_eq!(config.http.listen.port(), 9287);
}

#[test]
fn an_unknown_key_is_named_with_its_file() {
    let text = complaint(&LEAST.replace("[benefits]", "pasword = \"x\"\n[benefits]"));
    assert!(text.contains("test.toml") && text.contains("pasword"), "{text}");
}

#[test]
fn a_mistake_does_not_quote_the_line_which_may_hold_a_password() {
    let text = complaint("[database]\nurl = \"postgresql://hr:hunter2@db/hr\" x\n");
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
fn secrets_are_not_shown_by_debug() {
    let config = parse(&LEAST.replace("hr@db", "hr:hunter2@db")).unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn a_variable_overrides_the_file() {
    let variables = [
        ("BENEFITS_SYNC_DELIVERY__CONCURRENCY".to_owned(), "7".to_owned()),
        ("BENEFITS_SYNC_BENEFITS__PLATFORM_ID".to_owned(), "12345".to_owned()),
        ("BENEFITS_SYNC_DELIVERY__SETTLE".to_owned(), "2s".to_owned()),
    ];
    let config = Config::parse(LEAST, "test.toml", variables).unwrap();
    assert_eq!(config.delivery.concurrency, 7);
    assert_eq!(config.benefits.platform_id, "12345");
    assert_eq!(config.delivery.settle, Duration::from_secs(2));
}

#[test]
fn an_unknown_variable_is_refused_as_an_unknown_key_is() {
    let variables = [("BENEFITS_SYNC_DELIVERY__CONCURENCY".to_owned(), "7".to_owned())];
    let text = Config::parse(LEAST, "test.toml", variables).unwrap_err().to_string();
    assert!(text.contains("concurency"), "{text}");
}

#[test]
fn values_that_cannot_work_are_named_by_key() {
    for (change, key) in [
        ("url = \"postgresql://hr@db/hr\"\nslot = \"Bad-Slot\"", "database.slot"),
        ("url = \"mysql://hr@db/hr\"", "database.url"),
    ] {
        let text = complaint(&LEAST.replace("url = \"postgresql://hr@db/hr\"", change));
        assert!(text.contains(key), "{text}");
    }
    for (section, key) in [
        ("[delivery]\nconcurrency = 0", "delivery.concurrency"),
        ("[delivery]\nbackoff_min = \"10m\"", "delivery.backoff_max"),
        ("[guard]\nfraction = 1.5", "guard.fraction"),
        ("[reconcile]\ntime_zone = \"Europe/Londres\"", "reconcile.time_zone"),
        ("[reconcile]\ndaily_at = \"25:00\"", "reconcile.daily_at"),
    ] {
        let text = complaint(&format!("{LEAST}{section}\n"));
        assert!(text.contains(key), "{text}");
    }
}

#[test]
fn a_duration_that_is_none_says_how_to_write_one() {
    let text = complaint(&format!("{LEAST}[delivery]\ntimeout = \"soon\"\n"));
    assert!(text.contains("10s"), "{text}");
}

#[test]
fn credentials_are_wanted_once() {
    assert!(complaint(&LEAST.replace("token_file = \"/run/token\"\n", "")).contains("benefits.token_file"));
}

#[test]
fn a_value_of_the_wrong_kind_is_named_by_line_and_key_and_not_quoted() {
    let text = complaint(&LEAST.replace("token_file = \"/run/token\"", "token_file = 424242"));
    assert!(text.contains("line 7, benefits.token_file") && !text.contains("424242"), "{text}");
    let variables = [("BENEFITS_SYNC_DELIVERY__CONCURRENCY".to_owned(), "hunter2".to_owned())];
    let text = Config::parse(LEAST, "test.toml", variables).unwrap_err().to_string();
    assert!(text.contains("delivery.concurrency") && !text.contains("hunter2"), "{text}");
}

#[test]
fn what_is_expected_is_told_in_words() {
    for (setting, words) in [
        ("concurrency = \"many\"", "expected a whole number"),
        ("requests_per_second = \"five\"", "expected a number"),
        ("timeout = 5", "expected a duration, as \"500ms\""),
        ("timeout = \"-1s\"", "expected a duration, as \"500ms\""),
    ] {
        let text = complaint(&format!("{LEAST}[delivery]\n{setting}\n"));
        assert!(text.contains(words) && text.contains("line 10, delivery."), "{text}");
    }
    let text = complaint(&LEAST.replace("platform_id = \"acme\"", "platform_id = 7"));
    assert!(text.contains("expected text in quotes (line 5, benefits.platform_id)"), "{text}");
}

#[test]
fn an_address_that_cannot_be_one_is_refused_and_not_quoted() {
    for address in [
        "http://exa mple/x",
        "http://host:99999/x",
        "http://host/x?key=hunter2",
        "https://me:hunter2@host/x",
        "https://",
        "file:///hunter2",
    ] {
        let text = complaint(&LEAST.replace("subdomain = \"acme\"", &format!("base_url = \"{address}\"")));
        assert!(
            text.contains("test.toml: benefits.base_url: ") && !text.contains("hunter2"),
            "{address}: {text}"
        );
        let oauth = format!(
            "[benefits.oauth]\ntoken_url = \"{address}\"\nclient_id = \"c\"\nclient_secret_file = \"s\"\n"
        );
        let text = complaint(
            &LEAST
                .replace("token_file = \"/run/token\"\n", "")
                .replace("email_source = \"work\"\n", &format!("email_source = \"work\"\n{oauth}")),
        );
        assert!(
            text.contains("benefits.oauth.token_url: ") && !text.contains("hunter2"),
            "{address}: {text}"
        );
    }
    for subdomain in ["ac me", "acme/..", ""] {
        let text = complaint(&LEAST.replace("subdomain = \"acme\"", &format!("subdomain = \"{subdomain}\"")));
        assert!(text.contains("benefits.subdomain: "), "{subdomain}: {text}");
    }
}

#[test]
fn a_database_url_that_cannot_be_one_is_refused_with_its_file_and_not_quoted() {
    for url in [
        "postgresql://hr:hunter2@[::1/hr",
        "postgresql://hr:hunter2@db:99999/hr",
        "postgresql://hr:hunter2@db/hr?sslmod=require",
        "postgresql://db/hunter2",
    ] {
        let text = complaint(&LEAST.replace("postgresql://hr@db/hr", url));
        assert!(text.contains("test.toml: database.url: ") && !text.contains("hunter2"), "{url}: {text}");
    }
}

#[test]
fn a_key_that_is_missing_or_in_the_wrong_place_is_named_by_its_own_section() {
    let without = |line: &str| {
        assert!(LEAST.contains(line), "{line}");
        LEAST.replace(line, "")
    };
    let with = |more: &str| format!("{LEAST}{more}\n");
    for (text, place) in [
        (without("email_source = \"work\"\n"), "(line 4, benefits.email_source)"),
        (without("url = \"postgresql://hr@db/hr\"\n"), "(line 2, database.url)"),
        (
            "[database]\nurl = \"postgresql://hr@db/hr\"\n".to_owned(),
            "test.toml: missing field `benefits` (benefits)",
        ),
        (with("[benefits.oauth]\nclient_id = \"c\""), "(line 9, benefits.oauth.token_url)"),
        (with("[benefits.guard]\nfraction = 0.5"), "(line 9, benefits.guard)"),
        (
            with("[[ledger]]\nhistory_months = 3"),
            "expected one section, as [ledger], and not a list (line 9, ledger)",
        ),
        (format!("ledger = 3\n{LEAST}"), "expected a section (line 1, ledger)"),
        (with("[http]\nlisten = "), "(line 10, http.listen)"),
        (with("[[ledger]"), "(line 9, ledger)"),
    ] {
        let said = complaint(&text);
        assert!(said.ends_with(place), "{place}: {said}");
    }
}

#[test]
fn what_the_environment_gives_is_not_blamed_on_the_file() {
    for (name, value, place) in [
        ("BENEFITS_SYNC_DATABASE__SLOT", "Bad-Slot", "database.slot: must be"),
        ("BENEFITS_SYNC_DELIVERY__CONCURRENCY", "many", "expected a whole number (delivery.concurrency)"),
        ("BENEFITS_SYNC_DELIVERY__CONCURENCY", "7", "unknown field `concurency`"),
    ] {
        let said = Config::parse(LEAST, "test.toml", [(name.to_owned(), value.to_owned())]);
        let said = said.unwrap_err().to_string();
        assert!(said.starts_with(&format!("environment variable {name}: {place}")), "{said}");
    }
    let variable = ("BENEFITS_SYNC_DATABASE__SLOT".to_owned(), "good".to_owned());
    let text = LEAST.replace("token_file = \"/run/token\"", "token_file = 424242");
    let said = Config::parse(&text, "test.toml", [variable]).unwrap_err().to_string();
    assert_eq!(said, "test.toml: expected text in quotes (line 7, benefits.token_file)");
}

#[test]
fn an_address_to_listen_on_is_an_ip_address_and_a_port() {
    let said = complaint(&format!("{LEAST}[http]\nlisten = \"localhost:9287\"\n"));
    assert!(said.contains("an IP address and a port") && said.ends_with("(line 10, http.listen)"), "{said}");
}
