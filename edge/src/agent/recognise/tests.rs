use proptest::prelude::*;
use serde_json::json;

use super::*;

fn reading(parse: Parse) -> Recogniser {
    let mut recogniser = Recogniser::new("app", Severity::INFO).reading(LineOptions {
        parse,
        timezone: "UTC".to_owned().try_into().unwrap(),
    });
    recogniser.own_host = "lamp".into();
    recogniser
}

fn line(text: &str) -> Line<'_> {
    Line {
        bytes: text.as_bytes(),
        truncated: false,
    }
}

fn record(text: &str) -> Record {
    reading(Parse::Auto).record(line(text))
}

fn on_stderr(text: &str) -> Record {
    Recogniser::new("app", Severity::ERROR).record(line(text))
}

fn at(text: &str) -> Option<u64> {
    json::parse_time(text)
}

#[test]
fn a_json_line_gives_its_level_message_and_attributes() {
    let record = record(r#"{"level":"warn","msg":"hot","celsius":91,"ts":"2026-01-02T03:04:05Z"}"#);
    assert_eq!(record.severity, Severity::WARN);
    assert_eq!(record.message, "hot");
    assert_eq!(record.attributes["celsius"], 91);
    assert_eq!(record.time, at("2026-01-02T03:04:05Z"));
}

#[test]
fn a_json_line_without_a_level_keeps_that_of_its_stream() {
    for text in [r#"{"msg":"hot"}"#, r#"{"msg":"hot","level":"odd"}"#] {
        let record = on_stderr(text);
        assert_eq!(record.severity, Severity::ERROR);
        assert_eq!(record.message, "hot");
        assert_eq!(record.time, None);
    }
}

#[test]
fn any_other_line_is_taken_as_it_is() {
    for text in ["hello", "{not json}", "[1,2]", "{}{}", "{", "a=b"] {
        let record = on_stderr(text);
        assert_eq!(record.message, text);
        assert_eq!(record.severity, Severity::ERROR);
        assert_eq!(record.time, None);
    }
}

#[test]
fn a_logfmt_line_is_read_like_json() {
    let record = record(r#"time=2026-01-02T03:04:05Z level=WARN msg="hot bulb" celsius=91"#);
    assert_eq!(record.severity, Severity::WARN);
    assert_eq!(record.message, "hot bulb");
    assert_eq!(record.time, at("2026-01-02T03:04:05Z"));
    assert_eq!(Value::Object(record.attributes), json!({"celsius": 91}));
}

#[test]
fn a_level_in_a_text_is_taken_and_the_text_stays() {
    let text = "2026-01-02 03:04:05,678 - app - WARNING - hot";
    let record = record(text);
    assert_eq!(record.severity, Severity::WARN);
    assert_eq!(record.message, text);
    assert_eq!(record.time, at("2026-01-02T03:04:05.678Z"));
    assert!(record.attributes.is_empty());
}

#[test]
fn the_header_of_a_syslog_line_becomes_fields() {
    let local = record("2026-01-02T03:04:05.5+00:00 lamp app[12]: hot");
    assert_eq!(local.message, "hot");
    assert_eq!(local.time, at("2026-01-02T03:04:05.5Z"));
    let expected = json!({"identifier": "app", "pid": 12});
    assert_eq!(Value::Object(local.attributes), expected);

    let other = record("<34>1 2026-01-02T03:04:05Z other app - ID7 [x k=\"v\"] hot");
    assert_eq!(other.severity.number(), 18);
    let expected = json!({
        "host": "other", "identifier": "app", "msgid": "ID7", "facility": "auth", "sd.x.k": "v",
    });
    assert_eq!(Value::Object(other.attributes), expected);
}

#[test]
fn what_follows_the_header_may_say_more() {
    let json =
        record(r#"2026-01-02T03:04:05Z lamp app[12]: {"level":"error","msg":"hot","pid":7}"#);
    assert_eq!((json.severity, &*json.message), (Severity::ERROR, "hot"));
    let expected = json!({"identifier": "app", "pid": 7, "syslog.pid": 12});
    assert_eq!(Value::Object(json.attributes), expected);
    assert_eq!(json.time, at("2026-01-02T03:04:05Z"));

    let word = record("Jan  2 03:04:05 lamp app: ERROR hot");
    assert_eq!(
        (word.severity, &*word.message),
        (Severity::ERROR, "ERROR hot")
    );
    // Its writer's priority says more than a word.
    let both = reading(Parse::Syslog).record(line("<14>Jan  2 03:04:05 lamp app: ERROR hot"));
    assert_eq!(
        (both.severity, &*both.message),
        (Severity::INFO, "ERROR hot")
    );
}

#[test]
fn a_time_that_cannot_be_is_kept_as_text() {
    let syslog = record("2500-01-02T03:04:05Z lamp app[12]: hot");
    assert_eq!((syslog.time, &*syslog.message), (None, "hot"));
    assert_eq!(syslog.attributes["timestamp"], "2500-01-02T03:04:05Z");
    let json = record(r#"{"msg":"hot","time":"2500-01-02T03:04:05Z"}"#);
    assert_eq!(json.time, None);
    assert_eq!(json.attributes["time"], "2500-01-02T03:04:05.000000000Z");
    let text = record("2500-01-02 03:04:05 hot");
    assert_eq!(
        (text.time, &*text.message),
        (None, "2500-01-02 03:04:05 hot")
    );
}

#[test]
fn a_source_that_says_what_its_lines_are_is_believed() {
    let json = r#"{"level":"warn","msg":"hot"}"#;
    let logfmt = "level=warn celsius=91";
    let syslog = "Jan  2 03:04:05 lamp no tag here";
    let word = "ERROR hot";
    let taken = |parse, text: &str| {
        let record = reading(parse).record(line(text));
        (record.severity, record.message)
    };
    for text in [json, logfmt, syslog, word] {
        assert_eq!(taken(Parse::Text, text), (Severity::INFO, text.to_owned()));
    }
    assert_eq!(taken(Parse::Json, json), (Severity::WARN, "hot".into()));
    assert_eq!(taken(Parse::Json, word), (Severity::INFO, word.into()));
    assert_eq!(
        taken(Parse::Logfmt, logfmt),
        (Severity::WARN, String::new())
    );
    assert_eq!(taken(Parse::Logfmt, json), (Severity::INFO, json.into()));
    assert_eq!(
        taken(Parse::Syslog, syslog),
        (Severity::INFO, "no tag here".into())
    );
    assert_eq!(taken(Parse::Syslog, word), (Severity::INFO, word.into()));
}

#[test]
fn options_are_words_and_others_are_refused() {
    let parse: Parse = serde_json::from_str("\"logfmt\"").unwrap();
    assert_eq!(parse, Parse::Logfmt);
    let error = serde_json::from_str::<Parse>("\"xml\"")
        .unwrap_err()
        .to_string();
    assert!(error.contains("`syslog`"), "{error}");
    let zone: Zone = serde_json::from_str("\"UTC\"").unwrap();
    assert_eq!(zone, Zone::Fixed(jiff::tz::TimeZone::UTC));
}

#[test]
#[ignore = "a measurement: cargo test --release -p thinglog-edge --lib -- --ignored --nocapture lines_a_second"]
fn lines_a_second() {
    for (what, text) in [
        (
            "plain text",
            "the lamp in the hall was switched on by the motion sensor of the stairs",
        ),
        (
            "JSON",
            r#"{"time":"2026-01-02T03:04:05Z","level":"warn","msg":"the lamp in the hall is hot","celsius":91}"#,
        ),
        (
            "logfmt",
            r#"time=2026-01-02T03:04:05Z level=warn msg="the lamp in the hall is hot" celsius=91"#,
        ),
        (
            "RFC 3164",
            "Jan  2 03:04:05 lamp app[12]: the lamp in the hall is hot, at 91 degrees",
        ),
        (
            "RFC 5424",
            r#"<28>1 2026-01-02T03:04:05Z gate app 12 HOT [x@1 celsius="91"] the lamp in the hall is hot"#,
        ),
        (
            "rsyslog's file",
            "2026-01-02T03:04:05.678901+00:00 lamp app[12]: the lamp in the hall is hot",
        ),
        (
            "Python",
            "2026-01-02 03:04:05,678 - app - WARNING - the lamp in the hall is hot",
        ),
        (
            "access log",
            r#"192.0.2.17 - - [02/Jan/2026:03:04:05 +0000] "GET /lamps/7 HTTP/1.1" 200 512 "-" "lampd/2.3""#,
        ),
    ] {
        let mut recogniser = reading(Parse::Auto);
        recogniser.options.timezone = Zone::Local;
        let lines = 300_000;
        let start = std::time::Instant::now();
        for _ in 0..lines {
            std::hint::black_box(recogniser.record(line(std::hint::black_box(text))));
        }
        let rate = f64::from(lines) / start.elapsed().as_secs_f64();
        println!("{what}: {rate:.0} lines/s, {} bytes a line", text.len());
    }
}

/// All of a record that can carry text.
fn carried(record: &Record) -> String {
    let attributes = serde_json::to_string(&record.attributes).unwrap();
    format!("{}\n{}\n{attributes}", record.source, record.message)
}

proptest! {
    #[test]
    fn no_line_is_lost_whatever_it_looks_like(
        text in "\\PC{0,40}",
        before in "(<[0-9]{1,3}>)?(1 )?(Jan  2 03:04:05 |2026-01-02T03:04:05Z |\\[?2026-01-02 03:04:05[\\] ])?",
        middle in "([a-zA-Z.=:\\[\\]\"-]{0,7} ?){0,4}",
    ) {
        for text in [format!("{before}{middle}{text}"), text] {
            for parse in [Parse::Auto, Parse::Text, Parse::Json, Parse::Logfmt, Parse::Syslog] {
                let record = reading(parse).record(line(&text));
                // A text stays whole, or a header was taken off it.
                let whole = text.ends_with(&record.message);
                prop_assert!(whole || !record.attributes.is_empty(), "{text:?} became {record:?}");
            }
        }
    }

    #[test]
    fn every_word_of_a_syslog_line_is_carried(
        host in "[a-z]{3,8}", app in "[a-z]{3,8}", pid in 1u32..99_999, message in "[a-z ]{0,20}[a-z]",
    ) {
        let record = record(&format!("Jan  2 03:04:05 {host} {app}[{pid}]: {message}"));
        let carried = carried(&record);
        for word in [&host, &app, &pid.to_string(), &message] {
            prop_assert!(carried.contains(word.as_str()), "{word} is not in {carried}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_taken_all_the_same(bytes in any::<Vec<u8>>(), truncated in any::<bool>()) {
        let line = Line { bytes: &bytes, truncated };
        let record = reading(Parse::Auto).record(line);
        prop_assert_eq!(record.truncated, truncated);
    }
}
