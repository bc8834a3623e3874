//! What the state log of alerts holds, one record a commit: what is a duplicate, what rules remember, and
//! the notifications that are not sent yet. Examples of events and waiting times are not kept: after a
//! restart what waits is told at once.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::engine::{Engine, Tracked};
use super::notice::Notice;
use super::track::{Kept, Receivers, Track};
use crate::dedup::table::{Mark, Table};
use crate::state::{self, StateError};

/// Marks, keys or notifications of one record of a snapshot.
const SNAPSHOT: usize = 4096;

/// One commit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    marks: Vec<Mark>,
    rules: Vec<OfRule>,
    /// Notifications that were made.
    made: Vec<Notice>,
    /// Numbers of those that need not be sent any more.
    gone: Vec<u64>,
}

/// Changes of a rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct OfRule {
    name: String,
    /// See [`super::rule::Rule::spec`].
    spec: u64,
    /// Its receivers then, which bits stand for.
    to: Vec<String>,
    /// `None`: nothing is remembered of the key any more.
    keys: Vec<(Arc<str>, Option<Kept>)>,
}

impl OfRule {
    fn of(tracked: &Tracked, keys: Vec<(Arc<str>, Option<Kept>)>) -> OfRule {
        OfRule {
            name: tracked.rule.name.to_string(),
            spec: tracked.rule.spec,
            to: tracked.rule.to.clone(),
            keys,
        }
    }
}

/// What changed since the last commit, framed; nothing if nothing did.
pub(crate) fn changes(engine: &mut Engine, table: &mut Table) -> Result<Vec<u8>, StateError> {
    let mut record = Record {
        marks: table.take_marks(),
        ..Record::default()
    };
    for tracked in &mut engine.rules {
        let changed = std::mem::take(&mut tracked.changed);
        let keys = changed.into_iter().map(|key| {
            let kept = tracked.tracks.get_mut(&key).map(Track::take_changes);
            (key, kept)
        });
        let keys: Vec<_> = keys.collect();
        if !keys.is_empty() {
            record.rules.push(OfRule::of(tracked, keys));
        }
    }
    let made = std::mem::take(&mut engine.changes.made);
    let made = made.iter().filter_map(|number| engine.unsent.get(number));
    record.made = made.cloned().collect();
    record.gone = std::mem::take(&mut engine.changes.gone);
    let mut framed = Vec::new();
    if record != Record::default() {
        state::frame(&record, &mut framed)?;
    }
    Ok(framed)
}

/// Everything, framed. To be called when [`changes`] have been taken.
pub(crate) fn snapshot(engine: &Engine, table: &Table) -> Result<Vec<u8>, StateError> {
    let mut framed = Vec::new();
    let mut put = |record: Record| state::frame(&record, &mut framed);
    let mut marks = table.snapshot().peekable();
    while marks.peek().is_some() {
        put(Record {
            marks: marks.by_ref().take(SNAPSHOT).collect(),
            ..Record::default()
        })?;
    }
    for tracked in &engine.rules {
        let mut tracks = tracked.tracks.iter().peekable();
        while tracks.peek().is_some() {
            let some = tracks.by_ref().take(SNAPSHOT);
            let keys = some.map(|(key, track)| (Arc::clone(key), Some(track.whole())));
            let keys = keys.filter(|(_, kept)| *kept != Some(Kept::default()));
            put(Record {
                rules: vec![OfRule::of(tracked, keys.collect())],
                ..Record::default()
            })?;
        }
    }
    put(Record {
        made: engine.unsent.values().cloned().collect(),
        ..Record::default()
    })?;
    Ok(framed)
}

/// Rebuilds what was remembered. Of rules that are other ones now, or gone, nothing is taken up.
pub(crate) fn replay(records: Vec<Record>, engine: &mut Engine) -> Table {
    let mut table = Table::default();
    for record in records {
        record.marks.iter().for_each(|mark| table.replay(mark));
        for of_rule in record.rules {
            let is_same =
                |it: &&mut Tracked| *it.rule.name == *of_rule.name && it.rule.spec == of_rule.spec;
            if let Some(tracked) = engine.rules.iter_mut().find(is_same) {
                tracked.replay(of_rule);
            }
        }
        for notice in record.made {
            engine.take_up(notice);
        }
        for number in &record.gone {
            engine.unsent.remove(number);
        }
    }
    engine.replayed();
    table
}

impl Tracked {
    fn replay(&mut self, of_rule: OfRule) {
        let places: Vec<Option<usize>> = of_rule
            .to
            .iter()
            .map(|name| self.rule.to.iter().position(|to| to == name))
            .collect();
        let bits = |then: Receivers| {
            let told = places.iter().enumerate();
            let told = told.filter(|(at, _)| then & (1 << at) != 0);
            told.filter_map(|(_, now)| *now)
                .fold(0, |bits: Receivers, now| bits | (1 << now))
        };
        for (key, kept) in of_rule.keys {
            match kept {
                None => drop(self.tracks.remove(&key)),
                Some(kept) => {
                    let track = self.tracks.entry(key).or_default();
                    track.replay(kept, self.rule.kind, bits);
                }
            }
        }
    }
}
