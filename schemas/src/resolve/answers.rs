//! What devices are told. Most devices of a fleet have no document of their own: those that are in
//! the same groups are told the same, which is worked out once.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use super::{Fleet, Resolved, Shared, Who, forest::Name};
use crate::config::{Desired, Temporary, schema};

/// A name that no source has: it asks for the level of sources that nobody names.
const ANY_SOURCE: &str = "";
/// Most sets of groups whose answers are kept.
const MAX_ANSWERS: usize = 65_536;
const SECOND: u64 = 1_000_000_000;

/// Answers for [`Fleet::desired_with`] that are good until the fleet changes; it forgets them by
/// itself then.
#[derive(Debug, Default)]
pub struct Answers {
    /// The content of the fleet that the answers are of.
    content: Arc<()>,
    /// When they were worked out; `for_s` is of then, at most a second ago.
    at: u64,
    known: HashMap<Arc<[Name]>, Answer>,
}

#[derive(Debug)]
struct Answer {
    shared: Arc<Shared>,
    /// What those are told that say nothing themselves.
    desired: Option<Arc<Desired>>,
}

impl Fleet {
    /// The document for `desired/<device>` at `now` (ns): pure function of the documents and, for
    /// running overrides, of `now`. The revision does not cover `for_s`. Principal and address
    /// are unknown here: what they decide, the router applies.
    pub fn desired(&self, device: &str, now: u64) -> Desired {
        let shared = Arc::new(self.shared(&self.groups_for(device)));
        self.desired_of(device, shared, now)
    }

    /// The same with what was worked out before, for many devices at once.
    pub fn desired_with(&self, answers: &mut Answers, device: &str, now: u64) -> Arc<Desired> {
        let ended = self.next_end(answers.at).is_some_and(|end| end <= now);
        let runs = self
            .ends
            .last_key_value()
            .is_some_and(|(end, _)| *end > answers.at);
        let old = now.saturating_sub(answers.at) >= SECOND;
        if ended || now < answers.at || (runs && old) {
            answers.known.clear();
        }
        if answers.known.is_empty() {
            answers.at = now;
        }
        let answer = self.answer(answers, device);
        let shared = answer.shared.clone();
        match self.speaks_for_itself(device) {
            true => Arc::new(self.desired_of(device, shared, now)),
            false => {
                let desired = answer
                    .desired
                    .get_or_insert_with(|| Arc::new(self.desired_of(ANY_SOURCE, shared, now)));
                desired.clone()
            }
        }
    }

    /// [`Fleet::resolve`] with what was worked out before: devices in the same groups share it.
    pub fn resolve_known(&self, answers: &mut Answers, who: &Who<'_>) -> Resolved {
        let shared = self.answer(answers, who.device).shared.clone();
        self.resolve_with(who, shared)
    }

    fn answer<'a>(&self, answers: &'a mut Answers, device: &str) -> &'a mut Answer {
        let groups = self.groups_for(device);
        let full = answers.known.len() >= MAX_ANSWERS && !answers.known.contains_key(&groups);
        if full || !Arc::ptr_eq(&answers.content, &self.content) {
            answers.known.clear();
            answers.content = self.content.clone();
        }
        answers
            .known
            .entry(groups)
            .or_insert_with_key(|groups| Answer {
                shared: Arc::new(self.shared(groups)),
                desired: None,
            })
    }

    /// Whether a document or an override of its own says what the device shall do.
    fn speaks_for_itself(&self, device: &str) -> bool {
        self.devices.get(device).is_some_and(|entry| {
            let document = entry.document.as_ref();
            entry.window.is_some()
                || document.is_some_and(|it| it.says_level() || it.has_settings())
        })
    }

    fn desired_of(&self, device: &str, shared: Arc<Shared>, now: u64) -> Desired {
        let (mut upload, mut limits) = (shared.upload.clone(), shared.limits.clone());
        let entry = self.devices.get(device);
        let own = entry.and_then(|entry| entry.document.as_ref());
        if let Some(own) = own.filter(|own| own.has_settings()) {
            let (mut first, mut most) = own.settings();
            first.fill_from(&upload);
            most.fill_from(&limits);
            (upload, limits) = (first, most);
        }
        let who = Who {
            device,
            ..Who::default()
        };
        let resolved = self.resolve_with(&who, shared);
        let level = resolved.lasting(ANY_SOURCE);
        let unset = resolved.said(ANY_SOURCE).is_none();
        let named = resolved.named_sources().into_iter();
        let sources = named.map(|source| (source.to_owned(), resolved.lasting(source)));
        let mut desired = Desired {
            schema: schema(unset),
            revision: String::new(),
            level,
            unset,
            sources: sources
                .filter(|(_, other)| unset || *other != level)
                .collect(),
            temporary: temporary(&resolved, now),
            upload,
            limits,
        };
        desired.revision = desired.content_hash();
        desired
    }
}

/// The override in force at `now`. Where several hierarchies decide together it ends with the
/// first of them: the router writes the document anew then.
fn temporary(resolved: &Resolved, now: u64) -> Option<Temporary> {
    if resolved.disabled() {
        return None;
    }
    let first_end = resolved.deciding(now).min_by_key(|window| window.until)?;
    let level = resolved.level(ANY_SOURCE, now);
    let deciding = resolved.deciding(now);
    let named: BTreeSet<&String> = deciding
        .flat_map(|window| window.document.sources.keys())
        .collect();
    let sources = named
        .into_iter()
        .map(|source| (source.clone(), resolved.level(source, now)));
    Some(Temporary {
        level,
        sources: sources.filter(|(_, other)| *other != level).collect(),
        until: first_end.document.until.clone(),
        for_s: (first_end.until - now).div_ceil(1_000_000_000),
    })
}
