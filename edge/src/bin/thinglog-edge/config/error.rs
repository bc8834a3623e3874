//! Why a configuration cannot be used: where it stands, which key, what is wrong, what was probably
//! meant.

use std::{fmt, path::PathBuf};

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A file, and the line where that is known.
    File(PathBuf, Option<usize>),
    /// An environment variable.
    Variable(String),
    /// An option of the command line.
    Argument(&'static str),
    /// Nobody set it.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File(path, Some(line)) => write!(f, "{}:{line}", path.display()),
            Origin::File(path, None) => write!(f, "{}", path.display()),
            Origin::Variable(name) => f.write_str(name),
            Origin::Argument(option) => f.write_str(option),
            Origin::Default => f.write_str("defaults"),
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) origin: Origin,
    /// Dotted; empty where the whole file is meant.
    pub(crate) key: String,
    pub(crate) reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key.as_str() {
            "" => write!(f, "{}: {}", self.origin, self.reason),
            key => write!(f, "{}: {key}: {}", self.origin, self.reason),
        }
    }
}

/// A key and what is wrong with it, wherever it was set.
pub(super) type Wrong = (String, String);

/// Says what serde means in the operator's words. `also` are keys that serde does not know of.
pub(super) fn explain(key: String, reason: &str, also: &[&str]) -> Wrong {
    let key = if key == "." { String::new() } else { key };
    let Some((field, mut known)) = unknown(reason, "unknown field `") else {
        return match unknown(reason, "unknown variant `") {
            Some((word, known)) => (
                key,
                suggest(&format!("{word:?} is not known"), word, &known),
            ),
            None => (key, reason.to_owned()),
        };
    };
    known.extend(also);
    let key = match key.as_str() {
        "" => field.to_owned(),
        key if key == field || key.ends_with(&format!(".{field}")) => key.to_owned(),
        key => format!("{key}.{field}"),
    };
    (key, suggest("unknown key", field, &known))
}

/// The word and the known ones of serde's "unknown … `a`, expected one of `b`, `c`".
fn unknown<'a>(reason: &'a str, begins: &str) -> Option<(&'a str, Vec<&'a str>)> {
    let (word, rest) = reason.strip_prefix(begins)?.split_once('`')?;
    Some((word, rest.split('`').skip(1).step_by(2).collect()))
}

/// The complaint, and what was probably meant.
pub(super) fn suggest(complaint: &str, word: &str, known: &[&str]) -> String {
    match nearest(word, known) {
        Some(near) => format!("{complaint}; did you mean `{near}`?"),
        None => format!("{complaint}; known here: {}", known.join(", ")),
    }
}

/// The known word that is nearly this one.
pub(super) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let distances = known
        .iter()
        .map(|known| (strsim::osa_distance(word, known), *known));
    let (distance, near) = distances.min()?;
    (distance <= 1 + word.len() / 4).then_some(near)
}
