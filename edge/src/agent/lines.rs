//! Bytes to lines, whatever way they come in. A line that is longer than it may be (by default, than a
//! message) is cut, flagged, and read on to its end without being kept.

use thinglog_schemas::batch::MAX_MESSAGE;

/// Collects bytes and gives out whole lines.
#[derive(Debug)]
pub(crate) struct Lines {
    /// The longest line, bytes.
    max: usize,
    partial: Vec<u8>,
    /// Bytes of the unfinished line that were not kept.
    skipped: u64,
}

/// A line without its end (`\n` or `\r\n`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) truncated: bool,
}

impl Line<'_> {
    /// The text; what is not UTF-8 becomes U+FFFD.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(self.bytes).into_owned()
    }
}

impl Default for Lines {
    fn default() -> Lines {
        Lines::up_to(MAX_MESSAGE)
    }
}

impl Lines {
    /// With lines of up to `max` bytes.
    pub(crate) fn up_to(max: usize) -> Lines {
        Lines {
            max,
            partial: Vec::new(),
            skipped: 0,
        }
    }

    /// Takes bytes and calls `each` for every line that is complete now. Empty lines are left out.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], mut each: impl FnMut(Line<'_>)) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (head, rest) = (&bytes[..end], &bytes[end + 1..]);
            bytes = rest;
            if self.partial.is_empty() && head.len() <= self.max {
                give(head, false, self.max, &mut each);
            } else {
                self.keep(head);
                self.finish(&mut each);
            }
        }
        self.keep(bytes);
    }

    /// The end of the input: what is there is the last line.
    pub(crate) fn finish(&mut self, mut each: impl FnMut(Line<'_>)) {
        let truncated = self.skipped > 0;
        give(&self.partial, truncated, self.max, &mut each);
        self.partial.clear();
        self.skipped = 0;
        if self.partial.capacity() > 2 * MAX_LINE_BUFFER {
            self.partial.shrink_to(MAX_LINE_BUFFER);
        }
    }

    /// Bytes taken of the line that is not complete yet.
    pub(crate) fn pending(&self) -> u64 {
        self.partial.len() as u64 + self.skipped
    }

    fn keep(&mut self, bytes: &[u8]) {
        // One byte more than a line, so that a `\r` at the limit is still seen as the line's end.
        let room = (self.max + 1).saturating_sub(self.partial.len());
        let kept = bytes.len().min(room);
        self.partial.extend_from_slice(&bytes[..kept]);
        self.skipped += (bytes.len() - kept) as u64;
    }
}

/// What a line buffer keeps between long lines.
const MAX_LINE_BUFFER: usize = 16 << 10;

fn give(line: &[u8], truncated: bool, max: usize, each: &mut impl FnMut(Line<'_>)) {
    let line = match line {
        [head @ .., b'\r'] if !truncated => head,
        line => line,
    };
    if line.is_empty() {
        return;
    }
    let cut = cut_point(line, max);
    each(Line {
        bytes: &line[..cut],
        truncated: truncated || cut < line.len(),
    });
}

/// Where a line is cut: at the limit, but not within a character.
fn cut_point(line: &[u8], max: usize) -> usize {
    if line.len() <= max {
        return line.len();
    }
    let is_boundary = |at: &usize| line[*at] & 0b1100_0000 != 0b1000_0000;
    (max.saturating_sub(3)..=max)
        .rev()
        .find(is_boundary)
        .unwrap_or(max)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(chunks: &[&[u8]]) -> Vec<(Vec<u8>, bool)> {
        let mut lines = Lines::default();
        let mut out = Vec::new();
        for chunk in chunks {
            lines.feed(chunk, |line| {
                out.push((line.bytes.to_vec(), line.truncated))
            });
        }
        lines.finish(|line| out.push((line.bytes.to_vec(), line.truncated)));
        out
    }

    #[test]
    fn lines_end_at_newlines_and_at_the_end_of_the_input() {
        let out = lines(&[b"one\ntwo\r\n\nth", b"ree"]);
        let text: Vec<&[u8]> = out.iter().map(|(bytes, _)| &bytes[..]).collect();
        assert_eq!(text, [&b"one"[..], b"two", b"three"]);
    }

    #[test]
    fn a_line_at_the_limit_is_whole_and_a_longer_one_is_cut_and_flagged() {
        for (extra, truncated) in [(0, false), (1, true), (100_000, true)] {
            let mut input = vec![b'x'; MAX_MESSAGE + extra];
            input.extend_from_slice(b"\nnext\n");
            let chunks: Vec<&[u8]> = input.chunks(10_000).collect();
            let out = lines(&chunks);
            assert_eq!(out.len(), 2);
            assert_eq!(out[0], (vec![b'x'; MAX_MESSAGE], truncated));
            assert_eq!(out[1], (b"next".to_vec(), false));
        }
    }

    #[test]
    fn a_cut_line_ends_with_a_whole_character() {
        let mut input = "x".to_owned();
        input.push_str(&"é".repeat(MAX_MESSAGE));
        let out = lines(&[input.as_bytes()]);
        assert!(std::str::from_utf8(&out[0].0).is_ok());
        assert!(out[0].1);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn how_the_bytes_are_chunked_does_not_matter(
            input in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'a'), Just(b'\r')], 0..200),
            at in 1usize..20,
        ) {
            let chunks: Vec<&[u8]> = input.chunks(at).collect();
            prop_assert_eq!(lines(&chunks), lines(&[&input]));
        }
    }
}
