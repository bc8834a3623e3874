//! Events as records of topics of Kafka (2.1 and later) or of what speaks its protocol.
//!
//! ```text
//! topic by the template, partition by murmur2 of the key, as Java's clients choose it
//! key      lamp-7                            the device
//! value    {"id":"lamp-7/...","time":...}    the JSON object of the file destination
//! headers  id: lamp-7/00000000000000ab/7     (where the event has one)
//!          level: INFO
//! time     the event's, in milliseconds
//! ```
//!
//! By the protocol guide at kafka.apache.org/protocol, KIP-98 (idempotent producers), KIP-219 (throttling),
//! KIP-467 (errors of single records) and RFC 5802 and 7677 (SCRAM).
//!
//! **Producers.** A request of the core is one topic and many partitions. It is sent by a producer (an
//! id with an epoch, from InitProducerId) that nobody else uses meanwhile, as one Produce request to each
//! leader with one record batch (version 2) for each partition; `acks` is all. A producer numbers the
//! records of each partition. A batch whose fate is unknown, since an answer did not come or said to try
//! again, keeps its numbers: the core brings the same events again, and they go out from the same producer
//! with the same numbers, so that a broker that has them says so ([`producer`]). Where a producer's
//! numbers are no longer known to the broker, a new one begins.
//!
//! **Order.** A device has one partition, a lane of the core has one request under way, and what is
//! tried again goes first: so a device's events are stored in their order.
//!
//! **Repeats** are recognised while the router runs. After a restart it is another producer, and what it
//! delivers again is told by the header `id` only.
//!
//! **Errors**: see [`answer`].

mod answer;
mod batch;
mod cluster;
mod connection;
mod encode;
mod partition;
mod producer;
mod scram;
mod shape;
mod sink;

use crate::config::KafkaConfig;
use crate::routes::template::Template;
use encode::KafkaEncoder;
use sink::KafkaSink;

/// Encoder and sink of a configuration; the error names key and reason.
pub(crate) fn build(config: &KafkaConfig, name: &str) -> Result<(KafkaEncoder, KafkaSink), String> {
    let topic = Template::parse(&config.topic).map_err(|reason| format!("topic: {reason}"))?;
    let sink = KafkaSink::new(config, format!("thinglog-router-{name}"))?;
    Ok((KafkaEncoder { topic }, sink))
}

#[cfg(test)]
#[path = "kafka_tests.rs"]
mod tests;
