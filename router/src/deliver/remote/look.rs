//! Dead letters as others see them: page by page from the files, and orders about them. Works beside
//! the destination that writes them.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::letters::{self, Line};
use super::replay::{self, Ask, Done, What};
use crate::folder::create_durably;

/// A page of letters behind a number (from the first without one), and the number to go on from if
/// there are more.
pub(crate) fn page(
    folder: &Path,
    after: Option<u64>,
    limit: usize,
) -> io::Result<(Vec<Value>, Option<u64>)> {
    let mut items = Vec::new();
    let mut last = None;
    let mut is_more = false;
    each(folder, |line| {
        if after.is_some_and(|after| line.n <= after) {
            return Ok(true);
        }
        is_more = items.len() == limit;
        if !is_more {
            items.push(shown(&line)?);
            last = Some(line.n);
        }
        Ok(!is_more)
    })?;
    Ok((items, last.filter(|_| is_more)))
}

/// One letter.
pub(crate) fn one(folder: &Path, n: u64) -> io::Result<Option<Value>> {
    let mut found = None;
    each(folder, |line| {
        if line.n == n {
            found = Some(shown(&line)?);
        }
        Ok(line.n < n)
    })?;
    Ok(found)
}

/// The numbers of all letters there are.
pub(crate) fn numbers(folder: &Path) -> io::Result<BTreeSet<u64>> {
    let mut numbers = BTreeSet::new();
    each(folder, |line| {
        numbers.insert(line.n);
        Ok(true)
    })?;
    Ok(numbers)
}

/// Shows every letter, oldest first, until `look` says that it has seen enough.
fn each(folder: &Path, mut look: impl FnMut(Line<'_>) -> io::Result<bool>) -> io::Result<()> {
    for path in letters::list(folder)? {
        let text = match std::fs::read(&path) {
            // Its letters have left it meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            text => text?,
        };
        for line in letters::lines(&text) {
            if !look(letters::parse(line, &path)?)? {
                return Ok(());
            }
        }
    }
    Ok(())
}

fn shown(line: &Line<'_>) -> io::Result<Value> {
    let event = |raw: &RawValue| serde_json::from_str::<Value>(raw.get());
    Ok(json!({
        "n": line.n,
        "refused": line.refused,
        "reason": line.reason,
        "event": event(line.event)?,
    }))
}

/// Asks for something to be done with letters; gives where the answer will be. `name` tells orders
/// apart and puts them in order.
pub(crate) fn order(
    folder: &Path,
    name: &str,
    what: What,
    letters: BTreeSet<u64>,
) -> io::Result<PathBuf> {
    create_durably(folder)?;
    let path = folder.join(format!("ask-{name}.json"));
    replay::write_new(&path, &Ask { what, letters })?;
    Ok(replay::answer_of(&path))
}

/// The answer to an order, which is then taken away; `None`: it is still being carried out.
pub(crate) fn answer(path: &Path) -> io::Result<Option<Done>> {
    let text = match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text?,
    };
    std::fs::remove_file(path)?;
    Ok(Some(serde_json::from_slice(&text)?))
}
