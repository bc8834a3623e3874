//! Remembers a source's place, but only once everything before it is durable.

use std::{
    pin::Pin,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use serde::{Serialize, de::DeserializeOwned};

use super::state::StateDir;
use crate::{Publisher, clock};

/// How often a place is written down, at most: it costs a sync.
const EVERY: Duration = Duration::from_secs(1);

type Durable = Pin<Box<dyn Future<Output = bool> + Send>>;

pub(crate) struct Keeper<T> {
    state: Option<StateDir>,
    name: String,
    stored: Option<T>,
    /// A place, and whether what was emitted before it is durable.
    waiting: Option<(T, Durable)>,
    last: Option<Instant>,
    every: Duration,
}

impl<T: Clone + PartialEq + Serialize + DeserializeOwned> Keeper<T> {
    pub(crate) fn new(state: Option<StateDir>, name: String) -> Keeper<T> {
        Keeper {
            state,
            name,
            stored: None,
            waiting: None,
            last: None,
            every: EVERY,
        }
    }

    /// So often instead of every second.
    pub(crate) fn store_every(&mut self, every: Duration) {
        self.every = every;
    }

    /// The next place is written down at once.
    pub(crate) fn hurry(&mut self) {
        self.last = None;
    }

    /// The place of an earlier run.
    pub(crate) fn load(&mut self) -> Option<T> {
        self.stored = self.state.as_ref()?.load(&self.name);
        self.stored.clone()
    }

    /// Whether it is time for another [`offer`](Keeper::offer).
    pub(crate) fn wants(&mut self) -> bool {
        self.poll();
        let early = self.last.is_some_and(|last| last.elapsed() < self.every);
        self.state.is_some() && self.waiting.is_none() && !early
    }

    /// When to come again although nothing was emitted.
    pub(crate) fn due(&self) -> Option<Instant> {
        let last = self.last.filter(|_| self.waiting.is_some())?;
        Some(clock::mono().max(last) + EVERY)
    }

    /// Everything before `place` has been emitted.
    pub(crate) fn offer(&mut self, place: T, publisher: &Publisher) {
        if self.wants() && self.stored.as_ref() != Some(&place) {
            self.last = Some(clock::mono());
            self.waiting = Some((place, Box::pin(publisher.settled())));
            self.poll();
        }
    }

    fn poll(&mut self) {
        let Some((_, durable)) = &mut self.waiting else {
            return;
        };
        // Looked at with every offer: nobody needs to be woken.
        let mut context = Context::from_waker(Waker::noop());
        if let Poll::Ready(durable) = durable.as_mut().poll(&mut context)
            && let Some((place, _)) = self.waiting.take()
            && durable
        {
            self.store(place);
        }
    }

    /// The source ends at `place` (`None`: at whatever was offered last): flushes and remembers it.
    pub(crate) async fn finish(mut self, place: Option<T>, publisher: &Publisher, drain: Duration) {
        if self.state.is_none() {
            return;
        }
        if publisher.flush(drain).await {
            match place {
                Some(place) => self.store(place),
                None => self.poll(),
            }
        } else {
            self.poll();
        }
    }

    /// Remembers a place before which there is nothing to wait for.
    pub(crate) fn store(&mut self, place: T) {
        let Some(state) = &self.state else { return };
        if self.stored.as_ref() == Some(&place) {
            return;
        }
        match state.store(&self.name, &place) {
            Ok(()) => self.stored = Some(place),
            Err(error) => {
                let path = state.path().display();
                tracing::warn!(%path, %error, "the place in a source could not be remembered");
            }
        }
    }
}
