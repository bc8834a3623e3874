//! Who waits for a document to come back from the broker.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// What became of a document that came back: taken up, or refused and why.
pub(crate) type Outcome = Result<(), String>;

/// Documents that are waited for, by topic without its root.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    waiting: Mutex<HashMap<String, Vec<Waiter>>>,
}

#[derive(Debug)]
struct Waiter {
    payload: Bytes,
    /// Who asked for it.
    by: Arc<str>,
    answer: oneshot::Sender<Outcome>,
}

impl Arrivals {
    /// To be called before the document is published for `by`. Who waits no longer drops the receiver.
    pub(crate) fn expect(
        &self,
        topic: &str,
        payload: Bytes,
        by: &Arc<str>,
    ) -> oneshot::Receiver<Outcome> {
        let (answer, receiver) = oneshot::channel();
        let mut waiting = self.waiting.lock();
        let waiters = waiting.entry(topic.to_owned()).or_default();
        waiters.retain(|waiter| !waiter.answer.is_closed());
        let by = Arc::clone(by);
        waiters.push(Waiter {
            payload,
            by,
            answer,
        });
        receiver
    }

    /// Who asked for a document, if somebody waits for it.
    pub(crate) fn who(&self, topic: &str, payload: &[u8]) -> Option<Arc<str>> {
        let waiting = self.waiting.lock();
        let mut waiters = waiting.get(topic)?.iter();
        let waiter = waiters.find(|waiter| waiter.payload == payload);
        waiter.map(|waiter| Arc::clone(&waiter.by))
    }

    /// A document came.
    pub(crate) fn arrived(&self, topic: &str, payload: &[u8], outcome: &Outcome) {
        self.settle(topic, |waiter| waiter.payload == payload, outcome);
    }

    /// Nobody waits for this topic any more.
    pub(crate) fn forget(&self, topic: &str) {
        self.settle(topic, |_| false, &Ok(()));
    }

    /// A complete set is there: `holds` says whether it has this document.
    pub(crate) fn complete(&self, holds: impl Fn(&str, &[u8]) -> bool) {
        let topics: Vec<String> = self.waiting.lock().keys().cloned().collect();
        for topic in topics {
            self.settle(&topic, |waiter| holds(&topic, &waiter.payload), &Ok(()));
        }
    }

    fn settle(&self, topic: &str, done: impl Fn(&Waiter) -> bool, outcome: &Outcome) {
        let mut waiting = self.waiting.lock();
        let Some(waiters) = waiting.remove(topic) else {
            return;
        };
        let (done, mut left): (Vec<Waiter>, Vec<Waiter>) = waiters.into_iter().partition(done);
        left.retain(|waiter| !waiter.answer.is_closed());
        if !left.is_empty() {
            waiting.insert(topic.to_owned(), left);
        }
        drop(waiting);
        for waiter in done {
            // Who gave up in the meantime has answered already.
            let _ = waiter.answer.send(outcome.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_document_itself_counts() {
        let arrivals = Arrivals::default();
        let mut first =
            arrivals.expect("config/default", Bytes::from_static(b"1"), &"alice".into());
        let mut second = arrivals.expect("config/default", Bytes::from_static(b"2"), &"bob".into());
        let who = arrivals.who("config/default", b"2");
        assert_eq!(who.as_deref(), Some("bob"));
        arrivals.arrived("config/default", b"1", &Ok(()));
        arrivals.arrived("config/device/a", b"2", &Ok(()));
        assert_eq!(first.try_recv(), Ok(Ok(())));
        assert!(second.try_recv().is_err());
        arrivals.complete(|topic, payload| topic == "config/default" && payload == b"2");
        assert_eq!(second.try_recv(), Ok(Ok(())));
    }

    #[test]
    fn who_gave_up_is_forgotten() {
        let arrivals = Arrivals::default();
        drop(arrivals.expect("config/default", Bytes::new(), &"alice".into()));
        arrivals.forget("config/default");
        assert!(arrivals.waiting.lock().is_empty());
    }
}
