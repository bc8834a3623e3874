//! What a request to `/v2/journal-logs` asks for, and the arguments of journalctl it means. Nothing a
//! request says becomes an argument of its own: values stand behind `--name=` or do not stand at all.
//! Pure.

use serde::Deserialize;
use serde_json::Value;

/// journalctl's output formats (its man page, `-o`).
const FORMATS: [&str; 16] = [
    "short",
    "short-full",
    "short-iso",
    "short-iso-precise",
    "short-precise",
    "short-monotonic",
    "short-delta",
    "short-unix",
    "verbose",
    "export",
    "json",
    "json-pretty",
    "json-sse",
    "json-seq",
    "cat",
    "with-unit",
];
/// Longest text of a value.
const MAX_TEXT: usize = 256;

/// A request that can be answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Query {
    all: bool,
    pub(super) follow: bool,
    count: Option<u64>,
    unit: Option<String>,
    container: Option<String>,
    format: Option<String>,
    since: Option<String>,
    until: Option<String>,
}

/// As it is written; numbers and booleans may stand in quotes, as for the supervisor.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
struct Form {
    all: Value,
    follow: Value,
    count: Value,
    unit: Option<String>,
    container_id: Option<String>,
    format: Option<String>,
    since: Option<String>,
    until: Option<String>,
}

impl Query {
    /// Reads a body; an empty one asks for everything. The error is for who asked.
    pub(super) fn parse(body: &[u8]) -> Result<Query, String> {
        if body.trim_ascii().is_empty() {
            return Ok(Query::default());
        }
        if !body.trim_ascii_start().starts_with(b"{") {
            return Err("the options are a JSON object, like {\"follow\": true}".into());
        }
        let form: Form = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        let query = Query {
            all: truth("all", &form.all)?,
            follow: truth("follow", &form.follow)?,
            count: count(&form.count)?,
            unit: form.unit,
            container: form.container_id,
            format: form.format,
            since: form.since,
            until: form.until,
        };
        query.check()?;
        Ok(query)
    }

    fn check(&self) -> Result<(), String> {
        if let Some(format) = &self.format
            && !FORMATS.contains(&&**format)
        {
            return Err(format!("`format` is one of {}", FORMATS.join(", ")));
        }
        // systemd.unit(5), and the patterns that journalctl takes.
        let in_unit = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@*?[]".contains(c);
        if let Some(unit) = &self.unit
            && (unit.is_empty() || unit.len() > MAX_TEXT || !unit.chars().all(in_unit))
        {
            return Err(
                "`unit` is the name of a unit, as in nginx.service, or a pattern of names".into(),
            );
        }
        for (field, value) in [
            ("containerId", &self.container),
            ("since", &self.since),
            ("until", &self.until),
        ] {
            let fit = |text: &String| {
                (1..=MAX_TEXT).contains(&text.len()) && !text.chars().any(char::is_control)
            };
            if value.as_ref().is_some_and(|text| !fit(text)) {
                return Err(format!("`{field}` is a text of 1 to {MAX_TEXT} bytes"));
            }
        }
        Ok(())
    }

    /// For journalctl.
    pub(super) fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["--no-pager".to_owned()];
        let mut flag = |given: bool, flag: &str| {
            if given {
                arguments.push(flag.to_owned());
            }
        };
        flag(self.all, "--all");
        flag(self.follow, "--follow");
        let count = self.count.map(|count| count.to_string());
        for (name, value) in [
            ("--lines", &count),
            ("--unit", &self.unit),
            ("--identifier", &self.container),
            ("--since", &self.since),
            ("--until", &self.until),
        ] {
            if let Some(value) = value {
                arguments.push(format!("{name}={value}"));
            }
        }
        arguments.push(format!(
            "--output={}",
            self.format.as_deref().unwrap_or("short")
        ));
        arguments
    }

    /// Of the answer.
    pub(super) fn content_type(&self) -> &'static str {
        match self.format.as_deref() {
            Some("json") => "application/x-ndjson",
            Some("json-sse") => "text/event-stream",
            Some("json-seq") => "application/json-seq",
            Some("export") => "application/vnd.fdo.journal",
            _ => "text/plain; charset=utf-8",
        }
    }
}

fn truth(field: &str, value: &Value) -> Result<bool, String> {
    let text = match value {
        Value::Null => return Ok(false),
        Value::Bool(truth) => return Ok(*truth),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match &*text {
        "1" | "true" | "on" => Ok(true),
        "0" | "false" | "off" => Ok(false),
        _ => Err(format!("`{field}` is true or false")),
    }
}

fn count(value: &Value) -> Result<Option<u64>, String> {
    let number = match value {
        Value::Null => return Ok(None),
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    match number {
        Some(count @ 1..=1_000_000_000) => Ok(Some(count)),
        _ => Err("`count` is a whole number of entries, at least 1".into()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn arguments(body: &str) -> String {
        Query::parse(body.as_bytes()).unwrap().arguments().join(" ")
    }

    #[test]
    fn options_become_journalctls() {
        for (body, expected) in [
            ("", "--no-pager --output=short"),
            ("{}", "--no-pager --output=short"),
            (
                r#"{"follow":true,"all":true}"#,
                "--no-pager --all --follow --output=short",
            ),
            (
                r#"{"follow":"1","count":"5","format":"json"}"#,
                "--no-pager --follow --lines=5 --output=json",
            ),
            (
                r#"{"unit":"nginx.service","containerId":"abc","since":"-1h","until":"now"}"#,
                "--no-pager --unit=nginx.service --identifier=abc --since=-1h --until=now --output=short",
            ),
        ] {
            assert_eq!(arguments(body), expected, "{body}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (body, hint) in [
            (r#"{"folow":true}"#, "folow"),
            (r#"{"follow":"maybe"}"#, "`follow`"),
            (r#"{"count":0}"#, "`count`"),
            (r#"{"count":-5}"#, "`count`"),
            (r#"{"format":"xml"}"#, "short-iso"),
            (r#"{"unit":"a b"}"#, "`unit`"),
            (r#"{"unit":""}"#, "`unit`"),
            (r#"{"unit":["a"]}"#, "expected a string"),
            (r#"{"since":"a\u0000b"}"#, "`since`"),
            ("[]", "JSON object"),
            ("{", "EOF"),
        ] {
            let error = Query::parse(body.as_bytes()).unwrap_err();
            assert!(error.contains(hint), "{body}: {error}");
        }
    }

    proptest! {
        /// However the values are chosen, every argument is an option we chose.
        #[test]
        fn no_value_becomes_an_option(
            unit in "-{0,3}[ -~]{0,20}",
            container in "-{0,3}.{0,20}",
            since in "-{0,3}.{0,20}",
        ) {
            let body = serde_json::json!({"unit": unit, "containerId": container, "since": since});
            if let Ok(query) = Query::parse(body.to_string().as_bytes()) {
                for argument in query.arguments() {
                    let known = ["--no-pager", "--unit=", "--identifier=", "--since=", "--output=short"];
                    prop_assert!(known.iter().any(|known| argument.starts_with(known)), "{argument}");
                }
            }
        }

        #[test]
        fn no_body_makes_the_reader_panic(body in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = Query::parse(&body);
        }
    }
}
