//! What an operator may set of a destination.
//!
//! Keys that every destination has stand beside those of its type:
//!
//! ```toml
//! [router.destinations.hook]
//! type = "webhook"                    # what follows is the type's own ...
//! url = "https://example.org/logs"
//! from = "tail"                       # ... or one of these
//! batch = { max_events = 500, max_age_ms = 200 }
//! ```

use serde::{Deserialize, Serialize};

use super::kinds::DestinationKind;
use super::remote::{BatchConfig, DeadLetterConfig, Delivery, RetryConfig};
use super::routes::Condition;
use super::{ConfigError, StartFrom};

/// One destination: what holds for all, and what is its type's own.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DestinationConfig {
    /// Where a subscription that the broker does not know yet starts; `earliest`, standard output:
    /// `tail`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<StartFrom>,
    /// Roles, one of which the fleet's logging options must name for events to go here (AWS's
    /// SetV2LoggingOptions, `role` of `config/default`); others are filtered. Absent: no role is needed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub roles: Option<Vec<String>>,
    /// Which events it gets at all, before its routes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when: Option<Condition>,
    /// How events are gathered into requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<BatchConfig>,
    /// When a request that failed is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryConfig>,
    /// Where events go that the other side refuses for good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dead_letters: Option<DeadLetterConfig>,
    /// Requests under way at once; 4. Where order per device is promised, a device's events are
    /// never in two of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<usize>,
    /// Most bytes of memory for events on their way; 32 MiB, or what the requests need.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<usize>,
    /// The type and its own keys.
    #[serde(flatten)]
    pub kind: DestinationKind,
}

/// A destination of this type with the defaults of everything.
impl From<DestinationKind> for DestinationConfig {
    fn from(kind: DestinationKind) -> DestinationConfig {
        DestinationConfig {
            from: None,
            roles: None,
            when: None,
            batch: None,
            retry: None,
            dead_letters: None,
            concurrency: None,
            memory_bytes: None,
            kind,
        }
    }
}

/// Why an archive of payloads can be given neither conditions nor routes.
pub(super) const NO_CHOICE: &str = "format = \"raw\" keeps every payload as it came, before levels and \
     routes; remove it, or choose another format";

impl DestinationConfig {
    /// Where a subscription that the broker does not know yet starts.
    pub fn start(&self) -> StartFrom {
        self.from.clone().unwrap_or(match self.kind {
            DestinationKind::Stdout(_) => StartFrom::Tail,
            _ => StartFrom::Earliest,
        })
    }

    /// What holds for destinations that deliver by requests.
    pub(crate) fn delivery(&self) -> Delivery {
        Delivery {
            batch: self.batch.clone().unwrap_or_default(),
            retry: self.retry.clone().unwrap_or_default(),
            dead_letters: self.dead_letters.clone().unwrap_or_default(),
            concurrency: self.concurrency.unwrap_or(Delivery::CONCURRENCY),
            memory_bytes: self.memory_bytes,
        }
    }

    /// Checks everything that can be checked without touching the system.
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let kind = self.kind.name();
        if !self.kind.is_built_in() {
            let reason = format!(
                "this build has no {kind}: it was built without the cargo feature {kind:?}"
            );
            return Err(ConfigError::new("type", reason));
        }
        match self.roles.as_deref() {
            Some([]) => {
                let reason = "names no role, so nothing would ever go here; remove the key";
                return Err(ConfigError::new("roles", reason));
            }
            Some(roles) if roles.iter().any(String::is_empty) => {
                return Err(ConfigError::new("roles", "a role is empty"));
            }
            _ => {}
        }
        let given = [
            ("batch", self.batch.is_some()),
            ("retry", self.retry.is_some()),
            ("dead_letters", self.dead_letters.is_some()),
            ("concurrency", self.concurrency.is_some()),
            ("memory_bytes", self.memory_bytes.is_some()),
        ];
        let foreign = given.iter().find(|(_, given)| *given);
        if let (false, Some((key, _))) = (self.kind.is_remote(), foreign) {
            let reason =
                format!("a destination of type {kind:?} sends no requests; remove the key");
            return Err(ConfigError::new(*key, reason));
        }
        if let DestinationKind::ObjectStore(_) = self.kind {
            self.check_objects()?;
        }
        if self.kind.is_archive() {
            self.check_archive()?;
        }
        self.delivery().validate()?;
        self.kind.validate()
    }

    /// What arrived is kept as it came: nothing of it can be chosen by what is in it.
    fn check_archive(&self) -> Result<(), ConfigError> {
        let given = [
            ("when", self.when.is_some()),
            ("roles", self.roles.is_some()),
        ];
        match given.iter().find(|(_, given)| *given) {
            Some((key, _)) => Err(ConfigError::new(*key, NO_CHOICE)),
            None => Ok(()),
        }
    }

    /// An object store refuses no event, and nothing is given up that is staged.
    fn check_objects(&self) -> Result<(), ConfigError> {
        let gives_up = self.retry.as_ref().is_some_and(|it| it.give_up_s.is_some());
        match (&self.dead_letters, gives_up) {
            (Some(_), _) => {
                let reason = "an object store refuses no event; remove the key";
                Err(ConfigError::new("dead_letters", reason))
            }
            (None, true) => {
                let reason = "what is staged is never given up; remove the key";
                Err(ConfigError::new("retry.give_up_s", reason))
            }
            (None, false) => Ok(()),
        }
    }
}

/// NDJSON files under `<data>/router/<name>/`: `events.ndjson`, rotated to `events-<n>.ndjson`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FileConfig {
    /// Size in bytes from which the file is rotated, at the end of a line.
    pub rotate_bytes: u64,
    /// Most bytes of rotated files; beyond it the oldest is deleted, logged and counted.
    pub keep_bytes: u64,
    /// Most rotated files, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_files: Option<u32>,
}

impl FileConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        if self.rotate_bytes < 1 << 20 {
            let reason = "must be at least 1048576 (1 MiB)";
            return Err(ConfigError::new("rotate_bytes", reason));
        }
        Ok(())
    }
}

impl Default for FileConfig {
    fn default() -> Self {
        FileConfig {
            rotate_bytes: 256 << 20,
            keep_bytes: 16 << 30,
            keep_files: None,
        }
    }
}

/// Events as lines on standard output.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StdoutConfig {
    /// How a line looks.
    pub format: LineFormat,
}

impl StdoutConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        Ok(())
    }
}

/// The form of a line on standard output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LineFormat {
    /// Time, device, source, level and message for people; control characters are escaped.
    #[default]
    Text,
    /// The JSON object of the file destination.
    Json,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<DestinationConfig, serde_json::Error> {
        serde_json::from_str(text)
    }

    #[test]
    fn keys_of_the_type_stand_beside_those_of_all() {
        let text = r#"{"type": "webhook", "url": "http://127.0.0.1/", "from": "tail",
                       "batch": {"max_events": 5}, "concurrency": 2}"#;
        let config = parse(text).unwrap();
        assert_eq!(config.validate(), Ok(()));
        assert_eq!(config.start(), StartFrom::Tail);
        assert_eq!(config.delivery().batch.max_events, Some(5));
        let written = serde_json::to_string(&config).unwrap();
        assert_eq!(parse(&written).unwrap(), config);
    }

    #[test]
    fn roles_are_named_or_left_out() {
        let roles = |roles: &str| {
            let text = format!(r#"{{"type": "file", "roles": {roles}}}"#);
            parse(&text).unwrap().validate().map_err(|error| error.key)
        };
        assert_eq!(roles(r#"["arn:aws:iam::123456789012:role/logs"]"#), Ok(()));
        assert_eq!(roles("null"), Ok(()));
        for wrong in ["[]", r#"["a", ""]"#] {
            assert_eq!(roles(wrong), Err("roles".into()), "{wrong}");
        }
    }

    #[test]
    fn an_unknown_key_is_refused_by_name_wherever_it_stands() {
        for text in [
            r#"{"type": "file", "brocker": 1}"#,
            r#"{"type": "webhook", "url": "http://h/", "brocker": 1}"#,
            r#"{"type": "webhook", "url": "http://h/", "batch": {"brocker": 1}}"#,
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.to_string().contains("brocker"), "{error}");
        }
    }

    #[test]
    fn an_error_says_where_below_the_destination_it_is() {
        for (text, expected) in [
            (r#"{"url": "http://h/"}"#, "missing field `type`"),
            (r#"{"type": 7}"#, "in `type`: invalid type: integer `7`"),
            (
                r#"{"type": "fil"}"#,
                "in `type`: unknown variant `fil`, expected one of `file`, ",
            ),
            (
                r#"{"type": "file", "from": 3}"#,
                "in `from`: invalid type: integer `3`",
            ),
            (r#"{"type": "webhook"}"#, "missing field `url`"),
            (
                r#"{"type": "file", "batch": {"max_events": -1}}"#,
                "in `batch.max_events`: invalid value: integer `-1`",
            ),
            (
                r#"{"type": "webhook", "url": "http://h/", "http": {"headers": {"a": 1}}}"#,
                "in `http.headers.a`: invalid type: integer `1`",
            ),
            (
                r#"{"type": "stdout", "batsh": {}}"#,
                "in `batsh`: unknown field `batsh`, expected `format`, `from`, `roles`, `when`, ",
            ),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
    }

    #[test]
    fn what_a_destination_has_no_use_for_is_refused() {
        let config = parse(r#"{"type": "file", "batch": {}}"#).unwrap();
        let error = config.validate().unwrap_err();
        assert_eq!(error.key, "batch");
    }
}
