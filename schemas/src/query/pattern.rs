//! Regular expressions of queries: in one text, and in many texts at once.
//!
//! To ask a regular expression once for each of thousands of short texts costs more than what it does
//! within them. So texts without a line break are laid side by side as lines, and one search goes through
//! all of them: with the same expression, but for its ends of text, which become ends of lines, and its
//! line breaks, of which none is left. It finds in a line what the original finds in the text.

use std::sync::{Arc, OnceLock};

use regex::{Regex, RegexBuilder};
use regex_syntax::hir::{
    Capture, Class, ClassBytes, ClassBytesRange, ClassUnicode, ClassUnicodeRange, Hir, HirKind,
    Look, Repetition,
};

use super::needle::Needs;

/// Bytes that a compiled expression may take, and what a search with it keeps in hand.
const BYTES: usize = 256 << 10;
/// The latter for one that goes through a lot at once.
const BYTES_OF_LINES: usize = 2 << 20;

/// A regular expression.
#[derive(Clone, Debug)]
pub struct Pattern {
    regex: Regex,
    needs: Needs,
    of_lines: Arc<OnceLock<Option<Regex>>>,
}

impl Pattern {
    pub(super) fn new(pattern: &str) -> Result<Pattern, regex::Error> {
        let regex = RegexBuilder::new(pattern)
            .size_limit(BYTES)
            .dfa_size_limit(BYTES)
            .build()?;
        Ok(Pattern {
            regex,
            needs: Needs::regex(pattern),
            of_lines: Arc::default(),
        })
    }

    /// What a text must contain.
    pub(super) fn needs(&self) -> &Needs {
        &self.needs
    }

    /// Whether it is found in a text.
    pub fn is_match(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }

    /// The same for texts that stand side by side as lines, each without a line break of its own;
    /// `None` if this expression cannot be asked so.
    pub fn lines(&self) -> Option<Lines<'_>> {
        let compile = || of_lines(self.regex.as_str());
        self.of_lines.get_or_init(compile).as_ref().map(Lines)
    }
}

/// A regular expression for lines.
#[derive(Clone, Copy, Debug)]
pub struct Lines<'a>(&'a Regex);

impl Lines<'_> {
    /// A place within, or at the end of, the first line that matches, from the line that begins at `start`
    /// on. `lines` are divided by `\n`.
    pub fn find(self, lines: &str, start: usize) -> Option<usize> {
        // No match goes over the end of a line, so any end of the first match will do.
        self.0.shortest_match_at(lines, start)
    }
}

fn of_lines(pattern: &str) -> Option<Regex> {
    let hir = regex_syntax::parse(pattern).ok()?;
    let pattern = lined(&hir)?.to_string();
    let regex = RegexBuilder::new(&pattern)
        .size_limit(2 * BYTES)
        .dfa_size_limit(BYTES_OF_LINES)
        .build();
    regex.ok()
}

/// The expression without line breaks, whose ends are those of lines. `None` if that cannot be said.
fn lined(hir: &Hir) -> Option<Hir> {
    let all = |parts: &[Hir]| parts.iter().map(lined).collect::<Option<Vec<Hir>>>();
    Some(match hir.kind() {
        HirKind::Empty => Hir::empty(),
        HirKind::Literal(literal) if literal.0.contains(&b'\n') => Hir::fail(),
        HirKind::Literal(literal) => Hir::literal(literal.0.clone()),
        HirKind::Class(Class::Unicode(class)) => {
            let mut class = class.clone();
            class.difference(&ClassUnicode::new([ClassUnicodeRange::new('\n', '\n')]));
            Hir::class(Class::Unicode(class))
        }
        HirKind::Class(Class::Bytes(class)) => {
            let mut class = class.clone();
            class.difference(&ClassBytes::new([ClassBytesRange::new(b'\n', b'\n')]));
            Hir::class(Class::Bytes(class))
        }
        HirKind::Look(Look::Start | Look::StartLF) => Hir::look(Look::StartLF),
        HirKind::Look(Look::End | Look::EndLF) => Hir::look(Look::EndLF),
        // At the end of a line that ends with a carriage return these say something else.
        HirKind::Look(Look::StartCRLF | Look::EndCRLF) => return None,
        HirKind::Look(look) => Hir::look(*look),
        HirKind::Repetition(repetition) => Hir::repetition(Repetition {
            sub: Box::new(lined(&repetition.sub)?),
            ..repetition.clone()
        }),
        HirKind::Capture(capture) => Hir::capture(Capture {
            sub: Box::new(lined(&capture.sub)?),
            ..capture.clone()
        }),
        HirKind::Concat(parts) => Hir::concat(all(parts)?),
        HirKind::Alternation(ways) => Hir::alternation(all(ways)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Which texts match, asked all at once.
    fn at_once(pattern: &Pattern, texts: &[String]) -> Option<Vec<bool>> {
        let lines = pattern.lines()?;
        let all: String = texts.iter().map(|text| format!("{text}\n")).collect();
        let mut ends = Vec::new();
        for text in texts {
            ends.push(ends.last().map_or(0, |end| end + 1) + text.len());
        }
        let mut found = vec![false; texts.len()];
        let mut row = 0;
        while row < texts.len() {
            let start = ends[row] - texts[row].len();
            let Some(end) = lines.find(&all, start) else {
                break;
            };
            row = ends.partition_point(|it| *it < end);
            if row < texts.len() {
                found[row] = true;
            }
            row += 1;
        }
        Some(found)
    }

    const PATTERNS: &[&str] = &[
        "b",
        "^b",
        "b$",
        r"\Ab\z",
        "^$",
        "a*",
        "a+b?",
        "(?m)^a|b$",
        "(?s)a.b",
        "(?s).",
        "a[^b]*c",
        "a[^b]*",
        r"\bab\b",
        r"\Ba",
        "(?i)AB",
        "abc|b",
        "abca|bc",
        r"a\s+b",
        r"\W",
        r"[^\n]b",
        r"\n",
        r"a\nb|c",
        r"(?-u:\b)a",
        "ä|ſ",
        "(?i)k",
        r"\pL{3}",
        "(a|b|c)+ (a|b)",
        "a{2,4}$",
        "",
        "(|b)c",
    ];

    #[test]
    fn what_lines_cannot_say_is_asked_of_each_text() {
        for pattern in ["(?mR)a$", "(?mR)^a"] {
            assert!(
                Pattern::new(pattern).unwrap().lines().is_none(),
                "{pattern}"
            );
        }
        for pattern in PATTERNS {
            assert!(
                Pattern::new(pattern).unwrap().lines().is_some(),
                "{pattern}"
            );
        }
    }

    proptest! {
        #[test]
        fn many_at_once_are_what_each_is_alone(
            which in 0..PATTERNS.len(),
            texts in proptest::collection::vec("[abc k\u{212A}äſ\r\t]{0,6}", 0..12),
        ) {
            let pattern = Pattern::new(PATTERNS[which]).unwrap();
            let alone: Vec<bool> = texts.iter().map(|text| pattern.is_match(text)).collect();
            prop_assert_eq!(at_once(&pattern, &texts), Some(alone), "{}", PATTERNS[which]);
        }
    }
}
