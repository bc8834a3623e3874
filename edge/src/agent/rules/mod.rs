//! What a source's records go through before they are queued: its level, its rate, attributes that
//! are added, and what is redacted. Decided in that order, so that what does not pass costs nothing
//! more; an event that goes on has all of it behind it. Pure: levels of the publisher and the time
//! are arguments.

mod pace;
mod rate;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde::Deserialize;
pub use thinglog_schemas::redact::RedactOptions;
use thinglog_schemas::{Attributes, Level, Severity, redact::Redactor};

use super::units::Rate;
use crate::{Record, queue::Standing};
use pace::Pace;

/// The rules of one source. Nothing set: everything passes as it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RuleOptions {
    /// Less grave events go no further, unless the remote configuration names their source.
    pub level: Option<Level>,
    /// How many events of each source may come.
    pub rate: Option<Rate>,
    /// How many of them at once; by default what comes in 10 s.
    pub burst: Option<u32>,
    /// What happens to those above the rate; by default whoever can wait does.
    pub over_rate: OverRate,
    /// Added to every event that does not have them itself.
    pub attributes: Attributes,
    /// What must not leave the device.
    pub redact: Vec<RedactOptions>,
}

impl RuleOptions {
    /// Whether they can be used.
    pub fn check(&self) -> Result<(), RuleError> {
        Rules::new(self).map(drop)
    }
}

/// What happens to events above the rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OverRate {
    /// Sources that can be read later are read later; others as `Drop`.
    #[default]
    Wait,
    /// Dropped, counted and declared.
    Drop,
}

/// Why rules cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {reason}")]
pub struct RuleError {
    /// The option, as in [`RuleOptions`].
    pub key: String,
    /// What is wrong with it.
    pub reason: String,
}

/// What is to become of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It goes on.
    Pass,
    /// The publisher will not send it as things stand; what it keeps meanwhile is its business.
    Below,
    /// Its severity is below the source's own level.
    Filtered,
    /// It is one too many.
    Limited,
    /// It may come after so long.
    Wait(Duration),
}

/// The rules, ready to use.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    level: Option<Level>,
    pace: Pace,
    attributes: Attributes,
    redactor: Redactor,
}

impl Rules {
    pub(crate) fn new(options: &RuleOptions) -> Result<Rules, RuleError> {
        let redactor = Redactor::new(&options.redact).map_err(|(at, reason)| RuleError {
            key: format!("redact[{at}]"),
            reason,
        })?;
        if options.burst.is_some() && options.rate.is_none() {
            return Err(RuleError {
                key: "burst".into(),
                reason: "means nothing without `rate`".into(),
            });
        }
        Ok(Rules {
            level: options.level,
            pace: Pace::new(options),
            attributes: options.attributes.clone(),
            redactor,
        })
    }

    /// How long who waits for the rate may wait on, so that several may come at once.
    pub(crate) fn slack(&self, device: Option<Rate>) -> Option<Duration> {
        self.pace.slack(device)
    }

    /// Level and rate, which `source` has its own of. `device` is the most of any source. `patient`: the
    /// source can wait.
    pub(crate) fn judge(
        &self,
        source: &Arc<str>,
        severity: Severity,
        standing: Standing,
        device: Option<Rate>,
        patient: bool,
        now: impl FnOnce() -> Instant,
    ) -> Verdict {
        if !self.may_pass(severity) && !standing.named {
            return Verdict::Filtered;
        }
        // Which must not use up what others may.
        if !standing.passes {
            return Verdict::Below;
        }
        self.pace.take(device, source, patient, now)
    }

    /// Whether the level that is configured here lets it pass.
    pub(crate) fn may_pass(&self, severity: Severity) -> bool {
        self.level.is_none_or(|level| level.passes(severity))
    }

    /// Adds attributes and takes out what must not leave the device.
    pub(crate) fn dress(&self, record: &mut Record) {
        for (key, value) in &self.attributes {
            if !record.attributes.contains_key(key) {
                record.attributes.insert(key.clone(), value.clone());
            }
        }
        self.redactor
            .apply(&mut record.message, &mut record.attributes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENT: Standing = Standing {
        passes: true,
        named: false,
    };

    fn rules(options: RuleOptions) -> Rules {
        Rules::new(&options).unwrap()
    }

    #[test]
    fn a_local_level_cuts_until_the_remote_configuration_names_the_source() {
        let rules = rules(RuleOptions {
            level: Some(Level::Warn),
            ..RuleOptions::default()
        });
        let judge = |severity, standing| {
            rules.judge(&"app".into(), severity, standing, None, false, Instant::now)
        };
        assert_eq!(judge(Severity::WARN, SENT), Verdict::Pass);
        assert_eq!(judge(Severity::INFO, SENT), Verdict::Filtered);
        let named = Standing {
            named: true,
            ..SENT
        };
        assert_eq!(judge(Severity::INFO, named), Verdict::Pass);
    }

    #[test]
    fn above_the_rate_the_patient_wait_and_others_are_dropped() {
        for (over_rate, patient, waits) in [
            (OverRate::Wait, true, true),
            (OverRate::Wait, false, false),
            (OverRate::Drop, true, false),
        ] {
            let rules = rules(RuleOptions {
                rate: Some("1/s".parse().unwrap()),
                burst: Some(1),
                over_rate,
                ..RuleOptions::default()
            });
            let now = Instant::now();
            let judge = || rules.judge(&"app".into(), Severity::INFO, SENT, None, patient, || now);
            assert_eq!(judge(), Verdict::Pass);
            let expected = match waits {
                true => Verdict::Wait(Duration::from_secs(1)),
                false => Verdict::Limited,
            };
            assert_eq!(judge(), expected);
        }
    }

    #[test]
    fn what_is_not_sent_uses_up_no_rate() {
        let rules = rules(RuleOptions {
            rate: Some("1/h".parse().unwrap()),
            burst: Some(1),
            ..RuleOptions::default()
        });
        let judge = |severity, passes| {
            let standing = Standing { passes, ..SENT };
            rules.judge(&"app".into(), severity, standing, None, false, Instant::now)
        };
        for _ in 0..10 {
            assert_eq!(judge(Severity::DEBUG, false), Verdict::Below);
        }
        assert_eq!(judge(Severity::WARN, true), Verdict::Pass);
        assert_eq!(judge(Severity::WARN, true), Verdict::Limited);
    }

    #[test]
    fn added_attributes_stand_behind_the_events_own_and_are_redacted_too() {
        let attributes = serde_json::json!({"site": "eu-1", "who": "admin@example.com"});
        let rules = rules(RuleOptions {
            attributes: attributes.as_object().unwrap().clone(),
            redact: vec![RedactOptions {
                pattern: Some(r"\S+@\S+".into()),
                ..RedactOptions::default()
            }],
            ..RuleOptions::default()
        });
        let mut record = Record::new("app", Severity::INFO, "m").with("site", "own");
        rules.dress(&mut record);
        assert_eq!(record.attributes["site"], "own");
        assert_eq!(record.attributes["who"], "[redacted]");
    }

    #[test]
    fn a_burst_without_a_rate_is_refused() {
        let error = Rules::new(&RuleOptions {
            burst: Some(5),
            ..RuleOptions::default()
        });
        assert_eq!(error.unwrap_err().key, "burst");
    }
}
