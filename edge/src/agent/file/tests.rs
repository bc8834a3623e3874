use std::{
    collections::HashSet,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use super::{
    follow::{Follower, Found},
    open,
    options::StartAt,
    position,
};
use crate::{
    agent::{entries::TextOptions, lines::Line},
    clock,
};

/// A log file with a writer, and a follower whose clock is ours.
struct Bench {
    dir: tempfile::TempDir,
    writer: File,
    follower: Follower,
    text: Arc<TextOptions>,
    now: Instant,
}

impl Bench {
    fn new(start: StartAt) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.log");
        let writer = File::options()
            .append(true)
            .create(true)
            .open(&path)
            .unwrap();
        let now = clock::mono();
        let text = Arc::new(TextOptions::default());
        Bench {
            follower: Follower::new(&path, text.clone(), start, &[], &HashSet::new(), now),
            dir,
            writer,
            text,
            now,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&mut self, text: &str) {
        self.writer.write_all(text.as_bytes()).unwrap();
    }

    /// What logrotate does by default: rename, create anew.
    fn rotate(&mut self, to: &str) {
        fs::rename(self.path("app.log"), self.path(to)).unwrap();
        self.writer = File::create(self.path("app.log")).unwrap();
    }

    /// Reads until there is nothing more.
    fn read(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut buffer = vec![0; 64 << 10];
        loop {
            let each = |line: Line<'_>, _| lines.push(line.text());
            let found = self
                .follower
                .read(self.now, &mut buffer, &HashSet::new(), each);
            if found.unwrap() != Found::More {
                return lines;
            }
        }
    }

    /// A new process that remembers what this one knew.
    fn restart(&mut self) {
        let bytes = position::encode(&self.follower.positions());
        self.follower = Follower::new(
            &self.path("app.log"),
            self.text.clone(),
            StartAt::Beginning,
            &position::decode(&bytes).unwrap(),
            &HashSet::new(),
            self.now,
        );
    }
}

#[test]
fn lines_come_as_they_are_written_and_whole() {
    let mut bench = Bench::new(StartAt::Beginning);
    bench.write("one\ntw");
    assert_eq!(bench.read(), ["one"]);
    bench.write("o\nthree\n");
    assert_eq!(bench.read(), ["two", "three"]);
    assert!(bench.read().is_empty());
}

#[test]
fn rotation_by_rename_loses_nothing_even_of_a_writer_that_notices_late() {
    let mut bench = Bench::new(StartAt::Beginning);
    bench.write("one\n");
    assert_eq!(bench.read(), ["one"]);
    bench.write("two\n");
    let mut late = bench.writer.try_clone().unwrap();
    bench.rotate("app.log.1");
    bench.write("three\n");
    assert_eq!(bench.read(), ["two", "three"]);
    late.write_all(b"late\n").unwrap();
    assert_eq!(bench.read(), ["late"]);
}

#[test]
fn files_that_come_and_go_between_two_looks_are_read() {
    let mut bench = Bench::new(StartAt::Beginning);
    bench.write("one\n");
    assert_eq!(bench.read(), ["one"]);
    let rotated = bench.path("app.log.1");
    fs::rename(bench.path("app.log"), &rotated).unwrap();
    assert!(bench.read().is_empty());
    for text in ["two\n", "three\n"] {
        // Compressed, as it were, and the next one is made and rotated before anybody looks.
        fs::remove_file(&rotated).unwrap();
        fs::write(bench.path("app.log"), text).unwrap();
        fs::rename(bench.path("app.log"), &rotated).unwrap();
        assert_eq!(bench.read(), [text.trim()]);
    }
}

#[test]
fn a_file_that_is_copied_and_removed_is_not_read_twice() {
    let mut bench = Bench::new(StartAt::Beginning);
    bench.write("one\n");
    assert_eq!(bench.read(), ["one"]);
    fs::copy(bench.path("app.log"), bench.path("app.log.1")).unwrap();
    fs::remove_file(bench.path("app.log")).unwrap();
    assert!(bench.read().is_empty());
}

#[test]
fn an_old_file_is_closed_after_a_while_and_its_last_line_counts() {
    let mut bench = Bench::new(StartAt::Beginning);
    bench.write("one\nunfinished");
    assert_eq!(bench.read(), ["one"]);
    bench.rotate("app.log.1");
    assert!(bench.read().is_empty());
    assert_eq!(bench.follower.positions().len(), 2);
    bench.now += Duration::from_secs(60);
    assert_eq!(bench.read(), ["unfinished"]);
    assert_eq!(bench.follower.positions().len(), 1);
}

#[test]
fn rotation_by_copy_and_truncate_is_followed() {
    let mut bench = Bench::new(StartAt::Beginning);
    bench.write("one\ntwo\n");
    assert_eq!(bench.read(), ["one", "two"]);
    bench.writer.set_len(0).unwrap();
    bench.writer = File::options()
        .append(true)
        .open(bench.path("app.log"))
        .unwrap();
    bench.write("3\n");
    assert_eq!(bench.read(), ["3"]);
}

#[test]
fn a_file_that_was_overwritten_with_more_than_before_is_read_from_its_start() {
    let mut bench = Bench::new(StartAt::Beginning);
    bench.write("one\n");
    assert_eq!(bench.read(), ["one"]);
    fs::write(bench.path("app.log"), "another file\nwith more lines\n").unwrap();
    assert_eq!(bench.read(), ["another file", "with more lines"]);
}

#[test]
fn a_restart_goes_on_where_the_last_one_stood() {
    let mut bench = Bench::new(StartAt::Beginning);
    bench.write("one\ntw");
    assert_eq!(bench.read(), ["one"]);
    bench.restart();
    bench.write("o\nthree\n");
    assert_eq!(bench.read(), ["two", "three"]);
}

#[test]
fn a_restart_finds_the_rest_of_a_file_that_was_rotated_meanwhile() {
    let mut bench = Bench::new(StartAt::Beginning);
    bench.write("one\n");
    bench.read();
    bench.write("two\n");
    bench.rotate("app.log.1");
    bench.write("three\n");
    bench.restart();
    assert_eq!(bench.read(), ["two", "three"]);
}

#[test]
fn a_restart_reads_files_that_came_and_went_meanwhile_in_order() {
    let mut bench = Bench::new(StartAt::Beginning);
    bench.write("one\n");
    bench.read();
    bench.write("two\n");
    bench.rotate("app.log.2");
    bench.write("three\n");
    bench.rotate("app.log.1");
    bench.write("four\n");
    // Names that only look alike.
    fs::write(bench.path("app.log.old"), "not ours\n").unwrap();
    fs::write(bench.path("app-error.log"), "not ours\n").unwrap();
    bench.restart();
    assert_eq!(bench.read(), ["two", "three", "four"]);
}

#[test]
fn numbers_of_rotated_files_may_grow_with_time() {
    let mut bench = Bench::new(StartAt::Beginning);
    let mut next = 0;
    let mut rotate = |bench: &mut Bench| {
        bench.write(&format!("line {next}\n"));
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + next);
        bench.writer.set_modified(time).unwrap();
        next += 1;
        bench.rotate(&format!("app.log.{next}"));
    };
    (0..3).for_each(|_| rotate(&mut bench));
    bench.write("read\n");
    assert_eq!(bench.read(), ["read"], "what was there before is not new");
    bench.restart();
    rotate(&mut bench);
    rotate(&mut bench);
    bench.restart();
    assert_eq!(bench.read(), ["line 3", "line 4"]);
    bench.restart();
    assert!(bench.read().is_empty());
}

#[test]
fn another_file_with_a_remembered_inode_is_not_taken_for_it() {
    let mut bench = Bench::new(StartAt::Beginning);
    bench.write("one\ntwo\n");
    bench.read();
    // The same inode, other content, and long enough.
    fs::write(bench.path("app.log"), "new1\nnew2\nnew3\n").unwrap();
    bench.restart();
    assert_eq!(bench.read(), ["new1", "new2", "new3"]);
}

#[test]
fn a_file_may_appear_later_and_is_then_read_from_its_start() {
    let mut bench = Bench::new(StartAt::End);
    fs::remove_file(bench.path("app.log")).unwrap();
    assert!(bench.read().is_empty());
    fs::write(bench.path("app.log"), "one\n").unwrap();
    assert_eq!(bench.read(), ["one"]);
}

#[test]
fn reading_can_begin_at_the_end_or_near_it() {
    let text = "first line\nsecond line\nthird line\n";
    for (start, expected) in [
        (
            StartAt::Beginning,
            &["first line", "second line", "third line"][..],
        ),
        (StartAt::End, &[]),
        (StartAt::Last(11), &["third line"]),
        (StartAt::Last(12), &["third line"]),
        (StartAt::Last(23), &["second line", "third line"]),
        (
            StartAt::Last(1000),
            &["first line", "second line", "third line"],
        ),
    ] {
        let mut bench = Bench::new(start);
        bench.write(text);
        assert_eq!(bench.read(), expected, "{start:?}");
        bench.write("next\n");
        assert_eq!(bench.read(), ["next"]);
    }
}

#[test]
fn many_rotations_at_once_keep_the_order() {
    let mut bench = Bench::new(StartAt::Beginning);
    let mut expected = Vec::new();
    let mut got = Vec::new();
    for round in 0..40 {
        for line in 0..50 {
            bench.write(&format!("{round}-{line}\n"));
            expected.push(format!("{round}-{line}"));
        }
        if round % 3 == 0 {
            got.extend(bench.read());
        }
        if round % 3 == 1 {
            got.extend(bench.read());
            bench.rotate(&format!("app.log.{}", 100 - round));
        }
    }
    got.extend(bench.read());
    assert_eq!(got, expected);
}

#[test]
fn a_named_pipe_is_an_error_and_never_waited_for() {
    let bench = Bench::new(StartAt::Beginning);
    let path = bench.path("fifo");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let error = open::OpenFile::open(&path, 0, &bench.text).unwrap_err();
    assert!(error.to_string().contains("pipe"), "{error}");
}

/// Copies `app.log` away and empties it, as logrotate does: older copies move on by a number first.
fn copy_and_truncate(dir: &Path, copies: &mut usize) {
    let name = |number: usize| dir.join(format!("app.log.{number}"));
    for number in (1..=*copies).rev() {
        fs::rename(name(number), name(number + 1)).unwrap();
    }
    *copies += 1;
    fs::copy(dir.join("app.log"), name(1)).unwrap();
    let file = File::options().write(true).open(dir.join("app.log"));
    file.unwrap().set_len(0).unwrap();
}

#[test]
fn copying_and_truncating_in_the_middle_of_a_look_loses_and_repeats_nothing() {
    let mut bench = Bench::new(StartAt::Beginning);
    assert!(bench.read().is_empty());
    let dir = bench.dir.path().to_owned();
    let writer = std::thread::spawn(move || {
        let (mut copies, mut count) = (0, 0);
        for round in 0..150 {
            let mut file = File::options().append(true).open(dir.join("app.log"));
            let file = file.as_mut().unwrap();
            for _ in 0..1 + round * 37 % 300 {
                // As one write: of two files that begin alike, as far as the first was read, nobody
                // can tell that one took the place of the other.
                let line = format!("{count:06} some text\n");
                file.write_all(line.as_bytes()).unwrap();
                count += 1;
            }
            copy_and_truncate(&dir, &mut copies);
        }
        count
    });
    let mut lines = Vec::new();
    while !writer.is_finished() {
        lines.extend(bench.read());
    }
    lines.extend(bench.read());
    let count: u32 = writer.join().unwrap();
    let numbers: Vec<u32> = lines
        .iter()
        .map(|line| line[..6].parse().unwrap())
        .collect();
    let breaks = numbers.windows(2).filter(|pair| pair[1] != pair[0] + 1);
    let breaks: Vec<_> = breaks.collect();
    assert!(
        breaks.is_empty(),
        "{breaks:?} {:?}",
        bench.follower.take_notes()
    );
    assert_eq!((numbers[0], numbers.len()), (0, count as usize));
}

#[test]
fn a_copy_that_was_given_the_inode_of_a_removed_one_is_read() {
    let mut bench = Bench::new(StartAt::Beginning);
    let mut copies = 0;
    bench.write("one\n");
    assert_eq!(bench.read(), ["one"]);
    copy_and_truncate(bench.dir.path(), &mut copies);
    assert!(bench.read().is_empty());
    bench.write("two\n");
    assert_eq!(bench.read(), ["two"]);
    bench.write("three\n");
    // As if the older copy had been removed first.
    fs::copy(bench.path("app.log"), bench.path("app.log.1")).unwrap();
    let file = File::options().write(true).open(bench.path("app.log"));
    file.unwrap().set_len(0).unwrap();
    bench.write("four\n");
    assert_eq!(bench.read(), ["three", "four"]);
}

#[test]
fn a_file_that_is_copied_and_truncated_between_opening_and_reading_it_loses_nothing() {
    let mut bench = Bench::new(StartAt::Beginning);
    fs::write(bench.path("app.log.1"), "before\n").unwrap();
    let mut copies = 1;
    bench.write("one\n");
    let mut buffer = vec![0; 1 << 10];
    let opened = bench
        .follower
        .read(bench.now, &mut buffer, &HashSet::new(), |_, _| {
            unreachable!("it is only opened")
        });
    assert_eq!(opened.unwrap(), Found::More);
    copy_and_truncate(bench.dir.path(), &mut copies);
    bench.write("two\n");
    copy_and_truncate(bench.dir.path(), &mut copies);
    bench.write("three\n");
    assert_eq!(bench.read(), ["one", "two", "three"]);
}
