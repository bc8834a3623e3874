//! What devices are told.

use super::*;

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
    assert_eq!(desired.level_for("sshd", true), Level::Info);
    assert_eq!(desired.level_for("sshd", false), Level::Error);
    assert_eq!(desired.level_for("other", true), Level::Debug);
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
    assert_eq!(
        fleet.desired("lamp", noon()).revision,
        ended.revision,
        "it says the same"
    );
    // A change of this value would rewrite the configuration of every device of every fleet.
    assert_eq!(ended.revision, "a8292e0fa9135e11");
}
