//! Syslog messages and lines to their parts: RFC 5424 section 6, RFC 3164 section 4 as it is found
//! in the wild, and what rsyslog and busybox write to files. Pure.
//!
//! | form | as in |
//! |---|---|
//! | RFC 5424 | `<34>1 2026-11-21T09:30:01.003Z host app 123 ID47 [x@1 k="v"] m` |
//! | RFC 3164 | `<34>Nov 21 09:30:01 host app[123]: m`; on a local socket without the host |
//! | Python and others | `<34>app[123]: m` |
//! | rsyslog forwarding, rsyslog's files | `2026-11-21T09:30:01.003+01:00 host app[123]: m`, with and without priority |
//! | busybox, OpenWrt | `Nov 21 09:30:01 host daemon.info app[123]: m`, also without the host |
//!
//! What cannot be read as one of them stays in the message: without a header, all that follows the
//! priority. Structured data becomes attributes `sd.<SD-ID>.<PARAM-NAME>` (values of a repeated name
//! a list; an element without parameters `sd.<SD-ID>` = true); data that breaks the rules begins the
//! message. The blank that rsyslog leaves before the text of an RFC 5424 message is taken off.

use serde_json::Value;
use thinglog_schemas::{Attributes, Severity};

use super::{
    head,
    time::{self, Written},
};

/// Where a text comes from, which decides what may be missing and how sure one has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin<'a> {
    /// A line of a file that may be anything. Taken apart only if it has time, host and a tag; and
    /// after a time that is not syslog's own, only if the tag has a process id or the host is this
    /// device (its name is given).
    Anything { own_host: &'a str },
    /// A line of a file that is said to be syslog.
    File,
    /// A message of a program on this device: the host may be missing.
    Local,
    /// A message from the network: a word between time and tag is a host, tag or not.
    Network,
}

/// The parts of a message; those it has.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Syslog<'a> {
    pub(crate) severity: Option<Severity>,
    /// Its name in [`FACILITIES`].
    pub(crate) facility: Option<&'static str>,
    pub(crate) time: Option<Written>,
    /// The time as it stands there.
    pub(crate) timestamp: Option<&'a str>,
    pub(crate) host: Option<&'a str>,
    pub(crate) app: Option<&'a str>,
    pub(crate) pid: Option<&'a str>,
    pub(crate) msgid: Option<&'a str>,
    /// Structured data.
    pub(crate) data: Attributes,
    pub(crate) message: &'a str,
}

/// RFC 5424 table 1, by the names of syslog.conf(5).
const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv",
    "ftp", "ntp", "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4",
    "local5", "local6", "local7",
];
/// The longest name of a facility.
const MAX_FACILITY: usize = 8;
/// Tags that are longer are none (RFC 3164 says 32; RFC 5424's APP-NAME may have 48).
const MAX_TAG: usize = 64;

/// The name of a facility, RFC 5424 table 1.
pub(crate) fn facility(number: u32) -> Option<&'static str> {
    FACILITIES.get(usize::try_from(number).ok()?).copied()
}

/// The parts of `text`; `None` when it is no syslog as far as `origin` makes sure.
pub(crate) fn parse<'a>(text: &'a str, origin: Origin<'_>) -> Option<Syslog<'a>> {
    let (priority, rest) = match priority(text) {
        Some((priority, rest)) => (Some(priority), rest),
        None => (None, text),
    };
    let parsed = Syslog {
        severity: priority.map(|priority| Severity::from_syslog(priority & 7)),
        facility: priority.and_then(|priority| facility(u32::from(priority >> 3))),
        message: rest,
        ..Syslog::default()
    };
    if priority.is_some()
        && let Some(rest) = rest.strip_prefix("1 ")
        && let Some(parsed) = rfc5424(parsed.clone(), rest)
    {
        return Some(parsed);
    }
    let headed = header(&parsed, rest, origin);
    let told = priority.is_some() && !matches!(origin, Origin::Anything { .. });
    headed.or_else(|| told.then(|| bare(parsed)))
}

/// After the priority nothing but a tag, as Python's SysLogHandler has it and many programs that write to
/// a local socket; or not even that. A level is no program.
fn bare(parsed: Syslog<'_>) -> Syslog<'_> {
    let is_program = |tag: &Tag<'_>| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte);
        let letter = tag.app.bytes().any(|byte| byte.is_ascii_alphabetic());
        letter && tag.app.bytes().all(plain) && head::level(tag.app.as_bytes()).is_none()
    };
    match tag(parsed.message).filter(is_program) {
        Some(tag) => tagged(parsed, tag),
        None => parsed,
    }
}

/// `<34>`, 0 to 191.
fn priority(text: &str) -> Option<(u8, &str)> {
    let text = text.strip_prefix('<')?;
    let end = text.bytes().take(4).position(|byte| byte == b'>')?;
    let (digits, rest) = (&text[..end], &text[end + 1..]);
    let number = digits.bytes().all(|byte| byte.is_ascii_digit());
    let priority = digits.parse().ok().filter(|priority| *priority <= 191);
    priority.filter(|_| number).map(|priority| (priority, rest))
}

/// After `<PRI>1 `: RFC 5424 section 6.
fn rfc5424<'a>(mut parsed: Syslog<'a>, rest: &'a str) -> Option<Syslog<'a>> {
    let field = |text: &'a str| text.split_once(' ').filter(|(field, _)| !field.is_empty());
    let given = |field: &'a str| Some(field).filter(|field| !matches!(*field, "" | "-"));
    let (timestamp, rest) = field(rest)?;
    let (host, rest) = field(rest)?;
    let (app, rest) = field(rest)?;
    let (pid, rest) = field(rest)?;
    // A message without structured data may end after its id, which is against the rules.
    let (msgid, rest) = field(rest).unwrap_or((rest, "-"));
    parsed.timestamp = given(timestamp);
    parsed.time = parsed.timestamp.and_then(whole_time);
    parsed.host = given(host);
    parsed.app = given(app);
    parsed.pid = given(pid);
    parsed.msgid = given(msgid);
    let message = match structured_data(rest) {
        Some((data, message)) => {
            parsed.data = data;
            message
        }
        None => rest,
    };
    let message = message.strip_prefix('\u{feff}').unwrap_or(message);
    parsed.message = message.strip_prefix(' ').unwrap_or(message);
    Some(parsed)
}

fn whole_time(text: &str) -> Option<Written> {
    let (written, length) = time::read(text.as_bytes())?;
    (length == text.len()).then_some(written)
}

/// `-` or elements, and the message after them.
fn structured_data(text: &str) -> Option<(Attributes, &str)> {
    let mut data = Attributes::new();
    let mut rest = match text.strip_prefix('-') {
        Some(rest) => rest,
        None => element(text, &mut data)?,
    };
    while rest.starts_with('[') && !data.is_empty() {
        rest = element(rest, &mut data)?;
    }
    let message = match rest.strip_prefix(' ') {
        Some(message) => message,
        None => Some(rest).filter(|rest| rest.is_empty())?,
    };
    Some((data, message))
}

/// One `[id name="value" ...]`.
fn element<'a>(text: &'a str, data: &mut Attributes) -> Option<&'a str> {
    let text = text.strip_prefix('[')?;
    let end = text.find([' ', ']'])?;
    let (id, mut rest) = text.split_at(end);
    if id.is_empty() {
        return None;
    }
    let mut bare = true;
    loop {
        if let Some(rest) = rest.strip_prefix(']') {
            if bare {
                data.insert(format!("sd.{id}"), Value::Bool(true));
            }
            return Some(rest);
        }
        let (name, after) = rest.trim_start_matches(' ').split_once("=\"")?;
        if name.is_empty() || name.contains([' ', ']', '"']) {
            return None;
        }
        let (value, after) = parameter(after)?;
        add(data, format!("sd.{id}.{name}"), value);
        (rest, bare) = (after, false);
    }
}

/// A value up to its closing quote: `\"`, `\\` and `\]` stand for what follows the backslash, any
/// other backslash for itself (section 6.3.3).
fn parameter(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => {
                let escaped = characters.next_if(|(_, next)| matches!(next, '"' | '\\' | ']'));
                value.push(escaped.map_or('\\', |(_, next)| next));
            }
            _ => value.push(character),
        }
    }
    None
}

fn add(data: &mut Attributes, key: String, value: String) {
    let value = Value::String(value);
    match data.get_mut(&key) {
        None => {
            data.insert(key, value);
        }
        Some(Value::Array(values)) => values.push(value),
        Some(first) => *first = Value::Array(vec![first.take(), value]),
    }
}

/// After the priority, if there is one: a time, then host and tag.
fn header<'a>(parsed: &Syslog<'a>, text: &'a str, origin: Origin<'_>) -> Option<Syslog<'a>> {
    let (written, length) = time::read(text.as_bytes())?;
    let classic = text.starts_with(|first: char| first.is_ascii_uppercase());
    let rfc3339 = text.as_bytes().get(10) == Some(&b'T') && written.offset.is_some();
    if !classic && !rfc3339 {
        return None;
    }
    let (timestamp, rest) = text.split_at(length);
    let rest = rest.strip_prefix(' ')?;
    let mut parsed = Syslog {
        time: Some(written),
        timestamp: Some(timestamp),
        ..parsed.clone()
    };
    let busybox = |parsed: &mut Syslog<'a>, text: &'a str| match selector(text) {
        Some((facility, severity, rest)) if parsed.severity.is_none() => {
            (parsed.facility, parsed.severity) = (Some(facility), Some(severity));
            rest
        }
        _ => text,
    };
    // Without a host.
    let after = busybox(&mut parsed, rest);
    let selected = after.len() < rest.len();
    if let Some(tag) = tag(after) {
        let sure = selected || !matches!(origin, Origin::Anything { .. });
        return sure.then(|| tagged(parsed, tag));
    }
    let (host, rest) = rest.split_once(' ')?;
    if selected || !is_host(host) {
        return None;
    }
    let after = busybox(&mut parsed, rest);
    let selected = after.len() < rest.len();
    let tag = tag(after);
    let sure = match (origin, &tag) {
        (Origin::Anything { own_host }, Some(tag)) => {
            classic || selected || tag.pid.is_some() || host == own_host
        }
        (Origin::File | Origin::Network, _) | (Origin::Local, Some(_)) => true,
        _ => false,
    };
    // `2026-11-21T09:30:01Z ERROR app: m` is no message of a host ERROR.
    if !sure || head::loud_level(host.as_bytes()).is_some() {
        // On a local socket the whole of it is the message.
        let local = origin == Origin::Local;
        parsed.message = text.get(length + 1..).unwrap_or_default();
        return local.then_some(parsed);
    }
    parsed.host = Some(host);
    match tag {
        Some(tag) => Some(tagged(parsed, tag)),
        None => {
            parsed.message = after;
            Some(parsed)
        }
    }
}

fn tagged<'a>(mut parsed: Syslog<'a>, tag: Tag<'a>) -> Syslog<'a> {
    parsed.app = Some(tag.app);
    parsed.pid = tag.pid;
    parsed.message = tag.message;
    parsed
}

fn is_host(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:%".contains(&byte);
    !text.is_empty() && text.len() <= 255 && text.bytes().all(plain)
}

/// busybox's `daemon.info `.
fn selector(text: &str) -> Option<(&'static str, Severity, &str)> {
    // Nearly always there is none.
    let dot = text
        .bytes()
        .take(MAX_FACILITY + 1)
        .position(|byte| !byte.is_ascii_alphanumeric())?;
    let (facility, rest) = text.split_at(dot);
    let (level, rest) = rest.strip_prefix('.')?.split_once(' ')?;
    let facility = FACILITIES.iter().find(|name| **name == facility)?;
    const LEVELS: [&str; 8] = [
        "emerg", "alert", "crit", "err", "warn", "notice", "info", "debug",
    ];
    let priority = LEVELS.iter().position(|name| *name == level)?;
    let severity = Severity::from_syslog(u8::try_from(priority).ok()?);
    Some((facility, severity, rest))
}

struct Tag<'a> {
    app: &'a str,
    pid: Option<&'a str>,
    message: &'a str,
}

/// `app[123]: message`, `app: message`.
fn tag(text: &str) -> Option<Tag<'_>> {
    let end = text
        .bytes()
        .take(MAX_TAG + 1)
        .position(|byte| matches!(byte, b':' | b'[' | b' '))?;
    let (app, rest) = text.split_at(end);
    if app.is_empty() {
        return None;
    }
    let (pid, rest) = match rest.strip_prefix('[') {
        Some(rest) => {
            let end = rest.bytes().take(MAX_TAG).position(|byte| byte == b']')?;
            let (pid, rest) = rest.split_at(end);
            (Some(pid), rest.strip_prefix(']')?)
        }
        None => (None, rest),
    };
    let rest = rest.strip_prefix(':')?;
    if pid.is_some_and(|pid| pid.is_empty() || pid.contains(' ')) {
        return None;
    }
    let message = match rest.strip_prefix(' ') {
        Some(message) => message,
        None => Some(rest).filter(|rest| rest.is_empty())?,
    };
    Some(Tag { app, pid, message })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const ANYTHING: Origin<'_> = Origin::Anything { own_host: "lamp" };

    /// Severity, facility, host, app, pid, message.
    type Parts<'a> = (
        Option<u8>,
        Option<&'a str>,
        Option<&'a str>,
        Option<&'a str>,
        Option<&'a str>,
        &'a str,
    );

    fn parts<'a>(text: &'a str, origin: Origin<'_>) -> Option<Parts<'a>> {
        let parsed = parse(text, origin)?;
        let severity = parsed.severity.map(Severity::number);
        Some((
            severity,
            parsed.facility,
            parsed.host,
            parsed.app,
            parsed.pid,
            parsed.message,
        ))
    }

    #[test]
    fn rfc_5424_is_read_with_its_structured_data() {
        // The examples of section 6.5, shortened.
        let text = "<165>1 2003-10-11T22:14:15.003Z mymachine.example.com evntslog - ID47 \
                    [ex@32473 iut=\"3\" src=\"App \\\"x\\\" \\] \\n\" ip=\"1\" ip=\"2\"][p@1] \u{feff}An event";
        let parsed = parse(text, Origin::Network).unwrap();
        assert_eq!(parsed.severity.map(Severity::number), Some(10));
        assert_eq!(parsed.facility, Some("local4"));
        assert_eq!(parsed.host, Some("mymachine.example.com"));
        assert_eq!((parsed.app, parsed.pid), (Some("evntslog"), None));
        assert_eq!(parsed.msgid, Some("ID47"));
        assert_eq!(parsed.time.unwrap().nanos, 3_000_000);
        assert_eq!(parsed.message, "An event");
        let expected = json!({
            "sd.ex@32473.iut": "3", "sd.ex@32473.src": "App \"x\" ] \\n",
            "sd.ex@32473.ip": ["1", "2"], "sd.p@1": true,
        });
        assert_eq!(Value::Object(parsed.data), expected);

        let bare = parse("<34>1 - - - - - -", Origin::Network).unwrap();
        assert_eq!((bare.timestamp, bare.host, bare.app), (None, None, None));
        assert_eq!(bare.message, "");
    }

    #[test]
    fn structured_data_that_breaks_the_rules_stays_in_the_message() {
        for data in [
            "[x",
            "[x k=v] m",
            "[x k=\"v] m",
            "[] m",
            "[x]m",
            "no data",
            "-m",
        ] {
            let text = format!("<34>1 2003-10-11T22:14:15Z h a p i {data}");
            let parsed = parse(&text, Origin::Network).unwrap();
            assert_eq!(parsed.message, data);
            assert!(parsed.data.is_empty());
            assert_eq!(parsed.app, Some("a"));
        }
    }

    #[test]
    fn rfc_3164_is_read_as_it_is_found() {
        let network = |text| parts(text, Origin::Network).unwrap();
        for (text, expected) in [
            (
                "<34>Oct 11 22:14:15 mymachine su: 'su root' failed",
                (
                    Some(18),
                    Some("auth"),
                    Some("mymachine"),
                    Some("su"),
                    None,
                    "'su root' failed",
                ),
            ),
            (
                "<30>2026-11-21T09:30:01.5+01:00 h systemd[1]: Started.",
                (
                    Some(9),
                    Some("daemon"),
                    Some("h"),
                    Some("systemd"),
                    Some("1"),
                    "Started.",
                ),
            ),
            (
                "<13>Nov 21 09:30:01 fe80::1 app:no space",
                (
                    Some(10),
                    Some("user"),
                    Some("fe80::1"),
                    None,
                    None,
                    "app:no space",
                ),
            ),
            (
                "<13>Nov 21 09:30:01 tag[7]: m",
                (Some(10), Some("user"), None, Some("tag"), Some("7"), "m"),
            ),
            (
                "<13>hello",
                (Some(10), Some("user"), None, None, None, "hello"),
            ),
            (
                "<14>app[7]: no time",
                (
                    Some(9),
                    Some("user"),
                    None,
                    Some("app"),
                    Some("7"),
                    "no time",
                ),
            ),
            (
                "<14>error: no program",
                (Some(9), Some("user"), None, None, None, "error: no program"),
            ),
            (
                "<14>45: no program either",
                (
                    Some(9),
                    Some("user"),
                    None,
                    None,
                    None,
                    "45: no program either",
                ),
            ),
            ("<0>", (Some(21), Some("kern"), None, None, None, "")),
        ] {
            assert_eq!(network(text), expected, "{text}");
        }
    }

    #[test]
    fn a_message_of_this_device_needs_no_host() {
        let local = |text| parts(text, Origin::Local).unwrap();
        let tagged = local("<13>Nov 21 09:30:01 app: m");
        assert_eq!(
            tagged,
            (Some(10), Some("user"), None, Some("app"), None, "m")
        );
        let bare = local("<13>Nov 21 09:30:01 just words");
        assert_eq!(
            bare,
            (Some(10), Some("user"), None, None, None, "just words")
        );
        let hosted = local("<13>Nov 21 09:30:01 host app: m");
        assert_eq!(hosted.2, Some("host"));
    }

    #[test]
    fn lines_of_files_are_taken_apart_when_they_are_syslog_for_sure() {
        for (text, expected) in [
            (
                "Nov 21 09:30:01 host app[12]: m",
                (None, None, Some("host"), Some("app"), Some("12"), "m"),
            ),
            (
                "2026-11-21T09:30:01.123456+00:00 lamp kernel: [1.2] m",
                (None, None, Some("lamp"), Some("kernel"), None, "[1.2] m"),
            ),
            (
                "2026-11-21T09:30:01.123456+00:00 other CRON[7]: (root) CMD",
                (
                    None,
                    None,
                    Some("other"),
                    Some("CRON"),
                    Some("7"),
                    "(root) CMD",
                ),
            ),
            (
                "Nov 21 09:30:01 router daemon.warn dnsmasq[1]: m",
                (
                    Some(13),
                    Some("daemon"),
                    Some("router"),
                    Some("dnsmasq"),
                    Some("1"),
                    "m",
                ),
            ),
            (
                "Sat Nov 21 09:30:01 2026 kern.info kernel: m",
                (Some(9), Some("kern"), None, Some("kernel"), None, "m"),
            ),
        ] {
            assert_eq!(parts(text, ANYTHING), Some(expected), "{text}");
        }
        for text in [
            "hello",
            "<7>m",
            "<300>m",
            "Nov 21 09:30:01 host words without a tag",
            "Nov 21 09:30:01 app: m",
            "2026-11-21T10:00:00.000Z  INFO crate: m",
            "2026-11-21T10:00:00.000Z INFO crate: m",
            "2026-11-21T10:00:00.000Z INFO crate[1]: m",
            "2026-11-21T10:00:00.000Z worker foo: m",
            "2026-11-21 10:00:00 lamp app[1]: m",
            "2026-11-21T10:00:00 lamp app[1]: m",
        ] {
            assert_eq!(parts(text, ANYTHING), None, "{text}");
        }
        let told = parts("Nov 21 09:30:01 host words without a tag", Origin::File);
        assert_eq!(
            told,
            Some((None, None, Some("host"), None, None, "words without a tag"))
        );
    }

    proptest! {
        #[test]
        fn the_message_is_the_end_of_the_text_and_nothing_panics(
            text in any::<String>(),
            like in "(<[0-9]{1,3}>)?(1 )?(Nov 21 09:30:01 |2026-11-21T09:30:01Z |- )?([a-z.:é-]{0,4} ){0,5}(\\[[a-z@]{0,3}( [a-z]=\"[a-z\\\\\"]{0,4}\"?)?\\]?)?[ :\\[\\]a-zé]{0,9}",
        ) {
            for text in [&text, &like] {
                for origin in [ANYTHING, Origin::File, Origin::Local, Origin::Network] {
                    if let Some(parsed) = parse(text, origin) {
                        prop_assert!(text.ends_with(parsed.message));
                    }
                }
            }
        }
    }
}
