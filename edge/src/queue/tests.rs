use std::collections::BTreeMap;

use proptest::prelude::*;
use thinglog_schemas::{Severity, batch::DropReason, config::Desired};

use super::*;

const CLOCK: ClockInfo = ClockInfo {
    boot: 1,
    sent_mono: 0,
    synced: true,
};
const AGE: Duration = Duration::from_millis(200);

fn options() -> QueueOptions {
    QueueOptions {
        memory_bytes: 64 << 10,
        batch_events: 10,
        batch_bytes: 8 << 10,
        flush_age: AGE,
    }
}

fn queue() -> Queue {
    Queue::new(options(), Levels::new(Level::Debug), 42)
}

fn record(source: &str, severity: Severity, bytes: usize) -> Record {
    Record::new(source, severity, "x".repeat(bytes))
}

fn cut_all(queue: &mut Queue) -> Vec<Cut> {
    queue.start_flush();
    std::iter::from_fn(|| queue.cut(None, CLOCK)).collect()
}

fn messages(cut: &Cut) -> Vec<&str> {
    cut.batch.entries.iter().map(|e| &*e.message).collect()
}

fn severity(level: u8) -> Severity {
    [
        Severity::DEBUG,
        Severity::INFO,
        Severity::WARN,
        Severity::ERROR,
    ][usize::from(level % 4)]
}

#[test]
fn a_lane_is_due_by_count() {
    let mut queue = queue();
    for i in 0..9 {
        let pushed = queue.push(record("app", Severity::INFO, 1));
        assert_eq!(pushed, Pushed::Queued { wake: i == 0 });
    }
    assert!(queue.cut(None, CLOCK).is_none());
    let pushed = queue.push(record("app", Severity::INFO, 1));
    assert_eq!(pushed, Pushed::Queued { wake: true });
    let cut = queue.cut(None, CLOCK).unwrap();
    assert_eq!(cut.batch.entries.len(), 10);
    assert_eq!(queue.depth(), (0, 0));
}

#[test]
fn a_few_may_wait_while_a_lane_ages_and_none_is_nearly_due() {
    let options = QueueOptions {
        batch_events: 20,
        batch_bytes: 16 << 10,
        ..options()
    };
    let mut queue = Queue::new(options, Levels::new(Level::Debug), 42);
    assert!(!queue.may_wait(), "nobody would come");
    for count in 1..20 {
        queue.push(record("app", Severity::INFO, 1));
        assert_eq!(queue.may_wait(), count + MAY_WAIT.0 < 20, "{count}");
    }
    queue.push(record("app", Severity::INFO, 1));
    assert!(queue.may_wait(), "it is due, and no other one is nearly");
    queue.tick(Instant::now());
    queue.set_hold_patient(true);
    assert!(!queue.may_wait(), "what is due may be held back alone");
    queue.set_hold_patient(false);
    assert_eq!(cut_all(&mut queue).len(), 1);
    assert!(!queue.may_wait());
    queue.push(record("app", Severity::INFO, 8 << 10));
    assert!(!queue.may_wait(), "by bytes");
    queue.tick(Instant::now() + 2 * AGE);
    assert_eq!(cut_all(&mut queue).len(), 1);
    queue.push(record("other", Severity::INFO, 1));
    assert!(queue.may_wait(), "the full one has gone");
}

#[test]
fn what_has_waited_is_due_no_later_than_its_age_after_the_last_look() {
    let mut queue = queue();
    let start = Instant::now();
    queue.push(record("app", Severity::INFO, 1));
    queue.tick(start);
    queue.note_waited();
    queue.push(record("other", Severity::INFO, 1));
    queue.tick(start + AGE / 2);
    queue.tick(start + AGE);
    let due = std::iter::from_fn(|| queue.cut(None, CLOCK));
    assert_eq!(due.count(), 2);
    queue.push(record("app", Severity::INFO, 1));
    queue.tick(start + 2 * AGE);
    assert_eq!(queue.deadline(), Some(start + 3 * AGE));
}

#[test]
fn what_is_given_up_waits_to_be_freed_within_a_share_of_the_memory() {
    const MEMORY: usize = 1 << 20;
    let options = QueueOptions {
        memory_bytes: MEMORY,
        ..options()
    };
    let mut queue = Queue::new(options, Levels::new(Level::Debug), 42);
    for bytes in [800, 2000] {
        for _ in 0..2 * MEMORY / bytes {
            queue.push(record("app", Severity::INFO, bytes));
        }
        let freed = std::iter::from_fn(|| queue.take_given_up());
        let sizes: Vec<usize> = freed.map(|entry| entry.message.len()).collect();
        assert_eq!(sizes, [800; MEMORY / 64 / 1024]);
    }
    assert!(queue.counters().dropped > 1000);
}

#[test]
fn a_lane_is_due_by_bytes() {
    let mut queue = queue();
    for _ in 0..3 {
        queue.push(record("app", Severity::INFO, 3000));
    }
    assert_eq!(queue.cut(None, CLOCK).unwrap().batch.entries.len(), 3);
}

#[test]
fn a_lane_is_due_by_age() {
    let mut queue = queue();
    let start = Instant::now();
    queue.push(record("app", Severity::INFO, 1));
    queue.tick(start);
    assert_eq!(queue.deadline(), Some(start + AGE));
    queue.tick(start + AGE - Duration::from_millis(1));
    assert!(queue.cut(None, CLOCK).is_none());
    queue.tick(start + AGE);
    assert!(queue.cut(None, CLOCK).is_some());
    assert_eq!(queue.deadline(), None);
}

#[test]
fn severities_of_one_source_leave_in_the_order_they_came() {
    let mut queue = queue();
    for (i, severity) in [17u8, 5, 13, 9, 5, 21].into_iter().enumerate() {
        let severity = Severity::new(severity).unwrap();
        queue.push(Record::new("app", severity, i.to_string()));
    }
    let cuts = cut_all(&mut queue);
    assert_eq!(messages(&cuts[0]), ["0", "1", "2", "3", "4", "5"]);
    let seqs: Vec<u64> = cuts[0].batch.entries.iter().map(|e| e.seq).collect();
    assert_eq!(seqs, [0, 1, 2, 3, 4, 5]);
}

#[test]
fn sources_have_lanes_of_their_own_and_take_turns() {
    let mut queue = queue();
    for _ in 0..20 {
        queue.push(record("noisy", Severity::INFO, 1));
    }
    queue.push(record("quiet", Severity::INFO, 1));
    let cuts = cut_all(&mut queue);
    let order: Vec<&str> = cuts.iter().map(|cut| &*cut.source).collect();
    assert_eq!(order, ["noisy", "quiet", "noisy"]);
    assert_ne!(cuts[0].batch.epoch, cuts[1].batch.epoch);
    assert_eq!(cuts[0].batch.epoch, cuts[2].batch.epoch);
    assert_eq!(cuts[2].batch.first_seq, 10);
}

#[test]
fn a_source_that_cannot_stand_in_a_topic_is_encoded() {
    let mut queue = queue();
    queue.push(record("my app/1", Severity::INFO, 1));
    assert_eq!(&*cut_all(&mut queue)[0].source, "my%20app%2F1");
}

#[test]
fn events_below_the_level_get_no_number_and_take_no_room() {
    let mut queue = Queue::new(options(), Levels::new(Level::Warn), 42);
    let pushed = queue.push(record("app", Severity::INFO, 100));
    assert_eq!(pushed, Pushed::Filtered);
    queue.push(record("app", Severity::WARN, 1));
    let cuts = cut_all(&mut queue);
    assert_eq!(cuts[0].batch.entries[0].seq, 0);
    assert_eq!(queue.counters().accepted, 1);
}

#[test]
fn at_the_cap_the_least_grave_go_first_and_are_declared() {
    let mut queue = queue();
    queue.push(Record::new("app", Severity::ERROR, "first"));
    for _ in 0..2000 {
        queue.push(record("app", Severity::DEBUG, 100));
        queue.push(record("app", Severity::WARN, 100));
    }
    let (events, bytes) = queue.depth();
    assert!(bytes <= 64 << 10);
    let cuts = cut_all(&mut queue);
    assert_eq!(messages(&cuts[0])[0], "first");
    let kept: Vec<_> = cuts.iter().flat_map(|cut| &cut.batch.entries).collect();
    assert_eq!(kept.len() as u64, events);
    assert!(kept.iter().all(|entry| entry.severity >= Severity::WARN));
    let declared: u64 = cuts
        .iter()
        .flat_map(|cut| &cut.batch.drops)
        .map(|drop| drop.count)
        .sum();
    assert_eq!(declared + events, 4001);
    assert_eq!(declared, queue.counters().dropped);
}

#[test]
fn an_event_less_grave_than_all_that_is_kept_is_turned_away_and_declared() {
    let mut queue = queue();
    while queue.counters().dropped == 0 {
        queue.push(record("app", Severity::ERROR, 1000));
    }
    let before = queue.depth();
    let pushed = queue.push(record("late", Severity::INFO, 20_000));
    assert!(matches!(pushed, Pushed::Dropped { .. }));
    assert_eq!(queue.depth(), before);
    let cuts = cut_all(&mut queue);
    let late = cuts.iter().find(|cut| &*cut.source == "late").unwrap();
    let drop = &late.batch.drops[0];
    assert_eq!((drop.from, drop.to, drop.count), (0, 0, 1));
    assert_eq!(drop.reason, DropReason::SpoolFull);
    assert_eq!(drop.severity, Severity::INFO);
}

#[test]
fn a_noisy_source_loses_before_a_quiet_one() {
    let mut queue = queue();
    for i in 0..10 {
        queue.push(Record::new("quiet", Severity::INFO, i.to_string()));
    }
    for _ in 0..5000 {
        queue.push(record("noisy", Severity::INFO, 100));
    }
    let cuts = cut_all(&mut queue);
    let quiet = cuts.iter().find(|cut| &*cut.source == "quiet").unwrap();
    assert_eq!(quiet.batch.entries.len(), 10);
    assert!(quiet.batch.drops.is_empty());
}

/// Fills the memory with events of `source`.
fn fill(queue: &mut Queue, source: &str, severity: Severity) {
    for _ in 0..600 {
        queue.push(record(source, severity, 100));
    }
}

#[test]
fn an_event_that_nothing_gives_way_for_costs_no_other_its_place() {
    let mut queue = queue();
    queue.push_patient(record("file", Severity::INFO, 40 << 10));
    queue.push(record("app", Severity::DEBUG, 1000));
    let before = queue.depth();
    let large = record("app", Severity::ERROR, 30 << 10);
    assert_eq!(queue.push(large), Pushed::Dropped { wake: false });
    assert_eq!(queue.depth(), before);
}

#[test]
fn it_is_known_which_events_find_no_room_before_they_come() {
    let mut queue = queue();
    assert_eq!(queue.refuses(), None);
    fill(&mut queue, "app", Severity::DEBUG);
    let refuses = queue.refuses().unwrap();
    assert_eq!((refuses.class, refuses.source), (0, Some(name_hash("app"))));
    assert!(refuses.free < 228 && refuses.free == (64 << 10) - queue.depth().1);

    // What is larger than all memory says nothing of what gives way for others.
    queue.push(record("app", Severity::ERROR, 64 << 10));
    assert_eq!(queue.refuses(), Some(refuses));

    fill(&mut queue, "net", Severity::WARN);
    queue.push(record("app", Severity::INFO, 100));
    let refuses = queue.refuses().unwrap();
    assert_eq!((refuses.class, refuses.source), (2, Some(name_hash("net"))));
    let free = refuses.free;

    // Something less grave that fits is the next to go.
    cut_all(&mut queue);
    queue.push(record("app", Severity::DEBUG, 100));
    assert_eq!(queue.refuses(), None);

    fill(&mut queue, "net", Severity::WARN);
    assert!(queue.refuses().is_some_and(|refuses| refuses.free == free));
    queue.set_hasten_errors(true);
    assert_eq!(queue.refuses(), None);
}

#[test]
fn where_there_is_only_what_waits_the_rest_is_refused_whatever_its_source() {
    let mut queue = queue();
    queue.push_patient(record("file", Severity::DEBUG, 48 << 10));
    queue.set_outside(16 << 10);
    queue.push(record("app", Severity::WARN, 1));
    let refuses = queue.refuses().unwrap();
    assert_eq!((refuses.class, refuses.source), (2, None));
    queue.push(record("app", Severity::INFO, 1));
    assert_eq!(queue.refuses(), Some(refuses));
}

#[test]
fn a_source_that_waits_is_stopped_before_the_cap_and_loses_nothing() {
    let mut queue = queue();
    let mut taken = 0;
    while let Pushed::Queued { .. } = queue.push_patient(record("file", Severity::DEBUG, 1000)) {
        taken += 1;
    }
    assert!(queue.depth().1 <= 48 << 10);
    assert!(!queue.has_room());
    for _ in 0..1000 {
        queue.push(record("app", Severity::ERROR, 1000));
    }
    let cuts = cut_all(&mut queue);
    let file = cuts.iter().filter(|cut| &*cut.source == "file");
    assert_eq!(
        file.map(|cut| cut.batch.entries.len()).sum::<usize>(),
        taken
    );
    assert!(queue.has_room());
}

#[test]
fn one_event_larger_than_what_waiting_sources_may_use_still_gets_through() {
    let mut queue = queue();
    let large = record("file", Severity::INFO, 60 << 10);
    assert!(matches!(
        queue.push_patient(large.clone()),
        Pushed::Queued { .. }
    ));
    assert!(matches!(queue.push_patient(large), Pushed::Full(_)));
}

#[test]
fn a_reserve_takes_only_what_is_grave_and_declares_the_rest() {
    let mut queue = queue();
    queue.push(record("app", Severity::INFO, 1));
    queue.push(record("app", Severity::ERROR, 1));
    queue.start_flush();
    let cut = queue.cut(Some(Level::Warn), CLOCK).unwrap();
    assert_eq!(cut.batch.entries.len(), 1);
    assert_eq!(cut.batch.drops[0].severity, Severity::INFO);
    assert_eq!(queue.counters().dropped, 1);
}

#[test]
fn sources_without_end_share_a_lane_and_keep_their_name() {
    let mut queue = queue();
    for i in 0..MAX_LANES + 1 {
        queue.push(record(&format!("s{i}"), Severity::INFO, 0));
    }
    let cuts = cut_all(&mut queue);
    let other = cuts.iter().find(|cut| &*cut.source == OVERFLOW).unwrap();
    let named = &other.batch.entries[0].attributes.map()["source"];
    assert_eq!(named, &format!("s{MAX_LANES}"));
}

#[test]
fn a_settled_lane_makes_place_and_returns_with_another_epoch() {
    let mut queue = queue();
    for i in 0..MAX_LANES {
        queue.push(record(&format!("s{i}"), Severity::INFO, 0));
    }
    let cuts = cut_all(&mut queue);
    queue.settle(cuts[0].lane, cuts[0].through);
    let gone = cuts[0].source.clone();
    queue.push(record("new", Severity::INFO, 0));
    assert_eq!(&*cut_all(&mut queue)[0].source, "new");
    queue.settle(cuts[1].lane, cuts[1].through);
    queue.push(record(&gone, Severity::INFO, 0));
    let back = &cut_all(&mut queue)[0];
    assert_eq!(back.source, gone);
    assert_ne!(back.batch.epoch, cuts[0].batch.epoch);
    assert_eq!(back.batch.first_seq, 0);
}

#[test]
fn a_level_that_becomes_known_before_the_first_batch_leaves_no_trace_of_what_it_cuts() {
    let mut queue = queue();
    queue.push(record("app", Severity::INFO, 10));
    queue.push(record("app", Severity::ERROR, 10));
    let mut target = queue.start_flush();
    let desired = r#"{"schema":1,"revision":"0","level":"ERROR"}"#;
    let desired: Desired = serde_json::from_str(desired).unwrap();
    let now = crate::levels::Now {
        mono: Instant::now(),
        wall: None,
    };
    queue.change_levels(|levels| levels.apply(desired, now), true);
    let cut = queue.cut(None, CLOCK).unwrap();
    assert_eq!(cut.batch.entries.len(), 1);
    assert_eq!(cut.batch.entries[0].seq, 0);
    assert!(cut.batch.drops.is_empty());
    assert_eq!(queue.counters().purged, 1);
    queue.settle(cut.lane, cut.through);
    assert_eq!(queue.poll_flush(&mut target), Some(true));
}

#[test]
fn a_flush_whose_events_were_all_purged_ends() {
    let mut queue = queue();
    queue.push(record("app", Severity::INFO, 10));
    let mut target = queue.start_flush();
    queue.change_levels(|levels| *levels = Levels::new(Level::Error), true);
    assert_eq!(queue.poll_flush(&mut target), Some(true));
    assert!(queue.cut(None, CLOCK).is_none());
}

#[test]
fn a_flush_waits_for_what_was_there_and_for_nothing_later() {
    let mut queue = queue();
    queue.push(record("app", Severity::INFO, 1));
    let mut target = queue.start_flush();
    let first = queue.cut(None, CLOCK).unwrap();
    queue.push(record("app", Severity::INFO, 1));
    assert_eq!(queue.poll_flush(&mut target), None);
    queue.settle(first.lane, first.through);
    assert_eq!(queue.poll_flush(&mut target), Some(true));
}

#[test]
fn a_flush_fails_when_something_it_waits_for_is_dropped_and_not_for_later_drops() {
    let mut queue = queue();
    queue.push(record("app", Severity::INFO, 1));
    let mut target = queue.start_flush();
    let cut = queue.cut(None, CLOCK).unwrap();
    while queue.counters().dropped == 0 {
        queue.push(record("app", Severity::INFO, 1000));
    }
    queue.settle(cut.lane, cut.through);
    assert_eq!(queue.poll_flush(&mut target), Some(true));

    let mut target = queue.start_flush();
    for _ in 0..100 {
        queue.push(record("app", Severity::ERROR, 1000));
    }
    for cut in cut_all(&mut queue) {
        queue.settle(cut.lane, cut.through);
    }
    assert_eq!(queue.poll_flush(&mut target), Some(false));
}

#[test]
fn a_flush_fails_when_the_reserve_of_the_spool_gives_up_what_it_waits_for() {
    let mut queue = queue();
    queue.push(record("app", Severity::INFO, 1));
    queue.push(record("app", Severity::ERROR, 1));
    let mut target = queue.start_flush();
    let cut = queue.cut(Some(Level::Warn), CLOCK).unwrap();
    queue.settle(cut.lane, cut.through);
    assert_eq!(queue.poll_flush(&mut target), Some(false));
}

#[test]
fn epochs_differ_between_lanes_and_between_processes() {
    let mut seen = std::collections::HashSet::new();
    for seed in [1, 2, 3, u64::MAX] {
        for generation in 1..1000 {
            assert!(seen.insert(super::names::epoch(seed, generation)));
        }
    }
}

/// What happens to a queue.
#[derive(Clone, Debug)]
enum Step {
    Push {
        source: u8,
        severity: u8,
        bytes: usize,
    },
    PushPatient {
        bytes: usize,
    },
    Cut,
    Flush,
    Outside(usize),
    Tick,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0u8..3, 0u8..4, 0usize..3000)
            .prop_map(|(source, severity, bytes)| Step::Push { source, severity, bytes }),
        2 => (0usize..3000).prop_map(|bytes| Step::PushPatient { bytes }),
        2 => Just(Step::Cut),
        1 => Just(Step::Flush),
        1 => (0usize..60_000).prop_map(Step::Outside),
        1 => Just(Step::Tick),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever happens: each lane's batches follow on each other without a hole, entries and
    /// declared drops together are exactly what was accepted, and the cap holds.
    #[test]
    fn every_accepted_event_is_sent_or_declared_exactly_once(
        steps in proptest::collection::vec(step(), 1..400)
    ) {
        let mut queue = queue();
        let mut accepted: BTreeMap<(String, Severity), u64> = BTreeMap::new();
        let mut outside = 0;
        let mut cuts = Vec::new();
        let mut now = Instant::now();
        for step in steps {
            match step {
                Step::Push { source, severity: level, bytes } => {
                    let source = format!("s{source}");
                    queue.push(record(&source, severity(level), bytes));
                    *accepted.entry((source, severity(level))).or_default() += 1;
                }
                Step::PushPatient { bytes } => {
                    let pushed = queue.push_patient(record("file", Severity::DEBUG, bytes));
                    if matches!(pushed, Pushed::Queued { .. }) {
                        *accepted.entry(("file".into(), Severity::DEBUG)).or_default() += 1;
                    }
                }
                Step::Cut => cuts.extend(queue.cut(None, CLOCK)),
                Step::Flush => drop(queue.start_flush()),
                Step::Outside(bytes) => {
                    outside = bytes;
                    queue.set_outside(bytes);
                }
                Step::Tick => {
                    now += AGE;
                    queue.tick(now);
                }
            }
            let (_, bytes) = queue.depth();
            prop_assert!(bytes <= 64 << 10 || outside > 0);
        }
        cuts.extend(cut_all(&mut queue));
        prop_assert_eq!(queue.depth(), (0, 0));
        let mut next: BTreeMap<u64, u64> = BTreeMap::new();
        let mut accounted: BTreeMap<(String, Severity), u64> = BTreeMap::new();
        for cut in &cuts {
            let batch = &cut.batch;
            let next = next.entry(batch.epoch).or_default();
            prop_assert_eq!(batch.first_seq, *next);
            let mut count = |severity, n| {
                *accounted.entry((cut.source.to_string(), severity)).or_default() += n;
            };
            for drop in &batch.drops {
                prop_assert_eq!(drop.from, *next);
                prop_assert_eq!(drop.to + 1 - drop.from, drop.count);
                *next = drop.to + 1;
                count(drop.severity, drop.count);
            }
            for entry in &batch.entries {
                prop_assert_eq!(entry.seq, *next);
                *next += 1;
                count(entry.severity, 1);
            }
            prop_assert!(batch.entries.len() <= 10);
        }
        prop_assert_eq!(accounted, accepted);
        let file_drops = cuts.iter().filter(|cut| &*cut.source == "file");
        prop_assert!(file_drops.into_iter().all(|cut| cut.batch.drops.is_empty()));
    }
}

fn places(cut: &Cut) -> Vec<(u64, u64, Vec<u8>)> {
    let marks = cut.marks.iter();
    marks
        .map(|(seq, mark)| (*seq, mark.key, mark.place.to_vec()))
        .collect()
}

#[test]
fn marks_travel_with_their_events_and_the_last_place_is_known_at_once() {
    let mut queue = queue();
    for n in 0..3u8 {
        queue.push_patient(record("file", Severity::INFO, 1).marked(9, vec![n]));
    }
    assert_eq!(queue.place(9), Some(vec![2]));
    assert_eq!(queue.place(8), None);
    let cuts = cut_all(&mut queue);
    assert!(cuts[0].patient);
    let expected = [(0, 9, vec![0]), (1, 9, vec![1]), (2, 9, vec![2])];
    assert_eq!(places(&cuts[0]), expected);
}

#[test]
fn a_source_that_does_not_wait_has_no_place_to_go_back_to() {
    let mut queue = queue();
    queue.push(record("app", Severity::INFO, 1).marked(9, vec![1]));
    assert_eq!(queue.place(9), None);
    assert!(cut_all(&mut queue)[0].marks.is_empty());
}

#[test]
fn the_place_of_a_filtered_event_counts_once_what_came_before_is_durable() {
    let mut queue = queue();
    queue.change_levels(|levels| *levels = Levels::new(Level::Info), false);
    queue.push_patient(record("file", Severity::INFO, 1).marked(9, vec![1]));
    let filtered = record("file", Severity::DEBUG, 1).marked(9, vec![2]);
    assert_eq!(queue.push_patient(filtered), Pushed::Filtered);
    assert_eq!(queue.place(9), Some(vec![2]));
    assert!(queue.take_settled_places().is_empty());
    let cuts = cut_all(&mut queue);
    assert!(queue.take_settled_places().is_empty());
    queue.settle(cuts[0].lane, cuts[0].through);
    let settled = queue.take_settled_places();
    assert_eq!((settled[0].key, &*settled[0].place), (9, &[2][..]));
    assert!(queue.take_settled_places().is_empty());
}

#[test]
fn a_later_event_takes_the_place_of_a_filtered_one() {
    let mut queue = queue();
    let mark = Mark {
        key: 9,
        place: [1].into(),
    };
    queue.note_place("file", mark);
    queue.push_patient(record("file", Severity::INFO, 1).marked(9, vec![2]));
    assert!(queue.take_settled_places().is_empty());
    assert_eq!(places(&cut_all(&mut queue)[0]), [(0, 9, vec![2])]);
}

#[test]
fn a_batch_ends_before_its_places_grow_beyond_what_a_record_holds() {
    let mut queue = Queue::new(
        QueueOptions {
            memory_bytes: 8 << 20,
            batch_events: 1000,
            batch_bytes: 8 << 20,
            flush_age: AGE,
        },
        Levels::new(Level::Debug),
        42,
    );
    for key in 0..100 {
        queue.push_patient(record("file", Severity::INFO, 1).marked(key, vec![0; 4000]));
    }
    let cuts = cut_all(&mut queue);
    let mut keys = Vec::new();
    for cut in &cuts {
        let bytes: usize = places(cut).iter().map(|(_, _, place)| place.len()).sum();
        assert!(bytes <= MARK_BYTES + crate::marks::MAX_PLACE);
        keys.extend(places(cut).iter().map(|(_, key, _)| *key));
    }
    assert_eq!(keys, Vec::from_iter(0..100));
}

#[test]
fn what_a_caller_declares_is_numbered_counted_and_waited_for_as_a_drop() {
    let mut queue = queue();
    queue.push(record("app", Severity::INFO, 1));
    assert!(!queue.declare("app", Severity::INFO, DropReason::RateLimited, 0));
    queue.declare("app", Severity::INFO, DropReason::RateLimited, 5);
    queue.declare("app", Severity::WARN, DropReason::RateLimited, 2);
    assert!(queue.declare("quiet", Severity::INFO, DropReason::RateLimited, 1));
    assert_eq!(queue.counters().dropped, 8);
    let mut flush = queue.start_flush();
    let cuts = cut_all(&mut queue);
    let drops: Vec<_> = cuts[0]
        .batch
        .drops
        .iter()
        .map(|d| (d.from, d.to, d.count, d.severity, d.reason))
        .collect();
    let reason = DropReason::RateLimited;
    let expected = [
        (0, 4, 5, Severity::INFO, reason),
        (5, 6, 2, Severity::WARN, reason),
    ];
    assert_eq!(drops, expected);
    assert_eq!(cuts[0].batch.entries[0].seq, 7);
    assert_eq!(cuts[1].batch.drops[0].count, 1);
    assert_eq!(queue.poll_flush(&mut flush), None);
    for cut in cuts {
        queue.settle(cut.lane, cut.through);
    }
    assert_eq!(queue.poll_flush(&mut flush), Some(true));
}

#[test]
fn what_a_caller_declares_below_the_level_is_nothing() {
    let mut queue = queue();
    queue.change_levels(|levels| *levels = Levels::new(Level::Warn), false);
    assert!(!queue.declare("app", Severity::INFO, DropReason::RateLimited, 5));
    assert_eq!(queue.counters(), QueueCounters::default());
    assert!(cut_all(&mut queue).is_empty());
}
