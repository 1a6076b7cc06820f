//! How a rule is written: `KIND[,name=value]...`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::{Fault, FaultRule, Operation, Operations, RetryAfter};

impl fmt::Display for FaultRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.fault.name())?;
        match &self.fault {
            Fault::Slow { delay, jitter } | Fault::SlowAnswer { delay, jitter } => {
                write!(f, ",delay={}", humantime::format_duration(*delay))?;
                write!(f, ",jitter={}", humantime::format_duration(*jitter))?;
            }
            Fault::RateLimited(after) | Fault::Unavailable(Some(after)) => match after {
                RetryAfter::Seconds(seconds) => write!(f, ",retry-after={seconds}")?,
                RetryAfter::DateIn(seconds) => write!(f, ",retry-after=date:{seconds}")?,
                RetryAfter::None => f.write_str(",retry-after=none")?,
            },
            _ => {}
        }
        if let Some(share) = self.share {
            write!(f, ",share={share}")?;
        }
        if let Some(next) = self.next {
            write!(f, ",next={next}")?;
        }
        if self.on != Operations::Any {
            write!(f, ",on={}", self.on.name())?;
        }
        self.external_id.as_ref().map_or(Ok(()), |id| write!(f, ",external-id={id}"))
    }
}

/// Why a text is no [`FaultRule`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FaultRuleError {
    /// The first word is no kind of fault.
    #[error(
        "unknown fault {0:?}; known are slow, slow-answer, rate-limited, unavailable, internal, internal-after, \
             lost-before, lost-after, half-answer, wrong-content-type, huge-body, invalid-json, redirect, \
             unauthenticated, forbidden, suspended, not-found, gone, reject"
    )]
    UnknownFault(String),
    /// A `name=value` that the kind does not have, or whose value cannot be.
    #[error(
        "cannot use {0:?}; a fault takes share=0..1, next=N, on=any|reads|writes|operationId, external-id=ID, \
             slow ones delay= and jitter= (5s, 20ms), rate-limited and unavailable retry-after=SECONDS|date:SECONDS|none"
    )]
    BadParameter(String),
}

impl FromStr for FaultRule {
    type Err = FaultRuleError;

    fn from_str(text: &str) -> Result<Self, FaultRuleError> {
        let mut words = text.split(',').map(str::trim);
        let kind = words.next().unwrap_or_default();
        let mut rule = Self::always(kind_of(kind)?);
        for word in words {
            set(&mut rule, word).ok_or_else(|| FaultRuleError::BadParameter(word.to_owned()))?;
        }
        match rule.fault {
            // A slow fault without a delay is a slip of the pen.
            Fault::Slow { delay: Duration::ZERO, jitter: Duration::ZERO }
            | Fault::SlowAnswer { delay: Duration::ZERO, jitter: Duration::ZERO } => {
                Err(FaultRuleError::BadParameter("delay=".into()))
            }
            _ => Ok(rule),
        }
    }
}

fn kind_of(kind: &str) -> Result<Fault, FaultRuleError> {
    Ok(match kind {
        "slow" => Fault::Slow { delay: Duration::ZERO, jitter: Duration::ZERO },
        "slow-answer" => Fault::SlowAnswer { delay: Duration::ZERO, jitter: Duration::ZERO },
        "rate-limited" | "429" => Fault::RateLimited(RetryAfter::Seconds(1)),
        "unavailable" | "503" => Fault::Unavailable(None),
        "internal" | "500" => Fault::Internal,
        "internal-after" => Fault::InternalAfter,
        "lost-before" => Fault::LostBefore,
        "lost-after" => Fault::LostAfter,
        "half-answer" => Fault::HalfAnswer,
        "wrong-content-type" => Fault::WrongContentType,
        "huge-body" => Fault::HugeBody,
        "invalid-json" => Fault::InvalidJson,
        "redirect" => Fault::Redirect,
        "unauthenticated" | "401" => Fault::Unauthenticated,
        "forbidden" | "403" => Fault::Forbidden,
        "suspended" => Fault::Suspended,
        "not-found" | "404" => Fault::NotFound,
        "gone" | "410" => Fault::Gone,
        "reject" | "422" => Fault::Reject,
        unknown => return Err(FaultRuleError::UnknownFault(unknown.to_owned())),
    })
}

/// Sets one parameter; `None`: there is no such one, or its value cannot be.
fn set(rule: &mut FaultRule, word: &str) -> Option<()> {
    let (name, value) = word.split_once('=')?;
    match (name, &mut rule.fault) {
        ("share", _) => rule.share = Some(value.parse().ok().filter(|share| (0.0..=1.0).contains(share))?),
        ("next", _) => rule.next = Some(value.parse().ok()?),
        ("external-id", _) => rule.external_id = Some(value.to_owned()),
        ("on", _) => {
            rule.on = match value {
                "any" => Operations::Any,
                "reads" => Operations::Reads,
                "writes" => Operations::Writes,
                one => {
                    Operations::One(Operation::ALL.into_iter().find(|operation| operation.as_str() == one)?)
                }
            }
        }
        ("delay", Fault::Slow { delay, .. } | Fault::SlowAnswer { delay, .. }) => {
            *delay = humantime::parse_duration(value).ok()?;
        }
        ("jitter", Fault::Slow { jitter, .. } | Fault::SlowAnswer { jitter, .. }) => {
            *jitter = humantime::parse_duration(value).ok()?;
        }
        ("retry-after", Fault::RateLimited(after)) => *after = retry_after(value)?,
        ("retry-after", Fault::Unavailable(after)) => *after = Some(retry_after(value)?),
        _ => return None,
    }
    Some(())
}

fn retry_after(value: &str) -> Option<RetryAfter> {
    match value.strip_prefix("date:") {
        Some(seconds) => seconds.parse().ok().map(RetryAfter::DateIn),
        None if value == "none" => Some(RetryAfter::None),
        None => value.parse().ok().map(RetryAfter::Seconds),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_reads_as_it_is_written() {
        for text in [
            "rate-limited,retry-after=date:3,share=0.25,on=writes",
            "slow,delay=5s,jitter=10ms,external-id=42",
            "lost-after,next=2,on=createEmployee",
            "unavailable,retry-after=7",
            "rate-limited,retry-after=none",
            "reject",
        ] {
            assert_eq!(text.parse::<FaultRule>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_rule_that_cannot_be_is_refused_with_what_could() {
        for text in ["", "boom", "slow", "slow,delay=x", "429,share=2", "reject,delay=1s", "gone,on=deletes"]
        {
            assert!(text.parse::<FaultRule>().is_err(), "{text}");
        }
    }
}
