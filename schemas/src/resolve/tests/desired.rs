//! What devices are told.

use super::*;
use crate::config::{Desired, SCHEMA, Upload};

#[test]
fn desired_is_what_the_device_shall_do() {
    let fleet = fleet(&[
        (
            "default",
            r#"{"level":"WARN","upload":{"flush_ms":500,"batch_events":100},"limits":{"spool_bytes":1000}}"#,
        ),
        ("group/a", r#"{"upload":{"flush_ms":900}}"#),
        ("member/a/lamp", "{}"),
        (
            "device/lamp",
            r#"{"sources":{"nginx":"DEBUG","cron":"WARN"},"upload":{"batch_events":7}}"#,
        ),
        ("source/sshd", r#"{"level":"ERROR"}"#),
        (
            "override/device/lamp",
            r#"{"level":"DEBUG","sources":{"sshd":"INFO"},"until":"2026-01-02T12:00:00Z"}"#,
        ),
    ]);
    let desired = fleet.desired("lamp", noon() - 1_500_000_000);
    let json = serde_json::to_value(&desired).unwrap();
    let expected = serde_json::json!({
        "schema": 1,
        "revision": desired.revision,
        "level": "WARN",
        "sources": {"nginx": "DEBUG", "sshd": "ERROR"},
        "override": {"level": "DEBUG", "sources": {"sshd": "INFO"}, "until": NOON, "for_s": 2},
        "upload": {"flush_ms": 900, "batch_events": 7},
        "limits": {"spool_bytes": 1000},
    });
    assert_eq!(json, expected);
    assert_eq!(serde_json::from_value::<Desired>(json).unwrap(), desired);
    assert_eq!(desired.level_for("sshd", true, Level::Info), Level::Info);
    assert_eq!(desired.level_for("sshd", false, Level::Info), Level::Error);
    assert_eq!(desired.level_for("other", true, Level::Info), Level::Debug);
    assert_eq!(fleet.desired("lamp", noon()).temporary, None);
}

#[test]
fn a_revision_stands_for_the_content() {
    let documents = [(
        "override/device/lamp",
        r#"{"level":"DEBUG","until":"2026-01-02T12:00:00Z"}"#,
    )];
    let mut fleet = fleet(&documents);
    let early = fleet.desired("lamp", noon() - 60_000_000_000);
    let late = fleet.desired("lamp", noon() - 1);
    assert_eq!(
        early.revision, late.revision,
        "the remaining time is no content"
    );
    assert_ne!(early.temporary, late.temporary);
    let ended = fleet.desired("lamp", noon());
    assert_ne!(ended.revision, late.revision);
    assert_eq!(ended.revision, Fleet::new().desired("door", 0).revision);
    apply(&mut fleet, "device/lamp", r#"{"level":"INFO"}"#).unwrap();
    let said = fleet.desired("lamp", noon());
    assert!(said.level == ended.level && ended.unset && !said.unset);
    assert_eq!((said.schema, ended.schema), (1, SCHEMA));
    apply(&mut fleet, "device/lamp", "").unwrap();
    apply(&mut fleet, "default", r#"{"level":"INFO"}"#).unwrap();
    assert_eq!(
        fleet.desired("lamp", noon()).revision,
        said.revision,
        "it says the same"
    );
    // A change of this value would rewrite the configuration of every device of every fleet.
    assert_eq!(said.revision, "a8292e0fa9135e11");
    assert_eq!(ended.revision, "b2ce35130ca81d91");
}

#[test]
fn where_nobody_says_a_level_the_document_says_so_and_what_was_said_of_sources() {
    let documents = [("source/sshd", r#"{"level":"INFO"}"#)];
    let desired = fleet(&documents).desired("lamp", noon());
    assert!(desired.unset);
    let level = |source| desired.level_for(source, false, Level::Error);
    assert_eq!((level("sshd"), level("cron")), (Level::Info, Level::Error));
    assert_eq!(desired.level_for("cron", false, Level::Debug), Level::Info);
}

#[test]
fn settings_come_field_by_field_from_the_nearest_document_that_has_them() {
    let fleet = fleet(&[
        (
            "default",
            r#"{"upload":{"mode":"schedule","at":["02:00","14:30:10"],"spread_s":600},
                "limits":{"persistent":true,"spool_bytes":1000}}"#,
        ),
        (
            "group/a",
            r#"{"upload":{"mode":"on-error","ring_bytes":65536}}"#,
        ),
        ("member/a/lamp", "{}"),
        (
            "device/lamp",
            r#"{"upload":{"after_s":5},"limits":{"persistent":false}}"#,
        ),
    ]);
    let desired = serde_json::to_value(fleet.desired("lamp", 0)).unwrap();
    let upload = serde_json::json!({"mode": "on-error", "at": ["02:00", "14:30:10"],
        "spread_s": 600, "ring_bytes": 65536, "after_s": 5});
    assert_eq!(desired["upload"], upload);
    let limits = serde_json::json!({"spool_bytes": 1000, "persistent": false});
    assert_eq!(desired["limits"], limits);
}

#[test]
fn an_older_device_leaves_out_what_it_does_not_know() {
    let newer = r#"{"schema":2,"revision":"1","level":"WARN","colour":"red",
        "upload":{"mode":"telepathy","flush_ms":500,"thoughts":7,"at":["25:00"]},
        "limits":{"spool_bytes":-1,"persistent":true}}"#;
    let desired: Desired = serde_json::from_str(newer).unwrap();
    assert_eq!(desired.level, Level::Warn);
    let expected = Upload {
        flush_ms: Some(500),
        ..Upload::default()
    };
    assert_eq!(desired.upload, expected);
    assert_eq!(desired.limits.persistent, Some(true));
    assert_eq!(desired.limits.spool_bytes, None);
}

#[test]
fn what_a_device_in_mode_on_error_sends_passes_unless_it_is_disabled() {
    let debug = |documents: &[(&str, &str)]| {
        fleet(documents)
            .resolve(&who("lamp"))
            .passes("app", 0, Severity::DEBUG)
    };
    let on_error = (
        "default",
        r#"{"level":"WARN","upload":{"mode":"on-error"}}"#,
    );
    assert!(!debug(&[("default", r#"{"level":"WARN"}"#)]));
    assert!(debug(&[on_error]));
    assert!(!debug(&[
        on_error,
        ("device/lamp", r#"{"level":"DISABLED"}"#)
    ]));
}
