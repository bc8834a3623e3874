//! Plain MQTT publishers: one JSON event a PUBLISH at QoS 1, MQTT 3.1.1, many connections from one
//! thread, as light as can be so that the machine is left to what is measured.

use std::{io::Write as _, net::SocketAddr};

use anyhow::{Context, bail};
use bytes::{Buf, BufMut, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

use super::input::Input;

/// How the load is spread.
#[derive(Clone)]
pub(super) struct Plan {
    pub(super) broker: SocketAddr,
    pub(super) connections: u64,
    pub(super) inflight: u16,
    pub(super) events: u64,
    pub(super) input: Input,
}

impl Plan {
    /// Events of one of the publishers, so that all together publish `events`.
    pub(super) fn share(&self, publisher: u64) -> u64 {
        self.events / self.connections + u64::from(publisher < self.events % self.connections)
    }
}

/// Publishes everything and returns when all of it is acknowledged; gives the bytes sent.
pub(super) async fn publish(plan: &Plan) -> anyhow::Result<u64> {
    let mut tasks = JoinSet::new();
    for publisher in 0..plan.connections {
        let plan = plan.clone();
        tasks.spawn(async move {
            let sent = publish_one(&plan, publisher).await;
            sent.with_context(|| format!("publisher {publisher}"))
        });
    }
    let mut wire_bytes = 0;
    while let Some(done) = tasks.join_next().await {
        wire_bytes += done??;
    }
    Ok(wire_bytes)
}

async fn publish_one(plan: &Plan, publisher: u64) -> anyhow::Result<u64> {
    let mut stream = TcpStream::connect(plan.broker).await?;
    stream.set_nodelay(true)?;
    stream
        .write_all(&connect_packet(&format!("bench-json-{publisher}")))
        .await?;
    let mut input = BytesMut::with_capacity(16 << 10);
    while input.len() < 4 {
        if stream.read_buf(&mut input).await? == 0 {
            bail!("the broker closed the connection before CONNACK");
        }
    }
    if input[..4] != [0x20, 2, 0, 0] {
        bail!(
            "the broker refused the connection (CONNACK {:02x?})",
            &input[..4]
        );
    }
    input.advance(4);
    let topic = format!("thinglog/logs/bench-{publisher:03}/app");
    let (count, mut sent, mut acknowledged, mut wire) = (plan.share(publisher), 0u64, 0u64, 0u64);
    let mut output = BytesMut::with_capacity(64 << 10);
    let mut payload = Vec::with_capacity(256);
    while acknowledged < count {
        while sent < count && sent - acknowledged < u64::from(plan.inflight) {
            write_event(plan.input.line(publisher * 7919 + sent), sent, &mut payload)?;
            put_publish(&topic, (sent % 65_535 + 1) as u16, &payload, &mut output);
            sent += 1;
        }
        wire += output.len() as u64;
        stream.write_all(&output).await?;
        output.clear();
        if stream.read_buf(&mut input).await? == 0 {
            bail!("the broker closed the connection after {acknowledged} acknowledgements");
        }
        while input.len() >= 4 {
            if input[..2] != [0x40, 2] {
                bail!("expected PUBACK, got {:02x?}", &input[..4]);
            }
            input.advance(4);
            acknowledged += 1;
        }
    }
    stream.write_all(&[0xE0, 0]).await?;
    Ok(wire)
}

/// The event as JSON; `n` numbers the events of one publisher, so that loss and repetition show.
fn write_event(line: &str, n: u64, payload: &mut Vec<u8>) -> anyhow::Result<()> {
    payload.clear();
    payload.extend_from_slice(br#"{"level":"info","message":"#);
    serde_json::to_writer(&mut *payload, line)?;
    write!(payload, r#","n":{n}}}"#)?;
    Ok(())
}

fn connect_packet(client_id: &str) -> Vec<u8> {
    let mut packet = vec![0x10, (12 + client_id.len()) as u8, 0, 4];
    packet.extend_from_slice(b"MQTT\x04\x02\x00\x3c");
    packet.extend_from_slice(&(client_id.len() as u16).to_be_bytes());
    packet.extend_from_slice(client_id.as_bytes());
    packet
}

fn put_publish(topic: &str, pkid: u16, payload: &[u8], out: &mut BytesMut) {
    let mut remaining = 2 + topic.len() + 2 + payload.len();
    out.put_u8(0x32);
    loop {
        let byte = (remaining & 0x7F) as u8;
        remaining >>= 7;
        out.put_u8(if remaining > 0 { byte | 0x80 } else { byte });
        if remaining == 0 {
            break;
        }
    }
    out.put_u16(topic.len() as u16);
    out.put_slice(topic.as_bytes());
    out.put_u16(pkid);
    out.put_slice(payload);
}
