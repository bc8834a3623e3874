//! Where reading stands: which file, how far, and how to know it again.

use std::{fs::Metadata, os::unix::fs::MetadataExt};

use serde::{Deserialize, Serialize};

/// What the file system calls a file by, whatever its name.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub(crate) struct FileId {
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

impl FileId {
    pub(crate) fn of(metadata: &Metadata) -> FileId {
        FileId {
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }
}

/// Which file, and how far: everything below `offset` was published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Position {
    pub(crate) id: FileId,
    pub(crate) offset: u64,
    /// `offset` is within a line that was too long and was published cut.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) passing_over: bool,
    /// Length and hash of the file's first bytes.
    pub(crate) fingerprint: (usize, u64),
    /// When it was last written to as far as is known, ns since the epoch.
    #[serde(default)]
    pub(crate) modified: u64,
}

/// Bytes of a position in a mark.
const LENGTH: usize = 43;

/// Positions as a few bytes, to travel with the events that end there: for each its numbers, little
/// endian, in the order of the fields; the length of the fingerprint has two bytes, the flag one.
pub(crate) fn encode(positions: &[Position]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(positions.len() * LENGTH);
    for position in positions {
        bytes.extend_from_slice(&position.id.device.to_le_bytes());
        bytes.extend_from_slice(&position.id.inode.to_le_bytes());
        bytes.extend_from_slice(&position.offset.to_le_bytes());
        bytes.push(position.passing_over.into());
        let length = u16::try_from(position.fingerprint.0).unwrap_or(0);
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&position.fingerprint.1.to_le_bytes());
        bytes.extend_from_slice(&position.modified.to_le_bytes());
    }
    bytes
}

/// Changes the offset of the position with the number `at`.
pub(crate) fn set_offset(encoded: &mut [u8], at: usize, offset: u64) {
    const OFFSET: usize = 16;
    let start = at * LENGTH + OFFSET;
    if let Some(bytes) = encoded.get_mut(start..start + 8) {
        bytes.copy_from_slice(&offset.to_le_bytes());
    }
}

/// What [`encode`] made; `None` of anything else.
pub(crate) fn decode(bytes: &[u8]) -> Option<Vec<Position>> {
    if !bytes.len().is_multiple_of(LENGTH) {
        return None;
    }
    bytes.chunks_exact(LENGTH).map(decode_one).collect()
}

fn decode_one(bytes: &[u8]) -> Option<Position> {
    let long = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let length = u16::from_le_bytes(bytes.get(25..27)?.try_into().ok()?);
    Some(Position {
        id: FileId {
            device: long(0)?,
            inode: long(8)?,
        },
        offset: long(16)?,
        passing_over: *bytes.get(24)? != 0,
        fingerprint: (length.into(), long(27)?),
        modified: long(35)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_come_back_from_their_bytes_and_nothing_else_does() {
        let position = |n: u64| Position {
            id: FileId {
                device: n,
                inode: u64::MAX - n,
            },
            offset: n << 40,
            passing_over: n % 2 == 1,
            fingerprint: (256, n * 77),
            modified: 1_767_225_600_000_000_001,
        };
        let positions = [position(1), position(2)];
        let mut bytes = encode(&positions);
        assert_eq!(bytes.len(), 2 * LENGTH);
        assert_eq!(decode(&bytes).unwrap(), positions);
        set_offset(&mut bytes, 1, 5);
        let moved = Position {
            offset: 5,
            ..positions[1]
        };
        assert_eq!(decode(&bytes).unwrap(), [positions[0], moved]);
        assert_eq!(decode(&[]), Some(Vec::new()));
        assert_eq!(decode(&bytes[1..]), None);
    }
}
