use std::sync::Arc;

use super::*;
use crate::testing::decoded;

/// A request of events with these messages.
fn request(messages: &[&str]) -> Request {
    let mut request = Request::new("key");
    for message in messages {
        let item = Item {
            decoded: Arc::new(decoded(message)),
            index: 0,
            ticket: 0,
        };
        request.push(item, message.as_bytes(), message.len());
    }
    request
}

fn texts(items: &[Item]) -> Vec<&str> {
    items
        .iter()
        .map(|item| item.event().message.as_str())
        .collect()
}

fn refused() -> Verdict {
    Verdict::Refused {
        reason: "bad".into(),
    }
}

#[test]
fn a_refused_request_is_halved_until_the_culprit_is_alone() {
    let messages: Vec<String> = (0..37).map(|n| n.to_string()).collect();
    let messages: Vec<&str> = messages.iter().map(String::as_str).collect();
    let mut parts = vec![request(&messages)];
    let (mut accepted, mut culprits, mut attempts) = (Vec::new(), Vec::new(), 0);
    while let Some(part) = parts.pop() {
        attempts += 1;
        let bad = part.events().any(|event| event.message == "11");
        let applied = apply(part, if bad { refused() } else { Verdict::Accepted });
        accepted.extend(applied.accepted);
        culprits.extend(applied.refused);
        parts.extend(applied.rest.into_iter().rev());
        assert_eq!(applied.wait, None, "no waiting between halves");
    }
    let expected: Vec<&str> = messages.iter().copied().filter(|it| *it != "11").collect();
    assert_eq!(texts(&accepted), expected, "in order");
    assert_eq!(culprits.len(), 1);
    assert_eq!(culprits[0].1, "bad");
    assert!(attempts <= 13, "{attempts} attempts");
}

#[test]
fn each_event_has_a_fate_of_its_own() {
    let verdicts = vec![
        ItemVerdict::Accepted,
        ItemVerdict::Retry("busy".into()),
        ItemVerdict::Refused("bad".into()),
        ItemVerdict::Duplicate,
        ItemVerdict::Retry("busy".into()),
    ];
    let request = request(&["a", "bb", "ccc", "d", "ee"]);
    let applied = apply(request, Verdict::Items(verdicts));
    assert_eq!(texts(&applied.accepted), ["a"]);
    assert_eq!(texts(&applied.duplicate), ["d"]);
    assert_eq!(applied.refused[0].1, "bad");
    let rest = &applied.rest[0];
    assert_eq!(
        (rest.joined(), rest.cost(), rest.key()),
        (&b"bbee"[..], 4, "key")
    );
    assert_eq!(applied.wait.unwrap().reason, "2 events: busy");
}

#[test]
fn an_answer_that_speaks_of_other_events_settles_none() {
    let verdict = Verdict::Items(vec![ItemVerdict::Accepted]);
    let applied = apply(request(&["a", "b"]), verdict);
    assert!(applied.accepted.is_empty());
    assert_eq!(applied.rest[0].len(), 2);
    assert!(applied.wait.is_some());
}
