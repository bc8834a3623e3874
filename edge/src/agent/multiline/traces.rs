//! What language runtimes print when something goes wrong, as they print it: which line belongs to the
//! one before. A trace belongs to the message before it only where that message announces it: it is of
//! level WARN or above, or, without a level, speaks of a failure. Otherwise the trace is an event of
//! its own. Pure.

use thinglog_schemas::Level;

use super::Language;
use crate::agent::recognise::head;

/// Where within a trace the last line stood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Within {
    #[default]
    Nothing,
    /// What stands above the frames, or the frames that the failure itself follows.
    Head,
    /// The frames, or behind the failure.
    Body,
    /// Something indented throughout: Python's groups, Java's records of two lines.
    Block,
    /// Node: the line of source that failed.
    Source,
}

/// Follows the lines of one stream.
#[derive(Clone, Debug)]
pub(crate) struct Trace {
    language: Language,
    within: Within,
    /// The last line announces a trace.
    announced: bool,
}

impl Trace {
    pub(super) fn new(language: Language) -> Trace {
        Trace {
            language,
            within: Within::Nothing,
            announced: false,
        }
    }

    /// Whether a line, which is not empty, belongs to the one before; `gap`: there were empty ones
    /// between them.
    pub(super) fn belongs(&mut self, line: &str, gap: bool) -> bool {
        let announced = self.announced && !gap;
        let (within, belongs) = match self.language {
            Language::Java => self.java(line, gap, announced),
            Language::Python => self.python(line, announced),
            Language::Go => self.go(line, gap, announced),
            Language::Node => self.node(line, gap, announced),
            Language::Rust => self.rust(line, gap),
            Language::DotNet => self.dot_net(line, announced),
        };
        self.within = within;
        self.announced = within == Within::Nothing && announces(line);
        belongs
    }

    fn java(&self, line: &str, gap: bool, announced: bool) -> (Within, bool) {
        let in_trace = matches!(self.within, Within::Head | Within::Body);
        if is_indented(line) {
            let within = if in_trace || is_frame_of_java(line) {
                Within::Body
            } else {
                self.within
            };
            return (within, true);
        }
        if line.starts_with("Caused by: ") || line.starts_with("Suppressed: ") {
            return (Within::Body, true);
        }
        if line.starts_with("Exception in thread ") {
            return (Within::Head, false);
        }
        if is_exception(line, &["Exception", "Error", "Throwable", "Failure"]) {
            let record = self.within == Within::Block && !gap;
            return (Within::Head, announced || record);
        }
        // java.util.logging writes every record as two lines.
        if is_header_of_java(line) {
            return (Within::Block, false);
        }
        if self.within == Within::Block && !gap && is_level_of_java(line) {
            return (
                if announces(line) {
                    Within::Block
                } else {
                    Within::Nothing
                },
                true,
            );
        }
        // A message may have more lines; what is no record of its own belongs to it.
        let more = self.within == Within::Head && !gap && !has_head(line);
        (if more { Within::Head } else { Within::Nothing }, more)
    }

    fn python(&self, line: &str, announced: bool) -> (Within, bool) {
        if line.starts_with("Traceback (most recent call last):") {
            return (Within::Head, self.within == Within::Head || announced);
        }
        if line
            .trim_start_matches([' ', '+', '|'])
            .starts_with("Exception Group Traceback")
        {
            return (Within::Block, self.within == Within::Head || announced);
        }
        if is_indented(line) {
            // A file that cannot be compiled has no head.
            let bare = self.within == Within::Nothing && line.starts_with("  File \"");
            return (if bare { Within::Head } else { self.within }, !bare);
        }
        if line.starts_with("Fatal Python error: ") {
            return (Within::Block, false);
        }
        let thread = line.ends_with("(most recent call first):");
        if thread || line.starts_with("Extension modules: ") {
            let inside = self.within == Within::Block;
            return (Within::Block, inside);
        }
        match self.within {
            // The exception itself.
            Within::Head => (Within::Body, true),
            Within::Body | Within::Block if is_between_tracebacks(line) => (Within::Head, true),
            // asyncio says what it is about in a line of its own.
            Within::Nothing if announced && line.starts_with("future: <") => {
                (Within::Nothing, true)
            }
            _ => (Within::Nothing, false),
        }
    }

    fn go(&self, line: &str, gap: bool, announced: bool) -> (Within, bool) {
        let in_trace = self.within != Within::Nothing;
        if line.starts_with("goroutine ") && line.ends_with("]:") {
            return (Within::Body, in_trace || announced);
        }
        let signal = line.starts_with("SIG") && line.contains(": ");
        if signal
            || ["panic: ", "fatal error: "]
                .iter()
                .any(|head| line.starts_with(head))
        {
            // A panic while panicking goes on with the first one.
            return (Within::Head, self.within == Within::Head);
        }
        if line == "runtime stack:" {
            return (Within::Body, in_trace);
        }
        let in_head = ["[signal ", "runtime: ", "PC=", "\tpanic: "];
        let head = is_indented(line) || in_head.iter().any(|head| line.starts_with(head));
        let frame = is_indented(line) || is_frame_of_go(line);
        match self.within {
            Within::Head if head => (Within::Head, true),
            Within::Body if frame && !gap => (Within::Body, true),
            Within::Body if line.starts_with("exit status ") => (Within::Nothing, true),
            Within::Body if is_register(line) => (Within::Body, true),
            _ => (Within::Nothing, is_indented(line)),
        }
    }

    fn node(&self, line: &str, gap: bool, announced: bool) -> (Within, bool) {
        if is_place_of_node(line) {
            return (Within::Source, false);
        }
        let in_trace = self.within != Within::Nothing;
        if line.starts_with("(Use `node --trace-") {
            return (self.within, true);
        }
        if line.starts_with("Node.js v") {
            return (Within::Nothing, in_trace);
        }
        match self.within {
            Within::Source => return (Within::Head, true),
            // The mark below the source, and behind it what was thrown.
            Within::Head if line.trim() == "^" => return (Within::Head, true),
            Within::Head if !is_indented(line) => return (Within::Body, true),
            _ => {}
        }
        if is_indented(line) {
            return (if gap { self.within } else { Within::Body }, true);
        }
        if line.starts_with(['}', ']']) && in_trace {
            return (Within::Body, true);
        }
        let error = is_named(line, &["Error", "Exception"]);
        (
            if error { Within::Body } else { Within::Nothing },
            error && announced,
        )
    }

    fn rust(&self, line: &str, gap: bool) -> (Within, bool) {
        if line.starts_with("thread '")
            && (line.contains(" panicked at ") || line.ends_with(" has overflowed its stack"))
        {
            // Since 1.73 the message is a line of its own.
            return (
                if line.ends_with(':') {
                    Within::Head
                } else {
                    Within::Body
                },
                false,
            );
        }
        if line.starts_with("Error: ") {
            return (Within::Body, false);
        }
        let part = [
            "stack backtrace:",
            "Stack backtrace:",
            "note: ",
            "Caused by:",
            "Location:",
            "fatal runtime error: ",
            "thread panicked while ",
        ];
        let in_trace = self.within != Within::Nothing;
        if in_trace && part.iter().any(|part| line.starts_with(part)) {
            return (Within::Body, true);
        }
        match self.within {
            Within::Head if !gap => (Within::Body, true),
            within if is_indented(line) => (within, true),
            _ => (Within::Nothing, false),
        }
    }

    fn dot_net(&self, line: &str, announced: bool) -> (Within, bool) {
        if line.starts_with("Unhandled exception. ") || line.starts_with("Unhandled Exception: ") {
            return (Within::Body, false);
        }
        if is_indented(line) {
            return (self.within, true);
        }
        let part = line.starts_with("--- End of ") || line.starts_with("File name: ");
        if part && self.within == Within::Body {
            return (Within::Body, true);
        }
        if is_exception(line, &["Exception", "Error"]) {
            return (Within::Body, announced);
        }
        (Within::Nothing, false)
    }
}

/// Whether a line is one that a trace may follow as part of the same event.
fn announces(line: &str) -> bool {
    const WORDS: [&str; 9] = [
        "error",
        "exception",
        "fail",
        "fatal",
        "critical",
        "severe",
        "panic",
        "crash",
        "abort",
    ];
    if let Some(severity) = head::read(line).severity {
        return matches!(severity.level(), Level::Error | Level::Warn);
    }
    let end = line
        .char_indices()
        .nth(512)
        .map_or(line.len(), |(at, _)| at);
    let lower = line[..end].to_ascii_lowercase();
    WORDS.iter().any(|word| lower.contains(word))
}

/// Whether a line begins as those of logs do.
fn has_head(line: &str) -> bool {
    let head = head::read(line);
    head.time.is_some() || head.severity.is_some()
}

pub(super) fn is_indented(line: &str) -> bool {
    line.starts_with([' ', '\t'])
}

fn is_frame_of_java(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with("at ") || line.starts_with("... ")
}

/// `java.lang.IllegalStateException: reason`, as it stands below the message that was logged with it.
fn is_exception(line: &str, ends: &[&str]) -> bool {
    let name = line.split_once(':').map_or(line, |(name, _)| name);
    name.contains('.') && name.split('.').all(is_word) && ends.iter().any(|end| name.ends_with(end))
}

/// `TypeError: reason`, `Error [ERR_X]: reason`.
fn is_named(line: &str, ends: &[&str]) -> bool {
    let name = line.split([':', ' ']).next().unwrap_or_default();
    let rest = &line[name.len()..];
    let follows = rest.is_empty() || rest.starts_with(':') || rest.starts_with(" [");
    follows && is_word(name) && ends.iter().any(|end| name.ends_with(end))
}

fn is_word(part: &str) -> bool {
    let mut characters = part.chars();
    let first = characters.next();
    first.is_some_and(|c| c.is_alphabetic() || c == '_')
        && characters.all(|c| c.is_alphanumeric() || matches!(c, '_' | '$' | '`'))
}

/// `Nov 21, 2026 3:25:06 PM com.example.Main main`
fn is_header_of_java(line: &str) -> bool {
    let mut words = line.split(' ');
    let mut next = || words.next().unwrap_or_default();
    let month = next();
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let is_clock = |text: &str| text.split(':').count() == 3 && text.split(':').all(is_number);
    month.len() == 3
        && month.starts_with(|c: char| c.is_ascii_uppercase())
        && next().strip_suffix(',').is_some_and(is_number)
        && is_number(next())
        && is_clock(next())
        && matches!(next(), "AM" | "PM")
}

fn is_level_of_java(line: &str) -> bool {
    const LEVELS: [&str; 7] = [
        "SEVERE", "WARNING", "INFO", "CONFIG", "FINE", "FINER", "FINEST",
    ];
    let level = line.split_once(": ").map(|(level, _)| level);
    level.is_some_and(|level| LEVELS.contains(&level))
}

fn is_between_tracebacks(line: &str) -> bool {
    line.starts_with("During handling of the above exception")
        || line.starts_with("The above exception was the direct cause")
}

/// `main.serve(0xc000012345, {0x4b2, 0x1})`, `created by main.main in goroutine 1`.
fn is_frame_of_go(line: &str) -> bool {
    let name = line.split(' ').next().unwrap_or_default();
    line.starts_with("created by ")
        || line.starts_with("...additional frames elided...")
        || (line.ends_with(')') && name.contains('('))
}

/// `rax    0xca`
fn is_register(line: &str) -> bool {
    let mut words = line.split_whitespace();
    let name = words.next().is_some_and(|name| name.len() <= 6);
    let value = words.next().is_some_and(|value| value.starts_with("0x"));
    name && value && words.next().is_none()
}

/// `/srv/app/main.js:12`, `node:fs:573`, `[eval]:1`: where something was thrown.
fn is_place_of_node(line: &str) -> bool {
    const ENDS: [&str; 6] = [".js", ".mjs", ".cjs", ".ts", ".mts", "]"];
    let Some((file, number)) = line.rsplit_once(':') else {
        return false;
    };
    let numbered = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    let known = ENDS.iter().any(|end| file.ends_with(end)) || file.starts_with("node:");
    numbered && known && !file.contains(' ')
}
