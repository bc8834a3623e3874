//! House rules that hold for every file: who may import whom, what is named where, sizes, heads.
//! A rule is checked here or it is not one.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms: folder, package, and which packages of ours it may know.
const ROOMS: [(&str, &str, &[&str]); 10] = [
    ("schemas", "thinglog-schemas", &[]),
    ("broker/journal", "thinglog-journal", &[]),
    (
        "edge",
        "thinglog-edge",
        &["thinglog-schemas", "thinglog-journal"],
    ),
    (
        "edge/c",
        "thinglog-c",
        &["thinglog-schemas", "thinglog-edge"],
    ),
    (
        "broker",
        "thinglog-broker",
        &["thinglog-schemas", "thinglog-journal"],
    ),
    ("router/store", "thinglog-store", &["thinglog-schemas"]),
    ("router/dashboard", "thinglog-dashboard", &[]),
    (
        "router",
        "thinglog-router",
        &["thinglog-schemas", "thinglog-store", "thinglog-dashboard"],
    ),
    ("compose", "thinglog", ALL),
    ("tests", "thinglog-tests", ALL),
];
const ALL: &[&str] = &[
    "thinglog-schemas",
    "thinglog-journal",
    "thinglog-edge",
    "thinglog-broker",
    "thinglog-store",
    "thinglog-dashboard",
    "thinglog-router",
];

/// Beyond this a file is more than one thing; a list of tests may be longer.
const MOST_LINES: usize = 600;
const MOST_LINES_OF_TESTS: usize = 800;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// All Rust files below `folder`.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() {
            if name != "target"
                && name != "thinglog-data"
                && !name.to_string_lossy().starts_with('.')
            {
                found.extend(sources(&path));
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The files of a room, without those of a room within it.
fn sources_of(folder: &str) -> Vec<PathBuf> {
    let inner = |path: &PathBuf| {
        ROOMS.iter().any(|(other, ..)| {
            *other != folder
                && other.starts_with(&format!("{folder}/"))
                && path.starts_with(root().join(other))
        })
    };
    sources(&root().join(folder))
        .into_iter()
        .filter(|path| !inner(path))
        .collect()
}

/// Whether a file is nothing but tests.
fn is_test(path: &Path) -> bool {
    let name = path.file_stem().unwrap().to_string_lossy();
    let folder = |part: &str| {
        path.strip_prefix(root())
            .unwrap()
            .iter()
            .any(|folder| folder == part)
    };
    name == "tests" || name.ends_with("_tests") || folder("tests")
}

/// The lines of a file that are code that runs: numbered from 1, without comments and without the
/// tests at its end.
fn code(path: &Path) -> Vec<(usize, String)> {
    let text = fs::read_to_string(path).unwrap();
    let tests = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    let lines = text[..tests]
        .lines()
        .enumerate()
        .map(|(n, line)| (n + 1, line));
    lines
        .map(|(n, line)| {
            (
                n,
                line.split_once("//")
                    .map_or(line, |(code, _)| code)
                    .to_owned(),
            )
        })
        .filter(|(_, line)| !line.trim().is_empty())
        .collect()
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root())
        .unwrap_or(path)
        .display()
        .to_string()
}

#[track_caller]
fn none(rule: &str, broken: Vec<String>) {
    assert!(broken.is_empty(), "{rule}:\n  {}", broken.join("\n  "));
}

/// Lines of code that contain one of `words`.
fn named(files: &[PathBuf], words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for file in files {
        for (n, line) in code(file) {
            for word in words.iter().filter(|word| line.contains(**word)) {
                found.push(format!("{}:{n}: {word}", shown(file)));
            }
        }
    }
    found
}

#[test]
fn manifests_depend_on_allowed_rooms_only() {
    let mut broken = Vec::new();
    for (folder, package, allowed) in ROOMS {
        let text = fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
        let manifest: toml::Table = text.parse().unwrap();
        assert_eq!(manifest["package"]["name"].as_str(), Some(package));
        for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let Some(table) = manifest.get(kind).and_then(|table| table.as_table()) else {
                continue;
            };
            let ours = table.keys().filter(|name| name.starts_with("thinglog"));
            let foreign = ours.filter(|name| !allowed.contains(&name.as_str()));
            broken.extend(foreign.map(|name| format!("{folder}/Cargo.toml: {kind}.{name}")));
        }
    }
    none("a room knows only the rooms it is allowed to", broken);
}

#[test]
fn code_names_allowed_rooms_only() {
    let mut broken = Vec::new();
    for (folder, package, allowed) in ROOMS {
        let foreign = ALL
            .iter()
            .filter(|name| **name != package && !allowed.contains(name));
        let idents: Vec<String> = foreign
            .map(|name| format!("{}::", name.replace('-', "_")))
            .collect();
        let idents: Vec<&str> = idents.iter().map(String::as_str).collect();
        broken.extend(named(&sources_of(folder), &idents));
    }
    none("a room names only the rooms it is allowed to", broken);
}

#[test]
fn the_table_of_rooms_is_complete() {
    let text = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let manifest: toml::Table = text.parse().unwrap();
    let members = manifest["workspace"]["members"].as_array().unwrap();
    let members: BTreeSet<&str> = members
        .iter()
        .filter_map(|member| member.as_str())
        .collect();
    assert_eq!(members, ROOMS.iter().map(|(folder, ..)| *folder).collect());
}

#[test]
fn only_the_c_interface_may_be_unsafe() {
    let mut broken = Vec::new();
    for (folder, ..) in ROOMS.iter().filter(|(folder, ..)| *folder != "edge/c") {
        let text = fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
        let manifest: toml::Table = text.parse().unwrap();
        if manifest["lints"].get("workspace") != Some(&toml::Value::Boolean(true)) {
            broken.push(format!("{folder}/Cargo.toml: lints.workspace"));
        }
    }
    let workspace: toml::Table = fs::read_to_string(root().join("Cargo.toml"))
        .unwrap()
        .parse()
        .unwrap();
    let lints = &workspace["workspace"]["lints"]["rust"];
    assert_eq!(lints["unsafe_code"].as_str(), Some("forbid"));
    none("every other room has the lints of the workspace", broken);
}

#[test]
fn the_codec_crate_stays_in_the_codec() {
    let codec = root().join("broker/src/codec");
    let mut files = sources(&root());
    files.retain(|file| !file.starts_with(&codec) && !file.ends_with("tests/tidy.rs"));
    none(
        "rumqttd is named in broker/src/codec only",
        named(&files, &["rumqttd"]),
    );
    let users = ROOMS.iter().filter(|(folder, ..)| {
        let text = fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
        text.lines().any(|line| line.starts_with("rumqttd"))
    });
    assert_eq!(
        users.map(|(folder, ..)| *folder).collect::<Vec<_>>(),
        ["broker"]
    );
}

#[test]
fn pure_rooms_have_no_clock_no_files_no_runtime() {
    let impure = [
        "std::fs",
        "std::net",
        "tokio",
        "SystemTime::now",
        "Instant::now",
        "std::thread",
    ];
    // What measures a room needs the clock that the room itself must not ask.
    let measures = |file: &Path| {
        file.parent()
            .is_some_and(|folder| folder.ends_with("benches"))
    };
    let but_tests = |folder| {
        let files = sources_of(folder).into_iter();
        files
            .filter(|file| !is_test(file) && !measures(file))
            .collect::<Vec<_>>()
    };
    none("schemas is pure", named(&but_tests("schemas"), &impure));
    let foreign = ["tokio", "rumqtt", "SystemTime::now"];
    none(
        "the journal has no runtime, no MQTT, no time of day",
        named(&but_tests("broker/journal"), &foreign),
    );
}

#[test]
fn nothing_is_left_to_be_done_or_unbounded() {
    let mut files = sources(&root());
    files.retain(|file| !file.ends_with("tests/tidy.rs"));
    let unfinished = named(&files, &["todo!(", "unimplemented!(", "dbg!("]);
    none("nothing unfinished", unfinished);
    let running: Vec<PathBuf> = files
        .iter()
        .filter(|file| !is_test(file))
        .cloned()
        .collect();
    let unbounded = named(&running, &["unbounded_channel", "mpsc::channel()"]);
    none("nothing unbounded", unbounded);
    let mut notes = Vec::new();
    for file in &files {
        for (n, line) in fs::read_to_string(file).unwrap().lines().enumerate() {
            let marked = ["TODO", "FIXME"].iter().any(|mark| line.contains(mark));
            if marked {
                notes.push(format!("{}:{}: {}", shown(file), n + 1, line.trim()));
            }
        }
    }
    none("a note to come back is not a place to leave things", notes);
}

#[test]
fn every_file_says_what_it_is_for() {
    let mut broken = Vec::new();
    // A module's own tests are described by the module.
    let described = |file: &PathBuf| !is_test(file) || file.starts_with(root().join("tests"));
    for file in sources(&root()).into_iter().filter(described) {
        let text = fs::read_to_string(&file).unwrap();
        let head = text
            .lines()
            .take_while(|line| line.starts_with("//!"))
            .collect::<Vec<_>>();
        if head.is_empty() || head[0].trim_start_matches("//!").trim().len() < 10 {
            broken.push(shown(&file));
        }
    }
    none("every file has a head", broken);
}

#[test]
fn no_file_grows_beyond_one_thing() {
    let long = sources(&root()).into_iter().filter_map(|file| {
        let lines = fs::read_to_string(&file).unwrap().lines().count();
        let most = if is_test(&file) {
            MOST_LINES_OF_TESTS
        } else {
            MOST_LINES
        };
        (lines > most).then(|| format!("{}: {lines} lines, {most} allowed", shown(&file)))
    });
    none("a file is one thing", long.collect());
}

#[test]
fn the_top_level_holds_the_rooms_and_little_else() {
    let rooms = ROOMS
        .iter()
        .filter_map(|(folder, ..)| folder.split('/').next());
    let files = [
        "Cargo.toml",
        "Cargo.lock",
        "README.md",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "LICENSE",
        "clippy.toml",
    ];
    // Not under version control: what building and running leave behind.
    let made = ["target", "thinglog-data"];
    let allowed: BTreeSet<&str> = rooms.chain(files).chain(made).collect();
    let entries = fs::read_dir(root()).unwrap().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let foreign = names.filter(|name| !name.starts_with('.') && !allowed.contains(name.as_str()));
    none("the top level is for rooms", foreign.collect());
}
