//! The smallest MQTT client that shows every acknowledgement: QoS 1, 3.1.1 or 5.0, blocking. It never
//! sends anything twice, so what was acknowledged must be stored exactly once.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Protocol level 4 or 5 (MQTT 3.1.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 3.1.1.
    V4,
    /// 5.0.
    V5,
}

/// One connection.
pub struct Connection {
    stream: TcpStream,
    version: Version,
    next: u16,
}

impl Connection {
    /// Connects with a clean session.
    ///
    /// # Errors
    /// When the broker is away or refuses.
    pub fn open(broker: SocketAddr, client: &str, version: Version) -> io::Result<Connection> {
        Connection::connect(broker, client, version, true).map(|(connection, _)| connection)
    }

    /// Connects with 3.1.1 and takes its session up, or begins one that stays; whether there was one.
    ///
    /// # Errors
    /// When the broker is away or refuses.
    pub fn resume(broker: SocketAddr, client: &str) -> io::Result<(Connection, bool)> {
        Connection::connect(broker, client, Version::V4, false)
    }

    fn connect(
        broker: SocketAddr,
        client: &str,
        version: Version,
        clean: bool,
    ) -> io::Result<(Connection, bool)> {
        let stream = TcpStream::connect_timeout(&broker, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.set_nodelay(true)?;
        let mut connection = Connection {
            stream,
            version,
            next: 0,
        };
        let level = if version == Version::V5 { 5 } else { 4 };
        let mut body = vec![
            0,
            4,
            b'M',
            b'Q',
            b'T',
            b'T',
            level,
            u8::from(clean) << 1,
            0,
            0,
        ];
        connection.properties(&mut body);
        text(&mut body, client);
        connection.send(0x10, &body)?;
        match connection.receive()? {
            (0x20, answer) if answer.get(1) == Some(&0) => {
                Ok((connection, answer.first() == Some(&1)))
            }
            (kind, answer) => Err(io::Error::other(format!(
                "no CONNACK but {kind:#x} {answer:?}"
            ))),
        }
    }

    /// Sends one publish at QoS 1; returns its packet id.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn publish(&mut self, topic: &str, payload: &[u8]) -> io::Result<u16> {
        self.publish_as(0x32, topic, payload)
    }

    /// The same with RETAIN; an empty payload removes what is retained.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn retain(&mut self, topic: &str, payload: &[u8]) -> io::Result<u16> {
        self.publish_as(0x33, topic, payload)
    }

    fn publish_as(&mut self, kind: u8, topic: &str, payload: &[u8]) -> io::Result<u16> {
        self.next = self.next.checked_add(1).unwrap_or(1);
        let mut body = Vec::new();
        text(&mut body, topic);
        body.extend_from_slice(&self.next.to_be_bytes());
        self.properties(&mut body);
        body.extend_from_slice(payload);
        self.send(kind, &body)?;
        Ok(self.next)
    }

    /// Subscribes at QoS 1 and waits for the acknowledgement; nothing else may come meanwhile. 3.1.1.
    ///
    /// # Errors
    /// When the connection is gone or the broker refuses.
    pub fn subscribe(&mut self, filter: &str) -> io::Result<()> {
        let mut body = vec![0, 1];
        text(&mut body, filter);
        body.push(1);
        self.send(0x82, &body)?;
        match self.receive()? {
            (0x90, answer) if answer == [0, 1, 1] => Ok(()),
            (kind, answer) => Err(io::Error::other(format!(
                "no SUBACK but {kind:#x} {answer:?}"
            ))),
        }
    }

    /// Unsubscribes likewise. 3.1.1.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn unsubscribe(&mut self, filter: &str) -> io::Result<()> {
        let mut body = vec![0, 1];
        text(&mut body, filter);
        self.send(0xA2, &body)?;
        match self.receive()? {
            (0xB0, _) => Ok(()),
            (kind, answer) => Err(io::Error::other(format!(
                "no UNSUBACK but {kind:#x} {answer:?}"
            ))),
        }
    }

    /// The next message, acknowledged: topic and payload. 3.1.1.
    ///
    /// # Errors
    /// When the connection is gone or something else comes.
    pub fn delivery(&mut self) -> io::Result<(String, Vec<u8>)> {
        let (kind, body) = self.receive()?;
        let end = 2 + body.get(..2).map_or(0, |length| {
            usize::from(u16::from_be_bytes([length[0], length[1]]))
        });
        match (kind & 0xF6, body.get(2..end), body.get(end..end + 2)) {
            (0x32, Some(topic), Some(id)) => {
                self.send(0x40, id)?;
                let topic = String::from_utf8_lossy(topic).into_owned();
                Ok((topic, body[end + 2..].to_vec()))
            }
            _ => Err(io::Error::other(format!(
                "no PUBLISH but {kind:#x} {body:?}"
            ))),
        }
    }

    /// Subscribes to all of them at QoS 0; gives the codes of SUBACK.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn subscribe_all(&mut self, filters: &[String]) -> io::Result<Vec<u8>> {
        let mut body = vec![0, 1];
        self.properties(&mut body);
        for filter in filters {
            text(&mut body, filter);
            body.push(0);
        }
        self.send(0x82, &body)?;
        match self.receive()? {
            (0x90, answer) => Ok(answer[answer.len() - filters.len()..].to_vec()),
            (kind, answer) => Err(io::Error::other(format!(
                "no SUBACK but {kind:#x} {answer:?}"
            ))),
        }
    }

    /// Sends packets as they are.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn send_raw(&mut self, packets: &[u8]) -> io::Result<()> {
        self.stream.write_all(packets)
    }

    /// The packet id of the next acknowledgement that means success.
    ///
    /// # Errors
    /// When the connection is gone or the broker refuses a publish.
    pub fn acknowledged(&mut self) -> io::Result<u16> {
        match self.receive()? {
            (0x40, answer)
                if answer.len() >= 2 && answer.get(2).is_none_or(|reason| *reason < 0x80) =>
            {
                Ok(u16::from_be_bytes([answer[0], answer[1]]))
            }
            (kind, answer) => Err(io::Error::other(format!(
                "no PUBACK but {kind:#x} {answer:?}"
            ))),
        }
    }

    fn properties(&self, body: &mut Vec<u8>) {
        if self.version == Version::V5 {
            body.push(0);
        }
    }

    fn send(&mut self, kind: u8, body: &[u8]) -> io::Result<()> {
        let mut packet = vec![kind];
        let mut left = body.len();
        loop {
            let low = (left % 128) as u8;
            left /= 128;
            packet.push(if left > 0 { low | 0x80 } else { low });
            if left == 0 {
                break;
            }
        }
        packet.extend_from_slice(body);
        self.stream.write_all(&packet)
    }

    /// The next packet: its first byte and what follows its length.
    ///
    /// # Errors
    /// When the connection is gone, or nothing comes for a while.
    pub fn receive(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let mut byte = [0];
        self.stream.read_exact(&mut byte)?;
        let kind = byte[0];
        let mut len = 0usize;
        for shift in [0, 7, 14, 21] {
            self.stream.read_exact(&mut byte)?;
            len |= usize::from(byte[0] & 0x7f) << shift;
            if byte[0] & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; len];
        self.stream.read_exact(&mut body)?;
        Ok((kind, body))
    }
}

fn text(body: &mut Vec<u8>, text: &str) {
    body.extend_from_slice(&(text.len() as u16).to_be_bytes());
    body.extend_from_slice(text.as_bytes());
}
