use std::fs::File;
use std::sync::Arc;

use super::*;
use crate::deliver::batch::Keep;
use crate::testing::decoded;

const CURRENT: &str = "events.ndjson";
const STEM: &str = "events";

fn open(folder: &Path, committed: Option<Position>) -> FileDestination {
    let config = FileConfig {
        rotate_bytes: 1000,
        keep_bytes: 3000,
        ..FileConfig::default()
    };
    let counter = || IntCounter::new("counter", "test").unwrap();
    FileDestination::open(folder, config, committed, counter(), counter()).unwrap()
}

fn one(message: &str) -> Batch {
    let mut batch = Batch::default();
    batch.push(Arc::new(decoded(message)), Keep::All, 0);
    batch
}

/// Delivers and commits; gives the position.
fn put(file: &mut FileDestination, message: &str) -> Position {
    assert_eq!(file.deliver(&one(message)), Outcome::Delivered);
    let promise = file.commit();
    promise.sync.unwrap()().unwrap();
    if promise.barrier {
        file.committed().unwrap();
    }
    promise.position.unwrap()
}

fn messages(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| json::read(line.as_bytes()).unwrap().message)
        .collect()
}

#[test]
fn what_lies_beyond_the_commit_is_cut() {
    let folder = tempfile::tempdir().unwrap();
    let mut file = open(folder.path(), None);
    let committed = put(&mut file, "kept");
    file.deliver(&one("not committed"));
    drop(file);
    let mut file = open(folder.path(), Some(committed));
    put(&mut file, "again");
    assert_eq!(messages(&folder.path().join(CURRENT)), ["kept", "again"]);
}

#[test]
fn without_a_commit_only_a_torn_line_is_cut() {
    let folder = tempfile::tempdir().unwrap();
    put(&mut open(folder.path(), None), "kept");
    let path = folder.path().join(CURRENT);
    let mut text = std::fs::read(&path).unwrap();
    text.extend_from_slice(&[b'x'; 200_000]);
    std::fs::write(&path, text).unwrap();
    put(&mut open(folder.path(), None), "next");
    assert_eq!(messages(&path), ["kept", "next"]);
}

#[test]
fn a_rotation_interrupted_before_the_next_commit_is_recognised() {
    let folder = tempfile::tempdir().unwrap();
    let mut file = open(folder.path(), None);
    let committed = put(&mut file, &"x".repeat(1000));
    assert_eq!(committed.number, 0);
    file.deliver(&one("not committed"));
    drop(file);
    let mut file = open(folder.path(), Some(committed));
    let position = put(&mut file, "second");
    assert_eq!(position.number, 1);
    assert_eq!(messages(&folder.path().join(CURRENT)), ["second"]);
    let rotated = folder.path().join("events-00000000.ndjson");
    assert_eq!(messages(&rotated), ["x".repeat(1000)]);
}

#[test]
fn a_rotation_that_only_renamed_is_finished() {
    let folder = tempfile::tempdir().unwrap();
    let mut file = open(folder.path(), None);
    let committed = put(&mut file, "first");
    drop(file);
    let rotated = folder.path().join("events-00000000.ndjson");
    std::fs::rename(folder.path().join(CURRENT), &rotated).unwrap();
    let mut file = open(folder.path(), Some(committed));
    assert_eq!(put(&mut file, "second").number, 1);
    assert_eq!(messages(&rotated), ["first"]);
}

#[test]
fn rotated_files_stay_within_their_bytes_and_the_newest_stays() {
    let folder = tempfile::tempdir().unwrap();
    let mut file = open(folder.path(), None);
    for _ in 0..10 {
        put(&mut file, &"x".repeat(1000));
    }
    let files = rotation::list(folder.path(), STEM, EXTENSION).unwrap();
    assert!(files.iter().map(|file| file.bytes).sum::<u64>() <= 3000);
    assert_eq!(files.last().unwrap().number, 9);
    assert_eq!(file.deleted.get(), 10 - files.len() as u64);
}

#[test]
fn a_file_that_somebody_truncated_goes_on_with_whole_lines() {
    let folder = tempfile::tempdir().unwrap();
    let mut file = open(folder.path(), None);
    put(&mut file, "one");
    let committed = put(&mut file, "two");
    drop(file);
    let path = folder.path().join(CURRENT);
    let text = std::fs::read(&path).unwrap();
    std::fs::write(&path, &text[..text.len() - 10]).unwrap();
    put(&mut open(folder.path(), Some(committed)), "three");
    assert_eq!(messages(&path), ["one", "three"]);
}

#[test]
fn a_failed_write_is_repeated_at_the_same_place() {
    let folder = tempfile::tempdir().unwrap();
    let mut file = open(folder.path(), None);
    put(&mut file, "one");
    let path = folder.path().join(CURRENT);
    let writable = std::mem::replace(&mut file.lines.file, Arc::new(File::open(&path).unwrap()));
    let outcome = file.deliver(&one("two"));
    assert!(matches!(outcome, Outcome::Retry { .. }), "{outcome:?}");
    file.lines.file = writable;
    put(&mut file, "two");
    assert_eq!(messages(&path), ["one", "two"]);
}
