//! The table: one row for each normative statement, and what holds it to be whole and true.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::{table_v5, table_v311};

/// What holds the broker to a statement, or why nothing does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// These tests: functions of this suite or of the broker's own tests.
    Tests(&'static [&'static str]),
    /// The statement binds clients.
    Client,
    /// It binds a server that offers what this one does not.
    NotOffered(&'static str),
}

/// Identifier, in a few words what it is about, and what holds the broker to it.
pub(crate) type Row = (&'static str, &'static str, By);

/// Sections with the number of their statements, MQTT 3.1.1 appendix B. One of them is printed
/// as [MQTT-3-8.3-4]; it stands with its section here.
const SECTIONS_V311: [(&str, usize); 39] = [
    ("1.5.3", 3),
    ("2.2.2", 2),
    ("2.3.1", 7),
    ("3.1.0", 2),
    ("3.1.2", 24),
    ("3.1.3", 11),
    ("3.1.4", 5),
    ("3.2.0", 1),
    ("3.2.2", 6),
    ("3.3.1", 12),
    ("3.3.2", 3),
    ("3.3.4", 1),
    ("3.3.5", 2),
    ("3.6.1", 1),
    ("3.8.1", 1),
    ("3.8.3", 4),
    ("3.8.4", 6),
    ("3.9.3", 2),
    ("3.10.1", 1),
    ("3.10.3", 2),
    ("3.10.4", 6),
    ("3.12.4", 1),
    ("3.14.1", 1),
    ("3.14.4", 3),
    ("4.1.0", 2),
    ("4.3.1", 1),
    ("4.3.2", 2),
    ("4.3.3", 2),
    ("4.4.0", 1),
    ("4.5.0", 2),
    ("4.6.0", 6),
    ("4.7.1", 3),
    ("4.7.2", 1),
    ("4.7.3", 4),
    ("4.8.0", 2),
    ("6.0.0", 4),
    ("7.0.0", 2),
    ("7.1.1", 1),
    ("7.1.2", 1),
];

/// The same of MQTT 5.0. There is no [MQTT-2.2.1-1].
const SECTIONS_V5: [(&str, usize); 56] = [
    ("1.5.4", 3),
    ("1.5.5", 1),
    ("1.5.7", 1),
    ("2.1.3", 1),
    ("2.2.1", 6),
    ("2.2.2", 1),
    ("3.1.0", 2),
    ("3.1.2", 30),
    ("3.1.3", 12),
    ("3.1.4", 6),
    ("3.2.0", 2),
    ("3.2.2", 22),
    ("3.3.1", 13),
    ("3.3.2", 20),
    ("3.3.4", 10),
    ("3.4.2", 3),
    ("3.5.2", 3),
    ("3.6.1", 1),
    ("3.6.2", 3),
    ("3.7.2", 3),
    ("3.8.1", 1),
    ("3.8.3", 5),
    ("3.8.4", 8),
    ("3.9.2", 2),
    ("3.9.3", 2),
    ("3.10.1", 1),
    ("3.10.3", 2),
    ("3.10.4", 6),
    ("3.11.2", 2),
    ("3.11.3", 2),
    ("3.12.4", 1),
    ("3.14.0", 1),
    ("3.14.1", 1),
    ("3.14.2", 4),
    ("3.14.4", 3),
    ("3.15.1", 1),
    ("3.15.2", 3),
    ("4.1.0", 2),
    ("4.2.0", 1),
    ("4.3.1", 1),
    ("4.3.2", 5),
    ("4.3.3", 13),
    ("4.4.0", 2),
    ("4.5.0", 2),
    ("4.6.0", 6),
    ("4.7.0", 1),
    ("4.7.1", 2),
    ("4.7.2", 1),
    ("4.7.3", 4),
    ("4.8.2", 6),
    ("4.9.0", 3),
    ("4.12.0", 7),
    ("4.12.1", 2),
    ("4.13.1", 1),
    ("4.13.2", 1),
    ("6.0.0", 4),
];

/// Names of the test functions of the suite and of the broker.
fn tests() -> BTreeSet<String> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut names = BTreeSet::new();
    for folder in ["conformance", ".", "../broker/tests", "../broker/src"] {
        collect(&here.join(folder), &mut names);
    }
    names
}

fn collect(folder: &Path, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let mut is_test = false;
            for line in text.lines().map(str::trim) {
                let name = line.trim_start_matches("async ").strip_prefix("fn ");
                if let (true, Some(name)) = (is_test, name) {
                    names.insert(name.split('(').next().unwrap_or_default().to_owned());
                }
                is_test = (is_test && line.starts_with("#[")) || line.ends_with("test]");
            }
        }
    }
}

fn is_whole(rows: &[Row], sections: &[(&str, usize)], but: &[&str]) {
    let mut expected: Vec<String> = Vec::new();
    for (section, count) in sections {
        expected.extend((1..=*count).map(|n| format!("{section}-{n}")));
    }
    expected.retain(|id| !but.contains(&id.as_str()));
    let found: Vec<&str> = rows.iter().map(|(id, ..)| *id).collect();
    assert_eq!(found, expected, "one row for each statement, in order");
    let tests = tests();
    for (id, words, by) in rows {
        assert!(words.len() > 5, "{id} says what it is about");
        match by {
            By::Tests(names) => {
                assert!(!names.is_empty(), "{id}");
                for name in *names {
                    assert!(tests.contains(*name), "{id}: there is no test {name}");
                }
            }
            By::Client => {}
            By::NotOffered(why) => assert!(why.len() > 10, "{id}"),
        }
    }
    let count = |of: fn(&By) -> bool| rows.iter().filter(|(.., by)| of(by)).count();
    eprintln!(
        "{} statements: {} tested, {} of clients, {} of what is not offered",
        rows.len(),
        count(|by| matches!(by, By::Tests(_))),
        count(|by| matches!(by, By::Client)),
        count(|by| matches!(by, By::NotOffered(_))),
    );
}

#[test]
fn every_statement_of_mqtt_3_1_1_has_its_tests_or_a_reason_why_not() {
    is_whole(table_v311::ROWS, &SECTIONS_V311, &[]);
}

#[test]
fn every_statement_of_mqtt_5_has_its_tests_or_a_reason_why_not() {
    is_whole(table_v5::ROWS, &SECTIONS_V5, &["2.2.1-1"]);
}
