use thinglog_schemas::{Event, EventId, Severity};

use super::*;
use crate::deliver::remote::Encoder;
use crate::testing::decoded;

fn encoder(text: &str) -> SyslogEncoder {
    build(&serde_json::from_str(text).unwrap()).unwrap().0
}

fn event(message: &str) -> Event {
    let mut event = decoded(message).events.remove(0);
    event.id = EventId::Spooled { epoch: 1, seq: 2 };
    event.time = 1_767_323_045_678_901_234;
    event
}

fn encoded(text: &str, event: &Event) -> String {
    let mut out = Vec::new();
    let cost = encoder(text).encode(event, &mut out).unwrap();
    assert_eq!(cost, out.len());
    String::from_utf8(out).unwrap()
}

#[test]
fn a_message_is_that_of_the_rfc_with_its_length_in_front() {
    let mut event = event("upstream is gone");
    event.severity = Severity::WARN;
    event.attributes.insert("status".into(), 502.into());
    let message = "<132>1 2026-01-02T03:04:05.678901Z lamp-7 app - - [thinglog@32473 \
                   id=\"lamp-7/0000000000000001/2\" severity=\"13\"][attributes@32473 \
                   status=\"502\"] upstream is gone";
    let text = r#"{"server": "tcp://h", "facility": "local0"}"#;
    assert_eq!(
        encoded(text, &event),
        format!("{} {message}", message.len())
    );
    let text = r#"{"server": "udp://h", "facility": "local0"}"#;
    assert_eq!(encoded(text, &event), message);
}

#[test]
fn no_attribute_can_leave_its_place() {
    let mut event = event("x");
    let odd = r#"a"b\c]d [e=1]"#;
    event.attributes.insert("a b=\"]é".into(), odd.into());
    event
        .attributes
        .insert("".into(), serde_json::json!([1, "]"]));
    let text = encoded(r#"{"server": "udp://h", "enterprise": 7}"#, &event);
    let data = r#"[attributes@7 _="[1,\"\]\"\]" a_b____="a\"b\\c\]d [e=1\]"] x"#;
    assert!(text.ends_with(data), "{text}");
}

#[test]
fn a_long_name_is_cut_to_32_characters() {
    let mut event = event("x");
    event.attributes.insert("n".repeat(40), true.into());
    let text = encoded(r#"{"server": "udp://h"}"#, &event);
    let name = "n".repeat(32);
    assert!(text.ends_with(&format!(" {name}=\"true\"] x")), "{text}");
}

#[test]
fn a_long_source_stands_whole_in_the_structured_data() {
    let mut event = event("x");
    event.source = "s".repeat(60).into();
    let text = encoded(r#"{"server": "udp://h"}"#, &event);
    let (cut, whole) = ("s".repeat(48), "s".repeat(60));
    assert!(text.contains(&format!(" lamp-7 {cut} - - ")), "{text}");
    assert!(text.contains(&format!(" source=\"{whole}\"")), "{text}");
}

#[test]
fn a_long_message_is_cut_between_characters_and_says_so() {
    for length in 1000..1003 {
        let whole = format!("{}{}", "x".repeat(length % 3), "€".repeat(1000));
        let text = encoded(
            r#"{"server": "udp://h", "max_message_bytes": 500}"#,
            &event(&whole),
        );
        assert!((498..=500).contains(&text.len()), "{} bytes", text.len());
        assert!(text.contains(&format!(" cut_from_bytes=\"{}\"]", whole.len())));
        assert!(text.ends_with('€'));
    }
}

#[test]
fn structured_data_is_never_cut() {
    let mut event = event("x");
    event.attributes.insert("a".into(), "y".repeat(500).into());
    let mut encoder = encoder(r#"{"server": "udp://h", "max_message_bytes": 500}"#);
    let unfit = encoder.encode(&event, &mut Vec::new()).unwrap_err();
    assert!(unfit.0.contains("max_message_bytes is 500"), "{unfit:?}");
}

#[test]
fn what_cannot_be_is_refused_by_key() {
    for (text, key) in [
        (r#"{"type": "syslog", "server": "h"}"#, "server"),
        (
            r#"{"type": "syslog", "server": "tcp://h", "tls": {"ca": "x"}}"#,
            "tls",
        ),
        (
            r#"{"type": "syslog", "server": "udp://h", "max_message_bytes": 70000}"#,
            "max_message_bytes",
        ),
        (
            r#"{"type": "syslog", "server": "tls://h", "tls": {"key": "x"}}"#,
            "tls.certificate",
        ),
    ] {
        let text = format!(r#"{{"destinations": {{"out": {text}}}}}"#);
        let config: crate::Config = serde_json::from_str(&text).unwrap();
        let error = config.validate().unwrap_err();
        assert_eq!(error.key, format!("destinations.out.{key}"), "{error}");
    }
}
