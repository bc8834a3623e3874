//! What people read: tables with aligned columns and lists of fields, in colour on a terminal.
//! What came from devices or from other operators is never trusted: a terminal obeys none of it.

use std::fmt::Write;

use thinglog_schemas::{Level, json};

use crate::line;

/// How a text looks on a terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Style {
    #[default]
    Plain,
    /// What the eye should find.
    Strong,
    /// What it should pass over.
    Faint,
    /// All is well.
    Good,
    /// Something to look at.
    Bad,
    Level(Level),
}

impl Style {
    /// SGR parameters (ECMA-48 section 8.3.117).
    fn code(self) -> Option<&'static str> {
        match self {
            Style::Plain => None,
            Style::Strong => Some("1"),
            Style::Faint => Some("2"),
            Style::Good => Some("32"),
            Style::Bad => Some("31"),
            Style::Level(level) => Some(line::style(level)),
        }
    }
}

/// A piece of text, safe to print.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    pub(crate) fn styled(text: &str, style: Style) -> Cell {
        let mut safe = String::new();
        line::escape(text, &mut safe);
        // A tab would tear the columns apart.
        let text = safe.replace('\t', "\\t");
        Cell { text, style }
    }

    pub(crate) fn level(word: &str) -> Cell {
        let style = word.parse().map_or(Style::Plain, Style::Level);
        Cell::styled(word, style)
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }

    pub(crate) fn write(&self, colour: bool, out: &mut String) {
        match self
            .style
            .code()
            .filter(|_| colour && !self.text.is_empty())
        {
            None => out.push_str(&self.text),
            Some(code) => {
                let _ = write!(out, "\x1b[{code}m{}\x1b[0m", self.text);
            }
        }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Cell {
        Cell::styled(text, Style::Plain)
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Cell {
        Cell::from(text.as_str())
    }
}

/// Rows under headings. A column in which nothing stands is left out.
pub(crate) struct Table {
    head: Vec<Cell>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    pub(crate) fn new(head: &[&str]) -> Table {
        let head = head.iter().map(|text| Cell::styled(text, Style::Faint));
        Table {
            head: head.collect(),
            rows: Vec::new(),
        }
    }

    pub(crate) fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    pub(crate) fn render(&self, colour: bool) -> String {
        let column = |at: usize| self.rows.iter().filter_map(move |row| row.get(at));
        let width = |at: usize| column(at).map(Cell::width).max().unwrap_or(0);
        let used = (0..self.head.len()).filter(|at| width(*at) > 0);
        let columns: Vec<(usize, usize)> = used
            .map(|at| (at, width(at).max(self.head[at].width())))
            .collect();
        let mut out = String::new();
        let empty = Cell::default();
        for row in std::iter::once(&self.head).chain(&self.rows) {
            let mut gap = 0;
            for (at, width) in &columns {
                let cell = row.get(*at).unwrap_or(&empty);
                // Padding comes before the next text, so that no line ends with it.
                if cell.width() > 0 {
                    out.extend(std::iter::repeat_n(' ', gap));
                    gap = 0;
                    cell.write(colour, &mut out);
                }
                gap += width - cell.width() + 2;
            }
            out.push('\n');
        }
        out
    }
}

/// Fields of one thing, a line each; those without a value are left out.
pub(crate) struct Fields {
    title: Cell,
    rows: Vec<(&'static str, Cell)>,
}

impl Fields {
    pub(crate) fn of(title: &str) -> Fields {
        Fields {
            title: Cell::styled(title, Style::Strong),
            rows: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, name: &'static str, value: impl Into<Cell>) {
        let value = value.into();
        if !value.text.is_empty() {
            self.rows.push((name, value));
        }
    }

    pub(crate) fn render(&self, colour: bool) -> String {
        let mut out = String::new();
        self.title.write(colour, &mut out);
        out.push('\n');
        let width = self.rows.iter().map(|(name, _)| name.len()).max();
        let width = width.unwrap_or(0);
        for (name, value) in &self.rows {
            out.push_str("  ");
            Cell::styled(name, Style::Faint).write(colour, &mut out);
            out.extend(std::iter::repeat_n(' ', width - name.len() + 2));
            value.write(colour, &mut out);
            out.push('\n');
        }
        out
    }
}

/// A time without its fractions of a second, and how far it is from `now` (ns): `2026-01-02 03:04:05Z
/// (in 14 min)`. What is no time stays as it is.
pub(crate) fn when(text: &str, now: u64) -> String {
    match json::parse_time(text) {
        None => text.to_owned(),
        Some(time) => {
            let mut written = Vec::new();
            json::write_time(time, &mut written);
            let written = String::from_utf8_lossy(&written[..19]).replace('T', " ");
            format!("{written}Z ({})", away(time, now))
        }
    }
}

/// `in 14 min`, `3 h ago`.
fn away(time: u64, now: u64) -> String {
    let seconds = time.abs_diff(now).div_ceil(1_000_000_000);
    let (number, unit) = match seconds {
        0..120 => (seconds, "s"),
        120..7200 => (seconds / 60, "min"),
        7200..172_800 => (seconds / 3600, "h"),
        _ => (seconds / 86_400, "days"),
    };
    match time > now {
        true => format!("in {number} {unit}"),
        false => format!("{number} {unit} ago"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&["TARGET", "LEVEL", "UNTIL", "BY"]);
        table.row(vec![
            "default".into(),
            Cell::level("WARN"),
            "".into(),
            "alice".into(),
        ]);
        table.row(vec!["device:lamp-7".into(), Cell::level("DEBUG")]);
        table
    }

    #[test]
    fn columns_are_aligned_and_empty_ones_left_out() {
        let expected = "TARGET         LEVEL  BY\n\
                        default        WARN   alice\n\
                        device:lamp-7  DEBUG\n";
        assert_eq!(table().render(false), expected);
    }

    #[test]
    fn colours_change_nothing_but_the_colour() {
        let mut coloured = table().render(true);
        assert!(coloured.contains("\x1b[33mWARN\x1b[0m"), "{coloured:?}");
        for code in ["\x1b[33m", "\x1b[34m", "\x1b[0m", "\x1b[2m"] {
            coloured = coloured.replace(code, "");
        }
        assert_eq!(coloured, table().render(false));
    }

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        let mut table = Table::new(&["A", "B"]);
        table.row(vec!["x\x1b[2J\ty".into(), "z\n".into()]);
        assert_eq!(
            table.render(false),
            "A              B\nx\\u{1b}[2J\\ty  z\\n\n"
        );
    }

    #[test]
    fn fields_without_a_value_are_left_out() {
        let mut fields = Fields::of("group:eu");
        fields.add("level", Cell::level("DEBUG"));
        fields.add("sources", "");
        fields.add("changed by", "alice");
        let expected = "group:eu\n  level       DEBUG\n  changed by  alice\n";
        assert_eq!(fields.render(false), expected);
    }

    #[test]
    fn times_say_how_far_they_are() {
        let now = json::parse_time("2026-01-02T03:04:05Z").unwrap();
        for (text, shown) in [
            ("2026-01-02T03:04:07.5Z", "2026-01-02 03:04:07Z (in 3 s)"),
            ("2026-01-02T03:18:05Z", "2026-01-02 03:18:05Z (in 14 min)"),
            ("2026-01-02T00:00:00Z", "2026-01-02 00:00:00Z (3 h ago)"),
            ("2025-12-01T00:00:00Z", "2025-12-01 00:00:00Z (32 days ago)"),
            ("soon", "soon"),
        ] {
            assert_eq!(when(text, now), shown);
        }
    }
}
