//! The bytes of an object, made piece by piece. The same lines always give the same bytes.

use std::io::{self, Write};

use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};

use super::parquet::{self, Rows};
use crate::config::{ObjectCompression, ObjectFormat, ObjectStoreConfig};

/// How objects are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Form {
    format: ObjectFormat,
    compression: ObjectCompression,
}

impl Form {
    pub(super) fn new(config: &ObjectStoreConfig) -> Form {
        Form {
            format: config.format,
            compression: config.compression,
        }
    }

    /// How its objects' names end.
    pub(super) fn extension(self) -> &'static str {
        match (self.format, self.compression) {
            (ObjectFormat::Ndjson, ObjectCompression::None) => "ndjson",
            (ObjectFormat::Ndjson, ObjectCompression::Gzip) => "ndjson.gz",
            (ObjectFormat::Ndjson, ObjectCompression::Zstd) => "ndjson.zst",
            (ObjectFormat::Raw, ObjectCompression::None) => "raw.ndjson",
            (ObjectFormat::Raw, ObjectCompression::Gzip) => "raw.ndjson.gz",
            (ObjectFormat::Raw, ObjectCompression::Zstd) => "raw.ndjson.zst",
            (ObjectFormat::Parquet, _) => "parquet",
        }
    }

    /// Memory that an object takes beside the part that is sent: what its encoder holds and a line; of
    /// Parquet a row group as columns, and twice encoded: as pages, and those compressed.
    pub(super) fn memory(self) -> usize {
        match self.format {
            ObjectFormat::Ndjson => 3 << 20,
            // A payload's line is the largest there is.
            ObjectFormat::Raw => 6 << 20,
            ObjectFormat::Parquet => 3 * parquet::GROUP + (3 << 20),
        }
    }

    /// Begins an object.
    pub(super) fn begin(self) -> io::Result<Body> {
        let writer = match (self.format, self.compression) {
            (ObjectFormat::Parquet, _) => Writer::Parquet(Box::new(Rows::begin()?)),
            (_, ObjectCompression::None) => Writer::Plain(Vec::new()),
            (_, ObjectCompression::Gzip) => {
                let level = flate2::Compression::default();
                Writer::Gzip(GzEncoder::new(Vec::new(), level))
            }
            (_, ObjectCompression::Zstd) => {
                let encoder = zstd::stream::write::Encoder::new(Vec::new(), ZSTD)?;
                Writer::Zstd(encoder)
            }
        };
        Ok(Body(writer))
    }
}

/// zstd's usual level.
const ZSTD: i32 = 3;

/// An object that is being made.
pub(super) struct Body(Writer);

enum Writer {
    Plain(Vec<u8>),
    Gzip(GzEncoder<Vec<u8>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
    Parquet(Box<Rows>),
}

impl Body {
    /// Adds a line: a JSON object.
    pub(super) fn push(&mut self, line: &[u8]) -> io::Result<()> {
        let writer: &mut dyn Write = match &mut self.0 {
            Writer::Plain(bytes) => bytes,
            Writer::Gzip(encoder) => encoder,
            Writer::Zstd(encoder) => encoder,
            Writer::Parquet(rows) => return rows.push(line),
        };
        writer.write_all(line)?;
        writer.write_all(b"\n")
    }

    /// What is ready to be sent.
    pub(super) fn ready(&mut self) -> &mut Vec<u8> {
        match &mut self.0 {
            Writer::Plain(bytes) => bytes,
            Writer::Gzip(encoder) => encoder.get_mut(),
            Writer::Zstd(encoder) => encoder.get_mut(),
            Writer::Parquet(rows) => rows.ready(),
        }
    }

    /// Ends the object; gives what has not been taken yet.
    pub(super) fn end(self) -> io::Result<Vec<u8>> {
        match self.0 {
            Writer::Plain(bytes) => Ok(bytes),
            Writer::Gzip(encoder) => encoder.finish(),
            Writer::Zstd(encoder) => encoder.finish(),
            Writer::Parquet(rows) => rows.end(),
        }
    }
}
