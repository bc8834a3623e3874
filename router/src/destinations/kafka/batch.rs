//! The events of a request by partition, and a partition's events as a record batch. Pure.

use std::collections::BTreeMap;
use std::io::{self, Write};

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::indexmap::IndexMap;
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records::{
    Compression as Codec, NO_PARTITION_LEADER_EPOCH, Record, RecordBatchEncoder,
    RecordEncodeOptions, TimestampType,
};
use sha2::{Digest, Sha256};

use super::encode::Parts;
use super::partition;
use crate::config::Compression;
use crate::deliver::remote::request::Request;

const GZIP_LEVEL: u32 = 3;
const ZSTD_LEVEL: i32 = 3;

/// The events of a request that go to one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) partition: i32,
    /// Their places in the request, in order.
    pub(super) places: Vec<usize>,
}

/// Who sends a batch, and the number of its first record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Numbers {
    pub(super) producer: i64,
    pub(super) epoch: i16,
    pub(super) first: i32,
}

/// Divides a request among so many partitions.
pub(super) fn divide(request: &Request, partitions: usize) -> Vec<Batch> {
    let mut batches: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (place, event) in request.events().enumerate() {
        let partition = partition::of(event.device.as_bytes(), partitions);
        batches.entry(partition).or_default().push(place);
    }
    let batches = batches.into_iter();
    batches
        .map(|(partition, places)| Batch {
            partition: partition as i32,
            places,
        })
        .collect()
}

impl Batch {
    /// What tells the same events from others.
    pub(super) fn print(&self, pieces: &[Bytes]) -> [u8; 32] {
        let mut hash = Sha256::new();
        for piece in self.places.iter().filter_map(|place| pieces.get(*place)) {
            hash.update((piece.len() as u64).to_be_bytes());
            hash.update(piece);
        }
        hash.finalize().into()
    }

    /// As it is sent.
    pub(super) fn encode(
        &self,
        pieces: &[Bytes],
        numbers: Numbers,
        compression: Compression,
    ) -> Result<Bytes, String> {
        let pieces = self.places.iter().filter_map(|place| pieces.get(*place));
        let records: Vec<Record> = pieces
            .enumerate()
            .filter_map(|(at, piece)| record(piece, at, numbers))
            .collect();
        let options = RecordEncodeOptions {
            version: 2,
            compression: match compression {
                Compression::None => Codec::None,
                Compression::Gzip => Codec::Gzip,
                Compression::Zstd => Codec::Zstd,
            },
        };
        let mut out = BytesMut::new();
        let compress = |from: &mut BytesMut, to: &mut BytesMut, _: Codec| {
            compress(compression, from, to)?;
            Ok(())
        };
        RecordBatchEncoder::encode_with_custom_compression(
            &mut out,
            &records,
            &options,
            Some(compress),
        )
        .map_err(|error| format!("cannot make a record batch: {error:#}"))?;
        Ok(out.freeze())
    }
}

/// The record of a piece, which it shares its bytes with.
fn record(piece: &Bytes, at: usize, numbers: Numbers) -> Option<Record> {
    let parts = Parts::of(piece)?;
    let share = |part: &[u8]| Some(piece.slice_ref(part));
    let mut headers = IndexMap::new();
    if !parts.id.is_empty() {
        headers.insert(StrBytes::from_static_str("id"), share(parts.id));
    }
    headers.insert(StrBytes::from_static_str("level"), share(parts.level));
    Some(Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: NO_PARTITION_LEADER_EPOCH,
        producer_id: numbers.producer,
        producer_epoch: numbers.epoch,
        timestamp_type: TimestampType::Creation,
        offset: at as i64,
        sequence: numbers.first + at as i32,
        timestamp: parts.time,
        key: share(parts.key),
        value: share(parts.value),
        headers,
    })
}

fn compress(compression: Compression, from: &[u8], to: &mut BytesMut) -> io::Result<()> {
    match compression {
        Compression::None => to.put_slice(from),
        Compression::Zstd => to.put_slice(&zstd::bulk::compress(from, ZSTD_LEVEL)?),
        Compression::Gzip => {
            let level = flate2::Compression::new(GZIP_LEVEL);
            let mut gzip = flate2::write::GzEncoder::new(to.writer(), level);
            gzip.write_all(from)?;
            gzip.finish()?;
        }
    }
    Ok(())
}
