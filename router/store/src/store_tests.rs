//! The store against a list of events that does the same without files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering as Atomic};
use std::time::Duration;

use proptest::prelude::*;
use thinglog_schemas::query::{EventQuery, Facts};
use thinglog_schemas::{Attributes, Event, EventId, Severity};

use crate::{End, Fleet, Found, Options, Order, Page, Place, Search, Store, Writer};

const HOUR: u64 = 3_600_000_000_000;

/// Everybody may see everything; groups are by the first letter.
struct Everyone;

impl Fleet for Everyone {
    fn facts(&self, device: &str) -> Arc<Facts> {
        Arc::new(Facts {
            groups: vec![device[..1].to_owned()],
            ..Facts::default()
        })
    }

    fn may_see(&self, _: &str) -> bool {
        true
    }

    fn goes_on(&self) -> bool {
        true
    }
}

fn options(folder: &Path) -> Options {
    Options {
        folder: folder.to_owned(),
        age: Duration::from_secs(72 * 3600),
        age_of: Arc::new(|_| None),
        events_per_device: 5,
        bytes: 1 << 40,
        now: || 0,
    }
}

/// An event whose looks follow from a number.
fn event(n: u64) -> Event {
    let mixed = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20;
    let device = ["a1", "a2", "b1", "b2", "c"][(mixed % 5) as usize];
    let received = HOUR + n / 3 * 1_000_000_000;
    let mut attributes = Attributes::new();
    if mixed.is_multiple_of(4) {
        attributes.insert(
            "user".into(),
            ["ann", "bob"][(mixed / 7 % 2) as usize].into(),
        );
    }
    let gap = [" ", " ", " ", " zunächst ", "\n"][(mixed / 29 % 5) as usize];
    let word = ["timeout", "started", "stopped", "Disk full"][(mixed / 11 % 4) as usize];
    Event {
        device: Arc::from(device),
        source: Arc::from(["app", "nginx", "kernel"][(mixed / 13 % 3) as usize]),
        id: EventId::Spooled {
            epoch: mixed % 5,
            seq: n,
        },
        time: (received + 2_000_000_000).saturating_sub(mixed / 17 % 9 * 1_000_000_000),
        time_estimated: mixed.is_multiple_of(19),
        severity: Severity::new([5, 9, 13, 17][(mixed / 19 % 4) as usize]).unwrap(),
        message: format!("{word}{gap}after {n} ms"),
        truncated: mixed.is_multiple_of(23),
        attributes,
        received,
    }
}

/// What a search has to answer.
fn expected(events: &[(u64, Event)], search: &Search) -> Vec<Found> {
    let found = events.iter().map(|(row, event)| Found {
        place: Place {
            at: event.time.min(event.received),
            row: *row,
        },
        event: event.clone(),
    });
    let key = |place: &Place| match search.order {
        Order::Newest => (!place.at, !place.row),
        Order::Oldest => (place.at, place.row),
        Order::Arrival => (place.row, 0),
    };
    let mut found: Vec<Found> = found
        .filter(|it| it.place.at >= search.from && it.place.at < search.until)
        .filter(|it| {
            search
                .after
                .is_none_or(|after| key(&it.place) > key(&after))
        })
        .filter(|it| {
            search
                .devices
                .as_ref()
                .is_none_or(|all| all.contains(&it.event.device))
        })
        .filter(|it| {
            let filter = search.filter.as_ref();
            filter.is_none_or(|filter| filter.matches(&it.event, &Everyone.facts(&it.event.device)))
        })
        .collect();
    found.sort_by_key(|it| key(&it.place));
    found.truncate(search.limit);
    found
}

fn any_search() -> impl Strategy<Value = Search> {
    let order = prop_oneof![
        Just(Order::Newest),
        Just(Order::Oldest),
        Just(Order::Arrival)
    ];
    let filter = prop_oneof![
        Just(None),
        prop_oneof![
            Just("level >= WARN"),
            Just("source = nginx and level = ERROR"),
            Just("message ~ /timeout/"),
            Just("message ~ /(?i)disk FULL/ or user = ann"),
            Just("not message ~ /after/"),
            Just("group = a and not exists user"),
            Just("device = b1 or device = c"),
            Just("message ~ /\\b17 ms$/"),
            Just("message ~ /t/ and not message ~ /7 ms$/"),
            Just("message ~ /k.full/ or message ~ /zun.chst/"),
            Just("level = ERROR and message ~ /t\\Wafter .*[13] ms/"),
        ]
        .prop_map(Some)
    ];
    let devices = prop_oneof![
        Just(None),
        Just(Some(vec!["a1"])),
        Just(Some(vec!["b2", "nobody", "c"]))
    ];
    let time = (0..200u64).prop_map(|s| HOUR + s * 1_000_000_000);
    (
        order,
        filter,
        devices,
        (time.clone(), time, any::<bool>()),
        1..60usize,
        1..40u64,
    )
        .prop_map(
            |(order, filter, devices, (from, until, all), limit, row)| Search {
                order,
                from: if all { 0 } else { from },
                until: if all { u64::MAX } else { until },
                after: (row > 20).then_some(Place {
                    at: HOUR + row * 1_000_000_000,
                    row,
                }),
                devices: devices.map(|names| names.into_iter().map(Arc::from).collect()),
                filter: filter.map(|text| EventQuery::parse(text).unwrap()),
                limit,
            },
        )
}

#[derive(Clone, Debug)]
enum Step {
    Append(u8),
    Commit,
    Roll,
    Keep,
    Clear(u8),
    /// Closed in the middle, and opened again.
    Crash,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..40u8).prop_map(Step::Append),
        4 => Just(Step::Commit),
        3 => Just(Step::Roll),
        2 => Just(Step::Keep),
        1 => (0..5u8).prop_map(Step::Clear),
        1 => Just(Step::Crash),
    ]
}

/// A store beside what it should hold.
struct Pair<'a> {
    folder: &'a Path,
    store: Store,
    writer: Writer,
    committed: End,
    /// Number of row, event.
    shown: Vec<(u64, Event)>,
    waiting: Vec<(u64, Event)>,
    next: u64,
}

impl Pair<'_> {
    fn new(folder: &Path) -> Pair<'_> {
        let (store, mut writer) = Store::open(options(folder), None).unwrap();
        writer.commit()().unwrap();
        Pair {
            folder,
            committed: writer.end(),
            store,
            writer,
            shown: Vec::new(),
            waiting: Vec::new(),
            next: 0,
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Append(count) => {
                let row = (self.shown.len() + self.waiting.len()) as u64;
                let row = self
                    .shown
                    .iter()
                    .chain(&self.waiting)
                    .map(|it| it.0 + 1)
                    .max()
                    .unwrap_or(row);
                let events: Vec<Event> = (0..u64::from(*count))
                    .map(|n| event(self.next + n))
                    .collect();
                self.writer
                    .append(&events.iter().collect::<Vec<_>>())
                    .unwrap();
                self.next += u64::from(*count);
                self.waiting.extend((row..).zip(events));
            }
            Step::Commit => self.commit(),
            Step::Roll => {
                self.commit();
                self.writer.roll().unwrap();
                self.store.keep_once(0).unwrap();
            }
            Step::Keep => self.store.keep_once(0).unwrap(),
            Step::Clear(which) => {
                let device = ["a1", "a2", "b1", "b2", "c"][usize::from(*which)];
                self.store.clear(device).unwrap();
                // Rows are numbered on, whatever was cleared.
                let cleared = |(row, event): &mut (u64, Event)| {
                    if &*event.device == device {
                        *row = u64::MAX;
                    }
                };
                self.shown.iter_mut().for_each(cleared);
                let rows = self.store.shown();
                self.shown.retain(|it| it.0 != u64::MAX);
                assert!(self.shown.iter().all(|it| it.0 < rows));
            }
            Step::Crash => {
                let (store, writer) =
                    Store::open(options(self.folder), Some(self.committed)).unwrap();
                (self.store, self.writer) = (store, writer);
                self.waiting.clear();
            }
        }
    }

    fn commit(&mut self) {
        let end = self.writer.end();
        self.writer.commit()().unwrap();
        self.committed = end;
        self.shown.append(&mut self.waiting);
    }
}

/// Rows may be numbered anew after a crash; what counts is the order.
fn same(found: &[Found], expected: &[Found]) -> bool {
    let texts = |all: &[Found]| {
        all.iter()
            .map(|it| (it.place.at, it.event.clone()))
            .collect::<Vec<_>>()
    };
    texts(found) == texts(expected)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn searches_find_what_a_list_does(
        steps in proptest::collection::vec(any_step(), 1..40),
        searches in proptest::collection::vec(any_search(), 4),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut pair = Pair::new(folder.path());
        for step in &steps {
            // Numbers of rows that were cleared at the very end are given again after a crash.
            if matches!(step, Step::Crash) {
                pair.step(&Step::Commit);
            }
            pair.step(step);
        }
        for search in &searches {
            let search = Search { after: None, ..search.clone() };
            let page = pair.store.search(&search, &Everyone).unwrap();
            prop_assert!(same(&page.events, &expected(&pair.shown, &search)), "{search:?}");
            let mut seen = pair.shown.clone();
            seen.retain(|(_, event)| NOT_B1.may_see(&event.device));
            let page = pair.store.search(&search, &NOT_B1).unwrap();
            prop_assert!(same(&page.events, &expected(&seen, &search)), "{search:?}");
        }
        for search in &searches {
            let all = Search { limit: usize::MAX >> 1, after: None, ..search.clone() };
            let whole = pair.store.search(&all, &Everyone).unwrap().events;
            prop_assert_eq!(pages(&pair.store, search, &Everyone), whole);
        }
    }
}

/// All pages of a search, one after the other.
fn pages(store: &Store, search: &Search, fleet: &dyn Fleet) -> Vec<Found> {
    let mut search = Search {
        after: None,
        ..search.clone()
    };
    let mut all = Vec::new();
    for _ in 0..10_000 {
        let Page { events, next, .. } = store.search(&search, fleet).unwrap();
        assert!(events.len() <= search.limit);
        all.extend(events);
        match next {
            None => return all,
            Some(next) => search.after = Some(next),
        }
    }
    panic!("a search without end");
}

fn filled(folder: &Path, count: u64) -> (Store, Writer, Vec<(u64, Event)>) {
    let (store, mut writer) = Store::open(options(folder), None).unwrap();
    let events: Vec<Event> = (0..count).map(event).collect();
    for (at, chunk) in events.chunks(97).enumerate() {
        writer.append(&chunk.iter().collect::<Vec<_>>()).unwrap();
        writer.commit()().unwrap();
        if at % 4 == 3 {
            writer.roll().unwrap();
            store.keep_once(0).unwrap();
        }
    }
    (store, writer, (0..).zip(events).collect())
}

/// May not see one device; may stop every search as early as it can.
struct AllBut(&'static str, bool);

const NOT_B1: AllBut = AllBut("b1", true);
const IMPATIENT: AllBut = AllBut("a1", false);

impl Fleet for AllBut {
    fn facts(&self, device: &str) -> Arc<Facts> {
        Everyone.facts(device)
    }

    fn may_see(&self, device: &str) -> bool {
        device != self.0
    }

    fn goes_on(&self) -> bool {
        self.1
    }
}

#[test]
fn a_search_that_is_stopped_can_go_on_and_misses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _writer, events) = filled(folder.path(), 3000);
    for order in [Order::Newest, Order::Oldest, Order::Arrival] {
        let filter = Some(EventQuery::parse("message ~ /timeout after/").unwrap());
        let search = Search {
            order,
            filter,
            limit: 50,
            ..Search::default()
        };
        let seen: Vec<(u64, Event)> = events
            .iter()
            .filter(|it| &*it.1.device != "a1")
            .cloned()
            .collect();
        let all = Search {
            limit: usize::MAX,
            ..search.clone()
        };
        assert_eq!(
            pages(&store, &search, &IMPATIENT),
            expected(&seen, &all),
            "{order:?}"
        );
    }
}

#[test]
fn counts_are_those_of_a_list() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _writer, events) = filled(folder.path(), 2000);
    let filter = Some(EventQuery::parse("level >= INFO").unwrap());
    let search = Search {
        from: HOUR,
        filter,
        limit: usize::MAX,
        ..Search::default()
    };
    let step = 100_000_000_000;
    let mut wanted: BTreeMap<u64, [u64; 4]> = BTreeMap::new();
    for found in expected(&events, &search) {
        let begin = HOUR + (found.place.at - HOUR) / step * step;
        let level = [5, 9, 13, 17]
            .iter()
            .position(|it| *it == found.event.severity.number());
        wanted.entry(begin).or_default()[level.unwrap()] += 1;
    }
    let counts = store.count(&search, step, 1000, &Everyone).unwrap();
    assert_eq!((counts.steps, counts.is_partial), (wanted, false));
    let few = store.count(&search, step, 2, &Everyone).unwrap();
    assert_eq!((few.steps.len(), few.is_partial), (2, true));
}

/// Sees what begins with an `a`.
struct OfA;

impl Fleet for OfA {
    fn facts(&self, device: &str) -> Arc<Facts> {
        Everyone.facts(device)
    }

    fn may_see(&self, device: &str) -> bool {
        device.starts_with('a')
    }

    fn goes_on(&self) -> bool {
        true
    }
}

#[test]
fn counts_of_devices_are_those_of_each_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let (store, mut writer, events) = filled(folder.path(), 3000);
    let step = 100_000_000_000;
    let names = |names: &[&str]| Some(names.iter().map(|it| Arc::from(*it)).collect());
    let asked = Search {
        from: HOUR,
        devices: names(&["c", "a2", "b1", "none", "a2"]),
        filter: Some(EventQuery::parse("level >= INFO and message ~ /t/").unwrap()),
        ..Search::default()
    };
    // In the fresh file, then sealed and sorted by device.
    for _ in 0..2 {
        let counts = store.count_devices(&asked, step, 1000, &Everyone).unwrap();
        let listed: Vec<&str> = counts.devices.keys().map(|it| &**it).collect();
        assert_eq!(
            (listed, counts.is_partial),
            (vec!["a2", "b1", "c", "none"], false)
        );
        assert!(counts.effort.read <= counts.effort.blocks);
        for (device, steps) in &counts.devices {
            let alone = Search {
                devices: names(&[device]),
                ..asked.clone()
            };
            let alone = store.count(&alone, step, 1000, &Everyone).unwrap();
            assert_eq!(steps, &alone.steps, "{device}");
        }
        let total: u64 = counts
            .devices
            .values()
            .flat_map(|it| it.values().flatten())
            .sum();
        let all = Search {
            limit: usize::MAX,
            ..asked.clone()
        };
        assert_eq!(total as usize, expected(&events, &all).len());
        writer.roll().unwrap();
        store.tidy().unwrap();
    }
    let few = store.count_devices(&asked, step, 5, &Everyone).unwrap();
    let told_apart: usize = few.devices.values().map(BTreeMap::len).sum();
    assert_eq!((told_apart, few.is_partial), (5, true));
    let seen = store.count_devices(&asked, step, 1000, &OfA).unwrap();
    assert_eq!(
        seen.devices.keys().map(|it| &**it).collect::<Vec<_>>(),
        ["a2"]
    );
}

#[test]
fn what_is_old_goes_but_for_the_last_events_of_a_device() {
    let folder = tempfile::tempdir().unwrap();
    let (store, mut writer, events) = filled(folder.path(), 1500);
    writer.roll().unwrap();
    store.keep_once(0).unwrap();
    let later = HOUR + 100 * 3600 * 1_000_000_000;
    store.keep_once(later).unwrap();
    let all = Search {
        limit: usize::MAX >> 1,
        ..Search::default()
    };
    let left = store.search(&all, &Everyone).unwrap().events;
    let mut of_device: BTreeMap<Arc<str>, BTreeSet<u64>> = BTreeMap::new();
    for found in &left {
        of_device
            .entry(Arc::clone(&found.event.device))
            .or_default()
            .insert(found.place.row);
    }
    assert_eq!(of_device.len(), 5);
    for (device, rows) in of_device {
        // Segments overlap in time a little, and the last of each may stay.
        assert!(
            rows.len() >= 5 && rows.len() < 50,
            "{device}: {}",
            rows.len()
        );
        let of_device = events.iter().filter(|it| it.1.device == device);
        let last = of_device
            .max_by_key(|it| (it.1.time.min(it.1.received), it.0))
            .map(|it| it.0);
        assert!(rows.contains(&last.unwrap()), "{device}");
    }
}

#[test]
fn there_is_never_more_than_there_is_room_for() {
    let folder = tempfile::tempdir().unwrap();
    let (store, writer, events) = filled(folder.path(), 3000);
    let there = store.size().bytes;
    drop((store, writer));
    let options = Options {
        bytes: there / 3,
        ..options(folder.path())
    };
    let (store, _writer) = Store::open(options, None).unwrap();
    store.keep_once(0).unwrap();
    assert!(store.size().bytes <= there / 3);
    let newest = store
        .search(
            &Search {
                limit: 10,
                order: Order::Arrival,
                after: Some(Place { at: 0, row: 2989 }),
                ..Search::default()
            },
            &Everyone,
        )
        .unwrap();
    assert_eq!(
        newest.events.last().unwrap().event,
        events.last().unwrap().1
    );
}

#[test]
fn each_age_has_its_own_files() {
    let folder = tempfile::tempdir().unwrap();
    let long = Duration::from_secs(1000 * 3600);
    let options = Options {
        events_per_device: 0,
        age_of: Arc::new(move |device| (device == "c").then_some(long)),
        ..options(folder.path())
    };
    let (store, mut writer) = Store::open(options, None).unwrap();
    let events: Vec<Event> = (0..200).map(event).collect();
    writer.append(&events.iter().collect::<Vec<_>>()).unwrap();
    writer.commit()().unwrap();
    writer.roll().unwrap();
    store.keep_once(0).unwrap();
    store.keep_once(HOUR + 100 * 3600 * 1_000_000_000).unwrap();
    let left = store.search(&Search::default(), &Everyone).unwrap().events;
    assert!(!left.is_empty() && left.iter().all(|it| &*it.event.device == "c"));
    store.keep_once(HOUR + 2000 * 3600 * 1_000_000_000).unwrap();
    assert_eq!(
        store.search(&Search::default(), &Everyone).unwrap().events,
        []
    );
}

#[test]
fn what_was_cleared_leaves_the_files() {
    let folder = tempfile::tempdir().unwrap();
    let (store, mut writer, _) = filled(folder.path(), 1000);
    writer.roll().unwrap();
    store.keep_once(0).unwrap();
    let before = store.size().events;
    store.clear("a1").unwrap();
    let devices = Some(vec![Arc::from("a1")]);
    let search = Search {
        devices,
        ..Search::default()
    };
    assert_eq!(store.search(&search, &Everyone).unwrap().events, []);
    store.keep_once(0).unwrap();
    assert!(store.size().events < before, "it is gone from the files");
    let new = event((0..).find(|n| &*event(*n).device == "a1").unwrap());
    writer.append(&[&new]).unwrap();
    writer.commit()().unwrap();
    assert_eq!(store.search(&search, &Everyone).unwrap().events.len(), 1);
}

#[test]
fn damage_is_an_error_that_names_the_file_and_never_a_wrong_answer() {
    let folder = tempfile::tempdir().unwrap();
    let (store, mut writer, events) = filled(folder.path(), 500);
    writer.roll().unwrap();
    store.keep_once(0).unwrap();
    drop((store, writer));
    let names = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|it| it.unwrap().path());
    let segment = names
        .filter(|it| it.extension().is_some_and(|it| it == "segment"))
        .min()
        .unwrap();
    let name = segment.file_name().unwrap().to_str().unwrap();
    let whole = std::fs::read(&segment).unwrap();
    let manifest = std::fs::read(folder.path().join("manifest.json")).unwrap();
    let filter = Some(EventQuery::parse("message ~ /timeout/").unwrap());
    let search = Search {
        filter,
        limit: 500,
        ..Search::default()
    };
    let right = expected(
        &(0..)
            .zip(events.into_iter().map(|it| it.1))
            .collect::<Vec<_>>(),
        &search,
    );
    for at in (0..whole.len()).step_by(101) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x55;
        std::fs::write(&segment, &bytes).unwrap();
        let opened = Store::open(options(folder.path()), None);
        let answer = opened.and_then(|(store, _writer)| store.search(&search, &Everyone));
        let aside = segment.with_extension("damaged");
        match answer {
            // Left out as a whole, loudly.
            Ok(_) if aside.exists() => {
                std::fs::remove_file(&aside).unwrap();
                std::fs::write(folder.path().join("manifest.json"), &manifest).unwrap();
            }
            Ok(page) => assert!(page.events == right, "byte {at}"),
            Err(error) => assert!(error.to_string().contains(name), "byte {at}: {error}"),
        }
    }
}

#[test]
fn who_watches_hears_of_what_is_shown() {
    struct Count(AtomicU64);
    impl crate::Watch for Count {
        fn changed(&self) {
            self.0.fetch_add(1, Atomic::Relaxed);
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let (store, mut writer) = Store::open(options(folder.path()), None).unwrap();
    let count = Arc::new(Count(AtomicU64::new(0)));
    store.watch(Arc::clone(&count) as Arc<dyn crate::Watch>);
    writer.append(&[&event(1)]).unwrap();
    assert_eq!((store.shown(), count.0.load(Atomic::Relaxed)), (0, 0));
    writer.commit()().unwrap();
    assert_eq!((store.shown(), count.0.load(Atomic::Relaxed)), (1, 1));
}

#[test]
fn numbers_of_rows_never_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let (store, mut writer) = Store::open(options(folder.path()), None).unwrap();
    let mut event = event(1);
    for _ in 0..3 {
        writer.append(&[&event, &event]).unwrap();
        writer.commit()().unwrap();
    }
    writer.roll().unwrap();
    store.clear(&event.device).unwrap();
    store.keep_once(0).unwrap();
    assert_eq!(store.size().events, 0);
    let end = writer.end();
    drop((store, writer));
    let (store, mut writer) = Store::open(options(folder.path()), Some(end)).unwrap();
    event.message = "after all were cleared".into();
    writer.append(&[&event]).unwrap();
    writer.commit()().unwrap();
    let found = store.search(&Search::default(), &Everyone).unwrap().events;
    assert_eq!(found.len(), 1);
    assert!(found[0].place.row >= 6);
}

#[test]
fn an_answer_is_limited_by_bytes_too_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (store, mut writer) = Store::open(options(folder.path()), None).unwrap();
    let events: Vec<Event> = (0..100)
        .map(|n| Event {
            message: format!("{n}").repeat(100_000),
            ..event(n)
        })
        .collect();
    for event in &events {
        writer.append(&[event]).unwrap();
    }
    writer.commit()().unwrap();
    let search = Search {
        order: Order::Arrival,
        ..Search::default()
    };
    let page = store.search(&search, &Everyone).unwrap();
    assert!(
        page.events.len() > 10 && page.events.len() < 90,
        "{}",
        page.events.len()
    );
    let all: Vec<Event> = pages(&store, &search, &Everyone)
        .into_iter()
        .map(|it| it.event)
        .collect();
    assert!(all == events);
}

#[test]
fn a_damaged_block_holds_up_nothing_behind_it() {
    for opened_again in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let (mut store, mut writer) = Store::open(options(folder.path()), None).unwrap();
        let mut ends = Vec::new();
        for n in 0..3 {
            writer.append(&[&event(n)]).unwrap();
            writer.commit()().unwrap();
            ends.push(writer.end());
        }
        let file = folder.path().join("00000000.fresh");
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[ends[0].length as usize + 50] ^= 1;
        std::fs::write(&file, bytes).unwrap();
        if opened_again {
            (store, writer) = Store::open(options(folder.path()), Some(ends[2])).unwrap();
        }
        writer.roll().unwrap();
        store.keep_once(0).unwrap();
        let arrival = Search {
            order: Order::Arrival,
            ..Search::default()
        };
        let found = store.search(&arrival, &Everyone).unwrap().events;
        let rows: Vec<u64> = found.iter().map(|it| it.place.row).collect();
        assert_eq!(rows, [0, 2], "{opened_again}");
    }
}

#[test]
fn without_its_manifest_a_store_is_no_empty_one() {
    let folder = tempfile::tempdir().unwrap();
    let (store, mut writer, _) = filled(folder.path(), 500);
    writer.roll().unwrap();
    store.keep_once(0).unwrap();
    drop((store, writer));
    std::fs::remove_file(folder.path().join("manifest.json")).unwrap();
    let error = Store::open(options(folder.path()), None).unwrap_err();
    assert!(error.to_string().contains("manifest.json"), "{error}");
}

#[test]
fn a_store_that_ends_changes_no_file_any_more() {
    let folder = tempfile::tempdir().unwrap();
    let (store, mut writer, _) = filled(folder.path(), 500);
    store.end();
    assert!(store.clear("a1").is_err() && writer.roll().is_err());
    let before = std::fs::read(folder.path().join("manifest.json")).unwrap();
    store.keep_once(u64::MAX).unwrap();
    assert_eq!(
        std::fs::read(folder.path().join("manifest.json")).unwrap(),
        before
    );
    assert!(
        !store
            .search(&Search::default(), &Everyone)
            .unwrap()
            .events
            .is_empty()
    );
}
