//! What a broker's answer for a batch means. Pure.
//!
//! | error | what follows |
//! |---|---|
//! | none | delivered; what the broker had already is told by none too, or by DUPLICATE_SEQUENCE_NUMBER |
//! | MESSAGE_TOO_LARGE, RECORD_LIST_TOO_LARGE, INVALID_RECORD, INVALID_TIMESTAMP, INVALID_TOPIC_EXCEPTION | refused: the records that the broker names, or the batch, which is halved |
//! | NOT_LEADER_OR_FOLLOWER, LEADER_NOT_AVAILABLE, UNKNOWN_TOPIC_OR_PARTITION, FENCED_LEADER_EPOCH ... | tried again, once the cluster has been asked who leads |
//! | OUT_OF_ORDER_SEQUENCE_NUMBER, UNKNOWN_PRODUCER_ID, INVALID_PRODUCER_EPOCH, PRODUCER_FENCED ... | tried again by a new producer |
//! | all others, as NOT_ENOUGH_REPLICAS, REQUEST_TIMED_OUT or a missing right | tried again |

use kafka_protocol::ResponseError;
use kafka_protocol::messages::produce_response::PartitionProduceResponse;

use super::batch::Batch;
use crate::deliver::remote::verdict::{ItemVerdict, Verdict};

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Accepted,
    /// The broker had it.
    Duplicate,
    /// Never; the records that it is because of, with the reason, where the broker says so.
    Refused {
        reason: String,
        records: Vec<(usize, String)>,
    },
    /// Not now.
    Retry(String),
    /// Not now, and somebody else may lead the partition.
    Moved(String),
    /// The broker does not know what this producer has sent.
    Lost(String),
}

/// What an answer says of a batch.
pub(super) fn outcome(said: &PartitionProduceResponse) -> Outcome {
    use ResponseError as E;
    let Some(error) = ResponseError::try_from_code(said.error_code) else {
        return Outcome::Accepted;
    };
    let reason = reason(error, said.error_message.as_ref().map(|text| text.as_str()));
    match error {
        E::DuplicateSequenceNumber => Outcome::Duplicate,
        E::MessageTooLarge
        | E::RecordListTooLarge
        | E::InvalidRecord
        | E::InvalidTimestamp
        | E::InvalidTopicException => {
            let records = said.record_errors.iter().filter_map(|record| {
                let message = record.batch_index_error_message.as_ref();
                let why = message.map_or(reason.clone(), |text| text.as_str().to_owned());
                Some((usize::try_from(record.batch_index).ok()?, why))
            });
            Outcome::Refused {
                records: records.collect(),
                reason,
            }
        }
        E::OutOfOrderSequenceNumber
        | E::UnknownProducerId
        | E::InvalidProducerEpoch
        | E::InvalidProducerIdMapping
        | E::ProducerFenced => Outcome::Lost(reason),
        E::NotLeaderOrFollower
        | E::LeaderNotAvailable
        | E::UnknownTopicOrPartition
        | E::UnknownTopicId
        | E::ReplicaNotAvailable
        | E::BrokerNotAvailable
        | E::FencedLeaderEpoch
        | E::UnknownLeaderEpoch
        | E::KafkaStorageError => Outcome::Moved(reason),
        _ => Outcome::Retry(reason),
    }
}

/// An error in a line.
pub(super) fn reason(error: ResponseError, said: Option<&str>) -> String {
    let text = match said {
        Some(said) if !said.is_empty() => said.to_owned(),
        _ => error.to_string(),
    };
    let text: String = text.chars().take(300).collect();
    let text = text.replace(|c: char| c.is_control(), " ");
    format!("error {}: {text}", error.code())
}

/// What follows for a request of so many events, of which these batches were made.
pub(super) fn verdict(events: usize, outcomes: Vec<(Batch, Outcome)>) -> Verdict {
    if let [(batch, Outcome::Refused { reason, records })] = &outcomes[..]
        && records.is_empty()
        && batch.places.len() == events
    {
        let reason = reason.clone();
        return Verdict::Refused { reason };
    }
    let mut items = vec![ItemVerdict::Accepted; events];
    for (batch, outcome) in outcomes {
        for (at, place) in batch.places.iter().enumerate() {
            items[*place] = match &outcome {
                Outcome::Accepted => continue,
                Outcome::Duplicate => ItemVerdict::Duplicate,
                Outcome::Retry(reason) | Outcome::Moved(reason) | Outcome::Lost(reason) => {
                    ItemVerdict::Retry(format!("partition {}: {reason}", batch.partition))
                }
                Outcome::Refused { reason, records } => {
                    refused(at, batch.places.len(), reason, records)
                }
            };
        }
    }
    match items.iter().all(|item| *item == ItemVerdict::Accepted) {
        true => Verdict::Accepted,
        false => Verdict::Items(items),
    }
}

/// A record of a batch that was refused as a whole. Where the broker does not say because of which, the
/// batch comes again by itself, and is halved then.
fn refused(at: usize, of: usize, reason: &str, records: &[(usize, String)]) -> ItemVerdict {
    match records.iter().find(|(place, _)| *place == at) {
        Some((_, reason)) => ItemVerdict::Refused(reason.clone()),
        None if of == 1 => ItemVerdict::Refused(reason.to_owned()),
        None => ItemVerdict::Retry(format!("refused together with others: {reason}")),
    }
}
