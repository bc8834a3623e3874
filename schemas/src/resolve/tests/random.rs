//! Random fleets against the rules as they read.

use proptest::prelude::*;

use super::*;

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
