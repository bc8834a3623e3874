use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::arbitrary::{attributes, severities, texts};

fn ids() -> impl Strategy<Value = EventId> {
    prop_oneof![
        Just(EventId::None),
        any::<(u64, u64)>().prop_map(|(epoch, seq)| EventId::Spooled { epoch, seq }),
        any::<(u64, u64, u32)>().prop_map(|(journal, offset, index)| EventId::Stored {
            journal,
            offset,
            index
        }),
        any::<(u64, u64, u64)>().prop_map(|(epoch, a, b)| EventId::Gap {
            epoch,
            from: a.min(b),
            to: a.max(b)
        }),
    ]
}

fn events() -> impl Strategy<Value = Event> {
    let names = ("[A-Za-z0-9._:-]{1,20}", "[A-Za-z0-9._:-]{1,20}");
    let flags = any::<(u64, u64, bool, bool)>();
    (names, ids(), flags, severities(), texts(), attributes()).prop_map(
        |((device, source), id, flags, severity, message, attributes)| Event {
            device: device.into(),
            source: source.into(),
            id,
            time: flags.0,
            received: flags.1,
            time_estimated: flags.2,
            truncated: flags.3,
            severity,
            message,
            attributes,
        },
    )
}

proptest! {
    #[test]
    fn what_is_written_is_one_line_of_json_and_reads_back(event in events()) {
        let mut out = Vec::new();
        write(&event, &mut out);
        prop_assert!(!out.contains(&b'\n') && !out.contains(&b'\r'));
        prop_assert!(serde_json::from_slice::<Value>(&out).is_ok());
        prop_assert_eq!(read(&out).unwrap(), event);
    }
}

fn event() -> Event {
    Event {
        device: "lamp-7".into(),
        source: "app".into(),
        id: EventId::Spooled {
            epoch: 0xab,
            seq: 7,
        },
        time: 1_767_323_045_123_456_789,
        time_estimated: false,
        severity: Severity::WARN,
        message: "bulb \"2\" is\thot\n".into(),
        truncated: false,
        attributes: Attributes::new(),
        received: 1_767_323_046_000_000_000,
    }
}

fn line(event: &Event) -> String {
    let mut out = Vec::new();
    write(event, &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn the_form_is_as_documented() {
    let expected = r#"{"id":"lamp-7/00000000000000ab/7","time":"2026-01-02T03:04:05.123456789Z","received":"2026-01-02T03:04:06.000000000Z","device":"lamp-7","source":"app","level":"WARN","severity":13,"message":"bulb \"2\" is\thot\n"}"#;
    assert_eq!(line(&event()), expected);
}

#[test]
fn optional_keys_are_written_only_when_they_say_something() {
    let mut event = event();
    event.id = EventId::None;
    event.time_estimated = true;
    event.truncated = true;
    event
        .attributes
        .insert("unit".into(), json!({"a": [1, -2, 0.5, null, true, "x"]}));
    let line = line(&event);
    assert!(line.starts_with(r#"{"time":"#), "{line}");
    let tail = r#","attributes":{"unit":{"a":[1,-2,0.5,null,true,"x"]}},"time_estimated":true,"truncated":true}"#;
    assert!(line.ends_with(tail), "{line}");
}

#[test]
fn a_line_that_is_no_event_says_why() {
    let good = line(&event());
    let cases = [
        (good.replace("lamp-7/0", "lamp-8/0"), "not one of device"),
        (
            good.replace("\"severity\":13", "\"severity\":25"),
            "not 1-24",
        ),
        (
            good.replace("2026-01-02T03:04:05.123456789Z", "now"),
            "RFC 3339",
        ),
        (good.replace("\"message\"", "\"massage\""), "message"),
        (String::from("hello"), "expected"),
    ];
    for (line, reason) in cases {
        let error = read(line.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
}
