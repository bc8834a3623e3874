//! Random fleets against the rules as they read.

use proptest::prelude::*;

use super::*;

fn levels() -> impl Strategy<Value = Level> {
    (0..Level::ALL.len()).prop_map(|index| Level::ALL[index])
}

/// `,"level":"WARN"` or nothing.
fn maybe_level() -> impl Strategy<Value = String> {
    let level = prop::option::of(levels());
    level.prop_map(|level| level.map_or(String::new(), |level| format!(r#","level":"{level}""#)))
}

/// `,"at":"…"` or nothing: documents of few different ages.
fn maybe_age() -> impl Strategy<Value = String> {
    prop_oneof![
        2 => Just(String::new()),
        2 => (0u32..4).prop_map(|second| format!(r#","at":"2026-01-01T00:00:0{second}Z""#)),
        1 => (0u32..4).prop_map(|second| format!(r#","created":"2026-01-01T00:00:0{second}Z""#)),
    ]
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

fn without_created(age: String) -> String {
    age.replace("created", "at")
}

/// Parents that make chains rather than bushes, so that hierarchies become too deep.
fn parents(groups: u32) -> impl Strategy<Value = (String, String)> {
    let link = (
        0..groups,
        0..groups,
        any::<bool>(),
        maybe_level(),
        maybe_age(),
    );
    link.prop_map(move |(group, other, near, level, age)| {
        let parent = match near {
            true => (group + 1) % groups,
            false => other,
        };
        let document = format!(r#"{{"parent":"g{parent}"{level}{age}}}"#);
        (format!("group/g{group}"), document)
    })
}

fn members(groups: u32) -> impl Strategy<Value = (String, String)> {
    (0..groups, 0..2u32, maybe_age()).prop_map(|(group, device, age)| {
        let age = without_created(age);
        let document = format!("{{{}}}", age.trim_start_matches(','));
        (format!("member/g{group}/d{device}"), document)
    })
}

fn queries(groups: u32) -> impl Strategy<Value = (String, String)> {
    let query = prop_oneof![
        Just("model = x1"),
        Just("version < 2"),
        Just("name = d1 or exists model"),
        Just("online"),
        Just("group = g1 or group = g2"),
        Just("not model = x1"),
        Just("type = lamp"),
    ];
    (0..groups, query, maybe_level(), maybe_age()).prop_map(|(group, query, level, age)| {
        (
            format!("group/g{group}"),
            format!(r#"{{"query":"{query}"{level}{age}}}"#),
        )
    })
}

fn attributes() -> impl Strategy<Value = String> {
    ("x[12]", 0u32..4)
        .prop_map(|(model, version)| format!(r#"{{"model":"{model}","version":"{version}"}}"#))
}

fn overrides(groups: u32) -> impl Strategy<Value = (String, String)> {
    let topic = prop_oneof![
        Just("override/default".to_owned()),
        "override/device/d[01]",
        (0..groups).prop_map(|group| format!("override/group/g{group}")),
    ];
    let says = (topic, levels(), 0u32..6, prop::option::of(levels()));
    says.prop_map(|(topic, level, second, source)| {
        let sources = source.map_or(String::from("{}"), |level| format!(r#"{{"a":"{level}"}}"#));
        let until = format!("1970-01-01T00:00:0{second}Z");
        (
            topic,
            format!(r#"{{"level":"{level}","until":"{until}","sources":{sources}}}"#),
        )
    })
}

/// One change of a fleet of two devices, some groups, two principals and two sources.
pub(super) fn changes(groups: u32) -> impl Strategy<Value = (String, String)> {
    let target = prop_oneof![
        Just("default".to_owned()),
        "device/d[01]",
        "principal/p[01]",
        "source-ip/10\\.0\\.0\\.[01]",
        (0..groups).prop_map(|group| format!("group/g{group}")),
    ];
    let removed = prop_oneof![
        "(default|device/d[01]|source/[ab]|override/(default|device/d[01]))",
        (0..groups).prop_map(|group| format!("group/g{group}")),
        (0..groups, 0..2).prop_map(|(group, device)| format!("member/g{group}/d{device}")),
        (0..groups).prop_map(|group| format!("override/group/g{group}")),
    ];
    let declared = ("device/d[01]", attributes(), maybe_level(), any::<bool>());
    let declared = declared.prop_map(|(topic, attributes, level, lamp)| {
        let kind = if lamp { r#","type":"lamp""# } else { "" };
        (
            topic,
            format!(r#"{{"attributes":{attributes}{level}{kind}}}"#),
        )
    });
    prop_oneof![
        4 => (target, documents()),
        4 => parents(groups),
        4 => members(groups),
        2 => queries(groups),
        1 => declared,
        2 => overrides(groups),
        1 => ("source/[ab]", levels()).prop_map(|(topic, level)| (topic, format!(r#"{{"level":"{level}"}}"#))),
        1 => Just(("default".to_owned(), r#"{"disabled":true}"#.to_owned())),
        3 => (removed, Just(String::new())),
        // A report, as a document of its own kind.
        1 => ("report/d[01]", attributes(), any::<bool>()).prop_map(|(topic, attributes, online)| {
            (topic, format!(r#"{{"attributes":{attributes},"online":{online}}}"#))
        }),
        1 => ("report/d[01]", Just(String::new())),
    ]
}

/// Applies a change; a report is one of `report/<device>`. Whether it could be read.
pub(super) fn take(fleet: &mut Fleet, topic: &str, document: &str) -> Option<Change> {
    let Some(device) = topic.strip_prefix("report/") else {
        return change(fleet, topic, document).ok();
    };
    let affected = fleet.report(device, report(document));
    Some(Change {
        affected,
        displaced: Vec::new(),
        restored: Vec::new(),
    })
}

fn report(document: &str) -> Option<Report> {
    let reported: crate::config::Reported = serde_json::from_str(document).ok()?;
    Some(Report::from(&reported))
}

fn note(rules: &mut naive::Rules, topic: &str, document: &str) {
    match topic.strip_prefix("report/") {
        Some(device) => rules.report(device, report(document)),
        None => rules.set(topic, document),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn the_fleet_answers_as_the_rules_read(changes in prop::collection::vec(changes(5), 1..30)) {
        let mut fleet = Fleet::new();
        let mut rules = naive::Rules::default();
        for (topic, document) in &changes {
            if take(&mut fleet, topic, document).is_some() {
                note(&mut rules, topic, document);
            }
        }
        let mut answers = Answers::default();
        for (device, principal, address) in [("d0", None, None), ("d1", Some("p0"), Some("10.0.0.1"))] {
            prop_assert_eq!(fleet.direct_groups(device), rules.direct(device), "groups of {}", device);
            let who = Who { device, principal, address };
            let resolved = fleet.resolve(&who);
            for source in ["a", "b", "c"] {
                for second in 0..6u64 {
                    let time = second * 1_000_000_000;
                    let expected = rules.level(&who, source, time);
                    prop_assert_eq!(resolved.level(source, time), expected, "{} {} {}s", device, source, second);
                    let explained = fleet.explain(&who, Some(source), time);
                    prop_assert_eq!(explained.level, expected, "{}", explained.why);
                    if principal.is_none() {
                        let desired = fleet.desired(device, time);
                        prop_assert_eq!(desired.level_for(source, desired.temporary.is_some(), Level::Debug), expected);
                        prop_assert_eq!(&desired.revision, &desired.content_hash());
                        prop_assert_eq!(&*fleet.desired_with(&mut answers, device, time), &desired);
                    }
                }
            }
        }
    }

    #[test]
    fn hierarchies_are_as_the_rules_read(
        changes in prop::collection::vec(prop_oneof![5 => parents(12), 4 => members(12), 1 => queries(12)], 1..60)
    ) {
        let mut fleet = Fleet::new();
        let mut rules = naive::Rules::default();
        for (topic, document) in &changes {
            take(&mut fleet, topic, document);
            note(&mut rules, topic, document);
        }
        let parents = rules.parents();
        for group in (0..12).map(|n| format!("g{n}")) {
            let parent = fleet.group(&group).and_then(|group| group.parent.map(str::to_owned));
            prop_assert_eq!(parent.as_ref(), parents.get(&group), "{}", group);
        }
        for device in ["d0", "d1"] {
            prop_assert_eq!(fleet.direct_groups(device), rules.direct(device));
        }
    }

    #[test]
    fn any_payload_is_taken_or_refused(payload in prop::collection::vec(any::<u8>(), 0..60)) {
        let _ = Fleet::new().apply(ConfigTopic::Default, &payload);
        let _ = Fleet::new().apply(ConfigTopic::OverrideDefault, &payload);
    }
}
