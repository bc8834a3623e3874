//! Regular expressions of queries: in one text, and in many texts at once.
//!
//! To ask a regular expression once for each of thousands of short texts costs more than what it does
//! within them. So texts are laid side by side as lines, and one search goes through all of them with the
//! same expression, but for its ends of text, which become ends of lines. That is done with texts that are
//! ASCII and have no line break of their own, which nearly all are: then no match goes over the end of a
//! line, all of Unicode beyond ASCII drops out of the expression, and what is left is faster many times.
//! It finds in a line what the original finds in the text.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use regex::{Regex, RegexBuilder};
use regex_automata::{Input, meta};
use regex_syntax::hir::{
    Class, ClassBytes, ClassBytesRange, ClassUnicode, ClassUnicodeRange, Hir, HirKind, Look,
    Repetition,
};

use super::needle::Needs;

/// Bytes that a compiled expression may take, and what a search with it keeps in hand.
const BYTES: usize = 256 << 10;
/// What searches through lines keep in hand with all expressions of a query together, if that leaves each
/// of them [`BYTES`].
const BYTES_OF_LINES: usize = 4 << 20;
/// What one of them keeps at most.
const MOST_OF_LINES: usize = 2 << 20;

/// A regular expression.
#[derive(Clone, Debug)]
pub struct Pattern {
    regex: Regex,
    needs: Needs,
    /// Bytes that a search through lines may keep in hand.
    share: usize,
    lines: Arc<OnceLock<Option<meta::Regex>>>,
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
            share: BYTES,
            lines: Arc::default(),
        })
    }

    /// Shares memory between the patterns of a query.
    pub(super) fn share(patterns: Vec<&mut Pattern>) {
        let share = BYTES_OF_LINES / patterns.len().max(1);
        for pattern in patterns {
            pattern.share = share.clamp(BYTES, MOST_OF_LINES);
        }
    }

    /// What a text must contain.
    pub(super) fn needs(&self) -> &Needs {
        &self.needs
    }

    /// Whether it is found in a text.
    pub fn is_match(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }

    /// The same for texts that stand side by side as lines; `None` if this expression cannot be asked so.
    pub fn lines(&self) -> Option<Lines<'_>> {
        let compile = || of_lines(self.regex.as_str(), self.share);
        self.lines.get_or_init(compile).as_ref().map(Lines)
    }

    /// Whether a text may be a line of [`Pattern::lines`].
    pub fn is_line(text: &str) -> bool {
        text.is_ascii() && !text.contains('\n')
    }
}

/// A regular expression for lines.
#[derive(Clone, Copy, Debug)]
pub struct Lines<'a>(&'a meta::Regex);

/// What a search with [`Lines`] keeps in hand from one text to the next; it grows while it is used. Who
/// searches owns it, so that it ends with the search.
#[derive(Debug)]
pub struct LinesCache(meta::Cache);

impl Lines<'_> {
    /// What [`Lines::find`] with this expression, and no other, wants.
    pub fn cache(self) -> LinesCache {
        LinesCache(self.0.create_cache())
    }

    /// A place within, or at the end of, the first line that matches. `lines` are texts as
    /// [`Pattern::is_line`] wants them, each but the last with a `\n` behind it; what is looked through
    /// begins where one of them does and ends where one of them does.
    pub fn find(self, cache: &mut LinesCache, lines: &str, within: Range<usize>) -> Option<usize> {
        // No match goes over the end of a line, so any end of the first match will do.
        let input = Input::new(lines).range(within).earliest(true);
        let found = self.0.search_half_with(&mut cache.0, &input);
        found.map(|found| found.offset())
    }
}

fn of_lines(pattern: &str, share: usize) -> Option<meta::Regex> {
    let hir = lined(&regex_syntax::parse(pattern).ok()?)?;
    let config = meta::Config::new()
        .utf8_empty(false)
        .nfa_size_limit(Some(BYTES))
        .onepass_size_limit(Some(BYTES))
        .hybrid_cache_capacity(share);
    let regex = meta::Builder::new().configure(config).build_from_hir(&hir);
    regex.ok()
}

/// The expression for lines of ASCII. `None` if that cannot be said.
fn lined(hir: &Hir) -> Option<Hir> {
    let all = |parts: &[Hir]| parts.iter().map(lined).collect::<Option<Vec<Hir>>>();
    Some(match hir.kind() {
        HirKind::Empty => Hir::empty(),
        HirKind::Literal(literal) => match literal.0.is_ascii() && !literal.0.contains(&b'\n') {
            true => Hir::literal(literal.0.clone()),
            false => Hir::fail(),
        },
        HirKind::Class(class) => Hir::class(Class::Bytes(of_ascii(class)?)),
        HirKind::Look(look) => Hir::look(lined_look(*look)?),
        HirKind::Repetition(repetition) => Hir::repetition(Repetition {
            sub: Box::new(lined(&repetition.sub)?),
            ..repetition.clone()
        }),
        // What a part has found is never asked.
        HirKind::Capture(capture) => lined(&capture.sub)?,
        HirKind::Concat(parts) => Hir::concat(all(parts)?),
        HirKind::Alternation(ways) => Hir::alternation(all(ways)?),
    })
}

/// What of a class is ASCII and no line break.
fn of_ascii(class: &Class) -> Option<ClassBytes> {
    match class {
        Class::Unicode(class) => {
            let mut class = class.clone();
            let ranges = [('\0', '\t'), ('\u{b}', '\u{7f}')];
            let ranges = ranges.map(|(from, to)| ClassUnicodeRange::new(from, to));
            class.intersect(&ClassUnicode::new(ranges));
            class.to_byte_class()
        }
        Class::Bytes(class) => {
            let mut class = class.clone();
            let ranges = [(0, b'\t'), (0xb, 0x7f)];
            let ranges = ranges.map(|(from, to)| ClassBytesRange::new(from, to));
            class.intersect(&ClassBytes::new(ranges));
            Some(class)
        }
    }
}

fn lined_look(look: Look) -> Option<Look> {
    Some(match look {
        Look::Start | Look::StartLF => Look::StartLF,
        Look::End | Look::EndLF => Look::EndLF,
        // At the end of a line that ends with a carriage return these say something else.
        Look::StartCRLF | Look::EndCRLF => return None,
        Look::WordUnicode => Look::WordAscii,
        Look::WordUnicodeNegate => Look::WordAsciiNegate,
        Look::WordStartUnicode => Look::WordStartAscii,
        Look::WordEndUnicode => Look::WordEndAscii,
        Look::WordStartHalfUnicode => Look::WordStartHalfAscii,
        Look::WordEndHalfUnicode => Look::WordEndHalfAscii,
        Look::WordAscii
        | Look::WordAsciiNegate
        | Look::WordStartAscii
        | Look::WordEndAscii
        | Look::WordStartHalfAscii
        | Look::WordEndHalfAscii => look,
    })
}

#[cfg(test)]
mod tests {
    use super::super::EventQuery;
    use super::*;
    use proptest::prelude::*;

    /// Which texts match, if they can be asked at once: those before `split`, and those from there on.
    fn at_once(pattern: &Pattern, texts: &[String], split: usize) -> Option<Vec<bool>> {
        let lines = pattern.lines()?;
        let mut cache = lines.cache();
        let all = texts.join("\n");
        let mut ends = Vec::new();
        for text in texts {
            ends.push(ends.last().map_or(0, |end| end + 1) + text.len());
        }
        let mut found = vec![false; texts.len()];
        for mut rows in [0..split, split..texts.len()] {
            while !rows.is_empty() {
                let within = ends[rows.start] - texts[rows.start].len()..ends[rows.end - 1];
                let Some(end) = lines.find(&mut cache, &all, within) else {
                    break;
                };
                let row = ends.partition_point(|it| *it < end);
                found[row] = true;
                rows.start = row + 1;
            }
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
        r"\b{start}k|c\b{end}",
        r"\b{start-half}b\b{end-half}",
        "(?i)AB",
        "abc|b",
        "abca|bc",
        r"a\s+b",
        r"\W",
        r"[^\n]b",
        r"\n",
        r"a\nb|c",
        r"(?-u:\b)a",
        r"(?-u:[\x00-\x7f])b",
        "ä|ſ",
        "(?i)k",
        r"\w{3}",
        "(a|b|c)+ (a|b)",
        "a{2,4}$",
        "",
        "(|b)c",
        "ä",
    ];

    /// Expressions put together at random.
    fn patterns() -> impl Strategy<Value = String> {
        let parts = prop_oneof![
            "[abck ]{1,2}",
            Just("ä".to_owned()),
            Just(r"\n".to_owned()),
            r"(\^|\$|\\A|\\z|\\b|\\B|\\w|\\W|\\s|\\S|\.|\(\?m:\^\)|\(\?m:\$\)|\(\?s:\.\)|\[\^a\]|\[\^\\n\]|\(\?i:K\)|\(\?-u:\\b\))",
        ];
        let pattern = parts.prop_recursive(4, 16, 3, |part| {
            prop_oneof![
                proptest::collection::vec(part.clone(), 1..4).prop_map(|parts| parts.concat()),
                proptest::collection::vec(part.clone(), 1..4)
                    .prop_map(|parts| format!("({})", parts.join("|"))),
                (part, r"(\*|\+|\?|\{2\}|\*\?|\{1,3\}|\+\?)")
                    .prop_map(|(part, times)| format!("(?:{part}){times}")),
            ]
        });
        prop_oneof![
            pattern,
            prop::sample::select(PATTERNS).prop_map(str::to_owned)
        ]
    }

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
        assert!(!Pattern::is_line("a\nb") && !Pattern::is_line("ä") && Pattern::is_line("a\r"));
    }

    /// Patterns that are dear: where one matches depends on each of the last characters by itself.
    #[test]
    fn what_a_search_keeps_in_hand_has_a_limit() {
        let mut n = 0u64;
        let mut character = || {
            n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            b"ab0 "[(n >> 60) as usize % 4] as char
        };
        let lines: Vec<String> = (0..300)
            .map(|_| (0..99).map(|_| character()).collect())
            .collect();
        let lines = lines.join("\n");
        for count in [1, 2, 8, 32] {
            let dear = |at| format!("message ~ /[ab].{{{}}}[0a]Q/", at + 20);
            let query = (0..count).map(dear).collect::<Vec<_>>().join(" or ");
            let mut query = EventQuery::parse(&query).unwrap();
            let patterns = query.root.patterns();
            assert_eq!(patterns.len(), count);
            let caches = patterns.into_iter().map(|pattern| {
                let of_lines = pattern.lines().unwrap();
                let mut cache = of_lines.cache();
                assert_eq!(of_lines.find(&mut cache, &lines, 0..lines.len()), None);
                cache.0.memory_usage()
            });
            let bytes: usize = caches.sum();
            assert!(bytes < 9 << 20, "{count} patterns keep {bytes} bytes");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn many_at_once_are_what_each_is_alone(
            pattern in patterns(),
            texts in proptest::collection::vec(r"[abckABK _1\-\r\t\x00\x0b\x0c\x7f]{0,6}", 1..12),
            split in any::<prop::sample::Index>(),
        ) {
            // What was put together may be too big.
            let Ok(pattern) = Pattern::new(&pattern) else { return Ok(()) };
            let alone: Vec<bool> = texts.iter().map(|text| pattern.is_match(text)).collect();
            let at_once = at_once(&pattern, &texts, split.index(texts.len() + 1));
            prop_assert!(at_once.is_none_or(|found| found == alone));
        }
    }
}
