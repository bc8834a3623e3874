//! What `apply` takes, refuses and reports.

use super::*;

#[test]
fn apply_says_whose_level_may_have_changed() {
    let mut fleet = Fleet::new();
    let device = || Affected::Device("lamp".into());
    let group = || Affected::Group("a".into());
    let until = r#"{"level":"DEBUG","until":"2026-01-02T12:00:00Z"}"#;
    let cases = [
        ("default", r#"{"level":"WARN"}"#, Affected::Everybody),
        ("source/nginx", r#"{"level":"WARN"}"#, Affected::Everybody),
        (
            "principal/alice",
            r#"{"level":"WARN"}"#,
            Affected::Everybody,
        ),
        ("source-ip/::1", r#"{"level":"WARN"}"#, Affected::Everybody),
        ("device/lamp", r#"{"level":"WARN"}"#, device()),
        ("group/a", r#"{"level":"WARN"}"#, group()),
        ("member/a/lamp", "{}", device()),
        ("override/default", until, Affected::Everybody),
        ("override/group/a", until, group()),
        ("override/device/lamp", until, device()),
    ];
    for (topic, document, affected) in &cases {
        let generation = fleet.generation();
        assert_eq!(
            apply(&mut fleet, topic, document).as_ref(),
            Ok(affected),
            "{topic}"
        );
        assert_eq!(fleet.generation(), generation + 1, "{topic}");
        assert_eq!(
            apply(&mut fleet, topic, document),
            Ok(Affected::Nobody),
            "{topic} again"
        );
        assert_eq!(fleet.generation(), generation + 1, "{topic}");
    }
    for (topic, _, affected) in &cases {
        assert_eq!(
            apply(&mut fleet, topic, "").as_ref(),
            Ok(affected),
            "{topic} removed"
        );
        assert_eq!(
            apply(&mut fleet, topic, ""),
            Ok(Affected::Nobody),
            "{topic} removed again"
        );
    }
    assert_eq!(fleet.resolve(&who("lamp")).level("nginx", 0), Level::Info);
    assert_eq!(fleet.named_devices(), [""; 0]);
}

#[test]
fn bad_documents_are_refused_with_field_and_reason() {
    let cases = [
        ("device/lamp", r#"{"levl": "WARN"}"#, "unknown field `levl`"),
        (
            "device/lamp",
            r#"{"level": "LOUD"}"#,
            "unknown level \"LOUD\"",
        ),
        ("device/lamp", r#"{"level": "WARN""#, "EOF"),
        ("device/lamp", "WARN", "not a JSON object"),
        ("device/lamp", r#"["ERROR"]"#, "not a JSON object"),
        (
            "device/lamp",
            r#"{"disabled": true}"#,
            "`disabled` is for config/default",
        ),
        (
            "device/lamp",
            r#"{"parent": "a"}"#,
            "`parent` is for config/group",
        ),
        (
            "device/lamp",
            r#"{"sources": {"my app": "WARN"}}"#,
            "my%20app",
        ),
        (
            "device/lamp",
            r#"{"upload": {"flush": 1}}"#,
            "unknown field `flush`",
        ),
        (
            "device/lamp",
            r#"{"upload": {"batch_events": 70000}}"#,
            "upload.batch_events",
        ),
        (
            "device/lamp",
            r#"{"upload": {"flush_ms": 0}}"#,
            "upload.flush_ms",
        ),
        (
            "device/lamp",
            r#"{"upload": {"mode": "daily"}}"#,
            "unknown variant `daily`, expected one of `realtime`, `interval`",
        ),
        (
            "device/lamp",
            r#"{"upload": {"interval_s": 2592001}}"#,
            "`upload.interval_s` is 2592001, it must be 1 to 2592000",
        ),
        (
            "device/lamp",
            r#"{"upload": {"at": ["2:00"]}}"#,
            "\"2:00\" is no time of day (UTC) such as 02:00",
        ),
        (
            "device/lamp",
            r#"{"upload": {"at": []}}"#,
            "`upload.at` has 0 times of day",
        ),
        (
            "device/lamp",
            r#"{"upload": {"ring_bytes": 0}}"#,
            "upload.ring_bytes",
        ),
        (
            "device/lamp",
            r#"{"upload": {"after_s": 3601}}"#,
            "upload.after_s",
        ),
        (
            "device/lamp",
            r#"{"limits": {"spool_bytes": 0}}"#,
            "limits.spool_bytes",
        ),
        (
            "default",
            r#"{"query": "model = \"x1\""}"#,
            "`query` is for config/group",
        ),
        (
            "default",
            r#"{"by": "a\u0000"}"#,
            "`by` has control characters",
        ),
        (
            "device/lamp",
            r#"{"at": "noon"}"#,
            "`at` \"noon\" is no RFC 3339 time",
        ),
        (
            "device/lamp",
            r#"{"role": "x"}"#,
            "`role` is for config/default",
        ),
        ("group/a", r#"{"type": "x"}"#, "`type` is for config/device"),
        (
            "source/a",
            r#"{"attributes": {"a": "b"}}"#,
            "`attributes` is for",
        ),
        (
            "device/lamp",
            r#"{"attributes": {"": "b"}}"#,
            "no name of an attribute",
        ),
        (
            "device/lamp",
            r#"{"upload": {"flush_ms": 1}, "env": {"THINGLOG_FLUSH": "1s"}}"#,
            "are one setting",
        ),
        (
            "group/a",
            r#"{"query": "model = \"x1\""}"#,
            "dynamic groups are not supported",
        ),
        ("group/a.b", r#"{}"#, "no group name"),
        ("group/a", r#"{"parent": "a b"}"#, "no group name"),
        (
            "source/nginx",
            r#"{"sources": {}, "upload": {}}"#,
            "`upload` is for",
        ),
        (
            "source/nginx",
            r#"{"sources": {"a": "WARN"}}"#,
            "single source",
        ),
        ("principal/alice", r#"{"limits": {}}"#, "`limits` is for"),
        ("source-ip/lamp", r#"{"level": "WARN"}"#, "no IP address"),
        (
            "member/a/lamp",
            r#"{"level": "WARN"}"#,
            "unknown field `level`",
        ),
        (
            "override/device/lamp",
            r#"{"level": "WARN"}"#,
            "missing field `until`",
        ),
        (
            "override/device/lamp",
            r#"{"level": "WARN", "until": "tomorrow"}"#,
            "RFC 3339",
        ),
        (
            "override/group/a.b",
            r#"{"level": "WARN", "until": "2026-01-02T12:00:00Z"}"#,
            "no group name",
        ),
    ];
    for (topic, document, reason) in cases {
        let error = refused(&[], topic, document);
        assert!(error.contains(reason), "{topic} {document}: {error}");
    }
    let many: Vec<_> = (0..1001).map(|n| format!(r#""s{n}":"WARN""#)).collect();
    let error = refused(
        &[],
        "device/lamp",
        &format!(r#"{{"sources": {{{}}}}}"#, many.join(",")),
    );
    assert!(error.contains("at most 1000"), "{error}");
}

#[test]
fn a_bad_document_leaves_the_last_good_one() {
    let good = ("device/lamp", r#"{"level": "ERROR"}"#);
    refused(&[good], "device/lamp", r#"{"level": "LOUD"}"#);
    assert_eq!(level(&[good]), Level::Error);
}
