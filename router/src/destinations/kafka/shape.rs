//! Looks an answer through before it is decoded: the codec makes room for as many elements as an array
//! claims to have, so that four bytes could ask for gigabytes. Here each claimed element is found in the
//! frame first. Pure.
//!
//! Layouts are those of the protocol's message definitions
//! (<https://kafka.apache.org/protocol.html#protocol_messages>), up to the versions that are spoken.

use kafka_protocol::messages::ApiKey;

/// A field, and the version that brought it.
type Field = (i16, Part);

enum Part {
    Fixed(usize),
    Text,
    /// An array of numbers of 32 bits.
    Numbers,
    Array(&'static [Field]),
}

use Part::{Array, Fixed, Numbers, Text};

const API_VERSIONS: &[Field] = &[
    (0, Fixed(2)),
    (0, Array(&[(0, Fixed(6))])), // key, oldest, newest
];
const HANDSHAKE: &[Field] = &[(0, Fixed(2)), (0, Array(&[(0, Text)]))];
const METADATA: &[Field] = &[
    (3, Fixed(4)), // throttle
    (0, Array(BROKER)),
    (2, Text),     // cluster
    (1, Fixed(4)), // controller
    (0, Array(TOPIC)),
    (8, Fixed(4)), // operations
];
const BROKER: &[Field] = &[(0, Fixed(4)), (0, Text), (0, Fixed(4)), (1, Text)];
const TOPIC: &[Field] = &[
    (0, Fixed(2)),
    (0, Text),
    (1, Fixed(1)), // internal
    (0, Array(PARTITION)),
    (8, Fixed(4)), // operations
];
const PARTITION: &[Field] = &[
    (0, Fixed(10)), // error, partition, leader
    (7, Fixed(4)),  // epoch
    (0, Numbers),   // replicas
    (0, Numbers),   // those in sync
    (5, Numbers),   // those offline
];
const PRODUCE: &[Field] = &[(0, Array(PRODUCED)), (1, Fixed(4))];
const PRODUCED: &[Field] = &[(0, Text), (0, Array(APPENDED))];
const APPENDED: &[Field] = &[
    (0, Fixed(14)),                          // partition, error, offset
    (2, Fixed(8)),                           // time
    (5, Fixed(8)),                           // first offset
    (8, Array(&[(8, Fixed(4)), (8, Text)])), // records that are wrong
    (8, Text),
];

/// Whether an answer, its header apart, holds what it claims to.
pub(super) fn is_whole(key: ApiKey, version: i16, answer: &[u8]) -> bool {
    let (fields, compact_since) = match key {
        ApiKey::ApiVersions => (API_VERSIONS, 3),
        ApiKey::SaslHandshake => (HANDSHAKE, i16::MAX),
        ApiKey::Metadata => (METADATA, 9),
        ApiKey::Produce => (PRODUCE, 9),
        // They have no arrays.
        _ => return true,
    };
    let mut walk = Walk {
        rest: answer,
        version,
        is_compact: version >= compact_since,
    };
    walk.fields(fields).is_some()
}

struct Walk<'a> {
    rest: &'a [u8],
    version: i16,
    /// Lengths are variable, and each structure ends with tagged fields (KIP-482).
    is_compact: bool,
}

impl Walk<'_> {
    fn fields(&mut self, fields: &[Field]) -> Option<()> {
        let version = self.version;
        for (_, part) in fields.iter().filter(|(since, _)| *since <= version) {
            match part {
                Fixed(bytes) => self.skip(*bytes)?,
                Text => {
                    let length = match self.is_compact {
                        true => self.compact()?,
                        false => signed(i16::from_be_bytes(self.take()?).into()),
                    };
                    self.skip(length)?;
                }
                Numbers => {
                    let count = self.count()?;
                    self.skip(count.checked_mul(4)?)?;
                }
                Array(fields) => {
                    for _ in 0..self.count()? {
                        self.fields(fields)?;
                    }
                }
            }
        }
        match self.is_compact {
            true => self.tags(),
            false => Some(()),
        }
    }

    fn tags(&mut self) -> Option<()> {
        for _ in 0..self.varint()? {
            self.varint()?;
            let length = self.varint()?;
            self.skip(length)?;
        }
        Some(())
    }

    /// Elements of an array; none where there is no array.
    fn count(&mut self) -> Option<usize> {
        match self.is_compact {
            true => self.compact(),
            false => Some(signed(i32::from_be_bytes(self.take()?))),
        }
    }

    /// A length that is one less than what is written.
    fn compact(&mut self) -> Option<usize> {
        Some(self.varint()?.saturating_sub(1))
    }

    fn varint(&mut self) -> Option<usize> {
        let mut value = 0;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.take()?;
            value |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*taken)
    }

    fn skip(&mut self, bytes: usize) -> Option<()> {
        self.rest = self.rest.get(bytes..)?;
        Some(())
    }
}

/// A length, nothing where it says that there is none.
fn signed(length: i32) -> usize {
    usize::try_from(length).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use kafka_protocol::messages::metadata_response::{
        MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
    };
    use kafka_protocol::messages::produce_response::{
        BatchIndexAndErrorMessage, PartitionProduceResponse, TopicProduceResponse,
    };
    use kafka_protocol::messages::{
        ApiVersionsResponse, MetadataResponse, ProduceResponse, SaslHandshakeResponse, TopicName,
    };
    use kafka_protocol::protocol::{Encodable, StrBytes};

    use super::*;

    fn encoded(answer: &impl Encodable, version: i16) -> Vec<u8> {
        let mut out = BytesMut::new();
        answer.encode(&mut out, version).unwrap();
        out.to_vec()
    }

    fn metadata() -> MetadataResponse {
        let partition = MetadataResponsePartition::default()
            .with_replica_nodes(vec![1.into(), 2.into()])
            .with_isr_nodes(vec![1.into()]);
        let topic = MetadataResponseTopic::default()
            .with_name(Some(TopicName(StrBytes::from_static_str("logs"))))
            .with_partitions(vec![partition; 3]);
        let broker =
            MetadataResponseBroker::default().with_host(StrBytes::from_static_str("kafka-1"));
        MetadataResponse::default()
            .with_brokers(vec![broker; 2])
            .with_topics(vec![topic])
    }

    fn produced(version: i16) -> ProduceResponse {
        let wrong = BatchIndexAndErrorMessage::default()
            .with_batch_index_error_message(Some(StrBytes::from_static_str("poison")));
        let wrong = if version >= 8 { vec![wrong] } else { vec![] };
        let partition = PartitionProduceResponse::default().with_record_errors(wrong);
        let topic = TopicProduceResponse::default()
            .with_name(TopicName(StrBytes::from_static_str("logs")))
            .with_partition_responses(vec![partition; 2]);
        ProduceResponse::default().with_responses(vec![topic])
    }

    /// Every byte of it is accounted for, so that one less is too few.
    fn holds(key: ApiKey, version: i16, answer: &[u8]) {
        assert!(is_whole(key, version, answer), "{key:?} {version}");
        for short in 0..answer.len() {
            assert!(
                !is_whole(key, version, &answer[..short]),
                "{key:?} {version}"
            );
        }
    }

    #[test]
    fn the_codecs_own_answers_are_whole_in_every_version_and_torn_ones_are_not() {
        for version in 4..=9 {
            holds(ApiKey::Metadata, version, &encoded(&metadata(), version));
        }
        for version in 3..=9 {
            holds(
                ApiKey::Produce,
                version,
                &encoded(&produced(version), version),
            );
        }
        let mechanisms = vec![StrBytes::from_static_str("PLAIN"); 2];
        let said = SaslHandshakeResponse::default().with_mechanisms(mechanisms);
        holds(ApiKey::SaslHandshake, 1, &encoded(&said, 1));
        let said = ApiVersionsResponse::default().with_api_keys(vec![Default::default(); 3]);
        holds(ApiKey::ApiVersions, 0, &encoded(&said, 0));
    }

    #[test]
    fn an_array_that_claims_more_than_there_is_is_found_out() {
        let mut many = encoded(&metadata(), 4);
        many[4..8].copy_from_slice(&i32::MAX.to_be_bytes());
        assert!(!is_whole(ApiKey::Metadata, 4, &many));
        let mut none = encoded(&metadata(), 4);
        none[4..8].copy_from_slice(&(-1i32).to_be_bytes());
        none.truncate(8);
        none.extend([0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
        assert!(is_whole(ApiKey::Metadata, 4, &none), "no arrays at all");
        let mut compact = encoded(&produced(9), 9);
        compact[0] = 0xff;
        assert!(!is_whole(ApiKey::Produce, 9, &compact));
    }
}
