//! The contract, one promise a function.

use std::time::Duration;

use serde_json::json;

use crate::common::until;
use crate::harness::{Bench, Fault, Subject, books};

pub(crate) async fn everything_arrives_once_and_the_books_balance<S: Subject>(mut bench: Bench<S>) {
    let router = bench.router().await;
    for round in 0..10 {
        for device in ["lamp-1", "lamp-2", "lamp-3", "lamp-4", "lamp-5"] {
            bench.publish(device, 20 + round).await;
        }
    }
    bench.exactly().await;
    books(&router, bench.sent.len(), 0).await;
    router.stop().await;
}

pub(crate) async fn events_are_gathered_into_requests<S: Subject>(mut bench: Bench<S>) {
    bench.publish("lamp-1", 1000).await;
    let router = bench.router().await;
    bench.exactly().await;
    let requests = bench.subject.requests();
    if !requests.is_empty() {
        let most = requests.iter().map(|request| request.events).max();
        assert_eq!(most, Some(S::MAX_EVENTS), "requests are filled, not more");
        assert!(requests.len() < 40, "{} requests", requests.len());
    }
    router.stop().await;
}

pub(crate) async fn a_lone_event_is_not_kept_waiting<S: Subject>(mut bench: Bench<S>) {
    let router = bench.router().await;
    bench.publish("lamp-1", 1).await;
    bench.exactly().await;
    books(&router, 1, 0).await;
    router.stop().await;
}

pub(crate) async fn a_service_that_is_unavailable_is_tried_again<S: Subject>(mut bench: Bench<S>) {
    if !bench.subject.fail(Fault::Unavailable) {
        return;
    }
    bench.subject.fail(Fault::Unavailable);
    let router = bench.router().await;
    bench.publish("lamp-1", 120).await;
    bench.exactly().await;
    let retries = router.metric("thinglog_router_retries_total", &["subject"]);
    assert!(retries >= 2.0, "{retries} retries");
    books(&router, 120, 0).await;
    router.stop().await;
}

pub(crate) async fn a_request_without_an_answer_is_sent_again<S: Subject>(mut bench: Bench<S>) {
    if !bench.subject.fail(Fault::Hang) {
        return;
    }
    let router = bench.router().await;
    bench.publish("lamp-1", 120).await;
    bench.at_least().await;
    books(&router, 120, 0).await;
    router.stop().await;
}

pub(crate) async fn a_connection_that_breaks_is_made_again<S: Subject>(mut bench: Bench<S>) {
    if !bench.subject.fail(Fault::Reset) {
        return;
    }
    let router = bench.router().await;
    bench.publish("lamp-1", 120).await;
    bench.at_least().await;
    books(&router, 120, 0).await;
    router.stop().await;
}

pub(crate) async fn what_the_service_asks_to_wait_is_waited<S: Subject>(mut bench: Bench<S>) {
    if !bench.subject.fail(Fault::TooMany { retry_after_s: 1 }) {
        return;
    }
    let router = bench.router().await;
    bench.publish("lamp-1", S::MAX_EVENTS as u64).await;
    until("the first answer is read", || {
        router.metric("thinglog_router_retries_total", &["subject"]) >= 1.0
    })
    .await;
    // Others wait as well.
    bench.publish("lamp-2", S::MAX_EVENTS as u64).await;
    bench.exactly().await;
    let requests = bench.subject.requests();
    let wait = requests[1].at - requests[0].at;
    assert!(wait >= Duration::from_secs(1), "sent again after {wait:?}");
    router.stop().await;
}

pub(crate) async fn what_is_refused_becomes_a_dead_letter_and_the_rest_goes_on<S: Subject>(
    mut bench: Bench<S>,
) {
    if !bench.subject.fail(Fault::Poison) {
        return;
    }
    bench.publish("lamp-1", 30).await;
    bench.publish_text("lamp-1", "poison 1").await;
    bench.publish("lamp-1", 30).await;
    bench.publish_text("lamp-2", "poison 2").await;
    bench.publish("lamp-2", 30).await;
    let router = bench.router().await;
    bench.sent.retain(|sent| !sent.message.contains("poison"));
    bench.exactly().await;
    books(&router, 90, 2).await;
    let letters = bench.dead_letters();
    let mut refused: Vec<&str> = letters
        .iter()
        .map(|letter| letter["event"]["message"].as_str().unwrap())
        .collect();
    refused.sort_unstable();
    assert_eq!(refused, ["poison 1", "poison 2"]);
    assert!(
        letters
            .iter()
            .all(|letter| !letter["reason"].as_str().unwrap().is_empty())
    );
    assert_eq!(
        router.metric("thinglog_router_dead_letters", &["subject"]),
        2.0
    );
    router.stop().await;
}

pub(crate) async fn dead_letters_are_sent_again_when_somebody_asks<S: Subject>(
    mut bench: Bench<S>,
) {
    if !bench.subject.fail(Fault::Poison) {
        return;
    }
    let router = bench.router().await;
    for n in 0..3 {
        bench.publish_text("lamp-1", &format!("poison {n}")).await;
    }
    books(&router, 0, 3).await;
    bench.subject.fail(Fault::Antidote);
    let folder = bench.data.path().join("router/subject/dead");
    let ask = |what: &str, letters: &[u64]| {
        let ask = json!({"what": what, "letters": letters}).to_string();
        std::fs::write(folder.join("new"), ask).unwrap();
        std::fs::rename(folder.join("new"), folder.join(format!("ask-{what}.json"))).unwrap();
    };
    ask("replay", &[0, 2]);
    until("two are sent again", || bench.subject.got().len() == 2).await;
    until("that is answered", || {
        folder.join("done-replay.json").exists()
    })
    .await;
    let left: Vec<u64> = bench
        .dead_letters()
        .iter()
        .map(|it| it["n"].as_u64().unwrap())
        .collect();
    assert_eq!(left, [1]);
    ask("drop", &[1]);
    until("the last one is dropped", || {
        folder.join("done-drop.json").exists()
    })
    .await;
    assert_eq!(bench.dead_letters().len(), 0);
    let got: Vec<String> = bench
        .subject
        .got()
        .into_iter()
        .map(|got| got.message)
        .collect();
    assert_eq!(got, ["poison 0", "poison 2"]);
    books(&router, 2, 3).await;
    assert_eq!(
        router.metric("thinglog_router_dead_letters", &["subject"]),
        0.0
    );
    router.stop().await;
}

pub(crate) async fn a_restart_of_the_service_loses_nothing<S: Subject>(mut bench: Bench<S>) {
    let router = bench.router().await;
    bench.publish("lamp-1", 70).await;
    bench.everything().await;
    bench.subject.stop().await;
    bench.publish("lamp-1", 70).await;
    bench.publish("lamp-2", 70).await;
    until("the destination is not ready", || {
        !router.is_ready("subject")
    })
    .await;
    bench.subject.resume().await;
    bench.at_least().await;
    until("the destination is ready", || router.is_ready("subject")).await;
    books(&router, 210, 0).await;
    router.stop().await;
}

pub(crate) async fn memory_stays_within_its_cap<S: Subject>(mut bench: Bench<S>) {
    bench.subject.stop().await;
    let router = bench.router().await;
    // Some 16 MB of decoded events, unless the service is too slow for that many.
    let behind = format!(" {}", "x".repeat(400));
    for device in (0..16).map(|n| format!("lamp-{}", n % 7)) {
        bench.publish_with(&device, S::FLOOD, &behind).await;
    }
    let cap = bench.subject.config()["memory_bytes"].as_f64().unwrap();
    let used = || router.metric("thinglog_router_events_in_hand_bytes", &["subject"]);
    until("memory is used", || used() > 0.25 * cap).await;
    bench.subject.resume().await;
    let outcome = |what| router.metric("thinglog_router_events_total", &["subject", what]);
    let (sent, mut most, mut settled) = (bench.sent.len(), 0f64, 0f64);
    // A busy machine may take long for all, as long as it goes on.
    while settled < sent as f64 {
        let before = settled;
        until("more is delivered", || {
            most = most.max(used());
            settled = outcome("delivered") + outcome("duplicate");
            settled > before
        })
        .await;
    }
    assert!(most <= cap, "{most} bytes of {cap}");
    bench.at_least().await;
    books(&router, sent, 0).await;
    router.stop().await;
}

pub(crate) async fn a_router_stops_although_the_service_is_down<S: Subject>(mut bench: Bench<S>) {
    bench.subject.stop().await;
    let router = bench.router().await;
    bench.publish("lamp-1", 70).await;
    until("the destination is not ready", || {
        !router.is_ready("subject")
    })
    .await;
    router.stop().await;
    bench.subject.resume().await;
    let router = bench.router().await;
    bench.exactly().await;
    books(&router, 70, 0).await;
    router.stop().await;
}

pub(crate) async fn a_killed_router_loses_nothing<S: Subject>(mut bench: Bench<S>) {
    let rounds = std::env::var("THINGLOG_CONTRACT_KILLS").map_or(6, |text| text.parse().unwrap());
    let mut seed = 12345u64;
    for _ in 0..rounds {
        let mut router = bench.spawn_router();
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let until = std::time::Instant::now() + Duration::from_millis(100 + (seed >> 33) % 400);
        while std::time::Instant::now() < until {
            for device in ["lamp-1", "lamp-2", "lamp-3"] {
                bench.publish(device, 7).await;
            }
        }
        router.kill().unwrap();
        router.wait().unwrap();
    }
    let router = bench.router().await;
    bench.at_least().await;
    router.stop().await;
}
