//! Events as lines on standard output, for people and for pipes.
//!
//! What came from a device is never trusted: control characters are escaped, so that no log line can
//! move the cursor, change colours or forge another line (C0, DEL, C1, and the Unicode characters that
//! turn the direction of text).

use std::io::{self, ErrorKind, IsTerminal, Write};

use thinglog_schemas::{Event, Level, json};

use crate::config::LineFormat;
use crate::deliver::batch::Batch;
use crate::deliver::{Destination, Outcome, Promise};

/// The stdout destination.
pub(crate) struct Stdout<W> {
    out: W,
    format: LineFormat,
    colour: bool,
    /// Lines of the batch in hand, and how many bytes of them are out.
    buffer: Vec<u8>,
    written: usize,
}

impl Stdout<io::Stdout> {
    /// Writes to the process's standard output; in colours to a terminal, unless `NO_COLOR` is set.
    pub(crate) fn of_process(format: LineFormat) -> Self {
        let out = io::stdout();
        let colour =
            out.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|it| it.is_empty());
        Stdout::new(out, format, colour)
    }
}

impl<W: Write> Stdout<W> {
    fn new(out: W, format: LineFormat, colour: bool) -> Stdout<W> {
        Stdout {
            out,
            format,
            colour,
            buffer: Vec::new(),
            written: 0,
        }
    }

    /// Writes what is left of the buffer.
    fn write(&mut self) -> io::Result<()> {
        while let Some(rest) = self.buffer.get(self.written..).filter(|it| !it.is_empty()) {
            match self.out.write(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => self.written += written,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.out.flush()
    }

    fn format(&mut self, event: &Event) {
        match self.format {
            LineFormat::Json => json::write(event, &mut self.buffer),
            LineFormat::Text => write_text(event, self.colour, &mut self.buffer),
        }
        self.buffer.push(b'\n');
    }
}

impl<W: Write + Send + 'static> Destination for Stdout<W> {
    fn deliver(&mut self, batch: &Batch) -> Outcome {
        // A buffer that is not empty is this batch's, offered again.
        if self.buffer.is_empty() {
            for event in batch.events() {
                self.format(event);
            }
        }
        let outcome = match self.write() {
            Ok(()) => Outcome::Delivered,
            Err(error) => {
                let reason = format!("standard output: {error}");
                match error.kind() {
                    // Whoever read is gone and does not come back.
                    ErrorKind::BrokenPipe => Outcome::Rejected { reason },
                    _ => {
                        let after = None;
                        return Outcome::Retry { after, reason };
                    }
                }
            }
        };
        self.buffer.clear();
        self.written = 0;
        outcome
    }

    fn commit(&mut self) -> Promise {
        Promise::default()
    }
}

/// `2026-01-02T03:04:05.123Z lamp-7 app WARN message key=value`
pub(crate) fn write_text(event: &Event, colour: bool, out: &mut Vec<u8>) {
    write_millis(event.time, out);
    out.push(b' ');
    push_escaped(&event.device, out);
    out.push(b' ');
    push_escaped(&event.source, out);
    out.push(b' ');
    let level = event.severity.level();
    if colour {
        out.extend_from_slice(colour_of(level));
    }
    out.extend_from_slice(level.name().as_bytes());
    if colour {
        out.extend_from_slice(b"\x1b[0m");
    }
    out.push(b' ');
    push_escaped(&event.message, out);
    for (key, value) in &event.attributes {
        out.push(b' ');
        push_escaped(key, out);
        out.push(b'=');
        let mut text = Vec::new();
        json::write_value(value, &mut text);
        push_escaped(&String::from_utf8_lossy(&text), out);
    }
}

fn colour_of(level: Level) -> &'static [u8] {
    match level {
        Level::Error => b"\x1b[31m",
        Level::Warn => b"\x1b[33m",
        Level::Info => b"\x1b[32m",
        Level::Debug | Level::Disabled => b"\x1b[36m",
    }
}

/// RFC 3339 with milliseconds.
fn write_millis(ns: u64, out: &mut Vec<u8>) {
    json::write_time(ns, out);
    // Nine decimals and `Z` were written: keep three.
    out.truncate(out.len() - 7);
    out.push(b'Z');
}

fn push_escaped(text: &str, out: &mut Vec<u8>) {
    if text.bytes().all(|byte| (0x20..0x7F).contains(&byte)) {
        return out.extend_from_slice(text.as_bytes());
    }
    for character in text.chars() {
        if is_dangerous(character) {
            out.extend(character.escape_default().map(|escaped| escaped as u8));
        } else {
            out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
}

fn is_dangerous(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{2028}' | '\u{2029}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use thinglog_schemas::payload::Decoded;
    use thinglog_schemas::{Attributes, EventId, Severity};

    use super::*;
    use crate::deliver::batch::Keep;

    fn event(message: &str) -> Event {
        Event {
            device: Arc::from("lamp-7"),
            source: Arc::from("app"),
            id: EventId::None,
            time: 1_767_323_045_123_456_789,
            time_estimated: false,
            severity: Severity::WARN,
            message: message.into(),
            truncated: false,
            attributes: Attributes::new(),
            received: 0,
        }
    }

    fn line(message: &str, colour: bool) -> String {
        let mut out = Vec::new();
        write_text(&event(message), colour, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_reads_from_time_to_message() {
        let mut with_attribute = event("it rains");
        with_attribute
            .attributes
            .insert("room".into(), "attic".into());
        let mut out = Vec::new();
        write_text(&with_attribute, false, &mut out);
        let expected = "2026-01-02T03:04:05.123Z lamp-7 app WARN it rains room=\"attic\"";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn control_characters_cannot_reach_a_terminal() {
        let text = line("a\x1b[2Jb\nc\u{9b}d\u{202e}e\u{7f}é", false);
        assert!(
            text.ends_with("a\\u{1b}[2Jb\\nc\\u{9b}d\\u{202e}e\\u{7f}é"),
            "{text}"
        );
        assert!(line("x", true).contains("\x1b[33mWARN\x1b[0m"));
    }

    /// Takes a few bytes, then fails once.
    struct Full {
        failure: Option<ErrorKind>,
        out: Vec<u8>,
    }

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.out.len() >= 3
                && let Some(kind) = self.failure.take()
            {
                return Err(kind.into());
            }
            let some = bytes.len().min(3);
            self.out.extend_from_slice(&bytes[..some]);
            Ok(some)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn one(message: &str) -> Batch {
        let decoded = Decoded {
            events: vec![event(message)],
            lane: None,
        };
        let mut batch = Batch::default();
        batch.push(Arc::new(decoded), Keep::All, 0);
        batch
    }

    #[test]
    fn a_full_disk_behind_it_neither_loses_nor_repeats() {
        let full = Full {
            failure: Some(ErrorKind::StorageFull),
            out: Vec::new(),
        };
        let mut stdout = Stdout::new(full, LineFormat::Text, false);
        let batch = one("hello");
        assert!(matches!(stdout.deliver(&batch), Outcome::Retry { .. }));
        assert_eq!(stdout.deliver(&batch), Outcome::Delivered);
        let expected = format!("{}\n", line("hello", false));
        assert_eq!(String::from_utf8(stdout.out.out).unwrap(), expected);
    }

    #[test]
    fn a_reader_that_is_gone_is_not_waited_for() {
        let gone = Full {
            failure: Some(ErrorKind::BrokenPipe),
            out: Vec::new(),
        };
        let mut stdout = Stdout::new(gone, LineFormat::Text, false);
        let batch = one("hello");
        assert!(matches!(stdout.deliver(&batch), Outcome::Rejected { .. }));
    }

    #[test]
    fn json_lines_are_the_files_lines() {
        let decoded = Decoded {
            events: vec![event("hello")],
            lane: None,
        };
        let mut batch = Batch::default();
        batch.push(Arc::new(decoded), Keep::All, 0);
        let mut stdout = Stdout::new(Vec::new(), LineFormat::Json, false);
        assert_eq!(stdout.deliver(&batch), Outcome::Delivered);
        let line = String::from_utf8(stdout.out).unwrap();
        assert!(line.starts_with('{') && line.ends_with("}\n"), "{line}");
    }

    #[test]
    fn a_closed_pipe_wedges_nothing() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut batch = Batch::default();
        let decoded = Decoded {
            events: vec![event("hello")],
            lane: None,
        };
        batch.push(Arc::new(decoded), Keep::All, 0);
        let outcome = Stdout::new(Closed, LineFormat::Text, false).deliver(&batch);
        assert!(matches!(outcome, Outcome::Rejected { .. }));
    }
}
