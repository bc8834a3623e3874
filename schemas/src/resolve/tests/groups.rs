//! Hierarchies, memberships and their limits.

use super::*;

/// A chain of groups, each the parent of the next.
fn chain(names: &[&str]) -> Vec<(String, String)> {
    let link = |pair: &[&str]| {
        let document = format!(r#"{{"parent":"{}"}}"#, pair[0]);
        (format!("group/{}", pair[1]), document)
    };
    names.windows(2).map(link).collect()
}

fn borrowed(documents: &[(String, String)]) -> Vec<(&str, &str)> {
    documents
        .iter()
        .map(|(topic, document)| (topic.as_str(), document.as_str()))
        .collect()
}

/// What is said of the documents that count as absent once the last one is there.
fn displaced(documents: &[(&str, &str)], topic: &str, document: &str) -> Vec<String> {
    let mut fleet = fleet(documents);
    let parsed = format!("config/{topic}");
    let parsed = ConfigTopic::parse(&parsed).unwrap();
    let refused = fleet.check(&[(parsed, document.as_bytes())]);
    let change = change(&mut fleet, topic, document).unwrap();
    assert_eq!(
        refused.is_err(),
        !change.displaced.is_empty(),
        "what displaces nothing may be published: {refused:?}"
    );
    assert_eq!(
        fleet.problems(),
        change.displaced,
        "and nothing else is wrong"
    );
    let problems = change.displaced.iter();
    problems
        .map(|problem| format!("{}: {}", problem.topic, problem.reason))
        .collect()
}

#[test]
fn cycles_and_deep_hierarchies_cannot_stand() {
    let links = chain(&["g1", "g2", "g3", "g4", "g5", "g6", "g7", "g8"]);
    let links = borrowed(&links);
    let (seven, eighth) = links.split_at(6);
    let one = |problems: Vec<String>| {
        assert_eq!(problems.len(), 1, "{problems:?}");
        problems[0].clone()
    };
    let problem = one(displaced(seven, eighth[0].0, eighth[0].1));
    assert!(
        problem.starts_with("config/group/g8: a hierarchy of 8 levels"),
        "{problem}"
    );
    let problem = one(displaced(&links[1..], links[0].0, links[0].1));
    assert!(
        problem.starts_with("config/group/g8: "),
        "the last by name, wherever it joins: {problem}"
    );
    let problem = one(displaced(seven, "group/g1", r#"{"parent":"g7"}"#));
    assert!(
        problem.contains("config/group/g7: parent \"g6\" is the group itself or below it"),
        "{problem}"
    );
    let problem = one(displaced(&[], "group/g1", r#"{"parent":"g1"}"#));
    assert!(problem.contains("a cycle"), "{problem}");
    let mut fleet = fleet(seven);
    apply(&mut fleet, "group/g7", r#"{"parent":"g1"}"#).unwrap();
    let group = fleet.group("g7").unwrap();
    assert_eq!(group.ancestors, ["g1"], "a group may move");
    assert_eq!(fleet.group("g1").unwrap().children, ["g2", "g7"]);
}

#[test]
fn a_group_has_at_most_100_children() {
    let children: Vec<_> = (100..200)
        .map(|n| (format!("group/c{n}"), r#"{"parent":"p"}"#.to_owned()))
        .collect();
    let documents = borrowed(&children);
    let problems = displaced(&documents, "group/c200", r#"{"parent":"p"}"#);
    assert!(
        problems[0].starts_with("config/group/c200: parent \"p\" has 100 children"),
        "{problems:?}"
    );
    let older = displaced(&documents, "group/a", r#"{"parent":"p"}"#);
    assert!(
        older[0].starts_with("config/group/c199: "),
        "the last by name gives way: {older:?}"
    );
    let mut fleet = fleet(&documents);
    let child = r#"{"parent":"p","level":"WARN"}"#;
    assert_eq!(
        change(&mut fleet, "group/c107", child).unwrap().displaced,
        [],
        "a child may change"
    );
}

#[test]
fn a_device_is_in_at_most_ten_groups_and_one_of_a_hierarchy() {
    let groups: Vec<_> = (0..10)
        .map(|n| (format!("member/g{n}/lamp"), "{}".to_owned()))
        .collect();
    let problems = displaced(&borrowed(&groups), "member/h/lamp", "{}");
    assert!(
        problems[0].starts_with("config/member/h/lamp: the device is in 10 groups"),
        "{problems:?}"
    );
    let tree = [
        ("group/a", r#"{"parent":"r"}"#),
        ("group/b", r#"{"parent":"r"}"#),
        ("member/a/lamp", "{}"),
    ];
    for group in ["b", "r"] {
        let problems = displaced(&tree, &format!("member/{group}/lamp"), "{}");
        assert!(
            problems[0].contains("is in \"a\" of the same hierarchy"),
            "{problems:?}"
        );
    }
    let apart = [
        ("group/a", r#"{"parent":"r"}"#),
        ("member/a/lamp", "{}"),
        ("member/b/lamp", "{}"),
    ];
    let problems = displaced(&apart, "group/b", r#"{"parent":"r"}"#);
    assert!(
        problems[0].starts_with("config/member/b/lamp: the device is in \"a\""),
        "joining hierarchies counts too: {problems:?}"
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
fn members_can_be_listed_piece_by_piece() {
    let mut fleet = fleet(&[
        ("group/leaf", r#"{"parent":"root"}"#),
        ("group/twig", r#"{"parent":"leaf"}"#),
        ("group/odd", r#"{"query":"name ~ /[13579]$/"}"#),
    ]);
    for n in 0..30 {
        let group = ["root", "leaf", "twig"][n % 3];
        let topic = format!("member/{group}/lamp-{n:02}");
        apply(&mut fleet, &topic, "{}").unwrap();
    }
    for (group, recursive, count) in [
        ("root", true, 30),
        ("root", false, 10),
        ("leaf", true, 20),
        ("odd", false, 15),
        ("none", true, 0),
    ] {
        for most in [1, 4, 7, 30, 31] {
            let mut listed: Vec<String> = Vec::new();
            loop {
                let after = listed.last().map(String::as_str);
                let more = fleet.members_behind(group, recursive, after, most);
                assert!(more.len() <= most);
                if more.is_empty() {
                    break;
                }
                listed.extend(more);
            }
            let all = match recursive {
                true => fleet.members(group),
                false => fleet
                    .direct_members(group)
                    .into_iter()
                    .map(str::to_owned)
                    .collect(),
            };
            assert_eq!((listed.len(), &listed), (count, &all), "{group} by {most}");
        }
    }
}
