//! Why a configuration cannot be used: where, which key, what is wrong, what was probably meant.

use std::{fmt, path::PathBuf};

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A file, and its line where that is known.
    File(PathBuf, Option<usize>),
    /// An environment variable.
    Variable(String),
    /// Nobody set it.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File(path, Some(line)) => write!(f, "{}:{line}", path.display()),
            Origin::File(path, None) => write!(f, "{}", path.display()),
            Origin::Variable(name) => f.write_str(name),
            Origin::Default => f.write_str("defaults"),
        }
    }
}

/// What serde has no word for: "invalid socket address syntax" does not say what is asked for.
const NO_ADDRESS: &str = "no address to listen on: \"IP:PORT\" is asked for, as \"127.0.0.1:1883\", \
    \"0.0.0.0:1883\" or \"[::1]:1883\"; names are not looked up";

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConfigError {
    pub(crate) origin: Origin,
    /// Dotted; empty where the whole file is wrong.
    pub(crate) key: String,
    pub(crate) reason: String,
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key.as_str() {
            "" => write!(f, "{}: {}", self.origin, self.reason),
            key => write!(f, "{}: {key}: {}", self.origin, self.reason),
        }
    }
}

impl ConfigError {
    /// `reason` may be serde's, which is put in the operator's words.
    pub(crate) fn new(
        origin: Origin,
        key: impl Into<String>,
        reason: impl Into<String>,
    ) -> ConfigError {
        let (mut key, mut reason) = (key.into(), reason.into());
        // The path of an error at the top is a dot.
        if key == "." {
            key.clear();
        }
        if let Some((below, rest)) = below(&reason) {
            key = format!("{key}.{below}");
            reason = rest.to_owned();
        }
        if reason.contains("socket address") {
            reason = NO_ADDRESS.to_owned();
        }
        match unknown_field(&reason) {
            None => ConfigError {
                origin,
                key,
                reason,
            },
            Some((field, expected)) => {
                if key != field && !key.ends_with(&format!(".{field}")) {
                    key = if key.is_empty() {
                        field.to_owned()
                    } else {
                        format!("{key}.{field}")
                    };
                }
                let reason = match nearest(field, &expected) {
                    Some(near) => format!("unknown key; did you mean `{near}`?"),
                    None => format!("unknown key; known here: {}", expected.join(", ")),
                };
                ConfigError {
                    origin,
                    key,
                    reason,
                }
            }
        }
    }

    /// With the origin of its key, where it has one.
    pub(crate) fn found(mut self, origin: impl Fn(&str) -> Origin) -> ConfigError {
        if !self.key.is_empty() {
            self.origin = origin(&self.key);
        }
        self
    }
}

/// Key and reason of the router's "in `batch.max_events`: …", of a table that was read in parts.
fn below(reason: &str) -> Option<(&str, &str)> {
    reason.strip_prefix("in `")?.split_once("`: ")
}

/// The field and the known ones of serde's "unknown field `a`, expected one of `b`, `c`".
fn unknown_field(reason: &str) -> Option<(&str, Vec<&str>)> {
    let rest = reason.strip_prefix("unknown field `")?;
    let (field, rest) = rest.split_once('`')?;
    let expected = rest.split('`').skip(1).step_by(2).collect();
    Some((field, expected))
}

/// The known key that was probably meant.
pub(crate) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let distance = |known: &&&str| strsim::osa_distance(word, known);
    known
        .iter()
        .min_by_key(distance)
        .filter(|known| distance(known) <= 1 + word.len() / 4)
        .copied()
}
