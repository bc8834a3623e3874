//! Bytes on disk: the identity file, segment headers and record frames. Pure; the layout itself is
//! described in the head of the crate.

/// Name of the identity file within a journal's directory.
pub(crate) const IDENTITY: &str = "journal";
/// The identity file while it is being made.
pub(crate) const IDENTITY_TEMP: &str = "journal.tmp";
pub(crate) const IDENTITY_LEN: usize = 24;
pub(crate) const SEGMENT_HEADER: usize = 32;
pub(crate) const RECORD_HEADER: usize = 24;
/// The journal's bound on a payload, whatever the options say; keeps a damaged length from asking
/// for gigabytes.
pub(crate) const MAX_PAYLOAD: usize = 256 << 20;

const IDENTITY_MAGIC: [u8; 8] = *b"tlog-jnl";
const SEGMENT_MAGIC: [u8; 8] = *b"tlog-seg";
const VERSION: u32 = 1;

/// Why a header was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadHeader {
    /// Too short, wrong magic or wrong checksum.
    Damaged,
    /// Intact, written by a newer layout.
    Version(u32),
    /// Intact, and of the journal with this id.
    OtherJournal(u64),
    /// Intact, and of the segment with this first offset.
    OtherSegment(u64),
}

pub(crate) fn u32_at(buf: &[u8], at: usize) -> Option<u32> {
    let bytes = buf.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

pub(crate) fn u64_at(buf: &[u8], at: usize) -> Option<u64> {
    let bytes = buf.get(at..at.checked_add(8)?)?;
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

/// Appends the checksum of all that is in `out`.
pub(crate) fn close_with_crc(out: &mut Vec<u8>) {
    let crc = crc32fast::hash(out);
    out.extend_from_slice(&crc.to_le_bytes());
}

/// The part before a trailing checksum, when the checksum is right.
pub(crate) fn checked(buf: &[u8]) -> Option<&[u8]> {
    let (body, crc) = buf.split_at_checked(buf.len().checked_sub(4)?)?;
    (u32_at(crc, 0)? == crc32fast::hash(body)).then_some(body)
}

fn versioned(buf: &[u8], magic: [u8; 8]) -> Result<&[u8], BadHeader> {
    let body = checked(buf).ok_or(BadHeader::Damaged)?;
    if !body.starts_with(&magic) {
        return Err(BadHeader::Damaged);
    }
    match u32_at(body, 8) {
        Some(VERSION) => Ok(body),
        Some(other) => Err(BadHeader::Version(other)),
        None => Err(BadHeader::Damaged),
    }
}

pub(crate) fn encode_identity(id: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(IDENTITY_LEN);
    out.extend_from_slice(&IDENTITY_MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&id.to_le_bytes());
    close_with_crc(&mut out);
    out
}

pub(crate) fn decode_identity(buf: &[u8]) -> Result<u64, BadHeader> {
    let body = versioned(buf, IDENTITY_MAGIC)?;
    if buf.len() != IDENTITY_LEN {
        return Err(BadHeader::Damaged);
    }
    u64_at(body, 12).ok_or(BadHeader::Damaged)
}

pub(crate) fn encode_segment_header(id: u64, first: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(SEGMENT_HEADER);
    out.extend_from_slice(&SEGMENT_MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&id.to_le_bytes());
    out.extend_from_slice(&first.to_le_bytes());
    close_with_crc(&mut out);
    out
}

/// The journal id and first offset an intact segment header names.
pub(crate) fn decode_segment_header(buf: &[u8]) -> Result<(u64, u64), BadHeader> {
    let header = buf.get(..SEGMENT_HEADER).ok_or(BadHeader::Damaged)?;
    let body = versioned(header, SEGMENT_MAGIC)?;
    match (u64_at(body, 12), u64_at(body, 20)) {
        (Some(id), Some(first)) => Ok((id, first)),
        _ => Err(BadHeader::Damaged),
    }
}

pub(crate) fn check_segment_header(buf: &[u8], id: u64, first: u64) -> Result<(), BadHeader> {
    match decode_segment_header(buf)? {
        (found, _) if found != id => Err(BadHeader::OtherJournal(found)),
        (_, found) if found != first => Err(BadHeader::OtherSegment(found)),
        _ => Ok(()),
    }
}

/// What a segment's files are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) first: u64,
    /// It stands in the place of all segments below this.
    pub(crate) through: Option<u64>,
}

impl Name {
    pub(crate) fn plain(first: u64) -> Name {
        Name {
            first,
            through: None,
        }
    }

    fn stem(self) -> String {
        match self.through {
            Some(through) => format!("{:020}-{through:020}", self.first),
            None => format!("{:020}", self.first),
        }
    }

    pub(crate) fn segment(self) -> String {
        self.stem() + ".seg"
    }

    pub(crate) fn index(self) -> String {
        self.stem() + ".idx"
    }

    /// Set aside by recovery.
    pub(crate) fn bad(self) -> String {
        self.stem() + ".bad"
    }

    /// Not in its place yet.
    pub(crate) fn unfinished(self) -> String {
        self.stem() + ".new"
    }

    /// The name without its extension.
    pub(crate) fn parse(stem: &str) -> Option<Name> {
        let (first, through) = match stem.split_once('-') {
            Some((first, through)) => (first, Some(through)),
            None => (stem, None),
        };
        let number = |digits: &str| {
            let plain = digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit());
            plain.then(|| digits.parse().ok())?
        };
        Some(Name {
            first: number(first)?,
            through: match through {
                Some(through) => Some(number(through)?),
                None => None,
            },
        })
    }
}

/// What every record checksum of a journal is mixed with, so that a record of another journal
/// (a copied file, a payload that carries a journal) never passes for one of this.
pub(crate) fn key(id: u64) -> u32 {
    crc32fast::hash(&id.to_le_bytes())
}

/// The fixed part of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// Payload bytes.
    pub(crate) len: usize,
    pub(crate) crc: u32,
    pub(crate) offset: u64,
    pub(crate) time: u64,
}

impl Head {
    /// Reads a head at the start of `buf`; says nothing about its truth.
    pub(crate) fn read(buf: &[u8]) -> Option<Head> {
        Some(Head {
            len: u32_at(buf, 0)? as usize,
            crc: u32_at(buf, 4)?,
            offset: u64_at(buf, 8)?,
            time: u64_at(buf, 16)?,
        })
    }

    /// Bytes of the whole record.
    pub(crate) fn frame(&self) -> usize {
        RECORD_HEADER + self.len
    }
}

/// Starts a record in `buf`: a head to be filled in. Returns where it starts.
pub(crate) fn open_frame(buf: &mut Vec<u8>) -> usize {
    let start = buf.len();
    buf.resize(start + RECORD_HEADER, 0);
    start
}

/// Completes the record that starts at `start` and ends with `buf`, but for offset and time: the
/// checksum covers the payload first, so that the costly part is done before an offset is known.
pub(crate) fn close_frame(buf: &mut [u8], start: usize) {
    let Some((head, payload)) = buf
        .get_mut(start..)
        .and_then(|frame| frame.split_at_mut_checked(RECORD_HEADER))
    else {
        return;
    };
    // A payload beyond u32 never gets this far: `append` refuses it by its true size.
    let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    head[..4].copy_from_slice(&len.to_le_bytes());
    head[4..8].copy_from_slice(&crc32fast::hash(payload).to_le_bytes());
}

/// Gives offsets from `first` on and `time` to the closed frames in `frames`.
pub(crate) fn stamp(mut frames: &mut [u8], first: u64, time: u64, key: u32) {
    let mut offset = first;
    while let Some(head) = Head::read(frames) {
        let Some((frame, rest)) = frames.split_at_mut_checked(head.frame()) else {
            return;
        };
        frame[8..16].copy_from_slice(&offset.to_le_bytes());
        frame[16..24].copy_from_slice(&time.to_le_bytes());
        let mut crc = crc32fast::Hasher::new_with_initial(head.crc);
        crc.update(&frame[8..RECORD_HEADER]);
        let crc = crc.finalize() ^ key;
        frame[4..8].copy_from_slice(&crc.to_le_bytes());
        offset += 1;
        frames = rest;
    }
}

/// The head of the record at the start of `buf`, if the whole record is there and its checksum right.
pub(crate) fn intact(buf: &[u8], key: u32) -> Option<Head> {
    let head = Head::read(buf)?;
    let payload = buf.get(RECORD_HEADER..head.frame())?;
    let mut crc = crc32fast::Hasher::new();
    crc.update(payload);
    crc.update(&buf[8..RECORD_HEADER]);
    (crc.finalize() ^ key == head.crc).then_some(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(payload: &[u8], offset: u64, time: u64, key: u32) -> Vec<u8> {
        let mut buf = Vec::new();
        let start = open_frame(&mut buf);
        buf.extend_from_slice(payload);
        close_frame(&mut buf, start);
        stamp(&mut buf, offset, time, key);
        buf
    }

    #[test]
    fn a_stamped_record_reads_back() {
        let buf = record(b"hello", 7, 99, 5);
        let head = intact(&buf, 5).unwrap();
        assert_eq!((head.len, head.offset, head.time), (5, 7, 99));
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let buf = record(b"hello", 7, 99, 5);
        for bit in 0..buf.len() * 8 {
            let mut bad = buf.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(intact(&bad, 5), None, "bit {bit}");
        }
    }

    #[test]
    fn a_record_of_another_journal_is_not_intact() {
        assert_eq!(intact(&record(b"hello", 7, 99, key(1)), key(2)), None);
    }

    #[test]
    fn zeros_are_not_a_record() {
        assert_eq!(intact(&[0; 64], key(0x1234)), None);
    }

    #[test]
    fn headers_name_what_is_wrong_with_them() {
        let header = encode_segment_header(3, 40);
        assert_eq!(header.len(), SEGMENT_HEADER);
        assert_eq!(check_segment_header(&header, 3, 40), Ok(()));
        assert_eq!(
            check_segment_header(&header, 4, 40),
            Err(BadHeader::OtherJournal(3))
        );
        assert_eq!(
            check_segment_header(&header, 3, 41),
            Err(BadHeader::OtherSegment(40))
        );
        assert_eq!(
            check_segment_header(&header[..31], 3, 40),
            Err(BadHeader::Damaged)
        );
        let mut newer = header[..28].to_vec();
        newer[8] = 9;
        close_with_crc(&mut newer);
        assert_eq!(
            check_segment_header(&newer, 3, 40),
            Err(BadHeader::Version(9))
        );
        assert_eq!(decode_identity(&encode_identity(77)), Ok(77));
        assert_eq!(decode_identity(&header), Err(BadHeader::Damaged));
    }
}
