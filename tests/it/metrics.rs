//! The metrics, the README's tables, the dashboards and the alert rules are about the same things.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use benefits_sync::metrics::Metrics;

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// A metric as a scrape shows it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Metric {
    kind: String,
    help: String,
    labels: BTreeSet<String>,
}

fn scraped() -> BTreeMap<String, Metric> {
    let text = String::from_utf8(Metrics::new().unwrap().render().unwrap()).unwrap();
    let mut metrics: BTreeMap<String, Metric> = BTreeMap::new();
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            help.clone_into(&mut metrics.entry(name.to_owned()).or_default().help);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            kind.clone_into(&mut metrics.entry(name.to_owned()).or_default().kind);
        } else if let Some((name, labels)) = line.split_once('{') {
            let name = without_suffix(name);
            let labels =
                labels.split('}').next().unwrap().split(',').filter_map(|pair| Some(pair.split_once('=')?.0));
            let known = &mut metrics.get_mut(name).unwrap_or_else(|| panic!("{line}")).labels;
            known.extend(labels.filter(|label| *label != "le").map(ToOwned::to_owned));
        }
    }
    metrics
}

fn without_suffix(name: &str) -> &str {
    ["_bucket", "_sum", "_count"].into_iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name)
}

fn between<'t>(text: &'t str, name: &str) -> &'t str {
    let (open, close) = (format!("<!-- {name} -->"), format!("<!-- /{name} -->"));
    text.split_once(&open)
        .and_then(|(_, rest)| rest.split_once(&close))
        .unwrap_or_else(|| panic!("no {open}"))
        .0
        .trim()
}

/// Names of our metrics, and labels that are selected or grouped by, in a text.
fn mentioned(text: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c| !is_word(c)).filter(|word| word.starts_with("benefits_sync_"));
    let names = words.map(|word| without_suffix(word).to_owned()).collect();
    let mut labels = BTreeSet::new();
    for part in text.split("benefits_sync_").skip(1) {
        if let Some(inside) =
            part.trim_start_matches(is_word).strip_prefix('{').and_then(|rest| rest.split('}').next())
        {
            labels.extend(
                inside.split(',').filter_map(|pair| Some(pair.split(['=', '!']).next()?.trim().to_owned())),
            );
        }
    }
    labels.extend(
        text.split("by (")
            .skip(1)
            .flat_map(|rest| rest.split(')').next().unwrap().split(", "))
            .map(ToOwned::to_owned),
    );
    (names, labels)
}

fn expressions() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for board in ["grafana/dashboards/operators.json", "grafana/dashboards/dbas.json"] {
        let json: serde_json::Value = serde_json::from_str(&read(board)).unwrap();
        for panel in json["panels"].as_array().unwrap() {
            let targets = panel["targets"].as_array().into_iter().flatten();
            found.extend(
                targets.map(|target| (board.to_owned(), target["expr"].as_str().unwrap().to_owned())),
            );
        }
    }
    found.push(("grafana/alerts.yml".to_owned(), read("grafana/alerts.yml")));
    found
}

#[test]
fn the_readmes_table_is_what_a_scrape_shows() {
    let rows: Vec<String> = scraped()
        .into_iter()
        .map(|(name, metric)| {
            let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
            format!("| `{name}` | {} | {} | {} |", metric.kind, labels.join(", "), metric.help)
        })
        .collect();
    let table = format!("| metric | type | labels | |\n|---|---|---|---|\n{}", rows.join("\n"));
    assert_eq!(between(&read("README.md"), "metrics"), table, "put this between the markers:\n{table}\n");
}

#[test]
fn dashboards_and_alerts_ask_for_metrics_and_labels_that_exist() {
    let metrics = scraped();
    let labels: BTreeSet<&str> =
        metrics.values().flat_map(|metric| &metric.labels).map(String::as_str).collect();
    for (place, expression) in expressions() {
        let (names, asked) = mentioned(&expression);
        assert!(!names.is_empty(), "{place}: {expression}");
        for name in names {
            assert!(metrics.contains_key(&name), "{place}: {name}");
        }
        for label in asked {
            // Prometheus's own, and a histogram's.
            let known = labels.contains(label.as_str()) || ["instance", "le"].contains(&label.as_str());
            assert!(known, "{place}: label {label} in {expression}");
        }
    }
}

#[test]
fn every_metric_is_on_a_dashboard() {
    let shown: BTreeSet<String> =
        expressions().iter().flat_map(|(_, expression)| mentioned(expression).0).collect();
    let missing: Vec<_> = scraped().into_keys().filter(|name| !shown.contains(name)).collect();
    assert_eq!(missing, Vec::<String>::new());
}

#[test]
fn every_alert_leads_to_a_row_of_the_readme_and_is_tested_to_fire_and_not_to_fire() {
    let (rules, tests, readme) =
        (read("grafana/alerts.yml"), read("grafana/test/rules_test.yml"), read("README.md"));
    let alerts: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() >= 10, "{alerts:?}");
    let links: Vec<&str> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("runbook_url: README.md#")).collect();
    assert_eq!(links.len(), alerts.len());
    for (alert, link) in alerts.iter().zip(links) {
        let row = format!("| <a id=\"{link}\"></a>`{alert}` | ");
        assert!(between(&readme, "alerts").contains(&row), "{row}");
        let named = format!("alertname: {alert}\n");
        let outcomes: BTreeSet<bool> =
            tests.split(&named).skip(1).map(|rest| rest.trim_start().starts_with("exp_alerts: []")).collect();
        assert_eq!(outcomes.len(), 2, "{alert} is tested to fire and not to fire");
    }
}
