//! Several lines into one event. Holds the event that is not complete yet, which is one at most, and
//! gives out what it held in the order it came, every byte of it. Pure: time is an argument.

use std::time::{Duration, Instant};

use thinglog_schemas::batch::MAX_MESSAGE;

use super::{
    lines::Line,
    multiline::{Judge, MultilineOptions},
};

/// An event is complete when no line came for so long.
const QUIET: Duration = Duration::from_secs(1);
/// What the buffer keeps between large events.
const KEPT: usize = 4 << 10;

/// Joins the lines of one stream.
#[derive(Debug)]
pub(crate) struct Joiner {
    judge: Judge,
    max_lines: usize,
    max_bytes: usize,
    held: Vec<u8>,
    /// Lines that are held, empty ones between them included.
    lines: usize,
    /// Empty lines that came since; they belong to the event if something behind them does.
    gap: usize,
    truncated: bool,
    /// Where the last line that is held ended, and when it came.
    end: u64,
    touched: Option<Instant>,
}

impl Joiner {
    pub(crate) fn new(options: &MultilineOptions) -> Joiner {
        Joiner {
            judge: Judge::new(options.rule.clone()),
            max_lines: options.max_lines,
            max_bytes: MAX_MESSAGE,
            held: Vec::new(),
            lines: 0,
            gap: 0,
            truncated: false,
            end: 0,
            touched: None,
        }
    }

    /// Takes a line that ends at `end` and calls `each` with the event it ended and where that
    /// one's last line ended.
    pub(crate) fn push(
        &mut self,
        line: Line<'_>,
        end: u64,
        now: Instant,
        each: &mut impl FnMut(Line<'_>, u64),
    ) {
        if line.bytes.is_empty() {
            self.gap += usize::from(self.is_holding());
            return;
        }
        let text = String::from_utf8_lossy(line.bytes);
        let belongs = self.judge.belongs(&text, self.gap > 0);
        let lines = self.lines + self.gap + 1;
        let bytes = self.held.len() + self.gap + 1 + line.bytes.len();
        if !belongs || lines > self.max_lines || bytes > self.max_bytes {
            self.flush(each);
        }
        if self.is_holding() {
            let newlines = self.gap + 1;
            self.held.resize(self.held.len() + newlines, b'\n');
            self.lines += newlines;
        } else {
            self.lines = 1;
        }
        self.gap = 0;
        self.held.extend_from_slice(line.bytes);
        self.truncated |= line.truncated;
        self.end = end;
        self.touched = Some(now);
    }

    /// When what is held is complete if nothing more comes.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.touched.map(|touched| touched + QUIET)
    }

    /// Gives out what is held.
    pub(crate) fn flush(&mut self, each: &mut impl FnMut(Line<'_>, u64)) {
        if !self.is_holding() {
            return;
        }
        let line = Line {
            bytes: &self.held,
            truncated: self.truncated,
        };
        each(line, self.end);
        self.held.clear();
        self.held.shrink_to(KEPT);
        (self.lines, self.gap, self.truncated) = (0, 0, false);
        self.touched = None;
    }

    pub(crate) fn is_holding(&self) -> bool {
        self.touched.is_some()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn start() -> Instant {
        crate::clock::mono()
    }

    fn joiner(rule: &str) -> Joiner {
        Joiner::new(&serde_json::from_str(rule).unwrap())
    }

    fn line(text: &str) -> Line<'_> {
        Line {
            bytes: text.as_bytes(),
            truncated: false,
        }
    }

    fn join_by(joiner: &mut Joiner, text: &str) -> Vec<String> {
        let mut out = Vec::new();
        let now = start();
        let mut each = |line: Line<'_>, _: u64| out.push(line.text());
        for (n, text) in text.split('\n').enumerate() {
            joiner.push(line(text), n as u64, now, &mut each);
        }
        joiner.flush(&mut each);
        out
    }

    /// Joins `text`, in which a line `--` stands wherever an event should end.
    #[track_caller]
    fn joins(rule: &str, text: &str) {
        let expected: Vec<String> = text.split("\n--\n").map(str::to_owned).collect();
        let input = text.replace("\n--\n", "\n");
        assert_eq!(join_by(&mut joiner(rule), &input), expected);
    }

    #[test]
    fn an_event_starts_where_a_pattern_says() {
        joins(
            r#"{"start": "^\\d{4}-"}"#,
            "2026-01-01 one\n--\n2026-01-02 two\nmore\n\nand more\n--\n2026-01-03 three",
        );
    }

    #[test]
    fn a_line_goes_on_where_a_pattern_says() {
        joins(
            r#"{"continue": "^\\+ "}"#,
            "one\n+ a\n+ b\n--\ntwo\n--\nthree\n+ c",
        );
    }

    #[test]
    fn indented_lines_belong_to_the_one_before() {
        joins(r#""indent""#, "one\n  a\n\tb\n--\ntwo\n--\nthree");
    }

    /// As the programs printed it, events parted by lines `--`.
    #[test]
    fn traces_stay_with_the_message_that_announces_them_and_with_no_other() {
        for (preset, recorded) in [
            ("java", include_str!("multiline/recorded/java.txt")),
            ("python", include_str!("multiline/recorded/python.txt")),
            ("go", include_str!("multiline/recorded/go.txt")),
            ("node", include_str!("multiline/recorded/node.txt")),
            ("rust", include_str!("multiline/recorded/rust.txt")),
            ("dotnet", include_str!("multiline/recorded/dotnet.txt")),
        ] {
            joins(&format!("{preset:?}"), recorded.trim_end());
        }
    }

    #[test]
    fn loggers_of_java_and_python_announce_their_traces() {
        joins(
            r#""java""#,
            "12:00 ERROR request failed\n\
             java.lang.IllegalStateException: no connection\n\
             to the database\n\
             \tat com.example.Db.query(Db.java:17)\n\
             Caused by: java.net.ConnectException: refused\n\
             \t... 12 more\n\
             --\n\
             12:01 INFO next: all is well\n\
             --\n\
             java.io.IOException: of another thread\n\
             \tat com.example.Main.main(Main.java:5)",
        );
        joins(
            r#""python""#,
            "ERROR:root:it failed\n\
             Traceback (most recent call last):\n  File \"a.py\", line 1, in <module>\n    f()\n\
             KeyError: 'x'\n\
             \n\
             During handling of the above exception, another exception occurred:\n\
             \n\
             Traceback (most recent call last):\n  File \"a.py\", line 3, in <module>\n    g()\n\
             ValueError: bad\n\
             --\n\
             INFO:root:no error\n\
             --\n\
             Traceback (most recent call last):\n  File \"a.py\", line 1, in <module>\n\
             KeyError: 'y'\n\
             --\n\
             Traceback (most recent call last):\n  File \"a.py\", line 1, in <module>\n\
             KeyError: 'z'",
        );
    }

    #[test]
    fn an_event_is_complete_after_a_quiet_time() {
        let mut joiner = joiner(r#""indent""#);
        let mut out = Vec::new();
        let mut each = |line: Line<'_>, end: u64| out.push((line.text(), end));
        let now = start();
        joiner.push(line("one"), 4, now, &mut each);
        joiner.push(line(" a"), 7, now + QUIET / 2, &mut each);
        joiner.push(line(""), 8, now + QUIET / 2, &mut each);
        assert_eq!(joiner.due(), Some(now + QUIET / 2 + QUIET));
        joiner.flush(&mut each);
        assert_eq!(joiner.due(), None);
        assert_eq!(out, [("one\n a".to_owned(), 7)]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn no_byte_is_lost_and_the_order_is_kept(
            input in proptest::collection::vec("( |\t|)(a|panic: |goroutine 1 \\[x\\]:|Traceback \\(most recent call last\\):|Caused by: |)b{0,3}", 0..60),
            rule in prop_oneof![
                Just(r#"{"preset": "indent", "max_lines": 4}"#), Just(r#"{"preset": "java", "max_lines": 4}"#),
                Just(r#""python""#), Just(r#""go""#), Just(r#""node""#), Just(r#""rust""#), Just(r#""dotnet""#), Just(r#"{"start": "a", "max_lines": 7}"#), Just(r#"{"continue": "b$"}"#),
            ],
            max_bytes in 5usize..60,
        ) {
            let mut joiner = joiner(rule);
            joiner.max_bytes = max_bytes;
            let max_lines = joiner.max_lines;
            let out = join_by(&mut joiner, &input.join("\n"));
            for event in &out {
                prop_assert!(event.split('\n').count() <= max_lines);
                prop_assert!(event.len() <= max_bytes || !event.contains('\n'));
            }
            let lines = |text: &str| -> Vec<String> {
                text.split('\n').filter(|line| !line.is_empty()).map(str::to_owned).collect()
            };
            prop_assert_eq!(lines(&out.join("\n")), lines(&input.join("\n")));
        }
    }
}
