//! Hierarchies, memberships and their limits.

use super::*;

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
