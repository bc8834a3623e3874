//! What values are compared with, and how.

use std::cmp::Ordering;

use super::needle::Needs;

/// A value of a query.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Literal {
    text: String,
    /// Written without quotes, and a number.
    number: Option<f64>,
    /// AWS IoT's syntax: without regard to case.
    fold: bool,
}

impl Literal {
    pub(super) fn new(text: String, quoted: bool, fold: bool) -> Literal {
        Literal {
            number: number(&text).filter(|_| !quoted),
            text: if fold { text.to_lowercase() } else { text },
            fold,
        }
    }

    /// As it was written; AWS IoT's in small letters.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The only text that is equal, if there is one.
    pub(super) fn exactly(&self) -> Option<&str> {
        (!self.fold).then_some(&self.text)
    }

    /// What a text has to contain to be equal.
    pub(super) fn needs(&self) -> Needs {
        match self.fold {
            true => Needs::lowered(&self.text, true, true),
            false => Needs::text(&self.text, true, true),
        }
    }

    pub(super) fn equals(&self, value: &str) -> bool {
        match self.fold {
            true => value.to_lowercase() == self.text,
            false => value == self.text,
        }
    }

    /// How the value stands to the literal; `None` if it cannot be compared.
    pub(super) fn compare(&self, value: &str) -> Option<Ordering> {
        match self.number {
            Some(of) => number(value)?.partial_cmp(&of),
            None if self.fold => Some(versions(&value.to_lowercase(), &self.text)),
            None => Some(versions(value, &self.text)),
        }
    }
}

/// A decimal number such as `-1.5`, as people write them: no `inf`, no `nan`, no exponent.
fn number(text: &str) -> Option<f64> {
    let text = text.trim();
    let digits = text.strip_prefix('-').unwrap_or(text);
    let plain = digits
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    let number: f64 = text.parse().ok().filter(|_| plain)?;
    number.is_finite().then_some(number)
}

/// As versions are ordered: number by number between the dots, `2.0-rc1` before `2.0`, what follows a
/// `+` aside. Texts that are no versions have an order as well.
pub(super) fn versions(a: &str, b: &str) -> Ordering {
    let ((a, a_before), (b, b_before)) = (release(a), release(b));
    dotted(a, b).then_with(|| match (a_before, b_before) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some(a), Some(b)) => dotted(a, b),
    })
}

/// The release and what comes before it: `2.0` and `rc1`.
fn release(version: &str) -> (&str, Option<&str>) {
    let version = version.trim();
    let bare = version.strip_prefix('v').or(version.strip_prefix('V'));
    let bare = bare.filter(|bare| bare.starts_with(|c: char| c.is_ascii_digit()));
    let version = bare.unwrap_or(version);
    let version = version
        .split_once('+')
        .map_or(version, |(version, _)| version);
    match version.split_once('-') {
        Some((release, before)) => (release, Some(before)),
        None => (version, None),
    }
}

/// Part by part; a part that is not there is a 0.
fn dotted(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.split('.'), b.split('.'));
    loop {
        let order = match (a.next(), b.next()) {
            (None, None) => return Ordering::Equal,
            (a, b) => natural(a.unwrap_or("0"), b.unwrap_or("0")),
        };
        if order.is_ne() {
            return order;
        }
    }
}

/// Runs of digits as numbers, all else by characters: `r9` before `r12`.
fn natural(mut a: &str, mut b: &str) -> Ordering {
    loop {
        let ((a_run, a_rest), (b_run, b_rest)) = (run(a), run(b));
        let digits = |run: &str| run.starts_with(|c: char| c.is_ascii_digit());
        let order = if digits(a_run) && digits(b_run) {
            let (a, b) = (a_run.trim_start_matches('0'), b_run.trim_start_matches('0'));
            a.len().cmp(&b.len()).then_with(|| a.cmp(b))
        } else {
            a_run.cmp(b_run)
        };
        if order.is_ne() || (a_rest.is_empty() && b_rest.is_empty()) {
            return order;
        }
        (a, b) = (a_rest, b_rest);
    }
}

/// The digits, or what is none, that a text begins with; and the rest.
fn run(text: &str) -> (&str, &str) {
    let digits = text.starts_with(|c: char| c.is_ascii_digit());
    let end = text.find(|c: char| c.is_ascii_digit() != digits);
    text.split_at(end.unwrap_or(text.len()))
}

/// A pattern with `*` and `?`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Glob {
    pieces: Vec<Piece>,
    fold: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Exactly(char),
    One,
    Any,
}

impl Piece {
    fn exactly(&self) -> Option<char> {
        match self {
            Piece::Exactly(c) => Some(*c),
            Piece::One | Piece::Any => None,
        }
    }
}

impl Glob {
    /// Neighbouring `*` are one.
    pub(super) fn new(pieces: impl IntoIterator<Item = Piece>, fold: bool) -> Glob {
        let mut kept: Vec<Piece> = Vec::new();
        for piece in pieces {
            match piece {
                Piece::Any if kept.last() == Some(&Piece::Any) => {}
                Piece::Exactly(c) if fold => kept.extend(c.to_lowercase().map(Piece::Exactly)),
                piece => kept.push(piece),
            }
        }
        Glob { pieces: kept, fold }
    }

    /// A pattern as text.
    pub(super) fn of(text: &str) -> Glob {
        let piece = |c| match c {
            '*' => Piece::Any,
            '?' => Piece::One,
            c => Piece::Exactly(c),
        };
        Glob::new(text.chars().map(piece), false)
    }

    /// Whether it stands for any text.
    pub(super) fn is_anything(&self) -> bool {
        self.pieces == [Piece::Any]
    }

    /// The text, if there is nothing else in it.
    pub(super) fn literal(&self) -> Option<String> {
        self.pieces.iter().map(Piece::exactly).collect()
    }

    /// What a text has to contain to fit.
    pub(super) fn needs(&self) -> Needs {
        let runs = self
            .pieces
            .split(|piece| !matches!(piece, Piece::Exactly(_)));
        let last = runs.clone().count() - 1;
        let needs = runs.enumerate().map(|(at, run)| {
            let text: String = run.iter().filter_map(Piece::exactly).collect();
            let (starts, ends) = (at == 0, at == last);
            match self.fold {
                true => Needs::lowered(&text, starts, ends),
                false => Needs::text(&text, starts, ends),
            }
        });
        Needs::All(needs.collect())
    }

    /// Whether all of the text fits. Goes back to the last `*` only, so the time is at most the
    /// product of the lengths.
    pub(super) fn matches(&self, text: &str) -> bool {
        match self.fold {
            true => self.fits(&text.to_lowercase()),
            false => self.fits(text),
        }
    }

    fn fits(&self, text: &str) -> bool {
        let mut rest = text.chars();
        let mut at = 0;
        let mut star = None;
        loop {
            let before = rest.clone();
            match (self.pieces.get(at), rest.next()) {
                (None, None) => return true,
                (Some(Piece::Any), _) => {
                    rest = before;
                    at += 1;
                    star = Some((at, rest.clone()));
                }
                (Some(Piece::One), Some(_)) => at += 1,
                (Some(Piece::Exactly(wanted)), Some(c)) if *wanted == c => at += 1,
                _ => {
                    // One character more for the last `*`.
                    let Some((behind, from)) = &mut star else {
                        return false;
                    };
                    if from.next().is_none() {
                        return false;
                    }
                    rest = from.clone();
                    at = *behind;
                }
            }
        }
    }
}
