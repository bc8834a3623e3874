//! A broker for tests: MQTT 5 over rumqttc's codec, as much as a publisher needs, and disobedient on
//! request. Waiting is on conditions, with a limit that only a failure reaches.

#![allow(dead_code, clippy::unwrap_used)]

pub(crate) mod journal;
pub(crate) mod syslog;

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use parking_lot::{Condvar, Mutex};
use rumqttc::v5::mqttbytes::{
    QoS,
    v5::{
        ConnAck, ConnAckProperties, ConnectReturnCode, Packet, PingResp, PubAck, PubAckReason,
        Publish, SubAck, SubscribeReasonCode,
    },
};
use thinglog_schemas::{
    batch::{Batch, Decoder, Entry},
    config::Reported,
    request::Response,
};

/// Nothing in these tests takes so long.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Waits for what nobody tells of.
pub(crate) fn until(mut condition: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + LIMIT;
    while !condition() {
        assert!(std::time::Instant::now() < deadline, "waited in vain");
        thread::yield_now();
    }
}

/// A runtime on this thread.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

/// What becomes of a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Acknowledge,
    Silence,
    Refuse(PubAckReason),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) connection: usize,
    pub(crate) topic: String,
    pub(crate) payload: Bytes,
    pub(crate) retain: bool,
    pub(crate) acknowledged: bool,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) received: Vec<Received>,
    pub(crate) connects: Vec<String>,
    pub(crate) wills: Vec<Bytes>,
    /// The most publishes of one connection that were unanswered at once.
    pub(crate) most_outstanding: usize,
    answers: Vec<Answer>,
    otherwise: Option<Answer>,
    /// What becomes of the reports.
    refuse_reports: Option<PubAckReason>,
    desired: Option<Vec<u8>>,
    streams: Vec<Option<(TcpStream, Vec<String>)>>,
    limits: Option<ConnAckProperties>,
    closed: bool,
}

pub(crate) struct Broker {
    pub(crate) address: SocketAddr,
    shared: Arc<(Mutex<State>, Condvar)>,
}

impl Broker {
    pub(crate) fn start() -> Broker {
        Broker::on(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    /// A port where nobody listens yet.
    pub(crate) fn reserve() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    }

    pub(crate) fn at(address: SocketAddr) -> Broker {
        Broker::on(TcpListener::bind(address).unwrap())
    }

    fn on(listener: TcpListener) -> Broker {
        let address = listener.local_addr().unwrap();
        let shared = Arc::new((Mutex::new(State::default()), Condvar::new()));
        let theirs = shared.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                if theirs.0.lock().closed {
                    return;
                }
                let theirs = theirs.clone();
                thread::spawn(move || serve(stream, &theirs));
            }
        });
        Broker { address, shared }
    }

    /// From now on, these answers in turn, and then `otherwise`.
    pub(crate) fn answer(&self, answers: &[Answer], otherwise: Answer) {
        let mut state = self.shared.0.lock();
        state.answers = answers.iter().rev().copied().collect();
        state.otherwise = Some(otherwise);
    }

    /// From now on reports are refused.
    pub(crate) fn refuse_reports(&self, reason: PubAckReason) {
        self.shared.0.lock().refuse_reports = Some(reason);
    }

    /// Limits for connections to come.
    pub(crate) fn limit(&self, receive_max: Option<u16>, max_packet_size: Option<u32>) {
        let mut limits = no_properties();
        limits.receive_max = receive_max;
        limits.max_packet_size = max_packet_size;
        self.shared.0.lock().limits = Some(limits);
    }

    /// Retains a configuration and tells those who are subscribed.
    pub(crate) fn desire(&self, json: &str) {
        let mut state = self.shared.0.lock();
        state.desired = (!json.is_empty()).then(|| json.as_bytes().to_vec());
        for (stream, topics) in state.streams.iter_mut().flatten() {
            for topic in topics.iter().filter(|topic| topic.contains("/desired/")) {
                send_desired(stream, topic, json.as_bytes(), false);
            }
        }
    }

    /// Sends a request to whoever is subscribed to requests, once somebody is.
    pub(crate) fn request(&self, json: &str) {
        self.wait(|state| state.asked_for_requests().then_some(()));
        let mut state = self.shared.0.lock();
        for (stream, topics) in state.streams.iter_mut().flatten() {
            for topic in topics.iter().filter(|topic| topic.contains("/request/")) {
                let payload = json.as_bytes().to_vec();
                let mut publish = Publish::new(topic, QoS::AtLeastOnce, payload, None);
                publish.pkid = 1;
                send(stream, &Packet::Publish(publish));
            }
        }
    }

    pub(crate) fn drop_connections(&self) {
        for (stream, _) in self.shared.0.lock().streams.iter().flatten() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Waits until `condition` holds of what the broker has seen.
    pub(crate) fn wait<T>(&self, mut condition: impl FnMut(&State) -> Option<T>) -> T {
        let mut state = self.shared.0.lock();
        let deadline = std::time::Instant::now() + LIMIT;
        loop {
            if let Some(found) = condition(&state) {
                return found;
            }
            let late = self.shared.1.wait_until(&mut state, deadline).timed_out();
            let sizes = state.received.iter().map(|r| (&*r.topic, r.payload.len()));
            assert!(
                !late,
                "the broker waited in vain; it has {:?}",
                sizes.collect::<Vec<_>>()
            );
        }
    }

    pub(crate) fn state<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.shared.0.lock())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.shared.0.lock().closed = true;
        self.drop_connections();
        // Wakes the listener.
        let _ = TcpStream::connect(self.address);
    }
}

impl State {
    /// The payloads of log topics as they came, with their source.
    pub(crate) fn batches(&self) -> Vec<(String, Batch)> {
        let logs = self.received.iter().filter(|r| r.topic.contains("/logs/"));
        logs.map(decode).collect()
    }

    /// The same without repetitions, acknowledged ones only.
    pub(crate) fn acknowledged(&self) -> Vec<(String, Batch)> {
        let mut seen = std::collections::HashSet::new();
        let logs = self.received.iter().filter(|r| r.topic.contains("/logs/"));
        logs.filter(|r| r.acknowledged && seen.insert(r.payload.clone()))
            .map(decode)
            .collect()
    }

    /// All events that were acknowledged, in the order they came.
    pub(crate) fn events(&self) -> Vec<(String, Entry)> {
        let batches = self.acknowledged().into_iter();
        batches
            .flat_map(|(source, batch)| batch.entries.into_iter().map(move |e| (source.clone(), e)))
            .collect()
    }

    pub(crate) fn messages(&self) -> Vec<String> {
        let events = self.events().into_iter();
        events.map(|(_, entry)| entry.message).collect()
    }

    fn asked_for_requests(&self) -> bool {
        let mut topics = self.streams.iter().flatten().flat_map(|(_, topics)| topics);
        topics.any(|topic| topic.contains("/request/"))
    }

    /// What was answered to the request of this id, as it came.
    pub(crate) fn responses(&self, id: &str) -> Vec<Response> {
        let topic = format!("/{id}");
        let received = self.received.iter();
        received
            .filter(|r| r.topic.contains("/response/") && r.topic.ends_with(&topic))
            .map(|r| serde_json::from_slice(&r.payload).unwrap())
            .collect()
    }

    /// The last `reported/…`.
    pub(crate) fn reported(&self) -> Option<Reported> {
        let mut received = self.received.iter().rev();
        let last = received.find(|r| r.topic.contains("/reported/"))?;
        assert!(last.retain);
        serde_json::from_slice(&last.payload).ok()
    }
}

fn decode(received: &Received) -> (String, Batch) {
    let source = received.topic.rsplit('/').next().unwrap().to_owned();
    (source, Decoder::new().decode(&received.payload).unwrap())
}

fn serve(mut stream: TcpStream, shared: &(Mutex<State>, Condvar)) {
    let connection = {
        let mut state = shared.0.lock();
        state
            .streams
            .push(Some((stream.try_clone().unwrap(), Vec::new())));
        state.streams.len() - 1
    };
    let mut buffer = BytesMut::new();
    let mut chunk = vec![0; 64 << 10];
    let mut outstanding = 0;
    while let Ok(read @ 1..) = stream.read(&mut chunk) {
        buffer.extend_from_slice(&chunk[..read]);
        let mut state = shared.0.lock();
        while let Ok(packet) = Packet::read(&mut buffer, Some(4 << 20)) {
            let end = handle(
                &mut state,
                connection,
                &mut stream,
                packet,
                &mut outstanding,
            );
            state.most_outstanding = state.most_outstanding.max(outstanding);
            if end {
                break;
            }
        }
        shared.1.notify_all();
    }
    shared.0.lock().streams[connection] = None;
}

fn handle(
    state: &mut State,
    connection: usize,
    stream: &mut TcpStream,
    packet: Packet,
    outstanding: &mut usize,
) -> bool {
    match packet {
        Packet::Connect(connect, will, _) => {
            state.connects.push(connect.client_id);
            state.wills.extend(will.map(|will| will.message));
            let connack = ConnAck {
                session_present: false,
                code: ConnectReturnCode::Success,
                properties: state.limits.clone(),
            };
            send(stream, &Packet::ConnAck(connack));
        }
        Packet::Subscribe(subscribe) => {
            let topic = subscribe.filters[0].path.clone();
            let ack = SubAck {
                pkid: subscribe.pkid,
                return_codes: vec![SubscribeReasonCode::Success(QoS::AtLeastOnce)],
                properties: None,
            };
            send(stream, &Packet::SubAck(ack));
            if let Some(desired) = &state.desired
                && topic.contains("/desired/")
            {
                send_desired(stream, &topic, desired, true);
            }
            if let Some((_, subscribed)) = &mut state.streams[connection] {
                subscribed.push(topic);
            }
        }
        Packet::Publish(publish) => {
            *outstanding += 1;
            let is_log = publish.topic.windows(6).any(|part| part == b"/logs/");
            let answer = match is_log {
                true => state
                    .answers
                    .pop()
                    .or(state.otherwise)
                    .unwrap_or(Answer::Acknowledge),
                false => state
                    .refuse_reports
                    .filter(|_| publish.topic.windows(10).any(|part| part == b"/reported/"))
                    .map_or(Answer::Acknowledge, Answer::Refuse),
            };
            state.received.push(Received {
                connection,
                topic: String::from_utf8(publish.topic.to_vec()).unwrap(),
                payload: publish.payload,
                retain: publish.retain,
                acknowledged: answer == Answer::Acknowledge,
            });
            let mut ack = PubAck::new(publish.pkid, None);
            match answer {
                Answer::Silence => return false,
                Answer::Refuse(reason) => ack.reason = reason,
                Answer::Acknowledge => {}
            }
            *outstanding -= 1;
            send(stream, &Packet::PubAck(ack));
        }
        Packet::PingReq(_) => send(stream, &Packet::PingResp(PingResp)),
        Packet::Disconnect(_) => {
            let _ = stream.shutdown(Shutdown::Both);
            return true;
        }
        _ => {}
    }
    false
}

fn send_desired(stream: &mut TcpStream, topic: &str, payload: &[u8], retain: bool) {
    let mut publish = Publish::new(topic, QoS::AtMostOnce, payload.to_vec(), None);
    publish.retain = retain;
    send(stream, &Packet::Publish(publish));
}

fn send(stream: &mut TcpStream, packet: &Packet) {
    let mut out = BytesMut::new();
    packet.write(&mut out, None).unwrap();
    let _ = stream.write_all(&out);
}

fn no_properties() -> ConnAckProperties {
    ConnAckProperties {
        session_expiry_interval: None,
        receive_max: None,
        max_qos: None,
        retain_available: None,
        max_packet_size: None,
        assigned_client_identifier: None,
        topic_alias_max: None,
        reason_string: None,
        user_properties: Vec::new(),
        wildcard_subscription_available: None,
        subscription_identifiers_available: None,
        shared_subscription_available: None,
        server_keep_alive: None,
        response_information: None,
        server_reference: None,
        authentication_method: None,
        authentication_data: None,
    }
}

/// Whether a program is installed; without it a test is skipped and says so, and with CI=true fails.
pub(crate) fn have(program: &str, debian: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = std::env::split_paths(&path);
    // Daemons are not on everybody's path.
    let found = folders.any(|folder| folder.join(program).is_file())
        || std::path::Path::new("/usr/sbin").join(program).is_file();
    let ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
    assert!(found || !ci, "no {program} (Debian: {debian})");
    if !found {
        eprintln!("SKIPPED: no {program} (Debian: {debian})");
    }
    found
}
