//! Hands deliveries from a connection's task to the thread that works on them.
//!
//! The queue has no bound of its own: the connection's window bounds what can be in it, since it
//! stops reading while too much is unacknowledged. Lock once per bulk, not once per publish.

use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use super::Delivery;

/// A queue from one task to one thread.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct State {
    queue: Vec<Delivery>,
    generation: u64,
    poked: bool,
    closed: bool,
}

/// What the thread woke up for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Deliveries of this connection generation.
    Deliveries { generation: u64 },
    /// Nothing arrived: the deadline passed, or somebody poked.
    Nothing,
    /// The part stops; what was queued goes back to the broker.
    Closed,
}

impl Inbox {
    /// A new connection begins: what an older one left here will be sent again.
    pub(crate) fn begin(&self, generation: u64) {
        let mut state = self.state.lock();
        state.queue.clear();
        state.generation = generation;
    }

    /// Queues deliveries, leaving `items` empty.
    pub(crate) fn push(&self, items: &mut Vec<Delivery>) {
        let mut state = self.state.lock();
        if state.queue.is_empty() {
            std::mem::swap(&mut state.queue, items);
        } else {
            state.queue.append(items);
        }
        drop(state);
        self.wake.notify_one();
    }

    /// Wakes the thread without a delivery: a commit has ended, a report was acknowledged.
    pub(crate) fn poke(&self) {
        self.state.lock().poked = true;
        self.wake.notify_one();
    }

    /// Ends the queue. Nothing more is handed out.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.wake.notify_one();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// Waits until the queue is closed, at most until `deadline`; says whether it is.
    pub(crate) fn wait_closed(&self, deadline: Instant) -> bool {
        let mut state = self.state.lock();
        while !state.closed {
            if self.wake.wait_until(&mut state, deadline).timed_out() {
                break;
            }
        }
        state.closed
    }

    /// Swaps everything queued into `items` (which must be empty), waiting until `deadline`, or for
    /// ever without one.
    pub(crate) fn take(&self, items: &mut Vec<Delivery>, deadline: Option<Instant>) -> Taken {
        let mut state = self.state.lock();
        loop {
            if state.closed {
                return Taken::Closed;
            }
            if !state.queue.is_empty() {
                std::mem::swap(&mut state.queue, items);
                state.poked = false;
                return Taken::Deliveries {
                    generation: state.generation,
                };
            }
            if std::mem::take(&mut state.poked) {
                return Taken::Nothing;
            }
            let timed_out = match deadline {
                Some(deadline) => self.wake.wait_until(&mut state, deadline).timed_out(),
                None => {
                    self.wake.wait(&mut state);
                    false
                }
            };
            if timed_out && state.queue.is_empty() && !state.closed {
                state.poked = false;
                return Taken::Nothing;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use thinglog_schemas::{Topics, payload::Stamp};

    use super::super::names::TopicInfo;
    use super::*;

    fn delivery(number: u64) -> Delivery {
        let topic = Arc::new(TopicInfo::new(&Topics::default(), b"thinglog/logs/d/s"));
        Delivery {
            topic,
            payload: Bytes::new(),
            retain: false,
            stamp: Stamp::default(),
            number,
        }
    }

    #[test]
    fn a_bulk_arrives_in_order() {
        let inbox = Inbox::default();
        inbox.begin(3);
        inbox.push(&mut vec![delivery(0), delivery(1)]);
        inbox.push(&mut vec![delivery(2)]);
        let mut items = Vec::new();
        let taken = inbox.take(&mut items, None);
        assert_eq!(taken, Taken::Deliveries { generation: 3 });
        let numbers: Vec<u64> = items.iter().map(|item| item.number).collect();
        assert_eq!(numbers, [0, 1, 2]);
    }

    #[test]
    fn a_new_connection_forgets_what_the_old_one_queued() {
        let inbox = Inbox::default();
        inbox.push(&mut vec![delivery(0)]);
        inbox.begin(1);
        let mut items = Vec::new();
        assert_eq!(inbox.take(&mut items, Some(Instant::now())), Taken::Nothing);
        assert!(items.is_empty());
    }

    #[test]
    fn a_closed_inbox_hands_out_nothing() {
        let inbox = Arc::new(Inbox::default());
        inbox.push(&mut vec![delivery(0)]);
        inbox.close();
        let mut items = Vec::new();
        assert_eq!(inbox.take(&mut items, None), Taken::Closed);
        assert!(items.is_empty());
    }

    #[test]
    fn a_poke_wakes_a_waiting_thread() {
        let inbox = Arc::new(Inbox::default());
        let other = Arc::clone(&inbox);
        let waiting = std::thread::spawn(move || other.take(&mut Vec::new(), None));
        inbox.poke();
        assert_eq!(waiting.join().unwrap(), Taken::Nothing);
    }
}
