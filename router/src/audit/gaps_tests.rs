use std::collections::BTreeSet;

use proptest::prelude::*;
use thinglog_schemas::batch::{Drop, DropReason};
use thinglog_schemas::{Attributes, Event, Severity};

use super::*;

const GRACE: u64 = 5;

fn batch(seqs: &[u64], drops: &[(u64, u64)]) -> Decoded {
    let event = |&seq: &u64| Event {
        device: Arc::from("lamp-7"),
        source: Arc::from("app"),
        id: EventId::Spooled { epoch: 1, seq },
        time: 0,
        time_estimated: false,
        severity: Severity::INFO,
        message: String::new(),
        truncated: false,
        attributes: Attributes::new(),
        received: 0,
    };
    let drop = |&(from, to): &(u64, u64)| Drop {
        from,
        to,
        count: to - from + 1,
        severity: Severity::INFO,
        reason: DropReason::SpoolFull,
    };
    let all = || {
        seqs.iter()
            .copied()
            .chain(drops.iter().flat_map(|&(a, b)| [a, b]))
    };
    Decoded {
        events: seqs.iter().map(event).collect(),
        lane: Some(payload::Lane {
            epoch: 1,
            first_seq: all().min().unwrap_or(0),
            last_seq: all().max().unwrap_or(0),
            drops: drops.iter().map(drop).collect(),
        }),
    }
}

fn observe(gaps: &mut Gaps, decoded: &Decoded, now: u64) {
    gaps.observe(&Arc::from("lamp-7"), &Arc::from("app"), decoded, now);
}

fn due(gaps: &mut Gaps, now: u64) -> Vec<(u64, u64)> {
    gaps.due(now, 100)
        .iter()
        .map(|gap| (gap.from, gap.to))
        .collect()
}

#[test]
fn a_hole_is_declared_after_its_grace() {
    let mut gaps = Gaps::new(GRACE);
    observe(&mut gaps, &batch(&[0, 1, 2], &[]), 10);
    observe(&mut gaps, &batch(&[6, 7], &[]), 10);
    assert_eq!(due(&mut gaps, 14), []);
    assert_eq!(gaps.next_due(), Some(15));
    assert_eq!(due(&mut gaps, 15), [(3, 5)]);
    assert_eq!(due(&mut gaps, 100), [], "once");
}

#[test]
fn a_declared_drop_is_no_hole() {
    let mut gaps = Gaps::new(GRACE);
    observe(&mut gaps, &batch(&[0, 1], &[]), 10);
    observe(&mut gaps, &batch(&[5, 6], &[(2, 4)]), 10);
    assert_eq!(due(&mut gaps, 100), []);
}

#[test]
fn a_number_missing_inside_a_batch_is_a_hole() {
    let mut gaps = Gaps::new(GRACE);
    observe(&mut gaps, &batch(&[0, 1, 3], &[]), 10);
    assert_eq!(due(&mut gaps, 100), [(2, 2)]);
}

#[test]
fn a_hole_filled_within_its_grace_is_no_loss() {
    let mut gaps = Gaps::new(GRACE);
    observe(&mut gaps, &batch(&[0], &[]), 10);
    observe(&mut gaps, &batch(&[5], &[]), 10);
    observe(&mut gaps, &batch(&[1, 2, 3, 4], &[]), 12);
    assert_eq!(due(&mut gaps, 100), []);
}

#[test]
fn the_first_batch_is_the_beginning() {
    let mut gaps = Gaps::new(GRACE);
    observe(&mut gaps, &batch(&[1000, 1001], &[]), 10);
    observe(&mut gaps, &batch(&[1002], &[]), 10);
    assert_eq!(due(&mut gaps, 100), []);
}

#[test]
fn a_repeated_batch_changes_nothing() {
    let mut gaps = Gaps::new(GRACE);
    for _ in 0..3 {
        observe(&mut gaps, &batch(&[0, 1, 2], &[]), 10);
    }
    observe(&mut gaps, &batch(&[3], &[]), 10);
    assert_eq!(due(&mut gaps, 100), []);
}

#[test]
fn an_open_hole_survives_a_restart_and_a_declared_one_does_not() {
    let mut gaps = Gaps::new(GRACE);
    observe(&mut gaps, &batch(&[0], &[]), 10);
    observe(&mut gaps, &batch(&[5], &[]), 10);
    let gap = gaps.due(100, 1).remove(0);
    let again = |gaps: &mut Gaps| {
        let mut restarted = Gaps::new(GRACE);
        gaps.snapshot().for_each(|state| restarted.replay(&state));
        restarted.replayed();
        due(&mut restarted, 100)
    };
    assert_eq!(again(&mut gaps), [(1, 4)]);
    gaps.declared(&gap);
    assert_eq!(again(&mut gaps), []);
}

#[test]
fn a_gap_that_could_not_be_declared_is_due_again() {
    let mut gaps = Gaps::new(GRACE);
    observe(&mut gaps, &batch(&[0], &[]), 10);
    observe(&mut gaps, &batch(&[5], &[]), 10);
    let gap = gaps.due(100, 1).remove(0);
    gaps.failed(&gap, 100);
    assert_eq!(due(&mut gaps, 100), [], "not at once");
    assert_eq!(gaps.next_due(), Some(100 + RETRY_S));
    assert_eq!(due(&mut gaps, 100 + RETRY_S), [(1, 4)]);
}

#[test]
fn a_lane_with_many_holes_declares_no_more_at_once_than_asked_for_and_all_in_the_end() {
    let mut gaps = Gaps::new(GRACE);
    observe(&mut gaps, &batch(&[0, 2, 4, 6, 8], &[]), 10);
    let first = gaps.due(100, 3);
    assert_eq!(first.len(), 3);
    assert_eq!(due(&mut gaps, 100), [(7, 7)]);
}

#[test]
fn a_hole_that_opens_as_another_closes_is_declared() {
    let mut gaps = Gaps::new(GRACE);
    observe(&mut gaps, &batch(&[0], &[]), 10);
    observe(&mut gaps, &batch(&[2], &[]), 10);
    observe(&mut gaps, &batch(&[1, 5], &[]), 20);
    assert_eq!(due(&mut gaps, 100), [(3, 4)]);
}

#[test]
fn the_newest_hole_of_a_lane_that_is_full_of_holes_is_declared() {
    let mut gaps = Gaps::new(GRACE);
    for n in 0..=HOLES as u64 {
        observe(&mut gaps, &batch(&[n * 2], &[]), 10);
    }
    let declared = gaps.due(100, HOLES);
    assert_eq!(declared.len(), HOLES);
    let next = (HOLES as u64 + 1) * 2;
    observe(&mut gaps, &batch(&[next], &[]), 200);
    assert_eq!(due(&mut gaps, 300), [(next - 1, next - 1)]);
}

#[test]
fn the_holes_of_a_lane_are_bounded() {
    let mut gaps = Gaps::new(GRACE);
    for n in 0..2 * HOLES as u64 {
        observe(&mut gaps, &batch(&[n * 2], &[]), 10);
    }
    assert!(gaps.lanes.values().all(|lane| lane.holes.len() <= HOLES));
    assert!(gaps.take_forgotten() > 0);
}

proptest! {
    #[test]
    fn exactly_the_missing_numbers_are_declared(
        sent in proptest::collection::vec((0u64..60, 1u64..8, any::<bool>()), 1..30),
    ) {
        let mut gaps = Gaps::new(GRACE);
        let mut spoken = BTreeSet::new();
        let mut first = None;
        for (from, length, dropped) in sent {
            // Nothing below the first batch counts.
            let from = from + first.unwrap_or(0);
            first.get_or_insert(from);
            let to = from + length - 1;
            let seqs: Vec<u64> = (from..=to).collect();
            let decoded = if dropped { batch(&[], &[(from, to)]) } else { batch(&seqs, &[]) };
            observe(&mut gaps, &decoded, 10);
            spoken.extend(from..=to);
        }
        let first = first.unwrap_or(0);
        let last = spoken.last().copied().unwrap_or(0);
        let missing: Vec<u64> = (first..=last).filter(|n| !spoken.contains(n)).collect();
        let declared: Vec<u64> = due(&mut gaps, 100).into_iter().flat_map(|(a, b)| a..=b).collect();
        prop_assert_eq!(declared, missing);
    }
}
