use super::*;

fn note(history: &History, topic: &str, before: &str, after: &str, now: u64) {
    history.note(&Seen {
        topic: ConfigTopic::parse(topic).unwrap(),
        before: before.as_bytes(),
        after: after.as_bytes(),
        by: None,
        now,
    });
}

fn newest(history: &History) -> Entry {
    Entry::clone(&history.newest(None)[0])
}

#[test]
fn a_change_is_told_in_words_and_by_whom() {
    let history = History::default();
    let was = r#"{"level":"WARN","sources":{"nginx":"INFO","sshd":"INFO"},"by":"bob"}"#;
    let is =
        r#"{"level":"DEBUG","sources":{"sshd":"INFO"},"by":"alice","at":"2026-01-01T00:00:00Z"}"#;
    note(&history, "config/device/lamp-7", was, is, 5);
    let entry = newest(&history).shown();
    assert_eq!(
        entry["change"],
        "level DEBUG (was WARN), no sources.nginx (was INFO)"
    );
    assert_eq!(
        (&entry["by"], &entry["subject"]),
        (&json!("alice"), &json!("device:lamp-7"))
    );
    assert_eq!(entry["at"], "1970-01-01T00:00:00.000000005Z");
    assert_eq!(entry["document"]["level"], "DEBUG");
    for (topic, before, after, told, subject) in [
        (
            "config/member/eu/a",
            "",
            "{}",
            "joined group eu",
            "device:a",
        ),
        ("config/member/eu/a", "{}", "", "left group eu", "device:a"),
        (
            "config/default",
            is,
            "",
            "no level (was DEBUG), no sources.sshd (was INFO)",
            "default",
        ),
        (
            "config/group/eu",
            "",
            r#"{"created":"2026-01-01T00:00:00Z"}"#,
            "created",
            "group:eu",
        ),
        (
            "config/override/group/eu",
            "",
            r#"{"level":"DEBUG","until":"2026-01-01T00:00:00Z"}"#,
            "temporary: level DEBUG, until 2026-01-01T00:00:00Z",
            "group:eu",
        ),
    ] {
        note(&history, topic, before, after, 6);
        let entry = newest(&history).shown();
        assert_eq!(
            (&entry["change"], &entry["subject"]),
            (&json!(told), &json!(subject))
        );
    }
    let entries = history.newest(None).len();
    note(&history, "config/default", is, is, 7);
    assert_eq!(history.newest(None).len(), entries, "nothing has changed");
}

#[test]
fn what_is_remembered_is_bounded_and_the_oldest_goes() {
    let history = History::default();
    let long = format!(r#"{{"description":"{}"}}"#, "x".repeat(3000));
    for n in 0..5000u64 {
        note(&history, "config/group/eu", "", &long, n);
    }
    let state = history.state.lock();
    assert!(state.bytes <= MOST_BYTES && state.entries.len() < 5000);
    assert_eq!(state.entries.back().unwrap().number, 4999);
    drop(state);
    let huge = format!(r#"{{"description":"{}"}}"#, "x".repeat(LONGEST_DOCUMENT));
    note(&history, "config/group/eu", "", &huge, 1);
    let entry = newest(&history);
    assert!(entry.document.is_none() && entry.size() < 2000);
}

#[tokio::test]
async fn what_was_noted_is_there_after_a_restart_and_what_was_missed_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let open = || HistoryTask::open(Folder::lock(folder.path()).unwrap()).unwrap();
    let (history, task) = open();
    let start = 1_800_000_000_000_000_000;
    note(
        &history,
        "config/default",
        "",
        r#"{"level":"WARN","by":"alice"}"#,
        start,
    );
    note(
        &history,
        "config/device/a",
        r#"{"level":"INFO"}"#,
        "",
        start + 1,
    );
    let stop = CancellationToken::new();
    stop.cancel();
    task.run(stop).await;
    let (again, _task) = open();
    assert_eq!(again.newest(None), history.newest(None));

    let documents = [
        (
            "config/default",
            r#"{"level":"WARN","by":"alice","at":"2020-01-01T00:00:00Z"}"#,
        ),
        (
            "config/group/b",
            r#"{"level":"DEBUG","by":"bob","at":"2027-02-01T00:00:00Z"}"#,
        ),
        (
            "config/group/c",
            r#"{"level":"DEBUG","by":"eve","at":"2999-02-01T00:00:00Z"}"#,
        ),
        ("config/group/d", r#"{"level":"DEBUG"}"#),
    ];
    let documents = documents
        .iter()
        .map(|(topic, document)| (ConfigTopic::parse(topic).unwrap(), document.as_bytes()));
    again.note_missed(documents, start + 100 * 86_400 * 1_000_000_000);
    let entries = again.newest(None);
    assert_eq!(entries.len(), 3, "{entries:?}");
    assert_eq!(entries[0].shown()["by"], "bob");
    assert_eq!(entries[0].number, 2);
    assert_eq!(again.newest(Some(2)).len(), 2);
}

#[test]
fn a_damaged_file_costs_its_damaged_lines_only() {
    let folder = tempfile::tempdir().unwrap();
    let (mut file, _) = HistoryFile::open(folder.path()).unwrap();
    let history = History::default();
    note(&history, "config/default", "", "{}", 1);
    note(&history, "config/default", "{}", "", 2);
    file.write(&history.unwritten()).unwrap();
    let path = folder.path().join("history-00000000.jsonl");
    let mut text = std::fs::read(&path).unwrap();
    text[3] = 0xff;
    text.extend_from_slice(b"{\"number\":7,\"at");
    std::fs::write(&path, text).unwrap();
    let (mut file, kept) = HistoryFile::open(folder.path()).unwrap();
    assert_eq!(
        kept.iter().map(|entry| entry.number).collect::<Vec<_>>(),
        [1]
    );
    file.write(&history.unwritten()).unwrap();
    let (_, kept) = HistoryFile::open(folder.path()).unwrap();
    assert_eq!(kept.len(), 1, "what is there already is not taken twice");
}
