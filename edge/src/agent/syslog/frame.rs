//! A stream of syslog to messages (RFC 6587): octet counting and newlines, told apart at the
//! beginning of each message. Pure.
//!
//! A message that begins with a number, a blank and `<` is that many bytes long (section 3.4.1).
//! Any other ends at the next newline or NUL (section 3.4.2; the C library ends messages with NUL).
//! A message that is longer than it may be is cut, flagged, and read on to its end without being
//! kept. Empty ones are left out.

use crate::agent::lines::Line;

/// Digits of a count; a longer number is text.
const MAX_DIGITS: usize = 7;
/// What a buffer keeps between long messages, bytes.
const KEEP: usize = 4 << 10;

#[derive(Clone, Copy, Debug)]
enum Mode {
    /// At the beginning: `partial` holds what may be a count.
    Start,
    /// So many bytes are still to come.
    Counted(usize),
    /// Up to a newline or NUL.
    Line,
}

/// Collects bytes and gives out whole messages.
#[derive(Debug)]
pub(super) struct Frames {
    /// The longest message, bytes.
    max: usize,
    mode: Mode,
    partial: Vec<u8>,
    /// Bytes of the unfinished message were not kept.
    cut: bool,
}

impl Frames {
    pub(super) fn up_to(max: usize) -> Frames {
        Frames {
            max,
            mode: Mode::Start,
            partial: Vec::new(),
            cut: false,
        }
    }

    /// Takes bytes and calls `each` for every message that is complete now.
    pub(super) fn feed(&mut self, mut bytes: &[u8], mut each: impl FnMut(Line<'_>)) {
        while let Some(first) = bytes.first() {
            match self.mode {
                Mode::Start => {
                    if self.start(*first) {
                        bytes = &bytes[1..];
                    }
                }
                Mode::Counted(left) => {
                    let (part, rest) = bytes.split_at(left.min(bytes.len()));
                    bytes = rest;
                    if part.len() == left {
                        self.end(part, &mut each);
                    } else {
                        self.keep(part);
                        self.mode = Mode::Counted(left - part.len());
                    }
                }
                Mode::Line => match bytes.iter().position(|byte| is_end(*byte)) {
                    Some(end) => {
                        let (part, rest) = bytes.split_at(end);
                        bytes = &rest[1..];
                        self.end(part, &mut each);
                    }
                    None => {
                        self.keep(bytes);
                        return;
                    }
                },
            }
        }
    }

    /// The end of the stream: what is there is the last message, cut if it was to be longer.
    pub(super) fn finish(&mut self, mut each: impl FnMut(Line<'_>)) {
        self.cut |= matches!(self.mode, Mode::Counted(_));
        self.end(&[], &mut each);
    }

    /// Looks at a byte at the beginning of a message; true when it was taken.
    fn start(&mut self, byte: u8) -> bool {
        let counting = self.partial.last().is_none_or(u8::is_ascii_digit);
        match byte {
            b'\n' | b'\r' | 0 if self.partial.is_empty() => true,
            // A count does not begin with 0.
            b'0' | b' ' if self.partial.is_empty() => {
                self.mode = Mode::Line;
                false
            }
            b'0'..=b'9' if counting && self.partial.len() < MAX_DIGITS => {
                self.partial.push(byte);
                true
            }
            b' ' if counting => {
                self.partial.push(byte);
                true
            }
            b'<' if !counting => {
                let digits = self.partial.iter().take_while(|byte| byte.is_ascii_digit());
                let count = digits.fold(0, |n, digit| n * 10 + usize::from(digit - b'0'));
                self.mode = Mode::Counted(count);
                self.partial.clear();
                false
            }
            _ => {
                self.mode = Mode::Line;
                false
            }
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = self.max.saturating_sub(self.partial.len());
        let kept = bytes.len().min(room);
        self.partial.extend_from_slice(&bytes[..kept]);
        self.cut |= kept < bytes.len();
    }

    fn end(&mut self, last: &[u8], each: &mut impl FnMut(Line<'_>)) {
        if self.partial.is_empty() && last.len() <= self.max {
            give(last, self.cut, each);
        } else {
            self.keep(last);
            give(&self.partial, self.cut, each);
            self.partial.clear();
            self.partial.shrink_to(KEEP);
        }
        self.mode = Mode::Start;
        self.cut = false;
    }
}

fn is_end(byte: u8) -> bool {
    matches!(byte, b'\n' | 0)
}

/// Without what ends it, be it counted or not.
pub(super) fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [head @ .., b'\n' | b'\r' | 0] = bytes {
        bytes = head;
    }
    bytes
}

fn give(bytes: &[u8], truncated: bool, each: &mut impl FnMut(Line<'_>)) {
    let bytes = if truncated { bytes } else { trim(bytes) };
    if !bytes.is_empty() {
        each(Line { bytes, truncated });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX: usize = 64;

    fn messages(chunks: &[&[u8]]) -> Vec<(String, bool)> {
        let mut frames = Frames::up_to(MAX);
        let mut out = Vec::new();
        let mut each = |line: Line<'_>| out.push((line.text(), line.truncated));
        for chunk in chunks {
            frames.feed(chunk, &mut each);
        }
        frames.finish(&mut each);
        out
    }

    fn whole(input: &str) -> Vec<String> {
        let messages = messages(&[input.as_bytes()]);
        assert!(messages.iter().all(|(_, cut)| !cut), "{messages:?}");
        messages.into_iter().map(|(text, _)| text).collect()
    }

    #[test]
    fn both_framings_may_alternate() {
        let input = "7 <13>a\nb<13>c\r\n10 <13>hello\n<13>d\0<13>e";
        let expected = ["<13>a\nb", "<13>c", "<13>hello", "<13>d", "<13>e"];
        assert_eq!(whole(input), expected);
    }

    #[test]
    fn a_number_alone_is_no_count() {
        let input = "0 <13>x\n12 monkeys\n2026-11-21 hello\n1234567890 <13>x\n7\n7 \n 7 <13>abc\n";
        let expected = [
            "0 <13>x",
            "12 monkeys",
            "2026-11-21 hello",
            "1234567890 <13>x",
            "7",
            "7 ",
            " 7 <13>abc",
        ];
        assert_eq!(whole(input), expected);
    }

    #[test]
    fn a_message_that_is_too_long_is_cut_and_the_next_one_is_not() {
        let long = "x".repeat(MAX + 36);
        let counted = format!("104 <13>{long}9 <13>after");
        let lines = format!("<13>{long}\n<13>after");
        for input in [counted, lines] {
            let out = messages(&[input.as_bytes()]);
            let expected = [
                (format!("<13>{}", "x".repeat(MAX - 4)), true),
                ("<13>after".to_owned(), false),
            ];
            assert_eq!(out, expected);
        }
    }

    #[test]
    fn the_end_of_the_stream_ends_a_message() {
        assert_eq!(messages(&[b"<13>half"]), [("<13>half".to_owned(), false)]);
        assert_eq!(messages(&[b"20 <13>half"]), [("<13>half".to_owned(), true)]);
        assert_eq!(messages(&[b"12"]), [("12".to_owned(), false)]);
        assert_eq!(messages(&[b"\n\n\0"]), []);
    }

    proptest! {
        #[test]
        fn how_the_bytes_are_chunked_does_not_matter(
            input in "([0-9]{1,8} ?|<13>|[a-z]{1,90}|\n|\0| ){0,30}", at in 1usize..20,
        ) {
            let chunks: Vec<&[u8]> = input.as_bytes().chunks(at).collect();
            prop_assert_eq!(messages(&chunks), messages(&[input.as_bytes()]));
        }

        #[test]
        fn counted_messages_come_back_as_they_were(
            sent in proptest::collection::vec("<13>[a-z0-9\n <>]{0,40}[a-z]", 0..10),
        ) {
            let input: String = sent.iter().map(|m| format!("{} {m}", m.len())).collect();
            prop_assert_eq!(whole(&input), sent);
        }
    }
}
