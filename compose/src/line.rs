//! An event as a line for people. What a device logged is never trusted: it cannot move the
//! cursor, colour the screen or hide what follows.

use jiff::{Timestamp, tz::TimeZone};
use thinglog_schemas::{Event, Level, json};

/// A line of JSON that the router sent: an event for people, in the time of a zone or UTC; as JSON what is
/// no event, and where that is asked for.
pub(crate) fn of_json(text: &str, as_json: bool, colour: bool, zone: Option<&TimeZone>) -> String {
    let mut out = String::new();
    match (json::read(text.as_bytes()), zone) {
        (Ok(event), Some(zone)) if !as_json => write_in(&event, colour, zone, &mut out),
        (Ok(event), None) if !as_json => write(&event, colour, &mut out),
        _ => {
            escape_json(text, &mut out);
            out.push('\n');
        }
    }
    out
}

/// Appends `2026-01-02T03:04:05.123Z WARN  lamp-7 app: message key=value` and a newline.
pub(crate) fn write(event: &Event, colour: bool, out: &mut String) {
    let mut time = Vec::with_capacity(32);
    json::write_time(event.time, &mut time);
    // Milliseconds: nanoseconds are for machines.
    out.push_str(std::str::from_utf8(&time[..23]).unwrap_or_default());
    out.push_str(if event.time_estimated { "~ " } else { "Z " });
    write_rest(event, colour, out);
}

/// The same with the time of a zone: `2026-01-02T04:04:05.123+01:00`.
pub(crate) fn write_in(event: &Event, colour: bool, zone: &TimeZone, out: &mut String) {
    let time = i64::try_from(event.time / 1_000_000).ok();
    let time = time.and_then(|time| Timestamp::from_millisecond(time).ok());
    let Some(time) = time else {
        return write(event, colour, out);
    };
    let time = time.to_zoned(zone.clone());
    out.push_str(&time.strftime("%Y-%m-%dT%H:%M:%S%.3f%:z").to_string());
    out.push_str(if event.time_estimated { "~ " } else { " " });
    write_rest(event, colour, out);
}

/// What stands behind the time.
fn write_rest(event: &Event, colour: bool, out: &mut String) {
    let level = event.severity.level();
    paint(colour, style(level), out, |out| {
        out.push_str(level.name());
    });
    out.push_str(&"      "[level.name().len()..]);
    paint(colour, "1", out, |out| escape(&event.device, out));
    out.push(' ');
    paint(colour, "2", out, |out| escape(&event.source, out));
    out.push_str(": ");
    escape(&event.message, out);
    if event.truncated {
        out.push('…');
    }
    for (key, value) in &event.attributes {
        out.push(' ');
        let mut text = Vec::new();
        json::write_value(value, &mut text);
        paint(colour, "2", out, |out| {
            escape(key, out);
            out.push('=');
            escape(std::str::from_utf8(&text).unwrap_or_default(), out);
        });
    }
    out.push('\n');
}

/// SGR parameters (ECMA-48 section 8.3.117).
pub(crate) fn style(level: Level) -> &'static str {
    match level {
        Level::Error => "31",
        Level::Warn => "33",
        Level::Info => "32",
        Level::Debug | Level::Disabled => "34",
    }
}

fn paint(colour: bool, style: &str, out: &mut String, text: impl FnOnce(&mut String)) {
    if colour {
        out.push_str("\x1b[");
        out.push_str(style);
        out.push('m');
    }
    text(out);
    if colour {
        out.push_str("\x1b[0m");
    }
}

/// Appends text with everything escaped that a terminal would obey; tabs stay.
pub(crate) fn escape(text: &str, out: &mut String) {
    for character in text.chars() {
        match character {
            '\t' => out.push('\t'),
            character if obeyed(character) => out.extend(character.escape_default()),
            character => out.push(character),
        }
    }
}

/// Appends JSON on one line with the same characters as `\uXXXX`; they stand in strings only.
pub(crate) fn escape_json(json: &str, out: &mut String) {
    for character in json.chars() {
        if obeyed(character) {
            out.push_str(&format!("\\u{:04x}", u32::from(character)));
        } else {
            out.push(character);
        }
    }
}

/// C0 and C1 controls, line separators, and what turns the direction of writing.
fn obeyed(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{061c}'
        )
        || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use thinglog_schemas::{Attributes, EventId, Severity};

    use super::*;

    fn event() -> Event {
        Event {
            device: "lamp-7".into(),
            source: "app".into(),
            id: EventId::None,
            time: 1_767_323_045_123_456_789,
            time_estimated: false,
            severity: Severity::WARN,
            message: "bulb is hot".into(),
            truncated: false,
            attributes: Attributes::new(),
            received: 0,
        }
    }

    fn line(event: &Event, colour: bool) -> String {
        let mut out = String::new();
        write(event, colour, &mut out);
        out
    }

    #[test]
    fn a_line_has_time_level_device_source_message_and_attributes() {
        let mut event = event();
        assert_eq!(
            line(&event, false),
            "2026-01-02T03:04:05.123Z WARN  lamp-7 app: bulb is hot\n"
        );
        event.attributes.insert("room".into(), json!("attic"));
        event.attributes.insert("celsius".into(), json!(91));
        (event.time_estimated, event.truncated) = (true, true);
        let expected =
            "2026-01-02T03:04:05.123~ WARN  lamp-7 app: bulb is hot… celsius=91 room=\"attic\"\n";
        assert_eq!(line(&event, false), expected);
    }

    #[test]
    fn a_line_may_have_the_time_of_a_zone() {
        let mut out = String::new();
        let zone = TimeZone::fixed(jiff::tz::offset(1));
        write_in(&event(), false, &zone, &mut out);
        assert_eq!(
            out,
            "2026-01-02T04:04:05.123+01:00 WARN  lamp-7 app: bulb is hot\n"
        );
    }

    #[test]
    fn levels_have_colours_and_the_text_is_the_same() {
        let coloured = line(&event(), true);
        assert!(coloured.contains("\x1b[33mWARN\x1b[0m"), "{coloured:?}");
        let mut plain = coloured;
        for style in ["\x1b[33m", "\x1b[0m", "\x1b[1m", "\x1b[2m"] {
            plain = plain.replace(style, "");
        }
        assert_eq!(plain, line(&event(), false));
    }

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        let mut event = event();
        event.message = "a\x1b[2Jb\nc\r\u{9b}1m\u{202e}d\te\u{7f}".into();
        event.attributes.insert("k\x1b".into(), json!("\u{9b}"));
        let line = line(&event, false);
        let expected = "a\\u{1b}[2Jb\\nc\\r\\u{9b}1m\\u{202e}d\te\\u{7f} k\\u{1b}=\"\\u{9b}\"\n";
        assert!(line.ends_with(expected), "{line:?}");
    }

    #[test]
    fn escaped_json_means_the_same() {
        let value = json!({"a": "\u{9b}\u{202e}ä\u{7f}"});
        let mut out = String::new();
        escape_json(&value.to_string(), &mut out);
        assert!(out.is_ascii() || !out.chars().any(obeyed));
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&out).unwrap(),
            value
        );
    }
}
