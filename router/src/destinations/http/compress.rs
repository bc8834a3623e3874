//! Compresses bodies. Levels are low: a router has more bytes to send than time.

use std::io::{self, Write};

use crate::config::Compression;

const GZIP_LEVEL: u32 = 3;
const ZSTD_LEVEL: i32 = 3;

/// The `Content-Encoding`.
pub(super) fn encoding(compression: Compression) -> Option<&'static str> {
    match compression {
        Compression::None => None,
        Compression::Gzip => Some("gzip"),
        Compression::Zstd => Some("zstd"),
    }
}

/// The body as it is sent.
pub(super) fn compress(compression: Compression, body: Vec<u8>) -> io::Result<Vec<u8>> {
    match compression {
        Compression::None => Ok(body),
        Compression::Zstd => zstd::bulk::compress(&body, ZSTD_LEVEL),
        Compression::Gzip => {
            let out = Vec::with_capacity(body.len() / 4);
            let level = flate2::Compression::new(GZIP_LEVEL);
            let mut gzip = flate2::write::GzEncoder::new(out, level);
            gzip.write_all(&body)?;
            gzip.finish()
        }
    }
}
