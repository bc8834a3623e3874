//! Bytes to lines, whatever way they come in. A line that is longer than it may be (by default, than a
//! message) is given out cut and flagged as soon as that is known, and its rest is passed over.
//! Runs of NUL before a line, which a file that was truncated under its writer begins with, are none
//! of the line's.

use memchr::memchr;
use thinglog_schemas::batch::MAX_MESSAGE;

/// How a newline looks in the bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Newline {
    /// One byte: UTF-8 and all its elders.
    #[default]
    Byte,
    /// UTF-16, the lower byte first.
    Little,
    /// UTF-16, the higher byte first.
    Big,
}

impl Newline {
    fn width(self) -> usize {
        match self {
            Newline::Byte => 1,
            Newline::Little | Newline::Big => 2,
        }
    }

    fn unit(self, character: u8) -> [u8; 2] {
        match self {
            Newline::Byte | Newline::Little => [character, 0],
            Newline::Big => [0, character],
        }
    }

    /// Where the first newline begins.
    fn find(self, bytes: &[u8]) -> Option<usize> {
        if self == Newline::Byte {
            return memchr(b'\n', bytes);
        }
        let newline = self.unit(b'\n');
        let unit = bytes.chunks_exact(2).position(|unit| unit == newline)?;
        Some(2 * unit)
    }
}

/// Collects bytes and gives out whole lines.
#[derive(Debug)]
pub(crate) struct Lines {
    /// The longest line, bytes.
    max: usize,
    newline: Newline,
    partial: Vec<u8>,
    /// The first half of a character of two bytes.
    half: Option<u8>,
    /// The line was given out, its end was not seen yet.
    passing_over: bool,
    /// Bytes taken so far.
    taken: u64,
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
            newline: Newline::Byte,
            partial: Vec::new(),
            half: None,
            passing_over: false,
            taken: 0,
        }
    }

    /// From now on, lines end like this.
    pub(crate) fn set_newline(&mut self, newline: Newline) {
        self.newline = newline;
    }

    /// `taken` bytes were read before, up to the beginning of a line, or with `passing_over` to
    /// somewhere within a line that was given out.
    pub(crate) fn continue_at(&mut self, taken: u64, passing_over: bool) {
        self.taken = taken;
        self.passing_over = passing_over;
        self.partial.clear();
        self.half = None;
    }

    /// Takes bytes and calls `each` for every line that is complete now. Empty lines are left out.
    pub(crate) fn feed(&mut self, bytes: &[u8], mut each: impl FnMut(Line<'_>)) {
        self.feed_all(bytes, |line, _| {
            if !line.bytes.is_empty() {
                each(line);
            }
        });
    }

    /// The same with empty lines, and how many bytes there were up to the end of each line.
    pub(crate) fn feed_all(&mut self, mut bytes: &[u8], mut each: impl FnMut(Line<'_>, u64)) {
        if self.newline.width() == 2 {
            if let (Some(half), Some(other)) = (self.half, bytes.first()) {
                self.half = None;
                let unit = [half, *other];
                bytes = &bytes[1..];
                // The half was counted when it came.
                self.taken -= 1;
                self.feed_whole(&unit, &mut each);
            }
            if bytes.len() % 2 == 1 {
                self.half = bytes.last().copied();
                self.feed_whole(&bytes[..bytes.len() - 1], &mut each);
                self.taken += 1;
                return;
            }
        }
        self.feed_whole(bytes, &mut each);
    }

    /// Whole characters only.
    fn feed_whole(&mut self, mut bytes: &[u8], each: &mut impl FnMut(Line<'_>, u64)) {
        while let Some(end) = self.newline.find(bytes) {
            let head = &bytes[..end];
            let through = end + self.newline.width();
            bytes = &bytes[through..];
            self.taken += through as u64;
            if std::mem::take(&mut self.passing_over) {
                continue;
            }
            if self.partial.is_empty() {
                self.give(self.without_nuls(head), self.taken, each);
            } else {
                self.keep(head, self.taken, each);
                if !std::mem::take(&mut self.passing_over) {
                    self.give_partial(each);
                }
            }
        }
        self.taken += bytes.len() as u64;
        if !self.passing_over {
            let bytes = match self.partial.is_empty() {
                true => self.without_nuls(bytes),
                false => bytes,
            };
            self.keep(bytes, self.taken, each);
        }
    }

    /// The end of the input: what is there is the last line.
    pub(crate) fn finish_all(&mut self, mut each: impl FnMut(Line<'_>, u64)) {
        if let Some(half) = self.half.take() {
            self.partial.push(half);
        }
        if !self.partial.is_empty() {
            self.give_partial(&mut each);
        }
        self.passing_over = false;
    }

    /// Bytes taken so far.
    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }

    /// Forgets the line that is not complete, to be fed again; returns how many bytes that are.
    pub(crate) fn forget(&mut self) -> usize {
        let held = self.held();
        self.half = None;
        self.forget_partial();
        self.taken -= held as u64;
        held
    }

    /// Passes over `bytes` that are NUL, between two lines.
    pub(crate) fn skip(&mut self, bytes: u64) {
        self.taken += bytes;
    }

    /// Whether a run of NUL now would be none of any line.
    pub(crate) fn is_between_lines(&self) -> bool {
        self.newline == Newline::Byte && self.held() == 0 && !self.passing_over
    }

    /// Bytes that are held of the line that is not complete yet.
    pub(crate) fn held(&self) -> usize {
        self.partial.len() + usize::from(self.half.is_some())
    }

    /// A line was given out cut and its end was not seen yet.
    pub(crate) fn passing_over(&self) -> bool {
        self.passing_over
    }

    /// Adds to the line that is not complete; one that became too long is given out.
    fn keep(&mut self, bytes: &[u8], at: u64, each: &mut impl FnMut(Line<'_>, u64)) {
        // One character more than a line, so that a `\r` at the limit is still seen as the line's end.
        let room = (self.max + self.newline.width()).saturating_sub(self.partial.len());
        if bytes.len() <= room {
            self.partial.extend_from_slice(bytes);
            return;
        }
        self.partial.extend_from_slice(&bytes[..room]);
        let cut = self.cut_point(&self.partial);
        let line = Line {
            bytes: &self.partial[..cut],
            truncated: true,
        };
        each(line, at);
        self.forget_partial();
        self.passing_over = true;
    }

    fn give_partial(&mut self, each: &mut impl FnMut(Line<'_>, u64)) {
        self.give(&self.partial, self.taken, each);
        self.forget_partial();
    }

    fn forget_partial(&mut self) {
        self.partial.clear();
        self.partial.shrink_to(MAX_LINE_BUFFER);
    }

    fn give(&self, line: &[u8], at: u64, each: &mut impl FnMut(Line<'_>, u64)) {
        let width = self.newline.width();
        let line = match line.strip_suffix(&self.newline.unit(b'\r')[..width]) {
            Some(head) => head,
            None => line,
        };
        let cut = self.cut_point(line);
        let given = Line {
            bytes: &line[..cut],
            truncated: cut < line.len(),
        };
        each(given, at);
    }

    fn without_nuls<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        if self.newline != Newline::Byte || bytes.first() != Some(&0) {
            return bytes;
        }
        let nuls = bytes.iter().take_while(|byte| **byte == 0).count();
        &bytes[nuls..]
    }

    /// Where a line is cut: at the limit, but not within a character.
    fn cut_point(&self, line: &[u8]) -> usize {
        if line.len() <= self.max {
            return line.len();
        }
        if self.newline != Newline::Byte {
            return self.max & !1;
        }
        let is_boundary = |at: &usize| line[*at] & 0b1100_0000 != 0b1000_0000;
        (self.max.saturating_sub(3)..=self.max)
            .rev()
            .find(is_boundary)
            .unwrap_or(self.max)
    }
}

/// What a line buffer keeps between long lines.
const MAX_LINE_BUFFER: usize = 16 << 10;

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
        lines.finish_all(|line, _| out.push((line.bytes.to_vec(), line.truncated)));
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
        for end in ["\nnext\n", "\r\nnext\n"] {
            for (extra, truncated) in [(0, false), (1, true), (100_000, true)] {
                let mut input = vec![b'x'; MAX_MESSAGE + extra];
                input.extend_from_slice(end.as_bytes());
                let chunks: Vec<&[u8]> = input.chunks(10_000).collect();
                for chunks in [chunks, vec![&input]] {
                    let out = lines(&chunks);
                    assert_eq!(out.len(), 2);
                    assert_eq!(out[0], (vec![b'x'; MAX_MESSAGE], truncated));
                    assert_eq!(out[1], (b"next".to_vec(), false));
                }
            }
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_given_out_before_its_end_and_holds_nothing() {
        let mut lines = Lines::up_to(10);
        let mut out = Vec::new();
        lines.feed(&[b'x'; 100], |line| out.push(line.bytes.len()));
        assert_eq!((out.as_slice(), lines.held()), (&[10][..], 0));
        assert!(lines.passing_over());
        lines.feed(b"yyy\nnext\n", |line| out.push(line.bytes.len()));
        assert_eq!(out, [10, 4]);
    }

    #[test]
    fn a_cut_line_ends_with_a_whole_character() {
        let mut input = "x".to_owned();
        input.push_str(&"é".repeat(MAX_MESSAGE));
        let out = lines(&[input.as_bytes()]);
        assert!(std::str::from_utf8(&out[0].0).is_ok());
        assert!(out[0].1);
    }

    #[test]
    fn runs_of_nul_before_a_line_are_none_of_it() {
        let out = lines(&[b"one\n\0\0\0", &[0; 1000], b"\0two\0\n\0\n"]);
        let text: Vec<&[u8]> = out.iter().map(|(bytes, _)| &bytes[..]).collect();
        assert_eq!(text, [&b"one"[..], b"two\0"]);
    }

    #[test]
    fn the_end_of_each_line_is_told_by_its_bytes() {
        let mut lines = Lines::default();
        let mut ends = Vec::new();
        for chunk in ["on", "e\n\ntwo", "\nthr"] {
            lines.feed_all(chunk.as_bytes(), |_, end| ends.push(end));
        }
        assert_eq!((ends.as_slice(), lines.taken()), (&[4, 5, 9][..], 12));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn how_the_bytes_are_chunked_does_not_matter(
            input in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'a'), Just(b'\r'), Just(0)], 0..200),
            at in 1usize..20,
            max in 1usize..8,
            newline in prop_oneof![Just(Newline::Byte), Just(Newline::Little), Just(Newline::Big)],
        ) {
            let run = |chunks: &[&[u8]]| {
                let mut lines = Lines::up_to(max * newline.width());
                lines.set_newline(newline);
                let mut out = Vec::new();
                let mut ends = Vec::new();
                for chunk in chunks {
                    lines.feed_all(chunk, |line, end| {
                        out.push((line.bytes.to_vec(), line.truncated));
                        ends.push(end);
                    });
                    prop_assert!(lines.held() <= (max + 1) * newline.width() + 1);
                }
                lines.finish_all(|line, end| {
                    out.push((line.bytes.to_vec(), line.truncated));
                    ends.push(end);
                });
                prop_assert!(ends.is_sorted());
                prop_assert!(ends.last().is_none_or(|end| *end <= input.len() as u64));
                Ok(out)
            };
            let chunks: Vec<&[u8]> = input.chunks(at).collect();
            prop_assert_eq!(run(&chunks)?, run(&[&input])?);
        }
    }
}
