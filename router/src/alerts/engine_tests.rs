use std::sync::Arc;

use serde_json::{Value, json};
use thinglog_schemas::query::Facts;
use thinglog_schemas::{Event, EventId};

use super::engine::Engine;
use super::notice::Notice;
use super::record::{self, Record};
use super::rule::Rule;
use crate::state::StateLog;
use crate::testing::decoded;

const S: u64 = 1_000_000_000;

fn rules(config: &Value) -> Vec<Rule> {
    let rules = config.as_object().unwrap().iter();
    rules
        .map(|(name, config)| {
            let config = serde_json::from_value(config.clone()).unwrap();
            Rule::new(name, &config).unwrap()
        })
        .collect()
}

fn engine(config: &Value) -> Engine {
    Engine::new(rules(config))
}

fn event(device: &str, seq: u64, received: u64) -> Event {
    let mut event = decoded("disk full").events.remove(0);
    event.device = Arc::from(device);
    event.id = EventId::Spooled { epoch: 1, seq };
    event.received = received;
    event
}

/// An event of `lamp-7` at this second.
fn at(engine: &mut Engine, second: u64) {
    by(engine, "lamp-7", second);
}

fn by(engine: &mut Engine, device: &str, second: u64) {
    let facts = Facts {
        groups: vec!["eu".into(), "world".into()],
        ..Facts::default()
    };
    engine.take(&event(device, second, second * S), &facts, second * S);
}

/// Time passes, and nothing else.
fn pass(engine: &mut Engine, second: u64) {
    engine.tick(second * S, Some(second * S), &mut |_| Facts::default());
}

/// Bodies of notifications for `mqtt`, which takes them.
fn told(engine: &mut Engine) -> Vec<Value> {
    let unsent: Vec<Notice> = engine
        .all_unsent()
        .collect::<Vec<_>>()
        .into_iter()
        .filter_map(|number| engine.unsent(number).cloned())
        .filter(|notice| notice.receiver == "mqtt")
        .collect();
    unsent.iter().for_each(|notice| engine.sent(notice.number));
    let parse = |notice: &Notice| serde_json::from_str(&notice.body).unwrap();
    unsent.iter().map(parse).collect()
}

/// Status, number of alerts and events of each notification.
fn brief(engine: &mut Engine) -> Vec<(String, u64, u64)> {
    let number = |value: &Value| value.as_u64().unwrap();
    told(engine)
        .iter()
        .map(|told| {
            let status = told["status"].as_str().unwrap().to_owned();
            (
                status,
                number(&told["alerts_total"]),
                number(&told["count"]),
            )
        })
        .collect()
}

fn firing(alerts: u64, count: u64) -> (String, u64, u64) {
    ("firing".into(), alerts, count)
}

fn resolved(alerts: u64, count: u64) -> (String, u64, u64) {
    ("resolved".into(), alerts, count)
}

#[test]
fn each_event_that_matches_is_told_with_what_it_says() {
    let mut engine = engine(&json!({"full": {
        "when": "message ~ /disk/", "severity": "critical",
        "labels": {"room": "{{device.room}}"}, "annotations": {"text": "{{device}}: {{message}}"}}}));
    at(&mut engine, 100);
    at(&mut engine, 101);
    let told = told(&mut engine);
    assert_eq!(told.len(), 2);
    assert_eq!(told[0]["rule"], "full");
    assert_eq!(told[0]["severity"], "critical");
    let alert = &told[0]["alerts"][0];
    assert_eq!(alert["device"], "lamp-7");
    assert_eq!(alert["starts"], "1970-01-01T00:01:40.000000000Z");
    assert_eq!(alert["labels"], json!({"room": ""}));
    assert_eq!(alert["annotations"]["text"], "lamp-7: disk full");
    assert_eq!(told[0]["events"][0]["id"], "lamp-7/0000000000000001/100");
    // One alert, two notifications of it.
    assert_eq!(told[1]["alerts"][0]["id"], alert["id"]);
    assert_ne!(told[1]["id"], told[0]["id"]);
    assert_eq!(told[1]["count"], 2);
}

#[test]
fn a_count_is_of_events_within_the_window_and_is_over_when_they_leave_it() {
    let mut engine = engine(&json!({"many": {"count": 3, "within": "10s"}}));
    at(&mut engine, 100);
    at(&mut engine, 105);
    // The first has left the window by now.
    at(&mut engine, 110);
    assert_eq!(brief(&mut engine), []);
    at(&mut engine, 114);
    assert_eq!(brief(&mut engine), [firing(1, 3)]);
    at(&mut engine, 116);
    pass(&mut engine, 119);
    assert_eq!(brief(&mut engine), [], "an open alert is told once");
    pass(&mut engine, 121);
    let told = told(&mut engine);
    assert_eq!(told[0]["status"], "resolved");
    // Of 110, 114 and 116 the first leaves it at 120, whenever that was looked at.
    assert_eq!(
        told[0]["alerts"][0]["ends"],
        "1970-01-01T00:02:00.000000000Z"
    );
    assert_eq!(told[0]["count"], 4);
    pass(&mut engine, 200);
    assert!(engine.next_tick().is_none(), "nothing is remembered");
}

#[test]
fn windows_go_by_when_events_were_received() {
    let mut engine = engine(&json!({"many": {"count": 3, "within": "10s"}}));
    // Read an hour later at once: they were far apart.
    for second in [100, 120, 140] {
        let event = event("lamp-7", second, second * S);
        engine.take(&event, &Facts::default(), 3700 * S);
    }
    assert_eq!(brief(&mut engine), []);
    for second in [141, 142] {
        let event = event("lamp-7", second, second * S);
        engine.take(&event, &Facts::default(), 3700 * S);
    }
    assert_eq!(brief(&mut engine), [firing(1, 3)]);
}

#[test]
fn devices_groups_and_the_fleet_are_counted_for_themselves() {
    let mut engine = engine(&json!({
        "device": {"count": 2, "within": "10s"},
        "group": {"count": 2, "within": "10s", "by": "group"},
        "fleet": {"count": 2, "within": "10s", "by": "fleet"}}));
    by(&mut engine, "lamp-7", 100);
    by(&mut engine, "lamp-8", 101);
    let told = told(&mut engine);
    let rules: Vec<&Value> = told.iter().map(|told| &told["rule"]).collect();
    assert_eq!(rules, ["fleet", "group"]);
    assert_eq!(told[0]["alerts"][0]["device"], Value::Null);
    let groups = told[1]["alerts"].as_array().unwrap();
    let groups: Vec<&Value> = groups.iter().map(|alert| &alert["group"]).collect();
    assert_eq!(groups, ["eu", "world"]);
}

#[test]
fn many_devices_are_one_notification_after_the_wait() {
    let mut engine = engine(&json!({"full": {"group_wait": "30s"}}));
    for n in 0..150 {
        by(&mut engine, &format!("lamp-{n:03}"), 100 + n / 10);
    }
    by(&mut engine, "lamp-000", 116);
    assert_eq!(brief(&mut engine), []);
    pass(&mut engine, 131);
    let told = told(&mut engine);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0]["alerts_total"], 150);
    assert_eq!(told[0]["count"], 151);
    assert_eq!(told[0]["alerts"].as_array().unwrap().len(), 100);
    assert_eq!(told[0]["events"].as_array().unwrap().len(), 3);
}

#[test]
fn a_cooldown_puts_off_and_forgets_nothing() {
    let mut engine =
        engine(&json!({"full": {"cooldown": "60s", "resolve_after": "20s", "resolved": true}}));
    at(&mut engine, 100);
    assert_eq!(brief(&mut engine), [firing(1, 1)]);
    at(&mut engine, 101);
    at(&mut engine, 102);
    pass(&mut engine, 121);
    assert_eq!(brief(&mut engine), []);
    pass(&mut engine, 123);
    assert_eq!(brief(&mut engine), [resolved(1, 3)], "over, and told so");
    pass(&mut engine, 161);
    assert_eq!(
        brief(&mut engine),
        [firing(1, 3), resolved(1, 3)],
        "what was put off"
    );
    at(&mut engine, 170);
    assert_eq!(brief(&mut engine), []);
    pass(&mut engine, 222);
    assert_eq!(brief(&mut engine), [firing(1, 1), resolved(1, 1)]);
    assert!(engine.take_counts().all(|(_, counts, _)| counts.held > 0));
}

#[test]
fn a_receiver_that_takes_nothing_costs_bounded_memory_and_hears_of_everything() {
    let config = json!({"full": {"to": ["mqtt", "slow"]}});
    let mut engine = engine(&config);
    let mut heard = 0;
    for second in 0..1000 {
        by(&mut engine, &format!("lamp-{}", second % 10), second);
        heard += told(&mut engine).len();
    }
    assert_eq!(heard, 1000, "the other one hears of each");
    let unsent: Vec<u64> = engine.all_unsent().collect();
    assert_eq!(unsent.len(), 8);
    engine.sent(unsent[0]);
    pass(&mut engine, 1000);
    let last = engine.all_unsent().last().unwrap();
    let body: Value = serde_json::from_str(&engine.unsent(last).unwrap().body).unwrap();
    assert_eq!(
        (&body["alerts_total"], &body["count"]),
        (&json!(10), &json!(1000))
    );
}

#[test]
fn what_finds_no_room_is_counted() {
    let mut engine = engine(&json!({"full": {"max_keys": 2}}));
    for n in 0..5 {
        by(&mut engine, &format!("lamp-{n}"), 100);
    }
    assert_eq!(told(&mut engine).len(), 2);
    let (_, counts, open) = engine.take_counts().next().unwrap();
    assert_eq!((counts.matched, counts.beyond, open), (5, 3, 2));
}

/// A life: what was remembered is read, `live` happens, everything is committed.
fn life(folder: &std::path::Path, config: &Value, live: impl FnOnce(&mut Engine)) -> bool {
    let (mut log, records) = StateLog::open::<Record>(&folder.join("state")).unwrap();
    let mut engine = engine(config);
    let mut table = record::replay(records, &mut engine);
    live(&mut engine);
    let framed = record::changes(&mut engine, &mut table).unwrap();
    log.append(&framed).unwrap();
    let whole = record::snapshot(&engine, &table).unwrap();
    let is_same = {
        let path = folder.join("whole");
        let (mut log, _) = StateLog::open::<Record>(&path).unwrap();
        log.rewrite(&whole).unwrap();
        let (_, records) = StateLog::open::<Record>(&path).unwrap();
        let mut other = super::engine_tests::engine(config);
        let table = record::replay(records, &mut other);
        record::snapshot(&other, &table).unwrap() == whole
    };
    is_same && !engine.has_changes()
}

#[test]
fn windows_alerts_and_notifications_outlive_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let config =
        json!({"many": {"count": 3, "within": "100s", "cooldown": "1000s", "to": ["a", "mqtt"]}});
    assert!(life(folder, &config, |engine| {
        at(engine, 100);
        at(engine, 101);
    }));
    assert!(life(folder, &config, |engine| at(engine, 102)));
    let mut first = None;
    assert!(life(folder, &config, |engine| {
        assert_eq!(engine.all_unsent().count(), 2);
        let number = engine.all_unsent().next().unwrap();
        first = engine.unsent(number).cloned();
        engine.sent(number);
    }));
    // Receivers changed their places meanwhile; one is new, one is gone.
    let config =
        json!({"many": {"count": 3, "within": "100s", "cooldown": "1000s", "to": ["mqtt", "b"]}});
    assert!(life(folder, &config, |engine| {
        let told = told(engine);
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].to_string(), first.unwrap().body, "byte for byte");
        pass(engine, 300);
        let told: Vec<&Notice> = engine
            .all_unsent()
            .filter_map(|it| engine.unsent(it))
            .collect();
        let to: Vec<&str> = told.iter().map(|notice| &*notice.receiver).collect();
        assert_eq!(to, ["mqtt"], "who was told hears of the end");
    }));
    assert!(life(folder, &config, |engine| {
        for second in 301..304 {
            at(engine, second);
        }
        told(engine);
        assert!(engine.all_unsent().next().is_none(), "the cooldown holds");
    }));
    let other = json!({"many": {"count": 4, "within": "100s"}});
    assert!(life(folder, &other, |engine| {
        at(engine, 304);
        assert!(
            engine.all_unsent().next().is_none(),
            "another rule begins anew"
        );
    }));
}

#[test]
fn a_device_that_is_silent_is_missed_and_one_that_is_gone_is_not() {
    let mut engine = engine(&json!({"silent": {"absent_for": "60s", "of": "group = eu"}}));
    let of = |groups: &[&str]| Facts {
        groups: groups.iter().map(|group| (*group).into()).collect(),
        ..Facts::default()
    };
    let there = |engine: &mut Engine, devices: &[&str], second: u64| {
        for device in devices {
            engine.expect(&Arc::from(*device), &of(&["eu"]));
        }
        engine.expect(&Arc::from("elsewhere"), &of(&["us"]));
        engine.all_expected(second * S);
    };
    engine.begin(100 * S);
    there(&mut engine, &["lamp-7", "lamp-8"], 100);
    pass(&mut engine, 130);
    by(&mut engine, "lamp-7", 131);
    pass(&mut engine, 159);
    assert_eq!(brief(&mut engine), []);
    pass(&mut engine, 161);
    let silent = told(&mut engine);
    assert_eq!(silent.len(), 1, "{silent:?}");
    assert_eq!(silent[0]["alerts"][0]["device"], "lamp-8");
    assert_eq!(
        silent[0]["alerts"][0]["starts"],
        "1970-01-01T00:02:40.000000000Z"
    );
    by(&mut engine, "lamp-8", 170);
    assert_eq!(brief(&mut engine), [resolved(1, 0)]);
    pass(&mut engine, 192);
    assert_eq!(brief(&mut engine), [firing(1, 0)], "lamp-7");
    there(&mut engine, &["lamp-8"], 195);
    assert_eq!(brief(&mut engine).len(), 0);
    pass(&mut engine, 196);
    assert_eq!(brief(&mut engine), [resolved(1, 0)], "lamp-7 is no more");
    // The subscription was away: what was not heard meanwhile is no silence.
    engine.begin(500 * S);
    pass(&mut engine, 559);
    assert_eq!(brief(&mut engine), []);
    pass(&mut engine, 561);
    assert_eq!(brief(&mut engine), [firing(1, 0)]);
}

#[test]
fn an_alertmanager_is_told_again_before_it_forgets_and_of_every_end() {
    let config = json!({"full": {"to": ["am"], "group_wait": "1h", "resolve_after": "200s"}});
    let managers = ["am".to_owned()].into();
    let mut engine = engine(&config).with_alertmanagers(&managers);
    let posted = |engine: &mut Engine, second: u64| {
        let mut bodies: Vec<String> = Vec::new();
        for number in engine.all_unsent().collect::<Vec<_>>() {
            bodies.push(engine.unsent(number).unwrap().body.clone());
            engine.sent(number);
        }
        bodies.extend(engine.repeats(second * S).into_iter().map(|it| it.body));
        let parse = |body: &String| serde_json::from_str::<Value>(body).unwrap();
        bodies.iter().map(parse).collect::<Vec<Value>>()
    };
    assert!(posted(&mut engine, 99).is_empty());
    at(&mut engine, 100);
    let first = posted(&mut engine, 100).remove(0);
    let expected = json!([{"labels": {"alertname": "full", "device": "lamp-7"}, "annotations": {},
        "startsAt": "1970-01-01T00:01:40.000000000Z", "endsAt": "1970-01-01T00:05:40.000000000Z"}]);
    assert_eq!(first, expected);
    at(&mut engine, 101);
    assert!(posted(&mut engine, 101).is_empty(), "it knows it already");
    let again = posted(&mut engine, 160).remove(0);
    assert_eq!(again[0]["labels"], first[0]["labels"]);
    assert_eq!(again[0]["endsAt"], "1970-01-01T00:06:40.000000000Z");
    pass(&mut engine, 310);
    let last = posted(&mut engine, 310);
    assert_eq!(last.len(), 1, "{last:?}");
    assert_eq!(last[0][0]["endsAt"], "1970-01-01T00:05:01.000000000Z");
}

/// New alerts come all the time; what it was told before must not end for it meanwhile.
#[test]
fn an_alertmanager_is_told_again_although_something_new_is_on_its_way() {
    let config = json!({"full": {"to": ["am"], "group_wait": "1h"}});
    let managers = ["am".to_owned()].into();
    let mut engine = engine(&config).with_alertmanagers(&managers);
    at(&mut engine, 100);
    pass(&mut engine, 100);
    for number in engine.all_unsent().collect::<Vec<_>>() {
        engine.sent(number);
    }
    engine.repeats(100 * S);
    by(&mut engine, "lamp-8", 165);
    pass(&mut engine, 165);
    assert_eq!(engine.all_unsent().count(), 1);
    let again = engine.repeats(165 * S);
    assert!(again[0].body.contains("lamp-7"), "{again:?}");
}

#[test]
fn every_open_alert_is_shown_and_made_once() {
    let mut engine = engine(&json!({"full": {}}));
    for n in 0..1500 {
        by(&mut engine, &format!("lamp-{n:04}"), 100);
    }
    let first = super::shown::of(&engine, &[]);
    assert_eq!(
        first[0].alerts.len(),
        1500,
        "also those of callers who see only the last"
    );
    by(&mut engine, "lamp-0003", 101);
    let second = super::shown::of(&engine, &first);
    let same = |device: &str| {
        let of = |rules: &[super::shown::Rule]| Arc::clone(&rules[0].alerts[device].shown);
        Arc::ptr_eq(&of(&first), &of(&second))
    };
    assert!(same("lamp-0004") && !same("lamp-0003"));
    assert_eq!(second[0].alerts["lamp-0003"].shown["count"], 2);
}
