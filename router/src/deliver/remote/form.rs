//! Gathers events into requests. Pure: time is an argument.
//!
//! An event is encoded once, into a piece. A piece that does not fit closes the request it does not
//! fit into; requests of several keys are gathered at once, and together they are no larger than one
//! request may be, so that keys that come and go cost no memory.

use std::time::Instant;

use super::request::{Item, Request};
use super::{Encoder, Limits, Unfit};

/// The requests being gathered in one lane.
pub(crate) struct Form {
    limits: Limits,
    /// Oldest first.
    open: Vec<Open>,
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
            open: Vec::new(),
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
        let at = self.open.iter().position(|open| open.request.key() == key);
        let closed = match at {
            Some(at) if !self.fits(&self.open[at], cost, time) => Some(at),
            // Room for one more piece among all that is gathered.
            _ if self.cost + cost > self.limits.bytes && !self.open.is_empty() => Some(0),
            _ => None,
        };
        let closed = closed.map(|at| self.close(at));
        let at = self.open.iter().position(|open| open.request.key() == key);
        let at = at.unwrap_or_else(|| {
            self.open.push(Open {
                request: Request::new(&key),
                since: now,
                oldest: time,
                newest: time,
            });
            self.open.len() - 1
        });
        drop(key);
        let open = &mut self.open[at];
        open.oldest = open.oldest.min(time);
        open.newest = open.newest.max(time);
        open.request.push(item, &self.scratch, cost);
        self.cost += cost;
        Offered::Taken(closed)
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

    fn close(&mut self, at: usize) -> Request {
        let open = self.open.remove(at);
        self.cost -= open.request.cost();
        open.request
    }

    /// The oldest request that is due: complete, or waiting for as long as an event may.
    pub(crate) fn due(&mut self, now: Instant) -> Option<Request> {
        let is_due = |open: &Open| {
            open.request.len() >= self.limits.events || open.since + self.limits.age <= now
        };
        let at = self.open.iter().position(is_due)?;
        Some(self.close(at))
    }

    /// The oldest request, due or not.
    pub(crate) fn any(&mut self) -> Option<Request> {
        (!self.open.is_empty()).then(|| self.close(0))
    }

    /// When the next one is due by its age.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.open.first().map(|open| open.since + self.limits.age)
    }
}

#[cfg(test)]
#[path = "form_tests.rs"]
mod tests;
