use proptest::prelude::*;
use thinglog_schemas::payload::Decoded;
use thinglog_schemas::{EventId, Severity};

use super::*;
use crate::testing::decoded;

fn config(text: &str) -> Config {
    let config: Config = serde_json::from_str(text).unwrap();
    config.validate().unwrap();
    config
}

fn routes(text: &str, destination: &str) -> Routes {
    Routes::of(&config(text), destination).unwrap()
}

/// Events of lamp-7/app whose severities are these; the message is the place.
fn payload(severities: &[Severity]) -> Arc<Decoded> {
    let mut all = Decoded {
        events: Vec::new(),
        lane: None,
    };
    for (seq, severity) in severities.iter().enumerate() {
        let mut event = decoded(&seq.to_string()).events.remove(0);
        event.severity = *severity;
        event.id = EventId::Spooled {
            epoch: 1,
            seq: seq as u64,
        };
        all.events.push(event);
    }
    Arc::new(all)
}

fn facts() -> Facts {
    Facts {
        groups: vec!["eu".into()],
        ..Facts::default()
    }
}

const MIXED: [Severity; 5] = [
    Severity::DEBUG,
    Severity::ERROR,
    Severity::INFO,
    Severity::WARN,
    Severity::ERROR,
];

/// The messages that go on, and how many do not.
fn routed(routes: &Routes, keep: Keep) -> (Vec<String>, u64) {
    let routed = routes.route(("lamp-7", "app"), payload(&MIXED), keep, &facts());
    let mut batch = crate::deliver::batch::Batch::default();
    if let Some((decoded, keep)) = routed.rest {
        batch.push(decoded, keep, 0);
    }
    let messages = batch.events().map(|event| event.message.clone());
    (messages.collect(), routed.filtered)
}

const TWO: &str = r#"{"destinations": {"a": {"type": "file"}, "b": {"type": "file"}, "c": {"type": "file"}},
    "routes": {
        "1-bad": {"when": "level = ERROR and group = eu", "to": ["a", "b"], "set": {"message": "bad {{message}}"}},
        "2-all": {"to": ["a"], "when": "level > DEBUG"}}}"#;

#[test]
fn each_destination_gets_what_its_routes_are_for_and_once() {
    let all = |destination| routed(&routes(TWO, destination), Keep::All);
    let texts = |texts: &[&str]| {
        texts
            .iter()
            .map(|text| text.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(all("a"), (texts(&["bad 1", "2", "3", "bad 4"]), 1));
    assert_eq!(all("b"), (texts(&["bad 1", "bad 4"]), 3));
    assert_eq!(all("c"), (texts(&["0", "1", "2", "3", "4"]), 0));
    assert!(routes(TWO, "c").is_open() && !routes(TWO, "a").is_open());
    let some = routed(&routes(TWO, "a"), Keep::Some(vec![0, 3, 4]));
    assert_eq!(some, (texts(&["3", "bad 4"]), 1));
}

#[test]
fn a_destinations_own_condition_comes_before_its_routes() {
    let text = r#"{"destinations": {"a": {"type": "file", "when": "message != 1"}},
        "routes": {"r": {"when": "level = ERROR", "to": ["a"]}}}"#;
    assert_eq!(routed(&routes(text, "a"), Keep::All), (vec!["4".into()], 4));
    let alone = r#"{"destinations": {"a": {"type": "file", "when": "source = other"}}}"#;
    assert_eq!(routed(&routes(alone, "a"), Keep::All), (vec![], 5));
    let open = r#"{"destinations": {"a": {"type": "file", "when": "source = app"}}}"#;
    assert_eq!(routed(&routes(open, "a"), Keep::All).0.len(), 5);
}

#[test]
fn what_is_the_same_for_all_events_is_not_copied() {
    let text = r#"{"destinations": {"a": {"type": "file"}},
        "routes": {"r": {"when": "group = eu", "to": ["a"]}}}"#;
    let payload = payload(&MIXED);
    let routed = routes(text, "a").route(("lamp-7", "app"), payload.clone(), Keep::All, &facts());
    let (rest, keep) = routed.rest.unwrap();
    assert!(Arc::ptr_eq(&rest, &payload) && keep == Keep::All);
}

#[test]
fn a_route_to_nowhere_is_refused_by_its_key() {
    for (route, key) in [
        (r#"{"to": ["b"]}"#, "routes.r.to"),
        (r#"{"to": []}"#, "routes.r.to"),
        (r#"{"to": ["a"], "sample": 2}"#, "routes.r.sample"),
        (r#"{"to": ["a"], "set": {"x": "{{"}}"#, "routes.r.set.x"),
    ] {
        let text = format!(
            r#"{{"destinations": {{"a": {{"type": "file"}}}}, "routes": {{"r": {route}}}}}"#
        );
        let config: Config = serde_json::from_str(&text).unwrap();
        assert_eq!(config.validate().unwrap_err().key, key);
    }
    let wrong = r#"{"routes": {"r": {"to": ["a"], "when": "level = LOUD"}}}"#;
    let error = serde_json::from_str::<Config>(wrong).unwrap_err();
    assert!(error.to_string().contains("is no level"), "{error}");
}

proptest! {
    /// Payload by payload and event by event are the same, and the books balance.
    #[test]
    fn the_quick_way_says_what_the_plain_one_says(
        severities in proptest::collection::vec(1_u8..=24, 0..20),
        picks in proptest::collection::vec(0_usize..CONDITIONS.len(), 0..4),
        own in 0_usize..CONDITIONS.len(),
        sample in 0_u8..=4,
        shape in any::<bool>(),
    ) {
        let mut config = config(r#"{"destinations": {"a": {"type": "file"}}}"#);
        let condition = |at: usize| serde_json::from_value(CONDITIONS[at].into()).unwrap();
        config.destinations.get_mut("a").unwrap().when = Some(condition(own));
        for (number, pick) in picks.iter().enumerate() {
            let route = crate::config::RouteConfig {
                when: Some(condition(*pick)),
                to: vec!["a".into()],
                sample: (sample > 0).then_some(f64::from(sample) / 4.0),
                set: if shape { [("message".to_owned(), format!("r{number}"))].into() } else { Default::default() },
                ..Default::default()
            };
            config.routes.insert(format!("r{number}"), route);
        }
        let routes = Routes::of(&config, "a").unwrap();
        let severities: Vec<Severity> =
            severities.into_iter().filter_map(Severity::new).collect();
        let payload = payload(&severities);
        let plain: Vec<Event> = payload.events.iter()
            .filter_map(|event| routes.pass(event, &facts()).map(|(_, event)| event))
            .collect();
        let total = payload.events.len();
        let routed = routes.route(("lamp-7", "app"), payload, Keep::All, &facts());
        let mut batch = crate::deliver::batch::Batch::default();
        if let Some((decoded, keep)) = routed.rest {
            batch.push(decoded, keep, 0);
        }
        let quick: Vec<Event> = batch.events().cloned().collect();
        prop_assert_eq!(&quick, &plain);
        prop_assert_eq!(quick.len() as u64 + routed.filtered, total as u64);
    }
}

const CONDITIONS: [&str; 8] = [
    "level >= WARN",
    "group = eu",
    "group = mars",
    "source = app and severity < 9",
    "not device = lamp-7 or level = INFO",
    "message ~ /[02468]$/",
    "source = other and message = 1",
    "device = lamp-7",
];
