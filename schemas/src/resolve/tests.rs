mod naive;

use proptest::prelude::*;

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
    let topic = format!("thinglog/config/{topic}");
    match crate::Topics::default().parse(&topic).unwrap() {
        crate::Topic::Config(config) => fleet.apply(config, document.as_bytes()),
        other => panic!("{other:?} is no configuration"),
    }
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
        ("device/lamp", "WARN", "expected"),
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
            r#"{"limits": {"spool_bytes": 0}}"#,
            "limits.spool_bytes",
        ),
        (
            "default",
            r#"{"query": "model = \"x1\""}"#,
            "dynamic groups are not supported",
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

#[test]
fn cycles_and_deep_hierarchies_are_refused() {
    let names = ["g1", "g2", "g3", "g4", "g5", "g6", "g7", "g8"];
    let links: Vec<_> = names
        .windows(2)
        .map(|pair| {
            (
                format!("group/{}", pair[1]),
                format!(r#"{{"parent":"{}"}}"#, pair[0]),
            )
        })
        .collect();
    let links: Vec<_> = links
        .iter()
        .map(|(topic, document)| (topic.as_str(), document.as_str()))
        .collect();
    let (seven, eighth) = links.split_at(6);
    assert!(refused(seven, eighth[0].0, eighth[0].1).contains("8 levels"));
    assert!(
        refused(&links[1..], links[0].0, links[0].1).contains("8 levels"),
        "also from above"
    );
    assert!(refused(seven, "group/g1", r#"{"parent":"g7"}"#).contains("a cycle"));
    assert!(refused(&[], "group/g1", r#"{"parent":"g1"}"#).contains("a cycle"));
    let mut fleet = fleet(seven);
    apply(&mut fleet, "group/g7", r#"{"parent":"g1"}"#).unwrap();
    assert_eq!(
        fleet.groups.chain("g7").collect::<Vec<_>>(),
        ["g7", "g1"],
        "a group may move"
    );
}

#[test]
fn a_group_has_at_most_100_children() {
    let children: Vec<_> = (0..100).map(|n| format!("group/c{n}")).collect();
    let documents: Vec<_> = children
        .iter()
        .map(|topic| (topic.as_str(), r#"{"parent":"p"}"#))
        .collect();
    assert!(refused(&documents, "group/one-more", r#"{"parent":"p"}"#).contains("100 children"));
    let mut fleet = fleet(&documents);
    let child = r#"{"parent":"p","level":"WARN"}"#;
    assert!(
        apply(&mut fleet, "group/c7", child).is_ok(),
        "a child may change"
    );
}

#[test]
fn a_device_is_in_at_most_ten_groups_and_one_of_a_hierarchy() {
    let groups: Vec<_> = (0..10).map(|n| format!("member/g{n}/lamp")).collect();
    let documents: Vec<_> = groups.iter().map(|topic| (topic.as_str(), "{}")).collect();
    assert!(refused(&documents, "member/g10/lamp", "{}").contains("10 groups"));
    let tree = [
        ("group/a", r#"{"parent":"r"}"#),
        ("group/b", r#"{"parent":"r"}"#),
        ("member/a/lamp", "{}"),
    ];
    for group in ["b", "r"] {
        let error = refused(&tree, &format!("member/{group}/lamp"), "{}");
        assert!(error.contains("\"a\" of the same hierarchy"), "{error}");
    }
    let apart = [
        ("group/a", r#"{"parent":"r"}"#),
        ("member/a/lamp", "{}"),
        ("member/b/lamp", "{}"),
    ];
    let error = refused(&apart, "group/b", r#"{"parent":"r"}"#);
    assert!(
        error.contains("\"lamp\" is in \"a\""),
        "joining hierarchies counts too: {error}"
    );
    let mut fleet = fleet(&tree);
    apply(&mut fleet, "member/a/lamp", "").unwrap();
    apply(&mut fleet, "member/b/lamp", "{}").unwrap();
    assert_eq!(fleet.groups_of("lamp"), ["b", "r"]);
}

#[test]
fn members_and_groups_include_the_hierarchy() {
    let fleet = fleet(&[
        ("group/leaf", r#"{"parent":"root"}"#),
        ("member/leaf/lamp", "{}"),
        ("member/root/door", "{}"),
        ("member/x/lamp", "{}"),
        ("device/oven", "{}"),
        (
            "override/device/fan",
            r#"{"level":"DEBUG","until":"2026-01-02T12:00:00Z"}"#,
        ),
    ]);
    assert_eq!(fleet.members("root"), ["door", "lamp"]);
    assert_eq!(fleet.members("leaf"), ["lamp"]);
    assert_eq!(fleet.members("none"), [""; 0]);
    assert_eq!(fleet.groups_of("lamp"), ["leaf", "root", "x"]);
    assert_eq!(fleet.groups_of("oven"), [""; 0]);
    assert_eq!(fleet.named_devices(), ["door", "fan", "lamp", "oven"]);
}

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

fn levels() -> impl Strategy<Value = Level> {
    (0..Level::ALL.len()).prop_map(|index| Level::ALL[index])
}

fn documents() -> impl Strategy<Value = String> {
    let sources = prop::collection::btree_map("[ab]", levels(), 0..2);
    (prop::option::of(levels()), sources).prop_map(|(level, sources)| {
        let mut document = serde_json::json!({"sources": sources});
        if let Some(level) = level {
            document["level"] = serde_json::json!(level);
        }
        document.to_string()
    })
}

/// One change of a fleet of two devices, four groups, two principals and two sources.
fn changes() -> impl Strategy<Value = (String, String)> {
    let target = prop_oneof![
        Just("default".to_owned()),
        "device/d[01]",
        "principal/p[01]",
        "source-ip/10\\.0\\.0\\.[01]",
        "group/g[0-3]",
    ];
    let overrides = prop_oneof![
        Just("override/default".to_owned()),
        "override/device/d[01]",
        "override/group/g[0-3]",
    ];
    let until = (levels(), 0u32..6, prop::option::of(levels()));
    let until = until.prop_map(|(level, second, source)| {
        let sources = source.map_or(String::from("{}"), |level| format!(r#"{{"a":"{level}"}}"#));
        format!(
            r#"{{"level":"{level}","until":"1970-01-01T00:00:0{second}Z","sources":{sources}}}"#
        )
    });
    let parent = ("group/g[0-3]", "g[0-3]", prop::option::of(levels()));
    prop_oneof![
        4 => (target, documents()),
        2 => parent.prop_map(|(topic, parent, level)| {
            let level = level.map_or(String::new(), |level| format!(r#","level":"{level}""#));
            (topic, format!(r#"{{"parent":"{parent}"{level}}}"#))
        }),
        3 => ("member/g[0-3]/d[01]", Just("{}".to_owned())),
        2 => (overrides, until),
        1 => ("source/[ab]", levels()).prop_map(|(topic, level)| (topic, format!(r#"{{"level":"{level}"}}"#))),
        1 => Just(("default".to_owned(), r#"{"disabled":true}"#.to_owned())),
        2 => ("(default|device/d[01]|group/g[0-3]|source/[ab]|member/g[0-3]/d[01]|override/(default|device/d[01]|group/g[0-3]))", Just(String::new())),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn the_fleet_answers_as_the_rules_read(changes in prop::collection::vec(changes(), 1..25)) {
        let mut fleet = Fleet::new();
        let mut rules = naive::Rules::default();
        for (topic, document) in &changes {
            if apply(&mut fleet, topic, document).is_ok() {
                rules.set(topic, document);
            }
        }
        for (device, principal, address) in [("d0", None, None), ("d1", Some("p0"), Some("10.0.0.1"))] {
            let who = Who { device, principal, address };
            let resolved = fleet.resolve(&who);
            for source in ["a", "b", "c"] {
                for second in 0..6u64 {
                    let time = second * 1_000_000_000;
                    let expected = rules.level(&who, source, time);
                    prop_assert_eq!(resolved.level(source, time), expected, "{} {} {}s", device, source, second);
                    if principal.is_none() {
                        let desired = fleet.desired(device, time);
                        prop_assert_eq!(desired.level_for(source, desired.temporary.is_some()), expected);
                        prop_assert_eq!(&desired.revision, &desired.content_hash());
                    }
                }
            }
        }
    }

    #[test]
    fn the_order_of_valid_documents_does_not_matter(
        changes in prop::collection::vec(changes(), 1..20), seed in any::<u64>()
    ) {
        let mut fleet = Fleet::new();
        let mut retained = BTreeMap::new();
        for (topic, document) in changes {
            if apply(&mut fleet, &topic, &document).is_ok() {
                retained.insert(topic, document);
            }
        }
        let mut order: Vec<_> = retained.iter().collect();
        order.sort_by_key(|(topic, _)| topic.bytes().fold(seed, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)));
        let mut restarted = Fleet::new();
        for (topic, document) in order {
            prop_assert!(apply(&mut restarted, topic, document).is_ok(), "{} {}", topic, document);
        }
        for device in ["d0", "d1"] {
            prop_assert_eq!(restarted.resolve(&who(device)), fleet.resolve(&who(device)));
            prop_assert_eq!(restarted.desired(device, 3), fleet.desired(device, 3));
        }
    }

    #[test]
    fn any_payload_is_taken_or_refused(payload in prop::collection::vec(any::<u8>(), 0..60)) {
        let _ = Fleet::new().apply(ConfigTopic::Default, &payload);
        let _ = Fleet::new().apply(ConfigTopic::OverrideDefault, &payload);
    }
}
