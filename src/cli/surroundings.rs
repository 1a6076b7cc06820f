//! What a command finds around it: the terminal, signals, libpq's variables.

use std::io::{IsTerminal as _, Write as _};

use tokio_util::sync::CancellationToken;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::exit::{Exit, FAILED, USAGE};
use crate::config::{Log, LogFormat};

/// The first SIGTERM or SIGINT asks for an orderly stop.
pub(super) async fn stop_on_signal(shutdown: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    shutdown.cancel();
}

/// libpq's variables as a URL, with libpq's defaults but for the database.
pub(super) fn admin_url_of_environment(database: &str) -> String {
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    let variable = |name: &str, default: &str| {
        std::env::var(name).ok().filter(|v| !v.is_empty()).unwrap_or_else(|| default.to_owned())
    };
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let user = variable("PGUSER", &variable("USER", "postgres"));
    let password = std::env::var("PGPASSWORD").map(|p| format!(":{}", encode(&p))).unwrap_or_default();
    let mode = std::env::var("PGSSLMODE").map(|m| format!("&sslmode={}", encode(&m))).unwrap_or_default();
    format!(
        "postgresql://{}{password}@/{}?host={}&port={}{mode}",
        encode(&user),
        encode(&variable("PGDATABASE", database)),
        encode(&variable("PGHOST", "/var/run/postgresql")),
        encode(&variable("PGPORT", "5432")),
    )
}

/// Log lines go to standard error, so that a command's own output can be piped.
pub(super) fn log_to_stderr(log: &Log) -> Result<(), Exit> {
    let level: Targets = log
        .level
        .parse()
        .map_err(|error| Exit::new(USAGE, anyhow::anyhow!("log.level {:?}: {error}", log.level)))?;
    let registry = tracing_subscriber::registry().with(level);
    match log.format {
        LogFormat::Json => registry
            .with(tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(std::io::stderr))
            .init(),
        LogFormat::Text => {
            registry
                .with(
                    tracing_subscriber::fmt::layer()
                        .with_ansi(colour_on_stderr())
                        .with_writer(std::io::stderr),
                )
                .init();
        }
    }
    Ok(())
}

pub(super) fn colour_on_stderr() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// A line on standard output. Where nobody reads it any more (`| head`) there is nothing left to do.
pub(super) fn say(text: &str) {
    if writeln!(std::io::stdout(), "{text}").is_err() {
        std::process::exit(i32::from(FAILED));
    }
}
