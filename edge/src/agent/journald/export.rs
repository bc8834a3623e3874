//! The journal export format, as `journalctl -o export` writes it, to entries. Pure.
//!
//! An entry is its fields, one after the other, and an empty line. A field of plain text is a line
//! `NAME=value`; any other is a line `NAME`, the length of the value as 64 bits, lowest byte first,
//! the value, and a newline (systemd: Journal Export Formats). Values are of any size; what is over
//! its limit is passed over and the entry flagged.

use thinglog_schemas::batch::MAX_MESSAGE;

/// The longest name of a field, bytes; journald allows 64.
const MAX_NAME: usize = 128;
/// The longest value of a field but the message, bytes.
const MAX_VALUE: usize = 4 << 10;
/// Fields of one entry, and the bytes of all but the message.
const MAX_FIELDS: usize = 256;
const MAX_FIELDS_BYTES: usize = 64 << 10;
const MESSAGE: &[u8] = b"MESSAGE";

/// One entry: its fields in the order they came. Of a field that comes more than once the first
/// counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    fields: Vec<(String, Vec<u8>)>,
    bytes: usize,
    /// Something of it was left out.
    pub(crate) truncated: bool,
}

impl Entry {
    pub(crate) fn get(&self, name: &str) -> Option<&[u8]> {
        let mut fields = self.fields.iter();
        let (_, value) = fields.find(|(known, _)| known == name)?;
        Some(value)
    }

    /// What is text.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.get(name)?).ok()
    }

    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }

    pub(crate) fn fields(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let fields = self.fields.iter();
        fields.map(|(name, value)| (name.as_str(), value.as_slice()))
    }

    fn add(&mut self, name: Vec<u8>, value: Vec<u8>, cut: bool) {
        self.truncated |= cut;
        let is_message = name == MESSAGE;
        let bytes = match is_message {
            true => 0,
            false => name.len() + value.len(),
        };
        let Ok(name) = String::from_utf8(name) else {
            return;
        };
        if self.get(&name).is_some() {
            return;
        }
        let room = self.fields.len() < MAX_FIELDS && self.bytes + bytes <= MAX_FIELDS_BYTES;
        if !room && !is_message {
            self.truncated = true;
            return;
        }
        self.bytes += bytes;
        self.fields.push((name, value));
    }
}

/// What the next byte is part of.
#[derive(Debug, Default)]
enum State {
    /// A name, so far.
    #[default]
    Name,
    /// A value of plain text.
    Text,
    /// The length of a value: what there is of it.
    Length(Vec<u8>),
    /// A value of which so many bytes are still to come.
    Bytes(u64),
    /// The newline behind it.
    End,
    /// The rest of a line that has no meaning.
    Rest,
}

/// Collects bytes and gives out entries.
#[derive(Debug, Default)]
pub(crate) struct Export {
    state: State,
    name: Vec<u8>,
    value: Vec<u8>,
    cut: bool,
    entry: Entry,
}

impl Export {
    /// Takes bytes and calls `each` for every entry that is complete now.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], mut each: impl FnMut(Entry)) {
        while !bytes.is_empty() {
            bytes = match &mut self.state {
                State::Name => self.name(bytes, &mut each),
                State::Text => self.text(bytes),
                State::Length(_) => self.length(bytes),
                State::Bytes(left) => {
                    let left = *left;
                    self.bytes(bytes, left)
                }
                State::End => {
                    self.take_field();
                    &bytes[1..]
                }
                State::Rest => self.rest(bytes),
            };
        }
    }

    fn name<'a>(&mut self, bytes: &'a [u8], each: &mut impl FnMut(Entry)) -> &'a [u8] {
        let Some(end) = memchr::memchr2(b'=', b'\n', bytes) else {
            self.name.extend_from_slice(bytes);
            return self.check_name(&[]);
        };
        self.name.extend_from_slice(&bytes[..end]);
        let rest = &bytes[end + 1..];
        self.state = match (bytes[end], self.name.is_empty()) {
            (b'=', _) => State::Text,
            (_, false) => State::Length(Vec::with_capacity(8)),
            (_, true) => {
                let entry = std::mem::take(&mut self.entry);
                if entry.fields().next().is_some() {
                    each(entry);
                }
                State::Name
            }
        };
        self.check_name(rest)
    }

    /// What is no name is passed over with its line.
    fn check_name<'a>(&mut self, rest: &'a [u8]) -> &'a [u8] {
        if self.name.len() > MAX_NAME {
            self.name.clear();
            self.entry.truncated = true;
            self.state = match self.state {
                State::Name | State::Text => State::Rest,
                _ => State::Name,
            };
        }
        rest
    }

    fn text<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let end = memchr::memchr(b'\n', bytes);
        self.keep(&bytes[..end.unwrap_or(bytes.len())]);
        let Some(end) = end else { return &[] };
        self.take_field();
        &bytes[end + 1..]
    }

    fn length<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let State::Length(length) = &mut self.state else {
            return bytes;
        };
        let (head, rest) = bytes.split_at(bytes.len().min(8 - length.len()));
        length.extend_from_slice(head);
        if let Ok(length) = <[u8; 8]>::try_from(length.as_slice()) {
            self.state = match u64::from_le_bytes(length) {
                0 => State::End,
                left => State::Bytes(left),
            };
        }
        rest
    }

    fn bytes<'a>(&mut self, bytes: &'a [u8], left: u64) -> &'a [u8] {
        let part = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        self.keep(&bytes[..part]);
        self.state = match left - part as u64 {
            0 => State::End,
            left => State::Bytes(left),
        };
        &bytes[part..]
    }

    fn rest<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        match memchr::memchr(b'\n', bytes) {
            Some(end) => {
                self.state = State::Name;
                &bytes[end + 1..]
            }
            None => &[],
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        let limit = match self.name == MESSAGE {
            // One more, so that the message is seen to be too long.
            true => MAX_MESSAGE + 1,
            false => MAX_VALUE,
        };
        let kept = bytes.len().min(limit.saturating_sub(self.value.len()));
        self.value.extend_from_slice(&bytes[..kept]);
        self.cut |= kept < bytes.len();
    }

    fn take_field(&mut self) {
        let (name, value) = (
            std::mem::take(&mut self.name),
            std::mem::take(&mut self.value),
        );
        self.entry.add(name, value, std::mem::take(&mut self.cut));
        self.state = State::Name;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entries(chunks: &[&[u8]]) -> Vec<Entry> {
        let mut export = Export::default();
        let mut all = Vec::new();
        for chunk in chunks {
            export.feed(chunk, |entry| all.push(entry));
        }
        all
    }

    fn binary(name: &str, value: &[u8]) -> Vec<u8> {
        let length = (value.len() as u64).to_le_bytes();
        [name.as_bytes(), b"\n", &length, value, b"\n"].concat()
    }

    #[test]
    fn fields_of_text_and_of_bytes_are_read_whatever_is_in_them() {
        let input = [
            b"__CURSOR=s=1;i=2\nMESSAGE=a = b\nEMPTY=\n".to_vec(),
            binary("BIN", b"one\n\ntwo\0=\n"),
            binary("NONE", b""),
            b"MESSAGE=again\n\n\n_PID=7\n\n_PID=8\n".to_vec(),
        ]
        .concat();
        let all = entries(&[&input]);
        assert_eq!(all.len(), 2, "the last one has no end yet");
        let first = &all[0];
        assert_eq!(first.text("__CURSOR"), Some("s=1;i=2"));
        assert_eq!(first.text("MESSAGE"), Some("a = b"));
        assert_eq!(first.get("BIN"), Some(&b"one\n\ntwo\0=\n"[..]));
        assert_eq!(
            (first.get("EMPTY"), first.get("NONE")),
            (Some(&b""[..]), Some(&b""[..]))
        );
        assert_eq!((all[1].number("_PID"), first.truncated), (Some(7), false));
    }

    #[test]
    fn what_is_too_long_is_cut_and_what_follows_is_whole() {
        let long = vec![b'x'; MAX_MESSAGE + 100];
        for message in [
            binary("MESSAGE", &long),
            [b"MESSAGE=", &long[..], b"\n"].concat(),
        ] {
            let input = [&message[..], b"_PID=7\n\n_PID=8\n\n"].concat();
            let chunks: Vec<&[u8]> = input.chunks(1000).collect();
            let all = entries(&chunks);
            assert_eq!(all[0].get("MESSAGE").unwrap().len(), MAX_MESSAGE + 1);
            assert_eq!((all[0].truncated, all[0].number("_PID")), (true, Some(7)));
            assert_eq!((all[1].truncated, all[1].number("_PID")), (false, Some(8)));
        }
    }

    #[test]
    fn an_entry_takes_no_memory_without_end() {
        let mut export = Export::default();
        for n in 0..100_000u32 {
            export.feed(format!("F{n}={}\n", "x".repeat(100)).as_bytes(), |_| {
                panic!("no end")
            });
        }
        export.feed(&vec![b'N'; 1 << 20], |_| panic!("no end"));
        assert!(export.name.len() <= MAX_NAME && export.entry.fields.len() <= MAX_FIELDS);
        let mut last = None;
        export.feed(b"\nMESSAGE=here\n\n", |entry| last = Some(entry));
        let last = last.unwrap();
        assert_eq!((last.text("MESSAGE"), last.truncated), (Some("here"), true));
    }

    proptest! {
        #[test]
        fn how_the_bytes_are_chunked_does_not_matter(
            fields in proptest::collection::vec(("[A-Z]{1,4}", any::<Vec<u8>>(), any::<bool>()), 0..20),
            at in 1usize..30,
        ) {
            let mut input = Vec::new();
            for (name, value, ends) in &fields {
                input.extend(binary(name, value));
                if *ends {
                    input.push(b'\n');
                }
            }
            let chunks: Vec<&[u8]> = input.chunks(at).collect();
            prop_assert_eq!(entries(&chunks), entries(&[&input]));
        }

        #[test]
        fn no_bytes_are_too_odd(bytes in any::<Vec<u8>>()) {
            entries(&[&bytes]);
        }
    }
}
