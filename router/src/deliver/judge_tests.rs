use std::sync::Arc;

use proptest::prelude::*;
use thinglog_schemas::topic::ConfigTopic;

use super::*;
use crate::levels::Levels;
use crate::testing::{batch, delivery, judge};

fn debug_passes(levels: &Levels) {
    let payload = br#"{"level":"DEBUG"}"#;
    levels
        .change(|fleet| fleet.apply(ConfigTopic::Default, payload))
        .unwrap();
}

/// Messages that remain, and how many were duplicate and filtered.
fn judged(judge: &mut Judge, delivery: &Delivery) -> (Vec<String>, u64, u64) {
    let Verdict::Events(judged) = judge.judge(delivery, 1) else {
        panic!("no events");
    };
    let mut batch = crate::deliver::batch::Batch::default();
    if let Some(keep) = judged.keep {
        batch.push(Arc::clone(&judged.decoded), keep, 0);
    }
    let messages = batch.events().map(|event| event.message.clone()).collect();
    (messages, judged.duplicate, judged.filtered)
}

#[test]
fn an_event_below_its_level_is_filtered_and_stays_had() {
    let (mut judge, levels) = judge(Table::default());
    let payload = delivery(batch(&[0, 1, 2], &[]), None);
    assert_eq!(
        judged(&mut judge, &payload),
        (vec!["event 0".into(), "event 2".into()], 0, 1)
    );
    debug_passes(&levels);
    assert_eq!(judged(&mut judge, &payload), (vec![], 3, 0));
}

#[test]
fn without_its_role_a_destination_gets_nothing_and_the_books_say_so() {
    let (judge, levels) = judge(Table::default());
    let permit = Permit::new(Arc::clone(&levels), "archive", &["archivist".into()]);
    let mut judge = judge.with_permit(Some(permit));
    let first = delivery(batch(&[0, 1], &[]), None);
    assert_eq!(judged(&mut judge, &first), (vec![], 0, 2));
    let payload = br#"{"level":"DEBUG","role":"archivist"}"#;
    levels
        .change(|fleet| fleet.apply(ConfigTopic::Default, payload))
        .unwrap();
    // What was filtered once stays so.
    assert_eq!(judged(&mut judge, &first), (vec![], 2, 0));
    let second = delivery(batch(&[2, 3], &[]), None);
    assert_eq!(judged(&mut judge, &second).0.len(), 2);
}

#[test]
fn a_delivery_settled_before_is_not_decoded_again() {
    let (mut judge, _) = judge(Table::default());
    assert!(matches!(
        judge.judge(&delivery("a\nb", Some(5)), 1),
        Verdict::Events(_)
    ));
    assert_eq!(
        judge.judge(&delivery("a\nb", Some(5)), 1),
        Verdict::Redelivered
    );
    assert!(matches!(
        judge.judge(&delivery("a\nb", Some(4)), 1),
        Verdict::Events(_)
    ));
}

#[test]
fn the_same_batch_at_another_offset_is_a_duplicate() {
    let (mut judge, levels) = judge(Table::default());
    debug_passes(&levels);
    let payload = batch(&[0, 1, 2], &[]);
    assert_eq!(
        judged(&mut judge, &delivery(payload.clone(), Some(1)))
            .0
            .len(),
        3
    );
    assert_eq!(
        judged(&mut judge, &delivery(payload, Some(2))),
        (vec![], 3, 0)
    );
}

#[test]
fn plain_events_without_a_stamp_are_all_new() {
    let (mut judge, _) = judge(Table::default());
    for _ in 0..2 {
        assert_eq!(judged(&mut judge, &delivery("a", None)).0, ["a"]);
    }
}

#[test]
fn survivors_of_a_thinned_out_range_still_pass() {
    let (mut judge, levels) = judge(Table::default());
    debug_passes(&levels);
    // Of 0 to 9 eight were dropped; 4 and 8 survive, each in a batch of its own.
    let first = delivery(batch(&[4], &[(0, 9, 8)]), None);
    assert_eq!(judged(&mut judge, &first).0, ["event 4"]);
    assert_eq!(
        judged(&mut judge, &delivery(batch(&[8], &[]), None)).0,
        ["event 8"]
    );
}

#[test]
fn a_gap_is_told_once() {
    let (mut judge, _) = judge(Table::default());
    let topic = crate::mqtt::names::TopicInfo::new(
        &thinglog_schemas::Topics::default(),
        b"thinglog/logs/lamp-7/thinglog",
    );
    let gap = |offset| Delivery {
        topic: Arc::new(topic),
        ..delivery(
            r#"{"id":"gap/00000000000000ab/3-9","level":"WARN","msg":"lost"}"#,
            Some(offset),
        )
    };
    let first = gap(1);
    assert_eq!(judged(&mut judge, &first).0, ["lost"]);
    let mut again = first.clone();
    again.stamp.stored = Some((1, 2));
    assert_eq!(judged(&mut judge, &again), (vec![], 1, 0));
}

#[test]
fn what_holds_no_events_is_unreadable() {
    let (mut judge, _) = judge(Table::default());
    assert_eq!(
        judge.judge(&delivery(&b"\xFF\xFE"[..], None), 1),
        Verdict::Unreadable
    );
    let (messages, ..) = judged(&mut judge, &delivery("", None));
    assert!(messages.is_empty());
}

proptest! {
    #[test]
    fn every_number_passes_exactly_once(
        sent in proptest::collection::vec((0u64..80, 1u64..10), 1..30),
        restart_at in 0usize..30,
    ) {
        let (mut judge, levels) = judge(Table::default());
        debug_passes(&levels);
        let mut passed = std::collections::BTreeSet::new();
        let mut all = std::collections::BTreeSet::new();
        for (at, (from, length)) in sent.into_iter().enumerate() {
            if at == restart_at {
                let mut table = Table::default();
                judge.table.snapshot().for_each(|mark| table.replay(&mark));
                (judge, _) = crate::testing::judge(table);
                let (levels, _) = Levels::new();
                debug_passes(&levels);
                judge.levels = LevelCache::new(levels);
            }
            let seqs: Vec<u64> = (from..from + length).collect();
            all.extend(seqs.clone());
            for message in judged(&mut judge, &delivery(batch(&seqs, &[]), None)).0 {
                prop_assert!(passed.insert(message.clone()), "{} twice", message);
            }
        }
        prop_assert_eq!(passed.len(), all.len());
    }
}
