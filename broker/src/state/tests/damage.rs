use super::*;

/// Two images and a log beyond them.
fn made(dir: &Path) -> BTreeMap<String, String> {
    let (state, _) = open_eager(dir);
    fill(&state, 3)
}

fn last_segment(dir: &Path) -> PathBuf {
    log_files(dir, "seg").pop().unwrap()
}

/// Flips a bit where `needle` stands.
fn flip(file: &Path, needle: &[u8]) {
    let mut bytes = std::fs::read(file).unwrap();
    let at = bytes
        .windows(needle.len())
        .position(|window| window == needle)
        .unwrap();
    bytes[at] ^= 1;
    std::fs::write(file, bytes).unwrap();
}

#[test]
fn the_image_before_replaces_a_damaged_one() {
    let dir = tempfile::tempdir().unwrap();
    let expected = made(dir.path());
    overwrite(images(dir.path()).last().unwrap());
    for (round, damaged) in [1, 0].into_iter().enumerate() {
        let (state, loaded) = open_eager(dir.path());
        assert_eq!(retained(&loaded), expected, "round {round}");
        assert_eq!(state.stats().damaged, damaged);
        assert_eq!(loaded.lost_below, 0, "nothing was lost");
    }
    let names = std::fs::read_dir(dir.path()).unwrap().flatten();
    let aside = names.filter(|entry| entry.path().extension().is_some_and(|end| end == "damaged"));
    assert_eq!(aside.count(), 1, "the evidence is kept");
}

#[test]
fn a_flipped_bit_anywhere_in_an_image_costs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let expected = made(dir.path());
    let newest = images(dir.path()).pop().unwrap();
    let whole = std::fs::read(&newest).unwrap();
    let used = whole.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    for at in (0..used).step_by(used / 12) {
        let copy = tempfile::tempdir().unwrap();
        copy_tree(dir.path(), copy.path());
        let file = images(copy.path()).pop().unwrap();
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        std::fs::write(file, bytes).unwrap();
        let (_state, loaded) = open_eager(copy.path());
        assert_eq!(retained(&loaded), expected, "byte {at} of {used}");
        assert_eq!(loaded.lost_below, 0);
    }
}

/// Copies what is there; what is being removed meanwhile may be missing.
pub(super) fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).into_iter().flatten().flatten() {
        let target = to.join(entry.file_name());
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => copy_tree(&entry.path(), &target),
            _ => drop(std::fs::copy(entry.path(), target)),
        }
    }
}

#[test]
fn a_log_that_goes_back_to_the_beginning_replaces_all_images() {
    let dir = tempfile::tempdir().unwrap();
    let (state, _) = open_eager(dir.path());
    let expected = fill(&state, 1);
    drop(state);
    images(dir.path()).iter().for_each(|image| overwrite(image));
    let (state, loaded) = open_eager(dir.path());
    assert_eq!(retained(&loaded), expected);
    assert_eq!((loaded.lost_below, state.stats().damaged), (0, 1));
}

#[test]
fn without_any_whole_image_the_loss_is_said_once_and_the_rest_serves() {
    let dir = tempfile::tempdir().unwrap();
    let expected = made(dir.path());
    images(dir.path()).iter().for_each(|image| overwrite(image));
    for (round, damaged) in [2, 0].into_iter().enumerate() {
        let (state, loaded) = open_eager(dir.path());
        assert_eq!(loaded.lost_below, JOURNAL.1, "round {round}");
        assert_eq!(state.stats().damaged, damaged);
        let found = retained(&loaded);
        assert!(!found.is_empty(), "the log has the latest");
        for (key, value) in found {
            assert_eq!(expected[&key], value);
        }
    }
}

#[test]
fn without_images_and_log_the_loss_is_said_and_what_is_new_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    made(dir.path());
    images(dir.path()).iter().for_each(|image| overwrite(image));
    std::fs::remove_dir_all(dir.path().join("log")).unwrap();
    let (state, loaded) = open_eager(dir.path());
    assert_eq!(loaded.lost_below, JOURNAL.1);
    assert_eq!(set(&state, "new", "1"), Outcome::Stored);
    drop(state);
    let (state, loaded) = open_eager(dir.path());
    assert_eq!(retained(&loaded)["new"], "1");
    assert_eq!(state.stats().damaged, 0, "it is said once");
}

#[test]
fn a_log_that_is_gone_costs_what_came_after_the_last_image() {
    let dir = tempfile::tempdir().unwrap();
    let expected = made(dir.path());
    std::fs::remove_dir_all(dir.path().join("log")).unwrap();
    let (_state, loaded) = open_eager(dir.path());
    assert_eq!(loaded.lost_below, JOURNAL.1);
    assert_eq!(retained(&loaded).len(), expected.len());
}

#[test]
fn a_flipped_bit_in_the_log_costs_one_group_and_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let (state, _) = open(dir.path());
    for key in ["before", "the one", "after"] {
        set(&state, key, &format!("value of {key}"));
    }
    drop(state);
    flip(&last_segment(dir.path()), b"value of the one");
    for index in log_files(dir.path(), "idx") {
        std::fs::remove_file(index).unwrap();
    }
    let (state, loaded) = open(dir.path());
    let found: Vec<String> = retained(&loaded).into_keys().collect();
    assert_eq!(found, ["after", "before"]);
    assert_eq!(state.stats().damaged, 1);
    assert_eq!(loaded.lost_below, JOURNAL.1);
    drop(state);
    let (state, loaded) = open(dir.path());
    assert_eq!((loaded.retained.len(), state.stats().damaged), (2, 0));
}

#[test]
fn a_torn_tail_of_the_log_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let (state, _) = open(dir.path());
    set(&state, "a", "1");
    drop(state);
    let segment = last_segment(dir.path());
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes.extend_from_within(bytes.len() - 20..);
    std::fs::write(&segment, bytes).unwrap();
    let (state, loaded) = open(dir.path());
    assert_eq!(loaded.retained.len(), 1);
    assert_eq!((loaded.lost_below, state.stats().damaged), (0, 0));
}

#[test]
fn an_image_damaged_while_it_runs_is_replaced_from_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let (state, _) = open_eager(dir.path());
    let mut expected = fill(&state, 3);
    overwrite(images(dir.path()).last().unwrap());
    let already = state.stats().images;
    expected.extend(fill(&state, already + 2));
    assert_eq!(state.stats().damaged, 1);
    drop(state);
    let (_state, loaded) = open_eager(dir.path());
    assert_eq!(retained(&loaded), expected);
    assert_eq!(loaded.lost_below, 0);
}

#[test]
fn what_the_disk_lost_while_it_runs_is_written_again_from_memory() {
    let dir = tempfile::tempdir().unwrap();
    let (state, _) = open_eager(dir.path());
    let mut memory = fill(&state, 3);
    let mut n = 0;
    while state.wants_everything().is_none() {
        let value = format!("damaged {n} ").repeat(20);
        set(&state, "counter", &value);
        flip(&last_segment(dir.path()), value.as_bytes());
        n += 1;
    }
    let already = state.stats().images;
    while state.stats().images < already + 2 {
        memory.insert("counter".to_owned(), format!("sound {n}").repeat(20));
        set(&state, "counter", &memory["counter"]);
        // The last change that was damaged may have come after it asked for the first time.
        if let Some(request) = state.wants_everything() {
            for (key, value) in &memory {
                state.change(Kind::Retained, key, Some(value.as_bytes().to_vec()));
            }
            state.gave_everything(request);
        }
        n += 1;
    }
    assert_eq!(state.wants_everything(), None);
    drop(state);
    let (_state, loaded) = open_eager(dir.path());
    assert_eq!(retained(&loaded), memory);
    assert_eq!(loaded.lost_below, 0);
}

#[test]
fn what_was_given_for_one_request_does_not_count_for_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let (state, _) = open_eager(dir.path());
    fill(&state, 3);
    let damage = || {
        while state.wants_everything().is_none() {
            let value = format!("damaged {} ", state.stats().images).repeat(20);
            set(&state, "counter", &value);
            flip(&last_segment(dir.path()), value.as_bytes());
        }
        state.wants_everything()
    };
    let first = damage().unwrap();
    state.gave_everything(first);
    // Said again, too late: the request is over, or about to be.
    state.gave_everything(first);
    let second = damage().unwrap();
    assert!(second > first);
    state.gave_everything(first);
    assert_eq!(
        state.wants_everything(),
        Some(second),
        "nothing was given for it"
    );
}
