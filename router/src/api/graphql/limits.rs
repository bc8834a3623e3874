//! What a request may cost, so that none keeps the router busy. Pure.
//!
//! The text is looked at before it is parsed: parsers call themselves for each bracket. Then the fields
//! are counted as they would be after all fragments were put in, each fragment once: a few fragments
//! that name each other twice stand for millions. What is left is weighed by the library, with the
//! costs given here: a field is 1, an entry of a page as much as its fields, a search much more.

use std::collections::HashMap;

use async_graphql::parser::parse_query;
use async_graphql::parser::types::{ExecutableDocument, Selection, SelectionSet};

use crate::registry::{Code, Refusal};

/// Fields within fields.
pub(super) const MOST_DEPTH: usize = 16;
/// What a request may cost.
pub(super) const MOST_COMPLEXITY: usize = 20_000;
/// Directives of a field.
pub(super) const MOST_DIRECTIVES: usize = 10;
/// What a search costs, whatever it finds; and a list, which may look at many entries for few.
const SEARCH: usize = 2000;
const LIST: usize = 1000;
/// Brackets within brackets.
const MOST_NESTING: usize = 40;
/// Fields, each fragment's wherever it is named.
const MOST_FIELDS: usize = 500;
/// Fragments, which may name each other in a row.
const MOST_FRAGMENTS: usize = 50;
/// Entries of a page unless told, and at most.
const USUAL: i32 = 100;
const MOST: i32 = 1000;

/// Of a page of events.
pub(super) fn search(limit: Option<i32>, fields: usize) -> usize {
    SEARCH + entries(limit, fields)
}

/// Of counts.
pub(super) fn counts(devices: usize, fields: usize) -> usize {
    SEARCH + devices.min(100) * 10 + fields
}

/// Of a page of anything else.
pub(super) fn list(limit: Option<i32>, fields: usize) -> usize {
    LIST + entries(limit, fields)
}

fn entries(limit: Option<i32>, fields: usize) -> usize {
    let limit = limit.unwrap_or(USUAL).clamp(1, MOST);
    fields.min(MOST_COMPLEXITY) * limit as usize
}

/// The query, parsed, if it is not too much.
pub(super) fn read(text: &str) -> Result<ExecutableDocument, Refusal> {
    if nesting(text) > MOST_NESTING {
        return Err(too_much(format!(
            "more than {MOST_NESTING} brackets within brackets"
        )));
    }
    let document = parse_query(text).map_err(|error| Refusal::invalid(error.to_string()))?;
    if document.fragments.len() > MOST_FRAGMENTS {
        return Err(too_much(format!("more than {MOST_FRAGMENTS} fragments")));
    }
    let mut known = HashMap::new();
    let operations = document.operations.iter();
    let operations = operations.map(|(_, operation)| &operation.node.selection_set.node);
    // Those that nobody names are validated all the same.
    let fragments = document.fragments.values();
    let fragments = fragments.map(|fragment| &fragment.node.selection_set.node);
    let counted = operations.map(|selection| fields(&document, selection, &mut known));
    let asked = counted.fold(0, usize::saturating_add);
    let most = fragments.map(|selection| fields(&document, selection, &mut known));
    let fields = most.fold(asked, usize::max);
    match fields > MOST_FIELDS {
        true => Err(too_much(format!("more than {MOST_FIELDS} fields"))),
        false => Ok(document),
    }
}

fn too_much(what: String) -> Refusal {
    Refusal::new(Code::LimitExceeded, format!("the query has {what}"))
}

/// How deep brackets stand within brackets, outside of strings and comments: as the parser reads these, to
/// which a comment ends with any end of a line, and a block without an end is an empty string.
fn nesting(text: &str) -> usize {
    let (mut depth, mut deepest) = (0usize, 0usize);
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        match first {
            b'{' | b'[' | b'(' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' | b')' => depth = depth.saturating_sub(1),
            b'#' => {
                let end = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
                rest = &rest[end.unwrap_or(rest.len())..];
            }
            b'"' => {
                let block = rest.strip_prefix(b"\"\"").map(behind_block);
                rest = match block {
                    Some(Some(behind)) => behind,
                    _ => behind_string(rest),
                };
            }
            _ => {}
        }
    }
    deepest
}

/// What stands behind the end of a string; `\` takes away the meaning of what follows it.
fn behind_string(text: &[u8]) -> &[u8] {
    let mut at = 0;
    while at < text.len() {
        match text[at] {
            b'\\' => at += 2,
            b'"' => return &text[at + 1..],
            _ => at += 1,
        }
    }
    &[]
}

/// What stands behind the end of a block, if it has one; `\` has a meaning before another end only.
fn behind_block(text: &[u8]) -> Option<&[u8]> {
    let end = b"\"\"\"";
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with(end) {
            return Some(&rest[end.len()..]);
        }
        at += match rest.strip_prefix(b"\\") {
            Some(behind) if behind.starts_with(end) => 1 + end.len(),
            _ => 1,
        };
    }
    None
}

/// Fields of a selection, those of fragments counted wherever they are named. A fragment within itself
/// counts as none: validation refuses it.
fn fields<'d>(
    document: &'d ExecutableDocument,
    selection: &'d SelectionSet,
    known: &mut HashMap<&'d str, usize>,
) -> usize {
    let counted = selection.items.iter().map(|item| match &item.node {
        Selection::Field(field) => {
            let within = fields(document, &field.node.selection_set.node, known);
            within.saturating_add(1)
        }
        Selection::InlineFragment(fragment) => {
            // One more, so that nothing is free.
            fields(document, &fragment.node.selection_set.node, known).saturating_add(1)
        }
        Selection::FragmentSpread(spread) => {
            let name = &spread.node.fragment_name.node;
            if let Some(count) = known.get(name.as_str()) {
                return *count;
            }
            let Some(fragment) = document.fragments.get(name) else {
                return 1;
            };
            known.insert(name, 1);
            let within = fields(document, &fragment.node.selection_set.node, known);
            let count = within.saturating_add(1);
            known.insert(name, count);
            count
        }
    });
    counted.fold(0, usize::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_count_outside_of_texts_and_comments() {
        for (text, depth) in [
            ("", 0),
            ("{a{b(c:[1])}}", 4),
            ("{a(b:\"((((\")}", 2),
            ("{a(b:\"\\\"((((\")}", 2),
            ("{a(b:\"\"\"((\"((\\\"\"\"\"\"\")}", 2),
            ("{ # ((((\n a}", 1),
            ("{ # \r{{{", 4),
            ("{a(b:\"\"\"\\\\\"\"\" \"\"\"){{{", 4),
            ("{a(b:[\"\"\" \"{{{", 6),
            ("{a(b:\"\"\"((\"){{", 3),
            ("{a(b:\"((((", 2),
            ("}}}{", 1),
            ("{ö(ü:\"ß\\", 2),
        ] {
            assert_eq!(nesting(text), depth, "{text}");
        }
    }

    #[test]
    fn what_would_be_too_much_is_refused_before_anything_is_asked() {
        let deep = format!("{}{}", "{a".repeat(100_000), "}".repeat(100_000));
        let lists = format!("{{a(b:{}1{})}}", "[".repeat(30_000), "]".repeat(30_000));
        let open = "{a".repeat(60_000);
        let many = format!("{{{}}}", "a:b ".repeat(501));
        let mut bomb = "{...f0}".to_owned();
        for n in 0..60 {
            bomb += &format!(
                " fragment f{n} on Q {{...f{next} ...f{next}}}",
                next = n + 1
            );
        }
        bomb += " fragment f60 on Q {a}";
        let mut chain = "{a}".to_owned();
        for n in 0..40 {
            let inner = format!("{}...c{}{}", "{a".repeat(30), n + 1, "}".repeat(30));
            chain += &format!(" fragment c{n} on Q {inner}");
        }
        chain += " fragment c40 on Q {a}";
        let wide = " fragment w on Q {".to_owned() + &"a:b ".repeat(501) + "}";
        let unused = "{a}".to_owned() + &wide;
        for text in [&deep, &lists, &open, &many, &bomb, &chain, &unused] {
            let error = read(text).unwrap_err();
            assert_eq!(error.code, Code::LimitExceeded, "{}", &text[..40]);
        }
        for text in ["{a", "{", "", "{a}}", "{ä}", "query", "\u{0}"] {
            assert_eq!(read(text).unwrap_err().code, Code::InvalidRequest, "{text}");
        }
        // Circles are for validation to refuse; here they must end.
        assert!(read("{...a} fragment a on Q {...b} fragment b on Q {...a}").is_ok());
        assert!(read(&format!("{{{}}}", "a:b ".repeat(500))).is_ok());
    }

    #[test]
    fn costs_have_no_end_that_overflows() {
        assert_eq!(search(None, 3), SEARCH + 300);
        assert_eq!(list(Some(i32::MIN), 3), LIST + 3);
        assert!(search(Some(i32::MAX), usize::MAX) <= SEARCH + MOST_COMPLEXITY * 1000);
        assert!(counts(usize::MAX, 5) <= SEARCH + 1005);
    }
}
