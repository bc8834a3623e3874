use async_nats::jetstream::Error as ServerError;
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use thinglog_schemas::{Event, EventId};

use super::encode::Message;
use super::*;
use crate::deliver::remote::Encoder;
use crate::deliver::remote::verdict::ItemVerdict;
use crate::testing::decoded;

fn encode(subject: &str, change: impl FnOnce(&mut Event)) -> Result<Vec<u8>, String> {
    let text = serde_json::json!({"servers": ["nats://h"], "subject": subject});
    let (mut encoder, _) = build(&serde_json::from_value(text).unwrap(), "bus").unwrap();
    let mut event = decoded("hello").events.remove(0);
    change(&mut event);
    let mut piece = Vec::new();
    let cost = encoder
        .encode(&event, &mut piece)
        .map_err(|unfit| unfit.0)?;
    assert!(cost >= piece.len());
    Ok(piece)
}

#[test]
fn a_message_has_its_subject_and_the_id_of_the_event() {
    let set = |event: &mut Event| event.id = EventId::Spooled { epoch: 1, seq: 2 };
    let piece = encode("logs.{{device}}.{{source}}", set).unwrap();
    let message = Message::of(&piece).unwrap();
    assert_eq!(message.subject, b"logs.lamp-7.app");
    assert_eq!(message.id, b"lamp-7/0000000000000001/2");
    assert!(message.payload.starts_with(b"{\"id\":\"lamp-7/"));
    let piece = encode("logs", |_| {}).unwrap();
    assert_eq!(Message::of(&piece).unwrap().id, b"");
}

#[test]
fn a_subject_that_nobody_can_publish_to_makes_a_dead_letter() {
    let error = encode("logs.{{attributes.room|url}}", |_| {}).unwrap_err();
    assert!(error.contains("\"logs.\""), "{error}");
    let set = |event: &mut Event| event.message = "x".repeat(3000);
    let error = encode("logs.{{message|url}}", set).unwrap_err();
    assert!(error.contains("3005 bytes"), "{error}");
    let set = |event: &mut Event| drop(event.attributes.insert("room".into(), "a *>b".into()));
    let piece = encode("logs.{{attributes.room|url}}", set).unwrap();
    assert_eq!(Message::of(&piece).unwrap().subject, b"logs.a%20%2A%3Eb");
}

#[test]
fn an_error_says_whether_a_message_is_tried_again() {
    let server = |code: u64| {
        let error = serde_json::json!({"code": 400, "err_code": code, "description": "no"});
        let error: ServerError = serde_json::from_value(error).unwrap();
        PublishError::with_source(PublishErrorKind::Other, error)
    };
    for code in [10_054, 10_097] {
        assert!(
            matches!(sink::refused(&server(code)), ItemVerdict::Refused(_)),
            "{code}"
        );
    }
    for code in [10_060, 10_077, 10_008] {
        assert!(
            matches!(sink::refused(&server(code)), ItemVerdict::Retry(_)),
            "{code}"
        );
    }
    let too_large = PublishError::new(PublishErrorKind::MaxPayloadExceeded);
    assert!(matches!(sink::refused(&too_large), ItemVerdict::Refused(_)));
    let no_stream = PublishError::new(PublishErrorKind::StreamNotFound);
    assert!(matches!(sink::refused(&no_stream), ItemVerdict::Retry(_)));
}

#[test]
fn what_cannot_be_is_refused_by_key() {
    for (text, key) in [
        (r#"{"servers": [], "subject": "a"}"#, "servers"),
        (r#"{"servers": ["h"], "subject": "a"}"#, "servers"),
        (
            r#"{"servers": ["nats://h", "tls://h"], "subject": "a"}"#,
            "servers",
        ),
        (r#"{"servers": ["nats://h"], "subject": "a.>"}"#, "subject"),
        (
            r#"{"servers": ["nats://h"], "subject": "$JS.API"}"#,
            "subject",
        ),
        (
            r#"{"servers": ["nats://h"], "subject": "{{message}}"}"#,
            "subject",
        ),
        (
            r#"{"servers": ["nats://h"], "subject": "a", "tls": {"ca": "x"}}"#,
            "tls",
        ),
        (
            r#"{"servers": ["nats://h"], "subject": "a", "username": "u", "password": "p", "token": "t"}"#,
            "username",
        ),
    ] {
        let mut value: serde_json::Value = serde_json::from_str(text).unwrap();
        value["type"] = "nats".into();
        let value = serde_json::json!({"destinations": {"bus": value}});
        let config: crate::Config = serde_json::from_value(value).unwrap();
        let error = config.validate().unwrap_err();
        assert_eq!(error.key, format!("destinations.bus.{key}"), "{error}");
    }
}
