//! Drops by level and reason, for the report of the device. Pure.

use std::collections::BTreeMap;

use thinglog_schemas::{
    Level, Severity,
    batch::{Drop, DropReason},
};

use crate::queue::{CLASSES, class};

/// How many events were declared dropped, by class of severity and number of the reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Drops([[u64; DropReason::ALL.len()]; CLASSES]);

impl Drops {
    /// These were declared.
    pub(crate) fn note(&mut self, drops: &[Drop]) {
        for drop in drops {
            if let Some(count) = self.0[class(drop.severity)].get_mut(drop.reason as usize) {
                *count += drop.count;
            }
        }
    }

    /// Both together.
    pub(crate) fn with(mut self, other: &Drops) -> Drops {
        let counts = self.0.iter_mut().flatten();
        for (count, more) in counts.zip(other.0.iter().flatten()) {
            *count += more;
        }
        self
    }

    /// By name: level, reason, count; only what there is.
    pub(crate) fn by_name(&self) -> BTreeMap<String, BTreeMap<String, u64>> {
        let mut levels = BTreeMap::new();
        for severity in [
            Severity::DEBUG,
            Severity::INFO,
            Severity::WARN,
            Severity::ERROR,
        ] {
            let counts = DropReason::ALL.iter().zip(&self.0[class(severity)]);
            let reasons: BTreeMap<String, u64> = counts
                .filter(|(_, count)| **count > 0)
                .map(|(reason, count)| (reason.name().to_owned(), *count))
                .collect();
            if !reasons.is_empty() {
                levels.insert(name(severity.level()), reasons);
            }
        }
        levels
    }
}

fn name(level: Level) -> String {
    level.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_told_apart_by_level_and_reason() {
        let drop = |severity, reason, count| Drop {
            from: 0,
            to: count,
            count,
            severity,
            reason,
        };
        let mut drops = Drops::default();
        drops.note(&[
            drop(Severity::INFO, DropReason::SpoolFull, 3),
            drop(Severity::ERROR, DropReason::TooLarge, 1),
        ]);
        let mut more = Drops::default();
        more.note(&[drop(Severity::INFO, DropReason::SpoolFull, 4)]);
        let json = serde_json::to_value(drops.with(&more).by_name()).unwrap();
        let expected = serde_json::json!({"INFO": {"spool_full": 7}, "ERROR": {"too_large": 1}});
        assert_eq!(json, expected);
        assert!(Drops::default().by_name().is_empty());
    }
}
