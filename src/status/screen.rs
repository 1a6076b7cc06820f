//! The screen: what matters most comes first, what is not well is in colour.

use std::fmt::Write as _;

use super::{Ledger, Slot, Status, StatusError, Verdict};
use crate::delivery::halt;
use crate::paint::{Paint, size, span};

/// Headroom below this is shown as bad.
const HEADROOM_LOW_SECONDS: f64 = 4.0 * 3600.0;
/// A transaction that is open for longer is named as pinning WAL.
const OPEN_LONG_SECONDS: f64 = 60.0;

/// What there is to see while PostgreSQL is away.
pub(crate) fn render_away(error: &StatusError, paint: Paint) -> String {
    format!("benefits-sync: {}  {error}", paint.bad("PostgreSQL is away"))
}

/// The whole screen, with a newline at its end.
pub(crate) fn render(status: &Status, paint: Paint) -> String {
    let mut lines = vec![headline(status, paint)];
    let mut line =
        |label: &str, text: String| lines.push(format!("  {}{text}", paint.faint(&format!("{label:<12}"))));
    let ledger = &status.ledger;
    let mark = if status.streaming.up {
        paint.good(&status.streaming.why)
    } else {
        paint.bad(&status.streaming.why)
    };
    line("stream", mark);
    if ledger.slot.has_slot {
        line("lag", lag(&ledger.slot));
        line("WAL", headroom(ledger, paint));
    }
    if let Some(pins) = pins(ledger) {
        line("pinned by", paint.warning(&pins));
    }
    line("employees", employees(ledger, paint));
    line("pending", pending(ledger));
    line("last hour", last_hour(ledger));
    for (label, text) in stops(status) {
        line(label, paint.bad(&text));
    }
    for hold in &ledger.holds {
        let by = hold.transaction_user.as_deref().map(|user| format!(" by {user}")).unwrap_or_default();
        let text = format!(
            "{} of {} employees{by}, {} ago: {}",
            hold.hold_id,
            hold.employees,
            span(hold.age_seconds),
            hold.reason
        );
        line("hold", paint.warning(&text));
    }
    for failing in &ledger.errors {
        let newest = match (&failing.newest_employee, failing.newest_seconds) {
            (Some(employee), Some(seconds)) => format!("newest: employee {employee}, {} ago", span(seconds)),
            (Some(employee), None) => format!("one is employee {employee}"),
            _ => String::new(),
        };
        line(
            "failed",
            format!(
                "{} {:<22} {}",
                paint.bad(&format!("{:>6}", failing.employees)),
                failing.code,
                paint.faint(&newest)
            ),
        );
    }
    lines.join("\n") + "\n"
}

fn headline(status: &Status, paint: Paint) -> String {
    let server = &status.ledger.server;
    let platform = status.ledger.site.platform_id.as_deref().unwrap_or("no platform yet");
    let verdict = match status.verdict {
        Verdict::InStep => paint.good("in step"),
        Verdict::Working => paint.good("working"),
        Verdict::SomeFailed => paint.warning("in step, but for failed employees"),
        Verdict::Stopped => paint.bad("needs attention"),
    };
    let place = format!("{} (PostgreSQL {}) to platform {platform}", server.database, server.version);
    format!("{} {verdict}  {}", paint.strong("benefits-sync:"), paint.faint(&place))
}

fn lag(slot: &Slot) -> String {
    let mut text = format!("{} not confirmed", size(slot.unconfirmed_bytes.unwrap_or(0)));
    if let Some(received) = slot.unreceived_bytes {
        // Writing to a String cannot fail.
        let _infallible = write!(text, ", {} not received", size(received));
    }
    match slot.flush_lag_seconds {
        Some(seconds) => text + &format!(", {}", span(seconds)),
        None if slot.is_active => text + ", 0 s",
        None => text,
    }
}

/// How long the headroom lasts at the average rate; `None` where nothing limits it or no rate is known.
pub(super) fn headroom_seconds(ledger: &Ledger) -> Option<f64> {
    let safe = ledger.slot.safe_wal_size?;
    let rate = ledger.server.wal_bytes_per_second.filter(|rate| *rate > 0)?;
    Some(std::time::Duration::from_secs(u64::try_from(safe / rate).unwrap_or(0)).as_secs_f64())
}

fn headroom(ledger: &Ledger, paint: Paint) -> String {
    let retained = format!("{} kept for the slot", size(ledger.slot.retained_bytes.unwrap_or(0)));
    let Some(safe) = ledger.slot.safe_wal_size else {
        return format!("{retained}; {}", paint.warning("nothing limits it (max_slot_wal_keep_size = -1)"));
    };
    let text = match headroom_seconds(ledger) {
        Some(seconds) => format!("{} until it is lost ({} at the average rate)", size(safe), span(seconds)),
        None => format!("{} until it is lost", size(safe)),
    };
    let low = safe <= 0 || headroom_seconds(ledger).is_some_and(|seconds| seconds < HEADROOM_LOW_SECONDS);
    format!("{retained}; {}", if low { paint.bad(&text) } else { text })
}

fn pins(ledger: &Ledger) -> Option<String> {
    let oldest = ledger.oldest_transaction.as_ref()?;
    let age = oldest.age_seconds.filter(|age| *age > OPEN_LONG_SECONDS)?;
    let whose = oldest.username.as_deref().unwrap_or("somebody");
    let database = oldest.database.as_deref().unwrap_or("?");
    let application = oldest.application.as_deref().filter(|name| !name.is_empty());
    Some(match (oldest.kind.as_str(), oldest.pid) {
        ("prepared", _) => format!(
            "prepared transaction {} of {whose} in {database}, {} old",
            application.unwrap_or("?"),
            span(age)
        ),
        (_, pid) => format!(
            "process {} ({}) of {whose} in {database}, {}, open for {}",
            pid.unwrap_or(0),
            application.unwrap_or("no application name"),
            oldest.state.as_deref().unwrap_or("in a state that is not shown"),
            span(age)
        ),
    })
}

fn employees(ledger: &Ledger, paint: Paint) -> String {
    let count = |state: &str| ledger.employees.as_ref().and_then(|by| by.get(state)).copied().unwrap_or(0);
    let failed = format!("{} failed", count("failed"));
    format!(
        "{} successful, {} in progress, {}, {} not syncing",
        count("successful"),
        count("in_progress"),
        if count("failed") > 0 { paint.bad(&failed) } else { failed },
        count("not_syncing")
    )
}

fn pending(ledger: &Ledger) -> String {
    let pending = &ledger.pending;
    let mut text = match pending.oldest_seconds {
        Some(oldest) => format!(
            "{} employees, the oldest for {}; {} being sent, {} retrying",
            pending.employees,
            span(oldest),
            pending.under_way,
            pending.retrying
        ),
        None => "nobody".to_owned(),
    };
    if ledger.requests > 0 {
        let _infallible = write!(text, "; {} requests not yet read", ledger.requests);
    }
    text
}

fn last_hour(ledger: &Ledger) -> String {
    let hour = &ledger.last_hour;
    let latency =
        hour.median_latency_seconds.map(|s| format!(", median latency {s:.3} s")).unwrap_or_default();
    format!("{} sent, {} rejected{latency}", hour.sent, hour.failed)
}

/// Why nothing is sent.
fn stops(status: &Status) -> Vec<(&'static str, String)> {
    let site = &status.ledger.site;
    let mut stops = Vec::new();
    if let Some(reason) = &site.paused {
        stops.push(("paused", format!("{reason}; select benefits.resume()")));
    }
    if let Some(code) = &site.halted {
        stops.push(("halted", format!("{code}: {}", halt::remedy(code))));
    }
    if let Some(doubt) = &site.doubt {
        stops.push((
            "doubt",
            format!("{doubt}: a comparison of everyone answers it (benefits-sync reconcile)"),
        ));
    }
    let instance = &status.instance;
    if !instance.answers {
        stops.push(("instance", format!("nobody answers at {} (http.listen)", instance.address)));
    }
    if let Some(state) = instance.breaker.as_deref().filter(|state| *state != "closed") {
        stops.push((
            "breaker",
            format!("{state}: the platform does not answer well; it is asked again by itself"),
        ));
    }
    stops.extend(instance.not_ready.iter().map(|text| ("not ready", text.clone())));
    stops
}
