use serde_json::{Value, json};
use thinglog_schemas::{Event, EventId};

use super::encode::RowEncoder;
use super::sink::{token, verdict};
use super::table;
use crate::deliver::remote::request::Request;
use crate::deliver::remote::verdict::Verdict;
use crate::deliver::remote::{Encoder, Unfit};
use crate::destinations::http::{Answer, HeaderMap};
use crate::testing::decoded;

fn row(change: impl FnOnce(&mut Event)) -> Result<String, Unfit> {
    let mut event = decoded("hello").events.remove(0);
    change(&mut event);
    let mut out = Vec::new();
    let cost = RowEncoder::default().encode(&event, &mut out)?;
    assert_eq!(cost, out.len());
    Ok(String::from_utf8(out).unwrap())
}

#[test]
fn a_row_has_every_column_and_attributes_are_texts() {
    let text = row(|event| {
        event.id = EventId::Spooled { epoch: 1, seq: 2 };
        event.time = 1_767_323_045_123_456_789;
        event.attributes.insert("a\"".into(), json!("x\0"));
        event.attributes.insert("n".into(), json!([1, {"b": null}]));
    });
    let text = text.unwrap();
    assert!(text.ends_with("}\n") && text.matches('\n').count() == 1);
    let value: Value = serde_json::from_str(&text).unwrap();
    let expected = json!({
        "id": "lamp-7/0000000000000001/2",
        "time": "2026-01-02T03:04:05.123456789Z",
        "received": "1970-01-01T00:00:00.000000000Z",
        "severity": 9,
        "device": "lamp-7",
        "source": "app",
        "level": "INFO",
        "message": "hello",
        "attributes": {"a\"": "x\0", "n": "[1,{\"b\":null}]"},
        "time_estimated": false,
        "truncated": false,
    });
    assert_eq!(value, expected);
    let mut columns: Vec<&str> = table::COLUMNS.split(", ").collect();
    columns.sort_unstable();
    let mut keys: Vec<&String> = value.as_object().unwrap().keys().collect();
    keys.sort_unstable();
    assert_eq!(keys, columns);
}

#[test]
fn a_time_that_the_column_has_not_is_a_dead_letter() {
    assert!(row(|event| event.time = i64::MAX as u64).is_ok());
    let error = row(|event| event.time = i64::MAX as u64 + 1).unwrap_err();
    assert!(error.0.contains("2262"), "{error:?}");
}

#[test]
fn a_token_is_the_same_for_the_same_rows_only() {
    assert_eq!(token(b"a\n"), token(b"a\n"));
    assert_ne!(token(b"a\n"), token(b"a\nb\n"));
    assert_eq!(token(b"").len(), 64);
}

#[test]
fn a_code_says_whether_an_error_lies_with_the_rows() {
    let said = |status: u16, code: Option<&str>| {
        let mut headers = HeaderMap::new();
        if let Some(code) = code {
            headers.insert("x-clickhouse-exception-code", code.parse().unwrap());
        }
        let body = b"Code: no".to_vec();
        let answer = Answer {
            status,
            headers,
            body,
        };
        verdict(&Request::new(""), &answer)
    };
    for code in ["27", "41", "117", "469"] {
        let verdict = said(400, Some(code));
        assert!(matches!(verdict, Verdict::Refused { .. }), "{code}");
    }
    // TOO_MANY_PARTS, MEMORY_LIMIT_EXCEEDED, UNKNOWN_TABLE, AUTHENTICATION_FAILED, ACCESS_DENIED,
    // KEEPER_EXCEPTION, NO_SUCH_COLUMN_IN_TABLE.
    for code in ["252", "241", "60", "516", "497", "999", "16"] {
        let verdict = said(400, Some(code));
        assert!(matches!(verdict, Verdict::Retry { .. }), "{code}");
    }
    assert_eq!(said(200, None), Verdict::Accepted);
    assert!(matches!(said(413, None), Verdict::Refused { .. }));
    assert!(matches!(said(502, None), Verdict::Retry { .. }));
}

#[test]
fn what_cannot_be_is_refused_by_key() {
    for (changes, key) in [
        (json!({"url": "clickhouse://h"}), "url"),
        (json!({"url": "http://h/?user=u"}), "url"),
        (json!({"database": "a.b"}), "database"),
        (json!({"table": "a`b"}), "table"),
        (json!({"engine": "Log"}), "engine"),
        (json!({"engine": "MergeTree; DROP TABLE x"}), "engine"),
        (json!({"engine": "MergeTree) AS SELECT (1)"}), "engine"),
        (json!({"http": {"username": "u"}}), "http.username"),
    ] {
        let mut value = json!({"type": "clickhouse", "url": "http://h:8123"});
        for (key, change) in changes.as_object().unwrap() {
            value[key] = change.clone();
        }
        let value = json!({"destinations": {"db": value}});
        let config: crate::Config = serde_json::from_value(value).unwrap();
        let error = config.validate().unwrap_err();
        assert_eq!(error.key, format!("destinations.db.{key}"), "{changes}");
    }
    let engine = "ReplicatedReplacingMergeTree('/clickhouse/{shard}/t', '{replica}')";
    let value = json!({"type": "clickhouse", "url": "http://h:8123", "engine": engine});
    let value = json!({"destinations": {"db": value}});
    let config: crate::Config = serde_json::from_value(value).unwrap();
    assert_eq!(config.validate(), Ok(()));
}
