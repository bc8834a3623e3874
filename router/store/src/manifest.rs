//! The manifest: which files make up the store. What it does not name is a leftover and is deleted.
//!
//! `manifest.json` is replaced as a whole, synced before it is renamed, so that a crash leaves the old
//! set of files or the new one.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::part::{named, sync_folder};

const NAME: &str = "manifest.json";
/// Of the layout of all files.
const VERSION: u32 = 1;

/// The content of the manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    version: u32,
    /// Numbers from here on have not been given to a file.
    pub(crate) next: u64,
    /// The fresh file that is written to.
    pub(crate) current: u64,
    /// Fresh files that wait to be sealed.
    pub(crate) full: Vec<u64>,
    pub(crate) segments: Vec<SegmentName>,
    /// Devices whose rows below a number are gone.
    pub(crate) cleared: BTreeMap<String, u64>,
}

/// A segment of the manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SegmentName {
    pub(crate) number: u64,
    /// Seconds after which it is dropped.
    pub(crate) age_s: u64,
    /// It holds the last events of devices that have few newer ones.
    pub(crate) kept: bool,
}

impl Manifest {
    pub(crate) fn new(next: u64, current: u64) -> Manifest {
        Manifest {
            version: VERSION,
            next,
            current,
            full: Vec::new(),
            segments: Vec::new(),
            cleared: BTreeMap::new(),
        }
    }

    /// Reads it; `None` if there is none.
    pub(crate) fn read(folder: &Path) -> io::Result<Option<Manifest>> {
        let path = folder.join(NAME);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(named(&path, &error)),
        };
        let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|error| {
            let reason = format!(
                "{error}; restore it, or move the folder away to start with an empty store"
            );
            named(&path, &io::Error::new(io::ErrorKind::InvalidData, reason))
        })?;
        match manifest.version {
            VERSION => Ok(Some(manifest)),
            other => {
                let reason = format!("version {other} of the store, this program reads {VERSION}");
                Err(named(
                    &path,
                    &io::Error::new(io::ErrorKind::InvalidData, reason),
                ))
            }
        }
    }

    /// Makes it the one that counts.
    pub(crate) fn write(&self, folder: &Path) -> io::Result<()> {
        let path = folder.join(NAME);
        let temporary = folder.join("manifest.new");
        let write = || {
            let mut file = File::create(&temporary)?;
            file.write_all(&serde_json::to_vec(self)?)?;
            file.sync_all()?;
            std::fs::rename(&temporary, &path)?;
            sync_folder(folder)
        };
        write().map_err(|error| named(&path, &error))
    }
}

/// The name of a fresh file.
pub(crate) fn fresh_name(number: u64) -> String {
    format!("{number:08}.fresh")
}

/// The name of a segment.
pub(crate) fn segment_name(number: u64) -> String {
    format!("{number:08}.segment")
}

/// Deletes files of the store that the manifest does not name.
pub(crate) fn delete_leftovers(folder: &Path, manifest: &Manifest) -> io::Result<()> {
    let fresh = manifest.full.iter().chain([&manifest.current]);
    let fresh = fresh.map(|number| fresh_name(*number));
    let segments = manifest
        .segments
        .iter()
        .map(|segment| segment_name(segment.number));
    let named: Vec<String> = fresh.chain(segments).collect();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        let Some(name) = name.to_str() else { continue };
        let is_ours = name.ends_with(".fresh") || name.ends_with(".segment");
        if is_ours && !named.iter().any(|it| it == name) {
            tracing::info!(file = name, "deleted a leftover of the store");
            std::fs::remove_file(folder.join(name))?;
        }
    }
    Ok(())
}
