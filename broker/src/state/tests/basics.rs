use super::*;

#[test]
fn what_is_settled_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let (state, loaded) = open(dir.path());
    assert!(loaded.retained.is_empty());
    set(&state, "a", "1");
    set(&state, "b", "2");
    let ticket = state.change(Kind::Retained, "a", None);
    assert_eq!(state.wait(ticket), Outcome::Stored);
    drop(state);
    let (_state, loaded) = open(dir.path());
    assert_eq!(loaded.retained, [("b".to_owned(), b"2".to_vec())]);
    assert_eq!(loaded.lost_below, 0);
}

#[test]
fn what_was_queued_is_written_before_it_closes() {
    let dir = tempfile::tempdir().unwrap();
    let (state, _) = open(dir.path());
    for n in 0..100 {
        state.change(Kind::Session, &n.to_string(), Some(vec![n]));
    }
    drop(state);
    let (_state, loaded) = open(dir.path());
    assert_eq!(loaded.sessions.len(), 100);
}

#[test]
fn an_emptied_state_is_recognised_as_loss() {
    let dir = tempfile::tempdir().unwrap();
    let (state, loaded) = open(dir.path());
    assert_eq!(loaded.lost_below, 0);
    drop(state);
    std::fs::remove_dir_all(dir.path().join("log")).unwrap();
    let (_state, loaded) = open(dir.path());
    assert_eq!(loaded.lost_below, JOURNAL.1);
}

#[test]
fn cursors_into_another_journal_are_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let (state, _) = State::open(dir.path(), 0, 1, 0).unwrap();
    state.change(Kind::Cursor, "reader", Some(vec![1]));
    drop(state);
    let (state, loaded) = State::open(dir.path(), 0, 1, 0).unwrap();
    assert_eq!(loaded.cursors.len(), 1);
    drop(state);
    for round in 0..2 {
        let (_state, loaded) = State::open(dir.path(), 0, 2, 0).unwrap();
        assert!(loaded.cursors.is_empty(), "round {round}");
    }
}

#[test]
fn a_state_has_one_owner() {
    let dir = tempfile::tempdir().unwrap();
    let _state = open(dir.path());
    let second = State::open(dir.path(), 0, 1, 0).map(drop).unwrap_err();
    assert!(second.to_string().contains("in use"), "{second}");
}

#[test]
fn images_take_the_place_of_a_long_log() {
    let dir = tempfile::tempdir().unwrap();
    let (state, _) = open_eager(dir.path());
    let expected = fill(&state, 4);
    drop(state);
    assert_eq!(
        images(dir.path()).len(),
        2,
        "the last one and the one before"
    );
    let (_state, loaded) = open_eager(dir.path());
    assert_eq!(retained(&loaded), expected);
    assert_eq!(loaded.lost_below, 0);
}

#[test]
fn an_unfinished_image_leaves_no_trace() {
    let dir = tempfile::tempdir().unwrap();
    let (state, _) = open(dir.path());
    set(&state, "a", "1");
    drop(state);
    let unfinished = dir.path().join("image-7.new");
    std::fs::create_dir(&unfinished).unwrap();
    std::fs::write(unfinished.join("db"), b"half").unwrap();
    let (_state, loaded) = open(dir.path());
    assert_eq!(loaded.retained.len(), 1);
    assert!(!unfinished.exists());
}

#[test]
fn a_database_of_the_first_version_is_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let legacy = dir.path().join("sled");
    let db = sled::Config::new()
        .path(&legacy)
        .segment_size(8 << 20)
        .open()
        .unwrap();
    for tree in ["retained", "sessions", "cursors"] {
        let tree = db.open_tree(tree).unwrap();
        tree.insert("key", b"value").unwrap();
    }
    let meta = db.open_tree("meta").unwrap();
    meta.insert("lost-below", &7u64.to_be_bytes()).unwrap();
    meta.insert("journal", &JOURNAL.0.to_be_bytes()).unwrap();
    db.flush().unwrap();
    drop((db, meta));
    std::fs::write(dir.path().join("in-use"), b"").unwrap();
    for round in 0..2 {
        let (_state, loaded) = open(dir.path());
        assert_eq!(loaded.retained.len(), 1, "round {round}");
        assert_eq!((loaded.sessions.len(), loaded.cursors.len()), (1, 1));
        assert_eq!(loaded.lost_below, 7);
        assert!(!legacy.exists());
    }
}

#[test]
fn an_outcome_may_be_asked_for_while_news_of_it_come() {
    let dir = tempfile::tempdir().unwrap();
    let (state, _) = open(dir.path());
    let settled = state.settled();
    // As `wait_for` does while it asks its condition: the news wait until this is let go.
    let looking = settled.borrow();
    let ticket = state.change(Kind::Retained, "a", Some(vec![1]));
    while state.outcome(ticket) == Outcome::Pending {
        std::thread::yield_now();
    }
    drop(looking);
    assert_eq!(state.outcome(ticket), Outcome::Stored);
}
