//! The first packet of a client: read, judged, and answered with a session or a reason.

use std::{sync::Arc, time::Duration};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

use super::{GOODBYE, read_some};
use crate::{
    access::{Credentials, Login},
    client::{Client, TOPIC_ALIASES},
    codec::{self, CodecError, ConnAck, Connect, Reason, Version, Will, kind},
    hub::{Hub, Settled, Wait},
    peer::Peer,
    session::ConnectionId,
};

/// A will of so many bytes is taken even when all wills together take too much.
const SMALL_WILL: usize = 1 << 10;

/// Reads the first packet; `Err(None)` when the peer left without a word.
pub(super) async fn read_connect(
    hub: &Hub,
    reader: &mut (impl AsyncRead + Unpin),
    input: &mut BytesMut,
) -> Result<Connect, Option<(Version, CodecError)>> {
    loop {
        let limits = &hub.config.limits;
        match codec::frame(input, limits.connect_bytes.min(limits.packet_bytes)) {
            Ok(Some(frame)) if frame.kind == kind::CONNECT => {
                let version = codec::connect_version(&input[frame.header..frame.total])?;
                let connect = codec::read_connect(version, &frame, input)
                    .map_err(|error| (version, error))?;
                input.advance(frame.total);
                return Ok(connect);
            }
            Ok(Some(_)) => {
                return Err(Some((
                    Version::V311,
                    CodecError::protocol("the first packet is not CONNECT"),
                )));
            }
            Err(error) => return Err(Some((Version::V311, error))),
            Ok(None) => {}
        }
        if !input.is_empty() && input[0] >> 4 != kind::CONNECT {
            return Err(Some((
                Version::V311,
                CodecError::protocol("the first packet is not CONNECT"),
            )));
        }
        match read_some(reader, input).await {
            Ok(0) | Err(_) => return Err(None),
            Ok(_) => {}
        }
    }
}

/// Refuses a connection. A client of 3.1.1 whose CONNECT cannot be read is told nothing (MQTT 3.1.1
/// section 3.1.4), nor is who may not speak MQTT at all.
pub(super) async fn refuse(
    writer: &mut (impl AsyncWrite + Unpin),
    version: Version,
    error: CodecError,
    max_packet: usize,
) {
    let mut out = BytesMut::new();
    codec::write_refusal(version, error.reason, error.text, max_packet, &mut out);
    let _ = timeout(GOODBYE, writer.write_all_buf(&mut out)).await;
    let _ = timeout(GOODBYE, writer.shutdown()).await;
}

/// Refuses what no client may ask for, whoever it is.
pub(super) fn check(hub: &Hub, connect: &Connect) -> Result<(), CodecError> {
    if connect.enhanced_auth {
        return Err(CodecError::new(
            Reason::BadAuthenticationMethod,
            "enhanced authentication is not offered",
        ));
    }
    if connect.client_id.is_empty() && connect.version == Version::V311 && !connect.clean_start {
        return Err(CodecError::new(
            Reason::ClientIdInvalid,
            "an empty client id needs a clean session",
        ));
    }
    if connect.client_id.len() > 1024 || connect.client_id.chars().any(char::is_control) {
        return Err(CodecError::new(
            Reason::ClientIdInvalid,
            "client id is longer than 1024 bytes or holds control characters",
        ));
    }
    connect
        .will
        .as_ref()
        .map_or(Ok(()), |will| check_will(hub, will))
}

/// Finds out who the client is.
pub(super) async fn log_in(
    hub: &Hub,
    connect: &Connect,
    peer: &Peer,
    patience: Duration,
) -> Result<Login, CodecError> {
    let shown = Credentials {
        username: connect.username.as_deref(),
        password: connect.password.as_deref(),
        certificate: peer.certificate.as_deref(),
    };
    let login = timeout(patience, hub.access.login(shown, peer.address)).await;
    let login = login.unwrap_or_else(|_elapsed| {
        let text = "too many logins at once";
        Err(CodecError::new(Reason::ServerBusy, text))
    });
    if hub.access.is_on() {
        hub.telemetry.login(login.is_ok());
    }
    login
}

/// Gives the client its session, or the reason why not.
pub(super) fn admit(
    hub: &Arc<Hub>,
    connect: &Connect,
    peer: &Peer,
    connection: ConnectionId,
    login: Login,
) -> Result<(Client, ConnAck, Wait), CodecError> {
    let assigned: Option<Arc<str>> = connect
        .client_id
        .is_empty()
        .then(|| login.assign_client_id(random_id()).into());
    let client_id = assigned
        .clone()
        .unwrap_or_else(|| connect.client_id.as_str().into());
    login.check_client_id(&client_id)?;
    let pass = hub.access.pass(login, client_id.clone());
    if let Some(will) = &connect.will
        && !pass.may_write(&will.topic)
    {
        return Err(CodecError::new(
            Reason::NotAuthorized,
            "not allowed to publish the will",
        ));
    }
    let mut ack = connack(hub, connect, assigned);
    if connect.version == Version::V5 {
        let mut packet = BytesMut::new();
        codec::write_connack(connect.version, &ack, &mut packet);
        if packet.len() > connect.max_packet {
            return Err(CodecError::new(
                Reason::PacketTooLarge,
                "Maximum Packet Size leaves no room for CONNACK",
            ));
        }
    }
    let attached = hub
        .attach(connect, &client_id, connection, &pass)
        .map_err(|(reason, text)| CodecError::new(reason, text))?;
    ack.session_present = attached.present;
    let until = attached.until;
    let client = Client::new(
        hub.clone(),
        attached,
        connection,
        connect,
        (peer.clone(), pass),
    );
    Ok((client, ack, until))
}

/// What the client is told of the broker; the session is not known yet.
fn connack(hub: &Hub, connect: &Connect, assigned: Option<Arc<str>>) -> ConnAck {
    let limits = &hub.config.limits;
    let expiry = connect.expiry.min(limits.session_seconds);
    let longest = limits.keep_alive_seconds;
    let is_longer = connect.keep_alive == 0 || connect.keep_alive > longest;
    let client_id = assigned.as_deref().unwrap_or(&connect.client_id);
    // Its own place for responses; a client id that is no part of a topic name has none.
    let has_place = connect.request_response_information && !client_id.contains(['+', '#']);
    ConnAck {
        session_present: false,
        expiry: (expiry != connect.expiry).then_some(expiry),
        keep_alive: (longest > 0 && is_longer && connect.version == Version::V5).then_some(longest),
        receive_maximum: limits.receive_maximum,
        max_packet: limits.packet_bytes,
        topic_alias_max: TOPIC_ALIASES,
        response_information: has_place
            .then(|| format!("{}/response/{client_id}", hub.config.root)),
        assigned_client_id: assigned,
    }
}

/// Waits until the disk has what CONNACK tells of; false when it will not have it.
pub(super) async fn is_stored(hub: &Hub, until: &Wait) -> bool {
    let mut state = hub.state.settled();
    // Not by the watch's own `wait_for`, which holds its lock while it asks: what is asked here takes
    // that lock again, and a writer between the two would wait for ever.
    loop {
        state.mark_unchanged();
        match hub.settled(until) {
            Settled::Pending if state.changed().await.is_err() => return false,
            Settled::Pending => {}
            decided => return decided == Settled::Stored,
        }
    }
}

fn check_will(hub: &Hub, will: &Will) -> Result<(), CodecError> {
    let limits = &hub.config.limits;
    if will.payload.len() > limits.will_bytes {
        return Err(CodecError::new(
            Reason::QuotaExceeded,
            "the will is larger than the broker takes",
        ));
    }
    if will.topic.len() > limits.topic_bytes {
        return Err(CodecError::new(
            Reason::TopicNameInvalid,
            "topic longer than the broker takes",
        ));
    }
    if will.weight() > SMALL_WILL && hub.wills.bytes() > limits.wills_bytes {
        return Err(CodecError::new(
            Reason::QuotaExceeded,
            "no room for the will",
        ));
    }
    if let Some(text) = hub.access.own.refuses(&will.topic) {
        return Err(CodecError::new(Reason::NotAuthorized, text));
    }
    if will.retain && hub.durable.contains(&will.topic) {
        return Err(CodecError::new(
            Reason::RetainNotSupported,
            "a retained will on a durable topic",
        ));
    }
    Ok(())
}

fn random_id() -> String {
    let mut bytes = [0u8; 12];
    // Without randomness the id still only has to differ from those in use.
    if getrandom::fill(&mut bytes).is_err() {
        bytes[..8].copy_from_slice(&crate::clock::now().to_be_bytes());
    }
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("auto-{hex}")
}
