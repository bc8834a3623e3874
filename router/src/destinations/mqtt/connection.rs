//! One MQTT 5 connection that only publishes.

use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, Connect, ConnectProperties, ConnectReturnCode, Login as LoginPacket, Packet,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

use super::verdict::{Failure, text};
use crate::config::Secret;
use crate::mqtt::connect::Peer;
use crate::mqtt::frame;
use crate::net::wire::{self, Server, Wire};

/// Largest packet taken of the broker: acknowledgements, perhaps with a reason in words.
const LARGEST: usize = 128 << 10;
/// After this silence a connection may be gone without a trace.
const IDLE: Duration = Duration::from_secs(60);

/// Who logs in.
#[derive(Clone, Debug)]
pub(super) struct Login {
    pub(super) username: String,
    pub(super) password: Option<Secret>,
}

impl Login {
    /// The password is read where it stands, with every connection.
    pub(super) fn read(&self) -> Result<LoginPacket, String> {
        let password = self.password.as_ref().map(Secret::read).transpose();
        let password = password.map_err(|error| format!("password: {error}"))?;
        Ok(LoginPacket {
            username: self.username.clone(),
            password: password.unwrap_or_default(),
        })
    }
}

/// A connection after CONNACK, with nothing under way.
pub(super) struct Connection {
    wire: Box<dyn Wire>,
    input: BytesMut,
    /// What the broker takes.
    pub(super) peer: Peer,
    last_used: Instant,
}

impl Connection {
    /// Connects and logs in, with a clean session and without keep alive.
    pub(super) async fn open(
        server: &Server,
        login: Option<&Login>,
        client_id: &str,
        within: Duration,
    ) -> Result<Connection, Failure> {
        let wire = server.connect().await.map_err(Failure::new)?;
        let mut connection = Connection {
            wire,
            input: BytesMut::new(),
            peer: Peer::default(),
            last_used: Instant::now(),
        };
        let opening = connection.log_in(login, client_id);
        match tokio::time::timeout(within, opening).await {
            Ok(opened) => opened?,
            Err(_) => return Err(Failure::new("no CONNACK has come in time")),
        }
        Ok(connection)
    }

    async fn log_in(&mut self, login: Option<&Login>, client_id: &str) -> Result<(), Failure> {
        let mut properties = ConnectProperties::new();
        properties.session_expiry_interval = None;
        properties.receive_maximum = None;
        properties.max_packet_size = Some(LARGEST as u32);
        let connect = Connect {
            keep_alive: 0,
            client_id: client_id.to_owned(),
            clean_start: true,
            properties: Some(properties),
        };
        let login = login.map(Login::read).transpose().map_err(Failure::new)?;
        let mut output = BytesMut::new();
        connect
            .write(&None, &login, &mut output)
            .map_err(|error| Failure::new(format!("CONNECT: {error}")))?;
        self.wire.write_all(&output).await.map_err(broken)?;
        self.wire.flush().await.map_err(broken)?;
        loop {
            if let Some(header) = header(&self.input)? {
                let packet = Packet::read(&mut self.input, None);
                return match packet {
                    Ok(Packet::ConnAck(ack)) => self.take_connack(ack),
                    Ok(_) => Err(unexpected(header.kind)),
                    Err(error) => Err(Failure::new(format!(
                        "its answer to CONNECT is none of MQTT 5 ({error})"
                    ))),
                };
            }
            let read = self.wire.read_buf(&mut self.input).await.map_err(broken)?;
            if read == 0 {
                return Err(Failure::new(
                    "the broker closed the connection instead of accepting it",
                ));
            }
        }
    }

    fn take_connack(&mut self, ack: ConnAck) -> Result<(), Failure> {
        if ack.code != ConnectReturnCode::Success {
            let reason = format!("the broker refused the connection: {:?}", ack.code);
            return Err(Failure::new(reason));
        }
        let most = ack.properties.as_ref().and_then(|it| it.max_qos);
        if most == Some(0) {
            let reason = "the broker takes QoS 0 only, which acknowledges nothing";
            return Err(Failure::new(reason));
        }
        self.peer = Peer::from_connack(ack);
        Ok(())
    }

    /// Whether it can be used again.
    pub(super) async fn is_usable(&mut self) -> bool {
        self.last_used.elapsed() < IDLE && !wire::is_spent(&mut self.wire).await
    }

    /// Publishes the packets of `body`, which end at `ends` and have the identifiers from 1 on. Notes
    /// the reason of each PUBACK; after an error the connection is of no more use. `within`: until the
    /// next PUBACK.
    pub(super) async fn publish(
        &mut self,
        body: &[u8],
        ends: &[usize],
        reasons: &mut [Option<u8>],
        within: Duration,
    ) -> Result<(), Failure> {
        let window = usize::from(self.peer.receive_max);
        let (mut reader, mut writer) = tokio::io::split(&mut self.wire);
        let mut sent = Sending::default();
        let mut acknowledged = 0;
        let mut due = tokio::time::Instant::now() + within;
        while acknowledged < ends.len() {
            let may_go = ends[ends.len().min(acknowledged + window) - 1];
            let ready = &body[sent.written..may_go];
            tokio::select! {
                went = sent.go(&mut writer, ready) => went?,
                taken = take(&mut reader, &mut self.input) => {
                    taken?;
                    let before = acknowledged;
                    settle(&mut self.input, reasons, &mut acknowledged)?;
                    if acknowledged > before {
                        due = tokio::time::Instant::now() + within;
                    }
                }
                () = tokio::time::sleep_until(due) => {
                    return Err(Failure::new(format!("no PUBACK within {} ms", within.as_millis())));
                }
            }
        }
        self.last_used = Instant::now();
        Ok(())
    }
}

/// How far a body has gone.
#[derive(Default)]
struct Sending {
    written: usize,
    is_flushed: bool,
}

impl Sending {
    /// Writes some of `ready`, or flushes, or has nothing to do. Cancel-safe.
    async fn go(
        &mut self,
        writer: &mut WriteHalf<&mut Box<dyn Wire>>,
        ready: &[u8],
    ) -> Result<(), Failure> {
        if !ready.is_empty() {
            self.written += writer.write(ready).await.map_err(broken)?;
            self.is_flushed = false;
        } else if !self.is_flushed {
            writer.flush().await.map_err(broken)?;
            self.is_flushed = true;
        } else {
            std::future::pending::<()>().await;
        }
        Ok(())
    }
}

/// Reads what there is. Cancel-safe.
async fn take(
    reader: &mut ReadHalf<&mut Box<dyn Wire>>,
    input: &mut BytesMut,
) -> Result<(), Failure> {
    match reader.read_buf(input).await.map_err(broken)? {
        0 => Err(Failure::new("the broker closed the connection")),
        _ => Ok(()),
    }
}

/// Notes every PUBACK that has come.
fn settle(
    input: &mut BytesMut,
    reasons: &mut [Option<u8>],
    acknowledged: &mut usize,
) -> Result<(), Failure> {
    const PUBACK: u8 = 4;
    const PINGRESP: u8 = 13;
    const DISCONNECT: u8 = 14;
    while let Some(header) = header(input)? {
        let packet = input.split_to(header.total);
        let mut packet = &packet[header.length..];
        match header.kind {
            PUBACK if packet.len() >= 2 => {
                let id = usize::from(packet.get_u16());
                // Without a reason it is 0 (section 3.4.2.1).
                let reason = packet.first().copied().unwrap_or(0);
                let noted = id.checked_sub(1).and_then(|at| reasons.get_mut(at));
                match noted {
                    Some(noted) if noted.is_none() => *noted = Some(reason),
                    _ => return Err(Failure::new(format!("a PUBACK for packet {id}, not sent"))),
                }
                *acknowledged += 1;
            }
            PINGRESP => {}
            DISCONNECT => {
                let reason = packet.first().copied().unwrap_or(0);
                return Err(Failure {
                    text: format!("the connection was closed: {}", text(reason)),
                    reason: Some(reason),
                });
            }
            kind => return Err(unexpected(kind)),
        }
    }
    Ok(())
}

/// The header of the next packet, once all of it is there.
fn header(input: &BytesMut) -> Result<Option<frame::Header>, Failure> {
    let header = frame::header(input, LARGEST).map_err(|error| Failure::new(error.to_string()))?;
    Ok(header.filter(|header| input.len() >= header.total))
}

fn unexpected(kind: u8) -> Failure {
    Failure::new(format!("the broker sent a packet of type {kind}"))
}

fn broken(error: std::io::Error) -> Failure {
    Failure::new(format!("the connection broke: {error}"))
}
