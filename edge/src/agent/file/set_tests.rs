use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    FilesOptions,
    places::Places,
    set::{Block, FileSet, Pace, Taker},
};
use crate::{agent::lines::Line, clock};

/// Sources and lines as they came.
#[derive(Default)]
struct Seen(Vec<(String, String)>);

impl Taker for Seen {
    fn take(&mut self, source: &Arc<str>, line: Line<'_>, _: u64) {
        self.0.push((source.to_string(), line.text()));
    }

    fn end_block(&mut self, block: Block) {
        assert!(!block.source.is_empty());
    }
}

/// A directory of logs and a set that follows some of them; its clock is ours.
struct Bench {
    dir: tempfile::TempDir,
    options: FilesOptions,
    set: FileSet,
    now: Instant,
}

impl Bench {
    fn new(paths: &[&str], files: &[(&str, &str)]) -> Bench {
        Bench::with(paths, files, |_| {})
    }

    fn with(paths: &[&str], files: &[(&str, &str)], change: fn(&mut FilesOptions)) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let paths = paths
            .iter()
            .map(|path| format!("{}/{path}", dir.path().display()));
        let mut options = FilesOptions::new(paths);
        change(&mut options);
        let now = clock::mono();
        Bench {
            set: FileSet::new(options.compile().unwrap(), Places::default(), now),
            dir,
            options,
            now,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn append(&self, name: &str, text: &str) {
        use std::io::Write;
        let file = fs::File::options()
            .append(true)
            .create(true)
            .open(self.path(name));
        file.unwrap().write_all(text.as_bytes()).unwrap();
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).unwrap();
    }

    /// Rounds until there is nothing to be done at this time.
    fn read(&mut self) -> Vec<(String, String)> {
        let mut lines = Seen::default();
        while self.set.round(self.now, 100, &Pace::default(), &mut lines) <= self.now {}
        lines.0
    }

    fn messages(&mut self) -> Vec<String> {
        self.read()
            .into_iter()
            .map(|(_, message)| message)
            .collect()
    }

    /// Everything is idle, and watched by the kernel.
    fn settle(&mut self) {
        for _ in 0..30 {
            self.now += Duration::from_millis(100);
            assert!(self.read().is_empty());
        }
    }

    /// A new process that remembers what this one knew.
    fn restart(&mut self) {
        let json = serde_json::to_vec(&self.set.places(|_| None)).unwrap();
        let places = serde_json::from_slice(&json).unwrap();
        self.set = FileSet::new(self.options.compile().unwrap(), places, self.now);
    }
}

#[test]
fn files_are_found_by_pattern_and_named_by_template() {
    let mut bench = Bench::with(
        &["*.log"],
        &[
            ("a.log", "one\n"),
            ("b.log", "two\n"),
            ("c.txt", "no\n"),
            ("d.log", "no\n"),
        ],
        |options| {
            options.source = "x-{stem}".into();
            options.exclude = vec!["d.*".into()];
        },
    );
    let pair = |source: &str, line: &str| (source.to_owned(), line.to_owned());
    assert_eq!(bench.read(), [pair("x-a", "one"), pair("x-b", "two")]);
    bench.append("new.log", "three\n");
    assert_eq!(bench.read(), [pair("x-new", "three")]);
}

#[test]
fn idle_files_are_told_of_by_the_kernel_and_cost_no_looks() {
    let mut bench = Bench::new(&["*.log"], &[("a.log", "one\n"), ("b.log", "two\n")]);
    assert_eq!(bench.messages(), ["one", "two"]);
    bench.settle();
    let next = bench
        .set
        .round(bench.now, 100, &Pace::default(), &mut Seen::default());
    assert!(
        next - bench.now > Duration::from_secs(1),
        "{:?}",
        next - bench.now
    );
    bench.append("a.log", "three\n");
    assert_eq!(bench.messages(), ["three"]);
}

#[test]
fn directories_that_come_to_be_are_looked_through_at_once() {
    let mut bench = Bench::new(&["late/**/*.log", "later/app/*.log"], &[]);
    assert!(bench.messages().is_empty());
    fs::create_dir_all(bench.path("late/a/b")).unwrap();
    bench.append("late/a/b/x.log", "one\n");
    assert_eq!(bench.messages(), ["one"]);
    fs::create_dir(bench.path("later")).unwrap();
    assert!(bench.messages().is_empty());
    fs::create_dir(bench.path("later/app")).unwrap();
    bench.append("later/app/x.log", "two\n");
    assert_eq!(bench.messages(), ["two"]);
}

#[test]
fn rotation_of_an_idle_file_is_seen_at_once() {
    let mut bench = Bench::new(&["*.log"], &[("a.log", "one\n")]);
    assert_eq!(bench.messages(), ["one"]);
    bench.settle();
    bench.rename("a.log", "a.log.1");
    bench.append("a.log.1", "two\n");
    bench.append("a.log", "three\n");
    assert_eq!(bench.messages(), ["two", "three"]);
}

#[test]
fn rotated_files_that_match_the_pattern_are_not_read_again() {
    for rotated in ["a.log.1", "a-20260101.log"] {
        let mut bench = Bench::new(&["*.log*"], &[("a.log", "one\n")]);
        assert_eq!(bench.messages(), ["one"]);
        bench.rename("a.log", rotated);
        bench.append("a.log", "two\n");
        assert_eq!(bench.messages(), ["two"], "{rotated}");
        // Long after it was closed, and after a restart, too.
        bench.now += Duration::from_secs(200);
        assert!(bench.read().is_empty(), "{rotated}");
        bench.now += Duration::from_secs(200);
        assert!(bench.read().is_empty(), "{rotated}");
        bench.restart();
        assert!(bench.read().is_empty(), "{rotated}");
        bench.append("a.log", "three\n");
        bench.now += Duration::from_secs(10);
        assert_eq!(bench.messages(), ["three"], "{rotated}");
    }
}

#[test]
fn a_copy_that_rotation_makes_is_not_read_as_a_new_file() {
    let mut bench = Bench::new(&["*.log"], &[("a.log", "one\ntwo\n")]);
    assert_eq!(bench.messages(), ["one", "two"]);
    fs::copy(bench.path("a.log"), bench.path("a-20260101.log")).unwrap();
    bench.now += Duration::from_secs(100);
    assert!(bench.read().is_empty());
    fs::File::options()
        .write(true)
        .open(bench.path("a.log"))
        .unwrap()
        .set_len(0)
        .unwrap();
    bench.append("a.log", "3\n");
    bench.now += Duration::from_secs(100);
    assert_eq!(bench.messages(), ["3"]);
    bench.restart();
    assert!(bench.read().is_empty());
}

#[test]
fn a_file_that_has_two_names_is_read_once() {
    let mut bench = Bench::new(&["*.log"], &[("a.log", "one\n")]);
    std::os::unix::fs::symlink(bench.path("a.log"), bench.path("b.log")).unwrap();
    fs::hard_link(bench.path("a.log"), bench.path("c.log")).unwrap();
    assert_eq!(bench.messages(), ["one"]);
    bench.append("b.log", "two\n");
    bench.now += Duration::from_secs(1);
    assert_eq!(bench.messages(), ["two"]);
}

#[test]
fn the_target_of_a_link_is_followed_through_its_own_rotation() {
    let mut bench = Bench::new(&["link.log"], &[("0.log", "one\n")]);
    std::os::unix::fs::symlink(bench.path("0.log"), bench.path("link.log")).unwrap();
    assert_eq!(bench.messages(), ["one"]);
    bench.append("0.log", "two\n");
    bench.rename("0.log", "0.log.20260101-2");
    bench.append("0.log", "three\n");
    bench.rename("0.log", "0.log.20260101-3");
    bench.append("0.log", "four\n");
    bench.now += Duration::from_secs(20);
    assert_eq!(bench.messages(), ["two", "three", "four"]);
}

#[test]
fn few_descriptors_are_enough_for_many_files() {
    let names: Vec<String> = (0..40).map(|n| format!("f{n:02}.log")).collect();
    let files: Vec<(&str, &str)> = names.iter().map(|name| (&**name, "one\n")).collect();
    let mut bench = Bench::with(&["*.log"], &files, |options| options.max_open = 5);
    assert_eq!(bench.read().len(), 40);
    bench.settle();
    assert!(bench.set.open_files() <= 5, "{}", bench.set.open_files());
    for name in &names {
        bench.append(name, "two\n");
    }
    // Rotated while it was closed.
    bench.rename("f00.log", "f00.log.1");
    bench.append("f00.log", "three\n");
    let read = bench.read();
    assert_eq!(read.len(), 41);
    let of_first: Vec<&str> = read
        .iter()
        .filter(|(s, _)| s == "f00")
        .map(|(_, m)| &**m)
        .collect();
    assert_eq!(of_first, ["two", "three"]);
    bench.settle();
    assert!(bench.set.open_files() <= 5);
}

#[test]
fn a_file_that_was_removed_is_let_go_and_one_in_its_place_is_new() {
    let mut bench = Bench::new(&["*.log"], &[("a.log", "one\n")]);
    assert_eq!(bench.messages(), ["one"]);
    bench.append("a.log", "two\nunfinished");
    fs::remove_file(bench.path("a.log")).unwrap();
    assert_eq!(bench.messages(), ["two"]);
    bench.now += Duration::from_secs(10);
    assert_eq!(bench.messages(), ["unfinished"]);
    bench.now += Duration::from_secs(100);
    assert!(bench.read().is_empty());
    assert_eq!(bench.set.places(|_| None).files, BTreeMap::new());
    // It may well get the same inode.
    bench.append("a.log", "new\n");
    assert_eq!(bench.messages(), ["new"]);
}

#[test]
fn a_restart_finds_what_was_rotated_away_although_nothing_is_at_the_path() {
    let mut bench = Bench::new(&["*.log"], &[("a.log", "one\n")]);
    assert_eq!(bench.messages(), ["one"]);
    bench.append("a.log", "two\n");
    bench.rename("a.log", "a.log.1");
    bench.restart();
    assert_eq!(bench.messages(), ["two"]);
    assert!(bench.set.take_notes().is_empty());
}

#[test]
fn the_rest_of_a_file_that_was_copied_and_truncated_is_read_from_the_copy() {
    for while_away in [false, true] {
        let mut bench = Bench::new(&["a.log"], &[("a.log", "one\n")]);
        assert_eq!(bench.messages(), ["one"]);
        bench.append("a.log", "two\nthree\n");
        fs::copy(bench.path("a.log"), bench.path("a.log.1")).unwrap();
        fs::File::options()
            .write(true)
            .open(bench.path("a.log"))
            .unwrap()
            .set_len(0)
            .unwrap();
        bench.append("a.log", "four\n");
        if while_away {
            bench.restart();
        }
        assert_eq!(bench.messages(), ["two", "three", "four"], "{while_away}");
        assert!(bench.set.take_notes().is_empty());
        bench.restart();
        assert!(bench.read().is_empty());
    }
}

#[test]
fn copies_that_were_made_between_two_looks_are_read_in_their_order() {
    let mut bench = Bench::new(&["a.log"], &[("a.log", "one\n")]);
    assert_eq!(bench.messages(), ["one"]);
    let rotate = |bench: &Bench| {
        for n in (1..9).rev() {
            let name = |n: u32| bench.path(&format!("a.log.{n}"));
            let _ = fs::rename(name(n), name(n + 1));
        }
        fs::copy(bench.path("a.log"), bench.path("a.log.1")).unwrap();
        let log = fs::File::options().write(true).open(bench.path("a.log"));
        log.unwrap().set_len(0).unwrap();
    };
    // All of it was read; then nothing of it.
    rotate(&bench);
    for text in ["two\n", "three\n"] {
        bench.append("a.log", text);
        rotate(&bench);
    }
    bench.now += Duration::from_secs(1);
    assert_eq!(bench.messages(), ["two", "three"]);
    bench.append("a.log", "four\n");
    rotate(&bench);
    bench.append("a.log", "five\n");
    bench.now += Duration::from_secs(1);
    assert_eq!(bench.messages(), ["four", "five"]);
    assert!(bench.set.take_notes().is_empty());
}

#[test]
fn a_file_that_appears_and_is_rotated_at_once_is_read_from_its_beginning() {
    let mut bench = Bench::new(&["a.log"], &[("a.log.7", "old\n")]);
    assert!(bench.read().is_empty());
    for (text, to) in [("one\n", "a.log.2"), ("two\n", "a.log.1")] {
        bench.append("a.log", text);
        bench.rename("a.log", to);
    }
    bench.append("a.log", "three\n");
    bench.now += Duration::from_secs(1);
    assert_eq!(bench.messages(), ["one", "two", "three"]);
    assert!(bench.set.take_notes().is_empty());
}

#[test]
fn what_was_written_and_copied_away_from_an_empty_file_is_read() {
    for while_away in [false, true] {
        let mut bench = Bench::new(&["a.log"], &[("a.log", ""), ("a.log.7", "old\n")]);
        assert!(bench.read().is_empty());
        let old = fs::File::options().append(true).open(bench.path("a.log.7"));
        old.unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        bench.append("a.log", "one\n");
        fs::copy(bench.path("a.log"), bench.path("a.log.1")).unwrap();
        let copy = fs::File::options().append(true).open(bench.path("a.log.1"));
        let later = std::time::SystemTime::now() + Duration::from_secs(1);
        copy.unwrap().set_modified(later).unwrap();
        let log = fs::File::options().write(true).open(bench.path("a.log"));
        log.unwrap().set_len(0).unwrap();
        if while_away {
            bench.restart();
        }
        bench.now += Duration::from_secs(1);
        assert_eq!(bench.messages(), ["one"], "{while_away}");
        bench.restart();
        assert!(bench.read().is_empty());
    }
}

#[test]
fn a_gap_that_cannot_be_filled_is_told() {
    let rotate = |bench: &Bench| {
        let _ = fs::remove_file(bench.path("a.log.2"));
        let _ = fs::rename(bench.path("a.log.1"), bench.path("a.log.2"));
        bench.rename("a.log", "a.log.1");
    };
    for while_away in [false, true] {
        let mut bench = Bench::new(&["a.log"], &[("a.log", "one\n")]);
        assert_eq!(bench.messages(), ["one"]);
        for text in ["two\n", "three\n", "four\n", "five\n"] {
            rotate(&bench);
            bench.append("a.log", text);
        }
        if while_away {
            bench.restart();
        }
        // "two" is gone for ever.
        assert_eq!(bench.messages(), ["three", "four", "five"], "{while_away}");
        let notes = bench.set.take_notes();
        assert!(notes[0].contains("a.log"), "{notes:?}");
        assert!(notes[0].contains("may be missing") || notes[0].contains("may be gone"));
    }
}

#[test]
fn what_was_compressed_meanwhile_is_named_as_missing() {
    let mut bench = Bench::new(&["a.log"], &[("a.log", "one\n")]);
    assert_eq!(bench.messages(), ["one"]);
    bench.rename("a.log", "a.log.1.gz");
    bench.append("a.log", "two\n");
    bench.restart();
    assert_eq!(bench.messages(), ["two"]);
    let notes = bench.set.take_notes();
    assert!(
        notes[0].contains("1 rotated files are compressed"),
        "{notes:?}"
    );
}

#[test]
fn a_file_that_may_not_be_read_is_tried_again() {
    if rustix::process::geteuid().is_root() {
        eprintln!("SKIP: root may read everything");
        return;
    }
    let mut bench = Bench::new(&["a.log"], &[("a.log", "one\n")]);
    let mode = |mode| fs::set_permissions(bench.path("a.log"), fs::Permissions::from_mode(mode));
    mode(0o000).unwrap();
    mode(0o600).unwrap();
    bench.now += Duration::from_secs(5);
    assert_eq!(bench.messages(), ["one"]);
}

#[test]
fn a_hole_that_truncation_under_a_writer_left_is_passed_over() {
    use std::os::unix::fs::FileExt;
    let mut bench = Bench::new(&["a.log"], &[("a.log", "first line\n")]);
    let writer = fs::File::options()
        .write(true)
        .open(bench.path("a.log"))
        .unwrap();
    assert_eq!(bench.messages(), ["first line"]);
    writer.set_len(0).unwrap();
    // It goes on where it was: a terabyte of nothing, then a line.
    writer.write_all_at(b"second\n", 1 << 40).unwrap();
    bench.now += Duration::from_secs(20);
    assert_eq!(bench.messages(), ["second"]);
    bench.restart();
    writer.write_all_at(b"third\n", (1 << 40) + 7).unwrap();
    assert_eq!(bench.messages(), ["third"]);
}
