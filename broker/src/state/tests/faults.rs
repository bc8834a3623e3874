use super::*;

fn wait_until_it_accepts(state: &State) {
    while !state.accepts() {
        std::thread::yield_now();
    }
}

#[test]
fn a_full_disk_fails_changes_and_stores_them_by_itself_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let fs = SimFs::new(1);
    let (state, _) = open_sim(dir.path(), &fs);
    assert_eq!(set(&state, "before", "1"), Outcome::Stored);
    fs.leave_free(10);
    assert_eq!(set(&state, "meanwhile", "1"), Outcome::Failed);
    assert_eq!(set(&state, "meanwhile", "2"), Outcome::Failed);
    assert_eq!(state.stats().failed_groups, 2);
    assert!(!state.accepts());
    fs.leave_free(1 << 20);
    wait_until_it_accepts(&state);
    fs.power_cut();
    drop(state);
    let (_state, loaded) = open_sim(dir.path(), &fs);
    let expected = [("before", "1"), ("meanwhile", "2")];
    let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(retained(&loaded), expected.into());
}

#[test]
fn a_failed_sync_acknowledges_nothing_and_the_log_is_opened_anew() {
    for seed in 0..4 {
        let dir = tempfile::tempdir().unwrap();
        let fs = SimFs::new(seed);
        let (state, _) = open_sim(dir.path(), &fs);
        set(&state, "a", "before");
        fs.faults(|faults| faults.fail_sync = Some(0));
        assert_eq!(set(&state, "a", "failed"), Outcome::Failed);
        wait_until_it_accepts(&state);
        assert_eq!(set(&state, "b", "after"), Outcome::Stored);
        fs.power_cut();
        drop(state);
        let (_state, loaded) = open_sim(dir.path(), &fs);
        let retained = retained(&loaded);
        assert_eq!(
            retained["a"], "failed",
            "it was stored in the end, seed {seed}"
        );
        assert_eq!(retained["b"], "after");
        assert_eq!(loaded.lost_below, 0);
    }
}

#[test]
fn a_newer_change_is_not_overwritten_by_one_that_failed_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let fs = SimFs::new(1);
    let (state, _) = open_sim(dir.path(), &fs);
    fs.faults(|faults| faults.fail_write = Some(0));
    assert_eq!(set(&state, "a", "old"), Outcome::Failed);
    assert_eq!(
        state.wait(state.change(Kind::Retained, "a", None)),
        Outcome::Stored
    );
    drop(state);
    let (_state, loaded) = open_sim(dir.path(), &fs);
    assert!(loaded.retained.is_empty());
}

#[test]
fn an_image_that_cannot_be_written_stands_in_nobodys_way() {
    let dir = tempfile::tempdir().unwrap();
    let (state, _) = open_eager(dir.path());
    let expected = {
        // A file where the image's directory is to be: the attempt fails.
        std::fs::write(dir.path().join("image-1.new"), b"").unwrap();
        let mut expected = BTreeMap::new();
        for n in 0..200 {
            let (key, value) = (format!("key {n}"), "value".repeat(20));
            assert_eq!(set(&state, &key, &value), Outcome::Stored);
            expected.insert(key, value);
        }
        expected
    };
    assert_eq!(state.stats().images, 0);
    drop(state);
    std::fs::remove_file(dir.path().join("image-1.new")).unwrap();
    let (_state, loaded) = open_eager(dir.path());
    assert_eq!(retained(&loaded), expected);
}
