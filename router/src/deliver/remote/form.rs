//! Gathers events into requests. Pure: time is an argument.
//!
//! An event is encoded once, into a piece. A piece that does not fit closes the request it does not
//! fit into; requests of several keys are gathered at once, and together they are no larger than one
//! request may be, so that keys that come and go cost no memory.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Instant;

use super::request::{Item, Request};
use super::{Encoder, Limits, Unfit};

/// The requests being gathered in one lane.
pub(crate) struct Form {
    limits: Limits,
    /// By number: oldest first.
    open: BTreeMap<u64, Open>,
    by_key: HashMap<Box<str>, u64>,
    /// Those with all the events they may have.
    full: BTreeSet<u64>,
    /// Number of the next one.
    next: u64,
    cost: usize,
    scratch: Vec<u8>,
}

struct Open {
    request: Request,
    since: Instant,
    /// Times of the oldest and the newest event, ns.
    oldest: u64,
    newest: u64,
}

/// What became of an event.
pub(crate) enum Offered {
    /// It has been gathered; perhaps that closed the request before.
    Taken(Option<Request>),
    /// It fits no request.
    Unfit(Item, Unfit),
}

impl Form {
    pub(crate) fn new(limits: Limits) -> Form {
        Form {
            limits,
            open: BTreeMap::new(),
            by_key: HashMap::new(),
            full: BTreeSet::new(),
            next: 0,
            cost: 0,
            scratch: Vec::new(),
        }
    }

    /// Takes an event in. At most one request is closed by it.
    pub(crate) fn offer<E: Encoder>(
        &mut self,
        encoder: &mut E,
        item: Item,
        now: Instant,
    ) -> Offered {
        self.scratch.clear();
        let encoded = encoder.encode(item.event(), &mut self.scratch);
        let cost = match encoded.and_then(|cost| self.check(cost)) {
            Ok(cost) => cost,
            Err(unfit) => return Offered::Unfit(item, unfit),
        };
        let key = encoder.key(item.event());
        let time = item.event().time;
        let mut at = self.by_key.get(&*key).copied();
        let fits = at
            .and_then(|at| self.open.get(&at))
            .is_none_or(|open| self.fits(open, cost, time));
        let closes = match fits {
            false => at,
            // Room for one more piece among all that is gathered.
            true if self.cost + cost > self.limits.bytes => self.open.keys().next().copied(),
            true => None,
        };
        let closed = closes.and_then(|number| self.close(number));
        if closes == at {
            at = None;
        }
        let number = at.unwrap_or_else(|| self.begin(&key, time, now));
        drop(key);
        if let Some(open) = self.open.get_mut(&number) {
            open.oldest = open.oldest.min(time);
            open.newest = open.newest.max(time);
            open.request.push(item, &self.scratch, cost);
            self.cost += cost;
            if open.request.len() >= self.limits.events {
                self.full.insert(number);
            }
        }
        Offered::Taken(closed)
    }

    /// Begins a request; gives its number.
    fn begin(&mut self, key: &str, time: u64, now: Instant) -> u64 {
        let number = self.next;
        self.next += 1;
        let open = Open {
            request: Request::new(key),
            since: now,
            oldest: time,
            newest: time,
        };
        self.open.insert(number, open);
        self.by_key.insert(key.into(), number);
        number
    }

    fn check(&self, cost: usize) -> Result<usize, Unfit> {
        let most = self.limits.bytes.saturating_sub(self.limits.overhead);
        let most = most.min(self.limits.event_bytes);
        if cost <= most {
            return Ok(cost);
        }
        Err(Unfit(format!(
            "{cost} bytes in the form that is sent are more than the {most} that an event may have"
        )))
    }

    fn fits(&self, open: &Open, cost: usize, time: u64) -> bool {
        let bytes = self.limits.overhead + open.request.cost() + cost;
        let span = open.newest.max(time) - open.oldest.min(time);
        open.request.len() < self.limits.events
            && bytes <= self.limits.bytes
            && span <= self.limits.span_ns
    }

    fn close(&mut self, number: u64) -> Option<Request> {
        let open = self.open.remove(&number)?;
        self.by_key.remove(open.request.key());
        self.full.remove(&number);
        self.cost -= open.request.cost();
        Some(open.request)
    }

    /// The oldest request that is due: complete, or waiting for as long as an event may.
    pub(crate) fn due(&mut self, now: Instant) -> Option<Request> {
        let (oldest, open) = self.open.first_key_value()?;
        let number = match open.since + self.limits.age <= now {
            true => *oldest,
            false => *self.full.first()?,
        };
        self.close(number)
    }

    /// The oldest request, due or not.
    pub(crate) fn any(&mut self) -> Option<Request> {
        let oldest = *self.open.first_key_value()?.0;
        self.close(oldest)
    }

    /// When the next one is due by its age.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let (_, oldest) = self.open.first_key_value()?;
        Some(oldest.since + self.limits.age)
    }
}

#[cfg(test)]
#[path = "form_tests.rs"]
mod tests;
