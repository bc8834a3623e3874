//! The precedence of rules as a table: every pair of rules, what stands in each, and what follows.

use super::*;

/// A kind of rule, with a document that makes it speak with a level.
struct Speaker {
    name: &'static str,
    /// Rules of one rank are asked together: the most verbose wins.
    rank: usize,
    /// Documents for a level; for `nginx` alone if `refined`.
    documents: fn(level: &str, refined: bool) -> Vec<(String, String)>,
    /// The rule can say levels of single sources.
    refines: bool,
}

fn document(topic: &str, level: &str, refined: bool) -> Vec<(String, String)> {
    let document = match refined {
        true => format!(r#"{{"sources":{{"nginx":"{level}"}}}}"#),
        false => format!(r#"{{"level":"{level}"}}"#),
    };
    vec![(topic.to_owned(), document)]
}

fn temporary(topic: &str, level: &str, refined: bool) -> Vec<(String, String)> {
    let until = "2026-01-02T12:00:01Z";
    let document = match refined {
        true => {
            format!(r#"{{"level":"DISABLED","sources":{{"nginx":"{level}"}},"until":"{until}"}}"#)
        }
        false => format!(r#"{{"level":"{level}","until":"{until}"}}"#),
    };
    vec![(format!("override/{topic}"), document)]
}

/// Every rule but `disabled` and INFO, the one that is asked first at the top. Lamp is in leaf, below
/// root; in other; and in the dynamic groups all and lamps.
const SPEAKERS: [Speaker; 14] = [
    Speaker {
        name: "override of the device",
        rank: 0,
        documents: |l, r| temporary("device/lamp", l, r),
        refines: true,
    },
    Speaker {
        name: "override of a group",
        rank: 1,
        documents: |l, r| temporary("group/leaf", l, r),
        refines: true,
    },
    Speaker {
        name: "override of another hierarchy",
        rank: 1,
        documents: |l, r| temporary("group/other", l, r),
        refines: true,
    },
    Speaker {
        name: "override of a dynamic group",
        rank: 1,
        documents: |l, r| temporary("group/all", l, r),
        refines: true,
    },
    Speaker {
        name: "override of the default",
        rank: 2,
        documents: |l, r| temporary("default", l, r),
        refines: true,
    },
    Speaker {
        name: "device",
        rank: 3,
        documents: |l, r| document("device/lamp", l, r),
        refines: true,
    },
    Speaker {
        name: "principal",
        rank: 4,
        documents: |l, r| document("principal/alice", l, r),
        refines: true,
    },
    Speaker {
        name: "source address",
        rank: 5,
        documents: |l, r| document("source-ip/10.0.0.1", l, r),
        refines: true,
    },
    Speaker {
        name: "group",
        rank: 6,
        documents: |l, r| in_group("leaf", r#""parent":"root","#, l, r),
        refines: true,
    },
    Speaker {
        name: "group of another hierarchy",
        rank: 6,
        documents: |l, r| document("group/other", l, r),
        refines: true,
    },
    Speaker {
        name: "dynamic group",
        rank: 6,
        documents: |l, r| in_group("all", r#""query":"name ~ \"*\"","#, l, r),
        refines: true,
    },
    Speaker {
        name: "another dynamic group",
        rank: 6,
        documents: |l, r| in_group("lamps", r#""query":"name = lamp","#, l, r),
        refines: true,
    },
    Speaker {
        name: "source",
        rank: 7,
        documents: |l, _| document("source/nginx", l, false),
        refines: false,
    },
    Speaker {
        name: "default",
        rank: 8,
        documents: |l, r| document("default", l, r),
        refines: true,
    },
];

fn in_group(group: &str, more: &str, level: &str, refined: bool) -> Vec<(String, String)> {
    let documents = document(&format!("group/{group}"), level, refined);
    let with = |(topic, document): (String, String)| {
        (topic, document.replacen('{', &format!("{{{more}"), 1))
    };
    documents.into_iter().map(with).collect()
}

/// The fleet in which all of them can speak.
fn stage() -> Fleet {
    fleet(&[
        ("group/leaf", r#"{"parent":"root"}"#),
        ("group/all", r#"{"query":"name ~ \"*\""}"#),
        ("group/lamps", r#"{"query":"name = lamp"}"#),
        ("member/leaf/lamp", "{}"),
        ("member/other/lamp", "{}"),
    ])
}

fn nginx(documents: &[(String, String)]) -> Level {
    let mut fleet = stage();
    for (topic, document) in documents {
        apply(&mut fleet, topic, document).unwrap();
    }
    let level = fleet.resolve(&who("lamp")).level("nginx", noon());
    let explained = fleet.explain(&who("lamp"), Some("nginx"), noon());
    assert_eq!(explained.level, level, "{documents:?}: {}", explained.why);
    level
}

#[test]
fn every_rule_beats_every_rule_that_is_asked_after_it() {
    let levels = [Level::Disabled, Level::Error, Level::Debug];
    for (at, first) in SPEAKERS.iter().enumerate() {
        for second in &SPEAKERS[at + 1..] {
            for refined in [(false, false), (true, false), (false, true), (true, true)] {
                if (refined.0 && !first.refines) || (refined.1 && !second.refines) {
                    continue;
                }
                for says in levels {
                    for other in levels.into_iter().filter(|other| *other != says) {
                        let mut documents = (first.documents)(says.name(), refined.0);
                        documents.extend((second.documents)(other.name(), refined.1));
                        let expected = match first.rank == second.rank {
                            true => says.max(other),
                            false => says,
                        };
                        assert_eq!(
                            nginx(&documents),
                            expected,
                            "{} {says} against {} {other}: {documents:?}",
                            first.name,
                            second.name
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn disabling_everything_beats_every_rule_and_every_rule_beats_info() {
    for speaker in &SPEAKERS {
        for level in [Level::Error, Level::Debug] {
            let mut documents = (speaker.documents)(level.name(), false);
            assert_eq!(nginx(&documents), level, "{}", speaker.name);
            let disabled = format!(r#"{{"disabled":true,"level":"{level}"}}"#);
            documents.push(("default".into(), disabled));
            assert_eq!(nginx(&documents), Level::Disabled, "{}", speaker.name);
        }
    }
    assert_eq!(nginx(&[]), Level::Info);
}

#[test]
fn an_override_that_has_ended_leaves_the_word_to_the_next() {
    for (at, ended) in SPEAKERS
        .iter()
        .enumerate()
        .filter(|(_, speaker)| speaker.rank < 3)
    {
        for next in &SPEAKERS[at + 1..] {
            let documents = (ended.documents)("DEBUG", false);
            let over = |(topic, document): (String, String)| {
                (topic, document.replace("12:00:01", "12:00:00"))
            };
            let mut documents: Vec<_> = documents.into_iter().map(over).collect();
            documents.extend((next.documents)("ERROR", false));
            assert_eq!(
                nginx(&documents),
                Level::Error,
                "{} after {}",
                next.name,
                ended.name
            );
        }
    }
}

#[test]
fn a_document_that_refines_another_source_is_silent() {
    for speaker in SPEAKERS
        .iter()
        .filter(|speaker| speaker.rank > 2 && speaker.refines)
    {
        let documents = (speaker.documents)("DEBUG", true);
        let other =
            |(topic, document): (String, String)| (topic, document.replace("nginx", "sshd"));
        let documents: Vec<_> = documents.into_iter().map(other).collect();
        assert_eq!(nginx(&documents), Level::Info, "{}", speaker.name);
    }
}

/// A chain of seven groups, lamp in the last of them.
fn seven() -> Vec<(String, String)> {
    let mut documents: Vec<_> = (2..=7)
        .map(|n| {
            (
                format!("group/g{n}"),
                format!(r#"{{"parent":"g{}"}}"#, n - 1),
            )
        })
        .collect();
    documents.push(("member/g7/lamp".into(), "{}".into()));
    documents
}

#[test]
fn of_seven_nested_groups_the_nearest_that_speaks_decides() {
    for kind in ["group", "override/group"] {
        for nearest in 1..=7 {
            for farther in 1..nearest {
                let mut documents = seven();
                let mut says = |group: usize, level: &str| {
                    let parent = match (kind, group) {
                        ("group", 2..) => format!(r#","parent":"g{}""#, group - 1),
                        ("group", _) => String::new(),
                        _ => r#","until":"2026-01-02T12:00:01Z""#.to_owned(),
                    };
                    documents.push((
                        format!("{kind}/g{group}"),
                        format!(r#"{{"level":"{level}"{parent}}}"#),
                    ));
                };
                says(nearest, "ERROR");
                says(farther, "DEBUG");
                assert_eq!(
                    nginx(&documents),
                    Level::Error,
                    "{kind}: g{nearest} before g{farther}"
                );
            }
        }
    }
}

#[test]
fn across_hierarchies_of_any_depth_the_most_verbose_of_the_nearest_wins() {
    for depth in 1..=7 {
        let mut documents = seven();
        let parent = match depth {
            1 => String::new(),
            _ => format!(r#","parent":"g{}""#, depth - 1),
        };
        documents.push((
            format!("group/g{depth}"),
            format!(r#"{{"level":"WARN"{parent}}}"#),
        ));
        documents.push(("group/other".into(), r#"{"level":"ERROR"}"#.into()));
        assert_eq!(nginx(&documents), Level::Warn, "depth {depth}");
        documents.push(("group/other".into(), r#"{"level":"DEBUG"}"#.into()));
        assert_eq!(nginx(&documents), Level::Debug, "depth {depth}");
    }
}
