//! Who set a key: a variable, else the file, and then in which line.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::error::Origin;

/// Who set each key.
#[derive(Clone, Debug)]
pub(super) struct Origins {
    variables: BTreeMap<String, String>,
    file: Option<PathBuf>,
    /// The line of each key of the file, from 1.
    lines: BTreeMap<String, usize>,
}

impl Origins {
    /// Of a file that has been parsed before, and of variables by the keys they set.
    pub(super) fn new(file: Option<(&Path, &str)>, variables: BTreeMap<String, String>) -> Origins {
        let mut lines = BTreeMap::new();
        if let Some((_, text)) = file
            && let Ok(table) = DeTable::parse(text)
        {
            let breaks = Breaks::of(text);
            note(table.get_ref(), "", &breaks, &mut lines);
        }
        Origins {
            variables,
            file: file.map(|(path, _)| path.to_owned()),
            lines,
        }
    }

    /// Who set a key, or the nearest table above that anybody set.
    pub(super) fn of(&self, key: &str) -> Origin {
        match (self.variables.get(key), &self.file) {
            (Some(variable), _) => Origin::Variable(variable.clone()),
            (None, Some(file)) => Origin::File(file.clone(), self.line(key)),
            (None, None) => Origin::Default,
        }
    }

    fn line(&self, key: &str) -> Option<usize> {
        let mut key = key;
        loop {
            if let Some(line) = self.lines.get(key) {
                return Some(*line);
            }
            key = &key[..key.rfind(['.', '['])?];
        }
    }
}

/// Where the lines of a text end.
struct Breaks(Vec<usize>);

impl Breaks {
    fn of(text: &str) -> Breaks {
        Breaks(text.match_indices('\n').map(|(at, _)| at).collect())
    }

    /// The line of a byte, from 1.
    fn line(&self, at: usize) -> usize {
        self.0.partition_point(|line_end| *line_end < at) + 1
    }
}

/// Notes the lines of a table's keys under their dotted names.
fn note(table: &DeTable<'_>, above: &str, breaks: &Breaks, lines: &mut BTreeMap<String, usize>) {
    for (key, value) in table {
        let name = match above {
            "" => key.get_ref().to_string(),
            above => format!("{above}.{}", key.get_ref()),
        };
        lines.insert(name.clone(), breaks.line(key.span().start));
        note_value(value.get_ref(), &name, breaks, lines);
    }
}

fn note_value(
    value: &DeValue<'_>,
    name: &str,
    breaks: &Breaks,
    lines: &mut BTreeMap<String, usize>,
) {
    match value {
        DeValue::Table(table) => note(table, name, breaks, lines),
        DeValue::Array(values) => {
            for (index, value) in values.iter().enumerate() {
                let name = format!("{name}[{index}]");
                lines.insert(name.clone(), breaks.line(value.span().start));
                note_value(value.get_ref(), &name, breaks, lines);
            }
        }
        _ => {}
    }
}
