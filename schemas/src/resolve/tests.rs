mod desired;
mod documents;
mod groups;
mod naive;
mod random;

use super::*;
use crate::{Severity, json::parse_time};

const NOON: &str = "2026-01-02T12:00:00Z";

fn noon() -> u64 {
    parse_time(NOON).unwrap()
}

/// A fleet of documents, each as `(topic below config/, JSON)`.
fn fleet(documents: &[(&str, &str)]) -> Fleet {
    let mut fleet = Fleet::new();
    for (topic, document) in documents {
        apply(&mut fleet, topic, document).unwrap();
    }
    fleet
}

fn apply(fleet: &mut Fleet, topic: &str, document: &str) -> Result<Affected, ConfigError> {
    let topic = format!("config/{topic}");
    let topic = ConfigTopic::parse(&topic).unwrap();
    let change = fleet.apply(topic, document.as_bytes())?;
    Ok(change.affected)
}

fn who(device: &str) -> Who<'_> {
    Who {
        device,
        principal: Some("alice"),
        address: Some("10.0.0.1"),
    }
}

/// The level of lamp's nginx at noon.
fn level(documents: &[(&str, &str)]) -> Level {
    fleet(documents)
        .resolve(&who("lamp"))
        .level("nginx", noon())
}

fn refused(documents: &[(&str, &str)], topic: &str, document: &str) -> String {
    let mut fleet = fleet(documents);
    let generation = fleet.generation();
    let before = fleet.resolve(&who("lamp"));
    let error = apply(&mut fleet, topic, document).unwrap_err().to_string();
    assert!(error.starts_with(&format!("config/{topic}: ")), "{error}");
    assert_eq!(
        fleet.resolve(&who("lamp")),
        before,
        "a refused document changes nothing"
    );
    assert_eq!(fleet.generation(), generation);
    error
}

/// Each kind of rule, the one that speaks first at the top: every rule beats all below it.
const PRECEDENCE: [&[(&str, &str)]; 11] = [
    &[("default", r#"{"disabled": true, "level": "INFO"}"#)],
    &[(
        "override/device/lamp",
        r#"{"level": "WARN", "until": "2026-01-02T12:00:01Z"}"#,
    )],
    &[(
        "override/group/a",
        r#"{"level": "DEBUG", "until": "2026-01-02T12:00:01Z"}"#,
    )],
    &[(
        "override/default",
        r#"{"level": "ERROR", "until": "2026-01-02T12:00:01Z"}"#,
    )],
    &[("device/lamp", r#"{"level": "WARN"}"#)],
    &[("principal/alice", r#"{"level": "DEBUG"}"#)],
    &[("source-ip/10.0.0.1", r#"{"level": "ERROR"}"#)],
    &[("group/a", r#"{"level": "WARN"}"#)],
    &[("source/nginx", r#"{"level": "DEBUG"}"#)],
    &[("default", r#"{"level": "ERROR"}"#)],
    &[],
];

const EXPECTED: [Level; 11] = [
    Level::Disabled,
    Level::Warn,
    Level::Debug,
    Level::Error,
    Level::Warn,
    Level::Debug,
    Level::Error,
    Level::Warn,
    Level::Debug,
    Level::Error,
    Level::Info,
];

#[test]
fn the_first_rule_that_speaks_wins() {
    let member = ("member/a/lamp", "{}");
    for (higher, (rule, expected)) in PRECEDENCE.iter().zip(EXPECTED).enumerate() {
        for lower in &PRECEDENCE[higher + 1..] {
            let documents: Vec<_> = std::iter::once(member)
                .chain(lower.iter().copied())
                .chain(rule.iter().copied())
                .collect();
            assert_eq!(level(&documents), expected, "{rule:?} against {lower:?}");
        }
    }
}

#[test]
fn an_override_of_group_or_default_beats_the_devices_document() {
    let device = ("device/lamp", r#"{"level": "ERROR"}"#);
    let until = r#"{"level": "DEBUG", "until": "2026-01-02T12:00:01Z"}"#;
    assert_eq!(level(&[device, ("override/default", until)]), Level::Debug);
    assert_eq!(
        level(&[device, ("member/a/lamp", "{}"), ("override/group/a", until)]),
        Level::Debug
    );
}

#[test]
fn the_nearest_group_of_a_hierarchy_decides_even_if_less_verbose() {
    let documents = [
        ("group/root", r#"{"level": "DEBUG"}"#),
        ("group/mid", r#"{"parent": "root"}"#),
        ("group/leaf", r#"{"parent": "mid", "level": "DISABLED"}"#),
    ];
    let in_group = |group| {
        let member = format!("member/{group}/lamp");
        level(&[&documents[..], &[(&member, "{}")]].concat())
    };
    assert_eq!(in_group("leaf"), Level::Disabled);
    assert_eq!(in_group("mid"), Level::Debug, "the parent's");
    assert_eq!(in_group("root"), Level::Debug);
    assert_eq!(
        in_group("other"),
        Level::Info,
        "a group without a document says nothing"
    );
}

#[test]
fn across_hierarchies_the_most_verbose_wins() {
    let documents = [
        ("group/a", r#"{"level": "ERROR"}"#),
        ("group/b", r#"{"parent": "b0"}"#),
        (
            "group/b0",
            r#"{"level": "WARN", "sources": {"sshd": "DEBUG"}}"#,
        ),
        ("member/a/lamp", "{}"),
        ("member/b/lamp", "{}"),
    ];
    let resolved = fleet(&documents).resolve(&who("lamp"));
    assert_eq!(resolved.level("nginx", noon()), Level::Warn);
    assert_eq!(resolved.level("sshd", noon()), Level::Debug);
}

#[test]
fn a_sources_entry_refines_the_document_that_decides() {
    let documents = [
        (
            "device/lamp",
            r#"{"level": "ERROR", "sources": {"nginx": "DEBUG"}}"#,
        ),
        ("source/sshd", r#"{"level": "DEBUG"}"#),
    ];
    let resolved = fleet(&documents).resolve(&who("lamp"));
    assert_eq!(resolved.level("nginx", noon()), Level::Debug);
    assert_eq!(
        resolved.level("sshd", noon()),
        Level::Error,
        "the device's level comes first"
    );
}

#[test]
fn a_document_without_a_level_speaks_for_its_sources_only() {
    let documents = [
        ("device/lamp", r#"{"sources": {"nginx": "DEBUG"}}"#),
        (
            "default",
            r#"{"level": "ERROR", "sources": {"cron": "DISABLED"}}"#,
        ),
    ];
    let resolved = fleet(&documents).resolve(&who("lamp"));
    let level = |source| resolved.level(source, noon());
    assert_eq!(
        (level("nginx"), level("sshd")),
        (Level::Debug, Level::Error)
    );
    assert_eq!(level("cron"), Level::Disabled);
}

#[test]
fn overrides_are_judged_by_the_events_time() {
    let documents = [
        ("device/lamp", r#"{"level": "ERROR"}"#),
        (
            "override/device/lamp",
            r#"{"level": "DEBUG", "until": "2026-01-02T12:00:00Z", "sources": {"cron": "WARN"}}"#,
        ),
        (
            "override/default",
            r#"{"level": "INFO", "until": "2026-01-02T14:00:00+01:00"}"#,
        ),
    ];
    let resolved = fleet(&documents).resolve(&who("lamp"));
    let level = |source, time| resolved.level(source, time);
    assert_eq!(
        level("nginx", noon() - 1),
        Level::Debug,
        "spooled while it ran, whenever it arrives"
    );
    assert_eq!(level("cron", noon() - 1), Level::Warn);
    assert_eq!(level("nginx", noon()), Level::Info, "the default's runs on");
    let one = noon() + 3600 * 1_000_000_000;
    assert_eq!(
        (level("nginx", one - 1), level("nginx", one)),
        (Level::Info, Level::Error)
    );
    assert_eq!(resolved.overrides_end(), one);
    assert!(resolved.passes("nginx", noon(), Severity::INFO));
    assert!(!resolved.passes("nginx", one, Severity::INFO));
}

#[test]
fn the_nearest_running_override_of_a_hierarchy_decides() {
    let documents = [
        ("group/leaf", r#"{"parent": "root"}"#),
        ("member/leaf/lamp", "{}"),
        (
            "override/group/leaf",
            r#"{"level": "ERROR", "until": "2026-01-02T12:00:00Z"}"#,
        ),
        (
            "override/group/root",
            r#"{"level": "DEBUG", "until": "2026-01-02T13:00:00Z"}"#,
        ),
    ];
    let resolved = fleet(&documents).resolve(&who("lamp"));
    assert_eq!(resolved.level("nginx", noon() - 1), Level::Error);
    assert_eq!(
        resolved.level("nginx", noon()),
        Level::Debug,
        "the ended one is out of the way"
    );
}

#[test]
fn ended_overrides_are_kept_for_seven_days() {
    let mut fleet = fleet(&[
        (
            "override/device/lamp",
            r#"{"level": "DEBUG", "until": "2026-01-02T12:00:00Z"}"#,
        ),
        (
            "override/default",
            r#"{"level": "WARN", "until": "2026-01-03T12:00:00Z"}"#,
        ),
    ]);
    let generation = fleet.generation();
    assert_eq!(fleet.next_end(noon() - 1), Some(noon()));
    assert_eq!(fleet.next_end(noon()), Some(noon() + KEEP_ENDED / 7));
    assert_eq!(fleet.forget_ended(noon() + KEEP_ENDED - 1), 0);
    assert_eq!(fleet.generation(), generation);
    assert_eq!(fleet.forget_ended(noon() + KEEP_ENDED), 1);
    assert_eq!(fleet.generation(), generation + 1);
    assert_eq!(
        fleet.resolve(&who("lamp")).level("x", noon() - 1),
        Level::Warn
    );
    assert_eq!(fleet.forget_ended(u64::MAX), 1);
}

#[test]
fn disabling_everything_keeps_what_was_stored() {
    let documents = [
        ("device/lamp", r#"{"level": "DEBUG"}"#),
        ("default", r#"{"disabled": true}"#),
    ];
    let mut fleet = fleet(&documents);
    assert_eq!(fleet.resolve(&who("lamp")).level("x", 0), Level::Disabled);
    assert_eq!(fleet.desired("lamp", 0).level, Level::Disabled);
    apply(&mut fleet, "default", "").unwrap();
    assert_eq!(fleet.resolve(&who("lamp")).level("x", 0), Level::Debug);
}

#[test]
fn an_address_counts_in_every_spelling() {
    let mut fleet = fleet(&[("source-ip/0:0::1", r#"{"level": "DEBUG"}"#)]);
    apply(&mut fleet, "source-ip/10.0.0.1", r#"{"level": "ERROR"}"#).unwrap();
    let level = |address| {
        fleet
            .resolve(&Who {
                device: "x",
                principal: None,
                address,
            })
            .level("s", 0)
    };
    assert_eq!(level(Some("::1")), Level::Debug);
    assert_eq!(level(Some("::ffff:10.0.0.1")), Level::Error);
    assert_eq!(level(Some("10.0.0.2")), Level::Info);
    assert_eq!(
        (level(None), level(Some("lamp"))),
        (Level::Info, Level::Info)
    );
}
