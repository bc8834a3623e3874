//! The time zone of times that name none.

use jiff::tz::TimeZone;
use serde::Deserialize;

/// A zone for local times. In a configuration: `"local"`, `"UTC"`, or a name of the time zone database
/// such as `"Europe/Berlin"`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Zone {
    /// The system's: `TZ`, else /etc/localtime, else UTC. A change is noticed within minutes.
    #[default]
    Local,
    /// This one.
    Fixed(TimeZone),
}

impl Zone {
    pub(crate) fn get(&self) -> TimeZone {
        match self {
            Zone::Local => TimeZone::system(),
            Zone::Fixed(zone) => zone.clone(),
        }
    }
}

/// A name that no time zone of this machine has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown time zone {name:?}: expected \"local\", \"UTC\" or a name of the time zone database (/usr/share/zoneinfo) such as \"Europe/Berlin\""
)]
pub struct UnknownZone {
    name: String,
}

impl TryFrom<String> for Zone {
    type Error = UnknownZone;

    fn try_from(name: String) -> Result<Zone, UnknownZone> {
        match &*name {
            "local" => Ok(Zone::Local),
            "UTC" => Ok(Zone::Fixed(TimeZone::UTC)),
            _ => TimeZone::get(&name)
                .map(Zone::Fixed)
                .map_err(|_| UnknownZone { name }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_is_named_or_refused_with_an_example() {
        let zone = |name: &str| Zone::try_from(name.to_owned());
        assert_eq!(zone("local"), Ok(Zone::Local));
        assert_eq!(zone("UTC"), Ok(Zone::Fixed(TimeZone::UTC)));
        let error = zone("Mars/Olympus").unwrap_err().to_string();
        assert!(
            error.contains("Mars/Olympus") && error.contains("Europe/Berlin"),
            "{error}"
        );
    }

    /// Reading a zone takes much of a stack in a build for debugging, and whoever reads lines may be
    /// the first to do so.
    #[test]
    fn a_zone_is_read_within_half_of_the_stack_that_a_thread_has() {
        let read = || {
            assert!(TimeZone::get("Europe/Berlin").is_ok());
            drop(Zone::Local.get());
        };
        let thread = std::thread::Builder::new().stack_size(1 << 20);
        thread.spawn(read).unwrap().join().unwrap();
    }
}
