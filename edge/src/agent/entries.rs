//! Bytes to what becomes one event each: lines, decoded and joined as configured, and how far each
//! of them reaches.

use std::time::Instant;

use serde::Deserialize;

use super::{
    encoding::{self, Encoding},
    joiner::Joiner,
    lines::{Line, Lines},
    multiline::MultilineOptions,
    recognise::{LineOptions, Parse, Zone},
};

/// How a stream's bytes are read as text.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TextOptions {
    /// How characters are encoded, where no byte order mark says otherwise.
    pub encoding: Encoding,
    /// Which lines are one event; `None`: each is one.
    pub multiline: Option<MultilineOptions>,
    /// What the lines are.
    pub parse: Parse,
    /// Of times that name no zone.
    pub timezone: Zone,
}

impl TextOptions {
    /// The same for who makes records of the lines.
    pub(crate) fn of_lines(&self) -> LineOptions {
        LineOptions {
            parse: self.parse,
            timezone: self.timezone.clone(),
        }
    }
}

/// Makes events of the bytes of one stream.
#[derive(Debug)]
pub(crate) struct Entries {
    encoding: Encoding,
    /// The first bytes, until they are known to be no byte order mark.
    beginning: Option<Vec<u8>>,
    lines: Lines,
    joiner: Option<Joiner>,
    given: u64,
}

impl Entries {
    /// From the beginning of a stream.
    pub(crate) fn new(options: &TextOptions) -> Entries {
        let mut lines = Lines::default();
        lines.set_newline(options.encoding.newline());
        Entries {
            encoding: options.encoding,
            beginning: Some(Vec::new()),
            lines,
            joiner: options.multiline.as_ref().map(Joiner::new),
            given: 0,
        }
    }

    /// The stream goes on behind its first `at` bytes, which open with `head`; see [`Lines::continue_at`].
    pub(crate) fn continue_at(&mut self, at: u64, head: &[u8], passing_over: bool) {
        if at > 0 {
            self.beginning = None;
            self.take_mark(head);
        } else {
            self.beginning = Some(Vec::new());
        }
        self.lines.continue_at(at, passing_over);
        self.given = at;
    }

    /// Takes bytes and calls `each` for every event that is complete now, with how many bytes of the
    /// stream reach up to its end.
    pub(crate) fn feed(&mut self, bytes: &[u8], now: Instant, mut each: impl FnMut(Line<'_>, u64)) {
        let Some(mut beginning) = self.beginning.take() else {
            self.take(bytes, now, &mut each);
            return;
        };
        beginning.extend_from_slice(bytes);
        if encoding::may_become_mark(&beginning) {
            self.beginning = Some(beginning);
            return;
        }
        let mark = self.take_mark(&beginning);
        self.lines.continue_at(mark as u64, false);
        self.given = mark as u64;
        self.take(&beginning[mark..], now, &mut each);
    }

    /// The end of the stream: whatever is held is complete.
    pub(crate) fn finish(&mut self, now: Instant, mut each: impl FnMut(Line<'_>, u64)) {
        if let Some(beginning) = self.beginning.take() {
            self.take(&beginning, now, &mut each);
        }
        let (encoding, joiner) = (self.encoding, &mut self.joiner);
        self.lines.finish_all(|line, end| {
            give(encoding, joiner.as_mut(), line, end, now, &mut each);
        });
        self.flush(each);
        self.given = self.lines.taken();
    }

    /// The lines that are held are complete, the line that has no end yet is not.
    pub(crate) fn flush(&mut self, mut each: impl FnMut(Line<'_>, u64)) {
        let given = &mut self.given;
        if let Some(joiner) = &mut self.joiner {
            joiner.flush(&mut |line, end| {
                *given = end;
                each(line, end);
            });
        }
    }

    /// Gives out what has been held long enough.
    pub(crate) fn poll(&mut self, now: Instant, each: impl FnMut(Line<'_>, u64)) {
        if self.due().is_some_and(|due| due <= now) {
            self.flush(each);
        }
    }

    /// When to [`poll`](Entries::poll).
    pub(crate) fn due(&self) -> Option<Instant> {
        self.joiner.as_ref()?.due()
    }

    /// How many bytes of the stream reach up to the end of what was given out.
    pub(crate) fn given(&self) -> u64 {
        match self.lines.passing_over() {
            // There is no end yet, but nothing before this will be given out again.
            true if self.due().is_none() => self.lines.taken(),
            _ => self.given,
        }
    }

    /// Whether that is within a line that was too long.
    pub(crate) fn passing_over(&self) -> bool {
        self.lines.passing_over() && self.due().is_none()
    }

    /// Bytes that are held of a line without end.
    pub(crate) fn held_of_line(&self) -> usize {
        self.lines.held()
    }

    /// Forgets the line without end, to be fed again; returns how many bytes that are.
    pub(crate) fn forget_line(&mut self) -> usize {
        self.lines.forget()
    }

    /// Whether a run of NUL now would be none of any line.
    pub(crate) fn is_between_lines(&self) -> bool {
        self.beginning.is_none() && self.lines.is_between_lines()
    }

    /// Passes over `bytes` that are NUL, between two lines.
    pub(crate) fn skip(&mut self, bytes: u64) {
        self.lines.skip(bytes);
        if self.due().is_none() {
            self.given = self.lines.taken();
        }
    }

    fn take(&mut self, bytes: &[u8], now: Instant, each: &mut impl FnMut(Line<'_>, u64)) {
        let (encoding, joiner, given) = (self.encoding, &mut self.joiner, &mut self.given);
        self.lines.feed_all(bytes, |line, end| {
            let mut each = |line: Line<'_>, end| {
                *given = end;
                each(line, end);
            };
            give(encoding, joiner.as_mut(), line, end, now, &mut each);
            if !joiner.as_ref().is_some_and(Joiner::is_holding) {
                *given = end;
            }
        });
    }

    /// Sets the encoding by the mark at the beginning; returns the mark's length.
    fn take_mark(&mut self, beginning: &[u8]) -> usize {
        let Some((encoding, length)) = encoding::by_mark(beginning) else {
            return 0;
        };
        self.encoding = encoding;
        self.lines.set_newline(encoding.newline());
        length
    }
}

fn give(
    encoding: Encoding,
    joiner: Option<&mut Joiner>,
    line: Line<'_>,
    end: u64,
    now: Instant,
    each: &mut impl FnMut(Line<'_>, u64),
) {
    let bytes = encoding.decode(line.bytes);
    let line = Line {
        bytes: &bytes,
        ..line
    };
    match joiner {
        Some(joiner) => joiner.push(line, end, now, each),
        None if line.bytes.is_empty() => {}
        None => each(line, end),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(json: &str) -> TextOptions {
        serde_json::from_str(json).unwrap()
    }

    fn read(options: &TextOptions, chunks: &[&[u8]]) -> Vec<(String, u64)> {
        let mut entries = Entries::new(options);
        let now = crate::clock::mono();
        let mut out = Vec::new();
        for chunk in chunks {
            entries.feed(chunk, now, |line, end| out.push((line.text(), end)));
        }
        entries.finish(now, |line, end| out.push((line.text(), end)));
        out
    }

    fn utf_16(mark: bool, text: &str, order: fn(u16) -> [u8; 2]) -> Vec<u8> {
        let mark = mark.then_some('\u{feff}');
        let text: String = mark.into_iter().chain(text.chars()).collect();
        text.encode_utf16().flat_map(order).collect()
    }

    #[test]
    fn a_byte_order_mark_says_how_to_read_however_slowly_it_comes() {
        let options = TextOptions::default();
        let text = "grüße\r\n\nЖ\n";
        let marked = format!("\u{feff}{text}");
        for bytes in [
            utf_16(true, text, u16::to_le_bytes),
            utf_16(true, text, u16::to_be_bytes),
            marked.into_bytes(),
        ] {
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            for chunks in [single, vec![&bytes[..]]] {
                let out = read(&options, &chunks);
                let text: Vec<&str> = out.iter().map(|(text, _)| &**text).collect();
                assert_eq!(text, ["grüße", "Ж"]);
                assert_eq!(out[1].1, bytes.len() as u64);
            }
        }
    }

    #[test]
    fn without_a_mark_the_configured_encoding_holds() {
        let latin = read(&options(r#"{"encoding": "latin1"}"#), &[b"gr\xfc", b"n\n"]);
        assert_eq!(latin, [("grün".to_owned(), 5)]);
        let wide = utf_16(false, "eins\nzwei", u16::to_le_bytes);
        let wide = read(&options(r#"{"encoding": "utf-16le"}"#), &[&wide]);
        assert_eq!(wide, [("eins".to_owned(), 10), ("zwei".to_owned(), 18)]);
    }

    #[test]
    fn a_stream_of_less_than_a_mark_is_not_lost() {
        assert_eq!(read(&TextOptions::default(), &[b"\xef\xbb"]).len(), 1);
        assert_eq!(read(&TextOptions::default(), &[]).len(), 0);
    }

    #[test]
    fn what_is_held_is_not_counted_as_given_out() {
        let mut entries = Entries::new(&options(r#"{"multiline": "indent"}"#));
        let now = crate::clock::mono();
        entries.feed(b"\none\n two\n\npar", now, |_, _| panic!("not yet"));
        assert_eq!(entries.given(), 1);
        let mut out = Vec::new();
        entries.feed(b"t\n", now, |line, end| out.push((line.text(), end)));
        assert_eq!(out, [("one\n two".to_owned(), 10)]);
        assert_eq!(entries.given(), 10);
        entries.flush(|line, end| assert_eq!((line.text().as_str(), end), ("part", 16)));
        assert_eq!(entries.given(), 16);
    }

    #[test]
    fn reading_goes_on_where_it_ended_with_the_encoding_of_the_mark() {
        let bytes = utf_16(true, "eins\nzwei\n", u16::to_le_bytes);
        let mut entries = Entries::new(&TextOptions::default());
        entries.continue_at(12, &bytes[..3], false);
        let mut out = Vec::new();
        entries.feed(&bytes[12..], crate::clock::mono(), |line, end| {
            out.push((line.text(), end))
        });
        assert_eq!(out, [("zwei".to_owned(), 22)]);
    }

    #[test]
    fn a_line_that_is_too_long_is_given_out_once_wherever_reading_goes_on() {
        let mut entries = Entries::new(&TextOptions::default());
        let now = crate::clock::mono();
        let mut count = 0;
        entries.feed(&vec![b'x'; 300 << 10], now, |line, _| {
            assert!(line.truncated);
            count += 1;
        });
        assert_eq!(
            (count, entries.given(), entries.passing_over()),
            (1, 300 << 10, true)
        );
        let mut later = Entries::new(&TextOptions::default());
        later.continue_at(entries.given(), b"xxx", entries.passing_over());
        let mut out = Vec::new();
        later.feed(b"xxx\nnext\n", now, |line, _| out.push(line.text()));
        assert_eq!(out, ["next"]);
    }
}
