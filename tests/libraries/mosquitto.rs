//! Mosquitto's command line clients.

use thinglog_tests::mosquitto::{self, VERSIONS, Watch};
use thinglog_tests::site::Site;
use thinglog_tests::wait;

fn await_lines(watch: &Watch, expected: &[&str]) {
    wait::until(&format!("the lines {expected:?}"), || {
        (watch.lines() == expected).then_some(())
    });
}

/// Starts a watch and waits until its subscription stands: a retained mark comes with it.
fn watch(site: &Site, topic: &str, more: &[&str]) -> Watch {
    mosquitto::publish(site.mqtt, "mark", b"ready", &["-r"]);
    let mut options = vec!["-t", "mark"];
    options.extend(more);
    let watch = Watch::start(site.mqtt, topic, &options);
    await_lines(&watch, &["ready"]);
    watch
}

#[test]
fn mosquitto_s_clients_get_on_with_the_broker() {
    if !mosquitto::installed("mosquitto_s_clients_get_on_with_the_broker") {
        return;
    }
    let site = Site::new();
    let _broker = site.broker();
    for version in VERSIONS {
        let topic = format!("{version}/hall");
        for qos in ["0", "1", "2"] {
            let watch = watch(&site, &topic, &["-V", version, "-q", qos]);
            mosquitto::publish(site.mqtt, &topic, b"x", &["-V", version, "-q", qos]);
            await_lines(&watch, &["ready", "x"]);
        }
        mosquitto::publish(site.mqtt, &topic, b"kept", &["-V", version, "-r"]);
        assert_eq!(
            mosquitto::retained(site.mqtt, &topic).as_deref(),
            Some("kept")
        );
        mosquitto::remove_retained(site.mqtt, &topic);
        assert_eq!(mosquitto::retained(site.mqtt, &topic), None);
    }
}

#[test]
fn the_will_of_a_mosquitto_client_that_is_killed_is_sent() {
    if !mosquitto::installed("the_will_of_a_mosquitto_client_that_is_killed_is_sent") {
        return;
    }
    let site = Site::new();
    let _broker = site.broker();
    for version in VERSIONS {
        let will = format!("{version}/will");
        let watcher = watch(&site, &will, &["-V", version, "-q", "1"]);
        let options = [
            "-V",
            version,
            "--will-topic",
            &will,
            "--will-payload",
            "gone",
        ];
        drop(watch(&site, "nothing", &options));
        // The mark of the other one comes to both.
        await_lines(&watcher, &["ready", "ready", "gone"]);
    }
}

#[test]
fn a_session_of_a_mosquitto_client_is_taken_up() {
    if !mosquitto::installed("a_session_of_a_mosquitto_client_is_taken_up") {
        return;
    }
    let site = Site::new();
    let _broker = site.broker();
    for version in VERSIONS {
        let topic = format!("{version}/session");
        let mut options = vec!["-V", version, "-i", version, "-c", "-q", "2"];
        if version == "mqttv5" {
            options.extend(["-x", "3600"]);
        }
        drop(watch(&site, &topic, &options));
        for n in ["1", "2", "3"] {
            mosquitto::publish(site.mqtt, &topic, n.as_bytes(), &["-V", version, "-q", "2"]);
        }
        let back = Watch::start(site.mqtt, &topic, &options);
        await_lines(&back, &["1", "2", "3"]);
    }
}

#[test]
fn mosquitto_clients_share_a_subscription() {
    if !mosquitto::installed("mosquitto_clients_share_a_subscription") {
        return;
    }
    let site = Site::new();
    let _broker = site.broker();
    for version in VERSIONS {
        let topic = format!("{version}/shared");
        let filter = format!("$share/group/{topic}");
        let members = [(); 2].map(|()| watch(&site, &filter, &["-V", version, "-q", "1"]));
        for n in 0..10 {
            mosquitto::publish(
                site.mqtt,
                &topic,
                n.to_string().as_bytes(),
                &["-V", version],
            );
        }
        wait::until("each message with one member", || {
            let lines = members.iter().flat_map(Watch::lines);
            let mut got: Vec<String> = lines.filter(|line| line != "ready").collect();
            got.sort();
            (got == (0..10).map(|n: u8| n.to_string()).collect::<Vec<_>>()).then_some(())
        });
    }
}
