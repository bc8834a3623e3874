//! Dynamic groups: who is in them, and what a change asks anew.

use super::*;

fn report(fleet: &mut Fleet, device: &str, online: bool, attributes: &[(&str, &str)]) -> Affected {
    let attributes = attributes.iter().copied().collect();
    fleet.report(device, Some(Report { online, attributes }))
}

fn query(text: &str) -> String {
    serde_json::json!({"query": text, "level": "DEBUG"}).to_string()
}

#[test]
fn what_a_device_reports_decides_where_operators_say_nothing() {
    let mut fleet = fleet(&[("group/old", &query(r#"model = "x1" and version < "2.0""#))]);
    let affected = report(
        &mut fleet,
        "lamp",
        true,
        &[("model", "x1"), ("version", "1.10")],
    );
    assert_eq!(affected, Affected::Device("lamp".into()));
    assert_eq!(
        (fleet.members("old"), fleet.groups_of("lamp")),
        (vec!["lamp".into()], vec!["old".into()])
    );
    assert_eq!(fleet.resolve(&who("lamp")).level("x", 0), Level::Debug);
    assert_eq!(fleet.desired("lamp", 0).level, Level::Debug);
    let affected = report(
        &mut fleet,
        "lamp",
        false,
        &[("model", "x1"), ("version", "1.10")],
    );
    assert_eq!(
        affected,
        Affected::Nobody,
        "whether it is online is not asked"
    );
    apply(
        &mut fleet,
        "device/lamp",
        r#"{"attributes":{"model":"x2"}}"#,
    )
    .unwrap();
    assert_eq!(
        fleet.members("old"),
        [""; 0],
        "what operators say comes first"
    );
    apply(
        &mut fleet,
        "device/lamp",
        r#"{"attributes":{"version":"1.9"}}"#,
    )
    .unwrap();
    assert_eq!(fleet.members("old"), ["lamp"]);
    assert_eq!(fleet.report("lamp", None), Affected::Device("lamp".into()));
    assert_eq!(fleet.members("old"), [""; 0]);
}

#[test]
fn a_query_is_asked_of_devices_that_only_published() {
    let mut fleet = fleet(&[("group/lamps", &query("name ~ \"lamp*\""))]);
    assert_eq!(
        fleet.desired("lamp-7", 0).level,
        Level::Debug,
        "nobody has told of it yet"
    );
    assert_eq!(fleet.members("lamps"), [""; 0]);
    assert_eq!(
        fleet.report("lamp-7", Some(Report::default())),
        Affected::Nobody
    );
    assert_eq!(fleet.members("lamps"), ["lamp-7"]);
    let doors = change(&mut fleet, "group/lamps", &query("name ~ \"door*\"")).unwrap();
    assert_eq!(doors.affected, Affected::Devices(vec!["lamp-7".into()]));
    let louder = query("name ~ \"lamp*\"");
    apply(&mut fleet, "group/lamps", &louder).unwrap();
    let quieter = louder.replace("DEBUG", "ERROR");
    assert_eq!(
        apply(&mut fleet, "group/lamps", &quieter),
        Ok(Affected::Group("lamps".into()))
    );
    assert_eq!(
        apply(&mut fleet, "group/lamps", ""),
        Ok(Affected::Devices(vec!["lamp-7".into()]))
    );
    assert_eq!(fleet.desired("lamp-7", 0).level, Level::Info);
}

#[test]
fn a_dynamic_group_has_no_members_no_parent_and_no_children() {
    let mut fleet = fleet(&[
        ("group/child", r#"{"parent":"all"}"#),
        ("member/all/lamp", "{}"),
        ("member/child/door", "{}"),
    ]);
    assert_eq!(fleet.members("all"), ["door", "lamp"]);
    let change = change(&mut fleet, "group/all", &query("name = oven")).unwrap();
    let displaced: Vec<_> = change
        .displaced
        .iter()
        .map(|it| (it.topic.as_str(), it.fault))
        .collect();
    assert_eq!(
        displaced,
        [
            ("config/group/child", Fault::Invalid),
            ("config/member/all/lamp", Fault::Invalid)
        ]
    );
    assert_eq!(
        change.affected,
        Affected::Devices(vec!["door".into(), "lamp".into()])
    );
    assert_eq!(fleet.members("all"), [""; 0]);
    apply(&mut fleet, "group/all", "{}").unwrap();
    assert_eq!(
        (fleet.members("all"), fleet.problems()),
        (vec!["door".into(), "lamp".into()], vec![])
    );
}

#[test]
fn queries_ask_for_groups_by_membership_alone() {
    let mut fleet = fleet(&[
        ("group/hall", r#"{"parent":"eu"}"#),
        ("group/loud", &query("group = eu and not group = loud")),
        ("member/hall/lamp", "{}"),
    ]);
    assert_eq!(fleet.members("loud"), ["lamp"]);
    let moved = change(&mut fleet, "group/hall", r#"{"parent":"us"}"#).unwrap();
    assert_eq!(moved.affected, Affected::Group("hall".into()));
    assert_eq!(fleet.members("loud"), [""; 0]);
}

#[test]
fn groups_that_grant_go_by_what_operators_say() {
    let mut fleet = fleet(&[
        ("group/eu", r#"{"query":"site = eu or online"}"#),
        ("group/hall", r#"{"parent":"house"}"#),
        ("member/hall/lamp", "{}"),
        ("device/door", r#"{"attributes":{"site":"eu"}}"#),
    ]);
    report(&mut fleet, "lamp", true, &[("site", "eu")]);
    assert_eq!(fleet.groups_of("lamp"), ["eu", "hall", "house"]);
    assert_eq!(
        fleet.granting("lamp"),
        ["hall", "house"],
        "a device cannot let itself in"
    );
    assert!(fleet.grants("house", "lamp") && !fleet.grants("eu", "lamp"));
    assert!(fleet.grants("eu", "door") && !fleet.grants("house", "door"));
}

#[test]
fn a_device_is_in_the_oldest_dynamic_groups_as_far_as_there_is_room() {
    let mut documents: Vec<(String, String)> = (0..9)
        .map(|n| (format!("member/s{n}/lamp"), "{}".into()))
        .collect();
    documents.push((
        "group/a".into(),
        r#"{"query":"name = lamp","at":"2026-01-02T00:00:00Z"}"#.into(),
    ));
    documents.push(("group/b".into(), r#"{"query":"name = lamp"}"#.into()));
    let mut fleet = Fleet::new();
    for (topic, document) in &documents {
        apply(&mut fleet, topic, document).unwrap();
    }
    let dynamic = |fleet: &Fleet| fleet.device("lamp").unwrap().dynamic_groups.join(" ");
    assert_eq!(dynamic(&fleet), "b");
    let problems = fleet.problems();
    assert_eq!(problems[0].topic, "config/group/a");
    assert!(
        problems[0]
            .reason
            .starts_with("1 of the devices that match, \"lamp\" among them"),
        "{problems:?}"
    );
    apply(&mut fleet, "member/s9/lamp", "{}").unwrap();
    assert_eq!(dynamic(&fleet), "", "memberships come first");
    apply(&mut fleet, "member/s9/lamp", "").unwrap();
    apply(&mut fleet, "member/s8/lamp", "").unwrap();
    assert_eq!(
        (dynamic(&fleet).as_str(), fleet.problems()),
        ("a b", vec![])
    );
}

#[test]
fn of_more_than_100_dynamic_groups_the_oldest_stand() {
    let mut fleet = Fleet::new();
    for n in 100..200 {
        apply(
            &mut fleet,
            &format!("group/g{n}"),
            r#"{"query":"name = door"}"#,
        )
        .unwrap();
    }
    let more = change(&mut fleet, "group/a", &query("name = lamp")).unwrap();
    assert_eq!(
        more.displaced[0].topic, "config/group/g199",
        "the last by name"
    );
    assert_eq!(fleet.resolve(&who("lamp")).level("x", 0), Level::Debug);
    let young = r#"{"query":"name = lamp","at":"2026-01-01T00:00:00Z"}"#;
    assert_eq!(
        change(&mut fleet, "group/b", young).unwrap().displaced[0].topic,
        "config/group/b"
    );
    let error = fleet
        .check(&[(ConfigTopic::Group("c"), young.as_bytes())])
        .unwrap_err();
    assert_eq!(
        (error.fault, error.topic.as_str()),
        (Fault::Limit, "config/group/c")
    );
    apply(&mut fleet, "group/g150", "").unwrap();
    assert_eq!(fleet.problems().len(), 1);
}
