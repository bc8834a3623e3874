//! What stands is a function of the documents that are there, not of the way they came.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{
    random::{changes, take},
    *,
};

/// Everything that can be asked of a fleet of these tests.
fn answers(fleet: &Fleet) -> String {
    let groups: Vec<String> = (0..12).map(|n| format!("g{n}")).collect();
    let views: Vec<_> = groups.iter().map(|group| fleet.group(group)).collect();
    let members: Vec<_> = groups
        .iter()
        .map(|group| (fleet.members(group), fleet.direct_members(group)))
        .collect();
    let of_devices: Vec<_> = ["d0", "d1", "d2"]
        .into_iter()
        .map(|device| {
            let explained = fleet.explain(&who(device), Some("a"), 3_000_000_000);
            (
                fleet.device(device),
                fleet.groups_of(device),
                fleet.memberships(device),
                fleet.granting(device),
                explained,
                fleet.desired(device, 3),
            )
        })
        .collect();
    format!(
        "{:#?}",
        (
            fleet.groups(),
            views,
            members,
            of_devices,
            fleet.problems(),
            fleet.documents(),
            fleet.next_end(0)
        )
    )
}

fn first_difference(a: &str, b: &str) -> String {
    let mut lines = a.lines().zip(b.lines()).enumerate();
    let found = lines.find(|(_, (a, b))| a != b);
    format!("{found:?}")
}

/// The documents that are there in the end.
fn retained(changes: &[(String, String)]) -> BTreeMap<String, String> {
    let mut retained = BTreeMap::new();
    let mut scratch = Fleet::new();
    for (topic, document) in changes {
        if take(&mut scratch, topic, document).is_none() {
            continue;
        }
        match document.as_str() {
            "" => retained.remove(topic),
            _ => retained.insert(topic.clone(), document.clone()),
        };
    }
    retained
}

/// What may have changed for a device, as the router looks at it.
fn concerns(fleet: &Fleet, affected: &Affected, device: &str) -> bool {
    match affected {
        Affected::Nobody => false,
        Affected::Device(of) => of == device,
        Affected::Devices(devices) => devices.iter().any(|of| of == device),
        Affected::Group(group) => fleet.members(group).iter().any(|of| of == device),
        Affected::Everybody => true,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn the_way_documents_came_does_not_matter(
        changes in prop::collection::vec(changes(12), 1..50), seed in any::<u64>()
    ) {
        let mut fleet = Fleet::new();
        for (topic, document) in &changes {
            take(&mut fleet, topic, document);
        }
        let retained = retained(&changes);
        let shuffled = |topic: &String| topic.bytes().fold(seed, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
        let mut orders: Vec<Vec<(&String, &String)>> = vec![retained.iter().collect(), retained.iter().rev().collect(), retained.iter().collect()];
        orders[2].sort_by_key(|(topic, _)| shuffled(topic));
        for order in orders {
            let mut restarted = Fleet::new();
            for (topic, document) in order {
                prop_assert!(take(&mut restarted, topic, document).is_some());
            }
            prop_assert!(answers(&restarted) == answers(&fleet), "{}", first_difference(&answers(&restarted), &answers(&fleet)));
        }
    }

    #[test]
    fn a_change_names_everyone_whom_it_concerns(changes in prop::collection::vec(changes(6), 1..30)) {
        let mut fleet = Fleet::new();
        for device in ["d0", "d1"] {
            fleet.report(device, Some(Report::default()));
        }
        let told = |(topic, document): &&(String, String)| !topic.starts_with("report/") || !document.is_empty();
        for (topic, document) in changes.iter().filter(told) {
            let before: Vec<_> = ["d0", "d1"].map(|device| (fleet.desired(device, 0), fleet.direct_groups(device), fleet.groups_of(device))).into();
            let problems = fleet.problems();
            let Some(change) = take(&mut fleet, topic, document) else { continue };
            for (at, device) in ["d0", "d1"].into_iter().enumerate() {
                let now = (fleet.desired(device, 0), fleet.direct_groups(device), fleet.groups_of(device));
                if now != before[at] {
                    prop_assert!(concerns(&fleet, &change.affected, device), "{} {} concerns {}: {:?}", topic, document, device, change);
                }
            }
            let is_new = |problem: &&Problem| !problems.iter().any(|known| known.topic == problem.topic);
            let no_overflow = |problem: &&Problem| !problem.reason.contains("devices that match");
            for problem in fleet.problems().iter().filter(is_new).filter(no_overflow) {
                prop_assert!(change.displaced.contains(problem), "{:?} is not told by {:?}", problem, change);
            }
        }
    }

    #[test]
    fn what_is_checked_is_what_happens(changes in prop::collection::vec(changes(8), 1..40)) {
        let mut fleet = Fleet::new();
        for (topic, document) in changes.iter().filter(|(topic, _)| !topic.starts_with("report/")) {
            let parsed = format!("config/{topic}");
            let parsed = ConfigTopic::parse(&parsed).unwrap();
            let checked = fleet.check(&[(parsed, document.as_bytes())]);
            let before: Vec<Problem> = fleet.conflicts();
            match fleet.apply(parsed, document.as_bytes()) {
                Err(error) => prop_assert_eq!(checked, Err(error)),
                Ok(_) => {
                    let conflicts = fleet.conflicts();
                    let new: Vec<_> = conflicts.iter().filter(|it| !before.contains(it)).collect();
                    prop_assert_eq!(checked.is_err(), !new.is_empty(), "{} {}: {:?} {:?}", topic, document, checked, new);
                }
            }
        }
    }
}

#[test]
fn the_older_document_stands_and_the_younger_one_takes_over_when_it_goes() {
    let mut fleet = fleet(&[
        ("group/a", r#"{"parent":"r"}"#),
        ("group/b", r#"{"parent":"r","level":"DEBUG"}"#),
        ("member/a/lamp", r#"{"at":"2026-01-02T12:00:00Z"}"#),
    ]);
    let younger = change(
        &mut fleet,
        "member/b/lamp",
        r#"{"at":"2026-01-03T00:00:00Z"}"#,
    )
    .unwrap();
    assert_eq!(younger.displaced[0].topic, "config/member/b/lamp");
    assert_eq!(fleet.groups_of("lamp"), ["a", "r"]);
    let older = change(&mut fleet, "member/b/lamp", "{}").unwrap();
    assert_eq!(
        older.displaced[0].topic, "config/member/a/lamp",
        "without a time it counts as oldest"
    );
    assert_eq!(older.affected, Affected::Device("lamp".into()));
    assert_eq!(fleet.resolve(&who("lamp")).level("x", 0), Level::Debug);
    let gone = change(&mut fleet, "member/b/lamp", "").unwrap();
    assert_eq!(gone.restored, ["config/member/a/lamp"]);
    assert_eq!(
        (fleet.groups_of("lamp"), fleet.problems()),
        (vec!["a".into(), "r".into()], vec![])
    );
}

#[test]
fn a_group_keeps_its_parent_when_somebody_sets_its_level_later() {
    let mut fleet = fleet(&[
        (
            "group/a",
            r#"{"parent":"b","created":"2026-01-01T00:00:00Z"}"#,
        ),
        (
            "group/b",
            r#"{"parent":"a","created":"2026-01-02T00:00:00Z"}"#,
        ),
    ]);
    let level = r#"{"parent":"b","created":"2026-01-01T00:00:00Z","at":"2026-01-03T00:00:00Z","level":"WARN"}"#;
    assert_eq!(change(&mut fleet, "group/a", level).unwrap().displaced, []);
    assert_eq!(fleet.group("a").unwrap().parent, Some("b"));
    assert_eq!(fleet.problems()[0].topic, "config/group/b");
}

#[test]
fn a_move_in_two_steps_is_checked_as_a_whole() {
    let fleet = fleet(&[
        ("group/a", r#"{"parent":"r"}"#),
        ("group/b", r#"{"parent":"r"}"#),
        ("member/a/lamp", "{}"),
    ]);
    let join = ConfigTopic::Member {
        group: "b",
        device: "lamp",
    };
    let leave = ConfigTopic::Member {
        group: "a",
        device: "lamp",
    };
    let error = fleet.check(&[(join, b"{}")]).unwrap_err();
    assert_eq!(
        (error.topic.as_str(), error.fault),
        ("config/member/b/lamp", Fault::Conflict)
    );
    assert_eq!(fleet.check(&[(join, b"{}"), (leave, b"")]), Ok(()));
    let other = fleet.check(&[(
        ConfigTopic::Member {
            group: "0",
            device: "lamp",
        },
        b"{}",
    )]);
    assert_eq!(other, Ok(()), "another hierarchy");
    let error = fleet
        .check(&[(ConfigTopic::Group("0"), br#"{"parent":"0"}"#)])
        .unwrap_err();
    assert_eq!(
        (error.topic.as_str(), error.fault),
        ("config/group/0", Fault::Invalid)
    );
}
