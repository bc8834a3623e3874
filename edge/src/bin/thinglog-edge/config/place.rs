//! Finds the line of a file where a key stands, so that every complaint names it: also one that is
//! only found out when a file is opened or a port is bound.

use toml::de::{DeTable, DeValue};

/// The line of the dotted `key`, or of the nearest table above it, counted from 1. Indexes of lists
/// are written `redact[1]`.
pub(super) fn line(text: &str, key: &str) -> Option<usize> {
    let document = DeTable::parse(text).ok()?;
    let mut at = None;
    let mut table = document.get_ref();
    let mut rest = key;
    loop {
        let (name, value, below) = step(table, rest)?;
        at = name.or(at);
        rest = match (value, below) {
            (DeValue::Table(inner), Some(below)) => {
                table = inner;
                below
            }
            _ => break,
        };
        if step(table, rest).is_none() {
            break;
        }
    }
    at.map(|start| text[..start].matches('\n').count() + 1)
}

/// The entry that `key` begins with: where it stands, its value, and what is left of the key. Names
/// may have dots of their own, so the longest that fits is taken.
fn step<'a>(
    table: &'a DeTable<'a>,
    key: &'a str,
) -> Option<(Option<usize>, &'a DeValue<'a>, Option<&'a str>)> {
    let ends = key
        .char_indices()
        .filter(|(_, c)| matches!(c, '.' | '['))
        .map(|(at, _)| at);
    let ends = ends.chain([key.len()]).collect::<Vec<_>>();
    ends.into_iter().rev().find_map(|end| {
        let name = &key[..end];
        let found = table
            .iter()
            .find(|(known, _)| known.get_ref().as_ref() == name);
        let (known, mut value) = found.map(|(known, value)| (known, value.get_ref()))?;
        let mut at = known.span().start;
        let mut below = key[end..].strip_prefix('.');
        if let Some((index, rest)) = key[end..].strip_prefix('[').and_then(|k| k.split_once(']')) {
            below = rest.strip_prefix('.');
            if let (DeValue::Array(items), Ok(index)) = (value, index.parse::<usize>())
                && let Some(item) = items.get(index)
            {
                at = item.span().start;
                value = item.get_ref();
            }
        }
        Some((Some(at), value, below))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
device = \"lamp-7\"
redact = [
  { pattern = \"a\" },
  { pattern = \"b\" },
]

[source.nginx]
kind = \"file\"
paths = [
  \"/var/log/nginx/access.log\",
]

[source.\"a.b\"]
kind = \"journal\"
";

    #[test]
    fn a_key_is_found_on_its_line() {
        for (key, expected) in [
            ("device", 1),
            ("redact", 2),
            ("redact[1]", 4),
            ("redact[1].pattern", 4),
            ("source.nginx", 7),
            ("source.nginx.kind", 8),
            ("source.nginx.paths[0]", 10),
            ("source.nginx.absent", 7),
            ("source.a.b.kind", 14),
        ] {
            assert_eq!(line(TEXT, key), Some(expected), "{key}");
        }
    }

    #[test]
    fn what_is_not_there_has_no_line() {
        for key in ["", "nothing", "nothing.at.all"] {
            assert_eq!(line(TEXT, key), None, "{key}");
        }
    }
}
