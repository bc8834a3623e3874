//! Routes: which events go to which destinations, and how they look there. Pure; the page for operators is
//! `docs/routes.md`.
//!
//! A destination that no route names gets every event. One that routes name gets what one of them is
//! for, each event once: the first route by name that matches decides, also whether the event is among
//! those that are sampled. A destination's own `when` comes before its routes. What goes nowhere is
//! counted as filtered.
//!
//! Routes come after duplicates and levels, and before the destination: what a destination has seen is
//! noted whatever its routes say, so that a change of routes brings nothing again.

pub mod examples;
pub(crate) mod route;
pub(crate) mod shape;
pub mod template;

use std::sync::Arc;

use thinglog_schemas::Event;
use thinglog_schemas::payload::Decoded;
use thinglog_schemas::query::{EventQuery, Facts};

use crate::config::{Config, ConfigError};
use crate::deliver::batch::Keep;
use route::Route;

/// The routes of one destination.
#[derive(Clone, Debug, Default)]
pub(crate) struct Routes {
    when: Option<EventQuery>,
    /// By name; `None` where no route names the destination.
    routes: Option<Vec<Route>>,
    asks_for_facts: bool,
}

/// What remains of a payload.
pub(crate) struct Routed {
    /// `None`: nothing.
    pub(crate) rest: Option<(Arc<Decoded>, Keep)>,
    pub(crate) filtered: u64,
}

/// What routes have said of a source of a device as a whole.
enum Plan<'a> {
    /// No event goes on.
    Nothing,
    /// Every event goes on as it is.
    Everything,
    /// Each is asked: whether it must match the destination's condition, and the routes that come
    /// into question, each with whether it is sure to match. `None`: no route names the destination.
    Ask(bool, Option<Vec<(&'a Route, bool)>>),
}

impl Routes {
    /// The routes of a destination; an error names its key.
    pub(crate) fn of(config: &Config, destination: &str) -> Result<Routes, ConfigError> {
        let mut routes = Vec::new();
        for (name, route) in &config.routes {
            if route.to.iter().any(|to| to == destination) {
                let made = Route::new(name, route).map_err(|error| {
                    let key = format!("routes.{name}.{}", error.key);
                    ConfigError::new(key, error.reason)
                })?;
                routes.push(made);
            }
        }
        let own = config.destinations.get(destination);
        let when = own.and_then(|own| own.when.as_ref());
        let when = when.map(|when| when.0.clone());
        let asks = when.as_ref().is_some_and(EventQuery::asks_for_facts);
        Ok(Routes {
            asks_for_facts: asks || routes.iter().any(Route::asks_for_facts),
            when,
            routes: (!routes.is_empty()).then_some(routes),
        })
    }

    /// Whether every event goes on as it is.
    pub(crate) fn is_open(&self) -> bool {
        self.when.is_none() && self.routes.is_none()
    }

    /// Whether what is known of devices is asked for.
    pub(crate) fn asks_for_facts(&self) -> bool {
        self.asks_for_facts
    }

    /// Takes out what does not go on, of the events of one source of one device.
    pub(crate) fn route(
        &self,
        (device, source): (&str, &str),
        decoded: Arc<Decoded>,
        keep: Keep,
        facts: &Facts,
    ) -> Routed {
        let (ask_own, routes) = match self.plan(device, source, facts) {
            Plan::Everything => {
                let rest = Some((decoded, keep));
                return Routed { rest, filtered: 0 };
            }
            Plan::Nothing => {
                let filtered = count(&decoded, &keep);
                let rest = None;
                return Routed { rest, filtered };
            }
            Plan::Ask(ask_own, routes) => (ask_own, routes),
        };
        let own = self.when.as_ref().filter(|_| ask_own);
        let mut chosen = Chosen::default();
        let mut scratch = Vec::new();
        let mut look = |index: u32| {
            let event = &decoded.events[index as usize];
            let passes = own.is_none_or(|own| own.matches(event, facts));
            match passes.then(|| choose(routes.as_deref(), event, facts, &mut scratch)) {
                Some(Some(route)) => chosen.take(index, route, event, facts),
                _ => chosen.filtered += 1,
            }
        };
        match &keep {
            Keep::All => (0..decoded.events.len() as u32).for_each(&mut look),
            Keep::Some(indices) => indices.iter().copied().for_each(&mut look),
        }
        chosen.routed(decoded, keep)
    }

    /// What one event goes on as, if it does; for who asks one at a time.
    pub(crate) fn pass(&self, event: &Event, facts: &Facts) -> Option<(Option<Arc<str>>, Event)> {
        if let Some(when) = &self.when
            && !when.matches(event, facts)
        {
            return None;
        }
        let routes = self.routes.as_deref();
        let routes: Option<Vec<_>> =
            routes.map(|routes| routes.iter().map(|route| (route, false)).collect());
        let route = choose(routes.as_deref(), event, facts, &mut Vec::new())?;
        let name = route.map(|route| Arc::clone(&route.name));
        let shape = route.and_then(|route| route.shape.as_ref());
        let event = shape.map_or_else(|| event.clone(), |shape| shape.apply(event, facts));
        Some((name, event))
    }

    fn plan(&self, device: &str, source: &str, facts: &Facts) -> Plan<'_> {
        let own = match &self.when {
            None => Some(true),
            Some(when) => when.decides(device, source, facts),
        };
        if own == Some(false) {
            return Plan::Nothing;
        }
        let Some(all) = &self.routes else {
            return match own {
                Some(_) => Plan::Everything,
                None => Plan::Ask(true, None),
            };
        };
        let mut routes = Vec::new();
        for route in all {
            match route.decides(device, source, facts) {
                Some(false) => {}
                None => routes.push((route, false)),
                // Whatever comes behind is never asked.
                Some(true) => {
                    routes.push((route, true));
                    break;
                }
            }
        }
        match (own, &routes[..]) {
            (_, []) => Plan::Nothing,
            (Some(_), [(route, true)]) if route.changes_nothing() => Plan::Everything,
            (own, _) => Plan::Ask(own.is_none(), Some(routes)),
        }
    }
}

/// The route that takes an event, `Some(None)` where there are none; `None`: it goes nowhere.
fn choose<'a>(
    routes: Option<&[(&'a Route, bool)]>,
    event: &Event,
    facts: &Facts,
    scratch: &mut Vec<u8>,
) -> Option<Option<&'a Route>> {
    let Some(routes) = routes else {
        return Some(None);
    };
    let (route, _) = routes
        .iter()
        .find(|(route, is_sure)| *is_sure || route.is_for(event, facts))?;
    route.samples(event, scratch).then_some(Some(route))
}

fn count(decoded: &Decoded, keep: &Keep) -> u64 {
    match keep {
        Keep::All => decoded.events.len() as u64,
        Keep::Some(indices) => indices.len() as u64,
    }
}

/// What goes on, as it is found.
#[derive(Default)]
struct Chosen {
    indices: Vec<u32>,
    /// The events as they go on, by their place in `indices`, where a route changes them.
    shaped: Vec<(usize, Event)>,
    filtered: u64,
}

impl Chosen {
    fn take(&mut self, index: u32, route: Option<&Route>, event: &Event, facts: &Facts) {
        if let Some(shape) = route.and_then(|route| route.shape.as_ref()) {
            self.shaped
                .push((self.indices.len(), shape.apply(event, facts)));
        }
        self.indices.push(index);
    }

    fn routed(self, decoded: Arc<Decoded>, keep: Keep) -> Routed {
        let filtered = self.filtered;
        if self.indices.is_empty() {
            let rest = None;
            return Routed { rest, filtered };
        }
        if self.shaped.is_empty() {
            let keep = match filtered {
                0 => keep,
                _ => Keep::Some(self.indices),
            };
            let rest = Some((decoded, keep));
            return Routed { rest, filtered };
        }
        let mut shaped = self.shaped.into_iter().peekable();
        let mut events = Vec::with_capacity(self.indices.len());
        for (place, index) in self.indices.into_iter().enumerate() {
            match shaped.next_if(|(of, _)| *of == place) {
                Some((_, event)) => events.push(event),
                None => events.push(decoded.events[index as usize].clone()),
            }
        }
        let made = Decoded { events, lane: None };
        let rest = Some((Arc::new(made), Keep::All));
        Routed { rest, filtered }
    }
}

#[cfg(test)]
#[path = "routes_tests.rs"]
mod tests;
