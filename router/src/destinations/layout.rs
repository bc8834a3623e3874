//! Where objects of a store are: the store of a URL, and the path of an event below its prefix. Pure.

use std::sync::Arc;

use thinglog_schemas::{Event, json};

/// What a group is where a device has none; Hive, Spark, Athena and DuckDB know the word.
const NO_GROUP: &str = "__HIVE_DEFAULT_PARTITION__";

/// Most bytes of a prefix and of a path's constants, so that keys stay below S3's 1,024.
const LONGEST: usize = 200;
/// Most bytes that a value is given in a key.
const LONGEST_VALUE: usize = 200;

/// A store by its URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// `s3`, `gs`, `az` or `file`.
    pub(crate) scheme: String,
    /// The bucket, the container; empty for a folder.
    pub(crate) bucket: String,
    /// What every key begins with: empty, or with `/` at its end. Of a folder: the whole of it.
    pub(crate) prefix: String,
}

impl Place {
    /// Takes a URL apart; the error says what is wrong.
    pub(crate) fn parse(url: &str) -> Result<Place, String> {
        let known =
            "s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX or file:///FOLDER";
        let Some((scheme, rest)) = url.split_once("://") else {
            return Err(format!("{url:?} is none of {known}"));
        };
        if scheme == "file" {
            let Some(folder) = rest.strip_prefix('/') else {
                return Err(format!(
                    "{url:?}: a folder opens with /, as in file:///var/lake"
                ));
            };
            let folder = folder.strip_suffix('/').unwrap_or(folder);
            let mut parts = folder.split('/');
            if parts.any(|part| ["", ".", ".."].contains(&part)) && !folder.is_empty() {
                return Err(format!("{url:?} has an empty part, or . or .. as a part"));
            }
            return Ok(Place {
                scheme: scheme.into(),
                bucket: String::new(),
                prefix: rest.into(),
            });
        }
        if !["s3", "gs", "az"].contains(&scheme) {
            return Err(format!("{url:?} is none of {known}"));
        }
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let is_word = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if bucket.is_empty() || !bucket.chars().all(is_word) {
            return Err(format!("{url:?} names no bucket"));
        }
        let prefix = prefix.trim_end_matches('/');
        if !prefix.is_empty() {
            check(prefix)?;
        }
        Ok(Place {
            scheme: scheme.into(),
            bucket: bucket.into(),
            prefix: match prefix {
                "" => String::new(),
                prefix => format!("{prefix}/"),
            },
        })
    }
}

/// Constant parts of keys.
fn check(text: &str) -> Result<(), String> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || "-_.=~/{}".contains(c);
    if let Some(wrong) = text.chars().find(|c| !is_word(*c)) {
        return Err(format!(
            "{text:?} has {wrong:?}; keys are of A-Z a-z 0-9 - _ . = ~ /"
        ));
    }
    if text.len() > LONGEST {
        return Err(format!("has more than {LONGEST} bytes"));
    }
    let mut segments = text.trim_end_matches('/').split('/');
    match segments.find(|segment| ["", ".", ".."].contains(segment)) {
        Some(_) => Err(format!("{text:?} has an empty part, or . or .. as a part")),
        None => Ok(()),
    }
}

/// What a path is made for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject<'a> {
    /// ns since the Unix epoch.
    pub(crate) received: u64,
    /// Unless it is of none.
    pub(crate) device: Option<&'a Arc<str>>,
    pub(crate) source: &'a str,
    pub(crate) level: &'static str,
}

impl<'a> From<&'a Event> for Subject<'a> {
    fn from(event: &'a Event) -> Subject<'a> {
        Subject {
            received: event.received,
            device: Some(&event.device),
            source: &event.source,
            level: event.severity.level().name(),
        }
    }
}

/// The path of an event: `date={date}/group={group}/`.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
enum Part {
    Text(String),
    /// Where it stands in `2026-01-02T03`, of when it was received.
    Time(usize, usize),
    Group,
    Device,
    Source,
    Level,
}

impl Layout {
    /// Parses a path; the error says what is wrong.
    pub(crate) fn parse(text: &str) -> Result<Layout, String> {
        let mut parts = Vec::new();
        if !text.is_empty() {
            check(text)?;
        }
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once('{') {
            let (name, after) = behind.split_once('}').ok_or("a { has no }")?;
            parts.push(Part::Text(before.to_owned()));
            parts.push(place(name)?);
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        let texts = parts.iter().filter_map(|part| match part {
            Part::Text(text) => Some(text),
            _ => None,
        });
        if texts.clone().any(|text| text.contains(['{', '}'])) {
            return Err("a } has no {".into());
        }
        if !text.is_empty() && !text.ends_with('/') {
            parts.push(Part::Text("/".into()));
        }
        Ok(Layout { parts })
    }

    /// Whether the device's groups are asked for.
    pub(crate) fn asks_for_groups(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Group))
    }

    /// The most bytes of a path, and of a part of it between two `/`.
    pub(crate) fn longest(&self) -> (usize, usize) {
        let (mut whole, mut part, mut longest) = (0, 0, 0);
        for piece in &self.parts {
            let bytes = match piece {
                Part::Text(text) => {
                    for c in text.chars() {
                        part = if c == '/' { 0 } else { part + 1 };
                        longest = longest.max(part);
                    }
                    whole += text.len();
                    continue;
                }
                Part::Time(from, to) => to - from,
                // ERROR, DISABLED
                Part::Level => 8,
                Part::Group | Part::Device | Part::Source => LONGEST_VALUE,
            };
            (whole, part) = (whole + bytes, part + bytes);
            longest = longest.max(part);
        }
        (whole, longest)
    }

    /// Whether it has a place for the level.
    pub(crate) fn asks_for_level(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Level))
    }

    /// Appends a path. What is put in has neither `/` nor line breaks.
    pub(crate) fn write(&self, of: &Subject<'_>, groups: &[String], out: &mut Vec<u8>) {
        let mut time = Vec::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text.as_bytes()),
                Part::Time(from, to) => {
                    if time.is_empty() {
                        json::write_time(of.received, &mut time);
                    }
                    out.extend_from_slice(time.get(*from..*to).unwrap_or_default());
                }
                Part::Group => value(groups.first().map_or(NO_GROUP, String::as_str), out),
                Part::Device => value(of.device.map_or("", |device| device), out),
                Part::Source => value(of.source, out),
                Part::Level => value(of.level, out),
            }
        }
    }
}

fn place(name: &str) -> Result<Part, String> {
    Ok(match name {
        "date" => Part::Time(0, 10),
        "year" => Part::Time(0, 4),
        "month" => Part::Time(5, 7),
        "day" => Part::Time(8, 10),
        "hour" => Part::Time(11, 13),
        "group" => Part::Group,
        "device" => Part::Device,
        "source" => Part::Source,
        "level" => Part::Level,
        _ => {
            return Err(format!(
                "{{{name}}} is no place: date, year, month, day, hour, group, device, source or level"
            ));
        }
    })
}

/// Unreserved characters as they are, all others as `%XX`; dots alone would be another folder.
fn value(text: &str, out: &mut Vec<u8>) {
    let start = out.len();
    let only_dots = text.bytes().all(|byte| byte == b'.');
    for byte in text.bytes() {
        if out.len() - start + 3 > LONGEST_VALUE {
            break;
        }
        let is_plain = byte.is_ascii_alphanumeric() || b"-_~".contains(&byte);
        match is_plain || (byte == b'.' && !only_dots) {
            true => out.push(byte),
            false => out.extend_from_slice(format!("%{byte:02X}").as_bytes()),
        }
    }
    if out.len() == start {
        out.push(b'_');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::decoded;

    fn path(text: &str, groups: &[&str]) -> String {
        let mut event = decoded("x").events.remove(0);
        event.received = 1_767_323_045_000_000_000;
        event.source = "a/b é".into();
        let groups: Vec<String> = groups.iter().map(|group| (*group).to_owned()).collect();
        let mut out = Vec::new();
        Layout::parse(text)
            .unwrap()
            .write(&(&event).into(), &groups, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_path_follows_when_an_event_was_received_and_of_whom_it_is() {
        let of = "date={date}/group={group}/";
        assert_eq!(
            path(of, &["attic", "berlin"]),
            "date=2026-01-02/group=attic/"
        );
        let none = "date=2026-01-02/group=__HIVE_DEFAULT_PARTITION__/";
        assert_eq!(path(of, &[]), none);
        let text = "{year}/{month}/{day}/{hour}/{device}/{level}";
        assert_eq!(path(text, &[]), "2026/01/02/03/lamp-7/INFO/");
        assert_eq!(path("", &[]), "");
    }

    #[test]
    fn no_event_leaves_its_path() {
        assert_eq!(path("{source}", &[]), "a%2Fb%20%C3%A9/");
        assert_eq!(path("x/{group}", &[".."]), "x/%2E%2E/");
        assert_eq!(path("x/{group}", &["a.b"]), "x/a.b/");
        assert!(path("{group}", &[&"é".repeat(500)]).len() <= 201);
    }

    #[test]
    fn how_long_a_path_may_be_is_known_before() {
        let longest = |text: &str| Layout::parse(text).unwrap().longest();
        assert_eq!(longest(""), (0, 0));
        assert_eq!(longest("date={date}/x/"), (18, 15));
        assert_eq!(longest("{device}-{source}"), (402, 401));
    }

    #[test]
    fn what_is_no_path_is_told() {
        for (text, word) in [
            ("{dat}", "{dat}"),
            ("a/{date", "no }"),
            ("a}/{date}", "no {"),
            ("/a", "empty part"),
            ("a//b", "empty part"),
            ("../a", ".."),
            ("a b", "' '"),
        ] {
            let error = Layout::parse(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn a_url_names_store_and_prefix() {
        let of = |url: &str| Place::parse(url).map(|it| (it.scheme, it.bucket, it.prefix));
        let is = |a: &str, b: &str, c: &str| Ok((a.to_owned(), b.to_owned(), c.to_owned()));
        assert_eq!(of("s3://logs/a/b/"), is("s3", "logs", "a/b/"));
        assert_eq!(of("gs://logs"), is("gs", "logs", ""));
        assert_eq!(of("file:///var/lake"), is("file", "", "/var/lake"));
        for url in [
            "logs",
            "ftp://a/b",
            "s3://",
            "s3://a b/",
            "file://var",
            "s3://a/../b",
            "file:///a/../b",
            "file:///a/./b",
            "file:///a//b",
        ] {
            assert!(of(url).is_err(), "{url}");
        }
    }
}
