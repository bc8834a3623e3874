//! The files of `web/`, and their compressed forms once somebody has asked for them.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use parking_lot::Mutex;
use rust_embed::RustEmbed;

/// Smaller files than this are sent as they are, bytes.
const WORTH_PACKING: usize = 512;

#[derive(RustEmbed)]
#[folder = "web/"]
struct Web;

/// All files. Compressed forms are kept: there are as many as files.
#[derive(Default)]
pub(crate) struct Files {
    packed: Arc<Mutex<HashMap<String, (String, Bytes)>>>,
}

/// One file.
pub(crate) struct File {
    name: String,
    /// SHA-256 of the content, hexadecimal.
    pub(crate) hash: String,
    /// The media type.
    pub(crate) kind: &'static str,
    pub(crate) data: Bytes,
    packed: Arc<Mutex<HashMap<String, (String, Bytes)>>>,
}

impl Files {
    /// The file of this path below `web/`.
    pub(crate) fn get(&self, name: &str) -> Option<File> {
        // A folder, which builds for debugging read, knows more names for a file than the program does.
        if name.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return None;
        }
        let file = Web::get(name)?;
        let hash = file.metadata.sha256_hash();
        Some(File {
            name: name.to_owned(),
            hash: hash.iter().map(|byte| format!("{byte:02x}")).collect(),
            kind: kind(name),
            data: match file.data {
                Cow::Borrowed(data) => Bytes::from_static(data),
                Cow::Owned(data) => data.into(),
            },
            packed: Arc::clone(&self.packed),
        })
    }
}

impl File {
    /// The content compressed, where that makes it smaller.
    pub(crate) fn gzip(&self) -> Option<Bytes> {
        let is_text = ["text/", "application/json", "image/svg"]
            .iter()
            .any(|kind| self.kind.starts_with(kind));
        if !is_text || self.data.len() < WORTH_PACKING {
            return None;
        }
        let mut kept = self.packed.lock();
        if let Some((hash, packed)) = kept.get(&self.name)
            && *hash == self.hash
        {
            return Some(packed.clone());
        }
        let mut packer = GzEncoder::new(Vec::new(), Compression::best());
        packer.write_all(&self.data).ok()?;
        let packed = Bytes::from(packer.finish().ok()?);
        kept.insert(self.name.clone(), (self.hash.clone(), packed.clone()));
        Some(packed)
    }
}

/// The media type of a file's name.
fn kind(name: &str) -> &'static str {
    match name.rsplit_once('.').map_or("", |(_, ending)| ending) {
        "html" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "json" | "webmanifest" => "application/json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "woff2" => "font/woff2",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}
