//! Sends requests, by producers.

use std::collections::BTreeMap;
use std::collections::hash_map::Entry;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{ApiKey, ProduceRequest, ProduceResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use parking_lot::Mutex;
use tokio::time::{Instant, timeout, timeout_at};

use super::answer::{self, Outcome};
use super::batch::{self, Batch, Numbers};
use super::cluster::{Cluster, Layout};
use super::encode::KafkaEncoder;
use super::producer::{Print, Producer};
use crate::config::{Compression, KafkaConfig};
use crate::deliver::remote::Sink;
use crate::deliver::remote::request::Request;
use crate::deliver::remote::verdict::Verdict;

/// All in-sync replicas have it.
const ACKS_ALL: i16 = -1;
/// The first version of Produce that takes zstd (KIP-110).
const ZSTD_SINCE: i16 = 7;
/// Producers that wait for their events, at most. More than requests can be under way were left by
/// requests that became dead letters.
const MOST_IDLE: usize = 512;

/// Longer pauses are not believed: with Kafka's own settings a quota asks for 30 s at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Sends to one cluster.
pub(crate) struct KafkaSink {
    cluster: Cluster,
    compression: Compression,
    within: Duration,
    /// Those that nobody uses, the oldest first.
    idle: Mutex<Vec<Producer>>,
    /// Until when brokers want nothing (KIP-219).
    throttled: Mutex<Option<Instant>>,
}

/// The events of a request: the topic, and each event's piece.
struct Load<'a> {
    topic: &'a str,
    pieces: Vec<Bytes>,
    batches: Vec<Batch>,
}

impl KafkaSink {
    /// Reads every file once, to see that it can be; the error names key and reason.
    pub(super) fn new(config: &KafkaConfig, client: String) -> Result<KafkaSink, String> {
        Ok(KafkaSink {
            cluster: Cluster::new(config, client)?,
            compression: config.compression,
            within: Duration::from_millis(config.timeout_ms),
            idle: Mutex::default(),
            throttled: Mutex::default(),
        })
    }

    /// The producer that has sent some of these events before, or one that is free.
    async fn producer(&self, load: &Load<'_>) -> Result<Producer, String> {
        let Some(mut producer) = self.take(load) else {
            return self.cluster.producer().await.map(Producer::new);
        };
        if producer.lacks_identity() {
            match self.cluster.producer().await {
                Ok(identity) => producer.go_on_as(identity),
                Err(reason) => {
                    self.give_back(producer);
                    return Err(reason);
                }
            }
        }
        Ok(producer)
    }

    fn take(&self, load: &Load<'_>) -> Option<Producer> {
        let mut idle = self.idle.lock();
        let has_open = idle.iter().any(|producer| !producer.is_clear());
        let known = has_open.then(|| {
            let prints: Vec<(i32, Print)> = load
                .batches
                .iter()
                .map(|batch| (batch.partition, batch.print(&load.pieces)))
                .collect();
            idle.iter()
                .position(|producer| producer.goes_on(load.topic, &prints))
        });
        let at = known.flatten();
        let at = at.or_else(|| idle.iter().position(Producer::is_clear))?;
        Some(idle.remove(at))
    }

    fn give_back(&self, mut producer: Producer) {
        producer
            .connections
            .retain(|_, connection| connection.is_fresh());
        let mut idle = self.idle.lock();
        idle.push(producer);
        if idle.len() > MOST_IDLE {
            idle.remove(0);
        }
    }

    /// Sends each batch to its partition's leader.
    async fn exchange(
        &self,
        producer: &mut Producer,
        layout: &Layout,
        load: &Load<'_>,
    ) -> Vec<(Batch, Outcome)> {
        let mut outcomes = Vec::with_capacity(load.batches.len());
        let mut by_leader: BTreeMap<i32, Vec<Batch>> = BTreeMap::new();
        for batch in &load.batches {
            match layout.get(batch.partition as usize).copied().flatten() {
                Some(leader) => by_leader.entry(leader).or_default().push(batch.clone()),
                None => outcomes.push((batch.clone(), Outcome::Moved("it has no leader".into()))),
            }
        }
        let mut written = Vec::new();
        for (leader, batches) in by_leader {
            match self.write(producer, leader, &batches, load).await {
                Ok(version) => written.push((leader, version, batches)),
                Err(reason) => {
                    producer.connections.remove(&leader);
                    let failed = |batch| (batch, Outcome::Moved(reason.clone()));
                    outcomes.extend(batches.into_iter().map(failed));
                }
            }
        }
        let due = Instant::now() + self.within;
        for (leader, version, batches) in written {
            match self.read(producer, leader, version, due).await {
                Ok(said) => outcomes.extend(self.outcomes(&said, batches)),
                Err(reason) => {
                    producer.connections.remove(&leader);
                    let failed = |batch| (batch, Outcome::Moved(reason.clone()));
                    outcomes.extend(batches.into_iter().map(failed));
                }
            }
        }
        outcomes
    }

    /// Sends batches to their leader; gives the version of the request.
    async fn write(
        &self,
        producer: &mut Producer,
        leader: i32,
        batches: &[Batch],
        load: &Load<'_>,
    ) -> Result<i16, String> {
        let mut data = Vec::with_capacity(batches.len());
        for batch in batches {
            let (id, epoch) = producer.identity(load.topic, batch.partition);
            let numbers = Numbers {
                producer: id,
                epoch,
                first: producer.first(load.topic, batch.partition),
            };
            let records = batch.encode(&load.pieces, numbers, self.compression)?;
            data.push(
                PartitionProduceData::default()
                    .with_index(batch.partition)
                    .with_records(Some(records)),
            );
        }
        let name = TopicName(StrBytes::from_string(load.topic.to_owned()));
        let topic = TopicProduceData::default()
            .with_name(name)
            .with_partition_data(data);
        // The broker gives up first, so that it can say so.
        let patience = i32::try_from(self.within.as_millis() / 2).unwrap_or(i32::MAX);
        let asked = ProduceRequest::default()
            .with_transactional_id(None)
            .with_acks(ACKS_ALL)
            .with_timeout_ms(patience)
            .with_topic_data(vec![topic]);
        if let Some(there) = producer.connections.get_mut(&leader)
            && there.is_spent().await
        {
            producer.connections.remove(&leader);
        }
        let connection = match producer.connections.entry(leader) {
            Entry::Occupied(there) => there.into_mut(),
            Entry::Vacant(free) => free.insert(self.cluster.connect(leader).await?),
        };
        let version = connection.version(ApiKey::Produce)?;
        if self.compression == Compression::Zstd && version < ZSTD_SINCE {
            return Err("the broker is too old for compression = \"zstd\"".into());
        }
        let writing = connection.write(ApiKey::Produce, version, &asked);
        let written = timeout(self.within, writing).await;
        written.unwrap_or_else(|_| Err("it takes nothing".into()))?;
        Ok(version)
    }

    async fn read(
        &self,
        producer: &mut Producer,
        leader: i32,
        version: i16,
        due: Instant,
    ) -> Result<ProduceResponse, String> {
        let connection = producer.connections.get_mut(&leader);
        let connection = connection.ok_or("no connection")?;
        let reading = connection.read(ApiKey::Produce, version);
        let within = self.within.as_millis();
        match timeout_at(due, reading).await {
            Ok(said) => said,
            Err(_) => Err(format!("no answer within {within} ms")),
        }
    }

    fn outcomes(&self, said: &ProduceResponse, batches: Vec<Batch>) -> Vec<(Batch, Outcome)> {
        if let Ok(wait @ 1..) = u64::try_from(said.throttle_time_ms) {
            let until = Instant::now() + Duration::from_millis(wait).min(LONGEST_PAUSE);
            let mut throttled = self.throttled.lock();
            *throttled = throttled.max(Some(until));
        }
        let topics = said.responses.iter();
        let partitions: Vec<_> = topics
            .flat_map(|topic| &topic.partition_responses)
            .collect();
        let of = |batch: &Batch| {
            let found = partitions.iter().find(|it| it.index == batch.partition);
            let silent = || Outcome::Retry("the answer does not speak of it".into());
            found.map_or_else(silent, |said| answer::outcome(said))
        };
        let batches = batches.into_iter();
        batches
            .map(|batch| {
                let outcome = of(&batch);
                (batch, outcome)
            })
            .collect()
    }

    /// Remembers what became of the batches. False: the producer cannot go on, and nothing is open.
    fn settle(producer: &mut Producer, load: &Load<'_>, outcomes: &[(Batch, Outcome)]) -> bool {
        for (batch, outcome) in outcomes {
            match outcome {
                Outcome::Accepted | Outcome::Duplicate => producer.sent(load.topic, batch),
                // An attempt before may have been stored under these numbers.
                Outcome::Refused { .. } if producer.is_open(load.topic, batch.partition) => {
                    producer.lose(load.topic, batch);
                }
                Outcome::Refused { .. } => producer.close(load.topic, batch),
                Outcome::Retry(_) | Outcome::Moved(_) => {
                    let print = batch.print(&load.pieces);
                    producer.keep(load.topic, batch, print);
                }
                Outcome::Lost(_) => producer.lose(load.topic, batch),
            }
        }
        !(producer.is_clear() && producer.is_used_up())
    }

    /// How long brokers want nothing yet.
    fn throttle(&self) -> Option<Duration> {
        let until = *self.throttled.lock();
        let left = until?.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }
}

impl Sink for KafkaSink {
    type Encoder = KafkaEncoder;

    async fn send(&self, request: &Request, body: Vec<u8>) -> Verdict {
        if let Some(wait) = self.throttle() {
            return Verdict::Retry {
                after: Some(wait),
                reason: "the brokers ask for a pause: a quota is used up".into(),
            };
        }
        let layout = match self.cluster.layout(request.key()).await {
            Ok(layout) => layout,
            Err(verdict) => return verdict,
        };
        let load = Load {
            topic: request.key(),
            pieces: shared_pieces(request, body),
            batches: batch::divide(request, layout.len()),
        };
        let mut producer = match self.producer(&load).await {
            Ok(producer) => producer,
            Err(reason) => return Verdict::retry(reason),
        };
        let outcomes = self.exchange(&mut producer, &layout, &load).await;
        if KafkaSink::settle(&mut producer, &load, &outcomes) {
            self.give_back(producer);
        }
        let has_moved = |(_, outcome): &(Batch, Outcome)| matches!(outcome, Outcome::Moved(_));
        if outcomes.iter().any(has_moved) {
            self.cluster.forget(request.key()).await;
        }
        answer::verdict(request.len(), outcomes)
    }
}

/// Each event's piece, as a part of the body, which is all of them.
fn shared_pieces(request: &Request, body: Vec<u8>) -> Vec<Bytes> {
    let mut rest = Bytes::from(body);
    request
        .pieces()
        .map(|piece| rest.split_to(piece.len().min(rest.len())))
        .collect()
}
