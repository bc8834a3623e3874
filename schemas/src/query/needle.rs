//! What a text must contain for a condition to hold: so that a store can pass over what cannot match
//! without reading it.

use regex_syntax::hir::{Class, Hir, HirKind, Look};

/// Text that has to be there. It is folded: letters A to Z small, the Kelvin sign a `k`, the long s an
/// `s`; so it is a reason to look closer, never a match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needle {
    /// The folded text, never empty.
    pub text: String,
    /// What is before it is no letter A to Z, digit or `_`.
    pub starts: bool,
    /// What is behind it is no letter A to Z, digit or `_`.
    pub ends: bool,
}

/// Which texts have to be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    Text(Needle),
    All(Vec<Needs>),
    Any(Vec<Needs>),
}

impl Needs {
    /// Nothing in particular.
    pub(super) fn nothing() -> Needs {
        Needs::All(Vec::new())
    }

    /// A text as it stands.
    pub(super) fn text(text: &str, starts: bool, ends: bool) -> Needs {
        let text: String = text.chars().map(fold).collect();
        match text.is_empty() {
            true => Needs::nothing(),
            false => Needs::Text(Needle { text, starts, ends }),
        }
    }

    /// A text that is compared in small letters. Those of other alphabets may stand for several
    /// characters, so it says nothing then.
    pub(super) fn lowered(text: &str, starts: bool, ends: bool) -> Needs {
        // The capital i with a dot becomes an i and a dot of its own.
        let text = if ends {
            text
        } else {
            text.strip_suffix('i').unwrap_or(text)
        };
        match text.is_ascii() {
            true => Needs::text(text, starts, ends),
            false => Needs::nothing(),
        }
    }

    /// What a regular expression needs.
    pub(super) fn regex(pattern: &str) -> Needs {
        regex_syntax::parse(pattern).map_or(Needs::nothing(), |hir| of_hir(&hir))
    }

    /// Whether all that is needed may be there.
    pub(super) fn may_be(&self, may_contain: &dyn Fn(&Needle) -> bool) -> bool {
        match self {
            Needs::Text(needle) => may_contain(needle),
            Needs::All(needs) => needs.iter().all(|needs| needs.may_be(may_contain)),
            Needs::Any(needs) => needs.iter().any(|needs| needs.may_be(may_contain)),
        }
    }
}

/// One character as needles have it.
fn fold(c: char) -> char {
    match c {
        '\u{212A}' => 'k',
        '\u{17F}' => 's',
        c => c.to_ascii_lowercase(),
    }
}

/// Whether a folded character belongs to words.
fn is_of_words(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn of_hir(hir: &Hir) -> Needs {
    let mut run = Run::default();
    run.add(hir);
    run.cut(false);
    match run.needs.pop() {
        Some(only) if run.needs.is_empty() => only,
        last => {
            run.needs.extend(last);
            Needs::All(run.needs)
        }
    }
}

/// Collects what stands side by side.
#[derive(Default)]
struct Run {
    text: String,
    starts: bool,
    needs: Vec<Needs>,
}

impl Run {
    fn add(&mut self, hir: &Hir) {
        match hir.kind() {
            HirKind::Empty => {}
            HirKind::Literal(literal) => match std::str::from_utf8(&literal.0) {
                Ok(text) => self.text.extend(text.chars().map(fold)),
                Err(_) => self.cut(false),
            },
            HirKind::Class(class) => match folded(class) {
                Some(c) => self.text.push(c),
                None => self.cut(has_no_word(class)),
            },
            HirKind::Look(look) => match look {
                Look::Start | Look::End | Look::WordUnicode => self.cut(true),
                _ => self.cut(false),
            },
            HirKind::Capture(capture) => self.add(&capture.sub),
            HirKind::Concat(parts) => parts.iter().for_each(|part| self.add(part)),
            HirKind::Repetition(repetition) => {
                self.cut(false);
                if repetition.min > 0 {
                    self.needs.push(of_hir(&repetition.sub));
                }
            }
            HirKind::Alternation(ways) => {
                self.cut(false);
                self.needs
                    .push(Needs::Any(ways.iter().map(of_hir).collect()));
            }
        }
    }

    /// Ends the text in hand. At a boundary no word goes on.
    fn cut(&mut self, boundary: bool) {
        let text = std::mem::take(&mut self.text);
        let starts = std::mem::replace(&mut self.starts, boundary);
        if !text.is_empty() {
            let ends = boundary;
            self.needs.push(Needs::Text(Needle { text, starts, ends }));
        }
    }
}

/// The character that a class stands for once folded, if there is one.
fn folded(class: &Class) -> Option<char> {
    let Class::Unicode(class) = class else {
        return None;
    };
    // At most four characters fold to the same.
    let all = class.iter().flat_map(|range| range.start()..=range.end());
    let all: Vec<char> = all.take(5).map(fold).collect();
    let (first, rest) = all.split_first()?;
    (rest.len() < 4 && rest.iter().all(|c| c == first)).then_some(*first)
}

/// Whether no character of a class belongs to words.
fn has_no_word(class: &Class) -> bool {
    let Class::Unicode(class) = class else {
        return false;
    };
    let words = ('0'..='z').filter(|c| is_of_words(*c));
    let mut words = words.chain(['\u{212A}', '\u{17F}']);
    !words.any(|c| {
        let mut ranges = class.iter();
        ranges.any(|range| (range.start()..=range.end()).contains(&c))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needle(text: &str, starts: bool, ends: bool) -> Needs {
        Needs::text(text, starts, ends)
    }

    #[test]
    fn what_a_pattern_needs_is_found() {
        let cases = [
            ("Timed out", needle("timed out", false, false)),
            (r"\bOOM\b", needle("oom", true, true)),
            (
                r"^GET .*ms$",
                Needs::All(vec![needle("get ", true, false), needle("ms", false, true)]),
            ),
            (r"(?i)disk full", needle("disk full", false, false)),
            (
                r"a\sb",
                Needs::All(vec![needle("a", false, true), needle("b", true, false)]),
            ),
            (
                r"a.b",
                Needs::All(vec![needle("a", false, false), needle("b", false, false)]),
            ),
            (
                r"fail(ed|ure)?:",
                Needs::All(vec![
                    needle("fail", false, false),
                    needle(":", false, false),
                ]),
            ),
            (r"(?:one)+", needle("one", false, false)),
            (r"[0-9]+", Needs::nothing()),
        ];
        for (pattern, expected) in cases {
            assert_eq!(Needs::regex(pattern), expected, "{pattern}");
        }
    }

    #[test]
    fn of_alternatives_one_is_needed() {
        let needs = Needs::regex("oom|killed");
        assert!(needs.may_be(&|needle| needle.text == "oom"));
        assert!(!needs.may_be(&|needle| needle.text == "other"));
    }

    #[test]
    fn no_pattern_needs_what_it_does_not_contain() {
        for pattern in ["", "a*", "(a|)", r"\d", "é|x"] {
            let needs = Needs::regex(pattern);
            let may = needs.may_be(&|needle| needle.text == "é" || needle.text == "x");
            assert!(may, "{pattern}: {needs:?}");
        }
        assert_eq!(Needs::lowered("straße", true, true), Needs::nothing());
    }
}
