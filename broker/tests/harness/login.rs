//! A client that logs in, and asks for what it may not have.

use std::net::SocketAddr;

use crate::harness::{Raw, put_text};

/// How to connect.
#[derive(Clone)]
pub(crate) struct Login<'a> {
    pub(crate) level: u8,
    pub(crate) id: &'a str,
    pub(crate) user: Option<&'a str>,
    pub(crate) password: Option<&'a [u8]>,
    pub(crate) clean: bool,
    /// Topic; QoS 1, empty payload.
    pub(crate) will: Option<&'a str>,
}

impl<'a> Login<'a> {
    /// A client without a name.
    pub(crate) fn nobody(level: u8, id: &'a str) -> Login<'a> {
        Login {
            level,
            id,
            user: None,
            password: None,
            clean: true,
            will: None,
        }
    }

    /// A client whose user name and client id are the same.
    pub(crate) fn new(level: u8, user: &'a str, password: &'a str) -> Login<'a> {
        Login {
            user: Some(user),
            password: Some(password.as_bytes()),
            ..Login::nobody(level, user)
        }
    }

    fn body(&self) -> Vec<u8> {
        let flag = |is_set: bool, bit: u8| if is_set { bit } else { 0 };
        let mut body = b"\0\x04MQTT".to_vec();
        body.push(self.level);
        body.push(
            flag(self.clean, 0x02)
                | flag(self.will.is_some(), 0x0C)
                | flag(self.password.is_some(), 0x40)
                | flag(self.user.is_some(), 0x80),
        );
        body.extend([0, 60]);
        if self.level == 5 {
            match self.clean {
                true => body.push(0),
                // Session expiry: an hour.
                false => body.extend([5, 17, 0, 0, 14, 16]),
            }
        }
        put_text(&mut body, self.id);
        if let Some(topic) = self.will {
            if self.level == 5 {
                body.push(0);
            }
            put_text(&mut body, topic);
            put_text(&mut body, "");
        }
        if let Some(user) = self.user {
            put_text(&mut body, user);
        }
        if let Some(password) = self.password {
            body.extend((password.len() as u16).to_be_bytes());
            body.extend_from_slice(password);
        }
        body
    }

    /// Connects; the code of CONNACK when it is refused.
    pub(crate) async fn connect(&self, address: SocketAddr) -> Result<Client, u8> {
        self.connect_over(Raw::open(address).await).await
    }

    pub(crate) async fn connect_over(&self, mut raw: Raw) -> Result<Client, u8> {
        raw.send(0x10, &self.body()).await;
        let connack = raw.packet().await;
        assert_eq!(connack[0], 0x20);
        match connack[3] {
            0 => Ok(Client {
                raw,
                level: self.level,
                present: connack[2] == 1,
            }),
            code => Err(code),
        }
    }
}

/// A client that is connected.
pub(crate) struct Client {
    pub(crate) raw: Raw,
    level: u8,
    pub(crate) present: bool,
}

/// A delivery.
pub(crate) struct Received {
    pub(crate) topic: String,
    /// Encoded, MQTT 5 only.
    pub(crate) properties: Vec<u8>,
    pub(crate) payload: String,
}

impl Received {
    pub(crate) fn says(&self, text: &str) -> bool {
        String::from_utf8_lossy(&self.properties).contains(text)
    }
}

impl Client {
    /// Publishes; the reason code of the answer (0 for QoS 0).
    pub(crate) async fn publish(&mut self, topic: &str, qos: u8, retain: bool) -> u8 {
        let mut body = Vec::new();
        put_text(&mut body, topic);
        if qos > 0 {
            body.extend([0, 9]);
        }
        if self.level == 5 {
            body.push(0);
        }
        body.extend_from_slice(topic.as_bytes());
        self.raw
            .send(0x30 | qos << 1 | u8::from(retain), &body)
            .await;
        if qos == 0 {
            return 0;
        }
        let answer = self.raw.packet().await;
        assert_eq!(answer[0], if qos == 1 { 0x40 } else { 0x50 });
        let code = answer.get(4).copied().unwrap_or(0);
        if qos == 2 && code < 0x80 {
            self.raw.send(0x62, &[0, 9]).await;
            assert_eq!(self.raw.packet().await[0], 0x70);
        }
        code
    }

    /// Subscribes at QoS 1; the code of SUBACK.
    pub(crate) async fn subscribe(&mut self, filter: &str) -> u8 {
        self.subscribe_from(filter, None).await
    }

    /// The same with the property `thinglog-from`, MQTT 5 only.
    pub(crate) async fn subscribe_from(&mut self, filter: &str, from: Option<&str>) -> u8 {
        let mut body = vec![0, 5];
        if self.level == 5 {
            let mut property = Vec::new();
            if let Some(from) = from {
                property.push(38);
                put_text(&mut property, "thinglog-from");
                put_text(&mut property, from);
            }
            body.push(property.len() as u8);
            body.extend(property);
        }
        put_text(&mut body, filter);
        body.push(1);
        self.raw.send(0x82, &body).await;
        let answer = self.raw.packet().await;
        assert_eq!(answer[0], 0x90);
        *answer.last().unwrap()
    }

    /// The next delivery, acknowledged.
    pub(crate) async fn next(&mut self) -> Received {
        let packet = self.raw.packet().await;
        assert_eq!(packet[0] & 0xF0, 0x30, "not a PUBLISH: {packet:02x?}");
        let header = 1
            + packet[1..]
                .iter()
                .position(|byte| byte & 0x80 == 0)
                .unwrap()
            + 1;
        let length = usize::from(u16::from_be_bytes([packet[header], packet[header + 1]]));
        let (topic, mut rest) = packet[header + 2..].split_at(length);
        let topic = String::from_utf8(topic.to_vec()).unwrap();
        if packet[0] & 6 != 0 {
            let pkid = u16::from_be_bytes([rest[0], rest[1]]);
            self.raw.acknowledge(pkid).await;
            rest = &rest[2..];
        }
        let mut properties = Vec::new();
        if self.level == 5 {
            let (length, used) = match rest[0] {
                low if low < 0x80 => (usize::from(low), 1),
                low => (usize::from(low & 0x7F) | usize::from(rest[1]) << 7, 2),
            };
            properties = rest[used..used + length].to_vec();
            rest = &rest[used + length..];
        }
        Received {
            topic,
            properties,
            payload: String::from_utf8(rest.to_vec()).unwrap(),
        }
    }

    /// The topics of deliveries up to and including `last`.
    pub(crate) async fn until(&mut self, last: &str) -> Vec<String> {
        let mut topics = Vec::new();
        loop {
            topics.push(self.next().await.topic);
            if topics.last().is_some_and(|topic| topic == last) {
                return topics;
            }
        }
    }

    /// The reason code and text of the DISCONNECT that comes next, MQTT 5 only.
    pub(crate) async fn farewell(&mut self) -> (u8, String) {
        loop {
            let packet = self.raw.packet().await;
            if packet[0] == 0xE0 {
                return (
                    packet[2],
                    String::from_utf8_lossy(&packet[3..]).into_owned(),
                );
            }
        }
    }
}
