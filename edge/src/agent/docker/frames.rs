//! The log stream of a container to entries, as the engine's `GET /containers/{id}/logs` sends it
//! with timestamps. Pure.
//!
//! With a terminal the stream is lines `<time> <text>\n`. Without one it is frames, each one entry:
//! a byte for the stream (1 stdout, 2 stderr), three of zero, the length as four bytes in network
//! order, then `<time> <text>\n`. A line that is too long for the engine (16 KiB) comes as several
//! entries, of which only the last ends in a newline.

use thinglog_schemas::{batch::MAX_MESSAGE, json};

use crate::agent::lines::{Line, Lines};

/// The longest entry that is kept: a message and its time.
const MAX_ENTRY: usize = MAX_MESSAGE + 64;
const HEADER: usize = 8;

/// Where a container wrote to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Output {
    Stdout,
    Stderr,
}

/// One entry of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    pub(super) output: Output,
    /// Nanoseconds since the epoch; `None` where there is none to be read.
    pub(super) time: Option<u64>,
    pub(super) text: &'a [u8],
    /// The line ends with it.
    pub(super) ends: bool,
    pub(super) truncated: bool,
}

/// The stream is not what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the engine sent a frame of stream {0}, which there is none of")]
pub(super) struct BadFrame(u8);

/// Collects bytes and gives out entries.
pub(super) enum Entries {
    Terminal(Lines),
    Frames(Frames),
}

impl Entries {
    /// Of a container with or without a terminal.
    pub(super) fn new(terminal: bool) -> Entries {
        if terminal {
            Entries::Terminal(Lines::up_to(MAX_ENTRY))
        } else {
            Entries::Frames(Frames::default())
        }
    }

    pub(super) fn feed(
        &mut self,
        bytes: &[u8],
        mut each: impl FnMut(Entry<'_>),
    ) -> Result<(), BadFrame> {
        match self {
            Entries::Terminal(lines) => {
                lines.feed(bytes, |line| each(line_entry(line)));
                Ok(())
            }
            Entries::Frames(frames) => frames.feed(bytes, each),
        }
    }
}

fn line_entry(line: Line<'_>) -> Entry<'_> {
    let (time, text) = split_time(line.bytes);
    Entry {
        output: Output::Stdout,
        time,
        text,
        ends: true,
        truncated: line.truncated,
    }
}

/// The time at the beginning, and what follows it.
fn split_time(bytes: &[u8]) -> (Option<u64>, &[u8]) {
    let Some(end) = bytes.iter().take(40).position(|byte| *byte == b' ') else {
        return (None, bytes);
    };
    let time = std::str::from_utf8(&bytes[..end]).ok();
    match time.and_then(json::parse_time) {
        Some(time) => (Some(time), &bytes[end + 1..]),
        None => (None, bytes),
    }
}

#[derive(Default)]
pub(super) struct Frames {
    header: Vec<u8>,
    /// Bytes of the frame that are still to come, once the header is there.
    left: usize,
    payload: Vec<u8>,
    cut: bool,
}

impl Frames {
    fn feed(&mut self, mut bytes: &[u8], mut each: impl FnMut(Entry<'_>)) -> Result<(), BadFrame> {
        while !bytes.is_empty() {
            let wanted = HEADER - self.header.len();
            if wanted > 0 {
                let (head, rest) = bytes.split_at(wanted.min(bytes.len()));
                self.header.extend_from_slice(head);
                bytes = rest;
                if let [stream, 0, 0, 0, a, b, c, d] = self.header[..] {
                    if stream > 3 {
                        return Err(BadFrame(stream));
                    }
                    self.left = u32::from_be_bytes([a, b, c, d]) as usize;
                } else if self.header.len() == HEADER {
                    return Err(BadFrame(self.header[0]));
                }
            }
            if self.header.len() == HEADER {
                let (part, rest) = bytes.split_at(self.left.min(bytes.len()));
                bytes = rest;
                let room = MAX_ENTRY.saturating_sub(self.payload.len());
                self.payload
                    .extend_from_slice(&part[..part.len().min(room)]);
                self.cut |= part.len() > room;
                self.left -= part.len();
                if self.left == 0 {
                    self.give(&mut each);
                }
            }
        }
        Ok(())
    }

    fn give(&mut self, each: &mut impl FnMut(Entry<'_>)) {
        let output = match self.header.first() {
            Some(1) => Some(Output::Stdout),
            Some(2) => Some(Output::Stderr),
            // 0 is stdin, which is not asked for; 3 is the engine's own trouble.
            Some(3) => {
                let text = String::from_utf8_lossy(&self.payload);
                tracing::warn!(%text, "the container engine reports");
                None
            }
            _ => None,
        };
        if let Some(output) = output {
            let (time, text) = split_time(&self.payload);
            let (text, ends) = match text {
                [text @ .., b'\r', b'\n'] | [text @ .., b'\n'] => (text, true),
                // What was cut had an end, as far as anybody can tell.
                text => (text, self.cut),
            };
            each(Entry {
                output,
                time,
                text,
                ends,
                truncated: self.cut,
            });
        }
        self.header.clear();
        self.payload.clear();
        self.payload.shrink_to(16 << 10);
        self.cut = false;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(stream: u8, text: &str) -> Vec<u8> {
        let length = u32::try_from(text.len()).unwrap().to_be_bytes();
        [&[stream, 0, 0, 0], &length[..], text.as_bytes()].concat()
    }

    type Seen = (Output, Option<u64>, String, bool);

    fn entries(terminal: bool, chunks: &[&[u8]]) -> Result<Vec<Seen>, BadFrame> {
        let mut entries = Entries::new(terminal);
        let mut seen = Vec::new();
        for chunk in chunks {
            entries.feed(chunk, |entry| {
                let text = String::from_utf8_lossy(entry.text).into_owned();
                seen.push((entry.output, entry.time, text, entry.ends));
            })?;
        }
        Ok(seen)
    }

    const T: &str = "2026-11-21T10:49:52.089366911Z";

    fn at() -> Option<u64> {
        json::parse_time(T)
    }

    #[test]
    fn frames_are_entries_of_their_stream() {
        let input = [
            frame(1, &format!("{T} out\n")),
            frame(2, &format!("{T} err\r\n")),
            frame(1, &format!("{T} half")),
            frame(1, &format!("{T}  and half\n")),
            frame(1, "no time\n"),
            frame(1, ""),
        ]
        .concat();
        let expected = [
            (Output::Stdout, at(), "out".into(), true),
            (Output::Stderr, at(), "err".into(), true),
            (Output::Stdout, at(), "half".into(), false),
            (Output::Stdout, at(), " and half".into(), true),
            (Output::Stdout, None, "no time".into(), true),
            (Output::Stdout, None, String::new(), false),
        ];
        assert_eq!(entries(false, &[&input]).unwrap(), expected);
    }

    #[test]
    fn the_lines_of_a_terminal_are_entries() {
        let input = format!("{T} one\r\n{T} two\n");
        let expected = [
            (Output::Stdout, at(), "one".into(), true),
            (Output::Stdout, at(), "two".into(), true),
        ];
        assert_eq!(entries(true, &[input.as_bytes()]).unwrap(), expected);
    }

    #[test]
    fn what_is_no_frame_is_an_error() {
        assert_eq!(entries(false, &[b"2026-11-21"]), Err(BadFrame(b'2')));
        assert_eq!(entries(false, &[&frame(4, "x")]), Err(BadFrame(4)));
    }

    #[test]
    fn a_frame_that_is_too_long_is_cut_and_the_next_one_is_whole() {
        let long = frame(1, &format!("{T} {}\n", "x".repeat(2 * MAX_ENTRY)));
        let input = [long, frame(1, &format!("{T} next\n"))].concat();
        let seen = entries(false, &[&input]).unwrap();
        assert_eq!(seen[0].2.len(), MAX_ENTRY - T.len() - 1);
        assert!(seen[0].3);
        assert_eq!(seen[1].2, "next");
    }

    proptest! {
        #[test]
        fn how_the_bytes_are_chunked_does_not_matter(
            texts in proptest::collection::vec("[a-z ]{0,20}\n?", 0..8), at in 1usize..20,
        ) {
            let input: Vec<u8> = texts.iter().flat_map(|text| frame(1, &format!("{T} {text}"))).collect();
            let chunks: Vec<&[u8]> = input.chunks(at).collect();
            prop_assert_eq!(entries(false, &chunks), entries(false, &[&input]));
        }

        #[test]
        fn no_bytes_are_too_odd(bytes in any::<Vec<u8>>()) {
            let _ = entries(false, &[&bytes]);
            entries(true, &[&bytes]).unwrap();
        }
    }
}
