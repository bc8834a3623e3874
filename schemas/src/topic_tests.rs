use proptest::prelude::*;

use super::*;

fn names() -> impl Strategy<Value = String> {
    prop_oneof![
        "[A-Za-z0-9._:-]{1,20}",
        "[A-Za-z0-9._:-]{128}",
        any::<String>().prop_map(|name| name::encode(&name).into_owned()),
    ]
}

fn live_levels() -> impl Strategy<Value = Level> {
    prop_oneof![
        Just(Level::Error),
        Just(Level::Warn),
        Just(Level::Info),
        Just(Level::Debug)
    ]
}

/// Every form of topic, made of three names and a level.
fn every_topic<'a>(a: &'a str, b: &'a str, c: &'a str, level: Level) -> Vec<Topic<'a>> {
    let config = [
        ConfigTopic::Default,
        ConfigTopic::Group(a),
        ConfigTopic::Device(a),
        ConfigTopic::Source(a),
        ConfigTopic::Principal(a),
        ConfigTopic::SourceIp(a),
        ConfigTopic::OverrideDefault,
        ConfigTopic::OverrideGroup(a),
        ConfigTopic::OverrideDevice(a),
        ConfigTopic::Member {
            group: a,
            device: b,
        },
    ];
    let others = [
        Topic::Logs {
            device: a,
            source: b,
        },
        Topic::Live {
            device: a,
            level,
            source: b,
        },
        Topic::LiveGroup {
            group: a,
            device: b,
            level,
            source: c,
        },
        Topic::Out {
            route: a,
            device: b,
        },
        Topic::Desired { device: a },
        Topic::Reported { device: a },
        Topic::Request { device: a },
        Topic::Response { device: a, id: b },
        Topic::Connected { device: a },
        Topic::Alerts { rule: a },
    ];
    config
        .into_iter()
        .map(Topic::Config)
        .chain(others)
        .collect()
}

/// A small alphabet, so that random filters and topics meet.
fn filters() -> impl Strategy<Value = String> {
    let level = prop_oneof![Just("a"), Just("b"), Just(""), Just("+"), Just("$s")];
    (prop::collection::vec(level, 1..5), any::<bool>()).prop_map(|(mut levels, deep)| {
        if deep {
            levels.push("#");
        }
        levels.join("/")
    })
}

fn topics() -> impl Strategy<Value = String> {
    let level = prop_oneof![Just("a"), Just("b"), Just(""), Just("$s")];
    prop::collection::vec(level, 1..6).prop_map(|levels| levels.join("/"))
}

proptest! {
    #[test]
    fn every_topic_round_trips(a in names(), b in names(), c in names(), level in live_levels()) {
        for topics in [Topics::default(), Topics::new("acme/eu").unwrap()] {
            for topic in every_topic(&a, &b, &c, level) {
                let text = topics.format(topic);
                prop_assert_eq!(topics.parse(&text), Ok(topic));
            }
        }
    }

    #[test]
    fn what_parses_formats_back(below in "(logs|live|config|override|member|desired|a|/|error|%20|\\+){0,9}") {
        let topics = Topics::default();
        let text = format!("thinglog/{below}");
        if let Ok(topic) = topics.parse(&text) {
            prop_assert_eq!(topics.format(topic), text);
        }
    }

    #[test]
    fn a_filter_matches_a_topic_as_it_overlaps_with_it(filter in filters(), topic in topics()) {
        prop_assume!(!topic.is_empty());
        prop_assert!(valid_filter(&filter) || filter.is_empty());
        prop_assert_eq!(matches(&filter, &topic), overlap(&filter, &topic));
    }

    #[test]
    fn filters_that_share_a_topic_overlap(a in filters(), b in filters(), topic in topics()) {
        prop_assert_eq!(overlap(&a, &b), overlap(&b, &a));
        if matches(&a, &topic) && matches(&b, &topic) {
            prop_assert!(overlap(&a, &b), "{} and {} share {}", a, b, topic);
        }
    }
}

#[test]
fn topics_are_those_of_the_design() {
    let topics = Topics::default();
    assert_eq!(
        topics.parse("thinglog/logs/lamp-7/app"),
        Ok(Topic::Logs {
            device: "lamp-7",
            source: "app"
        })
    );
    assert_eq!(
        topics.parse("thinglog/config/override/device/lamp-7"),
        Ok(Topic::Config(ConfigTopic::OverrideDevice("lamp-7")))
    );
    assert_eq!(topics.all_logs(), "thinglog/logs/#");
    assert_eq!(topics.all_config(), "thinglog/config/#");
    assert_eq!(topics.all_desired(), "thinglog/desired/#");
    assert_eq!(topics.all_reported(), "thinglog/reported/#");
    assert_eq!(topics.all_connected(), "thinglog/connected/#");
    assert_eq!(
        Topic::Config(ConfigTopic::SourceIp("::1")),
        topics.parse("thinglog/config/source-ip/::1").unwrap()
    );
}

#[test]
fn foreign_and_malformed_topics_are_refused_with_the_reason() {
    let topics = Topics::default();
    for foreign in [
        "",
        "thinglog",
        "thinglogs/logs/a/b",
        "other/logs/a/b",
        "/thinglog/logs/a/b",
    ] {
        assert!(
            matches!(topics.parse(foreign), Err(TopicError::Foreign { .. })),
            "{foreign}"
        );
    }
    for malformed in [
        "thinglog/",
        "thinglog/logs/a",
        "thinglog/logs/a/b/c",
        "thinglog/logs//b",
        "thinglog/logs/a b/c",
        "thinglog/live/a/INFO/b",
        "thinglog/live/a/disabled/b",
        "thinglog/config/override",
        "thinglog/config/override/default/x",
        "thinglog/config/member/a",
        "thinglog/logs/a/b/c/d/e/f",
    ] {
        assert!(
            matches!(topics.parse(malformed), Err(TopicError::Malformed { .. })),
            "{malformed}"
        );
    }
    let error = topics.parse("thinglog/logs/a b/c").unwrap_err().to_string();
    assert!(
        error.contains("a b/c") && error.contains("1-128"),
        "{error}"
    );
}

#[test]
fn a_root_has_no_wildcards_and_no_empty_levels() {
    for root in [
        "",
        "/a",
        "a/",
        "a//b",
        "a/+",
        "#",
        "$SYS",
        "a\0",
        &"x".repeat(600),
    ] {
        assert!(Topics::new(root).is_err(), "{root}");
    }
    assert_eq!(Topics::new("acme/eu").unwrap().root(), "acme/eu");
}

#[test]
fn wildcards_match_as_mqtt_section_4_7_says() {
    let yes = [
        ("sport/tennis/player1/#", "sport/tennis/player1"),
        (
            "sport/tennis/player1/#",
            "sport/tennis/player1/score/wimbledon",
        ),
        ("sport/#", "sport"),
        ("#", "a/b"),
        ("+", "finance"),
        ("+/+", "/finance"),
        ("/+", "/finance"),
        ("sport/+", "sport/"),
        ("$SYS/#", "$SYS/monitor"),
        ("$SYS/+", "$SYS/monitor"),
    ];
    let no = [
        ("sport/tennis/+", "sport/tennis/player1/ranking"),
        ("sport/+", "sport"),
        ("+", "/finance"),
        ("#", "$SYS/monitor"),
        ("+/monitor", "$SYS/monitor"),
        ("a/b", "a/B"),
        ("a/b", "a"),
    ];
    for (filter, topic) in yes {
        assert!(matches(filter, topic), "{filter} should match {topic}");
    }
    for (filter, topic) in no {
        assert!(!matches(filter, topic), "{filter} should not match {topic}");
    }
}

#[test]
fn filters_are_checked_as_mqtt_section_4_7_1_says() {
    for filter in ["#", "+", "a/#", "+/a/#", "/", "a//b", "+/+", "$SYS/#"] {
        assert!(valid_filter(filter), "{filter}");
    }
    for filter in [
        "",
        "a#",
        "a/#/b",
        "#/a",
        "a+",
        "a/+b",
        "a\0b",
        &"x".repeat(65_536),
    ] {
        assert!(!valid_filter(filter), "{filter}");
    }
}

#[test]
fn overlap_knows_dollar_topics_and_parents() {
    assert!(overlap("a/#", "a"));
    assert!(overlap("a/+/c", "a/b/+"));
    assert!(overlap("+/b", "a/#"));
    assert!(!overlap("a/+", "a"));
    assert!(!overlap("a/b", "a/c/#"));
    assert!(!overlap("#", "$SYS/x"));
    assert!(!overlap("$SYS/x", "+/x"));
}
