//! The router is killed at random moments under load; afterwards every acknowledged event is in the file,
//! once, and at the service, which was told its id, and every payload is in the archive, once.
//!
//! `THINGLOG_CRASH_ROUNDS` sets how often (10), `THINGLOG_CRASH_SEED` repeats the choices.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use thinglog_schemas::batch::{Batch, ClockInfo, Encoder, Entry};
use thinglog_schemas::{Attributes, Severity};
use thinglog_tests::mqtt::{Connection, Version};
use thinglog_tests::random::Random;
use thinglog_tests::site::Site;
use thinglog_tests::wait;

use crate::archive;
use crate::service::Service;

/// Time for all that was acknowledged to arrive after the last round.
const DRAIN: Duration = Duration::from_secs(300);
const EVENTS: u64 = 50;

/// A batch of a lane of the device; the message is its number.
pub(crate) fn batch(seqs: std::ops::Range<u64>) -> Vec<u8> {
    let entry = |seq| Entry {
        seq,
        time: 1_767_323_045_000_000_000 + seq,
        severity: Severity::INFO,
        message: format!("event {seq} of a device that says what devices say"),
        truncated: false,
        attributes: Attributes::new(),
    };
    let batch = Batch {
        epoch: 7,
        first_seq: seqs.start,
        clock: ClockInfo {
            boot: 1,
            sent_mono: 0,
            synced: true,
        },
        drops: Vec::new(),
        entries: seqs.map(entry).collect(),
    };
    let mut payload = Vec::new();
    Encoder::new().encode(&batch, &mut payload).unwrap();
    payload
}

/// Publishes batches of one device until told to stop; gives how many events were acknowledged.
fn publish(site: &Site, device: &str, stop: &AtomicBool) -> u64 {
    let mut client = Connection::open(site.mqtt, device, Version::V5).unwrap();
    let topic = format!("thinglog/logs/{device}/app");
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        client.publish(&topic, &batch(sent..sent + EVENTS)).unwrap();
        client.acknowledged().unwrap();
        sent += EVENTS;
        std::thread::sleep(Duration::from_millis(2));
    }
    sent
}

#[test]
fn a_killed_router_brings_everything_everywhere() {
    let rounds = std::env::var("THINGLOG_CRASH_ROUNDS").map_or(10, |text| text.parse().unwrap());
    let mut random = Random::from_env("THINGLOG_CRASH_SEED");
    let (site, service) = (Arc::new(Site::new()), Service::new());
    service.listen();
    site.configure(&format!(
        "[router.destinations.hook]\ntype = \"webhook\"\nurl = \"http://{}/\"\nbatch.max_age_ms = 20\n",
        service.address
    ));
    archive::configure(&site, "none");
    let _broker = site.broker();
    let stop = Arc::new(AtomicBool::new(false));
    let devices = ["lamp-0", "lamp-1", "lamp-2"];
    let publishing: Vec<_> = devices
        .into_iter()
        .map(|device| {
            let (site, stop) = (Arc::clone(&site), Arc::clone(&stop));
            std::thread::spawn(move || publish(&site, device, &stop))
        })
        .collect();
    for _ in 0..rounds {
        let mut router = site.router();
        std::thread::sleep(Duration::from_millis(50 + random.below(400)));
        router.assert_running();
        router.kill();
    }
    stop.store(true, Ordering::Relaxed);
    let sent: Vec<u64> = publishing
        .into_iter()
        .map(|publishing| publishing.join().unwrap())
        .collect();
    let total = sent.iter().sum::<u64>() as usize;
    let mut router = site.router();
    site.wait_for_router(&mut router);
    wait::until_within(DRAIN, "everything in the file", || {
        (site.events().len() >= total).then_some(())
    });
    wait::until_within(DRAIN, "everything at the service", || {
        (service.count() >= total).then_some(())
    });
    let payloads = total / EVENTS as usize;
    wait::until_within(DRAIN, "everything in the archive", || {
        (archive::lines(&site).len() >= payloads).then_some(())
    });
    let lines = archive::lines(&site);
    // The devices send the same batches, each on its own topic.
    let kept: HashSet<String> = lines
        .iter()
        .map(|line| format!("{} {}", line["topic"], line["payload_base64"]))
        .collect();
    assert_eq!((lines.len(), kept.len()), (payloads, payloads));
    let events = site.events();
    let mut once = HashSet::new();
    for (device, sent) in devices.into_iter().zip(sent) {
        let of_device: Vec<&str> = events
            .iter()
            .filter(|event| event["device"] == device)
            .map(|event| event["id"].as_str().unwrap())
            .collect();
        let expected: Vec<String> = (0..sent)
            .map(|seq| format!("{device}/0000000000000007/{seq}"))
            .collect();
        assert!(
            of_device == expected,
            "{device}: {} of {sent}",
            of_device.len()
        );
        assert!(expected.iter().all(|id| service.has(id)), "{device}");
        once.extend(expected);
    }
    assert_eq!((events.len(), service.count()), (once.len(), once.len()));
}
