//! Nobody waits, nothing is forgotten, what is refused is counted.

use std::{sync::Barrier, thread};

use thinglog_schemas::{Level, Severity, batch::ClockInfo};

use super::*;
use crate::{clock, levels::Levels, park, queue::QueueOptions};

const COST: usize = 200;
const CLOCK: ClockInfo = ClockInfo {
    boot: 1,
    sent_mono: 0,
    synced: true,
};

fn entrance(inbox_bytes: usize) -> Entrance {
    with_memory(64 << 20, inbox_bytes)
}

fn with_memory(memory_bytes: usize, inbox_bytes: usize) -> Entrance {
    let options = QueueOptions {
        memory_bytes,
        batch_events: 1000,
        batch_bytes: 1 << 20,
        flush_age: Duration::ZERO,
    };
    let queue = Queue::new(options, Levels::new(Level::Info), 7);
    Entrance::new(queue, inbox_bytes, Arc::new(Notify::new()))
}

fn record(severity: Severity, message: impl ToString) -> Record {
    Record::new("app", severity, message.to_string())
}

fn push(entrance: &Entrance, message: impl ToString) {
    entrance.push(record(Severity::INFO, message), COST);
}

/// The messages in the queue, without a look into the inbox.
fn queued(entrance: &Entrance) -> Vec<String> {
    cut_all(&mut entrance.queue.lock())
}

fn cut_all(queue: &mut Queue) -> Vec<String> {
    queue.start_flush();
    let mut messages = Vec::new();
    while let Some(cut) = queue.cut(None, CLOCK) {
        messages.extend(cut.batch.entries.into_iter().map(|entry| entry.message));
    }
    messages
}

fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

fn is_woken(entrance: &Entrance) -> bool {
    park::block_on_until(entrance.wake.notified(), clock::mono()).is_some()
}

/// Pushes from a thread of its own while the queue is locked.
fn push_beside_the_lock(entrance: &Entrance, range: std::ops::Range<u32>) {
    let locked = entrance.lock();
    let most = range.len();
    thread::scope(|scope| {
        let emit = || range.for_each(|number| push(entrance, number));
        scope.spawn(emit).join().unwrap();
    });
    assert_eq!(entrance.inbox.load().events(), most);
    drop(locked);
}

#[test]
fn the_first_event_wakes_the_worker_and_a_few_more_wait_until_somebody_looks() {
    let entrance = entrance(1 << 20);
    push(&entrance, 0);
    assert!(is_woken(&entrance) && entrance.queue.lock().depth().0 == 1);
    for number in 1..MAY_WAIT.0 as u32 {
        push(&entrance, number);
    }
    assert_eq!(entrance.queue.lock().depth().0, 1);
    assert_eq!(entrance.lock().depth().0, MAY_WAIT.0 as u64);
    for number in 8..12 {
        push(&entrance, number);
    }
    push(&entrance, "x".repeat(100));
    grave(&entrance);
    assert!(entrance.inbox.load().is_empty());
    assert!(!is_woken(&entrance));
    let all = queued(&entrance);
    assert_eq!((all.len(), &*all[13]), (14, "grave"));
}

#[test]
fn a_lane_is_due_with_the_event_that_makes_it_so() {
    let entrance = entrance(1 << 20);
    for number in 0..999 {
        push(&entrance, number);
    }
    let due = |entrance: &Entrance| {
        let mut queue = entrance.queue.lock();
        queue.cut(None, CLOCK).map(|cut| cut.batch.entries.len())
    };
    assert!(is_woken(&entrance) && due(&entrance).is_none());
    push(&entrance, 999);
    assert!(is_woken(&entrance));
    assert_eq!(due(&entrance), Some(1000));
}

#[test]
fn who_emits_does_not_wait_for_the_lock_and_who_has_it_takes_the_events_in() {
    let entrance = entrance(1 << 20);
    push(&entrance, 0);
    push_beside_the_lock(&entrance, 1..9);
    assert_eq!(queued(&entrance), numbers(0..9));
}

#[test]
fn what_is_too_much_to_take_in_at_once_wakes_the_worker_who_finds_all_of_it() {
    let entrance = entrance(1 << 20);
    push(&entrance, 0);
    assert!(is_woken(&entrance));
    push_beside_the_lock(&entrance, 1..200);
    assert!(entrance.inbox.load().events() > MAY_WAIT.0 && is_woken(&entrance));
    // One more goes behind them.
    push(&entrance, 200);
    assert_eq!(entrance.lock().depth().0, 201);
    assert_eq!(queued(&entrance), numbers(0..201));
}

fn grave(entrance: &Entrance) {
    entrance.push(record(Severity::ERROR, "grave"), COST);
}

/// An entrance whose worker is in a hurry for errors, knows of one event and comes by late.
fn hurried() -> Entrance {
    let entrance = entrance(1 << 20);
    entrance.lock().set_hasten_errors(true);
    push(&entrance, 0);
    assert!(is_woken(&entrance));
    entrance
}

#[test]
fn a_grave_event_that_meets_the_lock_wakes_the_worker_all_the_same() {
    let entrance = hurried();
    let locked = entrance.lock();
    thread::scope(|scope| {
        scope.spawn(|| grave(&entrance)).join().unwrap();
    });
    drop(locked);
    assert!(is_woken(&entrance));
    assert_eq!(queued(&entrance), ["0", "grave"]);
}

#[test]
fn a_grave_event_behind_what_one_takes_in_at_once_wakes_the_worker_all_the_same() {
    let entrance = hurried();
    // Fewer are left than may wait.
    let before = SHARE as u32 + 1;
    let locked = entrance.lock();
    thread::scope(|scope| {
        let emit = || {
            (0..before).for_each(|number| push(&entrance, number));
            grave(&entrance);
        };
        scope.spawn(emit).join().unwrap();
    });
    drop(locked);
    assert!(is_woken(&entrance));
    assert_eq!(entrance.lock().depth().0, 2 + u64::from(before));
    assert!(is_woken(&entrance));
}

#[test]
fn who_has_a_place_and_is_slow_to_use_it_is_waited_for_by_who_needs_all() {
    let entrance = entrance(1 << 20);
    let ticket = entrance.inbox.ticket(COST).unwrap();
    push(&entrance, 1);
    assert!(!is_woken(&entrance), "there is nothing to take in");
    thread::scope(|scope| {
        let all = scope.spawn(|| cut_all(&mut entrance.lock()));
        while !entrance.queue.is_locked() {
            thread::yield_now();
        }
        let first = record(Severity::INFO, 0);
        entrance.inbox.leave(ticket, first, COST);
        assert_eq!(all.join().unwrap(), numbers(0..2));
    });
}

#[test]
fn a_full_inbox_makes_one_wait_and_loses_nothing() {
    let entrance = entrance(8 << 10);
    let places = entrance.inbox.most().0;
    thread::scope(|scope| {
        let locked = entrance.lock();
        let emit = || (0..100).for_each(|number| push(&entrance, number));
        let emitting = scope.spawn(emit);
        while entrance.inbox.load().events() < places {
            thread::yield_now();
        }
        drop(locked);
        emitting.join().unwrap();
    });
    drop(entrance.lock());
    assert_eq!(queued(&entrance), numbers(0..100));
}

#[test]
fn what_no_inbox_could_hold_goes_behind_what_is_there() {
    let entrance = entrance(8 << 10);
    (0..3).for_each(|number| push(&entrance, number));
    let large = record(Severity::INFO, 3);
    entrance.push(large, 8 << 10);
    assert_eq!(queued(&entrance), numbers(0..4));
}

/// A queue full of events of severity INFO, and before it an inbox as full. Who emits while `during` runs
/// finds the lock taken.
fn full(during: impl FnOnce(&Entrance)) -> Entrance {
    let entrance = with_memory(20 * COST, 8 << 10);
    let places = entrance.inbox.most().0 as u32;
    (0..21).for_each(|number| push(&entrance, number));
    drop(entrance.lock());
    let locked = entrance.lock();
    elsewhere(|| (0..places).for_each(|number| push(&entrance, number)));
    during(&entrance);
    drop(locked);
    entrance
}

fn elsewhere(run: impl FnOnce() + Send) {
    thread::scope(|scope| scope.spawn(run).join().unwrap());
}

fn refuses(entrance: &Entrance, severity: Severity) -> bool {
    entrance.refuse(&record(severity, "refused"), COST)
}

#[test]
fn what_a_full_queue_would_take_in_for_none_is_refused_without_waiting_and_declared() {
    let entrance = full(|entrance| {
        elsewhere(|| {
            (0..7).for_each(|number| push(entrance, number));
            entrance.push(record(Severity::DEBUG, "below the level"), COST);
        });
    });
    let places = entrance.inbox.most().0 as u64;
    let mut queue = entrance.lock();
    assert_eq!(queue.counters().filtered, 1);
    assert_eq!(queue.counters().dropped, 1 + places + 7);
    queue.start_flush();
    let drops = queue.cut(None, CLOCK).unwrap().batch.drops;
    let declared: Vec<_> = drops
        .iter()
        .map(|drop| (drop.severity, drop.count))
        .collect();
    assert_eq!(declared, [(Severity::INFO, 1 + places + 7)]);
}

#[test]
fn nothing_is_refused_that_is_graver_or_quieter_than_what_a_full_queue_holds() {
    let entrance = full(|_| ());
    assert!(refuses(&entrance, Severity::INFO) && refuses(&entrance, Severity::DEBUG));
    assert!(!refuses(&entrance, Severity::WARN));
    let quiet = Record::new("quiet", Severity::INFO, "its time has come");
    assert!(!entrance.refuse(&quiet, COST));
}

#[test]
fn nothing_is_refused_while_room_is_made_or_once_there_is_some() {
    let entrance = full(|_| ());
    let mut locked = entrance.lock();
    locked.start_flush();
    assert!(refuses(&entrance, Severity::INFO));
    assert!(locked.cut(None, CLOCK).is_some());
    assert!(!refuses(&entrance, Severity::INFO));
    drop(locked);
    assert!(!refuses(&entrance, Severity::INFO));

    let while_locked = |change: fn(&mut Locked)| {
        let entrance = full(|_| ());
        entrance.lock().set_outside(COST);
        let mut locked = entrance.lock();
        assert!(refuses(&entrance, Severity::INFO));
        change(&mut locked);
        refuses(&entrance, Severity::INFO)
    };
    assert!(!while_locked(|locked| locked.change_levels(|_| (), true)));
    assert!(!while_locked(|locked| locked.set_outside(0)));
    assert!(while_locked(|locked| locked.set_outside(COST)));
}

#[test]
fn who_releases_the_lock_takes_in_what_was_counted_meanwhile() {
    let entrance = full(|_| ());
    drop(entrance.lock());
    let before = entrance.queue.lock().counters().dropped;
    let locked = entrance.lock();
    elsewhere(|| {
        assert!(refuses(&entrance, Severity::INFO));
        entrance.refused();
    });
    drop(locked);
    assert!(entrance.inbox.load().is_empty());
    assert_eq!(entrance.queue.lock().counters().dropped, before + 1);
}

#[test]
fn who_counts_takes_the_count_in_when_nobody_has_the_lock() {
    let entrance = full(|_| ());
    let before = entrance.lock().counters().dropped;
    assert!(refuses(&entrance, Severity::INFO));
    entrance.refused();
    assert_eq!(entrance.queue.lock().counters().dropped, before + 1);
}

/// Like one who counts and is stopped by the system while another needs the counts.
#[test]
fn who_is_just_counting_is_waited_for_by_who_needs_all_and_left_to_the_worker_by_others() {
    let entrance = full(|_| ());
    let before = entrance.lock().counters().dropped;
    while is_woken(&entrance) {}
    assert!(refuses(&entrance, Severity::INFO));
    let counting: Vec<_> = entrance
        .refusals
        .slots
        .iter()
        .map(|slot| slot.lock())
        .collect();
    entrance.refused();
    assert!(is_woken(&entrance));
    assert_eq!(entrance.queue.lock().counters().dropped, before);
    thread::scope(|scope| {
        let all = scope.spawn(|| entrance.lock().counters().dropped);
        while !entrance.queue.is_locked() {
            thread::yield_now();
        }
        drop(counting);
        assert_eq!(all.join().unwrap(), before + 1);
    });
}

#[test]
fn who_panics_with_the_lock_leaves_what_is_to_be_done_to_the_worker() {
    let entrance = hurried();
    elsewhere(|| {
        let panics = || {
            let _locked = entrance.lock();
            elsewhere(|| grave(&entrance));
            std::panic::resume_unwind(Box::new(()));
        };
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(panics)).is_err());
    });
    assert!(is_woken(&entrance));
}

#[test]
fn of_threads_that_emit_more_than_there_is_room_for_every_event_is_there_or_declared() {
    const THREADS: u64 = 4;
    const EVENTS: u64 = 5000;
    let entrance = with_memory(200 * COST, 16 << 10);
    let (mut there, mut dropped) = (0, 0);
    let mut look = || {
        let mut queue = entrance.lock();
        queue.start_flush();
        while let Some(cut) = queue.cut(None, CLOCK) {
            there += cut.batch.entries.len() as u64;
            dropped += cut.batch.drops.iter().map(|drop| drop.count).sum::<u64>();
        }
    };
    thread::scope(|scope| {
        let emit = || {
            let severities = [Severity::INFO, Severity::WARN, Severity::ERROR];
            for (number, severity) in (0..EVENTS).zip(severities.into_iter().cycle()) {
                entrance.push(record(severity, number), COST);
            }
        };
        let emitting: Vec<_> = (0..THREADS).map(|_| scope.spawn(emit)).collect();
        while !emitting.iter().all(|thread| thread.is_finished()) {
            if is_woken(&entrance) {
                look();
            }
            thread::yield_now();
        }
    });
    look();
    assert_eq!(there + dropped, THREADS * EVENTS);
    assert_eq!(entrance.lock().counters().dropped, dropped);
}

/// The worker looks when it is woken, and never else: were an event forgotten, it would wait in
/// vain.
#[test]
fn many_threads_lose_and_forget_nothing_and_each_keeps_its_order() {
    const THREADS: usize = 8;
    const EVENTS: u32 = 4000;
    let entrance = entrance(100 * COST);
    let barrier = Barrier::new(THREADS);
    let mut seen = Vec::new();
    thread::scope(|scope| {
        let emit = |thread: usize| {
            barrier.wait();
            for number in 0..EVENTS {
                push(&entrance, format!("{thread} {number}"));
                if number % 64 == 0 {
                    thread::yield_now();
                }
            }
        };
        for thread in 0..THREADS {
            scope.spawn(move || emit(thread));
        }
        while seen.len() < THREADS * EVENTS as usize {
            let until = clock::mono() + Duration::from_secs(30);
            let woken = park::block_on_until(entrance.wake.notified(), until);
            assert!(woken.is_some(), "{} events seen", seen.len());
            let mut queue = entrance.lock();
            queue.tick(clock::mono());
            seen.extend(cut_all(&mut queue));
        }
    });
    assert!(entrance.inbox.load().is_empty());
    for thread in 0..THREADS {
        let prefix = format!("{thread} ");
        let of_thread = seen.iter().filter_map(|text| text.strip_prefix(&prefix));
        assert!(of_thread.eq(numbers(0..EVENTS).iter()), "{thread}");
    }
}
