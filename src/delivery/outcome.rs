//! What an attempt came to: an answer, or a failure of one class.
//!
//! One match (`of_refusal`) turns status and problem type into a class, and a class answers the dispatcher's only
//! question: record a rejection of this employee, try again later, or stop for the site. The texts are ours, chosen by type
//! and field code: the platform's prose may quote personal values.
//!
//! | the platform says | class |
//! |---|---|
//! | 401, 403 | [`Class::Halt`]: nobody is blamed, delivery stops |
//! | 404, 410 of an account | [`Class::AccountMissing`]; of anything else [`Class::Halt`]: the platform is not there |
//! | 409 `stale-source-version` | [`Class::StaleVersion`] |
//! | 409 `request-in-progress` | [`Class::Busy`] |
//! | 429 | [`Class::Throttled`] |
//! | 400, 409, 422 with a problem document | [`Class::Rejected`]: this employee |
//! | 5xx, anything else, anything unreadable, no answer | [`Class::Unavailable`] |

use std::time::{Duration, SystemTime};

use super::api::Problem;
use super::breaker::Signal;
use crate::record::{Fault, FaultCode, Field};

/// The longest wait that a `Retry-After` can ask for; after it the platform is asked again.
pub const RETRY_AFTER_MAX: Duration = Duration::from_hours(1);

/// An accepted attempt's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer<T> {
    /// What was answered.
    pub value: T,
    /// The platform's id of the request.
    pub request_id: Option<String>,
}

/// What an attempt came to.
pub type Outcome<T> = Result<Answer<T>, Box<Failure>>;

/// An attempt that was not accepted. Its `Display` is the text for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    /// What to do about it.
    pub class: Class,
    /// For people; holds no personal value.
    pub text: String,
    /// The platform's id of the request.
    pub request_id: Option<String>,
    /// The HTTP status, where there was an answer.
    pub status: Option<u16>,
}

/// What to do about a failed attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Class {
    /// The platform refused this employee's write, and will again until something changes.
    Rejected {
        /// Which problem: `validation`, `email-in-use`, ... `refused` stands for types that this version does not know.
        code: &'static str,
        /// The fields that were refused, where they are told.
        faults: Vec<Fault>,
    },
    /// The platform holds a higher version: read the account, raise the floor, try once more.
    StaleVersion,
    /// The account is gone, if the platform itself is there: prove that first.
    AccountMissing,
    /// The same write is being worked on: ask again soon.
    Busy,
    /// Too many requests: nobody sends before this much time has passed.
    Throttled {
        /// What the platform asks for, at most [`RETRY_AFTER_MAX`].
        retry_after: Option<Duration>,
    },
    /// No usable answer: try again with the same body, version and key.
    Unavailable {
        /// What the platform asks for, at most [`RETRY_AFTER_MAX`].
        retry_after: Option<Duration>,
        /// Whether a write may have been applied all the same. False only where no connection was made.
        ambiguous: bool,
    },
    /// Delivery stops for the site.
    Halt {
        /// Why.
        reason: HaltReason,
    },
}

/// Why delivery stops for the site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HaltReason {
    /// The credentials are refused, unreadable or missing.
    Credentials,
    /// The platform is suspended.
    Suspended,
    /// The credentials do not allow this.
    Forbidden,
    /// There is no such platform at the address, or another one.
    WrongPlatform,
}

impl HaltReason {
    /// As stored and shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Credentials => "credentials",
            Self::Suspended => "platform-suspended",
            Self::Forbidden => "forbidden",
            Self::WrongPlatform => "wrong-platform",
        }
    }

    /// Whether a halt with this code has no cause any more once the platform and its lists can be read.
    pub fn is_over_when_asked_well(code: &str) -> bool {
        [Self::Credentials, Self::Suspended, Self::WrongPlatform]
            .into_iter()
            .any(|reason| reason.as_str() == code)
    }
}

impl Failure {
    /// A bounded name for metrics and logs: `rejected`, `throttled`, ...
    pub const fn label(&self) -> &'static str {
        match self.class {
            Class::Rejected { .. } => "rejected",
            Class::StaleVersion => "stale_version",
            Class::AccountMissing => "account_missing",
            Class::Busy => "busy",
            Class::Throttled { .. } => "throttled",
            Class::Unavailable { .. } => "unavailable",
            Class::Halt { .. } => "halted",
        }
    }

    /// The code that history and status show.
    pub const fn code(&self) -> &'static str {
        match self.class {
            Class::Rejected { code, .. } => code,
            Class::StaleVersion => "stale-source-version",
            Class::AccountMissing => "link-broken",
            Class::Busy => "request-in-progress",
            Class::Throttled { .. } => "rate-limited",
            Class::Unavailable { .. } => "unavailable",
            Class::Halt { reason } => reason.as_str(),
        }
    }

    /// What it says of the platform's health.
    pub const fn signal(&self) -> Signal {
        match self.class {
            Class::Rejected { .. } | Class::StaleVersion | Class::AccountMissing | Class::Busy => {
                Signal::Well
            }
            Class::Throttled { .. } | Class::Halt { .. } => Signal::Neither,
            Class::Unavailable { .. } => Signal::Ill,
        }
    }

    /// Whether the write may have been applied all the same.
    pub const fn is_ambiguous(&self) -> bool {
        matches!(self.class, Class::Unavailable { ambiguous: true, .. })
    }

    /// The least wait that the platform asks for.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self.class {
            Class::Throttled { retry_after } | Class::Unavailable { retry_after, .. } => retry_after,
            _ => None,
        }
    }

    pub(super) fn unavailable(text: impl Into<String>, ambiguous: bool) -> Self {
        let class = Class::Unavailable { retry_after: None, ambiguous };
        Self { class, text: text.into(), request_id: None, status: None }
    }

    pub(super) fn halt(reason: HaltReason, text: impl Into<String>) -> Self {
        Self { class: Class::Halt { reason }, text: text.into(), request_id: None, status: None }
    }

    pub(super) fn rejected(code: &'static str, text: impl Into<String>) -> Self {
        let class = Class::Rejected { code, faults: Vec::new() };
        Self { class, text: text.into(), request_id: None, status: None }
    }
}

/// What a request was about, which decides what a 404 means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    /// One account, addressed by its id.
    Account,
    /// The platform, its lists, its accounts in general.
    Platform,
}

/// What is known of an answer that is no success.
pub(super) struct Refusal<'a> {
    pub(super) status: u16,
    /// The problem document; none where the body is not one.
    pub(super) problem: Option<Problem>,
    /// The header, as it came.
    pub(super) retry_after: Option<&'a str>,
    pub(super) subject: Subject,
}

/// The class and text of a refusal. `now` is the clock that an HTTP date is read against.
pub(super) fn of_refusal(refusal: &Refusal<'_>, now: SystemTime) -> Failure {
    let wait = refusal.retry_after.and_then(|value| retry_after(value, now));
    let kind = refusal.problem.as_ref().and_then(|problem| problem.kind.as_deref()).unwrap_or_default();
    let unavailable = |text: String| Failure {
        class: Class::Unavailable { retry_after: wait, ambiguous: true },
        text,
        request_id: None,
        status: None,
    };
    let mut failure = match (refusal.status, kind) {
        (401, _) => Failure::halt(HaltReason::Credentials, "Benefits does not accept the credentials."),
        (403, "platform-suspended") => {
            Failure::halt(HaltReason::Suspended, "The Benefits platform is suspended.")
        }
        (403, _) => {
            Failure::halt(HaltReason::Forbidden, "Benefits does not allow this to these credentials.")
        }
        (429, _) => Failure {
            class: Class::Throttled { retry_after: wait },
            text: "Benefits asks for fewer requests.".to_owned(),
            request_id: None,
            status: None,
        },
        (404 | 410, _) if refusal.problem.is_none() => {
            unavailable(format!("An answer {} that is not the Benefits platform's.", refusal.status))
        }
        (404 | 410, _) => missing(refusal.subject),
        (400 | 409 | 422, _) => match &refusal.problem {
            Some(problem) => of_problem(problem, refusal.subject),
            None => unavailable(format!("An answer {} without a problem document.", refusal.status)),
        },
        (300..=399, _) => {
            unavailable("Benefits answers with a redirect, which is not followed: check base_url.".to_owned())
        }
        (405 | 415, _) => unavailable(format!(
            "Benefits answers {}, as if something else stood at this address: check base_url.",
            refusal.status
        )),
        (status, _) => unavailable(format!("Benefits is not available (status {status}).")),
    };
    failure.status = Some(refusal.status);
    failure
}

fn missing(subject: Subject) -> Failure {
    match subject {
        Subject::Account => Failure {
            class: Class::AccountMissing,
            text: "The linked Benefits account is gone: relink the employee.".to_owned(),
            request_id: None,
            status: None,
        },
        Subject::Platform => Failure::halt(
            HaltReason::WrongPlatform,
            "There is no such platform at Benefits: check platform_id and base_url.",
        ),
    }
}

/// A problem of a write, by its type alone.
fn of_problem(problem: &Problem, subject: Subject) -> Failure {
    let plain = |class, text: &str| Failure { class, text: text.to_owned(), request_id: None, status: None };
    match problem.kind.as_deref().unwrap_or_default() {
        "stale-source-version" => {
            plain(Class::StaleVersion, "Benefits holds a newer version of this record.")
        }
        "request-in-progress" => plain(Class::Busy, "Benefits is still working on this write."),
        "not-found" | "gone" => missing(subject),
        "rate-limited" => plain(Class::Throttled { retry_after: None }, "Benefits asks for fewer requests."),
        "validation" => of_validation(problem),
        "email-in-use" => Failure::rejected(
            "email-in-use",
            "Another Benefits account has this email: correct the email in HR, or relink.",
        ),
        "external-id-in-use" => Failure::rejected(
            "external-id-in-use",
            "Another Benefits account is linked to this employee: relink, or have the other link removed.",
        ),
        "external-id-mismatch" => Failure::rejected(
            "external-id-mismatch",
            "The Benefits account is linked to somebody else: transfer the link, or relink.",
        ),
        "unknown-package" => Failure::rejected(
            "unknown-package",
            "Benefits does not know the package of this Benefits Level: choose another level, or map it.",
        ),
        "idempotency-key-reused" => Failure::rejected(
            "idempotency-key-reused",
            "Benefits has seen this write's key with another body: use Sync to send again.",
        ),
        "bad-request" => Failure::rejected(
            "bad-request",
            "Benefits could not read the request: use Sync to send again; tell support if it stays.",
        ),
        "" => Failure::rejected("refused", "Benefits refused the record and did not say why."),
        other => Failure::rejected(
            "refused",
            format!("Benefits refused the record for a reason unknown here (problem type \"{other}\")."),
        ),
    }
}

fn of_validation(problem: &Problem) -> Failure {
    let faults: Vec<Fault> = problem
        .errors
        .iter()
        .filter_map(|(name, code)| {
            let field = Field::all().find(|field| field.api_name() == name)?;
            Some(Fault::new(field, FaultCode::from_name(code)?))
        })
        .collect();
    let text = if faults.is_empty() {
        "Benefits refused the record's values and named no field known here.".to_owned()
    } else {
        format!("Benefits refused the record. {}", Fault::describe(&faults))
    };
    Failure { class: Class::Rejected { code: "validation", faults }, text, request_id: None, status: None }
}

/// A `Retry-After` header: seconds, or an HTTP date (RFC 9110, section 10.2.3). None where it is neither.
pub(super) fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    let wait = if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit are a very long time.
        Duration::from_secs(value.parse().unwrap_or(u64::MAX))
    } else {
        let at = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(value).ok()?;
        SystemTime::from(at).duration_since(now).unwrap_or(Duration::ZERO)
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: u16, kind: &str, subject: Subject) -> Failure {
        let body = format!("{{\"type\":\"/problems/{kind}\",\"detail\":\"bob@x.org\"}}");
        let problem = Problem::parse(body.as_bytes());
        of_refusal(&Refusal { status, problem, retry_after: None, subject }, SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn every_problem_of_the_api_has_its_class() {
        for (status, kind, label, code) in [
            (422, "validation", "rejected", "validation"),
            (409, "email-in-use", "rejected", "email-in-use"),
            (409, "external-id-in-use", "rejected", "external-id-in-use"),
            (409, "external-id-mismatch", "rejected", "external-id-mismatch"),
            (422, "unknown-package", "rejected", "unknown-package"),
            (409, "stale-source-version", "stale_version", "stale-source-version"),
            (422, "idempotency-key-reused", "rejected", "idempotency-key-reused"),
            (409, "request-in-progress", "busy", "request-in-progress"),
            (404, "not-found", "account_missing", "link-broken"),
            (410, "gone", "account_missing", "link-broken"),
            (401, "unauthenticated", "halted", "credentials"),
            (403, "forbidden", "halted", "forbidden"),
            (429, "rate-limited", "throttled", "rate-limited"),
            (403, "platform-suspended", "halted", "platform-suspended"),
            (503, "unavailable", "unavailable", "unavailable"),
            (500, "internal", "unavailable", "unavailable"),
            (400, "bad-request", "rejected", "bad-request"),
            (405, "method-not-allowed", "unavailable", "unavailable"),
            (415, "unsupported-media-type", "unavailable", "unavailable"),
            (409, "something-new", "rejected", "refused"),
        ] {
            let failure = refusal(status, kind, Subject::Account);
            assert_eq!((failure.label(), failure.code()), (label, code), "{status} {kind}");
            assert_eq!(failure.status, Some(status));
            assert!(!failure.text.contains("bob"), "{}", failure.text);
        }
    }

    #[test]
    fn a_platform_that_is_not_there_blames_no_account() {
        let failure = refusal(404, "not-found", Subject::Platform);
        assert_eq!(failure.class, Class::Halt { reason: HaltReason::WrongPlatform });
    }

    #[test]
    fn a_page_of_a_proxy_is_not_taken_for_the_platforms_word() {
        for status in [302, 400, 404, 409, 410, 422, 502] {
            let refusal = Refusal { status, problem: None, retry_after: None, subject: Subject::Account };
            let failure = of_refusal(&refusal, SystemTime::UNIX_EPOCH);
            assert!(failure.is_ambiguous(), "{status}");
            assert_eq!(failure.signal(), Signal::Ill);
        }
    }

    #[test]
    fn a_refused_field_is_named_and_an_unknown_one_is_not_repeated() {
        let problem = Problem {
            kind: Some("validation".to_owned()),
            errors: [("postcode", "too-long"), ("bob@x.org", "format"), ("email", "novel")]
                .map(|(field, code)| (field.to_owned(), code.to_owned()))
                .to_vec(),
        };
        let failure = of_problem(&problem, Subject::Account);
        let Class::Rejected { faults, .. } = &failure.class else { panic!("{failure:?}") };
        assert_eq!(faults, &[Fault::new(Field::Postcode, FaultCode::TooLong)]);
        assert!(failure.text.contains("Postcode") && !failure.text.contains("bob"), "{}", failure.text);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_has_a_limit() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777 - 30);
        for (value, seconds) in [
            ("7", Some(7)),
            (" 0 ", Some(0)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(30)),
            ("Sun, 06 Nov 1994 08:49:00 GMT", Some(0)),
            ("Mon, 06 Nov 2034 08:49:37 GMT", Some(3600)),
            ("99999999999999999999999", Some(3600)),
            ("soon", None),
            ("-5", None),
            ("", None),
        ] {
            assert_eq!(retry_after(value, now), seconds.map(Duration::from_secs), "{value}");
        }
    }

    #[test]
    fn a_wait_is_carried_by_throttling_and_by_unavailability() {
        for status in [429, 503] {
            let refusal =
                Refusal { status, problem: None, retry_after: Some("4"), subject: Subject::Platform };
            let failure = of_refusal(&refusal, SystemTime::UNIX_EPOCH);
            assert_eq!(failure.retry_after(), Some(Duration::from_secs(4)));
        }
    }
}
