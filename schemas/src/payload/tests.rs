use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::batch::{Batch, ClockInfo, Drop, DropReason, Encoder, Entry};

const RECEIVED: u64 = 1_767_323_045_000_000_000;

fn stamp() -> Stamp {
    Stamp {
        stored: Some((0xab, 42)),
        received: RECEIVED,
        ..Stamp::default()
    }
}

fn decode_from(source: &str, payload: &[u8]) -> Result<Decoded, PayloadError> {
    PayloadDecoder::new().decode(&"lamp-7".into(), &source.into(), payload, &stamp())
}

fn events(payload: impl AsRef<[u8]>) -> Vec<Event> {
    let decoded = decode_from("app", payload.as_ref()).unwrap();
    assert_eq!(decoded.lane, None);
    decoded.events
}

fn one(payload: impl AsRef<[u8]>) -> Event {
    let events = events(payload);
    assert_eq!(events.len(), 1);
    events.into_iter().next().unwrap()
}

fn messages(payload: impl AsRef<[u8]>) -> Vec<String> {
    events(payload)
        .into_iter()
        .map(|event| event.message)
        .collect()
}

#[test]
fn plain_text_is_an_info_event_a_line() {
    let events = events("first\r\n\n  second\t\n \nthird");
    let found: Vec<_> = events.iter().map(|event| event.message.as_str()).collect();
    assert_eq!(found, ["first", "  second\t", "third"]);
    for (index, event) in (0u32..).zip(&events) {
        assert_eq!((&*event.device, &*event.source), ("lamp-7", "app"));
        assert_eq!(
            event.id,
            EventId::Stored {
                journal: 0xab,
                offset: 42,
                index
            }
        );
        assert_eq!(event.severity, Severity::INFO);
        assert_eq!((event.time, event.received), (RECEIVED, RECEIVED));
        assert!(!event.time_estimated && !event.truncated && event.attributes.is_empty());
    }
}

#[test]
fn an_empty_payload_has_no_events() {
    for payload in ["", "\n", " \r\n\t\n", "[]", "\u{feff}"] {
        assert_eq!(events(payload), [], "{payload:?}");
    }
}

#[test]
fn an_object_becomes_an_event_with_its_known_keys_taken() {
    let event = one(
        r#"{"ts":"2026-01-02T05:04:05+02:00","level":"warn","msg":"hot \"bulb\"","temp":81.5,"at":{"room":3}}"#,
    );
    assert_eq!(event.time, RECEIVED);
    assert_eq!(event.severity, Severity::WARN);
    assert_eq!(event.message, "hot \"bulb\"");
    assert_eq!(
        Value::Object(event.attributes),
        json!({"temp": 81.5, "at": {"room": 3}})
    );
}

#[test]
fn every_spelling_of_the_known_keys_is_taken() {
    for key in ["time", "ts", "timestamp", "@timestamp"] {
        assert_eq!(
            one(format!(r#"{{"{key}":1767323046}}"#)).time,
            RECEIVED + 1_000_000_000,
            "{key}"
        );
    }
    for key in ["level", "severity", "lvl"] {
        assert_eq!(
            one(format!(r#"{{"{key}":"ERROR"}}"#)).severity,
            Severity::ERROR,
            "{key}"
        );
    }
    for key in ["message", "msg", "log"] {
        assert_eq!(one(format!(r#"{{"{key}":"hi"}}"#)).message, "hi", "{key}");
    }
}

#[test]
fn epoch_numbers_tell_their_unit_by_magnitude() {
    let second = 1_000_000_000;
    let cases = [
        ("1767323046", RECEIVED + second),
        ("1767323046.25", RECEIVED + second + 250_000_000),
        ("\"1767323046.25\"", RECEIVED + second + 250_000_000),
        ("1767323046250", RECEIVED + second + 250_000_000),
        ("\"1767323046250\"", RECEIVED + second + 250_000_000),
        ("1767323046250.5", RECEIVED + second + 250_500_000),
        ("1767323046250001", RECEIVED + second + 250_001_000),
        ("1767323046250001002", RECEIVED + second + 250_001_002),
    ];
    for (number, expected) in cases {
        let event = one(format!(r#"{{"time":{number}}}"#));
        assert_eq!(event.time, expected, "{number}");
        assert!(event.attributes.is_empty(), "{number}");
    }
}

#[test]
fn what_is_no_time_stays_an_attribute() {
    for value in [
        r#""yesterday""#,
        "12.5",
        "-1",
        "0",
        "null",
        "true",
        r#"[1]"#,
        r#""""#,
        "1e300",
        r#""…………………………""#,
    ] {
        let event = one(format!(r#"{{"time":{value}}}"#));
        assert_eq!(event.time, RECEIVED, "{value}");
        assert_eq!(
            event.attributes["time"],
            serde_json::from_str::<Value>(value).unwrap()
        );
    }
}

#[test]
fn level_numbers_are_opentelemetrys_or_pythons() {
    let cases = [
        ("1", 1),
        ("9", 9),
        ("17", 17),
        ("24", 24),
        ("10", 5),
        ("20", 9),
        ("30", 13),
        ("40", 17),
        ("50", 21),
        ("35", 13),
        ("\"40\"", 17),
    ];
    for (level, number) in cases {
        let event = one(format!(r#"{{"level":{level}}}"#));
        assert_eq!(event.severity.number(), number, "{level}");
        assert!(event.attributes.is_empty(), "{level}");
    }
}

#[test]
fn an_unknown_level_is_info_and_stays_an_attribute() {
    for value in [r#""loud""#, "0", "101", "-3", "1.5", "null", "[]"] {
        let event = one(format!(r#"{{"level":{value}}}"#));
        assert_eq!(event.severity, Severity::INFO, "{value}");
        assert_eq!(
            event.attributes["level"],
            serde_json::from_str::<Value>(value).unwrap()
        );
    }
}

#[test]
fn the_first_readable_key_of_a_kind_counts_and_the_others_stay() {
    let event = one(
        r#"{"time":"later","ts":1767323046,"timestamp":5,"msg":"a","message":"b","lvl":"x","level":"debug"}"#,
    );
    assert_eq!(event.time, RECEIVED + 1_000_000_000);
    assert_eq!(
        (event.message.as_str(), event.severity),
        ("a", Severity::DEBUG)
    );
    let expected = json!({"time": "later", "timestamp": 5, "message": "b", "lvl": "x"});
    assert_eq!(Value::Object(event.attributes), expected);
}

#[test]
fn a_message_that_is_no_string_is_its_json_text() {
    for (value, expected) in [
        ("5", "5"),
        ("null", ""),
        ("true", "true"),
        (r#"{"a":[1,"x"]}"#, r#"{"a":[1,"x"]}"#),
    ] {
        assert_eq!(one(format!(r#"{{"msg":{value}}}"#)).message, expected);
    }
    assert_eq!(one(r#"{"a":1}"#).message, "");
}

#[test]
fn arrays_and_ndjson_give_an_event_each() {
    let array = events(r#" [{"msg":"a"}, "b", 5, {"msg":"c","level":"error"}, [1, 2]] "#);
    let found: Vec<_> = array.iter().map(|event| event.message.as_str()).collect();
    assert_eq!(found, ["a", "b", "5", "c", "[1,2]"]);
    assert_eq!(array[3].severity, Severity::ERROR);
    assert_eq!(
        array[4].id,
        EventId::Stored {
            journal: 0xab,
            offset: 42,
            index: 4
        }
    );
    assert_eq!(
        messages("{\"msg\":\"a\"}\r\n\n{\"msg\":\"b\"}\n\"c\"\n"),
        ["a", "b", "c"]
    );
    assert_eq!(messages("{\n  \"msg\": \"pretty\"\n}\n"), ["pretty"]);
    assert_eq!(messages("\u{feff}{\"msg\":\"bom\"}"), ["bom"]);
}

#[test]
fn what_does_not_parse_to_its_end_is_plain_text() {
    assert_eq!(messages("{oops"), ["{oops"]);
    assert_eq!(
        messages("[error] disk full\n[info] retry"),
        ["[error] disk full", "[info] retry"]
    );
    let broken = "{\"msg\":\"a\"}\n{\"msg\":\n{\"msg\":\"c\"}";
    assert_eq!(messages(broken), broken.lines().collect::<Vec<_>>());
    assert_eq!(
        messages(r#"{"msg":"a"} and more"#),
        [r#"{"msg":"a"} and more"#]
    );
    let deep = "[".repeat(5000);
    assert_eq!(messages(&deep), [deep]);
}

#[test]
fn bytes_that_are_no_text_are_refused_with_the_place() {
    assert_eq!(
        decode_from("app", b"ab\xC0\xFF"),
        Err(PayloadError::NotText { at: 2, byte: 0xC0 })
    );
    let error = decode_from("app", b"ab\xC0\xFF").unwrap_err().to_string();
    assert_eq!(error, "neither batch, JSON nor UTF-8 text: byte 2 is 0xc0");
    assert_eq!(
        decode_from("app", b"{\"msg\":\"\xF0\x9F\"}"),
        Err(PayloadError::NotText { at: 8, byte: 0xF0 })
    );
    let batch = decode_from("app", b"\xFFtlg\x07");
    assert_eq!(
        batch,
        Err(PayloadError::Batch(batch::DecodeError::Version(7)))
    );
}

#[test]
fn limits_are_enforced() {
    let large = vec![b'x'; batch::MAX_PAYLOAD + 1];
    assert_eq!(
        decode_from("app", &large),
        Err(PayloadError::TooLarge(batch::MAX_PAYLOAD + 1))
    );
    let lines = "x\n".repeat(batch::MAX_EVENTS);
    assert_eq!(events(&lines).len(), batch::MAX_EVENTS);
    let over = Err(PayloadError::TooManyEvents(batch::MAX_EVENTS + 5));
    assert_eq!(
        decode_from("app", (lines + &"x\n".repeat(5)).as_bytes()),
        over
    );
    let array = format!("[{}0]", "0,".repeat(batch::MAX_EVENTS + 4));
    assert_eq!(decode_from("app", array.as_bytes()), over);
    let ndjson = "{}\n".repeat(batch::MAX_EVENTS + 5);
    assert_eq!(decode_from("app", ndjson.as_bytes()), over);
}

#[test]
fn a_long_message_is_cut_and_flagged() {
    let long = "é".repeat(limits::MAX_MESSAGE / 2 + 1);
    for payload in [
        long.clone(),
        format!(r#"{{"msg":"{long}"}}"#),
        format!(r#"{{"msg":"\u00e9{long}"}}"#),
    ] {
        let event = one(payload);
        assert!(event.truncated && event.message.len() == limits::MAX_MESSAGE);
    }
}

#[test]
fn excess_attributes_are_counted() {
    let keys: Vec<_> = (0..200).map(|n| format!(r#""k{n:03}":{n}"#)).collect();
    let event = one(format!("{{{}}}", keys.join(",")));
    assert_eq!(event.attributes.len(), limits::MAX_ATTRIBUTES);
    assert_eq!(event.attributes[limits::DROPPED_ATTRIBUTES], json!(73));
}

#[test]
fn without_a_stamp_events_have_no_id() {
    let stamp = Stamp {
        received: RECEIVED,
        ..Stamp::default()
    };
    let decoded = PayloadDecoder::new()
        .decode(&"a".into(), &"b".into(), b"x", &stamp)
        .unwrap();
    assert_eq!(decoded.events[0].id, EventId::None);
}

#[test]
fn gap_events_keep_their_id_when_they_come_from_thinglog_only() {
    let gap = EventId::Gap {
        epoch: 0xab,
        from: 5,
        to: 9,
    };
    let payload = format!(r#"{{"id":"{}","msg":"lost"}}"#, gap.text("").unwrap());
    let own = decode_from("thinglog", payload.as_bytes())
        .unwrap()
        .events
        .remove(0);
    assert_eq!(own.id, gap);
    assert!(own.attributes.is_empty());
    let other = one(&payload);
    assert_eq!(
        other.id,
        EventId::Stored {
            journal: 0xab,
            offset: 42,
            index: 0
        }
    );
    assert_eq!(other.attributes["id"], json!(gap.text("").unwrap()));
    let id = br#"{"id":"lamp-7/00000000000000ab/7"}"#;
    let own = decode_from("thinglog", id).unwrap().events.remove(0);
    assert_eq!(
        own.id,
        EventId::Stored {
            journal: 0xab,
            offset: 42,
            index: 0
        }
    );
}

fn batch_of(synced: bool) -> Batch {
    let entry = |seq, time| Entry {
        seq,
        time,
        severity: Severity::ERROR,
        message: format!("m{seq}"),
        truncated: seq == 8,
        attributes: Attributes::new(),
    };
    let (severity, reason) = (Severity::DEBUG, DropReason::Expired);
    Batch {
        epoch: 0xcd,
        first_seq: 5,
        clock: ClockInfo {
            boot: 1,
            sent_mono: 10_000,
            synced,
        },
        drops: vec![Drop {
            from: 5,
            to: 6,
            count: 2,
            severity,
            reason,
        }],
        entries: vec![entry(7, 4_000), entry(8, 11_000)],
    }
}

fn decode_batch(batch: &Batch) -> Decoded {
    let mut payload = Vec::new();
    Encoder::new().encode(batch, &mut payload).unwrap();
    decode_from("app", &payload).unwrap()
}

#[test]
fn a_batch_gives_its_events_and_what_it_speaks_for() {
    let batch = batch_of(true);
    let decoded = decode_batch(&batch);
    let lane = Lane {
        epoch: 0xcd,
        first_seq: 5,
        last_seq: 8,
        drops: batch.drops,
    };
    assert_eq!(decoded.lane, Some(lane));
    let [first, second] = &decoded.events[..] else {
        panic!("{decoded:?}")
    };
    assert_eq!(
        first.id,
        EventId::Spooled {
            epoch: 0xcd,
            seq: 7
        }
    );
    assert_eq!(
        (first.time, first.time_estimated, first.received),
        (4_000, false, RECEIVED)
    );
    assert_eq!(
        (first.message.as_str(), first.severity),
        ("m7", Severity::ERROR)
    );
    assert!(second.truncated && !first.truncated);
}

#[test]
fn unsynced_times_are_estimated_from_the_brokers_clock() {
    let decoded = decode_batch(&batch_of(false));
    let times: Vec<_> = decoded
        .events
        .iter()
        .map(|event| (event.time, event.time_estimated))
        .collect();
    assert_eq!(
        times,
        [(RECEIVED - 6_000, true), (RECEIVED, true)],
        "never after it was received"
    );
}

proptest! {
    #[test]
    fn any_payload_is_events_or_a_reason(bytes in prop::collection::vec(any::<u8>(), 0..200), text in any::<String>()) {
        for payload in [&bytes[..], text.as_bytes()] {
            if let Ok(decoded) = decode_from("app", payload) {
                prop_assert!(decoded.events.len() <= payload.len());
            }
        }
    }

    #[test]
    fn json_never_loses_what_was_sent(value in crate::arbitrary::values(), key in "[a-z@]{1,9}") {
        let event = one(json!({ key.clone(): value }).to_string());
        let taken = ["time", "ts", "timestamp", "@timestamp", "level", "severity", "lvl", "message", "msg", "log"];
        if !taken.contains(&key.as_str()) {
            prop_assert_eq!(&event.attributes[&key], &value);
        }
    }

    #[test]
    fn text_keeps_every_line(lines in prop::collection::vec("[a-z ]{0,5}[a-z]", 1..20), crlf in any::<bool>()) {
        let payload = lines.join(if crlf { "\r\n" } else { "\n" });
        prop_assert_eq!(messages(payload), lines);
    }
}
