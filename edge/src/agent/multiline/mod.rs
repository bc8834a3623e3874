//! Which lines belong together: the rules by which several lines become one event. Pure.

mod traces;

use std::fmt;

use regex::Regex;
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor, value::MapAccessDeserializer},
};

use self::traces::{Trace, is_indented};

/// Lines of one event, at most, unless configured.
const MAX_LINES: usize = 500;

/// How lines are joined: a preset by name (`"indent"`, or a language whose traces stay together:
/// `"java"`, `"python"`, `"go"`, `"node"`, `"rust"`, `"dotnet"`), or a table with one of `preset`, `start` (a pattern of an event's first line) and `continue` (a pattern of the lines
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
    /// What a language's runtime prints when something goes wrong.
    Trace(Language),
}

/// Whose traces are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    /// Java and its relatives, with java.util.logging's records of two lines.
    Java,
    /// Python's tracebacks, with the exceptions before and after.
    Python,
    /// Go's panics with the goroutines.
    Go,
    /// Node.js.
    Node,
    /// Rust's panics, and errors with their causes.
    Rust,
    /// C# and its relatives.
    DotNet,
}

impl PartialEq for Rule {
    fn eq(&self, other: &Rule) -> bool {
        match (self, other) {
            (Rule::Start(a), Rule::Start(b)) | (Rule::Continue(a), Rule::Continue(b)) => {
                a.as_str() == b.as_str()
            }
            (Rule::Trace(a), Rule::Trace(b)) => a == b,
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }
}

impl Rule {
    fn preset(name: &str) -> Option<Rule> {
        Some(match name {
            "indent" => Rule::Indent,
            "java" => Rule::Trace(Language::Java),
            "python" => Rule::Trace(Language::Python),
            "go" => Rule::Trace(Language::Go),
            "node" => Rule::Trace(Language::Node),
            "rust" => Rule::Trace(Language::Rust),
            "dotnet" => Rule::Trace(Language::DotNet),
            _ => return None,
        })
    }
}

const PRESETS: &str = "\"indent\", \"java\", \"python\", \"go\", \"node\", \"rust\" or \"dotnet\"";

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

/// A rule at work, line after line.
#[derive(Clone, Debug)]
pub(crate) enum Judge {
    /// Each line by itself.
    Line(Rule),
    /// Lines of a language's traces.
    Trace(Trace),
}

impl Judge {
    pub(crate) fn new(rule: Rule) -> Judge {
        match rule {
            Rule::Trace(language) => Judge::Trace(Trace::new(language)),
            rule => Judge::Line(rule),
        }
    }

    /// Whether a line, which is not empty, belongs to the one before; `gap`: there were empty ones
    /// between them.
    pub(crate) fn belongs(&mut self, line: &str, gap: bool) -> bool {
        match self {
            Judge::Line(Rule::Start(pattern)) => !pattern.is_match(line),
            Judge::Line(Rule::Continue(pattern)) => pattern.is_match(line),
            Judge::Line(Rule::Indent | Rule::Trace(_)) => is_indented(line),
            Judge::Trace(trace) => trace.belongs(line, gap),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<MultilineOptions, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn rules_are_presets_or_patterns() {
        assert_eq!(read(r#""java""#).unwrap().rule, Rule::Trace(Language::Java));
        let table = read(r#"{"start": "^\\d", "max_lines": 3}"#).unwrap();
        assert!(matches!(table.rule, Rule::Start(_)));
        assert_eq!(table.max_lines, 3);
        assert_eq!(
            read(r#"{"preset": "go"}"#).unwrap().rule,
            Rule::Trace(Language::Go)
        );
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
