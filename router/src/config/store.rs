//! What an operator may set of the store.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use thinglog_schemas::name;

use super::ConfigError;

/// Least bytes that make sense: several files have to fit.
const LEAST_BYTES: u64 = 64 << 20;
/// Different ages of groups, beside the usual one.
const MOST_AGES: usize = 7;

/// Recent events, kept to be searched; see [`crate::destinations`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreConfig {
    /// Seconds that events are kept after they were received; three days.
    pub age_s: u64,
    /// The same for the devices of a group, by the group's name. A device in several such groups is kept
    /// for as long as the longest of them says.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub group_age_s: BTreeMap<String, u64>,
    /// Events of each device that are kept beyond their age while there is room; 1,000.
    pub events_per_device: u64,
    /// Bytes that all files of the store may take; 10 GiB. The oldest go first.
    pub bytes: u64,
}

impl Default for StoreConfig {
    fn default() -> StoreConfig {
        StoreConfig {
            age_s: 3 * 24 * 3600,
            group_age_s: BTreeMap::new(),
            events_per_device: 1000,
            bytes: 10 << 30,
        }
    }
}

impl StoreConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        if self.age_s == 0 {
            return Err(ConfigError::new(
                "age_s",
                "0 keeps nothing; give seconds, like 86400 for a day",
            ));
        }
        if self.bytes < LEAST_BYTES {
            let reason = format!("{} is too little: at least {LEAST_BYTES}", self.bytes);
            return Err(ConfigError::new("bytes", reason));
        }
        for (group, age) in &self.group_age_s {
            let key = format!("group_age_s.{group}");
            if !name::is_valid(group) {
                return Err(ConfigError::new(&key, "no group can have that name"));
            }
            if *age == 0 {
                return Err(ConfigError::new(
                    &key,
                    "0 keeps nothing; give seconds, like 86400 for a day",
                ));
            }
        }
        let ages: BTreeSet<&u64> = self.group_age_s.values().collect();
        if ages.len() > MOST_AGES {
            let reason = format!(
                "{} different ages; files are kept apart by age, so there may be {MOST_AGES}",
                ages.len()
            );
            return Err(ConfigError::new("group_age_s", reason));
        }
        Ok(())
    }
}
