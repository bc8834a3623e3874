use super::*;
use crate::testing::decoded;

fn open(folder: &Path, on_full: OnFull) -> (Letters, IntGauge) {
    let count = IntGauge::new("count", "test").unwrap();
    let config = DeadLetterConfig {
        max_bytes: 16_000,
        on_full,
    };
    (Letters::open(folder, config, count.clone()).unwrap(), count)
}

fn add(letters: &Letters, message: &str) -> Added {
    letters.add(&decoded(message).events[0], "bad", 0).unwrap()
}

/// Number and message of every letter.
fn all(folder: &Path) -> Vec<(u64, String)> {
    let mut found = Vec::new();
    for path in list(folder).unwrap() {
        let text = std::fs::read(&path).unwrap();
        for line in lines(&text) {
            let letter = parse(line, &path).unwrap();
            let event = json::read(letter.event.get().as_bytes()).unwrap();
            found.push((letter.n, event.message));
        }
    }
    found
}

#[test]
fn letters_are_found_again_and_numbers_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let (letters, _) = open(folder.path(), OnFull::DropOldest);
    add(&letters, "one");
    add(&letters, "two");
    letters.sync().unwrap();
    drop(letters);
    let path = list(folder.path()).unwrap().remove(0);
    let mut file = OpenOptions::new().append(true).open(path).unwrap();
    file.write_all(b"{\"n\":2,\"torn").unwrap();
    let (letters, count) = open(folder.path(), OnFull::DropOldest);
    assert_eq!(count.get(), 2);
    add(&letters, "three");
    let expected = [(0, "one".into()), (1, "two".into()), (2, "three".into())];
    assert_eq!(all(folder.path()), expected);
}

#[test]
fn the_oldest_make_room_and_that_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let (letters, count) = open(folder.path(), OnFull::DropOldest);
    let mut lost = 0;
    for n in 0..200 {
        if let Added::Displaced(more) = add(&letters, &n.to_string()) {
            lost += more;
        }
    }
    let kept = all(folder.path());
    let bytes = list(folder.path()).unwrap();
    let bytes: u64 = bytes
        .iter()
        .map(|file| file.metadata().unwrap().len())
        .sum();
    assert!(bytes <= 16_000, "{bytes}");
    assert_eq!(kept.len() as u64 + lost, 200);
    assert_eq!(count.get(), kept.len() as i64);
    assert_eq!(kept.last().unwrap(), &(199, "199".to_owned()));
    assert!(kept.len() > 40, "{} letters in 16 kB", kept.len());
}

#[test]
fn where_nothing_old_may_be_lost_the_new_one_is_or_has_to_wait() {
    for (on_full, expected) in [
        (OnFull::DropNewest, Added::Lost),
        (OnFull::Wait, Added::Full),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (letters, _) = open(folder.path(), on_full);
        let last = (0..200).map(|n| add(&letters, &n.to_string())).last();
        assert_eq!(last, Some(expected));
        assert_eq!(all(folder.path())[0].1, "0");
        let file = &letters.settled_files().unwrap()[0];
        letters.remove(file, &BTreeSet::from([0, 1])).unwrap();
        assert_eq!(add(&letters, "fits"), Added::Kept);
    }
}

#[test]
fn letters_leave_one_by_one() {
    let folder = tempfile::tempdir().unwrap();
    let (letters, count) = open(folder.path(), OnFull::DropOldest);
    for message in ["one", "two", "three"] {
        add(&letters, message);
    }
    let files = letters.settled_files().unwrap();
    assert_eq!(
        letters.remove(&files[0], &BTreeSet::from([1, 7])).unwrap(),
        1
    );
    assert_eq!(all(folder.path()), [(0, "one".into()), (2, "three".into())]);
    assert_eq!(
        letters.remove(&files[0], &BTreeSet::from([0, 2])).unwrap(),
        2
    );
    assert_eq!(count.get(), 0);
    drop(letters);
    let (letters, _) = open(folder.path(), OnFull::DropOldest);
    add(&letters, "four");
    assert_eq!(
        all(folder.path()),
        [(3, "four".into())],
        "numbers are not used again"
    );
}
