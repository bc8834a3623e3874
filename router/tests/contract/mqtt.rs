//! Another MQTT broker: a real mosquitto, with a proxy in front of it that makes publishes fail.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::certificates::Certificates;
use crate::common::{Mosquitto, Running, until};
use crate::harness::{Bench, Fault, Got, Subject, books};
use crate::mqtt_proxy::MqttProxy;

/// Publishes that the broker takes at once.
const WINDOW: usize = 60;

pub(crate) struct Mqtt {
    broker: Mosquitto,
    proxy: MqttProxy,
    subscriber: Subscriber,
}

impl Subject for Mqtt {
    /// An event is a message here.
    const FLOOD: u64 = 1200;

    async fn start() -> Option<Mqtt> {
        let config = format!("allow_anonymous true\nmax_inflight_messages {WINDOW}\n");
        let broker = Mosquitto::start_with(&config)?;
        let mut subscriber = Subscriber::start(broker.port, "got/#");
        subscriber.is_there().await;
        let mut proxy = MqttProxy::new(broker.port);
        proxy.listen().await;
        Some(Mqtt {
            broker,
            proxy,
            subscriber,
        })
    }

    fn config(&self) -> Value {
        json!({
            "type": "mqtt",
            "broker": format!("mqtt://{}", self.proxy.address),
            "topic": "got/{{device}}/{{source}}",
            "timeout_ms": 1000,
            "batch": {"max_events": Self::MAX_EVENTS, "max_bytes": 64 << 10, "max_age_ms": 50},
            "retry": {"from_ms": 5, "max_ms": 50},
            "memory_bytes": 10 << 20,
        })
    }

    fn got(&self) -> Vec<Got> {
        self.subscriber.got.lock().clone()
    }

    fn violations(&self) -> Vec<String> {
        self.proxy.violations()
    }

    fn fail(&self, fault: Fault) -> bool {
        self.proxy.fail(fault)
    }

    async fn stop(&mut self) {
        self.proxy.close().await;
        self.broker.stop();
    }

    /// The subscriber comes first: a publish that nobody has subscribed to is acknowledged and gone.
    async fn resume(&mut self) {
        self.subscriber.subscribed.mark_unchanged();
        self.broker.restart();
        self.subscriber.is_there().await;
        self.proxy.listen().await;
    }
}

/// Gathers what is published, over any number of connections.
struct Subscriber {
    got: Arc<Mutex<Vec<Got>>>,
    /// Counts connections on which it has subscribed.
    subscribed: watch::Receiver<u32>,
    task: JoinHandle<()>,
}

impl Subscriber {
    fn start(port: u16, filter: &'static str) -> Subscriber {
        let mut options = MqttOptions::new("subscriber", "127.0.0.1", port);
        options.set_max_packet_size(Some(4 << 20));
        let (client, mut events) = AsyncClient::new(options, 10);
        let got = Arc::<Mutex<Vec<Got>>>::default();
        let (count, subscribed) = watch::channel(0);
        let received = Arc::clone(&got);
        let task = tokio::spawn(async move {
            loop {
                match events.poll().await {
                    Ok(Event::Incoming(Packet::ConnAck(_))) => {
                        client.try_subscribe(filter, QoS::AtLeastOnce).unwrap();
                    }
                    Ok(Event::Incoming(Packet::SubAck(_))) => count.send_modify(|it| *it += 1),
                    Ok(Event::Incoming(Packet::Publish(publish))) => {
                        received
                            .lock()
                            .extend(read(&publish.topic, &publish.payload));
                    }
                    Ok(_) => {}
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        });
        Subscriber {
            got,
            subscribed,
            task,
        }
    }

    /// Waits for the next time that it has subscribed.
    async fn is_there(&mut self) {
        let change = self.subscribed.changed();
        tokio::time::timeout(crate::common::PATIENCE, change)
            .await
            .unwrap()
            .unwrap();
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The events of a message, an object a line.
fn read(topic: &[u8], payload: &[u8]) -> Vec<Got> {
    let lines = payload.split(|byte| *byte == b'\n');
    let events = lines.map(|line| {
        let event: Value = serde_json::from_slice(line).unwrap();
        let text = |key: &str| event[key].as_str().unwrap().to_owned();
        let topic = String::from_utf8_lossy(topic).into_owned();
        let expected = [
            format!("got/{}/{}", text("device"), text("source")),
            format!("thinglog/out/subject/{}", text("device")),
        ];
        assert!(expected.contains(&topic), "{topic}");
        Got {
            device: text("device"),
            message: text("message"),
        }
    });
    events.collect()
}

crate::contract!(Mqtt);

/// A router that delivers to the subject with these changes of its configuration.
async fn router(bench: &Bench<Mqtt>, changes: Value) -> Running {
    let mut subject = bench.subject.config();
    for (key, value) in changes.as_object().unwrap() {
        subject[key] = value.clone();
    }
    let mut config = bench.config();
    let subject = serde_json::from_value(subject).unwrap();
    config.destinations.insert("subject".into(), subject);
    Running::start(config).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_one_topic_share_a_message_as_lines() {
    let Some(mut bench) = Bench::<Mqtt>::start().await else {
        return;
    };
    bench.publish("lamp-1", 120).await;
    bench.publish("lamp-2", 30).await;
    let router = router(&bench, json!({"format": "ndjson"})).await;
    bench.exactly().await;
    let requests = router.metric("thinglog_router_requests_total", &["subject"]);
    assert!(requests <= 12.0, "{requests} messages");
    router.stop().await;
}

/// The destination leads to where the router takes its events from.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_come_back_do_not_go_round_for_ever() {
    let Some(mut bench) = Bench::<Mqtt>::start().await else {
        return;
    };
    let circle = json!({
        "broker": format!("mqtt://127.0.0.1:{}", bench.broker.port),
        "topic": "thinglog/logs/{{device}}/{{source}}",
    });
    let router = router(&bench, circle).await;
    bench.publish_text("lamp-1", "round").await;
    books(&router, 1, 1).await;
    let letters = bench.dead_letters();
    assert_eq!(letters.len(), 1);
    let reason = letters[0]["reason"].as_str().unwrap();
    assert!(reason.contains("circle"), "{reason}");
    assert_eq!(letters[0]["event"]["message"], "round");
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_emitter_publishes_at_the_routers_own_broker() {
    let Some(mut bench) = Bench::<Mqtt>::start().await else {
        return;
    };
    let mut subscriber = Subscriber::start(bench.broker.port, "thinglog/out/#");
    subscriber.is_there().await;
    let mut config = bench.config();
    let emitter = json!({"type": "emitter", "batch": {"max_age_ms": 20}});
    let emitter = serde_json::from_value(emitter).unwrap();
    config.destinations.insert("subject".into(), emitter);
    let router = Running::start(config).await;
    bench.publish("lamp-1", 70).await;
    bench.publish("lamp-2", 70).await;
    until("everything has come out", || {
        subscriber.got.lock().len() >= 140
    })
    .await;
    let got = subscriber.got.lock().clone();
    for device in ["lamp-1", "lamp-2"] {
        let of = |all: &[Got]| -> Vec<Got> {
            let of = all.iter().filter(|it| it.device == device);
            of.cloned().collect()
        };
        assert_eq!(of(&got), of(&bench.sent));
    }
    books(&router, 140, 0).await;
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_is_under_way_than_the_broker_takes_at_once() {
    let Some(mut bench) = Bench::<Mqtt>::start().await else {
        return;
    };
    bench.publish("lamp-1", 5 * WINDOW as u64).await;
    let batch = json!({"max_events": 4 * WINDOW, "max_bytes": 64 << 10, "max_age_ms": 50});
    let router = router(&bench, json!({"batch": batch})).await;
    bench.exactly().await;
    // More would be a violation.
    let most = bench.subject.proxy.most_under_way();
    assert!(most > WINDOW as i64 / 2, "{most} of {WINDOW}");
    router.stop().await;
}

/// Refused by the broker's rules is not refused for good: rules can be put right.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_rules_forbid_waits_until_they_allow_it() {
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("acl");
    std::fs::write(&rules, "topic readwrite other/#\n").unwrap();
    let config = format!("allow_anonymous true\nacl_file {}\n", rules.display());
    let (Some(mut bench), Some(broker)) =
        (Bench::<Mqtt>::start().await, Mosquitto::start_with(&config))
    else {
        return;
    };
    let address = format!("mqtt://127.0.0.1:{}", broker.port);
    let router = router(&bench, json!({"broker": address})).await;
    bench.publish("lamp-1", 3).await;
    let reason = || router.health.parts().get("subject").cloned().flatten();
    until("the refusal is told", || {
        reason().is_some_and(|reason| reason.contains("0x87"))
    })
    .await;
    std::fs::write(&rules, "topic readwrite got/#\n").unwrap();
    broker.reload();
    until("the events are taken", || {
        router.metric("thinglog_router_events_total", &["subject", "delivered"]) == 3.0
    })
    .await;
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tls_with_a_login_whose_password_is_put_right_later() {
    let folder = tempfile::tempdir().unwrap();
    let files = Certificates::make(folder.path());
    let (passwords, secret) = (
        folder.path().join("passwords"),
        folder.path().join("secret"),
    );
    std::fs::write(&passwords, "thinglog:hush\n").unwrap();
    std::fs::write(&secret, "wrong\n").unwrap();
    let hashed = std::process::Command::new("mosquitto_passwd")
        .arg("-U")
        .arg(&passwords)
        .status();
    let config = format!(
        "allow_anonymous false\npassword_file {}\ncertfile {}\nkeyfile {}\n",
        passwords.display(),
        files.certificate.display(),
        files.key.display()
    );
    let (Some(mut bench), Some(broker)) =
        (Bench::<Mqtt>::start().await, Mosquitto::start_with(&config))
    else {
        return;
    };
    assert!(hashed.unwrap().success());
    let changes = json!({
        "broker": format!("mqtts://127.0.0.1:{}", broker.port),
        "tls": {"ca": files.ca, "server_name": "localhost"},
        "username": "thinglog",
        "password": {"file": secret},
    });
    let router = router(&bench, changes).await;
    bench.publish("lamp-1", 3).await;
    let reason = || router.health.parts().get("subject").cloned().flatten();
    until("the wrong password is told", || {
        reason().is_some_and(|reason| reason.contains("refused the connection"))
    })
    .await;
    std::fs::write(&secret, "hush\n").unwrap();
    until("the events are taken", || {
        router.metric("thinglog_router_events_total", &["subject", "delivered"]) == 3.0
    })
    .await;
    router.stop().await;
}
