//! The bytes of one MQTT 5 connection: reaches the broker, says CONNECT, then writes what it is told
//! and tells what comes, both at once, until one side ends it. rumqttc's codec reads and writes the
//! packets; host, port and the name that is asked for in the TLS handshake are ours to choose.

use std::{io, time::Duration};

use bytes::{Buf, Bytes, BytesMut};
use rumqttc::v5::mqttbytes::{
    self, QoS,
    v5::{
        ConnAck, Connect, ConnectProperties, ConnectReturnCode, Disconnect, DisconnectReasonCode,
        Filter, LastWill, Login, Packet, PingReq, PubAck, Publish, Subscribe,
    },
};
use thinglog_schemas::batch::MAX_PAYLOAD;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf},
    net::TcpStream,
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};

use super::link::{Cause, Endpoint, LinkEvent, PACKET_IDS};

/// Largest packet taken from the broker, bytes.
const MAX_PACKET: u32 = MAX_PAYLOAD as u32 + (64 << 10);
/// After so long without a packet from us there is a PINGREQ, and after so long again without a byte
/// from the broker an end. The broker may ask for less (MQTT 5 section 3.2.2.3.14).
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Reaching the broker, TLS and CONNACK take so long at most, each.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// So much waits to be written before nothing more is taken to be.
const UNWRITTEN: usize = 64 << 10;
/// So much before nothing more is read either: what the broker sends asks for answers.
const UNANSWERED: usize = 2 * MAX_PACKET as usize;

/// What the worker wants written.
#[derive(Debug)]
pub(super) enum Order {
    /// At QoS 1.
    Publish {
        topic: String,
        retain: bool,
        payload: Bytes,
    },
    /// At QoS 1.
    Subscribe(String),
    Disconnect,
}

/// Why there is no connection (any more).
pub(super) struct End(Cause, String);

impl End {
    fn other(reason: impl ToString) -> End {
        End(Cause::Other, reason.to_string())
    }
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> End {
        End::other(error)
    }
}

impl From<mqttbytes::Error> for End {
    fn from(error: mqttbytes::Error) -> End {
        End::other(format!("the broker sent what is no MQTT: {error}"))
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Runs a connection from its first byte to its end. The last event is `Down`.
pub(super) async fn drive(
    endpoint: Endpoint,
    orders: mpsc::Receiver<Order>,
    events: mpsc::Sender<LinkEvent>,
) {
    let opened = match reach(&endpoint).await {
        Ok(stream) => Wire::open(stream, &endpoint, &events).await,
        Err(end) => Err(end),
    };
    let End(cause, reason) = match opened {
        Ok(mut wire) => wire.serve(orders, &events).await,
        Err(end) => end,
    };
    // Fails when nobody wants to know.
    let _ = events.send(LinkEvent::Down(cause, reason)).await;
}

struct Wire {
    reader: ReadHalf<Box<dyn Stream>>,
    writer: WriteHalf<Box<dyn Stream>>,
    input: BytesMut,
    output: BytesMut,
    /// Not all that was written has left the stream's own buffers.
    unflushed: bool,
    last_pkid: u16,
    keep_alive: Duration,
    /// The next PINGREQ, or when its answer is overdue.
    ping_at: Instant,
    pinged: bool,
}

impl Wire {
    /// A connection that the broker has accepted.
    async fn open(
        stream: Box<dyn Stream>,
        endpoint: &Endpoint,
        events: &mpsc::Sender<LinkEvent>,
    ) -> Result<Wire, End> {
        let (reader, writer) = tokio::io::split(stream);
        let mut wire = Wire {
            reader,
            writer,
            input: BytesMut::new(),
            output: BytesMut::new(),
            unflushed: false,
            last_pkid: 0,
            keep_alive: KEEP_ALIVE,
            ping_at: Instant::now() + KEEP_ALIVE,
            pinged: false,
        };
        connect(endpoint).write(&mut wire.output, None)?;
        let accepted = within(CONNECT_WITHIN, wire.accepted()).await?;
        let properties = accepted.properties.as_ref();
        let receive_max = properties.and_then(|p| p.receive_max);
        let max_packet = properties.and_then(|p| p.max_packet_size);
        if let Some(seconds @ 1..) = properties.and_then(|p| p.server_keep_alive) {
            wire.keep_alive = KEEP_ALIVE.min(Duration::from_secs(seconds.into()));
        }
        wire.ping_at = Instant::now() + wire.keep_alive;
        let connected = LinkEvent::Connected {
            receive_max: receive_max.unwrap_or(u16::MAX).min(PACKET_IDS),
            max_packet: max_packet.unwrap_or(u32::MAX),
        };
        let _ = events.send(connected).await;
        Ok(wire)
    }

    async fn accepted(&mut self) -> Result<ConnAck, End> {
        self.writer.write_all_buf(&mut self.output).await?;
        self.writer.flush().await?;
        loop {
            match self.packet()? {
                Some(Packet::ConnAck(ack)) if ack.code == ConnectReturnCode::Success => {
                    return Ok(ack);
                }
                Some(Packet::ConnAck(ack)) => {
                    let reason = format!("the broker refused: {:?}", ack.code);
                    return Err(End(judge(ack.code), reason));
                }
                Some(_) => return Err(End::other("the broker's first packet is no CONNACK")),
                None => read(&mut self.reader, &mut self.input).await?,
            }
        }
    }

    /// Reading and writing wait for each other as little as the two directions do.
    async fn serve(
        &mut self,
        mut orders: mpsc::Receiver<Order>,
        events: &mpsc::Sender<LinkEvent>,
    ) -> End {
        loop {
            let step = tokio::select! {
                done = read(&mut self.reader, &mut self.input), if self.output.len() < UNANSWERED => {
                    self.heard();
                    done.map_err(End::from)
                }
                done = write(&mut self.writer, &mut self.output, &mut self.unflushed),
                    if self.output.has_remaining() || self.unflushed => done.map_err(End::from),
                order = orders.recv(), if self.output.len() < UNWRITTEN => match order {
                    Some(Order::Disconnect) | None => return self.leave().await,
                    Some(order) => self.take(order, events).await,
                },
                () = sleep_until(self.ping_at) => self.ping(),
            };
            let step = match step {
                Ok(()) => self.tell(events).await,
                end => end,
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    async fn take(&mut self, order: Order, events: &mpsc::Sender<LinkEvent>) -> Result<(), End> {
        let pkid = self.last_pkid.checked_add(1).unwrap_or(1);
        self.last_pkid = pkid;
        match order {
            Order::Publish {
                topic,
                retain,
                payload,
            } => {
                let mut publish = Publish::new(topic, QoS::AtLeastOnce, payload, None);
                (publish.pkid, publish.retain) = (pkid, retain);
                publish.write(&mut self.output)?;
                let _ = events.send(LinkEvent::Assigned(pkid)).await;
            }
            Order::Subscribe(filter) => {
                let mut subscribe = Subscribe::new(Filter::new(filter, QoS::AtLeastOnce), None);
                subscribe.pkid = pkid;
                subscribe.write(&mut self.output)?;
            }
            Order::Disconnect => {}
        }
        if !self.pinged {
            self.ping_at = Instant::now() + self.keep_alive;
        }
        Ok(())
    }

    /// Tells of every packet that is complete.
    async fn tell(&mut self, events: &mpsc::Sender<LinkEvent>) -> Result<(), End> {
        while let Some(packet) = self.packet()? {
            if let Packet::Publish(publish) = &packet
                && publish.qos == QoS::AtLeastOnce
            {
                PubAck::new(publish.pkid, None).write(&mut self.output)?;
            }
            if let Packet::Disconnect(disconnect) = &packet {
                let reason = disconnect.reason_code;
                return Err(End::other(format!("the broker disconnected: {reason:?}")));
            }
            if let Some(event) = LinkEvent::of(packet) {
                let _ = events.send(event).await;
            }
        }
        Ok(())
    }

    /// Whatever comes shows that the broker lives, also a part of a packet that takes long.
    fn heard(&mut self) {
        if std::mem::take(&mut self.pinged) {
            self.ping_at = Instant::now() + self.keep_alive;
        }
    }

    /// The next packet when all of it is there.
    fn packet(&mut self) -> Result<Option<Packet>, End> {
        match Packet::read(&mut self.input, Some(MAX_PACKET)) {
            Ok(packet) => Ok(Some(packet)),
            Err(mqttbytes::Error::InsufficientBytes(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn ping(&mut self) -> Result<(), End> {
        if std::mem::replace(&mut self.pinged, true) {
            return Err(End::other("the broker does not answer any more"));
        }
        PingReq::write(&mut self.output)?;
        self.ping_at = Instant::now() + self.keep_alive;
        Ok(())
    }

    /// Everything that was to be written, and DISCONNECT.
    async fn leave(&mut self) -> End {
        let goodbye = Disconnect::new(DisconnectReasonCode::NormalDisconnection);
        if goodbye.write(&mut self.output).is_ok() {
            let written = async {
                self.writer.write_all_buf(&mut self.output).await?;
                self.writer.shutdown().await
            };
            let _ = timeout(CONNECT_WITHIN, written).await;
        }
        End::other("disconnected")
    }
}

async fn read(reader: &mut ReadHalf<Box<dyn Stream>>, input: &mut BytesMut) -> io::Result<()> {
    match reader.read_buf(input).await? {
        0 => Err(io::Error::new(
            io::ErrorKind::ConnectionAborted,
            "the broker closed the connection",
        )),
        _ => Ok(()),
    }
}

/// Writes a part. Dropping the future loses nothing: what was taken and not flushed is `unflushed`.
async fn write(
    writer: &mut WriteHalf<Box<dyn Stream>>,
    output: &mut BytesMut,
    unflushed: &mut bool,
) -> io::Result<()> {
    if output.has_remaining() {
        *unflushed = true;
        if writer.write_buf(output).await? == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
    }
    if !output.has_remaining() {
        writer.flush().await?;
        *unflushed = false;
    }
    Ok(())
}

/// A stream to the broker, encrypted if it is to be.
async fn reach(endpoint: &Endpoint) -> Result<Box<dyn Stream>, End> {
    let Endpoint { host, port, .. } = endpoint;
    let tcp = within(CONNECT_WITHIN, async {
        Ok(TcpStream::connect((host.as_str(), *port)).await?)
    });
    let tcp = tcp.await?;
    tcp.set_nodelay(true)?;
    let Some(config) = &endpoint.proof.tls else {
        return Ok(Box::new(tcp));
    };
    let fail = |error: &dyn std::fmt::Display| End(Cause::Tls, error.to_string());
    let name = ServerName::try_from(endpoint.server_name.clone()).map_err(|error| fail(&error))?;
    let connector = TlsConnector::from(config.clone());
    let tls = within(CONNECT_WITHIN, async {
        let connected = connector.connect(name, tcp).await;
        connected.map_err(|error| fail(&error))
    });
    Ok(Box::new(tls.await?))
}

async fn within<T>(
    patience: Duration,
    work: impl Future<Output = Result<T, End>>,
) -> Result<T, End> {
    let done = timeout(patience, work).await;
    done.unwrap_or_else(|_| Err(End::other("the broker did not answer in time")))
}

fn connect(endpoint: &Endpoint) -> Packet {
    let mut properties = ConnectProperties::new();
    properties.max_packet_size = Some(MAX_PACKET);
    let connect = Connect {
        keep_alive: KEEP_ALIVE.as_secs() as u16,
        client_id: endpoint.client_id.clone(),
        clean_start: true,
        properties: Some(properties),
    };
    let will = endpoint.will.clone();
    let will =
        will.map(|(topic, payload)| LastWill::new(topic, payload, QoS::AtLeastOnce, true, None));
    let user = endpoint.proof.user.as_ref();
    let login = user.map(|(user, password)| Login::new(user.clone(), password.0.clone()));
    Packet::Connect(connect, will, login)
}

fn judge(code: ConnectReturnCode) -> Cause {
    match code {
        ConnectReturnCode::BadUserNamePassword
        | ConnectReturnCode::NotAuthorized
        | ConnectReturnCode::ClientIdentifierNotValid
        | ConnectReturnCode::Banned
        | ConnectReturnCode::BadAuthenticationMethod => Cause::Login,
        _ => Cause::Other,
    }
}

#[cfg(test)]
mod tests;
