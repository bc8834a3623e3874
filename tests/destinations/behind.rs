//! One destination is down while events flow to another: the other is as quick as before, the router
//! takes no more memory, and when the first is back it gets everything.
//!
//! `THINGLOG_BEHIND_EVENTS` sets how far behind it falls (100,000; 5,000,000 is an hour). With
//! `THINGLOG_BEHIND_CLAIMS=1` the claims on time are checked too, on a machine that does nothing else.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::time::{Duration, Instant};

use thinglog_tests::mqtt::{Connection, Version};
use thinglog_tests::site::Site;
use thinglog_tests::wait;

use crate::killed::batch;
use crate::service::Service;

const BATCH: u64 = 1000;
const DEVICES: u64 = 20;
/// Publishes on the way at once.
const WINDOW: usize = 50;
const PROBES: usize = 300;
const DRAIN: Duration = Duration::from_secs(1800);

/// Publishes this many events more of each of the devices; `from` is where their numbers go on.
fn publish(client: &mut Connection, from: &mut u64, events: u64) {
    let rounds = events.div_ceil(BATCH * DEVICES);
    let mut waiting = 0;
    for _ in 0..rounds {
        let payload = batch(*from..*from + BATCH);
        *from += BATCH;
        for device in 0..DEVICES {
            let topic = format!("thinglog/logs/lamp-{device}/app");
            client.publish(&topic, &payload).unwrap();
            waiting += 1;
            if waiting == WINDOW {
                acknowledged(client, waiting);
                waiting = 0;
            }
        }
    }
    acknowledged(client, waiting);
}

fn acknowledged(client: &mut Connection, publishes: usize) {
    for _ in 0..publishes {
        client.acknowledged().unwrap();
    }
}

/// The time from publish to the file for lone events, one after the other: the 99th of 100.
fn p99(site: &Site, client: &mut Connection) -> Duration {
    let path = site.path().join("thinglog-data/router/file/events.ndjson");
    let mut file = File::open(path).unwrap();
    let mut times = Vec::new();
    for _ in 0..PROBES {
        file.seek(SeekFrom::End(0)).unwrap();
        let begun = Instant::now();
        client.publish("thinglog/logs/probe/app", b"probe").unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(b"\n") {
            assert!(
                begun.elapsed() < wait::PATIENCE,
                "the probe does not arrive"
            );
            file.read_to_end(&mut seen).unwrap();
            std::thread::sleep(Duration::from_micros(200));
        }
        times.push(begun.elapsed());
        client.acknowledged().unwrap();
    }
    times.sort_unstable();
    times[PROBES * 99 / 100]
}

fn figure(site: &Site, destination: &str, pointer: &str) -> u64 {
    let text = site.get(&format!("/api/v1/destinations/{destination}"));
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    value.pointer(pointer).unwrap().as_u64().unwrap()
}

#[test]
fn a_destination_that_is_down_slows_no_other_and_costs_no_memory() {
    let events =
        std::env::var("THINGLOG_BEHIND_EVENTS").map_or(100_000, |text| text.parse().unwrap());
    let is_claimed = std::env::var_os("THINGLOG_BEHIND_CLAIMS").is_some();
    let (site, service) = (Site::new(), Service::new());
    // What the file holds is looked at by its end only: it must not be rotated in between.
    site.configure("rotate_bytes = 17179869184");
    site.configure(&format!(
        "[router.destinations.hook]\ntype = \"webhook\"\nurl = \"http://{}/\"\n\
         retry = {{ from_ms = 100, max_ms = 1000 }}\n",
        service.address
    ));
    let _broker = site.broker();
    let mut router = site.router();
    wait::until("the file destination to run", || {
        site.get("/api/v1/destinations/file")
            .contains("\"ready\":true")
            .then_some(())
    });
    let mut client = Connection::open(site.mqtt, "publisher", Version::V5).unwrap();
    let mut next = 0;
    let mut sent = 0;
    let mut all_in_file = |client: &mut Connection, count: u64| {
        publish(client, &mut next, count);
        sent = next * DEVICES;
        wait::until_within(DRAIN, "the file to have them", || {
            let delivered = figure(&site, "file", "/events/delivered");
            (delivered >= sent).then_some(())
        });
        sent
    };
    // Both are as they are with a little behind them; then one falls far behind.
    all_in_file(&mut client, 40_000);
    let (near, memory_near) = (p99(&site, &mut client), router.peak_memory());
    let sent = all_in_file(&mut client, events);
    let (far, memory_far) = (p99(&site, &mut client), router.peak_memory());
    router.assert_running();
    assert_eq!(figure(&site, "hook", "/events/delivered"), 0);
    let grown = memory_far.saturating_sub(memory_near);
    eprintln!(
        "p99 {near:?}, {far:?} with {sent} events behind; memory {memory_near} + {grown} bytes"
    );
    assert!(grown < 64 << 20, "{grown} bytes more");
    if is_claimed {
        let allowed = (near * 5 / 4).max(near + Duration::from_millis(5));
        assert!(far < allowed, "{far:?} after {near:?}");
    }
    let begun = Instant::now();
    service.listen();
    let total = sent as usize + 2 * PROBES;
    wait::until_within(DRAIN, "everything at the service", || {
        (service.count() >= total).then_some(())
    });
    let rate = total as f64 / begun.elapsed().as_secs_f64();
    eprintln!("caught up with {rate:.0} events/s");
    assert_eq!(service.count(), total);
    assert_eq!(figure(&site, "file", "/events/delivered"), total as u64);
}
