//! Time and severity of a line of text, looked for only where programs put them: at its head. The
//! line itself stays as it is.
//!
//! Read from the left: a time, then pieces of structure (groups in brackets, numbers, what a
//! separator closes, a dotted name), then the level. The first piece that is nothing of the kind is
//! the message, and what stands in it is never taken for a level.
//!
//! | a level is | where | as in |
//! |---|---|---|
//! | a word in capitals | after a time; as the first word of a line | `2026-11-21 10:00:00,123 - app - WARNING - m`, `INFO:     m`, `WARN m` |
//! | a word in brackets, any case | in the same places | `2026/11/21 10:00:00 [error] 12#12: m`, `[core:warn]`, `<info>` |
//! | a word before a colon, any case | in the same places | `error: m`, `Warning: m` |
//! | a letter before a time | klog, glog | `W0102 15:04:05.678901   12345 file.go:12] m` |
//! | a number, 0 to 7, in angle brackets | sd-daemon(3), at the beginning | `<4>m` |
//! | a word after `level=`, `lvl=` or `severity=` | the first 512 bytes | `caller=main.go:7 level=warn m` |

use memchr::{memchr, memchr_iter};
use thinglog_schemas::Severity;

use super::time::{self, Written};

/// What a head says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) time: Option<Written>,
    pub(crate) severity: Option<Severity>,
}

/// Where a level is looked for, bytes.
const HEAD: usize = 200;
/// Where a `level=` is looked for, bytes.
const PAIRS: usize = 512;
/// Pieces of structure that may stand before a level.
const PIECES: usize = 8;

/// Words that are levels when a program writes them where levels stand. Fewer than
/// [`Severity::from_word`] knows: "log", "fine" or "config" begin sentences.
const WORDS: [&str; 24] = [
    "info",
    "error",
    "warn",
    "debug",
    "warning",
    "trace",
    "notice",
    "fatal",
    "critical",
    "crit",
    "err",
    "alert",
    "emerg",
    "emergency",
    "panic",
    "severe",
    "inf",
    "wrn",
    "dbg",
    "trc",
    "ftl",
    "verbose",
    "finest",
    "finer",
];

/// What the head of `line` says.
pub(crate) fn read(line: &str) -> Head {
    let bytes = line.as_bytes();
    let head = &bytes[..bytes.len().min(HEAD)];
    let mut found = scan(head);
    if found.time.is_none() {
        found.time = access_time(head);
    }
    if found.severity.is_none() {
        found.severity = pair(&bytes[..bytes.len().min(PAIRS)]);
    }
    found
}

/// A level word, whatever its case.
pub(crate) fn level(word: &[u8]) -> Option<Severity> {
    WORDS
        .iter()
        .filter(|known| known.len() == word.len())
        .find(|known| known.as_bytes().eq_ignore_ascii_case(word))
        .and_then(|known| Severity::from_word(known))
}

/// A level word in capitals.
pub(crate) fn loud_level(word: &[u8]) -> Option<Severity> {
    let loud = word.iter().all(u8::is_ascii_uppercase);
    loud.then(|| level(word)).flatten()
}

fn scan(head: &[u8]) -> Head {
    let mut found = Head::default();
    let mut at = skip_blank(head, 0);
    if let Some(head) = numbered(&head[at..]).or_else(|| klog(&head[at..])) {
        return head;
    }
    let group = usize::from(head.get(at) == Some(&b'['));
    let rest = &head[at + group..];
    let mut dated = false;
    if let Some((written, length)) = time::read(rest) {
        found.time = Some(written);
        (at, dated) = (at + group + length, true);
    } else if let Some(length) = time::clock_length(rest) {
        (at, dated) = (at + group + length, true);
    }
    let mut names = 0;
    for piece in 0..PIECES {
        at = skip_separators(head, at);
        let Some(next) = next_piece(&head[at..]) else {
            break;
        };
        match next {
            Piece::Group { inside, length } => {
                // `[core:warn]`: the module before the colon.
                let word = inside.rsplit(|byte| *byte == b':').next();
                found.severity = level(word.unwrap_or(inside));
                at += length;
            }
            Piece::Word { letters, rest } => {
                let after = rest.first().copied();
                found.severity = level_word(letters, after);
                let whole = letters.len() + rest.iter().take_while(|b| !is_end(**b)).count();
                let word = &head[at..at + whole];
                at += whole;
                let zone = piece == 0 && is_zone(word);
                let structure = !word.iter().any(u8::is_ascii_alphabetic)
                    || zone
                    || closed_by_separator(&head[at..]);
                let name = word.iter().any(|byte| b"._:/@#".contains(byte));
                if found.severity.is_none() && !(dated && structure) {
                    if !(dated && name && names == 0) {
                        break;
                    }
                    names += 1;
                }
            }
        }
        if found.severity.is_some() {
            break;
        }
    }
    found
}

/// `<4>` and no other priority: with a facility it is syslog.
fn numbered(text: &[u8]) -> Option<Head> {
    let &[b'<', digit @ b'0'..=b'7', b'>', ..] = text else {
        return None;
    };
    Some(Head {
        time: None,
        severity: Some(Severity::from_syslog(digit - b'0')),
    })
}

fn klog(text: &[u8]) -> Option<Head> {
    let (letter, rest) = text.split_first()?;
    let severity = match letter {
        b'I' => Severity::INFO,
        b'W' => Severity::WARN,
        b'E' => Severity::ERROR,
        b'F' => Severity::FATAL,
        _ => return None,
    };
    let (written, _) = time::read_klog(rest)?;
    Some(Head {
        time: Some(written),
        severity: Some(severity),
    })
}

enum Piece<'a> {
    /// `[inside]`, `<inside>` or `(inside)`.
    Group { inside: &'a [u8], length: usize },
    /// The letters a word begins with, and everything after them.
    Word { letters: &'a [u8], rest: &'a [u8] },
}

fn next_piece(text: &[u8]) -> Option<Piece<'_>> {
    let close = match text.first()? {
        b'[' => b']',
        b'<' => b'>',
        b'(' => b')',
        _ => {
            let letters = text.iter().take_while(|byte| byte.is_ascii_alphabetic());
            let (letters, rest) = text.split_at(letters.count());
            return Some(Piece::Word { letters, rest });
        }
    };
    let length = text.iter().position(|byte| *byte == close)?;
    Some(Piece::Group {
        inside: text[1..length].trim_ascii(),
        length: length + 1,
    })
}

/// A level as a word of its own: in capitals, or before a colon.
fn level_word(letters: &[u8], after: Option<u8>) -> Option<Severity> {
    match after {
        None | Some(b' ' | b'\t' | b']' | b'|' | b',' | b'/' | b')' | b'>' | 0x1b) => {
            loud_level(letters)
        }
        // PostgreSQL's word for INFO.
        Some(b':') if letters == b"LOG" => Some(Severity::INFO),
        Some(b':') => level(letters),
        _ => None,
    }
}

/// `UTC`, `CET`, `CEST`: right after a time.
fn is_zone(word: &[u8]) -> bool {
    (2..=5).contains(&word.len()) && word.iter().all(u8::is_ascii_uppercase)
}

fn is_end(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'|' | b']' | b'[' | 0x1b)
}

/// Whether ` - `, ` | ` or `|` comes next: what stood before it was a field.
fn closed_by_separator(text: &[u8]) -> bool {
    match text.trim_ascii_start() {
        [b'|', ..] => true,
        [b'-', next, ..] => *next == b' ' && text[0] == b' ',
        _ => false,
    }
}

/// Past blanks and colours (ECMA-48 SGR: `ESC [ ... m`).
fn skip_blank(text: &[u8], mut at: usize) -> usize {
    loop {
        match text.get(at) {
            Some(b' ' | b'\t') => at += 1,
            Some(0x1b) if text.get(at + 1) == Some(&b'[') => {
                let parameters = text[at + 2..].iter();
                let parameters = parameters.take_while(|b| b.is_ascii_digit() || **b == b';');
                let end = at + 2 + parameters.count();
                if text.get(end) != Some(&b'm') {
                    return at;
                }
                at = end + 1;
            }
            _ => return at,
        }
    }
}

fn skip_separators(text: &[u8], mut at: usize) -> usize {
    loop {
        let from = at;
        at = skip_blank(text, at);
        while matches!(text.get(at), Some(b'|' | b'-' | b':' | b']' | b',')) {
            at += 1;
        }
        if at == from {
            return at;
        }
    }
}

/// The time of the Common Log Format, in brackets after address and user.
fn access_time(head: &[u8]) -> Option<Written> {
    let open = memchr(b'[', head)?;
    let inside = &head[open + 1..];
    if inside.get(2) != Some(&b'/') {
        return None;
    }
    time::read(inside).map(|(written, _)| written)
}

/// `level=warn` among other things.
fn pair(text: &[u8]) -> Option<Severity> {
    for at in memchr_iter(b'=', text) {
        let named = ["level", "lvl", "severity"].iter().any(|key| {
            let before = text[..at].strip_suffix(key.as_bytes());
            before.is_some_and(|before| {
                before
                    .last()
                    .is_none_or(|byte| matches!(byte, b' ' | b'\t' | b',' | b'[' | b'{'))
            })
        });
        if named {
            let value = &text[at + 1..];
            let value = value.strip_prefix(b"\"").unwrap_or(value);
            let letters = value.iter().take_while(|byte| byte.is_ascii_alphabetic());
            return level(&value[..letters.count()]);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CRITICAL: u8 = 18;
    const NOTICE: u8 = 10;

    #[test]
    fn levels_are_found_where_programs_put_them() {
        for (line, number) in [
            ("2026-11-21 10:00:00,123 - name - WARNING - msg", 13),
            ("2026-11-21 10:00:00,123 my.module CRITICAL msg", CRITICAL),
            ("WARNING:root:msg", 13),
            ("INFO:     127.0.0.1:5000 - \"GET / HTTP/1.1\" 200 OK", 9),
            ("[2026-11-21 10:00:00 +0000] [12] [INFO] Listening", 9),
            (
                "[2026-11-21 10:00:00,123: ERROR/MainProcess] Task failed",
                17,
            ),
            ("2026/11/21 10:00:00 [error] 12#12: *1 open() failed", 17),
            ("2026/11/21 10:00:00 [notice] 1#1: using epoll", NOTICE),
            (
                "[Sat Nov 21 09:30:01.123456 2026] [core:warn] [pid 12:tid 1] AH00111: m",
                13,
            ),
            (
                "2026-11-21 10:00:00.123 [http-nio-8080-exec-1] ERROR c.e.App - m",
                17,
            ),
            ("10:15:30.123 [Thread Pool 1] DEBUG org.example.Foo -- m", 5),
            (
                "2026-11-21T10:00:00.123+01:00  WARN 12345 --- [main] c.e.App : m",
                13,
            ),
            ("[main] INFO org.example.Foo - m", 9),
            ("2026-11-21T10:00:00.000000Z  INFO crate::module: m", 9),
            (
                "\x1b[2m2026-11-21T10:00:00.000000Z\x1b[0m \x1b[33m WARN\x1b[0m \x1b[2mcrate\x1b[0m: m",
                13,
            ),
            ("[2026-11-21T10:00:00Z ERROR crate] m", 17),
            ("2026/11/21 10:00:00 WARN m k=v", 13),
            ("W0102 15:04:05.678901   12345 file.go:12] m", 13),
            ("E20260102 15:04:05.678901 12345 file.cc:12] m", 17),
            (
                "2026-11-21 10:00:00.123 CET [12] user@db ERROR:  relation",
                17,
            ),
            ("2026-11-21 10:00:00.123 UTC [12] LOG:  ready", 9),
            (
                "2026-11-21T10:00:00.123456Z 0 [Warning] [MY-010068] [Server] m",
                13,
            ),
            ("2026-11-21 10:00:00 | ERROR | app | m", 17),
            ("2026-11-21 10:00:00.123 | WARNING  | __main__:f:7 - m", 13),
            ("<4>m", 13),
            ("<info>  [1763717401.1234] device (eth0): state change", 9),
            ("[warn] m", 13),
            ("error: no such file", 17),
            ("Warning: deprecated", 13),
            ("panic: runtime error: index out of range", 21),
            ("ERROR m", 17),
            ("FATAL", 21),
            ("caller=main.go:7 level=warn something odd", 13),
            ("caller=main.go:7 level=\"error\" something odd", 17),
        ] {
            let severity = read(line).severity.map(Severity::number);
            assert_eq!(severity, Some(number), "{line}");
        }
    }

    #[test]
    fn a_word_in_a_sentence_is_no_level() {
        for line in [
            "",
            "hello",
            "an ERROR in a sentence",
            "2026-11-21 10:00:00 Got ERROR from upstream",
            "2026-11-21 10:00:00 the INFO page",
            "Errors: 0",
            "error handling is on",
            "INFORMATION about things",
            "ERROR_CODE=7",
            "errors=0 warnings=3",
            "loglevel=error",
            "404 ERROR pages",
            "(no group",
            "192.0.2.17 - - [12/Mar/2026:06:25:24 +0000] \"GET /ERROR HTTP/1.1\" 200 512",
            "Listening on [::]:8080 INFO",
        ] {
            assert_eq!(read(line).severity, None, "{line}");
        }
    }

    #[test]
    fn times_are_found_with_and_without_a_level() {
        for line in [
            "2026-11-21 10:00:00,123 - name - WARNING - msg",
            "[2026-11-21T10:00:00Z ERROR crate] m",
            "W0102 15:04:05.678901   12345 file.go:12] m",
            "192.0.2.17 - - [12/Mar/2026:06:25:24 +0000] \"GET / HTTP/1.1\" 200 512",
            "12:M 21 Nov 2026 09:30:01.123 * Ready",
            "2026/11/21 10:00:00 hello",
        ] {
            let redis = line.starts_with("12:M");
            assert_eq!(read(line).time.is_some(), !redis, "{line}");
        }
        assert_eq!(read("10:15:30.123 [main] DEBUG m").time, None);
    }

    proptest! {
        #[test]
        fn no_line_is_too_odd(text in any::<String>(), like in "[\\[<( ]{0,2}[0-9T:.,/-]{0,24}[ \\]|:<-]{0,3}[A-Za-z=:.]{0,12}[ \\]:>\\x1b\\[m0;]{0,4}[A-Z:]{0,8}") {
            read(&text);
            read(&like);
        }
    }
}
