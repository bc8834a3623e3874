//! A Kafka broker that checks what a real one checks of an idempotent producer (the protocol guide,
//! "Record Batch", and KIP-98): version and CRC of a batch, `acks`, producer and epoch, the order of
//! sequence numbers, and the last five batches of each producer. It keeps all in memory, and what it is
//! told to fail fails as it would there.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, PartitionProduceResponse, TopicProduceResponse,
};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsResponse, InitProducerIdResponse, MetadataRequest, MetadataResponse,
    ProduceRequest, ProduceResponse, RequestHeader, ResponseHeader, SaslAuthenticateRequest,
    SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes, decode_request_header_from_buffer};
use kafka_protocol::records::{Compression, Record, RecordBatchDecoder};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::common::free_port;
use crate::harness::{Fault, Got, Request};
use crate::kafka_login::Session;

/// Of each topic; topics are there as soon as somebody asks for them.
pub(crate) const PARTITIONS: i32 = 3;
/// Batches of a producer that are recognised.
const REMEMBERED: usize = 5;

pub(crate) struct Broker {
    pub(crate) address: SocketAddr,
    pub(crate) state: Arc<Mutex<State>>,
    tls: Option<TlsAcceptor>,
    task: Option<JoinHandle<()>>,
}

/// What the broker has, and how it is to behave.
pub(crate) struct State {
    pub(crate) got: Vec<Got>,
    pub(crate) records: Vec<(String, Record)>,
    pub(crate) requests: Vec<Request>,
    pub(crate) violations: Vec<String>,
    pub(crate) faults: VecDeque<Fault>,
    pub(crate) poison: bool,
    /// Whom it lets in, with which password; nobody: everybody.
    pub(crate) login: Option<(String, String)>,
    /// Most bytes of a batch.
    pub(crate) max_batch: usize,
    /// Milliseconds that the next answer asks to wait.
    pub(crate) throttle: i32,
    /// The next request: its first partition has forgotten the producer, the others store their batches
    /// and say that it took too long.
    pub(crate) torn: bool,
    producers: HashSet<i64>,
    logs: HashMap<(String, i32), Log>,
}

/// What a partition knows of producers: the next number of each, and its last batches.
#[derive(Default)]
struct Log {
    producers: HashMap<i64, (i32, VecDeque<(i32, i32)>)>,
}

impl State {
    /// Forgets all producers, as a partition does whose records are gone.
    pub(crate) fn forget(&mut self) {
        self.logs.clear();
    }
}

impl Broker {
    pub(crate) async fn start(tls: Option<TlsAcceptor>) -> Broker {
        let state = State {
            got: Vec::new(),
            records: Vec::new(),
            requests: Vec::new(),
            violations: Vec::new(),
            faults: VecDeque::new(),
            poison: false,
            login: None,
            max_batch: 1 << 20,
            throttle: 0,
            torn: false,
            producers: HashSet::new(),
            logs: HashMap::new(),
        };
        let mut broker = Broker {
            address: ([127, 0, 0, 1], free_port()).into(),
            state: Arc::new(Mutex::new(state)),
            tls,
            task: None,
        };
        broker.listen().await;
        broker
    }

    pub(crate) async fn listen(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        let (state, tls) = (Arc::clone(&self.state), self.tls.clone());
        let port = self.address.port();
        self.task = Some(tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (state, tls) = (Arc::clone(&state), tls.clone());
                connections.spawn(async move {
                    // However a connection ends, it ends.
                    let _ = match tls {
                        None => serve(stream, &state, port).await,
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => serve(stream, &state, port).await,
                            Err(_) => None,
                        },
                    };
                });
            }
        }));
    }

    /// Ends every connection and listens no more.
    pub(crate) async fn stop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            let _ = task.await;
        }
    }
}

/// One connection, until it breaks.
async fn serve<S>(mut stream: S, state: &Mutex<State>, port: u16) -> Option<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Linger,
{
    let mut session = Session::new(state.lock().login.clone());
    loop {
        let length = stream.read_u32().await.ok()? as usize;
        let mut frame = BytesMut::zeroed(length);
        stream.read_exact(&mut frame).await.ok()?;
        let mut frame = frame.freeze();
        let header = decode_request_header_from_buffer(&mut frame).ok()?;
        let key = ApiKey::try_from(header.request_api_key).ok()?;
        if !session.is_open() && !is_login(key) {
            state
                .lock()
                .violations
                .push(format!("{key:?} before a login"));
            return None;
        }
        let version = header.request_api_version;
        let mut out = begin(&header, key);
        match key {
            ApiKey::ApiVersions => versions().encode(&mut out, version).ok()?,
            ApiKey::Metadata => {
                let asked = MetadataRequest::decode(&mut frame, version).ok()?;
                metadata(&asked, port).encode(&mut out, version).ok()?;
            }
            ApiKey::InitProducerId => {
                let mut state = state.lock();
                let id = state.producers.len() as i64 + 1000;
                state.producers.insert(id);
                let said = InitProducerIdResponse::default()
                    .with_producer_id(id.into())
                    .with_producer_epoch(0);
                said.encode(&mut out, version).ok()?;
            }
            ApiKey::SaslHandshake => {
                let asked = SaslHandshakeRequest::decode(&mut frame, version).ok()?;
                let said = SaslHandshakeResponse::default()
                    .with_error_code(session.begin(asked.mechanism.as_str()));
                said.encode(&mut out, version).ok()?;
            }
            ApiKey::SaslAuthenticate => {
                let asked = SaslAuthenticateRequest::decode(&mut frame, version).ok()?;
                let text = String::from_utf8(asked.auth_bytes.to_vec()).ok()?;
                let said = match session.answer(&text) {
                    Ok(text) => {
                        SaslAuthenticateResponse::default().with_auth_bytes(Bytes::from(text))
                    }
                    Err(reason) => SaslAuthenticateResponse::default()
                        .with_error_code(58)
                        .with_error_message(Some(StrBytes::from_string(reason))),
                };
                said.encode(&mut out, version).ok()?;
            }
            ApiKey::Produce => {
                let asked = ProduceRequest::decode(&mut frame, version).ok()?;
                let (said, fault) = produce(&mut state.lock(), &asked, version);
                match fault {
                    Some(Fault::Hang) => return std::future::pending().await,
                    Some(Fault::Reset) => {
                        stream.set_no_linger();
                        return None;
                    }
                    _ => said.encode(&mut out, version).ok()?,
                }
            }
            other => {
                let what = format!("a request {other:?}");
                state.lock().violations.push(what);
                return None;
            }
        }
        stream.write_u32(out.len() as u32).await.ok()?;
        stream.write_all(&out).await.ok()?;
        stream.flush().await.ok()?;
    }
}

/// Connections that can be reset.
pub(crate) trait Linger {
    fn set_no_linger(&self);
}

impl Linger for TcpStream {
    fn set_no_linger(&self) {
        let linger = Some(Duration::ZERO);
        rustix::net::sockopt::set_socket_linger(self, linger).unwrap();
    }
}

impl Linger for tokio_rustls::server::TlsStream<TcpStream> {
    fn set_no_linger(&self) {
        self.get_ref().0.set_no_linger();
    }
}

fn is_login(key: ApiKey) -> bool {
    matches!(
        key,
        ApiKey::ApiVersions | ApiKey::SaslHandshake | ApiKey::SaslAuthenticate
    )
}

fn begin(header: &RequestHeader, key: ApiKey) -> BytesMut {
    let mut out = BytesMut::new();
    let version = key.response_header_version(header.request_api_version);
    ResponseHeader::default()
        .with_correlation_id(header.correlation_id)
        .encode(&mut out, version)
        .unwrap();
    out
}

/// Those of a broker of today.
fn versions() -> ApiVersionsResponse {
    let keys = [
        (ApiKey::Produce, 3, 12),
        (ApiKey::Metadata, 0, 12),
        (ApiKey::ApiVersions, 0, 4),
        (ApiKey::InitProducerId, 0, 5),
        (ApiKey::SaslHandshake, 0, 1),
        (ApiKey::SaslAuthenticate, 0, 2),
    ];
    let keys = keys.map(|(key, min, max)| {
        ApiVersion::default()
            .with_api_key(key as i16)
            .with_min_version(min)
            .with_max_version(max)
    });
    ApiVersionsResponse::default().with_api_keys(keys.to_vec())
}

fn metadata(asked: &MetadataRequest, port: u16) -> MetadataResponse {
    let broker = MetadataResponseBroker::default()
        .with_node_id(1.into())
        .with_host(StrBytes::from_static_str("localhost"))
        .with_port(port.into());
    let partitions = (0..PARTITIONS).rev().map(|partition| {
        MetadataResponsePartition::default()
            .with_partition_index(partition)
            .with_leader_id(1.into())
    });
    let partitions: Vec<_> = partitions.collect();
    let topics = asked.topics.iter().flatten().map(|topic| {
        MetadataResponseTopic::default()
            .with_name(topic.name.clone())
            .with_partitions(partitions.clone())
    });
    MetadataResponse::default()
        .with_brokers(vec![broker])
        .with_topics(topics.collect())
}

fn produce(
    state: &mut State,
    asked: &ProduceRequest,
    version: i16,
) -> (ProduceResponse, Option<Fault>) {
    let fault = state.faults.pop_front();
    let mut events = 0;
    if asked.acks != -1 || asked.transactional_id.is_some() {
        state.violations.push(format!("{asked:?}"));
    }
    let mut topics = Vec::new();
    let torn = std::mem::take(&mut state.torn);
    for topic in &asked.topic_data {
        let mut partitions = Vec::new();
        for partition in &topic.partition_data {
            let name = topic.name.0.as_str();
            let records = partition.records.clone().unwrap_or_default();
            let size = records.len();
            let said = match read(records) {
                Err(reason) => {
                    state.violations.push(reason);
                    (2, Vec::new())
                }
                Ok(_) if size > state.max_batch => (10, Vec::new()),
                Ok(records) => {
                    events += records.len();
                    match fault {
                        Some(Fault::Unavailable) => (19, Vec::new()),
                        _ if torn && partitions.is_empty() => (45, Vec::new()),
                        _ if torn => {
                            append(state, name, partition.index, records);
                            (7, Vec::new())
                        }
                        _ => append(state, name, partition.index, records),
                    }
                }
            };
            let errors = said.1.iter().filter(|_| version >= 8).map(|at| {
                let why = StrBytes::from_static_str("poison");
                BatchIndexAndErrorMessage::default()
                    .with_batch_index(*at as i32)
                    .with_batch_index_error_message(Some(why))
            });
            partitions.push(
                PartitionProduceResponse::default()
                    .with_index(partition.index)
                    .with_error_code(said.0)
                    .with_record_errors(errors.collect()),
            );
        }
        topics.push(
            TopicProduceResponse::default()
                .with_name(topic.name.clone())
                .with_partition_responses(partitions),
        );
    }
    let at = Instant::now();
    state.requests.push(Request { at, events });
    let throttle = std::mem::take(&mut state.throttle);
    let said = ProduceResponse::default()
        .with_responses(topics)
        .with_throttle_time_ms(throttle);
    (said, fault)
}

/// The records of the one batch that there must be; its CRC is checked on the way.
fn read(batch: Bytes) -> Result<Vec<Record>, String> {
    let wrong = |error| format!("{error:#}");
    let batches = RecordBatchDecoder::decode_batch_info(&mut batch.clone()).map_err(wrong)?;
    if batches.len() != 1 || batches[0].version != 2 {
        return Err(format!("{batches:?}"));
    }
    let decompress = |bytes: &mut Bytes, codec: Compression| match codec {
        Compression::None => Ok(bytes.clone()),
        Compression::Gzip => {
            let mut out = Vec::new();
            let mut gzip = flate2::read::GzDecoder::new(&bytes[..]);
            std::io::Read::read_to_end(&mut gzip, &mut out)?;
            Ok(Bytes::from(out))
        }
        _ => Ok(Bytes::from(zstd::decode_all(&bytes[..])?)),
    };
    let decoded =
        RecordBatchDecoder::decode_with_custom_compression(&mut batch.clone(), Some(decompress));
    Ok(decoded.map_err(wrong)?.records)
}

/// Appends a batch as a partition does; gives the error code, and the records it is because of.
fn append(
    state: &mut State,
    topic: &str,
    partition: i32,
    records: Vec<Record>,
) -> (i16, Vec<usize>) {
    let got: Vec<Got> = records.iter().map(got).collect();
    if state.poison && got.iter().any(Got::is_poison) {
        let poison = got.iter().enumerate().filter(|(_, got)| got.is_poison());
        return (87, poison.map(|(at, _)| at).collect());
    }
    let (id, first) = (records[0].producer_id, records[0].sequence);
    let count = records.len() as i32;
    if !state.producers.contains(&id) || records[0].producer_epoch != 0 || partition >= PARTITIONS {
        state
            .violations
            .push(format!("producer {id}, partition {partition}"));
        return (47, Vec::new());
    }
    let log = state.logs.entry((topic.to_owned(), partition)).or_default();
    let known = log.producers.get(&id).map(|(next, _)| *next);
    let (next, last) = log.producers.entry(id).or_default();
    if last.contains(&(first, count)) {
        return (0, Vec::new());
    }
    if first != *next {
        match known {
            None => {
                log.producers.remove(&id);
                return (59, Vec::new());
            }
            Some(next) => {
                let what = format!("number {first} where {next} is due");
                state.violations.push(what);
                return (45, Vec::new());
            }
        }
    }
    *next += count;
    last.push_back((first, count));
    if last.len() > REMEMBERED {
        last.pop_front();
    }
    state.got.extend(got);
    let records = records.into_iter().map(|record| (topic.to_owned(), record));
    state.records.extend(records);
    (0, Vec::new())
}

fn got(record: &Record) -> Got {
    let event: serde_json::Value = serde_json::from_slice(record.value.as_ref().unwrap()).unwrap();
    let text = |key: &str| event[key].as_str().unwrap().to_owned();
    assert_eq!(record.key.as_deref(), Some(text("device").as_bytes()));
    Got {
        device: text("device"),
        message: text("message"),
    }
}
