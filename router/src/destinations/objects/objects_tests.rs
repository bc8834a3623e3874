use std::path::PathBuf;

use super::*;
use crate::deliver::batch::Keep;
use crate::health::Health;
use crate::levels::Levels;
use crate::testing::{decoded, delivery, telemetry};

/// Every file below a folder.
fn files(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files(&path, into),
            false => into.push(path),
        }
    }
}

/// A destination over folders of a test's own.
struct Bench {
    folder: tempfile::TempDir,
    store: tempfile::TempDir,
    more: &'static str,
    health: Health,
}

impl Bench {
    fn new(more: &'static str) -> Bench {
        Bench {
            folder: tempfile::tempdir().unwrap(),
            store: tempfile::tempdir().unwrap(),
            more,
            health: Health::new(),
        }
    }

    fn config(&self) -> ObjectStoreConfig {
        let url = format!("file://{}/lake", self.store.path().display());
        let text = format!(r#"{{"url": "{url}", "compression": "none" {}}}"#, self.more);
        serde_json::from_str(&text).unwrap()
    }

    fn open(&self, committed: Option<Position>) -> io::Result<Objects> {
        let destination: crate::config::DestinationConfig = serde_json::from_str(
            r#"{"type": "object-store", "url": "file:///x", "retry": {"from_ms": 1, "max_ms": 5}}"#,
        )
        .unwrap();
        let telemetry = telemetry();
        let plan = Plan {
            name: "lake".into(),
            delivery: destination.delivery(),
            books: telemetry.books("lake"),
            metrics: telemetry.remote("lake"),
            health: self.health.part("lake"),
            ending: CancellationToken::new(),
        };
        let (levels, _) = Levels::new();
        let config = self.config();
        let store = Store::new(&config).unwrap();
        let facts = FactsCache::new(levels);
        Objects::open(self.folder.path(), &config, store, committed, facts, plan)
    }

    /// Every object, by its path below the store's folder.
    fn objects(&self) -> Vec<(String, String)> {
        let (mut paths, root) = (Vec::new(), self.store.path().join("lake"));
        files(&root, &mut paths);
        // What is being written has a name with `#`.
        paths.retain(|path| !path.display().to_string().contains('#'));
        paths.sort();
        let read = |path: PathBuf| {
            let name = path.strip_prefix(&root).unwrap().display().to_string();
            (name, std::fs::read_to_string(&path).unwrap())
        };
        paths.into_iter().map(read).collect()
    }

    /// Names of objects, without their folders.
    fn names(&self) -> Vec<String> {
        let mut paths = Vec::new();
        files(&self.store.path().join("lake"), &mut paths);
        let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
        let names = paths.iter().map(name);
        names.filter(|name| !name.contains('#')).collect()
    }

    fn messages(&self) -> Vec<String> {
        let objects = self.objects();
        let lines = objects.iter().flat_map(|(_, text)| text.lines());
        lines
            .map(|line| json::read(line.as_bytes()).unwrap().message)
            .collect()
    }
}

fn one(message: &str) -> Batch {
    let mut batch = Batch::default();
    let mut decoded = decoded(message);
    decoded.events[0].received = 1_767_323_045_000_000_000;
    batch.push(Arc::new(decoded), Keep::All, 0);
    batch
}

/// Delivers and commits; gives the position.
fn put(objects: &mut Objects, message: &str) -> Position {
    assert_eq!(objects.deliver(&one(message)), Outcome::Delivered);
    commit(objects)
}

fn commit(objects: &mut Objects) -> Position {
    let promise = objects.commit();
    if let Some(sync) = promise.sync {
        sync().unwrap();
    }
    if promise.barrier {
        objects.committed().unwrap();
    }
    promise.position.unwrap()
}

fn until(done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_complete_file_becomes_an_object_of_each_path() {
    let bench = Bench::new("");
    let mut objects = bench.open(None).unwrap();
    objects.complete.events = 3;
    let committed = put(&mut objects, "one");
    assert_eq!(committed.number, 0);
    put(&mut objects, "two");
    assert!(bench.objects().is_empty(), "not complete yet");
    put(&mut objects, "three");
    until(|| bench.messages().len() == 3);
    let id = std::fs::read_to_string(bench.folder.path().join("stage/id")).unwrap();
    let (name, _) = bench.objects().remove(0);
    let path = "date=2026-01-02/group=__HIVE_DEFAULT_PARTITION__";
    assert_eq!(name, format!("{path}/lake-{id}-00000000.ndjson"));
    assert_eq!(bench.messages(), ["one", "two", "three"]);
}

#[test]
fn age_completes_a_file_that_nothing_is_added_to() {
    let bench = Bench::new("");
    let mut objects = bench.open(None).unwrap();
    assert_eq!(objects.due(), None, "nothing is staged");
    put(&mut objects, "alone");
    let due = objects.due().unwrap();
    assert!(!objects.is_complete(due - Duration::from_millis(1)));
    assert!(objects.is_complete(due));
    objects.complete.age = Duration::ZERO;
    commit(&mut objects);
    until(|| bench.messages() == ["alone"]);
    assert_eq!(objects.due(), None);
}

#[test]
fn what_was_staged_is_uploaded_after_a_restart_and_what_was_not_committed_is_not() {
    let bench = Bench::new("");
    let mut objects = bench.open(None).unwrap();
    let committed = put(&mut objects, "kept");
    objects.deliver(&one("not committed"));
    drop(objects);
    assert!(bench.objects().is_empty());
    let mut objects = bench.open(Some(committed)).unwrap();
    until(|| bench.messages() == ["kept"]);
    // As after a crash before the next commit.
    drop(objects);
    objects = bench.open(Some(committed)).unwrap();
    objects.complete.events = 1;
    put(&mut objects, "next");
    until(|| bench.messages() == ["kept", "next"]);
    let names: Vec<String> = bench.objects().into_iter().map(|(name, _)| name).collect();
    assert!(names[0].ends_with("-00000000.ndjson") && names[1].ends_with("-00000001.ndjson"));
}

#[test]
fn a_crash_between_upload_and_note_writes_the_same_object_again() {
    let bench = Bench::new("");
    let mut objects = bench.open(None).unwrap();
    objects.complete.events = 1;
    let committed = put(&mut objects, "once");
    until(|| objects.sealed.bytes() == 0 && !bench.objects().is_empty());
    drop(objects);
    let first = bench.objects();
    // As if it had not been noted.
    let staged = bench.folder.path().join("stage/events-00000000.staged");
    assert_eq!(std::fs::metadata(&staged).unwrap().len(), 0, "the note");
    let mut line = first[0].0.rsplit_once('/').unwrap().0.as_bytes().to_vec();
    line.extend_from_slice(b"/\t");
    line.extend_from_slice(first[0].1.as_bytes());
    std::fs::write(&staged, line).unwrap();
    let objects = bench.open(Some(committed)).unwrap();
    until(|| objects.sealed.bytes() == 0);
    assert_eq!(bench.objects(), first);
}

#[test]
fn a_full_stage_takes_nothing_more_until_there_is_room() {
    let bench = Bench::new("");
    // A file where the store's folder would be.
    let mut objects = bench.open(None).unwrap();
    let lake = bench.store.path().join("lake");
    std::fs::remove_dir(&lake).unwrap();
    std::fs::write(&lake, "").unwrap();
    (objects.complete.events, objects.stage_bytes) = (1, 100);
    put(&mut objects, "one");
    let outcome = objects.deliver(&one("two"));
    let Outcome::Retry { reason, .. } = outcome else {
        panic!("{outcome:?}");
    };
    assert!(reason.contains("stage_bytes"), "{reason}");
    until(|| bench.health.parts()["lake"].is_some());
    std::fs::remove_file(&lake).unwrap();
    until(|| objects.sealed.bytes() == 0);
    put(&mut objects, "two");
    until(|| bench.messages() == ["one", "two"]);
    until(|| bench.health.parts()["lake"].is_none());
}

/// The format of a file is that of when it was written, or its events would be there twice.
#[test]
fn another_format_in_between_leaves_what_is_staged_as_it_was_begun() {
    let mut bench = Bench::new("");
    let mut objects = bench.open(None).unwrap();
    let committed = put(&mut objects, "before");
    drop(objects);
    bench.more = r#", "format": "raw""#;
    let mut objects = bench.open(Some(committed)).unwrap();
    until(|| objects.sealed.bytes() == 0);
    assert_eq!(bench.messages(), ["before"]);
    objects.complete.events = 1;
    assert_eq!(
        objects.keep(&[delivery("after", Some(5))]),
        Outcome::Delivered
    );
    commit(&mut objects);
    until(|| objects.sealed.bytes() == 0 && bench.names().len() == 2);
    let names = bench.names();
    assert!(
        names.iter().any(|it| it.ends_with("-00000000.ndjson")),
        "{names:?}"
    );
    assert!(
        names.iter().any(|it| it.ends_with("-00000001.raw.ndjson")),
        "{names:?}"
    );
}

#[test]
fn payloads_are_kept_as_they_came() {
    let bench = Bench::new(r#", "format": "raw""#);
    let mut objects = bench.open(None).unwrap();
    objects.complete.events = 2;
    let payloads = [
        delivery("one\ntwo", Some(7)),
        delivery(&[0, 0xff][..], None),
    ];
    assert_eq!(objects.keep(&payloads), Outcome::Delivered);
    commit(&mut objects);
    until(|| objects.sealed.bytes() == 0);
    let (name, text) = bench.objects().remove(0);
    let path = "date=1970-01-01/group=__HIVE_DEFAULT_PARTITION__/lake-";
    assert!(
        name.starts_with(path) && name.ends_with("-00000000.raw.ndjson"),
        "{name}"
    );
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines[0]["offset"], "0000000000000001/7");
    let encoded: Vec<&str> = lines
        .iter()
        .map(|line| line["payload_base64"].as_str().unwrap())
        .collect();
    assert_eq!(encoded, ["b25lCnR3bw==", "AP8="]);
}

#[test]
fn emptied_files_go_once_there_is_a_newer_one() {
    let bench = Bench::new("");
    let mut objects = bench.open(None).unwrap();
    objects.complete.events = 1;
    for n in 0..5 {
        put(&mut objects, &format!("event {n}"));
    }
    until(|| bench.messages().len() == 5 && objects.sealed.bytes() == 0);
    let stage = bench.folder.path().join("stage");
    until(|| lines::rotated(&stage, EXTENSION).unwrap().len() == 1);
    assert_eq!(lines::rotated(&stage, EXTENSION).unwrap()[0].number, 4);
}

#[test]
fn too_little_memory_is_told_with_what_is_needed() {
    let form = |format: &str| {
        let text = format!(r#"{{"url": "file:///x", "format": "{format}"}}"#);
        Form::new(&serde_json::from_str(&text).unwrap())
    };
    let (ndjson, parquet) = (form("ndjson"), form("parquet"));
    let mut destination: crate::config::DestinationConfig =
        serde_json::from_str(r#"{"type": "object-store", "url": "file:///x"}"#).unwrap();
    let lanes = |destination: &crate::config::DestinationConfig, form: Form| {
        let delivery = destination.delivery();
        super::lanes(&delivery, Complete::new(&delivery.batch), form.memory())
    };
    assert_eq!(lanes(&destination, ndjson).unwrap(), 4);
    assert_eq!(lanes(&destination, parquet).unwrap(), 2);
    destination.memory_bytes = Some(16 << 20);
    assert_eq!(lanes(&destination, ndjson).unwrap(), 1);
    let error = lanes(&destination, parquet).unwrap_err().to_string();
    assert!(error.contains("46137344"), "{error}");
    // A file of many events needs an index.
    let batch = serde_json::from_str(r#"{"max_events": 2000000, "max_bytes": 1073741824}"#);
    destination.batch = Some(batch.unwrap());
    let error = lanes(&destination, ndjson).unwrap_err().to_string();
    assert!(error.contains("batch.max_events"), "{error}");
}

/// The crate's own reader; DuckDB reads it in the contract tests.
#[test]
fn parquet_has_row_groups_of_bounded_size_and_every_row() {
    use ::parquet::file::reader::{FileReader as _, SerializedFileReader};
    let text = r#"{"url": "file:///x", "format": "parquet"}"#;
    let mut body = Form::new(&serde_json::from_str(text).unwrap())
        .begin()
        .unwrap();
    let mut taken = Vec::new();
    for n in 0..70_000 {
        let mut line = Vec::new();
        json::write(&decoded(&format!("event {n}")).events[0], &mut line);
        body.push(&line).unwrap();
        // As parts are taken meanwhile.
        taken.append(body.ready());
    }
    body.push(b"no event").unwrap();
    assert!(!taken.is_empty());
    taken.extend(body.end().unwrap());
    let reader = SerializedFileReader::new(bytes::Bytes::from(taken)).unwrap();
    assert!(reader.num_row_groups() >= 2);
    let rows = reader.get_row_iter(None).unwrap().map(Result::unwrap);
    let rows: Vec<String> = rows.map(|row| row.to_string()).collect();
    assert_eq!(rows.len(), 70_001);
    assert!(
        rows[69_999].contains("message: \"event 69999\""),
        "{}",
        rows[69_999]
    );
    assert!(
        rows[70_000].contains("message: \"no event\""),
        "nothing is lost"
    );
}

#[test]
fn what_it_would_not_take_is_refused_by_key() {
    for (text, key) in [
        (r#""url": "lake""#, "url"),
        (r#""url": "file:///x", "path": "{dat}""#, "path"),
        (r#""url": "file:///x", "path": "{device}-{source}""#, "path"),
        (
            r#""url": "gs://x", "path": "{device}/{source}/{group}/{device}/{source}""#,
            "path",
        ),
        (
            r#""url": "gs://x", "path": "{level}", "format": "raw""#,
            "path",
        ),
        (
            r#""url": "file:///x", "format": "raw", "when": "level >= ERROR""#,
            "when",
        ),
        (
            r#""url": "file:///x", "format": "raw", "roles": ["a"]"#,
            "roles",
        ),
        (r#""url": "file:///x", "stage_bytes": 1"#, "stage_bytes"),
        (
            r#""url": "file:///x", "format": "parquet", "compression": "gzip""#,
            "compression",
        ),
        (r#""url": "file:///x", "s3": {}"#, "s3"),
        (r#""url": "s3://b""#, "s3"),
        (r#""url": "s3://b", "s3": {"region": "A b"}"#, "s3.region"),
        (r#""url": "s3://b", "s3": {"endpoint": "x"}"#, "s3.endpoint"),
        (r#""url": "az://b""#, "azure"),
        (
            r#""url": "az://b", "azure": {"account": "A"}"#,
            "azure.account",
        ),
        (
            r#""url": "file:///x", "http": {"token": "t"}"#,
            "http.token",
        ),
        (r#""url": "file:///x", "dead_letters": {}"#, "dead_letters"),
        (
            r#""url": "file:///x", "retry": {"give_up_s": 1}"#,
            "retry.give_up_s",
        ),
    ] {
        let text = format!(r#"{{"type": "object-store", {text}}}"#);
        let destination = serde_json::from_str(&text).unwrap();
        let config = crate::Config {
            destinations: [("lake".to_owned(), destination)].into(),
            ..crate::Config::default()
        };
        let error = config.validate().unwrap_err();
        assert_eq!(error.key, format!("destinations.lake.{key}"), "{error}");
    }
}
