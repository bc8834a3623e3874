//! Which lines belong together: the rules by which several lines become one event. Pure.

use std::fmt;

use regex::Regex;
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor, value::MapAccessDeserializer},
};

/// Lines of one event, at most, unless configured.
const MAX_LINES: usize = 500;

/// How lines are joined: a preset by name (`"indent"`, `"java"`, `"python"`, `"go"`), or a table with
/// one of `preset`, `start` (a pattern of an event's first line) and `continue` (a pattern of the lines
/// that belong to the one before). An event ends with the first line of the next one, after a second
/// without lines, or at `max_lines` (500) or 256 KiB; what is over a limit begins another event.
#[derive(Clone, Debug, PartialEq)]
pub struct MultilineOptions {
    pub(crate) rule: Rule,
    pub(crate) max_lines: usize,
}

/// When a line belongs to the one before.
#[derive(Clone, Debug)]
pub(crate) enum Rule {
    /// Unless it matches.
    Start(Regex),
    /// If it matches.
    Continue(Regex),
    /// If it begins with blank.
    Indent,
    /// Stack traces of Java and its relatives.
    Java,
    /// Python's tracebacks, with the exceptions before and after.
    Python,
    /// Go's panics with the goroutines.
    Go,
}

impl PartialEq for Rule {
    fn eq(&self, other: &Rule) -> bool {
        match (self, other) {
            (Rule::Start(a), Rule::Start(b)) | (Rule::Continue(a), Rule::Continue(b)) => {
                a.as_str() == b.as_str()
            }
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }
}

impl Rule {
    fn preset(name: &str) -> Option<Rule> {
        Some(match name {
            "indent" => Rule::Indent,
            "java" => Rule::Java,
            "python" => Rule::Python,
            "go" => Rule::Go,
            _ => return None,
        })
    }
}

const PRESETS: &str = "\"indent\", \"java\", \"python\" or \"go\"";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    preset: Option<String>,
    start: Option<String>,
    r#continue: Option<String>,
    max_lines: Option<usize>,
}

impl TryFrom<Table> for MultilineOptions {
    type Error = String;

    fn try_from(table: Table) -> Result<MultilineOptions, String> {
        let rule = match (table.preset, table.start, table.r#continue) {
            (Some(name), None, None) => return with_preset(&name, table.max_lines),
            (None, Some(start), None) => Rule::Start(pattern("start", &start)?),
            (None, None, Some(more)) => Rule::Continue(pattern("continue", &more)?),
            _ => return Err("expected one of `preset`, `start` and `continue`".to_owned()),
        };
        limited(rule, table.max_lines)
    }
}

fn with_preset(name: &str, max_lines: Option<usize>) -> Result<MultilineOptions, String> {
    let rule =
        Rule::preset(name).ok_or_else(|| format!("{name:?} is no preset; there are {PRESETS}"))?;
    limited(rule, max_lines)
}

fn limited(rule: Rule, max_lines: Option<usize>) -> Result<MultilineOptions, String> {
    let max_lines = max_lines.unwrap_or(MAX_LINES);
    if max_lines == 0 {
        return Err("`max_lines` is at least 1".to_owned());
    }
    Ok(MultilineOptions { rule, max_lines })
}

fn pattern(key: &str, text: &str) -> Result<Regex, String> {
    Regex::new(text).map_err(|error| format!("`{key}` is no regular expression: {error}"))
}

impl std::str::FromStr for MultilineOptions {
    type Err = String;

    fn from_str(name: &str) -> Result<MultilineOptions, String> {
        with_preset(name, None)
    }
}

impl<'de> Deserialize<'de> for MultilineOptions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<MultilineOptions, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = MultilineOptions;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{PRESETS}, or a table with `start` or `continue`")
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<MultilineOptions, E> {
                name.parse().map_err(E::custom)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<MultilineOptions, A::Error> {
                let table = Table::deserialize(MapAccessDeserializer::new(map))?;
                table.try_into().map_err(A::Error::custom)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// Where within a trace the last line stood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Within {
    #[default]
    Nothing,
    /// Python: the frames. Go: the head of a panic.
    Head,
    /// Python: behind the exception. Go: a goroutine's frames.
    Body,
}

/// A rule at work, line after line.
#[derive(Clone, Debug)]
pub(crate) struct Judge {
    rule: Rule,
    within: Within,
}

impl Judge {
    pub(crate) fn new(rule: Rule) -> Judge {
        Judge {
            rule,
            within: Within::Nothing,
        }
    }

    /// Whether a line, which is not empty, belongs to the one before; `gap`: there were empty ones
    /// between them.
    pub(crate) fn belongs(&mut self, line: &str, gap: bool) -> bool {
        match &self.rule {
            Rule::Start(pattern) => !pattern.is_match(line),
            Rule::Continue(pattern) => pattern.is_match(line),
            Rule::Indent => is_indented(line),
            Rule::Java => is_of_java(line),
            Rule::Python => self.is_of_python(line),
            Rule::Go => self.is_of_go(line, gap),
        }
    }

    fn is_of_python(&mut self, line: &str) -> bool {
        let bare = line.trim_start_matches([' ', '|', '+', '-']);
        let (within, belongs) = if bare.starts_with("Traceback (most recent call last):")
            || bare.starts_with("Exception Group Traceback")
        {
            (Within::Head, true)
        } else if is_indented(line) {
            (self.within, true)
        } else {
            match self.within {
                // The exception itself.
                Within::Head => (Within::Body, true),
                Within::Body if is_between_tracebacks(line) => (Within::Body, true),
                _ => (Within::Nothing, false),
            }
        };
        self.within = within;
        belongs
    }

    fn is_of_go(&mut self, line: &str, gap: bool) -> bool {
        let is_goroutine = line.starts_with("goroutine ") && line.ends_with("]:");
        let begins = ["panic: ", "fatal error: "]
            .iter()
            .any(|head| line.starts_with(head));
        let (within, belongs) = if is_goroutine {
            (Within::Body, true)
        } else if begins {
            // A panic while panicking goes on with the first one.
            (Within::Head, self.within == Within::Head)
        } else {
            let head =
                is_indented(line) || line.starts_with("[signal ") || line.starts_with("runtime: ");
            let frame = is_indented(line) || is_frame(line);
            let end = line.starts_with("exit status ");
            match self.within {
                Within::Head if head => (Within::Head, true),
                Within::Body if frame && !gap => (Within::Body, true),
                Within::Body if end => (Within::Nothing, true),
                _ => (Within::Nothing, is_indented(line)),
            }
        };
        self.within = within;
        belongs
    }
}

fn is_indented(line: &str) -> bool {
    line.starts_with([' ', '\t'])
}

fn is_of_java(line: &str) -> bool {
    is_indented(line)
        || line.starts_with("Caused by: ")
        || line.starts_with("Suppressed: ")
        || is_exception_of_java(line)
}

/// `java.lang.IllegalStateException: reason`, as it stands below the message that was logged with it.
fn is_exception_of_java(line: &str) -> bool {
    let name = line.split_once(':').map_or(line, |(name, _)| name);
    let is_name = |part: &str| {
        let mut characters = part.chars();
        characters
            .next()
            .is_some_and(|c| c.is_alphabetic() || c == '_')
            && characters.all(|c| c.is_alphanumeric() || c == '_' || c == '$')
    };
    let named = ["Exception", "Error", "Throwable", "Failure"];
    name.contains('.')
        && name.split('.').all(is_name)
        && named.iter().any(|end| name.ends_with(end))
}

fn is_between_tracebacks(line: &str) -> bool {
    line.starts_with("During handling of the above exception")
        || line.starts_with("The above exception was the direct cause")
}

/// `main.serve(0xc000012345, {0x4b2, 0x1})`, `created by main.main in goroutine 1`.
fn is_frame(line: &str) -> bool {
    let name = line.split(' ').next().unwrap_or_default();
    line.starts_with("created by ")
        || line.starts_with("...additional frames elided...")
        || (line.ends_with(')') && name.contains('('))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<MultilineOptions, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn rules_are_presets_or_patterns() {
        assert_eq!(read(r#""java""#).unwrap().rule, Rule::Java);
        let table = read(r#"{"start": "^\\d", "max_lines": 3}"#).unwrap();
        assert!(matches!(table.rule, Rule::Start(_)));
        assert_eq!(table.max_lines, 3);
        assert_eq!(read(r#"{"preset": "go"}"#).unwrap().rule, Rule::Go);
    }

    #[test]
    fn what_is_no_rule_is_refused_with_the_reason() {
        for (json, reason) in [
            (r#""cobol""#, "there are \"indent\""),
            (r#"{"start": "a", "continue": "b"}"#, "expected one of"),
            (r#"{}"#, "expected one of"),
            (r#"{"start": "("}"#, "`start` is no regular expression"),
            (r#"{"begin": "a"}"#, "begin"),
            (r#"{"preset": "go", "max_lines": 0}"#, "at least 1"),
            ("5", "a table with `start`"),
        ] {
            let error = read(json).unwrap_err();
            assert!(error.contains(reason), "{json}: {error}");
        }
    }
}
