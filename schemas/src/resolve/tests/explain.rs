//! What operators are told of a level.

use super::*;

fn outcomes(explanation: &Explanation) -> Vec<(&str, Outcome)> {
    let rules = explanation.rules.iter();
    rules
        .map(|rule| (rule.topic.as_deref().unwrap_or("built-in"), rule.outcome))
        .collect()
}

#[test]
fn every_rule_is_told_with_what_became_of_it() {
    let fleet = fleet(&[
        ("default", r#"{"level":"ERROR","upload":{"mode":"manual"}}"#),
        ("source/nginx", r#"{"level":"WARN"}"#),
        (
            "group/leaf",
            r#"{"parent":"root","level":"ERROR","sources":{"nginx":"INFO"},"by":"alice","at":"2026-01-01T00:00:00Z"}"#,
        ),
        (
            "group/root",
            r#"{"level":"DEBUG","env":{"THINGLOG_FLUSH":"1s"}}"#,
        ),
        ("group/lamps", r#"{"query":"name = lamp","level":"WARN"}"#),
        ("group/other", "{}"),
        ("member/leaf/lamp", "{}"),
        ("member/other/lamp", "{}"),
        ("member/root/lamp", "{}"),
        ("device/lamp", r#"{"sources":{"sshd":"DEBUG"}}"#),
        (
            "override/device/lamp",
            r#"{"level":"DEBUG","until":"2026-01-02T11:00:00Z"}"#,
        ),
    ]);
    let device = Who {
        device: "lamp",
        principal: None,
        address: Some("10.0.0.1"),
    };
    let explained = fleet.explain(&device, Some("nginx"), noon());
    assert_eq!(
        outcomes(&explained),
        [
            ("config/default", Outcome::Silent),
            ("config/override/device/lamp", Outcome::Ended),
            ("config/override/default", Outcome::Absent),
            ("config/device/lamp", Outcome::Silent),
            ("built-in", Outcome::Unknown),
            ("config/source-ip/10.0.0.1", Outcome::Absent),
            ("config/group/lamps", Outcome::LessVerbose),
            ("config/group/leaf", Outcome::Won),
            ("config/group/root", Outcome::Farther),
            ("config/group/other", Outcome::Silent),
            ("config/source/nginx", Outcome::Outranked),
            ("config/default", Outcome::Outranked),
            ("built-in", Outcome::Outranked),
        ]
    );
    assert_eq!(
        explained.why,
        "nginx of lamp has level INFO: config/group/leaf decides, with INFO for this source"
    );
    let whys: Vec<&str> = explained
        .rules
        .iter()
        .map(|rule| rule.why.as_str())
        .collect();
    assert_eq!(
        whys[1..],
        [
            "said DEBUG until 2026-01-02T11:00:00Z, which was over",
            "is not there",
            "says levels of other sources only",
            "it is not known as whom the device publishes",
            "is not there",
            "says WARN, but config/group/leaf of another hierarchy says INFO, which is more verbose",
            "decides, with INFO for this source",
            "says DEBUG, but config/group/leaf is nearer to the device in the same hierarchy",
            "says no level",
            "says WARN, but config/group/leaf is asked first and decides",
            "says ERROR, but config/group/leaf is asked first and decides",
            "says INFO, but config/group/leaf is asked first and decides",
        ]
    );
    let won = &explained.rules[7];
    assert_eq!(
        (won.by.as_deref(), won.at.as_deref()),
        (Some("alice"), Some("2026-01-01T00:00:00Z"))
    );
    assert_eq!(
        (won.hierarchy.as_deref(), won.by_source),
        (Some("leaf"), true)
    );
    assert_eq!(explained.groups, ["lamps", "leaf", "other"]);
    assert_eq!(explained.problems.len(), 1);
    assert_eq!(explained.problems[0].topic, "config/member/root/lamp");
    let settings: Vec<_> = explained
        .settings
        .iter()
        .map(|it| (it.name.as_str(), it.topic.as_str()))
        .collect();
    assert_eq!(
        settings,
        [
            ("upload.flush_ms", "config/group/root"),
            ("upload.mode", "config/default")
        ]
    );
    let json = serde_json::to_value(&explained).unwrap();
    assert_eq!(json["rules"][6]["outcome"], "less-verbose");
    assert_eq!(
        serde_json::from_value::<Explanation>(json).unwrap(),
        explained
    );
}

#[test]
fn an_unreadable_document_is_told_beside_the_good_one_that_stands() {
    let mut fleet = fleet(&[("device/lamp", r#"{"level":"WARN"}"#)]);
    apply(&mut fleet, "device/lamp", r#"{"level":"LOUD"}"#).unwrap_err();
    let explained = fleet.explain(&who("lamp"), None, noon());
    assert_eq!(
        (explained.level, explained.problems.len()),
        (Level::Warn, 1)
    );
    assert!(explained.problems[0].last_good && explained.problems[0].reason.contains("LOUD"));
    assert_eq!(explained.problems, fleet.problems());
    apply(&mut fleet, "device/lamp", "").unwrap();
    let explained = fleet.explain(&who("lamp"), None, noon());
    assert_eq!(explained.problems, []);
    assert_eq!(
        explained.why,
        "lamp, sources that nothing names, has level INFO: nothing else speaks"
    );
}

#[test]
fn switching_everything_off_is_told() {
    let fleet = fleet(&[("default", r#"{"disabled":true,"level":"DEBUG"}"#)]);
    let explained = fleet.explain(&who("lamp"), None, noon());
    assert_eq!(explained.level, Level::Disabled);
    assert_eq!(explained.rules[0].why, "switches all logs off");
    assert_eq!(
        outcomes(&explained)[6],
        ("config/default", Outcome::Outranked)
    );
}
