//! rumqttc, which devices in Rust use. Its two versions have the same methods in different modules.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use thinglog_tests::site::Site;

const PATIENCE: Duration = Duration::from_secs(10);

/// What a client heard.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    /// CONNACK, with session present.
    Connected(bool),
    Subscribed,
    /// PUBACK or PUBCOMP.
    Published,
    Message {
        text: String,
        qos: u8,
        retain: bool,
    },
    Ended,
}

macro_rules! story {
    ($version:ident, $rumqttc:path, $packet:path, $options:expr, $will:expr) => {
        mod $version {
            use super::{Heard, PATIENCE, Site, mpsc, thread};
            use $packet as Packet;
            use $rumqttc::{Client, Event, MqttOptions, mqttbytes::QoS};

            const QUALITIES: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

            struct Connected {
                client: Client,
                heard: mpsc::Receiver<Heard>,
            }

            impl Connected {
                fn open(
                    site: &Site,
                    id: &str,
                    lasting: bool,
                    will: Option<&str>,
                ) -> (Connected, bool) {
                    let mut options =
                        MqttOptions::new(id, site.mqtt.ip().to_string(), site.mqtt.port());
                    $options(&mut options, lasting);
                    if let Some(text) = will {
                        options.set_last_will($will("rust/will", text, QoS::AtLeastOnce));
                    }
                    let (client, mut connection) = Client::new(options, 100);
                    let (tell, heard) = mpsc::sync_channel(1000);
                    thread::spawn(move || {
                        for event in connection.iter() {
                            let heard = match event {
                                Ok(Event::Incoming(packet)) => match packet {
                                    Packet::ConnAck(connack) => {
                                        Heard::Connected(connack.session_present)
                                    }
                                    Packet::SubAck(_) => Heard::Subscribed,
                                    Packet::PubAck(_) | Packet::PubComp(_) => Heard::Published,
                                    Packet::Publish(publish) => Heard::Message {
                                        text: String::from_utf8_lossy(&publish.payload)
                                            .into_owned(),
                                        qos: publish.qos as u8,
                                        retain: publish.retain,
                                    },
                                    _ => continue,
                                },
                                Ok(Event::Outgoing(_)) => continue,
                                Err(_) => Heard::Ended,
                            };
                            let is_over = heard == Heard::Ended;
                            if tell.send(heard).is_err() || is_over {
                                return;
                            }
                        }
                    });
                    let client = Connected { client, heard };
                    match client.next() {
                        Heard::Connected(present) => (client, present),
                        other => panic!("{other:?}"),
                    }
                }

                fn next(&self) -> Heard {
                    self.heard
                        .recv_timeout(PATIENCE)
                        .expect("something in time")
                }

                fn subscribe(&self, filter: &str, qos: QoS) {
                    self.client.subscribe(filter, qos).unwrap();
                    assert_eq!(self.next(), Heard::Subscribed);
                }

                /// Waits for the end of the exchange.
                fn publish(&self, topic: &str, qos: QoS, retain: bool, text: &str) {
                    self.client
                        .publish(topic, qos, retain, text.to_owned())
                        .unwrap();
                    if qos != QoS::AtMostOnce {
                        assert_eq!(self.next(), Heard::Published);
                    }
                }

                #[track_caller]
                fn expect(&self, text: &str, qos: u8, retain: bool) {
                    let text = text.to_owned();
                    assert_eq!(self.next(), Heard::Message { text, qos, retain });
                }

                fn end(self) {
                    self.client.disconnect().unwrap();
                    while self.next() != Heard::Ended {}
                }
            }

            #[test]
            fn rumqttc_gets_on_with_the_broker() {
                let site = Site::new();
                let _broker = site.broker();
                let (reader, _) = Connected::open(&site, "rust-reader", false, None);
                let (writer, _) = Connected::open(&site, "rust-writer", false, None);
                for (n, qos) in QUALITIES.into_iter().enumerate() {
                    let topic = format!("rust/{n}");
                    reader.subscribe(&topic, qos);
                    writer.publish(&topic, qos, false, &topic);
                    reader.expect(&topic, n as u8, false);
                }
                writer.publish("thinglog/logs/rust/app", QoS::ExactlyOnce, false, "durable");

                writer.publish("rust/retained", QoS::AtLeastOnce, true, "kept");
                reader.subscribe("rust/retained", QoS::AtLeastOnce);
                reader.expect("kept", 1, true);
                writer.publish("rust/retained", QoS::AtLeastOnce, true, "");
                reader.expect("", 1, false);

                reader.subscribe("rust/will", QoS::AtLeastOnce);
                let polite = Connected::open(&site, "rust-polite", false, Some("unsent")).0;
                polite.end();
                // Another one of its name takes its place: to the broker the first is gone.
                let _mortal = Connected::open(&site, "rust-mortal", false, Some("gone"));
                let _heir = Connected::open(&site, "rust-mortal", false, None);
                reader.expect("gone", 1, false);

                let (kept, present) = Connected::open(&site, "rust-session", true, None);
                assert!(!present);
                kept.subscribe("rust/session", QoS::ExactlyOnce);
                kept.end();
                for n in 0..6 {
                    writer.publish("rust/session", QoS::ExactlyOnce, false, &n.to_string());
                }
                let (kept, present) = Connected::open(&site, "rust-session", true, None);
                assert!(present);
                for n in 0..6 {
                    kept.expect(&n.to_string(), 2, false);
                }
            }

            #[test]
            fn rumqttc_shares_subscriptions() {
                let site = Site::new();
                let _broker = site.broker();
                let members = ["a", "b"].map(|id| Connected::open(&site, id, false, None).0);
                for member in &members {
                    member.subscribe("$share/rust/rust/shared", QoS::AtLeastOnce);
                }
                let (writer, _) = Connected::open(&site, "rust-writer", false, None);
                for n in 0..20 {
                    writer.publish("rust/shared", QoS::AtLeastOnce, false, &n.to_string());
                }
                let mut got: Vec<u8> = thinglog_tests::wait::until("all messages", {
                    let mut got = Vec::new();
                    move || {
                        for member in &members {
                            while let Ok(Heard::Message { text, .. }) = member.heard.try_recv() {
                                got.push(text.parse().unwrap());
                            }
                        }
                        (got.len() >= 20).then(|| std::mem::take(&mut got))
                    }
                });
                got.sort_unstable();
                assert_eq!(got, (0..20).collect::<Vec<u8>>());
            }
        }
    };
}

story!(
    version_3_1_1,
    rumqttc,
    rumqttc::mqttbytes::v4::Packet,
    |options: &mut MqttOptions, lasting: bool| {
        options.set_clean_session(!lasting);
    },
    |topic: &str, text: &str, qos| rumqttc::mqttbytes::v4::LastWill::new(topic, text, qos, false)
);

story!(
    version_5,
    rumqttc::v5,
    rumqttc::v5::mqttbytes::v5::Packet,
    |options: &mut MqttOptions, lasting: bool| {
        options.set_clean_start(!lasting);
        let mut properties = rumqttc::v5::mqttbytes::v5::ConnectProperties::new();
        properties.session_expiry_interval = lasting.then_some(3600);
        properties.topic_alias_max = Some(10);
        options.set_connect_properties(properties);
    },
    |topic: &str, text: &str, qos| rumqttc::v5::mqttbytes::v5::LastWill::new(
        topic,
        text.to_owned(),
        qos,
        false,
        None
    )
);
